//! Test fixture: says what it finds in its statics and on its heap, then writes to all of them. A later call must find nothing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use witgate_filter::{Action, Request, reply_json};

static COUNTER: AtomicU32 = AtomicU32::new(0);
static LIST: Mutex<Vec<u32>> = Mutex::new(vec![]);
static TABLE: Mutex<[Option<fn() -> u32>; 4]> = Mutex::new([None; 4]);

fn one() -> u32 {
    1
}

fn on_request(_: &mut Request) -> Result<Action, String> {
    let mut list = LIST.lock().map_err(|error| error.to_string())?;
    let mut table = TABLE.lock().map_err(|error| error.to_string())?;
    let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
    let called: u32 = table.iter().flatten().map(|function| function()).sum();
    let found = format!("{{\"counter\":{counter},\"list\":{},\"table\":{called}}}", list.len());
    list.extend(0..10_000);
    table.fill(Some(one));
    Ok(reply_json(200, &found))
}

witgate_filter::filter!(request: on_request);

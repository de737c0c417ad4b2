//! A filter's calls to a key-value store that the gateway provides: one that waits, one that never
//! answers, one that cannot be reached.
//!
//! The guest is written by hand: it increments a counter once, and responds with status 200 plus
//! the sum, or with 503 and the text of the error. This test does not know: the gateway's stores.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::sync::Notify;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;
use witgate_http::error::FilterFailure;
use witgate_runtime::call::{self, Action, CallResult};
use witgate_runtime::compiler::{Compiler, Functions};
use witgate_runtime::component::describe;
use witgate_runtime::engine::Engine;
use witgate_runtime::exchange::{Exchange, Reply};
use witgate_runtime::filter::{Filter, Phase};
use witgate_runtime::keyvalue::{KeyValue, KeyValueError, Outcome};
use witgate_runtime::limiter::{Decision, LimiterError, Policy, RateLimiter};
use witgate_runtime::settings::{FilterSettings, Grant};

const TIMEOUT: Duration = Duration::from_secs(20);
const WORLD: &str = "package test:filter;
    world filter { import witgate:gateway/keyvalue@0.1.0; export witgate:gateway/request-handler@0.1.0; }";
/// Address 16 holds the key, 64 the result of `increment`, 128 that of the handler.
const GUEST: &str = r#"(module
  (import "witgate:gateway/keyvalue@0.1.0" "increment" (func $increment (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "k")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
  (func (export "witgate:gateway/request-handler@0.1.0#handle-request") (result i32)
    (call $increment (i32.const 16) (i32.const 1) (i32.const 1) (i32.const 0) (i32.const 64))
    (i32.store8 (i32.const 132) (i32.const 1))
    (if (i32.load8_u (i32.const 64))
      (then
        (i32.store16 (i32.const 136) (i32.const 503))
        (i32.store (i32.const 148) (i32.load (i32.const 72)))
        (i32.store (i32.const 152) (i32.load (i32.const 76))))
      (else (i32.store16 (i32.const 136) (i32.add (i32.const 200) (i32.load (i32.const 68))))))
    (i32.const 128)))"#;

#[test]
fn a_call_that_waits_for_its_store_does_not_block_the_thread() -> Result<()> {
    let filter = filter(SecondReleasesFirst::default())?;
    block_on(async {
        let (first, second) = tokio::join!(run(&filter, TIMEOUT), run(&filter, TIMEOUT));
        assert_eq!((reply(first)?.status.as_u16(), reply(second)?.status.as_u16()), (201, 202));
        Ok(())
    })
}

#[test]
fn a_call_whose_store_does_not_answer_ends_at_its_deadline() -> Result<()> {
    let filter = filter(SecondReleasesFirst::default())?;
    block_on(async {
        let failure = run(&filter, Duration::from_millis(20)).await.outcome.err();
        assert_eq!(failure.map(|failure| failure.kind), Some(FilterFailure::Deadline));
        Ok(())
    })
}

#[test]
fn a_guest_gets_the_error_of_a_store_that_cannot_be_reached() -> Result<()> {
    let filter = filter(Unreachable)?;
    block_on(async {
        let reply = reply(run(&filter, TIMEOUT).await)?;
        assert_eq!((reply.status.as_u16(), &*reply.body), (503, b"no route".as_slice()));
        Ok(())
    })
}

/// The first increment waits for the second.
#[derive(Default)]
struct SecondReleasesFirst {
    count: AtomicI32,
    released: Notify,
}

impl KeyValue for SecondReleasesFirst {
    fn get<'a>(&'a self, _: &'a str) -> Outcome<'a, Option<Vec<u8>>> {
        Outcome::Ready(Ok(None))
    }

    fn set<'a>(&'a self, _: &'a str, _: &'a [u8], _: Option<Duration>) -> Outcome<'a, ()> {
        Outcome::Ready(Ok(()))
    }

    fn delete<'a>(&'a self, _: &'a str) -> Outcome<'a, bool> {
        Outcome::Ready(Ok(false))
    }

    fn get_many<'a>(&'a self, _: &'a [String]) -> Outcome<'a, Vec<Option<Vec<u8>>>> {
        Outcome::Ready(Ok(vec![]))
    }

    fn compare_and_swap<'a>(
        &'a self,
        _: &'a str,
        _: Option<&'a [u8]>,
        _: &'a [u8],
        _: Option<Duration>,
    ) -> Outcome<'a, bool> {
        Outcome::Ready(Ok(false))
    }

    fn increment<'a>(&'a self, _: &'a str, _: i32, _: Option<Duration>) -> Outcome<'a, i32> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if count > 1 {
            self.released.notify_one();
            return Outcome::Ready(Ok(count));
        }
        Outcome::Pending(Box::pin(async move {
            self.released.notified().await;
            Ok(count)
        }))
    }
}

struct Unreachable;

impl Unreachable {
    fn error<'a, T>() -> Outcome<'a, T> {
        Outcome::Ready(Err(KeyValueError::Unavailable("no route".into())))
    }
}

impl KeyValue for Unreachable {
    fn get<'a>(&'a self, _: &'a str) -> Outcome<'a, Option<Vec<u8>>> {
        Self::error()
    }

    fn set<'a>(&'a self, _: &'a str, _: &'a [u8], _: Option<Duration>) -> Outcome<'a, ()> {
        Self::error()
    }

    fn delete<'a>(&'a self, _: &'a str) -> Outcome<'a, bool> {
        Self::error()
    }

    fn get_many<'a>(&'a self, _: &'a [String]) -> Outcome<'a, Vec<Option<Vec<u8>>>> {
        Self::error()
    }

    fn compare_and_swap<'a>(
        &'a self,
        _: &'a str,
        _: Option<&'a [u8]>,
        _: &'a [u8],
        _: Option<Duration>,
    ) -> Outcome<'a, bool> {
        Self::error()
    }

    fn increment<'a>(&'a self, _: &'a str, _: i32, _: Option<Duration>) -> Outcome<'a, i32> {
        Self::error()
    }
}

struct NoLimiter;

impl RateLimiter for NoLimiter {
    fn take<'a>(&'a self, _: &'a str, _: u32, _: &'a Policy) -> Outcome<'a, Decision, LimiterError> {
        Outcome::Ready(Err(LimiterError::TooLarge))
    }
}

#[derive(Debug)]
struct NoFunctions;

impl Functions for NoFunctions {
    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn insert(&self, _: &[u8], _: Vec<u8>) {}
}

fn filter(store: impl KeyValue + 'static) -> Result<Arc<Filter>> {
    let component = component()?;
    let fail = anyhow::Error::msg::<String>;
    let code = Compiler::new(Arc::new(NoFunctions)).and_then(|compiler| compiler.compile(&component)).map_err(fail)?;
    let engine = Engine::new(4).map_err(fail)?;
    // SAFETY: the bytes come from this program's compiler.
    #[allow(unsafe_code)]
    let artifact = unsafe { engine.deserialize(&code) }?;
    let settings = FilterSettings {
        name: "test".into(),
        timeout: TIMEOUT,
        memory_bytes: 1 << 20,
        body_bytes: 1 << 20,
        concurrency: 16,
        reuse: 1,
        grants: BTreeSet::from([Grant::KeyValue]),
        store: Arc::new(store),
        limiter: Arc::new(NoLimiter),
        http: None,
        keys: Arc::default(),
    };
    Ok(Arc::new(Filter::new(&engine, &artifact, describe(&component)?, settings)?))
}

fn component() -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit"))?;
    let package = resolve.push_str("test.wit", WORLD)?;
    let world = resolve.select_world(&[package], None)?;
    let mut module = wat::parse_str(GUEST)?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&module)?.validate(true).encode()
}

async fn run(filter: &Arc<Filter>, timeout: Duration) -> CallResult {
    call::run(filter, Phase::Request, Box::new(Exchange::blank()), &Arc::new(BTreeMap::new()), timeout).await
}

fn reply(result: CallResult) -> Result<Reply> {
    match result.outcome {
        Ok(Action::Answer(reply)) => Ok(reply),
        Ok(Action::Proceed) => bail!("the guest always responds"),
        Err(failure) => Err(anyhow!("{:?}: {}", failure.kind, failure.detail)),
    }
}

fn block_on(test: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(test)
}

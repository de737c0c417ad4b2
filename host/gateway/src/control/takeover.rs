//! Restart by a new process without losing a connection: the running gateway gives its listening sockets to the one that replaces it.
//!
//! ```text
//! new                                       old
//!  │── ask ────────────────────────────────▶│
//!  │◀──────────────── offer, every socket ──│   both hold the queues from here on
//!  │   compares addresses, loads filters,   │
//!  │   starts to accept                     │   serves on, whatever becomes of the new one
//!  │── take ───────────────────────────────▶│
//!  │◀────────────────────────── draining ───│   stops to accept, finishes what is in flight, exits 0
//! ```
//!
//! They meet at a socket in the state directory that only this user can reach. A new process that fails before it says `take` just closes its copies. What is
//! in memory is not passed on: key-value stores begin empty. Must not know: workers, connections.

mod wire;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use self::wire::{DESCRIPTORS_MAX, Door, Message, Offered, Peer, knock};
use super::sockets::{Group, Sockets};
use crate::process::private_folder::ensure_private_folder;
use witgate_config::Config;

const PROTOCOL: u32 = 1;
/// For an answer that needs no work.
const ANSWER: Duration = Duration::from_secs(10);
/// For the new process to load its filters: all may have to be compiled.
const LOADING: Duration = Duration::from_secs(600);
/// Sockets taken at most: workers × listeners of any sensible gateway.
const SOCKETS_MAX: usize = 16_384;

/// The gateway that is being replaced: it serves until it is dismissed.
pub struct Predecessor(Peer);

/// Takes the sockets over from the running gateway of the configuration's state directory; none where none is running. Refuses where
/// it listens at other addresses than the configuration says. The error is for the operator.
pub fn take_over(config: &Config) -> Result<Option<(Sockets, Predecessor)>, String> {
    let Some(peer) = knock(&config.state_dir).map_err(|why| format!("hand-over: {why}"))? else {
        tracing::info!(state = %config.state_dir.display(), "no gateway to take over from: starting as usual");
        return Ok(None);
    };
    let sockets = receive(&peer, config)
        .map_err(|why| format!("hand-over from process {}: {why}; it serves on", peer.process))?;
    tracing::info!(process = peer.process, "the listening sockets of the running gateway are here too");
    Ok(Some((sockets, Predecessor(peer))))
}

fn receive(peer: &Peer, config: &Config) -> Result<Sockets, String> {
    peer.send(&Message::Ask { protocol: PROTOCOL }, &[])?;
    let (listeners, admin) = match peer.receive(ANSWER)? {
        Some((Message::Offer { protocol: PROTOCOL, listeners, admin, .. }, _)) => (listeners, admin),
        Some((Message::Offer { protocol, .. }, _)) => {
            return Err(format!(
                "it speaks version {protocol} of the hand-over, this one {PROTOCOL}: stop it, then start without --takeover"
            ));
        }
        Some(_) => return Err("it answered out of turn".into()),
        None => return Err("it hung up".into()),
    };
    let total: usize = listeners.iter().chain(&admin).map(|offered| offered.sockets.min(SOCKETS_MAX)).sum();
    if total > SOCKETS_MAX {
        return Err(format!("it has {total} sockets, more than {SOCKETS_MAX}"));
    }
    let order = compare(&listeners, admin.as_ref(), config)?;
    let mut descriptors: Vec<OwnedFd> = vec![];
    while descriptors.len() < total {
        match peer.receive(ANSWER)? {
            Some((Message::Sockets, more)) if !more.is_empty() => descriptors.extend(more),
            _ => return Err(format!("it gave {} of {total} sockets", descriptors.len())),
        }
    }
    let mut descriptors = descriptors.into_iter();
    let mut group = |offered: &Offered| {
        let sockets: Vec<_> = descriptors.by_ref().take(offered.sockets).map(TcpListener::from).collect();
        for socket in &sockets {
            let address = socket.local_addr().map_err(|error| error.to_string())?;
            if address != offered.address {
                return Err(format!("a socket that should be at {} is at {address}", offered.address));
            }
        }
        let Offered { name, configured, address, .. } = offered.clone();
        Ok(Group { name, configured, address, sockets })
    };
    let mut groups: Vec<Option<Group>> =
        listeners.iter().map(|offered| group(offered).map(Some)).collect::<Result<_, String>>()?;
    let admin = admin.as_ref().map(group).transpose()?;
    let admin = admin.zip(config.admin).map(|(group, configured)| Group { configured, ..group });
    let listeners = config.listeners.iter().zip(order).filter_map(|(listener, at)| {
        // From here on the group is this configuration's.
        groups[at].take().map(|group| Group { name: listener.name.clone(), configured: listener.address, ..group })
    });
    Ok(Sockets { listeners: listeners.collect(), admin })
}

/// For each listener of the configuration the offered group that it is; else what differs.
fn compare(offered: &[Offered], admin: Option<&Offered>, config: &Config) -> Result<Vec<usize>, String> {
    let is = |offered: &Offered, address: SocketAddr| offered.configured == address || offered.address == address;
    let mut differences = vec![];
    let mut order = vec![];
    for listener in &config.listeners {
        match (0..offered.len()).find(|at| !order.contains(at) && is(&offered[*at], listener.address)) {
            Some(at) => order.push(at),
            None => differences
                .push(format!("the configuration has listener {} at {}, it has not", listener.name, listener.address)),
        }
    }
    for (at, offered) in offered.iter().enumerate() {
        if !order.contains(&at) {
            differences
                .push(format!("it has listener {} at {}, the configuration has not", offered.name, offered.address));
        }
    }
    let shown = |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let same_admin = match (admin, config.admin) {
        (None, None) => true,
        (Some(offered), Some(address)) => is(offered, address),
        _ => false,
    };
    if !same_admin {
        differences.push(format!(
            "its admin listener is {}, the configuration's is {}",
            shown(admin.map(|offered| offered.address)),
            shown(config.admin)
        ));
    }
    if differences.is_empty() {
        return Ok(order);
    }
    Err(format!(
        "{}: addresses cannot change in a hand-over; put them back, or restart without --takeover",
        differences.join("; ")
    ))
}

impl Predecessor {
    /// Tells it to drain. To be called when this gateway accepts.
    pub fn dismiss(self) {
        let Self(peer) = self;
        let told = peer.send(&Message::Take, &[]).and_then(|()| peer.receive(ANSWER));
        match told {
            Ok(Some((Message::Draining, _))) => {
                tracing::info!(process = peer.process, "took over; the gateway before drains");
            }
            Ok(_) => tracing::warn!(process = peer.process, "took over; the gateway before ended meanwhile"),
            Err(why) => {
                tracing::warn!(
                    process = peer.process,
                    why,
                    "took over, but the gateway before does not say that it drains"
                );
            }
        }
    }
}

/// This gateway's side of a future hand-over.
pub struct Offer {
    door: Arc<Door>,
    sockets: Arc<Mutex<Option<Sockets>>>,
}

impl Offer {
    /// Waits at the state directory's socket, on a thread of its own; `taken` becomes true when a new process has taken over. `replaces` says that
    /// this gateway just took over: the socket that it finds is that of the one before.
    pub fn new(state: &Path, sockets: Sockets, replaces: bool, taken: watch::Sender<bool>) -> Result<Self, String> {
        ensure_private_folder(state)?;
        if !replaces && let Some(other) = knock(state)? {
            return Err(format!("process {} runs with the same state directory", other.process));
        }
        let door = Arc::new(Door::open(state)?);
        let sockets = Arc::new(Mutex::new(Some(sockets)));
        let offer = Self { door: door.clone(), sockets: sockets.clone() };
        std::thread::Builder::new()
            .name("handover".into())
            .spawn(move || attend(&door, &sockets, &taken))
            .map_err(|error| error.to_string())?;
        Ok(offer)
    }

    /// Closes this gateway's copies of the sockets: nobody accepts from them any more.
    pub fn withdraw(&self) {
        self.door.close();
        drop(self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Waits until a new process has taken over.
pub async fn over(taken: &mut watch::Receiver<bool>) {
    // An error would mean that nobody can take over any more.
    if taken.wait_for(|taken| *taken).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn attend(door: &Door, sockets: &Mutex<Option<Sockets>>, taken: &watch::Sender<bool>) {
    while let Some(peer) = door.next() {
        let peer = match peer.and_then(|peer| give(&peer, sockets).map(|end| (peer, end))) {
            Ok((peer, End::Taken)) => peer,
            Ok((_, End::OnlyLooked)) => continue,
            Ok((peer, End::Left)) => {
                tracing::warn!(process = peer.process, "the new process did not start; this one serves on");
                continue;
            }
            Err(why) => {
                tracing::warn!(why, "a hand-over failed; this one serves on");
                continue;
            }
        };
        // Before the answer: from then on the new one alone accepts and is found.
        door.close();
        drop(sockets.lock().unwrap_or_else(PoisonError::into_inner).take());
        tracing::info!(process = peer.process, "a new process took over");
        taken.send_replace(true);
        if let Err(why) = peer.send(&Message::Draining, &[]) {
            tracing::warn!(why, "the new process took over and went away");
        }
        return;
    }
}

/// How a visit of another process ended.
enum End {
    /// It serves now.
    Taken,
    /// It did not start.
    Left,
    /// It wanted to know whether somebody is here.
    OnlyLooked,
}

/// Gives copies of all sockets and waits for what becomes of the new process.
fn give(peer: &Peer, sockets: &Mutex<Option<Sockets>>) -> Result<End, String> {
    match peer.receive(ANSWER)? {
        Some((Message::Ask { .. }, _)) => tracing::info!(process = peer.process, "a new process asks to take over"),
        None => return Ok(End::OnlyLooked),
        Some(_) => return Err("the new process spoke out of turn".into()),
    }
    {
        let held = sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sockets) = held.as_ref() else { return Err("this one drains already".into()) };
        offer(peer, sockets)?;
    }
    match peer.receive(LOADING)? {
        Some((Message::Take, _)) => Ok(End::Taken),
        Some(_) => Err("the new process spoke out of turn".into()),
        None => Ok(End::Left),
    }
}

fn offer(peer: &Peer, sockets: &Sockets) -> Result<(), String> {
    let offered = |group: &Group| Offered {
        name: group.name.clone(),
        configured: group.configured,
        address: group.address,
        sockets: group.sockets.len(),
    };
    let offer = Message::Offer {
        protocol: PROTOCOL,
        listeners: sockets.listeners.iter().map(offered).collect(),
        admin: sockets.admin.as_ref().map(offered),
    };
    peer.send(&offer, &[])?;
    let all: Vec<_> = sockets.listeners.iter().chain(&sockets.admin).flat_map(|group| &group.sockets).collect();
    for some in all.chunks(DESCRIPTORS_MAX) {
        let descriptors: Vec<_> = some.iter().map(|socket| socket.as_fd()).collect();
        peer.send(&Message::Sockets, &descriptors)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn config(listeners: &str) -> anyhow::Result<Config> {
        let text = format!("listeners: {listeners}\nupstreams: {{a: {{builtin: echo}}}}\nroutes: [{{upstream: a}}]\n");
        Config::parse(&text, "f", Path::new("/")).map_err(|errors| anyhow::anyhow!("{errors}"))
    }

    fn offered(address: &str) -> anyhow::Result<Offered> {
        let address = address.parse()?;
        Ok(Offered { name: "x".into(), configured: address, address, sockets: 1 })
    }

    #[test]
    fn what_differs_is_named() -> anyhow::Result<()> {
        let config = config("[{address: 127.0.0.1:1}, {name: b, address: 127.0.0.1:2}]")?;
        let (a, b, c) = (offered("127.0.0.1:1")?, offered("127.0.0.1:2")?, offered("127.0.0.1:3")?);
        let admin = offered("127.0.0.1:9901")?;
        assert_eq!(compare(&[b.clone(), a.clone()], Some(&admin), &config), Ok(vec![1, 0]), "the order may change");
        let why = compare(&[a, c], None, &config).err().unwrap_or_default();
        for expected in [
            "the configuration has listener b at 127.0.0.1:2, it has not",
            "it has listener x at 127.0.0.1:3, the configuration has not",
            "its admin listener is off, the configuration's is 127.0.0.1:9901",
        ] {
            assert!(why.contains(expected), "{expected} not in {why}");
        }
        Ok(())
    }

    #[test]
    fn sockets_pass_from_one_to_the_other() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let text = format!(
            "workers: 3\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nstate: {{directory: {}}}\nupstreams: {{a: {{builtin: echo}}}}\nroutes: [{{upstream: a}}]\n",
            folder.path().display()
        );
        let config = Config::parse(&text, "f", Path::new("/")).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let fail = anyhow::Error::msg;
        assert!(take_over(&config).map_err(fail)?.is_none(), "nobody is there");
        let bound = Sockets::bind(&config).map_err(fail)?;
        let addresses = bound.addresses();
        let (sender, mut taken) = watch::channel(false);
        let offer = Offer::new(folder.path(), bound, false, sender).map_err(fail)?;
        let other = Sockets::bind(&config).map_err(fail)?;
        assert!(Offer::new(folder.path(), other, false, watch::channel(false).0).is_err(), "one for a folder");

        let (received, predecessor) = take_over(&config).map_err(fail)?.context("somebody is there")?;
        assert_eq!((received.addresses(), received.listeners[0].sockets.len()), (addresses.clone(), 3));
        drop((received, predecessor));
        let (received, predecessor) = take_over(&config).map_err(fail)?.context("it serves on")?;
        assert!(!*taken.borrow_and_update());
        predecessor.dismiss();
        assert!(*taken.borrow_and_update());
        // Only the new one's copies keep the queue now.
        let client = std::net::TcpStream::connect(addresses[0].1)?;
        drop(received);
        assert!(take_over(&config).map_err(fail)?.is_none(), "the old one cannot be found any more");
        assert!(std::net::TcpStream::connect(addresses[0].1).is_err());
        drop((client, offer));
        Ok(())
    }
}

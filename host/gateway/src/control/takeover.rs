//! Restart without a lost connection: the running gateway passes its listening sockets to a new
//! process.
//!
//! ```text
//! new process                               running gateway
//!  │── ask ────────────────────────────────▶│
//!  │◀──────────────── offer, every socket ──│   from here on both have every socket
//!  │   compares addresses, loads filters,   │
//!  │   starts to accept                     │   keeps serving
//!  │── take ───────────────────────────────▶│
//!  │◀────────────────────────── draining ───│   stops accepting, finishes exchanges, exits with 0
//! ```
//!
//! The socket of the takeover is in the state directory, where only this user can connect. A new
//! process that fails before `take` just closes its copies. Memory is not passed on: key-value
//! stores start empty.
//!
//! This module does not know: workers, connections.

mod message;
mod offer;
mod wire;

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use tokio::sync::watch;

use self::message::{Message, OfferedListener, PROTOCOL};
pub use self::offer::TakeoverOffer;
use self::wire::{Peer, REPLY_TIMEOUT, connect};
use super::sockets::{ListenerSockets, Sockets};
use crate::net::listening::ListeningSocket;
use witgate_config::{Config, ListenAddress};

/// The maximum number of sockets: far above workers × listeners of a real gateway.
const SOCKETS_MAX: usize = 16_384;

/// Why a takeover failed. The running gateway keeps serving.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// The running gateway cannot be reached.
    #[error("takeover: {0}")]
    Connect(String),
    /// The running gateway cannot be taken over.
    #[error("takeover from process {process}: {why}; that process keeps serving")]
    Refused {
        /// Its process identifier.
        process: u32,
        /// What is wrong and what to do.
        why: String,
    },
}

/// The gateway that is being replaced. It serves until it is told to drain.
pub struct Predecessor(Peer);

/// Receives the sockets of the gateway that runs with the same state directory. `None` if none
/// runs.
///
/// # Errors
/// The running gateway listens on other addresses than the configuration, or does not answer.
pub fn take_over(config: &Config) -> Result<Option<(Sockets, Predecessor)>, TakeoverError> {
    let Some(peer) = connect(&config.state_dir).map_err(TakeoverError::Connect)? else {
        tracing::info!(state = %config.state_dir.display(), "no gateway to take over from: starting normally");
        return Ok(None);
    };
    let offer = match ask(&peer) {
        Ok(offer) => offer,
        Err(why) => {
            let (process, state) = (peer.process, config.state_dir.display());
            tracing::warn!(process, %state, why, "no gateway answers at the takeover socket: starting without it");
            return Ok(None);
        }
    };
    let sockets = receive(&peer, offer, config).map_err(|why| TakeoverError::Refused { process: peer.process, why })?;
    tracing::info!(process = peer.process, "received the listening sockets of the running gateway");
    Ok(Some((sockets, Predecessor(peer))))
}

fn receive(peer: &Peer, offer: Offer, config: &Config) -> Result<Sockets, String> {
    let Offer { protocol, listeners, admin } = offer;
    if protocol != PROTOCOL {
        return Err(format!(
            "it uses protocol {protocol} and this process {PROTOCOL}: stop it, then start without --takeover"
        ));
    }
    let order = compare(&listeners, admin.as_ref(), config)?;
    let count: usize = listeners.iter().chain(&admin).map(|offered| offered.sockets.min(SOCKETS_MAX)).sum();
    if count > SOCKETS_MAX {
        return Err(format!("it has {count} sockets, above the limit of {SOCKETS_MAX}"));
    }
    let mut descriptors = receive_descriptors(peer, count)?.into_iter();
    let mut take_sockets = |offered: &OfferedListener| listener_sockets(offered, &mut descriptors);
    let mut received: Vec<Option<ListenerSockets>> =
        listeners.iter().map(|offered| take_sockets(offered).map(Some)).collect::<Result<_, String>>()?;
    let admin = admin.as_ref().map(take_sockets).transpose()?;
    let admin = admin.zip(config.admin.address);
    let admin = admin.map(|(sockets, configured)| ListenerSockets { configured: configured.into(), ..sockets });
    let listeners = config.listeners.iter().zip(order).filter_map(|(listener, at)| {
        // Name and configured address are those of the new configuration.
        let sockets = received[at].take()?;
        Some(ListenerSockets { name: listener.name.clone(), configured: listener.address.clone(), ..sockets })
    });
    Ok(Sockets { listeners: listeners.collect(), admin })
}

/// What the running gateway offers.
struct Offer {
    protocol: u32,
    listeners: Vec<OfferedListener>,
    admin: Option<OfferedListener>,
}

/// Asks for the sockets. Fails if the other side is not a gateway.
fn ask(peer: &Peer) -> Result<Offer, String> {
    peer.send(&Message::Ask { protocol: PROTOCOL }, &[])?;
    match peer.receive(REPLY_TIMEOUT)? {
        Some((Message::Offer { protocol, listeners, admin }, _)) => Ok(Offer { protocol, listeners, admin }),
        Some(_) => Err("it sent an unexpected message".into()),
        None => Err("it closed the connection".into()),
    }
}

fn receive_descriptors(peer: &Peer, count: usize) -> Result<Vec<OwnedFd>, String> {
    let mut descriptors: Vec<OwnedFd> = vec![];
    while descriptors.len() < count {
        match peer.receive(REPLY_TIMEOUT)? {
            Some((Message::Sockets, more)) if !more.is_empty() => descriptors.extend(more),
            _ => return Err(format!("it sent {} of {count} sockets", descriptors.len())),
        }
    }
    Ok(descriptors)
}

/// Takes the sockets of one listener and checks their addresses.
fn listener_sockets(
    offered: &OfferedListener,
    descriptors: &mut impl Iterator<Item = OwnedFd>,
) -> Result<ListenerSockets, String> {
    let OfferedListener { name, configured, address, sockets } = offered;
    let (configured, address): (ListenAddress, ListenAddress) = (configured.parse()?, address.parse()?);
    let check = |descriptor: OwnedFd| match &address {
        ListenAddress::Tcp(expected) => {
            let socket = TcpListener::from(descriptor);
            match socket.local_addr().map_err(|error| error.to_string())? {
                found if found == *expected => Ok(ListeningSocket::Tcp(socket)),
                found => Err(format!("a socket of {expected} has the address {found}")),
            }
        }
        // The kernel knows the name that the file had when it was created.
        ListenAddress::Unix(_) => {
            let socket = UnixListener::from(descriptor);
            socket.local_addr().map_err(|error| error.to_string())?;
            Ok(ListeningSocket::Unix(socket))
        }
    };
    let sockets = descriptors.take(*sockets).map(check).collect::<Result<_, _>>()?;
    Ok(ListenerSockets { name: name.clone(), configured, address, sockets, unnamed: None })
}

/// The index of the offered listener for each listener of the configuration.
///
/// # Errors
/// Every difference, and what to do.
fn compare(
    offered: &[OfferedListener],
    admin: Option<&OfferedListener>,
    config: &Config,
) -> Result<Vec<usize>, String> {
    let is_at = |offered: &OfferedListener, address: &ListenAddress| {
        let address = address.to_string();
        offered.configured == address || offered.address == address
    };
    let mut differences = vec![];
    let mut order = vec![];
    for listener in &config.listeners {
        match (0..offered.len()).find(|at| !order.contains(at) && is_at(&offered[*at], &listener.address)) {
            Some(at) => order.push(at),
            None => differences.push(format!(
                "the configuration has listener {} at {}, the running gateway does not",
                listener.name, listener.address
            )),
        }
    }
    for (at, offered) in offered.iter().enumerate() {
        if !order.contains(&at) {
            differences.push(format!(
                "the running gateway has listener {} at {}, the configuration does not",
                offered.name, offered.address
            ));
        }
    }
    let shown = |address: Option<String>| address.unwrap_or_else(|| "off".to_owned());
    let same_admin = match (admin, config.admin.address.map(ListenAddress::Tcp)) {
        (None, None) => true,
        (Some(offered), Some(address)) => is_at(offered, &address),
        _ => false,
    };
    if !same_admin {
        differences.push(format!(
            "the admin listener of the running gateway is {}, that of the configuration is {}",
            shown(admin.map(|offered| offered.address.clone())),
            shown(config.admin.address.map(|address| address.to_string()))
        ));
    }
    if differences.is_empty() {
        return Ok(order);
    }
    Err(format!(
        "{}: a takeover cannot change addresses: put them back, or restart without --takeover",
        differences.join("; ")
    ))
}

impl Predecessor {
    /// Tells it to drain. Call this after this process started to accept.
    pub fn tell_to_drain(self) {
        let Self(peer) = self;
        let told = peer.send(&Message::Take, &[]).and_then(|()| peer.receive(REPLY_TIMEOUT));
        match told {
            Ok(Some((Message::Draining, _))) => {
                tracing::info!(process = peer.process, "took over; the previous gateway drains");
            }
            Ok(_) => tracing::warn!(process = peer.process, "took over; the previous gateway has exited"),
            Err(why) => {
                tracing::warn!(
                    process = peer.process,
                    why,
                    "took over, but the previous gateway does not confirm that it drains"
                );
            }
        }
    }
}

/// Waits for a takeover.
pub async fn wait_taken_over(taken_over: &mut watch::Receiver<bool>) {
    // An error means that no takeover is possible any more.
    if taken_over.wait_for(|taken_over| *taken_over).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::Context as _;

    use super::*;

    fn config(listeners: &str) -> anyhow::Result<Config> {
        let text = format!("listeners: {listeners}\nupstreams: {{a: {{builtin: echo}}}}\nroutes: [{{upstream: a}}]\n");
        Config::parse(&text, "f", Path::new("/")).map_err(|errors| anyhow::anyhow!("{errors}"))
    }

    fn offered(address: &str) -> anyhow::Result<OfferedListener> {
        Ok(OfferedListener { name: "x".into(), configured: address.into(), address: address.into(), sockets: 1 })
    }

    #[test]
    fn differences_of_addresses_are_named() -> anyhow::Result<()> {
        let config = config("[{address: 127.0.0.1:1}, {name: b, address: 127.0.0.1:2}]")?;
        let (a, b, c) = (offered("127.0.0.1:1")?, offered("127.0.0.1:2")?, offered("127.0.0.1:3")?);
        let admin = offered("127.0.0.1:9901")?;
        assert_eq!(compare(&[b.clone(), a.clone()], Some(&admin), &config), Ok(vec![1, 0]), "the order may change");
        let why = compare(&[a, c], None, &config).err().unwrap_or_default();
        for expected in [
            "the configuration has listener b at 127.0.0.1:2, the running gateway does not",
            "the running gateway has listener x at 127.0.0.1:3, the configuration does not",
            "the admin listener of the running gateway is off, that of the configuration is 127.0.0.1:9901",
        ] {
            assert!(why.contains(expected), "{expected} not in {why}");
        }
        Ok(())
    }

    #[test]
    fn sockets_pass_to_the_new_process() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let text = format!(
            "workers: 3\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nstate: {{directory: {}}}\nupstreams: {{a: {{builtin: echo}}}}\nroutes: [{{upstream: a}}]\n",
            folder.path().display()
        );
        let config = Config::parse(&text, "f", Path::new("/")).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let fail = anyhow::Error::msg;
        assert!(take_over(&config)?.is_none(), "no gateway runs");
        let bound = Sockets::bind(&config)?;
        bound.listen()?;
        let addresses = bound.addresses();
        let (sender, mut taken_over) = watch::channel(false);
        let offer = TakeoverOffer::new(folder.path(), bound, false, sender).map_err(fail)?;
        let other = Sockets::bind(&config)?;
        assert!(
            TakeoverOffer::new(folder.path(), other, false, watch::channel(false).0).is_err(),
            "one gateway for a directory"
        );

        let (received, predecessor) = take_over(&config)?.context("a gateway runs")?;
        assert_eq!((received.addresses(), received.listeners[0].sockets.len()), (addresses.clone(), 3));
        drop((received, predecessor));
        let (received, predecessor) = take_over(&config)?.context("it keeps serving")?;
        assert!(!*taken_over.borrow_and_update());
        predecessor.tell_to_drain();
        assert!(*taken_over.borrow_and_update());
        // The descriptors of the new process keep the queues.
        let address = addresses[0].1.tcp().context("it is an IP address")?;
        let client = std::net::TcpStream::connect(address)?;
        drop(received);
        assert!(take_over(&config)?.is_none(), "the old process does not listen for takeovers");
        assert!(std::net::TcpStream::connect(address).is_err());
        drop((client, offer));
        Ok(())
    }
}

//! The running gateway's side of a takeover.
//!
//! This module does not know: the new process's configuration.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::message::{Message, OfferedListener, PROTOCOL};
use super::wire::{DESCRIPTORS_MAX, Peer, REPLY_TIMEOUT, TakeoverListener, connect};
use crate::control::sockets::{ListenerSockets, Sockets};
use crate::process::private_folder::ensure_private_folder;

/// The timeout of the new process, which may have to compile all filters.
const LOADING_TIMEOUT: Duration = Duration::from_secs(600);

/// Offers the sockets of this gateway to a future process.
pub struct TakeoverOffer {
    listener: Arc<TakeoverListener>,
    sockets: Arc<Mutex<Option<Sockets>>>,
}

impl TakeoverOffer {
    /// Listens in the state directory, on a thread of its own. `taken_over` becomes true after a
    /// takeover. `replaces` says that this gateway just took over itself, so it may replace the
    /// socket of its predecessor.
    ///
    /// # Errors
    /// A message for the operator if the directory is not private or another gateway uses it.
    pub fn new(
        state: &Path,
        sockets: Sockets,
        replaces: bool,
        taken_over: watch::Sender<bool>,
    ) -> Result<Self, String> {
        ensure_private_folder(state)?;
        if !replaces && let Some(other) = connect(state)? {
            return Err(format!(
                "process {} uses the same state directory: set another state.directory",
                other.process
            ));
        }
        let listener = Arc::new(TakeoverListener::open(state)?);
        let sockets = Arc::new(Mutex::new(Some(sockets)));
        let offer = Self { listener: listener.clone(), sockets: sockets.clone() };
        std::thread::Builder::new()
            .name("takeover".into())
            .spawn(move || serve_takeovers(&listener, &sockets, &taken_over))
            .map_err(|error| error.to_string())?;
        Ok(offer)
    }

    /// Closes this gateway's descriptors of the sockets, and refuses later takeovers.
    pub fn close(&self) {
        self.listener.close();
        drop(self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn serve_takeovers(listener: &TakeoverListener, sockets: &Mutex<Option<Sockets>>, taken_over: &watch::Sender<bool>) {
    while let Some(peer) = listener.next() {
        let peer = match peer.and_then(|peer| hand_over(&peer, sockets).map(|outcome| (peer, outcome))) {
            Ok((peer, Outcome::TakenOver)) => peer,
            Ok((_, Outcome::Probed)) => continue,
            Ok((peer, Outcome::Abandoned)) => {
                tracing::warn!(process = peer.process, "the new process did not start; this one keeps serving");
                continue;
            }
            Err(why) => {
                tracing::warn!(why, "a takeover failed; this process keeps serving");
                continue;
            }
        };
        // After the reply the new process alone must accept and listen for takeovers.
        listener.close();
        drop(sockets.lock().unwrap_or_else(PoisonError::into_inner).take());
        tracing::info!(process = peer.process, "a new process took over");
        taken_over.send_replace(true);
        if let Err(why) = peer.send(&Message::Draining, &[]) {
            tracing::warn!(why, "the new process took over and closed the connection");
        }
        return;
    }
}

/// How a connection of another process ended.
enum Outcome {
    /// It serves and this process must drain.
    TakenOver,
    /// It failed to start.
    Abandoned,
    /// It only checked whether a gateway runs.
    Probed,
}

/// Sends all sockets and waits until the new process serves or fails.
fn hand_over(peer: &Peer, sockets: &Mutex<Option<Sockets>>) -> Result<Outcome, String> {
    match peer.receive(REPLY_TIMEOUT)? {
        Some((Message::Ask { .. }, _)) => tracing::info!(process = peer.process, "a new process asks to take over"),
        None => return Ok(Outcome::Probed),
        Some(_) => return Err("the new process sent an unexpected message".into()),
    }
    {
        let held = sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sockets) = held.as_ref() else { return Err("this process drains already".into()) };
        send_sockets(peer, sockets)?;
    }
    match peer.receive(LOADING_TIMEOUT)? {
        Some((Message::Take, _)) => Ok(Outcome::TakenOver),
        Some(_) => Err("the new process sent an unexpected message".into()),
        None => Ok(Outcome::Abandoned),
    }
}

fn send_sockets(peer: &Peer, sockets: &Sockets) -> Result<(), String> {
    let offered = |listener: &ListenerSockets| OfferedListener {
        name: listener.name.clone(),
        configured: listener.configured.to_string(),
        address: listener.address.to_string(),
        sockets: listener.sockets.len(),
    };
    let offer = Message::Offer {
        protocol: PROTOCOL,
        listeners: sockets.listeners.iter().map(offered).collect(),
        admin: sockets.admin.as_ref().map(offered),
    };
    peer.send(&offer, &[])?;
    let all: Vec<_> = sockets.listeners.iter().chain(&sockets.admin).flat_map(|listener| &listener.sockets).collect();
    for chunk in all.chunks(DESCRIPTORS_MAX) {
        let descriptors: Vec<_> = chunk.iter().map(|socket| socket.as_fd()).collect();
        peer.send(&Message::Sockets, &descriptors)?;
    }
    Ok(())
}

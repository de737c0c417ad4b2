//! The connection of a takeover: one message in each packet of a UNIX socket, with file descriptors
//! beside it.
//!
//! Packets (SOCK_SEQPACKET) keep a message and its descriptors together. Each side accepts only a
//! peer of its own user.
//!
//! This module does not know: what the descriptors are for.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::message::{MESSAGE_BYTES_MAX, Message};
use crate::process::private_folder::check_private_folder;

/// The timeout of replies that need no work.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum number of descriptors of one message. The kernel's limit is 253.
pub(super) const DESCRIPTORS_MAX: usize = 128;
const SOCKET: &str = "handover.sock";

/// A connection to the other process.
pub(super) struct Peer {
    socket: OwnedFd,
    /// The process identifier of the other side.
    pub(super) process: u32,
}

impl Peer {
    fn new(socket: OwnedFd) -> Result<Self, String> {
        let peer = socket_peercred(&socket).map_err(|error| error.to_string())?;
        if peer.uid != rustix::process::geteuid() {
            return Err(format!("the other side runs as user {}, not as this user: start both as one user", peer.uid));
        }
        Ok(Self { socket, process: peer.pid.as_raw_pid().unsigned_abs() })
    }

    pub(super) fn send(&self, message: &Message, descriptors: &[BorrowedFd]) -> Result<(), String> {
        let text = message.to_bytes()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(format!("{} descriptors do not fit one message", descriptors.len()));
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(&text)], &mut beside, SendFlags::NOSIGNAL)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    /// The next message. `None` if the other side closed the connection.
    ///
    /// # Errors
    /// No message within `limit`, or an invalid one.
    pub(super) fn receive(&self, limit: Duration) -> Result<Option<(Message, Vec<OwnedFd>)>, String> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(limit)).map_err(|error| error.to_string())?;
        let mut text = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut into = [IoSliceMut::new(&mut text)];
            match rustix::net::recvmsg(&self.socket, &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    return Err(format!("no message from the other side within {limit:?}"));
                }
                other => break other.map_err(|error| error.to_string())?,
            }
        };
        let descriptors = beside
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            })
            .flatten()
            .collect();
        if received.bytes == 0 {
            return Ok(None);
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err("a message was cut off: are there too few file descriptors (ulimit -n)?".into());
        }
        Message::parse(&text[..received.bytes]).map(|message| Some((message, descriptors)))
    }
}

/// The socket of a state directory, on which a gateway waits for takeovers.
pub(super) struct TakeoverListener(OwnedFd);

impl TakeoverListener {
    /// Creates the socket, and replaces an existing one.
    pub(super) fn open(folder: &Path) -> Result<Self, String> {
        let (_open, folder) = short_path(folder)?;
        let open = || -> std::io::Result<OwnedFd> {
            let socket = seqpacket()?;
            // The socket gets its name when it is ready: it is created under another name.
            let own = folder.join(format!(".{SOCKET}.{}", std::process::id()));
            let _ = std::fs::remove_file(&own);
            rustix::net::bind(&socket, &SocketAddrUnix::new(&own)?)?;
            std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            rustix::net::listen(&socket, 4)?;
            std::fs::rename(&own, folder.join(SOCKET))?;
            Ok(socket)
        };
        open().map(Self).map_err(|error| error.to_string())
    }

    /// Waits for a connection. `None` after [`close`](Self::close).
    pub(super) fn next(&self) -> Option<Result<Peer, String>> {
        loop {
            match rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC) {
                Ok(socket) => return Some(Peer::new(socket)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::INVAL) => return None,
                Err(error) => {
                    // For example the process is out of descriptors, which may change.
                    std::thread::sleep(Duration::from_secs(1));
                    return Some(Err(error.to_string()));
                }
            }
        }
    }

    /// Ends [`next`](Self::next), and refuses later connections.
    pub(super) fn close(&self) {
        // It fails only if the socket is closed already.
        let _ = rustix::net::shutdown(self.0.as_fd(), rustix::net::Shutdown::Both);
    }
}

/// Connects to the gateway of a state directory. `None` if no gateway of this user runs: whatever
/// another user put there is reported and not used.
pub(super) fn connect(folder: &Path) -> Result<Option<Peer>, String> {
    use rustix::io::Errno;
    if !folder.exists() {
        return Ok(None);
    }
    let not_used = |why: String| {
        tracing::warn!(state = %folder.display(), why, "the takeover socket is not used: starting without it");
        Ok(None)
    };
    if let Err(why) = check_private_folder(folder) {
        return not_used(why);
    }
    let (_open, reached) = short_path(folder)?;
    let open = || {
        let socket = seqpacket()?;
        // The timeout also bounds the connect: a socket that nobody accepts from has a full queue.
        set_socket_timeout(&socket, Timeout::Send, Some(REPLY_TIMEOUT))?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(reached.join(SOCKET))?)?;
        Ok(socket)
    };
    match open() {
        Ok(socket) => Peer::new(socket).map(Some).or_else(not_used),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        // A file of another kind, or a socket of another type or user: no gateway listens there.
        Err(error @ (Errno::NOTSOCK | Errno::PROTOTYPE | Errno::ACCESS | Errno::AGAIN | Errno::LOOP)) => {
            not_used(format!("{}: {error}", folder.join(SOCKET).display()))
        }
        Err(error) => Err(format!("{}: {error}", folder.join(SOCKET).display())),
    }
}

fn seqpacket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A short path of a folder, because the address of a UNIX socket has at most 107 bytes. The
/// descriptor must stay open while the path is used.
fn short_path(folder: &Path) -> Result<(OwnedFd, PathBuf), String> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd as _;
    let open = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    Ok((open, path))
}

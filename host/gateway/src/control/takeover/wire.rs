//! What two gateways say to each other during a hand-over: one JSON message per packet of a UNIX socket, with file descriptors beside it.
//!
//! Packets (SOCK_SEQPACKET) keep messages and their descriptors together. Either side only believes a peer of its own user. Must not know: what the sockets are for.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};

/// Descriptors beside one message; the kernel's limit is 253.
pub(super) const DESCRIPTORS_MAX: usize = 128;
const MESSAGE_BYTES_MAX: usize = 128 << 10;
const SOCKET: &str = "handover.sock";

/// In the order in which they are said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub(super) enum Message {
    /// New to old: what do you have?
    Ask {
        /// The version of these messages.
        protocol: u32,
    },
    /// Old to new: this, in the messages that follow.
    Offer { protocol: u32, listeners: Vec<Offered>, admin: Option<Offered> },
    /// Old to new, repeatedly: the next sockets, listener by listener, the admin listener last.
    Sockets,
    /// New to old: I serve, drain.
    Take,
    /// Old to new: I do.
    Draining,
}

/// A group of sockets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Offered {
    pub(super) name: String,
    pub(super) configured: SocketAddr,
    pub(super) address: SocketAddr,
    pub(super) sockets: usize,
}

/// One side of a hand-over.
pub(super) struct Peer {
    socket: OwnedFd,
    /// The other side's process.
    pub(super) process: u32,
}

impl Peer {
    fn new(socket: OwnedFd) -> Result<Self, String> {
        let peer = socket_peercred(&socket).map_err(|error| error.to_string())?;
        if peer.uid != rustix::process::geteuid() {
            return Err(format!("the other side runs as user {}, not as this one: it is not believed", peer.uid));
        }
        Ok(Self { socket, process: peer.pid.as_raw_pid().unsigned_abs() })
    }

    pub(super) fn send(&self, message: &Message, descriptors: &[BorrowedFd]) -> Result<(), String> {
        let text = serde_json::to_vec(message).map_err(|error| error.to_string())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(format!("{} descriptors do not fit one message", descriptors.len()));
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(&text)], &mut beside, SendFlags::NOSIGNAL)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    /// The next message, waited for at most `limit`; none when the other side is gone.
    pub(super) fn receive(&self, limit: Duration) -> Result<Option<(Message, Vec<OwnedFd>)>, String> {
        set_socket_timeout(&self.socket, Timeout::Recv, Some(limit)).map_err(|error| error.to_string())?;
        let mut text = vec![0; MESSAGE_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut into = [IoSliceMut::new(&mut text)];
            match rustix::net::recvmsg(&self.socket, &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(format!("no word from the other side for {limit:?}")),
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
        let message = serde_json::from_slice(&text[..received.bytes]);
        message.map(|message| Some((message, descriptors))).map_err(|error| format!("not a message: {error}"))
    }
}

/// A socket at which the gateway of a folder can be asked.
pub(super) struct Door(OwnedFd);

impl Door {
    /// Puts the socket into the folder, in the place of any that is there.
    pub(super) fn open(folder: &Path) -> Result<Self, String> {
        let (_open, folder) = reach(folder)?;
        let open = || -> std::io::Result<OwnedFd> {
            let socket = seqpacket()?;
            // Ready before it can be found: made under a name of its own, then renamed.
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

    /// Waits for a peer; none when the door was closed.
    pub(super) fn next(&self) -> Option<Result<Peer, String>> {
        loop {
            match rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC) {
                Ok(socket) => return Some(Peer::new(socket)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::INVAL) => return None,
                Err(error) => {
                    // Out of descriptors, perhaps: not for ever.
                    std::thread::sleep(Duration::from_secs(1));
                    return Some(Err(error.to_string()));
                }
            }
        }
    }

    /// Ends `next`, and who asks from now on finds nobody.
    pub(super) fn close(&self) {
        // It fails only where there is nothing to close.
        let _ = rustix::net::shutdown(self.0.as_fd(), rustix::net::Shutdown::Both);
    }
}

/// Asks at the folder's socket; none where no gateway is behind it.
pub(super) fn knock(folder: &Path) -> Result<Option<Peer>, String> {
    use rustix::io::Errno;
    if !folder.exists() {
        return Ok(None);
    }
    let (_open, reached) = reach(folder)?;
    let connect = || {
        let socket = seqpacket()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(reached.join(SOCKET))?)?;
        Ok(socket)
    };
    match connect() {
        Ok(socket) => Peer::new(socket).map(Some),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(format!("{}: {error}", folder.join(SOCKET).display())),
    }
}

fn seqpacket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// A short path to a folder: a UNIX socket's address has room for 107 bytes.
fn reach(folder: &Path) -> Result<(OwnedFd, PathBuf), String> {
    use rustix::fs::{Mode, OFlags};
    use std::os::fd::AsRawFd as _;
    let open = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
    Ok((open, path))
}

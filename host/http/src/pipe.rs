//! Pipes that move the bytes of long bodies from socket to socket inside of the kernel
//! (`splice(2)`).
//!
//! Gain: a long body between two sockets without TLS is not copied, neither out of the kernel nor
//! back into it, which saves a quarter of its processor time or more. Price: two descriptors for
//! each pipe, and up to [`PIPE_BYTES`] in the kernel for a peer that reads slowly. So each thread
//! has at most [`PIPES_MAX`] in use. Without a free one, a body is read through buffers.
//!
//! This module does not know: bodies, messages.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};

use crate::limiter::{Limiter, Permit};

/// The size of a pipe.
pub const PIPE_BYTES: usize = 1 << 20;
/// A pipe that the kernel gives fewer bytes saves nothing. The kernel does so once the pipes of a
/// user exceed `/proc/sys/fs/pipe-user-pages-soft`.
const PIPE_BYTES_MIN: usize = 256 << 10;
/// Pipes of one thread whose bytes have not been sent.
const PIPES_MAX: usize = 16;
/// Empty pipes that a thread keeps.
const FREE_MAX: usize = 2;

/// The pipes of one thread.
#[derive(Default)]
struct Pool {
    in_use: Limiter,
    free: Vec<Ends>,
    /// The kernel refused a pipe: the thread does not ask again.
    is_refused: bool,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// The two descriptors of a pipe.
#[derive(Debug)]
struct Ends {
    reader: OwnedFd,
    writer: OwnedFd,
}

/// A pipe and the number of bytes in it. An empty one goes back to its thread when it is dropped.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    bytes: usize,
    _permit: Permit,
}

impl Pipe {
    /// Takes an empty pipe, if the thread may use one more.
    pub fn take() -> Option<Self> {
        POOL.with_borrow_mut(|pool| {
            if pool.is_refused {
                return None;
            }
            let permit = pool.in_use.try_acquire(PIPES_MAX).ok()?;
            let ends = pool.free.pop().or_else(open);
            pool.is_refused = ends.is_none();
            Some(Self { ends: Some(ends?), bytes: 0, _permit: permit })
        })
    }

    /// The number of bytes in the pipe.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the pipe holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Moves at most `bytes_max` from the socket into the pipe, which is empty, without waiting.
    /// Returns the number of bytes; 0 means end of stream.
    pub fn fill(&mut self, socket: impl AsFd, bytes_max: usize) -> io::Result<usize> {
        let Some(Ends { writer, .. }) = &self.ends else { return Ok(0) };
        let moved = splice(socket, None, writer, None, bytes_max.min(PIPE_BYTES), flags())?;
        self.bytes += moved;
        Ok(moved)
    }

    /// Moves bytes from the pipe to the socket, without waiting, and returns their number.
    pub fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let Some(Ends { reader, .. }) = &self.ends else { return Ok(0) };
        let moved = splice(reader, None, socket, None, self.bytes, flags())?;
        self.bytes -= moved;
        Ok(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.bytes == 0) else { return };
        // The pipe may be dropped after the pool of its thread.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.free.len() < FREE_MAX
            {
                pool.free.push(ends);
            }
        });
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

/// Opens a pipe. None if the kernel refuses it or makes it too small.
fn open() -> Option<Ends> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
    // If this fails, the pipe keeps its size.
    let _ = fcntl_setpipe_size(&writer, PIPE_BYTES);
    (fcntl_getpipe_size(&writer).ok()? >= PIPE_BYTES_MIN).then_some(Ends { reader, writer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    fn connection() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((client, listener.accept()?.0))
    }

    #[test]
    fn bytes_pass_from_socket_to_socket() -> io::Result<()> {
        let (mut sender, from) = connection()?;
        let (to, mut receiver) = connection()?;
        from.set_nonblocking(true)?;
        let Some(mut pipe) = Pipe::take() else { panic!("all pipes are free") };
        assert_eq!(pipe.fill(&from, 9).map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        sender.write_all(b"body and the next message")?;
        assert_eq!((pipe.fill(&from, 4)?, pipe.len()), (4, 4));
        assert_eq!((pipe.drain(&to)?, pipe.is_empty()), (4, true));
        let mut received = [0; 4];
        receiver.read_exact(&mut received)?;
        assert_eq!(&received, b"body");
        drop(pipe);
        assert_eq!(POOL.with_borrow(|pool| pool.free.len()), 1);
        Ok(())
    }

    #[test]
    fn a_thread_has_a_bounded_number_of_pipes_and_keeps_no_bytes() -> io::Result<()> {
        let (mut sender, from) = connection()?;
        sender.write_all(b"kept")?;
        let mut pipes: Vec<_> = std::iter::from_fn(Pipe::take).collect();
        assert_eq!(pipes.len(), PIPES_MAX);
        assert_eq!(pipes[0].fill(&from, 4)?, 4);
        drop(pipes);
        assert_eq!(POOL.with_borrow(|pool| (pool.in_use.in_use(), pool.free.len())), (0, FREE_MAX));
        assert!(Pipe::take().is_some_and(|pipe| pipe.is_empty()));
        Ok(())
    }
}

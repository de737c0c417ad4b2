//! The state of one HTTP/1.1 connection to a client: its buffers, its rate limits and the body of
//! the current request.
//!
//! The connection's loop (`h1.rs`) and the request body that the exchange gets share this state. An
//! exchange may drop the body unread, and the connection must still know where the next request
//! begins. All of it runs in one task, so two borrows never overlap. This module does not know:
//! routes, filters, upstreams.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};

use crate::net::Stream;
use crate::server::worker::ConnectionSettings;
use witgate_config::HalfClose;
use witgate_http::body::{PolledFrame, PolledPipe, Source};
use witgate_http::error::{Error, Kind};
use witgate_http::h1::Framing;
use witgate_http::h1::incoming::{IncomingBody, ReceiveError, Received};
use witgate_http::h1::io::{BufferedIo, LongPart};
use witgate_http::throughput::{Throughput, Timer};

/// Bytes that are read ahead while an exchange runs: pipelined requests and the start of bodies.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;
/// Bytes of an unread request body that are discarded, so that the connection can be reused.
pub(super) const DISCARD_BYTES_MAX: usize = 256 << 10;
/// With `half_close: cancel`, how long an exchange goes on after the client's FIN: long enough for
/// an answer that needs no slow upstream, and short enough that an upstream hardly works for a
/// client that is gone.
const HALF_CLOSE_GRACE: Duration = Duration::from_millis(50);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection that its loop and the body of its current request share.
pub(super) type SharedConn = Rc<RefCell<Http1Conn>>;

/// One connection to a client.
pub(super) struct Http1Conn {
    pub(super) io: BufferedIo<Stream>,
    /// Whether `100 Continue` must be sent before the gateway waits for the body.
    pub(super) owes_continue: bool,
    /// Set once the protocol changed: how long the tunnel may be silent in both directions.
    pub(super) tunnel_idle: Option<Duration>,
    /// Whether TLS holds written bytes back because the socket is full.
    is_unflushed: bool,
    /// The last time that the tunnel carried bytes.
    last_active: Option<Instant>,
    pub(super) settings: ConnectionSettings,
    body: IncomingBody,
    sending: Throughput,
    write_timer: Timer,
    half_close: HalfClose,
    /// Set once the client has closed its sending direction while a request is served.
    half_closed: Option<HalfClosed>,
}

/// A client that has closed its sending direction and may still read.
struct HalfClosed {
    since: Instant,
    timer: Timer,
}

impl Http1Conn {
    /// `input` was read from `io` before. `timer` may be armed.
    pub(super) fn new(
        io: Stream,
        input: BytesMut,
        timer: Timer,
        settings: ConnectionSettings,
        half_close: HalfClose,
    ) -> Self {
        Self {
            io: BufferedIo { timer, ..BufferedIo::new(io, input) },
            owes_continue: false,
            tunnel_idle: None,
            is_unflushed: false,
            last_active: None,
            settings,
            body: IncomingBody::default(),
            sending: Throughput::default(),
            write_timer: Timer::default(),
            half_close,
            half_closed: None,
        }
    }

    /// Starts a request whose head was parsed; its body comes next.
    pub(super) fn begin(&mut self, framing: Framing, expects_continue: bool) {
        self.body = IncomingBody::new(framing);
        self.owes_continue = expects_continue;
        self.sending = Throughput::default();
        self.half_closed = None;
    }

    /// Whether the unread part of the request's body is too large to discard.
    pub(super) fn exceeds_discard_limit(&self) -> bool {
        self.body.size_hint().lower() > DISCARD_BYTES_MAX as u64
    }

    /// Cancels a protocol change that the upstream did not agree to: the request had no body.
    pub(super) fn cancel_upgrade(&mut self) {
        if self.body.is_until_close() {
            self.body = IncomingBody::default();
        }
    }

    /// Whether the current request was read to its end.
    pub(super) fn has_read_body(&self) -> bool {
        self.body.is_done()
    }

    /// Whether bytes wait to be sent.
    pub(super) fn owes_output(&self) -> bool {
        !self.io.output.is_empty() || self.is_unflushed
    }

    /// Ready when the client is gone: it has reset the connection, or has closed its sending
    /// direction and `half_close` gives it no more time. Bytes that arrive before go to the input
    /// buffer, up to a bound.
    pub(super) fn poll_disconnect(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // The rest of a long body stays in the socket, until it can be read without a copy.
        let is_long = self.body.certain_bytes() > READ_AHEAD_BYTES_MAX as u64 && !self.body.is_until_close();
        let bytes_max = if is_long { 1 } else { READ_AHEAD_BYTES_MAX };
        while self.half_closed.is_none() && self.io.input.len() < bytes_max {
            match ready!(self.io.poll_fill(context)) {
                Ok(0) => self.half_closed = Some(HalfClosed { since: Instant::now(), timer: Timer::default() }),
                Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        match (&mut self.half_closed, self.half_close) {
            (Some(HalfClosed { since, timer }), HalfClose::Cancel) => {
                timer.poll_until(context, *since + HALF_CLOSE_GRACE)
            }
            // A write shows whether the client is still there.
            _ => Poll::Pending,
        }
    }

    /// Sends the output buffer, then `more`. Fails if the client receives less than
    /// the minimum rate.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>, more: &mut LongPart) -> Poll<io::Result<()>> {
        let mut written = 0;
        let sent = self.io.poll_write(context, more, &mut written);
        if written > 0 {
            self.sending.progressed(written);
            self.last_active = self.tunnel_idle.map(|_| Instant::now());
        }
        match sent {
            Poll::Ready(result) => {
                self.is_unflushed = false;
                self.sending.progressed(0);
                Poll::Ready(result)
            }
            Poll::Pending => {
                self.is_unflushed = self.io.output.is_empty() && more.is_empty();
                self.poll_write_timeout(context).map(Err)
            }
        }
    }

    /// Ready when the client receives less than the minimum rate.
    fn poll_write_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = self.sending.deadline(&self.settings.send);
        let timeout = self.write_timer.poll_until(context, deadline);
        timeout.map(|()| {
            io::Error::new(io::ErrorKind::TimedOut, "the client receives less than limits.min_bytes_per_second")
        })
    }

    /// The next frame of the current request's body.
    pub(super) fn poll_body(&mut self, context: &mut Context<'_>) -> PolledFrame {
        let received = match self.body.take_frame(&mut self.io.input) {
            Some(received) => received,
            None => {
                self.send_owed(context)?;
                ready!(self.poll_receive(context))
            }
        };
        if self.tunnel_idle.is_some() {
            self.last_active = Some(Instant::now());
        }
        Poll::Ready(received.map_err(client_error).transpose())
    }

    /// The next bytes of the current request's body in a pipe, where that is possible.
    fn poll_pipe(&mut self, context: &mut Context<'_>) -> Option<PolledPipe> {
        if !self.body.can_fill_pipe(&self.io) {
            return None;
        }
        if let Err(error) = self.send_owed(context) {
            return Some(Poll::Ready(Err(error)));
        }
        let receive_rate = &self.settings.receive;
        let polled = self.body.poll_pipe(&mut self.io, context, |receiving| Some(receiving.deadline(receive_rate)))?;
        Some(polled.map_err(client_error))
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Received> {
        let tunnel_deadline = self.last_active.zip(self.tunnel_idle).map(|(active, idle)| active + idle);
        let receive_rate = &self.settings.receive;
        self.body.poll_frame(&mut self.io, context, |receiving| {
            Some(tunnel_deadline.unwrap_or_else(|| receiving.deadline(receive_rate)))
        })
    }

    /// Sends what the client may wait for before it sends more. If the socket is full, the next
    /// write sends it: it is only a few bytes.
    fn send_owed(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        if std::mem::take(&mut self.owes_continue) {
            self.io.output.extend_from_slice(CONTINUE);
        }
        if self.owes_output()
            && let Poll::Ready(Err(error)) = self.poll_send(context, &mut LongPart::None)
        {
            return Err(client_error(ReceiveError::Io(error)));
        }
        Ok(())
    }
}

/// Converts an error of the client's connection.
fn client_error(error: ReceiveError) -> Error {
    match error {
        ReceiveError::Invalid(error) => error,
        ReceiveError::Closed => {
            Error::new(Kind::ClientGone, "the client closed the connection before the end of the request body")
        }
        ReceiveError::TooSlow => {
            let detail = "the request body arrived too slowly (timeouts.request_body, limits.min_bytes_per_second)";
            Error::new(Kind::ClientTimeout, detail)
        }
        ReceiveError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            Error::new(Kind::ClientTimeout, error.to_string())
        }
        ReceiveError::Io(error) => Error::new(Kind::ClientGone, format!("the request body ended early: {error}")),
    }
}

/// The body of a connection's current request.
pub(super) struct RequestBody(pub(super) SharedConn);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.borrow_mut().poll_body(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.borrow().body.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.borrow().body.size_hint()
    }
}

impl Source for RequestBody {
    fn poll_pipe(self: Pin<&mut Self>, context: &mut Context<'_>) -> Option<PolledPipe> {
        self.0.borrow_mut().poll_pipe(context)
    }

    fn can_have_trailers(&self) -> bool {
        self.0.borrow().body.can_have_trailers()
    }
}

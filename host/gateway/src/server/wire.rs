//! One HTTP/1.1 connection to a client, as bytes: what has arrived, what is to be sent, and where the body of the present request ends.
//!
//! Shared by the connection's loop (`http1.rs`) and the request body that it hands to the exchange, which is why the state of the body lives here: an exchange may drop the
//! body unread, and the connection must still know what follows. Everything runs in one task, so a borrow never meets another. Must not know: routes, filters,
//! upstreams.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::io::AsyncWrite as _;

use crate::net::Stream;
use witgate_http::error::{Error, Kind};
use witgate_http::h1::Framing;
use witgate_http::h1::chunked::{Decoder, Step};
use witgate_http::throughput::{Demand, Pace, Timer};

/// What is read ahead of the exchange: pipelined requests and the begin of bodies.
const INPUT_BYTES_MAX: usize = 64 << 10;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A connection that its loop and the body of its present request share.
pub(super) type Shared = Rc<RefCell<Wire>>;

/// The connection's bytes.
pub(super) struct Wire {
    pub(super) io: Stream,
    pub(super) input: BytesMut,
    pub(super) output: BytesMut,
    pub(super) timer: Timer,
    /// Whether `100 Continue` is owed before the body may be waited for.
    pub(super) owes_continue: bool,
    /// Set once the protocol changed: how long neither side may be silent.
    pub(super) tunnel_idle: Option<Duration>,
    /// What was written is held back by TLS, since the socket was full.
    is_unflushed: bool,
    active: Option<Instant>,
    receive: Demand,
    send: Demand,
    body: Incoming,
    reading: Pace,
    sending: Pace,
    sending_timer: Timer,
}

/// What is left of the present request's body.
enum Incoming {
    Done,
    Length(u64),
    Chunked(Decoder),
    /// After `101 Switching Protocols`: whatever comes, until the client ends.
    Raw,
}

impl Wire {
    pub(super) fn new(io: Stream, input: BytesMut, receive: Demand, send: Demand) -> Self {
        Self {
            io,
            input,
            output: BytesMut::new(),
            timer: Timer::default(),
            owes_continue: false,
            tunnel_idle: None,
            is_unflushed: false,
            active: None,
            receive,
            send,
            body: Incoming::Done,
            reading: Pace::default(),
            sending: Pace::default(),
            sending_timer: Timer::default(),
        }
    }

    /// A request's head was taken: its body is next.
    pub(super) fn begin(&mut self, framing: Framing, expects_continue: bool) {
        self.body = match framing {
            Framing::Length(length) => Incoming::Length(length),
            Framing::Chunked => Incoming::Chunked(Decoder::new()),
            Framing::UntilClose => Incoming::Raw,
            Framing::None => Incoming::Done,
        };
        self.owes_continue = expects_continue;
        self.reading = Pace::default();
        self.sending = Pace::default();
    }

    /// The protocol does not change after all: the request had no body.
    pub(super) fn stay(&mut self) {
        if matches!(self.body, Incoming::Raw) {
            self.body = Incoming::Done;
        }
    }

    /// Whether the present request was read to its end.
    pub(super) fn has_read_body(&self) -> bool {
        match &self.body {
            Incoming::Done => true,
            Incoming::Length(_) | Incoming::Raw => false,
            Incoming::Chunked(decoder) => decoder.is_done(),
        }
    }

    /// Reads ahead while nobody else reads; ready when the client is gone. What it sends meanwhile waits in `input`, up to a bound.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.input.len() < INPUT_BYTES_MAX {
            match ready!(self.io.poll_fill(context, &mut self.input)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Sends what is in `output`, then `more`. An error where the client takes too little for too long.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>, more: &mut Bytes) -> Poll<io::Result<()>> {
        while !self.output.is_empty() || !more.is_empty() {
            let io = Pin::new(&mut self.io);
            let written = if more.is_empty() {
                io.poll_write(context, &self.output)
            } else if self.output.is_empty() {
                io.poll_write(context, more)
            } else {
                io.poll_write_vectored(context, &[io::IoSlice::new(&self.output), io::IoSlice::new(more)])
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.sending.progressed(written);
                    self.active = self.tunnel_idle.map(|_| Instant::now());
                    let own = written.min(self.output.len());
                    self.output.advance(own);
                    more.advance(written - own);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.poll_stuck(context).map(Err),
            }
        }
        // TLS takes more than the socket does: what it holds back is waited for as the rest is.
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.is_unflushed = flushed.is_pending();
        if self.is_unflushed {
            return self.poll_stuck(context).map(Err);
        }
        self.sending.progressed(0);
        flushed
    }

    /// Whether something waits to be sent.
    pub(super) fn owes_output(&self) -> bool {
        !self.output.is_empty() || self.is_unflushed
    }

    /// The client takes nothing at the moment: ready once that was so for too long.
    fn poll_stuck(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = self.sending.deadline(&self.send);
        let late = self.sending_timer.poll_until(context, deadline);
        late.map(|()| io::Error::new(io::ErrorKind::TimedOut, "the client takes too little"))
    }

    /// The next part of the present request's body.
    pub(super) fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match self.take_body() {
                Ok(Step::More) => {}
                Ok(Step::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Step::End(trailers)) if trailers.is_empty() => return Poll::Ready(None),
                Ok(Step::End(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if std::mem::take(&mut self.owes_continue) {
                self.output.extend_from_slice(CONTINUE);
            }
            // What is owed must be out before the client can be waited for; it is a few bytes, and sent on with the next ones where the socket is full.
            if self.owes_output()
                && let Poll::Ready(Err(error)) = self.poll_send(context, &mut Bytes::new())
            {
                return Poll::Ready(Some(Err(gone(&error))));
            }
            match self.io.poll_fill(context, &mut self.input) {
                Poll::Ready(Ok(0)) if matches!(self.body, Incoming::Raw) => {
                    self.body = Incoming::Done;
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Some(Err(Error::new(Kind::ClientGone, "the request body broke off"))));
                }
                Poll::Ready(Ok(read)) => {
                    self.reading.progressed(read);
                    self.active = self.tunnel_idle.map(|_| Instant::now());
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(gone(&error)))),
                Poll::Pending => {
                    let deadline = match (self.active, self.tunnel_idle) {
                        (Some(active), Some(idle)) => active + idle,
                        _ => self.reading.deadline(&self.receive),
                    };
                    ready!(self.timer.poll_until(context, deadline));
                    return Poll::Ready(Some(Err(Error::new(Kind::ClientTimeout, "the request body came too slowly"))));
                }
            }
        }
    }

    fn take_body(&mut self) -> Result<Step, Error> {
        match &mut self.body {
            Incoming::Done => Ok(Step::End(http::HeaderMap::new())),
            Incoming::Chunked(decoder) => decoder.step(&mut self.input),
            Incoming::Length(_) | Incoming::Raw if self.input.is_empty() => Ok(Step::More),
            Incoming::Raw => Ok(Step::Data(self.input.split().freeze())),
            Incoming::Length(left) => {
                let take = self.input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                if *left == 0 {
                    self.body = Incoming::Done;
                }
                Ok(Step::Data(self.input.split_to(take).freeze()))
            }
        }
    }
}

fn gone(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => Error::new(Kind::ClientTimeout, error.to_string()),
        _ => Error::new(Kind::ClientGone, format!("the request body broke off: {error}")),
    }
}

/// The body of a connection's present request.
pub(super) struct RequestBody(pub(super) Shared);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.0.borrow_mut().poll_body(context)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0.borrow().body, Incoming::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.borrow().body {
            Incoming::Done => SizeHint::with_exact(0),
            Incoming::Length(left) => SizeHint::with_exact(left),
            Incoming::Chunked(_) | Incoming::Raw => SizeHint::default(),
        }
    }
}

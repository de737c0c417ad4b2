//! What a streamed body reads from.
//!
//! This module does not know: protocols, which body reads from a source.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use crate::error::Error;
use crate::pipe::Pipe;

/// The source of a streamed body. An error ends the body; the receiver must then be able to see
/// that the message is not complete.
pub trait Source: http_body::Body<Data = Bytes, Error = Error> {
    /// Passes the bytes that come next on in a pipe. None if that is not possible at this place of
    /// the body: `poll_frame` returns what comes next.
    fn poll_pipe(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Option<PolledPipe> {
        None
    }

    /// Whether trailers may come after the bytes that have not been read.
    fn can_have_trailers(&self) -> bool {
        true
    }
}

/// A source behind a trait object.
pub type FrameStream = Pin<Box<dyn Source>>;

/// The result of polling a body for a pipe with its next bytes.
pub type PolledPipe = Poll<Result<Pipe, Error>>;

/// The result of polling a body: the next frame, or none at the end.
pub type PolledFrame = Poll<Option<Result<Frame<Bytes>, Error>>>;

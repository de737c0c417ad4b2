//! A body that compresses another body as it passes.
//!
//! The encoder flushes the codec whenever the inner body is pending. So an event of a stream
//! reaches its reader at once, and a body that arrives at full speed is compressed in large blocks.
//! The work and memory of one poll are bounded, so that a large body does not delay the other tasks
//! of its thread. An incomplete body gets no end mark of the codec, so it never looks complete.
//! This module does not know: heads, negotiation.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http_body::{Body, Frame};

use witgate_config::Encoding;
use witgate_http::body::Source;
use witgate_http::error::{Error, Kind};

/// Bytes that one call passes to the codec, and takes from it.
const BLOCK_BYTES: usize = 16 << 10;
/// Bytes that one poll compresses before other tasks run.
const POLL_BYTES: usize = 128 << 10;
/// At these levels a core compresses JSON faster than a network card sends it, and a stream takes
/// less than a megabyte of memory.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: u32 = 4;
const BROTLI_WINDOW: u32 = 18;
const ZSTD_LEVEL: i32 = 3;
const ZSTD_WINDOW: u32 = 18;

/// The body `inner`, encoded.
pub(super) struct Encoder<B> {
    inner: B,
    encoding: Encoding,
    /// Made when the first byte arrives. None after the end of the stream.
    codec: Option<Codec>,
    /// Arrived, not yet compressed.
    input: Bytes,
    /// Whether the codec may hold bytes back.
    unflushed: bool,
    end: End,
}

/// How far the end of the inner body has been passed on.
enum End {
    Open,
    Trailers(http::HeaderMap),
    Done,
}

enum Codec {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl<B> Encoder<B> {
    /// Reads and allocates nothing before the first poll.
    pub(super) fn new(inner: B, encoding: Encoding) -> Self {
        Self { inner, encoding, codec: None, input: Bytes::new(), unflushed: false, end: End::Open }
    }

    fn codec(&mut self) -> io::Result<&mut Codec> {
        match &mut self.codec {
            Some(codec) => Ok(codec),
            none => Ok(none.insert(Codec::new(self.encoding)?)),
        }
    }

    /// Compresses the bytes that have arrived, until a block is ready or `budget` is used up.
    fn compress(&mut self, budget: &mut usize) -> io::Result<Option<Bytes>> {
        while !self.input.is_empty() && *budget > 0 {
            let block = self.input.split_to(self.input.len().min(BLOCK_BYTES));
            *budget = budget.saturating_sub(block.len());
            self.unflushed = true;
            let codec = self.codec()?;
            codec.write(&block)?;
            if codec.output().len() >= BLOCK_BYTES {
                return Ok(Some(std::mem::take(codec.output()).into()));
            }
        }
        Ok(None)
    }

    fn flush(&mut self) -> io::Result<Option<Bytes>> {
        if !std::mem::take(&mut self.unflushed) {
            return Ok(None);
        }
        let codec = self.codec()?;
        codec.flush()?;
        Ok(Some(std::mem::take(codec.output()).into()).filter(|bytes: &Bytes| !bytes.is_empty()))
    }

    fn finish(&mut self, end: End) -> io::Result<Option<Bytes>> {
        self.codec()?;
        self.end = end;
        self.codec.take().map(|codec| codec.finish().map(Bytes::from)).transpose()
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Source for Encoder<B> {}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Encoder<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let mut budget = POLL_BYTES;
        loop {
            match std::mem::replace(&mut this.end, End::Done) {
                End::Open => this.end = End::Open,
                End::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                End::Done => return Poll::Ready(None),
            }
            let step = match this.compress(&mut budget) {
                Ok(None) if !this.input.is_empty() => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(None) => match Pin::new(&mut this.inner).poll_frame(context) {
                    Poll::Pending => match this.flush() {
                        Ok(None) => return Poll::Pending,
                        flushed => flushed,
                    },
                    Poll::Ready(None) => this.finish(End::Done),
                    Poll::Ready(Some(Err(error))) => {
                        this.end = End::Done;
                        return Poll::Ready(Some(Err(error)));
                    }
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => {
                            this.input = data;
                            Ok(None)
                        }
                        Err(frame) => this.finish(frame.into_trailers().map_or(End::Done, End::Trailers)),
                    },
                },
                step => step,
            };
            match step {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => {}
                Err(error) => {
                    this.end = End::Done;
                    return Poll::Ready(Some(Err(Error::new(Kind::Internal, format!("compression: {error}")))));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Done)
    }
}

impl Codec {
    fn new(encoding: Encoding) -> io::Result<Self> {
        let output = Vec::new();
        Ok(match encoding {
            Encoding::Gzip => Self::Gzip(GzEncoder::new(output, flate2::Compression::new(GZIP_LEVEL))),
            Encoding::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                output,
                BLOCK_BYTES,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            Encoding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(output, ZSTD_LEVEL)?;
                encoder.window_log(ZSTD_WINDOW)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(bytes),
            Self::Brotli(encoder) => encoder.write_all(bytes),
            Self::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }

    fn output(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Zstd(encoder) => encoder.get_mut(),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(encoder) => encoder.finish(),
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::io::Read as _;
    use std::task::Waker;

    /// Frames that arrive one by one. None makes the body pending.
    struct Script(VecDeque<Option<Result<Frame<Bytes>, Error>>>);

    impl Body for Script {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            match self.0.pop_front() {
                Some(None) => Poll::Pending,
                Some(Some(frame)) => Poll::Ready(Some(frame)),
                None => Poll::Ready(None),
            }
        }
    }

    fn script(parts: &[Option<&'static [u8]>]) -> Script {
        Script(parts.iter().map(|part| part.map(|bytes| Ok(Frame::data(Bytes::from_static(bytes))))).collect())
    }

    /// Polls once.
    fn poll<B: Body<Data = Bytes, Error = Error> + Unpin>(body: &mut B) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    /// Polls to the end. Returns the data, the trailers, and whether the body ended well.
    fn drain<B: Body<Data = Bytes, Error = Error> + Unpin>(body: &mut B) -> (Vec<u8>, Option<http::HeaderMap>, bool) {
        let (mut bytes, mut trailers) = (vec![], None);
        for _ in 0..100_000 {
            match poll(body) {
                Poll::Pending => {}
                Poll::Ready(None) => return (bytes, trailers, true),
                Poll::Ready(Some(Err(_))) => return (bytes, trailers, false),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => bytes.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
        (bytes, trailers, false)
    }

    /// What a reader can decode of the bytes so far, and whether they are complete.
    fn decoded(encoding: Encoding, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut plain = vec![];
        let whole = match encoding {
            Encoding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain),
            Encoding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain),
            Encoding::Zstd => {
                zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| decoder.read_to_end(&mut plain))
            }
        };
        (plain, whole.is_ok())
    }

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd];

    #[test]
    fn every_body_is_decoded_to_the_original() {
        let mut state = 1_u32;
        let noise: Vec<u8> = (0..300_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        for encoding in ALL {
            for plain in [vec![], b"x".to_vec(), vec![0; 5 << 20], noise.clone()] {
                let body = Script(VecDeque::from([Some(Ok(Frame::data(Bytes::from(plain.clone()))))]));
                let (bytes, _, well) = drain(&mut Encoder::new(body, encoding));
                assert_eq!((well, decoded(encoding, &bytes)), (true, (plain, true)), "{encoding:?}");
            }
        }
    }

    #[test]
    fn sent_bytes_can_be_decoded_before_more_arrive() {
        for encoding in ALL {
            let mut body =
                Encoder::new(script(&[Some(b"data: 1\n\n"), None, None, Some(b"data: 2\n\n"), None]), encoding);
            let mut bytes = vec![];
            for event in ["data: 1\n\n", "data: 1\n\ndata: 2\n\n"] {
                let frame = loop {
                    // A pending body sends nothing.
                    if let Poll::Ready(Some(Ok(frame))) = poll(&mut body) {
                        break frame;
                    }
                };
                bytes.extend_from_slice(&frame.into_data().unwrap_or_default());
                assert_eq!(String::from_utf8_lossy(&decoded(encoding, &bytes).0), event, "{encoding:?}");
            }
        }
    }

    #[test]
    fn a_body_that_breaks_off_does_not_look_complete() {
        for encoding in ALL {
            let broken = Some(Err(Error::new(Kind::UpstreamProtocol, "cut")));
            let body = Script(VecDeque::from([Some(Ok(Frame::data(Bytes::from_static(b"half")))), broken]));
            let (bytes, _, well) = drain(&mut Encoder::new(body, encoding));
            assert!(!well && !decoded(encoding, &bytes).1, "{encoding:?}");
        }
    }

    #[test]
    fn trailers_follow() {
        let trailers = http::HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("x"))]);
        let frames = [Some(Ok(Frame::data(Bytes::from_static(b"abc")))), Some(Ok(Frame::trailers(trailers.clone())))];
        let (bytes, found, well) = drain(&mut Encoder::new(Script(VecDeque::from(frames)), Encoding::Gzip));
        assert_eq!((found, well, decoded(Encoding::Gzip, &bytes)), (Some(trailers), true, (b"abc".to_vec(), true)));
    }

    #[test]
    fn the_work_of_a_poll_is_bounded() {
        let zeros = Bytes::from(vec![0; 10 << 20]);
        let mut body = Encoder::new(Script(VecDeque::from([Some(Ok(Frame::data(zeros)))])), Encoding::Zstd);
        assert!(poll(&mut body).is_pending());
        assert_eq!(body.input.len(), (10 << 20) - POLL_BYTES);
    }
}

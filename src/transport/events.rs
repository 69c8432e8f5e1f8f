//! Event streams: bytes forwarded as they came, tapped for what they mean.
//!
//! Owns the upstream body from its head to its end. Invariants: only whole events are handed on, so that an error
//! event of ours can follow any of them; the stream ends well only after its terminal marker, and then with it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use hyper::body::{Body, Incoming};
use tokio::time::Sleep;

use crate::call::{Class, Failure, Piece, Usage};
use crate::clock;
use crate::dialect::{self, Closing, Dialect};
use crate::wire::sse::{Decoder, Frame};
use crate::wire::{Meaning, StreamReader};

/// Largest single event, in bytes.
const EVENT_LIMIT: usize = 4 * 1024 * 1024;
/// Most that is held back while waiting for the first model event, in bytes.
const HOLD_LIMIT: usize = 4 * 1024 * 1024;
/// How long the upstream may take to end its body after the terminal marker, so that the connection can be used again.
const TAIL: Duration = Duration::from_millis(500);

/// Reads until the first model event and hands back the stream with everything up to it in front.
///
/// # Errors
/// Whatever the stream did instead: an error event, its end, a broken connection, an empty answer.
pub async fn first(
    body: Incoming,
    reader: Box<dyn StreamReader + Send>,
    dialect: Dialect,
) -> Result<EventStream, Failure> {
    let mut stream = EventStream::new(body, reader, dialect);
    let mut held = BytesMut::new();
    loop {
        match std::future::poll_fn(|cx| stream.poll_piece(cx)).await {
            Some(Ok(piece)) => {
                held.extend_from_slice(&piece.bytes);
                if piece.events > 0 {
                    let bytes = held.freeze();
                    stream.ready.push_front(Ok(Piece { bytes, ..piece }));
                    return Ok(stream);
                }
                if held.len() > HOLD_LIMIT {
                    return Err(Failure::new(Class::OversizeResponse, "too much before the first model event"));
                }
            }
            Some(Err(failure)) => return Err(failure),
            None => {
                // Finished properly without a model event, such as a `length` end with nothing visible.
                stream.ready.push_front(Ok(Piece {
                    bytes: held.freeze(),
                    events: 0,
                    usage: stream.usage(),
                    done: true,
                }));
                return Ok(stream);
            }
        }
    }
}

/// How far the body is.
enum Phase {
    Open,
    /// The terminal marker was handed on; the body's own end is awaited for a moment.
    Tail(Pin<Box<Sleep>>),
    Over,
}

/// An upstream event stream.
pub struct EventStream {
    body: Incoming,
    decoder: Decoder,
    reader: Box<dyn StreamReader + Send>,
    dialect: Dialect,
    frames: Vec<Frame>,
    ready: VecDeque<Result<Piece, Failure>>,
    phase: Phase,
}

impl EventStream {
    fn new(body: Incoming, reader: Box<dyn StreamReader + Send>, dialect: Dialect) -> Self {
        Self {
            body,
            decoder: Decoder::new(EVENT_LIMIT),
            reader,
            dialect,
            frames: Vec::new(),
            ready: VecDeque::new(),
            phase: Phase::Open,
        }
    }

    fn usage(&self) -> Option<Usage> {
        self.reader.usage().map(|(input, output)| Usage { input, output })
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Failure>>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                if item.is_err() {
                    self.phase = Phase::Over;
                    self.ready.clear();
                }
                return Poll::Ready(Some(item));
            }
            match &mut self.phase {
                Phase::Over => return Poll::Ready(None),
                Phase::Tail(patience) => {
                    let late = patience.as_mut().poll(cx).is_ready();
                    match Pin::new(&mut self.body).poll_frame(cx) {
                        Poll::Ready(Some(Ok(_))) if !late => {}
                        Poll::Pending if !late => return Poll::Pending,
                        _ => self.phase = Phase::Over,
                    }
                }
                Phase::Open => match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            self.take(data);
                        }
                    }
                    Some(Err(error)) => self.fail(broken(&error)),
                    None => self.end(),
                },
            }
        }
    }

    /// Decodes a chunk and queues what is to be handed on.
    fn take(&mut self, chunk: Bytes) {
        let aligned = self.decoder.pending() == 0;
        let mut frames = std::mem::take(&mut self.frames);
        if self.decoder.push(chunk.clone(), &mut frames).is_err() {
            self.fail(Failure::new(Class::OversizeResponse, format!("an event over {EVENT_LIMIT} bytes")));
            return;
        }
        // A chunk of nothing but whole, kept events goes on as it is.
        let whole = (aligned && self.decoder.pending() == 0).then_some(chunk);
        self.judge(&frames, whole);
        frames.clear();
        self.frames = frames;
    }

    /// Queues what is to be handed on of these frames; `whole` is all of them in one piece, where there is such.
    fn judge(&mut self, frames: &[Frame], whole: Option<Bytes>) {
        let (mut events, mut done, mut failed) = (0, false, None);
        let mut keep = Vec::with_capacity(frames.len());
        for frame in frames {
            match self.reader.read(frame) {
                Meaning::Progress => {
                    events += 1;
                    keep.push(frame.closed());
                }
                Meaning::Quiet => keep.push(frame.closed()),
                Meaning::Drop => {}
                Meaning::Done => {
                    keep.push(frame.closed());
                    done = true;
                    break;
                }
                Meaning::Error(error) => {
                    failed = Some(dialect::from_wire_error(self.dialect, &error));
                    break;
                }
            }
        }
        if done && let Closing::Fail(failure) = dialect::close(self.dialect, self.reader.ended()) {
            // The marker came, but what it closes is not an answer: it must not be handed on.
            keep.pop();
            (done, failed) = (false, Some(failure));
        }
        let bytes = match whole {
            Some(chunk) if keep.len() == frames.len() => chunk,
            _ => join(keep),
        };
        if !bytes.is_empty() {
            let usage = self.usage();
            self.ready.push_back(Ok(Piece { bytes, events, usage, done }));
        }
        match failed {
            Some(failure) => self.fail(failure),
            None if done => self.phase = Phase::Tail(Box::pin(clock::sleep(TAIL))),
            None => {}
        }
    }

    /// The body ended without its marker.
    fn end(&mut self) {
        if let Some(frame) = self.decoder.finish() {
            self.judge(&[frame], None);
            if !matches!(self.phase, Phase::Open) {
                self.phase = Phase::Over;
                return;
            }
        }
        match dialect::close(self.dialect, self.reader.ended()) {
            Closing::Fine => {}
            Closing::Append(bytes) => {
                let usage = self.usage();
                self.ready.push_back(Ok(Piece { bytes, events: 0, usage, done: true }));
            }
            Closing::Fail(failure) => return self.fail(failure),
        }
        self.phase = Phase::Over;
    }

    fn fail(&mut self, failure: Failure) {
        self.phase = Phase::Over;
        self.ready.push_back(Err(failure));
    }
}

/// A chunk that is none is bad framing; any other way to break off is a cut.
fn broken(error: &hyper::Error) -> Failure {
    let kind = std::error::Error::source(error)
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .map(std::io::Error::kind);
    match kind {
        Some(std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput) => {
            Failure::new(Class::BadFraming, "a chunk of the stream is not framed as HTTP")
        }
        _ => Failure::new(Class::StreamTruncated, "the connection broke mid-stream"),
    }
}

fn join(mut raws: Vec<Bytes>) -> Bytes {
    match raws.len() {
        0 => Bytes::new(),
        1 => raws.swap_remove(0),
        _ => {
            let mut joined = BytesMut::with_capacity(raws.iter().map(Bytes::len).sum());
            raws.iter().for_each(|raw| joined.extend_from_slice(raw));
            joined.freeze()
        }
    }
}

impl Stream for EventStream {
    type Item = Result<Piece, Failure>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_piece(cx)
    }
}

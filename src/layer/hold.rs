//! Holds a streamed answer back until all of it is there, on routes that ask for it.
//!
//! Until its release nothing of it is out, so a cut, a stall or a broken event is a failure of one send, and the loop
//! outside goes on as after any other. Owns the bytes held and their bounds; the clocks are those of the layers around
//! it: the silence between two events inside, the call's deadline outside. Invariant: what is released is complete and is,
//! byte for byte, what the endpoint sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt;
use tower::{Layer, Service};

use super::Pending;
use super::room::{Room, Stock};
use crate::call::{Attempt, AttemptReply, Class, Failure, Milestone, Payload, Piece, PieceStream, Usage, Verdict};
use crate::clock;

/// Largest answer held, in bytes; the same as for one that comes whole.
const LIMIT: usize = 64 * 1024 * 1024;
/// Small pieces are put together to blocks of this size, in bytes.
const BLOCK: usize = 64 * 1024;

/// Holds the streams of a route, or lets them pass.
#[derive(Clone, Debug)]
pub struct HoldLayer {
    hold: bool,
    room: Room,
}

impl HoldLayer {
    /// `room` is shared by all routes.
    pub fn new(hold: bool, room: Room) -> Self {
        Self { hold, room }
    }
}

impl<S> Layer<S> for HoldLayer {
    type Service = Hold<S>;

    fn layer(&self, inner: S) -> Hold<S> {
        Hold { inner, hold: self.hold, room: self.room.clone() }
    }
}

/// See [`HoldLayer`].
#[derive(Clone, Debug)]
pub struct Hold<S> {
    inner: S,
    hold: bool,
    room: Room,
}

impl<S> Service<Attempt> for Hold<S>
where
    S: Service<Attempt, Response = AttemptReply, Error = Failure, Future = Pending<AttemptReply, Failure>>,
{
    type Response = AttemptReply;
    type Error = Failure;
    type Future = Pending<AttemptReply, Failure>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        if !self.hold || !attempt.call.stream {
            return self.inner.call(attempt);
        }
        if self.room.is_full() {
            // Refused before it costs the endpoint anything.
            return Box::pin(async { Err(no_room()) });
        }
        let (report, fate) = (attempt.report.clone(), attempt.fate.clone());
        let (stock, answer) = (self.room.stock(), self.inner.call(attempt));
        Box::pin(async move {
            let reply = answer.await?;
            let Payload::Events(mut pieces) = reply.payload else { return Ok(reply) };
            report.tell(Milestone::First);
            let (held, marked) = collect(&mut pieces, stock).await.inspect_err(|failure| {
                // What is dropped here is dropped for a reason of ours; what failed by itself has told its own.
                fate.set(Verdict::Failed(failure.class));
            })?;
            let released = Released { held, rest: marked.then_some(pieces) };
            Ok(AttemptReply { payload: Payload::Events(Box::pin(released)), first_at: clock::now(), ..reply })
        })
    }
}

fn no_room() -> Failure {
    let mut failure = Failure::new(Class::QueueFull, "`server.max_held` leaves no room to hold the answer");
    failure.retry_after = Some(std::time::Duration::from_secs(1));
    failure
}

/// Reads a stream to its terminal marker, and says whether it came, or to its end.
async fn collect(pieces: &mut PieceStream, stock: Stock) -> Result<(Held, bool), Failure> {
    let mut held = Held { blocks: VecDeque::new(), open: BytesMut::new(), bytes: 0, events: 0, usage: None, stock };
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        held.add(piece.bytes)?;
        held.events += piece.events;
        held.usage = piece.usage.or(held.usage);
        if piece.done {
            held.close();
            return Ok((held, true));
        }
    }
    held.close();
    Ok((held, false))
}

/// An answer, in order.
struct Held {
    blocks: VecDeque<Bytes>,
    /// The block under way.
    open: BytesMut,
    bytes: usize,
    /// Model events in it, told with the first of its blocks: to its client they come at once.
    events: u32,
    usage: Option<Usage>,
    stock: Stock,
}

impl Held {
    fn add(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.bytes += bytes.len();
        if self.bytes > LIMIT {
            return Err(Failure::new(Class::OversizeResponse, format!("a held answer over {LIMIT} bytes")));
        }
        if !self.stock.take(bytes.len()) {
            return Err(no_room());
        }
        if self.open.len() + bytes.len() > BLOCK {
            self.close();
        }
        if bytes.len() > BLOCK {
            self.blocks.push_back(bytes);
        } else {
            self.open.extend_from_slice(&bytes);
        }
        Ok(())
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.blocks.push_back(std::mem::take(&mut self.open).freeze());
        }
    }

    fn next(&mut self) -> Option<Piece> {
        let bytes = self.blocks.pop_front()?;
        self.stock.give(bytes.len());
        let events = std::mem::take(&mut self.events);
        Some(Piece { bytes, events, usage: self.usage, done: self.blocks.is_empty() })
    }
}

/// A complete answer on its way to the client.
struct Released {
    held: Held,
    /// The upstream's body, whose own end may still be to come. It is read beside, so that its place is soon free.
    rest: Option<PieceStream>,
}

impl Released {
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(rest) = &mut self.rest {
            // After its terminal marker there is nothing more that could matter.
            if !matches!(ready!(rest.as_mut().poll_next(cx)), Some(Ok(_))) {
                self.rest = None;
            }
        }
        Poll::Ready(())
    }
}

impl Stream for Released {
    type Item = Result<Piece, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let rest = self.poll_rest(cx);
        match self.held.next() {
            Some(piece) => Poll::Ready(Some(Ok(piece))),
            None => rest.map(|()| None),
        }
    }
}

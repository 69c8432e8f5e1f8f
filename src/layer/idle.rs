//! Ends a stream that makes no progress: keep-alives are not progress, and a slow reader is not a slow upstream.
//!
//! The clock runs only while we wait for the upstream. Time during which the client does not take what is there is
//! not counted against the endpoint.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio::time::Sleep;
use tower::{Layer, Service};

use super::Pending;
use crate::call::{Attempt, AttemptReply, Class, Failure, Payload, Piece, PieceStream};
use crate::clock;

/// Bounds the silence between two model events.
#[derive(Clone, Copy, Debug)]
pub struct IdleLayer {
    idle: Duration,
}

impl IdleLayer {
    /// `idle` is the endpoint's longest silence after its first event.
    pub fn new(idle: Duration) -> Self {
        Self { idle }
    }
}

impl<S> Layer<S> for IdleLayer {
    type Service = Idle<S>;

    fn layer(&self, inner: S) -> Idle<S> {
        Idle { inner, idle: self.idle }
    }
}

/// See [`IdleLayer`].
#[derive(Clone, Debug)]
pub struct Idle<S> {
    inner: S,
    idle: Duration,
}

impl<S> Service<Attempt> for Idle<S>
where
    S: Service<Attempt, Response = AttemptReply, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = AttemptReply;
    type Error = Failure;
    type Future = Pending<AttemptReply, Failure>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let (idle, answer) = (self.idle, self.inner.call(attempt));
        Box::pin(async move {
            let reply = answer.await?;
            let payload = match reply.payload {
                Payload::Events(pieces) => Payload::Events(Box::pin(Watched::new(pieces, idle, true))),
                // Any byte is progress where nobody knows what the bytes mean.
                Payload::Opaque(pieces) => Payload::Opaque(Box::pin(Watched::new(pieces, idle, false))),
                whole => whole,
            };
            Ok(AttemptReply { payload, ..reply })
        })
    }
}

struct Watched {
    pieces: PieceStream,
    idle: Duration,
    events_only: bool,
    /// Silence still allowed before the next progress.
    left: Duration,
    /// Since when we have been waiting for the upstream.
    waiting: Option<Instant>,
    clock: Pin<Box<Sleep>>,
    over: bool,
}

impl Watched {
    fn new(pieces: PieceStream, idle: Duration, events_only: bool) -> Self {
        let clock = Box::pin(clock::sleep(idle));
        Self { pieces, idle, events_only, left: idle, waiting: None, clock, over: false }
    }
}

impl Stream for Watched {
    type Item = Result<Piece, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(item) = self.pieces.as_mut().poll_next(cx) {
            let waited = self.waiting.take();
            let progress = matches!(&item, Some(Ok(piece)) if piece.events > 0 || !self.events_only);
            if progress {
                self.left = self.idle;
            } else if let Some(since) = waited {
                self.left = self.left.saturating_sub(clock::now().saturating_duration_since(since));
            }
            return Poll::Ready(item);
        }
        if self.waiting.is_none() {
            let now = clock::now();
            self.waiting = Some(now);
            let at = now + self.left;
            self.clock.as_mut().reset(at.into());
        }
        if self.clock.as_mut().poll(cx).is_ready() {
            self.over = true;
            let finding = format!("no progress for {} ms", self.idle.as_millis());
            return Poll::Ready(Some(Err(Failure::new(Class::StreamStalled, finding))));
        }
        Poll::Pending
    }
}

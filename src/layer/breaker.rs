//! Refuses sends to an endpoint whose circuit is open, and tells the circuit how each send ended.
//!
//! Invariant: whatever becomes of a send (an answer, a failure, a twin that was faster, a client that left), its circuit
//! hears of it once or gets its place back. What a dropped send counts as is in its fate.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tower::{Layer, Service};

use super::Pending;
use super::state::{Asking, Breakers, Entry};
use crate::call::{Attempt, AttemptReply, Class, Counts, Failure, Fate, Payload, Piece, PieceStream, Surface, Verdict};
use crate::clock;

/// Stands before one endpoint.
#[derive(Clone)]
pub struct BreakerLayer {
    breakers: Breakers,
}

impl BreakerLayer {
    /// `breakers` are those of all endpoints.
    pub fn new(breakers: Breakers) -> Self {
        Self { breakers }
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = Breaker<S>;

    fn layer(&self, inner: S) -> Breaker<S> {
        Breaker { inner, breakers: self.breakers.clone() }
    }
}

/// See [`BreakerLayer`].
#[derive(Clone)]
pub struct Breaker<S> {
    inner: S,
    breakers: Breakers,
}

impl<S> Service<Attempt> for Breaker<S>
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
        let started = clock::now();
        let Some(route) = attempt.route else {
            if let Err(refused) = self.breakers.ask(attempt.endpoint, started) {
                return Box::pin(std::future::ready(Err(refused)));
            }
            return Box::pin(self.inner.call(attempt));
        };
        let asking = Asking { route, model: attempt.call.model.as_deref() };
        let entry = match self.breakers.enter(attempt.endpoint, asking, attempt.target, started) {
            Ok(entry) => entry,
            Err(refused) => return Box::pin(std::future::ready(Err(refused))),
        };
        let mut guard = Guard {
            entry: Some(entry),
            fate: Arc::clone(&attempt.fate),
            carried: attempt.call.surface == Surface::Opaque,
        };
        let (streamed, prompt_bytes) = (attempt.call.stream, attempt.call.prompt_bytes);
        let answer = self.inner.call(attempt);
        Box::pin(async move {
            let reply = match answer.await {
                Ok(reply) => reply,
                Err(failure) => {
                    guard.failed(&failure);
                    return Err(failure);
                }
            };
            let took = streamed.then(|| reply.first_at.saturating_duration_since(started));
            let payload = match reply.payload {
                Payload::Whole(bytes) => {
                    guard.first(None, prompt_bytes);
                    guard.succeeded();
                    Payload::Whole(bytes)
                }
                Payload::Events(pieces) => {
                    guard.first(took, prompt_bytes);
                    Payload::Events(Box::pin(Watched { pieces, guard }))
                }
                Payload::Opaque(pieces) => {
                    if Class::of_status(reply.status).is_some() {
                        // What a path that nobody reads says of itself says nothing of the endpoint.
                        guard.entry = None;
                    } else {
                        guard.first(None, prompt_bytes);
                    }
                    Payload::Opaque(Box::pin(Watched { pieces, guard }))
                }
            };
            Ok(AttemptReply { payload, ..reply })
        })
    }
}

/// Gives the verdict once, at the latest when it goes away.
struct Guard {
    entry: Option<Entry>,
    fate: Arc<Fate>,
    /// A path that is carried and not read.
    carried: bool,
}

impl Guard {
    fn first(&mut self, took: Option<Duration>, prompt_bytes: usize) {
        if let Some(entry) = &mut self.entry {
            entry.first(took, prompt_bytes, clock::now());
        }
    }

    fn succeeded(&mut self) {
        if let Some(entry) = self.entry.take() {
            entry.succeeded(clock::now());
        }
    }

    fn failed(&mut self, failure: &Failure) {
        let counts = if self.carried && failure.status.is_some() { Counts::Nothing } else { failure.counts() };
        if let Some(entry) = self.entry.take() {
            entry.failed(counts, failure.retry_after, clock::now());
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        if let Verdict::Failed(class) = self.fate.get() {
            entry.failed(class.counts(), None, clock::now());
        }
    }
}

struct Watched {
    pieces: PieceStream,
    guard: Guard,
}

impl Stream for Watched {
    type Item = Result<Piece, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = std::task::ready!(self.pieces.as_mut().poll_next(cx));
        match &item {
            None => self.guard.succeeded(),
            Some(Err(failure)) => self.guard.failed(failure),
            // Clients hang up at the marker; the send succeeded all the same.
            Some(Ok(piece)) if piece.done => self.guard.succeeded(),
            Some(Ok(_)) => {}
        }
        Poll::Ready(item)
    }
}

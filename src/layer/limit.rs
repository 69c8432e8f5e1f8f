//! Holds a send's place at its endpoint until the upstream body is dropped, and teaches the endpoint's limit.
//!
//! The place was given by the balance layer, where a send may have had to wait for it. It is kept here, inside whatever
//! watches the endpoint, so that it is free only when the connection is. Invariant: the place outlives the body.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_core::Stream;
use tower::{Layer, Service};

use super::Pending;
use super::state::Slots;
use crate::call::{
    Attempt, AttemptReply, Class, Counts, Failure, Fate, Milestone, Payload, Piece, PieceStream, Place, Verdict,
};
use crate::clock;
use crate::dialect::{Dialect, detect};
use crate::policy::Sample;

/// Keeps the places of one endpoint.
#[derive(Clone)]
pub struct LimitLayer {
    slots: Slots,
}

impl LimitLayer {
    /// `slots` are those the balance layer gives out.
    pub fn new(slots: Slots) -> Self {
        Self { slots }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limit<S>;

    fn layer(&self, inner: S) -> Limit<S> {
        Limit { inner, slots: self.slots.clone() }
    }
}

/// See [`LimitLayer`].
#[derive(Clone)]
pub struct Limit<S> {
    inner: S,
    slots: Slots,
}

impl<S> Service<Attempt> for Limit<S>
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

    fn call(&mut self, mut attempt: Attempt) -> Self::Future {
        let Some(place) = attempt.place.take() else {
            // A listing, not a call: it takes no place and teaches nothing.
            return Box::pin(self.inner.call(attempt));
        };
        // It has a place, and its breaker let it through: it goes out now.
        attempt.report.tell(Milestone::Dispatched(attempt.endpoint));
        let mut stay = Stay {
            slots: self.slots.clone(),
            endpoint: attempt.endpoint,
            fate: Arc::clone(&attempt.fate),
            streamed: attempt.call.stream,
            prompt_bytes: attempt.call.prompt_bytes,
            started: clock::now(),
            settled: false,
            _place: place,
        };
        let answer = self.inner.call(attempt);
        Box::pin(async move {
            let reply = match answer.await {
                Ok(reply) => reply,
                Err(failure) => {
                    stay.failed(&failure);
                    return Err(failure);
                }
            };
            if detect(Dialect::Auto, "", &reply.headers) == Dialect::LlamaCpp {
                stay.slots.spot(stay.endpoint);
            }
            let (status, first_at) = (reply.status, reply.first_at);
            let payload = match reply.payload {
                Payload::Whole(bytes) => {
                    stay.learn(Sample::Whole);
                    Payload::Whole(bytes)
                }
                Payload::Events(pieces) => Payload::Events(Box::pin(Held::new(pieces, stay, Some(first_at)))),
                Payload::Opaque(pieces) => {
                    match status {
                        429 | 503 | 529 => stay.learn(Sample::Refused),
                        400.. => stay.settled = true,
                        _ => stay.learn(Sample::Whole),
                    }
                    Payload::Opaque(Box::pin(Held::new(pieces, stay, None)))
                }
            };
            Ok(AttemptReply { payload, ..reply })
        })
    }
}

/// One send at its endpoint. What it has to teach it teaches before its place is free.
struct Stay {
    slots: Slots,
    endpoint: usize,
    fate: Arc<Fate>,
    streamed: bool,
    prompt_bytes: usize,
    started: Instant,
    /// It has taught what it can.
    settled: bool,
    _place: Place,
}

impl Stay {
    fn learn(&mut self, sample: Sample) {
        if !std::mem::replace(&mut self.settled, true) {
            self.slots.learn(self.endpoint, sample, clock::now());
        }
    }

    fn failed(&mut self, failure: &Failure) {
        if failure.counts() != Counts::Nothing {
            self.slots.failed(self.endpoint, clock::now());
        }
        let overloaded = match failure.class {
            Class::RateLimited | Class::UpstreamOverloaded | Class::FirstTokenTimeout => true,
            Class::UpstreamUnavailable => matches!(failure.status, Some(503 | 529)),
            _ => false,
        };
        if overloaded {
            self.learn(Sample::Refused);
        }
        self.settled = true;
    }

    /// The first piece of a stream; one that holds everything was a whole answer.
    fn first(&mut self, piece: &Piece, at: Instant) {
        let after = at.saturating_duration_since(self.started);
        let first = Sample::First { after, prompt_bytes: self.prompt_bytes };
        self.learn(if piece.done { Sample::Whole } else { first });
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // Dropped by the loop for its silence; a client that left, or a twin that was quicker, teaches nothing.
        let silent = match self.fate.get() {
            Verdict::Failed(Class::FirstTokenTimeout) => true,
            Verdict::Failed(Class::HeadersTimeout) => self.streamed,
            _ => false,
        };
        if silent {
            self.learn(Sample::Refused);
        }
    }
}

/// A body with its place; the body is dropped first.
struct Held {
    body: Option<(PieceStream, Stay)>,
    first_at: Option<Instant>,
}

impl Held {
    fn new(pieces: PieceStream, stay: Stay, first_at: Option<Instant>) -> Self {
        Self { body: Some((pieces, stay)), first_at }
    }
}

impl Stream for Held {
    type Item = Result<Piece, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some((pieces, stay)) = &mut this.body else { return Poll::Ready(None) };
        let item = std::task::ready!(pieces.as_mut().poll_next(cx));
        match &item {
            Some(Ok(piece)) => {
                if let Some(at) = this.first_at.take() {
                    stay.first(piece, at);
                }
            }
            Some(Err(failure)) => {
                stay.failed(failure);
                this.body = None;
            }
            None => this.body = None,
        }
        Poll::Ready(item)
    }
}

//! One outcome per send, however it ends: answered, failed, superseded, or dropped with its call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_core::Stream;
use tower::{Layer, Service};

use super::Pending;
use crate::call::{
    Attempt, AttemptEnd, AttemptKind, AttemptReply, Call, Class, Failure, Fate, Payload, Piece, PieceStream, Signal,
    Sink, Verdict,
};
use crate::clock;

/// Emits [`Signal::AttemptEnded`] exactly once per send.
#[derive(Clone)]
pub struct ObserveAttemptLayer {
    sink: Arc<dyn Sink>,
}

impl ObserveAttemptLayer {
    /// Signals go to `sink`.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink }
    }
}

impl<S> Layer<S> for ObserveAttemptLayer {
    type Service = ObserveAttempt<S>;

    fn layer(&self, inner: S) -> ObserveAttempt<S> {
        ObserveAttempt { inner, sink: Arc::clone(&self.sink) }
    }
}

/// See [`ObserveAttemptLayer`].
#[derive(Clone)]
pub struct ObserveAttempt<S> {
    inner: S,
    sink: Arc<dyn Sink>,
}

impl<S> Service<Attempt> for ObserveAttempt<S>
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
        let mut guard = Guard {
            sink: Arc::clone(&self.sink),
            fate: Arc::clone(&attempt.fate),
            call: Arc::clone(&attempt.call),
            number: attempt.number,
            endpoint: attempt.endpoint,
            kind: attempt.kind,
            streamed: attempt.call.stream,
            started: clock::now(),
            mid_stream: false,
            verdict: None,
        };
        let answer = self.inner.call(attempt);
        Box::pin(async move {
            let reply = match answer.await {
                Ok(reply) => reply,
                Err(failure) => {
                    guard.ended(Verdict::Failed(failure.class));
                    return Err(failure);
                }
            };
            guard.mid_stream = true;
            let payload = match reply.payload {
                Payload::Whole(bytes) => {
                    guard.ended(Verdict::Ok);
                    Payload::Whole(bytes)
                }
                Payload::Events(pieces) => Payload::Events(Box::pin(Watched { pieces, guard })),
                Payload::Opaque(pieces) => {
                    if let Some(class) = Class::of_status(reply.status) {
                        guard.ended(Verdict::Failed(class));
                    }
                    Payload::Opaque(Box::pin(Watched { pieces, guard }))
                }
            };
            Ok(AttemptReply { payload, ..reply })
        })
    }
}

/// Tells the outcome when it goes away, whatever made it go.
struct Guard {
    sink: Arc<dyn Sink>,
    fate: Arc<Fate>,
    call: Arc<Call>,
    number: usize,
    endpoint: usize,
    kind: AttemptKind,
    streamed: bool,
    started: Instant,
    mid_stream: bool,
    verdict: Option<Verdict>,
}

impl Guard {
    /// What it counts as without an end of its own: the loop said so, or whoever ended the call did.
    fn dropped(&self) -> Verdict {
        match self.fate.get() {
            Verdict::Failed(Class::ClientDisconnect) => self.call.standing.fate.get(),
            decided => decided,
        }
    }

    fn ended(&mut self, verdict: Verdict) {
        // The first end is the end: a body that failed is over, whatever is asked of it later.
        self.verdict.get_or_insert(verdict);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.sink.emit(Signal::AttemptEnded(AttemptEnd {
            call: Arc::clone(&self.call),
            number: self.number,
            endpoint: self.endpoint,
            kind: self.kind,
            verdict: self.verdict.unwrap_or_else(|| self.dropped()),
            mid_stream: self.mid_stream,
            streamed: self.streamed,
            took: clock::now().saturating_duration_since(self.started),
        }));
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
            None => self.guard.ended(Verdict::Ok),
            Some(Err(failure)) => self.guard.ended(Verdict::Failed(failure.class)),
            // Clients hang up at the marker; the send succeeded all the same.
            Some(Ok(piece)) if piece.done => self.guard.ended(Verdict::Ok),
            Some(Ok(_)) => {}
        }
        Poll::Ready(item)
    }
}

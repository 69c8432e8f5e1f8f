//! Sets the one absolute deadline of a call, and ends a stream that reaches it.
//!
//! Before commit the plan keeps the deadline; after it, this layer does. Invariant: set once, at the call's arrival,
//! and never moved.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use tokio::time::Sleep;
use tower::{Layer, Service};

use super::Pending;
use crate::call::{CallError, CallRequest, Class, Failure, Fate, Payload, Piece, PieceStream, Reply, Verdict};
use crate::clock;

/// Bound of a call whose body is passed on as it arrives.
const LONGEST_UPLOAD: Duration = Duration::from_secs(3600);

/// Bounds every call of a route.
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    total: Duration,
}

impl DeadlineLayer {
    /// `total` is the route's bound; a client's own patience may only be shorter.
    pub fn new(total: Duration) -> Self {
        Self { total }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, total: self.total }
    }
}

/// See [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    total: Duration,
}

impl<S> Service<CallRequest> for Deadline<S>
where
    S: Service<CallRequest, Response = Reply, Error = CallError>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = CallError;
    type Future = Pending<Reply, CallError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: CallRequest) -> Self::Future {
        let call = &mut request.call;
        // An upload of unknown length takes as long as it takes, within reason.
        let total = if call.body.replayable() { self.total } else { self.total.max(LONGEST_UPLOAD) };
        let patience = call.client_patience.map_or(total, |patience| patience.min(total));
        call.deadline = call.started + patience;
        let at = call.deadline;
        let answer = self.inner.call(request);
        Box::pin(async move {
            let reply = answer.await?;
            let payload = match reply.payload {
                Payload::Events(pieces) => Payload::Events(bound(pieces, at, Arc::clone(&reply.fate))),
                // Uploads and downloads of unknown length are bounded by nothing but their own progress.
                other => other,
            };
            Ok(Reply { payload, ..reply })
        })
    }
}

fn bound(pieces: PieceStream, at: Instant, fate: Arc<Fate>) -> PieceStream {
    Box::pin(Bounded { pieces, fate, at, clock: Box::pin(clock::sleep_until(at)), over: false })
}

struct Bounded {
    pieces: PieceStream,
    fate: Arc<Fate>,
    at: Instant,
    clock: Pin<Box<Sleep>>,
    over: bool,
}

impl Stream for Bounded {
    type Item = Result<Piece, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = self.pieces.as_mut().poll_next(cx);
        // A slow reader finds something ready every time it comes; only an end is worth its coming late.
        let goes_on = matches!(&next, Poll::Ready(Some(Ok(piece))) if !piece.done);
        if !(next.is_pending() || goes_on && clock::now() >= self.at) {
            return next;
        }
        if goes_on || self.clock.as_mut().poll(cx).is_ready() {
            self.over = true;
            self.fate.set(Verdict::Failed(Class::DeadlineExceeded));
            let failure = Failure::new(Class::DeadlineExceeded, "the call's deadline passed mid-stream");
            return Poll::Ready(Some(Err(failure)));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_is_not_served_beyond_the_deadline_but_for_the_end() {
        let piece = |done| Ok(Piece { done, events: 1, ..Piece::default() });
        let read = async |pieces: Vec<Result<Piece, Failure>>| {
            let at = clock::now() + Duration::from_secs(3);
            let mut bounded = bound(Box::pin(stream::iter(pieces)), at, Arc::default());
            let mut told = Vec::new();
            while let Some(item) = bounded.next().await {
                told.push(item.map(|piece| piece.done).map_err(|failure| failure.class));
                clock::sleep(Duration::from_secs(2)).await;
            }
            told
        };
        let late = Err(Class::DeadlineExceeded);
        assert_eq!(read((0..9).map(|_| piece(false)).collect()).await, [Ok(false), Ok(false), late]);
        assert_eq!(read(vec![piece(false), piece(false), piece(true)]).await, [Ok(false), Ok(false), Ok(true)]);
    }
}

//! One outcome per call, counted at the end of its body: answered, failed, left by its client, or panicked.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use tower::{Layer, Service};

use super::Pending;
use super::state::Live;
use crate::call::{
    CallEnd, CallError, CallRequest, Class, Failure, Fate, Outcome, Payload, Piece, PieceStream, Reply, Signal, Sink,
    Standing, Verdict,
};
use crate::clock;

/// Emits [`Signal::CallStarted`] and, exactly once, [`Signal::CallEnded`].
#[derive(Clone)]
pub struct ObserveCallLayer {
    sink: Arc<dyn Sink>,
    route: usize,
    live: Live,
}

impl ObserveCallLayer {
    /// Signals of this route go to `sink`; `live` knows when a shutdown ends what is left.
    pub fn new(sink: Arc<dyn Sink>, route: usize, live: Live) -> Self {
        Self { sink, route, live }
    }
}

impl<S> Layer<S> for ObserveCallLayer {
    type Service = ObserveCall<S>;

    fn layer(&self, inner: S) -> ObserveCall<S> {
        ObserveCall { inner, sink: Arc::clone(&self.sink), route: self.route, live: self.live.clone() }
    }
}

/// See [`ObserveCallLayer`].
#[derive(Clone)]
pub struct ObserveCall<S> {
    inner: S,
    sink: Arc<dyn Sink>,
    route: usize,
    live: Live,
}

impl<S> Service<CallRequest> for ObserveCall<S>
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

    fn call(&mut self, request: CallRequest) -> Self::Future {
        let call = &request.call;
        self.sink.emit(Signal::CallStarted { route: Some(self.route) });
        let mut guard = Guard {
            sink: Arc::clone(&self.sink),
            route: self.route,
            live: self.live.clone(),
            sent: None,
            started: call.started,
            last_event: None,
            later: None,
            ended: false,
            standing: Arc::clone(&call.standing),
            fate: None,
            is_cached: false,
            end: CallEnd {
                id: call.id.clone(),
                route: Some(self.route),
                surface: call.surface,
                // What stands if the client leaves now.
                status: 499,
                outcome: Outcome::Cancelled,
                class: Some(Class::ClientDisconnect),
                endpoint: None,
                sends: 0,
                streamed: call.stream,
                took: Duration::ZERO,
                first: None,
                overhead: None,
                usage: None,
                key_name: call.key_name.clone(),
            },
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(reply) => Ok(guard.answered(reply)),
                Err(error) => {
                    guard.refused(&error);
                    Err(error)
                }
            }
        })
    }
}

struct Guard {
    sink: Arc<dyn Sink>,
    route: usize,
    live: Live,
    /// The status that went out before the body.
    sent: Option<u16>,
    started: Instant,
    last_event: Option<Instant>,
    later: Option<Arc<AtomicU32>>,
    ended: bool,
    standing: Arc<Standing>,
    /// The status that went out, and what the answering send counts as.
    fate: Option<(u16, Arc<Fate>)>,
    /// The answer is another call's: its times say nothing of an endpoint.
    is_cached: bool,
    end: CallEnd,
}

impl Guard {
    fn answered(mut self, reply: Reply) -> Reply {
        let now = clock::now();
        self.end.endpoint = Some(reply.endpoint.clone());
        self.end.sends = reply.sends;
        self.fate = Some((reply.status, Arc::clone(&reply.fate)));
        self.later.clone_from(&reply.later);
        self.end.usage = reply.usage;
        self.is_cached = reply.outcome == Outcome::Cached;
        if reply.trail.is_empty() && !self.is_cached {
            // With failed sends before it, waiting and choosing are part of the time, and not a cost of ours.
            let ours = now.saturating_duration_since(self.started).saturating_sub(reply.queued + reply.upstream);
            self.end.overhead = Some(ours);
        }
        self.sent = Some(reply.status);
        let outcome = reply.outcome;
        let payload = match reply.payload {
            Payload::Whole(bytes) => {
                self.end.first = (!self.is_cached).then(|| now.saturating_duration_since(self.started));
                self.done(reply.status, outcome, None);
                Payload::Whole(bytes)
            }
            Payload::Events(pieces) => Payload::Events(watch(pieces, self, reply.status, outcome)),
            Payload::Opaque(pieces) => {
                if let Some(class) = Class::of_status(reply.status) {
                    self.done(reply.status, Outcome::Failed, Some(class));
                }
                Payload::Opaque(watch(pieces, self, reply.status, outcome))
            }
        };
        Reply { payload, ..reply }
    }

    fn refused(&mut self, error: &CallError) {
        self.end.sends = error.sends;
        self.end.endpoint = error.trail.last().map(|last| last.endpoint.clone()).filter(|name| !name.is_empty());
        let left = error.class == Class::ClientDisconnect;
        let outcome = if left { Outcome::Cancelled } else { Outcome::Failed };
        self.done(error.http_status(), outcome, Some(error.class));
    }

    fn done(&mut self, status: u16, outcome: Outcome, class: Option<Class>) {
        // The first end is the end: a body that failed is over, whatever is asked of it later.
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.end.status = status;
        self.end.outcome = outcome;
        self.end.class = class;
    }

    /// Dropped before its end: the client left, or whoever dropped it said otherwise before.
    fn cut(&mut self) {
        let (status, fate) = match &self.fate {
            Some((status, fate)) => (Some(*status), fate.get()),
            None => (None, self.standing.fate.get()),
        };
        if status.is_none() {
            self.end.sends = self.standing.sends();
        }
        if let Verdict::Failed(class) = fate
            && class != Class::ClientDisconnect
        {
            self.done(status.unwrap_or(class.status()), Outcome::Failed, Some(class));
        }
    }

    fn saw(&mut self, piece: &Piece) {
        if piece.usage.is_some() {
            self.end.usage = piece.usage;
        }
        if piece.events == 0 || self.is_cached {
            return;
        }
        let now = clock::now();
        match self.last_event {
            None => self.end.first = Some(now.saturating_duration_since(self.started)),
            Some(last) => {
                // Events that arrive in one chunk share the gap before it.
                let gap = now.saturating_duration_since(last) / piece.events;
                self.sink.emit(Signal::Gap { route: self.route, gap });
            }
        }
        self.last_event = Some(now);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.done(500, Outcome::Failed, Some(Class::Internal));
        }
        if !self.ended {
            self.cut();
        }
        if self.live.is_ended() {
            // It was not the client who left.
            self.done(self.sent.unwrap_or(503), Outcome::Failed, Some(Class::Shutdown));
        }
        let later = self.later.as_ref().map_or(0, |sends| sends.load(Ordering::Relaxed));
        self.end.sends += later;
        if later > 0 && self.end.outcome == Outcome::Ok {
            // It was good in the end, but not by its first send alone.
            self.end.outcome = Outcome::Retried;
        }
        self.end.took = clock::now().saturating_duration_since(self.started);
        self.sink.emit(Signal::CallEnded(Box::new(self.end.clone())));
    }
}

fn watch(pieces: PieceStream, guard: Guard, status: u16, outcome: Outcome) -> PieceStream {
    Box::pin(Watched { pieces, guard, status, outcome })
}

struct Watched {
    pieces: PieceStream,
    guard: Guard,
    status: u16,
    outcome: Outcome,
}

impl Stream for Watched {
    type Item = Result<Piece, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = std::task::ready!(self.pieces.as_mut().poll_next(cx));
        let (status, outcome) = (self.status, self.outcome);
        match &item {
            None => self.guard.done(status, outcome, None),
            Some(Err(failure)) => self.guard.done(status, Outcome::Failed, Some(failure.class)),
            Some(Ok(piece)) => {
                self.guard.saw(piece);
                if piece.done {
                    // Clients hang up at the marker; the call succeeded all the same.
                    self.guard.done(status, outcome, None);
                }
            }
        }
        Poll::Ready(item)
    }
}

//! Turns a call away whose client key is over its limits, and settles at its end what was held back for it.
//!
//! It stands before everything that costs: a call that is turned away waits in no queue and sends nothing. Invariant:
//! what was held back for a call is settled exactly once, whatever becomes of the call.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use tower::{Layer, Service};

use super::Pending;
use super::state::{Rates, SharedRate};
use crate::call::{
    Call, CallError, CallRequest, Class, Failure, Outcome, Payload, Piece, PieceStream, Reply, Signal, Sink, Surface,
    Usage,
};
use crate::clock;
use crate::policy::rate::{Asked, Cost, Estimate, Expected, Limit, OverLimit};

/// Holds the calls of a route to the limits of their keys.
#[derive(Clone)]
pub struct AdmitLayer {
    rates: Rates,
    sink: Arc<dyn Sink>,
    route: usize,
}

impl AdmitLayer {
    /// `rates` are shared by all routes: a key has one allowance, wherever it calls.
    pub fn new(rates: Rates, sink: Arc<dyn Sink>, route: usize) -> Self {
        Self { rates, sink, route }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit { inner, door: self.clone() }
    }
}

/// See [`AdmitLayer`].
#[derive(Clone)]
pub struct Admit<S> {
    inner: S,
    door: AdmitLayer,
}

impl<S> Service<CallRequest> for Admit<S>
where
    S: Service<CallRequest, Response = Reply, Error = CallError, Future = Pending<Reply, CallError>>,
{
    type Response = Reply;
    type Error = CallError;
    type Future = Pending<Reply, CallError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: CallRequest) -> Self::Future {
        let call = &request.call;
        let Some(rate) = self.door.rates.of(call.key_name.as_deref()).cloned() else { return self.inner.call(request) };
        let asked = asked(call);
        let estimate = match rate.admit(&asked, clock::now()) {
            Ok(estimate) => estimate,
            Err(over) => {
                let (route, reason) = (self.door.route, over.limit.as_str());
                self.door.sink.emit(Signal::Shed { route, reason, priority: call.priority });
                return Box::pin(async move { Err(refusal(&over)) });
            }
        };
        let mut tab = Tab { rate, estimate, reported: None, events: 0, is_shared: false, cost: Some(Cost::Prompt) };
        let answer = self.inner.call(request);
        Box::pin(async move {
            match answer.await {
                Ok(reply) => Ok(tab.answered(reply)),
                Err(error) => {
                    tab.failed(&error);
                    Err(error)
                }
            }
        })
    }
}

/// What a call looks like to the limits.
pub fn asked(call: &Call) -> Asked {
    let expected = match call.surface {
        Surface::Models | Surface::Embeddings => Expected::Nothing,
        // Nobody looks into it. One that carries something may be a call to a model in another form.
        Surface::Opaque if call.body.replayable() => Expected::Nothing,
        Surface::Opaque => Expected::Usual,
        _ => call.max_tokens.map_or(Expected::Usual, Expected::AtMost),
    };
    Asked { prompt_bytes: call.prompt_bytes, expected, choices: call.choices }
}

/// What a call is told whose key is over a limit.
pub fn refusal(over: &OverLimit) -> CallError {
    let (limit, wait) = (over.a_minute, over.retry_after.as_secs_f64().ceil());
    let message = match over.limit {
        Limit::Requests => {
            format!("this client key may make {limit} requests a minute; there is room again in {wait} s")
        }
        Limit::Tokens => {
            format!("this client key may use {limit} tokens a minute; there is room for this call in {wait} s")
        }
    };
    let mut error = CallError::local(Class::TenantLimit, message);
    error.retry_after = Some(over.retry_after);
    error
}

/// What is held back for one call. If nothing else becomes known, it is that its client left before an answer.
struct Tab {
    rate: Arc<SharedRate>,
    estimate: Estimate,
    reported: Option<Usage>,
    events: u64,
    /// The answer is another call's.
    is_shared: bool,
    /// What it costs if it ends now; `None` once that is settled.
    cost: Option<Cost>,
}

impl Tab {
    fn answered(mut self, reply: Reply) -> Reply {
        self.reported = reply.usage;
        self.is_shared = reply.outcome == Outcome::Cached;
        let payload = match reply.payload {
            Payload::Whole(bytes) => {
                self.settle(self.price(true));
                Payload::Whole(bytes)
            }
            Payload::Events(pieces) => Payload::Events(Box::pin(Counted { pieces, tab: self })),
            Payload::Opaque(pieces) => {
                let refused = reply.status >= 400;
                self.settle(if refused { Cost::Nothing } else { Cost::Untold });
                Payload::Opaque(pieces)
            }
        };
        Reply { payload, ..reply }
    }

    /// Whoever gets nothing pays nothing, except for a prompt that a model may have read while the time ran out.
    fn failed(&mut self, error: &CallError) {
        let ran_out = matches!(error.class, Class::DeadlineExceeded | Class::ClientDisconnect);
        self.settle(if ran_out && error.sends > 0 { Cost::Prompt } else { Cost::Nothing });
    }

    fn saw(&mut self, piece: &Piece) {
        if self.cost.is_none() {
            return;
        }
        self.reported = piece.usage.or(self.reported);
        self.events += u64::from(piece.events);
        let cost = self.price(piece.done);
        if piece.done {
            // Clients hang up at the marker; the answer is whole all the same.
            self.settle(cost);
        } else {
            self.cost = Some(cost);
        }
    }

    /// Tokens of an answer that several calls share are paid for by the one that tells them.
    fn price(&self, done: bool) -> Cost {
        match self.reported {
            None if self.is_shared => Cost::Nothing,
            reported => Cost::of(reported, self.events, done),
        }
    }

    fn settle(&mut self, cost: Cost) {
        if self.cost.take().is_some() {
            self.rate.settle(&self.estimate, cost, clock::now());
        }
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        if let Some(cost) = self.cost {
            self.settle(cost);
        }
    }
}

struct Counted {
    pieces: PieceStream,
    tab: Tab,
}

impl Stream for Counted {
    type Item = Result<Piece, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = std::task::ready!(self.pieces.as_mut().poll_next(cx));
        match &item {
            Some(Ok(piece)) => self.tab.saw(piece),
            Some(Err(_)) => {}
            None => {
                let cost = self.tab.price(true);
                self.tab.settle(cost);
            }
        }
        Poll::Ready(item)
    }
}

//! Goes on with a stream that broke after its first byte was out, where that is provably safe and the route allows it.
//!
//! The loop's last act: one send more, at most, for the rest of an answer. Whether it may be made is `policy/rescue.rs`'s,
//! whether the request and the server allow it `dialect/continuation.rs`'s, how two streams become one
//! `wire/splice.rs`'s. Invariant: unless the continuation itself delivers, the client gets the failure that it would have
//! got without one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use tokio::time::Sleep;
use tower::Service;

use super::state::SharedBudget;
use super::{AttemptService, Pending};
use crate::call::{
    Attempt, AttemptKind, AttemptReply, Call, Class, Continuation, Failure, Fate, Payload, Piece, PieceStream,
    RequestBody, Verdict,
};
use crate::clock;
use crate::dialect::{Dialect, continuation, detect};
use crate::policy::Rescue;
use crate::policy::patience::patience;
use crate::wire::splice::{Follower, Splice};

/// What has to be the same where an answer is gone on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kin {
    /// The kind of server, as configured.
    pub dialect: Dialect,
    /// The model that is asked for there, where it is not the caller's.
    pub model: Option<String>,
}

/// The send that answered, and what may follow it.
pub(super) struct Answered {
    pub inner: AttemptService,
    pub call: Arc<Call>,
    /// The number of the next send within the call.
    pub next: usize,
    pub route: usize,
    pub target: usize,
    /// The endpoints of the target, and which of them answered.
    pub pool: Vec<usize>,
    pub endpoint: usize,
    /// What all endpoints are, by their number.
    pub kin: Arc<Vec<Kin>>,
    /// The kind of server that answered, as far as the answer tells.
    pub dialect: Dialect,
    pub budget: Option<Arc<SharedBudget>>,
    pub fate: Arc<Fate>,
    pub rescue: Rescue,
    pub first_token: Duration,
    /// Sends made after the first byte was out.
    pub sends: Arc<AtomicU32>,
}

/// The stream, watched by whoever can go on with it; as it is where nobody can.
pub(super) fn watch(pieces: PieceStream, answered: Answered) -> PieceStream {
    let RequestBody::Whole(body) = &answered.call.body else { return pieces };
    let can = continuation::can_continue(answered.dialect)
        && continuation::Request::read(answered.call.surface, body).is_some();
    if !can {
        return pieces;
    }
    Box::pin(Rescued { answered, state: State::Passing { pieces, follower: Box::default() } })
}

enum State {
    /// The first stream goes on.
    Passing {
        pieces: PieceStream,
        follower: Box<Follower>,
    },
    /// It broke, and somebody is asked for the rest.
    Asking(Box<Asking>),
    /// The rest comes.
    Continuing(Box<Continuing>),
    Over,
}

struct Asking {
    cause: Failure,
    follower: Box<Follower>,
    continuation: Arc<Continuation>,
    answer: Pending<AttemptReply, Failure>,
    patience: Pin<Box<Sleep>>,
}

struct Continuing {
    cause: Failure,
    pieces: PieceStream,
    splice: Splice,
    continuation: Arc<Continuation>,
}

struct Rescued {
    answered: Answered,
    state: State,
}

impl Answered {
    /// Starts the continuation, if there may be one.
    fn ask(&mut self, cause: Failure, follower: Box<Follower>, now: Instant) -> Result<Asking, Failure> {
        let Some(text) = follower.open_text().map(str::to_owned) else { return Err(cause) };
        let budget = self.budget.as_ref();
        if !self.rescue.may(now, &cause, || budget.is_some_and(|budget| budget.withdraw(now))) {
            return Err(cause);
        }
        let continuation = Arc::new(Continuation::new(text));
        let own = self.kin.get(self.endpoint);
        let other = |endpoint: &usize| *endpoint == self.endpoint || self.kin.get(*endpoint) != own;
        let sends = Arc::clone(&self.sends);
        let attempt = Attempt {
            call: Arc::clone(&self.call),
            number: self.next + self.sends.load(Ordering::Relaxed) as usize,
            kind: AttemptKind::Continuation,
            route: Some(self.route),
            target: self.target,
            endpoint: self.endpoint,
            // Another of its kind first; it itself where there is none.
            used: self.pool.iter().copied().filter(other).collect(),
            place: None,
            upload: None,
            unfit: Vec::new(),
            continuation: Some(Arc::clone(&continuation)),
            report: Arc::new(move |milestone| {
                if matches!(milestone, crate::call::Milestone::Dispatched(_)) {
                    sends.fetch_add(1, Ordering::Relaxed);
                }
            }),
            fate: Arc::clone(&self.fate),
        };
        let patience = patience(self.first_token, self.call.prompt_bytes);
        Ok(Asking {
            cause,
            follower,
            continuation,
            answer: Box::pin(self.inner.call(attempt)),
            patience: Box::pin(clock::sleep_until(now + patience)),
        })
    }

    fn is_kin(&self, reply: &AttemptReply) -> bool {
        let (own, other) = (self.kin.get(self.endpoint), self.kin.get(reply.endpoint));
        let told = other.map(|kin| detect(kin.dialect, "", &reply.headers));
        own == other && told == Some(self.dialect)
    }
}

impl Stream for Rescued {
    type Item = Result<Piece, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Passing { pieces, follower } => match ready!(pieces.as_mut().poll_next(cx)) {
                    Some(Err(cause)) => {
                        let follower = std::mem::take(follower);
                        // Its place at the endpoint is free before another is asked for.
                        this.state = State::Over;
                        match this.answered.ask(cause, follower, clock::now()) {
                            Ok(asking) => this.state = State::Asking(Box::new(asking)),
                            Err(cause) => return Poll::Ready(Some(Err(cause))),
                        }
                    }
                    Some(Ok(piece)) => {
                        follower.pass(&piece.bytes);
                        return Poll::Ready(Some(Ok(piece)));
                    }
                    None => return Poll::Ready(None),
                },
                State::Asking(asking) => {
                    let reply = match asking.answer.as_mut().poll(cx) {
                        Poll::Ready(reply) => {
                            let kin = reply.as_ref().is_ok_and(|reply| this.answered.is_kin(reply));
                            if !kin {
                                this.answered.fate.set(Verdict::Superseded);
                            }
                            reply.ok().filter(|_| kin)
                        }
                        Poll::Pending => {
                            ready!(asking.patience.as_mut().poll(cx));
                            this.answered.fate.set(Verdict::Failed(Class::FirstTokenTimeout));
                            None
                        }
                    };
                    let State::Asking(asking) = std::mem::replace(&mut this.state, State::Over) else { continue };
                    let Asking { cause, follower, continuation, .. } = *asking;
                    let (Some(before), Some(Payload::Events(pieces))) =
                        (continuation.before(), reply.map(|reply| reply.payload))
                    else {
                        return Poll::Ready(Some(Err(cause)));
                    };
                    let splice = follower.splice((before.input, before.output));
                    this.state = State::Continuing(Box::new(Continuing { cause, pieces, splice, continuation }));
                }
                State::Continuing(going) => {
                    let item = ready!(going.pieces.as_mut().poll_next(cx));
                    let Some(item) = item else { return Poll::Ready(None) };
                    match item.ok().and_then(|piece| going.rewritten(piece)) {
                        Some(piece) if piece.bytes.is_empty() => {}
                        Some(piece) => return Poll::Ready(Some(Ok(piece))),
                        None => {
                            // Broken again, or no longer plain text: what is told is what came first.
                            this.answered.fate.set(Verdict::Superseded);
                            let State::Continuing(going) = std::mem::replace(&mut this.state, State::Over) else {
                                continue;
                            };
                            return Poll::Ready(Some(Err(going.cause)));
                        }
                    }
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }
}

impl Continuing {
    fn rewritten(&mut self, piece: Piece) -> Option<Piece> {
        let bytes: Bytes = self.splice.rewrite(&piece.bytes).ok()?;
        let before = self.continuation.before().unwrap_or_default();
        let usage = piece.usage.map(|mut usage| {
            usage.input += before.input;
            usage.output += before.output;
            usage
        });
        Some(Piece { bytes, usage, ..piece })
    }
}

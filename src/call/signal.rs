//! What layers tell the world. They emit facts; `telemetry/` alone knows what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use super::{AttemptKind, BreakerChange, Call, Class, Priority, Surface, Usage};

/// How an answer came about, the better the higher up. One word per call, in `x-outrigger-outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// The first send succeeded.
    Ok,
    /// A repeat at the same target succeeded.
    Retried,
    /// A send started beside a silent one succeeded.
    Hedged,
    /// A later target of the route succeeded.
    Fallback,
    /// The answer of an earlier call with the same `Idempotency-Key`, finished or still under way.
    Cached,
    /// No good answer.
    Failed,
    /// The client left before there was one.
    Cancelled,
}

impl Outcome {
    /// Every outcome, for metrics.
    pub const ALL: [Outcome; 7] = [
        Outcome::Ok,
        Outcome::Retried,
        Outcome::Hedged,
        Outcome::Fallback,
        Outcome::Cached,
        Outcome::Failed,
        Outcome::Cancelled,
    ];

    /// The public name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Retried => "retried",
            Outcome::Hedged => "hedged",
            Outcome::Fallback => "fallback",
            Outcome::Cached => "cached",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "cancelled",
        }
    }

    /// The outcome of a call whose answer came from a send of this kind at this target.
    pub const fn at(target: usize, kind: AttemptKind) -> Self {
        match kind {
            _ if target > 0 => Outcome::Fallback,
            AttemptKind::First => Outcome::Ok,
            AttemptKind::Retry | AttemptKind::Continuation => Outcome::Retried,
            AttemptKind::Hedge => Outcome::Hedged,
            AttemptKind::Fallback => Outcome::Fallback,
        }
    }
}

/// How one send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A complete answer.
    Ok,
    /// Another send of the same call answered first.
    Superseded,
    /// It failed.
    Failed(Class),
}

impl Verdict {
    /// The metric label `class`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Superseded => "superseded",
            Verdict::Failed(class) => class.as_str(),
        }
    }
}

/// What became of a call whose `Idempotency-Key` was known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeated {
    /// It joined the execution under way.
    Joined,
    /// It was given the finished answer.
    Replayed,
    /// It was refused.
    Conflict,
}

impl Repeated {
    /// Every one, for metrics.
    pub const ALL: [Repeated; 3] = [Repeated::Joined, Repeated::Replayed, Repeated::Conflict];

    /// The metric label `result`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Repeated::Joined => "joined",
            Repeated::Replayed => "replayed",
            Repeated::Conflict => "conflict",
        }
    }
}

/// The end of one send.
#[derive(Clone, Debug)]
pub struct AttemptEnd {
    /// The call it was made for.
    pub call: Arc<Call>,
    /// Its number within the call, from 0.
    pub number: usize,
    /// The endpoint, as numbered in the settings.
    pub endpoint: usize,
    /// Why it was made.
    pub kind: AttemptKind,
    /// How it ended.
    pub verdict: Verdict,
    /// Whether it failed after the first model event.
    pub mid_stream: bool,
    /// Whether the client asked for a stream.
    pub streamed: bool,
    /// From its start to its end.
    pub took: Duration,
}

/// The end of one call.
#[derive(Clone, Debug)]
pub struct CallEnd {
    /// Our id for it.
    pub id: String,
    /// The route, as numbered in the settings; `None` when no route matched.
    pub route: Option<usize>,
    /// The surface it came in on.
    pub surface: Surface,
    /// HTTP status given to the client; 499 when it had left.
    pub status: u16,
    /// How it went.
    pub outcome: Outcome,
    /// The first cause, for what failed.
    pub class: Option<Class>,
    /// The endpoint that answered.
    pub endpoint: Option<String>,
    /// Sends made upstream.
    pub sends: u32,
    /// Whether the client asked for a stream.
    pub streamed: bool,
    /// From the request line to the last byte out.
    pub took: Duration,
    /// From the request line to the first model event.
    pub first: Option<Duration>,
    /// What of the time until the first byte out was ours, neither upstream's nor waiting by design.
    pub overhead: Option<Duration>,
    /// Tokens as reported upstream.
    pub usage: Option<Usage>,
    /// Name of the client key used.
    pub key_name: Option<Arc<str>>,
}

/// A step of one send on its way out.
#[derive(Clone, Debug)]
pub struct SendStep {
    /// The call it is made for.
    pub call: Arc<Call>,
    /// Its number within the call, from 0.
    pub number: usize,
    /// Which one.
    pub step: SendStage,
}

/// How far a send has come. That it went out, its endpoint's stack tells at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendStage {
    /// The loop wants it.
    Started {
        /// Why it is made.
        kind: AttemptKind,
        /// Which target of the route, counted from 0.
        target: usize,
        /// Whether the target's budget of repeats paid for it.
        paid: bool,
    },
    /// It waits for a place at one of these endpoints, as numbered in the settings.
    Waits(Vec<usize>),
    /// It waits no longer.
    Waited,
    /// It gets no place, for this reason of a closed list.
    Refused(&'static str),
}

/// A fact worth telling.
#[derive(Clone, Debug)]
pub enum Signal {
    /// A call was accepted on a route.
    CallStarted {
        /// The route, as numbered in the settings; `None` when no route matched.
        route: Option<usize>,
    },
    /// A call ended; exactly one for each that was accepted.
    CallEnded(Box<CallEnd>),
    /// A send ended; exactly one for each that was started.
    AttemptEnded(AttemptEnd),
    /// A send came a step further.
    Send(SendStep),
    /// The gap between two model events of one stream.
    Gap {
        /// The route, as numbered in the settings.
        route: usize,
        /// The time between the two.
        gap: Duration,
    },
    /// A breaker went from one state to another.
    Breaker(BreakerChange),
    /// A send that had to wait for a place does so no longer: it has one, was refused, or its client left.
    Queued {
        /// The route, as numbered in the settings.
        route: usize,
        /// How long it waited.
        waited: Duration,
    },
    /// A send went out to a later target of its route.
    Fallback {
        /// The route, as numbered in the settings.
        route: usize,
        /// Why the targets before it were left, in one word of a closed list.
        reason: &'static str,
    },
    /// A hedge was made or not made, and what came of it.
    Hedge {
        /// The route, as numbered in the settings.
        route: usize,
        /// What came of it, in one word of a closed list.
        outcome: &'static str,
    },
    /// One of two sends of a hedged call was dropped because the other was faster.
    HedgeWasted {
        /// The route, as numbered in the settings.
        route: usize,
        /// Prompt tokens that its endpoint may have read for nothing, estimated.
        tokens: u64,
    },
    /// A send was given to an endpoint.
    Picked {
        /// The endpoint, as numbered in the settings.
        endpoint: usize,
        /// Why, in one word of a closed list.
        reason: &'static str,
    },
    /// A target had no place for a send, or a client key is over a limit.
    Shed {
        /// The route, as numbered in the settings.
        route: usize,
        /// Why, in one word of a closed list.
        reason: &'static str,
        /// The call's priority.
        priority: Priority,
    },
    /// There was no memory left to hold a call's body; its route is not known yet.
    NoMemory {
        /// The call's priority.
        priority: Priority,
    },
    /// An endpoint's name was looked up.
    Lookup {
        /// The endpoint, as numbered in the settings.
        endpoint: usize,
        /// What went wrong, if it did.
        trouble: Option<String>,
        /// Whether lookups have begun to fail, or to succeed again.
        turned: bool,
        /// Addresses there are now.
        known: usize,
    },
    /// An endpoint's health was asked for.
    Probed {
        /// The endpoint, as numbered in the settings.
        endpoint: usize,
        /// What went wrong, if it did.
        trouble: Option<String>,
        /// Whether the endpoint counts as up now.
        up: bool,
        /// Whether it has just become so.
        turned: bool,
    },
    /// A call came with an `Idempotency-Key` that was known already.
    Repeated {
        /// The route, as numbered in the settings.
        route: usize,
        /// What became of it.
        result: Repeated,
    },
}

/// Whoever listens to signals.
pub trait Sink: Send + Sync {
    /// Takes one signal. Must not block.
    fn emit(&self, signal: Signal);
}

//! Random schedules of faults and load, each from one number.
//!
//! Owns what may happen, not what comes of it. Invariants: equal seeds give equal schedules; what an endpoint does to a
//! send depends on the seed, the call and the send alone, so that a schedule can be made smaller without becoming
//! another one.

use fastrand::Rng;
use outrigger::call::{Class, Retry};

use super::event::Breaker;

/// All of it.
#[derive(Clone, Debug)]
pub struct Schedule {
    pub seed: u64,
    pub policy: Policy,
    /// What each endpoint does, and until when in milliseconds; the last phase goes on for ever.
    pub endpoints: Vec<Vec<Phase>>,
    pub calls: Vec<Plan>,
}

/// What the gateway is set to; times in milliseconds.
#[derive(Clone, Debug)]
pub struct Policy {
    pub targets: Vec<Vec<usize>>,
    pub max_sends: u32,
    pub attempts: u32,
    pub budget: f64,
    pub backoff: (u64, u64),
    pub respect_retry_after: bool,
    pub headers: u64,
    pub first_token: u64,
    pub idle: u64,
    pub total: u64,
    /// A fixed limit of sends in flight; learnt without.
    pub slots: Option<u32>,
    pub queue_wait: u64,
    /// Pools are balanced by the prompt's prefix.
    pub by_prefix: bool,
    pub breaker: Option<Breaker>,
    /// The gateway is told to end, and to cut what still runs.
    pub shutdown: Option<u64>,
    /// Streams are kept until they are complete.
    pub hold: bool,
    /// The config is read again after each of these pauses.
    pub reloads: Vec<u64>,
    /// Nothing that repeats, moves or doubles a send is on.
    pub plain: bool,
}

/// A stretch of an endpoint's life: each send meets one of these.
#[derive(Clone, Debug)]
pub struct Phase {
    pub until: u64,
    pub acts: Vec<Act>,
}

/// What becomes of one send; times in milliseconds.
#[derive(Clone, Debug)]
pub struct Act {
    /// Until the response head, or the failure instead of it.
    pub after: u64,
    pub then: Then,
}

#[derive(Clone, Debug)]
pub enum Then {
    /// Nothing, for ever.
    Hang,
    Fail {
        class: Class,
        wait: Option<u64>,
        unsent: bool,
    },
    Answer {
        first: u64,
        events: u32,
        gap: u64,
        pings: bool,
        end: End,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Done,
    /// Breaks after its last event.
    Fail(Class),
    /// Keep-alives for ever instead of its last event, or nothing.
    Stall {
        pings: bool,
    },
}

/// One call of one client.
#[derive(Clone, Debug)]
pub struct Plan {
    pub call: u32,
    pub at: u64,
    pub stream: bool,
    pub priority: Option<u8>,
    pub patience: Option<u64>,
    pub retries: Option<u32>,
    pub no_hedge: bool,
    pub no_fallback: bool,
    pub leave: Option<Leave>,
    /// The client takes so long over each piece of the answer.
    pub slow: u64,
    /// How often the client itself asks again.
    pub again: u32,
    pub words: usize,
    /// The same key and body as others with this number.
    pub key: Option<u32>,
    /// On a path that nobody reads, with a body that can be sent only once.
    pub opaque: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Leave {
    After(u64),
    AtHead,
    AtPiece(u32),
}

/// Failures that a send can meet before its first model event.
const FAILURES: &[Class] = &[
    Class::DnsFailure,
    Class::ConnectRefused,
    Class::ConnectTimeout,
    Class::TlsFailure,
    Class::ResetBeforeResponse,
    Class::BadFraming,
    Class::WrongContentType,
    Class::Undecodable,
    Class::OversizeResponse,
    Class::Upstream400,
    Class::ContextOverflow,
    Class::UpstreamAuth,
    Class::UpstreamQuota,
    Class::RateLimited,
    Class::Upstream500,
    Class::Upstream500,
    Class::UpstreamUnavailable,
    Class::UpstreamUnavailable,
    Class::UpstreamOverloaded,
    Class::ModelLoading,
    Class::InbandError,
    Class::EmptyCompletion,
    Class::StreamTruncated,
];

/// Failures that a stream can meet after it.
const BREAKS: &[Class] =
    &[Class::StreamTruncated, Class::Undecodable, Class::InbandError, Class::OversizeResponse, Class::BadFraming];

fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

fn chance(rng: &mut Rng, percent: u32) -> bool {
    rng.u32(..100) < percent
}

impl Schedule {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rng = &mut rng;
        let policy = policy(rng);
        let endpoints = policy.targets.iter().flatten().max().map_or(1, |last| last + 1);
        let span = one(rng, &[3_000, 20_000, 100_000]);
        Self {
            seed,
            endpoints: (0..endpoints).map(|_| phases(rng, span)).collect(),
            calls: calls(rng, span, policy.plain),
            policy,
        }
    }

    /// What `endpoint` does to this send of this call, sent at `now`.
    pub fn act(&self, endpoint: usize, call: u32, send: u32, now: u64) -> Act {
        let phases = &self.endpoints[endpoint];
        let phase = phases.iter().find(|phase| now < phase.until).unwrap_or(&phases[phases.len() - 1]);
        let place = (u64::from(call) << 24) | (u64::from(send) << 8) | endpoint as u64;
        let mut rng = Rng::with_seed(self.seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        phase.acts[rng.usize(..phase.acts.len())].clone()
    }
}

fn policy(rng: &mut Rng) -> Policy {
    let plain = chance(rng, 6);
    let mut targets = Vec::new();
    let mut next = 0;
    for _ in 0..if plain { 1 } else { one(rng, &[1, 1, 2, 2, 3]) } {
        let size = if plain { 1 } else { one(rng, &[1, 1, 2, 2, 3]) };
        targets.push((next..next + size).collect::<Vec<usize>>());
        next += size;
    }
    if targets.len() > 1 && chance(rng, 15) {
        // The last target shares an endpoint with the first.
        let shared = targets[0][0];
        targets.last_mut().expect("not empty").push(shared);
    }
    Policy {
        targets,
        max_sends: if plain { 1 } else { one(rng, &[1, 2, 3, 4, 4, 4, 6]) },
        attempts: if plain { 1 } else { one(rng, &[1, 2, 3, 3, 4]) },
        budget: if plain { 0.0 } else { one(rng, &[0.0, 0.1, 0.2, 0.2, 0.5, 1.0]) },
        backoff: (one(rng, &[10, 100, 250, 1_000]), one(rng, &[1_000, 8_000])),
        respect_retry_after: chance(rng, 90),
        headers: one(rng, &[500, 2_000, 30_000]),
        first_token: one(rng, &[300, 1_000, 10_000]),
        idle: one(rng, &[500, 5_000, 30_000]),
        total: one(rng, &[2_000, 10_000, 60_000, 120_000]),
        slots: one(rng, &[None, None, Some(1), Some(2), Some(4)]),
        queue_wait: one(rng, &[0, 500, 5_000, 5_000]),
        by_prefix: chance(rng, 20),
        breaker: (!plain && chance(rng, 80)).then(|| Breaker {
            consecutive: one(rng, &[1, 2, 3, 5]),
            failure_rate: one(rng, &[0.3, 0.5, 1.0]),
            min_calls: one(rng, &[2, 4, 10]),
            probes: one(rng, &[1, 1, 1, 2]),
        }),
        shutdown: chance(rng, 8).then(|| rng.u64(..20_000)),
        hold: !plain && chance(rng, 15),
        reloads: if chance(rng, 15) { (0..rng.u32(1..4)).map(|_| rng.u64(..15_000)).collect() } else { Vec::new() },
        plain,
    }
}

fn phases(rng: &mut Rng, span: u64) -> Vec<Phase> {
    let count = one(rng, &[1, 2, 3, 5]);
    (1..=count).map(|number| Phase { until: span * number / count, acts: acts(rng) }).collect()
}

fn acts(rng: &mut Rng) -> Vec<Act> {
    match rng.u32(..9) {
        // Slow, and nothing else.
        8 => {
            let end = Then::Answer { first: 15_000, events: 3, gap: 1, pings: false, end: End::Done };
            vec![Act { after: 1, then: end }]
        }
        // Well.
        0 | 1 => (0..3).map(|_| answer(rng, false)).collect(),
        // Down, in one way.
        2 => vec![fault(rng)],
        // Silent.
        3 => vec![silence(rng)],
        // All sorts of things.
        4 => (0..6).map(|_| if chance(rng, 50) { answer(rng, true) } else { fault(rng) }).collect(),
        // Now and then a fault.
        _ => (0..8).map(|number| if number < 2 { fault(rng) } else { answer(rng, number == 2) }).collect(),
    }
}

fn fault(rng: &mut Rng) -> Act {
    if chance(rng, 15) {
        return silence(rng);
    }
    let class = one(rng, FAILURES);
    let told = matches!(class, Class::RateLimited | Class::UpstreamUnavailable | Class::UpstreamOverloaded);
    let wait = (told && chance(rng, 50)).then(|| one(rng, &[0, 200, 1_000, 5_000, 60_000, 86_400_000]));
    let unsent = match class {
        Class::DnsFailure | Class::ConnectRefused | Class::ConnectTimeout | Class::TlsFailure => true,
        Class::ResetBeforeResponse => chance(rng, 50),
        _ => false,
    };
    Act { after: one(rng, &[0, 0, 5, 100, 2_000]), then: Then::Fail { class, wait, unsent } }
}

fn silence(rng: &mut Rng) -> Act {
    if chance(rng, 50) {
        return Act { after: 0, then: Then::Hang };
    }
    Act {
        after: one(rng, &[0, 50, 1_000]),
        then: Then::Answer { first: 86_400_000, events: 1, gap: 0, pings: true, end: End::Done },
    }
}

fn answer(rng: &mut Rng, may_break: bool) -> Act {
    let end = match rng.u32(..6) {
        0..3 if may_break => End::Fail(one(rng, BREAKS)),
        3 if may_break => End::Stall { pings: chance(rng, 50) },
        _ => End::Done,
    };
    let first = one(rng, &[0, 1, 20, 200, 900, 3_000]);
    let (events, gap) = (rng.u32(1..7), one(rng, &[0, 1, 20, 200, 900]));
    Act {
        after: one(rng, &[0, 1, 10, 100, 1_500]),
        then: Then::Answer { first, events, gap, pings: chance(rng, 20), end },
    }
}

fn calls(rng: &mut Rng, span: u64, plain: bool) -> Vec<Plan> {
    let count = rng.u32(3..20);
    let keyed = !plain && chance(rng, 20);
    let bursts: Vec<u64> = (0..rng.usize(1..4)).map(|_| rng.u64(..span)).collect();
    (0..count)
        .map(|call| {
            let at = if chance(rng, 60) { one(rng, &bursts) + rng.u64(..20) } else { rng.u64(..span) };
            let leave = match rng.u32(..16) {
                0 | 1 => Some(Leave::After(one(rng, &[0, 1, 50, 500, 2_000]) + rng.u64(..10))),
                2 => Some(Leave::AtHead),
                3 => Some(Leave::AtPiece(rng.u32(1..4))),
                _ => None,
            };
            Plan {
                call,
                at,
                stream: chance(rng, 75),
                priority: one(rng, &[None, None, Some(0), Some(1), Some(2)]),
                patience: chance(rng, 25).then(|| one(rng, &[50, 500, 3_000, 30_000])),
                retries: chance(rng, 15).then(|| rng.u32(..3)),
                no_hedge: chance(rng, 15),
                no_fallback: chance(rng, 10),
                leave,
                slow: if chance(rng, 8) { one(rng, &[1, 50, 400]) } else { 0 },
                again: if plain || chance(rng, 80) { 0 } else { rng.u32(1..3) },
                words: one(rng, &[1, 1, 10, 2_000]),
                key: (keyed && chance(rng, 50)).then(|| rng.u32(..3)),
                opaque: chance(rng, 6),
            }
        })
        .collect()
}

/// The word that a history has for what may follow a failure.
pub fn retry_word(retry: Retry) -> &'static str {
    match retry {
        Retry::Again => "again",
        Retry::Once => "once",
        Retry::Elsewhere => "elsewhere",
        Retry::Never => "never",
    }
}

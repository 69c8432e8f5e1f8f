//! Who gets a place at an endpoint: the limits of all endpoints and the queues of all pools, as one thing.
//!
//! Why one: an endpoint may stand in several pools, and whoever waits in any of them has a claim on its next free
//! place. Rules: a newcomer never passes anybody who could have had the place it is given; a free place goes to the
//! best entry of all its pools at once; the last places of a limit are kept for the higher classes. Invariants: counts
//! are back at zero when nothing runs, and no place stays free while an entry that may have it waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

mod members;

use super::balance::{Candidate, Pick, cost, pick, within_bound};
use super::latency::Latency;
use super::limiter::{Limiter, Sample};
use super::queue::{Arrival, Queue, Waiting};
use super::settings::Concurrency;
use crate::call::Priority;
use members::Free;

/// A queue holds at least this many, however low the limits are.
const SHORTEST_QUEUE: usize = 8;
/// A queue before a limit that is still unlearnt holds at least this many: a burst that meets it is to wait the few first
/// tokens in which the limit doubles, not to be refused. What bounds the wait then is time.
const UNLEARNT_QUEUE: usize = 256;
/// Weight of the newest stay in the mean of all.
const NEWEST: f64 = 0.05;
/// Bounds of the wait that is told to whoever is refused.
const TOLD: (f64, f64) = (1.0, 60.0);

/// What share of a whole a class may fill: the rest is kept for the higher ones.
pub const fn share(class: Priority) -> f64 {
    match class {
        Priority::Critical => 1.0,
        Priority::Default => 0.95,
        Priority::Sheddable => 0.7,
    }
}

/// What a send asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The pool, by number.
    pub pool: usize,
    /// The route it comes by.
    pub route: usize,
    /// Its class.
    pub class: Priority,
    /// Whether it is a repeat.
    pub again: bool,
    /// Name of the client key; empty without one.
    pub key: Arc<str>,
    /// Size of the request body.
    pub prompt_bytes: usize,
    /// The endpoints of the pool that it may be given; never empty.
    pub candidates: Vec<Candidate>,
    /// One of them that waits for a probe, and gets this send if it has a place.
    pub due: Option<usize>,
    /// The call's deadline.
    pub deadline: Instant,
    /// The longest it may wait; zero for a send that is not worth waiting for.
    pub wait: Duration,
}

/// Why a send was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// The queue has no room for it.
    Full,
    /// It would be served too late to be of use.
    Late,
    /// It had to make way for a higher class.
    Evicted,
    /// It waited as long as it may.
    Timeout,
}

impl Shed {
    /// Every reason, for metrics.
    pub const ALL: [Shed; 4] = [Shed::Full, Shed::Late, Shed::Evicted, Shed::Timeout];

    /// The public name, as in the metric label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Shed::Full => "full",
            Shed::Late => "late",
            Shed::Evicted => "evicted",
            Shed::Timeout => "timeout",
        }
    }
}

/// A refusal, and when it may be worth asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub shed: Shed,
    /// The queue is predicted to have drained by then.
    pub retry_after: Duration,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has a place.
    Go {
        /// At this endpoint.
        endpoint: usize,
        /// For this reason.
        why: Pick,
    },
    /// It waits.
    Wait {
        /// Its number in the queue.
        id: u64,
        /// Not longer than this.
        until: Instant,
        /// Somebody had to make way for it.
        evicted: Option<(u64, Refusal)>,
    },
    /// There is no room for it.
    Refused(Refusal),
}

/// An entry of a queue has got a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The entry.
    pub id: u64,
    /// Where its place is.
    pub endpoint: usize,
    /// What it weighs there.
    pub cost: u32,
}

/// All endpoints and all pools.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    endpoints: Vec<Endpoint>,
    pools: Vec<Pool>,
    /// Numbers that stand for nothing now.
    free: Free,
    next_id: u64,
}

#[derive(Clone, Debug)]
struct Endpoint {
    limiter: Limiter,
    in_use: usize,
    /// What all of them weigh together.
    work: u64,
    latency: Latency,
    /// Mean stay of a send in seconds, once one has ended.
    stay: Option<f64>,
}

impl Endpoint {
    /// Whether there is a place for this class: the last few of many are kept for the higher ones.
    fn has_room(&self, class: Priority) -> bool {
        // Rounded up, so that a short limit is not made shorter.
        self.in_use < (self.limiter.limit() as f64 * share(class)).ceil() as usize
    }

    fn take(&mut self, cost: u32) {
        self.in_use += 1;
        self.work += u64::from(cost);
    }
}

#[derive(Clone, Debug)]
struct Pool {
    endpoints: Vec<usize>,
    queue: Queue,
}

impl Admission {
    /// Nothing in flight, nobody waiting. `pools` name their endpoints by number.
    pub fn new(endpoints: &[Concurrency], pools: &[Vec<usize>]) -> Self {
        let mut admission = Self::default();
        for endpoint in endpoints {
            admission.add_endpoint(*endpoint);
        }
        for pool in pools {
            admission.add_pool(pool.clone());
        }
        admission
    }

    /// Asks for a place. `samples` are uniform in `0..1`; the third jitters what a refused one is told.
    pub fn ask(&mut self, ask: Ask, now: Instant, samples: (f64, f64, f64)) -> Answer {
        let cost = super::queue::cost(ask.prompt_bytes);
        if let Some((endpoint, why)) = self.choose(&ask, cost, now, (samples.0, samples.1)) {
            self.endpoints[endpoint].take(cost);
            return Answer::Go { endpoint, why };
        }
        let remaining = ask.deadline.saturating_duration_since(now);
        let useful = (remaining / 10).min(Duration::from_secs(1));
        let until = (now + ask.wait).min(now + remaining.saturating_sub(useful));
        let ahead = self.pools[ask.pool].queue.ahead_of(ask.class, ask.again);
        if until <= now {
            return Answer::Refused(self.refusal(ask.pool, Shed::Full, samples.2));
        }
        if self.drain(ask.pool, ahead + 1).is_some_and(|wait| wait + useful > remaining) {
            return Answer::Refused(self.refusal(ask.pool, Shed::Late, samples.2));
        }
        let id = self.next_id;
        self.next_id += 1;
        let length = self.length(ask.pool);
        let entry = Waiting {
            id,
            route: ask.route,
            class: ask.class,
            again: ask.again,
            key: ask.key,
            cost,
            deadline: ask.deadline,
            until,
            endpoints: ask.candidates.iter().map(|it| it.endpoint).collect(),
        };
        match self.pools[ask.pool].queue.arrive(entry, length) {
            Arrival::Full => Answer::Refused(self.refusal(ask.pool, Shed::Full, samples.2)),
            Arrival::Queued => Answer::Wait { id, until, evicted: None },
            Arrival::Instead(victim) => {
                let refusal = self.refusal(ask.pool, Shed::Evicted, samples.2);
                Answer::Wait { id, until, evicted: Some((victim.id, refusal)) }
            }
        }
    }

    /// Where a send goes now; `None` where nobody has a place for it.
    fn choose(&self, ask: &Ask, cost: u32, now: Instant, samples: (f64, f64)) -> Option<(usize, Pick)> {
        let at = |it: &Candidate| self.endpoints.get(it.endpoint);
        let has_room = |it: &Candidate| at(it).is_some_and(|at| at.has_room(ask.class));
        let free: Vec<Candidate> = ask.candidates.iter().copied().filter(has_room).collect();
        if free.iter().any(|it| Some(it.endpoint) == ask.due) {
            return ask.due.map(|due| (due, Pick::Probe));
        }
        let belongs = ask.candidates.iter().filter(|it| it.affinity.is_some());
        let owned = belongs.clone().next().is_some();
        if owned {
            let total = ask.candidates.iter().filter_map(at).map(|at| at.in_use).sum();
            let members = ask.candidates.len();
            let takes =
                |it: &&Candidate| has_room(it) && at(it).is_some_and(|at| within_bound(at.in_use, total, members));
            let owner = belongs.max_by_key(|it| it.affinity).filter(takes);
            if let Some(owner) = owner {
                return Some((owner.endpoint, Pick::Affinity));
            }
        }
        let why = match (free.len(), owned) {
            (0, _) => return None,
            (_, true) => Pick::Overflow,
            (1, false) => Pick::Only,
            _ => Pick::Spread,
        };
        // Of whom nothing is known is taken to be like the others.
        let known: Vec<f64> = free.iter().filter_map(at).filter_map(|at| at.latency.estimate(now)).collect();
        let usual = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        let price = |number: usize| {
            let Some(at) = at(&free[number]) else { return f64::MAX };
            let first = at.latency.estimate(now).unwrap_or(usual) * at.latency.penalty(now);
            self::cost(at.work, cost, at.limiter.limit(), first, free[number].share)
        };
        Some((free[pick(free.len(), price, samples)].endpoint, why))
    }

    /// A send failed at an endpoint: for a while it is dearer than its first tokens tell.
    pub fn failed(&mut self, endpoint: usize, now: Instant) {
        if let Some(it) = self.endpoints.get_mut(endpoint) {
            it.latency.penalise(now);
        }
    }

    /// A send of this cost gave its place back after `stay`. What waits for it is granted.
    pub fn release(&mut self, endpoint: usize, cost: u32, stay: Duration, now: Instant) -> Vec<Grant> {
        if let Some(it) = self.endpoints.get_mut(endpoint) {
            it.in_use = it.in_use.saturating_sub(1);
            it.work = it.work.saturating_sub(u64::from(cost));
            let stay = stay.as_secs_f64();
            it.stay = Some(it.stay.map_or(stay, |mean| mean + NEWEST * (stay - mean)));
        }
        self.grant(endpoint, now)
    }

    /// A send in flight taught something. What the limit has room for now is granted.
    pub fn learn(&mut self, endpoint: usize, sample: Sample, now: Instant) -> Vec<Grant> {
        let Some(it) = self.endpoints.get_mut(endpoint) else { return Vec::new() };
        it.limiter.learn(sample, it.in_use, now);
        if let Sample::First { after, .. } = sample {
            it.latency.learn(after, now);
        }
        self.grant(endpoint, now)
    }

    /// The endpoint said how many places it has itself.
    pub fn slots(&mut self, endpoint: usize, slots: usize, now: Instant) -> Vec<Grant> {
        let Some(it) = self.endpoints.get_mut(endpoint) else { return Vec::new() };
        it.limiter.slots(slots);
        self.grant(endpoint, now)
    }

    /// An entry leaves the queue; `false` when it has a place already, or was made to leave.
    pub fn leave(&mut self, pool: usize, id: u64) -> bool {
        self.pools.get_mut(pool).is_some_and(|pool| pool.queue.remove(id).is_some())
    }

    /// What is told to a send that this pool refuses now.
    pub fn refusal(&self, pool: usize, shed: Shed, sample: f64) -> Refusal {
        let drain = self.drain(pool, self.pools[pool].queue.len() + 1).map_or(0.0, |drain| drain.as_secs_f64());
        // Those who are refused together should not come back together.
        let told = (drain * (1.0 + sample / 2.0)).clamp(TOLD.0, TOLD.1);
        Refusal { shed, retry_after: Duration::from_secs_f64(told) }
    }

    /// The limit of an endpoint and what of it is in use.
    pub fn at(&self, endpoint: usize) -> (usize, usize) {
        self.endpoints.get(endpoint).map_or((0, 0), |it| (it.limiter.limit(), it.in_use))
    }

    /// How many wait in a pool.
    pub fn waiting(&self, pool: usize) -> usize {
        self.pools.get(pool).map_or(0, |pool| pool.queue.len())
    }

    /// How many wait that came by a route.
    pub fn waiting_of(&self, route: usize) -> usize {
        self.pools.iter().map(|pool| pool.queue.of_route(route)).sum()
    }

    /// How long a pool's queue may be: as long as its endpoints serve at once.
    fn length(&self, pool: usize) -> usize {
        let members = || self.pools[pool].endpoints.iter().filter_map(|endpoint| self.endpoints.get(*endpoint));
        let shortest = if members().any(|it| it.limiter.is_unlearnt()) { UNLEARNT_QUEUE } else { SHORTEST_QUEUE };
        members().map(|it| it.limiter.limit()).sum::<usize>().max(shortest)
    }

    /// How long a pool takes to serve so many; `None` until it is known how long a send stays.
    fn drain(&self, pool: usize, sends: usize) -> Option<Duration> {
        let members = self.pools[pool].endpoints.iter().filter_map(|endpoint| self.endpoints.get(*endpoint));
        let rate: f64 = members.filter_map(|it| Some(it.limiter.limit() as f64 / it.stay?.max(1e-3))).sum();
        (rate > 0.0).then(|| Duration::try_from_secs_f64(sends as f64 / rate).unwrap_or(Duration::MAX / 4))
    }

    fn grant(&mut self, endpoint: usize, now: Instant) -> Vec<Grant> {
        let mut grants = Vec::new();
        let Self { endpoints, pools, .. } = self;
        let Some(it) = endpoints.get_mut(endpoint) else { return grants };
        loop {
            let fits = |entry: &Waiting| entry.endpoints.contains(&endpoint) && it.has_room(entry.class);
            let claims = pools.iter().enumerate().filter(|(_, pool)| pool.endpoints.contains(&endpoint));
            let best = claims.filter_map(|(number, pool)| Some((pool.queue.best(now, fits)?, number))).min();
            let Some(entry) = best.and_then(|(_, pool)| pools[pool].queue.take(now, fits)) else { return grants };
            it.take(entry.cost);
            grants.push(Grant { id: entry.id, endpoint, cost: entry.cost });
        }
    }
}

#[cfg(test)]
#[path = "spread_tests.rs"]
mod spread_tests;
#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;

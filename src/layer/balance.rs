//! Gets the attempt a place at an endpoint of its target, after a wait if need be, and hands it to that endpoint's stack.
//!
//! The queue is the target's, not the endpoint's: whoever waits takes whichever place is free first. Invariant: an
//! attempt that is dropped while it waits is out of the queue, and one that got a place in that moment gives it back.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tower::{Service, ServiceExt};

use super::state::{Asked, Asking, Breakers, Line, Permit, Slots, Turn};
use super::{AttemptService, Health, Pending};
use crate::call::{Attempt, AttemptKind, AttemptReply, Call, Class, Failure, SendStage, SendStep, Signal, Sink};
use crate::clock;
use crate::policy::balance::{Candidate, affinity, fresh, up};
use crate::policy::{Ask, Refusal, RouteSettings, Shed, Spread};

/// The endpoints that routes share, numbered as in the settings, and what is known of them.
#[derive(Clone)]
pub struct Endpoints {
    /// Their stacks.
    pub stacks: Arc<Vec<AttemptService>>,
    /// Of each a number that stays the same wherever it stands in the config.
    pub ids: Arc<[u64]>,
    /// Their places.
    pub slots: Slots,
    /// Their breakers.
    pub breakers: Breakers,
    /// What their health checks say.
    pub health: Health,
}

impl Endpoints {
    /// The number of an endpoint of this name.
    pub fn id(name: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        hasher.finish()
    }
}

/// The targets of one route over the attempt stacks of all endpoints.
#[derive(Clone)]
pub struct Balance {
    route: Arc<RouteSettings>,
    number: usize,
    /// For each target, its pool among the slots.
    pools: Arc<Vec<usize>>,
    endpoints: Endpoints,
    sink: Arc<dyn Sink>,
}

impl Balance {
    /// `number` is the route's, `pools` has one for each of its targets.
    pub fn new(
        number: usize,
        route: Arc<RouteSettings>,
        pools: Vec<usize>,
        endpoints: Endpoints,
        sink: Arc<dyn Sink>,
    ) -> Self {
        Self { route, number, pools: Arc::new(pools), endpoints, sink }
    }

    /// What an attempt asks for at its target.
    fn asks(&self, attempt: &Attempt) -> Option<Ask> {
        let call = &attempt.call;
        let (candidates, due) = self.candidates(attempt)?;
        Some(Ask {
            pool: *self.pools.get(attempt.target)?,
            route: self.number,
            class: call.priority,
            again: call.client_retry
                || matches!(attempt.kind, AttemptKind::Retry | AttemptKind::Hedge | AttemptKind::Continuation),
            key: call.key_name.clone().unwrap_or_default(),
            prompt_bytes: call.prompt_bytes,
            candidates: fresh(candidates, &attempt.used),
            due,
            deadline: call.deadline,
            // A twin that has to wait comes too late to help, and makes what it wants to help worse.
            wait: if attempt.kind == AttemptKind::Hedge { Duration::ZERO } else { self.route.queue_wait },
        })
    }

    fn tell(&self, call: &Arc<Call>, number: usize, step: SendStage) {
        self.sink.emit(Signal::Send(SendStep { call: Arc::clone(call), number, step }));
    }

    /// Who is let through at its target, and who of them waits for a probe. With nobody let through, whoever it is
    /// will refuse.
    fn candidates(&self, attempt: &Attempt) -> Option<(Vec<Candidate>, Option<usize>)> {
        let target = self.route.targets.get(attempt.target)?;
        let endpoints = &target.endpoints;
        let prefix = attempt.call.prefix.filter(|_| target.by == Spread::Prefix);
        let candidate = |endpoint: usize, share: f64| {
            let id = self.endpoints.ids.get(endpoint).copied().unwrap_or_default();
            Candidate { endpoint, share, affinity: prefix.map(|prefix| affinity(prefix, id)) }
        };
        let model = attempt.call.model.as_deref();
        let asking = attempt.route.map(|route| Asking { route, model });
        let now = clock::now();
        let mut open = Vec::with_capacity(endpoints.len());
        let mut due = None;
        let fit = |endpoint: &usize| !attempt.unfit.contains(endpoint);
        for endpoint in endpoints.iter().copied().filter(fit) {
            let Ok(allowed) = self.endpoints.breakers.peek(endpoint, asking, now) else { continue };
            // The sooner a probe is sent, the sooner the endpoint is back. What can be sent only once is not risked
            // on it, and nothing is while its health checks fail.
            let may_probe = attempt.call.body.replayable() && self.endpoints.health.is_up(endpoint);
            if allowed.probe && may_probe && !attempt.used.contains(&endpoint) {
                due = due.or(Some(endpoint));
            }
            open.push(candidate(endpoint, allowed.share));
        }
        if open.is_empty() {
            open = endpoints.iter().copied().filter(fit).map(|endpoint| candidate(endpoint, 1.0)).collect();
        }
        Some((up(open, |endpoint| self.endpoints.health.is_up(endpoint)), due))
    }

    /// Where a send that waits may get its place.
    fn could_go(&self, attempt: &Attempt) -> Vec<usize> {
        let ask = self.asks(attempt);
        ask.map(|ask| ask.candidates.iter().map(|candidate| candidate.endpoint).collect()).unwrap_or_default()
    }

    /// Out it goes.
    async fn send(self, mut attempt: Attempt, permit: Permit) -> Result<AttemptReply, Failure> {
        let Some(service) = self.endpoints.stacks.get(permit.endpoint()).cloned() else {
            return Err(Failure::new(Class::Internal, "a target names an endpoint that is not there"));
        };
        attempt.endpoint = permit.endpoint();
        self.sink.emit(Signal::Picked { endpoint: attempt.endpoint, reason: permit.why().as_str() });
        attempt.place = Some(Box::new(permit));
        service.oneshot(attempt).await
    }

    /// Waits in line.
    async fn turn(&self, pool: usize, mut line: Line, call: Arc<Call>, number: usize) -> Result<Permit, Refusal> {
        let _waited = Waited { balance: self, call, number, since: clock::now() };
        let refusal = || self.endpoints.slots.refusal(pool, Shed::Timeout, clock::sample());
        let until = line.until();
        tokio::select! {
            biased;
            turn = &mut line.turn => return told(turn.ok(), refusal),
            () = clock::sleep_until(until) => {}
        }
        if line.leave() {
            return Err(refusal());
        }
        // Its turn came in this very moment, and is on its way.
        let turn = (&mut line.turn).await;
        told(turn.ok(), refusal)
    }

    fn refused(&self, call: &Arc<Call>, number: usize, kind: AttemptKind, refusal: Refusal) -> Failure {
        self.tell(call, number, SendStage::Refused(refusal.shed.as_str()));
        if kind != AttemptKind::Hedge {
            self.sink.emit(Signal::Shed { route: self.number, reason: refusal.shed.as_str(), priority: call.priority });
        }
        let (class, message) = match refusal.shed {
            Shed::Full => (Class::QueueFull, "every place is taken, and the queue is full"),
            Shed::Late => (Class::QueueFull, "the queue is longer than the time this call has"),
            Shed::Evicted => (Class::QueueFull, "a call of a higher priority took its place in the queue"),
            Shed::Timeout => (Class::QueueTimeout, "no place became free in time"),
        };
        let mut failure = Failure::new(class, message);
        failure.retry_after = Some(refusal.retry_after);
        failure
    }
}

fn told(turn: Option<Turn>, otherwise: impl FnOnce() -> Refusal) -> Result<Permit, Refusal> {
    match turn {
        Some(Turn::Go(permit)) => Ok(permit),
        Some(Turn::Evicted(refusal)) => Err(refusal),
        None => Err(otherwise()),
    }
}

impl Service<Attempt> for Balance {
    type Response = AttemptReply;
    type Error = Failure;
    type Future = Pending<AttemptReply, Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let Some(ask) = self.asks(&attempt) else {
            return Box::pin(async { Err(Failure::new(Class::Internal, "the plan named a target that is not there")) });
        };
        let (this, pool) = (self.clone(), ask.pool);
        let (call, number, kind) = (Arc::clone(&attempt.call), attempt.number, attempt.kind);
        let samples = (clock::sample(), clock::sample(), clock::sample());
        match self.endpoints.slots.ask(ask, clock::now(), samples) {
            Asked::Go(permit) => Box::pin(this.send(attempt, permit)),
            Asked::Refused(refusal) => {
                let failure = self.refused(&call, number, kind, refusal);
                Box::pin(async move { Err(failure) })
            }
            Asked::Wait(line) => {
                self.tell(&call, number, SendStage::Waits(self.could_go(&attempt)));
                Box::pin(async move {
                    let turn = this.turn(pool, line, Arc::clone(&call), number).await;
                    let permit = turn.map_err(|refusal| this.refused(&call, number, kind, refusal))?;
                    this.send(attempt, permit).await
                })
            }
        }
    }
}

/// Tells how long a wait was, however it ended.
struct Waited<'a> {
    balance: &'a Balance,
    call: Arc<Call>,
    number: usize,
    since: Instant,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        let waited = clock::now().saturating_duration_since(self.since);
        self.balance.tell(&self.call, self.number, SendStage::Waited);
        self.balance.sink.emit(Signal::Queued { route: self.balance.number, waited });
    }
}

//! The breakers of all endpoints, and who else could be asked instead. What opens and closes one is
//! `policy/breaker.rs`'s.
//!
//! What outlives a generation of settings is the [`Fuse`] of each endpoint; who shares it with whom is the generation's.
//! Invariant: a send that was let through is judged once, or gives its place back when it is dropped.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::call::{BreakerChange, BreakerReason, BreakerState, Class, Counts, Failure, Retry, Signal, Sink};
use crate::policy::breaker::{Allowed, Alone, Changed, Circuits, Failed, Key, Pass, Refusal, Told, median};
use crate::policy::patience::patience;
use crate::policy::{BreakerSettings, Target};

/// A first token before this is never slow, long prompts aside.
const SLOW: Duration = Duration::from_secs(10);
/// Nor is one that took less than so many times what is usual in its pool.
const SLOWER: u32 = 5;

/// The breakers of all endpoints, as one generation of settings numbers them. No two of them are ever locked at the same
/// time.
#[derive(Clone)]
pub struct Breakers(Arc<Inner>);

struct Inner {
    endpoints: Vec<Slot>,
    routes: Vec<Route>,
    sink: Arc<dyn Sink>,
}

struct Slot {
    fuse: Arc<Fuse>,
    /// Whether a credential that is refused there is ours.
    ours: bool,
    /// Whether it is sent a model of its own, whatever the caller names.
    one_model: bool,
}

/// One endpoint, as far as breakers care.
pub struct Guarded {
    /// Its circuits.
    pub fuse: Arc<Fuse>,
    /// Their settings.
    pub settings: BreakerSettings,
    /// Whether a credential that is refused there is ours.
    pub ours: bool,
    /// Whether it is sent a model of its own, whatever the caller names.
    pub one_model: bool,
}

/// Whose sends are asked about: those of a route for a model.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The route, as numbered in the settings.
    pub route: usize,
    /// The model as the caller named it.
    pub model: Option<&'a str>,
}

/// One route, as far as breakers care.
pub struct Route {
    /// What its circuits are called in every generation.
    pub number: Arc<usize>,
    /// Its targets, to know who else can be asked.
    pub targets: Vec<Target>,
}

/// The circuits of one endpoint with one credential, whatever the settings around it.
#[derive(Debug)]
pub struct Fuse(Mutex<Circuits>);

impl Fuse {
    /// Closed circuits, except that what an operator said of the endpoint by this name still holds.
    pub fn new(settings: BreakerSettings, forced: Option<BreakerState>, now: Instant) -> Self {
        let mut circuits = Circuits::new(settings, &[], now);
        if forced.is_some() {
            circuits.force(forced, &mut Vec::new());
        }
        Self(Mutex::new(circuits))
    }

    /// What an operator said of it.
    pub fn forced(&self) -> Option<BreakerState> {
        self.lock().forced()
    }

    fn lock(&self) -> MutexGuard<'_, Circuits> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What a send that was let through is to its breaker. Dropped without a verdict, it gives its place back.
pub struct Entry {
    breakers: Breakers,
    endpoint: usize,
    route: usize,
    target: usize,
    model: Option<Box<str>>,
    pass: Option<Pass>,
}

/// One circuit, for whoever wants to know.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitView {
    /// The route whose circuit it is; `None` for the endpoint's own.
    pub route: Option<usize>,
    /// The model whose circuit it is, where several are known; as callers named it, shortened.
    pub model: Option<Box<str>>,
    /// What it is.
    pub state: BreakerState,
    /// Why, where it is not simply closed.
    pub reason: Option<BreakerReason>,
    /// Until it tries again, where that is known.
    pub lasts: Option<Duration>,
    /// Share of its ordinary load that it gets.
    pub share: f64,
}

impl Breakers {
    /// For each endpoint its circuits, which get these settings and routes now.
    pub fn new(endpoints: Vec<Guarded>, routes: Vec<Route>, sink: Arc<dyn Sink>, now: Instant) -> Self {
        let mut all_changed = Vec::new();
        let slot = |(at, guarded): (usize, Guarded)| {
            let Guarded { fuse, settings, ours, one_model } = guarded;
            let uses = |route: &&Route| route.targets.iter().any(|target| target.endpoints.contains(&at));
            let numbers: Vec<usize> = routes.iter().filter(uses).map(|route| *route.number).collect();
            let mut changed = Vec::new();
            fuse.lock().set(settings, &numbers, now, &mut changed);
            all_changed.push((at, changed));
            Slot { fuse, ours, one_model }
        };
        let endpoints = endpoints.into_iter().enumerate().map(slot).collect();
        let breakers = Self(Arc::new(Inner { endpoints, routes, sink }));
        for (at, changed) in all_changed {
            breakers.tell(at, changed, now);
        }
        breakers
    }

    /// Whether such a send would be let through there; without an asker, whether the endpoint is asked at all.
    ///
    /// # Errors
    /// It would not.
    pub fn peek(&self, endpoint: usize, asking: Option<Asking<'_>>, now: Instant) -> Result<Allowed, Refusal> {
        let key = asking.map(|asking| self.key(endpoint, asking));
        self.lock(endpoint).map_or(Ok(Allowed { probe: false, share: 1.0 }), |circuits| circuits.peek(key, now))
    }

    /// Endpoints of a route that are held back, and until when.
    pub fn shut(&self, asking: Asking<'_>, now: Instant) -> Vec<(usize, Instant)> {
        let held = |at: usize| self.peek(at, Some(asking), now).err().map(|no| (at, no.until));
        self.of(asking.route).filter_map(held).collect()
    }

    /// Lets a send through, or refuses it without counting anything.
    ///
    /// # Errors
    /// It was refused.
    pub fn enter(&self, endpoint: usize, asking: Asking<'_>, target: usize, now: Instant) -> Result<Entry, Failure> {
        let mut changed = Vec::new();
        let key = self.key(endpoint, asking);
        let entered = self.lock(endpoint).map(|mut circuits| circuits.enter(key, now, &mut changed)).transpose();
        self.tell(endpoint, changed, now);
        let (route, model) = (asking.route, asking.model.map(Box::from));
        match entered {
            Ok(pass) => Ok(Entry { breakers: self.clone(), endpoint, route, target, model, pass }),
            Err(refusal) => Err(refused(&refusal, now)),
        }
    }

    /// A question of our own, on no route: refused where the endpoint is, and nothing is counted.
    ///
    /// # Errors
    /// It was refused.
    pub fn ask(&self, endpoint: usize, now: Instant) -> Result<(), Failure> {
        self.peek(endpoint, None, now).map(drop).map_err(|refusal| refused(&refusal, now))
    }

    /// What a call gets when nobody of its route can be asked.
    pub fn all_open(&self, asking: Asking<'_>, names: &[String], now: Instant) -> Failure {
        let refusals = self.of(asking.route).filter_map(|at| Some((at, self.peek(at, Some(asking), now).err()?)));
        let refusals: Vec<(usize, Refusal)> = refusals.collect();
        let told = refusals.iter().map(|(at, refusal)| {
            let name = names.get(*at).map_or("", String::as_str);
            let seconds = refusal.until.saturating_duration_since(now).as_secs_f64();
            format!("{name}: {} ({}), {seconds:.1} s.", refusal.state.as_str(), refusal.reason.as_str())
        });
        let mut failure = Failure::new(Class::BreakerOpen, told.collect::<Vec<_>>().join(" "));
        let soonest = refusals.iter().map(|(_, refusal)| refusal.until).min();
        failure.retry_after = soonest.map(|until| until.saturating_duration_since(now));
        failure
    }

    /// Holds an endpoint open or closed, or with `None` lets it be its own again.
    pub fn force(&self, endpoint: usize, to: Option<BreakerState>, now: Instant) {
        let mut changed = Vec::new();
        if let Some(mut circuits) = self.lock(endpoint) {
            circuits.force(to, &mut changed);
        }
        self.tell(endpoint, changed, now);
    }

    /// Lets time pass everywhere, so that what is shown is what is.
    pub fn settle(&self, now: Instant) {
        for endpoint in 0..self.0.endpoints.len() {
            let mut changed = Vec::new();
            if let Some(mut circuits) = self.lock(endpoint) {
                circuits.tick(now, &mut changed);
            }
            self.tell(endpoint, changed, now);
        }
    }

    /// The circuits of an endpoint, its own first.
    pub fn view(&self, endpoint: usize, now: Instant) -> Vec<CircuitView> {
        let Some(circuits) = self.lock(endpoint) else { return Vec::new() };
        let own = circuits.own().iter();
        let own = own.map(|own| (Some(self.position(own.route)), Some(own.model.clone()), &own.breaker));
        let all = std::iter::once((None, None, circuits.whole())).chain(own);
        all.map(|(route, model, breaker)| {
            let story = breaker.story(now);
            let lasts = story.and_then(|(_, until)| until).map(|until| until.saturating_duration_since(now));
            let reason = story.map(|(reason, _)| reason);
            CircuitView { route, model, state: breaker.state(now), reason, lasts, share: breaker.share(now) }
        })
        .collect()
    }

    /// Who else could be asked instead, in the pool and on the route.
    fn alone(&self, entry: &Entry, now: Instant) -> Alone {
        let asking = Asking { route: entry.route, model: entry.model.as_deref() };
        let other = |at: usize| at != entry.endpoint && self.peek(at, Some(asking), now).is_ok();
        let pool = self.0.routes.get(entry.route).and_then(|route| route.targets.get(entry.target));
        let in_pool = !pool.is_some_and(|target| target.endpoints.iter().any(|at| other(*at)));
        let on_route = !self.of(entry.route).any(other);
        Alone { in_pool, on_route }
    }

    /// Whether a first token was late: beyond what its prompt explains, and beyond what is usual in its pool.
    fn is_slow(&self, entry: &Entry, took: Duration, prompt_bytes: usize) -> bool {
        if took <= patience(SLOW, prompt_bytes) {
            return false;
        }
        let pool = self.0.routes.get(entry.route).and_then(|route| route.targets.get(entry.target));
        let endpoints = pool.map_or(&[][..], |target| &target.endpoints);
        let kept =
            |at: &usize| self.lock(*at).map(|mut circuits| circuits.recent().kept().to_vec()).unwrap_or_default();
        took > median(endpoints.iter().flat_map(kept).collect()) * SLOWER
    }

    fn of(&self, route: usize) -> impl Iterator<Item = usize> {
        let targets = self.0.routes.get(route).map_or(&[][..], |route| &route.targets);
        targets.iter().flat_map(|target| target.endpoints.iter().copied())
    }

    /// The circuit a send belongs to. Where the endpoint has a model of its own, what callers name tells nothing apart.
    fn key<'a>(&self, endpoint: usize, asking: Asking<'a>) -> Key<'a> {
        let one_model = self.0.endpoints.get(endpoint).is_some_and(|slot| slot.one_model);
        let model = asking.model.filter(|_| !one_model).unwrap_or_default();
        Key { route: self.number(asking.route), model }
    }

    /// What a route is called in every generation.
    fn number(&self, route: usize) -> usize {
        self.0.routes.get(route).map_or(usize::MAX, |route| *route.number)
    }

    /// And the other way round; a route that only another generation knows is none of ours.
    fn position(&self, number: usize) -> usize {
        self.0.routes.iter().position(|route| *route.number == number).unwrap_or(usize::MAX)
    }

    fn tell(&self, endpoint: usize, changed: Vec<Changed>, now: Instant) {
        for (route, change) in changed {
            let route = route.map(|number| self.position(number));
            let lasts = change.until.map(|until| until.saturating_duration_since(now));
            let change = BreakerChange { endpoint, route, to: change.to, reason: change.reason, lasts };
            self.0.sink.emit(Signal::Breaker(change));
        }
    }

    fn lock(&self, endpoint: usize) -> Option<MutexGuard<'_, Circuits>> {
        Some(self.0.endpoints.get(endpoint)?.fuse.lock())
    }
}

impl Entry {
    /// The first model event after so long, or a whole answer, which says nothing of slowness.
    pub fn first(&mut self, took: Option<Duration>, prompt_bytes: usize, now: Instant) {
        let Some(mut pass) = self.pass.take() else { return };
        let slow = took.map(|took| self.breakers.is_slow(self, took, prompt_bytes));
        let alone = if slow == Some(true) { self.breakers.alone(self, now) } else { Alone::default() };
        let mut changed = Vec::new();
        if let Some(mut circuits) = self.breakers.lock(self.endpoint) {
            if let Some(took) = took {
                circuits.recent().add(took);
            }
            circuits.first(&mut pass, now, slow, Told { alone, sample: crate::clock::sample(), changed: &mut changed });
        }
        self.pass = Some(pass);
        self.breakers.tell(self.endpoint, changed, now);
    }

    /// The answer was complete.
    pub fn succeeded(mut self, now: Instant) {
        let mut changed = Vec::new();
        if let (Some(mut pass), Some(mut circuits)) = (self.pass.take(), self.breakers.lock(self.endpoint)) {
            circuits.succeeded(&mut pass, now, &mut changed);
        }
        self.breakers.tell(self.endpoint, changed, now);
    }

    /// It failed. `wait` is what the endpoint asked for.
    pub fn failed(mut self, counts: Counts, wait: Option<Duration>, now: Instant) {
        let ours = self.breakers.0.endpoints.get(self.endpoint).is_some_and(|slot| slot.ours);
        let counts = if counts == Counts::Credential && !ours { Counts::Nothing } else { counts };
        if counts == Counts::Nothing {
            return;
        }
        let alone = self.breakers.alone(&self, now);
        let mut changed = Vec::new();
        if let (Some(mut pass), Some(mut circuits)) = (self.pass.take(), self.breakers.lock(self.endpoint)) {
            let told = Told { alone, sample: crate::clock::sample(), changed: &mut changed };
            circuits.failed(&mut pass, now, Failed { counts, wait }, told);
        }
        self.breakers.tell(self.endpoint, changed, now);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let (Some(mut pass), Some(mut circuits)) = (self.pass.take(), self.breakers.lock(self.endpoint)) {
            circuits.left(&mut pass);
        }
    }
}

fn refused(refusal: &Refusal, now: Instant) -> Failure {
    let mut failure = Failure::new(Class::BreakerOpen, refusal.state.as_str());
    failure.retry = Retry::Elsewhere;
    failure.retry_after = Some(refusal.until.saturating_duration_since(now));
    failure
}

//! The circuits of one endpoint: one for each model that is asked of it, and one for the endpoint as a whole.
//!
//! Why two levels: a server may serve several models, and one broken model must not take the others with it. What tells
//! models apart is the route and the name that is sent. While only one is known there is one circuit; with the second
//! each gets its own, and what opened the one turns out to be the model's. The whole opens only when circuits of at
//! least two did and no other had an answer lately, or when failures of several follow each other without an answer
//! between. Invariant: circuits are bounded in number, whatever names clients make up.

use std::time::Instant;

use super::{Allowed, Alone, Breaker, Change, Failed, Hand, Recent, Refusal, Ticket};
use crate::call::{BreakerReason as Reason, BreakerState as State, Counts};
use crate::policy::settings::BreakerSettings;

/// So many models of an endpoint have a circuit of their own; who was asked for least lately makes way.
const MODELS: usize = 32;
/// So many bytes of a model's name tell it from others.
const NAMED: usize = 128;
/// How many times the failures in a row that open a circuit open the whole, where they are of several models.
const ALL_ALIKE: u32 = 2;

/// A change, and of which route's circuit; `None` is the endpoint's own.
pub type Changed = (Option<usize>, Change);

/// Which circuit of an endpoint a send belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// The route it comes by.
    pub route: usize,
    /// The model that is asked for; empty where the endpoint has one of its own, or nobody knows.
    pub model: &'a str,
}

/// What a send that was let through holds.
#[derive(Debug)]
pub struct Pass {
    whole: Ticket,
    /// The number of its own circuit.
    own: Option<(u64, Ticket)>,
}

/// The circuit of one model.
#[derive(Clone, Debug)]
pub struct Own {
    number: u64,
    /// The route it comes by.
    pub route: usize,
    /// The model's name, shortened.
    pub model: Box<str>,
    /// The circuit.
    pub breaker: Breaker,
    used: Instant,
}

/// Failures one after the other, whatever they were asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    failures: u32,
    first: Option<u64>,
    mixed: bool,
}

/// All circuits of one endpoint.
#[derive(Clone, Debug)]
pub struct Circuits {
    pub(super) settings: BreakerSettings,
    pub(super) whole: Breaker,
    /// Empty while one model is known.
    pub(super) own: Vec<Own>,
    /// The one model that is known.
    pub(super) only: Option<(usize, Box<str>)>,
    /// More than one route leads here: each has a circuit from its first send on.
    pub(super) shared: bool,
    streak: Streak,
    next: u64,
    recent: Recent,
}

impl Circuits {
    /// Circuits for an endpoint that these routes use.
    pub fn new(settings: BreakerSettings, routes: &[usize], now: Instant) -> Self {
        Self {
            settings,
            whole: Breaker::new(settings, now),
            own: Vec::new(),
            only: None,
            shared: routes.len() > 1,
            streak: Streak::default(),
            next: 0,
            recent: Recent::default(),
        }
    }

    /// The endpoint's own circuit.
    pub fn whole(&self) -> &Breaker {
        &self.whole
    }

    /// The circuits of single models, where several are known.
    pub fn own(&self) -> &[Own] {
        &self.own
    }

    /// Its latest first-token times.
    pub fn recent(&mut self) -> &mut Recent {
        &mut self.recent
    }

    /// Whether such a send would be let through; without a key, whether the endpoint is asked at all.
    pub fn peek(&self, key: Option<Key<'_>>, now: Instant) -> Result<Allowed, Refusal> {
        let Some(key) = key else { return self.whole.peek(now) };
        if self.own.is_empty() {
            let is_new = !self.shared && self.only.as_ref().is_some_and(|only| !is(only.0, &only.1, key));
            // What opened the one circuit there is was another model.
            return if is_new { self.whole.peek_rest(now) } else { self.whole.peek(now) };
        }
        let whole = self.whole.peek(now)?;
        match self.own.iter().find(|own| is(own.route, &own.model, key)).filter(|_| self.whole.forced.is_none()) {
            None => Ok(whole),
            Some(own) => {
                let own = own.breaker.peek(now)?;
                Ok(Allowed { probe: whole.probe || own.probe, share: whole.share.min(own.share) })
            }
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant, changed: &mut Vec<Changed>) {
        told(None, changed, |changes| self.whole.tick(now, changes));
        for Own { route, breaker, .. } in &mut self.own {
            told(Some(*route), changed, |changes| breaker.tick(now, changes));
        }
    }

    /// Lets a send through, or refuses it.
    pub fn enter(&mut self, key: Key<'_>, now: Instant, changed: &mut Vec<Changed>) -> Result<Pass, Refusal> {
        self.tick(now, changed);
        let own = self.at(key, now, changed);
        // First whether both agree, so that no place is taken by what is then refused.
        self.peek(Some(key), now)?;
        let whole = self.whole.enter(now)?;
        let forced = self.whole.forced.is_some();
        let own = match own.filter(|_| !forced).and_then(|at| self.own.get_mut(at)) {
            Some(own) => Some((own.number, own.breaker.enter(now)?)),
            None => None,
        };
        Ok(Pass { whole, own })
    }

    /// The first model event, or a whole good answer.
    pub fn first(&mut self, pass: &mut Pass, now: Instant, slow: Option<bool>, more: Told<'_>) {
        let Told { alone, sample, changed } = more;
        let several = pass.own.is_some();
        told(None, changed, |changes| {
            // What one model shows of slowness is that model's.
            let slow = slow.filter(|_| !several);
            self.whole.first(&mut pass.whole, now, slow, Hand { alone, sample, changes });
        });
        self.judge(pass, changed, |breaker, ticket, changes| {
            breaker.first(ticket, now, slow, Hand { alone, sample, changes });
        });
        self.several(now, Told { alone, sample, changed });
    }

    /// The answer was complete.
    pub fn succeeded(&mut self, pass: &mut Pass, now: Instant, changed: &mut Vec<Changed>) {
        self.streak = Streak::default();
        told(None, changed, |changes| self.whole.succeeded(&mut pass.whole, now, changes));
        self.judge(pass, changed, |breaker, ticket, changes| breaker.succeeded(ticket, now, changes));
    }

    /// The send failed.
    pub fn failed(&mut self, pass: &mut Pass, now: Instant, what: Failed, more: Told<'_>) {
        let Told { alone, sample, changed } = more;
        if pass.own.is_none() || pass.whole.probe {
            told(None, changed, |changes| {
                self.whole.failed(&mut pass.whole, now, what, Hand { alone, sample, changes });
            });
        }
        self.judge(pass, changed, |breaker, ticket, changes| {
            breaker.failed(ticket, now, what, Hand { alone, sample, changes });
        });
        if what.counts == Counts::Both {
            self.streak(pass, now, Told { alone, sample, changed });
        }
        self.several(now, Told { alone, sample, changed });
    }

    /// The send was dropped without a verdict.
    pub fn left(&mut self, pass: &mut Pass) {
        self.whole.left(&mut pass.whole);
        self.judge(pass, &mut Vec::new(), |breaker, ticket, _| breaker.left(ticket));
    }

    /// Holds the endpoint open or closed, or with `None` lets every circuit be its own again, as new.
    pub fn force(&mut self, to: Option<State>, changed: &mut Vec<Changed>) {
        told(None, changed, |changes| self.whole.force(to, changes));
        for Own { route, breaker, .. } in &mut self.own {
            let mut changes = Vec::new();
            let closed = !breaker.is_tripped() && breaker.resting() == State::Closed;
            breaker.force(None, &mut changes);
            if !closed {
                changed.extend(changes.into_iter().map(|change| (Some(*route), change)));
            }
        }
    }

    /// Failures of several models follow each other without an answer between: none of them may ever come to a row of its
    /// own, and yet nothing works.
    fn streak(&mut self, pass: &Pass, now: Instant, more: Told<'_>) {
        let Some((number, _)) = pass.own else { return };
        let streak = &mut self.streak;
        let first = *streak.first.get_or_insert(number);
        streak.mixed |= first != number;
        streak.failures += 1;
        let enough = streak.mixed && streak.failures >= ALL_ALIKE * self.settings.consecutive;
        if enough && !self.whole.is_tripped() && self.whole.forced.is_none() && self.settings.on {
            self.streak = Streak::default();
            let Told { alone, sample, changed } = more;
            told(None, changed, |changes| self.whole.trip(now, Reason::Routes, Hand { alone, sample, changes }));
        }
    }

    /// Circuits of several models opened, the last of them just now: it is the endpoint, not a model of it.
    fn several(&mut self, now: Instant, more: Told<'_>) {
        let Told { alone, sample, changed } = more;
        let just = changed.iter().any(|(route, change)| route.is_some() && change.to == State::Open);
        let tripped = self.own.iter().filter(|own| own.breaker.is_tripped()).count();
        let spared = self.own.iter().any(|own| !own.breaker.is_tripped() && own.breaker.has_succeeded(now));
        if just && tripped >= 2 && !spared && !self.whole.is_tripped() && self.whole.forced.is_none() {
            told(None, changed, |changes| self.whole.trip(now, Reason::Routes, Hand { alone, sample, changes }));
        }
    }

    fn judge(
        &mut self,
        pass: &mut Pass,
        changed: &mut Vec<Changed>,
        act: impl FnOnce(&mut Breaker, &mut Ticket, &mut Vec<Change>),
    ) {
        if let Some((number, ticket)) = &mut pass.own
            && let Some(own) = self.own.iter_mut().find(|own| own.number == *number)
        {
            told(Some(own.route), changed, |changes| act(&mut own.breaker, ticket, changes));
        }
    }

    /// Where the circuit of a model stands; `None` while one is known. A second one is given its own.
    fn at(&mut self, key: Key<'_>, now: Instant, changed: &mut Vec<Changed>) -> Option<usize> {
        if let Some(at) = self.own.iter().position(|own| is(own.route, &own.model, key)) {
            self.own[at].used = now;
            return Some(at);
        }
        if self.own.is_empty() && !self.shared {
            match self.only.take() {
                Some((route, model)) if !is(route, &model, key) => self.part(route, model, now, changed),
                known => {
                    self.only = known.or_else(|| Some((key.route, name(key.model).into())));
                    return None;
                }
            }
        }
        if self.own.len() >= MODELS {
            let idle = |own: &&Own| own.breaker.resting() == State::Closed;
            let oldest = |among: &mut dyn Iterator<Item = &Own>| among.min_by_key(|own| own.used).map(|own| own.number);
            let gone = oldest(&mut self.own.iter().filter(idle)).or_else(|| oldest(&mut self.own.iter()));
            self.own.retain(|own| Some(own.number) != gone);
        }
        let breaker = Breaker::new(self.settings, now);
        self.add(key.route, name(key.model).into(), breaker, now);
        Some(self.own.len() - 1)
    }

    /// A second model came: what the one circuit knew was of the first.
    fn part(&mut self, route: usize, model: Box<str>, now: Instant, changed: &mut Vec<Changed>) {
        let mut first = self.whole.clone();
        first.forced = None;
        first.rest = None;
        if first.is_tripped() {
            let changes = [Change { to: first.resting(), reason: first.reason, until: None }];
            changed.extend(changes.map(|change| (Some(route), change)));
            told(None, changed, |changes| self.whole.acquit(changes));
        }
        self.add(route, model, first, now);
    }

    fn add(&mut self, route: usize, model: Box<str>, breaker: Breaker, now: Instant) {
        self.next += 1;
        self.own.push(Own { number: self.next, route, model, breaker, used: now });
    }
}

/// Whether a circuit is the one a send belongs to.
fn is(route: usize, model: &str, key: Key<'_>) -> bool {
    route == key.route && model == name(key.model)
}

/// The part of a model's name that tells it from others.
fn name(model: &str) -> &str {
    let end = (0..=model.len().min(NAMED)).rev().find(|at| model.is_char_boundary(*at)).unwrap_or_default();
    &model[..end]
}

/// What a decision may need besides, and where it tells of changes.
#[derive(Debug)]
pub struct Told<'a> {
    /// Who else can be asked.
    pub alone: Alone,
    /// Uniform in `0..1`.
    pub sample: f64,
    /// Told of every change.
    pub changed: &'a mut Vec<Changed>,
}

pub(super) fn told(route: Option<usize>, changed: &mut Vec<Changed>, act: impl FnOnce(&mut Vec<Change>)) {
    let mut changes = Vec::new();
    act(&mut changes);
    changed.extend(changes.into_iter().map(|change| (route, change)));
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;

//! The circuits of one endpoint: one for each route that uses it, and one for the endpoint as a whole.
//!
//! Why two levels: a server may serve several models, and one broken model must not take the others with it. A route is
//! what names a model here. Where one route uses an endpoint there is one circuit. Where several do, each has its own,
//! and the whole opens only when circuits of at least two routes did and no other route has had an answer lately.

use std::time::Instant;

use super::{Allowed, Alone, Breaker, Change, Failed, Hand, Recent, Refusal, Ticket};
use crate::call::{BreakerReason as Reason, BreakerState as State};
use crate::policy::settings::BreakerSettings;

/// A change, and of which route's circuit; `None` is the endpoint's own.
pub type Changed = (Option<usize>, Change);

/// What a send that was let through holds.
#[derive(Debug)]
pub struct Pass {
    whole: Ticket,
    route: Option<(usize, Ticket)>,
}

/// All circuits of one endpoint.
#[derive(Clone, Debug)]
pub struct Circuits {
    pub(super) whole: Breaker,
    /// By route number; empty where at most one route uses the endpoint.
    pub(super) routes: Vec<(usize, Breaker)>,
    recent: Recent,
}

impl Circuits {
    /// Circuits for an endpoint that these routes use.
    pub fn new(settings: BreakerSettings, routes: &[usize], now: Instant) -> Self {
        let one = |route: &usize| (*route, Breaker::new(settings, now));
        let routes = if routes.len() > 1 { routes.iter().map(one).collect() } else { Vec::new() };
        Self { whole: Breaker::new(settings, now), routes, recent: Recent::default() }
    }

    /// The endpoint's own circuit.
    pub fn whole(&self) -> &Breaker {
        &self.whole
    }

    /// The circuits of routes, where there are several.
    pub fn routes(&self) -> &[(usize, Breaker)] {
        &self.routes
    }

    /// Its latest first-token times.
    pub fn recent(&mut self) -> &mut Recent {
        &mut self.recent
    }

    /// Whether a send of this route would be let through; without a route, whether the endpoint is asked at all.
    pub fn peek(&self, route: Option<usize>, now: Instant) -> Result<Allowed, Refusal> {
        let whole = self.whole.peek(now)?;
        match route.and_then(|route| self.at(route)).filter(|_| self.whole.forced.is_none()) {
            None => Ok(whole),
            Some((_, own)) => {
                let own = own.peek(now)?;
                Ok(Allowed { probe: whole.probe || own.probe, share: whole.share.min(own.share) })
            }
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant, changed: &mut Vec<Changed>) {
        told(None, changed, |changes| self.whole.tick(now, changes));
        for (route, breaker) in &mut self.routes {
            told(Some(*route), changed, |changes| breaker.tick(now, changes));
        }
    }

    /// Lets a send through, or refuses it.
    pub fn enter(&mut self, route: usize, now: Instant, changed: &mut Vec<Changed>) -> Result<Pass, Refusal> {
        self.tick(now, changed);
        // First whether both agree, so that no place is taken by what is then refused.
        self.peek(Some(route), now)?;
        let whole = self.whole.enter(now)?;
        let forced = self.whole.forced.is_some();
        let own = self.routes.iter_mut().find(|(of, _)| *of == route && !forced);
        let route = match own {
            Some((of, breaker)) => Some((*of, breaker.enter(now)?)),
            None => None,
        };
        Ok(Pass { whole, route })
    }

    /// The first model event, or a whole good answer.
    pub fn first(&mut self, pass: &mut Pass, now: Instant, slow: Option<bool>, more: Told<'_>) {
        let Told { alone, sample, changed } = more;
        let several = pass.route.is_some();
        told(None, changed, |changes| {
            // What one route sees of slowness is that route's.
            let slow = slow.filter(|_| !several);
            self.whole.first(&mut pass.whole, now, slow, Hand { alone, sample, changes });
        });
        self.own(pass, changed, |breaker, ticket, changes| {
            breaker.first(ticket, now, slow, Hand { alone, sample, changes });
        });
        self.several(now, Told { alone, sample, changed });
    }

    /// The answer was complete.
    pub fn succeeded(&mut self, pass: &mut Pass, now: Instant, changed: &mut Vec<Changed>) {
        told(None, changed, |changes| self.whole.succeeded(&mut pass.whole, now, changes));
        self.own(pass, changed, |breaker, ticket, changes| breaker.succeeded(ticket, now, changes));
    }

    /// The send failed.
    pub fn failed(&mut self, pass: &mut Pass, now: Instant, what: Failed, more: Told<'_>) {
        let Told { alone, sample, changed } = more;
        if pass.route.is_none() || pass.whole.probe {
            told(None, changed, |changes| {
                self.whole.failed(&mut pass.whole, now, what, Hand { alone, sample, changes });
            });
        }
        self.own(pass, changed, |breaker, ticket, changes| {
            breaker.failed(ticket, now, what, Hand { alone, sample, changes });
        });
        self.several(now, Told { alone, sample, changed });
    }

    /// The send was dropped without a verdict.
    pub fn left(&mut self, pass: &mut Pass) {
        self.whole.left(&mut pass.whole);
        self.own(pass, &mut Vec::new(), |breaker, ticket, _| breaker.left(ticket));
    }

    /// Holds the endpoint open or closed, or with `None` lets every circuit be its own again, as new.
    pub fn force(&mut self, to: Option<State>, changed: &mut Vec<Changed>) {
        told(None, changed, |changes| self.whole.force(to, changes));
        for (route, breaker) in &mut self.routes {
            let mut changes = Vec::new();
            let closed = !breaker.is_tripped() && breaker.resting() == State::Closed;
            breaker.force(None, &mut changes);
            if !closed {
                changed.extend(changes.into_iter().map(|change| (Some(*route), change)));
            }
        }
    }

    /// Circuits of several routes opened, the last of them just now: it is the endpoint, not a model of it.
    fn several(&mut self, now: Instant, more: Told<'_>) {
        let Told { alone, sample, changed } = more;
        let just = changed.iter().any(|(route, change)| route.is_some() && change.to == State::Open);
        let tripped = self.routes.iter().filter(|(_, breaker)| breaker.is_tripped()).count();
        let spared = self.routes.iter().any(|(_, breaker)| !breaker.is_tripped() && breaker.has_succeeded(now));
        if just && tripped >= 2 && !spared && !self.whole.is_tripped() && self.whole.forced.is_none() {
            told(None, changed, |changes| self.whole.trip(now, Reason::Routes, Hand { alone, sample, changes }));
        }
    }

    fn own(
        &mut self,
        pass: &mut Pass,
        changed: &mut Vec<Changed>,
        act: impl FnOnce(&mut Breaker, &mut Ticket, &mut Vec<Change>),
    ) {
        if let Some((route, ticket)) = &mut pass.route
            && let Some((_, breaker)) = self.routes.iter_mut().find(|(of, _)| of == route)
        {
            told(Some(*route), changed, |changes| act(breaker, ticket, changes));
        }
    }

    pub(super) fn at(&self, route: usize) -> Option<&(usize, Breaker)> {
        self.routes.iter().find(|(of, _)| *of == route)
    }
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

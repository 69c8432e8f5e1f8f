//! What of a circuit outlives a change of its settings, or of the routes that use its endpoint.
//!
//! Why anything should: a change of the config says nothing of whether a server is well. Invariant: what was open stays
//! open, however the config was written around it, unless the breaker itself was switched off.

use std::time::Instant;

use super::group::{Own, told};
use super::{Breaker, Change, Changed, Circuits, Phase, Window};
use crate::call::{BreakerReason as Reason, BreakerState as State};
use crate::policy::settings::BreakerSettings;

impl Breaker {
    /// Other settings from now on.
    pub fn set(&mut self, settings: BreakerSettings, now: Instant, changes: &mut Vec<Change>) {
        if settings == self.settings {
            return;
        }
        if settings.window != self.settings.window {
            self.window = Window::new(settings.window, now);
        }
        if !settings.on && self.settings.on {
            let was = self.resting();
            self.fresh(Phase::Closed { since: None });
            (self.rest, self.trips) = (None, 0);
            if self.resting() != was {
                changes.push(Change { to: self.resting(), reason: Reason::Operator, until: None });
            }
        }
        if let Phase::Open { until } = &mut self.phase {
            *until = (*until).min(now + settings.max_open);
        }
        self.settings = settings;
    }

    /// Takes the place of a circuit that knew more of the same endpoint, if that one held something back and this one
    /// does not.
    fn adopt(&mut self, other: Breaker, changes: &mut Vec<Change>) {
        let holds = |breaker: &Breaker| breaker.resting() != State::Closed;
        if holds(self) || !holds(&other) {
            return;
        }
        // What either of them let through is of the past, so nobody will give its place back.
        let generation = self.generation.max(other.generation) + 1;
        *self = Breaker { generation, ..other };
        if let Phase::HalfOpen { probes } = &mut self.phase {
            *probes = 0;
        }
        let (to, reason) = match (self.resting(), self.rest) {
            (State::HalfOpen, _) => (State::HalfOpen, Reason::Elapsed),
            (to @ (State::Cooldown | State::Credential), Some((_, reason))) => (to, reason),
            (to, _) => (to, self.reason),
        };
        changes.push(Change { to, reason, until: self.until() });
    }
}

impl Circuits {
    /// Other settings, and other routes that use the endpoint.
    pub fn set(&mut self, settings: BreakerSettings, routes: &[usize], now: Instant, changed: &mut Vec<Changed>) {
        self.settings = settings;
        self.shared = routes.len() > 1;
        let of_old = self.own.len();
        self.own.retain(|own| routes.contains(&own.route));
        self.only = self.only.take().filter(|(route, _)| routes.contains(route));
        let alone = of_old > 0 && self.own.len() <= 1 && !self.shared;
        let last = if alone { self.own.pop() } else { None };
        if let Some(last) = &last {
            self.only = Some((last.route, last.model.clone()));
        }
        told(None, changed, |changes| {
            last.into_iter().for_each(|last| self.whole.adopt(last.breaker, changes));
            self.whole.set(settings, now, changes);
        });
        for Own { route, breaker, .. } in &mut self.own {
            told(Some(*route), changed, |changes| breaker.set(settings, now, changes));
        }
    }

    /// What an operator said of the endpoint.
    pub fn forced(&self) -> Option<State> {
        self.whole.forced
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Alone, Failed, Key, Told};
    use super::*;
    use crate::call::Counts;

    const NO: Failed = Failed { counts: Counts::Both, wait: None };

    fn key(route: usize) -> Key<'static> {
        Key { route, model: "" }
    }

    fn fail(circuits: &mut Circuits, route: usize, times: u32, now: Instant) {
        for _ in 0..times {
            let mut changed = Vec::new();
            let Ok(mut pass) = circuits.enter(key(route), now, &mut changed) else { return };
            let told = Told { alone: Alone::default(), sample: 0.5, changed: &mut changed };
            circuits.failed(&mut pass, now, NO, told);
        }
    }

    fn set(circuits: &mut Circuits, settings: BreakerSettings, routes: &[usize], now: Instant) -> Vec<Changed> {
        let mut changed = Vec::new();
        circuits.set(settings, routes, now, &mut changed);
        changed
    }

    #[test]
    fn what_is_open_stays_open_through_any_settings_but_off() {
        let (now, settings) = (Instant::now(), BreakerSettings::default());
        let mut circuits = Circuits::new(settings, &[0], now);
        fail(&mut circuits, 0, 5, now);
        assert_eq!(circuits.whole().state(now), State::Open);
        let other = BreakerSettings { consecutive: 50, window: Duration::from_secs(9), ..settings };
        assert_eq!(set(&mut circuits, other, &[0], now), []);
        assert_eq!(circuits.whole().state(now), State::Open);
        let short = BreakerSettings { max_open: Duration::from_millis(10), ..other };
        set(&mut circuits, short, &[0], now);
        assert_eq!(
            circuits.whole().state(now + Duration::from_millis(11)),
            State::HalfOpen,
            "not longer than is allowed"
        );
        let changed = set(&mut circuits, BreakerSettings { on: false, ..other }, &[0], now);
        assert_eq!((changed.len(), circuits.whole().state(now)), (1, State::Closed));
    }

    #[test]
    fn failures_in_a_row_are_counted_on() {
        let (now, settings) = (Instant::now(), BreakerSettings::default());
        let mut circuits = Circuits::new(settings, &[0], now);
        fail(&mut circuits, 0, 3, now);
        set(&mut circuits, settings, &[0], now);
        fail(&mut circuits, 0, 1, now);
        assert_eq!(circuits.whole().state(now), State::Closed);
        fail(&mut circuits, 0, 1, now);
        assert_eq!(circuits.whole().state(now), State::Open);
    }

    #[test]
    fn circuits_of_routes_come_and_go() {
        let (now, settings) = (Instant::now(), BreakerSettings::default());
        let mut circuits = Circuits::new(settings, &[0, 1], now);
        fail(&mut circuits, 1, 5, now);
        assert!(circuits.peek(Some(key(1)), now).is_err() && circuits.peek(Some(key(0)), now).is_ok());
        // Another route beside them: what is known of the two stays.
        set(&mut circuits, settings, &[7, 1, 0], now);
        assert!(circuits.peek(Some(key(1)), now).is_err() && circuits.peek(Some(key(7)), now).is_ok());
        // Only the broken one is left: it is the endpoint now.
        let changed = set(&mut circuits, settings, &[1], now);
        assert_eq!(
            changed.iter().map(|(route, change)| (*route, change.to)).collect::<Vec<_>>(),
            [(None, State::Open)]
        );
        assert_eq!((circuits.own().len(), circuits.whole().state(now)), (0, State::Open));
        // And a second one finds the whole endpoint open.
        set(&mut circuits, settings, &[1, 2], now);
        assert!(circuits.peek(Some(key(2)), now).is_err());
    }

    #[test]
    fn a_probe_from_before_leaves_no_place_taken() {
        let (now, settings) = (Instant::now(), BreakerSettings::default());
        let mut circuits = Circuits::new(settings, &[0, 1], now);
        fail(&mut circuits, 1, 5, now);
        let later = now + Duration::from_secs(30);
        let mut probe = circuits.enter(key(1), later, &mut Vec::new()).unwrap();
        set(&mut circuits, settings, &[1], later);
        circuits.left(&mut probe);
        assert!(circuits.enter(key(1), later, &mut Vec::new()).is_ok(), "there is a place for another");
        assert!(circuits.enter(key(1), later, &mut Vec::new()).is_err());
    }
}

//! A circuit: whether sends may go to an endpoint that has been failing.
//!
//! Why two signals: failures in a row show a hard outage within a few sends; a share over a window shows a partial one,
//! which never fails often enough in a row. Why one probe: what has just come up again is easily knocked down. Why the
//! probe closes it at its first model event: waiting for the end of a two-minute answer would delay everybody else by
//! two minutes. Invariants: only what the class of a failure says counts; a probe is judged or gives its place back;
//! what was let through before the circuit opened last says nothing.

mod group;
mod outlive;
mod window;

use std::time::{Duration, Instant};

use super::settings::BreakerSettings;
use crate::call::{BreakerReason as Reason, BreakerState as State, Counts};
pub use group::{Changed, Circuits, Key, Own, Pass, Told};
use window::Window;
pub use window::{Recent, median};

/// Share of slow first tokens that opens a circuit.
const SLOW_SHARE: f64 = 0.8;
/// How long a credential that was refused or spent is left alone.
pub const CREDENTIAL_REST: Duration = Duration::from_secs(300);
/// After a recovery the share of sends doubles this often.
const RAMP_STEP: Duration = Duration::from_secs(10);
const RAMP_START: f64 = 0.25;
/// When a place for a probe may be free again.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// What a client is told where only an operator can say when.
const FORCED_WAIT: Duration = Duration::from_secs(60);

/// The circuit went from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Into this state.
    pub to: State,
    /// For this reason.
    pub reason: Reason,
    /// It ends then, where that is known.
    pub until: Option<Instant>,
}

/// Why a send is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the circuit is.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// When it is worth asking again, as far as anybody can tell.
    pub until: Instant,
}

/// What a send would be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Allowed {
    /// It would be a probe: the sooner it is sent, the sooner the endpoint is back.
    pub probe: bool,
    /// Share of its ordinary load that the endpoint should get, 0.25 to 1.
    pub share: f64,
}

/// Who else can be asked: the last one standing is kept as long as it answers at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alone {
    /// Nobody else in the pool: a share of failures, or slowness, does not open the circuit.
    pub in_pool: bool,
    /// Nobody else on the whole route: it is not left alone after a rate limit or for its credential either.
    pub on_route: bool,
}

/// What a send that was let through holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    generation: u64,
    probe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed { since: Option<Instant> },
    Open { until: Instant },
    HalfOpen { probes: u32 },
}

/// One circuit.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    phase: Phase,
    /// Why the phase is what it is.
    reason: Reason,
    /// Not to be asked until then, whatever the phase.
    rest: Option<(Instant, Reason)>,
    /// What an operator said.
    forced: Option<State>,
    /// Goes up with each opening: what was let through before it is of the past.
    generation: u64,
    consecutive: u32,
    /// Openings without a calm window between them.
    trips: u32,
    window: Window,
}

impl Breaker {
    /// A closed circuit.
    pub fn new(settings: BreakerSettings, now: Instant) -> Self {
        Self {
            settings,
            phase: Phase::Closed { since: None },
            reason: Reason::Recovered,
            rest: None,
            forced: None,
            generation: 0,
            consecutive: 0,
            trips: 0,
            window: Window::new(settings.window, now),
        }
    }

    /// What it is at this moment.
    pub fn state(&self, now: Instant) -> State {
        match (self.forced, self.phase, self.rest) {
            (Some(forced), ..) => forced,
            (_, Phase::Open { until }, _) if until > now => State::Open,
            (_, _, Some((until, Reason::Credential))) if until > now => State::Credential,
            (_, _, Some((until, _))) if until > now => State::Cooldown,
            (_, Phase::Closed { .. }, _) => State::Closed,
            _ => State::HalfOpen,
        }
    }

    /// Why it is what it is, and until when, where it is not simply closed.
    pub fn story(&self, now: Instant) -> Option<(Reason, Option<Instant>)> {
        match self.state(now) {
            State::Closed => None,
            State::Open => Some((self.reason, self.until())),
            State::HalfOpen => Some((self.reason, None)),
            State::Cooldown | State::Credential => self.rest.map(|(until, reason)| (reason, Some(until))),
            State::ForcedOpen | State::ForcedClosed => Some((Reason::Operator, None)),
        }
    }

    /// Share of its ordinary load that the endpoint should get now.
    pub fn share(&self, now: Instant) -> f64 {
        let Phase::Closed { since: Some(since) } = self.phase else { return 1.0 };
        let steps = now.saturating_duration_since(since).as_secs() / RAMP_STEP.as_secs();
        RAMP_START * f64::from(1u32 << steps.min(2))
    }

    /// Whether a send would be let through; changes nothing.
    pub fn peek(&self, now: Instant) -> Result<Allowed, Refusal> {
        let refuse = |reason, until| Err(Refusal { state: self.state(now), reason, until });
        match self.forced {
            Some(State::ForcedOpen) => return refuse(Reason::Operator, now + FORCED_WAIT),
            Some(_) => return Ok(Allowed { probe: false, share: 1.0 }),
            None => {}
        }
        let rest = self.rest.filter(|(until, _)| *until > now);
        match (self.phase, rest) {
            (Phase::Open { until }, rest) if until > now => {
                refuse(self.reason, rest.map_or(until, |(rest, _)| rest.max(until)))
            }
            (_, Some((until, reason))) => refuse(reason, until),
            (Phase::HalfOpen { probes }, _) if probes >= self.settings.probes => {
                refuse(Reason::Probe, now + PROBE_WAIT)
            }
            (Phase::Closed { .. }, _) => Ok(Allowed { probe: false, share: self.share(now) }),
            _ => Ok(Allowed { probe: true, share: 1.0 }),
        }
    }

    /// The same of a send for which only what an operator said and the endpoint asked for counts.
    pub(super) fn peek_rest(&self, now: Instant) -> Result<Allowed, Refusal> {
        let rest = self.rest.filter(|(until, _)| *until > now);
        match (self.forced, rest) {
            (Some(_), _) => self.peek(now),
            (None, Some((until, reason))) => Err(Refusal { state: self.state(now), reason, until }),
            (None, None) => Ok(Allowed { probe: false, share: 1.0 }),
        }
    }

    /// What opened it was somebody else's: it is closed, and what it counted is forgotten. A rest stays.
    pub(super) fn acquit(&mut self, changes: &mut Vec<Change>) {
        self.fresh(Phase::Closed { since: None });
        self.trips = 0;
        self.reason = Reason::Recovered;
        changes.push(Change { to: self.resting(), reason: Reason::Parted, until: None });
    }

    /// Lets time pass: what has run out ends.
    pub fn tick(&mut self, now: Instant, changes: &mut Vec<Change>) {
        let before = self.resting();
        if matches!(self.phase, Phase::Open { until } if until <= now) {
            self.phase = Phase::HalfOpen { probes: 0 };
        }
        self.rest = self.rest.filter(|(until, _)| *until > now);
        let after = self.resting();
        if before != after {
            let reason = match after {
                State::Cooldown | State::Credential => self.rest.map_or(Reason::Elapsed, |(_, reason)| reason),
                _ => Reason::Elapsed,
            };
            changes.push(Change { to: after, reason, until: None });
        }
    }

    /// Lets a send through, or refuses it.
    pub fn enter(&mut self, now: Instant) -> Result<Ticket, Refusal> {
        let allowed = self.peek(now)?;
        if let (true, Phase::HalfOpen { probes }) = (allowed.probe, &mut self.phase) {
            *probes += 1;
        }
        Ok(Ticket { generation: self.generation, probe: allowed.probe })
    }

    /// The first model event, or a whole good answer. `slow` says of a stream whether it was late.
    pub fn first(&mut self, ticket: &mut Ticket, now: Instant, slow: Option<bool>, more: Hand<'_>) {
        if self.is_past(*ticket) {
            return;
        }
        if std::mem::take(&mut ticket.probe) {
            return self.close(now, more.changes);
        }
        let Some(slow) = slow else { return };
        let tally = self.window.now(now);
        tally.firsts += 1;
        tally.slow += u32::from(slow);
        let sum = self.window.sum(now);
        let share = f64::from(sum.slow) / f64::from(sum.firsts.max(1));
        if slow && !more.alone.in_pool && sum.firsts >= self.settings.min_calls && share >= SLOW_SHARE {
            self.trip(now, Reason::Slow, more);
        }
    }

    /// The answer was complete.
    pub fn succeeded(&mut self, ticket: &mut Ticket, now: Instant, changes: &mut Vec<Change>) {
        if self.is_past(*ticket) {
            return;
        }
        if std::mem::take(&mut ticket.probe) {
            self.close(now, changes);
        }
        self.window.now(now).total += 1;
        self.consecutive = 0;
    }

    /// The send failed. `wait` is what the endpoint asked for.
    pub fn failed(&mut self, ticket: &mut Ticket, now: Instant, what: Failed, more: Hand<'_>) {
        if self.is_past(*ticket) {
            return;
        }
        let probe = ticket.probe;
        match what.counts {
            Counts::Nothing => return self.left(ticket),
            Counts::Credential => {
                self.left(ticket);
                return self.rest(now, now + CREDENTIAL_REST, Reason::Credential, more);
            }
            Counts::Both => {
                self.consecutive += 1;
                let tally = self.window.now(now);
                (tally.total, tally.failed) = (tally.total + 1, tally.failed + 1);
            }
            Counts::RatioOnly => {
                let tally = self.window.now(now);
                (tally.total, tally.failed) = (tally.total + 1, tally.failed + 1);
            }
        }
        let alone = more.alone;
        let changes = &mut *more.changes;
        if probe {
            ticket.probe = false;
            self.trip(now, Reason::Probe, Hand { changes, ..more });
        } else if matches!(self.phase, Phase::Closed { .. }) {
            let sum = self.window.sum(now);
            let share = f64::from(sum.failed) / f64::from(sum.total.max(1));
            if self.consecutive >= self.settings.consecutive {
                self.trip(now, Reason::Consecutive, Hand { changes, ..more });
            } else if !alone.in_pool && sum.total >= self.settings.min_calls && share >= self.settings.failure_rate {
                self.trip(now, Reason::FailureRate, Hand { changes, ..more });
            }
        }
        if let (Counts::RatioOnly, Some(wait)) = (what.counts, what.wait.filter(|wait| !wait.is_zero())) {
            self.rest(now, now + wait, Reason::RateLimited, Hand { changes, alone, sample: more.sample });
        }
    }

    /// The send was dropped without a verdict: a probe gives its place back.
    pub fn left(&mut self, ticket: &mut Ticket) {
        let probe = std::mem::take(&mut ticket.probe);
        if let (true, false, Phase::HalfOpen { probes }) = (probe, self.is_past(*ticket), &mut self.phase) {
            *probes = probes.saturating_sub(1);
        }
    }

    /// Opens it.
    pub fn trip(&mut self, now: Instant, reason: Reason, more: Hand<'_>) {
        if let Phase::Closed { since } = self.phase
            && since.is_none_or(|since| now.saturating_duration_since(since) >= self.settings.window)
        {
            self.trips = 0;
        }
        let settings = &self.settings;
        let doubled = settings.open_for.saturating_mul(1 << self.trips.min(20)).min(settings.max_open);
        let until = now + doubled.mul_f64(0.5 + more.sample).min(settings.max_open);
        self.trips += 1;
        self.fresh(Phase::Open { until });
        self.reason = reason;
        more.changes.push(Change { to: State::Open, reason, until: Some(until) });
    }

    /// Holds it open or closed, or with `None` lets it be its own again, as new.
    pub fn force(&mut self, to: Option<State>, changes: &mut Vec<Change>) {
        self.forced = to.filter(|to| matches!(to, State::ForcedOpen | State::ForcedClosed));
        self.fresh(Phase::Closed { since: None });
        (self.rest, self.trips) = (None, 0);
        let to = self.forced.unwrap_or(State::Closed);
        changes.push(Change { to, reason: Reason::Operator, until: None });
    }

    /// Whether failures opened it, and no probe has closed it since.
    pub fn is_tripped(&self) -> bool {
        !matches!(self.phase, Phase::Closed { .. })
    }

    /// Whether anybody got a complete answer within the window.
    pub fn has_succeeded(&self, now: Instant) -> bool {
        let sum = self.window.sum(now);
        sum.total > sum.failed
    }

    /// Nothing is to be asked before `until`; a rest that is longer already stays.
    fn rest(&mut self, now: Instant, until: Instant, reason: Reason, more: Hand<'_>) {
        if more.alone.on_route || self.rest.is_some_and(|(longer, _)| longer >= until) {
            return;
        }
        self.rest = Some((until, reason));
        let to = self.state(now);
        if matches!(to, State::Cooldown | State::Credential) {
            more.changes.push(Change { to, reason, until: Some(until) });
        }
    }

    fn close(&mut self, now: Instant, changes: &mut Vec<Change>) {
        // The generation stays: how the probe's answer ends is the first thing to count.
        self.phase = Phase::Closed { since: Some(now) };
        self.consecutive = 0;
        self.window.clear();
        self.reason = Reason::Recovered;
        changes.push(Change { to: State::Closed, reason: Reason::Recovered, until: None });
    }

    fn fresh(&mut self, phase: Phase) {
        self.generation += 1;
        self.phase = phase;
        self.consecutive = 0;
        self.window.clear();
    }

    fn is_past(&self, ticket: Ticket) -> bool {
        ticket.generation != self.generation || self.forced.is_some() || !self.settings.on
    }

    fn until(&self) -> Option<Instant> {
        let Phase::Open { until } = self.phase else { return None };
        Some(self.rest.map_or(until, |(rest, _)| rest.max(until)))
    }

    /// The state as it was left, whatever the time is.
    fn resting(&self) -> State {
        match (self.forced, self.phase, self.rest) {
            (Some(forced), ..) => forced,
            (_, Phase::Open { .. }, _) => State::Open,
            (_, _, Some((_, Reason::Credential))) => State::Credential,
            (_, _, Some(_)) => State::Cooldown,
            (_, Phase::Closed { .. }, _) => State::Closed,
            (_, Phase::HalfOpen { .. }, _) => State::HalfOpen,
        }
    }
}

/// A failure, as far as a circuit cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What it counts for.
    pub counts: Counts,
    /// How long the endpoint asked to be left alone.
    pub wait: Option<Duration>,
}

/// What a decision may need besides, and where it tells of changes.
#[derive(Debug)]
pub struct Hand<'a> {
    /// Who else can be asked.
    pub alone: Alone,
    /// Uniform in `0..1`.
    pub sample: f64,
    /// Told of every change.
    pub changes: &'a mut Vec<Change>,
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;

//! The plan of one call: which send to start, when, and when to stop. The only place that decides it.
//!
//! Why one machine: when retry, hedge, fallback and the twin beside a silent send each keep their own loop, their
//! numbers multiply (3 tries in each of 3 layers are 27 sends). Here each of them is "the next send", under one
//! deadline, one budget and one cap, so they add. The machine knows no clock and no chance: the layer tells it what
//! happened, and it answers with a [`Step`].
//!
//! Rules, in the order they are asked:
//! 1. Nothing starts once the deadline is reached, the cap of sends is used, or the body cannot be sent again.
//! 2. A failure is repeated at its target while its class allows, the target has sends left and the budget pays.
//!    Another endpoint of the pool goes first; an endpoint is asked again only after its wait.
//! 3. When the target is spent, or the wait it asks for is too long, or one send is left in the cap, the next target
//!    gets its own first send.
//! 4. A send that its target has no place for was none: it does not count, and the next target may be asked.
//! 5. Whoever is held back by a breaker is not asked: the next of the pool is, else the next target, at once and
//!    unpaid. A send that a breaker refuses all the same was none.
//! 6. Whoever cannot serve the call is never asked. A refusal for what an endpoint lacks is no reason to stop: whoever
//!    may have it is asked, once each, and nobody twice.
//! 7. A first send that is late gets one beside it at another endpoint of its target, where hedging is on.
//! 8. A send that stays silent beyond its patience is not ended: the next endpoint is asked beside it. Only when it
//!    has not even sent a response head by `timeouts.headers`, and somebody else can be asked, is it given up. One that
//!    has spoken and is held back until it is complete is silent no longer.
//! 9. An endpoint whose health checks fail is no other endpoint of its pool, and a target that has no other is passed over for
//!    a later one. It is asked when nobody else can be: a check is a hint.

use std::time::{Duration, Instant};

use super::{RouteSettings, patience::patience};
use crate::call::{AttemptKind, Class, Failure, Options};

mod after;

/// What the layer has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start a send.
    Start {
        /// Which target of the route, counted from 0.
        target: usize,
        /// Why it is made.
        kind: AttemptKind,
    },
    /// The call's only send is late: start one beside it at another endpoint of the target, if the target's hedging
    /// allows it; then say so with [`Plan::hedge`].
    Hedge {
        /// Which target of the route, counted from 0.
        target: usize,
    },
    /// Give up a running send: it failed with this class.
    Drop {
        /// The number of the send within its call.
        attempt: usize,
        /// What it failed with.
        class: Class,
    },
    /// Nothing to do before this moment, unless something happens.
    Wait(Instant),
    /// No send can help any more.
    Stop,
}

/// What the machine needs to know of a call.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The call ends here.
    pub deadline: Instant,
    /// What the client asked for.
    pub options: Options,
    /// Whether the body can be sent more than once.
    pub replayable: bool,
    /// Whether the answer comes in events, so that a silent start shows. Whole answers are silent by nature: for
    /// them `timeouts.headers` is the patience.
    pub streamed: bool,
    /// Size of the request body.
    pub prompt_bytes: usize,
}

/// How a send stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Over,
    /// Its target had no place for it, or a breaker did not let it through: it was never made.
    Refused,
}

/// One send as the machine sees it.
#[derive(Clone, Debug)]
struct Sent {
    target: usize,
    kind: AttemptKind,
    endpoint: Option<usize>,
    /// When it went out; before that it waits for a place, and waiting is not silence.
    started: Option<Instant>,
    head: bool,
    /// From when on it is late.
    late: Option<Instant>,
    /// Its first model event is in hand: what follows it is watched elsewhere.
    spoken: bool,
    /// Its patience ran out, and what that allows was done.
    silent: bool,
    /// Its headers clock ran out, and what that allows was done.
    overdue: bool,
    state: State,
}

impl Sent {
    /// It runs, and has said nothing yet.
    fn is_silent(&self) -> bool {
        self.state == State::Running && !self.spoken
    }
}

/// What a target has used up.
#[derive(Clone, Debug, Default)]
struct Spent {
    sends: u32,
    repeats_once: u32,
    fingerprint: Option<u64>,
    closed: bool,
}

/// A send that is to follow a failure.
#[derive(Clone, Copy, Debug)]
struct Next {
    at: Instant,
    target: usize,
    kind: AttemptKind,
    /// Whether the target's budget has to pay for it.
    paid: bool,
}

impl Next {
    /// The first send at a further target.
    fn onward(target: usize, now: Instant) -> Self {
        Self { at: now, target, kind: AttemptKind::Fallback, paid: false }
    }
}

/// The plan of one call.
#[derive(Debug)]
pub struct Plan<'a> {
    route: &'a RouteSettings,
    terms: Terms,
    patience: Duration,
    sent: Vec<Sent>,
    spent: Vec<Spent>,
    /// The next send after a failure, and when.
    next: Option<Next>,
    transparent_used: bool,
    /// A failure forbade every further send.
    forbidden: bool,
    /// Endpoints that are held back, and until when.
    shut: Vec<(usize, Instant)>,
    /// Endpoints that told this call itself not to come again, and until when.
    barred: Vec<(usize, Instant)>,
    /// Endpoints that cannot serve the call.
    unfit: Vec<usize>,
    /// What the last real failure was, should what follows it not be let through.
    last: Option<(usize, Failure, f64)>,
    /// Endpoints whose health checks fail.
    down: Vec<usize>,
}

impl<'a> Plan<'a> {
    /// A plan with nothing sent yet.
    pub fn new(route: &'a RouteSettings, terms: Terms) -> Self {
        let base = if terms.streamed { route.timeouts.first_token } else { route.timeouts.headers };
        Self {
            patience: patience(base, terms.prompt_bytes),
            spent: vec![Spent::default(); route.targets.len()],
            route,
            terms,
            sent: Vec::new(),
            next: None,
            transparent_used: false,
            forbidden: false,
            shut: Vec::new(),
            barred: Vec::new(),
            unfit: Vec::new(),
            last: None,
            down: Vec::new(),
        }
    }

    /// Endpoints in `down` are asked when nobody else can be.
    #[must_use]
    pub fn passing_over(self, down: Vec<usize>) -> Self {
        Self { down, ..self }
    }

    /// Endpoints that are held back now, and until when; to be told before each decision.
    pub fn see(&mut self, shut: Vec<(usize, Instant)>) {
        self.shut = shut;
    }

    /// Endpoints that cannot serve the call; they are never asked.
    pub fn pass_over(&mut self, unfit: Vec<usize>) {
        self.unfit = unfit;
    }

    /// Endpoints that are passed over.
    pub fn passed_over(&self) -> &[usize] {
        &self.unfit
    }

    /// The next step. `pay(target)` asks that target's budget for one repeat and is called only for a send that is
    /// then started.
    pub fn next(&mut self, now: Instant, pay: &mut dyn FnMut(usize) -> bool) -> Step {
        if now >= self.terms.deadline {
            return Step::Stop;
        }
        if self.sent.is_empty() {
            let among = if self.terms.options.no_fallback { 1 } else { self.spent.len() };
            let mut reachable = (0..among).filter(|target| self.reachable(*target, now));
            let up = reachable.clone().find(|target| !self.is_down(*target, now));
            return match up.or_else(|| reachable.next()) {
                Some(0) => self.start(0, AttemptKind::First),
                Some(target) => self.start(target, AttemptKind::Fallback),
                None => Step::Stop,
            };
        }
        if let Some(next) = self.next {
            if next.at > now {
                return Step::Wait(next.at);
            }
            self.next = None;
            return self.start_next(now, next, pay);
        }
        for attempt in 0..self.sent.len() {
            if let Some(step) = self.beside(now, attempt, pay) {
                return step;
            }
        }
        if self.running() == 0 { Step::Stop } else { Step::Wait(self.next_clock(now)) }
    }

    /// A running send has a place at an endpoint and goes out: its clocks start now.
    pub fn dispatched(&mut self, attempt: usize, endpoint: usize, now: Instant) {
        if let Some(sent) = self.sent.get_mut(attempt) {
            sent.endpoint = Some(endpoint);
            sent.started = Some(now);
        }
    }

    /// A running send has its response head.
    pub fn head(&mut self, attempt: usize) {
        if let Some(sent) = self.sent.get_mut(attempt) {
            sent.head = true;
        }
    }

    /// A running send has said its first word, and is held back until its last.
    pub fn spoke(&mut self, attempt: usize) {
        if let Some(sent) = self.sent.get_mut(attempt) {
            sent.spoken = true;
        }
    }

    /// From when on a send that went out is late.
    pub fn late_at(&mut self, attempt: usize, at: Instant) {
        // One beside the first send of a call, and no second: after a failure the next send is a repeat.
        let alone = self.claimed() == 1 && self.terms.streamed && !self.terms.options.no_hedge;
        if let Some(sent) = self.sent.get_mut(attempt).filter(|_| alone) {
            sent.late = Some(at);
        }
    }

    /// A send that [`Step::Hedge`] asked for is started.
    pub fn hedge(&mut self, target: usize) {
        self.start(target, AttemptKind::Hedge);
    }

    /// The class under which a send that is still running stands if the call ends without it.
    pub fn standing(&self, attempt: usize, now: Instant) -> Option<Class> {
        let sent = self.sent.get(attempt).filter(|sent| sent.is_silent())?;
        if now.saturating_duration_since(sent.started?) < self.patience {
            return None;
        }
        Some(if sent.head { Class::FirstTokenTimeout } else { Class::HeadersTimeout })
    }

    /// The endpoints asked so far.
    pub fn used(&self) -> Vec<usize> {
        self.sent.iter().filter_map(|sent| sent.endpoint).collect()
    }

    /// Sends that went out so far.
    pub fn sends(&self) -> u32 {
        self.sent.iter().filter(|sent| sent.started.is_some()).count() as u32
    }

    /// Sends that may still be made.
    pub fn left(&self) -> u32 {
        if self.terms.replayable { self.cap().saturating_sub(self.claimed()) } else { 0 }
    }

    /// Sends that went out or may yet.
    fn claimed(&self) -> u32 {
        self.sent.iter().filter(|sent| sent.state != State::Refused).count() as u32
    }

    fn running(&self) -> usize {
        self.sent.iter().filter(|sent| sent.state == State::Running).count()
    }

    fn start(&mut self, target: usize, kind: AttemptKind) -> Step {
        self.spent[target].sends += 1;
        self.sent.push(Sent {
            target,
            kind,
            endpoint: None,
            started: None,
            head: false,
            late: None,
            spoken: false,
            silent: false,
            overdue: false,
            state: State::Running,
        });
        Step::Start { target, kind }
    }

    /// Starts a send that may have to be paid for; when it cannot be, the call moves on.
    fn start_next(&mut self, now: Instant, next: Next, pay: &mut dyn FnMut(usize) -> bool) -> Step {
        let Next { target, kind, paid, .. } = next;
        if self.reachable(target, now) && (!paid || pay(target)) {
            return self.start(target, kind);
        }
        self.spent[target].closed = true;
        match self.next_target(target, now) {
            Some(next) => self.start(next, AttemptKind::Fallback),
            None if self.running() > 0 => Step::Wait(self.next_clock(now)),
            None => Step::Stop,
        }
    }

    /// What a silent send allows: `None` when it is to be waited for.
    fn beside(&mut self, now: Instant, attempt: usize, pay: &mut dyn FnMut(usize) -> bool) -> Option<Step> {
        let sent = self.sent.get(attempt).filter(|sent| sent.is_silent())?;
        let (target, age) = (sent.target, now.saturating_duration_since(sent.started?));
        let (head, silent, overdue, late) = (sent.head, sent.silent, sent.overdue, sent.late);
        if !self.may_send() {
            return None;
        }
        if late.is_some_and(|late| late <= now) {
            self.sent[attempt].late = None;
            let has_twin = self.sent.iter().any(|sent| sent.kind == AttemptKind::Hedge);
            if self.running() == 1 && !has_twin && self.unused_in(target, now) && !self.spent[target].closed {
                return Some(Step::Hedge { target });
            }
        }
        if self.terms.streamed && !head && !overdue && age >= self.route.timeouts.headers {
            self.sent[attempt].overdue = true;
            if self.can_ask_another(target, now) {
                return Some(Step::Drop { attempt, class: Class::HeadersTimeout });
            }
        }
        if silent || age < self.patience {
            return None;
        }
        self.sent[attempt].silent = true;
        if self.terms.options.no_hedge {
            let class = if head { Class::FirstTokenTimeout } else { Class::HeadersTimeout };
            return self.can_ask_another(target, now).then_some(Step::Drop { attempt, class });
        }
        let has_sends = self.spent[target].sends < self.route.retry.attempts;
        if self.unused_in(target, now) && !self.spent[target].closed && has_sends && pay(target) {
            return Some(self.start(target, AttemptKind::Hedge));
        }
        self.next_target(target, now).map(|next| self.start(next, AttemptKind::Fallback))
    }

    /// The next moment at which a clock of a running send, or the deadline, runs out.
    fn next_clock(&self, now: Instant) -> Instant {
        let mut at = self.terms.deadline;
        if !self.may_send() {
            return at;
        }
        for sent in self.sent.iter().filter(|sent| sent.is_silent()) {
            let Some(started) = sent.started else { continue };
            let silent = (!sent.silent).then(|| started + self.patience);
            let overdue =
                (self.terms.streamed && !sent.head && !sent.overdue).then(|| started + self.route.timeouts.headers);
            for clock in [silent, overdue, sent.late].into_iter().flatten().filter(|clock| *clock > now) {
                at = at.min(clock);
            }
        }
        at
    }

    fn may_send(&self) -> bool {
        self.terms.replayable && !self.forbidden && self.claimed() < self.cap()
    }

    fn cap(&self) -> u32 {
        let asked = self.terms.options.retries.map_or(u32::MAX, |retries| retries.saturating_add(1));
        self.route.max_sends.min(asked)
    }

    fn can_ask_another(&self, target: usize, now: Instant) -> bool {
        let spent = &self.spent[target];
        (self.unused_in(target, now) && !spent.closed && spent.sends < self.route.retry.attempts)
            || self.next_target(target, now).is_some()
    }

    /// Whether an endpoint of the target that was not asked yet can be.
    fn unused_in(&self, target: usize, now: Instant) -> bool {
        let used = self.used();
        let is_down = self.is_down(target, now);
        self.route.targets[target].endpoints.iter().any(|endpoint| {
            !used.contains(endpoint) && !self.is_shut(*endpoint, now) && (is_down || !self.down.contains(endpoint))
        })
    }

    /// Whether the health checks of all its endpoints that can be asked fail.
    fn is_down(&self, target: usize, now: Instant) -> bool {
        let is_down = |endpoint: &usize| self.down.contains(endpoint) || self.is_shut(*endpoint, now);
        !self.down.is_empty() && self.route.targets[target].endpoints.iter().all(is_down)
    }

    /// Whether any endpoint of the target can be asked at that moment.
    fn reachable(&self, target: usize, at: Instant) -> bool {
        self.route.targets[target].endpoints.iter().any(|endpoint| !self.is_shut(*endpoint, at))
    }

    fn is_shut(&self, endpoint: usize, at: Instant) -> bool {
        self.unfit.contains(&endpoint)
            || self.shut.iter().chain(&self.barred).any(|(shut, until)| *shut == endpoint && *until > at)
    }

    fn next_target(&self, target: usize, now: Instant) -> Option<usize> {
        if self.terms.options.no_fallback {
            return None;
        }
        let is_open = |next: &usize| {
            let spent = &self.spent[*next];
            *next != target && spent.sends == 0 && !spent.closed && self.reachable(*next, now)
        };
        // Those that are down come last, and those that were passed over because of it are not forgotten.
        let mut up = (target + 1..self.spent.len()).filter(|next| is_open(next) && !self.is_down(*next, now));
        up.next().or_else(|| (0..self.spent.len()).find(|next| is_open(next) && self.is_down(*next, now)))
    }

    /// A repeat with less time than this left could not be answered.
    pub fn least_useful(&self) -> Duration {
        (self.route.timeouts.total / 10).min(Duration::from_secs(1))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

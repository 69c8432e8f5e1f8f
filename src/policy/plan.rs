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
//!    has not even sent a response head by `timeouts.headers`, and somebody else can be asked, is it given up.
//! 7. An endpoint whose health checks fail is no other endpoint of its pool, and a target that has no other is passed over for
//!    a later one. It is asked when nobody else can be: a check is a hint.

use std::time::{Duration, Instant};

use super::{RouteSettings, patience::patience};
use crate::call::{AttemptKind, Class, Failure, Options, Retry};

/// So many sends of a call that breakers refuse at the last moment, and the call has seen enough.
const MOST_REFUSALS: usize = 3;
/// A wait that an upstream asks for and that is longer than this is not waited for.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(30);

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
    /// Its patience ran out, and what that allows was done.
    silent: bool,
    /// Its headers clock ran out, and what that allows was done.
    overdue: bool,
    state: State,
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

    /// A send failed (or was dropped on our own word): decides what follows it. `sample` is uniform in `0..1`.
    pub fn failed(&mut self, attempt: usize, failure: &Failure, now: Instant, sample: f64) {
        let Some(sent) = self.sent.get_mut(attempt) else { return };
        let target = sent.target;
        sent.state = State::Over;
        if sent.started.is_none() {
            match failure.class {
                Class::QueueFull | Class::QueueTimeout => return self.turned_away(attempt, now),
                Class::BreakerOpen => return self.held_back(attempt, now),
                _ => {}
            }
        }
        if failure.lacks.is_some() {
            return self.unable(target, now);
        }
        if failure.retry == Retry::Never {
            // A twin that is already running keeps the word, but nothing new is sent.
            self.forbidden = true;
            return;
        }
        let repeated = failure.fingerprint.is_some() && self.spent[target].fingerprint == failure.fingerprint;
        self.spent[target].fingerprint = failure.fingerprint;
        if repeated {
            // The same words twice: the request is to blame, not the moment.
            self.spent[target].closed = true;
        }
        // A twin is still running: it has the word.
        if self.running() == 0 && self.next.is_none() {
            self.next = self.follow(target, failure, now, sample);
            self.last = Some((target, failure.clone(), sample));
        }
    }

    /// A target had no place for a send. It is not asked again, but the next one may have.
    fn turned_away(&mut self, attempt: usize, now: Instant) {
        let Some((target, kind)) = self.unmake(attempt) else { return };
        // A twin that was refused says nothing of what may follow the send it was to stand beside.
        self.spent[target].closed |= kind != AttemptKind::Hedge;
        if self.running() == 0 && self.next.is_none() && self.may_send() {
            self.next = self.next_target(target, now).map(|target| Next::onward(target, now));
        }
    }

    /// A model cannot serve the call as it stands, and would say so again. Whoever may be able to is asked.
    fn unable(&mut self, target: usize, now: Instant) {
        if self.running() > 0 || self.next.is_some() || !self.may_send() {
            return;
        }
        let in_pool = self.unused_in(target, now) && !self.spent[target].closed;
        let again = Next { at: now, target, kind: AttemptKind::Retry, paid: true };
        let onward = || self.next_target(target, now).map(|target| Next::onward(target, now));
        self.next = if in_pool { Some(again) } else { onward() };
    }

    /// A breaker closed between the choice and the send. Whoever else can be asked is, as if nothing had been.
    fn held_back(&mut self, attempt: usize, now: Instant) {
        let Some((target, kind)) = self.unmake(attempt) else { return };
        self.forbidden |= self.sent.iter().filter(|sent| sent.state == State::Refused).count() > MOST_REFUSALS;
        if self.forbidden {
            return;
        }
        if self.running() > 0 {
            // It was to stand beside a silent one, which may look for another.
            self.sent.iter_mut().for_each(|sent| sent.silent = false);
        } else if self.next.is_none() {
            let again = self.reachable(target, now).then_some(Next { at: now, target, kind, paid: false });
            let onward = || self.next_target(target, now).map(|target| Next::onward(target, now));
            self.next = again.or_else(onward);
            if self.next.is_none()
                && let Some((target, failure, sample)) = self.last.take()
            {
                self.next = self.follow(target, &failure, now, sample);
            }
        }
    }

    /// A send that was started and then never made counts nowhere.
    fn unmake(&mut self, attempt: usize) -> Option<(usize, AttemptKind)> {
        let sent = self.sent.get_mut(attempt)?;
        sent.state = State::Refused;
        let (target, kind) = (sent.target, sent.kind);
        self.spent[target].sends = self.spent[target].sends.saturating_sub(1);
        Some((target, kind))
    }

    /// The class under which a send that is still running stands if the call ends without it.
    pub fn standing(&self, attempt: usize, now: Instant) -> Option<Class> {
        let sent = self.sent.get(attempt).filter(|sent| sent.state == State::Running)?;
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

    /// What follows a failure at `target` when nothing else is running.
    fn follow(&mut self, target: usize, failure: &Failure, now: Instant, sample: f64) -> Option<Next> {
        if !self.may_send() {
            return None;
        }
        let elsewhere_in_pool = self.unused_in(target, now);
        let fallback = self.next_target(target, now);
        // The last send of the call is not spent on who has just failed while somebody else can be asked.
        let last = fallback.is_some() && !elsewhere_in_pool && self.claimed() + 1 >= self.cap();
        let stale = failure.class == Class::ResetBeforeResponse;
        if failure.unsent
            && !self.transparent_used
            && !last
            && (elsewhere_in_pool || (stale && self.reachable(target, now)))
        {
            // Nothing reached the model: as if it had not been sent, once per call. Who could not be reached at all
            // is not asked again at once.
            self.transparent_used = true;
            self.spent[target].sends = self.spent[target].sends.saturating_sub(1);
            return Some(Next { at: now, target, kind: AttemptKind::Retry, paid: false });
        }
        if !last && self.may_repeat(target, failure, elsewhere_in_pool, fallback.is_some()) {
            let wait = self.wait(target, failure, elsewhere_in_pool, sample);
            let remaining = self.terms.deadline.saturating_duration_since(now);
            let too_long = !self.reachable(target, now + wait)
                || wait + self.least_useful() > remaining
                || wait > LONGEST_ASKED_WAIT
                || (fallback.is_some() && wait > (remaining / 4).max(self.route.retry.backoff.base));
            if !too_long {
                if failure.retry == Retry::Once {
                    self.spent[target].repeats_once += 1;
                }
                return Some(Next { at: now + wait, target, kind: AttemptKind::Retry, paid: true });
            }
        }
        fallback.map(|target| Next::onward(target, now))
    }

    fn may_repeat(&self, target: usize, failure: &Failure, elsewhere_in_pool: bool, fallback: bool) -> bool {
        let spent = &self.spent[target];
        let silent = matches!(failure.class, Class::HeadersTimeout | Class::FirstTokenTimeout);
        let allowed = match failure.retry {
            Retry::Again => true,
            Retry::Once => spent.repeats_once == 0,
            Retry::Elsewhere => elsewhere_in_pool,
            Retry::Never => false,
        };
        allowed
            && !spent.closed
            && spent.sends < self.route.retry.attempts
            // Who stayed silent is not asked again while somebody else can be.
            && !(silent && !elsewhere_in_pool && fallback)
    }

    fn wait(&self, target: usize, failure: &Failure, elsewhere_in_pool: bool, sample: f64) -> Duration {
        let backoff = &self.route.retry.backoff;
        let n = self.spent[target].sends.max(1);
        if elsewhere_in_pool {
            // What one endpoint asks for says nothing of another.
            return if failure.retry == Retry::Elsewhere { Duration::ZERO } else { backoff.full(n, sample) };
        }
        match failure.retry_after {
            Some(asked) if self.route.retry.respect_retry_after => asked,
            _ if matches!(
                failure.class,
                Class::RateLimited | Class::UpstreamUnavailable | Class::UpstreamOverloaded | Class::ModelLoading
            ) =>
            {
                backoff.equal(n, sample)
            }
            _ => backoff.full(n, sample),
        }
    }

    /// What a silent send allows: `None` when it is to be waited for.
    fn beside(&mut self, now: Instant, attempt: usize, pay: &mut dyn FnMut(usize) -> bool) -> Option<Step> {
        let sent = self.sent.get(attempt).filter(|sent| sent.state == State::Running)?;
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
        if self.unused_in(target, now) && !self.spent[target].closed && pay(target) {
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
        for sent in self.sent.iter().filter(|sent| sent.state == State::Running) {
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
        self.unfit.contains(&endpoint) || self.shut.iter().any(|(shut, until)| *shut == endpoint && *until > at)
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
    fn least_useful(&self) -> Duration {
        (self.route.timeouts.total / 10).min(Duration::from_secs(1))
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

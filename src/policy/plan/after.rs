//! What follows a send that failed, that found no place, or that was not let through.
//!
//! Rules 2 to 6 of the plan. Invariant: what was never made leaves the plan as if it had never been started.

use std::time::{Duration, Instant};

use super::{Next, Plan, State};
use crate::call::{AttemptKind, Class, Failure, Retry};

/// So many sends of a call that breakers refuse at the last moment, and the call has seen enough.
pub(super) const MOST_REFUSALS: usize = 3;
/// A wait that an upstream asks for and that is longer than this is not waited for.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(30);

impl Plan<'_> {
    /// Whose answer will not change is not asked again in this call, and nobody before the wait he asked for: also when
    /// somebody else in his pool, who failed since, may be.
    fn bar(&mut self, attempt: usize, failure: &Failure, now: Instant) {
        let Some(endpoint) = self.sent.get(attempt).and_then(|sent| sent.endpoint) else { return };
        let asked = failure.retry_after.filter(|_| self.route.retry.respect_retry_after);
        if failure.retry == Retry::Elsewhere {
            self.barred.push((endpoint, self.terms.deadline));
        } else if let Some(wait) = asked {
            self.barred.push((endpoint, now + wait.min(self.terms.deadline.saturating_duration_since(now))));
        }
    }

    /// Endpoints that told this call not to come again, as far as that holds now.
    pub fn barred(&self, now: Instant) -> Vec<usize> {
        self.barred.iter().filter(|(_, until)| *until > now).map(|(endpoint, _)| *endpoint).collect()
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
        self.bar(attempt, failure, now);
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
}

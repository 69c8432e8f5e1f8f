//! How a call leaves the loop: with the answer of one send, or with what became of all of them.
//!
//! Owns the reply and the error, and what is told in them. Invariant: nothing that was started still runs, unless the
//! reply owns it.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use http::HeaderMap;

use super::Run;
use crate::call::{AttemptReply, CallError, Class, Failure, Fate, Fault, Outcome, Payload, Reply, Surface};
use crate::clock;
use crate::dialect::{Dialect, detect};
use crate::layer::rescue::{self, Answered};
use crate::policy::{Rescue, StreamMode};

impl Run<'_> {
    /// This send answered: the others are let go.
    pub(super) fn answered(
        mut self,
        attempt: usize,
        outcome: Outcome,
        started: Instant,
        fate: Arc<Fate>,
        reply: AttemptReply,
    ) -> Reply {
        self.hedging_answered(attempt, reply.first_at);
        self.settle(clock::now(), None);
        let sent = self.starts.get(attempt).and_then(|start| Some((start.at, start.sent?.1)));
        let (started, sent) = sent.unwrap_or((started, started));
        let streams = self.retry.route.streams;
        // What was held is complete: there is no rest of it.
        let later = (streams.rescue && streams.mode != StreamMode::Hold).then(Arc::default);
        let payload = match (reply.payload, &later) {
            (Payload::Events(pieces), Some(sends)) => {
                let rescue = Rescue {
                    deadline: self.call.deadline,
                    sends_left: self.plan.left(),
                    least_useful: self.plan.least_useful(),
                };
                let answered = self.rescuable(attempt, reply.endpoint, &reply.headers, &fate, rescue, sends);
                Payload::Events(rescue::watch(pieces, answered))
            }
            (payload, _) => payload,
        };
        Reply {
            status: reply.status,
            headers: reply.headers,
            endpoint: self.name(attempt),
            route: self.retry.route.name.clone(),
            sends: self.plan.sends(),
            outcome,
            fate,
            later,
            trail: self.trail,
            queued: sent.saturating_duration_since(started),
            upstream: reply.first_at.saturating_duration_since(sent),
            usage: reply.usage,
            payload,
        }
    }

    /// What there is to know of the send that answered, should its stream break.
    fn rescuable(
        &self,
        attempt: usize,
        endpoint: usize,
        headers: &HeaderMap,
        fate: &Arc<Fate>,
        rescue: Rescue,
        sends: &Arc<AtomicU32>,
    ) -> Answered {
        let retry = self.retry;
        let target = self.starts.get(attempt).map_or(0, |start| start.target);
        Answered {
            inner: retry.inner.clone(),
            call: Arc::clone(&self.call),
            next: self.starts.len(),
            route: retry.number,
            target,
            pool: retry.route.targets.get(target).map(|target| target.endpoints.clone()).unwrap_or_default(),
            endpoint,
            kin: Arc::clone(&retry.around.kin),
            dialect: detect(retry.around.kin.get(endpoint).map_or(Dialect::Auto, |kin| kin.dialect), "", headers),
            budget: retry.around.budgets.get(target).cloned(),
            fate: Arc::clone(fate),
            rescue,
            first_token: retry.route.timeouts.first_token,
            sends: Arc::clone(sends),
        }
    }

    /// Every target is spent, or the deadline is reached.
    pub(super) fn stopped(mut self, now: Instant) -> CallError {
        let late = now >= self.call.deadline;
        self.settle(now, late.then_some(Class::DeadlineExceeded));
        self.hedging_stopped();
        let sends = self.plan.sends();
        if self.first.is_none()
            && !late
            && let Some(refusal) = self.nobody_can()
        {
            return refusal;
        }
        let cause = self.first.take().unwrap_or_else(|| {
            if !late {
                return self.retry.around.breakers.all_open(self.asking(), &self.retry.around.names, now);
            }
            let waited = now.saturating_duration_since(self.call.started);
            Failure::new(Class::DeadlineExceeded, format!("no answer within {} ms", waited.as_millis()))
        });
        let retry_after = cause.retry_after.or(match cause.class.status() {
            429 | 503 => Some(Duration::from_secs(1)),
            _ => None,
        });
        CallError {
            class: cause.class,
            message: self.tell(&cause),
            param: None,
            status: None,
            retry_after,
            trail: self.trail,
            sends,
            // Only what the caller can mend is the caller's to read.
            original: cause.original.filter(|_| {
                self.call.surface == Surface::Opaque || matches!(cause.class.fault(), Fault::Caller | Fault::Answer)
            }),
        }
    }

    /// One sentence: what came first, and what all sends came to.
    fn tell(&self, cause: &Failure) -> String {
        let status = cause.status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
        let at = self.trail.first().map_or("", |first| first.endpoint.as_str());
        let mut told = match at {
            "" => cause.class.meaning().to_owned(),
            at => format!("{at}{status}: {}", cause.class.meaning()),
        };
        if cause.class == Class::BreakerOpen {
            return format!("{told} {}", cause.message);
        }
        if !cause.message.is_empty() {
            let said = cause.message.trim_end_matches('.');
            told.push_str(&format!(" It said: {said}."));
        }
        if self.trail.len() > 1 {
            let all: Vec<String> = self
                .trail
                .iter()
                .map(|entry| format!("{} {} after {} ms", entry.endpoint, entry.class, entry.ms))
                .collect();
            told.push_str(&format!(" All {} sends failed: {}.", self.trail.len(), all.join(", ")));
        }
        let passed_over = self.told_of_passed_over();
        if !passed_over.is_empty() {
            told.push_str(&format!(" Passed over: {passed_over}."));
        }
        told
    }
}

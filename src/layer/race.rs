//! The sends of one call that are running at the same time: polled together, each dropped on its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use super::Pending;
use crate::call::{AttemptKind, AttemptReply, Failure, Fate, Listener, Milestone, Verdict};

/// One running send.
pub(super) struct Runner {
    pub(super) attempt: usize,
    pub(super) kind: AttemptKind,
    pub(super) target: usize,
    pub(super) started: Instant,
    pub(super) fate: Arc<Fate>,
    pub(super) answer: Pending<AttemptReply, Failure>,
}

/// How far a send has come, as it tells while it is polled: the loop looks after each time.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// One more than the number of the endpoint it went to.
    dispatched: AtomicUsize,
    head: AtomicBool,
    first: AtomicBool,
}

impl Listener for Progress {
    fn tell(&self, milestone: Milestone) {
        match milestone {
            Milestone::Dispatched(endpoint) => self.dispatched.store(endpoint + 1, Ordering::Relaxed),
            Milestone::Head => self.head.store(true, Ordering::Relaxed),
            Milestone::First => self.first.store(true, Ordering::Relaxed),
        }
    }
}

impl Progress {
    /// The next milestone that was not taken yet.
    pub(super) fn take(&self) -> Option<Milestone> {
        // Only the loop takes, and a send tells only while the loop polls it.
        match self.dispatched.load(Ordering::Relaxed) {
            0 => {}
            endpoint => {
                self.dispatched.store(0, Ordering::Relaxed);
                return Some(Milestone::Dispatched(endpoint - 1));
            }
        }
        let taken = |told: &AtomicBool| told.load(Ordering::Relaxed) && told.swap(false, Ordering::Relaxed);
        if taken(&self.head) {
            return Some(Milestone::Head);
        }
        taken(&self.first).then_some(Milestone::First)
    }
}

/// What a runner was, once it is over.
pub(super) struct Finished {
    pub(super) attempt: usize,
    pub(super) kind: AttemptKind,
    pub(super) target: usize,
    pub(super) started: Instant,
    pub(super) fate: Arc<Fate>,
    pub(super) result: Result<AttemptReply, Failure>,
}

/// All running sends of one call. Dropping it drops them all.
#[derive(Default)]
pub(super) struct Race {
    runners: Vec<Runner>,
}

impl Race {
    pub(super) fn start(&mut self, runner: Runner) {
        self.runners.push(runner);
    }

    pub(super) fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.iter()
    }

    /// Drops one send; it counts as `verdict`.
    pub(super) fn drop_one(&mut self, attempt: usize, verdict: Verdict) -> Option<Runner> {
        let at = self.runners.iter().position(|runner| runner.attempt == attempt)?;
        let runner = self.runners.swap_remove(at);
        runner.fate.set(verdict);
        Some(runner)
    }

    /// The next send to finish, in the order they were started when several finish at once.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Finished> {
        for at in 0..self.runners.len() {
            if let Poll::Ready(result) = self.runners[at].answer.as_mut().poll(cx) {
                let Runner { attempt, kind, target, started, fate, .. } = self.runners.remove(at);
                return Poll::Ready(Finished { attempt, kind, target, started, fate, result });
            }
        }
        Poll::Pending
    }
}

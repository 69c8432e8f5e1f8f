//! The sends of one call that are running at the same time: polled together, each dropped on its own.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::Pending;
use crate::call::{AttemptKind, AttemptReply, Failure, Fate, Verdict};

/// One running send.
pub(super) struct Runner {
    pub(super) attempt: usize,
    pub(super) kind: AttemptKind,
    pub(super) target: usize,
    pub(super) started: Instant,
    pub(super) fate: Arc<Fate>,
    pub(super) answer: Pending<AttemptReply, Failure>,
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

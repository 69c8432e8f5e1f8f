//! A send beside one that is merely late: asks the target's hedging, and tells it what came of it.
//!
//! Decides nothing: when a send is late and whether a hedge may be made is `policy/hedge.rs`'s, whether the call may have
//! one more send the plan's. Invariant: a hedge that went out is counted once, unless the client leaves first.

use std::time::Instant;

use super::Run;
use crate::call::{AttemptKind, Class, Failure, Signal};
use crate::policy::hedge::{Around, Hedged, Suppressed};

/// Bytes of a prompt per token, for estimates.
const BYTES_PER_TOKEN: usize = 4;

impl Run<'_> {
    /// A send went out: it may become late.
    pub(super) fn may_be_late(&mut self, attempt: usize, target: usize, now: Instant) {
        if !self.call.stream {
            return;
        }
        let Some(mut hedger) = self.retry.around.hedges.of(target) else { return };
        let kind = self.starts.get(attempt).map(|start| start.kind);
        if matches!(kind, Some(AttemptKind::First | AttemptKind::Fallback)) && !self.call.client_retry {
            hedger.deposit();
        }
        let late = hedger.late_after(self.call.prompt_bytes, now);
        drop(hedger);
        if let Some(late) = late {
            self.plan.late_at(attempt, now + late);
        }
    }

    /// The call's send is late: starts another beside it, if that may be.
    pub(super) fn hedge(&mut self, target: usize, now: Instant) {
        let well = self.well_in(target, now);
        let around = self.surroundings(target, !well.is_empty(), now);
        let paid = match self.retry.around.hedges.of(target) {
            Some(mut hedger) => hedger.pay(around),
            None => return,
        };
        match paid {
            Ok(()) => {
                self.hedged = Some(self.starts.len());
                self.plan.hedge(target);
                let unfit = &self.retry.route.targets[target].endpoints;
                let unfit = unfit.iter().copied().filter(|endpoint| !well.contains(endpoint)).collect();
                // Its own budget paid, not that of repeats.
                self.start_among(target, AttemptKind::Hedge, false, unfit, now);
            }
            Err(why) => self.tell_hedge(Hedged::Suppressed(why)),
        }
    }

    /// Endpoints of the target that were not asked, can serve the call, and whose breakers are closed.
    fn well_in(&self, target: usize, now: Instant) -> Vec<usize> {
        let around = &self.retry.around;
        let (used, unfit) = (self.plan.used(), self.plan.passed_over());
        let is_well = |endpoint: &usize| {
            let allowed = around.breakers.peek(*endpoint, Some(self.asking()), now);
            !used.contains(endpoint)
                && !unfit.contains(endpoint)
                && around.health.is_up(*endpoint)
                && allowed.is_ok_and(|allowed| !allowed.probe && allowed.share >= 1.0)
        };
        self.retry.route.targets[target].endpoints.iter().copied().filter(is_well).collect()
    }

    fn surroundings(&self, target: usize, other_is_well: bool, now: Instant) -> Around {
        let around = &self.retry.around;
        let endpoints = &self.retry.route.targets[target].endpoints;
        let (places, in_flight) = endpoints.iter().fold((0, 0), |(places, in_flight), endpoint| {
            let (limit, in_use) = around.slots.at(*endpoint);
            (places + limit, in_flight + in_use)
        });
        let throttled = around.budgets.get(target).is_none_or(|budget| budget.is_spent(now));
        Around { in_flight, places, other_is_well, throttled }
    }

    /// The call has its answer, from this send: the others are about to be dropped.
    pub(super) fn hedging_answered(&mut self, winner: usize, first_at: Instant) {
        let (now, prompt_bytes) = (crate::clock::now(), self.call.prompt_bytes);
        let first_at = self.starts.get(winner).and_then(|start| start.spoke).unwrap_or(first_at);
        if !self.call.stream {
            return;
        }
        let silent: Vec<usize> = self.race.runners().map(|runner| runner.attempt).collect();
        let of = |attempt: usize| self.starts.get(attempt).and_then(|start| Some((start.target, start.sent?.1)));
        if let Some((target, sent)) = of(winner)
            && let Some(mut hedger) = self.retry.around.hedges.of(target)
        {
            hedger.spoke(prompt_bytes, first_at.saturating_duration_since(sent), now);
        }
        for (target, sent) in silent.iter().filter_map(|attempt| of(*attempt)) {
            if let Some(mut hedger) = self.retry.around.hedges.of(target) {
                hedger.dropped(prompt_bytes, now.saturating_duration_since(sent), now);
            }
        }
        let Some(hedge) = self.hedged.take() else { return };
        if hedge == winner || silent.contains(&hedge) {
            self.tell_hedge(if hedge == winner { Hedged::Won } else { Hedged::Lost });
            let losers = silent.iter().filter(|attempt| of(**attempt).is_some()).count();
            let tokens = (losers * prompt_bytes / BYTES_PER_TOKEN) as u64;
            self.retry.around.sink.emit(Signal::HedgeWasted { route: self.retry.number, tokens });
        }
    }

    /// A send was given up for its silence: it would have taken longer still.
    pub(super) fn hedging_gave_up(&self, attempt: usize, now: Instant) {
        let Some(start) = self.starts.get(attempt).filter(|_| self.call.stream) else { return };
        if let (Some((_, sent)), Some(mut hedger)) = (start.sent, self.retry.around.hedges.of(start.target)) {
            hedger.dropped(self.call.prompt_bytes, now.saturating_duration_since(sent), now);
        }
    }

    /// A send failed. If it was the hedge, that is over.
    pub(super) fn hedging_failed(&mut self, attempt: usize, failure: &Failure) {
        if self.hedged != Some(attempt) {
            return;
        }
        self.hedged = None;
        let start = self.starts.get(attempt).copied();
        if start.is_some_and(|start| start.sent.is_some()) {
            return self.tell_hedge(Hedged::Failed);
        }
        if let Some(mut hedger) = start.and_then(|start| self.retry.around.hedges.of(start.target)) {
            hedger.refund();
        }
        let open = failure.class == Class::BreakerOpen;
        self.tell_hedge(Hedged::Suppressed(if open { Suppressed::Breaker } else { Suppressed::Load }));
    }

    /// The call ends without an answer.
    pub(super) fn hedging_stopped(&mut self) {
        if self.hedged.take().is_some() {
            self.tell_hedge(Hedged::Failed);
        }
    }

    fn tell_hedge(&self, outcome: Hedged) {
        self.retry.around.sink.emit(Signal::Hedge { route: self.retry.number, outcome: outcome.as_str() });
    }
}

//! The retry budget: repeats as a share of traffic, not as a number per call.
//!
//! Why a budget: three tries per call look harmless until everything fails, and then they triple the load on what is
//! already down, in every layer that does it. A budget lets a healthy service repeat freely and caps the storm: in any
//! window, repeats are at most `floor + ratio * first sends`. The window is a minute because calls last seconds to
//! minutes; the floor lets a route with little traffic repeat at all. A refused repeat is answered at once, never
//! queued. (Finagle's RetryBudget is the ancestor; theirs forgets after ten seconds.)

use std::time::{Duration, Instant};

/// How long first sends and repeats are remembered.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Repeats per window that need no traffic to pay for them.
pub const FLOOR: f64 = 3.0;

const BUCKETS: usize = 12;
const BUCKET: Duration = Duration::from_secs(WINDOW.as_secs() / BUCKETS as u64);

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Which bucket-long period since the origin this is; stale ones are empty.
    period: u64,
    firsts: u32,
    repeats: u32,
}

/// One target's budget.
#[derive(Clone, Debug)]
pub struct Budget {
    ratio: f64,
    origin: Instant,
    buckets: [Bucket; BUCKETS],
}

impl Budget {
    /// A fresh budget. A ratio of 0 allows no repeat at all, not even the floor's.
    pub fn new(ratio: f64, now: Instant) -> Self {
        Self { ratio, origin: now, buckets: [Bucket::default(); BUCKETS] }
    }

    /// Another ratio from now on; what was sent and repeated is remembered.
    pub fn set_ratio(&mut self, ratio: f64) {
        self.ratio = ratio;
    }

    /// A first send was made: it pays for `ratio` of a repeat.
    pub fn deposit(&mut self, now: Instant) {
        let firsts = &mut self.bucket(now).firsts;
        *firsts = firsts.saturating_add(1);
    }

    /// Asks for one repeat; `false` leaves the budget as it was.
    pub fn withdraw(&mut self, now: Instant) -> bool {
        let (allowed, spent) = self.balance(now);
        let granted = spent + 1.0 <= allowed + 1e-9;
        if granted {
            let repeats = &mut self.bucket(now).repeats;
            *repeats = repeats.saturating_add(1);
        }
        granted
    }

    /// Whether not even one repeat could be paid for.
    pub fn is_spent(&self, now: Instant) -> bool {
        let (allowed, spent) = self.balance(now);
        spent + 1.0 > allowed + 1e-9
    }

    /// Share of the window's repeats still unspent, 0 to 1.
    pub fn left(&self, now: Instant) -> f64 {
        let (allowed, spent) = self.balance(now);
        if allowed <= 0.0 { 0.0 } else { ((allowed - spent) / allowed).clamp(0.0, 1.0) }
    }

    /// First sends and repeats in the window, for a snapshot.
    pub fn counts(&self, now: Instant) -> (u32, u32) {
        self.live(now).fold((0, 0), |(firsts, repeats), bucket| {
            (firsts.saturating_add(bucket.firsts), repeats.saturating_add(bucket.repeats))
        })
    }

    /// Takes counts from a snapshot as if they had just happened.
    pub fn restore(&mut self, now: Instant, firsts: u32, repeats: u32) {
        let bucket = self.bucket(now);
        bucket.firsts = bucket.firsts.saturating_add(firsts);
        bucket.repeats = bucket.repeats.saturating_add(repeats);
    }

    fn balance(&self, now: Instant) -> (f64, f64) {
        let (firsts, repeats) = self.counts(now);
        let floor = if self.ratio > 0.0 { FLOOR } else { 0.0 };
        (floor + self.ratio * f64::from(firsts), f64::from(repeats))
    }

    fn period(&self, now: Instant) -> u64 {
        // Counted from 1, so that a fresh bucket (0) is always stale.
        1 + now.saturating_duration_since(self.origin).as_secs() / BUCKET.as_secs()
    }

    fn live(&self, now: Instant) -> impl Iterator<Item = &Bucket> {
        let current = self.period(now);
        self.buckets.iter().filter(move |bucket| bucket.period > 0 && bucket.period + BUCKETS as u64 > current)
    }

    fn bucket(&mut self, now: Instant) -> &mut Bucket {
        let period = self.period(now);
        let bucket = &mut self.buckets[(period % BUCKETS as u64) as usize];
        if bucket.period != period {
            *bucket = Bucket { period, ..Bucket::default() };
        }
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn another_ratio_forgets_nothing() {
        let now = Instant::now();
        let mut budget = Budget::new(0.5, now);
        (0..10).for_each(|_| budget.deposit(now));
        assert!((0..8).all(|_| budget.withdraw(now)));
        budget.set_ratio(0.2);
        assert!(!budget.withdraw(now), "8 are spent, 5 would be allowed");
        budget.set_ratio(1.0);
        assert!((0..5).all(|_| budget.withdraw(now)) && !budget.withdraw(now));
    }

    #[test]
    fn the_floor_needs_no_traffic_and_a_zero_ratio_has_none() {
        let now = Instant::now();
        let mut budget = Budget::new(0.1, now);
        assert_eq!((0..5).filter(|_| budget.withdraw(now)).count(), 3);
        assert!(!Budget::new(0.0, now).withdraw(now));
    }

    #[test]
    fn a_total_failure_costs_a_tenth_more() {
        let start = Instant::now();
        let mut budget = Budget::new(0.1, start);
        let mut repeats = 0;
        for second in 0..600u64 {
            let now = start + Duration::from_secs(second);
            for _ in 0..10 {
                budget.deposit(now);
                repeats += u32::from(budget.withdraw(now)) + u32::from(budget.withdraw(now));
            }
        }
        // 6000 first sends; a floor of 3 for each of the 10 windows, and one window's edge.
        assert!(repeats <= 600 + 3 * 10 + 60, "{repeats} repeats");
        assert!(repeats >= 600, "{repeats} repeats");
    }

    #[test]
    fn a_minute_of_silence_forgets() {
        let start = Instant::now();
        let mut budget = Budget::new(0.5, start);
        (0..10).for_each(|_| budget.deposit(start));
        assert!(budget.left(start) > 0.99);
        (0..8).for_each(|_| assert!(budget.withdraw(start)));
        assert!(budget.left(start) < 0.01);
        let later = start + WINDOW + BUCKET;
        assert_eq!(budget.counts(later), (0, 0));
        assert_eq!((0..5).filter(|_| budget.withdraw(later)).count(), 3);
    }

    proptest! {
        /// Reference model: a list of moments. In every window, repeats are at most floor + ratio * deposits of that
        /// window and of the one before it, plus one.
        #[test]
        fn repeats_are_bounded_in_every_window(
            ratio in 0.0f64..1.0,
            steps in proptest::collection::vec((0u64..8_000, any::<bool>()), 1..300),
        ) {
            let start = Instant::now();
            let mut budget = Budget::new(ratio, start);
            let (mut now, mut firsts, mut repeats) = (start, Vec::new(), Vec::new());
            for (millis, first) in steps {
                now += Duration::from_millis(millis);
                if first {
                    budget.deposit(now);
                    firsts.push(now);
                } else if budget.withdraw(now) {
                    repeats.push(now);
                }
            }
            for end in &repeats {
                let from = end.checked_sub(WINDOW).unwrap_or(start);
                let paid_from = from.checked_sub(WINDOW).unwrap_or(start).min(from);
                let spent = repeats.iter().filter(|at| **at > from && *at <= end).count() as f64;
                let paid = firsts.iter().filter(|at| **at >= paid_from && *at <= end).count() as f64;
                prop_assert!(spent <= 2.0 * FLOOR + ratio * paid + 1.0, "{spent} repeats for {paid} firsts");
            }
        }
    }
}

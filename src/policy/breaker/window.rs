//! What a circuit remembers: exact counts over a window of ten buckets, and the latest first-token times.
//!
//! Why exact counts: a decaying average lets a burst weigh otherwise than the same failures spread out. Here both give
//! the same decision as long as both lie in the window. Invariant: what is older than the window counts for nothing,
//! with nobody having to clear it.

use std::time::{Duration, Instant};

const BUCKETS: u64 = 10;

/// Counts of one stretch of time, or of the whole window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sends that were judged.
    pub total: u32,
    /// Of them, those that failed.
    pub failed: u32,
    /// Streams whose first token came.
    pub firsts: u32,
    /// Of them, those whose first token came late.
    pub slow: u32,
}

/// Ten buckets.
#[derive(Clone, Debug)]
pub struct Window {
    origin: Instant,
    bucket: Duration,
    buckets: [(u64, Tally); BUCKETS as usize],
}

impl Window {
    /// A fresh window of this length.
    pub fn new(length: Duration, now: Instant) -> Self {
        let bucket = (length / BUCKETS as u32).max(Duration::from_nanos(1));
        Self { origin: now, bucket, buckets: Default::default() }
    }

    /// The bucket of this moment, to be counted in.
    pub fn now(&mut self, now: Instant) -> &mut Tally {
        let period = self.period(now);
        let (of, tally) = &mut self.buckets[(period % BUCKETS) as usize];
        if *of != period {
            (*of, *tally) = (period, Tally::default());
        }
        tally
    }

    /// The sum over the window.
    pub fn sum(&self, now: Instant) -> Tally {
        let current = self.period(now);
        let live = self.buckets.iter().filter(|(period, _)| *period > 0 && *period + BUCKETS > current);
        live.fold(Tally::default(), |sum, (_, tally)| Tally {
            total: sum.total.saturating_add(tally.total),
            failed: sum.failed.saturating_add(tally.failed),
            firsts: sum.firsts.saturating_add(tally.firsts),
            slow: sum.slow.saturating_add(tally.slow),
        })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets = Default::default();
    }

    fn period(&self, now: Instant) -> u64 {
        let periods = now.saturating_duration_since(self.origin).as_nanos() / self.bucket.as_nanos();
        // Counted from 1, so that a fresh bucket (0) is always stale.
        u64::try_from(periods).unwrap_or(u64::MAX - BUCKETS - 1) + 1
    }
}

const KEPT: usize = 32;

/// The latest first-token times of an endpoint.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    seconds: [f32; KEPT],
    seen: usize,
}

impl Recent {
    /// One more.
    pub fn add(&mut self, first_token: Duration) {
        self.seconds[self.seen % KEPT] = first_token.as_secs_f32();
        self.seen += 1;
    }

    /// Those that are kept.
    pub fn kept(&self) -> &[f32] {
        &self.seconds[..self.seen.min(KEPT)]
    }
}

/// The middle of some times; zero of none.
pub fn median(mut seconds: Vec<f32>) -> Duration {
    seconds.sort_by(f32::total_cmp);
    let middle = seconds.get(seconds.len() / 2).copied().unwrap_or(0.0);
    Duration::from_secs_f32(middle.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_median_is_the_middle_of_what_is_kept() {
        let mut recent = Recent::default();
        (0..40).for_each(|second| recent.add(Duration::from_secs(second)));
        assert_eq!(recent.kept().len(), 32);
        assert_eq!(median(recent.kept().to_vec()), Duration::from_secs(24));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }

    proptest! {
        /// Reference model: a list of moments. What lies within nine tenths of the window is always counted, what is
        /// older than the window never.
        #[test]
        fn counts_are_exact(steps in proptest::collection::vec(0u64..9_000, 1..200)) {
            let start = Instant::now();
            let length = Duration::from_secs(60);
            let mut window = Window::new(length, start);
            let (mut now, mut moments) = (start, Vec::new());
            for millis in steps {
                now += Duration::from_millis(millis);
                window.now(now).total += 1;
                moments.push(now);
                let within = |span: Duration| moments.iter().filter(|at| now - **at < span).count() as u32;
                let counted = window.sum(now).total;
                prop_assert!(within(length * 9 / 10) <= counted && counted <= within(length), "{counted}");
            }
        }
    }
}

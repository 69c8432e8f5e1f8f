//! How long to wait before the next send.
//!
//! Why jitter: callers that failed together come back together, and the second wave is as tall as the first. Full
//! jitter (`U(0, min(max, base * 2^(n-1)))`, as gRPC's A6 proposal) spreads them best. After a rate limit it can draw
//! nearly zero and burn every try inside one window, so there the wait is drawn from the upper half (equal jitter).

use std::time::Duration;

use super::Backoff;

impl Backoff {
    /// Upper bound of the wait before repeat `n`, counted from 1.
    pub fn ceiling(&self, n: u32) -> Duration {
        let doublings = n.saturating_sub(1).min(20);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }

    /// Full jitter: uniform between nothing and the ceiling. `sample` is uniform in `0..1`.
    pub fn full(&self, n: u32, sample: f64) -> Duration {
        self.ceiling(n).mul_f64(sample)
    }

    /// Equal jitter: uniform between half the ceiling and the ceiling.
    pub fn equal(&self, n: u32, sample: f64) -> Duration {
        self.ceiling(n).mul_f64(0.5 + sample / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ceilings_double_up_to_the_maximum() {
        let backoff = Backoff { base: Duration::from_millis(250), max: Duration::from_secs(8) };
        let millis: Vec<_> = (1..=7).map(|n| backoff.ceiling(n).as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(8));
    }

    #[test]
    fn full_jitter_is_uniform() {
        let backoff = Backoff::default();
        let mut rng = fastrand::Rng::with_seed(7);
        let mean: f64 = (0..10_000).map(|_| backoff.full(3, rng.f64()).as_secs_f64()).sum::<f64>() / 10_000.0;
        assert!((0.49..0.51).contains(&mean), "mean of U(0, 1 s) was {mean}");
    }

    proptest! {
        #[test]
        fn waits_stay_in_bounds(n in 1u32..60, sample in 0.0f64..1.0, base in 1u64..5_000, max in 1u64..60_000) {
            let backoff = Backoff { base: Duration::from_millis(base), max: Duration::from_millis(max) };
            let ceiling = backoff.ceiling(n);
            prop_assert!(ceiling <= backoff.max);
            prop_assert!(backoff.full(n, sample) <= ceiling);
            let equal = backoff.equal(n, sample);
            prop_assert!(equal <= ceiling && equal >= ceiling / 2);
        }
    }
}

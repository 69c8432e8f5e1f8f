//! Quantiles of the time to the first token over the last ten minutes.
//!
//! Why a histogram: the tail is a handful of samples among hundreds, a mean knows nothing of it, and a list of all would
//! grow with the traffic. Buckets grow with the value, so the error is a share of it (a sixteenth), whether calls take
//! milliseconds or minutes. Why unfinished samples count: a send that was dropped because its twin was faster would have
//! taken *longer* than it was watched. Left out, the slow ones vanish from the record and the next hedge comes too early;
//! taken at face value, the same. So such a sample says "at least so long", after Kaplan and Meier (1958): of those still
//! silent at a time, which share spoke then.
//!
//! Owns counting and reading. Invariant: what it says is never below the true quantile, and above it by a sixteenth at
//! most.

use std::time::{Duration, Instant};

/// How long a sample counts, give or take a slice.
pub const MEMORY: Duration = Duration::from_secs(600);

const SLICES: usize = 10;
const SLICE: u64 = MEMORY.as_secs() / SLICES as u64;
/// Buckets per doubling.
const FINE: u64 = 16;
/// Times from 1 ms up to 2^20 ms, 17 minutes; longer ones count as the longest.
const BUCKETS: usize = (FINE as usize) * 21;

#[derive(Clone, Debug)]
struct Slice {
    /// Which slice-long period since the origin this is; 0 for none.
    period: u64,
    spoke: Box<[u32]>,
    dropped: Box<[u32]>,
}

/// Times to the first token of one kind of send.
#[derive(Clone, Debug)]
pub struct Quantiles {
    origin: Instant,
    slices: Vec<Slice>,
}

impl Quantiles {
    /// Nothing seen yet.
    pub fn new(now: Instant) -> Self {
        Self { origin: now, slices: Vec::new() }
    }

    /// A first token came after so long.
    pub fn spoke(&mut self, after: Duration, now: Instant) {
        let counts = &mut self.slice(now).spoke[bucket(after)];
        *counts = counts.saturating_add(1);
    }

    /// A send was dropped after so long, still silent.
    pub fn dropped(&mut self, after: Duration, now: Instant) {
        let counts = &mut self.slice(now).dropped[bucket(after)];
        *counts = counts.saturating_add(1);
    }

    /// Samples that count now.
    pub fn len(&self, now: Instant) -> u64 {
        self.live(now).flat_map(|slice| slice.spoke.iter().chain(&*slice.dropped)).map(|count| u64::from(*count)).sum()
    }

    /// Whether none counts now.
    pub fn is_empty(&self, now: Instant) -> bool {
        self.len(now) == 0
    }

    /// The time by which a share `q` of all sends has spoken; `None` where too few ever did.
    pub fn at(&self, q: f64, now: Instant) -> Option<Duration> {
        let mut silent = 1.0;
        let mut watched = self.len(now) as f64;
        for number in 0..BUCKETS {
            let count =
                |of: fn(&Slice) -> &[u32]| self.live(now).map(|slice| u64::from(of(slice)[number])).sum::<u64>();
            let (spoke, dropped) = (count(|slice| &slice.spoke) as f64, count(|slice| &slice.dropped) as f64);
            if spoke > 0.0 {
                silent *= 1.0 - spoke / watched;
                if silent <= 1.0 - q + 1e-9 {
                    return Some(upper(number));
                }
            }
            watched -= spoke + dropped;
        }
        None
    }

    fn period(&self, now: Instant) -> u64 {
        1 + now.saturating_duration_since(self.origin).as_secs() / SLICE
    }

    fn live(&self, now: Instant) -> impl Iterator<Item = &Slice> {
        let current = self.period(now);
        self.slices.iter().filter(move |slice| slice.period + SLICES as u64 > current)
    }

    fn slice(&mut self, now: Instant) -> &mut Slice {
        let period = self.period(now);
        let at = match self.slices.iter().position(|slice| slice.period == period) {
            Some(at) => at,
            None => {
                self.slices.retain(|slice| slice.period + SLICES as u64 > period);
                let empty = || vec![0; BUCKETS].into_boxed_slice();
                self.slices.push(Slice { period, spoke: empty(), dropped: empty() });
                self.slices.len() - 1
            }
        };
        &mut self.slices[at]
    }
}

/// Which bucket a time falls into: linear within each doubling.
fn bucket(after: Duration) -> usize {
    // In sixteenths of a millisecond, so that the first doubling (1 to 2 ms) has whole buckets too.
    let units = u64::try_from(after.as_micros() * u128::from(FINE) / 1000).unwrap_or(u64::MAX).max(FINE);
    let doubling = units.ilog2() - FINE.ilog2();
    let within = (units >> doubling) - FINE;
    ((u64::from(doubling) * FINE + within) as usize).min(BUCKETS - 1)
}

/// The upper edge of a bucket.
fn upper(bucket: usize) -> Duration {
    let (doubling, within) = (bucket as u64 / FINE, bucket as u64 % FINE);
    Duration::from_micros(((FINE + within + 1) << doubling) * 1000 / FINE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn every_time_is_in_its_bucket() {
        for micros in (1_000..2_000_000).step_by(997) {
            let time = Duration::from_micros(micros);
            let edge = upper(bucket(time));
            assert!(
                time < edge && edge <= time.mul_f64(1.0 + 1.0 / 16.0) + Duration::from_micros(1),
                "{time:?} {edge:?}"
            );
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn old_samples_are_forgotten() {
        let start = Instant::now();
        let mut quantiles = Quantiles::new(start);
        (0..100).for_each(|_| quantiles.spoke(30 * SECOND, start));
        let later = start + MEMORY / 2;
        (0..100).for_each(|_| quantiles.spoke(SECOND, later));
        assert!(quantiles.at(0.95, later) > Some(29 * SECOND));
        let much_later = start + MEMORY + Duration::from_secs(SLICE);
        assert_eq!(quantiles.len(much_later), 100);
        assert!(quantiles.at(0.95, much_later) < Some(2 * SECOND));
        assert!(quantiles.is_empty(much_later + MEMORY));
        assert_eq!(quantiles.at(0.95, much_later + MEMORY), None);
        quantiles.spoke(SECOND, much_later + MEMORY);
        assert_eq!(quantiles.slices.len(), 1, "memory is bounded");
    }

    #[test]
    fn what_was_dropped_is_not_taken_for_fast() {
        let now = Instant::now();
        let (mut honest, mut hedged) = (Quantiles::new(now), Quantiles::new(now));
        for number in 0..1000u32 {
            // A hundredth takes a minute; whoever hedges at 2 s never sees it.
            let time = if number % 100 == 0 { 60 * SECOND } else { Duration::from_millis(500 + u64::from(number)) };
            honest.spoke(time, now);
            if time > 2 * SECOND { hedged.dropped(2 * SECOND, now) } else { hedged.spoke(time, now) }
        }
        assert_eq!(hedged.at(0.95, now), honest.at(0.95, now));
        assert_eq!(hedged.at(0.999, now), None, "nobody knows how long those would have taken");
        assert!(honest.at(0.999, now) > Some(59 * SECOND));
    }

    proptest! {
        /// Reference: all samples, sorted.
        #[test]
        fn a_quantile_is_the_sorted_one_within_a_bucket(
            millis in proptest::collection::vec(1u64..900_000, 1..400),
            q in 0.5f64..0.999,
        ) {
            let now = Instant::now();
            let mut quantiles = Quantiles::new(now);
            millis.iter().for_each(|ms| quantiles.spoke(Duration::from_millis(*ms), now));
            let mut sorted = millis.clone();
            sorted.sort_unstable();
            let rank = ((q * sorted.len() as f64 - 1e-6).ceil() as usize).clamp(1, sorted.len());
            let exact = Duration::from_millis(sorted[rank - 1]);
            let told = quantiles.at(q, now).unwrap();
            prop_assert!(told >= exact, "{told:?} {exact:?}");
            prop_assert!(told <= exact.mul_f64(1.0 + 1.0 / 16.0) + Duration::from_micros(1), "{told:?} {exact:?}");
        }

        /// Dropping sends early never makes the estimate smaller than what is known of them.
        #[test]
        fn dropped_sends_only_ever_raise_it(
            millis in proptest::collection::vec(1u64..60_000, 1..200),
            hedge_after in 1u64..60_000,
        ) {
            let now = Instant::now();
            let (mut watched, mut cut) = (Quantiles::new(now), Quantiles::new(now));
            for ms in &millis {
                watched.spoke(Duration::from_millis(*ms), now);
                if *ms > hedge_after {
                    cut.dropped(Duration::from_millis(hedge_after), now);
                } else {
                    cut.spoke(Duration::from_millis(*ms), now);
                }
            }
            match (cut.at(0.9, now), watched.at(0.9, now)) {
                (Some(cut), Some(watched)) => prop_assert_eq!(cut, watched),
                (None, Some(watched)) => prop_assert!(watched >= Duration::from_millis(hedge_after)),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

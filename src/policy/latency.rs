//! How soon an endpoint has been saying its first word, for the choice between two.
//!
//! Why the peak: an endpoint that has just become slow is to be spared at once, and to earn its way back. A worse time
//! counts in full; better ones pull the estimate down only as fast as the time constant lets them, and so does
//! silence, so that who was slow is tried again. Why a penalty: an endpoint that fails at once looks quick, and would
//! draw the very traffic it cannot serve. Source: the peak EWMA of Finagle and Linkerd.

use std::time::{Duration, Instant};

/// How fast what was seen is forgotten.
const FORGET: Duration = Duration::from_secs(30);
/// How many times dearer an endpoint is right after a failure.
const PENALTY: f64 = 3.0;
/// How fast that is forgiven.
const FORGIVE: Duration = Duration::from_secs(10);

/// What is known of one endpoint's first tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    seen: Option<(f64, Instant)>,
    failed: Option<Instant>,
}

impl Latency {
    /// A first token came after so long.
    pub fn learn(&mut self, first: Duration, now: Instant) {
        let first = first.as_secs_f64();
        let estimate = match self.seen {
            Some((estimate, at)) if first < estimate => {
                let kept = decay(now.saturating_duration_since(at), FORGET);
                estimate * kept + first * (1.0 - kept)
            }
            _ => first,
        };
        self.seen = Some((estimate, now));
    }

    /// A send failed there.
    pub fn penalise(&mut self, now: Instant) {
        self.failed = Some(now);
    }

    /// Seconds to the first token, as far as is known.
    pub fn estimate(&self, now: Instant) -> Option<f64> {
        self.seen.map(|(estimate, at)| (estimate * decay(now.saturating_duration_since(at), FORGET)).max(1e-6))
    }

    /// How many times dearer the endpoint is for a failure lately, 1 to 3.
    pub fn penalty(&self, now: Instant) -> f64 {
        let left = self.failed.map_or(0.0, |at| decay(now.saturating_duration_since(at), FORGIVE));
        1.0 + (PENALTY - 1.0) * left
    }
}

/// What is left of 1 after `passed`.
fn decay(passed: Duration, constant: Duration) -> f64 {
    (-passed.as_secs_f64() / constant.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn worse_counts_at_once_and_better_with_time() {
        let now = Instant::now();
        let mut latency = Latency::default();
        assert_eq!(latency.estimate(now), None);
        latency.learn(SECOND, now);
        latency.learn(3 * SECOND, now);
        assert_eq!(latency.estimate(now), Some(3.0));
        latency.learn(SECOND, now);
        assert_eq!(latency.estimate(now), Some(3.0), "no time has passed");
        let later = now + FORGET;
        latency.learn(SECOND, later);
        let estimate = latency.estimate(later).unwrap();
        assert!((1.7..1.8).contains(&estimate), "{estimate}");
        assert!(latency.estimate(later + FORGET).unwrap() < 0.7, "silence is forgiven");
    }

    #[test]
    fn a_failure_makes_dear_and_is_forgiven() {
        let now = Instant::now();
        let mut latency = Latency::default();
        assert_eq!(latency.penalty(now), 1.0);
        latency.penalise(now);
        assert_eq!(latency.penalty(now), 3.0);
        let later = latency.penalty(now + FORGIVE);
        assert!((1.7..1.8).contains(&later), "{later}");
        assert!(latency.penalty(now + 20 * FORGIVE) < 1.001);
    }

    proptest! {
        /// The estimate never leaves what was seen, upwards, and never comes to nothing.
        #[test]
        fn it_stays_within_what_was_seen(seen in proptest::collection::vec((1u64..100_000, 0u64..60_000), 1..50)) {
            let mut now = Instant::now();
            let mut latency = Latency::default();
            let mut most = 0.0f64;
            for (millis, passed) in seen {
                now += Duration::from_millis(passed);
                latency.learn(Duration::from_millis(millis), now);
                most = most.max(millis as f64 / 1e3);
                let estimate = latency.estimate(now).unwrap();
                prop_assert!(estimate >= millis as f64 / 1e3 * 0.999 && estimate <= most * 1.001);
            }
        }
    }
}

//! When an endpoint's health is asked for, and what the answers make of it.
//!
//! Why thresholds: one lost packet is no outage. Why jitter: gateways that start together must not ask together. What
//! comes of it is a hint, not a verdict: real traffic is what breakers judge by, and nobody is refused because of a
//! probe. Invariant: an endpoint is up until so many probes in a row have failed.

use std::time::Duration;

/// An interval is up to this share longer or shorter.
const SPREAD: f64 = 0.1;

/// How one endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Path on the origin of the endpoint's URL, beginning with `/`.
    pub path: String,
    /// Time between two probes.
    pub every: Duration,
    /// An answer that takes longer is a failure.
    pub timeout: Duration,
    /// So many failures in a row, and the endpoint is down; at least 1.
    pub fail_after: u32,
    /// So many successes in a row, and it is up again; at least 1.
    pub ok_after: u32,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        let (every, timeout) = (Duration::from_secs(5), Duration::from_secs(2));
        Self { path: "/health".to_owned(), every, timeout, fail_after: 2, ok_after: 1 }
    }
}

impl ProbeSettings {
    /// The wait before the first probe: anywhere within an interval. `sample` is uniform in `0..1`.
    pub fn first(&self, sample: f64) -> Duration {
        self.every.mul_f64(sample)
    }

    /// The wait before the next. `sample` is uniform in `0..1`.
    pub fn pause(&self, sample: f64) -> Duration {
        self.every.mul_f64(1.0 + SPREAD * (2.0 * sample - 1.0))
    }
}

/// What the probes of one endpoint say.
#[derive(Clone, Debug)]
pub struct Probe {
    fail_after: u32,
    ok_after: u32,
    up: bool,
    /// Answers in a row that speak against what it is.
    against: u32,
}

impl Probe {
    /// Up, until it is known better: a gateway that has just started turns nobody away.
    pub fn new(settings: &ProbeSettings) -> Self {
        Self { fail_after: settings.fail_after, ok_after: settings.ok_after, up: true, against: 0 }
    }

    /// What was known before.
    #[must_use]
    pub fn known(self, up: bool) -> Self {
        Self { up, ..self }
    }

    /// A probe passed or failed. Returns whether the endpoint has turned.
    pub fn told(&mut self, passed: bool) -> bool {
        if passed == self.up {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let turned = self.against >= if self.up { self.fail_after } else { self.ok_after };
        if turned {
            (self.up, self.against) = (passed, 0);
        }
        turned
    }

    /// Whether the endpoint is up.
    pub fn is_up(&self) -> bool {
        self.up
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_failures_in_a_row_are_down_and_one_success_is_up() {
        let mut probe = Probe::new(&ProbeSettings::default());
        let steps = [(false, true), (true, true), (false, true), (false, false), (false, false), (true, true)];
        for (step, (passed, up)) in steps.into_iter().enumerate() {
            probe.told(passed);
            assert_eq!(probe.is_up(), up, "step {step}");
        }
    }

    #[test]
    fn gateways_that_start_together_soon_ask_apart() {
        let settings = ProbeSettings::default();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut at: Vec<f64> = (0..50).map(|_| settings.first(rng.f64()).as_secs_f64()).collect();
        for _ in 0..100 {
            // No second of the interval has a third of them.
            let mut within = [0; 5];
            at.iter().for_each(|at| within[(at % 5.0) as usize] += 1);
            assert!(within.iter().all(|count| *count < 20), "{within:?}");
            at.iter_mut().for_each(|at| *at += settings.pause(rng.f64()).as_secs_f64());
        }
    }

    proptest! {
        /// Against the whole history: it is down from `fail_after` failures in a row until `ok_after` successes in a row.
        #[test]
        fn it_is_what_the_history_says(
            answers in prop::collection::vec(any::<bool>(), 0..80), fail_after in 1u32..5, ok_after in 1u32..5
        ) {
            let settings = ProbeSettings { fail_after, ok_after, ..ProbeSettings::default() };
            let mut probe = Probe::new(&settings);
            let mut up = true;
            for end in 1..=answers.len() {
                let newest = answers[end - 1];
                let run = answers[..end].iter().rev().take_while(|answer| **answer == newest).count() as u32;
                let was = up;
                match newest {
                    true if run >= ok_after => up = true,
                    false if run >= fail_after => up = false,
                    _ => {}
                }
                prop_assert_eq!(probe.told(newest), was != up);
                prop_assert_eq!(probe.is_up(), up);
            }
        }

        #[test]
        fn waits_stay_near_the_interval(sample in 0.0f64..1.0, every in 1u64..100_000) {
            let settings = ProbeSettings { every: Duration::from_millis(every), ..ProbeSettings::default() };
            prop_assert!(settings.first(sample) <= settings.every);
            prop_assert!(settings.pause(sample) >= settings.every.mul_f64(0.899));
            prop_assert!(settings.pause(sample) <= settings.every.mul_f64(1.101));
        }
    }
}

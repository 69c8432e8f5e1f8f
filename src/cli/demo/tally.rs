//! What the demo counts, on both ways, and what it says of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::Told;

/// One way's calls.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    calls: u64,
    good: u64,
    deceived: u64,
    firsts: Vec<Duration>,
    sends: u64,
    rescued: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts one call.
    pub fn add(&mut self, told: &Told) {
        self.calls += 1;
        self.good += u64::from(told.good);
        self.deceived += u64::from(told.deceived);
        self.sends += u64::from(told.sends.unwrap_or(0));
        self.firsts.extend(told.first);
        if let Some(outcome) = told.outcome.as_ref().filter(|outcome| told.good && outcome.as_str() != "ok") {
            *self.rescued.entry(outcome.clone()).or_default() += 1;
        }
    }

    /// Calls made.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Calls with a complete, good answer.
    pub fn good(&self) -> u64 {
        self.good
    }

    /// Calls whose client took a broken answer for a good one.
    pub fn deceived(&self) -> u64 {
        self.deceived
    }

    /// Good answers per call, 0 to 1.
    pub fn success(&self) -> f64 {
        self.good as f64 / self.calls.max(1) as f64
    }

    /// Sends upstream per call.
    pub fn sends_per_call(&self) -> f64 {
        self.sends as f64 / self.calls.max(1) as f64
    }

    /// Good answers that took more than the first send, by how.
    pub fn rescued(&self) -> &BTreeMap<String, u64> {
        &self.rescued
    }

    /// A percentile of the time to the first word, in milliseconds; `None` without a good answer.
    pub fn first_ms(&self, percentile: f64) -> Option<f64> {
        let mut firsts = self.firsts.clone();
        firsts.sort_unstable();
        let at = ((firsts.len() as f64 * percentile / 100.0).ceil() as usize).clamp(1, firsts.len().max(1)) - 1;
        firsts.get(at).map(|first| (first.as_secs_f64() * 1e4).round() / 10.0)
    }

    /// For programs, with what only a gateway tells.
    pub fn gateway_json(&self) -> Value {
        let mut told = self.json();
        told["sends_per_call"] = json!((self.sends_per_call() * 1e3).round() / 1e3);
        told["rescued"] = json!(self.rescued);
        told
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "calls": self.calls,
            "success_ratio": (self.success() * 1e4).round() / 1e4,
            "first_token_p50_ms": self.first_ms(50.0),
            "first_token_p99_ms": self.first_ms(99.0),
            "looked_fine_but_was_not": self.deceived,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rescues_are_good_answers_that_took_more() {
        let mut tally = Tally::default();
        let told = |good, outcome: &str, ms| Told {
            good,
            outcome: Some(outcome.into()),
            sends: Some(2),
            first: Some(Duration::from_millis(ms)),
            ..Told::default()
        };
        for told in
            [told(true, "ok", 10), told(true, "fallback", 20), told(false, "failed", 30), told(false, "retried", 40)]
        {
            tally.add(&told);
        }
        assert_eq!(tally.rescued(), &BTreeMap::from([("fallback".to_owned(), 1)]));
        assert_eq!((tally.success(), tally.sends_per_call()), (0.5, 2.0));
        assert_eq!((tally.first_ms(50.0), tally.first_ms(99.0)), (Some(20.0), Some(40.0)));
        assert_eq!(Tally::default().first_ms(50.0), None);
    }
}

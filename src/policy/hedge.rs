//! When a second send is started beside one that is merely late, and when it is not.
//!
//! Why: a few calls in a hundred take ten times as long as the others, for no reason of their own. A second send at
//! another endpoint is answered in the usual time, so the tail of all is cut for a few sends more. Why so many
//! conditions: the same trick under load is the load. The budget has to reach for all who are late (`1 - q`), else it is
//! spent when it is needed; a busy pool, an endpoint that is coming back, a target that is failing, and a prompt that
//! costs a lot to read are left alone. (Dean and Barroso, The Tail at Scale, 2013; gRPC A6.)
//!
//! Owns the moment and the budget of one target. Sending is the plan's. Invariant: hedges are at most the budget's share
//! of first sends; the tokens saved up are at most [`SAVED`].

use std::time::{Duration, Instant};

use super::quantile::Quantiles;

/// Hedges that quiet times may save up for bad ones.
pub const SAVED: f64 = 50.0;
/// Samples below which nothing is known of what is usual.
pub const LEAST_SAMPLES: u64 = 100;
/// No hedge goes out earlier or later than this.
const CLAMP: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Prompts above this are too dear to be read twice, in bytes (about 16000 tokens).
const LONGEST_PROMPT: usize = 64 * 1024;
/// Share of a pool's places in use above which nobody is hedged.
const BUSY: f64 = 0.7;
/// Upper bounds of the kinds of prompts, in bytes (about 1000, 4000, 16000 tokens).
const SIZES: [usize; 3] = [4 * 1024, 16 * 1024, LONGEST_PROMPT];
/// How long a quantile that was read is good for.
const FRESH: Duration = Duration::from_secs(1);

/// Hedging as configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HedgeSettings {
    /// Whether it acts at all.
    pub on: bool,
    /// The quantile of the time to the first token after which a send is late, 0 to 1.
    pub after: f64,
    /// Hedges as a share of first sends, 0 to 1; at least `1 - after`.
    pub budget: f64,
}

impl Default for HedgeSettings {
    fn default() -> Self {
        Self { on: false, after: 0.95, budget: 0.05 }
    }
}

impl HedgeSettings {
    /// The least budget that reaches for all who are late.
    pub fn least_budget(&self) -> f64 {
        // In whole per mille: 1 - 0.95 is not quite 0.05.
        ((1.0 - self.after) * 1000.0).round() / 1000.0
    }
}

/// Why a late send is not hedged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppressed {
    /// The pool is busy, or had no place for it.
    Load,
    /// The budget is spent.
    Budget,
    /// No other endpoint's breaker is closed.
    Breaker,
    /// The target's retry budget is spent: it is failing.
    Throttle,
}

/// How a hedge came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedged {
    /// It answered first.
    Won,
    /// The send it stood beside answered first.
    Lost,
    /// It failed, or the call ended without an answer.
    Failed,
    /// It was not made.
    Suppressed(Suppressed),
}

impl Hedged {
    /// Every outcome, for metrics.
    pub const ALL: [Hedged; 7] = [
        Hedged::Won,
        Hedged::Lost,
        Hedged::Failed,
        Hedged::Suppressed(Suppressed::Load),
        Hedged::Suppressed(Suppressed::Budget),
        Hedged::Suppressed(Suppressed::Breaker),
        Hedged::Suppressed(Suppressed::Throttle),
    ];

    /// The public name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Hedged::Won => "won",
            Hedged::Lost => "lost",
            Hedged::Failed => "failed",
            Hedged::Suppressed(Suppressed::Load) => "suppressed_load",
            Hedged::Suppressed(Suppressed::Budget) => "suppressed_budget",
            Hedged::Suppressed(Suppressed::Breaker) => "suppressed_breaker",
            Hedged::Suppressed(Suppressed::Throttle) => "suppressed_throttle",
        }
    }
}

/// How things stand around a send that is late.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// Sends in flight in the pool.
    pub in_flight: usize,
    /// Places in the pool.
    pub places: usize,
    /// An endpoint that was not asked yet has a closed breaker.
    pub other_is_well: bool,
    /// The target's retry budget cannot pay for another repeat.
    pub throttled: bool,
}

/// The hedging of one target.
#[derive(Clone, Debug)]
pub struct Hedger {
    settings: HedgeSettings,
    sizes: [Option<Size>; SIZES.len()],
    saved: f64,
}

/// What is known of prompts of one size.
#[derive(Clone, Debug)]
struct Size {
    quantiles: Quantiles,
    read: Option<(Instant, Option<Duration>)>,
}

impl Hedger {
    /// Nothing known and nothing saved yet.
    pub fn new(settings: HedgeSettings) -> Self {
        Self { settings, sizes: [const { None }; SIZES.len()], saved: 0.0 }
    }

    /// A first send went out: it pays its share.
    pub fn deposit(&mut self) {
        self.saved = (self.saved + self.settings.budget).min(SAVED);
    }

    /// How long after it went out a send with this prompt is late; `None` where that is not known, or it is not hedged.
    pub fn late_after(&mut self, prompt_bytes: usize, now: Instant) -> Option<Duration> {
        let size = self.sizes.get_mut(size(prompt_bytes)?)?.as_mut()?;
        match size.read {
            Some((read, late)) if now.saturating_duration_since(read) < FRESH => late,
            _ => {
                let known = size.quantiles.len(now) >= LEAST_SAMPLES;
                let late = if known { size.quantiles.at(self.settings.after, now) } else { None };
                let late = late.map(|late| late.clamp(CLAMP.0, CLAMP.1));
                size.read = Some((now, late));
                late
            }
        }
    }

    /// A send is late: pays for a hedge, if one may be made.
    ///
    /// # Errors
    /// None may.
    pub fn pay(&mut self, around: Around) -> Result<(), Suppressed> {
        if around.in_flight as f64 > BUSY * around.places as f64 {
            return Err(Suppressed::Load);
        }
        if around.throttled {
            return Err(Suppressed::Throttle);
        }
        if !around.other_is_well {
            return Err(Suppressed::Breaker);
        }
        if self.saved < 1.0 - 1e-9 {
            return Err(Suppressed::Budget);
        }
        self.saved -= 1.0;
        Ok(())
    }

    /// A hedge that was paid for was not made.
    pub fn refund(&mut self) {
        self.saved = (self.saved + 1.0).min(SAVED);
    }

    /// A first token came so long after its send went out.
    pub fn spoke(&mut self, prompt_bytes: usize, after: Duration, now: Instant) {
        if let Some(quantiles) = self.quantiles(prompt_bytes, now) {
            quantiles.spoke(after, now);
        }
    }

    /// A send was dropped, still silent, so long after it went out.
    pub fn dropped(&mut self, prompt_bytes: usize, after: Duration, now: Instant) {
        if let Some(quantiles) = self.quantiles(prompt_bytes, now) {
            quantiles.dropped(after, now);
        }
    }

    fn quantiles(&mut self, prompt_bytes: usize, now: Instant) -> Option<&mut Quantiles> {
        let size = self.sizes.get_mut(size(prompt_bytes)?)?;
        Some(&mut size.get_or_insert_with(|| Size { quantiles: Quantiles::new(now), read: None }).quantiles)
    }
}

/// Which kind of prompt it is; none where it is not hedged.
fn size(prompt_bytes: usize) -> Option<usize> {
    SIZES.iter().position(|most| prompt_bytes <= *most)
}

#[cfg(test)]
#[path = "hedge_tests.rs"]
mod tests;

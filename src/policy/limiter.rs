//! How many sends an endpoint can take at once, learnt from how long it stays silent before its first token.
//!
//! Why not from total latency: an answer that is three times longer is a different workload, not an overload, and a
//! limit that learns from it starves a healthy server. The wait before the first token is what grows when a server
//! queues behind our back. Additive increase, multiplicative decrease: one more place per limit's worth of answers in
//! time, a tenth less at most once per `TARGET`; until the first excess one more place with every answer, or a server
//! that takes hundreds would be found out only after an hour. Invariant: the limit is never below 1 and never above its ceiling.

use std::time::{Duration, Instant};

use super::settings::{Concurrency, Mode};

/// The wait behind our back that is kept to, and the least time between two cuts.
const TARGET: Duration = Duration::from_secs(2);
/// A first token this much later than expected is an excess: less than the target, for what is seen of a queue now was
/// sent into it that long ago, and the queue has grown since.
const EXCESS: Duration = Duration::from_millis(1500);
/// The limit of an endpoint nothing is known of.
const INITIAL: f64 = 8.0;
/// What is left of the limit after an excess.
const SHRINK: f64 = 0.9;
/// How far above the slots a server tells of the limit may go: a short queue there hides our own round trip.
const ABOVE_SLOTS: f64 = 1.25;
/// Prompts are told apart by size: up to this many bytes, four times as many, and so on.
const SMALLEST: usize = 4 * 1024;
const SIZES: usize = 6;

/// What one send says of its endpoint. Sends that failed otherwise, were cancelled or superseded say nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// The first model event of a stream came.
    First {
        /// From the send's start.
        after: Duration,
        /// Size of the request body.
        prompt_bytes: usize,
    },
    /// A whole answer came. How long it took is the workload, not the load.
    Whole,
    /// The endpoint said that it has too much to do, or never came to a first token.
    Refused,
}

/// The limit of one endpoint.
#[derive(Clone, Debug)]
pub struct Limiter {
    mode: Mode,
    max: f64,
    slots: Option<f64>,
    limit: f64,
    /// No excess was met yet, and nothing is known of the endpoint.
    slow_start: bool,
    last_cut: Option<Instant>,
    usual: [Option<Usual>; SIZES],
}

impl Limiter {
    /// A limit that knows nothing yet.
    pub fn new(settings: Concurrency) -> Self {
        let max = f64::from(settings.max.max(1));
        let limit = if settings.mode == Mode::Fixed { max } else { INITIAL.min(max) };
        Self {
            mode: settings.mode,
            max,
            slots: None,
            limit,
            slow_start: true,
            last_cut: None,
            usual: Default::default(),
        }
    }

    /// Other settings: what was learnt stays, within them. Another mode begins anew, for nothing is learnt under `fixed`.
    pub fn set(&mut self, settings: Concurrency) {
        if settings.mode != self.mode {
            let slots = self.slots;
            *self = Self::new(settings);
            slots.into_iter().for_each(|slots| self.slots(slots as usize));
            return;
        }
        self.max = f64::from(settings.max.max(1));
        self.limit = if self.mode == Mode::Fixed { self.max } else { self.limit.min(self.ceiling()) };
    }

    /// Whether nothing has been found out yet: no excess met, no slots told.
    pub fn is_unlearnt(&self) -> bool {
        self.mode == Mode::Adaptive && self.slow_start
    }

    /// Places at the endpoint, at least 1.
    pub fn limit(&self) -> usize {
        (self.limit as usize).max(1)
    }

    /// What the endpoint says of its own places. Before the first excess that is where the limit goes.
    pub fn slots(&mut self, slots: usize) {
        if self.mode == Mode::Fixed || slots == 0 {
            return;
        }
        self.slots = Some(slots as f64);
        if std::mem::replace(&mut self.slow_start, false) {
            self.limit = slots as f64;
        }
        self.limit = self.limit.clamp(1.0, self.ceiling());
    }

    /// Learns from one send. `in_flight` counts it; while fewer than half the places are taken nothing is known of
    /// the other half, so the limit does not grow.
    pub fn learn(&mut self, sample: Sample, in_flight: usize, now: Instant) {
        if self.mode == Mode::Fixed {
            return;
        }
        let pressed = in_flight as f64 >= self.limit / 2.0;
        let excess = match sample {
            Sample::Refused => true,
            Sample::Whole => false,
            Sample::First { after, prompt_bytes } => after > self.expected(after, prompt_bytes, pressed) + EXCESS,
        };
        if excess {
            self.slow_start = false;
            let due = self.last_cut.is_none_or(|last| now.saturating_duration_since(last) > TARGET);
            if due {
                self.last_cut = Some(now);
                self.limit = (self.limit * SHRINK).max(1.0);
            }
        } else if pressed {
            let step = if self.slow_start { 1.0 } else { 1.0 / self.limit };
            self.limit = (self.limit + step).min(self.ceiling());
        }
    }

    fn ceiling(&self) -> f64 {
        self.slots.map_or(self.max, |slots| (slots * ABOVE_SLOTS).min(self.max)).max(1.0)
    }

    /// The first token's usual time for such a prompt. Learnt only while the endpoint is not pressed, so that a queue
    /// never becomes what is usual; until something is known of this size, from the nearest smaller one.
    fn expected(&mut self, after: Duration, prompt_bytes: usize, pressed: bool) -> Duration {
        let size = size_of(prompt_bytes);
        let seconds = after.as_secs_f64();
        if !pressed {
            match &mut self.usual[size] {
                Some(usual) => usual.learn(seconds),
                none => *none = Some(Usual::new(seconds)),
            }
        }
        let known = (0..=size).rev().find_map(|smaller| Some((smaller, self.usual[smaller].as_ref()?)));
        let expected = match known {
            Some((smaller, usual)) => usual.most() * 4f64.powi((size - smaller) as i32),
            // Nothing to hold it against.
            None if size > 0 => seconds,
            None => 0.0,
        };
        Duration::try_from_secs_f64(expected).unwrap_or(Duration::MAX / 2)
    }
}

fn size_of(prompt_bytes: usize) -> usize {
    (0..SIZES - 1).find(|size| prompt_bytes <= SMALLEST << (2 * size)).unwrap_or(SIZES - 1)
}

/// Mean and deviation of the time to a first token, as TCP keeps them of its round trips.
#[derive(Clone, Copy, Debug)]
struct Usual {
    mean: f64,
    deviation: f64,
}

impl Usual {
    fn new(seconds: f64) -> Self {
        Self { mean: seconds, deviation: 0.0 }
    }

    fn learn(&mut self, seconds: f64) {
        let off = seconds - self.mean;
        // Quicker down than up: one that was slow for a while is not slow for good.
        self.mean += off * if off < 0.0 { 0.3 } else { 0.1 };
        self.deviation += (off.abs() - self.deviation) * 0.1;
    }

    /// Where the usual ends.
    fn most(&self) -> f64 {
        self.mean + 2.0 * self.deviation
    }
}

#[cfg(test)]
#[path = "limiter_tests.rs"]
mod tests;

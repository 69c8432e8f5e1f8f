//! What a client key may ask for in a minute: so many requests, so many tokens.
//!
//! Why reserve and settle: what a call costs is known when it is over. A limit that only looks at what is over lets any
//! number of calls in before the first of them ends; one that charges the guess for good punishes whoever names a high
//! `max_tokens` and uses little of it. So a guess is held back at the door, and the truth takes its place at the end.
//!
//! Each limit is a bucket that holds one minute's worth and refills steadily, so a key may spend a whole minute at once
//! and then as fast as it refills. It counts in parts of a token that divide evenly over the nanoseconds of a minute:
//! nothing is rounded, nothing drifts. Invariants: a refusal charges nothing, not even the limit that had room; in any
//! span of time no more is admitted than one minute's worth and what refilled in it.

use std::time::{Duration, Instant};

use crate::call::Usage;

/// A limit of one a minute refills by one part in a nanosecond; so many parts are one request or token.
const PARTS: i128 = 60_000_000_000;
/// The deepest debt that settling can leave, in minutes of the limit. No honest call is that long; a server that reports
/// nonsense must not lock a key out for ever.
const DEEPEST_DEBT: i128 = 60;
/// Bytes of a request body that are one token, roughly.
const BYTES_PER_TOKEN: u64 = 4;
/// What an answer is thought to be long, in tokens, before a key has had any.
const FIRST_OUTPUT: f64 = 512.0;
/// Weight of the newest answer in the mean of all.
const NEWEST: f64 = 0.1;

/// What a client key may ask for; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// Calls a minute.
    pub requests: Option<u64>,
    /// Tokens a minute, prompts and answers together.
    pub tokens: Option<u64>,
}

impl RateLimits {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_none() && self.tokens.is_none()
    }
}

/// Which of the two limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Calls a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
}

impl Limit {
    /// Both, for metrics.
    pub const ALL: [Limit; 2] = [Limit::Requests, Limit::Tokens];

    /// The public name, as in headers and in the metric label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Limit::Requests => "requests",
            Limit::Tokens => "tokens",
        }
    }
}

/// How long an answer may become, as far as the request tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is none that counts: a list, an embedding.
    Nothing,
    /// At most so many tokens, for each choice.
    AtMost(u64),
    /// As long as this key's answers are.
    Usual,
}

/// What a call looks like at the door.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Size of the prompt in bytes.
    pub prompt_bytes: usize,
    /// Its answer.
    pub expected: Expected,
    /// How many answers it asks for, at least 1.
    pub choices: u64,
}

/// What is held back for a call, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// For the prompt.
    pub prompt: u64,
    /// For all choices of the answer.
    pub output: u64,
    /// How many those are.
    pub choices: u64,
}

impl Estimate {
    /// Both together.
    pub fn total(&self) -> u64 {
        self.prompt.saturating_add(self.output)
    }
}

/// What is known of a call's cost when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// It had no answer, and costs nothing.
    Nothing,
    /// It was given up before there was an answer: the prompt may have been read.
    Prompt,
    /// It had an answer that did not tell: the estimate stands.
    Untold,
    /// It was counted, upstream or here.
    Counted {
        /// Prompt tokens, where they were told.
        input: Option<u64>,
        /// Tokens of the answer.
        output: u64,
        /// The answer is whole, so its length is one to learn from.
        whole: bool,
    },
}

impl Cost {
    /// The cost of an answer by what was reported of it and the model events that were seen; `whole` when it came to its
    /// proper end. A report of nothing is no report. An answer that broke off is as long as what came of it: its last
    /// report may be from its beginning.
    pub fn of(reported: Option<Usage>, events: u64, whole: bool) -> Self {
        let reported = reported.filter(|usage| usage.input > 0 || usage.output > 0);
        match reported {
            Some(usage) if whole => Cost::Counted { input: Some(usage.input), output: usage.output, whole },
            Some(usage) => Cost::Counted { input: Some(usage.input), output: usage.output.max(events), whole },
            None if events > 0 => Cost::Counted { input: None, output: events, whole },
            None if whole => Cost::Untold,
            None => Cost::Prompt,
        }
    }
}

/// Too much was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// The limit that has to be waited for longest.
    pub limit: Limit,
    /// How many it allows a minute.
    pub a_minute: u64,
    /// Room for this call will be there by then, if nobody takes it first.
    pub retry_after: Duration,
}

/// Where a limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// So many a minute.
    pub limit: u64,
    /// What is left now.
    pub remaining: u64,
    /// Until all of it is there again.
    pub reset: Duration,
}

/// The limits of one client key.
#[derive(Clone, Debug)]
pub struct Rate {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    /// Mean length of an answer, in tokens for each choice.
    usual: f64,
}

impl Rate {
    /// Full buckets.
    pub fn new(limits: RateLimits, now: Instant) -> Self {
        let bucket = |limit: Option<u64>| limit.map(|limit| Bucket::new(limit, now));
        Self { requests: bucket(limits.requests), tokens: bucket(limits.tokens), usual: FIRST_OUTPUT }
    }

    /// Other limits from now on: one that is what it was goes on where it stands, another begins full.
    pub fn set(&mut self, limits: RateLimits, now: Instant) {
        for (bucket, limit) in [(&mut self.requests, limits.requests), (&mut self.tokens, limits.tokens)] {
            if bucket.as_ref().map(Bucket::limit) != limit {
                *bucket = limit.map(|limit| Bucket::new(limit, now));
            }
        }
    }

    /// What a call is thought to cost.
    pub fn estimate(&self, asked: &Asked) -> Estimate {
        let choices = asked.choices.max(1);
        let each = match asked.expected {
            Expected::Nothing => 0,
            Expected::AtMost(tokens) => tokens,
            Expected::Usual => self.usual.ceil() as u64,
        };
        let prompt = (asked.prompt_bytes as u64).div_ceil(BYTES_PER_TOKEN);
        Estimate { prompt, output: each.saturating_mul(choices), choices }
    }

    /// Lets a call in and holds back what it is thought to cost. One that is larger than a whole minute's worth is let in
    /// when the bucket is full, and leaves a debt.
    ///
    /// # Errors
    /// A limit has no room for it; nothing was charged.
    pub fn admit(&mut self, asked: &Asked, now: Instant) -> Result<Estimate, OverLimit> {
        let estimate = self.estimate(asked);
        let wait = |bucket: &mut Option<Bucket>, limit: Limit, amount: u64| {
            let bucket = bucket.as_mut()?;
            bucket.refill(now);
            let retry_after = bucket.wait(amount);
            (!retry_after.is_zero()).then(|| OverLimit { limit, a_minute: bucket.limit(), retry_after })
        };
        let requests = wait(&mut self.requests, Limit::Requests, 1);
        let tokens = wait(&mut self.tokens, Limit::Tokens, estimate.total());
        if let Some(over) = requests.into_iter().chain(tokens).max_by_key(|over| over.retry_after) {
            return Err(over);
        }
        if let Some(bucket) = &mut self.requests {
            bucket.take(1);
        }
        if let Some(bucket) = &mut self.tokens {
            bucket.take(estimate.total());
        }
        Ok(estimate)
    }

    /// A call that was let in is over: what was held back for it makes way for what it cost.
    pub fn settle(&mut self, estimate: &Estimate, cost: Cost, now: Instant) {
        let cost = match cost {
            Cost::Nothing => 0,
            Cost::Prompt => estimate.prompt,
            Cost::Untold => estimate.total(),
            Cost::Counted { input, output, whole } => {
                // What has no answer to speak of says nothing of how long answers are.
                if whole && estimate.output > 0 {
                    self.usual += NEWEST * ((output / estimate.choices.max(1)) as f64 - self.usual);
                }
                input.unwrap_or(estimate.prompt).saturating_add(output)
            }
        };
        if let Some(bucket) = &mut self.tokens {
            bucket.refill(now);
            bucket.correct(estimate.total(), cost);
        }
    }

    /// Where each limit stands, for those there are.
    pub fn standing(&self, now: Instant) -> impl Iterator<Item = (Limit, Standing)> + use<> {
        let stand = |bucket: &Option<Bucket>| {
            let mut bucket = bucket.clone()?;
            bucket.refill(now);
            Some(bucket.standing())
        };
        let both = [(Limit::Requests, stand(&self.requests)), (Limit::Tokens, stand(&self.tokens))];
        both.into_iter().filter_map(|(limit, standing)| Some((limit, standing?)))
    }
}

#[derive(Clone, Debug)]
struct Bucket {
    /// So many a minute; at the same time the parts that refill in a nanosecond.
    a_minute: i128,
    /// What is there, in parts; a debt is below zero.
    level: i128,
    at: Instant,
}

impl Bucket {
    fn new(limit: u64, now: Instant) -> Self {
        let a_minute = i128::from(limit.max(1));
        Self { a_minute, level: a_minute * PARTS, at: now }
    }

    fn limit(&self) -> u64 {
        u64::try_from(self.a_minute).unwrap_or(u64::MAX)
    }

    fn full(&self) -> i128 {
        self.a_minute * PARTS
    }

    fn refill(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.at).as_nanos();
        let gain = self.a_minute.saturating_mul(i128::try_from(nanos).unwrap_or(i128::MAX));
        self.level = self.level.saturating_add(gain).min(self.full());
        self.at = self.at.max(now);
    }

    /// How long until so many are there, or the bucket is full; zero when they are there now.
    fn wait(&self, amount: u64) -> Duration {
        self.until((i128::from(amount) * PARTS).min(self.full()))
    }

    fn until(&self, wanted: i128) -> Duration {
        let missing = (wanted - self.level).max(0);
        let nanos = (missing + self.a_minute - 1) / self.a_minute;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn take(&mut self, amount: u64) {
        self.level = self.level.saturating_sub(i128::from(amount) * PARTS);
    }

    fn correct(&mut self, held: u64, cost: u64) {
        let back = (i128::from(held) - i128::from(cost)) * PARTS;
        self.level = self.level.saturating_add(back).clamp(-DEEPEST_DEBT * self.full(), self.full());
    }

    fn standing(&self) -> Standing {
        let remaining = u64::try_from(self.level.max(0) / PARTS).unwrap_or(u64::MAX);
        Standing { limit: self.limit(), remaining, reset: self.until(self.full()) }
    }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;

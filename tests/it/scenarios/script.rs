//! The language of scenarios.

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger::call::{Capability, Priority};
use outrigger::policy::{
    Backoff, BreakerSettings, Concurrency, HedgeSettings, Mode, RateLimits, RetrySettings, StreamMode, StreamSettings,
    Supports,
};
use serde::{Deserialize, Deserializer, de};

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows.
    pub why: String,
    /// The route's targets, each a list of endpoint names.
    pub targets: Vec<Vec<String>>,
    /// Clocks that differ from the defaults.
    #[serde(default)]
    pub timeouts: Clocks,
    /// Sends per target.
    #[serde(default = "three")]
    pub attempts_per_target: u32,
    /// Repeats as a share of traffic.
    #[serde(default = "fifth")]
    pub budget: f64,
    /// Pools go by the beginning of prompts.
    #[serde(default)]
    pub by_prefix: bool,
    /// The limit of each endpoint, fixed; adaptive without.
    pub slots: Option<u32>,
    /// Wait for a place.
    #[serde(default, deserialize_with = "maybe")]
    pub queue_wait: Option<Duration>,
    /// Streams are held until they are complete.
    #[serde(default)]
    pub hold: bool,
    /// The calls are made side by side, each after its own pause, instead of one after the other.
    #[serde(default)]
    pub together: bool,
    /// Client keys that have limits a minute.
    #[serde(default)]
    pub limits: BTreeMap<String, Limits>,
    /// Sends per call.
    #[serde(default = "four")]
    pub max_sends: u32,
    /// Hedging; without it there is none.
    pub hedge: Option<Hedge>,
    /// What endpoints are configured to be able to do, where anything is.
    #[serde(default)]
    pub abilities: BTreeMap<String, Abilities>,
    /// Breakers that differ from the defaults; without it there are none.
    pub breaker: Option<Circuit>,
    /// How many routes there are, all alike.
    #[serde(default = "one")]
    pub routes: usize,
    /// What each endpoint does, send by send; the last line goes on for ever.
    pub script: BTreeMap<String, Vec<Line>>,
    /// What is called, one after the other.
    #[serde(default = "one_call")]
    pub calls: Vec<CallSpec>,
    /// What must come of each.
    pub expect: Vec<Expect>,
    /// What must have been counted of sends, as `endpoint verdict: count`.
    pub attempts: Option<BTreeMap<String, u32>>,
    /// Sends that endpoints may have been asked for at most.
    #[serde(default)]
    pub asked_at_most: BTreeMap<String, u32>,
    /// What must have been counted of hedges, as `outcome: count`.
    pub hedges: Option<BTreeMap<String, u32>>,
    /// What must have been counted of sends to later targets, as `reason: count`.
    pub fallbacks: Option<BTreeMap<String, u32>>,
    /// What must have become of calls whose key was known, as `result: count`.
    pub repeated: Option<BTreeMap<String, u32>>,
    /// What must have been refused a place, as `reason priority: count`.
    pub shed: Option<BTreeMap<String, u32>>,
}

impl Scenario {
    pub fn breaker(&self) -> BreakerSettings {
        let own = BreakerSettings::default();
        let Some(circuit) = &self.breaker else { return BreakerSettings { on: false, ..own } };
        BreakerSettings {
            consecutive: circuit.consecutive.unwrap_or(own.consecutive),
            failure_rate: circuit.failure_rate.unwrap_or(own.failure_rate),
            min_calls: circuit.min_calls.unwrap_or(own.min_calls),
            open_for: circuit.open_for.unwrap_or(own.open_for),
            max_open: circuit.max_open.unwrap_or(own.max_open),
            probes: circuit.probes.unwrap_or(own.probes),
            ..own
        }
    }

    pub fn hedge(&self) -> HedgeSettings {
        let own = HedgeSettings::default();
        self.hedge.as_ref().map_or(own, |hedge| HedgeSettings { on: true, after: hedge.after, budget: hedge.budget })
    }

    pub fn supports(&self, endpoint: &str) -> Supports {
        let mut supports = Supports::default();
        if let Some(abilities) = self.abilities.get(endpoint) {
            for (names, can) in [(&abilities.can, true), (&abilities.lacks, false)] {
                names.iter().for_each(|name| supports.set(capability(name).expect("a capability"), can));
            }
        }
        supports
    }

    pub fn concurrency(&self) -> Concurrency {
        self.slots.map_or(Concurrency::default(), |max| Concurrency { mode: Mode::Fixed, max })
    }

    pub fn streams(&self) -> StreamSettings {
        StreamSettings { mode: if self.hold { StreamMode::Hold } else { StreamMode::Auto }, rescue: false }
    }

    pub fn retry(&self) -> RetrySettings {
        RetrySettings {
            attempts: self.attempts_per_target,
            budget: self.budget,
            backoff: Backoff { base: Duration::from_millis(250), max: Duration::from_secs(8) },
            respect_retry_after: true,
        }
    }
}

/// The limits of a key.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub requests: Option<u64>,
    pub tokens: Option<u64>,
}

impl From<Limits> for RateLimits {
    fn from(Limits { requests, tokens }: Limits) -> Self {
        Self { requests, tokens }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clocks {
    #[serde(deserialize_with = "maybe")]
    pub headers: Option<Duration>,
    #[serde(deserialize_with = "maybe")]
    pub first_token: Option<Duration>,
    #[serde(deserialize_with = "maybe")]
    pub idle: Option<Duration>,
    #[serde(deserialize_with = "maybe")]
    pub total: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Circuit {
    pub consecutive: Option<u32>,
    pub failure_rate: Option<f64>,
    pub min_calls: Option<u32>,
    #[serde(deserialize_with = "maybe")]
    pub open_for: Option<Duration>,
    #[serde(deserialize_with = "maybe")]
    pub max_open: Option<Duration>,
    pub probes: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    pub after: f64,
    pub budget: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Abilities {
    pub window: Option<u64>,
    pub can: Vec<String>,
    pub lacks: Vec<String>,
    /// The limit of this endpoint, fixed.
    pub slots: Option<u32>,
}

pub fn capability(name: &str) -> Option<Capability> {
    Capability::ALL.into_iter().find(|capability| capability.as_str() == name)
}

/// One send, as the endpoint plays it. A line with `key` or `kind` is for every such send, and none of the script's own.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Line {
    /// Until it fails, or until the response head.
    #[serde(deserialize_with = "span")]
    pub after: Duration,
    /// Only for calls of this client key.
    pub key: Option<String>,
    /// Only for sends of this kind.
    pub kind: Option<String>,
    /// Fails with this class.
    pub fail: Option<String>,
    /// It fails for this, which its model lacks: a capability, or `window`.
    pub lacks: Option<String>,
    /// The window its failure tells.
    pub window: Option<u64>,
    /// Asks for a wait.
    #[serde(deserialize_with = "maybe")]
    pub retry_after: Option<Duration>,
    /// The request never reached the model.
    pub unsent: bool,
    /// Never says anything.
    pub hang: bool,
    /// From the head to the first model event.
    #[serde(deserialize_with = "span")]
    pub first: Duration,
    /// Model events.
    pub events: u32,
    /// Between them.
    #[serde(deserialize_with = "span")]
    pub gap: Duration,
    /// Keep-alives only, this many, `gap` apart, after the events.
    pub pings: u32,
    /// Prompt and answer tokens, told in a whole answer or with the last event of a stream.
    pub usage: Option<[u64; 2]>,
    /// `done`, `cut`, `stall`, or the class of whatever else ends it.
    pub then: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallSpec {
    pub stream: bool,
    pub times: u32,
    /// All of them at the same time, instead of one after the other.
    pub at_once: bool,
    /// Which of the routes.
    pub route: usize,
    #[serde(deserialize_with = "span")]
    pub pause: Duration,
    /// Of calls made together, how long each comes after the one before it.
    #[serde(deserialize_with = "span")]
    pub every: Duration,
    #[serde(deserialize_with = "maybe")]
    pub timeout: Option<Duration>,
    #[serde(deserialize_with = "maybe")]
    pub leave: Option<Duration>,
    pub retries: Option<u32>,
    pub no_hedge: bool,
    pub no_fallback: bool,
    pub client_retry: bool,
    pub tools: bool,
    pub image: bool,
    /// A prompt of so many words, instead of `bytes`.
    pub words: usize,
    #[serde(deserialize_with = "priority")]
    pub priority: Option<Priority>,
    pub key: Option<String>,
    pub max_tokens: Option<u64>,
    pub idempotency_key: Option<String>,
    pub bytes: usize,
    /// A number for the beginning of its prompt.
    pub prefix: Option<u64>,
    /// The model it names.
    pub model: String,
}

impl Default for CallSpec {
    fn default() -> Self {
        Self {
            stream: true,
            times: 1,
            at_once: false,
            route: 0,
            pause: Duration::ZERO,
            every: Duration::ZERO,
            timeout: None,
            leave: None,
            retries: None,
            no_hedge: false,
            no_fallback: false,
            client_retry: false,
            tools: false,
            image: false,
            words: 0,
            priority: None,
            key: None,
            max_tokens: None,
            idempotency_key: None,
            bytes: 100,
            prefix: None,
            model: "m".into(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// `ok`, `retried`, `hedged`, `fallback`, `cached`, `failed`, `left` when the client goes first, `any`.
    pub outcome: String,
    pub class: Option<String>,
    pub endpoint: Option<String>,
    pub sends: Option<u32>,
    pub trail: Option<Vec<String>>,
    pub events: Option<u32>,
    /// When to come back.
    #[serde(default, deserialize_with = "maybe")]
    pub retry_after: Option<Duration>,
    #[serde(default, deserialize_with = "range")]
    pub took: Option<[Duration; 2]>,
    /// Between which two shares of the calls (0 to 1) must be so; all of them without it.
    pub share: Option<[f64; 2]>,
    /// What the breakers of these endpoints are afterwards.
    #[serde(default)]
    pub breakers: BTreeMap<String, String>,
}

fn one() -> usize {
    1
}

fn three() -> u32 {
    3
}

fn four() -> u32 {
    4
}

fn fifth() -> f64 {
    0.2
}

fn one_call() -> Vec<CallSpec> {
    vec![CallSpec::default()]
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let scale = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| Duration::from_secs_f64(number * scale))
}

fn span<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    parse(&text).ok_or_else(|| de::Error::custom(format!("not a duration: {text}")))
}

fn maybe<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    span(input).map(Some)
}

fn priority<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Priority>, D::Error> {
    let text = String::deserialize(input)?;
    text.parse().map(Some).map_err(|()| de::Error::custom(format!("not a priority: {text}")))
}

fn range<'de, D: Deserializer<'de>>(input: D) -> Result<Option<[Duration; 2]>, D::Error> {
    let texts = <[String; 2]>::deserialize(input)?;
    let parsed: Option<Vec<Duration>> = texts.iter().map(|text| parse(text)).collect();
    match parsed.as_deref() {
        Some([from, to]) => Ok(Some([*from, *to])),
        _ => Err(de::Error::custom(format!("not two durations: {texts:?}"))),
    }
}

//! What the policies are set to. Plain values, every default of the retry and time mechanisms in one place.

use std::time::Duration;

use super::HedgeSettings;

/// The five clocks. A clock of zero is refused by the config, so every value here is positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Dialling, name lookup and TLS included.
    pub connect: Duration,
    /// From the request's last byte to the response head.
    pub headers: Duration,
    /// Patience for the first model event of a stream; grows with the prompt.
    pub first_token: Duration,
    /// Between two model events; keep-alives do not count.
    pub idle: Duration,
    /// The whole call, every send and wait included.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            headers: Duration::from_secs(30),
            first_token: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            total: Duration::from_secs(120),
        }
    }
}

/// Exponential back-off with jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub base: Duration,
    /// Upper bound of every wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(250), max: Duration::from_secs(8) }
    }
}

/// When and how often a target is asked again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetrySettings {
    /// Sends per target, the first included; at least 1.
    pub attempts: u32,
    /// Repeats as a share of traffic over the budget's window, 0 to 1.
    pub budget: f64,
    /// The waits between sends.
    pub backoff: Backoff,
    /// Whether an upstream's `Retry-After` replaces our own wait.
    pub respect_retry_after: bool,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { attempts: 3, budget: 0.20, backoff: Backoff::default(), respect_retry_after: true }
    }
}

/// When an endpoint that fails is left alone, and how it comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// Whether it acts at all.
    pub on: bool,
    /// Failures in a row that open it; at least 1.
    pub consecutive: u32,
    /// Share of failures in the window that opens it, 0 to 1.
    pub failure_rate: f64,
    /// Sends in the window below which a share says nothing; at least 1.
    pub min_calls: u32,
    /// How long a send is remembered.
    pub window: Duration,
    /// How long it stays open the first time; doubles with each further one.
    pub open_for: Duration,
    /// How long it stays open at most.
    pub max_open: Duration,
    /// Sends let through at the same time to find out; at least 1.
    pub probes: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            on: true,
            consecutive: 5,
            failure_rate: 0.5,
            min_calls: 10,
            window: Duration::from_secs(60),
            open_for: Duration::from_secs(2),
            max_open: Duration::from_secs(20),
            probes: 1,
        }
    }
}

/// How the limit of sends in flight at an endpoint comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Learnt, up to the maximum.
    Adaptive,
    /// The maximum.
    Fixed,
}

impl Mode {
    /// The name in the config file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Adaptive => "adaptive",
            Mode::Fixed => "fixed",
        }
    }
}

/// Sends in flight at one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// How the limit comes about.
    pub mode: Mode,
    /// The most there may be; at least 1.
    pub max: u32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self { mode: Mode::Adaptive, max: 256 }
    }
}

/// How answers that come in events go to their client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamMode {
    /// As the kind of answer asks for. Nothing is judged in this version, so everything passes live.
    #[default]
    Auto,
    /// Held until complete.
    Hold,
    /// As they come.
    Live,
}

impl StreamMode {
    /// The name in the config file.
    pub const fn as_str(self) -> &'static str {
        match self {
            StreamMode::Auto => "auto",
            StreamMode::Hold => "hold",
            StreamMode::Live => "live",
        }
    }
}

/// What becomes of a route's streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSettings {
    /// How they go to their client.
    pub mode: StreamMode,
    /// Whether one that broke after its first byte was out may be gone on with, where that is provably safe.
    pub rescue: bool,
}

/// Answers that are kept for calls that come again with the same `Idempotency-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencySettings {
    /// How long a finished answer is kept; zero keeps none and joins nothing.
    pub ttl: Duration,
    /// Bytes kept for all keys together.
    pub max_memory: usize,
}

impl Default for IdempotencySettings {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(600), max_memory: 64 << 20 }
    }
}

/// How long a send waits for a free place at its target, unless the config says otherwise.
pub const QUEUE_WAIT: Duration = Duration::from_secs(5);

/// One target of a route: the endpoints that share its load, by number in the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// At least one; more than one is a pool.
    pub endpoints: Vec<usize>,
    /// How a pool shares what comes.
    pub by: Spread,
}

impl Target {
    /// These endpoints, sharing by load.
    pub fn of(endpoints: Vec<usize>) -> Self {
        Self { endpoints, by: Spread::Load }
    }
}

/// How a pool shares what comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// The cheaper of two, by what is under way and how soon it answers.
    #[default]
    Load,
    /// First where the beginning of the prompt was read before.
    Prefix,
}

/// A route's policy.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSettings {
    /// Configured name, unique.
    pub name: String,
    /// Glob over the requested model: `*` matches any run of characters, `?` one.
    pub model: String,
    /// Asked in this order; never empty.
    pub targets: Vec<Target>,
    /// `total` bounds the call; `headers` and `first_token` are the route's patience.
    pub timeouts: Timeouts,
    /// Repeats.
    pub retry: RetrySettings,
    /// Sends upstream per call, all causes together; at least 1.
    pub max_sends: u32,
    /// How long a send waits for a free place at its target; zero never waits.
    pub queue_wait: Duration,
    /// A second send beside one that is merely late.
    pub hedge: HedgeSettings,
    /// Its streams.
    pub streams: StreamSettings,
}

/// Sends upstream per call unless the config says otherwise.
pub const MAX_SENDS: u32 = 4;

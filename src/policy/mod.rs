//! Decisions, pure: time and randomness are arguments, nothing here waits, locks or speaks to a network.

pub mod addresses;
pub mod admission;
pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod capability;
pub mod glob;
pub mod hedge;
pub mod idempotency;
pub mod latency;
pub mod limiter;
pub mod patience;
pub mod plan;
pub mod probe;
pub mod quantile;
pub mod queue;
pub mod rate;
pub mod rescue;
pub mod settings;

pub use addresses::Addresses;
pub use admission::{Admission, Answer, Ask, Grant, Refusal, Shed};
pub use budget::Budget;
pub use capability::Supports;
pub use hedge::{HedgeSettings, Hedger};
pub use idempotency::{Conflict, Idempotency, Ticket, Verdict as KeyVerdict};
pub use limiter::{Limiter, Sample};
pub use plan::{Plan, Step, Terms};
pub use probe::ProbeSettings;
pub use rate::{Rate, RateLimits};
pub use rescue::Rescue;
pub use settings::{
    Backoff, BreakerSettings, Concurrency, IdempotencySettings, MAX_SENDS, Mode, QUEUE_WAIT, RetrySettings,
    RouteSettings, Spread, StreamMode, StreamSettings, Target, Timeouts,
};

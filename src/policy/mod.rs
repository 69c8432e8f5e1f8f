//! Decisions, pure: time and randomness are arguments, nothing here waits, locks or speaks to a network.

pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod glob;
pub mod patience;
pub mod plan;
pub mod settings;

pub use budget::Budget;
pub use plan::{Plan, Step, Terms};
pub use settings::{Backoff, BreakerSettings, MAX_SENDS, RetrySettings, RouteSettings, Target, Timeouts};

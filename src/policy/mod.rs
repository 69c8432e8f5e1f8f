//! Decisions, pure: time and randomness are arguments, nothing here waits, locks or speaks to a network.

pub mod settings;

pub use settings::{Backoff, RetrySettings, RouteSettings, Target, Timeouts};

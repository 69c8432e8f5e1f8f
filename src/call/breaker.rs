//! The words for what a breaker is and why: closed lists, used alike in metrics, status and log.

use std::time::Duration;

macro_rules! words {
    ($(#[doc = $of:literal])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident = $word:literal,)* }) => {
        $(#[doc = $of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $doc])* $variant,)* }

        impl $name {
            /// Every one, for metrics.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The public name.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// What a breaker is.
    BreakerState {
        /// Everything passes.
        Closed = "closed",
        /// Nothing passes until its time is up.
        Open = "open",
        /// One probe passes; its first model event closes it.
        HalfOpen = "half_open",
        /// The endpoint asked to be left alone for a while.
        Cooldown = "cooldown",
        /// The endpoint's credential was refused or is spent.
        Credential = "credential",
        /// An operator holds it open.
        ForcedOpen = "forced_open",
        /// An operator holds it closed.
        ForcedClosed = "forced_closed",
    }
}

words! {
    /// Why a breaker is what it is.
    BreakerReason {
        /// Failures in a row.
        Consecutive = "consecutive",
        /// The share of failures in the window.
        FailureRate = "failure_rate",
        /// The share of late first tokens in the window.
        Slow = "slow",
        /// The probe failed, or is still under way.
        Probe = "probe",
        /// Circuits of several routes or models opened at the same endpoint.
        Routes = "routes",
        /// A second model came: what had opened it was the first's.
        Parted = "parted",
        /// A rate limit with the time to wait.
        RateLimited = "rate_limited",
        /// The credential.
        Credential = "credential",
        /// The time was up.
        Elapsed = "elapsed",
        /// The probe was answered.
        Recovered = "recovered",
        /// Somebody said so.
        Operator = "operator",
    }
}

/// A breaker went from one state to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerChange {
    /// The endpoint, as numbered in the settings.
    pub endpoint: usize,
    /// The route whose own circuit it was, as numbered in the settings (beyond them, if it is a route of another
    /// generation of settings); `None` for the endpoint's.
    pub route: Option<usize>,
    /// What it is now.
    pub to: BreakerState,
    /// Why.
    pub reason: BreakerReason,
    /// For how long, where that is known.
    pub lasts: Option<Duration>,
}

impl BreakerChange {
    /// Every pair of state and reason that can happen, for metrics.
    pub const PAIRS: &'static [(BreakerState, BreakerReason)] = &[
        (BreakerState::Open, BreakerReason::Consecutive),
        (BreakerState::Open, BreakerReason::FailureRate),
        (BreakerState::Open, BreakerReason::Slow),
        (BreakerState::Open, BreakerReason::Probe),
        (BreakerState::Open, BreakerReason::Routes),
        (BreakerState::HalfOpen, BreakerReason::Elapsed),
        (BreakerState::Closed, BreakerReason::Recovered),
        (BreakerState::Closed, BreakerReason::Elapsed),
        (BreakerState::Closed, BreakerReason::Parted),
        (BreakerState::Closed, BreakerReason::Operator),
        (BreakerState::Cooldown, BreakerReason::RateLimited),
        (BreakerState::Credential, BreakerReason::Credential),
        (BreakerState::ForcedOpen, BreakerReason::Operator),
        (BreakerState::ForcedClosed, BreakerReason::Operator),
    ];
}

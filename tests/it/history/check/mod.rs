//! Judges of a history. Each takes all of it and returns what broke its invariant, a line for each fact.
//!
//! | | what holds | where it is judged |
//! |---|---|---|
//! | I1 | no send starts after commit | `sends` |
//! | I2 | a client has a prefix of one answer, and a proper end or an error event, never both, never neither | `bytes` |
//! | I3 | sends per call, sends per target and paid repeats in a minute are bounded | `sends` |
//! | I4 | nothing starts too late to be of use, and nobody is asked again before the wait it asked for | `sends` |
//! | I5 | places, queue places and calls are given back exactly once | `counts` |
//! | I6 | circuits open for upstream's faults only | `breaker` |
//! | I7 | in flight at an endpoint are at most as many as its limit was when the last one left | `counts` |
//! | I8 | a half-open endpoint has one unjudged probe | `breaker` |
//! | I9 | a call and a send are counted once, as what they were | `counts` |
//! | I10 | a client that leaves ends its sends, and no more are made | `calls` |
//! | I11 | nobody is turned away or passed while a lower priority waits in the same pool | `calls` |
//! | I12 | what can not be repaired by a repeat is not repeated | `sends` |
//! | I13 | one idempotency key, one execution at a time | `calls` |
//! | I14 | what is released as validated is valid | not in this version: nothing is validated |
//! | I15 | with all mechanisms off, bytes and statuses pass as they are; request bytes always do | `bytes` |
//! | I16 | every call ends by its deadline and a second, with a definite outcome | `calls` |

mod breaker;
mod bytes;
mod calls;
mod counts;
mod sends;

use std::fmt;

use super::event::Event;
use super::view::View;

/// A violated invariant, and by what.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    pub invariant: &'static str,
    pub call: Option<u32>,
    pub told: String,
}

impl Broken {
    pub fn new(invariant: &'static str, call: impl Into<Option<u32>>, told: impl Into<String>) -> Self {
        Self { invariant, call: call.into(), told: told.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.call {
            Some(call) => write!(f, "{} call {call}: {}", self.invariant, self.told),
            None => write!(f, "{}: {}", self.invariant, self.told),
        }
    }
}

/// All judges.
pub const JUDGES: &[fn(&View) -> Vec<Broken>] = &[
    sends::none_after_commit,
    bytes::one_answer,
    sends::bounded,
    sends::repeats_are_paid_for,
    sends::in_time,
    sends::asked_waits_are_waited,
    counts::all_is_given_back,
    breaker::opens_for_upstream_only,
    counts::within_the_limit,
    breaker::one_probe,
    counts::counted_once,
    calls::leaving_ends_it,
    calls::higher_goes_first,
    sends::useless_repeats,
    calls::one_execution,
    bytes::untouched,
    calls::ends_in_time,
];

/// Everything that is wrong with a history.
pub fn check(events: &[Event]) -> Vec<Broken> {
    let view = View::of(events);
    JUDGES.iter().flat_map(|judge| judge(&view)).collect()
}

//! A history: what happened to some calls, as plain data, one JSON object a line.
//!
//! Owns the vocabulary that whoever records and whoever judges share. Times are microseconds since the history began.
//! Invariant: a history says of itself by which settings it came about, so that it can be judged alone.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub at: u64,
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// By which settings all of it came about; the first line.
    Setup(Setup),
    /// A client made a call.
    Called(Called),
    /// The loop wants a send; it may have to wait for a place.
    Started { call: u32, send: u32, kind: String, target: usize, paid: bool },
    /// A send stands in a queue for a place at one of these endpoints.
    Waits { call: u32, send: u32, endpoints: Vec<usize> },
    /// A send stands there no longer, for whatever reason.
    Waited { call: u32, send: u32 },
    /// A send was refused a place.
    Refused { call: u32, send: u32, reason: String },
    /// A send went out.
    Sent(Sent),
    /// All that the endpoint would say to a send if nobody left, and whether that is an answer with a proper end.
    Said { call: u32, send: u32, text: String, complete: bool },
    /// The first model event of a send, or its whole answer, is in hand.
    First { call: u32, send: u32 },
    /// The endpoint failed a send.
    Failed(Failed),
    /// The connection of a send is closed or free again.
    Dropped { call: u32, send: u32, limit: Option<usize> },
    /// What a send was counted as.
    Verdict { call: u32, send: u32, verdict: String },
    /// The gateway calls a call so.
    Named { call: u32, id: String },
    /// The client has a status; with a good one the call is committed.
    Head { call: u32, status: u16, outcome: String, sends: u32 },
    /// The client has more of the body.
    Bytes { call: u32, text: String },
    /// The body ended: `broken` when the transfer was.
    Closed { call: u32, broken: bool },
    /// The client left.
    Left { call: u32 },
    /// What a call was counted as.
    Ended { call: u32, status: u16, outcome: String, class: Option<String>, sends: u32 },
    /// A circuit went into another state.
    Circuit { endpoint: usize, to: String, reason: String },
    /// Everything that can be counted, when nothing runs any more.
    Rest { in_use: Vec<usize>, waiting: Vec<usize>, live: usize },
}

/// The settings that a judge needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// What to say to get the same history again.
    pub replay: String,
    /// Recorded in one thread: the order of the lines is the order of the things. Else only times tell, and only as
    /// exactly as `slack`.
    pub exact: bool,
    pub slack: u64,
    /// Endpoints of each target.
    pub targets: Vec<Vec<usize>>,
    /// Names of the mechanisms that are on.
    pub mechanisms: Vec<String>,
    pub max_sends: u32,
    pub attempts: u32,
    pub budget: f64,
    pub total: u64,
    pub queue_wait: u64,
    pub breaker: Option<Breaker>,
}

/// What opens a circuit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    pub consecutive: u32,
    pub failure_rate: f64,
    pub min_calls: u32,
    pub probes: u32,
}

/// A call as its client made it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Called {
    pub call: u32,
    /// Bodies of this surface are read.
    pub read: bool,
    pub stream: bool,
    /// 0 is the lowest.
    pub priority: u8,
    /// How long the client waits, by its own word.
    pub patience: Option<u64>,
    pub retries: Option<u32>,
    pub no_hedge: bool,
    pub no_fallback: bool,
    /// The client says that it has asked before.
    pub again: bool,
    pub key: Option<String>,
    /// How long the client takes over each piece of the answer.
    pub slow: u64,
    /// A digest of the request's body.
    pub body: String,
}

/// A send as it left.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    pub call: u32,
    pub send: u32,
    pub endpoint: usize,
    /// The endpoint's limit at that moment.
    pub limit: Option<usize>,
    /// The same digest of the body that the endpoint has.
    pub body: Option<String>,
}

/// A failure as the endpoint made it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Failed {
    pub call: u32,
    pub send: u32,
    pub class: String,
    /// `again`, `once`, `elsewhere` or `never`.
    pub retry: String,
    /// The wait the endpoint asked for.
    pub wait: Option<u64>,
    /// The request never reached the model.
    pub unsent: bool,
}

/// One object a line.
pub fn write(events: &[Event]) -> String {
    let mut lines = String::new();
    for event in events {
        writeln!(lines, "{}", serde_json::to_string(event).expect("plain data")).expect("memory");
    }
    lines
}

/// Reads what [`write`] wrote; the last line of a writer that was killed may be torn.
pub fn read(lines: &str) -> Vec<Event> {
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

//! What one running stand-in knows: its scenario, its counters, and what its network is like.
//!
//! Owns the only lock of the stand-in. Owns no socket. Invariant: call numbers are given out once each, in the
//! order in which heads of requests arrive, starting at 1.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::base64;
use super::fault::{Fault, Phase};
use super::http::Request;
use super::listing::sha256;
use super::play::Played;
use super::record::Record;
use super::scenario::{Facts, Scenario};
use super::script::Script;
use super::words::Network;

/// How many requests are remembered, and how much of each body.
const REMEMBERED: usize = 100;
const BODY_REMEMBERED: usize = 1024 * 1024;

/// What came in and what became of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Stats {
    /// Calls numbered so far: everything but listings, health checks and `/_mock`.
    pub calls: u64,
    /// Requests by path, listings and health checks among them.
    pub by_path: BTreeMap<String, u64>,
    /// Requests being answered right now.
    pub active: u64,
    /// Requests whose client left before the answer's end.
    pub cancelled: u64,
    /// Requests answered to the end.
    pub finished: u64,
    /// Requests the stand-in broke off itself.
    pub broken: u64,
    /// Connections accepted.
    pub connections: u64,
    /// The latest requests, oldest first.
    pub last_requests: VecDeque<Seen>,
}

/// A request as it arrived.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// Its call number; none for a listing or a health check.
    pub number: Option<u64>,
    /// The method.
    pub method: String,
    /// Path and query, as they came.
    pub path: String,
    /// Header names and values, in order and as they were spelt.
    pub headers: Vec<(String, String)>,
    /// The body as text, as far as it is remembered.
    pub body: String,
    /// The body in base64, as far as it is remembered.
    pub body_base64: String,
    /// The whole body's length.
    pub body_length: usize,
    /// The whole body's SHA-256 in hex.
    pub body_sha256: String,
}

/// Whether the server is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Power {
    /// Its network is like this, until a time if one is given, since this turn.
    On(Network, Option<Instant>, u64),
    /// It is gone for good.
    Stopped,
}

impl Power {
    /// Whether nothing comes or goes on open connections.
    pub fn frozen(self) -> bool {
        matches!(self, Power::On(Network::Blackhole | Network::HalfOpen, ..))
    }
}

struct Inner {
    scenario: Arc<Scenario>,
    since: Instant,
    used: Vec<u64>,
    slots: Arc<Semaphore>,
    stats: Stats,
}

/// The state shared by all connections.
pub struct State {
    inner: Mutex<Inner>,
    /// Told of every change of the counters.
    pub changed: watch::Sender<()>,
    /// Whether the server is there.
    pub power: watch::Sender<Power>,
    /// What the network is like in fact, and since which turn; none once it is gone for good.
    pub in_force: watch::Sender<(u64, Option<Network>)>,
    /// Counted up when every open connection has to be reset.
    pub kills: watch::Sender<u64>,
    /// Where a history is written, if it is.
    pub record: Option<Record>,
}

fn slots(scenario: &Scenario) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(scenario.slots.unwrap_or(Semaphore::MAX_PERMITS).min(Semaphore::MAX_PERMITS)))
}

impl State {
    /// The state of a stand-in that has not been called yet.
    pub fn new(scenario: Scenario, record: Option<Record>) -> State {
        let slots = slots(&scenario);
        let scenario = Arc::new(scenario);
        let (since, stats) = (Instant::now(), Stats::default());
        State {
            inner: Mutex::new(Inner { scenario, since, used: Vec::new(), slots, stats }),
            changed: watch::Sender::new(()),
            power: watch::Sender::new(Power::On(Network::Up, None, 0)),
            in_force: watch::Sender::new((0, Some(Network::Up))),
            kills: watch::Sender::new(0),
            record,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the counters.
    pub fn stats(&self) -> Stats {
        self.lock().stats.clone()
    }

    /// Whether the counters satisfy `wanted`.
    pub fn satisfies(&self, wanted: impl Fn(&Stats) -> bool) -> bool {
        wanted(&self.lock().stats)
    }

    /// The scenario in force and its slots.
    pub fn scenario(&self) -> (Arc<Scenario>, Arc<Semaphore>) {
        let inner = self.lock();
        (inner.scenario.clone(), inner.slots.clone())
    }

    /// Replaces the scenario; its clock and its rules' counts begin anew, the call numbers go on.
    pub fn set_scenario(&self, scenario: Scenario) {
        let mut inner = self.lock();
        inner.slots = slots(&scenario);
        inner.scenario = Arc::new(scenario);
        inner.since = Instant::now();
        inner.used.clear();
    }

    /// Zeroes the counters and call numbers; what is being answered stays counted as active.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.stats = Stats { active: inner.stats.active, ..Stats::default() };
        inner.since = Instant::now();
        inner.used.clear();
        drop(inner);
        self.changed.send_replace(());
    }

    /// The fault of a new connection, and the number its first call then has.
    pub fn accepted(&self) -> Option<(u64, Fault)> {
        let early = self.early();
        self.changed.send_replace(());
        early
    }

    fn early(&self) -> Option<(u64, Fault)> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        inner.stats.connections += 1;
        let number = inner.stats.calls + 1;
        let elapsed = inner.since.elapsed();
        let facts = Facts { number: Some(number), path: "", model: None, stream: None, headers: &[], elapsed };
        let fault = inner.scenario.pick(Phase::Accept, &facts, &mut inner.used)?.clone();
        inner.stats.calls = number;
        Some((number, fault))
    }

    /// The next call number, for a request that is one.
    pub fn number(&self, request: &Request) -> Option<u64> {
        let path = request.path();
        let listing = matches!(path, "/health" | "/props" | "/slots" | "/apply-template" | "/tokenize" | "/detokenize")
            || (request.method == "GET" && path.starts_with("/v1/models"));
        if listing {
            return None;
        }
        let mut inner = self.lock();
        inner.stats.calls += 1;
        let number = inner.stats.calls;
        drop(inner);
        self.changed.send_replace(());
        Some(number)
    }

    /// The fault `request` meets at `phase`.
    pub fn pick(&self, phase: Phase, number: Option<u64>, request: &Request) -> Option<Fault> {
        let body = if phase == Phase::Request { request.json() } else { None };
        let model = body.as_ref().and_then(|b| b["model"].as_str());
        let stream = body.as_ref().map(|b| b["stream"].as_bool().unwrap_or(false));
        let mut inner = self.lock();
        let inner = &mut *inner;
        let (path, headers, elapsed) = (request.path(), request.headers.as_slice(), inner.since.elapsed());
        let facts = Facts { number, path, model, stream, headers, elapsed };
        inner.scenario.pick(phase, &facts, &mut inner.used).cloned()
    }

    /// Counts a request whose head was read. It ends when the guard is told how, or dropped.
    pub fn begin(self: &Arc<Self>, path: &str) -> Active {
        let mut inner = self.lock();
        *inner.stats.by_path.entry(path.to_string()).or_default() += 1;
        inner.stats.active += 1;
        drop(inner);
        self.changed.send_replace(());
        Active { state: self.clone(), played: Played::Broken, recorded: None }
    }

    /// Remembers a request.
    pub fn saw(&self, number: Option<u64>, request: &Request) {
        let kept = &request.body[..request.body.len().min(BODY_REMEMBERED)];
        let seen = Seen {
            number,
            method: request.method.clone(),
            path: request.target.clone(),
            headers: request.headers.clone(),
            body: String::from_utf8_lossy(kept).into_owned(),
            body_base64: base64::encode(kept),
            body_length: request.body.len(),
            body_sha256: sha256(&request.body),
        };
        let mut inner = self.lock();
        if inner.stats.last_requests.len() == REMEMBERED {
            inner.stats.last_requests.pop_front();
        }
        inner.stats.last_requests.push_back(seen);
        drop(inner);
        self.changed.send_replace(());
    }

    /// Counts a connection that is not served.
    pub fn turned_away(&self) {
        self.lock().stats.connections += 1;
        self.changed.send_replace(());
    }

    /// Wants the network to be like this, for so long or until it is told otherwise. Returns the turn that makes it so.
    pub fn want(&self, network: Network, time: Option<Duration>) -> u64 {
        let until = time.map(|time| Instant::now() + time);
        let mut next = u64::MAX;
        self.power.send_modify(|power| {
            if let Power::On(.., turn) = power {
                next = *turn + 1;
                *power = Power::On(network, until, next);
            }
        });
        next
    }

    /// Works on `work` while something comes and goes on open connections, and leaves it alone while nothing does.
    pub async fn while_thawed<F: Future>(&self, work: F) -> F::Output {
        let mut work = std::pin::pin!(work);
        let mut power = self.power.subscribe();
        loop {
            // The sender is ours, so neither wait can fail.
            drop(power.wait_for(|power| !power.frozen()).await);
            tokio::select! {
                biased;
                () = async { drop(power.wait_for(|power| power.frozen()).await) } => {}
                done = &mut work => return done,
            }
        }
    }
}

/// A request being answered.
pub struct Active {
    state: Arc<State>,
    played: Played,
    recorded: Option<u64>,
}

impl Active {
    /// The request was read.
    pub fn asked(&mut self, request: &Request) {
        self.recorded = self.state.record.as_ref().map(|record| record.asked(request));
    }

    /// It is to be answered so.
    pub fn answers(&self, script: &Script) {
        if let (Some(call), Some(record)) = (self.recorded, &self.state.record) {
            record.answers(call, script);
        }
    }

    /// The request has ended.
    pub fn end(mut self, played: Played) {
        self.played = played;
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let (Some(call), Some(record)) = (self.recorded, &self.state.record) {
            record.ended(call, self.played);
        }
        let mut inner = self.state.lock();
        inner.stats.active = inner.stats.active.saturating_sub(1);
        let stats = &mut inner.stats;
        *match self.played {
            Played::Whole => &mut stats.finished,
            Played::Left => &mut stats.cancelled,
            Played::Broken => &mut stats.broken,
        } += 1;
        drop(inner);
        self.state.changed.send_replace(());
    }
}

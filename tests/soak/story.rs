//! One history out of many: what clients saw, what stand-ins wrote, what the gateway logged.
//!
//! Owns what is not known exactly. A stand-in that was stopped reads when it goes on what came while it stood, so what
//! it saw then may have happened at any time since. Of a call whose client left before a head came nobody knows the
//! gateway's id: such lines of the log are only counted.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;

use crate::chaos::Stopped;
use crate::event::{Event, Failed, Sent, Setup, What};
use crate::servers::{MOCKS, Servers};

/// What times may be off by: between two processes on a busy machine.
const SLACK: u64 = 700_000;
/// Stopped processes are slow to get going.
const GOING: u64 = 700_000;
const BUDGET: f64 = 0.2;

pub struct Told<'a> {
    pub notes: Vec<Event>,
    pub unrest: Vec<Stopped>,
    pub servers: &'a Servers,
    pub began: u64,
}

/// The history, and what is wrong with the log.
pub fn history(seed: u64, told: Told<'_>) -> (Vec<Event>, Vec<String>) {
    let Told { notes, unrest, servers, began } = told;
    let mut events = notes;
    let called: HashMap<u32, u64> = events
        .iter()
        .filter_map(|event| match &event.what {
            What::Called(called) => Some((called.call, event.at)),
            _ => None,
        })
        .collect();
    let mut seen = Vec::new();
    for (number, mock) in servers.mocks.iter().enumerate() {
        for (path, killed) in &mock.lives {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let stops = unrest.iter().filter(|stop| stop.mock == number);
            let stops: Vec<(u64, u64)> = stops.map(|stop| (stop.from, stop.to + GOING)).collect();
            seen.extend(sends(&text, number, *killed, &stops, &called));
        }
    }
    seen.sort_by_key(|send| send.from);
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for send in seen {
        let number = counts.entry(send.call).or_default();
        events.extend(send.events(*number));
        *number += 1;
    }
    let lost = log(&mut events, servers.calls());
    events.retain(|event| !matches!(event.what, What::Named { .. }));
    let setup = Setup {
        replay: format!("SEED={seed} tests/run soak"),
        exact: false,
        slack: SLACK,
        targets: vec![vec![0, 1], vec![2]],
        mechanisms: vec!["retry".into(), "breaker".into()],
        max_sends: 4,
        attempts: 3,
        budget: BUDGET,
        total: 10_000_000,
        queue_wait: 2_000_000,
        breaker: None,
    };
    events.push(Event { at: began, what: What::Setup(setup) });
    events.sort_by_key(|event| (event.at, !matches!(event.what, What::Setup(_))));
    for event in &mut events {
        event.at = event.at.saturating_sub(began);
    }
    (events, lost)
}

/// A request as a stand-in had it.
struct Seen {
    call: u32,
    mock: usize,
    from: u64,
    to: u64,
    how: String,
    body: Option<String>,
    status: u16,
    said: Option<(String, bool)>,
}

impl Seen {
    fn events(self, send: u32) -> Vec<Event> {
        let Self { call, mock, from, to, how, body, status, said } = self;
        let sent = Sent { call, send, endpoint: mock, limit: None, body };
        let mut events = vec![Event { at: from, what: What::Sent(sent) }];
        if let Some((text, complete)) = said {
            events.push(Event { at: from, what: What::Said { call, send, text, complete } });
        }
        let failed = match status {
            400 => Some(("upstream_400", "never", None)),
            401 => Some(("upstream_auth", "elsewhere", None)),
            429 => Some(("rate_limited", "again", Some(1_000_000))),
            _ => None,
        };
        if let (Some((class, retry, wait)), "finished") = (failed, how.as_str()) {
            let (class, retry) = (class.to_owned(), retry.to_owned());
            events.push(Event { at: to, what: What::Failed(Failed { call, send, class, retry, wait, unsent: false }) });
        }
        events.push(Event { at: to, what: What::Dropped { call, send, limit: None } });
        events
    }
}

/// The requests in what one life of a stand-in wrote.
fn sends(text: &str, mock: usize, killed: Option<u64>, stops: &[(u64, u64)], called: &HashMap<u32, u64>) -> Vec<Seen> {
    let mut seen: BTreeMap<u64, Seen> = BTreeMap::new();
    let since = |at: u64| stops.iter().find(|(from, to)| (*from..*to).contains(&at)).map_or(at, |(from, _)| *from);
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let (at, number) = (line["at"].as_u64().unwrap_or(0), line["call"].as_u64().unwrap_or(0));
        match line["what"].as_str() {
            Some("asked") => {
                let name = line["request_id"].as_str().unwrap_or_default();
                let Some(call) = name.strip_prefix("soak-").and_then(|call| call.parse().ok()) else { continue };
                // Not before its client asked.
                let from = since(at).max(called.get(&call).copied().unwrap_or(at).min(at));
                let body = line["body_sha256"].as_str().map(str::to_owned);
                let to = killed.unwrap_or(u64::MAX);
                let how = "killed".to_owned();
                seen.insert(number, Seen { call, mock, from, to, how, body, status: 0, said: None });
            }
            Some("answers") => {
                let Some(seen) = seen.get_mut(&number) else { continue };
                let body = line["body"].as_str().unwrap_or_default().to_owned();
                seen.status = line["status"].as_u64().unwrap_or(0) as u16;
                let good = seen.status == 200 && line["ends"] == true && !body.contains("\"error\"");
                let complete = good && (body.contains("data: [DONE]") || body.starts_with('{'));
                seen.said = Some((body, complete));
            }
            Some("ended") => {
                let Some(seen) = seen.get_mut(&number) else { continue };
                seen.to = since(at).max(seen.from);
                seen.how = line["how"].as_str().unwrap_or_default().to_owned();
            }
            _ => {}
        }
    }
    seen.into_values().collect()
}

/// Adds the outcomes that the gateway logged; says which are missing or too many.
fn log(events: &mut Vec<Event>, lines: Vec<(u64, Value)>) -> Vec<String> {
    let mut names: HashMap<String, u32> = HashMap::new();
    let (mut nameless, mut left) = (Vec::new(), HashMap::new());
    for event in &*events {
        match &event.what {
            What::Called(called) => nameless.push(called.call),
            What::Named { call, id } => {
                names.insert(id.clone(), *call);
            }
            What::Left { call } => {
                left.insert(*call, event.at);
            }
            _ => {}
        }
    }
    nameless.retain(|call| !names.values().any(|named| named == call));
    // Lines come in the order in which clients leave.
    nameless.sort_by_key(|call| std::cmp::Reverse(left.get(call).copied()));
    let mut wrong = Vec::new();
    for (at, line) in lines {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let call = match names.get(&text("id")) {
            Some(call) => *call,
            None => match nameless.pop() {
                Some(call) => call,
                None => {
                    wrong.push(format!("a line for nobody's call: {line}"));
                    continue;
                }
            },
        };
        let ended = What::Ended {
            call,
            status: line["status"].as_u64().unwrap_or(0) as u16,
            outcome: text("outcome"),
            class: Some(text("class")).filter(|class| !class.is_empty()),
            sends: line["attempts"].as_u64().unwrap_or(0) as u32,
        };
        events.push(Event { at, what: ended });
    }
    wrong.extend(nameless.iter().map(|call| format!("no line for call {call}, whose client left early")));
    wrong
}

/// The sum of the series of a metric with a label.
fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let series = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Paid repeats over the whole run: the share of first sends, and the floor for every minute of both targets. One
/// repeat of a call may be free, when its send never reached anybody, so those do not count.
pub fn amplification(metrics: &str, length: Duration) -> Vec<String> {
    let kind = |kind: &str| sum(metrics, "outrigger_attempts_total{", &format!("kind=\"{kind}\""));
    let unsent: f64 = ["connect_refused", "connect_timeout", "reset_before_response"]
        .iter()
        .map(|class| sum(metrics, "outrigger_attempts_total{", &format!("class=\"{class}\"")))
        .sum();
    let (firsts, repeats) = (kind("first") + kind("fallback"), kind("retry") + kind("hedge"));
    let minutes = 1.0 + (length.as_secs_f64() / 55.0).ceil();
    let allowed = BUDGET * firsts + 2.0 * 3.0 * minutes + unsent;
    println!("soak: {firsts} first sends, {repeats} repeats, {allowed:.0} allowed ({unsent} may have been free)");
    if repeats > allowed { vec![format!("{repeats} repeats, {allowed} allowed")] } else { Vec::new() }
}

/// A line of figures.
pub fn summary(history: &[Event], metrics: &str) -> String {
    let mut outcomes: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut calls, mut sends, mut left) = (0, 0, 0);
    for event in history {
        match &event.what {
            What::Called(_) => calls += 1,
            What::Sent(_) => sends += 1,
            What::Left { .. } => left += 1,
            What::Ended { outcome, .. } => *outcomes.entry(outcome).or_default() += 1,
            _ => {}
        }
    }
    let opened = sum(metrics, "outrigger_breaker_transitions_total{", "to=\"open\"");
    format!(
        "{calls} calls, {left} left by their clients, {sends} sends seen by {MOCKS} stand-ins, {opened} breakers opened, \
         outcomes {outcomes:?}"
    )
}

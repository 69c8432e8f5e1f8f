//! How calls come and go: I10, I11, I13, I16.

use std::collections::BTreeMap;

use super::super::view::{CallView, SendView, View};
use super::Broken;

const SECOND: u64 = 1_000_000;

/// I10.
pub fn leaving_ends_it(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for call in view.calls.values() {
        // An execution with a key goes on for whoever else waits for it.
        let Some(left) = call.left.filter(|_| call.key().is_none()) else { continue };
        for send in call.sends.values() {
            let mut wrong = |told: String| broken.push(Broken::new("I10", call.call, told));
            let starts = [send.started, send.went()].into_iter().flatten();
            if starts.filter(|at| view.after(left, *at)).count() > 0 {
                wrong(format!("send {} starts after its client left", send.number));
            }
            let gone = send.dropped.last().filter(|_| send.sent.is_some());
            if let Some((late, _)) = gone.filter(|(gone, _)| gone.us > left.us + SECOND + view.setup.slack) {
                wrong(format!("send {} is cancelled {} us after its client left", send.number, late.us - left.us));
            }
        }
    }
    broken
}

/// A send that stands in a queue, from when to when.
struct Wait<'a> {
    call: &'a CallView,
    send: &'a SendView,
    from: u64,
    to: u64,
    endpoints: &'a [usize],
}

fn waits(view: &View) -> Vec<Wait<'_>> {
    let mut waits = Vec::new();
    for call in view.calls.values() {
        for send in call.sends.values() {
            if let (Some((from, endpoints)), Some(to)) = (&send.waits, send.waited) {
                waits.push(Wait { call, send, from: from.us, to: to.us, endpoints });
            }
        }
    }
    waits
}

/// I11, in two halves: none is turned away for want of room while a lower priority keeps its place in the queue, and
/// no place goes to a lower priority while a higher one waits that could have had it. Who waits since, or until, the
/// very moment does not count: between a turn and its being taken lies nothing that the clock would show.
pub fn higher_goes_first(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    let waits = waits(view);
    for call in view.calls.values() {
        let target_of = |send: &SendView| send.target.map(|target| view.setup.targets[target].clone());
        for send in call.sends.values() {
            if let Some((at, reason)) = &send.refused
                && matches!(reason.as_str(), "full" | "evicted")
                // A twin does not wait, so nobody stands in its way.
                && send.kind != "hedge"
            {
                let lower = waits.iter().find(|wait| {
                    wait.call.priority() < call.priority()
                        && target_of(wait.send) == target_of(send)
                        && wait.from < at.us
                        && wait.to > at.us
                });
                if let Some(lower) = lower {
                    let told =
                        format!("send {} is turned away ({reason}) while call {} waits", send.number, lower.call.call);
                    broken.push(Broken::new("I11", call.call, told));
                }
            }
            let (Some(at), Some(endpoint)) = (send.went(), send.endpoint()) else { continue };
            let passed = waits.iter().find(|wait| {
                wait.call.priority() > call.priority()
                    && wait.endpoints.contains(&endpoint)
                    && wait.from < at.us
                    && wait.to > at.us
            });
            if let Some(passed) = passed {
                let told = format!(
                    "send {} gets a place at endpoint {endpoint} before call {}",
                    send.number, passed.call.call
                );
                broken.push(Broken::new("I11", call.call, told));
            }
        }
    }
    broken
}

/// I13.
pub fn one_execution(view: &View) -> Vec<Broken> {
    let mut by_key: BTreeMap<&str, Vec<(u64, u64, u32)>> = BTreeMap::new();
    for call in view.calls.values() {
        let Some(key) = call.called.as_ref().and_then(|(_, called)| called.key.as_deref()) else { continue };
        let from = call.went().filter_map(SendView::went).map(|at| at.us).min();
        let to = call.went().flat_map(|send| &send.dropped).map(|(at, _)| at.us).max();
        if let Some(from) = from {
            by_key.entry(key).or_default().push((from, to.unwrap_or(u64::MAX), call.call));
        }
    }
    let mut broken = Vec::new();
    for (key, mut runs) in by_key {
        runs.sort_unstable();
        for pair in runs.windows(2) {
            if pair[1].0 + view.setup.slack < pair[0].1 {
                let told = format!("runs for the key {key} while call {} does", pair[0].2);
                broken.push(Broken::new("I13", pair[1].2, told));
            }
        }
    }
    broken
}

/// I16.
pub fn ends_in_time(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for call in view.calls.values() {
        let Some((_, called)) = &call.called else { continue };
        let mut wrong = |told: String| broken.push(Broken::new("I16", call.call, told));
        let over = call.left.or(call.closed.map(|(at, _)| at));
        let Some(over) = over else {
            wrong("never over for its client".to_owned());
            continue;
        };
        let Some(deadline) = call.deadline(&view.setup).filter(|_| called.read) else { continue };
        let ends = call.ended.iter().map(|(at, ..)| at).chain([&over]);
        // What the client takes over the piece before the end, and over the end, is its own time.
        let latest = deadline + SECOND + 2 * called.slow + view.setup.slack;
        for late in ends.filter(|at| at.us > latest) {
            wrong(format!("over {} us after its deadline", late.us - deadline));
        }
        let broken_off = call.closed.is_some_and(|(_, broken)| broken);
        if call.left.is_none() && (call.head.is_none() || broken_off) {
            wrong("its client has neither an answer nor an error".to_owned());
        }
    }
    broken
}

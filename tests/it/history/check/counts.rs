//! What is counted and given back: I5, I7, I9.

use super::super::view::View;
use super::Broken;

/// I5.
pub fn all_is_given_back(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for call in view.calls.values() {
        for send in call.sends.values() {
            let mut wrong = |told: String| broken.push(Broken::new("I5", call.call, told));
            let number = send.number;
            if send.sent_times > 1 {
                wrong(format!("send {number} went out {} times", send.sent_times));
            }
            if send.sent.is_some() && send.dropped.len() != 1 {
                wrong(format!("send {number} gave its connection back {} times", send.dropped.len()));
            }
            if send.waits.is_some() && send.waited.is_none() {
                wrong(format!("send {number} never left the queue"));
            }
        }
    }
    for (_, in_use, waiting, live) in &view.rest {
        let left: usize = in_use.iter().chain(waiting).sum();
        if left + live > 0 {
            let told = format!("at rest: {in_use:?} places in use, {waiting:?} waiting, {live} calls");
            broken.push(Broken::new("I5", None, told));
        }
    }
    if view.setup.exact && view.rest.is_empty() {
        broken.push(Broken::new("I5", None, "nobody looked at the counts at rest"));
    }
    broken
}

/// I7.
pub fn within_the_limit(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    let sends = || view.calls.values().flat_map(|call| call.went().map(move |send| (call.call, send)));
    for (call, send) in sends() {
        let Some((at, sent)) = &send.sent else { continue };
        // Between the place and the send, the same moment may have brought another limit.
        let seen = sends().filter(|(_, other)| other.endpoint() == Some(sent.endpoint)).flat_map(|(_, other)| {
            let sent = other.sent.iter().map(|(at, sent)| (*at, sent.limit));
            sent.chain(other.dropped.iter().copied())
        });
        let Some(limit) = seen.filter(|(other, _)| other.us == at.us).filter_map(|(_, limit)| limit).max() else {
            continue;
        };
        let there = sends().filter(|(_, other)| {
            let here = other.endpoint() == Some(sent.endpoint);
            let before = other.went().is_some_and(|other| other.line <= at.line);
            here && before && other.dropped.iter().all(|(gone, _)| gone.line > at.line)
        });
        let there = there.count();
        if there > limit {
            let told = format!("send {} is number {there} at endpoint {}, limit {limit}", send.number, sent.endpoint);
            broken.push(Broken::new("I7", call, told));
        }
    }
    broken
}

/// I9.
pub fn counted_once(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for call in view.calls.values() {
        let mut wrong = |told: String| broken.push(Broken::new("I9", call.call, told));
        if call.called.is_some() && call.ended.len() != 1 {
            wrong(format!("{} outcomes", call.ended.len()));
        }
        let went = call.went().count() as u32;
        if view.setup.exact {
            for send in call.went() {
                if send.verdicts.len() != 1 {
                    wrong(format!("send {} has {} verdicts", send.number, send.verdicts.len()));
                }
                if let (Some((_, failed)), Some((_, verdict))) = (&send.failed, send.verdicts.first())
                    && failed.class != *verdict
                {
                    wrong(format!("send {} failed with {} and is counted as {verdict}", send.number, failed.class));
                }
            }
        }
        let Some((_, status, outcome, class, sends)) = call.ended.first() else { continue };
        let good = matches!(outcome.as_str(), "ok" | "retried" | "hedged" | "fallback" | "cached");
        if good == class.is_some() {
            wrong(format!("counted as {outcome} with the class {class:?}"));
        }
        let finished = call.closed.is_some_and(|(_, broken)| !broken) && call.left.is_none();
        if finished && outcome == "cancelled" {
            wrong("counted as cancelled, and its client stayed".to_owned());
        }
        // Between processes, what did not reach its endpoint is seen by the gateway alone.
        // What calls with one key share is told to each of them, failures with their sends.
        let shared = call.key().is_some() && !good;
        let differs = |told: u32| {
            if shared {
                false
            } else if view.setup.exact {
                told != went
            } else {
                finished && told < went
            }
        };
        if differs(*sends) {
            wrong(format!("counted with {sends} sends, {went} went out"));
        }
        let Some((_, told_status, told_outcome, told_sends)) = call.head.as_ref().filter(|_| finished) else {
            continue;
        };
        if told_status != status {
            wrong(format!("counted with status {status}, its client has {told_status}"));
        }
        if differs(*told_sends) {
            wrong(format!("its client was told of {told_sends} sends, {went} went out"));
        }
        let failed = *told_status >= 400 || call.body.contains("data: {\"error\"");
        if failed == good {
            wrong(format!("counted as {outcome}, its client has status {told_status}, an error event: {failed}"));
        }
        if good && told_outcome != outcome {
            wrong(format!("counted as {outcome}, its client was told {told_outcome}"));
        }
    }
    broken
}

//! What clients and endpoints have of each other's bytes: I2, I15.

use super::super::view::{CallView, View};
use super::Broken;

/// What follows a prefix of an answer when the answer broke: one event, an error.
fn is_error_event(rest: &str) -> bool {
    let data = rest.lines().find_map(|line| line.strip_prefix("data:"));
    let one = rest.matches("data:").count() == 1 && rest.ends_with("\n\n");
    let error = data.and_then(|data| serde_json::from_str::<serde_json::Value>(data.trim()).ok());
    one && error.is_some_and(|error| error.get("error").is_some_and(|error| !error.is_null()))
}

/// How a body stands to an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fit {
    /// All of it.
    Whole,
    /// Some of it from its start.
    Part,
    /// Some of it, whole events, and an error event after them.
    Broken,
    None,
}

fn fit(body: &str, answer: &str) -> Fit {
    if body == answer {
        return Fit::Whole;
    }
    let same = body.bytes().zip(answer.bytes()).take_while(|(a, b)| a == b).count();
    if same == body.len() {
        return Fit::Part;
    }
    // The prefix that was given ends at the end of an event, at the latest where the two part.
    let mut end = same;
    while let Some(rest) = body.get(end..) {
        let whole_events = end == 0 || body[..end].ends_with("\n\n");
        if whole_events && is_error_event(rest) {
            return Fit::Broken;
        }
        match body[..end].trim_end_matches('\n').rfind("\n\n") {
            Some(before) => end = before + 2,
            None if end > 0 => end = 0,
            None => break,
        }
    }
    Fit::None
}

fn judge(view: &View, call: &CallView) -> Option<String> {
    let stream = call.called.as_ref().is_some_and(|(_, called)| called.stream);
    let said: Vec<_> = view.answers(call).filter_map(|send| send.said.as_ref()).collect();
    let fits: Vec<(Fit, bool)> = said.iter().map(|(text, complete)| (fit(&call.body, text), *complete)).collect();
    let has = |fit: Fit, complete: bool| fits.contains(&(fit, complete));
    let finished = call.closed.is_some_and(|(_, broken)| !broken) && call.left.is_none();
    let shown: String = call.body.chars().rev().take(120).collect::<Vec<_>>().into_iter().rev().collect();
    let of_one = has(Fit::Whole, true) || has(Fit::Whole, false) || has(Fit::Part, true) || has(Fit::Part, false);
    if !finished {
        let broken_off = has(Fit::Broken, true) || has(Fit::Broken, false);
        let fits = call.body.is_empty() || of_one || (stream && broken_off);
        return (!fits).then(|| format!("what the client had when it left is of no answer: ...{shown:?}"));
    }
    if has(Fit::Whole, true) {
        return None;
    }
    let told = if !stream {
        "a whole answer that nobody gave".to_owned()
    } else if has(Fit::Broken, true) || has(Fit::Broken, false) {
        // An answer that was all there is not to be spoilt by an error after it.
        return None;
    } else if of_one {
        "a stream with neither a proper end nor an error".to_owned()
    } else {
        "a stream that is of no answer".to_owned()
    };
    Some(format!("{told}: ...{shown:?}"))
}

/// I2.
pub fn one_answer(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for call in view.calls.values() {
        if call.called.as_ref().is_none_or(|(_, called)| !called.read) {
            continue;
        }
        let Some((_, status, ..)) = &call.head else { continue };
        if *status < 400 {
            broken.extend(judge(view, call).map(|told| Broken::new("I2", call.call, told)));
            let marks = call.body.matches("data: [DONE]").count();
            let error = call.body.contains("data: {\"error\"") || call.body.contains("\"error\":{");
            if marks > 1 || (marks == 1 && error) {
                let told = format!("{marks} terminal markers, and an error: {error}");
                broken.push(Broken::new("I2", call.call, told));
            }
        } else if call.went().filter_map(|send| send.said.as_ref()).any(|(text, complete)| {
            // A refusal is not the place for an answer.
            *complete && !text.is_empty() && call.body.contains(text.as_str())
        }) {
            broken.push(Broken::new("I2", call.call, "a good answer under a bad status"));
        }
    }
    broken
}

/// What is wrong with a call that nobody reads: its body can be sent once, and what its client has is what was said.
fn carried(call: &CallView) -> Option<String> {
    if call.went().count() > 1 {
        return Some("more than one send of a body that can be sent once".to_owned());
    }
    let said = call.went().find_map(|send| send.said.as_ref());
    let (text, complete) = said?;
    let whole = call.closed.is_some_and(|(_, broken)| !broken) && call.left.is_none();
    let right = if whole { *complete && call.body == *text } else { text.starts_with(&call.body) };
    (!right).then(|| format!("{:?} where {text:?} was said", call.body))
}

/// I15.
pub fn untouched(view: &View) -> Vec<Broken> {
    let mut broken = Vec::new();
    for call in view.calls.values() {
        let Some((_, called)) = &call.called else { continue };
        for send in call.went() {
            let body = send.sent.as_ref().and_then(|(_, sent)| sent.body.as_ref());
            if body.is_some_and(|body| *body != called.body) {
                let told = format!("send {} has another body than the client gave", send.number);
                broken.push(Broken::new("I15", call.call, told));
            }
        }
        if !called.read {
            broken.extend(carried(call).map(|told| Broken::new("I15", call.call, told)));
        }
        if !view.setup.mechanisms.is_empty() || !called.read {
            continue;
        }
        if call.went().count() > 1 {
            broken.push(Broken::new("I15", call.call, "more than one send with all mechanisms off"));
        }
        let finished = call.closed.is_some_and(|(_, broken)| !broken) && call.left.is_none();
        let answers = call.went().filter_map(|send| send.said.as_ref());
        let good: Vec<_> = answers.filter(|(_, complete)| *complete).collect();
        let in_time = call.went().all(|send| send.failed.is_none());
        if let ([(text, _)], true, true, Some((_, status, ..))) = (&good[..], finished, in_time, &call.head)
            && *status < 400
            && call.body != *text
            && fit(&call.body, text) != Fit::Broken
        {
            broken.push(Broken::new("I15", call.call, "the answer's bytes were changed"));
        }
    }
    broken
}

//! One event of a stream before it is framed, and what the faults that touch events do to a list of them.
//!
//! Owns order, damage and omission. Owns neither bytes nor time. Invariant: a fault that is not asked for changes
//! nothing, so an unharmed stream is exactly what its surface rendered.

use serde_json::{Value, json};

use super::fault::{Fault, InbandError};
use super::units::Place;
use super::words::Malformed;

/// What an event is to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Before the first token: roles, created, started.
    Start,
    /// One token of text, reasoning or arguments.
    Token,
    /// It carries the finish reason.
    Finish,
    /// It closes parts or carries usage.
    Other,
    /// The end mark.
    End,
}

/// What an event says.
#[derive(Clone, Debug)]
pub enum Says {
    /// JSON data.
    Json(Value),
    /// Data that is not JSON, or not quite.
    Data(Vec<u8>),
    /// Whole lines, with their ends, as they are.
    Raw(Vec<u8>),
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// The name on its `event:` line, if it has one.
    pub name: Option<String>,
    /// Its data.
    pub says: Says,
    /// What it is to its stream.
    pub mark: Mark,
}

impl Event {
    /// An unnamed event.
    pub fn data(value: Value, mark: Mark) -> Event {
        Event { name: None, says: Says::Json(value), mark }
    }

    /// An event named after its own `type`.
    pub fn typed(value: Value, mark: Mark) -> Event {
        let name = value["type"].as_str().map(str::to_string);
        Event { name, says: Says::Json(value), mark }
    }

    /// `data: [DONE]`.
    pub fn done() -> Event {
        Event { name: None, says: Says::Data(b"[DONE]".to_vec()), mark: Mark::End }
    }

    fn raw(&self, bytes: Vec<u8>) -> Event {
        Event { name: self.name.clone(), says: Says::Data(bytes), mark: self.mark }
    }
}

/// The place right after the `place`-th token in `events`, as an index; bytes are counted elsewhere.
pub fn after(events: &[Event], place: Place) -> Option<usize> {
    let tokens = || events.iter().enumerate().filter(|(_, e)| e.mark == Mark::Token).map(|(at, _)| at);
    let wanted = match place {
        Place::First => return Some(0),
        Place::Half => (tokens().count() / 2).max(1),
        Place::Token(n) => n,
        Place::Byte(_) => return None,
    };
    match wanted {
        0 => Some(events.iter().position(|e| e.mark != Mark::Start).unwrap_or(events.len())),
        n => Some(tokens().nth(n - 1).map_or(events.len(), |at| at + 1)),
    }
}

/// Does to `events` what `fault` says about single events. `error` renders the in-band error.
pub fn harm(mut events: Vec<Event>, fault: &Fault, error: impl Fn(&InbandError) -> Vec<Event>) -> Vec<Event> {
    if fault.done_only {
        events.retain(|e| e.mark != Mark::Finish);
    }
    if let Some(size) = fault.huge_event {
        let first = events.iter_mut().find(|e| e.mark == Mark::Token);
        if let Some(Event { says: Says::Json(value), .. }) = first {
            value["obfuscation"] = json!("x".repeat(size.0 as usize));
        }
    }
    if let Some(wrong) = &fault.malformed_chunk {
        let nth = events.iter_mut().filter(|e| e.mark == Mark::Token).nth(wrong.at.saturating_sub(1));
        if let Some(event) = nth {
            *event = event.raw(malformed(event, wrong.form));
        }
    }
    if fault.duplicate_chunks {
        let twice = |e: Event| if e.mark == Mark::Token { vec![e.clone(), e] } else { vec![e] };
        events = events.into_iter().flat_map(twice).collect();
    }
    if fault.empty_data_frames {
        let empty = || Event { name: None, says: Says::Data(Vec::new()), mark: Mark::Other };
        let led = |e: Event| if e.mark == Mark::Token { vec![empty(), e] } else { vec![e] };
        events = events.into_iter().flat_map(led).collect();
    }
    end(&mut events, fault);
    if let Some(wrong) = &fault.inband_error {
        let at = after(&events, wrong.at).unwrap_or(0);
        events.truncate(at);
        events.extend(error(wrong));
    }
    events
}

fn end(events: &mut Vec<Event>, fault: &Fault) {
    let last = events.iter().rfind(|e| e.mark == Mark::End).cloned();
    if fault.no_done {
        events.retain(|e| e.mark != Mark::End);
    }
    if fault.double_done {
        events.extend(last);
    }
    if fault.events_after_done {
        let token = events.iter().find(|e| e.mark == Mark::Token).cloned();
        events.extend(token);
    }
}

fn malformed(event: &Event, form: Malformed) -> Vec<u8> {
    let Says::Json(value) = &event.says else { return b"{".to_vec() };
    let plain = value.to_string();
    let with = |tail: &[u8]| [plain.trim_end_matches('}').as_bytes(), b",\"mock\":", tail, closing(&plain)].concat();
    match form {
        Malformed::BadJson => plain.as_bytes()[..plain.len() / 2].to_vec(),
        Malformed::Nan => with(b"NaN"),
        Malformed::BadEscape => with(b"\"\\x41\""),
        Malformed::BadUtf8 => with(b"\"\xff\xfe\xc3\x28\""),
        Malformed::Number => b"42".to_vec(),
        Malformed::BigNumber => with(b"[1e400,9223372036854775808,-1e400]"),
    }
}

/// The run of `}` at the end of an object's text.
fn closing(plain: &str) -> &[u8] {
    &plain.as_bytes()[plain.trim_end_matches('}').len()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_tokens() {
        let event = |mark| Event::data(json!({}), mark);
        let events = [Mark::Start, Mark::Token, Mark::Token, Mark::Finish, Mark::End].map(event);
        assert_eq!(after(&events, Place::First), Some(0));
        assert_eq!(after(&events, Place::Token(0)), Some(1));
        assert_eq!(after(&events, Place::Token(2)), Some(3));
        assert_eq!(after(&events, Place::Token(9)), Some(5));
        assert_eq!(after(&events, Place::Half), Some(2));
    }

    #[test]
    fn a_big_number_is_still_grammatical_json_and_the_others_are_not() {
        let event = Event::data(json!({"a": {"b": 1}}), Mark::Token);
        let text = |form| String::from_utf8_lossy(&malformed(&event, form)).into_owned();
        assert_eq!(text(Malformed::BigNumber), r#"{"a":{"b":1,"mock":[1e400,9223372036854775808,-1e400]}}"#);
        for form in [Malformed::BadJson, Malformed::Nan, Malformed::BadEscape] {
            assert!(serde_json::from_str::<Value>(&text(form)).is_err());
        }
        assert!(std::str::from_utf8(&malformed(&event, Malformed::BadUtf8)).is_err());
    }
}

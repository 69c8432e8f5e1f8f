//! For tests: what a stream reader makes of events, one letter for each.

use bytes::Bytes;
use serde_json::Value;

use super::sse::Decoder;
use super::{Meaning, StreamReader, WireError};

/// `P`rogress, `q`uiet, dropped (`x`), `D`one or `E`rror, which is kept.
pub fn letter(meaning: Meaning, error: &mut Option<WireError>) -> char {
    match meaning {
        Meaning::Progress => 'P',
        Meaning::Quiet => 'q',
        Meaning::Drop => 'x',
        Meaning::Done => 'D',
        Meaning::Error(found) => {
            *error = Some(found);
            'E'
        }
    }
}

/// Reads named events: each a JSON object with its `type`, or a frame as it stands.
pub fn named<R: StreamReader>(mut reader: R, events: &[&str]) -> (String, R, Option<WireError>) {
    let (mut letters, mut error) = (String::new(), None);
    for event in events {
        let kind = serde_json::from_str::<Value>(event).ok().and_then(|v| Some(v["type"].as_str()?.to_owned()));
        let text = match kind {
            Some(kind) => format!("event: {kind}\ndata: {event}\n\n"),
            None if event.starts_with([':', 'e', 'd']) => format!("{event}\n\n"),
            None => format!("data: {event}\n\n"),
        };
        let (mut decoder, mut out) = (Decoder::new(1 << 20), Vec::new());
        decoder.push(Bytes::from(text), &mut out).unwrap();
        letters.push(letter(reader.read(&out[0]), &mut error));
    }
    (letters, reader, error)
}

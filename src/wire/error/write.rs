//! Our own errors, written as the caller's SDK expects them.
//!
//! Owns the two envelopes and the three in-stream forms. Invariant: every in-stream error carries an `error`
//! object and ends with a blank line, for that is what makes the SDKs raise.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// What an error of ours tells, in plain words.
#[derive(Clone, Debug, Default)]
pub struct Told<'a> {
    /// One sentence for people.
    pub message: &'a str,
    /// The API's own error type, such as `invalid_request_error`.
    pub error_type: &'a str,
    /// The failure class.
    pub code: &'a str,
    /// The request member at fault.
    pub param: Option<&'a str>,
    /// Our id for the call.
    pub id: &'a str,
    /// Failed sends, in order.
    pub attempts: &'a [TrailNote<'a>],
}

/// One failed send.
#[derive(Clone, Copy, Debug)]
pub struct TrailNote<'a> {
    /// Name of the endpoint.
    pub endpoint: &'a str,
    /// Its failure class.
    pub class: &'a str,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// The form of in-stream errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamShape {
    /// Chat completions and completions: a bare `data:` line.
    Chunks,
    /// The Responses API: `event: error`, numbered.
    Responses,
    /// The Messages API: `event: error`.
    Messages,
}

/// The OpenAI envelope: `{"error":{"message","type","code","param","outrigger"}}`.
pub fn openai_body(told: &Told<'_>) -> Bytes {
    Bytes::from(json!({ "error": openai(told) }).to_string())
}

/// The Anthropic envelope: `{"type":"error","error":{...},"request_id"}`.
pub fn anthropic_body(told: &Told<'_>) -> Bytes {
    Bytes::from(anthropic(told).to_string())
}

/// An error as the last event of a stream. `sequence` numbers it where the API numbers its events.
pub fn stream_error(shape: StreamShape, told: &Told<'_>, sequence: u64) -> Bytes {
    Bytes::from(match shape {
        StreamShape::Chunks => format!("data: {}\n\n", json!({ "error": openai(told) })),
        StreamShape::Responses => {
            // The API's own form is flat; the nested object beside it is what both SDKs look for.
            let data = json!({
                "type": "error", "code": told.code, "message": told.message, "param": told.param,
                "sequence_number": sequence, "error": openai(told),
            });
            format!("event: error\ndata: {data}\n\n")
        }
        StreamShape::Messages => format!("event: error\ndata: {}\n\n", anthropic(told)),
    })
}

/// The terminal marker of chat completions and completions streams.
pub fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

fn openai(told: &Told<'_>) -> Map<String, Value> {
    let mut error = Map::new();
    error.insert("message".into(), told.message.into());
    error.insert("type".into(), told.error_type.into());
    error.insert("code".into(), told.code.into());
    error.insert("param".into(), told.param.into());
    error.insert("outrigger".into(), trail(told));
    error
}

fn anthropic(told: &Told<'_>) -> Value {
    json!({
        "type": "error",
        "error": {
            "type": told.error_type, "message": told.message, "code": told.code, "outrigger": trail(told),
        },
        "request_id": told.id,
    })
}

fn trail(told: &Told<'_>) -> Value {
    let attempts: Vec<Value> = told
        .attempts
        .iter()
        .map(|note| json!({ "endpoint": note.endpoint, "class": note.class, "ms": note.ms }))
        .collect();
    json!({ "id": told.id, "attempts": attempts })
}

//! Streams of the Messages API: typed events from `message_start` to `message_stop`.
//!
//! Owns what each event means. Invariant: only `message_stop` completes a stream; there is no `[DONE]`.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::chunk::truthy;
use super::error;
use super::hollow::Full;
use super::sse::Frame;
use super::stream::{End, Meaning, Outer, Seen, StreamReader};

/// Follows one stream of the Messages API.
#[derive(Debug, Default)]
pub struct MessagesReader {
    seen: Seen,
    input: u64,
    output: u64,
    /// It stopped for a reason that explains an empty answer.
    excused: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    message: Option<Message>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    usage: Option<Tokens>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    usage: Option<Tokens>,
}

/// One block of content, as far as it is read.
#[derive(Deserialize)]
pub(super) struct Block<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    text: Full,
    #[serde(default)]
    thinking: Full,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    text: Full,
    #[serde(default)]
    partial_json: Full,
    #[serde(default)]
    thinking: Full,
    #[serde(borrow, default)]
    stop_reason: Option<Cow<'a, str>>,
}

/// Token counts of the Messages API.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    cache_creation_input_tokens: Option<u64>,
    #[serde(default)]
    cache_read_input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
}

impl Tokens {
    /// Prompt tokens with those written to and read from the cache, and output tokens.
    pub fn pair(self) -> (u64, u64) {
        let input = [self.input_tokens, self.cache_creation_input_tokens, self.cache_read_input_tokens];
        (input.into_iter().flatten().fold(0, u64::saturating_add), self.output_tokens.unwrap_or(0))
    }
}

impl Block<'_> {
    /// Whether the block is an answer with something in it, or reasoning with something in it.
    pub fn says(&self) -> (bool, bool) {
        match self.kind.as_deref() {
            Some("text") | None => (self.text.0, false),
            Some("thinking") => (false, self.thinking.0),
            Some("redacted_thinking") => (false, true),
            Some(_) => (true, false),
        }
    }
}

impl Delta<'_> {
    fn says(&self) -> (bool, bool) {
        match self.kind.as_deref() {
            Some("text_delta") => (self.text.0, false),
            Some("input_json_delta") => (self.partial_json.0, false),
            Some("thinking_delta") => (false, self.thinking.0),
            Some("signature_delta") => (false, false),
            _ => (true, false),
        }
    }
}

impl MessagesReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    fn event(&mut self, data: &[u8], name: Option<&str>, event: &Event<'_>) -> Meaning {
        let kind = event.kind.as_deref().or(name).unwrap_or("");
        if kind == "error" || event.error.is_some_and(|raw| truthy(raw.get())) {
            return self.seen.fail(error::parse(None, data));
        }
        for tokens in [event.message.as_ref().and_then(|message| message.usage), event.usage].into_iter().flatten() {
            self.count(tokens);
        }
        let (answer, reasoning) = match kind {
            "message_start" | "content_block_stop" | "ping" => (false, false),
            "content_block_start" => event.content_block.as_ref().map_or((true, false), Block::says),
            "content_block_delta" => {
                let says = event.delta.as_ref().map_or((true, false), Delta::says);
                if says == (false, false)
                    && event.delta.as_ref().and_then(|delta| delta.kind.as_deref()) == Some("signature_delta")
                    && self.seen.visible()
                {
                    return Meaning::Progress;
                }
                says
            }
            "message_delta" => {
                let reason = event.delta.as_ref().and_then(|delta| delta.stop_reason.as_deref());
                self.excused |= reason.is_some_and(excuses);
                return if reason.is_some() && self.seen.visible() { Meaning::Progress } else { Meaning::Quiet };
            }
            "message_stop" => {
                self.seen.done = true;
                return Meaning::Done;
            }
            _ => (true, false),
        };
        self.seen.answer |= answer;
        self.seen.reasoning |= reasoning;
        if answer || reasoning { Meaning::Progress } else { Meaning::Quiet }
    }

    /// Input comes once at the start, or again at the end; output counts up.
    fn count(&mut self, tokens: Tokens) {
        let (input, output) = tokens.pair();
        self.input = if input > 0 { self.input.max(input) } else { self.input };
        self.output = self.output.max(output);
        self.seen.usage = Some((self.input, self.output));
    }

    fn odd(&mut self, frame: &Frame, data: &[u8], name: Option<&str>) -> Meaning {
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            if serde_json::from_slice::<IgnoredAny>(data).is_err() {
                return self.seen.undecodable(frame, data);
            }
            self.seen.answer = true;
            return Meaning::Progress;
        };
        let first = value.get(0).unwrap_or(&value);
        let kind = first.get("type").and_then(Value::as_str).or(name).unwrap_or("");
        if kind == "error" || first.get("error").is_some_and(|error| truthy(&error.to_string())) {
            return self.seen.fail(error::from_value(&value));
        }
        match kind {
            "message_stop" => {
                self.seen.done = true;
                Meaning::Done
            }
            "ping" | "message_start" => Meaning::Quiet,
            _ => {
                self.seen.answer = true;
                Meaning::Progress
            }
        }
    }
}

impl StreamReader for MessagesReader {
    fn read(&mut self, frame: &Frame) -> Meaning {
        let data = match self.seen.outer(frame) {
            Outer::Data(data) => data,
            Outer::Settled(meaning) => return meaning,
        };
        if data.starts_with(b"[DONE]") {
            return Meaning::Drop;
        }
        let name = frame.event.as_deref().and_then(|name| std::str::from_utf8(name).ok());
        match serde_json::from_slice::<Event<'_>>(data) {
            Ok(event) => self.event(data, name, &event),
            Err(_) => self.odd(frame, data, name),
        }
    }

    fn usage(&self) -> Option<(u64, u64)> {
        self.seen.usage
    }

    fn ended(&self) -> End {
        match (self.seen.failed, self.seen.done) {
            (true, _) | (_, false) => End::Truncated,
            (false, true) if !self.seen.visible() && !self.excused => End::Empty,
            (false, true) => End::Complete,
        }
    }

    fn reasoning_only(&self) -> bool {
        self.seen.reasoning && !self.seen.answer && !self.excused
    }
}

/// Stop reasons that explain an answer with nothing in it.
pub(super) fn excuses(reason: &str) -> bool {
    matches!(reason, "max_tokens" | "model_context_window_exceeded" | "refusal" | "pause_turn")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WireError;
    use crate::wire::play::named;

    fn play(events: &[&str]) -> (String, MessagesReader, Option<WireError>) {
        named(MessagesReader::new(), events)
    }

    const START: &str = r#"{"type":"message_start","message":{"id":"m","content":[],"stop_reason":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":5,"cache_read_input_tokens":100,"output_tokens":1}}}"#;
    const BLOCK: &str = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    const DELTA: &str = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}"#;
    const CLOSE: &str = r#"{"type":"content_block_stop","index":0}"#;
    const END: &str = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":15}}"#;
    const STOP: &str = r#"{"type":"message_stop"}"#;
    const PING: &str = r#"{"type":"ping"}"#;

    #[test]
    fn scripts() {
        use End::*;
        type Row = (&'static str, &'static [&'static str], &'static str, End, Option<(u64, u64)>);
        let rows: &[Row] = &[
            ("plain", &[START, PING, BLOCK, DELTA, PING, CLOSE, END, STOP], "qqqPqqPD", Complete, Some((115, 15))),
            ("cut before the stop", &[START, BLOCK, DELTA, CLOSE, END], "qqPqP", Truncated, Some((115, 15))),
            ("empty", &[START, END, STOP], "qqD", Empty, Some((115, 15))),
            (
                "nothing before the cap",
                &[
                    START,
                    r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":9}}"#,
                    STOP,
                ],
                "qqD",
                Complete,
                Some((115, 9)),
            ),
            ("refused", &[r#"{"type":"message_delta","delta":{"stop_reason":"refusal"}}"#, STOP], "qD", Complete, None),
            (
                "tool",
                &[
                    r#"{"type":"content_block_start","content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
                    r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":""}}"#,
                    r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}"#,
                    END,
                    STOP,
                ],
                "PqPPD",
                Complete,
                Some((0, 15)),
            ),
            (
                "thinking",
                &[
                    r#"{"type":"content_block_start","content_block":{"type":"thinking","thinking":""}}"#,
                    r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hm"}}"#,
                    r#"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"x"}}"#,
                    STOP,
                ],
                "qPPD",
                Complete,
                None,
            ),
            (
                "a kind yet to come",
                &[r#"{"type":"content_block_delta","delta":{"type":"hologram_delta"}}"#, r#"{"type":"new_event"}"#],
                "PP",
                Truncated,
                None,
            ),
            ("after the end", &[DELTA, STOP, STOP, "[DONE]"], "PDxx", Complete, None),
            ("a marker of another API", &["[DONE]"], "x", Truncated, None),
            ("no type in the data", &["event: ping\ndata: {}", "event: message_stop\ndata: {}"], "qD", Empty, None),
            ("odd types", &[r#"{"type":"content_block_delta","delta":7}"#], "P", Truncated, None),
        ];
        for (name, events, letters, end, usage) in rows {
            let (got, reader, error) = play(events);
            assert_eq!((got.as_str(), reader.ended(), reader.usage()), (*letters, *end, *usage), "{name}: {error:?}");
        }
    }

    #[test]
    fn errors() {
        for (event, kind, message) in [
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
                Some("overloaded_error"),
                "Overloaded",
            ),
            (r#"{"error":"words"}"#, None, "words"),
            (r#"{"type":"error","error":{"type":"api_error","message":"m"},"message":"odd"}"#, Some("api_error"), "m"),
            ("{", None, "the server sent 1 bytes that are not JSON"),
        ] {
            let (letters, reader, error) = play(&[START, event, STOP]);
            let error = error.unwrap();
            assert_eq!((letters.as_str(), reader.ended()), ("qEx", End::Truncated));
            assert_eq!((error.error_type.as_deref(), error.message.as_str()), (kind, message), "{event}");
        }
    }
}

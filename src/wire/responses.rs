//! Streams of the Responses API: typed events, ended by `response.completed` or one of its siblings.
//!
//! Owns what each event means. Invariant: no `[DONE]` is expected, and none can complete a stream.

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

/// Follows one stream of the Responses API.
#[derive(Debug, Default)]
pub struct ResponsesReader {
    seen: Seen,
    /// It ended as incomplete, which explains an empty answer.
    incomplete: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    response: Option<Response<'a>>,
    #[serde(default)]
    item: Option<Item<'a>>,
    #[serde(default)]
    part: Option<Part>,
    #[serde(default)]
    delta: Full,
    #[serde(default)]
    text: Full,
    #[serde(default)]
    refusal: Full,
    #[serde(default)]
    arguments: Full,
    #[serde(default)]
    input: Full,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// A response object, as far as it is read.
#[derive(Deserialize)]
pub(super) struct Response<'a> {
    #[serde(borrow, default)]
    pub status: Option<Cow<'a, str>>,
    #[serde(default)]
    pub usage: Option<Tokens>,
    #[serde(borrow, default)]
    pub error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub output: Option<Vec<Item<'a>>>,
}

/// Token counts of the Responses API.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    input_tokens: Option<u64>,
    #[serde(default)]
    output_tokens: Option<u64>,
}

/// One item of the output.
#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    content: Option<Vec<Part>>,
    #[serde(default)]
    summary: Option<Vec<Part>>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: Full,
    #[serde(default)]
    refusal: Full,
    #[serde(default)]
    audio: Full,
}

impl Tokens {
    pub fn pair(self) -> (u64, u64) {
        (self.input_tokens.unwrap_or(0), self.output_tokens.unwrap_or(0))
    }
}

impl Part {
    fn full(&self) -> bool {
        self.text.0 || self.refusal.0 || self.audio.0
    }
}

impl Item<'_> {
    /// Whether the item is an answer with something in it, or reasoning with something in it.
    pub fn says(&self) -> (bool, bool) {
        let full = [&self.content, &self.summary].into_iter().flatten().flatten().any(Part::full);
        match self.kind.as_deref() {
            Some("message") | None => (full, false),
            Some("reasoning") => (false, full),
            Some(_) => (true, false),
        }
    }
}

impl ResponsesReader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    fn event(&mut self, data: &[u8], kind: &str, event: &Event<'_>) -> Meaning {
        let failed = event.response.as_ref().and_then(|response| response.status.as_deref()) == Some("failed");
        let inside = event.response.as_ref().and_then(|response| response.error).is_some_and(|raw| truthy(raw.get()));
        let outside = event.error.is_some_and(|raw| truthy(raw.get()));
        if failed || inside || outside || matches!(kind, "error" | "response.failed" | "response.cancelled") {
            return self.seen.fail(error::parse(None, data));
        }
        if let Some(usage) = event.response.as_ref().and_then(|response| response.usage) {
            self.seen.count(usage.pair());
        }
        let (mut answer, mut reasoning) = event.item.as_ref().map_or((false, false), Item::says);
        let direct = [event.delta, event.text, event.refusal, event.arguments, event.input].iter().any(|full| full.0)
            || event.part.as_ref().is_some_and(Part::full);
        if kind.contains("reasoning") {
            reasoning |= direct;
        } else {
            answer |= direct;
        }
        let quiet_kind = match kind {
            "response.completed" | "response.incomplete" => {
                self.incomplete = kind == "response.incomplete";
                for item in event.response.iter().flat_map(|response| response.output.iter().flatten()) {
                    let (answer, reasoning) = item.says();
                    self.seen.answer |= answer;
                    self.seen.reasoning |= reasoning;
                }
                self.seen.done = true;
                return Meaning::Done;
            }
            "response.created" | "response.in_progress" | "response.queued" | "keepalive" | "ping" => true,
            _ => {
                let rest = kind.strip_prefix("response.").unwrap_or("");
                rest.starts_with("output_item.")
                    || rest.starts_with("content_part.")
                    || rest.starts_with("reasoning_summary_part.")
                    || rest.starts_with("output_text.")
                    || rest.starts_with("refusal.")
                    || rest.starts_with("reasoning_")
                    || rest.ends_with(".delta")
                    || rest.ends_with(".done")
            }
        };
        // Whatever is no part of the plain life cycle is output of a tool, or of a kind yet to come.
        answer |= !quiet_kind;
        let was_visible = self.seen.visible();
        self.seen.answer |= answer;
        self.seen.reasoning |= reasoning;
        if answer || reasoning || (was_visible && kind.ends_with(".done")) { Meaning::Progress } else { Meaning::Quiet }
    }

    fn odd(&mut self, frame: &Frame, data: &[u8], event: Option<&str>) -> Meaning {
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            if serde_json::from_slice::<IgnoredAny>(data).is_err() {
                return self.seen.undecodable(frame, data);
            }
            self.seen.answer = true;
            return Meaning::Progress;
        };
        let first = value.get(0).unwrap_or(&value);
        let kind = first.get("type").and_then(Value::as_str).or(event).unwrap_or("");
        let reported = first.get("error").is_some_and(|error| truthy(&error.to_string()));
        if reported || matches!(kind, "error" | "response.failed") {
            return self.seen.fail(error::from_value(&value));
        }
        self.seen.answer = true;
        if matches!(kind, "response.completed" | "response.incomplete") {
            self.seen.done = true;
            return Meaning::Done;
        }
        Meaning::Progress
    }
}

impl StreamReader for ResponsesReader {
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
            Ok(event) => {
                let kind = event.kind.as_deref().or(name).unwrap_or("").to_owned();
                self.event(data, &kind, &event)
            }
            Err(_) => self.odd(frame, data, name),
        }
    }

    fn usage(&self) -> Option<(u64, u64)> {
        self.seen.usage
    }

    fn ended(&self) -> End {
        match (self.seen.failed, self.seen.done) {
            (true, _) | (_, false) => End::Truncated,
            (false, true) if !self.seen.visible() && !self.incomplete => End::Empty,
            (false, true) => End::Complete,
        }
    }

    fn reasoning_only(&self) -> bool {
        self.seen.reasoning && !self.seen.answer && !self.incomplete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WireError;
    use crate::wire::play::named;

    fn play(events: &[&str]) -> (String, ResponsesReader, Option<WireError>) {
        named(ResponsesReader::new(), events)
    }

    const CREATED: &str = r#"{"type":"response.created","sequence_number":0,"response":{"id":"r","status":"in_progress","error":null,"usage":null,"output":[]}}"#;
    const ADDED: &str = r#"{"type":"response.output_item.added","item":{"id":"m","type":"message","status":"in_progress","content":[],"role":"assistant"}}"#;
    const PART: &str =
        r#"{"type":"response.content_part.added","part":{"type":"output_text","text":"","annotations":[]}}"#;
    const DELTA: &str = r#"{"type":"response.output_text.delta","delta":"Hi","obfuscation":"x"}"#;
    const TEXT_DONE: &str = r#"{"type":"response.output_text.done","text":"Hi"}"#;
    const ITEM_DONE: &str = r#"{"type":"response.output_item.done","item":{"type":"message","content":[{"type":"output_text","text":"Hi"}]}}"#;
    const COMPLETED: &str = r#"{"type":"response.completed","response":{"status":"completed","error":null,"usage":{"input_tokens":3,"output_tokens":4},"output":[]}}"#;

    #[test]
    fn scripts() {
        use End::*;
        type Row = (&'static str, &'static [&'static str], &'static str, End, Option<(u64, u64)>);
        let rows: &[Row] = &[
            (
                "plain",
                &[CREATED, ADDED, PART, DELTA, TEXT_DONE, ITEM_DONE, COMPLETED],
                "qqqPPPD",
                Complete,
                Some((3, 4)),
            ),
            ("after the end", &[DELTA, COMPLETED, "[DONE]", DELTA], "PDxx", Complete, Some((3, 4))),
            ("a marker of another API ends nothing", &[DELTA, "[DONE]"], "Px", Truncated, None),
            ("cut", &[CREATED, ADDED, PART, DELTA, TEXT_DONE, ITEM_DONE], "qqqPPP", Truncated, None),
            ("empty", &[CREATED, COMPLETED], "qD", Empty, Some((3, 4))),
            (
                "incomplete",
                &[
                    CREATED,
                    r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}}"#,
                ],
                "qD",
                Complete,
                None,
            ),
            ("no deltas", &[CREATED, ADDED, ITEM_DONE, COMPLETED], "qqPD", Complete, Some((3, 4))),
            (
                "all in the last",
                &[
                    CREATED,
                    r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}]}}"#,
                ],
                "qD",
                Complete,
                None,
            ),
            (
                "function call",
                &[
                    r#"{"type":"response.output_item.added","item":{"type":"function_call","name":"f","arguments":""}}"#,
                    r#"{"type":"response.function_call_arguments.delta","delta":"{"}"#,
                    COMPLETED,
                ],
                "PPD",
                Complete,
                Some((3, 4)),
            ),
            (
                "reasoning",
                &[
                    r#"{"type":"response.output_item.added","item":{"type":"reasoning","summary":[]}}"#,
                    r#"{"type":"response.reasoning_summary_text.delta","delta":"hm"}"#,
                    COMPLETED,
                ],
                "qPD",
                Complete,
                Some((3, 4)),
            ),
            (
                "refusal",
                &[r#"{"type":"response.refusal.delta","delta":"no"}"#, COMPLETED],
                "PD",
                Complete,
                Some((3, 4)),
            ),
            (
                "a tool at work",
                &[r#"{"type":"response.web_search_call.searching","item_id":"w"}"#],
                "P",
                Truncated,
                None,
            ),
            ("yet to come", &[r#"{"type":"response.hologram.frame","x":1}"#], "P", Truncated, None),
            (
                "queued and waiting",
                &[r#"{"type":"response.queued","response":{"status":"queued"}}"#, ": wait", r#"{"type":"keepalive"}"#],
                "qqq",
                Truncated,
                None,
            ),
            ("empty delta", &[r#"{"type":"response.output_text.delta","delta":""}"#], "q", Truncated, None),
            ("odd types", &[r#"{"type":"response.output_item.done","item":"?"}"#], "P", Truncated, None),
            ("empty data", &["data:"], "x", Truncated, None),
        ];
        for (name, events, letters, end, usage) in rows {
            let (got, reader, error) = play(events);
            assert_eq!((got.as_str(), reader.ended(), reader.usage()), (*letters, *end, *usage), "{name}: {error:?}");
        }
        assert!(play(&[r#"{"type":"response.reasoning_text.delta","delta":"hm"}"#, COMPLETED]).1.reasoning_only());
    }

    #[test]
    fn errors() {
        for (event, code, message) in [
            (r#"{"type":"error","code":"server_error","message":"m","param":null}"#, Some("server_error"), "m"),
            (r#"{"type":"error","error":{"code":"c","message":"m"}}"#, Some("c"), "m"),
            (
                r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"rate_limit_exceeded","message":"m"}}}"#,
                Some("rate_limit_exceeded"),
                "m",
            ),
            (
                r#"{"type":"response.completed","response":{"status":"failed","error":{"code":"server_error","message":"m"}}}"#,
                Some("server_error"),
                "m",
            ),
            (r#"{"error":{"code":"c","message":"m"}}"#, Some("c"), "m"),
            ("<html>", None, "the server sent 6 bytes that are not JSON"),
        ] {
            let (letters, reader, error) = play(&[CREATED, event, COMPLETED]);
            let error = error.unwrap();
            assert_eq!((letters.as_str(), reader.ended()), ("qEx", End::Truncated));
            assert_eq!((error.code.as_deref(), error.message.as_str()), (code, message), "{event}");
        }
    }
}

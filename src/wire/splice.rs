//! One chat stream put together from two: what the first has said so far, and the chunks of a second that goes on from
//! there, made to be chunks of the first.
//!
//! Owns the reading and rewriting of chunks of plain text in a single choice. Whether anything may be continued at all is
//! decided elsewhere. Invariant: what is not plainly such a chunk is never passed off as one: it is refused.

use std::fmt;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value, json};

use super::sse::{Decoder, Frame};

/// Largest event, in bytes.
const EVENT_LIMIT: usize = 4 * 1024 * 1024;

/// Longest answer that is remembered, in bytes of text.
const TEXT_LIMIT: usize = 1024 * 1024;
/// A server that begins with so many characters of what was said says it again, and does not go on.
const ECHO: usize = 32;
/// A text shorter than this may well come twice.
const SHORT: usize = 12;

/// Something that is not a chunk of plain text in a single choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPlain;

impl fmt::Display for NotPlain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a chunk of plain text in a single choice")
    }
}

impl std::error::Error for NotPlain {}

/// What every chunk of a stream has in common.
#[derive(Clone, Debug, Default, PartialEq)]
struct Head {
    id: Option<Value>,
    created: Option<Value>,
    model: Option<Value>,
}

/// Follows a stream as it passes.
#[derive(Debug)]
pub struct Follower {
    decoder: Decoder,
    frames: Vec<Frame>,
    head: Head,
    text: String,
    finished: bool,
    plain: bool,
}

impl Default for Follower {
    fn default() -> Self {
        Self {
            decoder: Decoder::new(EVENT_LIMIT),
            frames: Vec::new(),
            head: Head::default(),
            text: String::new(),
            finished: false,
            plain: true,
        }
    }
}

impl Follower {
    /// Takes what goes to the client: whole events.
    pub fn pass(&mut self, events: &Bytes) {
        if !self.plain {
            return;
        }
        let mut frames = std::mem::take(&mut self.frames);
        self.plain = self.decoder.push(events.clone(), &mut frames).is_ok() && self.decoder.pending() == 0;
        for frame in frames.drain(..) {
            self.plain &= self.event(&frame).is_ok();
        }
        self.frames = frames;
        self.plain &= self.text.len() <= TEXT_LIMIT;
        if !self.plain {
            self.text = String::new();
        }
    }

    fn event(&mut self, frame: &Frame) -> Result<(), NotPlain> {
        let Some(data) = frame.data.as_deref().map(<[u8]>::trim_ascii) else { return Ok(()) };
        if data.starts_with(b"[DONE]") {
            self.finished = true;
            return Ok(());
        }
        let chunk = Chunk::read(data)?;
        if self.head == Head::default() {
            let part = |name: &str| chunk.body.get(name).cloned();
            self.head = Head { id: part("id"), created: part("created"), model: part("model") };
        }
        self.text.push_str(&chunk.text);
        self.finished |= chunk.finished;
        Ok(())
    }

    /// What was said, if it can be gone on from: plain text, not finished, and no character broken at its end.
    pub fn open_text(&self) -> Option<&str> {
        let whole = !self.text.is_empty() && !self.text.ends_with(char::REPLACEMENT_CHARACTER);
        (self.plain && !self.finished && whole).then_some(self.text.as_str())
    }

    /// Makes the chunks of the second stream chunks of this one. `before` are the tokens in and out that it took to come
    /// this far.
    pub fn splice(self, before: (u64, u64)) -> Splice {
        let echo: String = self.text.chars().take(ECHO).collect();
        let opening = (echo.chars().count() >= SHORT).then(Opening::default);
        Splice { decoder: Decoder::new(EVENT_LIMIT), head: self.head, before, marked: false, echo, opening }
    }
}

/// Rewrites the chunks of a stream that goes on where another broke off.
#[derive(Debug)]
pub struct Splice {
    decoder: Decoder,
    head: Head,
    before: (u64, u64),
    marked: bool,
    /// How an echo would begin.
    echo: String,
    /// What came so far, while it could still be one.
    opening: Option<Opening>,
}

#[derive(Debug, Default)]
struct Opening {
    text: String,
    finished: bool,
    events: BytesMut,
}

impl Splice {
    /// Whole events of the second stream, as events of the first. The first of them are kept back until it is plain that
    /// they do not say again what was said.
    ///
    /// # Errors
    /// They are not plain text, or say it again: nothing of them may be passed on.
    pub fn rewrite(&mut self, events: &Bytes) -> Result<Bytes, NotPlain> {
        let mut frames = Vec::new();
        if self.decoder.push(events.clone(), &mut frames).is_err() || self.decoder.pending() > 0 {
            return Err(NotPlain);
        }
        let mut out = BytesMut::with_capacity(events.len() + 64);
        for frame in &frames {
            match frame.data.as_deref().map(<[u8]>::trim_ascii) {
                Some(data) if !data.starts_with(b"[DONE]") => self.chunk(data, &mut out)?,
                data => {
                    if let Some(opening) = &mut self.opening {
                        opening.finished |= data.is_some();
                    }
                    out.extend_from_slice(&frame.raw);
                }
            }
        }
        let Some(opening) = &mut self.opening else { return Ok(out.freeze()) };
        if opening.text.starts_with(&self.echo) {
            return Err(NotPlain);
        }
        opening.events.extend_from_slice(&out);
        if !opening.finished && self.echo.starts_with(&opening.text) {
            return Ok(Bytes::new());
        }
        Ok(self.opening.take().map_or_else(Bytes::new, |opening| opening.events.freeze()))
    }

    fn chunk(&mut self, data: &[u8], out: &mut BytesMut) -> Result<(), NotPlain> {
        let Chunk { mut body, text, finished, usage } = Chunk::read(data)?;
        if let Some(opening) = &mut self.opening {
            opening.text.push_str(&text);
            opening.finished |= finished;
        }
        if text.is_empty() && !finished && !usage {
            // The role was told already, and nothing else is in it.
            return Ok(());
        }
        for (name, value) in [("id", &self.head.id), ("created", &self.head.created), ("model", &self.head.model)] {
            if let Some(value) = value {
                body.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(delta) = body.get_mut("choices").and_then(|choices| choices.get_mut(0)?.get_mut("delta")) {
            delta.as_object_mut().map(|delta| delta.remove("role"));
        }
        if let Some(usage) = body.get_mut("usage").and_then(Value::as_object_mut) {
            self.merge(usage);
        }
        if usage || !std::mem::replace(&mut self.marked, true) {
            body.insert("outrigger".to_owned(), json!({"continued": 1}));
        }
        out.extend_from_slice(format!("data: {}\n\n", Value::Object(body)).as_bytes());
        Ok(())
    }

    /// Both prompts were read, and both answers written.
    fn merge(&self, usage: &mut Map<String, Value>) {
        let mut sum = 0;
        for (name, before) in [("prompt_tokens", self.before.0), ("completion_tokens", self.before.1)] {
            let merged = usage.get(name).and_then(Value::as_u64).unwrap_or(0).saturating_add(before);
            usage.insert(name.to_owned(), merged.into());
            sum += merged;
        }
        usage.insert("total_tokens".to_owned(), sum.into());
    }
}

/// One chunk of plain text.
struct Chunk {
    body: Map<String, Value>,
    text: String,
    finished: bool,
    usage: bool,
}

impl Chunk {
    fn read(data: &[u8]) -> Result<Self, NotPlain> {
        let Ok(Value::Object(body)) = serde_json::from_slice(data) else { return Err(NotPlain) };
        let usage = body.get("usage").is_some_and(Value::is_object);
        let choices = body.get("choices").and_then(Value::as_array).ok_or(NotPlain)?;
        let mut chunk = Self { text: String::new(), finished: false, usage, body: Map::new() };
        match choices.as_slice() {
            [] => {}
            [Value::Object(choice)] => chunk.choice(choice)?,
            _ => return Err(NotPlain),
        }
        chunk.body = body;
        Ok(chunk)
    }

    fn choice(&mut self, choice: &Map<String, Value>) -> Result<(), NotPlain> {
        for (name, value) in choice {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("index", index) if index.as_u64() == Some(0) => {}
                ("finish_reason", Value::String(_)) => self.finished = true,
                ("delta", Value::Object(delta)) => self.delta(delta)?,
                _ => return Err(NotPlain),
            }
        }
        Ok(())
    }

    fn delta(&mut self, delta: &Map<String, Value>) -> Result<(), NotPlain> {
        for (name, value) in delta {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("role", Value::String(role)) if role == "assistant" => {}
                ("content", Value::String(text)) => self.text.push_str(text),
                ("refusal" | "reasoning_content" | "reasoning", Value::String(text)) if text.is_empty() => {}
                ("tool_calls", Value::Array(calls)) if calls.is_empty() => {}
                _ => return Err(NotPlain),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(choice: &str) -> Bytes {
        let head = r#""id":"one","created":7,"model":"m","object":"chat.completion.chunk""#;
        format!("data: {{{head},\"choices\":[{choice}]}}\n\n").into()
    }

    fn said(text: &str) -> Bytes {
        event(&format!(r#"{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}"#))
    }

    fn follow(events: &[Bytes]) -> Follower {
        let mut follower = Follower::default();
        events.iter().for_each(|event| follower.pass(event));
        follower
    }

    #[test]
    fn plain_text_is_open_until_it_has_finished() {
        let role = event(r#"{"index":0,"delta":{"role":"assistant","content":null,"refusal":null},"logprobs":null}"#);
        let both = Bytes::from([&said("a")[..], b": ping\n\n", &said("b")[..]].concat());
        assert_eq!(follow(&[role.clone(), both, said("ü")]).open_text(), Some("abü"));
        assert_eq!(follow(&[role]).open_text(), None, "nothing said yet");
        assert_eq!(follow(&[said("a"), said("\u{fffd}")]).open_text(), None, "a broken character");
        let end = event(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#);
        assert_eq!(follow(&[said("a"), end]).open_text(), None);
        assert_eq!(follow(&[said("a"), "data: [DONE]\n\n".into()]).open_text(), None);
    }

    #[test]
    fn whatever_else_there_is_closes_it() {
        for choice in [
            r#"{"index":1,"delta":{"content":"x"}}"#,
            r#"{"index":0,"delta":{"content":"x"}},{"index":1,"delta":{}}"#,
            r#"{"index":0,"delta":{"tool_calls":[{"index":0}]}}"#,
            r#"{"index":0,"delta":{"function_call":{}}}"#,
            r#"{"index":0,"delta":{"reasoning_content":"hm"}}"#,
            r#"{"index":0,"delta":{"refusal":"no"}}"#,
            r#"{"index":0,"delta":{"content":["x"]}}"#,
            r#"{"index":0,"delta":{"content":"x"},"logprobs":{"content":[]}}"#,
            r#"{"index":0,"text":"x"}"#,
            r#"{"index":0,"delta":{"role":"tool"}}"#,
            "7",
        ] {
            assert_eq!(follow(&[said("a"), event(choice), said("b")]).open_text(), None, "{choice}");
            let mut splice = follow(&[said("a")]).splice((0, 0));
            assert_eq!(splice.rewrite(&event(choice)), Err(NotPlain), "{choice}");
        }
        for odd in ["data: {}\n\n", "data: nonsense\n\n", "data: {\"choices\":[]"] {
            assert_eq!(follow(&[said("a"), odd.into()]).open_text(), None, "{odd}");
        }
        let long = follow(&[said(&"a".repeat(TEXT_LIMIT)), said("a")]);
        assert_eq!((long.open_text(), long.text.len()), (None, 0), "more is not remembered");
    }

    #[test]
    fn an_echo_is_no_continuation() {
        let text = "Once upon a time there was a fox by a river";
        let splice = || follow(&[said(text)]).splice((0, 0));
        let words = |text: &str| text.split_inclusive(' ').map(said).collect::<Vec<_>>();
        let mut echoing = splice();
        let told: Result<Vec<Bytes>, NotPlain> = words(text).iter().map(|word| echoing.rewrite(word)).collect();
        assert_eq!(told, Err(NotPlain));
        for (rest, kept) in [(" and so on", 0), ("Once upon a day", 3), ("Once", 1)] {
            let mut splice = splice();
            let mut out = Vec::new();
            for word in words(rest) {
                out.push(splice.rewrite(&word).unwrap());
            }
            out.push(splice.rewrite(&"data: [DONE]\n\n".into()).unwrap());
            let empty = out.iter().take_while(|bytes| bytes.is_empty()).count();
            assert_eq!(empty, kept, "{rest}");
            let whole: Vec<u8> = out.concat();
            let mut back = Follower::default();
            back.pass(&whole.into());
            assert_eq!(back.text, rest);
        }
        let mut short = follow(&[said("Once")]).splice((0, 0));
        assert!(!short.rewrite(&said("Once")).unwrap().is_empty(), "that may well come twice");
    }

    #[test]
    fn the_second_stream_wears_the_head_of_the_first() {
        let mut splice = follow(&[said("a")]).splice((10, 3));
        let chunk = |choices: &str, rest: &str| {
            Bytes::from(format!(
                "data: {{\"id\":\"two\",\"created\":9,\"model\":\"n\",\"choices\":[{choices}]{rest}}}\n\n"
            ))
        };
        let role = chunk(r#"{"index":0,"delta":{"role":"assistant","content":""}}"#, "");
        assert_eq!(splice.rewrite(&role), Ok(Bytes::new()), "no second role");
        let mut rewritten = |chunk: &Bytes| -> Value {
            let out = splice.rewrite(chunk).unwrap();
            serde_json::from_slice(out.strip_prefix(b"data: ").unwrap()).unwrap()
        };
        let first = rewritten(&chunk(r#"{"index":0,"delta":{"role":"assistant","content":"b"}}"#, ""));
        assert_eq!(
            first,
            json!({"id": "one", "created": 7, "model": "m", "outrigger": {"continued": 1},
                "choices": [{"index": 0, "delta": {"content": "b"}}]})
        );
        let next = rewritten(&chunk(r#"{"index":0,"delta":{"content":"c"},"finish_reason":"stop"}"#, ""));
        assert_eq!((&next["id"], next.get("outrigger")), (&json!("one"), None), "marked once");
        let usage = rewritten(&chunk("", r#","usage":{"prompt_tokens":13,"completion_tokens":2,"total_tokens":15}"#));
        assert_eq!(usage["usage"], json!({"prompt_tokens": 23, "completion_tokens": 5, "total_tokens": 28}));
        assert_eq!(usage["outrigger"]["continued"], 1, "the sum is marked as one");
        let done = Bytes::from_static(b": bye\n\ndata: [DONE]\n\n");
        assert_eq!(splice.rewrite(&done), Ok(done.clone()));
    }
}

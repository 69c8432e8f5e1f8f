//! Streams of chat completions and of completions: chunks with choices, ended by `[DONE]`.
//!
//! Owns what each chunk means, in all the variants servers have; judges no content. Invariant: a shape we do not
//! know is output (it is forwarded and counts as life), never an error.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::{self, WireError};
use super::hollow::Full;
use super::sse::Frame;
use super::stream::{End, Meaning, Outer, Seen, StreamReader};

/// Follows one stream of chunks.
#[derive(Debug, Default)]
pub struct ChunkReader {
    seen: Seen,
    /// Choices by index, and whether each has finished.
    choices: BTreeMap<u64, bool>,
    /// Choices that have not finished.
    open: usize,
    /// A choice finished for a reason that explains an empty answer.
    excused: bool,
    /// Choices that were asked for: until so many have begun, only the server's own marker ends the stream.
    wanted: u64,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<Tokens>,
    #[serde(default)]
    x_groq: Option<Groq>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    object: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    delta: Option<Said>,
    #[serde(default)]
    message: Option<Said>,
    #[serde(default)]
    text: Full,
    #[serde(default)]
    logprobs: Full,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(default)]
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Groq {
    #[serde(default)]
    usage: Option<Tokens>,
}

/// Token counts of the chat and completions APIs.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

impl Tokens {
    pub fn pair(self) -> (u64, u64) {
        (self.prompt_tokens.unwrap_or(0), self.completion_tokens.unwrap_or(0))
    }
}

/// What a delta or a message says: an answer of any kind, reasoning, or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub answer: bool,
    pub reasoning: bool,
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Said;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a delta or message")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Said, A::Error> {
                let mut said = Said::default();
                while let Some(key) = map.next_key::<Key>()? {
                    let full = map.next_value::<Full>()?.0;
                    match key {
                        Key::Silent => {}
                        Key::Reasoning => said.reasoning |= full,
                        Key::Other => said.answer |= full,
                    }
                }
                Ok(said)
            }
        }
        from.deserialize_map(Members)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Key {
    #[serde(rename = "role", alias = "obfuscation", alias = "name")]
    Silent,
    #[serde(rename = "reasoning_content", alias = "reasoning", alias = "reasoning_details", alias = "thinking")]
    Reasoning,
    #[serde(other)]
    Other,
}

impl ChunkReader {
    /// A reader at the start of a stream of one choice.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for a stream of which so many choices were asked.
    pub fn of(wanted: u64) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// A reader of a stream that goes on with an answer: what was said before counts as said, so there may be nothing
    /// more to say.
    pub fn going_on() -> Self {
        Self { seen: Seen { answer: true, ..Seen::default() }, wanted: 1, ..Self::default() }
    }

    fn chunk(&mut self, data: &[u8], chunk: Chunk<'_>) -> Meaning {
        let reported = chunk.error.is_some_and(|raw| truthy(raw.get()));
        if reported || chunk.object.as_deref() == Some("error") {
            return self.seen.fail(error::parse(None, data));
        }
        let counts = [chunk.usage, chunk.x_groq.and_then(|groq| groq.usage)];
        let counted = counts.into_iter().flatten().map(|tokens| self.seen.count(tokens.pair())).count() > 0;
        let Some(choices) = chunk.choices else {
            return if counted || serde_json::from_slice::<Full>(data).is_ok_and(|full| !full.0) {
                Meaning::Quiet
            } else {
                self.unknown()
            };
        };
        let (mut visible, mut finished) = (false, false);
        for choice in &choices {
            let said = [choice.delta, choice.message].into_iter().flatten().fold(Said::default(), |a, b| Said {
                answer: a.answer || b.answer,
                reasoning: a.reasoning || b.reasoning,
            });
            let answer = said.answer || choice.text.0 || choice.logprobs.0;
            self.seen.answer |= answer;
            self.seen.reasoning |= said.reasoning;
            visible |= answer || said.reasoning;
            if let Some(tokens) = choice.usage {
                self.seen.count(tokens.pair());
            }
            let reason = choice.finish_reason.as_deref().filter(|reason| !reason.is_empty());
            if let Some(reason) = reason.filter(|reason| broken(reason)) {
                return self.seen.fail(WireError {
                    code: Some(reason.to_owned()),
                    ..WireError::new(format!("the server ended the answer with finish_reason \"{reason}\""))
                });
            }
            finished |= reason.is_some();
            self.note(choice.index.unwrap_or(0), reason);
        }
        if visible || (finished && self.seen.visible()) { Meaning::Progress } else { Meaning::Quiet }
    }

    fn note(&mut self, index: u64, reason: Option<&str>) {
        let finished = self.choices.entry(index).or_insert_with(|| {
            self.open += 1;
            false
        });
        if let Some(reason) = reason {
            self.excused |= excuses(reason);
            if !std::mem::replace(finished, true) {
                self.open -= 1;
            }
        }
    }

    fn unknown(&mut self) -> Meaning {
        self.seen.answer = true;
        Meaning::Progress
    }

    /// JSON whose members have types we did not expect: told apart slowly, but told apart.
    fn odd(&mut self, frame: &Frame, data: &[u8]) -> Meaning {
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            // Valid but too deep to hold is still output.
            return match serde_json::from_slice::<serde::de::IgnoredAny>(data) {
                Ok(_) => self.unknown(),
                Err(_) => self.seen.undecodable(frame, data),
            };
        };
        let first = value.get(0).unwrap_or(&value);
        let truthy = first.get("error").is_some_and(|error| truthy(&error.to_string()));
        if truthy || first.get("object").and_then(Value::as_str) == Some("error") {
            return self.seen.fail(error::from_value(&value));
        }
        for choice in value.get("choices").and_then(Value::as_array).into_iter().flatten() {
            let reason = choice.get("finish_reason").and_then(Value::as_str).filter(|reason| !reason.is_empty());
            self.note(choice.get("index").and_then(Value::as_u64).unwrap_or(0), reason);
        }
        self.unknown()
    }
}

impl StreamReader for ChunkReader {
    fn read(&mut self, frame: &Frame) -> Meaning {
        let data = match self.seen.outer(frame) {
            Outer::Data(data) => data,
            Outer::Settled(meaning) => return meaning,
        };
        if data.starts_with(b"[DONE]") {
            self.seen.done = true;
            return Meaning::Done;
        }
        match serde_json::from_slice::<Chunk<'_>>(data) {
            Ok(chunk) => self.chunk(data, chunk),
            Err(_) => self.odd(frame, data),
        }
    }

    fn usage(&self) -> Option<(u64, u64)> {
        self.seen.usage
    }

    fn ended(&self) -> End {
        let finished = !self.choices.is_empty() && self.open == 0;
        let hollow = !self.seen.visible() && !self.excused;
        match (self.seen.failed, finished, self.seen.done) {
            (true, ..) | (false, false, false) => End::Truncated,
            (false, true, _) if hollow => End::Empty,
            (false, true, true) => End::Complete,
            // A choice that never began cannot be told from one that was cut off.
            (false, true, false) if (self.choices.len() as u64) < self.wanted => End::Truncated,
            (false, true, false) => End::Unmarked,
            (false, false, true) if hollow => End::Empty,
            (false, false, true) => End::DoneOnly,
        }
    }

    fn reasoning_only(&self) -> bool {
        self.seen.reasoning && !self.seen.answer && !self.excused
    }
}

/// Finish reasons that name a failure of the server, not an end of the answer.
pub(super) fn broken(reason: &str) -> bool {
    matches!(reason, "error" | "abort" | "insufficient_system_resource")
}

/// Finish reasons that explain an answer with nothing in it.
pub(super) fn excuses(reason: &str) -> bool {
    matches!(
        reason,
        "length"
            | "max_tokens"
            | "model_length"
            | "content_filter"
            | "content_filtered"
            | "refusal"
            | "load"
            | "unload"
    )
}

/// Whether an `error` member says that there is one, as the SDKs see it.
pub(super) fn truthy(raw: &str) -> bool {
    !matches!(raw.trim(), "null" | "false" | "\"\"" | "{}" | "[]" | "0")
}

#[cfg(test)]
#[path = "chunk_tests.rs"]
mod tests;

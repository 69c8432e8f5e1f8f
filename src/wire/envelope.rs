//! The few members of a request body that a gateway must know, read in one pass and changed in place.
//!
//! Owns finding `model`, `stream` and the limits without copying messages, and splicing one member. Does not
//! check the rest of the request: servers differ in what they take. Invariant: bytes outside the spliced member
//! are never touched.

use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::hollow::Full;

/// What the gateway reads of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The top-level `model`, decoded.
    pub model: Option<String>,
    /// Byte range of the raw `model` value in the body, quotes included.
    pub model_span: Option<(usize, usize)>,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// Number of choices asked for.
    pub n: Option<u64>,
    /// Number of prompts, where `prompt` is a list of them; each gets its own choices.
    pub prompts: Option<u64>,
    /// The caller's cap on output tokens, under whichever name.
    pub max_tokens: Option<u64>,
    /// Whether tools are offered to the model.
    pub has_tools: bool,
    /// Whether the answer is to follow a JSON schema.
    pub json_schema: bool,
    /// Whether `stream_options.include_usage` is set.
    pub includes_usage: bool,
}

/// Why a body cannot be read; positions are counted from 1, the offset from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeError {
    /// What is wrong, in words for the caller; quotes nothing of the body.
    pub message: String,
    /// The member at fault, where one is.
    pub param: Option<String>,
    /// Byte offset in the body.
    pub offset: usize,
    /// Line.
    pub line: usize,
    /// Column, in bytes.
    pub column: usize,
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.message, self.line, self.column)
    }
}

impl std::error::Error for EnvelopeError {}

/// Reads the envelope of a JSON request body.
///
/// # Errors
/// When the body is not one JSON object, when `model` or `stream` has the wrong type, or stands there twice.
pub fn read(body: &[u8]) -> Result<Envelope, EnvelopeError> {
    let found = match body.iter().position(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(at(body, body.len(), "the body is empty; a JSON object is expected", None)),
        Some(start) if body[start] != b'{' => {
            return Err(at(body, start, "the body must be a JSON object", None));
        }
        Some(_) => serde_json::from_slice::<Found<'_>>(body).map_err(|error| syntax(body, &error))?,
    };
    if let Some((name, raw)) = found.twice {
        return Err(at(body, span(body, raw).0, &format!("`{name}` stands in the body twice"), Some(name)));
    }
    let mut envelope = Envelope {
        n: found.n.and_then(lax),
        prompts: found.prompt.and_then(prompts),
        max_tokens: found.max_tokens.and_then(lax),
        has_tools: found.has_tools,
        json_schema: found.format.is_some_and(wants_schema),
        includes_usage: found
            .stream_options
            .and_then(lax::<StreamOptions>)
            .is_some_and(|options| options.include_usage == Some(true)),
        ..Envelope::default()
    };
    if let Some(raw) = found.model {
        let span = span(body, raw);
        let model = lax::<String>(raw).ok_or_else(|| at(body, span.0, "`model` must be a string", Some("model")))?;
        envelope.model = Some(model);
        envelope.model_span = Some(span);
    }
    if let Some(raw) = found.stream {
        envelope.stream = lax::<Option<bool>>(raw)
            .ok_or_else(|| at(body, span(body, raw).0, "`stream` must be true or false", Some("stream")))?
            .unwrap_or(false);
    }
    Ok(envelope)
}

/// The body with the value at `span` replaced by the string `value`.
pub fn splice(body: &Bytes, span: (usize, usize), value: &str) -> Bytes {
    let (start, end) = (span.0.min(body.len()), span.1.clamp(span.0.min(body.len()), body.len()));
    let value = quoted(value);
    let mut new = BytesMut::with_capacity(body.len() - (end - start) + value.len());
    new.extend_from_slice(&body[..start]);
    new.extend_from_slice(value.as_bytes());
    new.extend_from_slice(&body[end..]);
    new.freeze()
}

/// The body, a JSON object without `model`, with that member put first.
pub fn insert_model(body: &Bytes, value: &str) -> Bytes {
    let Some(brace) = memchr::memchr(b'{', body) else { return body.clone() };
    let empty = body[brace + 1..].trim_ascii_start().first() == Some(&b'}');
    let member = format!("\"model\":{}{}", quoted(value), if empty { "" } else { "," });
    let mut new = BytesMut::with_capacity(body.len() + member.len());
    new.extend_from_slice(&body[..=brace]);
    new.extend_from_slice(member.as_bytes());
    new.extend_from_slice(&body[brace + 1..]);
    new.freeze()
}

fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// The raw members, borrowed from the body.
#[derive(Default)]
struct Found<'a> {
    model: Option<&'a RawValue>,
    stream: Option<&'a RawValue>,
    stream_options: Option<&'a RawValue>,
    n: Option<&'a RawValue>,
    prompt: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    has_tools: bool,
    format: Option<&'a RawValue>,
    twice: Option<(&'static str, &'a RawValue)>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Model,
    Stream,
    StreamOptions,
    N,
    Prompt,
    #[serde(alias = "max_completion_tokens", alias = "max_output_tokens")]
    MaxTokens,
    #[serde(alias = "functions")]
    Tools,
    #[serde(alias = "text", alias = "output_format", alias = "output_config")]
    ResponseFormat,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Found<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Found<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Found::default();
                while let Some(key) = map.next_key::<Key>()? {
                    match key {
                        Key::Model => {
                            let raw = map.next_value()?;
                            if found.model.replace(raw).is_some() {
                                found.twice = Some(("model", raw));
                            }
                        }
                        Key::Stream => {
                            let raw = map.next_value()?;
                            if found.stream.replace(raw).is_some() {
                                found.twice = Some(("stream", raw));
                            }
                        }
                        Key::StreamOptions => found.stream_options = Some(map.next_value()?),
                        Key::N => found.n = Some(map.next_value()?),
                        Key::Prompt => found.prompt = Some(map.next_value()?),
                        Key::MaxTokens => {
                            let raw: &RawValue = map.next_value()?;
                            if raw.get() != "null" {
                                found.max_tokens = Some(raw);
                            }
                        }
                        Key::Tools => found.has_tools |= map.next_value::<Full>()?.0,
                        Key::ResponseFormat => found.format = Some(map.next_value()?),
                        Key::Other => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(found)
            }
        }
        from.deserialize_map(Members)
    }
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct Format<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    format: Option<&'a RawValue>,
}

/// `response_format` of chats, `text.format` of responses, `output_format` and `output_config.format` of messages.
fn wants_schema(raw: &RawValue) -> bool {
    let is_schema = |format: &Format<'_>| format.kind.is_some_and(|kind| kind.get() == "\"json_schema\"");
    let inner = |format: &Format<'_>| format.format.and_then(lax::<Format<'_>>).is_some_and(|inner| is_schema(&inner));
    raw.get().starts_with('{') && lax::<Format<'_>>(raw).is_some_and(|format| is_schema(&format) || inner(&format))
}

/// A list of texts or of token lists is a list of prompts; a list of numbers is one prompt.
fn prompts(raw: &RawValue) -> Option<u64> {
    let items = raw.get().starts_with('[').then(|| lax::<Vec<&RawValue>>(raw)).flatten()?;
    items.first().filter(|first| first.get().starts_with(['"', '[']))?;
    Some(items.len() as u64)
}

fn lax<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// Where a value borrowed from the body stands in it.
fn span(body: &[u8], raw: &RawValue) -> (usize, usize) {
    let start = (raw.get().as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
    (start, start + raw.get().len())
}

fn at(body: &[u8], offset: usize, message: &str, param: Option<&str>) -> EnvelopeError {
    let before = &body[..offset.min(body.len())];
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1) + 1;
    EnvelopeError { message: message.to_owned(), param: param.map(str::to_owned), offset, line, column }
}

fn syntax(body: &[u8], error: &serde_json::Error) -> EnvelopeError {
    let (line, column) = (error.line(), error.column());
    let start = match line.checked_sub(2) {
        Some(newline) => memchr::memchr_iter(b'\n', body).nth(newline).map_or(0, |at| at + 1),
        None => 0,
    };
    let text = error.to_string();
    let cause = text.rsplit_once(" at line ").map_or(text.as_str(), |(cause, _)| cause);
    EnvelopeError {
        message: format!("the body is not valid JSON: {cause}"),
        param: None,
        offset: (start + column.saturating_sub(1)).min(body.len()),
        line,
        column,
    }
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;

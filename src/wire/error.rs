//! Error bodies: every server's shape read into one, and our own errors written in the caller's shape.
//!
//! Owns shapes only: which class an error is, is `dialect/`'s to say. Invariant: reading never fails; a body that
//! no rule fits becomes a short text.

use std::fmt;

use serde_json::{Map, Value};

mod write;

pub use write::{StreamShape, done};
pub use write::{Told, TrailNote, anthropic_body, openai_body, stream_error};

/// Longest message kept, in bytes.
const LONGEST: usize = 600;

/// Where an error comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The server reported it.
    #[default]
    Reported,
    /// What the server sent is not JSON.
    Undecodable,
}

/// An error as a server told it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireError {
    /// Reported by the server, or found by us.
    pub kind: ErrorKind,
    /// HTTP status: of the response, or as the body states it.
    pub status: Option<u16>,
    /// The error's type, or status name, such as `overloaded_error` or `RESOURCE_EXHAUSTED`.
    pub error_type: Option<String>,
    /// The error's code, where it is a word.
    pub code: Option<String>,
    /// A more exact code inside the first one (Azure's `innererror.code`).
    pub inner_code: Option<String>,
    /// The request member at fault.
    pub param: Option<String>,
    /// The message, shortened; may be empty.
    pub message: String,
}

impl WireError {
    /// An error with a message and nothing else known.
    pub fn new(message: impl AsRef<str>) -> Self {
        Self { message: short(message.as_ref()), ..Self::default() }
    }

    /// Data that is not the JSON it should be. Quotes nothing of it.
    pub fn undecodable(bytes: usize) -> Self {
        Self {
            kind: ErrorKind::Undecodable,
            message: format!("the server sent {bytes} bytes that are not JSON"),
            ..Self::default()
        }
    }

    /// Whether code, type or inner code is `word`, whatever the case.
    pub fn says(&self, word: &str) -> bool {
        [&self.code, &self.error_type, &self.inner_code]
            .into_iter()
            .flatten()
            .any(|said| said.eq_ignore_ascii_case(word))
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.code.as_deref().or(self.error_type.as_deref());
        match (word, self.message.is_empty()) {
            (Some(word), true) => f.write_str(word),
            (Some(word), false) => write!(f, "{word}: {}", self.message),
            (None, _) => f.write_str(&self.message),
        }
    }
}

/// Reads an error body of any known shape. `status` is the HTTP status, where there was one of its own.
pub fn parse(status: Option<u16>, body: &[u8]) -> WireError {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let mut error = match serde_json::from_slice::<Value>(body) {
        Ok(value) => from_value(&value),
        Err(_) => WireError::new(text(&String::from_utf8_lossy(&body[..body.len().min(64 << 10)]))),
    };
    error.status = status.or(error.status);
    error
}

/// The same for a value in hand.
pub fn from_value(value: &Value) -> WireError {
    match value {
        Value::Array(items) => items.first().map(from_value).unwrap_or_default(),
        Value::String(text) => WireError::new(text),
        Value::Object(outer) => from_object(outer),
        _ => WireError::default(),
    }
}

fn from_object(outer: &Map<String, Value>) -> WireError {
    let mut error = match outer.get("error") {
        Some(Value::Object(inner)) => members(inner),
        Some(Value::String(text)) => match serde_json::from_str::<Value>(text) {
            // Some relays put the upstream's JSON into a string.
            Ok(Value::Object(inner)) => from_object(&inner),
            _ => WireError { message: short(text), ..members(outer) },
        },
        // The error array of one server family, passed on by another as its error member.
        Some(Value::Array(items)) if !items.is_empty() => items.first().map(from_value).unwrap_or_default(),
        // Responses API: the failed response holds its error.
        _ => match outer.get("response").and_then(|response| response.get("error")) {
            Some(Value::Object(inner)) => members(inner),
            _ => members(outer),
        },
    };
    if error.error_type.as_deref() == Some("error") {
        error.error_type = None;
    }
    if let Some(kind) = outer.get("error_type").and_then(Value::as_str) {
        error.error_type = Some(kind.to_owned());
    }
    if error.status.is_none() {
        error.status = number(outer, &["statusCode", "status_code", "status", "http_status_code"]);
    }
    error
}

/// Reads the members of the object that holds the error.
fn members(object: &Map<String, Value>) -> WireError {
    let word = |name: &str| object.get(name).and_then(Value::as_str).filter(|word| !word.is_empty());
    let code = word("code").filter(|code| code.parse::<u16>().is_err());
    let message = ["message", "detail", "errors", "reason", "title"]
        .iter()
        .find_map(|name| object.get(*name).and_then(say))
        .unwrap_or_default();
    WireError {
        kind: ErrorKind::Reported,
        status: number(object, &["http_status_code", "code", "status", "statusCode"]),
        error_type: word("type").or_else(|| word("status")).map(short),
        code: code.map(short),
        inner_code: object.get("innererror").and_then(|inner| inner.get("code")).and_then(Value::as_str).map(short),
        param: word("param").map(short),
        message: short(&message),
    }
}

/// The text of a message in any of its forms: a string, a list of findings, an object around one of these.
fn say(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().take(8).filter_map(say).collect();
            (!texts.is_empty()).then(|| texts.join("; "))
        }
        Value::Object(object) => {
            let text = ["msg", "message", "detail", "error"].iter().find_map(|name| object.get(*name).and_then(say))?;
            let place: Vec<String> = match object.get("loc") {
                Some(Value::Array(steps)) => steps.iter().map(|step| step.to_string().replace('"', "")).collect(),
                _ => Vec::new(),
            };
            Some(if place.is_empty() { text } else { format!("{}: {text}", place.join(".")) })
        }
        _ => None,
    }
}

/// The first of these members that is an HTTP status, as a number or in digits.
fn number(object: &Map<String, Value>, names: &[&str]) -> Option<u16> {
    names.iter().find_map(|name| {
        let status = match object.get(*name)? {
            Value::Number(number) => u16::try_from(number.as_u64()?).ok(),
            Value::String(digits) => digits.parse().ok(),
            _ => None,
        };
        status.filter(|status| (300..600).contains(status))
    })
}

/// Plain words from a text or HTML page: its title if it has one.
fn text(page: &str) -> String {
    let lower = page.to_ascii_lowercase();
    if !lower.contains("<html") && !lower.contains("<!doctype") && !lower.contains("<title") {
        return page.to_owned();
    }
    let title = lower.find("<title").and_then(|open| {
        let start = open + lower[open..].find('>')? + 1;
        Some(page[start..start + lower[start..].find("</title")?].to_owned())
    });
    title.filter(|title| !title.trim().is_empty()).unwrap_or_else(|| strip_tags(page))
}

fn strip_tags(page: &str) -> String {
    let mut inside = false;
    page.chars()
        .filter_map(|c| match c {
            '<' => {
                inside = true;
                Some(' ')
            }
            '>' => {
                inside = false;
                None
            }
            c => (!inside).then_some(c),
        })
        .collect()
}

/// One line without control characters, cut at a character.
fn short(text: &str) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > LONGEST {
            let cut = (0..=LONGEST).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
            line.truncate(cut);
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
#[path = "error_tests.rs"]
mod tests;

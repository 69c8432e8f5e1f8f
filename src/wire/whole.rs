//! Complete answers: is it one, does it say anything, what did it cost.
//!
//! Owns reading a 2xx JSON body of any read surface; validates no content. Invariant: an error object inside a
//! success is found here, so that no caller ever gets one as an answer.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;

use super::chunk::{self, Said, truthy};
use super::error::{self, WireError};
use super::hollow::Full;
use super::{messages, responses};

/// What kind of answer a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// A chat completion.
    Chat,
    /// A completion.
    Completions,
    /// Embeddings.
    Embeddings,
    /// A response of the Responses API.
    Responses,
    /// A message of the Messages API.
    Messages,
    /// Any other JSON object.
    Other,
}

/// What a complete body turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whole {
    /// An answer.
    Answer {
        /// Tokens in and out, where told.
        usage: Option<(u64, u64)>,
        /// It finished of its own accord with nothing in it.
        empty: bool,
        /// It has reasoning and nothing else.
        reasoning_only: bool,
    },
    /// An error inside a success.
    Error(WireError),
    /// Not JSON: text, a page, or JSON cut short.
    NotJson,
    /// JSON, but no object.
    NotAnObject,
}

#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    object: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    detail: Full,
    #[serde(default)]
    id: Full,
    #[serde(borrow, default)]
    choices: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    stop_reason: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    message: Option<Said>,
    #[serde(default)]
    text: Full,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

/// Reads a complete success body. Blank lines before the JSON are fine: some servers send them while they wait.
pub fn read(kind: BodyKind, body: &[u8]) -> Whole {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body).trim_ascii();
    // Strings that are skipped are not looked into, so whether all of it is text is asked first.
    if std::str::from_utf8(body).is_err() {
        return Whole::NotJson;
    }
    let is_json = || serde_json::from_slice::<IgnoredAny>(body).is_ok();
    if body.first() != Some(&b'{') {
        if !is_json() {
            return Whole::NotJson;
        }
        return match serde_json::from_slice::<Value>(body) {
            Ok(Value::Array(items)) if items.first().is_some_and(|item| item.get("error").is_some()) => {
                Whole::Error(error::parse(None, body))
            }
            _ => Whole::NotAnObject,
        };
    }
    let probe = match serde_json::from_slice::<Probe<'_>>(body) {
        Ok(probe) => probe,
        // An object whose members have types of their own: let it pass, it says something.
        Err(_) if is_json() => return Whole::Answer { usage: None, empty: false, reasoning_only: false },
        Err(_) => return Whole::NotJson,
    };
    let reported = probe.error.is_some_and(|raw| truthy(raw.get()));
    let named = probe.object.as_deref() == Some("error") || probe.kind.as_deref() == Some("error");
    // An object listed by an API may have an `error` of its own, such as a failed batch.
    let stored = kind == BodyKind::Other && (probe.id.0 || probe.data.is_some());
    if named || (reported && !stored) {
        return Whole::Error(error::parse(None, body));
    }
    let bare = probe.choices.is_none() && probe.data.is_none() && probe.content.is_none();
    if probe.detail.0 && bare && !probe.id.0 && kind != BodyKind::Other {
        return Whole::Error(error::parse(None, body));
    }
    match kind {
        BodyKind::Chat | BodyKind::Completions => choices(&probe),
        BodyKind::Embeddings => Whole::Answer {
            usage: usage::<chunk::Tokens>(&probe).map(chunk::Tokens::pair),
            empty: probe.data.is_none_or(|raw| !truthy(raw.get())),
            reasoning_only: false,
        },
        BodyKind::Responses => response(body),
        BodyKind::Messages => message(&probe),
        BodyKind::Other => Whole::Answer { usage: None, empty: false, reasoning_only: false },
    }
}

fn usage<'a, T: Deserialize<'a>>(probe: &Probe<'a>) -> Option<T> {
    probe.usage.and_then(|raw| serde_json::from_str::<Option<T>>(raw.get()).ok().flatten())
}

fn choices(probe: &Probe<'_>) -> Whole {
    let counts = usage::<chunk::Tokens>(probe).map(chunk::Tokens::pair);
    let choices = match probe.choices.map(|raw| serde_json::from_str::<Vec<Choice<'_>>>(raw.get())) {
        Some(Ok(choices)) => choices,
        Some(Err(_)) if probe.choices.is_some_and(|raw| truthy(raw.get())) => {
            return Whole::Answer { usage: counts, empty: false, reasoning_only: false };
        }
        _ => Vec::new(),
    };
    let (mut answer, mut reasoning, mut excused) = (false, false, false);
    for choice in &choices {
        let reason = choice.finish_reason.as_deref().unwrap_or("");
        if chunk::broken(reason) {
            return Whole::Error(WireError {
                code: Some(reason.to_owned()),
                ..WireError::new(format!("the server ended the answer with finish_reason \"{reason}\""))
            });
        }
        excused |= chunk::excuses(reason);
        answer |= choice.text.0 || choice.message.is_some_and(|said| said.answer);
        reasoning |= choice.message.is_some_and(|said| said.reasoning);
    }
    judged(counts, answer, reasoning, excused)
}

fn response(body: &[u8]) -> Whole {
    let Ok(response) = serde_json::from_slice::<responses::Response<'_>>(body) else {
        return Whole::Answer { usage: None, empty: false, reasoning_only: false };
    };
    let counts = response.usage.map(responses::Tokens::pair);
    let status = response.status.as_deref();
    if matches!(status, Some("failed" | "cancelled")) {
        return Whole::Error(error::parse(None, body));
    }
    let says: Vec<_> = response.output.iter().flatten().map(responses::Item::says).collect();
    let (answer, reasoning) = (says.iter().any(|said| said.0), says.iter().any(|said| said.1));
    // A response in the background has nothing to say yet.
    judged(counts, answer, reasoning, !matches!(status, Some("completed") | None))
}

fn message(probe: &Probe<'_>) -> Whole {
    let counts = usage::<messages::Tokens>(probe).map(messages::Tokens::pair);
    let excused = probe
        .stop_reason
        .and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
        .is_some_and(|reason| messages::excuses(&reason));
    match probe.content.map(|raw| serde_json::from_str::<Vec<messages::Block<'_>>>(raw.get())) {
        Some(Ok(blocks)) => {
            let says: Vec<_> = blocks.iter().map(messages::Block::says).collect();
            judged(counts, says.iter().any(|said| said.0), says.iter().any(|said| said.1), excused)
        }
        Some(Err(_)) => judged(counts, probe.content.is_some_and(|raw| truthy(raw.get())), false, excused),
        // Token counts and the like are no message, and no empty one either.
        None => judged(counts, probe.kind.as_deref() != Some("message"), false, excused),
    }
}

fn judged(usage: Option<(u64, u64)>, answer: bool, reasoning: bool, excused: bool) -> Whole {
    Whole::Answer { usage, empty: !answer && !reasoning && !excused, reasoning_only: reasoning && !answer && !excused }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `.` an answer, `e` an empty one, `r` reasoning only, `E` an error, `J` not JSON, `O` no object; and usage.
    fn told(kind: BodyKind, body: &str) -> (char, Option<(u64, u64)>) {
        match read(kind, body.as_bytes()) {
            Whole::Answer { usage, empty: true, .. } => ('e', usage),
            Whole::Answer { usage, reasoning_only: true, .. } => ('r', usage),
            Whole::Answer { usage, .. } => ('.', usage),
            Whole::Error(_) => ('E', None),
            Whole::NotJson => ('J', None),
            Whole::NotAnObject => ('O', None),
        }
    }

    #[test]
    fn table() {
        use BodyKind::*;
        type Row = (BodyKind, &'static str, char, Option<(u64, u64)>);
        let rows: &[Row] = &[
            (
                Chat,
                r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
                '.',
                Some((1, 2)),
            ),
            (Chat, "\n\n\r\n {\"choices\":[{\"message\":{\"content\":\"Hi\"}}]}", '.', None),
            (
                Chat,
                r#"{"choices":[{"message":{"role":"assistant","content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#,
                'e',
                Some((1, 0)),
            ),
            (
                Chat,
                r#"{"choices":[{"message":{"role":"assistant","content":null},"finish_reason":"length"}]}"#,
                '.',
                None,
            ),
            (
                Chat,
                r#"{"choices":[{"message":{"role":"assistant","content":null},"finish_reason":"content_filter"}]}"#,
                '.',
                None,
            ),
            (
                Chat,
                r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"a","function":{"name":"f","arguments":""}}]},"finish_reason":"tool_calls"}]}"#,
                '.',
                None,
            ),
            (Chat, r#"{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"stop"}]}"#, '.', None),
            (Chat, r#"{"choices":[{"message":{"content":"","reasoning":"hm"},"finish_reason":"stop"}]}"#, 'r', None),
            (Chat, r#"{"choices":[]}"#, 'e', None),
            (Chat, r#"{"choices":null,"usage":null}"#, 'e', None),
            (Chat, r#"{"id":"x"}"#, 'e', None),
            (Chat, r#"{"choices":"odd"}"#, '.', None),
            (Chat, r#"{"choices":[{"message":{"content":""},"finish_reason":"error"}]}"#, 'E', None),
            (Chat, r#"{"error":{"message":"m"}}"#, 'E', None),
            (Chat, r#"{"error":{"code":502,"message":"m"},"choices":[]}"#, 'E', None),
            (Chat, r#"{"error":null,"choices":[{"message":{"content":"x"}}]}"#, '.', None),
            (Chat, r#"{"object":"error","message":"m"}"#, 'E', None),
            (Chat, r#"{"detail":"m"}"#, 'E', None),
            (Chat, r#"[{"error":{"code":429}}]"#, 'E', None),
            (Chat, "[1]", 'O', None),
            (Chat, "\"text\"", 'O', None),
            (Chat, "null", 'O', None),
            (Chat, "<html>", 'J', None),
            (Chat, "", 'J', None),
            (Chat, r#"{"choices":[{"message":{"content":"Hi"#, 'J', None),
            (Completions, r#"{"choices":[{"text":"x","finish_reason":"stop"}]}"#, '.', None),
            (Completions, r#"{"choices":[{"text":"","finish_reason":"stop"}]}"#, 'e', None),
            (
                Embeddings,
                r#"{"object":"list","data":[{"embedding":"AAAA","index":0}],"usage":{"prompt_tokens":4,"total_tokens":4}}"#,
                '.',
                Some((4, 0)),
            ),
            (Embeddings, r#"{"data":[]}"#, 'e', None),
            (
                Responses,
                r#"{"id":"r","status":"completed","error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"x"}]}],"usage":{"input_tokens":1,"output_tokens":2}}"#,
                '.',
                Some((1, 2)),
            ),
            (Responses, r#"{"id":"r","status":"completed","output":[]}"#, 'e', None),
            (Responses, r#"{"id":"r","status":"queued","output":[]}"#, '.', None),
            (Responses, r#"{"id":"r","status":"incomplete","output":[]}"#, '.', None),
            (Responses, r#"{"id":"r","status":"failed","error":{"code":"server_error","message":"m"}}"#, 'E', None),
            (Responses, r#"{"id":"r","status":"failed","error":null}"#, 'E', None),
            (
                Responses,
                r#"{"id":"r","status":"completed","output":[{"type":"reasoning","summary":[{"text":"hm"}]}]}"#,
                'r',
                None,
            ),
            (Responses, r#"{"id":"r","status":"completed","output":[{"type":"function_call","name":"f"}]}"#, '.', None),
            (
                Messages,
                r#"{"type":"message","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"cache_read_input_tokens":9,"output_tokens":2}}"#,
                '.',
                Some((10, 2)),
            ),
            (Messages, r#"{"type":"message","content":[],"stop_reason":"end_turn"}"#, 'e', None),
            (Messages, r#"{"type":"message","content":[],"stop_reason":"max_tokens"}"#, '.', None),
            (
                Messages,
                r#"{"type":"message","content":[{"type":"thinking","thinking":"x"}],"stop_reason":"end_turn"}"#,
                'r',
                None,
            ),
            (Messages, r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, 'E', None),
            (Messages, r#"{"input_tokens":7}"#, '.', None),
            (Other, r#"{"object":"list","data":[]}"#, '.', None),
            (Other, r#"{"error":"no such model"}"#, 'E', None),
            (Other, r#"{"id":"batch_1","error":{"message":"one line failed"}}"#, '.', None),
        ];
        for (kind, body, letter, usage) in rows {
            assert_eq!(told(*kind, body), (*letter, *usage), "{kind:?} {body}");
        }
    }

    proptest! {
        #[test]
        fn a_body_cut_anywhere_is_not_json(cut in 1usize..80) {
            let body = r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":null}  "#.trim();
            let cut = cut.min(body.len() - 1);
            prop_assert_eq!(read(BodyKind::Chat, &body.as_bytes()[..cut]), Whole::NotJson);
        }

        #[test]
        fn reading_never_panics(body in prop::collection::vec(any::<u8>(), 0..100)) {
            for kind in [BodyKind::Chat, BodyKind::Responses, BodyKind::Messages, BodyKind::Other] {
                let _ = read(kind, &body);
            }
        }
    }
}

//! Going on with an answer that broke off: which requests allow it, which servers can, and how they are asked.
//!
//! Owns the words. A server can if it takes the text so far as the beginning of its own answer, to the byte, and has a
//! way to show that it does. Invariant: what is not known to be harmless is not continued; a request is allowed by a list
//! of what may stand in it, never by a list of what may not.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Dialect;
use crate::call::Surface;

/// Whether this kind of server goes on from the text so far.
pub const fn can_continue(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Vllm | Dialect::LlamaCpp)
}

/// A chat request whose answer may be continued.
pub struct Request<'b> {
    members: BTreeMap<String, &'b RawValue>,
    limit: Option<(String, u64)>,
}

/// Where a server is asked something, and what.
pub type Question = (&'static str, Value);

impl<'b> Request<'b> {
    /// Reads a request; `None` where anything in it could make the continued answer another than the one asked for.
    pub fn read(surface: Surface, body: &'b [u8]) -> Option<Self> {
        if surface != Surface::Chat {
            return None;
        }
        let members: BTreeMap<String, &RawValue> = serde_json::from_slice(body).ok()?;
        let mut limit = None;
        for (name, raw) in &members {
            let value: Value = match name.as_str() {
                // What the model is told, and how it draws its next token: the same before and after.
                "model" | "messages" | "stream" | "stream_options" | "temperature" | "top_p" | "top_k" | "min_p"
                | "seed" | "user" => continue,
                _ => serde_json::from_str(raw.get()).ok()?,
            };
            let harmless = match (name.as_str(), &value) {
                (_, Value::Null) => true,
                ("max_tokens" | "max_completion_tokens", value) => {
                    let before = limit.replace((name.clone(), value.as_u64()?));
                    before.is_none()
                }
                ("n", value) => value.as_u64() == Some(1),
                ("logprobs", value) => *value == Value::Bool(false),
                ("tools" | "functions" | "stop", Value::Array(items)) => items.is_empty(),
                ("response_format", value) => *value == json!({"type": "text"}),
                // They look at what was said before, and of that the server would only know half.
                ("frequency_penalty" | "presence_penalty", value) => value.as_f64() == Some(0.0),
                _ => false,
            };
            if !harmless {
                return None;
            }
        }
        let messages: Vec<Role<'_>> = serde_json::from_str(members.get("messages")?.get()).ok()?;
        // An answer that was to begin with words of the caller's has its own rules.
        (messages.last()?.role != "assistant").then_some(Self { members, limit })
    }

    fn messages(&self, text: Option<&str>) -> Value {
        let raw = self.members.get("messages").map_or("[]", |raw| raw.get());
        let mut messages: Value = serde_json::from_str(raw).unwrap_or_default();
        if let (Some(text), Some(messages)) = (text, messages.as_array_mut()) {
            messages.push(json!({"role": "assistant", "content": text}));
        }
        messages
    }

    fn model(&self, model: Option<&str>) -> Value {
        let own = || self.members.get("model").and_then(|raw| serde_json::from_str(raw.get()).ok());
        model.map(Value::from).or_else(own).unwrap_or(Value::Null)
    }

    /// Asks what the server makes of the conversation: of it alone, or with `text` as the answer's beginning. The reply
    /// is read by [`prompt`] where it is text, by [`tokens`] where it is tokens at once.
    pub fn template(&self, dialect: Dialect, model: Option<&str>, text: Option<&str>) -> Question {
        let messages = self.messages(text);
        match dialect {
            Dialect::LlamaCpp => ("/apply-template", json!({"messages": messages})),
            _ => (
                "/tokenize",
                json!({"model": self.model(model), "messages": messages,
                    "add_generation_prompt": text.is_none(), "continue_final_message": text.is_some()}),
            ),
        }
    }

    /// Asks for the text of some tokens; the reply is read by [`text`].
    pub fn detokenize(&self, dialect: Dialect, model: Option<&str>, tokens: &[u64]) -> Question {
        match dialect {
            Dialect::LlamaCpp => ("/detokenize", json!({"tokens": tokens})),
            _ => ("/detokenize", json!({"model": self.model(model), "tokens": tokens})),
        }
    }

    /// The request that goes on from `text`, which was so many tokens; `None` where the answer's own limit leaves
    /// nothing more to say. Members that stay do so to the byte.
    pub fn resume(&self, dialect: Dialect, model: Option<&str>, text: &str, spent: u64) -> Option<String> {
        let mut members: BTreeMap<&str, String> =
            self.members.iter().map(|(name, raw)| (name.as_str(), raw.get().to_owned())).collect();
        let messages = members.get_mut("messages")?;
        let end = messages.rfind(']')?;
        messages.insert_str(end, &format!(",{}", json!({"role": "assistant", "content": text})));
        if let Some((name, limit)) = &self.limit {
            let left = limit.checked_sub(spent).filter(|left| *left > 0)?;
            members.insert(name, left.to_string());
        }
        if let Some(model) = model {
            members.insert("model", Value::from(model).to_string());
        }
        if dialect == Dialect::Vllm {
            members.insert("continue_final_message", "true".to_owned());
            members.insert("add_generation_prompt", "false".to_owned());
        }
        let members: Vec<String> = members.iter().map(|(name, raw)| format!("{}:{raw}", Value::from(*name))).collect();
        Some(format!("{{{}}}", members.join(",")))
    }
}

#[derive(Deserialize)]
struct Role<'a> {
    #[serde(borrow)]
    role: std::borrow::Cow<'a, str>,
}

/// Asks llama.cpp for the tokens of a whole prompt.
pub fn tokenize(prompt: &str) -> Question {
    ("/tokenize", json!({"content": prompt, "add_special": true, "parse_special": true}))
}

/// The prompt that llama.cpp makes of a conversation.
pub fn prompt(reply: &Value) -> Option<&str> {
    reply.get("prompt")?.as_str()
}

/// The tokens of a reply to `/tokenize`.
pub fn tokens(reply: &Value) -> Option<Vec<u64>> {
    reply.get("tokens")?.as_array()?.iter().map(Value::as_u64).collect()
}

/// The text of a reply to `/detokenize`.
pub fn text(reply: &Value) -> Option<&str> {
    ["content", "prompt"].iter().find_map(|name| reply.get(name)?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(more: &str) -> Option<String> {
        let body = format!(r#"{{"model":"m","stream":true,"messages":[{{"role":"user","content":"hi"}}]{more}}}"#);
        Request::read(Surface::Chat, body.as_bytes())?.resume(Dialect::LlamaCpp, None, "so far", 3)
    }

    #[test]
    fn only_what_is_known_to_be_harmless_is_continued() {
        for more in [
            "",
            r#","temperature":0.70,"top_p":1,"seed":4,"user":"me","n":1,"logprobs":false"#,
            r#","tools":[],"tool_choice":null,"response_format":{"type":"text"},"stop":null,"frequency_penalty":0"#,
            r#","max_tokens":4"#,
        ] {
            assert!(read(more).is_some(), "{more}");
        }
        for more in [
            r#","n":2"#,
            r#","logprobs":true"#,
            r#","top_logprobs":3"#,
            r#","tools":[{"type":"function"}]"#,
            r#","functions":[{}]"#,
            r#","tool_choice":"auto""#,
            r#","response_format":{"type":"json_object"}"#,
            r#","stop":"END""#,
            r#","stop":["END"]"#,
            r#","presence_penalty":0.5"#,
            r#","repetition_penalty":1.1"#,
            r#","guided_json":{}"#,
            r#","grammar":"root ::= x""#,
            r#","continue_final_message":true"#,
            r#","anything_new":1"#,
            r#","max_tokens":3"#,
            r#","max_tokens":9,"max_completion_tokens":9"#,
        ] {
            assert_eq!(read(more), None, "{more}");
        }
        for body in [
            r#"{"messages":[{"role":"assistant","content":"{"}]}"#,
            r#"{"messages":[]}"#,
            r#"{"messages":"hi"}"#,
            "{}",
            "[]",
        ] {
            assert!(Request::read(Surface::Chat, body.as_bytes()).is_none(), "{body}");
        }
        let chat = br#"{"messages":[{"role":"user","content":"hi"}]}"#;
        for surface in [Surface::Completions, Surface::Responses, Surface::Messages, Surface::Opaque] {
            assert!(Request::read(surface, chat).is_none(), "{surface:?}");
        }
    }

    #[test]
    fn members_stay_and_the_text_so_far_is_added() {
        let body = br#"{"model":"a","temperature":0.70,"max_tokens":10,"messages":[ {"role":"user","content":"hi"} ]}"#;
        let request = Request::read(Surface::Chat, body).unwrap();
        let resumed = request.resume(Dialect::Vllm, Some("b"), "so \"far\"", 4).unwrap();
        assert!(resumed.contains(r#""temperature":0.70"#) && resumed.contains(r#"{"role":"user","content":"hi"}"#));
        let value: Value = serde_json::from_str(&resumed).unwrap();
        assert_eq!((&value["model"], &value["max_tokens"]), (&json!("b"), &json!(6)));
        assert_eq!(value["messages"][1], json!({"role": "assistant", "content": "so \"far\""}));
        assert_eq!(value["continue_final_message"], true);
        assert_eq!(value["add_generation_prompt"], false);
        let plain = request.resume(Dialect::LlamaCpp, None, "x", 4).unwrap();
        assert!(!plain.contains("continue_final_message"), "it does so by itself");
    }
}

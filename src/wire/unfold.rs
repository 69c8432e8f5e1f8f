//! A whole answer as the stream it should have been, for servers that answer JSON to `stream: true`.
//!
//! Owns chat completions and completions; the other APIs have too many event kinds to invent. Invariant: read by
//! our own reader, what is written here is complete and says what the answer said.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::whole::BodyKind;

/// The answer as server-sent events, `[DONE]` included; `None` for what cannot be told so.
///
/// `include_usage`: the client asked for the usage chunk.
pub fn unfold(kind: BodyKind, body: &[u8], include_usage: bool) -> Option<Bytes> {
    let object = match kind {
        BodyKind::Chat => "chat.completion.chunk",
        BodyKind::Completions => "text_completion",
        _ => return None,
    };
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let Value::Object(mut head) = serde_json::from_slice(body).ok()? else { return None };
    let Some(Value::Array(choices)) = head.remove("choices") else { return None };
    if choices.is_empty() {
        return None;
    }
    let usage = head.remove("usage").filter(Value::is_object);
    head.insert("object".into(), object.into());
    let mut out = Writer { head, include_usage, text: String::new() };
    for (position, choice) in choices.into_iter().enumerate() {
        let Value::Object(mut choice) = choice else { return None };
        choice.entry("index").or_insert_with(|| position.into());
        if kind == BodyKind::Chat { out.chat(choice)? } else { out.completion(choice) }
    }
    if let Some(usage) = usage.filter(|_| include_usage) {
        out.event(json!([]), usage);
    }
    out.text.push_str("data: [DONE]\n\n");
    Some(Bytes::from(out.text))
}

struct Writer {
    /// The members every chunk has.
    head: Map<String, Value>,
    include_usage: bool,
    text: String,
}

impl Writer {
    fn event(&mut self, choices: Value, usage: Value) {
        let mut chunk = self.head.clone();
        chunk.insert("choices".into(), choices);
        if self.include_usage {
            chunk.insert("usage".into(), usage);
        }
        self.text.push_str("data: ");
        self.text.push_str(&Value::Object(chunk).to_string());
        self.text.push_str("\n\n");
    }

    fn chat(&mut self, mut choice: Map<String, Value>) -> Option<()> {
        let Some(Value::Object(mut message)) = choice.remove("message") else { return None };
        let index = choice.get("index").cloned().unwrap_or_default();
        let reason = finish(&mut choice, &message);
        let role = message.remove("role").unwrap_or_else(|| "assistant".into());
        let first = json!({ "role": role, "content": "" });
        self.event(json!([{ "index": index.clone(), "delta": first, "finish_reason": null }]), Value::Null);
        if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
            for (position, call) in calls.iter_mut().filter_map(Value::as_object_mut).enumerate() {
                call.insert("index".into(), position.into());
            }
        }
        message.retain(|_, value| !value.is_null());
        if !message.is_empty() {
            choice.insert("delta".into(), message.into());
            choice.insert("finish_reason".into(), Value::Null);
            self.event(json!([choice]), Value::Null);
        }
        self.event(json!([{ "index": index, "delta": {}, "finish_reason": reason }]), Value::Null);
        Some(())
    }

    fn completion(&mut self, mut choice: Map<String, Value>) {
        let index = choice.get("index").cloned().unwrap_or_default();
        let reason = finish(&mut choice, &Map::new());
        choice.insert("finish_reason".into(), Value::Null);
        self.event(json!([choice]), Value::Null);
        let last = json!([{ "index": index, "text": "", "logprobs": null, "finish_reason": reason }]);
        self.event(last, Value::Null);
    }
}

/// Why the choice finished; a whole answer that does not say has stopped, or waits for its tools.
fn finish(choice: &mut Map<String, Value>, message: &Map<String, Value>) -> Value {
    let calls = message.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
    match choice.remove("finish_reason") {
        Some(Value::String(reason)) if !reason.is_empty() => reason.into(),
        _ if calls => "tool_calls".into(),
        _ => "stop".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::chunk::ChunkReader;
    use crate::wire::sse::Decoder;
    use crate::wire::{End, StreamReader};

    fn play(kind: BodyKind, body: &Value, include_usage: bool) -> (Vec<Value>, ChunkReader) {
        let stream = unfold(kind, body.to_string().as_bytes(), include_usage).unwrap();
        let (mut decoder, mut out, mut reader) = (Decoder::new(1 << 20), Vec::new(), ChunkReader::new());
        decoder.push(stream, &mut out).unwrap();
        assert_eq!(decoder.pending(), 0);
        for frame in &out {
            reader.read(frame);
        }
        let last = out.pop().unwrap();
        assert_eq!(last.raw, "data: [DONE]\n\n");
        (out.iter().map(|frame| serde_json::from_slice(frame.data.as_ref().unwrap()).unwrap()).collect(), reader)
    }

    #[test]
    fn a_chat_answer() {
        let body = json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "f",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": null}, "logprobs": null, "finish_reason": "length"},
                {"message": {"role": "assistant", "content": null, "reasoning": "hm", "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}, "finish_reason": null},
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        });
        let (chunks, reader) = play(BodyKind::Chat, &body, true);
        assert_eq!((reader.ended(), reader.usage()), (End::Complete, Some((3, 4))));
        assert_eq!(chunks.len(), 7);
        assert!(chunks.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == "c"));
        assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        assert_eq!(chunks[0]["usage"], Value::Null);
        assert_eq!(chunks[1]["choices"][0]["delta"], json!({"content": "Hi"}));
        assert_eq!(chunks[2]["choices"][0]["finish_reason"], "length");
        assert_eq!(chunks[4]["choices"][0]["index"], 1);
        assert_eq!(chunks[4]["choices"][0]["delta"]["tool_calls"][1]["index"], 1);
        assert_eq!(chunks[4]["choices"][0]["delta"]["reasoning"], "hm");
        assert_eq!(chunks[5]["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!((&chunks[6]["choices"], &chunks[6]["usage"]["prompt_tokens"]), (&json!([]), &json!(3)));
        let (chunks, reader) = play(BodyKind::Chat, &body, false);
        assert_eq!((chunks.len(), reader.usage()), (6, None));
        assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
    }

    #[test]
    fn a_completion_and_an_empty_answer() {
        let body = json!({"id": "c", "choices": [{"text": "x", "index": 0, "finish_reason": "stop"}]});
        let (chunks, reader) = play(BodyKind::Completions, &body, true);
        assert_eq!((chunks.len(), reader.ended()), (2, End::Complete));
        assert_eq!(chunks[0]["choices"][0]["text"], "x");
        let body = json!({"choices": [{"message": {"role": "assistant", "content": null}}]});
        assert_eq!(play(BodyKind::Chat, &body, false).1.ended(), End::Empty);
    }

    #[test]
    fn what_cannot_be_told_as_a_stream() {
        for body in ["", "[]", "{}", r#"{"choices":[]}"#, r#"{"choices":[{"text":"x"}]}"#, r#"{"choices":[7]}"#] {
            assert_eq!(unfold(BodyKind::Chat, body.as_bytes(), true), None, "{body}");
        }
        assert_eq!(unfold(BodyKind::Responses, b"{}", true), None);
    }
}

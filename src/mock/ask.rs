//! What a request asks for, read leniently from any of the JSON surfaces.
//!
//! Owns the differences between their request fields. Judges nothing: an odd field is simply not seen. Invariant:
//! equal bodies give equal asks, whatever the call's number.

use serde_json::Value;

use super::dice;

/// The surface a call came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/responses`
    Responses,
    /// `/v1/messages`
    Messages,
}

/// What the answer's text must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Anything.
    Text,
    /// Any JSON object.
    Object,
    /// JSON that satisfies this schema.
    Schema(Value),
}

/// What the caller says about tools.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// The model may decide.
    Auto,
    /// No tool may be called.
    None,
    /// Some tool must be called.
    Required,
    /// This tool must be called.
    Named(String),
}

/// A tool on offer.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The JSON Schema of its arguments.
    pub parameters: Value,
}

/// One request, as far as the answer depends on it.
#[derive(Clone, Debug)]
pub struct Ask {
    /// By which surface it came.
    pub surface: Surface,
    /// The model, echoed in the answer.
    pub model: String,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// Whether the stream is to end with usage.
    pub include_usage: bool,
    /// How many choices.
    pub n: usize,
    /// The bound on the answer's tokens.
    pub max_tokens: Option<usize>,
    /// The tools on offer.
    pub tools: Vec<Tool>,
    /// What is said about them.
    pub choice: Choice,
    /// What the text must be.
    pub format: Format,
    /// Whether log probabilities are wanted.
    pub logprobs: bool,
    /// What the answer goes on from.
    pub said: Option<String>,
    /// Words in the prompt.
    pub prompt_tokens: u64,
    /// Hash of the model and the prompt.
    pub fingerprint: u64,
}

impl Ask {
    /// Reads a request body that came in by `surface`.
    pub fn read(surface: Surface, body: &Value) -> Ask {
        let prompt = match surface {
            Surface::Chat => text_of(&body["messages"]),
            Surface::Completions => text_of(&body["prompt"]),
            Surface::Responses => format!("{} {}", text_of(&body["instructions"]), text_of(&body["input"])),
            Surface::Messages => format!("{} {}", text_of(&body["system"]), text_of(&body["messages"])),
        };
        let model = body["model"].as_str().unwrap_or("mock-small").to_string();
        let limit = ["max_completion_tokens", "max_tokens", "max_output_tokens"];
        let max_tokens = limit.iter().find_map(|key| body[*key].as_u64()).map(|n| n as usize);
        let fingerprint = dice::hash(format!("{model}\n{prompt}").as_bytes());
        Ask {
            surface,
            model,
            stream: body["stream"].as_bool().unwrap_or(false),
            include_usage: body["stream_options"]["include_usage"].as_bool().unwrap_or(false),
            n: body["n"].as_u64().unwrap_or(1).clamp(1, 128) as usize,
            max_tokens,
            tools: tools(body),
            choice: choice(&body["tool_choice"]),
            format: format(body),
            logprobs: body["logprobs"].as_bool().unwrap_or(false),
            said: None,
            prompt_tokens: prompt.split_whitespace().count() as u64,
            fingerprint,
        }
    }
}

/// Every piece of text below `value`, in order, joined by spaces; roles, types and names are not text.
fn text_of(value: &Value) -> String {
    fn walk(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::String(text) => out.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| walk(item, out)),
            Value::Object(fields) => {
                for key in ["content", "text", "input", "output", "arguments", "tool_calls", "function"] {
                    if let Some(inner) = fields.get(key) {
                        walk(inner, out);
                    }
                }
            }
            _ => {}
        }
    }
    let mut out = Vec::new();
    walk(value, &mut out);
    out.join(" ")
}

fn tools(body: &Value) -> Vec<Tool> {
    let offered = body["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |tool: &Value| {
        let inner = if tool["function"].is_object() { &tool["function"] } else { tool };
        let name = inner["name"].as_str()?.to_string();
        let parameters = [&inner["parameters"], &inner["input_schema"]].into_iter().find(|p| p.is_object());
        Some(Tool { name, parameters: parameters.cloned().unwrap_or_else(|| serde_json::json!({ "type": "object" })) })
    };
    offered.iter().filter_map(read).collect()
}

fn choice(value: &Value) -> Choice {
    let word = value.as_str().or_else(|| value["type"].as_str()).unwrap_or("auto");
    let name = value["function"]["name"].as_str().or_else(|| value["name"].as_str());
    match (word, name) {
        ("function" | "tool", Some(name)) => Choice::Named(name.to_string()),
        ("required" | "any", _) => Choice::Required,
        ("none", _) => Choice::None,
        _ => Choice::Auto,
    }
}

fn format(body: &Value) -> Format {
    let wanted = if body["response_format"].is_object() { &body["response_format"] } else { &body["text"]["format"] };
    match wanted["type"].as_str() {
        Some("json_object") => Format::Object,
        Some("json_schema") => {
            let schema =
                if wanted["schema"].is_object() { &wanted["schema"] } else { &wanted["json_schema"]["schema"] };
            if schema.is_object() { Format::Schema(schema.clone()) } else { Format::Object }
        }
        _ => Format::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_surface_is_read_by_its_own_names() {
        let chat = Ask::read(
            Surface::Chat,
            &json!({"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "one two"}]}],
                "tools": [{"type": "function", "function": {"name": "f"}}],
                "tool_choice": {"type": "function", "function": {"name": "f"}}}),
        );
        assert_eq!((chat.prompt_tokens, &chat.choice), (2, &Choice::Named("f".into())));
        let messages = Ask::read(
            Surface::Messages,
            &json!({"system": "be brief", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9,
                "tools": [{"name": "g", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"}}),
        );
        assert_eq!((messages.prompt_tokens, messages.max_tokens, &messages.choice), (3, Some(9), &Choice::Required));
        let responses = Ask::read(
            Surface::Responses,
            &json!({"input": "hi", "text": {"format": {"type": "json_schema", "schema": {"type": "string"}}}}),
        );
        assert_eq!(responses.format, Format::Schema(json!({"type": "string"})));
    }
}

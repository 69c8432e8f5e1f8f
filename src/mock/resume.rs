//! Going on with an answer that the request brings along, as vLLM and llama.cpp do, and the paths that show it: the prompt
//! of a conversation, its tokens, and their text.
//!
//! Owns the stand-in's tokens. Invariant: tokens give back, to the byte, the text they were made of, and as many of them
//! as the answer's stream has.

use serde_json::{Value, json};

use super::ask::Surface;
use super::reply::split;
use super::words::Dialect;

/// Where the answer begins in a prompt.
const MARK: &str = "<|assistant|>";

/// Takes the answer to go on from out of a request, if it has one and the server would go on from it.
pub fn take(dialect: Option<Dialect>, surface: Surface, body: &mut Value) -> Option<String> {
    let wanted = match dialect {
        Some(Dialect::Llamacpp) => true,
        Some(Dialect::Vllm) => body["continue_final_message"] == true && body["add_generation_prompt"] == false,
        _ => false,
    };
    let messages = body["messages"].as_array_mut().filter(|_| wanted && surface == Surface::Chat)?;
    messages.pop_if(|last| last["role"] == "assistant" && last["content"].is_string())?["content"]
        .as_str()
        .map(str::to_owned)
}

/// What of `text` comes after what was said; a text that begins otherwise comes whole.
pub fn rest(text: &str, said: Option<&str>) -> String {
    said.and_then(|said| text.strip_prefix(said)).unwrap_or(text).to_owned()
}

/// The answer on one of the paths that show prompts and tokens; `None` where the server has no such path.
pub fn answer(dialect: Option<Dialect>, path: &str, body: &Value) -> Option<Value> {
    match (dialect?, path) {
        (Dialect::Llamacpp, "/apply-template") => Some(json!({"prompt": prompt(body)})),
        (Dialect::Llamacpp, "/tokenize") => Some(json!({"tokens": tokens(body["content"].as_str()?)})),
        (Dialect::Vllm, "/tokenize") => {
            let tokens = tokens(&prompt(body));
            Some(json!({"count": tokens.len(), "max_model_len": 4096, "tokens": tokens}))
        }
        (Dialect::Llamacpp, "/detokenize") => Some(json!({"content": text(&body["tokens"])?})),
        (Dialect::Vllm, "/detokenize") => Some(json!({"prompt": text(&body["tokens"])?})),
        _ => None,
    }
}

/// A conversation as the model would read it, an answer that is to be gone on with left open.
fn prompt(body: &Value) -> String {
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let open = body["continue_final_message"] != false;
    let (said, before) = match messages.split_last() {
        Some((last, before)) if last["role"] == "assistant" && open => (last["content"].as_str(), before),
        _ => (None, messages),
    };
    let told = |message: &Value| {
        format!("<|{}|>{}", message["role"].as_str().unwrap_or(""), message["content"].as_str().unwrap_or(""))
    };
    format!("{}{MARK}{}", before.iter().map(told).collect::<String>(), said.unwrap_or(""))
}

fn tokens(text: &str) -> Vec<u64> {
    let (prompt, said) = text.rsplit_once(MARK).unwrap_or((text, ""));
    let mark = if text.contains(MARK) { MARK } else { "" };
    let number = |part: &[u8]| part.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    // A token is its bytes, eight at most.
    let words = [split(prompt), split(mark), split(said)].concat();
    words.iter().flat_map(|word| word.as_bytes().chunks(8).map(number).collect::<Vec<_>>()).collect()
}

fn text(tokens: &Value) -> Option<String> {
    let bytes = tokens.as_array()?.iter().filter_map(Value::as_u64).flat_map(u64::to_le_bytes);
    String::from_utf8(bytes.filter(|byte| *byte != 0).collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_and_tokens_fit_together() {
        for dialect in [Dialect::Llamacpp, Dialect::Vllm] {
            let ask = |path: &str, body: Value| answer(Some(dialect), path, &body).unwrap();
            for said in ["four", "four words of it", "zażółć gęślą jaźń", "a \"b\"\n\n c"] {
                let user = json!({"role": "user", "content": "hi there"});
                let with = json!([user, {"role": "assistant", "content": said}]);
                let of = |messages: &Value| {
                    let template = if dialect == Dialect::Llamacpp { "/apply-template" } else { "/tokenize" };
                    let reply = ask(template, json!({"messages": messages}));
                    let reply = match reply["prompt"].as_str() {
                        Some(prompt) => ask("/tokenize", json!({"content": prompt})),
                        None => reply,
                    };
                    reply["tokens"].as_array().unwrap().clone()
                };
                let (before, all) = (of(&json!([user])), of(&with));
                let spoken = all.strip_prefix(before.as_slice()).unwrap();
                let back = ask("/detokenize", json!({"tokens": spoken}));
                assert_eq!(back.as_object().unwrap().values().next().unwrap(), said);
            }
        }
        assert_eq!(tokens(&format!("hi{MARK}four words of it")).len() - tokens(&format!("hi{MARK}")).len(), 4);
        assert_eq!(answer(None, "/tokenize", &json!({"content": "x"})), None);
        assert_eq!(answer(Some(Dialect::Openai), "/tokenize", &json!({"content": "x"})), None);
    }
}

//! The surfaces that generate no text: models, embeddings, health, token counts, binary, and the echo.
//!
//! Owns their shapes. Invariant: the raw echo gives back the request's body byte for byte.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ask::{Ask, Surface};
use super::base64;
use super::chat::CREATED;
use super::dice::{Dice, hash};
use super::http::Request;
use super::resume;
use super::scenario::Scenario;
use super::script::Draft;
use super::words::{Dialect, Trouble};

/// The answer to a request that is no generation.
pub fn answer(scenario: &Scenario, request: &Request) -> Result<Draft, Trouble> {
    let path = request.path();
    let json = |value: Value| Ok(Draft::whole(200, "application/json", value.to_string().into_bytes()));
    match (request.method.as_str(), path) {
        ("GET", "/health") => json(json!({"status": "ok"})),
        ("GET", "/props") if scenario.dialect == Some(Dialect::Llamacpp) => {
            let mut props = json!({"total_slots": scenario.slots.unwrap_or(1), "model_path": "mock.gguf"});
            if let Some(window) = scenario.context_window {
                props["default_generation_settings"] = json!({"n_ctx": window});
            }
            json(props)
        }
        ("GET", "/slots") if scenario.dialect == Some(Dialect::Llamacpp) => {
            let slot = |id| match scenario.context_window {
                Some(window) => json!({"id": id, "n_ctx": window}),
                None => json!({"id": id}),
            };
            json((0..scenario.slots.unwrap_or(1)).map(slot).collect())
        }
        ("GET", "/v1/models") => json(json!({"object": "list",
            "data": scenario.models.iter().map(|id| model(scenario, id)).collect::<Vec<_>>()})),
        ("GET", _) if path.starts_with("/v1/models/") => {
            let id = &path["/v1/models/".len()..];
            let known = scenario.models.iter().any(|model| model == id);
            if known { json(model(scenario, id)) } else { Err(Trouble::NotFound) }
        }
        ("POST", "/v1/embeddings") => match request.json() {
            Some(body) if body.is_object() => json(embeddings(scenario, &body)),
            _ => Err(Trouble::BadRequest),
        },
        ("POST", "/v1/messages/count_tokens") => {
            let body = request.json().unwrap_or(Value::Null);
            json(json!({"input_tokens": Ask::read(Surface::Messages, &body).prompt_tokens}))
        }
        ("POST", "/v1/audio/speech") => Ok(Draft::whole(200, "audio/mpeg", speech(scenario.seed, &request.body))),
        (_, "/v1/echo/raw") => {
            let kind = request.header("content-type").unwrap_or("application/octet-stream");
            Ok(Draft::whole(200, kind, request.body.clone()))
        }
        ("POST", "/apply-template" | "/tokenize" | "/detokenize") => {
            let body = request.json().unwrap_or(Value::Null);
            resume::answer(scenario.dialect, path, &body).ok_or(Trouble::NotFound).and_then(json)
        }
        _ if path.starts_with("/v1/") => json(echo(request)),
        _ => Err(Trouble::NotFound),
    }
}

fn model(scenario: &Scenario, id: &str) -> Value {
    let mut model = json!({"id": id, "object": "model", "created": CREATED, "owned_by": "mock"});
    if let Some(window) = scenario.context_window {
        model["max_model_len"] = json!(window);
        model["meta"] = json!({"n_ctx": window, "n_ctx_train": window});
    }
    model
}

fn echo(request: &Request) -> Value {
    json!({"method": request.method, "path": request.target, "headers": request.headers,
        "body_length": request.body.len(), "body_sha256": sha256(&request.body)})
}

/// The SHA-256 of `bytes` in hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn speech(seed: u64, body: &[u8]) -> Vec<u8> {
    let mut dice = Dice::of(&[seed, hash(body), 5]);
    (0..512).flat_map(|_| dice.next().to_le_bytes()).collect()
}

fn embeddings(scenario: &Scenario, body: &Value) -> Value {
    let inputs: Vec<String> = match &body["input"] {
        Value::Array(items) if items.iter().all(Value::is_number) => vec![body["input"].to_string()],
        Value::Array(items) => items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_string)).collect(),
        Value::String(text) => vec![text.clone()],
        other => vec![other.to_string()],
    };
    let model = body["model"].as_str().unwrap_or("mock-small");
    let length = body["dimensions"].as_u64().map_or(scenario.answer.dimensions, |n| n.min(65_536) as usize);
    let packed = body["encoding_format"] == "base64";
    let row = |(at, text): (usize, &String)| {
        let vector = vector(scenario.seed, model, text, length);
        let embedding = if packed {
            let bytes: Vec<u8> = vector.iter().flat_map(|n| n.to_le_bytes()).collect();
            json!(base64::encode(&bytes))
        } else {
            json!(vector)
        };
        json!({"object": "embedding", "index": at, "embedding": embedding})
    };
    let words: usize = inputs.iter().map(|text| text.split_whitespace().count()).sum();
    json!({"object": "list", "model": model, "data": inputs.iter().enumerate().map(row).collect::<Vec<_>>(),
        "usage": {"prompt_tokens": words, "total_tokens": words}})
}

/// A vector of length one.
fn vector(seed: u64, model: &str, text: &str, length: usize) -> Vec<f32> {
    let mut dice = Dice::of(&[seed, hash(model.as_bytes()), hash(text.as_bytes())]);
    let raw: Vec<f64> = (0..length).map(|_| dice.unit() - 0.5).collect();
    let norm = raw.iter().map(|n| n * n).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    raw.iter().map(|n| (n / norm) as f32).collect()
}

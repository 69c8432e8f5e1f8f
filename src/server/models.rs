//! `GET /v1/models` where there are several endpoints: what the routes name, and what the endpoints list.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Gateway, handle, respond};
use crate::call::{Attempt, AttemptKind, Call, CallError, Class, Fate, Outcome, Payload, Reply, Surface};

/// An endpoint that does not answer within this is left out.
const PATIENCE: Duration = Duration::from_secs(5);

/// The whole list, or the one model asked for.
pub async fn answer(gateway: &Arc<Gateway>, mut call: Call, wanted: Option<&str>) -> Response {
    let (id, started) = (call.id.clone(), call.started);
    let wanted = wanted.map(unpacked);
    call.path = "/models".to_owned();
    call.deadline = started + PATIENCE;
    let call = Arc::new(call);
    let lists = join_all((0..gateway.settings.endpoints.len()).map(|endpoint| list(gateway, &call, endpoint))).await;
    let mut models = named_by_routes(gateway);
    let mut seen: BTreeSet<String> = models.iter().filter_map(id_of).collect();
    for model in lists.into_iter().flatten() {
        if id_of(&model).is_some_and(|id| seen.insert(id)) {
            models.push(model);
        }
    }
    let found = match wanted.as_deref() {
        None => json!({ "object": "list", "data": models }),
        Some(wanted) => match models.into_iter().find(|model| id_of(model).as_deref() == Some(wanted)) {
            Some(model) => model,
            None => {
                let message = format!("no endpoint lists the model `{wanted}`, and no route names it");
                let error = CallError::local(Class::BadRequest, message).at("model").status(404);
                return handle::refuse(gateway, Surface::Models, started, error);
            }
        },
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let reply = Reply {
        status: 200,
        headers,
        payload: Payload::Whole(Bytes::from(found.to_string())),
        endpoint: "outrigger".to_owned(),
        route: "models".to_owned(),
        sends: gateway.settings.endpoints.len() as u32,
        outcome: Outcome::Ok,
        later: None,
        trail: Vec::new(),
        queued: Duration::ZERO,
        upstream: crate::clock::now().saturating_duration_since(started),
        usage: None,
        fate: Arc::new(Fate::default()),
    };
    handle::count_routeless(gateway, &id, Surface::Models, started, reply.status, None);
    respond::reply(&id, Surface::Models, started, reply, gateway.stop.when_cut(), gateway.live.enter())
}

/// An id out of a path: clients pack what is special in it (`%2F`), or leave it as it is.
fn unpacked(raw: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(raw.len()), raw.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| *byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(packed) => {
                bytes.push(packed);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Routes for one model by its full name are models of their own.
fn named_by_routes(gateway: &Gateway) -> Vec<Value> {
    let exact = gateway.settings.routes.iter().filter(|route| !route.model.contains(['*', '?']));
    exact.map(|route| json!({ "id": route.model, "object": "model", "created": 0, "owned_by": "outrigger" })).collect()
}

async fn list(gateway: &Gateway, call: &Arc<Call>, endpoint: usize) -> Vec<Value> {
    let attempt = Attempt {
        call: Arc::clone(call),
        number: 0,
        kind: AttemptKind::First,
        route: None,
        target: 0,
        endpoint,
        used: Vec::new(),
        unfit: Vec::new(),
        place: None,
        upload: None,
        continuation: None,
        report: Arc::new(|_| {}),
        fate: Arc::new(Fate::default()),
    };
    let Some(stack) = gateway.stacks.attempts.get(endpoint).cloned() else { return Vec::new() };
    let answer = tokio::time::timeout(PATIENCE, stack.oneshot(attempt)).await;
    let Ok(Ok(reply)) = answer else { return Vec::new() };
    let Payload::Whole(body) = reply.payload else { return Vec::new() };
    let listed = serde_json::from_slice::<Value>(&body).ok();
    let data = listed.and_then(|mut listed| listed.get_mut("data").map(Value::take));
    match data {
        Some(Value::Array(models)) => models,
        _ => Vec::new(),
    }
}

fn id_of(model: &Value) -> Option<String> {
    model.get("id")?.as_str().map(str::to_owned)
}

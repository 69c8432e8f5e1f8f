//! The admin port: metrics for Prometheus, probes for whoever runs us, the state of things as JSON, and a hand on the
//! breakers for whoever sits at this machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::accept::Peer;
use super::reload::unix;
use super::{Current, Gateway};
use crate::call::{BreakerState, Lack};
use crate::clock;
use crate::layer::state::CircuitView;

/// Everything on the admin port.
pub fn router(current: Current) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/livez", get(alive))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/api/v1/status", get(status))
        .route("/api/v1/breakers/{name}/{what}", post(breaker))
        .route("/api/v1/reload", post(reload))
        .route("/api/v1/drain", post(drain))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found; see / for what there is\n") })
        .with_state(current)
}

async fn index(State(gateway): State<Arc<Gateway>>) -> String {
    let base = format!("http://{}/v1", gateway.settings.server.listen);
    format!(
        "outrigger {}\n\nOPENAI_BASE_URL={base}\n\n/metrics        for Prometheus\n/livez          this process turns\n\
         /readyz         ready for calls (?verbose)\n/api/v1/status  routes and endpoints as JSON\n\
         /api/v1/breakers/NAME/{{open,close,auto}}  POST, from this machine\n\
         /api/v1/reload  POST, from this machine: reads the config again\n\
         /api/v1/drain   POST, from this machine: stops as at SIGTERM\n",
        env!("CARGO_PKG_VERSION")
    )
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    // Read where they are kept, at this moment: a copy that is told of every change would only be behind.
    let now = clock::now();
    gateway.stacks.breakers.settle(now);
    for (number, budgets) in gateway.stacks.budgets.iter().enumerate() {
        let left = budgets.iter().map(|budget| budget.left(now)).fold(1.0, f64::min);
        gateway.metrics.budget(number, left);
    }
    gateway.metrics.load.buffered(gateway.memory.held());
    let slots = &gateway.stacks.slots;
    for endpoint in 0..gateway.settings.endpoints.len() {
        gateway.metrics.load.endpoint(endpoint, slots.at(endpoint));
        let views = gateway.stacks.breakers.view(endpoint, now);
        let Some((whole, own)) = views.split_first() else { continue };
        gateway.metrics.breaker_is(endpoint, whole.state);
        for (number, route) in gateway.settings.routes.iter().enumerate() {
            if route.targets.iter().any(|target| target.endpoints.contains(&endpoint)) {
                let open = |view: &&CircuitView| view.route == Some(number) && view.state != BreakerState::Closed;
                gateway.metrics.models_open(endpoint, number, own.iter().filter(open).count());
            }
        }
    }
    for route in 0..gateway.settings.routes.len() {
        gateway.metrics.load.queue_depth(route, slots.waiting_of(route));
    }
    gateway.metrics.load.held(gateway.stacks.room.used());
    match gateway.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("metrics: {error}\n")).into_response(),
    }
}

/// Says that the process turns, whatever its upstreams do: an outage of a provider must not restart a fleet.
async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(gateway): State<Arc<Gateway>>, RawQuery(query): RawQuery) -> Response {
    let draining = gateway.stop.is_draining();
    let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    if query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))) {
        let text = format!(
            "config: loaded ({} routes, {} endpoints)\nlistening: {}\ndraining: {draining}\ncalls in flight: {}\n",
            gateway.settings.routes.len(),
            gateway.settings.endpoints.len(),
            gateway.settings.server.listen,
            gateway.live.count(),
        );
        return (status, text).into_response();
    }
    (status, if draining { "draining\n" } else { "ok\n" }).into_response()
}

async fn status(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    let now = clock::now();
    let endpoints: Vec<Value> = gateway
        .settings
        .endpoints
        .iter()
        .enumerate()
        .map(|(number, endpoint)| {
            let (limit, in_flight) = gateway.stacks.slots.at(number);
            json!({
                "name": endpoint.name,
                "url": endpoint.url,
                "dialect": endpoint.dialect.as_str(),
                "in_flight": in_flight,
                "limit": limit,
                "limit_mode": endpoint.concurrency.mode.as_str(),
                "limit_max": endpoint.concurrency.max,
                "breaker": told(&gateway, number),
                "abilities": abilities(&gateway, number),
                "probe": gateway.stacks.health.probed(number).map(|up| if up { "up" } else { "down" }),
            })
        })
        .collect();
    let name = |endpoint: &usize| gateway.settings.endpoints.get(*endpoint).map(|endpoint| endpoint.name.as_str());
    let routes: Vec<Value> = gateway
        .settings
        .routes
        .iter()
        .zip(&gateway.stacks.budgets)
        .zip(&gateway.stacks.pools)
        .map(|((route, budgets), pools)| {
            let targets: Vec<Value> = route
                .targets
                .iter()
                .zip(budgets.iter())
                .zip(pools)
                .map(|((target, budget), pool)| {
                    let endpoints: Vec<_> = target.endpoints.iter().filter_map(name).collect();
                    json!({ "endpoints": endpoints, "retry_budget_left": budget.left(now), "queued": gateway.stacks.slots.waiting(*pool) })
                })
                .collect();
            json!({ "name": route.name, "model": route.model, "targets": targets })
        })
        .collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": now.saturating_duration_since(gateway.started).as_secs(),
        "draining": gateway.stop.is_draining(),
        "calls_in_flight": gateway.live.count(),
        "config": {
            "hash": gateway.loaded.hash,
            "loaded_at": unix(gateway.loaded.at),
            "last_reload": gateway.reloads.last(),
        },
        "buffered_bytes": gateway.memory.held(),
        "routes": routes,
        "endpoints": endpoints,
        "keys": keys(&gateway, now),
    }))
}

/// What an endpoint is known to be able to do, and not: as configured or told, and as learnt from refusals.
fn abilities(gateway: &Gateway, endpoint: usize) -> Value {
    let view = gateway.stacks.capabilities.view(endpoint, clock::now());
    let supports: serde_json::Map<String, Value> =
        view.supports.iter().map(|(capability, can)| (capability.as_str().to_owned(), json!(can))).collect();
    let learnt = view.learnt.iter().map(|(lack, left)| {
        let window = if let Lack::Window(window) = lack { *window } else { None };
        json!({ "lacks": lack.as_str(), "tokens": window, "believed_for_s": left.as_secs() })
    });
    json!({ "context_window": view.window, "supports": supports, "learnt": learnt.collect::<Vec<_>>() })
}

/// The client keys by name, and where their limits stand.
fn keys(gateway: &Gateway, now: Instant) -> Vec<Value> {
    let keys = gateway.settings.server.keys.iter().map(|key| {
        let mut told = json!({ "name": key.name, "priority": key.priority.as_str() });
        let rate = gateway.stacks.rates.of(Some(&key.name));
        for (limit, standing) in rate.into_iter().flat_map(|rate| rate.standing(now)) {
            told[limit.as_str()] = json!({ "per_minute": standing.limit, "remaining": standing.remaining });
        }
        told
    });
    keys.collect()
}

/// The breaker of an endpoint: its own circuit, and below it those of models where several are known.
fn told(gateway: &Gateway, endpoint: usize) -> Value {
    let now = clock::now();
    let one = |view: &CircuitView| {
        json!({
            "state": view.state.as_str(),
            "reason": view.reason.map(|reason| reason.as_str()),
            "tries_again_in_s": view.lasts.map(|lasts| (lasts.as_secs_f64() * 10.0).ceil() / 10.0),
            "share": view.share,
        })
    };
    let views = gateway.stacks.breakers.view(endpoint, now);
    let Some((whole, own)) = views.split_first() else { return Value::Null };
    let mut told = one(whole);
    let named = own.iter().filter_map(|view| Some((&gateway.settings.routes.get(view.route?)?.name, view)));
    let models: Vec<Value> = named
        .map(|(name, view)| {
            let mut model = one(view);
            model["route"] = json!(name);
            model["model"] = json!(view.model);
            model
        })
        .collect();
    if !models.is_empty() {
        told["models"] = Value::Array(models);
    }
    told
}

async fn breaker(
    State(gateway): State<Arc<Gateway>>,
    Extension(Peer(peer)): Extension<Peer>,
    Path((name, what)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = from_here(peer, &headers) {
        return refusal.into_response();
    }
    let to = match what.as_str() {
        "open" => Some(BreakerState::ForcedOpen),
        "close" => Some(BreakerState::ForcedClosed),
        "auto" => None,
        _ => return (StatusCode::NOT_FOUND, "a breaker can be set to open, close or auto\n").into_response(),
    };
    let Some(number) = gateway.settings.endpoints.iter().position(|endpoint| endpoint.name == name) else {
        return (StatusCode::NOT_FOUND, "no endpoint has this name; see /api/v1/status\n").into_response();
    };
    gateway.stacks.breakers.force(number, to, clock::now());
    let mut told = told(&gateway, number);
    told["name"] = json!(name);
    Json(told).into_response()
}

/// What changes anything is for whoever sits at this machine.
fn from_here(peer: SocketAddr, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    // A page in a browser on this machine comes from here too, but it says where it is from.
    if peer.ip().to_canonical().is_loopback() && !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    Err((StatusCode::FORBIDDEN, "only from this machine, and not from a page in a browser\n"))
}

async fn reload(
    State(gateway): State<Arc<Gateway>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = from_here(peer, &headers) {
        return refusal.into_response();
    }
    match gateway.reloads.again().await {
        Ok(done) => Json(json!({
            "changed": done.changed,
            "hash": done.hash,
            "warnings": done.warnings,
            "needs_restart": done.needs_restart,
        }))
        .into_response(),
        Err(refused) if refused.bad_config => (StatusCode::UNPROCESSABLE_ENTITY, refused.said).into_response(),
        Err(refused) => (StatusCode::CONFLICT, refused.said).into_response(),
    }
}

async fn drain(
    State(gateway): State<Arc<Gateway>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = from_here(peer, &headers) {
        return refusal.into_response();
    }
    gateway.stop.wish();
    let told = json!({ "draining": true, "calls_in_flight": gateway.live.count() });
    (StatusCode::ACCEPTED, Json(told)).into_response()
}

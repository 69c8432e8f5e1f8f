//! The admin port: metrics for Prometheus, probes for whoever runs us, the state of things as JSON.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::Gateway;
use crate::clock;

/// Everything on the admin port.
pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/livez", get(alive))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/api/v1/status", get(status))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found; see / for what there is\n") })
        .with_state(gateway)
}

async fn index(State(gateway): State<Arc<Gateway>>) -> String {
    let base = format!("http://{}/v1", gateway.settings.server.listen);
    format!(
        "outrigger {}\n\nOPENAI_BASE_URL={base}\n\n/metrics        for Prometheus\n/livez          this process turns\n\
         /readyz         ready for calls (?verbose)\n/api/v1/status  routes and endpoints as JSON\n",
        env!("CARGO_PKG_VERSION")
    )
}

async fn metrics(State(gateway): State<Arc<Gateway>>) -> Response {
    // Read where they are kept, at this moment: a copy that is told of every change would only be behind.
    let now = clock::now();
    for (number, budgets) in gateway.stacks.budgets.iter().enumerate() {
        let left = budgets.iter().map(|budget| budget.left(now)).fold(1.0, f64::min);
        gateway.metrics.budget(number, left);
    }
    let slots = &gateway.stacks.slots;
    for endpoint in 0..gateway.settings.endpoints.len() {
        gateway.metrics.load.endpoint(endpoint, slots.at(endpoint));
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
        "routes": routes,
        "endpoints": endpoints,
    }))
}

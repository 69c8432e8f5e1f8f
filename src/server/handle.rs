//! The data port's one handler: who is it, what is asked, which route, and off it goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Version};
use tower::ServiceExt;

use super::{Gateway, auth, models, options, request, respond};
use crate::call::{
    CallEnd, CallError, CallRequest, Class, Outcome, Reply, RequestBody, Signal, Surface, Upload, Verdict,
};
use crate::layer::admit;
use crate::layer::state::LiveGuard;
use crate::policy::{RouteSettings, Spread};
use crate::{call::Call, clock};

/// Any request on the data port.
pub async fn any(State(gateway): State<Arc<Gateway>>, request: Request<Body>) -> Response {
    let stop = gateway.stop.clone();
    let keeps_alive = request.version() <= Version::HTTP_11;
    let mut response = answer(gateway, request).await;
    if keeps_alive && stop.is_draining() {
        // Whoever asks next is to connect to somebody who stays.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(gateway: Arc<Gateway>, request: Request<Body>) -> Response {
    let started = clock::now();
    let live = gateway.live.enter();
    let (parts, body) = request.into_parts();
    let Some((surface, rest)) = request::surface(&parts.method, parts.uri.path(), &parts.headers) else {
        let message =
            format!("nothing is served at `{}`: calls go to /v1, metrics are on the admin port", parts.uri.path());
        let error = CallError::local(Class::BadRequest, message).status(404);
        return refuse(&gateway, Surface::Opaque, started, error);
    };
    if request::is_upgrade(&parts.headers) {
        let message = "WebSocket upgrades are not carried; use the HTTP surface, or connect to the endpoint directly";
        let error = CallError::local(Class::BadRequest, message).at("upgrade").status(501);
        return refuse(&gateway, surface, started, error);
    }
    let key = match auth::check(&gateway.settings.server.keys, &parts.headers) {
        Ok(key) => key,
        Err(error) => return refuse(&gateway, surface, started, error),
    };
    let honoured = surface.has_model() && !gateway.settings.server.idempotency.ttl.is_zero();
    let idempotency_key = match honoured.then(|| options::idempotency_key(&parts.headers)).transpose() {
        Ok(key) => key.flatten(),
        Err(error) => return refuse(&gateway, surface, started, error),
    };
    let wanted_model = rest.strip_prefix("/models/").map(str::to_owned);
    let rate = gateway.stacks.rates.of(key.map(|key| key.name.as_str()));
    let server = &gateway.settings.server;
    let (memory, sink, by) = (&gateway.memory, gateway.sink.as_ref(), started + longest(&gateway));
    let door = request::Door { server, key, memory, sink, by };
    let (mut call, upload) = match request::read(parts, body, surface, door, started).await {
        Ok(read) => read,
        Err(error) => return refuse(&gateway, surface, started, error),
    };
    call.idempotency_key = idempotency_key;
    let mut response = called(&gateway, call, upload, wanted_model.as_deref(), live).await;
    if let Some(rate) = rate {
        respond::limits(response.headers_mut(), rate.standing(clock::now()));
    }
    response
}

/// The answer to a call.
async fn called(
    gateway: &Arc<Gateway>,
    mut call: Call,
    upload: Option<Upload>,
    wanted_model: Option<&str>,
    live: LiveGuard,
) -> Response {
    let (surface, started) = (call.surface, call.started);
    if surface == Surface::Models && gateway.settings.endpoints.len() > 1 {
        // It goes through no route's stack, and is a request like any other all the same.
        let rate = gateway.stacks.rates.of(call.key_name.as_deref());
        if let Some(Err(over)) = rate.map(|rate| rate.admit(&admit::asked(&call), clock::now())) {
            return refuse(gateway, surface, started, admit::refusal(&over));
        }
        return models::answer(gateway, call, wanted_model).await;
    }
    let Some(route) = route(gateway, &call) else {
        let error = unknown_model(gateway, &call);
        return refuse(gateway, surface, started, error);
    };
    call.prefix = prefix(&gateway.settings.routes[route], &call);
    let id = call.id.clone();
    match through(gateway, route, call, upload).await {
        Ok(reply) => respond::reply(&id, surface, started, reply, gateway.stop.when_cut(), live),
        Err(error) => respond::error(&id, surface, Some(&gateway.settings.routes[route].name), &error),
    }
}

/// How long a call may take by the most patient route.
fn longest(gateway: &Gateway) -> Duration {
    gateway.settings.routes.iter().map(|route| route.timeouts.total).max().unwrap_or_default()
}

/// The call through its route's stack, unless a shutdown ends it first.
async fn through(gateway: &Gateway, route: usize, call: Call, upload: Option<Upload>) -> Result<Reply, CallError> {
    let stack = gateway.stacks.calls[route].clone();
    let standing = Arc::clone(&call.standing);
    let cut = async {
        gateway.stop.when_cut().await;
        standing.fate.set(Verdict::Failed(Class::Shutdown));
    };
    tokio::select! {
        biased;
        answer = stack.oneshot(CallRequest { call, upload }) => answer,
        () = cut => {
            let mut error = CallError::local(Class::Shutdown, "Outrigger is shutting down; ask again elsewhere");
            error.retry_after = Some(Duration::from_secs(1));
            error.sends = standing.sends();
            Err(error)
        }
    }
}

/// Where a pool of the route goes by the beginning of prompts: a number for this one's.
fn prefix(route: &RouteSettings, call: &Call) -> Option<u64> {
    let RequestBody::Whole(body) = &call.body else { return None };
    let wanted = call.surface.has_model() && route.targets.iter().any(|target| target.by == Spread::Prefix);
    // Nobody may learn from how soon an answer comes what another key's prompts begin with.
    let salt = || [call.model.as_deref().unwrap_or_default(), call.key_name.as_deref().unwrap_or_default()];
    wanted.then(|| crate::wire::prefix::key(body, &salt())).flatten()
}

/// The first route whose glob matches; for calls without a model, the catch-all, else the first.
fn route(gateway: &Gateway, call: &Call) -> Option<usize> {
    let routes = &gateway.settings.routes;
    match (&call.model, call.surface) {
        (Some(model), _) => routes.iter().position(|route| crate::policy::glob::matches(&route.model, model)),
        (None, Surface::Opaque | Surface::Models) => {
            routes.iter().position(|route| route.model == "*").or((!routes.is_empty()).then_some(0))
        }
        (None, _) => routes.iter().position(|route| route.model == "*"),
    }
}

fn unknown_model(gateway: &Gateway, call: &Call) -> CallError {
    let globs: Vec<&str> = gateway.settings.routes.iter().map(|route| route.model.as_str()).collect();
    let message = match &call.model {
        Some(model) => {
            let shown: String = model.chars().take(80).collect();
            format!("no route matches the model `{shown}`; routes match {}", globs.join(", "))
        }
        None => format!("`model` is missing, and there is no catch-all route; routes match {}", globs.join(", ")),
    };
    let status = if call.model.is_some() { 404 } else { 400 };
    CallError::local(Class::BadRequest, message).at("model").status(status)
}

/// An error found before a route was: counted like any other.
pub(super) fn refuse(gateway: &Gateway, surface: Surface, started: Instant, error: CallError) -> Response {
    let id = clock::new_id();
    count_routeless(gateway, &id, surface, started, error.http_status(), Some(error.class));
    respond::error(&id, surface, None, &error)
}

/// A call that no route's stack has seen is counted all the same.
pub(super) fn count_routeless(
    gateway: &Gateway,
    id: &str,
    surface: Surface,
    started: Instant,
    status: u16,
    class: Option<Class>,
) {
    gateway.sink.emit(Signal::CallStarted { route: None });
    gateway.sink.emit(Signal::CallEnded(Box::new(CallEnd {
        id: id.to_owned(),
        route: None,
        surface,
        status,
        outcome: if class.is_some() { Outcome::Failed } else { Outcome::Ok },
        class,
        endpoint: None,
        sends: 0,
        streamed: false,
        took: clock::now().saturating_duration_since(started),
        first: None,
        overhead: None,
        usage: None,
        key_name: None,
    })));
}

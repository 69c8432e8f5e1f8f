//! From replies and errors to HTTP: statuses, headers and bodies, in the words of the API the call came in on.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::Full;

use super::body::{Complete, Events, Opaque};
use super::stop::Cut;
use crate::call::{CallError, Class, Failure, Fault, Outcome, Payload, Reply, Surface, TrailEntry};
use crate::clock;
use crate::dialect::error_shape;
use crate::layer::state::LiveGuard;
use crate::wire::error::{Told, TrailNote, anthropic_body, openai_body, stream_error as write_event};

const ID: HeaderName = HeaderName::from_static("x-outrigger-id");
const ROUTE: HeaderName = HeaderName::from_static("x-outrigger-route");
const ENDPOINT: HeaderName = HeaderName::from_static("x-outrigger-endpoint");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-outrigger-attempts");
const OUTCOME: HeaderName = HeaderName::from_static("x-outrigger-outcome");
const DEGRADED: HeaderName = HeaderName::from_static("x-outrigger-degraded");
const TRAIL: HeaderName = HeaderName::from_static("x-outrigger-trail");
const TIMING: HeaderName = HeaderName::from_static("server-timing");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A good answer, with what it took in its headers.
pub fn reply(id: &str, surface: Surface, started: Instant, reply: Reply, cut: Cut, live: LiveGuard) -> Response {
    let mut headers = reply.headers;
    put(&mut headers, ID, id);
    put(&mut headers, ROUTE, &reply.route);
    put(&mut headers, ENDPOINT, &reply.endpoint);
    put(&mut headers, ATTEMPTS, &reply.sends.to_string());
    put(&mut headers, OUTCOME, reply.outcome.as_str());
    if reply.outcome == Outcome::Fallback {
        put(&mut headers, DEGRADED, reply.outcome.as_str());
    }
    put_trail(&mut headers, &reply.trail);
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut timing = format!("queue;dur={:.2}, upstream;dur={:.2}", ms(reply.queued), ms(reply.upstream));
    if reply.trail.is_empty() {
        // With failed sends before it, the rest is waiting by design, not a cost of ours.
        let ours = clock::now().saturating_duration_since(started).saturating_sub(reply.queued + reply.upstream);
        timing.push_str(&format!(", outrigger;dur={:.2}", ms(ours)));
    }
    if let Ok(timing) = HeaderValue::from_str(&timing) {
        headers.append(TIMING, timing);
    }
    if !headers.contains_key(REQUEST_ID) {
        put(&mut headers, REQUEST_ID, id);
    }
    let body = match reply.payload {
        Payload::Whole(bytes) => {
            headers.remove(CONTENT_LENGTH);
            Body::new(Complete { bytes, _live: live })
        }
        Payload::Events(pieces) => {
            headers.remove(CONTENT_LENGTH);
            headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
            headers.entry(BUFFERING).or_insert(HeaderValue::from_static("no"));
            Body::new(Events {
                pieces,
                id: id.to_owned(),
                surface,
                cut,
                fate: reply.fate,
                _live: live,
                sent: 0,
                over: false,
            })
        }
        Payload::Opaque(pieces) => Body::new(Opaque { pieces, cut, _live: live }),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = headers;
    response
}

/// A call that has no answer.
pub fn error(id: &str, surface: Surface, route: Option<&str>, error: &CallError) -> Response {
    let (mut headers, body) = match &error.original {
        // The caller's to mend, so the endpoint's own words, unchanged.
        Some(original) => {
            let mut headers = original.headers.clone();
            headers.remove(CONTENT_LENGTH);
            (headers, original.body.clone())
        }
        None => {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (headers, told(id, surface, error))
        }
    };
    let status = error.http_status();
    put(&mut headers, ID, id);
    if let Some(route) = route {
        put(&mut headers, ROUTE, route);
    }
    put(&mut headers, ATTEMPTS, &error.sends.to_string());
    put(&mut headers, OUTCOME, "failed");
    if let Some(last) = error.trail.last().filter(|last| error.sends > 0 && !last.endpoint.is_empty()) {
        put(&mut headers, ENDPOINT, &last.endpoint);
    }
    put_trail(&mut headers, &error.trail);
    if !headers.contains_key(REQUEST_ID) {
        put(&mut headers, REQUEST_ID, id);
    }
    if matches!(status, 429 | 503) && !headers.contains_key(RETRY_AFTER) {
        let wait = error.retry_after.unwrap_or(Duration::from_secs(1));
        put(&mut headers, RETRY_AFTER, &wait.as_secs_f64().ceil().max(1.0).to_string());
    }
    if error.sends > 0 && (status >= 500 || matches!(status, 408 | 409 | 429)) {
        // Our tries are spent; an SDK that tried again would multiply them.
        put(&mut headers, SHOULD_RETRY, "false");
    }
    let mut response = Response::new(Body::new(Full::new(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

/// The last event of a stream that broke.
pub fn stream_error(id: &str, surface: Surface, failure: &Failure, sequence: u64) -> Bytes {
    let message = if failure.message.is_empty() { failure.class.meaning() } else { &failure.message };
    let message = format!("{}: {message}", failure.class);
    let told = Told {
        message: &message,
        error_type: error_type(failure.class, 0),
        code: failure.class.as_str(),
        param: None,
        id,
        attempts: &[],
    };
    write_event(error_shape(surface), &told, sequence)
}

/// A panic in a handler: the client gets an answer, the log gets the place.
pub fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    let fault = CallError::local(Class::Internal, "a fault in Outrigger; the log of this instance has the place");
    error(&clock::new_id(), Surface::Opaque, None, &fault)
}

fn told(id: &str, surface: Surface, error: &CallError) -> Bytes {
    let attempts: Vec<TrailNote<'_>> = error
        .trail
        .iter()
        .map(|entry| TrailNote { endpoint: &entry.endpoint, class: entry.class.as_str(), ms: entry.ms })
        .collect();
    let told = Told {
        message: &error.message,
        error_type: error_type(error.class, error.http_status()),
        code: error.class.as_str(),
        param: error.param.as_deref(),
        id,
        attempts: &attempts,
    };
    if surface == Surface::Messages { anthropic_body(&told) } else { openai_body(&told) }
}

/// The API's own word for the kind of error.
fn error_type(class: Class, status: u16) -> &'static str {
    match (class, class.fault()) {
        (_, _) if status == 401 => "authentication_error",
        (Class::RateLimited | Class::TenantLimit, _) => "rate_limit_error",
        (Class::UpstreamOverloaded, _) => "overloaded_error",
        (_, Fault::Caller) => "invalid_request_error",
        (_, Fault::Upstream | Fault::Credential | Fault::Answer) => "upstream_error",
        (_, Fault::Local | Fault::Client) => "gateway_error",
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn put_trail(headers: &mut HeaderMap, trail: &[TrailEntry]) {
    if trail.is_empty() {
        return;
    }
    let entries: Vec<String> =
        trail.iter().map(|entry| format!("{};class={};ms={}", entry.endpoint, entry.class, entry.ms)).collect();
    put(headers, TRAIL, &entries.join(", "));
}

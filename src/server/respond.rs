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
use crate::policy::rate::{Limit, Standing};
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
const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");
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
                complete: false,
                over: false,
            })
        }
        Payload::Opaque(pieces) => Body::new(Opaque { pieces, cut, fate: reply.fate, _live: live }),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = headers;
    response
}

/// Where the limits of the client's key stand. What an endpoint says of its own limits is not for this client then: they
/// are ours with it, not the client's with us.
pub fn limits(headers: &mut HeaderMap, standing: impl Iterator<Item = (Limit, Standing)>) {
    let theirs = |name: &HeaderName| {
        ["x-ratelimit-", "anthropic-ratelimit-"].iter().any(|prefix| name.as_str().starts_with(prefix))
    };
    let strange: Vec<HeaderName> = headers.keys().filter(|name| theirs(name)).cloned().collect();
    for name in strange {
        headers.remove(name);
    }
    for (limit, Standing { limit: a_minute, remaining, reset }) in standing {
        let (all, left, full) = match limit {
            Limit::Requests => (LIMIT_REQUESTS, REMAINING_REQUESTS, RESET_REQUESTS),
            Limit::Tokens => (LIMIT_TOKENS, REMAINING_TOKENS, RESET_TOKENS),
        };
        put(headers, all, &a_minute.to_string());
        put(headers, left, &remaining.to_string());
        put(headers, full, &span(reset));
    }
}

/// A duration as the OpenAI API writes it in headers: `120ms`, `7.66s`, `6m0s`. Rounded up.
fn span(duration: Duration) -> String {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}s", ms as f64 / 1000.0),
        _ => format!("{}m{}s", ms.div_ceil(1000) / 60, ms.div_ceil(1000) % 60),
    }
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
    let ours = status == 409 && error.original.is_none();
    if (ours || matches!(status, 429 | 503)) && !headers.contains_key(RETRY_AFTER) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_the_api_does() {
        for (nanos, text) in [
            (0, "0ms"),
            (1, "1ms"),
            (120_000_000, "120ms"),
            (999_999_999, "1s"),
            (7_660_000_000, "7.66s"),
            (59_999_000_001, "1m0s"),
            (360_000_000_000, "6m0s"),
            (3_661_000_000_000, "61m1s"),
        ] {
            assert_eq!(span(Duration::from_nanos(nanos)), text, "{nanos}");
        }
    }

    #[test]
    fn a_key_s_limits_take_the_place_of_the_endpoint_s() {
        let mut headers = HeaderMap::new();
        for name in
            ["x-ratelimit-limit-tokens", "x-ratelimit-other", "anthropic-ratelimit-tokens-reset", "openai-version"]
        {
            headers.insert(name, HeaderValue::from_static("theirs"));
        }
        let standing = Standing { limit: 10, remaining: 4, reset: Duration::from_secs(36) };
        limits(&mut headers, [(Limit::Requests, standing)].into_iter());
        let mut told: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        told.sort();
        let ours = ["limit-requests: 10", "remaining-requests: 4", "reset-requests: 36s"]
            .map(|it| format!("x-ratelimit-{it}"));
        assert_eq!(told, [&["openai-version: theirs".to_owned()], &ours[..]].concat());
    }
}

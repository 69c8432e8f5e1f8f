//! Error answers, whatever server they come from, sorted into the closed list of classes.
//!
//! Why: a breaker must not open because a caller's prompt was too long, a spent quota must not be retried, and a
//! rate limit must not look like an outage; yet servers say all of these with the same few statuses. What a server
//! *says* (a code, a type, for want of these its words) therefore goes before the status it says it with.
//!
//! Owns the sorting of HTTP errors and of errors inside streams and successes. Owns neither the reading of bodies
//! (`wire/`) nor what a class leads to (`policy/`, `server/`). Invariant: nothing a server sends can make a
//! failure looser than its class: `retry` is the class's own or stricter.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONNECTION, HeaderName};

use super::{Dialect, lacks, retry_after, words};
use crate::call::{Class, Failure, Lack, Original, Retry};
use crate::wire::{ErrorKind, WireError, error};

/// Longest message passed on, in bytes.
const LONGEST: usize = 300;

/// How long to leave a server that is loading its model, unless it says otherwise.
const LOADING: Duration = Duration::from_secs(2);

/// Fields that end at this hop and never belong to a kept answer.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Sorts an error answer. `wall` is the time of day, for dates in `retry-after`.
pub fn classify(dialect: Dialect, status: u16, headers: &HeaderMap, body: &[u8], wall: SystemTime) -> Failure {
    let error = error::parse(Some(status), body);
    let (class, lacks) = sorted(dialect, Some(status), &error, || by_status(status, &error));
    let mut failure = Failure::new(class, message(class, &error)).with_status(status);
    failure.lacks = lacks;
    if matches!(status, 300..=399 | 501 | 505) {
        failure.retry = stricter(failure.retry);
    }
    if says_no(headers) {
        failure.retry = stricter(failure.retry);
    }
    failure.retry_after = wait(class, status, headers, wall);
    if matches!(status, 400..=499) && is_for_the_caller(class) {
        let original = Original { status, headers: end_to_end(headers), body: Bytes::copy_from_slice(body) };
        failure.original = Some(Box::new(original));
    }
    if class == Class::Upstream500 {
        let mut hasher = DefaultHasher::new();
        (status, body).hash(&mut hasher);
        failure.fingerprint = Some(hasher.finish());
    }
    failure
}

/// Sorts an error found inside a stream or inside a success.
pub fn from_wire_error(dialect: Dialect, error: &WireError) -> Failure {
    let (class, lacks) = match error.kind {
        ErrorKind::Undecodable => (Class::Undecodable, None),
        ErrorKind::Reported => sorted(dialect, error.status, error, || {
            let by_status = error.status.filter(|status| *status >= 400).map(|status| by_status(status, error));
            by_status.or_else(|| words::kind(error)).unwrap_or(Class::InbandError)
        }),
    };
    let mut failure = Failure::new(class, message(class, error));
    failure.lacks = lacks;
    failure.status = error.status;
    failure.retry_after = (class == Class::ModelLoading).then_some(LOADING);
    failure
}

/// The class, and what the server lacks if that is why it refused.
fn sorted(
    dialect: Dialect,
    status: Option<u16>,
    error: &WireError,
    otherwise: impl FnOnce() -> Class,
) -> (Class, Option<Lack>) {
    match words::said(dialect, status, error) {
        Some(Class::ContextOverflow) => (Class::ContextOverflow, Some(Lack::Window(lacks::window(error)))),
        Some(class) => (class, None),
        // Whatever the status, it is the request that this model cannot serve, and no fault of the server's.
        None => match lacks::capability(status, error) {
            Some(capability) => (Class::Upstream400, Some(Lack::Of(capability))),
            None => (otherwise(), None),
        },
    }
}

/// What a status alone means.
fn by_status(status: u16, error: &WireError) -> Class {
    match status {
        401 | 403 | 407 => Class::UpstreamAuth,
        402 => Class::UpstreamQuota,
        408 | 425 | 499 => Class::UpstreamUnavailable,
        // A generation that failed, and capacity that is gone: two servers' own statuses.
        424 => Class::Upstream500,
        498 | 529 => Class::UpstreamOverloaded,
        429 => Class::RateLimited,
        400..=499 => Class::Upstream400,
        502..=504 | 520..=527 | 530 => Class::UpstreamUnavailable,
        200..=299 => words::kind(error).unwrap_or(Class::InbandError),
        _ => Class::Upstream500,
    }
}

fn wait(class: Class, status: u16, headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    match class {
        Class::RateLimited
        | Class::UpstreamOverloaded
        | Class::UpstreamUnavailable
        | Class::UpstreamQuota
        | Class::Upstream500 => {
            retry_after::parse(headers, wall).or_else(|| retry_after::reset(headers).filter(|_| status == 429))
        }
        Class::ModelLoading => Some(retry_after::parse(headers, wall).unwrap_or(LOADING)),
        _ => None,
    }
}

/// Classes whose original answer the caller should read. Never those that speak of our credential.
fn is_for_the_caller(class: Class) -> bool {
    matches!(
        class,
        Class::Upstream400
            | Class::ContextOverflow
            | Class::ContentFilter
            | Class::RateLimited
            | Class::ToolArgsInvalid
            | Class::InvalidJson
    )
}

fn says_no(headers: &HeaderMap) -> bool {
    headers.get("x-should-retry").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"false"))
}

fn stricter(retry: Retry) -> Retry {
    match retry {
        Retry::Again | Retry::Once => Retry::Elsewhere,
        other => other,
    }
}

/// The server's message, short; our own words where there is none, or where it may name our account.
fn message(class: Class, error: &WireError) -> String {
    let status = error.status.map(|status| format!(" ({status})")).unwrap_or_default();
    match class {
        Class::UpstreamAuth => return format!("the endpoint refused our credential{status}"),
        Class::UpstreamQuota => return format!("our quota at the endpoint is spent{status}"),
        _ => {}
    }
    if error.message.is_empty() {
        return match error.code.as_deref().or(error.error_type.as_deref()) {
            Some(word) => format!("the endpoint reported {word}{status}"),
            None => format!("the endpoint reported an error{status}"),
        };
    }
    match (0..=LONGEST).rev().find(|&cut| error.message.is_char_boundary(cut)) {
        Some(cut) if error.message.len() > LONGEST => format!("{}…", &error.message[..cut]),
        _ => error.message.clone(),
    }
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    let named = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|value| value.split(',')).filter_map(|name| HeaderName::try_from(name.trim()).ok()) {
        kept.remove(name);
    }
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

#[cfg(test)]
#[path = "errors_tests.rs"]
mod tests;

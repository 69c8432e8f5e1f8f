//! From an HTTP request to a call: the body within its bound, the envelope, the facts. The original bytes are kept.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use http::header::{CONTENT_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};

use super::intake::{self, Bounds};
use super::options;
use crate::call::{Asks, Call, CallError, Class, RequestBody, Signal, Sink, Surface, Upload};
use crate::clock;
use crate::config::{ClientKey, ServerSettings};
use crate::layer::state::Memory;
use crate::transport::headers::end_to_end;
use crate::wire::envelope;

/// The surface of a request; `None` outside `/v1`. The second part is what follows `/v1` in the path.
pub fn surface<'a>(method: &Method, path: &'a str, headers: &HeaderMap) -> Option<(Surface, &'a str)> {
    let rest = path.strip_prefix("/v1").filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
    let read = match (method, rest) {
        (&Method::POST, "/chat/completions") => Surface::Chat,
        (&Method::POST, "/completions") => Surface::Completions,
        (&Method::POST, "/embeddings") => Surface::Embeddings,
        (&Method::POST, "/responses") => Surface::Responses,
        (&Method::POST, "/messages") => Surface::Messages,
        (&Method::GET, "/models") => Surface::Models,
        (&Method::GET, rest) if rest.strip_prefix("/models/").is_some_and(|id| !id.is_empty()) => Surface::Models,
        _ => Surface::Opaque,
    };
    // A packed body cannot be read without unpacking it; it is carried as it is.
    let packed = headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    Some((if packed { Surface::Opaque } else { read }, rest))
}

/// A WebSocket handshake, which a proxy for calls cannot carry. Any other upgrade is an offer that a server may leave:
/// clients that would like HTTP/2 make it on every call in clear text.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(UPGRADE).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
}

/// What reading a request goes by.
#[derive(Clone, Copy)]
pub struct Door<'a> {
    /// The data port's settings.
    pub server: &'a ServerSettings,
    /// Who asks, where keys are asked for.
    pub key: Option<&'a ClientKey>,
    /// Where the memory for bodies comes from.
    pub memory: &'a Memory,
    /// Who is told of a call that there was no memory for.
    pub sink: &'a dyn Sink,
    /// When any call that began now is over at the latest.
    pub by: Instant,
}

/// The call a request asks for, and its body where that is passed on as it comes.
///
/// # Errors
/// `bad_request`, naming the member or header and the fix; `queue_full` where there is no memory to hold the body.
pub async fn read(
    parts: Parts,
    body: Body,
    surface: Surface,
    door: Door<'_>,
    started: Instant,
) -> Result<(Call, Option<Upload>), CallError> {
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let path = path.strip_prefix("/v1").unwrap_or(path).to_owned();
    let mut headers = end_to_end(parts.headers);
    let asked = options::take(&mut headers)?;
    let traceparent = trace_context(&headers);
    let asked_for = asked.options.priority;
    let priority = match door.key {
        Some(key) => asked_for.map_or(key.priority, |asked| asked.min(key.priority)),
        None => asked_for.unwrap_or_default(),
    };
    let mut upload = None;
    let safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE);
    let body = if surface.is_read() || (safe && http_body::Body::is_end_stream(&body)) {
        let bounds = Bounds {
            most: door.server.max_body,
            silence: door.server.body_timeout,
            by: asked.patience.map_or(door.by, |patience| door.by.min(started + patience)),
            memory: door.memory,
            class: priority,
        };
        let read = intake::whole(body, &headers, bounds).await;
        RequestBody::Whole(read.inspect_err(|error| {
            if error.class == Class::QueueFull {
                door.sink.emit(Signal::NoMemory { priority });
            }
        })?)
    } else {
        upload = Some(intake::passed_on(body, door.server.body_timeout));
        RequestBody::Streamed
    };
    let envelope = match &body {
        RequestBody::Whole(bytes) if surface.is_read() && surface != Surface::Models => {
            envelope::read(bytes).map_err(|error| {
                let wrong = CallError::local(Class::BadRequest, error.to_string());
                match error.param {
                    Some(param) => wrong.at(param),
                    None => wrong,
                }
            })?
        }
        _ => envelope::Envelope::default(),
    };
    let streams = matches!(surface, Surface::Chat | Surface::Completions | Surface::Responses | Surface::Messages);
    let call = Call {
        id: clock::new_id(),
        surface,
        method: parts.method,
        path,
        headers,
        max_tokens: envelope.max_tokens,
        prompt_bytes: body.held(),
        asks: Asks { tools: envelope.has_tools, json_schema: envelope.json_schema },
        prefix: None,
        body,
        model: envelope.model,
        model_span: envelope.model_span,
        stream: envelope.stream && streams,
        include_usage: envelope.includes_usage,
        choices: envelope.n.unwrap_or(1).max(1).saturating_mul(envelope.prompts.unwrap_or(1)),
        started,
        client_patience: asked.patience,
        deadline: started,
        options: asked.options,
        priority,
        client_retry: asked.client_retry,
        traceparent,
        key_name: door.key.map(|key| Arc::from(key.name.as_str())),
        idempotency_key: None,
        standing: Arc::default(),
    };
    Ok((call, upload))
}

/// The caller's trace context where it is well formed, else a new one.
fn trace_context(headers: &HeaderMap) -> String {
    let given = headers.get(HeaderName::from_static("traceparent")).and_then(|value| value.to_str().ok());
    match given {
        Some(context) if is_trace_context(context) => context.to_owned(),
        _ => format!("00-{}-{}-01", clock::random_hex::<16>(), clock::random_hex::<8>()),
    }
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero (W3C Trace Context, 3.2).
fn is_trace_context(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |len: usize| {
        parts
            .next()
            .filter(|part| part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
    };
    let (version, trace, parent, flags) = (hex(2), hex(32), hex(16), hex(2));
    let not_zero = |id: Option<&str>| id.is_some_and(|id| id.bytes().any(|b| b != b'0'));
    version.is_some_and(|version| version != "ff") && not_zero(trace) && not_zero(parent) && flags.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surfaces_are_told_by_method_and_path() {
        let none = HeaderMap::new();
        for (method, path, expected) in [
            (Method::POST, "/v1/chat/completions", Some((Surface::Chat, "/chat/completions"))),
            (Method::GET, "/v1/chat/completions", Some((Surface::Opaque, "/chat/completions"))),
            (Method::POST, "/v1/chat/completions/", Some((Surface::Opaque, "/chat/completions/"))),
            (Method::GET, "/v1/models", Some((Surface::Models, "/models"))),
            (Method::GET, "/v1/models/a/b:c", Some((Surface::Models, "/models/a/b:c"))),
            (Method::DELETE, "/v1/models/x", Some((Surface::Opaque, "/models/x"))),
            (Method::POST, "/v1/audio/speech", Some((Surface::Opaque, "/audio/speech"))),
            (Method::POST, "/v1", Some((Surface::Opaque, ""))),
            (Method::POST, "/v10/x", None),
            (Method::GET, "/", None),
        ] {
            assert_eq!(surface(&method, path, &none), expected, "{method} {path}");
        }
        let mut packed = HeaderMap::new();
        packed.insert(CONTENT_ENCODING, "zstd".parse().unwrap());
        assert_eq!(surface(&Method::POST, "/v1/responses", &packed), Some((Surface::Opaque, "/responses")));
    }

    #[test]
    fn a_trace_is_continued_where_it_is_well_formed() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_trace_context(good));
        for bad in [
            "",
            "00-x-y-01",
            &good.to_uppercase(),
            &good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &good[..50],
        ] {
            assert!(!is_trace_context(bad), "{bad}");
        }
        assert!(is_trace_context(&trace_context(&HeaderMap::new())));
    }
}

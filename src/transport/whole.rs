//! Complete answers: read within a limit, unpacked where need be, judged before anybody gets them.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use flate2::read::{GzDecoder, ZlibDecoder};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::call::{AttemptReply, Call, Class, Failure, Payload, Piece, Surface, Usage};
use crate::clock;
use crate::dialect::{self, Dialect};
use crate::wire::{unfold, whole};

/// Largest answer held, in bytes.
const LIMIT: usize = 64 * 1024 * 1024;
/// Largest error answer held, in bytes; more of it says nothing more.
const ERROR_LIMIT: usize = 1024 * 1024;

/// The whole body.
///
/// # Errors
/// `oversize_response` over the limit, `bad_framing` when it breaks off.
pub async fn collect(body: Incoming) -> Result<Bytes, Failure> {
    let (bytes, ended) = read_up_to(body, LIMIT).await;
    match ended {
        Ended::Well => Ok(bytes),
        Ended::Broken => {
            Err(Failure::new(Class::BadFraming, format!("the answer broke off after {} bytes", bytes.len())))
        }
        Ended::OverLimit => Err(Failure::new(Class::OversizeResponse, format!("the answer is over {LIMIT} bytes"))),
    }
}

/// As much of an error answer as came, up to a limit, and whether that is all of it.
pub async fn collect_some(body: Incoming) -> (Bytes, bool) {
    let (bytes, ended) = read_up_to(body, ERROR_LIMIT).await;
    (bytes, matches!(ended, Ended::Well))
}

enum Ended {
    Well,
    Broken,
    OverLimit,
}

async fn read_up_to(mut body: Incoming, limit: usize) -> (Bytes, Ended) {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let ended = loop {
        match body.frame().await {
            None => break Ended::Well,
            Some(Err(_)) => break Ended::Broken,
            Some(Ok(frame)) => {
                let Ok(data) = frame.into_data() else { continue };
                if first.len() + rest.len() + data.len() > limit {
                    break Ended::OverLimit;
                }
                if first.is_empty() && rest.is_empty() {
                    first = data;
                } else {
                    if rest.is_empty() {
                        rest.extend_from_slice(&std::mem::take(&mut first));
                    }
                    rest.extend_from_slice(&data);
                }
            }
        }
    };
    (if rest.is_empty() { first } else { rest.freeze() }, ended)
}

/// Unpacks a compressed body that was not asked for, so that it can be read.
///
/// # Errors
/// `bad_framing` when it is broken or of a kind we do not know, `oversize_response` when it grows over the limit.
pub fn unpack(body: Bytes, encoding: Option<&HeaderValue>) -> Result<Bytes, Failure> {
    let encoding = encoding.and_then(|value| value.to_str().ok()).unwrap_or("identity");
    let reader: Box<dyn Read + '_> = match encoding.trim().to_ascii_lowercase().as_str() {
        "identity" | "" => return Ok(body),
        "gzip" | "x-gzip" => Box::new(GzDecoder::new(&body[..])),
        "deflate" => Box::new(ZlibDecoder::new(&body[..])),
        other => return Err(Failure::new(Class::BadFraming, format!("cannot unpack content-encoding `{other}`"))),
    };
    let mut unpacked = Vec::new();
    match reader.take(LIMIT as u64 + 1).read_to_end(&mut unpacked) {
        Ok(len) if len > LIMIT => Err(Failure::new(Class::OversizeResponse, format!("over {LIMIT} bytes unpacked"))),
        Ok(_) => Ok(unpacked.into()),
        Err(_) => Err(Failure::new(Class::BadFraming, format!("the {encoding} body is broken"))),
    }
}

/// Judges a complete success answer: an error inside it, or nothing inside it, is a failure like any other.
///
/// # Errors
/// The class of whatever the body says, or of what it is not.
pub fn judge(
    call: &Call,
    dialect: Dialect,
    status: u16,
    mut headers: HeaderMap,
    body: Bytes,
    endpoint: usize,
) -> Result<AttemptReply, Failure> {
    let read = whole::read(dialect::body_kind(call.surface), &body);
    let (usage, empty) = match read {
        whole::Whole::Answer { usage, empty, .. } => (usage.map(|(input, output)| Usage { input, output }), empty),
        whole::Whole::Error(error) => return Err(dialect::from_wire_error(dialect, &error).with_status(status)),
        whole::Whole::NotJson | whole::Whole::NotAnObject => {
            let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
            let class = if kind.contains("json") { Class::Undecodable } else { Class::WrongContentType };
            let finding = format!("a success status with a body that is not a JSON object ({kind})");
            return Err(Failure::new(class, finding).with_status(status));
        }
    };
    if empty {
        return Err(Failure::new(Class::EmptyCompletion, "the model finished without saying anything"));
    }
    let mut payload = Payload::Whole(body.clone());
    if call.stream && call.surface != Surface::Embeddings {
        // A whole answer to a call that asked for a stream: clients would read zero events and a clean end.
        let Some(events) = unfold::unfold(dialect::body_kind(call.surface), &body, call.include_usage) else {
            return Err(Failure::new(Class::WrongContentType, "a whole answer where a stream was asked for"));
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        let piece = Piece { bytes: events, events: 1, usage, done: true };
        payload = Payload::Events(Box::pin(futures_util::stream::iter([Ok(piece)])));
    }
    Ok(AttemptReply { status, headers, payload, endpoint, first_at: clock::now(), usage })
}

//! Request bodies on their way in: within their size, their time and the memory there is for them.
//!
//! A body is read whole before anything is known of its call, so its memory is taken before the first byte is read. The
//! bytes themselves give it back, when the last of them is dropped. Invariant: no body is held that is not counted.

use std::error::Error;
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;

use crate::call::{CallError, Class, Priority, Upload};
use crate::clock;
use crate::layer::state::Memory;

/// What is told to whoever is refused for want of memory: bodies are short-lived.
const COME_BACK: Duration = Duration::from_secs(1);
/// A body of unknown length takes memory in steps of this, in bytes.
const STEP: usize = 64 * 1024;

/// How long the rest of a body is read and thrown away that was refused.
const SPILLING: Duration = Duration::from_secs(5);

/// What a body may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// Most bytes of it.
    pub most: usize,
    /// How long it may stand still.
    pub silence: Duration,
    /// When it must have arrived: no call is of use to anybody that is not read by then.
    pub by: Instant,
    /// Where its memory comes from.
    pub memory: &'a Memory,
    /// How much of that its call may have.
    pub class: Priority,
}

/// Why a body did not arrive.
enum Trouble {
    /// Nothing of it came in time.
    Late,
    /// It broke off.
    Broken,
}

/// The whole body.
///
/// # Errors
/// `bad_request` for a body that is too large, too slow or broken, `queue_full` where there is no memory for it.
pub async fn whole(mut body: Body, headers: &HeaderMap, bounds: Bounds<'_>) -> Result<Bytes, CallError> {
    let read = read(&mut body, headers, bounds).await;
    if read.as_ref().is_err_and(|error| matches!(error.http_status(), 413 | 503)) {
        spill(body);
    }
    read
}

/// Many clients read no answer before they have written all of their request; one whose connection is closed meanwhile
/// sees a broken pipe instead of the refusal.
fn spill(mut body: Body) {
    tokio::spawn(async move {
        let all = async { while let Some(Ok(_)) = body.frame().await {} };
        // Whoever is not done by then has been told long ago.
        drop(tokio::time::timeout(SPILLING, all).await);
    });
}

async fn read(body: &mut Body, headers: &HeaderMap, bounds: Bounds<'_>) -> Result<Bytes, CallError> {
    if http_body::Body::is_end_stream(body) {
        return Ok(Bytes::new());
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|len| len > bounds.most) {
        return Err(too_large(bounds.most));
    }
    let Bounds { class, memory, .. } = bounds;
    let mut hold = memory.take(announced.unwrap_or(0), class).ok_or_else(no_memory)?;
    let mut bytes: Vec<u8> = Vec::with_capacity(announced.unwrap_or(0));
    loop {
        let silent = clock::now() + bounds.silence;
        let data = match next(body, silent.min(bounds.by)).await {
            None => return Ok(hold.over(bytes)),
            Some(Ok(data)) => data,
            Some(Err(Trouble::Broken)) => {
                return Err(CallError::local(Class::BadRequest, "the body broke off before its announced end"));
            }
            Some(Err(Trouble::Late)) if silent < bounds.by => {
                return Err(too_slow(format!("the body stopped arriving for {} ms", bounds.silence.as_millis())));
            }
            Some(Err(Trouble::Late)) => {
                return Err(too_slow("the body took longer to arrive than the whole call may".to_owned()));
            }
        };
        let length = bytes.len() + data.len();
        if length > bounds.most {
            return Err(too_large(bounds.most));
        }
        let more = length.saturating_sub(hold.bytes());
        if more > 0 && !hold.grow(more.max(STEP), class) && !hold.grow(more, class) {
            return Err(no_memory());
        }
        bytes.extend_from_slice(&data);
    }
}

/// The body as it comes; it fails where it stands still.
pub fn passed_on(body: Body, silence: Duration) -> Upload {
    Box::pin(stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match next(&mut body, clock::now() + silence).await? {
            Ok(data) => Some((Ok(data), Some(body))),
            Err(Trouble::Late) => Some((Err(Box::<dyn Error + Send + Sync>::from("the body stopped arriving")), None)),
            Err(Trouble::Broken) => Some((Err("the body broke off".into()), None)),
        }
    }))
}

/// The next bytes, `None` at the end.
async fn next(body: &mut Body, until: Instant) -> Option<Result<Bytes, Trouble>> {
    loop {
        match tokio::time::timeout_at(until.into(), body.frame()).await {
            Err(_) => return Some(Err(Trouble::Late)),
            Ok(None) => return None,
            Ok(Some(Err(_))) => return Some(Err(Trouble::Broken)),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if !data.is_empty() => return Some(Ok(data)),
                // Trailers, which nobody asked for.
                _ => {}
            },
        }
    }
}

fn too_large(limit: usize) -> CallError {
    let message = format!("the body is over the limit of {limit} bytes; raise `server.max_body` to allow it");
    CallError::local(Class::BadRequest, message).status(413)
}

fn too_slow(message: String) -> CallError {
    CallError::local(Class::BadRequest, message).status(408)
}

fn no_memory() -> CallError {
    let message = "no memory is left to hold this body: `server.max_buffered` is used up by other calls";
    let mut error = CallError::local(Class::QueueFull, message);
    error.retry_after = Some(COME_BACK);
    error
}

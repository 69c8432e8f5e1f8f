//! Bodies as they pass through: bytes held whole, or a stream that one attempt may take.

use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;

use super::Failure;

/// A body that arrives in pieces; an `Err` item is always the last.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, Failure>> + Send>>;

/// A request body on its way upstream.
#[derive(Clone)]
pub enum RequestBody {
    /// Held in memory: can be sent any number of times.
    Whole(Bytes),
    /// Passed on as it arrives, so it can be sent once. The body itself travels beside the call.
    Streamed,
}

impl RequestBody {
    /// Whether a second send could carry the same body.
    pub fn replayable(&self) -> bool {
        matches!(self, RequestBody::Whole(_))
    }

    /// Bytes held, 0 for a streamed body.
    pub fn held(&self) -> usize {
        match self {
            RequestBody::Whole(bytes) => bytes.len(),
            RequestBody::Streamed => 0,
        }
    }
}

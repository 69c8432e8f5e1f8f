//! Bodies as they pass through: bytes held whole, or pieces of a stream.

use std::error::Error;
use std::pin::Pin;

use bytes::Bytes;
use futures_core::Stream;

use super::{Failure, Usage};

/// Some bytes of an answer, as they came.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// Bytes to forward; on event streams always whole events.
    pub bytes: Bytes,
    /// Model-progress events in them; 0 for keep-alives, lifecycle frames, and on bodies nobody looks into.
    pub events: u32,
    /// Tokens as reported up to here.
    pub usage: Option<Usage>,
    /// The stream's terminal marker is in these bytes: whatever follows, the answer is complete.
    pub done: bool,
}

/// An answer that arrives in pieces; an `Err` item is always the last.
pub type PieceStream = Pin<Box<dyn Stream<Item = Result<Piece, Failure>> + Send>>;

/// A request body that is passed on as it arrives.
pub type Upload = Pin<Box<dyn Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>> + Send>>;

/// A request body on its way upstream.
#[derive(Clone, Debug)]
pub enum RequestBody {
    /// Held in memory: can be sent any number of times.
    Whole(Bytes),
    /// Passed on as it arrives, so it can be sent once. The bytes travel beside the call.
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

//! The answer side: what a send brought back, and what the call gives to its client.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;

use super::{Fate, Outcome, PieceStream, TrailEntry};

/// Tokens as the upstream counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens, cached ones included.
    pub input: u64,
    /// Completion tokens, reasoning included.
    pub output: u64,
}

/// An answer's body.
pub enum Payload {
    /// Complete and checked.
    Whole(Bytes),
    /// Events of a stream whose first model event is in hand; an `Err` ends it without its terminal marker.
    Events(PieceStream),
    /// Bytes nobody looks into; an `Err` must break the connection.
    Opaque(PieceStream),
}

/// What one send brought back: for a stream, at its first model event.
pub struct AttemptReply {
    /// Upstream status, a success or, on opaque calls, anything.
    pub status: u16,
    /// Upstream headers, less hop-by-hop ones.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Payload,
    /// The endpoint that answered, as numbered in the settings.
    pub endpoint: usize,
    /// When the first model event (or the whole body) was in hand.
    pub first_at: Instant,
    /// Tokens, where the answer is whole and tells.
    pub usage: Option<Usage>,
}

/// What the call gives to its client.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Upstream's own end-to-end headers.
    pub headers: HeaderMap,
    /// The body.
    pub payload: Payload,
    /// Configured name of the endpoint that answered.
    pub endpoint: String,
    /// Configured name of the route.
    pub route: String,
    /// Sends made upstream up to now.
    pub sends: u32,
    /// How the answer came about.
    pub outcome: Outcome,
    /// Sends made after commit, counted as they go out; `None` where there will be none.
    pub later: Option<Arc<AtomicU32>>,
    /// Failed sends, in order.
    pub trail: Vec<TrailEntry>,
    /// How long the winning send waited for a place at its endpoint.
    pub queued: Duration,
    /// Time from the winning send's start to its first model event.
    pub upstream: Duration,
    /// Tokens, where the answer is whole and tells.
    pub usage: Option<Usage>,
    /// What the winning send counts as if the body is dropped before its end.
    pub fate: Arc<Fate>,
}

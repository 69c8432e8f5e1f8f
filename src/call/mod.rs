//! What flows through the stacks: a call, its attempts, its reply, its outcome.
//!
//! Owns the vocabulary every floor above shares; owns no behaviour beyond reading it. Invariant: a fact a
//! layer needs is a field here, never something looked up by type at run time.

mod body;
mod breaker;
mod capability;
mod class;
mod error;
mod reply;
mod request;
mod signal;

pub use body::{Piece, PieceStream, RequestBody, Upload};
pub use breaker::{BreakerChange, BreakerReason, BreakerState};
pub use capability::{Asks, Capability, Lack};
pub use class::{Class, Counts, Fault, Retry};
pub use error::{CallError, Failure, Original, TrailEntry};
pub use reply::{AttemptReply, Payload, Reply, Usage};
pub use request::{
    Attempt, AttemptKind, Call, CallRequest, Continuation, Fate, Milestone, Options, Place, Priority, Report, Standing,
    Surface,
};
pub use signal::{AttemptEnd, CallEnd, Outcome, Repeated, SendStage, SendStep, Signal, Sink, Verdict};

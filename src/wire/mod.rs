//! Shapes on the wire: event streams, JSON envelopes, error bodies, and what they mean.
//!
//! Owns the reading and writing of bytes as servers and SDKs have them; owns no judgement about whose fault an
//! error is or whether to send again (`dialect/` and `policy/`). Invariant: nothing here alters bytes it was not
//! asked to alter, and nothing here imports another part of the crate.

pub mod chunk;
pub mod envelope;
pub mod error;
mod hollow;
pub mod messages;
pub mod needs;
#[cfg(test)]
mod play;
pub mod prefix;
pub mod responses;
pub mod splice;
pub mod sse;
mod stream;
pub mod unfold;
pub mod whole;

pub use error::{ErrorKind, WireError};
pub use stream::{End, Meaning, StreamReader};

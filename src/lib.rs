//! Outrigger: a reverse proxy that keeps calls to language models upright.
//!
//! Read `stack.rs` first: it is the table of contents. `docs/ARCHITECTURE.md` says why it is so.

pub mod call;
pub mod config;
pub mod dialect;
pub mod mock;
pub mod policy;
pub mod transport;

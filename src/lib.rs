//! Outrigger: a reverse proxy that keeps calls to language models upright.
//!
//! Read `stack.rs` first: it is the table of contents. `docs/ARCHITECTURE.md` says why it is so.

pub mod call;
pub mod cli;
pub mod config;
pub mod dialect;
pub mod policy;
pub mod transport;

//! Outrigger: a reverse proxy that keeps calls to language models upright.
//!
//! Read `stack.rs` first: it is the table of contents. `docs/ARCHITECTURE.md` says why it is so.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests may look at the clock"))]

pub mod app;
pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dialect;
pub mod layer;
pub mod mock;
pub mod policy;
pub mod server;
pub mod stack;
pub mod telemetry;
pub mod transport;
pub mod wire;

//! Tests over the whole: stacks on a paused clock, and the real thing over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict")]

mod command;
mod history;
mod scenarios;
mod sockets;
mod support;

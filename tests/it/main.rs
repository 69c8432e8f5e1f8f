//! Tests over the whole: stacks on a paused clock, and the real thing over real sockets.

<<<<<<< HEAD
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "in a test a panic is the verdict")]
=======
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
>>>>>>> sock1

mod scenarios;
mod sockets;
mod support;

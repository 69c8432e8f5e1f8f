//! Tests over the whole: stacks on a paused clock, and the real thing over real sockets.

mod scenarios;
mod sockets;
mod support;

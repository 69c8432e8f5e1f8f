//! Ring three: real sockets, a stand-in model server that misbehaves, and what a client gets to see of it.

mod breaker;
mod faults;
mod first;

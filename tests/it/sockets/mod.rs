//! Ring three: real sockets, a stand-in model server that misbehaves, and what a client gets to see of it.

mod admin;
mod backpressure;
mod breaker;
mod cancel;
mod clocks;
mod connections;
mod cut;
mod dial;
mod door;
mod drain;
mod errors;
mod fallback;
mod faults;
mod first;
mod hedge;
mod hold;
mod hostile;
mod idempotency;
mod load;
mod models;
mod network;
mod passthrough;
mod probes;
mod reload;
mod rescue;
mod tools;

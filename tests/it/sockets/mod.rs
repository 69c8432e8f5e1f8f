//! Ring three: real sockets, a stand-in model server that misbehaves, and what a client gets to see of it.

mod admin;
mod backpressure;
mod cancel;
mod clocks;
mod drain;
mod errors;
mod first;
mod models;
mod passthrough;
mod tools;

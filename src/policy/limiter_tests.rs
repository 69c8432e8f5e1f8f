//! The limit against a server with slots.

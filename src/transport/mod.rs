//! The way to an endpoint: connections, requests, bodies read and judged as they come.

mod client;
mod connect;
mod events;
pub mod headers;
mod leaf;
mod proof;
mod props;
pub mod settings;
mod whole;

pub use connect::tls_config;
pub use leaf::Leaf;
pub use props::Props;
pub use settings::{Credential, EndpointSettings};

//! The way to an endpoint: connections, requests, bodies read and judged as they come.

mod asker;
mod client;
mod connect;
mod connection;
mod events;
pub mod headers;
mod leaf;
mod lookup;
mod probe;
mod props;
pub mod settings;
mod whole;

pub use connect::{Dialler, tls_config};
pub use leaf::Leaf;
pub use lookup::{Found, Lookup, SystemLookup};
pub use probe::HealthCheck;
pub use props::Props;
pub use settings::{Connections, Credential, EndpointSettings};

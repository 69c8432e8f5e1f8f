//! The way to an endpoint: connections, requests, bodies read and judged as they come.

pub mod settings;

pub use settings::EndpointSettings;

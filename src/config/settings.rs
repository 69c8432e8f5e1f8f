//! The whole configuration, resolved: plain values, every reference checked, every default filled in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::resolve::DATA_PORT;
use crate::call::Priority;
use crate::policy::{IdempotencySettings, RateLimits, RouteSettings};
use crate::transport::EndpointSettings;

/// Everything the process runs by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data port.
    pub server: ServerSettings,
    /// The admin port.
    pub admin: AdminSettings,
    /// Shutting down.
    pub drain: DrainSettings,
    /// Logging.
    pub log: LogSettings,
    /// Where state that survives a restart is kept; `None` keeps none.
    pub state_dir: Option<PathBuf>,
    /// At least one; numbered by position everywhere else.
    pub endpoints: Vec<EndpointSettings>,
    /// At least one; the first whose glob matches serves a call.
    pub routes: Vec<RouteSettings>,
}

/// The data port.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// Largest request body that is held, in bytes.
    pub max_body: usize,
    /// Most memory that held request bodies may take together, in bytes.
    pub max_buffered: usize,
    /// Largest request head, in bytes.
    pub max_header_bytes: usize,
    /// Connections served at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// How long a client may take to send a request head, the pause between two requests included.
    pub header_timeout: Duration,
    /// How long a request body may stand still.
    pub body_timeout: Duration,
    /// How long a client may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// Client keys; empty lets everybody in.
    pub keys: Vec<ClientKey>,
    /// Calls that come again with the same `Idempotency-Key`.
    pub idempotency: IdempotencySettings,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DATA_PORT),
            max_body: 32 << 20,
            max_buffered: 512 << 20,
            max_header_bytes: 64 << 10,
            max_connections: 10_000,
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            keys: Vec::new(),
            idempotency: IdempotencySettings::default(),
        }
    }
}

/// One client key, known only by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// Name for logs.
    pub name: String,
    /// SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Priority of its calls; a call may ask for less.
    pub priority: Priority,
    /// What its calls may ask for.
    pub limits: RateLimits,
}

/// The admin port.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Address and port.
    pub listen: SocketAddr,
}

/// Shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainSettings {
    /// How long to go on accepting after the readiness probe has turned.
    pub delay: Duration,
    /// How long calls in flight may take to finish.
    pub timeout: Duration,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One object a line.
    Json,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// `error`, `warn`, `info` or `debug`.
    pub level: String,
}

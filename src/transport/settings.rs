//! What an endpoint is: an address, a credential, a dialect, its own clocks.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::dialect::Dialect;
use crate::policy::{BreakerSettings, Concurrency, ProbeSettings, Supports, Timeouts};

/// Where an endpoint's credential comes from.
#[derive(Clone, Debug)]
pub enum Credential {
    /// None: nothing is sent, unless the client's own may be (see [`EndpointSettings::forward_client_key`]).
    None,
    /// Given in the config.
    Key(SecretString),
    /// Read from a file at start, trailing newline removed.
    File {
        /// Where it stands.
        path: PathBuf,
        /// What it held when it was read last.
        key: SecretString,
    },
}

/// One upstream base URL with one credential.
#[derive(Clone, Debug)]
pub struct EndpointSettings {
    /// Configured name, unique.
    pub name: String,
    /// Base URL with the API's prefix in it, without a trailing slash, such as `http://127.0.0.1:8080/v1`.
    pub url: String,
    /// Its credential.
    pub credential: Credential,
    /// Whether the client's own credential may be sent there: only when it has no other, the gateway asks for no
    /// key of its own, and every endpoint of the config is at one origin, so that it can reach no other host.
    pub forward_client_key: bool,
    /// What kind of server it is.
    pub dialect: Dialect,
    /// Sent instead of the model that the caller asked for.
    pub model: Option<String>,
    /// Tokens its model can hold, as configured.
    pub window: Option<u64>,
    /// What its model can and cannot do, as configured.
    pub supports: Supports,
    /// `connect` and `idle` are the endpoint's own.
    pub timeouts: Timeouts,
    /// Sends in flight there.
    pub concurrency: Concurrency,
    /// When it is left alone.
    pub breaker: BreakerSettings,
    /// Connections there.
    pub connections: Connections,
    /// How its health is asked for; `None` asks nothing.
    pub probe: Option<ProbeSettings>,
}

/// How long connections and the addresses of names are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// An older connection takes no further send; zero lets it grow as old as it likes.
    pub max_age: Duration,
    /// An older answer of the resolver is asked for again.
    pub dns_refresh: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(300), dns_refresh: Duration::from_secs(30) }
    }
}

impl EndpointSettings {
    /// Whether a connection that was made for `other` serves this one too.
    pub fn is_reached_as(&self, other: &Self) -> bool {
        let key = |it: &Self| match &it.credential {
            Credential::None => None,
            Credential::Key(key) | Credential::File { key, .. } => Some(key.expose_secret().to_owned()),
        };
        let (dial, other_dial) =
            ((self.timeouts.connect, self.connections), (other.timeouts.connect, other.connections));
        self.url == other.url && dial == other_dial && key(self) == key(other)
    }
}

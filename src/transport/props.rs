//! What llama.cpp's server says of itself: how many slots it has, and how much each holds, from `GET /props`.
//!
//! Silence is an answer too: a server that does not tell, or tells something else, is one nothing is known of. Invariant:
//! nothing here can fail a call.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty};
use rustls::ClientConfig;
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::client::HttpClient;
use super::settings::{Credential, EndpointSettings};
use super::whole;

/// A server that takes longer has other things to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// One endpoint that may be asked.
pub struct Props {
    client: HttpClient,
    uri: Uri,
    bearer: Option<HeaderValue>,
}

/// What it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Sends it works on at once.
    pub slots: usize,
    /// Tokens each of them can hold.
    pub window: Option<u64>,
}

#[derive(Deserialize)]
struct Said {
    total_slots: usize,
    default_generation_settings: Option<Generation>,
}

#[derive(Deserialize)]
struct Generation {
    n_ctx: Option<u64>,
}

impl Props {
    /// `None` where the URL leads to no such path.
    pub fn new(settings: &EndpointSettings, tls: Arc<ClientConfig>) -> Option<Self> {
        let base = settings.url.strip_suffix("/v1").unwrap_or(&settings.url);
        let bearer = match &settings.credential {
            Credential::None => None,
            Credential::Key(key) | Credential::File { key, .. } => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let client = HttpClient::new(tls, base.starts_with("https:"), settings.timeouts.connect);
        Some(Self { client, uri: format!("{base}/props").parse().ok()?, bearer })
    }

    /// Its slots and their window, if it tells.
    pub async fn told(&self) -> Option<Told> {
        tokio::time::timeout(PATIENCE, self.ask()).await.ok().flatten()
    }

    async fn ask(&self) -> Option<Told> {
        let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::new(body);
        *request.uri_mut() = self.uri.clone();
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        let response = self.client.send(request).await.ok()?;
        if !response.status().is_success() {
            return None;
        }
        let (body, _) = whole::collect_some(response.into_body()).await;
        let said = serde_json::from_slice::<Said>(&body).ok()?;
        let window = said.default_generation_settings.and_then(|each| each.n_ctx).filter(|window| *window > 0);
        Some(Told { slots: said.total_slots, window })
    }
}

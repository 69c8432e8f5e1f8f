//! What llama.cpp's server says of itself: how many slots it has, from `GET /props`.
//!
//! Silence is an answer too: a server that does not tell, or tells something else, is one nothing is known of. Invariant:
//! nothing here can fail a call.

use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::client::HttpClient;
use super::connect::Dialler;
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

#[derive(Deserialize)]
struct Told {
    total_slots: usize,
}

impl Props {
    /// `None` where the URL leads to no such path.
    pub fn new(settings: &EndpointSettings, dialler: &Dialler) -> Option<Self> {
        let base = settings.url.strip_suffix("/v1").unwrap_or(&settings.url);
        let bearer = match &settings.credential {
            Credential::None => None,
            Credential::Key(key) | Credential::File { key, .. } => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).ok()?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let client = HttpClient::new(dialler, settings, None);
        Some(Self { client, uri: format!("{base}/props").parse().ok()?, bearer })
    }

    /// Its slots, if it tells.
    pub async fn slots(&self) -> Option<usize> {
        tokio::time::timeout(PATIENCE, self.ask()).await.ok().flatten()
    }

    async fn ask(&self) -> Option<usize> {
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
        serde_json::from_slice::<Told>(&body).ok().map(|told| told.total_slots)
    }
}

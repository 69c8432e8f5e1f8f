//! What llama.cpp's server says of itself: how many slots it has, from `GET /props`.
//!
//! Silence is an answer too: a server that does not tell, or tells something else, is one nothing is known of. Invariant:
//! nothing here can fail a call.

use std::time::Duration;

use http::Uri;
use serde::Deserialize;

use super::asker::Asker;
use super::connect::Dialler;
use super::settings::EndpointSettings;

/// A server that takes longer has other things to do.
const PATIENCE: Duration = Duration::from_secs(5);

/// One endpoint that may be asked.
pub struct Props(Asker);

#[derive(Deserialize)]
struct Told {
    total_slots: usize,
}

impl Props {
    /// `None` where the URL leads to no such path.
    pub fn new(settings: &EndpointSettings, dialler: &Dialler) -> Option<Self> {
        let base: Uri = settings.url.strip_suffix("/v1").unwrap_or(&settings.url).parse().ok()?;
        let path = format!("{}/props", base.path().trim_end_matches('/'));
        Some(Self(Asker::new(settings, &path, dialler)?))
    }

    /// Its slots, if it tells.
    pub async fn slots(&self) -> Option<usize> {
        let (status, body) = tokio::time::timeout(PATIENCE, self.0.ask()).await.ok()?.ok()?;
        let told = status.is_success().then(|| serde_json::from_slice::<Told>(&body).ok());
        told.flatten().map(|told| told.total_slots)
    }
}

//! A small question to an endpoint beside the calls: one `GET`, its status and its short body.
//!
//! Its connections are its own, so no call ever waits for one. Invariant: the endpoint's credential goes to the origin
//! of its own URL only.

use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use secrecy::ExposeSecret;

use super::client::HttpClient;
use super::connect::Dialler;
use super::settings::{Credential, EndpointSettings};
use super::whole;
use crate::call::Failure;
use crate::dialect::{self, Dialect};

/// One question that can be asked again and again.
#[derive(Clone)]
pub struct Asker(Arc<Inner>);

struct Inner {
    client: HttpClient,
    uri: Uri,
    headers: HeaderMap,
}

impl Asker {
    /// Asks for `path` on the origin of the endpoint's URL; `None` where that makes no request.
    pub fn new(settings: &EndpointSettings, path: &str, dialler: &Dialler) -> Option<Self> {
        let base: Uri = settings.url.parse().ok()?;
        let uri = Uri::builder().scheme(base.scheme_str()?).authority(base.authority()?.as_str());
        let uri = uri.path_and_query(path).build().ok()?;
        let mut headers = HeaderMap::new();
        if let Credential::Key(key) | Credential::File { key, .. } = &settings.credential {
            let is_anthropic = dialect::detect(settings.dialect, &settings.url, &headers) == Dialect::Anthropic;
            let (name, value) = match is_anthropic {
                true => (HeaderName::from_static("x-api-key"), key.expose_secret().to_owned()),
                false => (AUTHORIZATION, format!("Bearer {}", key.expose_secret())),
            };
            let mut value = HeaderValue::from_str(&value).ok()?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Some(Self(Arc::new(Inner { client: HttpClient::new(dialler, settings, None), uri, headers })))
    }

    /// Asks.
    ///
    /// # Errors
    /// No response head came.
    pub async fn ask(&self) -> Result<(StatusCode, Bytes), Failure> {
        let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::new(body);
        *request.uri_mut() = self.0.uri.clone();
        request.headers_mut().clone_from(&self.0.headers);
        let response = self.0.client.send(request).await?;
        let status = response.status();
        let (body, _) = whole::collect_some(response.into_body()).await;
        Ok((status, body))
    }
}

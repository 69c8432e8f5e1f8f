//! Asks a server, before an answer is gone on with there, to show that it would go on from exactly the text so far.
//!
//! Three things have to be seen: that its prompt with the text is its prompt without, and then the text; that the same
//! holds of the tokens, so that none lies across the seam; and that the tokens of the text give the text back, to the
//! byte. Invariant: a server that does not tell, or tells anything else, is not asked to go on.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::client::HttpClient;
use super::whole;
use crate::call::{Failure, Usage};
use crate::dialect::Dialect;
use crate::dialect::continuation::{self, Question};

/// For all of the questions together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whom to ask.
pub struct Proof<'a> {
    /// The endpoint's own client.
    pub client: &'a HttpClient,
    /// Its base URL.
    pub url: &'a str,
    /// Its credential.
    pub bearer: Option<&'a HeaderValue>,
    /// The kind of server it is.
    pub dialect: Dialect,
    /// The model asked for there, where it is not the caller's.
    pub model: Option<&'a str>,
}

impl Proof<'_> {
    /// The tokens of the prompt and of the text so far, if all of it was shown.
    ///
    /// # Errors
    /// It was not; with the failure where the server could not be asked at all.
    pub async fn shown(&self, request: &continuation::Request<'_>, text: &str) -> Result<Usage, Option<Failure>> {
        tokio::time::timeout(PATIENCE, self.ask(request, text)).await.unwrap_or(Err(None))
    }

    async fn ask(&self, request: &continuation::Request<'_>, text: &str) -> Result<Usage, Option<Failure>> {
        let without = self.put(request.template(self.dialect, self.model, None)).await?;
        let with = self.put(request.template(self.dialect, self.model, Some(text))).await?;
        let (before, all) = match self.dialect {
            Dialect::LlamaCpp => {
                let without = continuation::prompt(&without).ok_or(None)?;
                let with = continuation::prompt(&with).filter(|with| with.strip_prefix(without) == Some(text));
                let before = self.put(continuation::tokenize(without)).await?;
                (before, self.put(continuation::tokenize(with.ok_or(None)?)).await?)
            }
            _ => (without, with),
        };
        let before = continuation::tokens(&before).ok_or(None)?;
        let all = continuation::tokens(&all).ok_or(None)?;
        let spoken = all.strip_prefix(before.as_slice()).filter(|spoken| !spoken.is_empty()).ok_or(None)?;
        let reply = self.put(request.detokenize(self.dialect, self.model, spoken)).await?;
        if continuation::text(&reply) != Some(text) {
            return Err(None);
        }
        Ok(Usage { input: before.len() as u64, output: spoken.len() as u64 })
    }

    async fn put(&self, (path, question): Question) -> Result<Value, Option<Failure>> {
        let base = self.url.strip_suffix("/v1").unwrap_or(self.url);
        let uri = format!("{base}{path}").parse::<Uri>().map_err(|_| None)?;
        let question = Bytes::from(question.to_string());
        let send = || {
            let body = Full::new(question.clone()).map_err(|never| match never {}).boxed_unsync();
            let mut request = Request::new(body);
            *request.method_mut() = Method::POST;
            *request.uri_mut() = uri.clone();
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Some(bearer) = self.bearer {
                request.headers_mut().insert(AUTHORIZATION, bearer.clone());
            }
            self.client.send(request)
        };
        let response = match send().await {
            // A connection that was just being closed; asking changes nothing.
            Err(failure) if failure.unsent => send().await?,
            response => response?,
        };
        if !response.status().is_success() {
            return Err(None);
        }
        let body = whole::collect(response.into_body()).await?;
        serde_json::from_slice(&body).map_err(|_| None)
    }
}

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
use crate::call::Usage;
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
    pub async fn shown(&self, request: &continuation::Request<'_>, text: &str) -> Option<Usage> {
        tokio::time::timeout(PATIENCE, self.ask(request, text)).await.ok().flatten()
    }

    async fn ask(&self, request: &continuation::Request<'_>, text: &str) -> Option<Usage> {
        let without = self.put(request.template(self.dialect, self.model, None)).await?;
        let with = self.put(request.template(self.dialect, self.model, Some(text))).await?;
        let (before, all) = match self.dialect {
            Dialect::LlamaCpp => {
                let (without, with) = (continuation::prompt(&without)?, continuation::prompt(&with)?);
                if with.strip_prefix(without) != Some(text) {
                    return None;
                }
                let before = self.put(continuation::tokenize(without)).await?;
                let all = self.put(continuation::tokenize(with)).await?;
                (continuation::tokens(&before)?, continuation::tokens(&all)?)
            }
            _ => (continuation::tokens(&without)?, continuation::tokens(&with)?),
        };
        let spoken = all.strip_prefix(before.as_slice())?;
        let reply = self.put(request.detokenize(self.dialect, self.model, spoken)).await?;
        let same = continuation::text(&reply) == Some(text) && !spoken.is_empty();
        same.then_some(Usage { input: before.len() as u64, output: spoken.len() as u64 })
    }

    async fn put(&self, (path, question): Question) -> Option<Value> {
        let base = self.url.strip_suffix("/v1").unwrap_or(self.url);
        let uri = format!("{base}{path}").parse::<Uri>().ok()?;
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
            Err(failure) if failure.unsent => send().await.ok()?,
            response => response.ok()?,
        };
        if !response.status().is_success() {
            return None;
        }
        let body = whole::collect(response.into_body()).await.ok()?;
        serde_json::from_slice(&body).ok()
    }
}

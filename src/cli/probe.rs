//! Asks every endpoint for its models, once, to see whether it is there and takes our key.
//!
//! Owns what an answer or its absence means to a person, and the fix. Not used by the running proxy. Invariant: a
//! credential is sent to its own endpoint only, and redirects are not followed.

use std::error::Error as _;
use std::time::Duration;

use futures_util::future::join_all;
use secrecy::{ExposeSecret, SecretString};

use crate::clock;
use crate::dialect::Dialect;
use crate::transport::settings::{Credential, EndpointSettings};

/// How long one endpoint may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found at one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its base URL.
    pub url: String,
    /// Whether calls can be expected to work.
    pub good: bool,
    /// What it answered.
    pub detail: String,
    /// What to do about it.
    pub fix: Option<String>,
}

/// Asks all endpoints at once.
pub fn all(endpoints: &[EndpointSettings]) -> anyhow::Result<Vec<Found>> {
    // Fails only if a provider is installed already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(join_all(endpoints.iter().map(|endpoint| one(&client, endpoint)))))
}

async fn one(client: &reqwest::Client, endpoint: &EndpointSettings) -> Found {
    let start = clock::now();
    let mut request = client.get(format!("{}/models", endpoint.url));
    if let Some(key) = key(&endpoint.credential) {
        let anthropic =
            endpoint.dialect == Dialect::Anthropic || endpoint.url.starts_with("https://api.anthropic.com/");
        request = if anthropic {
            request.header("x-api-key", key.expose_secret()).header("anthropic-version", "2023-06-01")
        } else {
            request.bearer_auth(key.expose_secret())
        };
    }
    let answer = match request.send().await {
        Ok(response) => {
            let status = response.status().as_u16();
            response.bytes().await.map(|body| (status, body))
        }
        Err(error) => Err(error),
    };
    let (good, detail, fix) = match answer {
        Ok((status, body)) => judge(endpoint, status, &body, clock::now().saturating_duration_since(start)),
        Err(error) => absent(&error),
    };
    Found { name: endpoint.name.clone(), url: endpoint.url.clone(), good, detail, fix }
}

fn key(credential: &Credential) -> Option<&SecretString> {
    match credential {
        Credential::None => None,
        Credential::Key(key) | Credential::File { key, .. } => Some(key),
    }
}

type Verdict = (bool, String, Option<String>);

fn judge(endpoint: &EndpointSettings, status: u16, body: &[u8], took: Duration) -> Verdict {
    let head = format!("{status} in {} ms", took.as_millis());
    match status {
        200 => match models(body) {
            Some(models) => listed(endpoint, &head, &models),
            None => {
                let fix = "is this a model server? `url` must end where `/chat/completions` begins, often in `/v1`";
                (false, format!("{head}, but no list of models"), Some(fix.to_owned()))
            }
        },
        401 | 403 if endpoint.forward_client_key => {
            (true, format!("{head}, asks for a key: clients send their own"), None)
        }
        401 | 403 => {
            let fix = match &endpoint.credential {
                Credential::None => "give the endpoint a `key` or a `key_file`",
                Credential::Key(_) => "the key is refused: correct `key`",
                Credential::File { .. } => "the key is refused: correct what is in `key_file`",
            };
            (false, head, Some(fix.to_owned()))
        }
        404 | 405 => {
            let fix = "there is no `/models` below `url`: it must end where `/chat/completions` begins, often in `/v1`";
            (false, head, Some(fix.to_owned()))
        }
        429 => (true, format!("{head}, limits our rate"), None),
        300..=399 => (false, head, Some("it redirects: write the address it points to as `url`".to_owned())),
        500..=599 => (false, head, Some("the server is there and fails: see its own log".to_owned())),
        _ => (false, head, Some("not an answer that a model server gives to `/models`".to_owned())),
    }
}

fn listed(endpoint: &EndpointSettings, head: &str, models: &[String]) -> Verdict {
    let count = format!("{head}, {} model{}", models.len(), if models.len() == 1 { "" } else { "s" });
    match &endpoint.model {
        Some(model) if !models.is_empty() && !models.contains(model) => {
            let shown: Vec<&str> = models.iter().take(4).map(String::as_str).collect();
            let fix = format!("note: it does not list `{model}`; it lists {}", shown.join(", "));
            (true, count, Some(fix))
        }
        _ => (true, count, None),
    }
}

fn models(body: &[u8]) -> Option<Vec<String>> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let list = value.get("data").or_else(|| value.get("models"))?;
    // Ollama without a model says `null`.
    if list.is_null() {
        return Some(Vec::new());
    }
    let name = |model: &serde_json::Value| Some(model.get("id").or_else(|| model.get("name"))?.as_str()?.to_owned());
    Some(list.as_array()?.iter().filter_map(name).collect())
}

fn absent(error: &reqwest::Error) -> Verdict {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain = format!("{chain}: {cause}");
        source = cause.source();
    }
    let text = chain.to_lowercase();
    let (detail, fix) = if error.is_timeout() {
        ("no answer within 5 s".to_owned(), "is the server busy, or a firewall between?")
    } else if text.contains("dns") || text.contains("lookup address") {
        ("its name does not resolve".to_owned(), "correct the host in `url`, or the name service of this machine")
    } else if text.contains("refused") {
        ("connection refused".to_owned(), "nothing listens there: start the server, or correct host and port in `url`")
    } else if text.contains("invalidcontenttype") || text.contains("corrupt message") {
        ("does not speak TLS".to_owned(), "write `http://` in `url`, or correct its port")
    } else if text.contains("certificate") || text.contains("tls") || text.contains("handshake") {
        ("TLS failed".to_owned(), "is it really https, and does this machine trust the certificate?")
    } else {
        let last = chain.rsplit(": ").next().unwrap_or("no answer").to_owned();
        (last, "something answers there, but not HTTP: is it `https://`, or another port?")
    };
    (false, detail, Some(fix.to_owned()))
}

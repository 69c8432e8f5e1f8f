//! What the socket tests share: a gateway over given upstreams, and a client that keeps what it saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use outrigger::app::{self, Running};
use outrigger::config::{AdminSettings, DrainSettings, LogFormat, LogSettings, ServerSettings, Settings};
use outrigger::dialect::Dialect;
use outrigger::mock::{self, Mock, Scenario};
use outrigger::policy::{
    BreakerSettings, Concurrency, QUEUE_WAIT, RetrySettings, RouteSettings, StreamSettings, Target, Timeouts,
};
use outrigger::transport::{Connections, Credential, EndpointSettings};

pub const ANY: &str = "127.0.0.1:0";

/// A model server that plays `scenario`.
pub async fn mock(scenario: &str) -> mock::Running {
    let scenario = Scenario::parse(scenario).unwrap_or_else(|error| panic!("{error}\n{scenario}"));
    Mock::start(ANY.parse().unwrap(), scenario).await.unwrap()
}

/// Settings as `outrigger run --upstream URL` has them, for each URL one endpoint (`e0`, `e1`, ...) and one route over
/// all of them, in order.
pub fn settings(urls: &[String]) -> Settings {
    let endpoint = |(number, url): (usize, &String)| EndpointSettings {
        name: format!("e{number}"),
        url: url.clone(),
        credential: Credential::None,
        forward_client_key: urls.len() == 1,
        dialect: Dialect::Auto,
        model: None,
        window: None,
        supports: Default::default(),
        timeouts: Timeouts::default(),
        concurrency: Concurrency::default(),
        breaker: BreakerSettings::default(),
        connections: Connections::default(),
        probe: None,
    };
    Settings {
        server: ServerSettings { listen: ANY.parse().unwrap(), ..ServerSettings::default() },
        admin: AdminSettings { listen: ANY.parse().unwrap() },
        drain: DrainSettings { delay: Duration::ZERO, timeout: Duration::from_secs(30) },
        log: LogSettings { format: LogFormat::Json, level: "error".into() },
        state_dir: None,
        endpoints: urls.iter().enumerate().map(endpoint).collect(),
        routes: vec![RouteSettings {
            name: "default".into(),
            model: "*".into(),
            targets: (0..urls.len()).map(|number| Target::of(vec![number])).collect(),
            timeouts: Timeouts::default(),
            retry: RetrySettings::default(),
            max_sends: 4,
            queue_wait: QUEUE_WAIT,
            hedge: Default::default(),
            streams: StreamSettings::default(),
        }],
    }
}

/// No breaker acts: for tests in which an endpoint fails again and again on purpose.
pub fn no_breakers(settings: &mut Settings) {
    settings.endpoints.iter_mut().for_each(|endpoint| endpoint.breaker.on = false);
}

/// A gateway in this process, over real sockets.
pub async fn gateway(settings: Settings) -> Running {
    app::start(settings).await.unwrap()
}

/// The gateway's base URL for clients.
pub fn base(gateway: &Running) -> String {
    format!("http://{}/v1", gateway.data())
}

/// A client that follows nothing, retries nothing, and waits half a minute at most.
pub fn http() -> reqwest::Client {
    app::install_tls();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

/// The chat body the tests send.
pub fn chat(stream: bool) -> String {
    format!(r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"hello"}}]}}"#)
}

/// An answer as its client saw it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
    /// The transfer broke before its end.
    pub broken: bool,
}

impl Answer {
    pub async fn of(sent: reqwest::Result<reqwest::Response>) -> Self {
        let mut response = sent.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let (mut body, mut broken) = (Vec::new(), false);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        Self { status, headers, body, broken }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `error.code`, of the body or of the last event of a stream.
    pub fn error_code(&self) -> Option<String> {
        let code = |value: serde_json::Value| Some(value.get("error")?.get("code")?.as_str()?.to_owned());
        if let Ok(value) = serde_json::from_slice(&self.body) {
            return code(value);
        }
        let text = self.text();
        let last = text.lines().filter_map(|line| line.strip_prefix("data:")).next_back()?;
        code(serde_json::from_str(last.trim()).ok()?)
    }

    /// What a client takes for a properly ended chat stream: a finish, `[DONE]`, and no error.
    pub fn looks_complete(&self) -> bool {
        let text = self.text();
        !self.broken
            && self.status == 200
            && !text.contains("\"error\"")
            && (text.contains("[DONE]") || !text.contains("data:"))
    }
}

/// Posts a chat call.
pub async fn post(http: &reqwest::Client, url: &str, body: impl Into<reqwest::Body>) -> Answer {
    Answer::of(http.post(url).header("content-type", "application/json").body(body).send().await).await
}

/// Gets a URL.
pub async fn get(http: &reqwest::Client, url: &str) -> Answer {
    Answer::of(http.get(url).send().await).await
}

/// The value of one series in the gateway's metrics.
pub async fn metric(http: &reqwest::Client, admin: SocketAddr, series: &str) -> f64 {
    let text = get(http, &format!("http://{admin}/metrics")).await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)).map(|value| value.trim().parse().unwrap());
    value.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
}

/// What a chat answer says, streamed or whole: for each choice its text and why it finished.
pub fn said(body: &[u8]) -> BTreeMap<u64, (String, String)> {
    let text = String::from_utf8_lossy(body).replace("\r\n", "\n").replace('\r', "\n");
    let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let chunks: Vec<serde_json::Value> = match serde_json::from_slice(body) {
        Ok(whole) => vec![whole],
        Err(_) => events.filter_map(|data| serde_json::from_str(data.trim()).ok()).collect(),
    };
    let mut said: BTreeMap<u64, (String, String)> = BTreeMap::new();
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].as_array()).flatten() {
        let (text, finish) = said.entry(choice["index"].as_u64().unwrap_or(0)).or_default();
        for part in ["delta", "message"] {
            text.push_str(choice[part]["content"].as_str().unwrap_or_default());
        }
        finish.push_str(choice["finish_reason"].as_str().unwrap_or_default());
    }
    said
}

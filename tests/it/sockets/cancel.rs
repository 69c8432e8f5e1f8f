//! The client goes away: in whatever phase, the model is let go at once, and the call counts once, as cancelled.

use std::time::Duration;

use outrigger::app::Running;
use outrigger::config::Settings;
use outrigger::mock;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::tools::{Raw, eventually, request, total};
use crate::support::{ANY, chat, gateway, http, mock, settings};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

async fn called(settings: Settings, path: &str, stream: bool) -> (Running, Raw) {
    let gateway = gateway(settings).await;
    let raw = Raw::send(gateway.data(), request("POST", path, &[], chat(stream).as_bytes())).await;
    (gateway, raw)
}

/// The stand-in sees the client's leaving within the promised second.
async fn let_go(upstream: &mock::Running) {
    let cancelled = timeout(Duration::from_secs(1), upstream.until(|stats| stats.cancelled == 1)).await;
    let stats = cancelled.unwrap_or_else(|_| panic!("not let go within a second: {:?}", upstream.stats()));
    assert_eq!((stats.active, stats.calls), (0, 1), "nothing more is sent");
}

/// One call, cancelled; `sends` sends, each ended by its client's leaving; nothing left in flight.
async fn counted_as_cancelled(gateway: &Running, sends: f64) {
    let http = http();
    eventually("the call is counted", || async {
        total(&http, gateway, "outrigger_calls_total", &["outcome=\"cancelled\"", "route=\"default\""]).await > 0.0
    })
    .await;
    let of = async |metric: &str, labels: &[&str]| total(&http, gateway, metric, labels).await;
    assert_eq!(of("outrigger_calls_total", &[]).await, 1.0, "one call, one outcome");
    assert_eq!(of("outrigger_calls_total", &["class=\"client_disconnect\"", "cancelled"]).await, 1.0);
    assert_eq!(of("outrigger_call_duration_seconds_count", &["outcome=\"cancelled\""]).await, 1.0);
    assert_eq!(of("outrigger_attempts_total", &["class=\"client_disconnect\""]).await, sends);
    assert_eq!(of("outrigger_attempts_total", &[]).await, sends, "no send ended in any other way");
    eventually("nothing is in flight", || async {
        let status = reqwest_json(&http, gateway).await;
        let endpoints = status["endpoints"].as_array().unwrap();
        status["calls_in_flight"] == 0 && endpoints.iter().all(|endpoint| endpoint["in_flight"] == 0)
    })
    .await;
    assert_eq!(of("outrigger_calls_in_flight", &[]).await, 0.0);
}

async fn reqwest_json(http: &reqwest::Client, gateway: &Running) -> serde_json::Value {
    crate::support::get(http, &format!("http://{}/api/v1/status", gateway.admin())).await.json()
}

/// A listener whose queue is full, so that a further SYN is left without an answer, and what fills it.
async fn deaf() -> (tokio::net::TcpListener, Vec<TcpStream>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(ANY.parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let (at, mut held) = (listener.local_addr().unwrap(), Vec::new());
    while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(at)).await {
        held.push(connected.unwrap());
    }
    (listener, held)
}

#[tokio::test]
async fn while_waiting_for_a_connection() {
    let (listener, _held) = deaf().await;
    let mut settings = settings(&[format!("http://{}/v1", listener.local_addr().unwrap())]);
    settings.endpoints[0].timeouts.connect = Duration::from_secs(60);
    let (gateway, client) = called(settings, CHAT, true).await;
    let http = http();
    eventually("the endpoint is being dialled", || async {
        reqwest_json(&http, &gateway).await["endpoints"][0]["in_flight"] == 1
    })
    .await;
    drop(client);
    counted_as_cancelled(&gateway, 1.0).await;
}

#[tokio::test]
async fn while_waiting_for_headers() {
    for stream in [true, false] {
        let upstream = mock("rules: [{ do: { hang: headers } }]").await;
        let (gateway, client) = called(settings(&[upstream.base_url()]), CHAT, stream).await;
        upstream.until(|stats| stats.last_requests.len() == 1).await;
        drop(client);
        let_go(&upstream).await;
        counted_as_cancelled(&gateway, 1.0).await;
    }
}

#[tokio::test]
async fn while_waiting_for_the_first_token() {
    for fault in ["hang: first_token", "role_then_silence: true", "comments_only: 20ms"] {
        for path in [CHAT, MESSAGES] {
            let upstream = mock(&format!("rules: [{{ do: {{ {fault} }} }}]")).await;
            let (gateway, client) = called(settings(&[upstream.base_url()]), path, true).await;
            upstream.until(|stats| stats.last_requests.len() == 1).await;
            drop(client);
            let_go(&upstream).await;
            counted_as_cancelled(&gateway, 1.0).await;
        }
    }
}

#[tokio::test]
async fn while_a_whole_answer_is_being_written() {
    let upstream = mock("rules: [{ do: { delay: { before_end: 60s } } }]").await;
    let (gateway, client) = called(settings(&[upstream.base_url()]), CHAT, false).await;
    upstream.until(|stats| stats.last_requests.len() == 1).await;
    drop(client);
    let_go(&upstream).await;
    counted_as_cancelled(&gateway, 1.0).await;
}

#[tokio::test]
async fn in_back_off() {
    let upstream = mock("rules: [{ do: { status: 429, headers: { retry-after: '1' } } }]").await;
    let (gateway, client) = called(settings(&[upstream.base_url()]), CHAT, false).await;
    upstream.until(|stats| stats.finished == 1).await;
    drop(client);
    let http = http();
    eventually("the call is counted", || async {
        total(&http, &gateway, "outrigger_calls_total", &["outcome=\"cancelled\""]).await == 1.0
    })
    .await;
    let again = timeout(Duration::from_millis(1500), upstream.until(|stats| stats.calls > 1)).await;
    assert!(again.is_err(), "sent again for nobody");
    assert_eq!(total(&http, &gateway, "outrigger_attempts_total", &["class=\"rate_limited\""]).await, 1.0);
    assert_eq!(total(&http, &gateway, "outrigger_attempts_total", &[]).await, 1.0);
    assert_eq!(total(&http, &gateway, "outrigger_calls_in_flight", &[]).await, 0.0);
}

#[tokio::test]
async fn mid_stream() {
    for path in [CHAT, "/v1/completions", "/v1/responses", MESSAGES] {
        for scenario in ["rules: [{ do: { hang: mid } }]", "answer: { tokens: 20000, per_token: 5ms }"] {
            let upstream = mock(scenario).await;
            let (gateway, mut client) = called(settings(&[upstream.base_url()]), path, true).await;
            client.until("data:").await;
            drop(client);
            let_go(&upstream).await;
            counted_as_cancelled(&gateway, 1.0).await;
        }
    }
}

#[tokio::test]
async fn while_a_twin_runs() {
    let silent = "rules: [{ do: { hang: first_token } }]";
    let (one, other) = (mock(silent).await, mock(silent).await);
    let mut settings = settings(&[one.base_url(), other.base_url()]);
    settings.routes[0].timeouts.first_token = Duration::from_millis(30);
    let (gateway, client) = called(settings, CHAT, true).await;
    one.until(|stats| stats.last_requests.len() == 1).await;
    other.until(|stats| stats.last_requests.len() == 1).await;
    drop(client);
    tokio::join!(let_go(&one), let_go(&other));
    let http = http();
    eventually("the call is counted", || async {
        total(&http, &gateway, "outrigger_calls_total", &["outcome=\"cancelled\""]).await == 1.0
    })
    .await;
    assert_eq!(total(&http, &gateway, "outrigger_calls_total", &[]).await, 1.0);
    assert_eq!(total(&http, &gateway, "outrigger_attempts_total", &[]).await, 2.0);
    assert_eq!(total(&http, &gateway, "outrigger_calls_in_flight", &[]).await, 0.0);
}

#[tokio::test]
async fn in_a_download_that_nobody_looks_into() {
    let upstream = mock("rules: [{ do: { bandwidth: 1KiB } }]").await;
    let (gateway, mut client) = called(settings(&[upstream.base_url()]), "/v1/audio/speech", false).await;
    client.until("\r\n\r\n").await;
    drop(client);
    let_go(&upstream).await;
    counted_as_cancelled(&gateway, 1.0).await;
}

#[tokio::test]
async fn in_an_upload() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let head = "POST /v1/files HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 1000000\r\n\r\nhalf of it";
    let client = Raw::send(gateway.data(), head).await;
    upstream.until(|stats| stats.active == 1).await;
    drop(client);
    let_go(&upstream).await;
    counted_as_cancelled(&gateway, 1.0).await;
}

#[tokio::test]
async fn at_the_end_mark_is_no_leaving() {
    let upstream = mock("rules: [{ do: { events_after_done: true } }]").await;
    let (gateway, mut client) = called(settings(&[upstream.base_url()]), CHAT, true).await;
    client.until("[DONE]").await;
    drop(client);
    let http = http();
    eventually("the call is counted", || async {
        total(&http, &gateway, "outrigger_calls_total", &["outcome=\"ok\"", "route=\"default\""]).await == 1.0
    })
    .await;
    assert_eq!(total(&http, &gateway, "outrigger_calls_total", &[]).await, 1.0);
}

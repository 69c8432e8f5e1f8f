//! Going down: first the probe says no, then nothing new comes in, then what is left is ended in words.

use std::path::Path;
use std::time::Duration;

use outrigger::app::Running;
use outrigger::config::Settings;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::tools::{PATIENCE, Raw, eventually, head_value, request, total};
use crate::support::{base, chat, gateway, get, http, mock, no_breakers, post, settings};

const CHAT: &str = "/v1/chat/completions";

/// Starts the drain; it ends at once when the sender says so.
fn drain(gateway: Running) -> (JoinHandle<()>, oneshot::Sender<()>) {
    let (now, asked) = oneshot::channel::<()>();
    let task = tokio::spawn(gateway.drain(async move {
        if asked.await.is_err() {
            std::future::pending::<()>().await;
        }
    }));
    (task, now)
}

async fn ended(task: JoinHandle<()>) {
    timeout(PATIENCE, task).await.unwrap().unwrap();
}

async fn closed(gateway: std::net::SocketAddr) {
    eventually("the data port is closed", || async move { TcpStream::connect(gateway).await.is_err() }).await;
}

#[tokio::test]
async fn the_probe_turns_first_and_calls_are_still_taken() {
    let upstream = mock("{}").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.drain.delay = Duration::from_secs(60);
    let gateway = gateway(settings).await;
    let (http, url, admin) = (http(), format!("{}/chat/completions", base(&gateway)), gateway.admin());
    assert_eq!(post(&http, &url, chat(true)).await.header("connection"), None);
    let (task, now) = drain(gateway);
    eventually("the probe says no", || async { get(&http, &format!("http://{admin}/readyz")).await.status == 503 })
        .await;
    assert!(get(&http, &format!("http://{admin}/readyz?verbose")).await.text().contains("draining: true"));
    assert_eq!(get(&http, &format!("http://{admin}/livez")).await.status, 200, "alive all the same");
    assert_eq!(get(&http, &format!("http://{admin}/api/v1/status")).await.json()["draining"], true);
    let last = post(&http, &url, chat(true)).await;
    assert!(last.looks_complete());
    assert_eq!(last.header("connection"), Some("close"), "the next call is to find somebody who stays");
    now.send(()).unwrap();
    ended(task).await;
    assert!(http.post(&url).body(chat(false)).send().await.is_err(), "nobody is there any more");
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_nothing_new_comes_in() {
    let upstream = mock("answer: { tokens: 40, per_token: 20ms }").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let (data, admin) = (gateway.data(), gateway.admin());
    let call = |stream| request("POST", CHAT, &[], chat(stream).as_bytes());
    let mut stream = Raw::send(data, call(true)).await;
    stream.until("data:").await;
    let whole = Raw::send(data, call(false)).await;
    upstream.until(|stats| stats.calls == 2).await;
    let idle = Raw::send(data, "").await;
    let (task, _now) = drain(gateway);
    closed(data).await;
    assert_eq!(get(&http(), &format!("http://{admin}/livez")).await.status, 200, "the admin port answers to the end");
    // The connections end by themselves, after the whole of their answers.
    let (stream, whole) = tokio::join!(stream.rest(), whole.rest());
    assert!(stream.contains("[DONE]") && !stream.contains("\"error\"") && stream.ends_with("0\r\n\r\n"), "{stream}");
    assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with('}'), "{whole}");
    assert_eq!(idle.rest().await, "");
    ended(task).await;
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_ended_in_words() {
    let upstream = mock("rules: [{ when: { stream: true }, do: { hang: mid } }, { do: { hang: headers } }]").await;
    for at_once in [false, true] {
        let mut settings = settings(&[upstream.base_url()]);
        settings.drain.timeout = if at_once { Duration::from_secs(60) } else { Duration::from_millis(200) };
        upstream.reset();
        let gateway = gateway(settings).await;
        let data = gateway.data();
        let mut streams = Vec::new();
        for path in [CHAT, "/v1/responses", "/v1/messages"] {
            let mut raw = Raw::send(data, request("POST", path, &[], chat(true).as_bytes())).await;
            raw.until("data:").await;
            streams.push(raw);
        }
        let pending = Raw::send(data, request("POST", CHAT, &[], chat(false).as_bytes())).await;
        let kept = gateway.gateway();
        upstream.until(|stats| stats.last_requests.len() == 4).await;
        let (task, now) = drain(gateway);
        if at_once {
            now.send(()).unwrap();
        }
        for raw in streams {
            let text = raw.rest().await;
            assert!(text.contains("shutdown") && text.contains("\"error\""), "{text}");
            assert!(!["[DONE]", "message_stop", "response.completed"].iter().any(|end| text.contains(end)), "{text}");
            assert!(text.ends_with("0\r\n\r\n"), "the last words are whole: {text}");
        }
        let text = pending.rest().await;
        assert!(text.starts_with("HTTP/1.1 503") && text.contains("\"code\":\"shutdown\""), "{text}");
        assert!(head_value(&text, "retry-after").is_some(), "{text}");
        ended(task).await;
        upstream.until(|stats| stats.active == 0).await;
        let counted = String::from_utf8(kept.metrics().render().unwrap()).unwrap();
        let ours = "outrigger_calls_total{class=\"shutdown\",outcome=\"failed\",route=\"default\"} 4\n";
        assert!(counted.contains(ours), "none of them was ended by its client: {counted}");
    }
}

#[tokio::test]
async fn a_download_is_broken_off_not_ended() {
    let upstream = mock("rules: [{ do: { bandwidth: 1KiB } }]").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let mut raw = Raw::send(gateway.data(), request("POST", "/v1/audio/speech", &[], b"{}")).await;
    raw.until("\r\n\r\n").await;
    let (task, now) = drain(gateway);
    now.send(()).unwrap();
    let length: usize = head_value(&String::from_utf8_lossy(&raw.read), "content-length").unwrap().parse().unwrap();
    assert!(raw.rest().await.len() < length);
    ended(task).await;
}

#[tokio::test]
async fn an_answer_that_is_read_slowly_is_waited_for() {
    let upstream = mock("rules: [{ do: { huge_body: 24MiB } }]").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let data = gateway.data();
    let mut raw = Raw::send(data, request("POST", CHAT, &[], chat(false).as_bytes())).await;
    raw.until("\r\n\r\n").await;
    let (task, _now) = drain(gateway);
    closed(data).await;
    let early = timeout(Duration::from_millis(500), task);
    assert!(early.await.is_err(), "the drain ended before the answer was read");
    let length: usize = head_value(&String::from_utf8_lossy(&raw.read), "content-length").unwrap().parse().unwrap();
    let text = raw.rest().await;
    assert_eq!(text.len() - text.find("\r\n\r\n").unwrap() - 4, length);
}

fn with_state(url: String, dir: &Path) -> Settings {
    let mut settings = settings(&[url]);
    no_breakers(&mut settings);
    settings.state_dir = Some(dir.to_owned());
    settings.routes[0].retry.backoff.base = Duration::from_millis(1);
    settings
}

/// Calls until the budget has nothing left, and says how many repeats that took.
async fn spend(gateway: &Running) -> f64 {
    let http = http();
    for _ in 0..6 {
        post(&http, &format!("{}/chat/completions", base(gateway)), chat(false)).await;
    }
    total(&http, gateway, "outrigger_attempts_total", &["kind=\"retry\""]).await
}

#[tokio::test]
async fn what_was_spent_is_spent_after_a_restart() {
    let upstream = mock("rules: [{ do: { error: overloaded } }]").await;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/by/us");
    let first = gateway(with_state(upstream.base_url(), &dir)).await;
    assert_eq!(spend(&first).await, 4.0, "three of the floor, one for six calls");
    let (task, _now) = drain(first);
    ended(task).await;
    let second = gateway(with_state(upstream.base_url(), &dir)).await;
    let left = total(&http(), &second, "outrigger_retry_budget_remaining_ratio", &[]).await;
    assert!(left < 0.1, "the metric says that {left} is left");
    assert_eq!(spend(&second).await, 1.0, "what six more calls pay for");
}

#[tokio::test]
async fn state_that_cannot_be_kept_stops_nobody() {
    let upstream = mock("{}").await;
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let now = outrigger::clock::wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let most = u32::MAX;
    let broken = |name: &str, text: &str| {
        let dir = root.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("state.json"), text).unwrap();
        dir
    };
    for dir in [
        file,
        root.path().join("absent"),
        Path::new("/proc/self").to_owned(),
        broken("empty", ""),
        broken("cut", "{\"version\":1,\"saved_at\":1"),
        broken("later", "{\"version\":99,\"saved_at\":1,\"budgets\":{}}"),
        broken("future", "{\"version\":1,\"saved_at\":99999999999,\"budgets\":{\"default\":[[0,4000000000]]}}"),
        broken(
            "endless-counts",
            &format!("{{\"version\":1,\"saved_at\":{now},\"budgets\":{{\"default\":[[{most},{most}]]}}}}"),
        ),
        broken("endless", "{\"version\":1,\"saved_at\":18446744073709551615,\"budgets\":{}}"),
    ] {
        let gateway = gateway(with_state(upstream.base_url(), &dir)).await;
        let answer = post(&http(), &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
        assert_eq!(answer.status, 200, "{}", dir.display());
        let (task, _now) = drain(gateway);
        ended(task).await;
    }
}

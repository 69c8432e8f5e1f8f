//! What a client may take of the door itself: connections, heads, bodies, time and memory.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use outrigger::app::Running;
use outrigger::clock;
use outrigger::config::{ServerSettings, Settings};
use outrigger::mock;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tools::{PATIENCE, Raw, eventually, head_value, request, total};
use crate::support::{base, chat, gateway, get, http, metric, mock, post, settings};

const CHAT: &str = "/v1/chat/completions";

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn with(scenario: &str, settle: impl FnOnce(&mut ServerSettings)) -> (mock::Running, Running) {
    let upstream = mock(scenario).await;
    let mut settings: Settings = settings(&[upstream.base_url()]);
    settle(&mut settings.server);
    (upstream, gateway(settings).await)
}

/// Whether there is nothing to read at this moment.
async fn is_silent(raw: &mut Raw) -> bool {
    let mut byte = [0; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    poll_fn(|cx| Poll::Ready(Pin::new(&mut raw.stream).poll_read(cx, &mut buffer).is_pending())).await
}

/// Waits until the gateway has closed a connection; what it said before is returned.
async fn closed(mut raw: Raw) -> String {
    // A close with bytes unread resets, which is a close as well.
    let _ = timeout(PATIENCE, raw.stream.read_to_end(&mut raw.read)).await.expect("it is closed");
    String::from_utf8_lossy(&raw.read).into_owned()
}

#[tokio::test]
async fn connections_over_the_cap_wait_and_are_served_when_one_closes() {
    let (_upstream, gateway) = with("{}", |server| server.max_connections = 2).await;
    let ask = || request("POST", CHAT, &[], chat(true).as_bytes());
    let mut first = Raw::send(gateway.data(), ask()).await;
    let mut second = Raw::send(gateway.data(), ask()).await;
    first.until("[DONE]").await;
    second.until("[DONE]").await;
    let mut third = Raw::send(gateway.data(), ask()).await;
    let mut fourth = Raw::send(gateway.data(), ask()).await;
    for _ in 0..5 {
        second.read.clear();
        second.write(ask()).await;
        second.until("[DONE]").await;
    }
    assert!(is_silent(&mut third).await && is_silent(&mut fourth).await, "served over the cap");
    drop(first);
    third.until("[DONE]").await;
    assert!(is_silent(&mut fourth).await);
    drop(second);
    fourth.until("[DONE]").await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    for (limit, size) in [(64 << 10, 1 << 20), (8 << 10, 9 << 10)] {
        let (upstream, gateway) = with("{}", |server| server.max_header_bytes = limit).await;
        let bomb = "x".repeat(size);
        let mut raw = Raw { stream: TcpStream::connect(gateway.data()).await.unwrap(), read: Vec::new() };
        let bytes = request("POST", CHAT, &[("x-bomb", &bomb)], chat(false).as_bytes());
        // The rest is not read any more, so writing it may fail.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &bytes).await;
        let answer = closed(raw).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
        let small = Raw::ask(gateway.data(), "POST", CHAT, &[("x-bomb", &bomb[..6000])], chat(false).as_bytes()).await;
        assert!(small.starts_with("HTTP/1.1 200"), "{small}");
        assert_eq!(upstream.stats().calls, 1);
    }
}

/// Written piece by piece, so that the refusal is there before the client has anything left to write.
#[tokio::test]
async fn a_head_just_over_the_limit_is_told_so() {
    let (_upstream, gateway) = with("{}", |server| server.max_header_bytes = 8 << 10).await;
    let head = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nx-bomb: {}", "x".repeat(8 << 10));
    let mut raw = Raw::send(gateway.data(), &head[..8 << 10]).await;
    raw.until("HTTP/1.1 431").await;
    let fields: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let mut raw = Raw::send(gateway.data(), format!("GET /v1/models HTTP/1.1\r\n{fields}\r\n")).await;
    raw.until("HTTP/1.1 431").await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_on_http_2_too() {
    let (upstream, gateway) = with("{}", |server| server.max_header_bytes = 20_000).await;
    let http = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let ask = async |bytes: usize| {
        let request = http::Request::post(format!("{}/chat/completions", base(&gateway)));
        let request = request.header("x-bomb", "x".repeat(bytes)).body(Full::from(chat(false))).unwrap();
        let answer = timeout(PATIENCE, http.request(request)).await.unwrap();
        answer.map(|answer| (answer.version(), answer.status().as_u16()))
    };
    assert_eq!(ask(18_000).await.unwrap(), (http::Version::HTTP_2, 200));
    let refused = ask(21_000).await;
    assert!(refused.is_err() || refused.as_ref().is_ok_and(|(_, status)| *status == 431), "{refused:?}");
    assert_eq!(ask(100).await.unwrap().1, 200, "and nothing is spoilt");
    assert_eq!(upstream.stats().calls, 2);
}

#[tokio::test]
async fn whoever_is_slow_with_a_head_is_given_up() {
    let (_upstream, gateway) = with("{}", |server| {
        server.header_timeout = ms(300);
        server.max_connections = 8;
    })
    .await;
    let whole = String::from_utf8(request("GET", "/healthz", &[], b"")).unwrap();
    for said in ["", "G", "GET /v1/models HTTP/1.1\r\nhost:", "PRI * HT", &whole] {
        let since = clock::now();
        let mut slow = Vec::new();
        for _ in 0..8 {
            slow.push(Raw::send(gateway.data(), said).await);
        }
        // All places are taken by them; somebody else is served when they are given up.
        let answer = get(&http(), &format!("{}/models", base(&gateway))).await;
        assert_eq!(answer.status, 200, "{said:?}");
        assert!(since.elapsed() >= ms(290), "{said:?} after {:?}", since.elapsed());
        for raw in slow {
            let heard = closed(raw).await;
            assert_eq!(heard.starts_with("HTTP/1.1 200"), said.ends_with("\r\n\r\n"), "{said:?}: {heard}");
        }
    }
}

#[tokio::test]
async fn a_long_wait_for_an_answer_is_no_slow_head() {
    let (_upstream, gateway) = with("rules: [{ do: { delay: { first_token: 900ms } } }]", |server| {
        server.header_timeout = ms(300);
        server.body_timeout = ms(300);
        server.write_timeout = ms(300);
    })
    .await;
    let answer = post(&http(), &format!("{}/chat/completions", base(&gateway)), chat(true)).await;
    assert!(answer.looks_complete(), "{}", answer.text());
}

#[tokio::test]
async fn a_body_that_stands_still_is_refused() {
    let (upstream, gateway) = with("{}", |server| server.body_timeout = ms(300)).await;
    for length in ["content-length: 1000", "transfer-encoding: chunked"] {
        let since = clock::now();
        let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n2\r\n{{\"\r\n");
        let mut raw = Raw::send(gateway.data(), head).await;
        let answer = raw.until("\r\n\r\n{").await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(since.elapsed() >= ms(290), "{length}: after {:?}", since.elapsed());
    }
    assert_eq!(upstream.stats().calls, 0);
}

/// One byte now and then is progress, but no call lasts longer than its route allows.
#[tokio::test]
async fn a_body_that_trickles_is_refused_when_the_call_would_be_over() {
    let upstream = mock("{}").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.server.body_timeout = ms(500);
    settings.routes[0].timeouts.total = ms(1000);
    let gateway = gateway(settings).await;
    let since = clock::now();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n");
    let mut raw = Raw::send(gateway.data(), head).await;
    let mut buffer = [0; 4096];
    let len = loop {
        match timeout(ms(50), raw.stream.read(&mut buffer)).await {
            Ok(read) => break read.unwrap(),
            Err(_) => raw.write(" ").await,
        }
        assert!(since.elapsed() < PATIENCE, "waited for without end");
    };
    let answer = String::from_utf8_lossy(&buffer[..len]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(since.elapsed() >= ms(990), "after {:?}", since.elapsed());
}

#[tokio::test]
async fn an_upload_that_stands_still_is_given_up() {
    let (upstream, gateway) = with("{}", |server| server.body_timeout = ms(300)).await;
    let head = "POST /v1/files HTTP/1.1\r\nhost: gateway.test\r\ncontent-length: 1000000\r\n\r\nhalf of it";
    let mut raw = Raw::send(gateway.data(), head).await;
    upstream.until(|stats| stats.cancelled == 1).await;
    raw.until("client_disconnect").await;
    assert_eq!(total(&http(), &gateway, "outrigger_attempts_total", &["class=\"client_disconnect\""]).await, 1.0);
}

#[tokio::test]
async fn whoever_takes_nothing_of_an_answer_is_given_up_and_nobody_else_notices() {
    let scenario = "answer: { per_token: 0ms, first_token: 0ms }\n\
                    rules: [{ when: { path: /v1/chat/completions }, do: { huge_event: 16KiB, huge_body: 30MiB } }]";
    let (upstream, gateway) = with(scenario, |server| server.write_timeout = ms(500)).await;
    let raw = Raw::send(gateway.data(), request("POST", CHAT, &[], chat(true).as_bytes())).await;
    upstream.until(|stats| stats.active == 1).await;
    for _ in 0..20 {
        let answer = post(&http(), &format!("{}/embeddings", base(&gateway)), r#"{"model":"m","input":"x"}"#).await;
        assert_eq!(answer.status, 200);
    }
    upstream.until(|stats| stats.cancelled == 1).await;
    let http = http();
    eventually("the call is counted", || async {
        total(&http, &gateway, "outrigger_calls_total", &["outcome=\"cancelled\""]).await == 1.0
    })
    .await;
    drop(raw);
}

/// A body's head, and no byte of it yet.
fn announce(bytes: usize, headers: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {bytes}\r\n\r\n")
}

async fn buffered(gateway: &Running) -> usize {
    metric(&http(), gateway.admin(), "outrigger_buffered_bytes").await as usize
}

#[tokio::test]
async fn bodies_have_a_ceiling_together_and_the_sheddable_stop_first() {
    let (upstream, gateway) = with("rules: [{ do: { hang: headers } }]", |server| {
        server.max_body = 100_000;
        server.max_buffered = 100_000;
    })
    .await;
    let http = http();
    let held = Raw::send(gateway.data(), announce(60_000, "")).await;
    eventually("its memory is taken before it has come", || async { buffered(&gateway).await == 60_000 }).await;
    let mut tries = Vec::new();
    for (bytes, class, fits) in [
        (11_000, "sheddable", false),
        (9_000, "sheddable", true),
        (27_000, "default", false),
        (26_000, "default", true),
        (6_000, "critical", false),
        (5_000, "critical", true),
    ] {
        let before = buffered(&gateway).await;
        let headers = format!("x-outrigger-priority: {class}\r\n");
        let mut raw = Raw::send(gateway.data(), announce(bytes, &headers)).await;
        if fits {
            eventually("it is held", || async { buffered(&gateway).await == before + bytes }).await;
            tries.push(raw);
        } else {
            let answer = raw.until("\"queue_full\"").await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("max_buffered"), "{answer}");
            assert_eq!((head_value(&answer, "retry-after"), head_value(&answer, "x-should-retry")), (Some("1"), None));
            let labels = ["reason=\"memory\"", "route=\"none\"", &format!("priority=\"{class}\"")];
            assert_eq!(total(&http, &gateway, "outrigger_shed_total", &labels).await, 1.0, "{class}");
            assert_eq!(buffered(&gateway).await, before);
        }
    }
    assert_eq!(upstream.stats().calls, 0, "nothing was sent for any of them");
    drop((held, tries));
    eventually("all of it is given back", || async { buffered(&gateway).await == 0 }).await;
}

#[tokio::test]
async fn a_body_is_counted_until_its_call_is_over_and_given_back_however_it_ends() {
    let body = chat(true).replace("hello", &"x".repeat(50_000));
    for (scenario, leave) in [
        ("{}", false),
        ("rules: [{ do: { status: 400 } }]", false),
        ("rules: [{ do: { cut: { at: half, how: reset } } }]", false),
        ("rules: [{ do: { hang: headers } }]", true),
        ("rules: [{ do: { hang: mid } }]", true),
    ] {
        let (upstream, gateway) = with(scenario, |_| {}).await;
        let raw = Raw::send(gateway.data(), request("POST", CHAT, &[("connection", "close")], body.as_bytes())).await;
        if leave {
            upstream.until(|stats| stats.last_requests.len() == 1).await;
            drop(raw);
        } else {
            closed(raw).await;
        }
        eventually("it is given back", || async { buffered(&gateway).await == 0 }).await;
    }
    let (upstream, gateway) = with("rules: [{ do: { hang: headers } }]", |_| {}).await;
    let _raw = Raw::send(gateway.data(), request("POST", CHAT, &[], body.as_bytes())).await;
    upstream.until(|stats| stats.last_requests.len() == 1).await;
    assert_eq!(buffered(&gateway).await, body.len());
}

/// A body that does not say how long it is takes its memory as it comes, and is refused where there is no more.
#[tokio::test]
async fn a_body_in_chunks_meets_the_ceiling_on_its_way() {
    let (_upstream, gateway) = with("{}", |server| {
        server.max_body = 1 << 20;
        server.max_buffered = 1 << 20;
    })
    .await;
    let held = Raw::send(gateway.data(), announce(900_000, "")).await;
    eventually("the ceiling is near", || async { buffered(&gateway).await == 900_000 }).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut raw = Raw::send(gateway.data(), head).await;
    raw.write(format!("{:x}\r\n{}\r\n", 60_000, "x".repeat(60_000))).await;
    eventually("the first part has a place", || async { buffered(&gateway).await > 900_000 }).await;
    raw.write(format!("{:x}\r\n{}\r\n", 60_000, "x".repeat(60_000))).await;
    let answer = raw.until("\"queue_full\"").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    eventually("what it had is given back", || async { buffered(&gateway).await == 900_000 }).await;
    drop(held);
}

/// A body without end is cut at the limit, and fills no memory until then.
#[tokio::test]
async fn a_body_without_end_is_cut_at_the_limit() {
    let (upstream, gateway) = with("{}", |server| server.max_body = 100_000).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut raw = Raw::send(gateway.data(), head).await;
    let chunk = format!("{:x}\r\n{}\r\n", 50_000, "x".repeat(50_000));
    raw.write(&chunk).await;
    raw.write(&chunk).await;
    eventually("what came is held", || async { buffered(&gateway).await >= 100_000 }).await;
    // Refused while it still comes, and what comes is thrown away.
    for _ in 0..20 {
        raw.write(&chunk).await;
    }
    assert!(raw.until("\r\n\r\n{").await.starts_with("HTTP/1.1 413"));
    eventually("and given back", || async { buffered(&gateway).await == 0 }).await;
    assert_eq!(upstream.stats().calls, 0);
}

/// A client that writes all of its body before it reads gets to read why it was refused.
#[tokio::test]
async fn a_refusal_before_the_body_is_read_reaches_its_client() {
    let (_upstream, gateway) = with("{}", |server| {
        server.max_body = 8 << 20;
        server.max_buffered = 8 << 20;
    })
    .await;
    let held = Raw::send(gateway.data(), announce(7 << 20, "")).await;
    eventually("the ceiling is near", || async { buffered(&gateway).await == 7 << 20 }).await;
    for (bytes, status) in [(4 << 20, "503"), (9 << 20, "413")] {
        let body = vec![b' '; bytes];
        let answer = Raw::ask(gateway.data(), "POST", CHAT, &[], &body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    drop(held);
}

//! Servers that no polite script can play: bytes that are not HTTP, promises that are broken, ports that say nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outrigger::app;
use outrigger::config::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::support::{self, Answer, base, chat, gateway, http, metric, post, settings};

/// Plays `play` on every connection, which it is told the number of, from 0.
async fn server<F, P>(play: P) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
    P: Fn(TcpStream, usize) -> F + Send + Sync + 'static,
{
    let listener = TcpListener::bind(support::ANY).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let count = AtomicUsize::new(0);
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(play(socket, count.fetch_add(1, Ordering::Relaxed)));
        }
    });
    address
}

/// Reads one request to the end of its body. `None` when the client has left.
async fn request(socket: &mut TcpStream) -> Option<String> {
    let mut seen = Vec::new();
    loop {
        let mut part = [0; 4096];
        let len = socket.read(&mut part).await.ok().filter(|len| *len > 0)?;
        seen.extend_from_slice(&part[..len]);
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        if body.len() >= length.parse().unwrap() {
            return Some(text);
        }
    }
}

/// A server that answers every connection's first request with these bytes and closes.
async fn says(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes = Arc::new(bytes.into());
    server(move |mut socket, _| {
        let bytes = Arc::clone(&bytes);
        async move {
            if request(&mut socket).await.is_some() {
                // A gateway that has heard enough hangs up in the middle; that is no failure of the test.
                drop(socket.write_all(&bytes).await);
                drop(socket.shutdown().await);
                while socket.read(&mut [0; 4096]).await.is_ok_and(|len| len > 0) {}
            }
        }
    })
    .await
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/v1")
}

/// Settings with a second, healthy target, or without.
fn towards(bad: String, good: Option<String>) -> Settings {
    let mut settings = settings(&[vec![bad], good.into_iter().collect()].concat());
    for endpoint in &mut settings.endpoints {
        endpoint.timeouts.connect = Duration::from_millis(700);
        endpoint.timeouts.idle = Duration::from_millis(500);
    }
    let retry = &mut settings.routes[0].retry;
    (retry.backoff.base, retry.backoff.max) = (Duration::from_millis(5), Duration::from_millis(5));
    settings
}

async fn ask(settings: Settings, stream: bool, retries: Option<&str>) -> Answer {
    let gateway = gateway(settings).await;
    let request = http().post(format!("{}/chat/completions", base(&gateway)));
    let request = match retries {
        Some(retries) => request.header("x-outrigger-retries", retries),
        None => request,
    };
    Answer::of(request.body(chat(stream)).send().await).await
}

/// Alone it is this error, whole or streamed; with a healthy second target there is none.
async fn is_rescued(bad: String, status: u16, class: &str) {
    let good = support::mock("").await;
    for stream in [false, true] {
        let got = ask(towards(bad.clone(), None), stream, Some("0")).await;
        assert_eq!((got.status, got.error_code().as_deref()), (status, Some(class)), "{bad}: {}", got.text());
        assert_eq!(got.header("x-outrigger-attempts"), Some("1"), "{bad}");
        let got = ask(towards(bad.clone(), Some(good.base_url())), stream, None).await;
        assert_eq!((got.status, got.broken), (200, false), "{bad}: {:?}", got.headers);
        assert_eq!(got.header("x-outrigger-outcome"), Some("fallback"), "{bad}");
        assert!(got.looks_complete(), "{bad}: {}", got.text());
    }
}

const WHOLE: &str = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#;
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n";
const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn with_length(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{WHOLE}")
}

#[tokio::test]
async fn what_is_no_http_is_no_answer() {
    for (bytes, class) in [
        (String::new(), "reset_before_response"),
        ("HTTP/1.1 20".to_owned(), "reset_before_response"),
        ("HTTP/1.1 200 OK\r\ncontent-type: app".to_owned(), "reset_before_response"),
        ("SSH-2.0-OpenSSH_9.6\r\n".to_owned(), "bad_framing"),
        ("HTTP/1.1 200 OK\r\n no: folding\r\n\r\n".to_owned(), "bad_framing"),
        (format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)), "bad_framing"),
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(5000)), "bad_framing"),
    ] {
        is_rescued(url(says(bytes).await), 502, class).await;
    }
}

#[tokio::test]
async fn lengths_that_lie_are_found_out() {
    let twice = with_length(WHOLE.len()).replace("content-length: ", "content-length: 1\r\ncontent-length: ");
    for (bytes, class) in [
        (with_length(WHOLE.len() + 1), "bad_framing"),
        (with_length(1 << 40), "bad_framing"),
        (with_length(WHOLE.len() - 1), "undecodable"),
        (with_length(0), "undecodable"),
        (with_length(7).replace(": 7", ": seven"), "bad_framing"),
        (twice, "bad_framing"),
    ] {
        is_rescued(url(says(bytes).await), 502, class).await;
    }
    // Where both are given, chunks count: a length beside them is not believed, nor passed on.
    let both = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
         {:x}\r\n{WHOLE}\r\n0\r\n\r\n",
        WHOLE.len()
    );
    let got = ask(towards(url(says(both).await), None), false, Some("0")).await;
    assert!(got.status == 502 || (got.text() == WHOLE && !got.broken), "{} {}", got.status, got.text());
}

#[tokio::test]
async fn garbage_after_an_answer_spoils_nothing() {
    let upstream =
        says(format!("{}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", with_length(WHOLE.len()))).await;
    let gateway = gateway(towards(url(upstream), None)).await;
    let http = http();
    for _ in 0..5 {
        let got = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
        assert_eq!((got.status, got.text().as_str()), (200, WHOLE));
    }
}

#[tokio::test]
async fn an_old_server_ends_its_stream_by_closing() {
    let old = |body: String| says(format!("{}\r\n{body}", EVENTS.replace("HTTP/1.1", "HTTP/1.0")));
    let got = ask(towards(url(old([TOKEN, STOP, DONE].concat()).await), None), true, Some("0")).await;
    assert_eq!((got.status, got.text()), (200, [TOKEN, STOP, DONE].concat()));
    let got = ask(towards(url(old([TOKEN, STOP].concat()).await), None), true, Some("0")).await;
    assert_eq!((got.status, got.text()), (200, [TOKEN, STOP, DONE].concat()), "only the marker was missing");
    let got = ask(towards(url(old(TOKEN.to_owned()).await), None), true, Some("0")).await;
    assert_eq!((got.status, got.error_code().as_deref()), (200, Some("stream_truncated")));
    assert!(got.text().starts_with(TOKEN) && !got.looks_complete());
    let got = ask(towards(url(old(String::new()).await), None), true, Some("0")).await;
    assert_eq!((got.status, got.error_code().as_deref()), (502, Some("stream_truncated")));
}

/// Comments are life, not progress: they hold a call up no longer than silence would.
#[tokio::test]
async fn comments_and_then_silence_run_into_the_clocks() {
    let comments = ": still here\n\n".repeat(100 * 1024 / 14);
    for (before, class, status) in [("", "deadline_exceeded", 504), (TOKEN, "stream_stalled", 200)] {
        let bytes = Arc::new(format!("{EVENTS}\r\n{before}{comments}"));
        let upstream = server(move |mut socket, _| {
            let bytes = Arc::clone(&bytes);
            async move {
                request(&mut socket).await;
                drop(socket.write_all(bytes.as_bytes()).await);
                while socket.read(&mut [0; 64]).await.is_ok_and(|len| len > 0) {}
            }
        })
        .await;
        let mut settings = towards(url(upstream), None);
        settings.routes[0].timeouts.total = Duration::from_secs(2);
        let got = ask(settings, true, Some("0")).await;
        assert_eq!((got.status, got.error_code().as_deref()), (status, Some(class)), "{before}");
        assert!(!got.looks_complete() && !got.broken);
    }
}

/// What is held back before the first model event has a bound.
#[tokio::test]
async fn comments_without_end_are_given_up() {
    let upstream = server(|mut socket, _| async move {
        request(&mut socket).await;
        drop(socket.write_all(format!("{EVENTS}\r\n").as_bytes()).await);
        let comments = ": still here\n\n".repeat(1000);
        while socket.write_all(comments.as_bytes()).await.is_ok() {}
    })
    .await;
    let got = ask(towards(url(upstream), None), true, Some("0")).await;
    assert_eq!((got.status, got.error_code().as_deref()), (502, Some("oversize_response")), "{}", got.text());
}

/// An answer that comes before the request was read is an answer, or an error of its own, but never half of one.
#[tokio::test]
async fn an_answer_before_the_request_is_read() {
    let upstream = server(|mut socket, _| async move {
        let mut first = [0; 16];
        drop(socket.read_exact(&mut first).await);
        let refusal = r#"{"error":{"message":"too much","type":"invalid_request_error"}}"#;
        let head = format!("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", refusal.len());
        drop(socket.write_all(format!("{head}{refusal}").as_bytes()).await);
        drop(socket.shutdown().await);
        while socket.read(&mut vec![0; 1 << 16]).await.is_ok_and(|len| len > 0) {}
    })
    .await;
    let gateway = gateway(towards(url(upstream), None)).await;
    let long = chat(false).replace("hello", &"hello ".repeat(1 << 20));
    let got = post(&http(), &format!("{}/chat/completions", base(&gateway)), long).await;
    assert_eq!((got.status, &got.json()["error"]["message"]), (413, &"too much".into()));
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_a_tls_failure() {
    app::install_tls();
    let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![own.cert.der().clone()], key.into()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let upstream = server(move |socket, _| {
        let acceptor = acceptor.clone();
        async move { drop(acceptor.accept(socket).await) }
    })
    .await;
    is_rescued(format!("https://{upstream}/v1"), 502, "tls_failure").await;
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_a_tls_failure() {
    let upstream = server(|mut socket, _| async move {
        drop(socket.read(&mut [0; 1024]).await);
        drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await);
        while socket.read(&mut [0; 64]).await.is_ok_and(|len| len > 0) {}
    })
    .await;
    is_rescued(format!("https://{upstream}/v1"), 502, "tls_failure").await;
    let upstream = server(|mut socket, _| async move {
        drop(socket.read(&mut [0; 1024]).await);
        drop(socket.shutdown().await);
    })
    .await;
    is_rescued(format!("https://{upstream}/v1"), 502, "tls_failure").await;
}

#[tokio::test]
async fn a_handshake_that_is_never_answered_is_a_connect_timeout() {
    let upstream =
        server(|mut socket, _| async move { while socket.read(&mut [0; 1024]).await.is_ok_and(|len| len > 0) {} })
            .await;
    is_rescued(format!("https://{upstream}/v1"), 504, "connect_timeout").await;
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_a_dns_failure() {
    let mut slow = towards("http://no-such-host.invalid/v1".to_owned(), None);
    slow.endpoints[0].timeouts.connect = Duration::from_secs(20);
    let got = ask(slow, false, Some("0")).await;
    assert_eq!((got.status, got.error_code().as_deref()), (502, Some("dns_failure")), "{}", got.text());
}

#[tokio::test]
async fn a_port_where_nothing_listens_refuses() {
    // Bound and never listening: nobody else can take the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(support::ANY.parse().unwrap()).unwrap();
    is_rescued(url(socket.local_addr().unwrap()), 502, "connect_refused").await;
}

/// A listener whose queue is full drops what knocks: no refusal, no connection.
#[tokio::test]
async fn a_knock_that_is_never_answered_is_a_connect_timeout() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(support::ANY.parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
        queue.push(connected.unwrap());
        assert!(queue.len() < 64, "the queue has no end here");
    }
    is_rescued(url(address), 504, "connect_timeout").await;
    drop((listener, queue));
}

/// A kept connection that the server closes as the next request comes: the request goes out again, as if never sent.
#[tokio::test]
async fn a_stale_connection_costs_nothing() {
    let upstream = server(|mut socket, number| async move {
        while request(&mut socket).await.is_some() {
            drop(socket.write_all(with_length(WHOLE.len()).as_bytes()).await);
            if number == 0 {
                // The next one is read, or its first bytes, and the connection closed without a word.
                drop(socket.read(&mut [0; 1]).await);
                return;
            }
        }
    })
    .await;
    let gateway = gateway(towards(url(upstream), None)).await;
    let http = http();
    for attempts in ["1", "2", "1"] {
        let got = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
        assert_eq!((got.status, got.text().as_str()), (200, WHOLE));
        assert_eq!(got.header("x-outrigger-attempts"), Some(attempts), "{:?}", got.headers);
    }
    let left = metric(&http, gateway.admin(), "outrigger_retry_budget_remaining_ratio{route=\"default\"}").await;
    assert_eq!(left, 1.0, "it was not paid for");
}

/// The same where the server closes in peace: the gateway sees it, or finds out, and the client never does.
#[tokio::test]
async fn a_server_that_closes_after_every_answer_is_not_noticed() {
    let upstream = says(with_length(WHOLE.len())).await;
    let gateway = gateway(towards(url(upstream), None)).await;
    let http = http();
    for _ in 0..50 {
        let got = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
        assert_eq!((got.status, got.text().as_str()), (200, WHOLE));
    }
}

/// Heads before the head are for the hop, not for the client.
#[tokio::test]
async fn heads_before_the_head_are_skipped() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n";
    let upstream = says(format!("{early}{}", with_length(WHOLE.len()))).await;
    let got = ask(towards(url(upstream), None), false, Some("0")).await;
    assert_eq!((got.status, got.text().as_str(), got.header("link")), (200, WHOLE, None));
}

/// A success that has no body is no answer, whatever it calls itself.
#[tokio::test]
async fn a_success_without_an_answer_is_no_answer() {
    for head in ["204 No Content\r\n", "200 OK\r\ncontent-length: 0\r\n", "205 Reset Content\r\ncontent-length: 0\r\n"]
    {
        let upstream = says(format!("HTTP/1.1 {head}\r\n")).await;
        is_rescued(url(upstream), 502, "wrong_content_type").await;
    }
}

/// A server that has said all and forgets to hang up keeps nobody waiting; one that began and went silent does, until
/// the clock.
#[tokio::test]
async fn a_server_that_stays_on_the_line() {
    let silent = async |bytes: String| {
        let bytes = Arc::new(bytes);
        server(move |mut socket, _| {
            let bytes = Arc::clone(&bytes);
            async move {
                request(&mut socket).await;
                drop(socket.write_all(bytes.as_bytes()).await);
                while socket.read(&mut [0; 64]).await.is_ok_and(|len| len > 0) {}
            }
        })
        .await
    };
    let upstream = silent([EVENTS, "\r\n", TOKEN, STOP, DONE].concat()).await;
    let got = ask(towards(url(upstream), None), true, Some("0")).await;
    assert_eq!((got.status, got.text(), got.broken), (200, [TOKEN, STOP, DONE].concat(), false));
    let good = support::mock("").await;
    for begun in ["HTTP/1.1 20", "HTTP/1.1 200 OK\r\ncontent-type: text/ev", EVENTS, &format!("{EVENTS}\r\ndata: {{")] {
        let upstream = silent(begun.to_owned()).await;
        for (second, status) in [(None, 504), (Some(good.base_url()), 200)] {
            let mut settings = towards(url(upstream), second);
            let clocks = &mut settings.routes[0].timeouts;
            clocks.first_token = Duration::from_millis(300);
            clocks.total = Duration::from_secs(if status == 200 { 20 } else { 1 });
            let got = ask(settings, true, (status == 504).then_some("0")).await;
            assert_eq!((got.status, got.looks_complete()), (status, status == 200), "{begun}: {}", got.text());
        }
    }
}

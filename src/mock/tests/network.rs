//! Faults of the connection and of transfer framing, and what is counted when a client leaves.

use std::time::Duration;

use super::*;

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_cut_ends_as_it_was_told_to() {
    let got = say(&faulty("cut: { at: token 3, how: close }").await, true).await;
    assert_eq!((got.whole, got.reset, got.said().split_whitespace().count()), (false, false, 3));
    let got = say(&faulty("cut: { at: token 3, how: reset }").await, true).await;
    assert_eq!((got.whole, got.reset), (false, true));
    let plain = say(&mock("").await, true).await;
    let got = say(&faulty("cut: { at: byte 100, how: close }").await, true).await;
    assert_eq!(got.body, plain.body[..100]);
    let got = say(&faulty("cut: { at: byte 50, how: close }").await, false).await;
    assert_eq!((got.body.len(), got.whole), (50, false));
    let got = say(&faulty("cut: { at: half, how: eof }").await, false).await;
    assert!(got.whole && serde_json::from_slice::<Value>(&got.body).is_err());
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_wherever_the_call_hangs() {
    let cases = [
        ("hang: first_token", "\r\n\r\n"),
        ("hang: mid", "content"),
        ("role_then_silence: true", "assistant"),
        ("cut: { at: token 2, how: stall }", "content"),
        ("cut: { at: token 2, how: half }", "content"),
        ("delay: { first_token: 1h }", "\r\n\r\n"),
        ("comments_only: 1ms", ": keep-alive\n\n"),
        ("delay: { first_token: 1h }, ping: 1ms", ": keep-alive\n\n"),
        ("delay: { after_role: 1h }", "assistant"),
        ("delay: { before_end: 1h }", "stop"),
        ("bandwidth: 1", "H"),
    ];
    for (fault, wanted) in cases {
        let mock = faulty(fault).await;
        let (socket, _) = reading(&mock, &post(CHAT, &chat(true), false), wanted).await;
        assert_eq!((mock.stats().active, mock.stats().cancelled), (1, 0), "{fault}");
        drop(socket);
        let stats = mock.until(|s| s.cancelled == 1).await;
        assert_eq!((stats.active, stats.finished), (0, 0), "{fault}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_any_answer_is_counted() {
    for fault in ["hang: headers", "delay: { headers: 1h }"] {
        let mock = faulty(fault).await;
        let mut socket = TcpStream::connect(mock.addr()).await.expect("connects");
        socket.write_all(&post(CHAT, &chat(false), false)).await.expect("sends");
        mock.until(|s| !s.last_requests.is_empty()).await;
        drop(socket);
        mock.until(|s| s.cancelled == 1).await;
    }
    for fault in ["hang: accept", "slow_read: 0", "delay: { accept: 1h }"] {
        let mock = faulty(fault).await;
        let mut socket = TcpStream::connect(mock.addr()).await.expect("connects");
        socket.write_all(&post(CHAT, &chat(false), false)).await.expect("sends");
        mock.until(|s| s.calls == 1).await;
        drop(socket);
        mock.until(|s| s.cancelled == 1).await;
    }
}

#[tokio::test]
async fn lengths_and_chunks_lie() {
    let declared = |got: &Got| got.header("content-length").and_then(|v| v.parse::<usize>().ok());
    let got = say(&faulty("wrong_content_length: short").await, false).await;
    assert_eq!(declared(&got), Some(got.body.len() - 10));
    let got = say(&faulty("wrong_content_length: long").await, true).await;
    assert_eq!(declared(&got), Some(got.body.len() + 10));
    let (bytes, _) = raw(&faulty("bad_chunked: true").await, &post(CHAT, &chat(true), true)).await;
    assert!(String::from_utf8_lossy(&bytes).contains("\r\nzz\r\n"));
    let got = say(&faulty("until_close: true").await, true).await;
    assert!(got.header("transfer-encoding").is_none() && got.text().ends_with("[DONE]\n\n"));
    let (bytes, _) = raw(&faulty("trailers: true").await, &post(CHAT, &chat(true), true)).await;
    assert!(String::from_utf8_lossy(&bytes).ends_with("0\r\nx-mock-trailer: yes\r\n\r\n"));
    let got = say(&faulty("huge_headers: 1MiB").await, false).await;
    assert!(got.head.len() > 1 << 20);
    let got = say(&faulty("huge_body: 3MiB").await, false).await;
    assert!(got.body.len() > 3 << 20 && got.whole && got.json()["choices"].is_array());
    let got = say(&faulty("broken_gzip: true").await, true).await;
    let mut plain = Vec::new();
    let read = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(got.body.as_slice()), &mut plain);
    assert!(got.header("content-encoding") == Some("gzip") && read.is_err());
}

#[tokio::test]
async fn connections_are_kept_and_closed_behind_the_clients_back() {
    let kept = mock("").await;
    let request = post(CHAT, &chat(true), false);
    let (mut socket, _) = reading(&kept, &request, "0\r\n\r\n").await;
    socket.write_all(&post(CHAT, &chat(true), true)).await.expect("sends");
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.expect("reads");
    assert!(parse(&bytes, false).whole);
    let stats = kept.until(|s| s.finished == 2).await;
    assert_eq!((stats.connections, stats.calls), (1, 2));

    let (bytes, _) = raw(&faulty("close_idle: true").await, &request).await;
    let got = parse(&bytes, false);
    assert!(got.whole && got.header("connection").is_none());
}

#[tokio::test]
async fn a_pipelined_request_waits_its_turn() {
    let mock = mock("").await;
    let two = [post(CHAT, &chat(false), false), post(CHAT, &chat(false), true)].concat();
    let (bytes, _) = raw(&mock, &two).await;
    assert_eq!(String::from_utf8_lossy(&bytes).matches("HTTP/1.1 200 OK").count(), 2);
}

#[tokio::test]
async fn the_server_resets_dies_and_comes_back() {
    let reset = mock("  - times: 1\n    do: { reset_on_accept: true }").await;
    let (bytes, was_reset) = raw(&reset, &post(CHAT, &chat(false), true)).await;
    assert!(bytes.is_empty() && was_reset);
    assert_eq!(say(&reset, false).await.status, 200);
    assert_eq!(reset.stats().calls, 2);

    let dying = mock("  - when: { calls: 2 }\n    do: { refuse: 1h }").await;
    let (mut idle, _) = reading(&dying, &post(CHAT, &chat(false), false), "choices").await;
    let (bytes, was_reset) = raw(&dying, &post(CHAT, &chat(false), true)).await;
    assert!(bytes.is_empty() && was_reset);
    let mut rest = Vec::new();
    assert!(idle.read_to_end(&mut rest).await.is_err());
    assert!(TcpStream::connect(dying.addr()).await.is_err());

    let killed = mock("").await;
    killed.down().await;
    assert!(TcpStream::connect(killed.addr()).await.is_err());
    killed.up().await;
    assert_eq!(say(&killed, false).await.status, 200);
}

#[tokio::test]
async fn a_blackhole_passes() {
    let mock = mock("  - times: 1\n    do: { blackhole: 50ms }").await;
    let began = std::time::Instant::now();
    assert_eq!(say(&mock, false).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn an_upload_is_refused_early_or_welcomed() {
    let head = "POST /v1/files HTTP/1.1\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    let early = faulty("early_413: true").await;
    let (bytes, _) = raw(&early, head.as_bytes()).await;
    assert_eq!(parse(&bytes, false).status, 413);
    let mock = mock("").await;
    let (mut socket, _) = reading(&mock, head.as_bytes(), "HTTP/1.1 100 Continue\r\n\r\n").await;
    socket.write_all(b"hello").await.expect("sends");
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.expect("reads");
    assert_eq!(parse(&bytes, false).json()["body_length"], 5);
}

#[tokio::test]
async fn bodies_are_read_slowly_and_slots_are_few() {
    let slow = faulty("slow_read: 2000").await;
    let began = std::time::Instant::now();
    assert_eq!(say(&slow, false).await.status, 200);
    assert!(began.elapsed() >= Duration::from_millis(30));

    let few = start("slots: 1\nrules:\n  - times: 1\n    do: { hang: headers }").await;
    let mut first = TcpStream::connect(few.addr()).await.expect("connects");
    first.write_all(&post(CHAT, &chat(false), true)).await.expect("sends");
    few.until(|s| s.calls == 1 && !s.last_requests.is_empty()).await;
    let mut second = TcpStream::connect(few.addr()).await.expect("connects");
    second.write_all(&post(CHAT, &chat(false), true)).await.expect("sends");
    few.until(|s| s.last_requests.len() == 2).await;
    assert_eq!(few.stats().active, 2);
    assert_eq!(get(&few, "/health").await.status, 200);
    drop(first);
    let mut bytes = Vec::new();
    second.read_to_end(&mut bytes).await.expect("reads");
    assert_eq!(parse(&bytes, false).status, 200);
}

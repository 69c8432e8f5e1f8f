//! Calls with an `Idempotency-Key` over real sockets: one send for all, the same bytes for each, whoever leaves.

use std::time::Duration;

use futures_util::future::join_all;
use outrigger::app::Running;
use outrigger::config::ClientKey;
use outrigger::mock;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::tools::{Raw, eventually, request, total};
use crate::support::{Answer, base, chat, gateway, http, mock, post, settings};

const CHAT: &str = "/v1/chat/completions";

async fn keyed(gateway: &Running, path: &str, key: &str, body: &str) -> Answer {
    let url = format!("{}{}", base(gateway), path.trim_start_matches("/v1"));
    Answer::of(http().post(url).header("idempotency-key", key).body(body.to_owned()).send().await).await
}

/// A call whose connection the test holds in its hands.
async fn held(gateway: &Running, stream: bool) -> Raw {
    Raw::send(gateway.data(), request("POST", CHAT, &[("idempotency-key", "k")], chat(stream).as_bytes())).await
}

async fn repeated(gateway: &Running, result: &str) -> f64 {
    total(&http(), gateway, "outrigger_idempotency_total", &[&format!("result=\"{result}\"")]).await
}

async fn calls(gateway: &Running, outcome: &str) -> f64 {
    total(&http(), gateway, "outrigger_calls_total", &[&format!("outcome=\"{outcome}\"")]).await
}

async fn let_go(upstream: &mock::Running) {
    let cancelled = timeout(Duration::from_secs(1), upstream.until(|stats| stats.cancelled == 1)).await;
    assert!(cancelled.is_ok(), "not let go within a second: {:?}", upstream.stats());
}

#[tokio::test]
async fn equal_calls_at_once_are_one_send_and_the_same_bytes_for_all() {
    let input = r#"{"model":"m","input":"hello"}"#;
    for (path, body) in [
        (CHAT, chat(false)),
        (CHAT, chat(true).replace("\"stream\":true", r#""stream":true,"stream_options":{"include_usage":true}"#)),
        ("/v1/completions", r#"{"model":"m","prompt":"hello","stream":true}"#.to_owned()),
        ("/v1/responses", input.replace('}', r#","stream":true}"#)),
        ("/v1/messages", chat(true)),
        ("/v1/embeddings", input.to_owned()),
    ] {
        let upstream =
            mock("answer: { tokens: 30, per_token: 5ms }\nrules: [{ do: { delay: { headers: 200ms } } }]").await;
        let gateway = gateway(settings(&[upstream.base_url()])).await;
        let answers = join_all((0..12).map(|_| keyed(&gateway, path, "8e03978e", &body))).await;
        assert_eq!(upstream.stats().calls, 1, "{path}");
        for answer in &answers {
            assert_eq!((answer.status, answer.broken), (200, false), "{path}: {}", answer.text());
            assert_eq!(answer.text(), answers[0].text(), "{path}");
        }
        let count =
            |outcome| answers.iter().filter(move |answer| answer.header("x-outrigger-outcome") == Some(outcome));
        assert_eq!((count("ok").count(), count("cached").count()), (1, 11), "{path}");
        assert!(count("ok").all(|answer| answer.header("x-outrigger-attempts") == Some("1")));
        assert!(count("cached").all(|answer| answer.header("x-outrigger-attempts") == Some("0")));
        let seen = upstream.stats().last_requests.pop_back().unwrap();
        assert!(seen.headers.contains(&("idempotency-key".into(), "8e03978e".into())), "{:?}", seen.headers);

        let again = keyed(&gateway, path, "8e03978e", &body).await;
        assert_eq!(again.text(), answers[0].text(), "{path}");
        assert_eq!(again.header("x-outrigger-outcome"), Some("cached"), "{path}");
        assert_eq!(again.header("x-outrigger-endpoint"), Some("e0"), "{path}");
        assert_eq!(again.header("content-type"), answers[0].header("content-type"), "{path}");
        assert_eq!(upstream.stats().calls, 1, "{path}");
        assert_eq!(repeated(&gateway, "joined").await + repeated(&gateway, "replayed").await, 12.0, "{path}");
        assert!(repeated(&gateway, "replayed").await >= 1.0, "{path}");
        assert_eq!((calls(&gateway, "ok").await, calls(&gateway, "cached").await), (1.0, 12.0), "{path}");
        assert_eq!(total(&http(), &gateway, "outrigger_attempts_total", &[]).await, 1.0, "{path}");
        if path == CHAT {
            let tokens = total(&http(), &gateway, "outrigger_tokens_total", &["direction=\"output\""]).await;
            assert_eq!(tokens, 30.0, "tokens count once, for whoever's send it was");
        }
    }
}

#[tokio::test]
async fn who_began_it_leaves_and_who_joined_gets_everything() {
    for (scenario, stream) in [
        ("answer: { tokens: 60, per_token: 10ms }", true),
        ("rules: [{ do: { delay: { headers: 600ms } } }]", true),
        ("rules: [{ do: { delay: { before_end: 600ms } } }]", false),
    ] {
        let upstream = mock(scenario).await;
        let direct = post(&http(), &format!("{}/chat/completions", upstream.base_url()), chat(stream)).await;
        let gateway = gateway(settings(&[upstream.base_url()])).await;
        let mut first = held(&gateway, stream).await;
        upstream.until(|stats| stats.last_requests.len() == 2).await;
        if scenario.starts_with("answer") {
            first.until("data:").await;
        }
        let body = chat(stream);
        let (second, ()) = tokio::join!(keyed(&gateway, CHAT, "k", &body), async {
            eventually("the second has joined", || async { repeated(&gateway, "joined").await == 1.0 }).await;
            drop(first);
            eventually("the first has left", || async { calls(&gateway, "cancelled").await == 1.0 }).await;
        });
        assert!(second.looks_complete(), "{}", second.text());
        let lengths = (second.body.len(), direct.body.len());
        assert!(lengths.0.abs_diff(lengths.1) < 200, "all of it: {lengths:?}");
        let stats = upstream.until(|stats| stats.active == 0).await;
        assert_eq!((stats.calls, stats.cancelled), (2, 0), "{scenario}");
        assert_eq!(total(&http(), &gateway, "outrigger_attempts_total", &["class=\"ok\""]).await, 1.0);
    }
}

#[tokio::test]
async fn when_all_have_left_the_model_is_let_go_and_the_key_is_free() {
    for (rule, stream) in [("hang: headers", false), ("hang: first_token", true), ("hang: mid", true)] {
        let upstream = mock(&format!("rules: [{{ when: {{ calls: 1 }}, do: {{ {rule} }} }}]")).await;
        let gateway = gateway(settings(&[upstream.base_url()])).await;
        let mut first = held(&gateway, stream).await;
        upstream.until(|stats| stats.last_requests.len() == 1).await;
        let mut second = held(&gateway, stream).await;
        eventually("the second has joined", || async { repeated(&gateway, "joined").await == 1.0 }).await;
        if rule == "hang: mid" {
            first.until("data:").await;
            second.until("data:").await;
        }
        drop(first);
        eventually("the first has left", || async { calls(&gateway, "cancelled").await == 1.0 }).await;
        assert_eq!(upstream.stats().cancelled, 0, "the second still waits");
        drop(second);
        let_go(&upstream).await;
        eventually("both are counted", || async { calls(&gateway, "cancelled").await == 2.0 }).await;
        let attempts = total(&http(), &gateway, "outrigger_attempts_total", &["class=\"client_disconnect\""]).await;
        assert_eq!(attempts, 1.0, "{rule}");
        let third = keyed(&gateway, CHAT, "k", &chat(true)).await;
        assert!(third.looks_complete(), "another body, as nothing was answered: {}", third.text());
        assert_eq!((third.header("x-outrigger-outcome"), upstream.stats().calls), (Some("ok"), 2));
    }
}

#[tokio::test]
async fn another_body_is_refused_and_a_failure_is_not_kept() {
    let upstream = mock("rules: [{ when: { calls: 1 }, do: { status: 400 } }]").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let refused = keyed(&gateway, CHAT, "k", &chat(false)).await;
    assert_eq!(refused.status, 400);
    let answered = keyed(&gateway, CHAT, "k", &chat(false)).await;
    assert_eq!((answered.status, answered.header("x-outrigger-outcome")), (200, Some("ok")));
    let other = keyed(&gateway, CHAT, "k", &chat(true)).await;
    assert_eq!((other.status, other.error_code().as_deref()), (422, Some("bad_request")));
    assert_eq!(other.json()["error"]["param"], "idempotency-key");
    assert_eq!((other.header("x-outrigger-attempts"), other.header("retry-after")), (Some("0"), None));
    let elsewhere = keyed(&gateway, "/v1/completions", "k", r#"{"model":"m","prompt":"x"}"#).await;
    assert_eq!(elsewhere.status, 200, "another surface is another key");
    assert_eq!(repeated(&gateway, "conflict").await, 1.0);
    assert_eq!(upstream.stats().calls, 3);
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_by_name() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    for key in ["", "a b", "\u{fc}", &"k".repeat(256)] {
        let answer = keyed(&gateway, CHAT, key, &chat(false)).await;
        assert_eq!((answer.status, answer.error_code().as_deref()), (400, Some("bad_request")), "{key:?}");
        assert_eq!(answer.json()["error"]["param"], "idempotency-key");
    }
    assert_eq!(upstream.stats().calls, 0);
}

#[tokio::test]
async fn what_is_too_long_to_be_kept_is_not_joined_late_and_not_given_again() {
    let upstream = mock("answer: { tokens: 200, per_token: 5ms }").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.server.idempotency.max_memory = 64 << 10;
    let gateway = gateway(settings).await;
    let mut first = held(&gateway, true).await;
    let mut joined = held(&gateway, true).await;
    eventually("the second has joined", || async { repeated(&gateway, "joined").await == 1.0 }).await;
    while first.read.len() < 24 << 10 {
        let more = first.stream.readable().await.and_then(|()| first.stream.try_read_buf(&mut first.read));
        assert!(!matches!(more, Ok(0)), "it ended early");
    }
    let late = keyed(&gateway, CHAT, "k", &chat(true)).await;
    assert_eq!((late.status, late.error_code().as_deref()), (409, Some("bad_request")), "{}", late.text());
    assert_eq!((late.header("retry-after"), late.header("x-should-retry")), (Some("1"), None));
    let other = keyed(&gateway, CHAT, "k", &chat(false)).await;
    assert_eq!(other.status, 422, "another body is worse than late");
    let one = first.until("[DONE]").await;
    assert_eq!(one.split("\r\n\r\n").nth(1), joined.until("[DONE]").await.split("\r\n\r\n").nth(1));
    assert_eq!(upstream.stats().calls, 1);
    eventually("both are counted", || async { calls(&gateway, "cached").await == 1.0 }).await;
    let again = keyed(&gateway, CHAT, "k", &chat(true)).await;
    assert_eq!((again.header("x-outrigger-outcome"), upstream.stats().calls), (Some("ok"), 2));
}

#[tokio::test]
async fn who_reads_slowly_slows_nobody() {
    // No faster than a reader that is given its turn can follow, where who cannot is dropped.
    for (memory, pace, keeps) in [(256 << 20, "", true), (1 << 20, "bandwidth: 6MiB,", false)] {
        let huge = "huge_event: 16KiB, huge_body: 12MiB, delay: { headers: 300ms }";
        let scenario =
            format!("answer: {{ per_token: 0ms, first_token: 0ms }}\nrules: [{{ do: {{ {pace} {huge} }} }}]");
        let upstream = mock(&scenario).await;
        let mut settings = settings(&[upstream.base_url()]);
        settings.server.idempotency.max_memory = memory;
        let gateway = gateway(settings).await;
        let mut slow = held(&gateway, true).await;
        upstream.until(|stats| stats.last_requests.len() == 1).await;
        let body = chat(true);
        let (one, other) = tokio::join!(keyed(&gateway, CHAT, "k", &body), keyed(&gateway, CHAT, "k", &body));
        assert!(one.looks_complete() && one.body.len() > 12 << 20, "{} bytes", one.body.len());
        assert!(one.body == other.body, "the same bytes");
        let end: &[u8] = if keeps { b"data: [DONE]\n\n" } else { b"oversize_response" };
        let seen = |read: &[u8]| memchr::memmem::find(&read[read.len().saturating_sub(1024)..], end).is_some();
        while !seen(&slow.read) {
            let more = slow.stream.readable().await.and_then(|()| slow.stream.try_read_buf(&mut slow.read));
            assert!(!matches!(more, Ok(0)), "closed without an end");
        }
        assert_eq!(slow.read.len() > 12 << 20, keeps);
        assert_eq!(memchr::memmem::find(&slow.read, b"[DONE]").is_some(), keeps, "nothing that looks like an end");
        assert_eq!(upstream.stats().calls, 1);
    }
}

#[tokio::test]
async fn callers_share_nothing() {
    let upstream = mock("{}").await;
    let open = gateway(settings(&[upstream.base_url()])).await;
    let with = |gateway: &Running, authorization: &str| {
        let request = http().post(format!("{}/chat/completions", base(gateway))).body(chat(false));
        request.header("idempotency-key", "k").header("authorization", authorization).send()
    };
    for (authorization, calls) in [("Bearer one", 1), ("Bearer two", 2), ("Bearer one", 2)] {
        assert_eq!(with(&open, authorization).await.unwrap().status(), 200);
        assert_eq!(upstream.stats().calls, calls, "{authorization}");
    }
    let mut closed = settings(&[upstream.base_url()]);
    let key = |name: &str| ClientKey {
        name: name.into(),
        sha256: Sha256::digest(name.as_bytes()).into(),
        priority: Default::default(),
        limits: Default::default(),
    };
    closed.server.keys = vec![key("one"), key("two")];
    let closed = gateway(closed).await;
    for (authorization, calls) in [("Bearer one", 3), ("Bearer two", 4), ("Bearer two", 4)] {
        assert_eq!(with(&closed, authorization).await.unwrap().status(), 200);
        assert_eq!(upstream.stats().calls, calls, "{authorization}");
    }
}

#[tokio::test]
async fn where_it_is_not_honoured_the_header_travels_on() {
    let upstream = mock("{}").await;
    let on = gateway(settings(&[upstream.base_url()])).await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.server.idempotency.ttl = Duration::ZERO;
    let off = gateway(settings).await;
    for (number, (gateway, path, key)) in [
        (&on, "/v1/audio/speech", "k"),
        (&on, "/v1/audio/speech", "k"),
        (&on, "/v1/audio/speech", "two words"),
        (&off, CHAT, "k"),
        (&off, CHAT, "k"),
        (&off, CHAT, "two words"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = keyed(gateway, path, key, &chat(false)).await;
        assert_eq!((answer.status, answer.header("x-outrigger-outcome")), (200, Some("ok")), "{path} {key}");
        let stats = upstream.stats();
        assert_eq!(stats.calls, number as u64 + 1);
        let seen = stats.last_requests.back().unwrap();
        assert!(seen.headers.contains(&("idempotency-key".into(), key.into())), "{:?}", seen.headers);
    }
}

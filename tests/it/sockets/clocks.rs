//! Time: a slow start is not a dead one, silence is not waited for twice, and the caller's patience is the bound.

use std::time::Duration;

use outrigger::config::Settings;
use outrigger::mock;

use super::tools::{Raw, head_value, total};
use crate::support::{Answer, base, chat, gateway, http, mock, no_breakers, post, settings};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn two(first: &str, second: &str, settle: impl FnOnce(&mut Settings)) -> (Answer, mock::Running, mock::Running) {
    let (one, other) = (mock(first).await, mock(second).await);
    let mut settings = settings(&[one.base_url(), other.base_url()]);
    settings.routes[0].timeouts.first_token = ms(100);
    settle(&mut settings);
    let gateway = gateway(settings).await;
    let answer = post(&http(), &format!("{}/chat/completions", base(&gateway)), chat(true)).await;
    (answer, one, other)
}

fn slow(millis: u64) -> String {
    format!("rules: [{{ do: {{ delay: {{ first_token: {millis}ms }}, text: after {millis} }} }}]")
}

#[tokio::test]
async fn a_slow_but_healthy_start_wins_over_its_twin() {
    let (answer, one, other) = two(&slow(600), &slow(20_000), |_| {}).await;
    assert!(answer.looks_complete() && answer.text().contains("600"), "{}", answer.text());
    assert_eq!((answer.header("x-outrigger-endpoint"), answer.header("x-outrigger-outcome")), (Some("e0"), Some("ok")));
    assert_eq!(answer.header("x-outrigger-attempts"), Some("2"), "a twin was started");
    assert_eq!((one.stats().calls, one.stats().cancelled), (1, 0), "it was not killed");
    other.until(|stats| stats.cancelled == 1).await;
}

#[tokio::test]
async fn a_hang_is_answered_by_its_twin() {
    for hang in [
        "hang: first_token",
        "hang: headers",
        "role_then_silence: true",
        "comments_only: 10ms",
        "hang: first_token, ping: 10ms",
    ] {
        let (answer, one, _other) = two(&format!("rules: [{{ do: {{ {hang} }} }}]"), "{}", |_| {}).await;
        assert!(answer.looks_complete(), "{hang}: {}", answer.text());
        assert_eq!(answer.header("x-outrigger-endpoint"), Some("e1"), "{hang}");
        assert_eq!(answer.header("x-outrigger-outcome"), Some("fallback"), "{hang}");
        let trail = answer.header("x-outrigger-trail").unwrap();
        assert!(trail.contains("e0;class=") && trail.contains("_timeout;"), "{hang}: {trail}");
        one.until(|stats| stats.cancelled == 1).await;
    }
}

#[tokio::test]
async fn with_nobody_else_to_ask_a_slow_start_is_waited_for() {
    let upstream = mock(&slow(500)).await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.routes[0].timeouts.first_token = ms(50);
    settings.routes[0].timeouts.headers = ms(50);
    let gateway = gateway(settings).await;
    let answer = post(&http(), &format!("{}/chat/completions", base(&gateway)), chat(true)).await;
    assert!(answer.looks_complete() && upstream.stats().calls == 1, "{}", answer.text());
}

#[tokio::test]
async fn a_long_prompt_gets_longer_patience() {
    let (one, other) = (mock(&slow(900)).await, mock("{}").await);
    let mut settings = settings(&[one.base_url(), other.base_url()]);
    settings.routes[0].timeouts.first_token = ms(400);
    let gateway = gateway(settings).await;
    let url = format!("{}/chat/completions", base(&gateway));
    let answer = post(&http(), &url, chat(true)).await;
    assert_eq!(answer.header("x-outrigger-endpoint"), Some("e1"), "a short prompt is not worth the wait");
    let answer = post(&http(), &url, chat(true).replace("hello", &"x".repeat(200 * 1024))).await;
    assert_eq!((answer.header("x-outrigger-endpoint"), answer.header("x-outrigger-attempts")), (Some("e0"), Some("1")));
}

#[tokio::test]
async fn the_caller_s_patience_is_the_bound() {
    for (name, value) in
        [("x-outrigger-timeout", "300ms"), ("x-stainless-read-timeout", "0.3"), ("x-stainless-timeout", "0.3")]
    {
        for (fault, stream) in [("hang: headers", true), ("hang: headers", false), ("hang: first_token", true)] {
            let upstream = mock(&format!("rules: [{{ do: {{ {fault} }} }}]")).await;
            let gateway = gateway(settings(&[upstream.base_url()])).await;
            let answer =
                Raw::ask(gateway.data(), "POST", "/v1/chat/completions", &[(name, value)], chat(stream).as_bytes())
                    .await;
            assert!(answer.starts_with("HTTP/1.1 504"), "{name} {fault}: {answer}");
            assert!(answer.contains("\"code\":\"deadline_exceeded\""), "{answer}");
            assert_eq!(head_value(&answer, "x-should-retry"), Some("false"));
            assert_eq!(head_value(&answer, "x-outrigger-attempts"), Some("1"));
            upstream.until(|stats| stats.cancelled == 1).await;
        }
    }
}

#[tokio::test]
async fn no_caller_can_loosen_the_bound() {
    let upstream = mock("rules: [{ do: { hang: headers } }]").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.routes[0].timeouts.total = ms(300);
    let gateway = gateway(settings).await;
    let patient = [("x-outrigger-timeout", "1h"), ("x-stainless-read-timeout", "600")];
    let answer = Raw::ask(gateway.data(), "POST", "/v1/chat/completions", &patient, chat(false).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
}

#[tokio::test]
async fn a_deadline_mid_stream_is_told_in_the_stream() {
    for (path, end) in
        [("/v1/chat/completions", "[DONE]"), ("/v1/messages", "message_stop"), ("/v1/responses", "response.completed")]
    {
        let upstream = mock("answer: { tokens: 2000, per_token: 5ms }").await;
        let gateway = gateway(settings(&[upstream.base_url()])).await;
        let answer =
            Raw::ask(gateway.data(), "POST", path, &[("x-outrigger-timeout", "1500ms")], chat(true).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("deadline_exceeded"), "{path}: {answer}");
        assert!(!answer.contains(end), "{path} ends as if it were whole");
        upstream.until(|stats| stats.cancelled == 1).await;
    }
}

#[tokio::test]
async fn a_client_that_repeats_pays_nothing_into_the_budget() {
    let repeats = async |count: &str| {
        let upstream = mock("rules: [{ do: { error: overloaded } }]").await;
        let mut settings = settings(&[upstream.base_url()]);
        no_breakers(&mut settings);
        settings.routes[0].retry.backoff.base = ms(1);
        settings.routes[0].retry.budget = 1.0;
        let gateway = gateway(settings).await;
        for _ in 0..10 {
            let headers = [("x-stainless-retry-count", count)];
            Raw::ask(gateway.data(), "POST", "/v1/chat/completions", &headers, chat(false).as_bytes()).await;
        }
        let of = async |kind: &str| total(&http(), &gateway, "outrigger_attempts_total", &[kind]).await;
        assert_eq!(of("kind=\"first\"").await, 10.0);
        of("kind=\"retry\"").await
    };
    // A floor of three, and one for each first send that pays.
    assert_eq!((repeats("0").await, repeats("1").await), (13.0, 3.0));
}

#[tokio::test]
async fn keep_alives_are_no_progress() {
    for (path, fault) in [
        ("/chat/completions", "hang: mid, ping: 20ms"),
        ("/messages", "hang: mid, ping: 20ms"),
        ("/responses", "hang: mid, ping: 20ms"),
        ("/chat/completions", "hang: mid"),
    ] {
        let upstream = mock(&format!("rules: [{{ do: {{ {fault} }} }}]")).await;
        let mut settings = settings(&[upstream.base_url()]);
        settings.endpoints[0].timeouts.idle = ms(300);
        let gateway = gateway(settings).await;
        let answer = post(&http(), &format!("{}{path}", base(&gateway)), chat(true)).await;
        assert_eq!(answer.status, 200);
        assert!(answer.text().contains("stream_stalled"), "{path}: {}", answer.text());
        assert!(
            !["[DONE]", "message_stop", "response.completed"].iter().any(|end| answer.text().contains(end)),
            "{path}"
        );
        let http = http();
        assert_eq!(total(&http, &gateway, "outrigger_stream_interruptions_total", &["phase=\"mid\""]).await, 1.0);
        upstream.until(|stats| stats.cancelled == 1).await;
    }
}

#[tokio::test]
async fn a_wait_longer_than_the_deadline_is_not_waited_for() {
    let upstream = mock("rules: [{ do: { status: 429, headers: { retry-after: '8' } } }]").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let headers = [("x-outrigger-timeout", "5s")];
    let answer = Raw::ask(gateway.data(), "POST", "/v1/chat/completions", &headers, chat(false).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert_eq!((head_value(&answer, "retry-after"), upstream.stats().calls), (Some("8"), 1));
}

//! Endpoints whose health is asked for beside the calls, and what that changes for calls.

use std::time::Duration;

use outrigger::app::Running;
use outrigger::config::Settings;
use outrigger::mock::{self, Scenario};
use outrigger::policy::{ProbeSettings, Target};
use outrigger::transport::Credential;

use super::tools::{eventually, total};
use crate::support::{base, chat, gateway, get, http, metric, mock, post, settings};

const LOADING: &str = "rules: [{ when: { path: /health }, do: { error: loading } }]";

fn probed(upstreams: &[&mock::Running]) -> Settings {
    let urls: Vec<String> = upstreams.iter().map(|upstream| upstream.base_url()).collect();
    let mut settings = settings(&urls);
    for endpoint in &mut settings.endpoints {
        endpoint.probe = Some(ProbeSettings { every: Duration::from_millis(50), ..ProbeSettings::default() });
    }
    settings
}

async fn turned(gateway: &Running, endpoint: &str, up: f64) {
    let (http, series) = (http(), format!("outrigger_probe_up{{endpoint=\"{endpoint}\"}}"));
    eventually(&format!("{endpoint} at {up}"), || async { metric(&http, gateway.admin(), &series).await == up }).await;
}

#[tokio::test]
async fn traffic_leaves_an_endpoint_that_loads_its_model_and_comes_back() {
    let (one, other) = (mock(LOADING).await, mock("{}").await);
    let mut settings = probed(&[&one, &other]);
    settings.routes[0].targets = vec![Target::of(vec![0, 1])];
    let gateway = gateway(settings).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    turned(&gateway, "e0", 0.0).await;
    assert!(one.stats().by_path["/health"] >= 2, "one failure is none");
    let before = one.stats().calls;
    for _ in 0..30 {
        assert!(post(&http, &url, chat(false)).await.looks_complete());
    }
    assert_eq!((one.stats().calls, other.stats().calls), (before, 30));
    let status = get(&http, &format!("http://{}/api/v1/status", gateway.admin())).await.json();
    assert_eq!((&status["endpoints"][0]["probe"], &status["endpoints"][1]["probe"]), (&"down".into(), &"up".into()));

    one.set_scenario(Scenario::parse("{}").unwrap());
    turned(&gateway, "e0", 1.0).await;
    let calls = || async { post(&http, &url, chat(false)).await.looks_complete() && one.stats().calls > before };
    eventually("a call at the one that is back", calls).await;
}

#[tokio::test]
async fn the_only_endpoint_is_asked_whatever_its_probes_say() {
    let upstream = mock(LOADING).await;
    let gateway = gateway(probed(&[&upstream])).await;
    turned(&gateway, "e0", 0.0).await;
    let http = http();
    let answer = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
    assert!(answer.looks_complete(), "{}", answer.text());
    assert_eq!(answer.header("x-outrigger-outcome"), Some("ok"));
    turned(&gateway, "e0", 0.0).await;
}

#[tokio::test]
async fn a_target_that_is_down_is_passed_over_and_asked_when_nobody_else_can_be() {
    let (one, other) = (mock(LOADING).await, mock("{}").await);
    let gateway = gateway(probed(&[&one, &other])).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    turned(&gateway, "e0", 0.0).await;
    let answer = post(&http, &url, chat(false)).await;
    assert_eq!((answer.status, answer.header("x-outrigger-endpoint")), (200, Some("e1")));
    assert_eq!(
        (answer.header("x-outrigger-attempts"), answer.header("x-outrigger-outcome")),
        (Some("1"), Some("fallback"))
    );
    assert_eq!(one.stats().calls, 0);

    let broken = "rules: [{ when: { path: /v1/* }, do: { error: quota } }]";
    other.set_scenario(Scenario::parse(broken).unwrap());
    let answer = post(&http, &url, chat(false)).await;
    assert_eq!((answer.status, answer.header("x-outrigger-endpoint")), (200, Some("e0")), "{}", answer.text());

    one.set_scenario(Scenario::parse(LOADING).unwrap());
    other.set_scenario(Scenario::parse(LOADING).unwrap());
    turned(&gateway, "e1", 0.0).await;
    let answer = post(&http, &url, chat(false)).await;
    assert_eq!((answer.status, answer.header("x-outrigger-endpoint")), (200, Some("e0")), "as if all were up");
}

#[tokio::test]
async fn a_server_that_dies_and_loads_its_model_again_is_back_when_it_says_so() {
    let (one, other) = (mock("{}").await, mock("{}").await);
    let mut settings = probed(&[&one, &other]);
    settings.routes[0].targets = vec![Target::of(vec![0, 1])];
    let gateway = gateway(settings).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    let asked = |stats: &mock::Stats| stats.by_path.get("/health").copied().unwrap_or_default();
    one.until(|stats| asked(stats) > 0).await;
    one.down().await;
    turned(&gateway, "e0", 0.0).await;
    one.set_scenario(Scenario::parse(LOADING).unwrap());
    one.up().await;
    let before = asked(&one.stats());
    one.until(|stats| asked(stats) >= before + 3).await;
    let calls = one.stats().calls;
    for _ in 0..10 {
        let answer = post(&http, &url, chat(false)).await;
        assert_eq!((answer.status, answer.header("x-outrigger-attempts")), (200, Some("1")));
    }
    assert_eq!(one.stats().calls, calls, "it listens, and is not ready");
    one.set_scenario(Scenario::parse("{}").unwrap());
    turned(&gateway, "e0", 1.0).await;
    let back = || async { post(&http, &url, chat(false)).await.looks_complete() && one.stats().calls > calls };
    eventually("a call at the one that is back", back).await;
}

#[tokio::test]
async fn a_passing_check_closes_no_breaker() {
    // Its health path is well, its model is not.
    let one = mock("rules: [{ when: { path: /v1/* }, do: { error: server_error } }]").await;
    let other = mock("{}").await;
    let mut settings = probed(&[&one, &other]);
    settings.routes[0].targets = vec![Target::of(vec![0, 1])];
    settings.endpoints[0].breaker.consecutive = 1;
    settings.endpoints[0].breaker.open_for = Duration::from_secs(3600);
    settings.endpoints[0].breaker.max_open = Duration::from_secs(3600);
    let gateway = gateway(settings).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    let open = "outrigger_breaker_state{endpoint=\"e0\",state=\"open\"}";
    let calls = || async {
        post(&http, &url, chat(false)).await;
        metric(&http, gateway.admin(), open).await == 1.0
    };
    eventually("an open breaker", calls).await;
    let asked = |stats: &mock::Stats| stats.by_path.get("/health").copied().unwrap_or_default();
    let (before, sent) = (asked(&one.stats()), one.stats().calls);
    one.until(|stats| asked(stats) >= before + 3).await;
    for _ in 0..10 {
        assert!(post(&http, &url, chat(false)).await.looks_complete());
    }
    assert_eq!((metric(&http, gateway.admin(), open).await, one.stats().calls), (1.0, sent));
}

#[tokio::test]
async fn a_probe_is_no_call_and_bears_the_endpoint_s_credential() {
    let upstream = mock("{}").await;
    let mut settings = probed(&[&upstream]);
    settings.endpoints[0].credential = Credential::Key("sk-probe".into());
    let gateway = gateway(settings).await;
    upstream.until(|stats| stats.by_path.get("/health").is_some_and(|count| *count >= 3)).await;
    let http = http();
    let seen = upstream.stats().last_requests;
    let probes: Vec<_> = seen.iter().filter(|request| request.path == "/health").collect();
    assert!(!probes.is_empty());
    for probe in probes {
        assert_eq!(probe.method, "GET");
        let key = probe.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        assert_eq!(key.map(|(_, value)| value.as_str()), Some("Bearer sk-probe"));
    }
    for name in ["outrigger_attempts_total", "outrigger_calls_total", "outrigger_concurrency_in_use"] {
        assert_eq!(total(&http, &gateway, name, &[]).await, 0.0, "{name}");
    }
    assert!(total(&http, &gateway, "outrigger_probes_total", &["result=\"ok\""]).await >= 2.0);
    assert_eq!(total(&http, &gateway, "outrigger_probes_total", &["result=\"failed\""]).await, 0.0);
}

#[tokio::test]
async fn who_is_not_probed_has_no_series_and_no_state() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    let metrics = get(&http, &format!("http://{}/metrics", gateway.admin())).await.text();
    assert!(!metrics.contains("outrigger_probe_up{") && !metrics.contains("outrigger_probes_total{"));
    let status = get(&http, &format!("http://{}/api/v1/status", gateway.admin())).await.json();
    assert!(status["endpoints"][0]["probe"].is_null());
    assert!(!upstream.stats().by_path.contains_key("/health"));
}

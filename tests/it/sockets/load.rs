//! Limits and queues over real sockets, before a server with few slots.

use std::time::Duration;

use futures_util::future::join_all;
use outrigger::call::Priority;
use outrigger::config::ClientKey;
use outrigger::dialect::Dialect;
use outrigger::policy::{Concurrency, Mode};
use sha2::{Digest, Sha256};

use crate::support::{base, chat, gateway, get, http, metric, mock, post, settings};

const SLOW: &str = "slots: 2\nrules: [{ do: { delay: { headers: 150ms } } }]";

#[tokio::test]
async fn no_more_are_in_flight_than_the_limit_and_the_rest_wait() {
    let upstream = mock(SLOW).await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.endpoints[0].concurrency = Concurrency { mode: Mode::Fixed, max: 2 };
    let gateway = gateway(settings).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    let answers = join_all((0..6).map(|_| post(&http, &url, chat(true)))).await;
    assert!(answers.iter().all(|answer| answer.looks_complete()), "{answers:?}");
    let waited = answers.iter().filter(|answer| {
        let timing = answer.header("server-timing").unwrap_or_default();
        let queue = timing.strip_prefix("queue;dur=").and_then(|rest| rest.split(',').next());
        queue.and_then(|ms| ms.parse::<f64>().ok()).is_some_and(|ms| ms > 50.0)
    });
    assert_eq!(waited.count(), 4);
    let value = |series: &'static str| metric(&http, gateway.admin(), series);
    assert_eq!(value("outrigger_queue_wait_seconds_count{route=\"default\"}").await, 4.0);
    assert_eq!(value("outrigger_queue_depth{route=\"default\"}").await, 0.0);
    assert_eq!(value("outrigger_concurrency_limit{endpoint=\"e0\"}").await, 2.0);
    assert_eq!(value("outrigger_concurrency_in_use{endpoint=\"e0\"}").await, 0.0);
}

#[tokio::test]
async fn what_finds_no_place_is_told_when_to_come_back() {
    let upstream = mock("rules: [{ do: { hang: headers } }]").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.endpoints[0].concurrency = Concurrency { mode: Mode::Fixed, max: 1 };
    settings.routes[0].queue_wait = Duration::ZERO;
    let gateway = gateway(settings).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    let first = tokio::spawn({
        let (http, url) = (http.clone(), url.clone());
        async move { post(&http, &url, chat(true)).await }
    });
    let in_use = "outrigger_concurrency_in_use{endpoint=\"e0\"}";
    while metric(&http, gateway.admin(), in_use).await < 1.0 {
        tokio::task::yield_now().await;
    }
    let refused = post(&http, &url, chat(true)).await;
    assert_eq!((refused.status, refused.error_code().as_deref()), (503, Some("queue_full")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!((refused.header("x-outrigger-attempts"), refused.header("x-outrigger-endpoint")), (Some("0"), None));
    assert_eq!(refused.header("x-should-retry"), None, "nothing was spent");
    let shed = "outrigger_shed_total{priority=\"default\",reason=\"full\",route=\"default\"}";
    assert_eq!(metric(&http, gateway.admin(), shed).await, 1.0);
    first.abort();
    while metric(&http, gateway.admin(), in_use).await > 0.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_key_caps_the_priority_its_calls_may_ask_for() {
    let upstream = mock("rules: [{ do: { hang: headers } }]").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.endpoints[0].concurrency = Concurrency { mode: Mode::Fixed, max: 1 };
    settings.routes[0].queue_wait = Duration::ZERO;
    let key = |name: &str, priority| ClientKey {
        name: name.into(),
        sha256: Sha256::digest(name.as_bytes()).into(),
        priority,
        limits: Default::default(),
    };
    settings.server.keys = vec![key("low", Priority::Sheddable), key("high", Priority::Critical)];
    let gateway = gateway(settings).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    let ask = |key: &str, priority: Option<&str>| {
        let request = http.post(&url).header("content-type", "application/json").bearer_auth(key).body(chat(true));
        priority.into_iter().fold(request, |request, asked| request.header("x-outrigger-priority", asked)).send()
    };
    let held = tokio::spawn(ask("high", None));
    let in_use = "outrigger_concurrency_in_use{endpoint=\"e0\"}";
    while metric(&http, gateway.admin(), in_use).await < 1.0 {
        tokio::task::yield_now().await;
    }
    for (key, asked, counted) in [
        ("low", None, "sheddable"),
        ("low", Some("critical"), "sheddable"),
        ("high", None, "critical"),
        ("high", Some("default"), "default"),
    ] {
        let series = format!("outrigger_shed_total{{priority=\"{counted}\",reason=\"full\",route=\"default\"}}");
        let before = metric(&http, gateway.admin(), &series).await;
        assert_eq!(ask(key, asked).await.unwrap().status(), 503);
        assert_eq!(metric(&http, gateway.admin(), &series).await, before + 1.0, "{key} {asked:?}");
    }
    assert_eq!(ask("high", Some("urgent")).await.unwrap().status(), 400);
    held.abort();
}

#[tokio::test]
async fn llama_cpp_tells_its_slots() {
    let limit = "outrigger_concurrency_limit{endpoint=\"e0\"}";
    for dialect in [Dialect::LlamaCpp, Dialect::Auto] {
        let upstream = mock("slots: 3\ndialect: llamacpp").await;
        let mut settings = settings(&[upstream.base_url()]);
        settings.endpoints[0].dialect = dialect;
        let gateway = gateway(settings).await;
        let http = http();
        if dialect == Dialect::Auto {
            assert_eq!(metric(&http, gateway.admin(), limit).await, 8.0);
            // Its own answer shows what it is.
            post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
        }
        while metric(&http, gateway.admin(), limit).await != 3.0 {
            tokio::task::yield_now().await;
        }
        let status = get(&http, &format!("http://{}/api/v1/status", gateway.admin())).await.json();
        assert_eq!(status["endpoints"][0]["limit"], 3);
        assert_eq!(status["routes"][0]["targets"][0]["queued"], 0);
    }
}

//! The admin port: probes, metrics that stay within their sets, and the state of things.

use std::collections::BTreeSet;

use super::tools::{Raw, total};
use crate::support::{base, chat, gateway, get, http, mock, post, settings};

/// The names and labels of every series.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn probes_do_not_depend_on_endpoints() {
    let gateway = gateway(settings(&["http://127.0.0.1:9/v1".into()])).await;
    let http = http();
    for path in ["/livez", "/readyz", "/healthz"] {
        let answer = get(&http, &format!("http://{}{path}", gateway.admin())).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"), "{path}");
    }
    assert_eq!(get(&http, &format!("http://{}/healthz", gateway.data())).await.status, 200);
    for path in ["/readyz?verbose", "/readyz?verbose=1&x"] {
        let text = get(&http, &format!("http://{}{path}", gateway.admin())).await.text();
        assert!(
            text.contains("1 routes") && text.contains("draining: false") && text.contains("in flight: 0"),
            "{text}"
        );
    }
    assert_eq!(get(&http, &format!("http://{}/nothing", gateway.admin())).await.status, 404);
    assert!(get(&http, &format!("http://{}/", gateway.admin())).await.text().contains("OPENAI_BASE_URL=http://"));
}

#[tokio::test]
async fn every_family_is_there_at_zero() {
    let gateway = gateway(settings(&["http://127.0.0.1:9/v1".into(), "http://127.0.0.1:10/v1".into()])).await;
    let http = http();
    let answer = get(&http, &format!("http://{}/metrics", gateway.admin())).await;
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    for (family, kind, labels) in [
        (
            "outrigger_calls_total",
            "counter",
            &["class=\"none\",outcome=\"ok\"", "class=\"rate_limited\",outcome=\"failed\""][..],
        ),
        (
            "outrigger_calls_total",
            "counter",
            &["class=\"none\",outcome=\"retried\"", "class=\"none\",outcome=\"fallback\""],
        ),
        (
            "outrigger_calls_total",
            "counter",
            &["class=\"none\",outcome=\"hedged\"", "class=\"client_disconnect\",outcome=\"cancelled\""],
        ),
        ("outrigger_calls_total", "counter", &["class=\"bad_request\",outcome=\"failed\",route=\"none\""]),
        ("outrigger_call_duration_seconds", "histogram", &["outcome=\"ok\"", "outcome=\"cancelled\""]),
        ("outrigger_first_token_seconds", "histogram", &["route=\"default\""]),
        ("outrigger_inter_token_seconds", "histogram", &["route=\"default\""]),
        ("outrigger_overhead_seconds", "histogram", &["route=\"default\""]),
        ("outrigger_calls_in_flight", "gauge", &["route=\"default\""]),
        ("outrigger_attempts_total", "counter", &["endpoint=\"e0\",kind=\"first\"", "endpoint=\"e1\",kind=\"hedge\""]),
        ("outrigger_attempts_per_call", "histogram", &["route=\"default\""]),
        ("outrigger_stream_interruptions_total", "counter", &["phase=\"before_first\"", "phase=\"mid\""]),
        ("outrigger_tokens_total", "counter", &["direction=\"input\"", "direction=\"output\""]),
    ] {
        assert!(text.contains(&format!("# TYPE {family} {kind}\n")), "no {kind} {family}");
        for label in labels {
            let found = text.lines().find(|line| line.starts_with(family) && line.contains(label));
            assert!(found.is_some_and(|line| line.ends_with(" 0")), "{family} {label}: {found:?}");
        }
    }
    for one in [
        "outrigger_retry_budget_remaining_ratio",
        "outrigger_config_last_reload_successful",
        "outrigger_config_info",
        "outrigger_build_info",
    ] {
        assert_eq!(total(&http, &gateway, one, &[]).await, 1.0, "{one}");
    }
    let keys = text.lines().filter(|line| !line.starts_with('#')).all(|line| line.starts_with("outrigger_"));
    assert!(keys, "{text}");
}

#[tokio::test]
async fn what_clients_make_up_becomes_no_series() {
    let upstream = mock("answer: { tokens: 1, first_token: 0ms, per_token: 0ms }").await;
    let mut settings = settings(&[upstream.base_url()]);
    let mut second = settings.routes[0].clone();
    (second.name, second.model) = ("say \"hi\"\\\nnow".into(), "special".into());
    settings.routes.insert(0, second);
    settings.routes[1].model = "m*".into();
    let gateway = gateway(settings).await;
    let http = http();
    let url = format!("{}/chat/completions", base(&gateway));
    let ask = async |model: &str| {
        let body = serde_json::json!({ "model": model, "messages": [] }).to_string();
        post(&http, &url, body).await.status
    };
    assert_eq!((ask("m").await, ask("special").await, ask("unknown").await), (200, 200, 404));
    for path in ["/v1/plain", "/v1/models/x"] {
        Raw::ask(gateway.data(), "GET", path, &[], b"").await;
    }
    let metrics = format!("http://{}/metrics", gateway.admin());
    let before = series(&get(&http, &metrics).await.text());
    for number in 0..500 {
        assert_eq!(ask(&format!("m-{number}\"}} 1\nfake_metric{{x=\"")).await, 200);
        assert_eq!(ask(&format!("{number}\"\n")).await, 404);
    }
    for path in ["/v1/odd\"%0Apath", "/v1/models/x%22%0A"] {
        Raw::ask(gateway.data(), "GET", path, &[("user-agent", "a\"b"), ("x-stainless-lang", "\"}")], b"").await;
    }
    let text = get(&http, &metrics).await.text();
    assert_eq!(series(&text), before, "made-up names grew the metrics");
    assert!(text.contains(r#"route="say \"hi\"\\\nnow""#), "a configured name is escaped");
    assert!(!text.contains("fake_metric"));
}

#[tokio::test]
async fn the_state_of_things() {
    let upstream = mock("rules: [{ do: { hang: mid } }]").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    let status = format!("http://{}/api/v1/status", gateway.admin());
    let held = http.post(format!("{}/chat/completions", base(&gateway))).body(chat(true)).send().await.unwrap();
    let told = get(&http, &status).await.json();
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&told["draining"], &told["calls_in_flight"]), (&false.into(), &1.into()), "{told}");
    assert_eq!(
        (&told["endpoints"][0]["name"], &told["endpoints"][0]["in_flight"]),
        (&"e0".into(), &1.into()),
        "{told}"
    );
    assert_eq!(told["routes"][0]["targets"][0]["endpoints"][0], "e0");
    assert_eq!(told["routes"][0]["targets"][0]["retry_budget_left"], 1.0);
    let text = get(&http, &format!("http://{}/readyz?verbose", gateway.admin())).await.text();
    assert!(text.contains("calls in flight: 1"), "{text}");
    assert_eq!(total(&http, &gateway, "outrigger_calls_in_flight", &["default"]).await, 1.0);
    drop(held);
}

#[tokio::test]
async fn calls_are_counted_by_what_became_of_them() {
    let upstream = mock("answer: { tokens: 10 }\nrules: [{ when: { calls: 2 }, do: { error: overloaded } }]").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    for stream in [false, false, true] {
        let answer = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(stream)).await;
        assert!(answer.looks_complete(), "{}", answer.text());
    }
    let of = async |metric: &str, labels: &[&str]| total(&http, &gateway, metric, labels).await;
    assert_eq!(of("outrigger_calls_total", &["outcome=\"ok\"", "default"]).await, 2.0);
    assert_eq!(of("outrigger_calls_total", &["outcome=\"retried\"", "default"]).await, 1.0);
    assert_eq!(of("outrigger_calls_total", &[]).await, 3.0);
    assert_eq!(of("outrigger_attempts_total", &["kind=\"first\""]).await, 3.0);
    assert_eq!(of("outrigger_attempts_total", &["kind=\"retry\"", "class=\"ok\""]).await, 1.0);
    assert_eq!(of("outrigger_attempts_total", &["class=\"upstream_overloaded\""]).await, 1.0);
    assert_eq!(of("outrigger_attempts_per_call_sum", &[]).await, 4.0);
    assert_eq!(of("outrigger_first_token_seconds_count", &[]).await, 3.0);
    assert!(of("outrigger_inter_token_seconds_count", &[]).await >= 5.0, "gaps of one stream");
    assert!(of("outrigger_tokens_total", &["output"]).await >= 20.0);
    assert_eq!(of("outrigger_calls_in_flight", &[]).await, 0.0);
}

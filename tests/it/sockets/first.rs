//! The thinnest path: one call, whole and streamed, and one that is rescued.

use crate::support::{base, chat, gateway, http, metric, mock, post, settings};

#[tokio::test]
async fn a_whole_answer_is_forwarded_byte_for_byte() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    let direct = post(&http, &format!("{}/chat/completions", upstream.base_url()), chat(false)).await;
    let through = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
    assert_eq!((through.status, &through.body), (200, &direct.body));
    assert_eq!(through.header("x-outrigger-attempts"), Some("1"));
    assert_eq!(through.header("x-outrigger-outcome"), Some("ok"));
    assert_eq!(through.header("x-outrigger-endpoint"), Some("e0"));
    assert_eq!(through.header("x-request-id"), direct.header("x-request-id"), "the upstream's own id passes");
}

#[tokio::test]
async fn a_stream_is_forwarded_byte_for_byte() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    let direct = post(&http, &format!("{}/chat/completions", upstream.base_url()), chat(true)).await;
    let through = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(true)).await;
    assert_eq!(through.text(), direct.text());
    assert!(through.looks_complete());
}

#[tokio::test]
async fn a_failure_is_rescued_by_the_next_target() {
    let bad = mock("rules: [{ do: { error: quota } }]").await;
    let good = mock("{}").await;
    let gateway = gateway(settings(&[bad.base_url(), good.base_url()])).await;
    let http = http();
    let answer = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
    assert_eq!((answer.status, answer.header("x-outrigger-outcome")), (200, Some("fallback")));
    let trail = answer.header("x-outrigger-trail").unwrap_or_default();
    assert!(trail.starts_with("e0;class=upstream_quota;ms="), "{trail}");
    assert_eq!(bad.stats().calls, 1, "a spent quota is asked once");
    let series = "outrigger_calls_total{class=\"none\",outcome=\"fallback\",route=\"default\"}";
    assert_eq!(metric(&http, gateway.admin(), series).await, 1.0);
}

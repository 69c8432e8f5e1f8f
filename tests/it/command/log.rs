//! What stands in the log of a bad day.

use crate::command::process::Process;
use crate::support::{chat, get, http, mock, post};

/// A line for each change of the breaker, and not one for each call that met it.
#[tokio::test]
async fn a_long_outage_is_a_line_for_each_change() {
    let upstream = mock("{}").await;
    let gateway = Process::start(&["run", "--upstream", &upstream.base_url()]).await;
    upstream.down().await;
    let http = http();
    for _ in 0..40 {
        let answer = post(&http, &format!("{}/chat/completions", gateway.base), chat(false)).await;
        assert!(answer.status >= 502, "{}", answer.text());
    }
    let metrics = get(&http, &format!("http://{}/metrics", gateway.admin)).await.text();
    let counts = metrics.lines().filter(|line| line.starts_with("outrigger_breaker_transitions_total{"));
    let changes: f64 = counts.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    let said = gateway.stop().await.said;
    let lines = said.lines().filter(|line| line.contains("\"message\":\"breaker\"")).count();
    assert!(lines >= 1 && lines as f64 == changes, "{lines} lines, {changes} changes: {said}");
    assert!(lines < 20, "{lines} lines for 40 calls");
}

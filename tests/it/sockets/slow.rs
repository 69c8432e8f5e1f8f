//! Servers that are slow and well, and one that only seems to be there.

use std::time::Duration;

use outrigger::config::Settings;
use outrigger::policy::Timeouts;

use crate::support::{base, chat, gateway, http, metric, mock, post, settings};

/// Shorter than the whole takes, longer than any of its parts.
const CLOCK: Duration = Duration::from_millis(1500);

fn hurried(urls: &[String], total: Duration) -> Settings {
    let mut settings = settings(urls);
    let clocks = Timeouts { headers: CLOCK, first_token: CLOCK, idle: CLOCK, total, ..Timeouts::default() };
    settings.endpoints.iter_mut().for_each(|endpoint| endpoint.timeouts = clocks);
    settings.routes[0].timeouts = clocks;
    settings
}

#[tokio::test]
async fn a_trickle_over_a_thin_line_is_no_stall() {
    let scenario = "answer: { tokens: 16, first_token: 0ms, per_token: 0ms }\nrules: [{ do: { bandwidth: 1KiB } }]";
    let (upstream, other) = (mock(scenario).await, mock("{}").await);
    let gateway = gateway(hurried(&[upstream.base_url(), other.base_url()], Duration::from_secs(20))).await;
    let since = outrigger::clock::now();
    let answer = post(&http(), &format!("{}/chat/completions", base(&gateway)), chat(true)).await;
    assert!(answer.looks_complete(), "{}", answer.text());
    assert_eq!((answer.header("x-outrigger-endpoint"), answer.header("x-outrigger-attempts")), (Some("e0"), Some("1")));
    assert!(since.elapsed() > CLOCK, "it was over before any clock could have run out");
    assert_eq!(other.stats().calls, 0);
}

/// More than all buffers on the way hold, so that it cannot be written to its end.
#[tokio::test]
async fn a_body_that_is_never_read_is_given_up() {
    let long = chat(true).replace("hello", &"x".repeat(12 << 20));
    for (second, status) in [(false, 504), (true, 200)] {
        let (deaf, good) = (mock("rules: [{ do: { slow_read: 0 } }]").await, mock("{}").await);
        let urls = [Some(deaf.base_url()), second.then(|| good.base_url())].into_iter().flatten().collect::<Vec<_>>();
        let mut settings = hurried(&urls, Duration::from_secs(if second { 20 } else { 3 }));
        settings.server.max_body = 16 << 20;
        let gateway = gateway(settings).await;
        let answer = post(&http(), &format!("{}/chat/completions", base(&gateway)), long.clone()).await;
        assert_eq!((answer.status, answer.looks_complete()), (status, second), "{}", answer.text());
        if second {
            assert_eq!(answer.header("x-outrigger-endpoint"), Some("e1"));
        } else {
            assert_eq!(answer.error_code().as_deref(), Some("deadline_exceeded"));
        }
        let held = metric(&http(), gateway.admin(), "outrigger_concurrency_in_use{endpoint=\"e0\"}").await;
        assert_eq!(held, 0.0, "its place is free");
    }
}

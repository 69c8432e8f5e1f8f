//! A network that fails while the gateway holds connections into it, and comes back.

use std::time::Duration;

use outrigger::mock::Network;
use outrigger::policy::Timeouts;

use crate::support::{Answer, base, chat, gateway, http, mock, post, settings};

const PACE: &str = "answer: { tokens: 8, first_token: 0, per_token: 0 }";

/// Short where silence is what is tested, long everywhere else.
const CLOCKS: Timeouts = Timeouts {
    connect: Duration::from_millis(400),
    headers: Duration::from_millis(400),
    first_token: Duration::from_millis(400),
    idle: Duration::from_millis(400),
    total: Duration::from_secs(30),
};

fn by(answer: &Answer) -> Option<&str> {
    answer.header("x-outrigger-endpoint")
}

#[tokio::test]
async fn a_call_is_rescued_from_every_network_and_the_first_target_is_used_again() {
    for network in [Network::Refuse, Network::Blackhole, Network::HalfOpen, Network::Reset] {
        let (first, second) = (mock(PACE).await, mock(PACE).await);
        let mut settings = settings(&[first.base_url(), second.base_url()]);
        settings.routes[0].timeouts = CLOCKS;
        settings.endpoints.iter_mut().for_each(|endpoint| endpoint.timeouts = CLOCKS);
        let gateway = gateway(settings).await;
        let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
        // This one leaves a kept connection behind, which the network then takes with it.
        let before = post(&http, &url, chat(true)).await;
        assert_eq!((before.looks_complete(), by(&before)), (true, Some("e0")), "{network:?}");
        first.network(network, None).await;
        let during = post(&http, &url, chat(true)).await;
        assert!(during.looks_complete(), "{network:?}: {}", during.text());
        assert_eq!(by(&during), Some("e1"), "{network:?}");
        first.network(Network::Up, None).await;
        let after = post(&http, &url, chat(true)).await;
        assert_eq!((after.looks_complete(), by(&after)), (true, Some("e0")), "{network:?}: {after:?}");
    }
}

#[tokio::test]
async fn a_late_answer_of_a_server_that_stood_still_is_for_nobody() {
    let (first, second) = (mock(PACE).await, mock(PACE).await);
    let mut settings = settings(&[first.base_url(), second.base_url()]);
    settings.routes[0].timeouts = CLOCKS;
    let gateway = gateway(settings).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    assert_eq!(by(&post(&http, &url, chat(true)).await), Some("e0"));
    first.network(Network::HalfOpen, None).await;
    let answer = post(&http, &url, chat(true)).await;
    assert_eq!((by(&answer), answer.looks_complete()), (Some("e1"), true));
    assert_eq!(answer.text().matches("[DONE]").count(), 1);
    first.network(Network::Up, None).await;
    // The request lies in the server's buffers, with the gateway's farewell behind it.
    let stats = first.until(|stats| stats.calls == 2 && stats.active == 0).await;
    assert_eq!(second.stats().calls, 1, "asked once: {stats:?}");
    let next = post(&http, &url, chat(true)).await;
    assert!(next.looks_complete(), "{}", next.text());
    assert_eq!(next.text().matches("[DONE]").count(), 1, "nothing of the late answer is left on any connection");
}

#[tokio::test]
async fn a_stream_into_a_network_that_stops_ends_with_an_error() {
    let upstream = mock("answer: { tokens: 400, first_token: 0, per_token: 5ms }").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.endpoints[0].timeouts = CLOCKS;
    let gateway = gateway(settings).await;
    let url = format!("{}/chat/completions", base(&gateway));
    let begun = http().post(url).body(chat(true)).send().await;
    assert_eq!(begun.as_ref().unwrap().status(), 200, "committed: no other send can end it");
    upstream.network(Network::HalfOpen, None).await;
    let answer = Answer::of(begun).await;
    assert_eq!(answer.error_code().as_deref(), Some("stream_stalled"), "{}", answer.text());
    assert!(!answer.broken && !answer.text().contains("[DONE]"), "{}", answer.text());
}

/// The request has arrived, what came of it is not known: nobody else is asked, for it may have had its effect.
#[tokio::test]
async fn an_effect_whose_answer_was_lost_is_not_asked_for_again() {
    let (first, second) = (mock("rules: [{ do: { reset: request } }]").await, mock(PACE).await);
    let gateway = gateway(settings(&[first.base_url(), second.base_url()])).await;
    let answer = post(&http(), &format!("{}/batches", base(&gateway)), "{}").await;
    assert_eq!(answer.error_code().as_deref(), Some("reset_before_response"), "{}", answer.text());
    assert_eq!(answer.header("x-outrigger-attempts"), Some("1"));
    assert_eq!((first.stats().calls, second.stats().calls), (1, 0));
}

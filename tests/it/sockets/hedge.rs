//! A late stream and the one beside it, over real sockets: one winner, and a loser that is let go at once.

use std::time::Duration;

use outrigger::app::Running;
use outrigger::clock;
use outrigger::mock::{self, Scenario};
use outrigger::policy::{HedgeSettings, Spread, Target};

use super::tools::total;
use crate::support::{Answer, base, chat, gateway, http, metric, mock, no_breakers, post, said, settings};

/// A gateway over a pool of the two that knows what is usual there.
async fn warm(one: &mock::Running, other: &mock::Running) -> (Running, reqwest::Client) {
    let mut settings = settings(&[one.base_url(), other.base_url()]);
    settings.routes[0].targets = vec![Target { endpoints: vec![0, 1], by: Spread::Load }];
    settings.routes[0].hedge = HedgeSettings { on: true, after: 0.95, budget: 0.05 };
    no_breakers(&mut settings);
    let (gateway, http) = (gateway(settings).await, http());
    for _ in 0..160 {
        let answer = ask(&http, &gateway).await;
        assert_eq!(answer.header("x-outrigger-attempts"), Some("1"));
    }
    (gateway, http)
}

async fn ask(http: &reqwest::Client, gateway: &Running) -> Answer {
    post(http, &format!("{}/chat/completions", base(gateway)), chat(true)).await
}

async fn hedges(http: &reqwest::Client, gateway: &Running, outcome: &str) -> f64 {
    let series = format!("outrigger_hedges_total{{outcome=\"{outcome}\",route=\"default\"}}");
    metric(http, gateway.admin(), &series).await
}

#[tokio::test]
async fn the_loser_is_let_go_within_a_tenth_of_a_second() {
    const QUICK: &str = "answer: { tokens: 3, first_token: 1ms, per_token: 1ms }";
    let (stuck, well) = (mock(QUICK).await, mock(QUICK).await);
    let (gateway, http) = warm(&stuck, &well).await;
    stuck.set_scenario(Scenario::parse("rules: [{ do: { hang: first_token } }]").unwrap());
    let (mut won, mut soonest) = (0, Duration::MAX);
    while won < 4 {
        let response = http.post(format!("{}/chat/completions", base(&gateway)));
        let response = response.header("content-type", "application/json").body(chat(true)).send().await.unwrap();
        let answered = clock::now();
        if response.headers()["x-outrigger-outcome"] == "hedged" {
            won += 1;
            stuck.until(|stats| stats.cancelled == won).await;
            soonest = soonest.min(clock::now() - answered);
        }
        let answer = Answer::of(Ok(response)).await;
        assert!(answer.looks_complete(), "{answer:?}");
        assert_eq!(said(&answer.body).len(), 1, "the answer of one of them, and of no other");
        assert_eq!((answer.header("x-outrigger-endpoint"), answer.header("x-outrigger-trail")), (Some("e1"), None));
    }
    // The machine may be busy with other tests; four times in a row it is not.
    assert!(soonest < Duration::from_millis(100), "let go after {soonest:?}");
    assert_eq!(stuck.stats().active, 0);
    assert_eq!(hedges(&http, &gateway, "won").await, 4.0);
    let labels = ["endpoint=\"e0\"", "class=\"superseded\""];
    assert_eq!(total(&http, &gateway, "outrigger_attempts_total", &labels).await, 4.0, "to lose is no failure");
    let wasted = "outrigger_hedge_wasted_tokens_total{route=\"default\"}";
    assert_eq!(metric(&http, gateway.admin(), wasted).await, 4.0 * (chat(true).len() / 4) as f64);
}

#[tokio::test]
async fn a_hedge_that_loses_is_let_go_too() {
    const QUICK: &str = "answer: { tokens: 3, first_token: 1ms, per_token: 1ms }";
    let (one, other) = (mock(QUICK).await, mock(QUICK).await);
    let (gateway, http) = warm(&one, &other).await;
    // Late after half a second, heard after 0.9 s; a hedge would be heard half a second later.
    for upstream in [&one, &other] {
        upstream.set_scenario(Scenario::parse("answer: { tokens: 3, first_token: 900ms, per_token: 1ms }").unwrap());
    }
    let answer = ask(&http, &gateway).await;
    assert!(answer.looks_complete(), "{answer:?}");
    let header = |name| answer.header(name);
    let told = ["x-outrigger-outcome", "x-outrigger-attempts", "x-outrigger-trail"].map(header);
    assert_eq!(told, [Some("ok"), Some("2"), None]);
    let first = header("x-outrigger-endpoint") == Some("e0");
    let (winner, loser) = if first { (&one, &other) } else { (&other, &one) };
    loser.until(|stats| stats.cancelled == 1).await;
    assert_eq!((winner.stats().cancelled, loser.stats().active), (0, 0));
    assert_eq!(hedges(&http, &gateway, "lost").await, 1.0);
}

#[tokio::test]
async fn a_call_that_says_so_is_not_hedged() {
    const QUICK: &str = "answer: { tokens: 3, first_token: 1ms, per_token: 1ms }";
    let (one, other) = (mock(QUICK).await, mock(QUICK).await);
    let (gateway, http) = warm(&one, &other).await;
    for upstream in [&one, &other] {
        upstream.set_scenario(Scenario::parse("answer: { tokens: 3, first_token: 700ms, per_token: 1ms }").unwrap());
    }
    let request = http.post(format!("{}/chat/completions", base(&gateway))).header("x-outrigger-hedge", "off");
    let answer = Answer::of(request.header("content-type", "application/json").body(chat(true)).send().await).await;
    assert_eq!(answer.header("x-outrigger-attempts"), Some("1"));
    let whole = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
    assert_eq!(whole.header("x-outrigger-attempts"), Some("1"), "a whole answer is silent by nature");
    assert_eq!(ask(&http, &gateway).await.header("x-outrigger-attempts"), Some("2"));
}

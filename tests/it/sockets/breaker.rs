//! A server that goes and comes back, as the calls, the status, the metrics and the command line see it.

use std::process::Command;
use std::time::Duration;

use outrigger::app::Running;
use outrigger::clock;
use outrigger::policy::BreakerSettings;

use crate::support::{Answer, base, chat, gateway, get, http, metric, mock, post, settings};

/// How long it stays open in these tests.
const OPEN: Duration = Duration::from_millis(400);

async fn call(http: &reqwest::Client, gateway: &Running) -> Answer {
    post(http, &format!("{}/chat/completions", base(gateway)), chat(true)).await
}

async fn state(http: &reqwest::Client, gateway: &Running) -> String {
    let status = get(http, &format!("http://{}/api/v1/status", gateway.admin())).await.json();
    status["endpoints"][0]["breaker"]["state"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn calls_fail_over_at_once_and_come_back_within_one_probe_interval() {
    let (first, second) = (mock("{}").await, mock("{}").await);
    let mut settings = settings(&[first.base_url(), second.base_url()]);
    settings.endpoints[0].breaker = BreakerSettings { open_for: OPEN, max_open: OPEN, ..BreakerSettings::default() };
    let (gateway, http) = (gateway(settings).await, http());
    let from = |answer: &Answer| answer.header("x-outrigger-endpoint").unwrap_or_default().to_owned();
    assert_eq!(from(&call(&http, &gateway).await), "e0");

    first.down().await;
    for _ in 0..20 {
        let answer = call(&http, &gateway).await;
        assert!(answer.looks_complete(), "{answer:?}");
        assert_eq!(from(&answer), "e1");
    }
    let opened = "outrigger_breaker_transitions_total{endpoint=\"e0\",reason=\"consecutive\",to=\"open\"}";
    assert_eq!(metric(&http, gateway.admin(), opened).await, 1.0);

    first.up().await;
    let back = clock::now();
    loop {
        let answer = call(&http, &gateway).await;
        assert!(answer.looks_complete(), "{answer:?}");
        if from(&answer) == "e0" {
            break;
        }
        assert!(clock::now() - back < OPEN + Duration::from_secs(2), "not back after {:?}", clock::now() - back);
        clock::sleep(Duration::from_millis(10)).await; // paces the load, not a wait
    }
    assert_eq!(state(&http, &gateway).await, "closed");
    for _ in 0..10 {
        assert_eq!(from(&call(&http, &gateway).await), "e0");
    }
}

#[tokio::test]
async fn with_nobody_left_the_answer_is_immediate_and_says_when_to_come_back() {
    let upstream = mock("{}").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.routes[0].retry.attempts = 1;
    let (gateway, http) = (gateway(settings).await, http());
    upstream.down().await;
    for _ in 0..5 {
        assert_eq!(call(&http, &gateway).await.error_code().as_deref(), Some("connect_refused"));
    }
    let answer = call(&http, &gateway).await;
    assert_eq!((answer.status, answer.error_code().as_deref()), (503, Some("breaker_open")));
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    assert_eq!(answer.header("x-outrigger-attempts"), Some("0"));
    assert_eq!(answer.header("x-should-retry"), None, "the caller may come back");
    assert!(answer.text().contains("e0: open (consecutive)"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_holds_it_open_or_closed() {
    let (first, second) = (mock("{}").await, mock("{}").await);
    let (gateway, http) = (gateway(settings(&[first.base_url(), second.base_url()])).await, http());
    let admin = gateway.admin();
    let open = "outrigger_breaker_state{endpoint=\"e0\",state=\"forced_open\"}";
    assert_eq!(metric(&http, admin, open).await, 0.0);

    let run = |what: &'static str, name: &'static str| async move {
        let run = move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
            command.args(["breaker", what, name, "--admin", &admin.to_string()]).output().unwrap()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run("open", "e0").await, (Some(0), "e0: forced_open\n".into()));
    assert_eq!((metric(&http, admin, open).await, state(&http, &gateway).await.as_str()), (1.0, "forced_open"));
    assert_eq!(call(&http, &gateway).await.header("x-outrigger-endpoint"), Some("e1"));
    assert_eq!(run("close", "e0").await, (Some(0), "e0: forced_closed\n".into()));
    assert_eq!(run("auto", "e0").await, (Some(0), "e0: closed\n".into()));
    assert_eq!(call(&http, &gateway).await.header("x-outrigger-endpoint"), Some("e0"));
    assert_eq!(run("open", "e9").await.0, Some(1));

    let url = format!("http://{admin}/api/v1/breakers/e0/open");
    assert_eq!(get(&http, &url).await.status, 405);
    let page = http.post(&url).header("origin", "http://example.com").send().await.unwrap();
    assert_eq!(page.status(), 403, "a page in a browser has no say");
    assert_eq!(state(&http, &gateway).await, "closed");
}

/// A prompt that its server cannot bear is that prompt's trouble: two equal answers are enough, and the endpoint stays.
#[tokio::test]
async fn a_prompt_that_always_fails_is_left_and_the_endpoint_is_not() {
    let pace = "answer: { tokens: 2, first_token: 0ms, per_token: 0ms }";
    let rules = "rules: [{ when: { header: { x-poison: '*' } }, do: { status: 500, body: 'cannot bear this' } }]";
    let (first, second) = (mock(&format!("{pace}\n{rules}")).await, mock(pace).await);
    let mut settings = settings(&[first.base_url(), second.base_url()]);
    settings.routes[0].retry.backoff.base = Duration::from_millis(1);
    settings.routes[0].retry.budget = 1.0;
    let (gateway, http) = (gateway(settings).await, http());
    for _ in 0..10 {
        let poison = http.post(format!("{}/chat/completions", base(&gateway))).header("x-poison", "1");
        let answer = Answer::of(poison.body(chat(true)).send().await).await;
        let told = (from(&answer), answer.header("x-outrigger-attempts"));
        assert_eq!(told, (Some("e1"), Some("3")), "{:?}", answer.headers);
        for _ in 0..4 {
            assert_eq!(from(&call(&http, &gateway).await), Some("e0"));
        }
    }
    assert_eq!((first.stats().calls, state(&http, &gateway).await.as_str()), (60, "closed"));
}

fn from(answer: &Answer) -> Option<&str> {
    answer.header("x-outrigger-endpoint")
}

//! Limits of client keys over real sockets: who is turned away, what they are told, and what is settled.

use std::time::Instant;

use outrigger::app::Running;
use outrigger::call::Priority;
use outrigger::clock;
use outrigger::config::{ClientKey, Settings};
use outrigger::mock;
use outrigger::policy::RateLimits;
use sha2::{Digest, Sha256};

use super::tools::{Raw, eventually, request, total};
use crate::support::{Answer, base, chat, gateway, get, http, mock, settings};

/// A key that is its own name.
fn key(name: &str, requests: Option<u64>, tokens: Option<u64>) -> ClientKey {
    ClientKey {
        name: name.into(),
        sha256: Sha256::digest(name.as_bytes()).into(),
        priority: Priority::Default,
        limits: RateLimits { requests, tokens },
    }
}

fn with_keys(url: String, keys: Vec<ClientKey>) -> Settings {
    let mut settings = settings(&[url]);
    settings.endpoints[0].forward_client_key = false;
    settings.server.keys = keys;
    settings
}

async fn ask(gateway: &Running, key: &str, path: &str, body: String) -> Answer {
    Answer::of(http().post(format!("{}{path}", base(gateway))).bearer_auth(key).body(body).send().await).await
}

fn capped(stream: bool, tokens: u64) -> String {
    chat(stream).replace("\"stream\"", &format!("\"max_tokens\":{tokens},\"stream\""))
}

/// What the status page says is left of a key's tokens.
async fn left(gateway: &Running, name: &str) -> u64 {
    let status = get(&http(), &format!("http://{}/api/v1/status", gateway.admin())).await.json();
    let key = status["keys"].as_array().unwrap().iter().find(|key| key["name"] == name).unwrap().clone();
    key["tokens"]["remaining"].as_u64().unwrap()
}

#[tokio::test]
async fn a_key_over_its_requests_is_turned_away_and_no_other_notices() {
    let upstream =
        mock("rules: [{ do: { headers: { x-ratelimit-limit-requests: '7', x-ratelimit-remaining-tokens: '5' } } }]")
            .await;
    let keys = vec![key("few", Some(2), None), key("many", Some(1000), None), key("free", None, None)];
    let gateway = gateway(with_keys(upstream.base_url(), keys)).await;
    let chat_path = "/chat/completions";
    for remaining in ["1", "0"] {
        let answer = ask(&gateway, "few", chat_path, chat(false)).await;
        assert_eq!((answer.status, answer.header("x-ratelimit-limit-requests")), (200, Some("2")));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(remaining));
        assert_eq!(answer.header("x-ratelimit-remaining-tokens"), None, "what an endpoint says is for us");
        let reset = answer.header("x-ratelimit-reset-requests").unwrap();
        assert!(reset.ends_with('s') && !reset.ends_with("ms"), "{reset}");
    }
    for path in [chat_path, "/messages", "/audio/speech"] {
        let refused = ask(&gateway, "few", path, chat(true)).await;
        assert_eq!((refused.status, refused.header("x-outrigger-attempts")), (429, Some("0")), "{path}");
        let json = refused.json();
        assert_eq!(
            (&json["error"]["code"], &json["error"]["type"]),
            (&"tenant_limit".into(), &"rate_limit_error".into())
        );
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((20..=30).contains(&wait), "{wait}");
        assert_eq!(refused.header("x-should-retry"), None, "nothing was spent");
        assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
        assert!(!refused.text().contains("few"), "the key's name is for logs: {}", refused.text());
    }
    assert_eq!(upstream.stats().calls, 2, "a refusal sends nothing");
    assert_eq!(ask(&gateway, "many", chat_path, chat(false)).await.status, 200);
    let free = ask(&gateway, "free", chat_path, chat(false)).await;
    assert_eq!((free.status, free.header("x-ratelimit-limit-requests")), (200, Some("7")), "theirs pass through");
    let http = http();
    let labels = ["reason=\"requests\"", "route=\"default\"", "priority=\"default\""];
    assert_eq!(total(&http, &gateway, "outrigger_shed_total", &labels).await, 3.0);
    assert_eq!(total(&http, &gateway, "outrigger_calls_total", &["class=\"tenant_limit\""]).await, 3.0);
    assert_eq!(total(&http, &gateway, "outrigger_calls_in_flight", &[]).await, 0.0);
}

/// The list of models that several endpoints make together goes through no stack; it is a request all the same.
#[tokio::test]
async fn lists_of_models_count_as_requests() {
    let (one, other) = (mock("{}").await, mock("{}").await);
    for urls in [vec![one.base_url()], vec![one.base_url(), other.base_url()]] {
        let mut settings = settings(&urls);
        settings.endpoints[0].forward_client_key = false;
        settings.server.keys = vec![key("k", Some(1), Some(1))];
        let gateway = gateway(settings).await;
        let list =
            async || Answer::of(http().get(format!("{}/models", base(&gateway))).bearer_auth("k").send().await).await;
        let (good, refused) = (list().await, list().await);
        assert_eq!((good.status, good.header("x-ratelimit-remaining-requests")), (200, Some("0")));
        assert_eq!(good.header("x-ratelimit-remaining-tokens"), Some("1"), "a list costs no tokens");
        assert_eq!((refused.status, refused.error_code().as_deref()), (429, Some("tenant_limit")));
    }
}

/// A limit of so many tokens a minute refills by a hundred of them in a second.
const A_MINUTE: u64 = 6000;

/// After what began at `since`, so many tokens are gone, less what refilled.
async fn gone(gateway: &Running, since: Instant, tokens: u64, what: &str) {
    let left = left(gateway, "k").await;
    let refilled = since.elapsed().as_millis() as u64 / 10 + 1;
    let least = A_MINUTE - tokens;
    assert!((least..=(least + refilled).min(A_MINUTE)).contains(&left), "{what}: {left} left, {least} expected");
}

async fn with_tokens(scenario: &str) -> (mock::Running, Running) {
    let upstream = mock(scenario).await;
    let gateway = gateway(with_keys(upstream.base_url(), vec![key("k", None, Some(A_MINUTE))])).await;
    (upstream, gateway)
}

#[tokio::test]
async fn tokens_are_settled_by_what_the_endpoint_reports() {
    let options = r#""stream":true,"stream_options":{"include_usage":true}"#;
    for (path, body) in [
        ("/chat/completions", capped(false, 5000)),
        ("/chat/completions", capped(true, 5000).replace("\"stream\":true", options)),
        ("/messages", capped(false, 5000)),
        ("/messages", capped(true, 5000)),
        ("/responses", capped(false, 5000).replace("max_tokens", "max_output_tokens")),
        ("/responses", capped(true, 5000).replace("max_tokens", "max_output_tokens")),
    ] {
        let (_upstream, gateway) =
            with_tokens("answer: { tokens: 30, per_token: 0ms }\nrules: [{ do: { prompt_tokens: 3000 } }]").await;
        let since = clock::now();
        let answer = ask(&gateway, "k", path, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("6000"));
        gone(&gateway, since, 3030, path).await;
        let left: u64 = answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
        let streamed = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        // A stream's head goes out before its cost is known.
        assert!(if streamed { left < 1200 } else { left >= 2970 }, "{path}: {left}");
    }
}

#[tokio::test]
async fn an_embedding_costs_its_input() {
    let (_upstream, gateway) = with_tokens("{}").await;
    let since = clock::now();
    let input = format!(r#"{{"model":"m","input":"{}"}}"#, "word ".repeat(3000));
    let answer = ask(&gateway, "k", "/embeddings", input).await;
    let used = answer.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(used > 2000, "{used}");
    gone(&gateway, since, used, "embeddings").await;
}

#[tokio::test]
async fn a_whole_answer_that_reports_nothing_keeps_its_estimate() {
    for usage in ["missing", "zero"] {
        let (_upstream, gateway) = with_tokens(&format!("answer: {{ usage: {usage} }}")).await;
        let since = clock::now();
        assert_eq!(ask(&gateway, "k", "/chat/completions", capped(false, 4000)).await.status, 200);
        gone(&gateway, since, 4000 + (capped(false, 4000).len() as u64).div_ceil(4), usage).await;
    }
}

#[tokio::test]
async fn what_fails_upstream_costs_no_tokens_and_a_big_ask_is_refused_by_its_size() {
    let (upstream, gateway) = with_tokens("rules: [{ times: 2, do: { error: server_error } }]").await;
    let since = clock::now();
    let failed = ask(&gateway, "k", "/chat/completions", capped(false, 5000)).await;
    assert_eq!((failed.status, upstream.stats().calls), (502, 2), "the same failure twice");
    assert_eq!(left(&gateway, "k").await, A_MINUTE);
    let good = ask(&gateway, "k", "/audio/speech", "{}".to_owned()).await;
    assert_eq!(good.status, 200);
    gone(&gateway, since, 512, "what is only carried is an answer of the usual length").await;
    let refused = ask(&gateway, "k", "/chat/completions", capped(true, 6000)).await;
    assert_eq!((refused.status, refused.error_code().as_deref()), (429, Some("tenant_limit")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=6).contains(&wait), "a full bucket is enough for more than a minute's worth: {wait}");
}

#[tokio::test]
async fn whoever_leaves_pays_for_what_came_of_it() {
    let prompt = "word ".repeat(2400);
    let long = capped(true, 2000).replace("hello", &prompt);
    let cost = (long.len() as u64).div_ceil(4);
    for (scenario, until) in [
        ("rules: [{ do: { hang: headers } }]", None),
        ("answer: { tokens: 20000, per_token: 5ms }", Some("data:")),
        ("rules: [{ do: { hang: mid } }]", Some("data:")),
    ] {
        let (upstream, gateway) = with_tokens(scenario).await;
        let since = clock::now();
        let headers = [("authorization", "Bearer k")];
        let bytes = request("POST", "/v1/chat/completions", &headers, long.as_bytes());
        let mut client = Raw::send(gateway.data(), bytes).await;
        upstream.until(|stats| stats.last_requests.len() == 1).await;
        if let Some(words) = until {
            client.until(words).await;
        }
        assert!(left(&gateway, "k").await < 2000, "held back while it runs");
        drop(client);
        eventually("it is settled", || async { left(&gateway, "k").await > 2000 }).await;
        let left = left(&gateway, "k").await;
        let (most, least) = (A_MINUTE - cost + since.elapsed().as_millis() as u64 / 10 + 1, A_MINUTE - cost - 600);
        assert!((least..=most).contains(&left), "{scenario}: {left} left of {A_MINUTE}, the prompt is {cost}");
    }
}

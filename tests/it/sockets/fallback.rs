//! Who is asked for what, over real sockets: windows, tools and images as configured, as told and as learnt.

use outrigger::app::Running;
use outrigger::call::Capability;
use outrigger::config::Settings;
use outrigger::dialect::Dialect;
use outrigger::mock;
use serde_json::{Value, json};

use super::tools::eventually;
use crate::support::{Answer, base, get, http, metric, mock, post, settings};

const NO_TOOLS: &str = "rules: [{ do: { status: 400, body: { error: { type: api_error, message: \
                        'registry.ollama.ai/library/gemma does not support tools' } } } }]";

/// A gateway over these, in this order.
async fn over(upstreams: &[&mock::Running], adapt: impl FnOnce(&mut Settings)) -> Running {
    let urls: Vec<String> = upstreams.iter().map(|upstream| upstream.base_url()).collect();
    let mut settings = settings(&urls);
    adapt(&mut settings);
    crate::support::gateway(settings).await
}

fn body(content: Value, more: Value) -> String {
    let mut body = json!({ "model": "m", "stream": true, "messages": [{ "role": "user", "content": content }] });
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    body.to_string()
}

fn words(count: usize) -> String {
    body(json!("word ".repeat(count) + "end"), json!({}))
}

fn with_tools() -> String {
    body(json!("hello"), json!({ "tools": [{ "type": "function", "function": { "name": "f", "parameters": {} } }] }))
}

async fn ask(gateway: &Running, body: String) -> Answer {
    post(&http(), &format!("{}/chat/completions", base(gateway)), body).await
}

fn from(answer: &Answer) -> (Option<&str>, Option<&str>, Option<&str>) {
    let header = |name| answer.header(name);
    (header("x-outrigger-endpoint"), header("x-outrigger-attempts"), header("x-outrigger-degraded"))
}

async fn abilities(gateway: &Running, endpoint: usize) -> Value {
    let status = get(&http(), &format!("http://{}/api/v1/status", gateway.admin())).await.json();
    status["endpoints"][endpoint]["abilities"].clone()
}

#[tokio::test]
async fn a_refusal_for_length_moves_on_to_a_larger_window_and_is_learnt() {
    let (small, smaller, large) = (mock("context_window: 50").await, mock("{}").await, mock("{}").await);
    let gateway = over(&[&small, &smaller, &large], |settings| settings.endpoints[1].window = Some(40)).await;
    let answer = ask(&gateway, words(30)).await;
    assert_eq!(from(&answer), (Some("e0"), Some("1"), None), "what fits is sent");
    let answer = ask(&gateway, words(60)).await;
    assert!(answer.looks_complete(), "{answer:?}");
    assert_eq!(from(&answer), (Some("e2"), Some("2"), Some("fallback")));
    assert!(answer.header("x-outrigger-trail").unwrap().starts_with("e0;class=context_overflow;ms="));
    assert_eq!(answer.header("x-outrigger-outcome"), Some("fallback"));
    let learnt = abilities(&gateway, 0).await;
    assert_eq!((&learnt["learnt"][0]["lacks"], &learnt["learnt"][0]["tokens"]), (&json!("context_window"), &json!(50)));
    assert_eq!(
        from(&ask(&gateway, words(60)).await),
        (Some("e2"), Some("1"), Some("fallback")),
        "not asked in vain again"
    );
    assert_eq!((small.stats().calls, smaller.stats().calls, large.stats().calls), (2, 0, 2));
    let series = "outrigger_fallback_total{reason=\"context_window\",route=\"default\"}";
    assert_eq!(metric(&http(), gateway.admin(), series).await, 2.0);
}

#[tokio::test]
async fn with_nobody_larger_the_provider_s_own_refusal_is_the_answer() {
    let (small, other) = (mock("context_window: 50").await, mock("rules: [{ do: { status: 500 } }]").await);
    let direct = post(&http(), &format!("{}/chat/completions", small.base_url()), words(60)).await;
    let alone = over(&[&small], |_| {}).await;
    for _ in 0..2 {
        let answer = ask(&alone, words(60)).await;
        assert_eq!((answer.status, answer.text()), (direct.status, direct.text()));
        assert_eq!(answer.header("x-outrigger-attempts"), Some("1"), "asked once, and each time");
    }
    let gateway = over(&[&small, &other], |settings| settings.routes[0].retry.attempts = 1).await;
    let answer = ask(&gateway, words(60)).await;
    assert_eq!((answer.status, answer.text()), (direct.status, direct.text()), "the first cause is told");
    let trail = answer.header("x-outrigger-trail").unwrap();
    assert!(trail.contains("e0;class=context_overflow") && trail.contains("e1;class=upstream_500"), "{trail}");
}

#[tokio::test]
async fn a_server_without_tools_is_found_out() {
    let (none, other) = (mock(NO_TOOLS).await, mock("{}").await);
    let gateway = over(&[&none, &other], |_| {}).await;
    let plain = ask(&gateway, words(1)).await;
    assert_eq!(
        (plain.status, from(&plain).1),
        (400, Some("1")),
        "words about tools, and no tools: the caller's to read"
    );
    assert_eq!(from(&ask(&gateway, with_tools()).await), (Some("e1"), Some("2"), Some("fallback")));
    assert_eq!(from(&ask(&gateway, with_tools()).await), (Some("e1"), Some("1"), Some("fallback")));
    assert_eq!(none.stats().calls, 2);
    let learnt = abilities(&gateway, 0).await;
    assert_eq!(learnt["learnt"][0]["lacks"], "tools");
    let series = "outrigger_fallback_total{reason=\"tools\",route=\"default\"}";
    assert_eq!(metric(&http(), gateway.admin(), series).await, 2.0);
}

#[tokio::test]
async fn what_the_config_says_is_not_tried() {
    let (blind, deaf) = (mock("{}").await, mock("{}").await);
    let gateway = over(&[&blind, &deaf], |settings| {
        settings.endpoints[0].supports.set(Capability::Vision, false);
        settings.endpoints[0].supports.set(Capability::JsonSchema, false);
        settings.endpoints[1].supports.set(Capability::Audio, false);
        settings.endpoints[1].supports.set(Capability::JsonSchema, false);
    })
    .await;
    let image = json!([{ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } }]);
    let sound = json!([{ "type": "input_audio", "input_audio": { "data": "AAAA", "format": "wav" } }]);
    assert_eq!(from(&ask(&gateway, body(image.clone(), json!({}))).await).0, Some("e1"));
    assert_eq!(from(&ask(&gateway, body(sound.clone(), json!({}))).await).0, Some("e0"));
    assert_eq!(from(&ask(&gateway, body(json!("about \"image_url\""), json!({}))).await).0, Some("e0"));
    let both = [image[0].clone(), sound[0].clone()];
    let sent = (blind.stats().calls, deaf.stats().calls);
    let refused = ask(&gateway, body(json!(both), json!({}))).await;
    assert_eq!((refused.status, refused.error_code().as_deref()), (400, Some("bad_request")));
    let told = refused.text();
    assert!(told.contains("`e0` has no vision; `e1` has no audio"), "{told}");
    let format = json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": {} } } });
    let refused = ask(&gateway, body(json!("hello"), format)).await;
    assert_eq!((refused.status, refused.json()["error"]["param"].as_str()), (400, Some("response_format")));
    assert_eq!((blind.stats().calls, deaf.stats().calls), sent, "nothing is sent in vain");
    assert_eq!(abilities(&gateway, 0).await["supports"], json!({ "json_schema": false, "vision": false }));
}

#[tokio::test]
async fn a_prompt_that_nobody_can_hold_is_refused_with_the_numbers() {
    let upstream = mock("{}").await;
    let gateway = over(&[&upstream], |settings| settings.endpoints[0].window = Some(100)).await;
    let refused = ask(&gateway, words(500)).await;
    assert_eq!((refused.status, refused.error_code().as_deref()), (400, Some("context_overflow")));
    let told = refused.text();
    assert!(told.contains("`e0` holds 100 tokens, the prompt has at least 500"), "{told}");
    assert_eq!((refused.header("x-outrigger-attempts"), upstream.stats().calls), (Some("0"), 0));
    assert_eq!(from(&ask(&gateway, words(100)).await).0, Some("e0"));
}

#[tokio::test]
async fn servers_tell_their_windows() {
    let closed = "rules: [{ when: { path: /props }, do: { status: 501 } }]";
    for (dialect, scenario) in [
        (Dialect::LlamaCpp, "context_window: 200\ndialect: llamacpp\nslots: 2"),
        (Dialect::LlamaCpp, &*format!("context_window: 200\ndialect: llamacpp\nslots: 2\n{closed}")),
        (Dialect::Vllm, "context_window: 200"),
    ] {
        let (telling, other) = (mock(scenario).await, mock("{}").await);
        let gateway = over(&[&telling, &other], |settings| settings.endpoints[0].dialect = dialect).await;
        eventually("the window is known", || async { abilities(&gateway, 0).await["context_window"] == 200 }).await;
        assert_eq!(from(&ask(&gateway, words(300)).await), (Some("e1"), Some("1"), Some("fallback")));
        assert_eq!(from(&ask(&gateway, words(100)).await), (Some("e0"), Some("1"), None));
        assert_eq!(telling.stats().calls, 1);
    }
}

#[tokio::test]
async fn a_filter_s_word_is_final() {
    for fault in ["error: content_filter", "finish: content_filter", "error: bad_request", "refusal: true"] {
        let (first, second) = (mock(&format!("rules: [{{ do: {{ {fault} }} }}]")).await, mock("{}").await);
        let gateway = over(&[&first, &second], |_| {}).await;
        let answer = ask(&gateway, words(1)).await;
        assert_eq!((from(&answer).1, second.stats().calls), (Some("1"), 0), "{fault}");
    }
}

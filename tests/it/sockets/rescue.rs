//! `rescue: continue` over real sockets: a chat stream that breaks anywhere is the whole answer all the same, or ends as it
//! would have ended without.

use std::sync::Arc;
use std::time::Duration;

use outrigger::app;
use outrigger::config::Settings;
use outrigger::dialect::Dialect;
use outrigger::mock::{self, Scenario};
use outrigger::policy::{Backoff, BreakerSettings, RetrySettings, StreamMode, StreamSettings, Timeouts};
use serde_json::{Value, json};

use crate::support::{self, Answer, base, gateway, http, metric, said, settings};

const ANSWER: &str = "answer: { text: 'four words of it, żółw \"and\" more', first_token: 0ms, per_token: 0ms }";
/// The same for tests with thousands of cuts.
const SHORT: &str = "answer: { text: four żółw, first_token: 0ms, per_token: 0ms }";
const HOWS: [&str; 3] = ["eof", "close", "reset"];
const CHAT: &str = "/v1/chat/completions";
const WORKERS: usize = 6;
const DIALECTS: [(Dialect, &str); 2] = [(Dialect::Vllm, "vllm"), (Dialect::LlamaCpp, "llamacpp")];

fn scenario(dialect: &str, rules: &str) -> Scenario {
    saying(ANSWER, dialect, rules)
}

fn saying(answer: &str, dialect: &str, rules: &str) -> Scenario {
    let yaml = format!("dialect: {dialect}\n{answer}\nrules: [{rules}]");
    Scenario::parse(&yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// The first chat call suffers this.
fn once(fault: &str) -> String {
    format!("{{ when: {{ path: {CHAT} }}, times: 1, do: {{ {fault} }} }}")
}

/// One route that may continue, over all of these as one pool.
fn continuing(urls: &[String], dialect: Dialect) -> Settings {
    let mut settings = settings(urls);
    for endpoint in &mut settings.endpoints {
        endpoint.dialect = dialect;
        // The same server fails again and again here; it is not to be left alone for that.
        endpoint.breaker = BreakerSettings { on: false, ..BreakerSettings::default() };
    }
    let route = &mut settings.routes[0];
    route.targets.truncate(1);
    route.targets[0].endpoints = (0..urls.len()).collect();
    let backoff = Backoff { base: Duration::from_millis(1), max: Duration::from_millis(1) };
    route.retry = RetrySettings { budget: 1.0, backoff, ..RetrySettings::default() };
    route.streams = StreamSettings { mode: StreamMode::Auto, rescue: true };
    settings
}

/// A server of this dialect behind a gateway that may continue.
struct Bench {
    gateway: app::Running,
    upstream: mock::Running,
    dialect: &'static str,
    http: reqwest::Client,
}

impl Bench {
    async fn new(dialect: Dialect, name: &'static str, change: impl FnOnce(&mut Settings)) -> Self {
        let upstream = support::mock(ANSWER).await;
        upstream.set_scenario(scenario(name, ""));
        let mut settings = continuing(&[upstream.base_url()], dialect);
        change(&mut settings);
        Self { gateway: gateway(settings).await, upstream, dialect: name, http: http() }
    }

    async fn post(&self, url: &str, body: &Value, retries: Option<&str>) -> Answer {
        let request = self.http.post(format!("{url}/chat/completions")).header("content-type", "application/json");
        let request = match retries {
            Some(retries) => request.header("x-outrigger-retries", retries),
            None => request,
        };
        Answer::of(request.body(body.to_string()).send().await).await
    }

    /// Asks through the gateway while the server plays these rules.
    async fn ask(&self, rules: &str, body: &Value) -> Answer {
        self.upstream.set_scenario(scenario(self.dialect, rules));
        self.upstream.reset();
        self.post(&base(&self.gateway), body, None).await
    }

    async fn sends(&self, class: &str) -> f64 {
        let text = support::get(&self.http, &format!("http://{}/metrics", self.gateway.admin())).await.text();
        let series = format!("outrigger_attempts_total{{class=\"{class}\",endpoint=\"e0\",kind=\"continuation\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0.0, |value| value.parse().unwrap())
    }
}

fn chat(more: Value) -> Value {
    let mut body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn chunks(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))).collect()
}

/// Whether `got` is one proper stream that says what `whole` says.
fn one_answer(got: &Answer, whole: &Answer) -> Result<(), String> {
    if !got.looks_complete() || got.text().matches("[DONE]").count() != 1 {
        return Err("it does not look complete".into());
    }
    if said(&got.body) != said(&whole.body) {
        return Err(format!("it says {:?}", said(&got.body)));
    }
    let (got, whole) = (chunks(got), chunks(whole));
    for name in ["id", "created", "model"] {
        if got.iter().any(|chunk| chunk[name] != whole[0][name]) {
            return Err(format!("not every chunk has the same {name}"));
        }
    }
    let roles = got.iter().filter(|chunk| chunk["choices"][0]["delta"]["role"].is_string()).count();
    let marks = got.iter().filter(|chunk| chunk["outrigger"]["continued"] == 1 && chunk["usage"].is_null()).count();
    if roles == 1 && marks <= 1 { Ok(()) } else { Err(format!("{roles} roles, {marks} marks")) }
}

async fn cut_everywhere(dialect: Dialect, name: &'static str, step: usize) -> usize {
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(async move {
            let bench = Bench::new(dialect, name, |_| {}).await;
            let body = chat(json!({}));
            bench.upstream.set_scenario(saying(SHORT, name, ""));
            let whole = bench.post(&bench.upstream.base_url(), &body, None).await;
            let finish = whole.text().find("\"stop\"").unwrap();
            let (mut wrong, mut cuts) = (Vec::new(), 0);
            for at in (worker * step..whole.body.len()).step_by(WORKERS * step) {
                let how = HOWS[at / step % HOWS.len()];
                cuts += 1;
                let cut = once(&format!("cut: {{ at: byte {at}, how: {how} }}"));
                bench.upstream.set_scenario(saying(SHORT, name, &cut));
                let got = bench.post(&base(&bench.gateway), &body, None).await;
                // All was said, and only the end of the transfer broke: that there is no rest to ask for, nobody can know.
                let all_said = said(&got.body) == said(&whole.body) && got.error_code().is_some() && at > finish;
                if let Err(what) = one_answer(&got, &whole)
                    && !all_said
                {
                    wrong.push(format!("{name} at {at} by {how}: {what}; {}", got.text()));
                }
            }
            (wrong, cuts, bench.sends("ok").await)
        });
    }
    let done = workers.join_all().await;
    let wrong: Vec<&String> = done.iter().flat_map(|(wrong, ..)| wrong).collect();
    let first: Vec<&&String> = wrong.iter().take(3).collect();
    assert!(wrong.is_empty(), "{} wrong, the first of them:\n{first:#?}", wrong.len());
    let (cuts, continued) = done.iter().fold((0, 0.0), |(a, b), (_, cuts, continued)| (a + cuts, b + continued));
    assert!(continued > cuts as f64 / 3.0, "{continued} of {cuts} were continued");
    cuts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_cut_at_any_byte_is_gone_on_with() {
    let cuts = cut_everywhere(Dialect::Vllm, "vllm", 1).await;
    assert!(cuts > 700, "{cuts}");
    let cuts = cut_everywhere(Dialect::LlamaCpp, "llamacpp", 7).await;
    assert!(cuts > 100, "{cuts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_cut_at_any_token_keeps_its_limit_and_counts_all_tokens() {
    for (dialect, name) in DIALECTS {
        let bench = Bench::new(dialect, name, |_| {}).await;
        for limit in [json!({}), json!({"max_tokens": 5}), json!({"max_completion_tokens": 6})] {
            let mut body = chat(limit);
            body["stream_options"] = json!({"include_usage": true});
            let whole = bench.ask("", &body).await;
            let used = chunks(&whole).last().unwrap()["usage"].clone();
            let tokens = used["completion_tokens"].as_u64().unwrap();
            for at in 1..=tokens {
                let got = bench.ask(&once(&format!("cut: {{ at: token {at}, how: reset }}")), &body).await;
                // After the last token there may be nothing left that the limit allows.
                if at == tokens && body.as_object().unwrap().keys().any(|key| key.starts_with("max_")) {
                    assert_eq!(got.error_code().as_deref(), Some("stream_truncated"), "{}", got.text());
                    continue;
                }
                one_answer(&got, &whole).unwrap_or_else(|what| panic!("{name} at {at}: {what}; {}", got.text()));
                let last = chunks(&got).pop().unwrap();
                assert_eq!(last["outrigger"]["continued"], 1, "{last}");
                assert_eq!(last["usage"]["completion_tokens"], tokens, "{last}");
                let prompt = last["usage"]["prompt_tokens"].as_u64().unwrap();
                assert!(prompt > used["prompt_tokens"].as_u64().unwrap(), "both prompts count: {last}");
                assert_eq!(last["usage"]["total_tokens"].as_u64().unwrap(), prompt + tokens);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_it_it_is_gone_on_with_and_counted() {
    let idle = Duration::from_millis(300);
    let bench = Bench::new(Dialect::Vllm, "vllm", |settings| settings.endpoints[0].timeouts.idle = idle).await;
    let whole = bench.ask("", &chat(json!({}))).await;
    let faults = [
        "hang: mid",
        "malformed_chunk: { at: 3, as: bad_json }",
        "inband_error: { at: token 3, shape: openai, error: overloaded }",
        "bad_chunked: true",
        "cut: { at: token 2, how: half }",
    ];
    let mut continued = 0.0;
    for fault in faults {
        let got = bench.ask(&once(fault), &chat(json!({}))).await;
        one_answer(&got, &whole).unwrap_or_else(|what| panic!("{fault}: {what}; {}", got.text()));
        assert_eq!(got.header("x-outrigger-attempts"), Some("1"), "told at commit");
        continued += 1.0;
        assert_eq!(bench.sends("ok").await, continued, "{fault}");
    }
    let calls = "outrigger_calls_total{class=\"none\",outcome=\"retried\",route=\"default\"}";
    assert_eq!(metric(&bench.http, bench.gateway.admin(), calls).await, continued);
    let sends = "outrigger_attempts_per_call_sum{route=\"default\"}";
    assert_eq!(metric(&bench.http, bench.gateway.admin(), sends).await, 1.0 + 2.0 * continued);
    assert_eq!(metric(&bench.http, bench.gateway.admin(), "outrigger_concurrency_in_use{endpoint=\"e0\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_provably_safe_is_never_continued() {
    let bench = Bench::new(Dialect::Vllm, "vllm", |_| {}).await;
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    for more in [
        json!({"tools": [tool]}),
        json!({"tools": [tool], "tool_choice": "required"}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"n": 2}),
        json!({"logprobs": true}),
        json!({"stop": ["it"]}),
        json!({"guided_regex": ".*"}),
        json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "four"}]}),
    ] {
        let got = bench.ask(&once("cut: { at: token 1, how: reset }"), &chat(more.clone())).await;
        assert_eq!(got.error_code().as_deref(), Some("stream_truncated"), "{more}: {}", got.text());
        assert!(!got.text().contains("[DONE]"), "{more}");
        assert_eq!(bench.upstream.stats().by_path.get(CHAT), Some(&1), "{more}");
    }
    let reasons = "answer: { reasoning_tokens: 2, tokens: 9 }";
    let yaml = format!("dialect: vllm\n{reasons}\nrules: [{}]", once("cut: { at: token 5, how: reset }"));
    bench.upstream.set_scenario(Scenario::parse(&yaml).unwrap());
    let got = bench.post(&base(&bench.gateway), &chat(json!({})), None).await;
    assert_eq!(got.error_code().as_deref(), Some("stream_truncated"), "reasoning: {}", got.text());
    // Bounds that hold for every send hold for this one.
    bench.upstream.set_scenario(scenario("vllm", &once("cut: { at: token 3, how: reset }")));
    let got = bench.post(&base(&bench.gateway), &chat(json!({})), Some("0")).await;
    assert_eq!(got.error_code().as_deref(), Some("stream_truncated"), "no retries: {}", got.text());
    for class in ["ok", "upstream_400", "superseded"] {
        assert_eq!(bench.sends(class).await, 0.0, "{class}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_show_it_is_not_asked() {
    let cut = once("cut: { at: token 3, how: reset }");
    for path in ["/tokenize", "/detokenize", "/apply-template"] {
        let bench = Bench::new(Dialect::LlamaCpp, "llamacpp", |_| {}).await;
        let rules = format!("{{ when: {{ path: {path} }}, do: {{ status: 404 }} }}, {cut}");
        let got = bench.ask(&rules, &chat(json!({}))).await;
        assert_eq!(got.error_code().as_deref(), Some("stream_truncated"), "{path}: {}", got.text());
        assert_eq!(bench.upstream.stats().by_path.get(CHAT), Some(&1), "{path}");
    }
    // A server of another kind, and one that is not what it was said to be.
    for (dialect, name) in [(Dialect::OpenAi, "openai"), (Dialect::Auto, "vllm"), (Dialect::Vllm, "openai")] {
        let bench = Bench::new(dialect, name, |_| {}).await;
        let got = bench.ask(&cut, &chat(json!({}))).await;
        assert_eq!(got.error_code().as_deref(), Some("stream_truncated"), "{name}: {}", got.text());
        assert_eq!(bench.upstream.stats().by_path.get(CHAT), Some(&1), "{name}");
    }
    // llama.cpp says what it is.
    let bench = Bench::new(Dialect::Auto, "llamacpp", |_| {}).await;
    let whole = bench.ask("", &chat(json!({}))).await;
    let got = bench.ask(&cut, &chat(json!({}))).await;
    one_answer(&got, &whole).unwrap_or_else(|what| panic!("{what}: {}", got.text()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_rest_fails_too_the_first_failure_is_told() {
    let first_token = Duration::from_millis(400);
    let bench = Bench::new(Dialect::Vllm, "vllm", |settings| {
        settings.routes[0].timeouts = Timeouts { first_token, ..Timeouts::default() };
    })
    .await;
    let cut = once("cut: { at: token 3, how: reset }");
    let rest = format!("{{ when: {{ path: {CHAT} }}, do: {{ FAULT }} }}");
    for (fault, sent) in [
        ("error: bad_request", ""),
        ("error: overloaded", ""),
        ("hang: first_token", ""),
        ("json_for_stream: true", ""),
        ("cut: { at: token 2, how: reset }", "żółw"),
        ("inband_error: { at: token 1, shape: native }", ""),
        ("text: \"never mind\", n_missing: true", ""),
    ] {
        let rules = format!("{cut}, {}", rest.replace("FAULT", fault));
        let got = bench.ask(&rules, &chat(json!({}))).await;
        assert_eq!(
            (got.status, got.error_code().as_deref()),
            (200, Some("stream_truncated")),
            "{fault}: {}",
            got.text()
        );
        assert!(!got.text().contains("[DONE]"), "{fault}");
        assert_eq!(bench.upstream.stats().by_path.get(CHAT), Some(&2), "{fault}: one continuation, not two");
        let text = said(&got.body)[&0].0.clone();
        assert!(text.starts_with("four words of") && text.contains(sent), "{fault}: {text}");
    }
}

/// The other server of the pool gives the rest where there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_of_its_kind_goes_on() {
    let servers = [support::mock(ANSWER).await, support::mock(ANSWER).await];
    let urls: Vec<String> = servers.iter().map(mock::Running::base_url).collect();
    let gateway = gateway(continuing(&urls, Dialect::Vllm)).await;
    let http = Arc::new(http());
    for _ in 0..6 {
        for server in &servers {
            server.reset();
            server.set_scenario(scenario(
                "vllm",
                &once("cut: { at: token 3, how: reset }").replace("times: 1", "times: 9"),
            ));
        }
        // Whoever is asked first cuts; the other is mended before it is asked for the rest.
        let url = format!("{}/chat/completions", base(&gateway));
        let mut response = http.post(url).body(chat(json!({})).to_string()).send().await.unwrap();
        let first: usize = if response.headers()["x-outrigger-endpoint"] == "e0" { 0 } else { 1 };
        let mut text = String::new();
        while let Some(chunk) = response.chunk().await.unwrap() {
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        let other = servers[1 - first].stats();
        assert_eq!(other.by_path.get(CHAT), Some(&1), "the rest was asked of the other");
        assert!(text.contains("continued"), "its first tokens came: {text}");
    }
}

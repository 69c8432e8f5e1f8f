//! One stream of each surface, cut at every byte in three ways: what looks complete is complete, and what is not says so.

use std::sync::Arc;
use std::time::Duration;

use outrigger::app;
use outrigger::mock::{self, Scenario};
use outrigger::policy::{Backoff, RetrySettings, RouteSettings, StreamSettings, Target, Timeouts};
use serde_json::Value;

use crate::support::{self, Answer, base, gateway, http, no_breakers, said, settings};

const ANSWER: &str = "answer: { text: four words of it, first_token: 0ms, per_token: 0ms }";
const HOWS: [&str; 3] = ["eof", "close", "reset"];
/// Calls at the same time, each against a server of its own.
const WORKERS: usize = 8;

/// A gateway over one server per worker, each with a route to it alone and one with a healthy second target.
struct Bench {
    gateway: app::Running,
    good: mock::Running,
    bad: Vec<mock::Running>,
    http: reqwest::Client,
    path: &'static str,
    body: fn(&str) -> String,
}

impl Bench {
    async fn new(path: &'static str, body: fn(&str) -> String) -> Arc<Self> {
        let good = support::mock(ANSWER).await;
        let (mut bad, mut urls, mut routes) = (Vec::new(), vec![good.base_url()], Vec::new());
        for worker in 0..WORKERS {
            bad.push(support::mock(ANSWER).await);
            urls.push(bad[worker].base_url());
            routes.push(route(format!("alone{worker}"), &[1 + worker]));
            routes.push(route(format!("pairs{worker}"), &[1 + worker, 0]));
        }
        let mut settings = settings(&urls);
        no_breakers(&mut settings);
        settings.routes = routes;
        Arc::new(Self { gateway: gateway(settings).await, good, bad, http: http(), path, body })
    }

    async fn post(&self, url: &str, model: &str, retries: Option<&str>) -> Answer {
        let request = self.http.post(format!("{url}{}", self.path)).header("content-type", "application/json");
        let request = match retries {
            Some(retries) => request.header("x-outrigger-retries", retries),
            None => request,
        };
        Answer::of(request.body((self.body)(model)).send().await).await
    }

    /// What the server says when it is not cut.
    async fn whole(&self, model: &str) -> Vec<u8> {
        self.post(&self.good.base_url(), model, None).await.body
    }

    fn cut(&self, worker: usize, at: usize, how: &str) {
        let yaml = format!("{ANSWER}\nrules: [{{ do: {{ cut: {{ at: byte {at}, how: {how} }} }} }}]");
        self.bad[worker].set_scenario(Scenario::parse(&yaml).unwrap());
    }
}

fn route(name: String, endpoints: &[usize]) -> RouteSettings {
    let backoff = Backoff { base: Duration::from_millis(1), max: Duration::from_millis(1) };
    RouteSettings {
        model: name.clone(),
        name,
        targets: endpoints.iter().map(|endpoint| Target::of(vec![*endpoint])).collect(),
        timeouts: Timeouts {
            headers: Duration::from_secs(25),
            first_token: Duration::from_secs(25),
            ..Timeouts::default()
        },
        retry: RetrySettings { attempts: 1, backoff, ..RetrySettings::default() },
        max_sends: 4,
        queue_wait: outrigger::policy::QUEUE_WAIT,
        hedge: Default::default(),
        streams: StreamSettings::default(),
    }
}

/// The events of a stream: name and data of each. Fails on what no client can read.
fn events(body: &[u8]) -> Result<Vec<(Option<String>, Value)>, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    if !text.is_empty() && !text.ends_with("\n\n") {
        return Err("the last event is not ended".into());
    }
    let mut events = Vec::new();
    // More blank lines than one mean nothing.
    for event in text.split("\n\n").map(|event| event.trim_start_matches('\n')).filter(|event| !event.is_empty()) {
        let (mut name, mut data) = (None, None);
        for line in event.lines() {
            match line.split_once(": ") {
                Some(("event", value)) => name = Some(value.to_owned()),
                Some(("data", "[DONE]")) => data = Some(Value::Null),
                Some(("data", value)) => data = Some(serde_json::from_str(value).map_err(|e| format!("{e}: {line}"))?),
                _ => return Err(format!("an odd line: {line:?}")),
            }
        }
        events.push((name, data.ok_or_else(|| format!("no data in {event:?}"))?));
    }
    Ok(events)
}

/// What a client of the surface takes for the end of an answer that is complete.
fn is_end(event: &(Option<String>, Value)) -> bool {
    event.1.is_null() || matches!(event.1["type"].as_str(), Some("response.completed" | "message_stop"))
}

/// How an event tells of model output.
fn is_output(event: &Value) -> bool {
    let delta = &event["choices"][0]["delta"]["content"];
    delta.as_str().is_some_and(|text| !text.is_empty())
        || matches!(event["type"].as_str(), Some("response.output_text.delta" | "content_block_delta"))
}

/// Where the first event with model output begins to be readable, and where it is over.
fn commit(whole: &[u8]) -> (usize, usize) {
    let text = std::str::from_utf8(whole).unwrap();
    let mut at = 0;
    for event in text.split_inclusive("\n\n") {
        let end = at + event.len();
        if events(event.as_bytes()).unwrap().iter().any(|(_, data)| is_output(data)) {
            return (end - 2, end);
        }
        at = end;
    }
    panic!("no output in {text}");
}

/// A stream that is not cut.
struct Whole {
    length: usize,
    events: Vec<(Option<String>, Value)>,
    readable: usize,
    over: usize,
}

impl Whole {
    fn of(bytes: &[u8]) -> Self {
        let (readable, over) = commit(bytes);
        Self { length: bytes.len(), events: events(bytes).unwrap(), readable, over }
    }
}

/// Whether what the client got of a stream cut at `at` is honest.
fn honest(got: &Answer, whole: &Whole, at: usize) -> Result<(), String> {
    let Whole { events: all, readable, over, .. } = whole;
    if got.broken {
        return Err("the connection broke".into());
    }
    if got.status != 200 {
        return match got.error_code() {
            _ if at >= *over => Err("an error status, though there was output".into()),
            Some(code) if code == "stream_truncated" && got.status == 502 => Ok(()),
            code => Err(format!("{} {code:?}", got.status)),
        };
    }
    if at < *readable {
        return Err("a success before any output".into());
    }
    let seen = events(&got.body)?;
    let Some((last, before)) = seen.split_last() else { return Err("nothing at all".into()) };
    if is_end(last) {
        // It looks complete: then all that is said was delivered, and only the marker was ours to add.
        return if seen == *all { Ok(()) } else { Err("it looks complete and is not".into()) };
    }
    if before.iter().any(is_end) {
        return Err("something after the end".into());
    }
    if last.1["error"]["code"] != "stream_truncated" {
        return Err(format!("the last event is no error: {}", last.1));
    }
    if before.iter().any(|(_, data)| data.get("error").is_some_and(|error| !error.is_null())) {
        return Err("more than one error".into());
    }
    if all.starts_with(before) { Ok(()) } else { Err("what came is not the beginning of what was said".into()) }
}

/// Cuts at every `step`th byte; gives the number of cuts made.
async fn cut_everywhere(path: &'static str, body: fn(&str) -> String, step: usize) -> usize {
    let bench = Bench::new(path, body).await;
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let bench = Arc::clone(&bench);
        workers.spawn(async move {
            let (alone, pairs) = (format!("alone{worker}"), format!("pairs{worker}"));
            let (whole, healed) = (bench.whole(&alone).await, bench.whole(&pairs).await);
            assert_eq!(whole.len(), healed.len(), "equally long names make equally long streams");
            let whole = Whole::of(&whole);
            let (mut wrong, mut cuts) = (Vec::new(), 0);
            for at in (worker * step..whole.length).step_by(step * WORKERS) {
                for how in HOWS {
                    cuts += 1;
                    bench.cut(worker, at, how);
                    let got = bench.post(&base(&bench.gateway), &alone, Some("0")).await;
                    if let Err(what) = honest(&got, &whole, at) {
                        wrong.push(format!("{path} at {at} of {} by {how}: {what}; {}", whole.length, got.text()));
                    }
                    // Before the first output is out, a second target can still give all of it.
                    if at >= whole.readable || how != HOWS[at / step % HOWS.len()] {
                        continue;
                    }
                    let got = bench.post(&base(&bench.gateway), &pairs, None).await;
                    if (got.status, &got.body) != (200, &healed) || got.broken {
                        wrong.push(format!("{path} at {at} by {how}: not rescued; {} {}", got.status, got.text()));
                    }
                }
            }
            (wrong, cuts)
        });
    }
    let done = workers.join_all().await;
    let wrong: Vec<&String> = done.iter().flat_map(|(wrong, _)| wrong).collect();
    let first: Vec<&&String> = wrong.iter().take(10).collect();
    assert!(wrong.is_empty(), "{} wrong, the first of them:\n{first:#?}", wrong.len());
    done.iter().map(|(_, cuts)| cuts).sum()
}

fn chat(model: &str) -> String {
    format!(r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"hello"}}]}}"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_stream_cut_at_any_byte_never_looks_complete() {
    let cuts = cut_everywhere("/chat/completions", chat, 1).await;
    assert!(cuts > 2500, "{cuts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_responses_stream_cut_anywhere_never_looks_complete() {
    let body = |model: &str| format!(r#"{{"model":"{model}","stream":true,"input":"hello"}}"#);
    let cuts = cut_everywhere("/responses", body, 7).await;
    assert!(cuts > 300, "{cuts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_messages_stream_cut_anywhere_never_looks_complete() {
    let cuts = cut_everywhere("/messages", |model| chat(model).replacen('{', r#"{"max_tokens":50,"#, 1), 7).await;
    assert!(cuts > 300, "{cuts}");
}

/// Two choices, one after the other: when the first has finished and the second has not begun, the stream is cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_choice_that_never_began_is_missed() {
    let upstream = support::mock(ANSWER).await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    for (path, prompt) in [
        ("/chat/completions", r#""messages":[{"role":"user","content":"hello"}]"#),
        ("/completions", r#""prompt":"hello""#),
    ] {
        let body = format!(r#"{{"model":"m","stream":true,"n":2,{prompt}}}"#);
        upstream.set_scenario(Scenario::parse(ANSWER).unwrap());
        let whole = support::post(&http, &format!("{}{path}", upstream.base_url()), body.clone()).await;
        let text = whole.text();
        let finish = text.find("\"stop\"").unwrap();
        let at = finish + text[finish..].find("\n\n").unwrap() + 2;
        let yaml = format!("{ANSWER}\nrules: [{{ do: {{ cut: {{ at: byte {at}, how: eof }} }} }}]");
        upstream.set_scenario(Scenario::parse(&yaml).unwrap());
        let request = http.post(format!("{}{path}", base(&gateway))).header("x-outrigger-retries", "0").body(body);
        let got = Answer::of(request.send().await).await;
        assert_eq!(got.error_code().as_deref(), Some("stream_truncated"), "{path}: {}", got.text());
        assert!(!got.looks_complete());
    }
}

/// However a stream is cut into writes and framed, the client gets the same bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn framing_passes_byte_for_byte() {
    let upstream = support::mock(ANSWER).await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    let plain = support::post(&http, &format!("{}/chat/completions", upstream.base_url()), chat("m")).await;
    for framing in ["lf", "crlf", "cr", "bom", "no_space", "multiline", "one_byte"] {
        for slice in [0, 1, 2, 3, 7, 64, 1000] {
            let slice = if slice == 0 { String::new() } else { format!(", slice: {slice}") };
            let yaml = format!("{ANSWER}\nrules: [{{ do: {{ framing: {framing}{slice} }} }}]");
            upstream.set_scenario(Scenario::parse(&yaml).unwrap());
            for path in ["/chat/completions", "/responses", "/messages"] {
                let body = if path == "/responses" { chat("m").replace("messages", "input") } else { chat("m") };
                let direct = support::post(&http, &format!("{}{path}", upstream.base_url()), body.clone()).await;
                let got = support::post(&http, &format!("{}{path}", base(&gateway)), body).await;
                assert!(!direct.broken && direct.body.len() > 500, "{framing}{slice} {path}");
                assert_eq!(got.text(), direct.text(), "{framing}{slice} {path}");
                assert_eq!((got.status, got.broken), (200, false), "{framing}{slice} {path}");
                if path == "/chat/completions" && framing != "multiline" {
                    assert_eq!(said(&got.body), said(&plain.body), "{framing}{slice}");
                }
            }
        }
    }
}

/// Bytes nobody looks into: where they break off the connection does, for no other ending tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_is_cut_breaks_off() {
    let upstream = support::mock(ANSWER).await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    let body = r#"{"model":"m","input":"hello","voice":"v"}"#;
    let whole = support::post(&http, &format!("{}/audio/speech", upstream.base_url()), body).await;
    for at in [0, 1, 100, whole.body.len() - 1] {
        for how in ["close", "reset"] {
            let yaml = format!("{ANSWER}\nrules: [{{ do: {{ cut: {{ at: byte {at}, how: {how} }} }} }}]");
            upstream.set_scenario(Scenario::parse(&yaml).unwrap());
            let sent = http.post(format!("{}/audio/speech", base(&gateway))).body(body).send().await;
            // Without a single byte of the body, the head may not have left either.
            let Ok(answer) = sent else { continue };
            let got = Answer::of(Ok(answer)).await;
            assert!(got.broken || got.status >= 500, "{at} by {how}: {} with {} bytes", got.status, got.body.len());
            assert!(whole.body.starts_with(&got.body) || got.status >= 500, "{at} by {how}");
        }
    }
}

/// The same where a list of prompts asks for several choices without saying so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_that_was_never_answered_is_missed() {
    let upstream = support::mock("rules: [{ do: { no_done: true } }]").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    for (prompt, complete) in [(r#"["a"]"#, true), ("[1,2]", true), (r#"["a","b"]"#, false), ("[[1],[2]]", false)] {
        let body = format!(r#"{{"model":"m","stream":true,"prompt":{prompt}}}"#);
        let request = http().post(format!("{}/completions", base(&gateway))).header("x-outrigger-retries", "0");
        let got = Answer::of(request.body(body).send().await).await;
        assert_eq!(got.looks_complete(), complete, "{prompt}: {}", got.text());
        assert_eq!(got.error_code().as_deref() == Some("stream_truncated"), !complete, "{prompt}");
    }
}

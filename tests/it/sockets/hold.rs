//! `stream: hold` over real sockets: whatever happens to a stream before its release, its client gets one whole answer,
//! once, or an honest error.

use std::sync::Arc;
use std::time::Duration;

use outrigger::app;
use outrigger::mock::{self, Scenario};
use outrigger::policy::{Backoff, QUEUE_WAIT, RetrySettings, RouteSettings, StreamMode, StreamSettings};
use outrigger::policy::{Target, Timeouts};

use crate::support::{self, Answer, base, gateway, get, http, metric, post, settings};

const ANSWER: &str = "answer: { text: four words of it, first_token: 0ms, per_token: 0ms }";
const HOWS: [&str; 3] = ["eof", "close", "reset"];
/// Calls at the same time, each against a server of its own.
const WORKERS: usize = 8;

fn held(name: String, endpoints: &[usize]) -> RouteSettings {
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
        queue_wait: QUEUE_WAIT,
        hedge: Default::default(),
        streams: StreamSettings { mode: StreamMode::Hold, rescue: false },
    }
}

/// Per worker a server that is cut, before one that is not.
struct Bench {
    gateway: app::Running,
    good: mock::Running,
    bad: Vec<mock::Running>,
}

impl Bench {
    async fn new(silence: Duration) -> Arc<Self> {
        let good = support::mock(ANSWER).await;
        let (mut bad, mut urls, mut routes) = (Vec::new(), vec![good.base_url()], Vec::new());
        for worker in 0..WORKERS {
            bad.push(support::mock(ANSWER).await);
            urls.push(bad[worker].base_url());
            routes.push(held(format!("m{worker}"), &[1 + worker, 0]));
        }
        let mut settings = settings(&urls);
        settings.routes = routes;
        settings.endpoints[1..].iter_mut().for_each(|bad| bad.timeouts.idle = silence);
        settings.routes.iter_mut().for_each(|route| route.timeouts.first_token = silence);
        Arc::new(Self { gateway: gateway(settings).await, good, bad })
    }
}

/// The events of a stream; more blank lines than one between them mean nothing.
fn events(body: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    text.split("\n\n").map(|event| event.trim_matches('\n').to_owned()).filter(|event| !event.is_empty()).collect()
}

/// Cuts at every `step`th byte, each time in the next of these ways; gives the number of cuts made.
async fn cut_everywhere(
    path: &'static str,
    body: fn(&str) -> String,
    step: usize,
    hows: &'static [&'static str],
    silence: Duration,
) -> usize {
    let bench = Bench::new(silence).await;
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let bench = Arc::clone(&bench);
        workers.spawn(async move {
            let (http, ask) = (http(), body(&format!("m{worker}")));
            let whole = post(&http, &format!("{}{path}", bench.good.base_url()), ask.clone()).await.body;
            let url = format!("{}{path}", base(&bench.gateway));
            let (mut wrong, mut cuts) = (Vec::new(), 0);
            for at in (worker * step..whole.len()).step_by(step * WORKERS) {
                let how = hows[(at / step) % hows.len()];
                cuts += 1;
                let yaml = format!("{ANSWER}\nrules: [{{ do: {{ cut: {{ at: byte {at}, how: {how} }} }} }}]");
                bench.bad[worker].set_scenario(Scenario::parse(&yaml).unwrap());
                let got = post(&http, &url, ask.clone()).await;
                let sends = got.header("x-outrigger-attempts").unwrap_or_default();
                if (got.status, events(&got.body), got.broken) != (200, events(&whole), false)
                    || !matches!(sends, "1" | "2")
                {
                    wrong.push(format!("{path} at {at} by {how}: {} {sends} {}", got.status, got.text()));
                }
            }
            (wrong, cuts)
        });
    }
    let done = workers.join_all().await;
    let wrong: Vec<&String> = done.iter().flat_map(|(wrong, _)| wrong).collect();
    let first: Vec<&&String> = wrong.iter().take(5).collect();
    assert!(wrong.is_empty(), "{} wrong, the first of them:\n{first:#?}", wrong.len());
    assert_eq!(metric(&http(), bench.gateway.admin(), "outrigger_held_bytes").await, 0.0);
    done.iter().map(|(_, cuts)| cuts).sum()
}

fn chat(model: &str) -> String {
    format!(r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"hello"}}]}}"#)
}

const LONG: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_chat_cut_at_any_byte_is_whole() {
    let cuts = cut_everywhere("/chat/completions", chat, 1, &HOWS, LONG).await;
    assert!(cuts > 800, "{cuts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_surface_that_is_held_is_whole() {
    let prompt = |model: &str| format!(r#"{{"model":"{model}","stream":true,"prompt":"hello"}}"#);
    let input = |model: &str| format!(r#"{{"model":"{model}","stream":true,"input":"hello"}}"#);
    assert!(cut_everywhere("/completions", prompt, 5, &HOWS, LONG).await > 80);
    assert!(cut_everywhere("/responses", input, 7, &HOWS, LONG).await > 100);
    let messages = |model: &str| chat(model).replacen('{', r#"{"max_tokens":50,"#, 1);
    assert!(cut_everywhere("/messages", messages, 7, &HOWS, LONG).await > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_chat_that_stalls_anywhere_is_whole() {
    let cuts = cut_everywhere("/chat/completions", chat, 23, &["stall"], Duration::from_millis(60)).await;
    assert!(cuts > 30, "{cuts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_left_to_ask_is_a_real_status() {
    let cut = format!("{ANSWER}\nrules: [{{ do: {{ cut: {{ at: token 3, how: reset }} }} }}]");
    let (one, other) = (support::mock(&cut).await, support::mock(&cut).await);
    let mut settings = settings(&[one.base_url(), other.base_url()]);
    settings.routes = vec![held("m".into(), &[0, 1])];
    let gateway = gateway(settings).await;
    let got = post(&http(), &format!("{}/chat/completions", base(&gateway)), chat("m")).await;
    assert_eq!((got.status, got.error_code().as_deref()), (502, Some("stream_truncated")), "{}", got.text());
    assert_eq!(got.header("x-outrigger-attempts"), Some("2"));
    assert!(!got.text().contains("four"), "nothing of a broken answer is out");
}

/// The first byte of a held answer leaves with its last; what was held is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_answer_counts_as_first_seen_at_its_release() {
    let upstream = support::mock("answer: { tokens: 6, first_token: 0ms, per_token: 30ms }").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.routes = vec![held("m".into(), &[0])];
    let gateway = gateway(settings).await;
    let http = http();
    let got = post(&http, &format!("{}/chat/completions", base(&gateway)), chat("m")).await;
    assert!(got.looks_complete(), "{}", got.text());
    let series = |name: &str| format!("outrigger_{name}{{route=\"m\"}}");
    let (count, sum) = (series("first_token_seconds_count"), series("first_token_seconds_sum"));
    assert_eq!(metric(&http, gateway.admin(), &count).await, 1.0);
    assert!(metric(&http, gateway.admin(), &sum).await >= 0.150, "five gaps of 30 ms come before it");
    assert_eq!(metric(&http, gateway.admin(), &series("inter_token_seconds_count")).await, 0.0);
    assert!(metric(&http, gateway.admin(), &series("overhead_seconds_sum")).await < 0.150, "waiting is not our cost");
}

/// What does not fit is refused, and what is given back can be used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_answers_stay_below_their_ceiling() {
    let upstream = support::mock("answer: { tokens: 40, first_token: 0ms, per_token: 1ms }").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.routes = vec![held("m".into(), &[0])];
    let http = http();
    let whole = post(&http, &format!("{}/chat/completions", upstream.base_url()), chat("m")).await;
    settings.server.max_held = whole.body.len() / 2;
    let small = gateway(settings.clone()).await;
    let got = post(&http, &format!("{}/chat/completions", base(&small)), chat("m")).await;
    assert_eq!((got.status, got.error_code().as_deref()), (503, Some("queue_full")), "{}", got.text());
    assert_eq!((got.header("retry-after"), got.header("x-outrigger-attempts")), (Some("1"), Some("1")));
    assert_eq!(metric(&http, small.admin(), "outrigger_held_bytes").await, 0.0);
    let told = "outrigger_attempts_total{class=\"queue_full\",endpoint=\"e0\",kind=\"first\"}";
    assert_eq!(metric(&http, small.admin(), told).await, 1.0);

    settings.server.max_held = whole.body.len();
    let enough = gateway(settings).await;
    for _ in 0..3 {
        let got = post(&http, &format!("{}/chat/completions", base(&enough)), chat("m")).await;
        assert_eq!((got.status, &got.body), (200, &whole.body));
    }
}

/// One held answer fills the room; the next is refused before its endpoint is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_send_is_made_for_which_there_is_no_room() {
    let upstream = support::mock("answer: { tokens: 8, first_token: 0ms }\nrules: [{ do: { hang: mid } }]").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.routes = vec![held("m".into(), &[0])];
    settings.server.max_held = 1024;
    let gateway = gateway(settings).await;
    let (http, url) = (http(), format!("{}/chat/completions", base(&gateway)));
    let first = tokio::spawn({
        let (http, url) = (http.clone(), url.clone());
        async move { Answer::of(http.post(url).body(chat("m")).send().await).await }
    });
    let first = first.await.unwrap();
    assert_eq!(first.error_code().as_deref(), Some("queue_full"), "half of it is over the ceiling: {}", first.text());
    let status = get(&http, &format!("http://{}/metrics", gateway.admin())).await.text();
    assert!(status.contains("outrigger_held_bytes 0"), "{status}");
}

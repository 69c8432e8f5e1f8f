//! The config changes while calls run: none of them notices, and what is known by name stays known.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use outrigger::app::{self, Again, Running};
use outrigger::config::{Overrides, load};
use outrigger::mock;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::tools::{Raw, eventually, request, total};
use crate::support::{Answer, base, chat, gateway, get, http, metric, mock, post, settings};

const CHAT: &str = "/v1/chat/completions";
const OK: &str = "outrigger_config_last_reload_successful";

/// A gateway over a config file.
struct Filed {
    dir: TempDir,
    gateway: Running,
    http: reqwest::Client,
}

impl Filed {
    /// Starts by this config, whose first lines it is spared; looks at its files if it is to.
    async fn start(config: &str, watch: Option<Duration>) -> Self {
        Self::over(tempfile::tempdir().unwrap(), config, watch).await
    }

    async fn over(dir: TempDir, config: &str, watch: Option<Duration>) -> Self {
        let file = dir.path().join("outrigger.yaml");
        std::fs::write(&file, whole(config)).unwrap();
        let read = move || load(Some(&file), None, &Overrides::default());
        let loaded = read().unwrap_or_else(|report| panic!("{}", report.render(false)));
        let gateway = app::start_loaded(loaded, Some(Again { load: Arc::new(read), watch })).await.unwrap();
        Self { dir, gateway, http: http() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, config: &str) {
        std::fs::write(self.path("outrigger.yaml"), whole(config)).unwrap();
    }

    fn admin(&self, path: &str) -> String {
        format!("http://{}{path}", self.gateway.admin())
    }

    /// Writes the config and has it read.
    async fn reload(&self, config: &str) -> Answer {
        self.write(config);
        Answer::of(self.http.post(self.admin("/api/v1/reload")).send().await).await
    }

    /// The same, and it is taken.
    async fn becomes(&self, config: &str) -> Value {
        let answer = self.reload(config).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn call(&self) -> Answer {
        post(&self.http, &format!("{}/chat/completions", base(&self.gateway)), chat(true)).await
    }

    async fn status(&self) -> Value {
        get(&self.http, &self.admin("/api/v1/status")).await.json()
    }

    async fn metric(&self, series: &str) -> f64 {
        metric(&self.http, self.gateway.admin(), series).await
    }
}

fn whole(config: &str) -> String {
    format!("version: 1\nadmin:\n  listen: 127.0.0.1:0\n{config}")
        .replace("server:\n", "server:\n  listen: 127.0.0.1:0\n")
}

/// Endpoints by name and URL, with these further lines under each, and one route over all of them.
fn config(endpoints: &[(&str, &mock::Running)], more: &str) -> String {
    let mut text = String::from("server:\n  max_body: 1MiB\nendpoints:\n");
    for (name, upstream) in endpoints {
        text.push_str(&format!("  - name: {name}\n    url: {}\n", upstream.base_url()));
        more.lines().for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    let names: Vec<&str> = endpoints.iter().map(|(name, _)| *name).collect();
    text + &format!("routes:\n  - name: all\n    targets: [{}]\n", names.join(", "))
}

fn from(answer: &Answer) -> &str {
    answer.header("x-outrigger-endpoint").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_reloads_under_load_lose_nothing() {
    let (first, second) = (mock("answer: { tokens: 8, per_token: 3ms }").await, mock("{}").await);
    let configs = [config(&[("a", &first)], ""), config(&[("b", &second), ("a", &first)], "")];
    let filed = Arc::new(Filed::start(&configs[0], None).await);
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let worker = |stream: bool| {
        let (filed, over, done) = (Arc::clone(&filed), Arc::clone(&over), Arc::clone(&done));
        tokio::spawn(async move {
            let url = format!("{}/chat/completions", base(&filed.gateway));
            while !over.load(Ordering::Relaxed) {
                let answer = post(&filed.http, &url, chat(stream)).await;
                assert!(answer.looks_complete(), "{answer:?}");
                assert_eq!(answer.header("x-outrigger-outcome"), Some("ok"), "no send was needed twice");
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let workers: Vec<_> = [true, true, true, false].into_iter().map(worker).collect();
    for round in 1..=50 {
        assert_eq!(filed.becomes(&configs[round % 2]).await["changed"], true);
        let answer = filed.call().await;
        assert_eq!((answer.status, from(&answer)), (200, ["a", "b"][round % 2]), "round {round}");
    }
    over.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(done.load(Ordering::Relaxed) > 20, "{done:?}");
    let calls = f64::from(done.load(Ordering::Relaxed) + 50);
    assert_eq!(total(&filed.http, &filed.gateway, "outrigger_calls_total", &["outcome=\"ok\""]).await, calls);
    assert_eq!(total(&filed.http, &filed.gateway, "outrigger_attempts_total", &["class=\"ok\""]).await, calls);
    assert_eq!(filed.metric("outrigger_concurrency_in_use{endpoint=\"a\"}").await, 0.0);
    assert!(first.stats().connections < 20, "{} connections: each reload opened new ones", first.stats().connections);
}

#[tokio::test]
async fn a_stream_ends_by_the_config_it_began_with() {
    let (slow, other) = (mock("answer: { tokens: 30, per_token: 20ms }").await, mock("{}").await);
    let filed = Filed::start(&config(&[("a", &slow)], ""), None).await;
    let mut stream =
        Raw::send(filed.gateway.data(), request("POST", CHAT, &[("connection", "close")], chat(true).as_bytes())).await;
    stream.until("data:").await;
    filed.becomes(&config(&[("renamed", &other)], "")).await;
    assert_eq!(from(&filed.call().await), "renamed");
    assert_eq!(filed.metric("outrigger_attempts_total{class=\"ok\",endpoint=\"renamed\",kind=\"hedge\"}").await, 0.0);
    let text = get(&filed.http, &filed.admin("/metrics")).await.text();
    assert!(!text.contains("outrigger_concurrency_limit{endpoint=\"a\"}"), "no reading of what is gone");
    assert_eq!(slow.stats().active, 1, "it still runs");
    let text = stream.rest().await;
    assert!(
        text.contains("[DONE]") && !text.contains("\"error\"") && text.contains("x-outrigger-endpoint: a"),
        "{text}"
    );
    let ended = "outrigger_attempts_total{class=\"ok\",endpoint=\"a\",kind=\"first\"}";
    assert_eq!(filed.metric(ended).await, 1.0, "and is counted by its own name");
}

#[tokio::test]
async fn a_bad_config_leaves_the_old_one_and_says_why() {
    let upstream = mock("{}").await;
    let good = config(&[("a", &upstream)], "key: sk-not-to-be-told");
    let filed = Filed::start(&good, None).await;
    let before = filed.status().await["config"].clone();
    assert_eq!((&before["last_reload"], filed.metric(OK).await), (&Value::Null, 1.0));
    for (bad, code, words) in [
        (format!("{good}\tx: y"), "E002", ""),
        (good.replace("targets: [a]", "targets: [b]"), "E021", "`b`"),
        (good.replace("sk-not-to-be-told", "sk-not-to-be-told${OUTRIGGER_TEST_UNSET}"), "E003", "OUTRIGGER_TEST_UNSET"),
        (good.replace("key: sk-not-to-be-told", "key_file: nowhere"), "E024", "nowhere"),
    ] {
        let answer = filed.reload(&bad).await;
        let said = answer.text();
        assert_eq!(answer.status, 422, "{said}");
        assert!(said.contains(code) && said.contains(words) && !said.contains("sk-not"), "{said}");
        assert_eq!(filed.metric(OK).await, 0.0);
        let told = filed.status().await["config"].clone();
        assert_eq!((&told["last_reload"]["ok"], &told["last_reload"]["error"]), (&false.into(), &said.into()));
        assert_eq!(told["hash"], before["hash"]);
        assert_eq!(from(&filed.call().await), "a");
    }
    assert_eq!(filed.becomes(&good).await["changed"], false, "what runs is what is written");
    assert_eq!(
        (filed.metric(OK).await, filed.status().await["config"]["last_reload"]["ok"].clone()),
        (1.0, true.into())
    );
    std::fs::remove_file(filed.path("outrigger.yaml")).unwrap();
    assert_eq!(filed.http.post(filed.admin("/api/v1/reload")).send().await.unwrap().status(), 422);
    assert_eq!(filed.metric(OK).await, 0.0);
    let told = filed.becomes(&config(&[("b", &upstream)], "")).await;
    assert_eq!((&told["changed"], filed.metric(OK).await), (&true.into(), 1.0));
    assert_ne!(told["hash"], before["hash"]);
    let info = format!("outrigger_config_info{{hash={}}}", told["hash"]);
    assert_eq!(
        (filed.metric(&info).await, total(&filed.http, &filed.gateway, "outrigger_config_info", &[]).await),
        (1.0, 1.0)
    );
    assert!(filed.metric("outrigger_config_last_reload_success_timestamp_seconds").await > 1e9);
    assert_eq!(filed.status().await["config"]["hash"], told["hash"]);
}

#[tokio::test]
async fn what_is_known_of_an_endpoint_and_a_budget_stays_by_name() {
    let (first, second) = (mock("{}").await, mock("{}").await);
    let more = |attempts: u32| format!("breaker: {{ open_for: 300s, max_open: 300s, consecutive: {attempts} }}");
    let of = |upstream, attempts| {
        config(&[("a", upstream)], &more(attempts))
            + &format!("    retry: {{ attempts: {attempts}, backoff: {{ base: 1ms }} }}\n")
    };
    let filed = Filed::start(&of(&first, 3), None).await;
    first.down().await;
    assert_eq!(filed.call().await.header("x-outrigger-attempts"), Some("3"));
    let left = async || filed.status().await["routes"][0]["targets"][0]["retry_budget_left"].as_f64().unwrap();
    let (spent, open) = (left().await, "outrigger_breaker_state{endpoint=\"a\",state=\"open\"}");
    assert!(spent < 0.5, "{spent}");
    assert_eq!(filed.metric(open).await, 1.0);
    filed.becomes(&of(&first, 4)).await;
    assert_eq!((left().await, filed.metric(open).await), (spent, 1.0));
    assert_eq!(filed.call().await.error_code().as_deref(), Some("breaker_open"));
    // The name leads elsewhere: nothing is known of that.
    filed.becomes(&of(&second, 4)).await;
    assert_eq!(filed.metric(open).await, 0.0);
    assert!(filed.call().await.looks_complete());
    // What an operator said, he said of the name.
    let hold = filed.admin("/api/v1/breakers/a/open");
    assert_eq!(filed.http.post(hold).send().await.unwrap().status(), 200);
    first.up().await;
    filed.becomes(&of(&first, 4)).await;
    assert_eq!(filed.status().await["endpoints"][0]["breaker"]["state"], "forced_open");
}

#[tokio::test]
async fn a_learnt_limit_stays_within_the_new_settings() {
    let upstream = mock("slots: 3\ndialect: llamacpp").await;
    let of = |more: &str| config(&[("a", &upstream)], &format!("dialect: llamacpp\n{more}"));
    let filed = Filed::start(&of(""), None).await;
    let limit = async || filed.status().await["endpoints"][0]["limit"].as_u64().unwrap();
    eventually("the slots are told", || async { limit().await == 3 }).await;
    upstream.down().await;
    filed.becomes(&of("timeouts: { idle: 20s }")).await;
    assert_eq!(limit().await, 3);
    filed.becomes(&of("concurrency: { max: 2 }")).await;
    assert_eq!(limit().await, 2);
}

#[tokio::test]
async fn who_waits_keeps_waiting_and_gets_the_place() {
    let upstream = mock("rules: [{ when: { calls: 1 }, do: { hang: mid } }]").await;
    let of = |max: u32, idle: u32| {
        config(
            &[("a", &upstream)],
            &format!("concurrency: {{ mode: fixed, max: {max} }}\ntimeouts: {{ idle: {idle}s }}"),
        ) + "    queue: { wait: 60s }\n"
    };
    let filed = Filed::start(&of(1, 60), None).await;
    let send =
        || Raw::send(filed.gateway.data(), request("POST", CHAT, &[("connection", "close")], chat(true).as_bytes()));
    let mut held = send().await;
    held.until("data:").await;
    let waiting = send().await;
    let depth = "outrigger_queue_depth{route=\"all\"}";
    eventually("it waits", || async { filed.metric(depth).await == 1.0 }).await;
    for idle in 61..70 {
        filed.becomes(&of(1, idle)).await;
    }
    let in_use = "outrigger_concurrency_in_use{endpoint=\"a\"}";
    assert_eq!((filed.metric(depth).await, filed.metric(in_use).await), (1.0, 1.0), "across generations");
    filed.becomes(&of(2, 60)).await;
    let text = waiting.rest().await;
    assert!(text.contains("[DONE]"), "{text}");
    let other = send().await.rest().await;
    assert!(other.contains("[DONE]"), "{other}");
    drop(held);
    eventually("all is free again", || async { filed.metric(in_use).await == 0.0 }).await;
}

#[tokio::test]
async fn what_a_client_key_has_used_stays_used() {
    let upstream = mock("{}").await;
    let dir = tempfile::tempdir().unwrap();
    let hash: String = Sha256::digest("key").iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(dir.path().join("hash"), hash).unwrap();
    let of = |max_body: &str, requests: u32| {
        let keys = format!("keys: [{{ name: k, hash_file: hash, limits: {{ requests_per_minute: {requests} }} }}]");
        config(&[("a", &upstream)], "").replace("max_body: 1MiB", &format!("max_body: {max_body}\n  {keys}"))
    };
    let filed = Filed::over(dir, &of("1MiB", 2), None).await;
    let url = format!("{}/chat/completions", base(&filed.gateway));
    let ask =
        || async { filed.http.post(&url).bearer_auth("key").body(chat(false)).send().await.unwrap().status().as_u16() };
    assert_eq!((ask().await, ask().await, ask().await), (200, 200, 429));
    filed.becomes(&of("2MiB", 2)).await;
    assert_eq!(ask().await, 429);
    filed.becomes(&of("2MiB", 20)).await;
    assert_eq!(ask().await, 200, "another limit begins full");
}

#[tokio::test]
async fn a_rotated_secret_is_taken_up_by_watching() {
    let upstream = mock("{}").await;
    let dir = tempfile::tempdir().unwrap();
    let hash = |key: &str| Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    std::fs::write(dir.path().join("key"), "sk-one").unwrap();
    std::fs::write(dir.path().join("hash"), hash("old")).unwrap();
    let text = config(&[("a", &upstream)], "key_file: key")
        .replace("max_body: 1MiB", "keys: [{ name: client, hash_file: hash }]");
    let filed = Filed::over(dir, &text, Some(Duration::from_millis(20))).await;
    let (url, http) = (format!("{}/chat/completions", base(&filed.gateway)), &filed.http);
    let ask =
        async |key: &str| Answer::of(http.post(&url).bearer_auth(key).body(chat(false)).send().await).await.status;
    let shown = || {
        let seen = upstream.stats().last_requests.back().unwrap().clone();
        seen.headers.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization")).unwrap().1
    };
    assert_eq!((ask("old").await, shown().as_str()), (200, "Bearer sk-one"));
    std::fs::write(filed.path("key"), "sk-two").unwrap();
    eventually("the endpoint's new key is sent", || async { ask("old").await == 200 && shown() == "Bearer sk-two" })
        .await;
    std::fs::write(filed.path("hash"), hash("new")).unwrap();
    eventually("the client's new key is known", || async { ask("new").await == 200 }).await;
    assert_eq!(ask("old").await, 401);
    // A bad config is tried once, and the good one after it is seen.
    filed.write("nonsense");
    eventually("it is refused", || async { filed.metric(OK).await == 0.0 }).await;
    assert_eq!(ask("new").await, 200);
    filed.write(&text);
    eventually("it is well again", || async { filed.metric(OK).await == 1.0 }).await;
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_is_taken() {
    let upstream = mock("{}").await;
    let filed = Filed::start(&config(&[("a", &upstream)], ""), None).await;
    let (data, hash) = (filed.gateway.data(), filed.status().await["config"]["hash"].clone());
    let other = config(&[("a", &upstream)], "").replace("max_body: 1MiB", "max_body: 10B\n  max_connections: 7");
    let told = filed.becomes(&(other.clone() + "log: { level: debug }\n")).await;
    assert_eq!(told["needs_restart"], serde_json::json!(["server.max_connections", "log.level"]));
    assert_eq!((told["changed"].clone(), told["hash"] != hash), (true.into(), true));
    assert_eq!((filed.call().await.status, filed.gateway.data()), (413, data));
    // Said again for as long as it is so.
    let told = filed.becomes(&(other + "log: { level: debug }\n")).await;
    assert_eq!((&told["changed"], told["needs_restart"].as_array().unwrap().len()), (&false.into(), 2));
}

#[tokio::test]
async fn without_a_file_there_is_nothing_to_read_again() {
    let gateway = gateway(settings(&["http://127.0.0.1:9/v1".into()])).await;
    let (http, url) = (http(), format!("http://{}/api/v1/reload", gateway.admin()));
    let answer = Answer::of(http.post(&url).send().await).await;
    assert_eq!((answer.status, answer.text().contains("no file")), (409, true), "{}", answer.text());
    assert_eq!(metric(&http, gateway.admin(), OK).await, 1.0, "no config failed");
    assert_eq!(get(&http, &url).await.status, 405);
    assert_eq!(http.post(&url).header("origin", "http://x").send().await.unwrap().status(), 403);
}

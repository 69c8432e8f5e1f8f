//! The real binary: what it prints, how it exits, how it serves and how it stops.

mod docs;
mod game_day;
mod log;
mod process;
mod reload;
mod state;

use std::process::{Command, Output};

use process::Process;

use crate::support::{Answer, chat, get, http, mock, post};

/// The binary with these arguments, in an environment without our variables.
fn outrigger(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrigger"));
    command.args(args).env_remove("OUTRIGGER_CONFIG").env("NO_COLOR", "1");
    command
}

fn output(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = outrigger(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test]
async fn an_upstream_is_all_it_takes() {
    let upstream = mock("{}").await;
    let gateway = Process::start(&["run", "--upstream", &upstream.base_url()]).await;
    let answer = post(&http(), &format!("{}/chat/completions", gateway.base), chat(false)).await;
    assert_eq!((answer.status, answer.header("x-outrigger-endpoint")), (200, Some("upstream")));
    assert_eq!(output(&["healthcheck", "--admin", &gateway.admin]).0, 0);
    let end = gateway.stop().await;
    assert_eq!(end.code, Some(0));
    let call: serde_json::Value = end
        .said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .find(|line: &serde_json::Value| line["route"] == "default")
        .unwrap();
    assert_eq!((call["status"].as_u64(), call["outcome"].as_str()), (Some(200), Some("ok")));
    assert!(!end.said.contains("hello"), "a prompt in the log: {}", end.said);
    assert_eq!(output(&["healthcheck", "--admin", &gateway_address(&end.said)]).0, 1, "nobody is there any more");
}

fn gateway_address(said: &str) -> String {
    let line = said.lines().find_map(|line| line.trim().strip_prefix("admin http://")).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[tokio::test]
async fn sigterm_lets_a_stream_finish_and_a_second_one_does_not() {
    let upstream = mock("answer: { tokens: 20, per_token: 50ms }").await;
    for signals in [1, 2] {
        upstream.reset();
        let gateway = Process::start(&["run", "--upstream", &upstream.base_url()]).await;
        let http = http();
        let url = format!("{}/chat/completions", gateway.base);
        let call = tokio::spawn(async move { Answer::of(http.post(url).body(chat(true)).send().await).await });
        upstream.until(|stats| stats.active == 1).await;
        for _ in 0..signals {
            gateway.signal("TERM");
            gateway.until("draining").await;
        }
        let answer = call.await.unwrap();
        let end = gateway.ended().await;
        assert_eq!(end.code, Some(0));
        if signals == 1 {
            assert!(answer.looks_complete(), "{}", answer.text());
        } else if answer.status == 200 {
            assert_eq!(answer.error_code().as_deref(), Some("shutdown"), "{}", answer.text());
            assert!(!answer.text().contains("[DONE]"));
        } else {
            assert_eq!((answer.status, answer.error_code().as_deref()), (503, Some("shutdown")));
        }
    }
}

#[test]
fn explain_tells_what_each_key_may_ask_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("outrigger.yaml");
    std::fs::write(dir.path().join("hash"), "0a".repeat(32)).unwrap();
    let keys = "{ name: search, hash_file: hash, priority: critical, limits: { requests_per_minute: 600, tokens_per_minute: 1M } }, \
                { name: all, hash_file: hash }";
    let config =
        format!("version: 1\nserver: {{ keys: [{keys}] }}\nendpoints: [{{ name: a, url: \"http://127.0.0.1:1\" }}]\n");
    std::fs::write(&file, config).unwrap();
    for extra in [&[][..], &["-m", "any"]] {
        let (code, stdout, _) = output(&[&["explain", "-c", file.to_str().unwrap()], extra].concat());
        assert_eq!(code, 0);
        let told = stdout.split("client keys\n").nth(1).unwrap();
        let lines: Vec<String> =
            told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let search = "search priority critical 600 requests a minute 1M tokens a minute";
        assert_eq!(lines, [search, "all priority default any number of requests any number of tokens"], "{stdout}");
        assert!(!stdout.contains("0a0a"), "a hash is shown");
    }
}

#[tokio::test]
async fn out_of_files_it_pauses_and_recovers() {
    let upstream = mock("{}").await;
    let gateway = Process::start_with_files(48, &["run", "--upstream", &upstream.base_url()]).await;
    let address = gateway.base.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let mut connections = Vec::new();
    for _ in 0..64 {
        connections.push(tokio::net::TcpStream::connect(&address).await.unwrap());
    }
    let trouble = "cannot accept a connection";
    gateway.until_times(trouble, 4).await;
    let said = gateway.said();
    // The time of day in seconds, from `{"timestamp":"2026-11-24T00:13:15.675806Z",...`.
    let second = |line: &str| -> f64 {
        let at = line.find('T').unwrap() + 1;
        let parts = line[at..].split(['Z', ':']).take(3).map(|part| part.parse::<f64>().unwrap());
        parts.fold(0.0, |sum, part| sum * 60.0 + part)
    };
    let times: Vec<f64> = said.lines().filter(|line| line.contains(trouble)).map(second).collect();
    assert!(times.windows(2).all(|two| (two[1] - two[0]).rem_euclid(86_400.0) > 0.09), "it spins: {times:?}");
    drop(connections);
    let answer = post(&http(), &format!("{}/chat/completions", gateway.base), chat(false)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(gateway.stop().await.code, Some(0));
}

#[test]
fn a_bad_config_is_refused_whole_with_78() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.yaml");
    std::fs::write(&file, "version: 1\nendpoints:\n- { name: a, url: ftp://x, hedge: off }\nroutes:\n- targets: [b]\n")
        .unwrap();
    for command in ["run", "check", "explain"] {
        let (code, stdout, stderr) = output(&[command, "-c", file.to_str().unwrap()]);
        assert_eq!((code, stdout.as_str()), (78, ""), "{command}");
        assert!(stderr.matches("error[").count() >= 3, "every error at once: {stderr}");
        assert!(stderr.contains("bad.yaml:3:"), "{stderr}");
    }
    assert_eq!(output(&["run", "--no-such-flag"]).0, 2);
    assert_eq!(output(&["run", "-c", "/no/such/file.yaml"]).0, 78);
}

#[tokio::test]
async fn a_config_file_a_client_key_and_an_endpoint_key() {
    let upstream = mock("{}").await;
    let dir = tempfile::tempdir().unwrap();
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"; // of `secret`
    std::fs::write(dir.path().join("key"), format!("sha256:{hash}\n")).unwrap();
    let file = dir.path().join("outrigger.yaml");
    let config = format!(
        "version: 1\nserver:\n  listen: 127.0.0.1:0\n  keys: [{{ name: search, hash_file: key }}]\nadmin: {{ listen: 127.0.0.1:0 }}\n\
         state: {{ dir: state }}\nendpoints:\n- name: a\n  url: {}\n  key: sk-ours\n  model: tiny\nroutes:\n- {{ name: all, targets: [a] }}\n",
        upstream.base_url()
    );
    std::fs::write(&file, config).unwrap();
    let gateway = Process::start(&["run", "-c", file.to_str().unwrap()]).await;
    let http = http();
    let url = format!("{}/chat/completions", gateway.base);
    assert_eq!(post(&http, &url, chat(false)).await.status, 401);
    let with_key = Answer::of(http.post(&url).bearer_auth("secret").body(chat(false)).send().await).await;
    assert_eq!(with_key.status, 200, "{}", with_key.text());
    let seen = upstream.stats().last_requests.back().unwrap().clone();
    let authorization = seen.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    assert_eq!(authorization.map(|(_, value)| value.as_str()), Some("Bearer sk-ours"), "ours, not the client's");
    assert!(seen.body.contains("\"model\":\"tiny\""), "{}", seen.body);
    assert_eq!(get(&http, &format!("http://{}/metrics", gateway.admin)).await.status, 200);
    let end = gateway.stop().await;
    assert!(end.said.contains("\"key\":\"search\""), "{}", end.said);
    assert!(!end.said.contains("sk-ours") && !end.said.contains("secret"), "a key in the log: {}", end.said);
    assert!(dir.path().join("state/state.json").exists(), "state is kept beside the config");
}

#[test]
fn the_demo_ends_with_numbers_of_its_own() {
    let (code, stdout, stderr) = output(&["demo", "--once", "--json", "--seconds", "4"]);
    assert_eq!(code, 0, "{stderr}");
    let told: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    for way in ["direct", "outrigger"] {
        assert!(told[way]["calls"].as_u64() > Some(20), "{told}");
        let ratio = told[way]["success_ratio"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&ratio), "{told}");
    }
    assert!(told["outrigger"]["success_ratio"].as_f64() > told["direct"]["success_ratio"].as_f64(), "{told}");
    assert_eq!(told["outrigger"]["looked_fine_but_was_not"], 0, "{told}");
    assert!(told["outrigger"]["sends_per_call"].as_f64() >= Some(1.0), "{told}");
    assert_eq!((&told["seconds"], &told["seed"], &told["scenario"]), (&4.into(), &7.into(), &"bad-day".into()));
}

#[test]
fn completions_manual_and_version() {
    assert!(output(&["completions", "bash"]).1.contains("outrigger"));
    assert!(output(&["man"]).1.contains(".TH outrigger"));
    assert_eq!(output(&["--version"]).1.trim(), concat!("outrigger ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn explain_tells_of_probes_and_connections() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrigger.yaml");
    let config = "version: 1\nendpoints:\n  - name: a\n    url: http://127.0.0.1:1/v1\n    probe: { path: /health, every: 7s }\n    connections: { max_age: 9m }\n";
    std::fs::write(&file, config).unwrap();
    let (code, told, _) = output(&["explain", "-c", file.to_str().unwrap()]);
    assert_eq!(code, 0);
    let row = |name: &str| told.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {told}"));
    assert!(row("connections.max_age").contains("9m"), "{told}");
    assert!(row("connections.dns_refresh").contains("30s"), "{told}");
    assert!(row("probe ").contains("GET /health every 7s"), "{told}");
}

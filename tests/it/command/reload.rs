//! Other settings and a drain, asked of the real binary by signal and by command.

use std::path::Path;

use super::output;
use super::process::Process;
use crate::support::{chat, get, http, metric, mock, post};

fn config(name: &str, url: &str) -> String {
    format!(
        "version: 1\nserver: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\nlog: {{ format: json }}\n\
         endpoints:\n- name: {name}\n  url: {url}\n"
    )
}

async fn command(args: &[&str], admin: &str) -> (i32, String, String) {
    let args: Vec<String> = args.iter().chain(&["--admin", admin]).map(ToString::to_string).collect();
    let run = move || output(&args.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn endpoint(gateway: &Process) -> String {
    let answer = post(&http(), &format!("{}/chat/completions", gateway.base), chat(false)).await;
    answer.header("x-outrigger-endpoint").unwrap().to_owned()
}

fn write(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_and_the_command_read_the_config_again() {
    let upstream = mock("{}").await;
    let (dir, url) = (tempfile::tempdir().unwrap(), upstream.base_url());
    let file = dir.path().join("outrigger.yaml");
    write(&file, &config("one", &url));
    let gateway = Process::start(&["run", "-c", file.to_str().unwrap()]).await;
    let admin = gateway.admin.clone();
    assert_eq!(endpoint(&gateway).await, "one");
    write(&file, &config("two", &url));
    gateway.signal("HUP");
    gateway.until("config reloaded").await;
    assert_eq!(endpoint(&gateway).await, "two");
    write(&file, &(config("three", &url) + "  key: sk-not-to-be-told\n  hedge: on\n  nonsense: 1\n"));
    gateway.signal("HUP");
    gateway.until("the old one stays").await;
    assert_eq!(endpoint(&gateway).await, "two");
    let address: std::net::SocketAddr = admin.parse().unwrap();
    assert_eq!(metric(&http(), address, "outrigger_config_last_reload_successful").await, 0.0);

    let (code, stdout, stderr) = command(&["reload"], &admin).await;
    assert_eq!((code, stdout.as_str()), (78, ""), "{stderr}");
    assert!(stderr.contains("error[E010]") && stderr.contains("the old config stays"), "{stderr}");
    write(&file, &config("four", &url).replace("log:", "state: { dir: elsewhere }\nlog:"));
    let (code, stdout, stderr) = command(&["reload"], &admin).await;
    assert_eq!((code, stdout.starts_with("reloaded, config ")), (0, true), "{stdout}");
    assert!(stderr.contains("state.dir"), "{stderr}");
    assert!(command(&["reload"], &admin).await.1.starts_with("unchanged"));
    assert_eq!(endpoint(&gateway).await, "four");
    let end = gateway.stop().await;
    assert_eq!(end.code, Some(0));
    assert!(end.said.contains("E010") && !end.said.contains("sk-not"), "{}", end.said);
    assert_eq!(command(&["reload"], &admin).await.0, 1, "nobody is there any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file_a_hangup_ends_nothing_and_a_drain_is_a_command() {
    let upstream = mock("answer: { tokens: 20, per_token: 50ms }").await;
    let gateway = Process::start(&["run", "--upstream", &upstream.base_url()]).await;
    gateway.signal("HUP");
    gateway.until("no file to read again").await;
    let (code, _, stderr) = command(&["reload"], &gateway.admin).await;
    assert!(code == 1 && stderr.contains("no file"), "{stderr}");
    assert_eq!(get(&http(), &format!("http://{}/livez", gateway.admin)).await.status, 200);
    let url = format!("{}/chat/completions", gateway.base);
    let call = tokio::spawn(async move { post(&http(), &url, chat(true)).await });
    upstream.until(|stats| stats.active == 1).await;
    let (code, stdout, stderr) = command(&["drain"], &gateway.admin).await;
    assert_eq!((code, stdout.as_str()), (0, "draining, 1 calls in flight\n"), "{stderr}");
    assert!(call.await.unwrap().looks_complete(), "what runs is let finish");
    assert_eq!(gateway.ended().await.code, Some(0));
    assert_eq!(output(&["run", "--watch", "--upstream", "http://h/v1"]).0, 2);
}

#[tokio::test]
async fn a_file_that_is_watched_needs_no_signal() {
    let upstream = mock("{}").await;
    let (dir, url) = (tempfile::tempdir().unwrap(), upstream.base_url());
    let file = dir.path().join("outrigger.yaml");
    write(&file, &config("one", &url));
    let gateway = Process::start(&["run", "--watch", "-c", file.to_str().unwrap()]).await;
    // As a ConfigMap is swapped: another file under the same name.
    write(&dir.path().join("new"), &config("two", &url));
    std::fs::rename(dir.path().join("new"), &file).unwrap();
    gateway.until("config reloaded").await;
    assert_eq!(endpoint(&gateway).await, "two");
    assert_eq!(gateway.stop().await.code, Some(0));
}

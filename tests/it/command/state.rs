//! Ends that nobody announces, and what is left behind.

use crate::command::process::Process;
use crate::support::{Answer, chat, http, metric, mock, post};

const LEFT: &str = "outrigger_retry_budget_remaining_ratio{route=\"default\"}";

/// However it ends, the next one reads what was written down, and takes half a file for none.
#[tokio::test]
async fn sigkill_leaves_a_state_that_can_be_read() {
    let scenario = "rules: [{ when: { stream: true }, do: { hang: mid } }, { do: { error: overloaded } }]";
    let (upstream, dir) = (mock(scenario).await, tempfile::tempdir().unwrap());
    let file = dir.path().join("outrigger.yaml");
    let config = format!(
        "version: 1\nserver: {{ listen: 127.0.0.1:0 }}\nadmin: {{ listen: 127.0.0.1:0 }}\nstate: {{ dir: state }}\n\
         endpoints:\n- {{ name: a, url: \"{}\", breaker: off }}\nroutes:\n- name: default\n  targets: [a]\n  retry: {{ backoff: {{ base: 1ms }} }}\n",
        upstream.base_url()
    );
    std::fs::write(&file, config).unwrap();
    let args = ["run", "-c", file.to_str().unwrap()];
    let left = async |gateway: &Process| metric(&http(), gateway.admin.parse().unwrap(), LEFT).await;

    let first = Process::start(&args).await;
    for _ in 0..6 {
        post(&http(), &format!("{}/chat/completions", first.base), chat(false)).await;
    }
    assert_eq!(first.stop().await.code, Some(0));
    let kept = std::fs::read(dir.path().join("state/state.json")).unwrap();
    // Where a kill in the middle of writing would leave it.
    std::fs::write(dir.path().join("state/state.json.new"), &kept[..kept.len() / 2]).unwrap();

    for _ in 0..2 {
        let next = Process::start(&args).await;
        let spent = left(&next).await;
        assert!(spent < 0.5, "what was spent is spent: {spent}");
        let begun = http().post(format!("{}/chat/completions", next.base)).body(chat(true)).send().await;
        upstream.until(|stats| stats.active == 1).await;
        let said = next.kill().await;
        let answer = Answer::of(begun).await;
        assert!(answer.broken && !answer.looks_complete(), "a reset, and no end: {}", answer.text());
        assert!(!said.contains("starting fresh"), "{said}");
        upstream.until(|stats| stats.active == 0).await;
        assert_eq!(std::fs::read(dir.path().join("state/state.json")).unwrap(), kept);
    }
    let last = Process::start(&args).await;
    assert_eq!(last.stop().await.code, Some(0));
    let text = std::fs::read_to_string(dir.path().join("state/state.json")).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["budgets"].is_object(), "{text}");
}

//! What is written down of a call.

use std::net::SocketAddr;

use serde_json::Value;

use super::super::{Mock, Scenario};
use super::{chat, post, raw};

#[tokio::test]
async fn a_history_has_what_was_asked_what_was_to_be_said_and_how_it_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history.jsonl");
    let yaml = "answer: { text: good day, first_token: 0, per_token: 0 }\nrules:\n  - when: { calls: 2 }\n    do: { cut: { at: half, how: reset } }\n";
    let scenario = Scenario::parse(yaml).expect("a scenario");
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let mock = Mock::start_recorded(here, scenario, Some(&path)).await.expect("a free port");
    for _ in 0..2 {
        raw(&mock, &post("/v1/chat/completions", &chat(true), true)).await;
    }
    mock.until(|stats| stats.active == 0).await;
    let text = std::fs::read_to_string(&path).expect("the history");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let told: Vec<_> = lines.iter().map(|line| (line["what"].as_str(), line["call"].as_u64())).collect();
    let of = |call| [(Some("asked"), Some(call)), (Some("answers"), Some(call)), (Some("ended"), Some(call))];
    assert_eq!(told, [of(1), of(2)].concat());
    let whole = lines[1]["body"].as_str().expect("a body");
    assert!(whole.contains("good") && whole.ends_with("data: [DONE]\n\n"), "{whole}");
    let cut = lines[4]["body"].as_str().expect("a body");
    assert!(!cut.contains("[DONE]") && cut.contains("good"), "{cut}");
    assert_eq!((lines[1]["ends"].as_bool(), lines[4]["ends"].as_bool()), (Some(true), Some(false)));
    assert_eq!((lines[2]["how"].as_str(), lines[5]["how"].as_str()), (Some("finished"), Some("broken")));
    assert_eq!(lines[0]["body_sha256"], mock.stats().last_requests[0].body_sha256);
}

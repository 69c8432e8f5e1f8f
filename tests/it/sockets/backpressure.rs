//! A slow reader slows the model down; it fills no memory here, and nobody else notices.

use outrigger::app::Running;
use outrigger::mock;
use sha2::{Digest, Sha256};

use crate::support::{base, chat, gateway, http, mock, post, settings};

const MIB: usize = 1 << 20;

/// Memory of this process that is in use now.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// The length and the hash of what comes when nobody is slow.
async fn swallow(mut response: reqwest::Response) -> (usize, Vec<u8>) {
    let (mut length, mut hash) = (0, Sha256::new());
    while let Some(chunk) = response.chunk().await.unwrap() {
        length += chunk.len();
        hash.update(&chunk);
    }
    (length, hash.finalize().to_vec())
}

/// Opens the long answer at `path`, leaves it alone while others call, and reads it then.
async fn reads_late(upstream: &mock::Running, gateway: &Running, path: &str, least: usize) {
    let http = http();
    let open = async |base: &str| http.post(format!("{base}{path}")).body(chat(true)).send().await.unwrap();
    let direct = swallow(open(&upstream.base_url()).await).await;
    assert!(direct.0 > least, "the answer is long: {}", direct.0);
    let mut response = open(&base(gateway)).await;
    let first = response.chunk().await.unwrap().unwrap();
    let before = resident();
    // Time enough for a gateway that holds what nobody takes to swallow all of it.
    for number in 0..300 {
        let answer = post(&http, &format!("{}/embeddings", base(gateway)), r#"{"model":"m","input":"x"}"#).await;
        assert_eq!(answer.status, 200, "call {number} beside a slow reader");
    }
    let stats = upstream.until(|stats| stats.finished == 301).await;
    assert_eq!(stats.active, 1, "the long answer waits for its reader");
    let grown = resident().saturating_sub(before);
    assert!(grown < 40 * MIB, "grew by {} MiB", grown / MIB);
    let (mut length, mut hash) = (first.len(), Sha256::new());
    hash.update(&first);
    while let Some(chunk) = response.chunk().await.unwrap() {
        length += chunk.len();
        hash.update(&chunk);
    }
    assert_eq!((length, hash.finalize().to_vec()), direct, "byte for byte");
}

#[tokio::test]
async fn a_stream_waits_for_its_reader() {
    let scenario = "rules: [{ when: { path: /v1/chat/completions }, do: { huge_event: 16KiB, huge_body: 30MiB } }]";
    let upstream = mock(&format!("answer: {{ per_token: 0ms, first_token: 0ms }}\n{scenario}")).await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    reads_late(&upstream, &gateway, "/chat/completions", 30 * MIB).await;
}

#[tokio::test]
async fn a_download_waits_for_its_reader() {
    let upstream = mock("rules: [{ when: { path: /v1/audio/speech }, do: { huge_body: 64MiB } }]").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    reads_late(&upstream, &gateway, "/audio/speech", 64 * MIB).await;
}

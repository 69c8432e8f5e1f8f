//! The demo's client: one call, as an application would make it, judged as a person would.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::clock;

/// How long the application waits for one call.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of one call.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// A complete, good answer.
    pub good: bool,
    /// An answer began: a success status came.
    pub began: bool,
    /// It looked complete to the client, and was not.
    pub deceived: bool,
    /// From the start to the first word, for good streams.
    pub first: Option<Duration>,
    /// `x-outrigger-outcome`, through the gateway.
    pub outcome: Option<String>,
    /// `x-outrigger-attempts`, through the gateway.
    pub sends: Option<u32>,
}

/// One call to be made.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Its number.
    pub number: u64,
    /// Whether a stream is wanted.
    pub stream: bool,
    /// The priority to ask for, if any.
    pub priority: Option<&'static str>,
}

impl Ask {
    /// Every other call is a stream.
    pub fn plain(number: u64) -> Self {
        Self { number, stream: number.is_multiple_of(2), priority: None }
    }

    /// The same; with `priorities` a quarter of the calls is critical, a quarter sheddable.
    pub fn of(number: u64, priorities: bool) -> Self {
        let priority = match number / 2 % 4 {
            0 => "critical",
            3 => "sheddable",
            _ => "default",
        };
        Self { priority: priorities.then_some(priority), ..Self::plain(number) }
    }
}

/// Makes one call to `base` and judges what comes back.
pub async fn call(http: &reqwest::Client, base: &str, ask: Ask) -> Told {
    let mut told = Told::default();
    // A call that breaks or takes too long is not good; what was told of it until then stays.
    drop(tokio::time::timeout(PATIENCE, make(http, base, ask, clock::now(), &mut told)).await);
    told
}

async fn make(http: &reqwest::Client, base: &str, ask: Ask, started: Instant, told: &mut Told) -> reqwest::Result<()> {
    let Ask { number, stream, priority } = ask;
    let body = json!({
        "model": "demo", "stream": stream,
        "messages": [{ "role": "user", "content": format!("question {number}") }],
    });
    let mut request = http.post(format!("{base}/chat/completions")).json(&body);
    if let Some(priority) = priority {
        request = request.header("x-outrigger-priority", priority);
    }
    let mut response = request.send().await?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    told.outcome = header("x-outrigger-outcome");
    told.sends = header("x-outrigger-attempts").and_then(|sends| sends.parse().ok());
    if !response.status().is_success() {
        return Ok(());
    }
    told.began = true;
    let (mut body, mut first) = (Vec::new(), None);
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if first.is_none() && stream && has_words(&body) {
            first = Some(clock::now().saturating_duration_since(started));
        }
    }
    // The transfer ended as if all were well: whatever is missing now, the client was not told.
    let verdict = if stream { judge_stream(&body) } else { judge_whole(&body) };
    told.good = verdict == Verdict::Good;
    told.deceived = verdict == Verdict::Deceived;
    told.first = first.filter(|_| told.good);
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Good,
    Failed,
    Deceived,
}

fn has_words(body: &[u8]) -> bool {
    data(body).any(|event| words(&event).is_some())
}

/// The JSON of all complete `data:` lines.
fn data(body: &[u8]) -> impl Iterator<Item = Value> {
    body.split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"data:"))
        .filter_map(|data| serde_json::from_slice(data.trim_ascii()).ok())
}

fn words(event: &Value) -> Option<&str> {
    event.pointer("/choices/0/delta/content")?.as_str().filter(|text| !text.is_empty())
}

fn judge_stream(body: &[u8]) -> Verdict {
    let events: Vec<Value> = data(body).collect();
    if events.iter().any(|event| event.get("error").is_some()) {
        return Verdict::Failed;
    }
    let finished = events.iter().any(|event| event.pointer("/choices/0/finish_reason").is_some_and(Value::is_string));
    let said = events.iter().any(|event| words(event).is_some());
    if finished && said { Verdict::Good } else { Verdict::Deceived }
}

fn judge_whole(body: &[u8]) -> Verdict {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else { return Verdict::Deceived };
    match answer.pointer("/choices/0/message/content").and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Verdict::Good,
        // A success status around an error or around nothing.
        _ => Verdict::Deceived,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_what_they_hold() {
        let word = r#"data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}"#;
        let end = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        let error = r#"data: {"error":{"message":"cut"}}"#;
        for (body, verdict) in [
            (format!("{word}\n\n{end}\n\ndata: [DONE]\n\n"), Verdict::Good),
            (format!("{word}\n\n"), Verdict::Deceived),
            (format!("{word}\n\n{error}\n\n"), Verdict::Failed),
            (format!("{end}\n\ndata: [DONE]\n\n"), Verdict::Deceived),
            ("<html>".to_owned(), Verdict::Deceived),
        ] {
            assert_eq!(judge_stream(body.as_bytes()), verdict, "{body}");
        }
        assert_eq!(judge_whole(br#"{"choices":[{"message":{"content":"x"}}]}"#), Verdict::Good);
        assert_eq!(judge_whole(br#"{"error":{"message":"x"}}"#), Verdict::Deceived);
    }
}

//! An endpoint that plays a script.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use outrigger::call::{Attempt, AttemptReply, Class, Failure, Lack, Milestone, Payload, Piece, PieceStream, Usage};
use outrigger::clock;
use tower::Service;

use super::script::{Line, capability};

#[derive(Clone)]
pub struct Scripted {
    name: String,
    lines: Arc<Vec<Line>>,
    asked: Arc<AtomicU32>,
    /// Lines of the script that were played.
    played: Arc<AtomicU32>,
}

impl Scripted {
    pub fn all(script: &BTreeMap<String, Vec<Line>>) -> Vec<Self> {
        let one = |(name, lines): (&String, &Vec<Line>)| Self {
            name: name.clone(),
            lines: Arc::new(lines.clone()),
            asked: Arc::default(),
            played: Arc::default(),
        };
        script.iter().map(one).collect()
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends it was asked for.
    pub fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Service<Attempt> for Scripted {
    type Response = AttemptReply;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<AttemptReply, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let own = |line: &&Line| {
            (line.key.is_some() || line.kind.is_some())
                && line.key.as_deref().is_none_or(|key| attempt.call.key_name.as_deref() == Some(key))
                && line.kind.as_deref().is_none_or(|kind| attempt.kind.as_str() == kind)
        };
        let line = match self.lines.iter().find(own) {
            Some(line) => line.clone(),
            None => {
                let at = self.played.fetch_add(1, Ordering::Relaxed) as usize;
                let lines: Vec<&Line> =
                    self.lines.iter().filter(|line| line.key.is_none() && line.kind.is_none()).collect();
                lines[at.min(lines.len() - 1)].clone()
            }
        };
        Box::pin(play(line, attempt))
    }
}

async fn play(line: Line, attempt: Attempt) -> Result<AttemptReply, Failure> {
    clock::sleep(line.after).await; // paces the load, not a wait
    if line.hang {
        std::future::pending::<()>().await;
    }
    if let Some(name) = &line.fail {
        let mut failure = Failure::new(class(name), "as scripted");
        failure.retry_after = line.retry_after;
        failure.unsent = line.unsent;
        failure.lacks = line.lacks.as_deref().map(|name| match capability(name) {
            Some(capability) => Lack::Of(capability),
            None => Lack::Window(line.window),
        });
        return Err(failure);
    }
    attempt.report.tell(Milestone::Head);
    clock::sleep(line.first).await; // paces the load, not a wait
    let usage = line.usage.map(|[input, output]| Usage { input, output });
    let payload = match attempt.call.stream {
        true => Payload::Events(events(line)),
        false => Payload::Whole(Bytes::from_static(b"{}")),
    };
    Ok(AttemptReply {
        status: 200,
        headers: HeaderMap::new(),
        payload,
        endpoint: attempt.endpoint,
        first_at: clock::now(),
        usage: usage.filter(|_| !attempt.call.stream),
    })
}

fn class(name: &str) -> Class {
    Class::ALL.iter().copied().find(|class| class.as_str() == name).expect("a class")
}

/// The first event is there at once; what follows takes its time.
fn events(line: Line) -> PieceStream {
    let model = line.events.max(1);
    let piece =
        |events, usage| Ok(Piece { bytes: Bytes::from_static(b"data: x\n\n"), events, usage, ..Piece::default() });
    Box::pin(stream::unfold(Some(0u32), move |at| {
        let line = line.clone();
        async move {
            let at = at?;
            if at > 0 && at < model + line.pings {
                clock::sleep(line.gap).await; // paces the load, not a wait
            }
            let usage = line.usage.filter(|_| at + 1 == model).map(|[input, output]| Usage { input, output });
            match at {
                at if at < model => Some((piece(1, usage), Some(at + 1))),
                at if at < model + line.pings => Some((piece(0, None), Some(at + 1))),
                _ => match line.then.as_deref() {
                    Some("stall") => {
                        clock::sleep(Duration::from_secs(86_400)).await; // paces the load, not a wait
                        None
                    }
                    Some(name) if name != "done" => {
                        let name = if name == "cut" { "stream_truncated" } else { name };
                        Some((Err(Failure::new(class(name), "as scripted")), None))
                    }
                    _ => None,
                },
            }
        }
    }))
}

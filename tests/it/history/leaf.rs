//! Endpoints that play a schedule, and say of each send what it got and when it was let go.
//!
//! Owns the words of answers: every send of every call has its own, so that no two can be taken for each other.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use outrigger::call::{
    Attempt, AttemptReply, Class, Failure, Milestone, Payload, Piece, PieceStream, RequestBody, Surface, Upload,
};
use outrigger::clock;
use tower::Service;

use super::event::{Failed, Sent, What};
use super::record::{Recorder, digest, number};
use super::schedule::{Act, End, Schedule, Then, retry_word};

/// One endpoint.
#[derive(Clone)]
pub struct Played {
    pub schedule: Arc<Schedule>,
    pub recorder: Arc<Recorder>,
    pub endpoint: usize,
}

impl Service<Attempt> for Played {
    type Response = AttemptReply;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<AttemptReply, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut attempt: Attempt) -> Self::Future {
        let (call, send) = (number(&attempt.call.headers), attempt.number as u32);
        let body = match &attempt.call.body {
            RequestBody::Whole(bytes) => digest(bytes),
            RequestBody::Streamed => digest(&uploaded(attempt.upload.take())),
        };
        self.recorder.sent(Sent { call, send, endpoint: self.endpoint, limit: None, body: Some(body) });
        let life = Life { recorder: Arc::clone(&self.recorder), call, send, endpoint: self.endpoint };
        let act = self.schedule.act(self.endpoint, call, send, self.recorder.now() / 1000);
        let respects = self.schedule.policy.respect_retry_after;
        Box::pin(play(act, attempt, life, respects))
    }
}

/// What a client uploads is there at once.
fn uploaded(upload: Option<Upload>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let Some(mut upload) = upload else { return bytes };
    while let Some(Some(Ok(chunk))) = upload.next().now_or_never() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

/// A send at its endpoint, until whoever made it lets go.
struct Life {
    recorder: Arc<Recorder>,
    call: u32,
    send: u32,
    endpoint: usize,
}

impl Life {
    fn fail(&self, failure: &Failure, respects: bool) {
        self.recorder.tell(What::Failed(Failed {
            call: self.call,
            send: self.send,
            class: failure.class.as_str().into(),
            retry: retry_word(failure.retry).into(),
            wait: failure.retry_after.filter(|_| respects).map(|wait| wait.as_micros() as u64),
            unsent: failure.unsent,
        }));
    }

    /// The answer's events; the last is its end.
    fn words(&self, events: u32) -> Vec<String> {
        let Self { call, send, endpoint, .. } = self;
        let word = |at| {
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"c{call}s{send}e{endpoint}w{at} \"}}}}]}}\n\n")
        };
        let mut words: Vec<String> = (0..events).map(word).collect();
        words.push("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".into());
        words
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let limit = self.recorder.limit(self.endpoint);
        self.recorder.tell(What::Dropped { call: self.call, send: self.send, limit });
    }
}

async fn pace(millis: u64) {
    if millis > 0 {
        clock::sleep(Duration::from_millis(millis)).await; // paces the load, not a wait
    }
}

async fn play(act: Act, attempt: Attempt, life: Life, respects: bool) -> Result<AttemptReply, Failure> {
    pace(act.after).await;
    match act.then {
        Then::Hang => std::future::pending().await,
        Then::Fail { class, .. } if attempt.call.surface == Surface::Opaque && status(class).is_some() => {
            // Nobody reads it, so it is an answer like any other.
            Ok(carried(life, class, attempt.endpoint))
        }
        Then::Fail { class, wait, unsent } => {
            let mut failure = Failure::new(class, "as scheduled");
            failure.retry_after = wait.map(Duration::from_millis);
            failure.unsent = unsent;
            life.fail(&failure, respects);
            Err(failure)
        }
        Then::Answer { first, events, gap, pings, end } => {
            (attempt.report)(Milestone::Head);
            let mut headers = HeaderMap::new();
            let stream = attempt.call.stream;
            let kind = if stream { "text/event-stream" } else { "application/json" };
            headers.insert(CONTENT_TYPE, kind.parse().expect("a header"));
            let payload = if attempt.call.surface == Surface::Opaque {
                pace(first).await;
                let pieces = streamed(life, events, gap, pings, end, respects);
                let blind =
                    |piece: Result<Piece, Failure>| piece.map(|piece| Piece { events: 0, done: false, ..piece });
                Payload::Opaque(Box::pin(pieces.map(blind)))
            } else if stream {
                pace(first).await;
                Payload::Events(streamed(life, events, gap, pings, end, respects))
            } else {
                pace(first + gap * u64::from(events)).await;
                Payload::Whole(whole(&life, end, respects).await?)
            };
            Ok(AttemptReply {
                status: 200,
                headers,
                payload,
                endpoint: attempt.endpoint,
                first_at: clock::now(),
                usage: None,
            })
        }
    }
}

/// The status of a failure that is an answer.
fn status(class: Class) -> Option<u16> {
    match class {
        Class::Upstream500 => Some(500),
        Class::UpstreamUnavailable => Some(503),
        Class::RateLimited => Some(429),
        _ => None,
    }
}

fn carried(life: Life, class: Class, endpoint: usize) -> AttemptReply {
    let (call, send) = (life.call, life.send);
    let text = format!("c{call}s{send}e{endpoint} {class}");
    life.recorder.tell(What::Said { call, send, text: text.clone(), complete: true });
    life.recorder.tell(What::First { call, send });
    let pieces = stream::once(async move {
        let _life = life;
        Ok(Piece { bytes: text.into(), ..Piece::default() })
    });
    AttemptReply {
        status: status(class).unwrap_or(500),
        headers: HeaderMap::new(),
        payload: Payload::Opaque(Box::pin(pieces)),
        endpoint,
        first_at: clock::now(),
        usage: None,
    }
}

async fn whole(life: &Life, end: End, respects: bool) -> Result<Bytes, Failure> {
    let (call, send) = (life.call, life.send);
    match end {
        End::Done => {
            let text =
                format!("{{\"choices\":[{{\"message\":{{\"content\":\"c{call}s{send}e{}\"}}}}]}}", life.endpoint);
            life.recorder.tell(What::Said { call, send, text: text.clone(), complete: true });
            life.recorder.tell(What::First { call, send });
            Ok(text.into())
        }
        End::Fail(_) => {
            let failure = Failure::new(Class::BadFraming, "as scheduled");
            life.fail(&failure, respects);
            Err(failure)
        }
        End::Stall { .. } => std::future::pending().await,
    }
}

/// How far a stream is.
struct Tape {
    life: Life,
    words: Vec<String>,
    at: usize,
    pinged: bool,
}

/// The first event is there at once; what follows takes its time.
fn streamed(life: Life, events: u32, gap: u64, pings: bool, end: End, respects: bool) -> PieceStream {
    let mut words = life.words(events);
    if end != End::Done {
        words.pop();
    }
    let ping = ": ping\n\n";
    // A keep-alive stands before each event but the first.
    let said = words.join(if pings { ping } else { "" });
    let (call, send) = (life.call, life.send);
    life.recorder.tell(What::Said { call, send, text: said, complete: end == End::Done });
    life.recorder.tell(What::First { call, send });
    let tape = Tape { life, words, at: 0, pinged: false };
    let piece = |text: &str, events, done| {
        Some(Ok(Piece { bytes: Bytes::copy_from_slice(text.as_bytes()), events, usage: None, done }))
    };
    Box::pin(stream::unfold(Some(tape), move |tape| async move {
        let mut tape = tape?;
        let last = tape.words.len() - 1;
        if pings && !tape.pinged && (1..=last).contains(&tape.at) {
            tape.pinged = true;
            pace(gap / 2).await;
            return piece(ping, 0, false).map(|item| (item, Some(tape)));
        }
        tape.pinged = false;
        if tape.at > 0 {
            pace(gap).await;
        }
        if let Some(word) = tape.words.get(tape.at) {
            let done = end == End::Done && tape.at == last;
            let item = piece(word, u32::from(!done), done);
            tape.at += 1;
            return item.map(|item| (item, Some(tape)));
        }
        match end {
            End::Done => None,
            End::Fail(class) => {
                let failure = Failure::new(class, "as scheduled");
                tape.life.fail(&failure, respects);
                Some((Err(failure), None))
            }
            End::Stall { pings: false } => std::future::pending().await,
            End::Stall { pings: true } => {
                pace(300).await;
                // Not told of beforehand: there is no end of them. An empty piece never reaches a client.
                piece("", 0, false).map(|item| (item, Some(tape)))
            }
        }
    }))
}

//! Calls with the same `Idempotency-Key` are one execution: the first runs it, the others read what comes of it.
//!
//! An execution is a task of its own, so that it outlives the call that began it while another has joined; it is
//! aborted when the last of them has left. A call without a key passes untouched. Invariant: one key never has two
//! executions at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use tower::{Layer, Service};

use super::Pending;
use super::state::{Begun, Execution, Head, Keyed, Keys, Reader};
use crate::call::{
    Call, CallError, CallRequest, Class, Failure, Outcome, Payload, Piece, Repeated, Reply, RequestBody, Signal, Sink,
};
use crate::clock;
use crate::policy::Conflict;
use crate::policy::idempotency::Hash;

/// The header, as an error names it.
const KEY: &str = "idempotency-key";
/// How long an upstream may take to end its body after the terminal marker.
const TAIL: Duration = Duration::from_secs(1);

/// Joins calls of one route.
#[derive(Clone)]
pub struct DedupeLayer {
    keys: Keys,
    sink: Arc<dyn Sink>,
    route: usize,
    /// What the route is called, whatever its number.
    name: Arc<str>,
}

impl DedupeLayer {
    /// `keys` are those of the whole process; `route` is the route's number, `name` its name.
    pub fn new(keys: Keys, sink: Arc<dyn Sink>, route: usize, name: &str) -> Self {
        Self { keys, sink, route, name: Arc::from(name) }
    }
}

impl<S> Layer<S> for DedupeLayer {
    type Service = Dedupe<S>;

    fn layer(&self, inner: S) -> Dedupe<S> {
        Dedupe { inner, shared: self.clone() }
    }
}

/// See [`DedupeLayer`].
#[derive(Clone)]
pub struct Dedupe<S> {
    inner: S,
    shared: DedupeLayer,
}

impl<S> Service<CallRequest> for Dedupe<S>
where
    S: Service<CallRequest, Response = Reply, Error = CallError, Future = Pending<Reply, CallError>>
        + Clone
        + Send
        + 'static,
{
    type Response = Reply;
    type Error = CallError;
    type Future = Pending<Reply, CallError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: CallRequest) -> Self::Future {
        let (Some(key), RequestBody::Whole(body)) = (&request.call.idempotency_key, &request.call.body) else {
            return self.inner.call(request);
        };
        let key = scoped(key.as_bytes(), &self.shared.name, &request.call);
        let print = hash([request.call.path.as_bytes(), body]);
        let (shared, inner) = (self.shared.clone(), self.inner.clone());
        Box::pin(async move { shared.answer(key, print, request, inner).await })
    }
}

impl DedupeLayer {
    async fn answer<S>(&self, key: Hash, print: Hash, request: CallRequest, mut inner: S) -> Result<Reply, CallError>
    where
        S: Service<CallRequest, Response = Reply, Error = CallError, Future = Pending<Reply, CallError>>,
    {
        let (started, deadline) = (request.call.started, request.call.deadline);
        let mut clock = std::pin::pin!(clock::sleep_until(deadline));
        let late = || {
            let waited = deadline.saturating_duration_since(started).as_millis();
            CallError::local(Class::DeadlineExceeded, format!("no answer within {waited} ms"))
        };
        let (mut reader, result) = loop {
            match self.keys.ask(key, print, clock::now()) {
                Keyed::Lead(execution, mut reader) => {
                    let abort_with = execution.abort_with();
                    let task = tokio::spawn(run(inner.call(request), execution, self.keys.clone()));
                    abort_with(task.abort_handle());
                    // The plan keeps the deadline of what it runs.
                    let (head, usage) = begin(&mut reader).await?;
                    return Ok(Reply { usage, ..reply(&head, reader) });
                }
                Keyed::Join(reader) => break (reader, Repeated::Joined),
                Keyed::Replay(reader) => break (reader, Repeated::Replayed),
                Keyed::Wait(mut gone) => tokio::select! {
                    biased;
                    // A closed channel says the same.
                    _ = gone.wait_for(|gone| *gone) => {}
                    () = &mut clock => return Err(late()),
                },
                Keyed::Conflict(conflict) => {
                    self.tell(Repeated::Conflict);
                    return Err(refused(conflict));
                }
            }
        };
        self.tell(result);
        let (head, usage) = tokio::select! {
            biased;
            begun = begin(&mut reader) => begun?,
            () = &mut clock => return Err(late()),
        };
        // Nothing was sent for this call; what it waited for was the other's.
        let upstream = clock::now().saturating_duration_since(started);
        let (outcome, queued) = (Outcome::Cached, Duration::ZERO);
        Ok(Reply { outcome, usage, sends: 0, trail: Vec::new(), queued, upstream, ..reply(&head, reader) })
    }

    fn tell(&self, result: Repeated) {
        self.sink.emit(Signal::Repeated { route: self.route, result });
    }
}

/// The task of an execution. What runs upstream is dropped before `execution` is, and so before its key is free: also in
/// a task that is aborted before it was ever polled, whose arguments are dropped in this order.
async fn run(answer: Pending<Reply, CallError>, mut execution: Execution, keys: Keys) {
    let answered = answer.await;
    let sweep = match answered {
        Err(error) => return execution.refused(error),
        Ok(reply) => {
            let head = Head {
                status: reply.status,
                headers: reply.headers,
                endpoint: reply.endpoint,
                route: reply.route,
                sends: reply.sends,
                outcome: reply.outcome,
                trail: reply.trail,
                queued: reply.queued,
                upstream: reply.upstream,
                body: None,
            };
            match reply.payload {
                Payload::Whole(body) => {
                    let head = Head { body: Some(body), ..head };
                    execution.answered(head, reply.usage, reply.fate, clock::now())
                }
                Payload::Events(mut pieces) | Payload::Opaque(mut pieces) => {
                    execution.answered(head, reply.usage, reply.fate, clock::now());
                    loop {
                        execution.wanted().await;
                        match pieces.next().await {
                            Some(Ok(piece)) if piece.done => {
                                let sweep = execution.push(piece, clock::now());
                                if sweep {
                                    tokio::spawn(sweeping(keys.clone()));
                                }
                                // Read to its end, the connection can be used again.
                                let rest = async { while let Some(Ok(_)) = pieces.next().await {} };
                                // Whether it came in time makes no difference.
                                let _ = tokio::time::timeout(TAIL, rest).await;
                                return;
                            }
                            Some(Ok(piece)) => {
                                execution.push(piece, clock::now());
                            }
                            Some(Err(failure)) => {
                                drop(pieces);
                                return execution.broken(failure);
                            }
                            None => break execution.ended(clock::now()),
                        }
                    }
                }
            }
        }
    };
    drop(execution);
    if sweep {
        sweeping(keys).await;
    }
}

/// Forgets answers as they expire, until there are none.
async fn sweeping(keys: Keys) {
    while let Some(next) = keys.sweep(clock::now()) {
        clock::sleep_until(next).await;
    }
}

async fn begin(reader: &mut Reader) -> Result<Begun, CallError> {
    std::future::poll_fn(|cx| reader.poll_head(cx)).await
}

/// The answer as the execution has it.
fn reply(head: &Head, reader: Reader) -> Reply {
    let fate = Arc::clone(&reader.fate);
    Reply {
        status: head.status,
        headers: head.headers.clone(),
        endpoint: head.endpoint.clone(),
        route: head.route.clone(),
        sends: head.sends,
        outcome: head.outcome,
        trail: head.trail.clone(),
        queued: head.queued,
        upstream: head.upstream,
        usage: None,
        fate,
        payload: match &head.body {
            Some(body) => Payload::Whole(body.clone()),
            None => Payload::Events(Box::pin(Pieces(reader))),
        },
    }
}

struct Pieces(Reader);

impl Stream for Pieces {
    type Item = Result<Piece, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_piece(cx)
    }
}

/// A key is one caller's, on one route and surface. Where no client key tells callers apart, what they show does.
fn scoped(key: &[u8], route: &str, call: &Call) -> Hash {
    let shown = |name: &str| call.headers.get(name).map_or(&[][..], |value| value.as_bytes());
    let caller = match &call.key_name {
        Some(name) => [b"name", name.as_bytes(), b"", b""],
        None => [b"shown", shown(AUTHORIZATION.as_str()), shown("x-api-key"), shown("api-key")],
    };
    let place = [route.as_bytes(), call.surface.as_str().as_bytes()];
    hash(caller.into_iter().chain(place).chain([key]))
}

/// A hash over several parts, each with its length, so that no two lists of parts are alike.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Hash {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn refused(conflict: Conflict) -> CallError {
    let (status, message) = match conflict {
        Conflict::OtherRequest => (
            422,
            "this `Idempotency-Key` was used for another request; a key stands for one body, sent again unchanged",
        ),
        Conflict::TooLong => {
            (409, "the call with this `Idempotency-Key` is under way, and its answer is too long to be joined late")
        }
        Conflict::Full => (409, "too many calls with an `Idempotency-Key` are under way"),
    };
    let mut error = CallError::local(Class::BadRequest, message).at(KEY).status(status);
    error.retry_after = (status == 409).then_some(Duration::from_secs(1));
    error
}

#[cfg(test)]
#[path = "dedupe_tests.rs"]
mod tests;

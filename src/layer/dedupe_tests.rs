//! Executions that are joined, left, broken and forgotten, over an inner service that counts what runs.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderValue, Method};

use super::*;
use crate::call::{Fate, Options, Priority, Surface, Usage, Verdict};
use crate::policy::IdempotencySettings;

struct Nobody;

impl Sink for Nobody {
    fn emit(&self, _: Signal) {}
}

/// What runs of one key, from the call to the end or the drop of its body.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn enter(count: &Arc<AtomicUsize>) -> Self {
        assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0, "two executions of one key");
        Self(Arc::clone(count))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

const PIECES: u32 = 6;

/// Answers as the path says, and counts the executions of each key by its first byte.
#[derive(Clone, Default)]
struct Inner {
    running: [Arc<AtomicUsize>; 4],
    runs: Arc<AtomicUsize>,
    /// Pieces that were asked for.
    pulled: Arc<AtomicUsize>,
    fate: Arc<Fate>,
}

impl Service<CallRequest> for Inner {
    type Response = Reply;
    type Error = CallError;
    type Future = Pending<Reply, CallError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: CallRequest) -> Self::Future {
        let key = request.call.idempotency_key.map_or(b'0', |key| key.as_bytes()[0]);
        let running = Running::enter(&self.running[usize::from(key - b'0')]);
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        let (fate, pulled) = (Arc::clone(&self.fate), Arc::clone(&self.pulled));
        Box::pin(async move {
            tokio::task::yield_now().await;
            match request.call.path.as_str() {
                "/panics" => panic!("as asked for"),
                "/fails" => Err(CallError::local(Class::Upstream500, format!("run {run}"))),
                "/whole" => Ok(reply(Payload::Whole(format!("run {run}").into()), fate)),
                path => Ok(reply(Payload::Events(pieces(run, path == "/breaks", running, pulled)), fate)),
            }
        })
    }
}

fn reply(payload: Payload, fate: Arc<Fate>) -> Reply {
    Reply {
        status: 200,
        headers: HeaderMap::new(),
        payload,
        endpoint: "a".into(),
        route: "r".into(),
        sends: 1,
        later: None,
        outcome: Outcome::Ok,
        trail: Vec::new(),
        queued: Duration::ZERO,
        upstream: Duration::ZERO,
        usage: None,
        fate,
    }
}

/// `run N;` over and over, a yield between any two, the tokens in the fourth.
fn pieces(run: usize, breaks: bool, running: Running, pulled: Arc<AtomicUsize>) -> crate::call::PieceStream {
    Box::pin(stream::unfold((0, running), move |(at, running)| {
        pulled.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::task::yield_now().await;
            let usage = (at == 3).then_some(Usage { input: 1, output: 6 });
            let piece = Piece { bytes: format!("run {run};").into(), events: 1, usage, done: false };
            match at {
                PIECES => None,
                4 if breaks => Some((Err(Failure::new(Class::StreamTruncated, "as asked for")), (PIECES, running))),
                _ => Some((Ok(piece), (at + 1, running))),
            }
        }
    }))
}

fn service(ttl: Duration) -> (Keys, Inner, Dedupe<Inner>) {
    let keys = Keys::new(IdempotencySettings { ttl, max_memory: 1 << 20 });
    let inner = Inner::default();
    (keys.clone(), inner.clone(), DedupeLayer::new(keys, Arc::new(Nobody), 0, "chat").layer(inner))
}

fn call(path: &str, key: Option<u64>) -> CallRequest {
    let now = clock::now();
    let call = Call {
        id: String::new(),
        surface: Surface::Chat,
        method: Method::POST,
        path: path.into(),
        headers: HeaderMap::new(),
        body: RequestBody::Whole(Bytes::from_static(b"{}")),
        model: None,
        model_span: None,
        stream: true,
        include_usage: false,
        max_tokens: None,
        choices: 1,
        asks: Default::default(),
        prompt_bytes: 2,
        prefix: None,
        started: now,
        client_patience: None,
        deadline: now + Duration::from_secs(60),
        options: Options::default(),
        priority: Priority::Default,
        client_retry: false,
        traceparent: String::new(),
        key_name: None,
        idempotency_key: key.map(|key| HeaderValue::from_str(&key.to_string()).unwrap()),
        standing: Arc::default(),
    };
    CallRequest { call, upload: None }
}

/// All a call sees: its text, its tokens, and whether it broke.
async fn all(answer: Pending<Reply, CallError>) -> (String, Option<Usage>, Option<Class>) {
    let reply = match answer.await {
        Ok(reply) => reply,
        Err(error) => return (String::new(), None, Some(error.class)),
    };
    let (mut text, mut usage) = (String::new(), reply.usage);
    match reply.payload {
        Payload::Whole(bytes) => text = String::from_utf8(bytes.to_vec()).unwrap(),
        Payload::Events(mut pieces) | Payload::Opaque(mut pieces) => {
            while let Some(piece) = pieces.next().await {
                match piece {
                    Ok(piece) => {
                        text.push_str(std::str::from_utf8(&piece.bytes).unwrap());
                        usage = piece.usage.or(usage);
                    }
                    Err(failure) => return (text, usage, Some(failure.class)),
                }
            }
        }
    }
    (text, usage, None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn among_many_who_come_and_leave_one_key_never_has_two_executions() {
    let (keys, inner, service) = service(Duration::from_millis(1));
    let one = |task: u64| {
        let mut service = service.clone();
        async move {
            for round in 0..150 {
                let key = (task + round) % 4;
                let path = ["/streams", "/whole", "/breaks", "/fails"][key as usize];
                let answer = service.call(call(path, Some(key)));
                if (task * 7 + round).is_multiple_of(3) {
                    // It leaves after some moments, wherever it is by then.
                    let mut moments = (task + round) % 20;
                    let patience = std::future::poll_fn(|cx| {
                        moments = moments.saturating_sub(1);
                        cx.waker().wake_by_ref();
                        if moments == 0 { Poll::Ready(()) } else { Poll::Pending }
                    });
                    tokio::select! { biased; _ = all(answer) => {}, () = patience => {} }
                    continue;
                }
                let (text, _, class) = all(answer).await;
                let expected = [None, None, Some(Class::StreamTruncated), Some(Class::Upstream500)];
                assert_eq!(class, expected[key as usize], "{path}: {text}");
                let one = text.split_inclusive(';').next().unwrap_or_default();
                let times = [PIECES as usize, 1, 4, 0][key as usize];
                assert_eq!(text, one.repeat(times), "{path}: of one execution, and as much as it had");
            }
        }
    };
    let tasks: Vec<_> = (0..16).map(|task| tokio::spawn(one(task))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    let runs = inner.runs.load(Ordering::SeqCst);
    assert!((100..2000).contains(&runs), "{runs} executions for 2400 calls");
    while inner.running.iter().any(|running| running.load(Ordering::SeqCst) > 0) || keys.held() != (0, 0) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_forgotten_in_time_though_nobody_asks_again() {
    let ttl = Duration::from_secs(600);
    let (keys, inner, mut service) = service(ttl);
    for (number, path) in ["/streams", "/whole"].into_iter().enumerate() {
        let (first, second) =
            (all(service.call(call(path, Some(1)))).await, all(service.call(call(path, Some(1)))).await);
        assert_eq!(first.0, second.0);
        assert_eq!(inner.runs.load(Ordering::SeqCst), number + 1);
        assert!(keys.held().0 > first.0.len() && keys.held().1 == 1);
        clock::sleep(ttl - Duration::from_millis(1)).await; // the clock stands still
        assert_eq!(keys.held().1, 1);
        clock::sleep(Duration::from_millis(2)).await; // the clock stands still
        assert_eq!(keys.held(), (0, 0));
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_kept_or_joined() {
    let (keys, inner, mut service) = service(Duration::from_secs(600));
    for _ in 0..2 {
        assert_eq!(all(service.call(call("/streams", None))).await.2, None);
        assert_eq!(keys.held(), (0, 0));
    }
    assert_eq!(inner.runs.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_panic_is_told_to_all_and_frees_the_key() {
    let (_, inner, mut service) = service(Duration::from_secs(600));
    let calls = [service.call(call("/panics", Some(1))), service.call(call("/panics", Some(1)))];
    for (text, _, class) in futures_util::future::join_all(calls.map(all)).await {
        assert_eq!((text.as_str(), class), ("", Some(Class::Internal)));
    }
    assert_eq!(inner.runs.load(Ordering::SeqCst), 1);
    assert_eq!(all(service.call(call("/streams", Some(1)))).await.2, None);
}

#[tokio::test]
async fn the_tokens_are_told_once_by_whoever_is_left_to_tell_them() {
    let (.., mut service) = service(Duration::from_secs(600));
    let told = |seen: &(String, Option<Usage>, Option<Class>)| seen.1.is_some();
    let calls = [service.call(call("/streams", Some(1))), service.call(call("/streams", Some(1)))];
    let seen = futures_util::future::join_all(calls.map(all)).await;
    assert_eq!(seen.iter().map(told).collect::<Vec<_>>(), [true, false]);
    assert!(!told(&all(service.call(call("/streams", Some(1)))).await), "a replay costs nothing");

    let (mut first, second) = (service.call(call("/streams", Some(2))), service.call(call("/streams", Some(2))));
    assert!((&mut first).now_or_never().is_none());
    let second = tokio::spawn(all(second));
    tokio::task::yield_now().await;
    drop(first);
    assert!(told(&second.await.unwrap()));
}

#[tokio::test]
async fn the_last_to_leave_says_why() {
    for (verdict, expected) in [
        (None, Verdict::Failed(Class::ClientDisconnect)),
        (Some(Verdict::Failed(Class::Shutdown)), Verdict::Failed(Class::Shutdown)),
    ] {
        let (_, inner, mut service) = service(Duration::from_secs(600));
        let (one, other) = (service.call(call("/streams", Some(1))), service.call(call("/streams", Some(1))));
        let (one, other) = tokio::join!(one, other);
        let (one, other) = (one.unwrap(), other.unwrap());
        one.fate.set(Verdict::Failed(Class::DeadlineExceeded));
        drop(one);
        assert_eq!(inner.fate.get(), Verdict::Failed(Class::ClientDisconnect), "it goes on for the other");
        verdict.into_iter().for_each(|verdict| other.fate.set(verdict));
        drop(other);
        assert_eq!(inner.fate.get(), expected);
    }
}

#[tokio::test]
async fn a_lone_slow_reader_slows_the_model_and_a_slow_one_beside_a_fast_one_does_not() {
    let (_, inner, mut service) = service(Duration::from_secs(600));
    let Payload::Events(mut slow) = service.call(call("/streams", Some(1))).await.unwrap().payload else {
        panic!("a stream")
    };
    for read in 0..3 {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert_eq!(inner.pulled.load(Ordering::SeqCst), read + 1, "one piece ahead of its reader");
        assert!(slow.next().await.unwrap().is_ok());
    }
    let fast = all(service.call(call("/streams", Some(1)))).await;
    assert_eq!(fast, ("run 0;".repeat(6), None, None));
    let rest: Vec<_> = slow.map(|piece| String::from_utf8(piece.unwrap().bytes.to_vec()).unwrap()).collect().await;
    assert_eq!(rest.concat(), "run 0;".repeat(3));
}

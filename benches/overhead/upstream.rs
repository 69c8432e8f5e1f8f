//! The model server of the bench: always the same completion, always the same stream.
//!
//! A stream is sent in step with its reader: the next event leaves when the one before has arrived. So every event
//! passes the proxy on its own, as it does behind a real model, and no run is lucky with what coalesces.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Events of a stream, the marker included.
const EVENTS: usize = 64;
/// The role and the first word leave without waiting: a gateway may hold a stream back until there is a word.
const AHEAD: usize = 2;

/// What the server sends, and the pace of its streams.
pub struct Script {
    completion: Bytes,
    events: Vec<Bytes>,
    /// One permit for each event that may leave.
    pace: Semaphore,
}

impl Script {
    /// A completion of 1 KiB and a stream of 64 events.
    pub fn new() -> Arc<Self> {
        let head = concat!(
            r#"{"id":"chatcmpl-CzT0yTmsF2bU7","object":"chat.completion","created":1760000000,"#,
            r#""model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":""#
        );
        let tail = concat!(
            r#"","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"#,
            r#""prompt_tokens":412,"completion_tokens":97,"total_tokens":509},"system_fingerprint":"fp_560af6e559"}"#
        );
        let words = "Keep the boat upright. ".repeat(64);
        let completion = format!("{head}{}{tail}", &words[..1024 - head.len() - tail.len()]);
        let event = |delta: &str, finish: &str| {
            format!(
                "data: {{\"id\":\"chatcmpl-CzT0yTmsF2bU7\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\
                 \"model\":\"gpt-4o-mini-2024-07-18\",\"system_fingerprint\":\"fp_560af6e559\",\"choices\":[\
                 {{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
            )
        };
        let mut events = vec![event(r#"{"role":"assistant","content":"","refusal":null}"#, "null")];
        events.extend((3..EVENTS).map(|_| event(r#"{"content":" upright"}"#, "null")));
        events.push(event("{}", r#""stop""#));
        events.push("data: [DONE]\n\n".to_owned());
        Arc::new(Self {
            completion: completion.into(),
            events: events.into_iter().map(Bytes::from).collect(),
            pace: Semaphore::new(0),
        })
    }

    /// Length of the completion.
    pub fn completion_len(&self) -> usize {
        self.completion.len()
    }

    /// Length of the stream.
    pub fn stream_len(&self) -> usize {
        self.events.iter().map(Bytes::len).sum()
    }

    /// The reader of a stream has so many bytes of it, and had `before`: lets the events go that this calls for.
    pub fn arrived(&self, before: usize, now: usize) {
        let whole = |bytes: usize| {
            let ends = self.events.iter().scan(0, |end, event| {
                *end += event.len();
                Some(*end)
            });
            ends.take_while(|end| *end <= bytes).count()
        };
        let due = |events: usize| (events.max(AHEAD - 1) - (AHEAD - 1)).min(EVENTS - AHEAD);
        self.pace.add_permits(due(whole(now)) - due(whole(before)));
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let streamed = request.headers().get("accept").is_some_and(|kind| kind == "text/event-stream");
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        let headers = Response::builder()
            .header("server", "uvicorn")
            .header("x-request-id", "req_5a1c0b7e4b1f4c0d")
            .header("openai-processing-ms", "412")
            .header("openai-version", "2020-10-01");
        let response = if streamed {
            headers.header("content-type", "text/event-stream; charset=utf-8").body(self.stream())
        } else {
            let whole = Full::new(self.completion.clone());
            headers.header("content-type", "application/json").body(whole.boxed_unsync())
        };
        response.expect("headers that are well formed")
    }

    fn stream(self: Arc<Self>) -> UnsyncBoxBody<Bytes, Infallible> {
        let events = stream::iter(0..EVENTS).then(move |number| {
            let script = Arc::clone(&self);
            async move {
                if number < AHEAD {
                    // A chance for what is there to leave first.
                    tokio::task::yield_now().await;
                } else {
                    script.pace.acquire().await.expect("never closed").forget();
                }
                Ok(Frame::data(script.events[number].clone()))
            }
        });
        StreamBody::new(events).boxed_unsync()
    }
}

/// Serves the script for ever.
pub async fn serve(script: Arc<Script>) -> (SocketAddr, ()) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let at = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).expect("TCP_NODELAY");
            let script = Arc::clone(&script);
            let service = service_fn(move |request| {
                let script = Arc::clone(&script);
                async move { Ok::<_, Infallible>(script.answer(request).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    (at, ())
}

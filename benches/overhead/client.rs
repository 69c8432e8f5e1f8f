//! The caller: one connection, one call after the other, with the headers that the OpenAI SDK sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::upstream::Script;

/// Far more than any call takes: a call that hangs is a fault of the bench.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is asked.
pub struct Case {
    /// As it is printed.
    pub name: &'static str,
    streamed: bool,
    body: Bytes,
    /// Calls in one round.
    pub calls: u32,
}

impl Case {
    /// The three cases.
    pub fn all() -> [Case; 3] {
        [
            Case { name: "unary", streamed: false, body: body(2 * 1024, false), calls: 150 },
            Case { name: "unary-64k", streamed: false, body: body(64 * 1024, false), calls: 100 },
            Case { name: "stream", streamed: true, body: body(2 * 1024, true), calls: 12 },
        ]
    }
}

/// A chat request of about this many bytes.
fn body(bytes: usize, stream: bool) -> Bytes {
    let turn = concat!(
        r#"{"role":"user","content":"How do I keep a boat upright? Answer in one sentence.\nThe wind is 5 Bft."},"#,
        r#"{"role":"assistant","content":"Reef early, keep the crew to windward, and sheet out in the \"gusts\"."},"#
    );
    let turns = turn.repeat(bytes / turn.len());
    let tail = r#"{"role":"user","content":"Why?"}],"temperature":0.2,"max_tokens":400"#;
    format!(r#"{{"model":"gpt-4o-mini","messages":[{turns}{tail},"stream":{stream}}}"#).into()
}

/// A connection to a proxy, or to the server itself.
pub struct Caller {
    at: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    script: Arc<Script>,
}

impl Caller {
    /// Connects.
    pub async fn connect(at: SocketAddr, script: Arc<Script>) -> Self {
        let socket = TcpStream::connect(at).await.expect("it listens");
        socket.set_nodelay(true).expect("TCP_NODELAY");
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self { at, sender, script }
    }

    /// One call, read to its end and checked for its length.
    pub async fn call(&mut self, case: &Case) {
        timeout(PATIENCE, self.ask(case)).await.unwrap_or_else(|_| panic!("{}: no end in sight", case.name));
    }

    async fn ask(&mut self, case: &Case) {
        self.sender.ready().await.expect("a connection that is kept");
        let response = self.sender.send_request(self.request(case)).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{}", case.name);
        let mut body = response.into_body();
        let mut len = 0;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.expect("a whole body").into_data() else { continue };
            if case.streamed {
                self.script.arrived(len, len + data.len());
            }
            len += data.len();
        }
        let expected = if case.streamed { self.script.stream_len() } else { self.script.completion_len() };
        assert_eq!(len, expected, "{}: another answer than was sent", case.name);
    }

    fn request(&self, case: &Case) -> Request<Full<Bytes>> {
        Request::post("/v1/chat/completions")
            .header("host", self.at.to_string())
            .header("accept-encoding", "gzip, deflate")
            .header("connection", "keep-alive")
            .header("accept", if case.streamed { "text/event-stream" } else { "application/json" })
            .header("content-type", "application/json")
            .header("user-agent", "OpenAI/Python 2.3.0")
            .header("x-stainless-lang", "python")
            .header("x-stainless-package-version", "2.3.0")
            .header("x-stainless-os", "Linux")
            .header("x-stainless-arch", "x64")
            .header("x-stainless-runtime", "CPython")
            .header("x-stainless-runtime-version", "3.13.7")
            .header("x-stainless-async", "false")
            .header("x-stainless-retry-count", "0")
            .header("x-stainless-read-timeout", "600")
            .header("authorization", "Bearer sk-client")
            .body(Full::new(case.body.clone()))
            .expect("a request that is well formed")
    }
}

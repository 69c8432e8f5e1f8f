//! The stand-in seen from the wire: a raw client, and what every test starts from.
//!
//! Nothing here waits by time: a test waits for bytes, for the end of a connection, or for a counter.

mod faults;
mod history;
mod network;
mod outage;
mod reference;
mod shapes;

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Mock, Running, Scenario};

/// Quick, short answers; `rules` is YAML below `rules:`.
pub async fn mock(rules: &str) -> Running {
    let head = "seed: 7\nanswer: { tokens: 6, first_token: 0, per_token: 0 }\n";
    let yaml = if rules.is_empty() { head.to_string() } else { format!("{head}rules:\n{rules}\n") };
    start(&yaml).await
}

/// A stand-in for `yaml`.
pub async fn start(yaml: &str) -> Running {
    let scenario = Scenario::parse(yaml).unwrap_or_else(|e| panic!("{e}"));
    Mock::start(SocketAddr::from(([127, 0, 0, 1], 0)), scenario).await.expect("a free port")
}

/// A stand-in whose every call suffers `fault`.
pub async fn faulty(fault: &str) -> Running {
    mock(&format!("  - do: {{ {fault} }}")).await
}

/// A chat request.
pub fn chat(stream: bool) -> Value {
    json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": "say something nice"}]})
}

/// The bytes of a POST.
pub fn post(path: &str, body: &Value, last: bool) -> Vec<u8> {
    let body = body.to_string();
    let close = if last { "connection: close\r\n" } else { "" };
    format!("POST {path} HTTP/1.1\r\nhost: m\r\n{close}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Everything that comes back on a connection of its own until it ends, and whether it ended by a reset.
pub async fn raw(mock: &Running, request: &[u8]) -> (Vec<u8>, bool) {
    let mut socket = TcpStream::connect(mock.addr()).await.expect("connects");
    let mut bytes = Vec::new();
    if socket.write_all(request).await.is_err() {
        return (bytes, true);
    }
    let reset = socket.read_to_end(&mut bytes).await.is_err();
    (bytes, reset)
}

/// What came back, taken apart.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// Whether a chunked body had its last chunk, or a counted one its length.
    pub whole: bool,
    pub reset: bool,
}

impl Got {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The JSON of every `data:` line that holds JSON.
    pub fn events(&self) -> Vec<Value> {
        let text = self.text();
        text.lines().filter_map(|l| l.strip_prefix("data: ")).filter_map(|d| serde_json::from_str(d).ok()).collect()
    }

    /// The text of a chat stream.
    pub fn said(&self) -> String {
        self.events().iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str().map(String::from)).collect()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.split_once(": ").filter(|(n, _)| n.eq_ignore_ascii_case(name))).map(|(_, v)| v)
    }
}

/// Takes an answer apart.
pub fn parse(bytes: &[u8], reset: bool) -> Got {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {bytes:?}"));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head[9..12].parse().expect("a status");
    let rest = &bytes[end + 4..];
    let mut got = Got { status, head, body: rest.to_vec(), whole: true, reset };
    if got.header("transfer-encoding") == Some("chunked") {
        (got.body, got.whole) = unchunk(rest);
    } else if let Some(length) = got.header("content-length") {
        got.whole = length.parse() == Ok(rest.len());
    }
    got
}

fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let Ok(length) = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16) else { break };
        if length == 0 {
            return (body, true);
        }
        rest = &rest[end + 2..];
        if rest.len() < length + 2 {
            break;
        }
        body.extend_from_slice(&rest[..length]);
        rest = &rest[length + 2..];
    }
    (body, false)
}

/// One POST on a connection of its own.
pub async fn ask(mock: &Running, path: &str, body: &Value) -> Got {
    let (bytes, reset) = raw(mock, &post(path, body, true)).await;
    parse(&bytes, reset)
}

/// One chat call.
pub async fn say(mock: &Running, stream: bool) -> Got {
    ask(mock, "/v1/chat/completions", &chat(stream)).await
}

/// One GET.
pub async fn get(mock: &Running, path: &str) -> Got {
    let request = format!("GET {path} HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n");
    let (bytes, reset) = raw(mock, request.as_bytes()).await;
    parse(&bytes, reset)
}

/// A connection on which `request` was sent, and the bytes read from it until they hold `wanted`.
pub async fn reading(mock: &Running, request: &[u8], wanted: &str) -> (TcpStream, Vec<u8>) {
    let mut socket = TcpStream::connect(mock.addr()).await.expect("connects");
    socket.write_all(request).await.expect("sends");
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains(wanted) {
        let read = socket.read_buf(&mut bytes).await.expect("reads");
        assert!(read > 0, "ended before {wanted:?}: {}", String::from_utf8_lossy(&bytes));
    }
    (socket, bytes)
}

//! A client that writes its own bytes, and waiting for conditions.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger::app::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::get;

/// What no test waits longer for.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again and again until `holds`, and fails when it does not within the tests' patience.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let asked = async {
        while !holds().await {
            tick.tick().await;
        }
    };
    assert!(timeout(PATIENCE, asked).await.is_ok(), "never came true: {what}");
}

/// The sum of all series of a metric whose labels contain every one of `labels`.
pub async fn total(http: &reqwest::Client, gateway: &Running, metric: &str, labels: &[&str]) -> f64 {
    let text = get(http, &format!("http://{}/metrics", gateway.admin())).await.text();
    let chosen = text.lines().filter(|line| {
        line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    chosen.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// A request as bytes; the body's length is told unless the headers tell of chunks.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nhost: gateway.test\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// A connection of our own.
pub struct Raw {
    pub stream: TcpStream,
    pub read: Vec<u8>,
}

impl Raw {
    /// Connects and sends.
    pub async fn send(at: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut raw = Self { stream: TcpStream::connect(at).await.unwrap(), read: Vec::new() };
        raw.write(bytes).await;
        raw
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads until `wanted` was read.
    pub async fn until(&mut self, wanted: &str) -> String {
        let mut buffer = vec![0; 64 * 1024];
        while memchr::memmem::find(&self.read, wanted.as_bytes()).is_none() {
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await.unwrap().unwrap();
            assert!(read > 0, "closed before `{wanted}`: {}", String::from_utf8_lossy(&self.read));
            self.read.extend_from_slice(&buffer[..read]);
        }
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Reads to the end of the connection.
    pub async fn rest(mut self) -> String {
        timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await.unwrap().unwrap();
        String::from_utf8_lossy(&self.read).into_owned()
    }

    /// Sends on a connection of its own and reads the whole answer.
    pub async fn ask(at: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let headers = [&[("connection", "close")], headers].concat();
        Self::send(at, request(method, target, &headers, body)).await.rest().await
    }
}

/// The value of a header in a raw answer's head, or of a request that a stand-in saw.
pub fn head_value<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

//! Reading requests off a raw connection: heads, bodies by length and by chunks, and seeing the client leave.
//!
//! Owns the read side and its buffer. Writes nothing but `100 Continue`. Invariant: bytes read past one request are
//! kept for the next.

use std::io;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

const HEAD_LIMIT: usize = 256 * 1024;
const BODY_LIMIT: usize = 256 * 1024 * 1024;
const AHEAD_LIMIT: usize = 4 * 1024 * 1024;

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// Header names and values, in order and as they were spelt.
    pub headers: Vec<(String, String)>,
    /// Whether it is HTTP/1.0.
    pub old: bool,
    /// The body, without its transfer framing.
    pub body: Vec<u8>,
}

impl Request {
    /// The path without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as JSON, if it is.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Whether the client asks for the connection to end with this answer.
    pub fn closes(&self) -> bool {
        self.old || self.header("connection").is_some_and(|v| v.to_ascii_lowercase().contains("close"))
    }
}

/// Why nothing could be read.
#[derive(Debug)]
pub enum Unread {
    /// The client left, or the connection broke.
    Gone,
    /// What came is not HTTP, or more than is taken.
    Bad,
}

impl From<io::Error> for Unread {
    fn from(_: io::Error) -> Unread {
        Unread::Gone
    }
}

/// A connection and what was read from it too early.
pub struct Conn {
    /// The socket.
    pub stream: TcpStream,
    buffer: BytesMut,
}

impl Conn {
    /// Takes over an accepted connection.
    pub fn new(stream: TcpStream) -> Conn {
        Conn { stream, buffer: BytesMut::new() }
    }

    /// Waits for the next request's head. The body stays unread.
    pub async fn head(&mut self) -> Result<Request, Unread> {
        loop {
            if let Some(request) = self.parse()? {
                return Ok(request);
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(Unread::Bad);
            }
            self.more().await?;
        }
    }

    fn parse(&mut self) -> Result<Option<Request>, Unread> {
        let mut headers = [httparse::EMPTY_HEADER; 256];
        let mut parsed = httparse::Request::new(&mut headers);
        let length = match parsed.parse(&self.buffer) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Unread::Bad),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let request = Request {
            method: parsed.method.unwrap_or_default().to_string(),
            target: parsed.path.unwrap_or_default().to_string(),
            headers: parsed.headers.iter().map(|h| (h.name.to_string(), text(h.value))).collect(),
            old: parsed.version == Some(0),
            body: Vec::new(),
        };
        self.buffer.advance(length);
        Ok(Some(request))
    }

    /// Reads the body that belongs to `request`, at `rate` bytes a second if one is given; at 0 it never does.
    pub async fn body(&mut self, request: &Request, rate: Option<u64>) -> Result<Vec<u8>, Unread> {
        if rate == Some(0) {
            self.until_gone().await;
            return Err(Unread::Gone);
        }
        if request.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if request.header("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked")) {
            return self.chunks(rate).await;
        }
        match request.header("content-length").map(|v| v.trim().parse::<usize>()) {
            None => Ok(Vec::new()),
            Some(Ok(length)) if length <= BODY_LIMIT => self.take(length, rate).await,
            Some(_) => Err(Unread::Bad),
        }
    }

    async fn chunks(&mut self, rate: Option<u64>) -> Result<Vec<u8>, Unread> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = usize::from_str_radix(digits, 16).map_err(|_| Unread::Bad)?;
            if length == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            if body.len().saturating_add(length) > BODY_LIMIT {
                return Err(Unread::Bad);
            }
            body.extend(self.take(length, rate).await?);
            if !self.line().await?.is_empty() {
                return Err(Unread::Bad);
            }
        }
    }

    async fn line(&mut self) -> Result<String, Unread> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1);
                return Ok(String::from_utf8_lossy(&line).trim_end().to_string());
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(Unread::Bad);
            }
            self.more().await?;
        }
    }

    async fn take(&mut self, length: usize, rate: Option<u64>) -> Result<Vec<u8>, Unread> {
        let Some(rate) = rate else {
            while self.buffer.len() < length {
                self.more().await?;
            }
            return Ok(self.buffer.split_to(length).to_vec());
        };
        let step = (rate / 20).max(1) as usize;
        let mut body = Vec::with_capacity(length.min(1 << 20));
        while body.len() < length {
            if self.buffer.is_empty() {
                let mut bytes = vec![0; step];
                let read = self.stream.read(&mut bytes).await?;
                if read == 0 {
                    return Err(Unread::Gone);
                }
                self.buffer.extend_from_slice(&bytes[..read]);
            }
            let part = self.buffer.len().min(step).min(length - body.len());
            body.extend(self.buffer.split_to(part));
            tokio::time::sleep(Duration::from_secs_f64(part as f64 / rate as f64)).await;
        }
        Ok(body)
    }

    async fn more(&mut self) -> Result<(), Unread> {
        self.buffer.reserve(16 * 1024);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(Unread::Gone),
            _ => Ok(()),
        }
    }

    /// Reads nothing, and returns when the client has closed its half or the whole connection.
    pub async fn until_gone(&self) {
        loop {
            match self.stream.ready(Interest::READABLE | Interest::ERROR).await {
                Ok(ready) if !ready.is_read_closed() && !ready.is_error() => {}
                _ => return,
            }
            // Unread bytes keep the socket ready, so that waiting for it would spin.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Both halves at once: the one to write to, and the one [`watch`] reads ahead on.
    pub fn halves(&mut self) -> (ReadHalf<'_>, tokio::net::tcp::WriteHalf<'_>, &mut BytesMut) {
        let (read, write) = self.stream.split();
        (read, write, &mut self.buffer)
    }
}

/// Reads ahead into `buffer`, and returns when the client has left.
pub async fn watch(mut read: ReadHalf<'_>, buffer: &mut BytesMut) {
    loop {
        if buffer.len() > AHEAD_LIMIT {
            std::future::pending::<()>().await;
        }
        buffer.reserve(4096);
        match read.read_buf(buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

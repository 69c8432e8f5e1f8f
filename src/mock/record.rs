//! A history for a judge: what came in, what would be answered, what became of it; one JSON object a line.
//!
//! Owns the file. A line is written before what it tells of can be seen from outside, so that a server that is killed
//! leaves everything behind it. Invariant: `asked` comes first and `ended` at most once, under the same `call`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::http::Request;
use super::listing::sha256;
use super::play::Played;
use super::script::{Piece, Script};

/// Longest body that is written down, in bytes.
const BODY: usize = 1024 * 1024;

/// The file.
pub struct Record {
    file: Mutex<File>,
    calls: AtomicU64,
}

impl Record {
    /// Adds to `path`, which need not exist.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path) -> io::Result<Record> {
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Record { file: Mutex::new(file), calls: AtomicU64::new(0) })
    }

    /// A request is here. The number is the record's own.
    pub fn asked(&self, request: &Request) -> u64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.line(json!({
            "what": "asked",
            "call": call,
            "method": request.method,
            "path": request.target,
            "request_id": request.header("x-request-id"),
            "body_sha256": sha256(&request.body),
        }));
        call
    }

    /// This is what it gets if nobody leaves.
    pub fn answers(&self, call: u64, script: &Script) {
        let (status, body) = told(script);
        let ends = !script.pieces.iter().any(|piece| !matches!(piece, Piece::Send(..) | Piece::Wait(_)));
        let body = String::from_utf8_lossy(&body);
        self.line(json!({ "what": "answers", "call": call, "status": status, "body": body, "ends": ends }));
    }

    /// It is over.
    pub fn ended(&self, call: u64, played: Played) {
        let how = match played {
            Played::Whole => "finished",
            Played::Left => "left",
            Played::Broken => "broken",
        };
        self.line(json!({ "what": "ended", "call": call, "how": how }));
    }

    fn line(&self, mut line: Value) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        line["at"] = json!(now.as_micros() as u64);
        let text = format!("{line}\n");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.write_all(text.as_bytes()) {
            tracing::warn!(%error, "the history has a gap");
        }
    }
}

/// The status and the body of a script, without its transfer framing and not longer than is written down.
fn told(script: &Script) -> (u16, Vec<u8>) {
    let mut sends = script.pieces.iter().filter_map(|piece| match piece {
        Piece::Send(bytes, times) => Some((bytes, *times)),
        _ => None,
    });
    let head = sends.next().map(|(head, _)| String::from_utf8_lossy(head).into_owned()).unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked\r\n");
    let mut body = Vec::new();
    for (bytes, times) in sends {
        let bytes = if chunked { chunk(bytes) } else { bytes };
        for _ in 0..times {
            if body.len() + bytes.len() > BODY {
                return (status, body);
            }
            body.extend_from_slice(bytes);
        }
    }
    (status, body)
}

/// What is in a chunk; nothing in the last one.
fn chunk(bytes: &[u8]) -> &[u8] {
    let Some(head) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return bytes };
    if bytes[..head] == *b"0" { &[] } else { bytes[head + 2..].strip_suffix(b"\r\n").unwrap_or(&bytes[head + 2..]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_told_without_its_framing() {
        let send = |text: &str| Piece::Send(text.as_bytes().to_vec(), 1);
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunked = vec![send(head), send("4\r\na\r\nb\r\n"), send("1\r\nc\r\n"), send("0\r\n\r\n")];
        let script = |pieces| Script { pieces, keep: true, rate: None };
        assert_eq!(told(&script(chunked)), (200, b"a\r\nbc".to_vec()));
        let plain = vec![send("HTTP/1.1 503 x\r\ncontent-length: 2\r\n\r\n"), Piece::Send(b"a".to_vec(), 2)];
        assert_eq!(told(&script(plain)), (503, b"aa".to_vec()));
    }
}

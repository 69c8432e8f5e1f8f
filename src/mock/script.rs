//! From a drafted answer to the timed pieces that are played on the socket.
//!
//! Owns the head, the transfer framing (length, chunks, until close) and every fault on that level. Owns no socket.
//! Invariant: without such a fault, what is declared is exactly what is sent.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::errors::reason;
use super::fault::Fault;
use super::units::Place;
use super::words::{Framing, How, Length};

/// One step of an answer.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Send these bytes, so many times.
    Send(Vec<u8>, u64),
    /// Wait.
    Wait(Duration),
    /// Send these bytes at this interval until the client leaves.
    Beat(Duration, Vec<u8>),
    /// Nothing until the client leaves.
    Silence,
    /// RST.
    Reset,
    /// FIN.
    Close,
    /// Shut our half, read on until the client leaves.
    Half,
}

/// A part of a body.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The wait before it.
    pub wait: Duration,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many times it is sent.
    pub times: u64,
}

/// What comes after the last frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Tail {
    /// The proper end.
    End,
    /// See [`Piece::Beat`].
    Beat(Duration, Vec<u8>),
    /// See [`Piece::Silence`].
    Silence,
    /// See [`Piece::Reset`].
    Reset,
    /// See [`Piece::Close`].
    Close,
    /// See [`Piece::Half`].
    Half,
}

impl From<How> for Tail {
    fn from(how: How) -> Tail {
        match how {
            How::Eof => Tail::End,
            How::Close => Tail::Close,
            How::Reset => Tail::Reset,
            How::Half => Tail::Half,
            How::Stall => Tail::Silence,
        }
    }
}

/// An answer before its transfer framing.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The status code.
    pub status: u16,
    /// The headers, without those of the transfer framing.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub frames: Vec<Frame>,
    /// What follows it.
    pub tail: Tail,
    /// Whether the body is a stream, to be sent in chunks.
    pub stream: bool,
    /// The wait before the status line.
    pub before: Duration,
}

/// A played answer.
#[derive(Clone, Debug)]
pub struct Script {
    /// The steps.
    pub pieces: Vec<Piece>,
    /// Whether the connection may serve another call.
    pub keep: bool,
    /// Bytes per second, if bounded.
    pub rate: Option<u64>,
}

impl Frame {
    /// Bytes sent once after `wait`.
    pub fn new(wait: Duration, bytes: Vec<u8>) -> Frame {
        Frame { wait, bytes, times: 1 }
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64 * self.times
    }
}

impl Draft {
    /// A whole answer.
    pub fn whole(status: u16, content_type: &str, body: Vec<u8>) -> Draft {
        let frames = vec![Frame::new(Duration::ZERO, body)];
        let headers = vec![("content-type".to_string(), content_type.to_string())];
        Draft { status, headers, frames, tail: Tail::End, stream: false, before: Duration::ZERO }
    }

    /// Sets a header; an empty value takes it away.
    pub fn header(&mut self, name: &str, value: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_string(), value.to_string()));
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Chunked,
    Length(u64),
    UntilClose,
}

/// Gives `draft` its transfer framing, with the faults of that level. `old` is a client that knows no chunks.
pub fn script(mut draft: Draft, fault: &Fault, old: bool) -> Script {
    if fault.broken_gzip {
        break_gzip(&mut draft);
    }
    if let Some(size) = fault.slice.or((fault.framing == Some(Framing::OneByte)).then_some(1)) {
        slice(&mut draft.frames, size.max(1));
    }
    let total: u64 = draft.frames.iter().map(Frame::size).sum();
    cut(&mut draft, fault, total);
    let mode = match fault.wrong_content_length {
        Some(Length::Short) => Mode::Length(total.saturating_sub(10)),
        Some(Length::Long) => Mode::Length(total + 10),
        None if old || fault.until_close => Mode::UntilClose,
        None if draft.stream || fault.bad_chunked || fault.trailers => Mode::Chunked,
        None if fault.cut.as_ref().is_some_and(|cut| cut.how == How::Eof) => Mode::Chunked,
        None => Mode::Length(total),
    };
    let mut pieces = vec![Piece::Wait(draft.before), Piece::Send(head(&draft, fault, mode), 1)];
    body(&mut pieces, &draft, fault, mode);
    let lying = fault.wrong_content_length.is_some();
    let keep = mode != Mode::UntilClose && !lying && !fault.close_idle && draft.tail == Tail::End;
    pieces.extend(match draft.tail {
        // The end of the whole script closes a connection that is not kept.
        Tail::End => None,
        Tail::Close => Some(Piece::Close),
        Tail::Beat(every, bytes) => Some(Piece::Beat(every, transfer(&bytes, mode))),
        Tail::Silence => Some(Piece::Silence),
        Tail::Reset => Some(Piece::Reset),
        Tail::Half => Some(Piece::Half),
    });
    Script { pieces, keep, rate: fault.bandwidth.map(|size| size.0.max(1)) }
}

/// A script that plays nothing but `pieces` and then is done with the connection.
pub fn only(pieces: Vec<Piece>) -> Script {
    Script { pieces, keep: false, rate: None }
}

fn head(draft: &Draft, fault: &Fault, mode: Mode) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", draft.status, reason(draft.status));
    for (name, value) in &draft.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(size) = fault.huge_headers {
        head.push_str(&format!("x-mock-filler: {}\r\n", "x".repeat(size.0 as usize)));
    }
    head.push_str(&match mode {
        Mode::Chunked if fault.trailers => "trailer: x-mock-trailer\r\ntransfer-encoding: chunked\r\n".to_string(),
        Mode::Chunked => "transfer-encoding: chunked\r\n".to_string(),
        Mode::Length(length) => format!("content-length: {length}\r\n"),
        Mode::UntilClose => "connection: close\r\n".to_string(),
    });
    head.push_str("\r\n");
    head.into_bytes()
}

fn body(pieces: &mut Vec<Piece>, draft: &Draft, fault: &Fault, mode: Mode) {
    let half = draft.frames.len() / 2;
    for (at, frame) in draft.frames.iter().enumerate() {
        if fault.bad_chunked && at == half {
            pieces.push(Piece::Send(b"zz\r\nnot a chunk\r\n".to_vec(), 1));
            pieces.push(Piece::Close);
            return;
        }
        pieces.push(Piece::Wait(frame.wait));
        if !frame.bytes.is_empty() {
            pieces.push(Piece::Send(transfer(&frame.bytes, mode), frame.times));
        }
    }
    if draft.tail == Tail::End && mode == Mode::Chunked {
        let trailers = if fault.trailers { "x-mock-trailer: yes\r\n" } else { "" };
        pieces.push(Piece::Send(format!("0\r\n{trailers}\r\n").into_bytes(), 1));
    }
}

fn transfer(bytes: &[u8], mode: Mode) -> Vec<u8> {
    match mode {
        Mode::Chunked => [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
        _ => bytes.to_vec(),
    }
}

fn slice(frames: &mut Vec<Frame>, size: usize) {
    let parts = |frame: Frame| {
        if frame.bytes.len() <= size || frame.times != 1 {
            return vec![frame];
        }
        let mut wait = frame.wait;
        frame.bytes.chunks(size).map(|part| Frame::new(std::mem::take(&mut wait), part.to_vec())).collect()
    };
    *frames = std::mem::take(frames).into_iter().flat_map(parts).collect();
}

/// Cuts at a byte; for a whole answer every other place means a byte too.
fn cut(draft: &mut Draft, fault: &Fault, total: u64) {
    let Some(cut) = &fault.cut else { return };
    let mut left = match cut.at {
        Place::Byte(n) => n as u64,
        _ if draft.stream => return,
        Place::First => 0,
        Place::Token(_) | Place::Half => total / 2,
    };
    for frame in &mut draft.frames {
        if frame.size() > left && frame.times > 1 {
            frame.times = left / frame.bytes.len() as u64;
        } else if frame.size() > left {
            frame.bytes.truncate(left as usize);
        }
        left -= frame.size();
    }
    draft.frames.retain(|frame| frame.size() > 0);
    draft.tail = cut.how.into();
}

fn break_gzip(draft: &mut Draft) {
    let wait = draft.frames.iter().map(|f| f.wait).sum();
    let plain: Vec<u8> = draft.frames.iter().flat_map(|f| f.bytes.repeat(f.times as usize)).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory cannot fail; were it to, the body would be broken all the more.
    let packed = encoder.write_all(&plain).and_then(|()| encoder.finish()).unwrap_or_default();
    let mut packed = packed[..packed.len() / 2].to_vec();
    packed.extend([0xff; 8]);
    draft.frames = vec![Frame::new(wait, packed)];
    draft.header("content-encoding", "gzip");
}

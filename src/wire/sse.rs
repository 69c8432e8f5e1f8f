//! Server-sent events: cuts a byte stream into events without altering a byte.
//!
//! Owns framing (LF, CRLF, CR, a byte order mark, comments, several data lines). Does not know what the data
//! means. Invariant: the raws of all frames, in order, are the input, whatever the chunking; and each input byte
//! is looked at a constant number of times, so one-byte chunks cost linear time.

use std::fmt;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// One event, with the exact bytes it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The bytes of the event, its terminating blank line included.
    pub raw: Bytes,
    /// The last `event:` field, if it is not empty.
    pub event: Option<Bytes>,
    /// The `data:` lines joined with LF; `None` when there is no data line (a comment, a blank line).
    pub data: Option<Bytes>,
    /// An `error:` field, as old llama.cpp servers send in place of data.
    pub error_field: Option<Bytes>,
    /// Whether there is a comment line among the lines.
    pub comment: bool,
    /// The input ended before the blank line did: the last line may be cut short.
    pub cut: bool,
}

/// An event grew over the decoder's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The limit, in bytes.
    pub limit: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an event is longer than {} bytes", self.limit)
    }
}

impl std::error::Error for TooLong {}

/// Cuts chunks into events.
#[derive(Debug)]
pub struct Decoder {
    max: usize,
    /// Bytes of the event under way, from earlier chunks.
    held: BytesMut,
    edge: Edge,
    /// No event was cut yet: a byte order mark may still stand before the first.
    first: bool,
}

impl Decoder {
    /// A decoder that refuses events of more than `max_event_bytes`.
    pub fn new(max_event_bytes: usize) -> Self {
        Self { max: max_event_bytes, held: BytesMut::new(), edge: Edge::new(), first: true }
    }

    /// Takes the next chunk and appends every event that it completes to `out`.
    ///
    /// # Errors
    /// [`TooLong`] when an event is over the limit; the decoder is of no further use then.
    pub fn push(&mut self, chunk: Bytes, out: &mut Vec<Frame>) -> Result<(), TooLong> {
        let mut start = 0;
        while let Some(end) = self.edge.find(&chunk, start) {
            self.fits(end - start)?;
            let raw = if self.held.is_empty() {
                chunk.slice(start..end)
            } else {
                self.held.extend_from_slice(&chunk[start..end]);
                self.held.split().freeze()
            };
            out.push(Frame::read(raw, std::mem::take(&mut self.first)));
            start = end;
        }
        self.fits(chunk.len() - start)?;
        self.held.extend_from_slice(&chunk[start..]);
        Ok(())
    }

    /// At the end of the input: the event that no blank line ended, if it carries anything.
    pub fn finish(&mut self) -> Option<Frame> {
        self.edge = Edge::new();
        let frame = Frame { cut: true, ..Frame::read(self.held.split().freeze(), std::mem::take(&mut self.first)) };
        (frame.data.is_some() || frame.error_field.is_some()).then_some(frame)
    }

    /// Bytes held of an event that is not complete yet.
    pub fn pending(&self) -> usize {
        self.held.len()
    }

    fn fits(&self, more: usize) -> Result<(), TooLong> {
        if self.held.len() + more > self.max { Err(TooLong { limit: self.max }) } else { Ok(()) }
    }
}

/// What the search for the blank line must remember between chunks.
#[derive(Debug)]
struct Edge {
    /// The line under way has no byte yet.
    line_empty: bool,
    /// The last byte was a CR that ended a line: an LF now belongs to it.
    after_cr: bool,
    /// A blank line ended with CR, and the bytes before suggest that its LF is still to come.
    ended_by_cr: bool,
    /// The line before this one ended with a CR alone: the server frames with CR.
    bare_cr: bool,
    /// Bytes of the byte order mark seen; 3 when there is none to come.
    bom: usize,
}

impl Edge {
    fn new() -> Self {
        Self { line_empty: true, after_cr: false, ended_by_cr: false, bare_cr: false, bom: 0 }
    }

    /// The position just after the event that ends first at or after `at`; `None` when the bytes run out.
    fn find(&mut self, bytes: &[u8], mut at: usize) -> Option<usize> {
        while self.bom < BOM.len() && at < bytes.len() {
            if bytes[at] == BOM[self.bom] {
                self.bom += 1;
                at += 1;
            } else {
                self.line_empty = self.bom == 0;
                self.bom = BOM.len();
            }
        }
        while at < bytes.len() {
            if self.ended_by_cr {
                return Some(self.cut(at + usize::from(bytes[at] == b'\n'), false));
            }
            if std::mem::take(&mut self.after_cr) {
                if bytes[at] == b'\n' {
                    self.bare_cr = false;
                    at += 1;
                    continue;
                }
                self.bare_cr = true;
            }
            let Some(found) = memchr2(b'\n', b'\r', &bytes[at..]) else {
                self.line_empty = false;
                return None;
            };
            let blank = self.line_empty && found == 0;
            at += found + 1;
            self.line_empty = true;
            match (bytes[at - 1], blank) {
                (b'\n', true) => return Some(self.cut(at, false)),
                // Where CR alone ends lines there is no LF to wait for. Should one come, the next event has it.
                (b'\r', true) if self.bare_cr => return Some(self.cut(at, true)),
                (b'\r', true) => self.ended_by_cr = true,
                (b'\r', false) => self.after_cr = true,
                _ => self.bare_cr = false,
            }
        }
        None
    }

    fn cut(&mut self, at: usize, after_cr: bool) -> usize {
        *self = Self { after_cr, bom: BOM.len(), ..Self::new() };
        at
    }
}

impl Frame {
    /// The bytes to forward: as they came, with a blank line added where the input ended without one.
    pub fn closed(&self) -> Bytes {
        if self.cut { [&self.raw[..], b"\n\n"].concat().into() } else { self.raw.clone() }
    }

    /// Reads the fields of one event. `first` allows a byte order mark.
    fn read(raw: Bytes, first: bool) -> Self {
        let mut frame = Frame::default();
        let mut at = if first && raw.starts_with(BOM) { BOM.len() } else { 0 };
        let mut joined: Option<BytesMut> = None;
        while at < raw.len() {
            let end = memchr2(b'\n', b'\r', &raw[at..]).map_or(raw.len(), |found| at + found);
            frame.line(&raw, at, end, &mut joined);
            at = end + 1;
        }
        if let Some(joined) = joined {
            frame.data = Some(joined.freeze());
        }
        frame.raw = raw;
        frame
    }

    fn line(&mut self, raw: &Bytes, at: usize, end: usize, joined: &mut Option<BytesMut>) {
        let line = &raw[at..end];
        let colon = memchr::memchr(b':', line);
        let name = &line[..colon.unwrap_or(line.len())];
        let from = colon.map_or(end, |colon| {
            let from = at + colon + 1;
            from + usize::from(raw[from..end].first() == Some(&b' '))
        });
        let value = raw.slice(from..end);
        match name {
            b"data" => match (&self.data, joined) {
                (None, _) => self.data = Some(value),
                (Some(_), Some(joined)) => {
                    joined.extend_from_slice(b"\n");
                    joined.extend_from_slice(&value);
                }
                (Some(before), joined) => {
                    let mut both = BytesMut::with_capacity(before.len() + 1 + value.len());
                    both.extend_from_slice(before);
                    both.extend_from_slice(b"\n");
                    both.extend_from_slice(&value);
                    *joined = Some(both);
                }
            },
            b"event" => self.event = (!value.is_empty()).then_some(value),
            b"error" => self.error_field = Some(value),
            b"" if colon.is_some() => self.comment = true,
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;

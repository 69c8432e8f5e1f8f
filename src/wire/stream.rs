//! What the events of a model stream mean, whatever the API they belong to.
//!
//! Owns the words; the three readers (`chunk`, `responses`, `messages`) apply them. Invariant: a reader never
//! calls a stream complete unless the server said so.

use super::WireError;
use super::error;
use super::sse::Frame;

/// What one event means to those who hold, forward and time a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Model output: text, reasoning, a tool call, a refusal, audio, or a shape we do not know.
    Progress,
    /// Well-formed, to be forwarded, but no output: roles, comments, pings, usage, life-cycle events.
    Quiet,
    /// Not to be forwarded: empty data, or anything after the end.
    Drop,
    /// The terminal marker.
    Done,
    /// The server reports an error, or sent what cannot be read.
    Error(WireError),
}

/// How a stream stands if its input ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Finished and marked as such.
    Complete,
    /// Every choice finished, but the terminal marker is missing; it may be added.
    Unmarked,
    /// The terminal marker came, but not every choice said why it finished.
    DoneOnly,
    /// Finished of its own accord with no output at all. An end by token cap or content filter is not one.
    Empty,
    /// The end is missing.
    Truncated,
}

/// Follows one stream, event by event.
pub trait StreamReader {
    /// Takes the next event.
    fn read(&mut self, frame: &Frame) -> Meaning;

    /// Tokens in and out as last reported.
    fn usage(&self) -> Option<(u64, u64)>;

    /// How the stream stands if nothing follows.
    fn ended(&self) -> End;

    /// Whether there was reasoning but no answer: a stream that is complete, yet says nothing to its reader.
    fn reasoning_only(&self) -> bool;
}

/// What was seen of a stream up to now; every reader keeps one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Output other than reasoning.
    pub answer: bool,
    /// Reasoning.
    pub reasoning: bool,
    /// The terminal marker.
    pub done: bool,
    /// An error; nothing after it counts.
    pub failed: bool,
    /// Tokens in and out.
    pub usage: Option<(u64, u64)>,
}

/// An event whose frame has been looked at.
pub(super) enum Outer<'f> {
    /// Its data is to be read.
    Data(&'f [u8]),
    /// Its meaning is known without.
    Settled(Meaning),
}

impl Seen {
    pub fn visible(&self) -> bool {
        self.answer || self.reasoning
    }

    pub fn fail(&mut self, error: WireError) -> Meaning {
        self.failed = true;
        Meaning::Error(error)
    }

    /// Data that is not JSON: an error, unless the input merely ended within it. Then the missing end tells.
    pub fn undecodable(&mut self, frame: &Frame, data: &[u8]) -> Meaning {
        if frame.cut { Meaning::Drop } else { self.fail(WireError::undecodable(data.len())) }
    }

    /// Keeps the newest counts; zeros never replace a count.
    pub fn count(&mut self, usage: (u64, u64)) {
        if usage != (0, 0) || self.usage.is_none() {
            self.usage = Some(usage);
        }
    }

    /// What can be said of an event before its JSON is read.
    pub fn outer<'f>(&mut self, frame: &'f Frame) -> Outer<'f> {
        if self.done || self.failed {
            return Outer::Settled(Meaning::Drop);
        }
        if let Some(field) = &frame.error_field {
            return Outer::Settled(self.fail(error::parse(None, field)));
        }
        let Some(data) = &frame.data else { return Outer::Settled(Meaning::Quiet) };
        let data = data.trim_ascii();
        if data.is_empty() {
            return Outer::Settled(Meaning::Drop);
        }
        if frame.event.as_deref() == Some(b"error") {
            return Outer::Settled(self.fail(error::parse(None, data)));
        }
        // A parser that skips a string does not look whether it is text; the clients' parsers do. And no API has
        // events that are bare numbers or words: whoever reads one loses what should have been there.
        if !matches!(data[0], b'{' | b'[') || std::str::from_utf8(data).is_err() {
            return Outer::Settled(self.undecodable(frame, data));
        }
        Outer::Data(data)
    }
}

//! Failures of one send, and of a whole call.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::{AttemptKind, Class, Counts, Lack, Retry};

/// An upstream's own error answer, kept to be passed on where it is the caller's to read.
#[derive(Clone, Debug)]
pub struct Original {
    /// HTTP status as received.
    pub status: u16,
    /// End-to-end headers as received.
    pub headers: HeaderMap,
    /// Body as received.
    pub body: Bytes,
}

/// Why one send failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The one class of it.
    pub class: Class,
    /// What a further send may achieve; at most what the class allows.
    pub retry: Retry,
    /// HTTP status, where a response head was seen.
    pub status: Option<u16>,
    /// How long the endpoint asked us to wait.
    pub retry_after: Option<Duration>,
    /// The upstream's message or our own finding; short, never a prompt, shown to the caller only.
    pub message: String,
    /// The whole error answer, where it may be passed on.
    pub original: Option<Box<Original>>,
    /// Hash of status and body: two equal ones in a row are a deterministic failure.
    pub fingerprint: Option<u64>,
    /// The request never reached the model (refused, or a stale pooled connection): repeating it costs nothing.
    pub unsent: bool,
    /// What the endpoint lacks for this call: whoever may have it can still be asked, whatever `retry` says.
    pub lacks: Option<Lack>,
}

impl Failure {
    /// A failure with nothing known but its class and a finding in our words.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            retry: class.retry(),
            status: None,
            retry_after: None,
            message: message.into(),
            original: None,
            fingerprint: None,
            unsent: false,
            lacks: None,
        }
    }

    /// What it counts for at the endpoint's breaker; at most what its class does.
    pub fn counts(&self) -> Counts {
        // A pooled connection that was being closed says nothing of the server behind it.
        let stale = self.class == Class::ResetBeforeResponse && self.unsent;
        if stale { Counts::Nothing } else { self.class.counts() }
    }

    /// The same with the status it came with.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }
}

/// One failed send, as told in the error body and in `x-outrigger-trail`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailEntry {
    /// Configured name of the endpoint; empty when none was reached.
    pub endpoint: String,
    /// Why it was made.
    pub kind: AttemptKind,
    /// How it failed.
    pub class: Class,
    /// How long it took.
    pub ms: u64,
}

/// A call that ended without an answer.
#[derive(Clone, Debug)]
pub struct CallError {
    /// The first cause.
    pub class: Class,
    /// What happened, for the caller.
    pub message: String,
    /// The request member or header at fault, where one is.
    pub param: Option<String>,
    /// A status other than the table's for the class (401 and 404 are both `bad_request`).
    pub status: Option<u16>,
    /// When it may be worth asking again.
    pub retry_after: Option<Duration>,
    /// Every failed send, in order.
    pub trail: Vec<TrailEntry>,
    /// Sends made upstream.
    pub sends: u32,
    /// The upstream's own answer, where the caller should read it unchanged.
    pub original: Option<Box<Original>>,
}

impl CallError {
    /// An error found before anything was sent.
    pub fn local(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            param: None,
            status: None,
            retry_after: None,
            trail: Vec::new(),
            sends: 0,
            original: None,
        }
    }

    /// The same, naming the request member or header at fault.
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The same with its own status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The status the client gets.
    pub fn http_status(&self) -> u16 {
        match (&self.original, self.status) {
            (Some(original), _) => original.status,
            (None, Some(status)) => status,
            (None, None) => self.class.status(),
        }
    }
}

//! The fault vocabulary: everything a rule's `do` may say.
//!
//! Owns the keys and their meanings, and at which moment of a call each can be decided. Owns no behaviour: the
//! modules that build and play answers read these fields. Invariant: [`VOCABULARY`] is the parser's own list.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::units::{Place, Size, Span};
use super::words::{
    Dialect, Framing, Hang, How, Inband, Json, Length, Malformed, Network, Reset, Tools, Trouble, Usage,
};

/// Extra waiting, by phase.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delay {
    /// Between accepting the connection and reading the request.
    pub accept: Span,
    /// Before the status line.
    pub headers: Span,
    /// Before the first event of a stream (before the body of a plain answer); replaces the scenario's.
    pub first_token: Option<Span>,
    /// Between the role-only chunk and the first token.
    pub after_role: Span,
    /// Between tokens; replaces the scenario's.
    pub per_token: Option<Span>,
    /// Before the end mark of a stream (before the last byte of a plain answer).
    pub before_end: Span,
    /// A seeded random share of this long, added before the first token.
    pub jitter: Span,
}

/// Where and how an answer is cut off.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// The last thing that still goes out.
    #[serde(default = "half")]
    pub at: Place,
    /// What happens then.
    pub how: How,
}

/// One event whose data is not what it should be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MalformedChunk {
    /// Which token's event, the first being 1.
    #[serde(default = "one")]
    pub at: usize,
    /// What is wrong with it.
    #[serde(default = "bad_json", rename = "as")]
    pub form: Malformed,
}

/// An error inside a stream whose status was 200.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InbandError {
    /// Where in the stream.
    #[serde(default = "first")]
    pub at: Place,
    /// In which shape.
    #[serde(default = "native")]
    pub shape: Inband,
    /// Which error.
    #[serde(default = "server_error")]
    pub error: Trouble,
}

fn half() -> Place {
    Place::Half
}
fn first() -> Place {
    Place::First
}
fn one() -> usize {
    1
}
fn bad_json() -> Malformed {
    Malformed::BadJson
}
fn native() -> Inband {
    Inband::Native
}
fn server_error() -> Trouble {
    Trouble::ServerError
}

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty,)*) => {
        /// What a rule does to a call. Every key may be combined with every other that does not contradict it.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Fault { $($(#[doc = $doc])* pub $name: $type,)* }

        /// Every key a `do` knows, with its meaning, in the order of the reference page.
        pub const VOCABULARY: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),*).trim_ascii_start()),)*];
    };
}

faults! {
    /// The status code; from 400 on, without `body` or `error`, the dialect's own error for it goes out.
    status: Option<u16>,
    /// Headers to add to the answer; an empty value takes a header away.
    headers: BTreeMap<String, String>,
    /// The answer's body: text as it is, anything else as JSON.
    body: Option<Value>,
    /// An error in the dialect's own shape, with its usual status and headers.
    error: Option<Trouble>,
    /// Whose shapes errors wear; by itself the surface's, or the scenario's.
    dialect: Option<Dialect>,
    /// Extra waiting by phase: `accept`, `headers`, `first_token`, `after_role`, `per_token`, `before_end`, `jitter`.
    delay: Delay,
    /// Stop for ever at a phase, until the client leaves.
    hang: Option<Hang>,
    /// Cut the answer off: `at` a place (`half` by itself), `how` one of the words below.
    cut: Option<Cut>,
    /// After the headers nothing but a comment line every so often, for ever.
    comments_only: Option<Span>,
    /// A comment (on `/v1/messages` a `ping` event) this often while the stream waits.
    ping: Option<Span>,
    /// One event is damaged: `at` which token, `as` one of the words below.
    malformed_chunk: Option<MalformedChunk>,
    /// An empty `data:` frame before every token.
    empty_data_frames: bool,
    /// Every token's event goes out twice.
    duplicate_chunks: bool,
    /// No end mark (`[DONE]`, `message_stop`, `response.completed`), the finish reason stays.
    no_done: bool,
    /// The end mark without a finish reason before it.
    done_only: bool,
    /// The end mark twice.
    double_done: bool,
    /// Another token after the end mark.
    events_after_done: bool,
    /// How events are framed.
    framing: Option<Framing>,
    /// Write the body in pieces of this many bytes, whatever the events are.
    slice: Option<usize>,
    /// Another content type; `text/html` brings a login page with it.
    content_type: Option<String>,
    /// A whole JSON answer where a stream was asked for.
    json_for_stream: bool,
    /// A stream where a whole JSON answer was asked for.
    stream_for_json: bool,
    /// An error inside the stream: `at` (`first`, `token 5`), `shape` and `error`.
    inband_error: Option<InbandError>,
    /// A `content-length` that is not true.
    wrong_content_length: Option<Length>,
    /// A chunk whose size is not a number.
    bad_chunked: bool,
    /// `content-encoding: gzip` on bytes that break half way.
    broken_gzip: bool,
    /// No length and no chunks: the body ends when the connection does.
    until_close: bool,
    /// Trailers after the last chunk.
    trailers: bool,
    /// A 307 to this address.
    redirect: Option<String>,
    /// This many more bytes: white space in a plain answer's JSON, tokens in a stream.
    huge_body: Option<Size>,
    /// A header of this many bytes.
    huge_headers: Option<Size>,
    /// One event of this many bytes.
    huge_event: Option<Size>,
    /// A 413 as soon as the head is read, before the body is.
    early_413: bool,
    /// Keep-alive is promised, and the connection closed right after the answer.
    close_idle: bool,
    /// Bytes per second at which the answer is sent.
    bandwidth: Option<Size>,
    /// What the usage numbers are.
    usage: Option<Usage>,
    /// The prompt tokens the usage claims, as a server that silently cut the prompt would.
    prompt_tokens: Option<u64>,
    /// A fixed answer text.
    text: Option<String>,
    /// How many tokens the answer has.
    tokens: Option<usize>,
    /// The answer is JSON, and this is wrong with it.
    json: Option<Json>,
    /// Valid JSON that breaks the schema asked for.
    schema_break: bool,
    /// Whether and how tools are called.
    tools: Option<Tools>,
    /// The answer is one phrase, this many times.
    repetition: Option<usize>,
    /// Random letters instead of words.
    garbage: bool,
    /// An answer with no content at all.
    empty: bool,
    /// The role-only chunk goes out, then nothing.
    role_then_silence: bool,
    /// The answer stops half way with the finish reason `length`.
    length: bool,
    /// A refusal instead of content.
    refusal: bool,
    /// One choice fewer than `n` asks for.
    n_missing: bool,
    /// The last choice never gets its finish reason.
    unfinished: bool,
    /// Choices are streamed token by token in turn instead of one after the other.
    interleave: bool,
    /// Any finish reason, as given.
    finish: Option<String>,
    /// Another `system_fingerprint`.
    fingerprint: Option<String>,
    /// The server dies for this long: the listener closes, every connection is reset.
    refuse: Option<Span>,
    /// The connection is reset as soon as it is accepted.
    reset_on_accept: bool,
    /// The connection is reset at a moment of the request; within the answer, that is `cut`.
    reset: Option<Reset>,
    /// For this long no handshake is answered and nothing comes or goes on open connections; afterwards they go on.
    blackhole: Option<Span>,
    /// For this long connections come about, and nothing comes or goes on any of them, old or new; afterwards they go on.
    half_open: Option<Span>,
    /// The request's body is read at this many bytes a second; `0` never reads it.
    slow_read: Option<Size>,
}

/// The moment at which a rule is decided, given by what its fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// When the connection is accepted: nothing of the request is known.
    Accept,
    /// When the head of the request is read: the body, and so model and stream, are not known.
    Head,
    /// When the whole request is read.
    Request,
}

impl Fault {
    /// What this fault does to the network of the whole server, and for how long.
    pub fn outage(&self) -> Option<(Network, Span)> {
        let of = |network, time: Option<Span>| time.map(|time| (network, time));
        of(Network::Refuse, self.refuse)
            .or_else(|| of(Network::Blackhole, self.blackhole))
            .or_else(|| of(Network::HalfOpen, self.half_open))
    }

    /// When this fault has to be decided.
    pub fn phase(&self) -> Phase {
        let accept = self.reset_on_accept || self.hang == Some(Hang::Accept) || !self.delay.accept.0.is_zero();
        if accept || self.outage().is_some() {
            Phase::Accept
        } else if self.early_413 || self.slow_read.is_some() || self.reset == Some(Reset::Head) {
            Phase::Head
        } else {
            Phase::Request
        }
    }
}

//! The request side: a client's call, the sends made for it, and what a send reports while it runs.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method};

use super::{Asks, Class, RequestBody, Upload, Usage, Verdict};

/// Which API surface a call came in on. Each has its own shape of answers, streams and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Surface {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/messages`
    Messages,
    /// `GET /v1/models[/ID]`
    Models,
    /// Everything else under `/v1`: passed byte for byte, never looked into.
    Opaque,
}

impl Surface {
    /// Short name for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Surface::Chat => "chat",
            Surface::Completions => "completions",
            Surface::Embeddings => "embeddings",
            Surface::Responses => "responses",
            Surface::Messages => "messages",
            Surface::Models => "models",
            Surface::Opaque => "opaque",
        }
    }

    /// Whether a request on this surface names a model in its body.
    pub fn has_model(self) -> bool {
        !matches!(self, Surface::Models | Surface::Opaque)
    }

    /// Whether bodies on this surface are read (to route, judge and count), or only carried.
    pub fn is_read(self) -> bool {
        self != Surface::Opaque
    }
}

/// What a client may ask of us for one call, from `x-outrigger-*` headers. Options only ever tighten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `x-outrigger-retries`: sends after the first, all causes together.
    pub retries: Option<u32>,
    /// `x-outrigger-fallback: off`: only the route's first target may be asked.
    pub no_fallback: bool,
    /// `x-outrigger-hedge: off`: no send is started beside another.
    pub no_hedge: bool,
    /// `x-outrigger-priority`: who goes first where there is not room for all.
    pub priority: Option<Priority>,
}

/// Who goes first where there is not room for all; the greater is served before the lesser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// The first to be refused: batches, prefetching, anything that can come again later.
    Sheddable,
    /// Everything that does not say otherwise.
    #[default]
    Default,
    /// Somebody waits for it.
    Critical,
}

impl Priority {
    /// Every priority, the lowest first.
    pub const ALL: [Priority; 3] = [Priority::Sheddable, Priority::Default, Priority::Critical];

    /// The public name, as in the config, the header and the metric label `priority`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::Sheddable => "sheddable",
            Priority::Default => "default",
            Priority::Critical => "critical",
        }
    }
}

impl FromStr for Priority {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Priority::ALL.into_iter().find(|priority| priority.as_str() == name).ok_or(())
    }
}

/// One client request with the facts the layers need. Cheap to share: layers hold it in an `Arc`.
pub struct Call {
    /// Our id for it, unique, sortable by time (`x-outrigger-id`).
    pub id: String,
    /// The API surface it came in on.
    pub surface: Surface,
    /// The HTTP method as the client sent it.
    pub method: Method,
    /// The raw path and query after the leading `/v1`, byte for byte, such as `/chat/completions?beta=true`.
    pub path: String,
    /// The client's headers, less hop-by-hop fields and our own.
    pub headers: HeaderMap,
    /// The body, original bytes.
    pub body: RequestBody,
    /// The `model` member, decoded, where there is one.
    pub model: Option<String>,
    /// Where the raw `model` value (quotes included) stands in the body, so that only it need be rewritten.
    pub model_span: Option<(usize, usize)>,
    /// Whether the body asks for a stream.
    pub stream: bool,
    /// Whether the stream is to end with a usage event (`stream_options.include_usage`).
    pub include_usage: bool,
    /// How many choices the body asks for (`n`, for each prompt), at least 1.
    pub choices: u64,
    /// The caller's cap on output tokens, for each choice.
    pub max_tokens: Option<u64>,
    /// Rough prompt size in bytes: the body's length. Patience grows with it.
    pub prompt_bytes: usize,
    /// What it asks of a model.
    pub asks: Asks,
    /// A number for the beginning of the prompt, where the route has a pool that goes by it.
    pub prefix: Option<u64>,
    /// When the request line was read, monotonic.
    pub started: Instant,
    /// How long the client says it will wait, from `x-outrigger-timeout` or its SDK's own headers.
    pub client_patience: Option<Duration>,
    /// When the call ends at the latest, monotonic. Set once, by the deadline layer.
    pub deadline: Instant,
    /// What the client asked for.
    pub options: Options,
    /// Its priority in force: what the client asked for, at most what its key may have.
    pub priority: Priority,
    /// The client said that this is itself a retry (`x-stainless-retry-count` above 0).
    pub client_retry: bool,
    /// W3C trace context of the caller, or one we started: `00-<32 hex>-<16 hex>-<2 hex>`.
    pub traceparent: String,
    /// The configured name of the client key used, for logs.
    pub key_name: Option<Arc<str>>,
    /// The client's `Idempotency-Key`, where one is honoured.
    pub idempotency_key: Option<HeaderValue>,
    /// How it stands while it has no answer.
    pub standing: Arc<Standing>,
}

impl Call {
    /// Time left before the deadline, zero when it has passed.
    pub fn remaining(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }
}

/// Its id alone: what it carries is not for logs.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a send was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AttemptKind {
    /// The first send of the call.
    First,
    /// The same target again after a failure.
    Retry,
    /// The same target again beside a send that is still silent.
    Hedge,
    /// The next target of the route.
    Fallback,
    /// The rest of an answer that broke off after its first byte was out.
    Continuation,
}

impl AttemptKind {
    /// Every kind, for metrics.
    pub const ALL: [AttemptKind; 5] =
        [AttemptKind::First, AttemptKind::Retry, AttemptKind::Hedge, AttemptKind::Fallback, AttemptKind::Continuation];

    /// The public name, as in the metric label `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttemptKind::First => "first",
            AttemptKind::Retry => "retry",
            AttemptKind::Hedge => "hedge",
            AttemptKind::Fallback => "fallback",
            AttemptKind::Continuation => "continuation",
        }
    }
}

/// What a running send tells the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// An endpoint has a place for it, and it goes out now: it may have waited in a queue until here. The number is
    /// that of the endpoint in the settings.
    Dispatched(usize),
    /// The response head arrived.
    Head,
    /// The first model event of an answer that is held back is in hand: the send is silent no longer.
    First,
}

/// What a send counts as when it is dropped before its end; the loop writes it before it drops.
#[derive(Debug)]
pub struct Fate(AtomicU16);

const CLIENT_LEFT: u16 = u16::MAX;
const SUPERSEDED: u16 = u16::MAX - 1;

impl Default for Fate {
    fn default() -> Self {
        Self(AtomicU16::new(CLIENT_LEFT))
    }
}

impl Fate {
    /// Decides it. Until then a dropped send means that the client left.
    pub fn set(&self, verdict: Verdict) {
        let code = match verdict {
            Verdict::Failed(class) => class as u16,
            Verdict::Ok | Verdict::Superseded => SUPERSEDED,
        };
        self.0.store(code, Ordering::Relaxed);
    }

    /// What was decided.
    pub fn get(&self) -> Verdict {
        match self.0.load(Ordering::Relaxed) {
            CLIENT_LEFT => Verdict::Failed(Class::ClientDisconnect),
            SUPERSEDED => Verdict::Superseded,
            code => Class::ALL.get(usize::from(code)).copied().map_or(Verdict::Superseded, Verdict::Failed),
        }
    }
}

/// How a call stands that has no answer yet, for whoever tells of its end when it is dropped.
#[derive(Debug, Default)]
pub struct Standing {
    /// What it counts as; until that is decided a dropped call means that the client left.
    pub fate: Fate,
    sends: AtomicU32,
}

impl Standing {
    /// A send went out.
    pub fn sent(&self) {
        self.sends.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends that went out.
    pub fn sends(&self) -> u32 {
        self.sends.load(Ordering::Relaxed)
    }
}

/// A call on its way through the stack, with the body that can be sent only once, if it has one.
pub struct CallRequest {
    /// The call.
    pub call: Call,
    /// Its streamed body.
    pub upload: Option<Upload>,
}

/// A place at an endpoint, given back when it is dropped.
pub type Place = Box<dyn Send + Sync>;

/// An answer to go on with.
#[derive(Debug)]
pub struct Continuation {
    /// What was said so far, all of it text.
    pub text: String,
    before: OnceLock<Usage>,
}

impl Continuation {
    /// Goes on from this text.
    pub fn new(text: String) -> Self {
        Self { text, before: OnceLock::new() }
    }

    /// The endpoint has shown that it goes on from exactly this text, and counted prompt and text in its tokens.
    pub fn shown(&self, before: Usage) {
        // It is shown once; the first count stands.
        let _ = self.before.set(before);
    }

    /// Tokens it took to come this far, once they are known.
    pub fn before(&self) -> Option<Usage> {
        self.before.get().copied()
    }
}

/// Whom a send tells of its milestones.
pub type Report = Arc<dyn Fn(Milestone) + Send + Sync>;

/// One send upstream on behalf of a call.
pub struct Attempt {
    /// The call it is for.
    pub call: Arc<Call>,
    /// Its number within the call, from 0.
    pub number: usize,
    /// Why it is made.
    pub kind: AttemptKind,
    /// The route, as numbered in the settings; `None` for a question of our own, such as for a list of models.
    pub route: Option<usize>,
    /// Which target of the route, counted from 0.
    pub target: usize,
    /// The endpoint, once balance has chosen it; as numbered in the settings.
    pub endpoint: usize,
    /// Endpoints this call has asked already; they are chosen only when nothing else is left.
    pub used: Vec<usize>,
    /// Endpoints that cannot serve it, or are not to; they are never chosen.
    pub unfit: Vec<usize>,
    /// Its place at the endpoint, once it has one.
    pub place: Option<Place>,
    /// The streamed body, for the one send that may carry it.
    pub upload: Option<Upload>,
    /// What it goes on from, where it goes on with an answer.
    pub continuation: Option<Arc<Continuation>>,
    /// Told of milestones as they happen.
    pub report: Report,
    /// What it counts as if it is dropped.
    pub fate: Arc<Fate>,
}

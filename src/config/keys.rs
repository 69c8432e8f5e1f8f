//! Every key of the config file, once: its type, its default, why it is there, and whether this version has it.
//!
//! The check of unknown keys, the JSON Schema, the starter file and the reference table all come from here; nothing
//! else lists keys. Does not read values: `resolve.rs` does. Invariant: a key stands in this table or it does not
//! exist, and a default written here is the default in force (a test resolves the starter and compares).

use std::sync::LazyLock;

use super::units;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// Free text.
    Text,
    /// A name that metrics, headers and logs carry.
    Name,
    /// A secret text, never shown.
    Secret,
    /// A path of the file system.
    Path,
    /// A base URL.
    Url,
    /// `IP:port`.
    Address,
    /// A duration that may be zero.
    Duration,
    /// A duration that must not be zero.
    Clock,
    /// A duration within bounds, in seconds.
    Between(u32, u32),
    /// A path on a server, beginning with `/`.
    HttpPath,
    /// A number of bytes, not zero.
    Size,
    /// How many of something, not zero.
    Amount,
    /// A share, `0%` to `100%`.
    Ratio,
    /// A whole number within bounds.
    Count(u32, u32),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Endpoints and pools of a route.
    Targets,
    /// Anything: the key is known but not available.
    Later,
}

/// Where a row may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its path as written.
    Top,
    /// Under `defaults`.
    Defaults,
    /// Under a member of `endpoints`.
    Endpoint,
    /// Under a member of `routes`.
    Route,
}

impl Place {
    /// What stands before a row's path.
    pub const fn prefix(self) -> &'static str {
        match self {
            Place::Top => "",
            Place::Defaults => "defaults.",
            Place::Endpoint => "endpoints[].",
            Place::Route => "routes[].",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Path below its places, `[]` after the name of a list.
    pub path: &'static str,
    /// Where it may stand.
    pub at: &'static [Place],
    /// What it may be.
    pub ty: Type,
    /// The value in force when it is not given; `None` when there is none.
    pub default: Option<&'static str>,
    /// What the starter file shows where there is no default.
    pub example: &'static str,
    /// Why it is there, in one line.
    pub why: &'static str,
    /// Whether this version has it.
    pub built: bool,
    /// Whether a change takes effect at a restart only.
    pub restart: bool,
}

impl Row {
    /// A change takes effect at a restart only.
    const fn restart(mut self) -> Self {
        self.restart = true;
        self
    }
}

/// A row at one of its places.
#[derive(Clone, Debug)]
pub struct Key {
    /// Full path, such as `endpoints[].timeouts.connect`.
    pub path: String,
    /// Its row.
    pub row: &'static Row,
}

const fn key(path: &'static str, at: &'static [Place], ty: Type, default: &'static str, why: &'static str) -> Row {
    Row { path, at, ty, default: Some(default), example: "", why, built: true, restart: false }
}

const fn open(path: &'static str, at: &'static [Place], ty: Type, example: &'static str, why: &'static str) -> Row {
    Row { path, at, ty, default: None, example, why, built: true, restart: false }
}

const fn later(path: &'static str, at: &'static [Place], why: &'static str) -> Row {
    Row { path, at, ty: Type::Later, default: None, example: "", why, built: false, restart: false }
}

use Place::{Defaults, Endpoint, Route, Top};
use Type::{
    Address, Amount, Between, Choice, Clock, Count, Duration, HttpPath, Name, Path, Ratio, Secret, Size, Switch,
    Targets, Text, Url,
};

const ON_OFF: Type = Choice(&["on", "off"]);
const TOP: &[Place] = &[Top];
const DER: &[Place] = &[Defaults, Endpoint, Route];
const DE: &[Place] = &[Defaults, Endpoint];
const DR: &[Place] = &[Defaults, Route];
const R: &[Place] = &[Route];

/// The table.
pub static ROWS: &[Row] = &[
    key("version", TOP, Count(1, 1), "1", "Version of the file format; the only required line besides an endpoint."),
    key("server.listen", TOP, Address, "127.0.0.1:8700", "Address of the data port, where clients send their calls.")
        .restart(),
    key("server.max_body", TOP, Size, "32MiB", "Largest request body; a larger one is refused with 413."),
    key(
        "server.max_buffered",
        TOP,
        Size,
        "512MiB",
        "Memory for all request bodies that are held, together; a call that would pass it is refused with 503.",
    ),
    key(
        "server.max_header_bytes",
        TOP,
        Size,
        "64KiB",
        "Largest request head; a larger one is refused with 431. At least 8KiB.",
    )
    .restart(),
    key(
        "server.header_timeout",
        TOP,
        Clock,
        "60s",
        "How long a client may take to send a request head, the pause before it included; then the connection is closed.",
    )
    .restart(),
    key(
        "server.body_timeout",
        TOP,
        Clock,
        "30s",
        "How long a request body may stand still; then the call is refused with 408.",
    ),
    key(
        "server.write_timeout",
        TOP,
        Clock,
        "30s",
        "How long a client may take nothing of its answer; then the connection is closed.",
    )
    .restart(),
    key(
        "server.max_connections",
        TOP,
        Count(1, 1_000_000),
        "10000",
        "Connections served at once; more wait to be accepted.",
    )
    .restart(),
    key(
        "server.max_held",
        TOP,
        Size,
        "512MiB",
        "Memory for answers that `stream: hold` keeps, all calls together; what does not fit is refused with `queue_full`.",
    ),
    key(
        "server.auth",
        TOP,
        Choice(&["auto", "none"]),
        "auto",
        "`auto` asks for a key when keys are listed; `none` lets everybody in, on any address.",
    ),
    open("server.keys[].name", TOP, Name, "search", "Name of a client key, for logs."),
    open(
        "server.keys[].hash_file",
        TOP,
        Path,
        "/run/secrets/search",
        "File with the SHA-256 of the key in hex; the key itself is stored nowhere.",
    ),
    key(
        "server.keys[].priority",
        TOP,
        Choice(&["critical", "default", "sheddable"]),
        "default",
        "Priority of its calls where there is not room for all; `x-outrigger-priority` may lower it.",
    ),
    open(
        "server.keys[].limits.requests_per_minute",
        TOP,
        Amount,
        "600",
        "Calls this key may make in a minute; more are refused with 429. Without it there is no limit.",
    ),
    open(
        "server.keys[].limits.tokens_per_minute",
        TOP,
        Amount,
        "1M",
        "Tokens this key may use in a minute, prompts and answers together. Without it there is no limit.",
    ),
    key(
        "server.idempotency.ttl",
        TOP,
        Duration,
        "10m",
        "How long a finished answer is kept for calls with the same `Idempotency-Key`; `0s` leaves the header to the endpoints.",
    ),
    key(
        "server.idempotency.max_memory",
        TOP,
        Size,
        "64MiB",
        "Memory for such answers; one may take a quarter of it, and the oldest make room.",
    ),
    key("admin.listen", TOP, Address, "127.0.0.1:8701", "Address of the admin port: metrics, health, status.").restart(),
    key(
        "drain.delay",
        TOP,
        Duration,
        "0s",
        "How long to go on accepting after SIGTERM, so that a load balancer notices first.",
    ),
    key("drain.timeout", TOP, Clock, "120s", "How long calls in flight may take to finish at shutdown."),
    key(
        "log.format",
        TOP,
        Choice(&["auto", "pretty", "json"]),
        "auto",
        "`auto` is pretty on a terminal and JSON elsewhere.",
    )
    .restart(),
    key("log.level", TOP, Choice(&["error", "warn", "info", "debug"]), "info", "Least important line that is written.")
        .restart(),
    key("log.bodies", TOP, Choice(&["never"]), "never", "Prompts and answers are never logged."),
    later("telemetry", TOP, "Sends traces to an OpenTelemetry collector."),
    key("state.dir", TOP, Path, "\"\"", "Directory for state that survives a restart; empty keeps none.").restart(),
    later("state.redis", TOP, "Shares state between replicas."),
    open("endpoints[].name", TOP, Name, "local", "Name of the endpoint: targets, metrics and headers use it."),
    open("endpoints[].url", TOP, Url, "http://127.0.0.1:11434/v1", "Base URL; `/v1` is added when it has no path."),
    open("endpoints[].key", TOP, Secret, "${OPENAI_API_KEY}", "Credential sent to this endpoint and to no other."),
    open("endpoints[].key_file", TOP, Path, "/run/secrets/openai", "File that holds the credential, instead of `key`."),
    key(
        "endpoints[].dialect",
        TOP,
        Choice(&["auto", "openai", "vllm", "llamacpp", "ollama", "anthropic"]),
        "auto",
        "Kind of server; `auto` finds out.",
    ),
    open("endpoints[].model", TOP, Text, "qwen3-8b", "Model sent upstream instead of the one the caller named."),
    open(
        "endpoints[].context_window",
        TOP,
        Count(16, 1_000_000_000),
        "32768",
        "Tokens its model can hold; not given, it is found out where the server tells. A longer prompt is not sent there.",
    ),
    open(
        "endpoints[].supports.tools",
        TOP,
        ON_OFF,
        "off",
        "Whether its model calls tools; not given, a refusal tells. With `off`, no call with tools is sent there.",
    ),
    open("endpoints[].supports.json_schema", TOP, ON_OFF, "off", "The same for answers after a JSON schema."),
    open("endpoints[].supports.vision", TOP, ON_OFF, "off", "The same for images."),
    open("endpoints[].supports.audio", TOP, ON_OFF, "off", "The same for sound."),
    open(
        "endpoints[].probe.path",
        TOP,
        HttpPath,
        "/health",
        "Asks this path of the server in the background; an endpoint that gives no 2xx is passed over while another can be asked.",
    ),
    key("endpoints[].probe.every", TOP, Between(1, 3600), "5s", "Time between two probes, give or take a tenth."),
    key("endpoints[].probe.timeout", TOP, Clock, "2s", "A probe that takes longer has failed."),
    key(
        "endpoints[].probe.fail_after",
        TOP,
        Count(1, 100),
        "2",
        "Failures in a row that make the endpoint count as down.",
    ),
    key("endpoints[].probe.ok_after", TOP, Count(1, 100), "1", "Successes in a row that make it count as up again."),
    key("timeouts.connect", DER, Clock, "2s", "Dialling, with name lookup and TLS. Read from the endpoint."),
    key(
        "timeouts.headers",
        DER,
        Clock,
        "30s",
        "From the end of the request to the response head. Read from the route.",
    ),
    key(
        "timeouts.first_token",
        DER,
        Clock,
        "10s",
        "Patience for the first token, more for long prompts; then the next target is started beside. Read from the route.",
    ),
    key(
        "timeouts.idle",
        DER,
        Clock,
        "30s",
        "Longest silence within a stream; keep-alives do not count. Read from the endpoint.",
    ),
    key("timeouts.total", DER, Clock, "120s", "The whole call, every send and wait included. Read from the route."),
    key("retry.attempts", DR, Count(1, 20), "3", "Sends per target, the first included; 1 never repeats."),
    key("retry.budget", DR, Ratio, "20%", "Repeats as a share of traffic, so that retries cannot become the outage."),
    key("retry.backoff.base", DR, Clock, "250ms", "Upper bound of the first wait; doubles with each repeat."),
    key("retry.backoff.max", DR, Clock, "8s", "Upper bound of every wait."),
    key("retry.respect_retry_after", DR, Switch, "true", "Whether an upstream's `Retry-After` replaces our own wait."),
    key("max_sends", DR, Count(1, 100), "4", "Sends upstream per call, all causes together."),
    key("breaker.consecutive", DE, Count(1, 1000), "5", "Failures in a row that open it."),
    key("breaker.failure_rate", DE, Ratio, "50%", "Share of failures in the window that opens it, in a pool."),
    key("breaker.min_calls", DE, Count(1, 1_000_000), "10", "Sends in the window below which a share says nothing."),
    key("breaker.window", DE, Clock, "60s", "How long a send is remembered."),
    key("breaker.open_for", DE, Clock, "2s", "How long it stays open the first time; doubles, and varies by half."),
    key("breaker.max_open", DE, Clock, "20s", "How long it stays open at most."),
    key(
        "breaker.probes",
        DE,
        Count(1, 100),
        "1",
        "Sends let through at a time to find out whether the endpoint is back.",
    ),
    later("breaker", R, "A route's own settings for its circuits."),
    key(
        "concurrency.mode",
        DE,
        Choice(&["adaptive", "fixed"]),
        "adaptive",
        "`adaptive` learns how many sends an endpoint can take at once; `fixed` is always `max`.",
    ),
    key("concurrency.max", DE, Count(1, 100_000), "256", "Most sends in flight at the endpoint, whatever was learnt."),
    key(
        "hedge.after",
        DR,
        Choice(&["p50", "p75", "p90", "p95", "p98", "p99"]),
        "p95",
        "How late the first token must be, by what is usual there, before another endpoint of the pool is asked beside.",
    ),
    key(
        "hedge.budget",
        DR,
        Ratio,
        "5%",
        "Hedges as a share of traffic; at least as large as the share of calls that are late.",
    ),
    key(
        "connections.max_age",
        DE,
        Duration,
        "5m",
        "An older connection takes no further call, give or take a tenth; what runs on it finishes. `0s` keeps them.",
    ),
    key(
        "connections.dns_refresh",
        DE,
        Between(5, 60),
        "30s",
        "How long the addresses of a name are believed; the last good ones are kept while lookup fails.",
    ),
    key(
        "queue.wait",
        DR,
        Duration,
        "5s",
        "How long a send waits for a free place at its target, before the next target is asked; `0s` never waits.",
    ),
    key(
        "stream",
        DR,
        Choice(&["auto", "hold", "live"]),
        "auto",
        "`hold` keeps a stream until it is complete, so that a cut or stall can be rescued; `live` passes it as it comes. `auto` is `live`, until answers are judged.",
    ),
    key(
        "rescue",
        DR,
        Choice(&["off", "continue"]),
        "off",
        "`continue` goes on with a chat stream that broke half way, where the server can show that the rest fits: vLLM and llama.cpp, plain text only.",
    ),
    later("validate", DR, "Checks answers against what the caller asked for."),
    later("context", DR, "What to do with a prompt that does not fit."),
    later("workflow", DR, "Bounds agent runs."),
    open("routes[].name", TOP, Name, "default", "Name of the route; `route-1` and so on by position if it has none."),
    key(
        "routes[].match.model",
        TOP,
        Text,
        "\"*\"",
        "Models it serves: `*` any text, `?` one character. The first route that matches wins.",
    ),
    open(
        "routes[].targets",
        TOP,
        Targets,
        "[local]",
        "Endpoints, or pools as `{ balance: [a, b] }`, tried in this order; `by: prefix` in a pool keeps conversations together.",
    ),
    later("slo", R, "Objectives of the route."),
    later("on_budget", R, "Whether the error budget steers retries and shedding."),
];

/// Every key at every place, in the order of the file.
pub static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys: Vec<Key> = ROWS
        .iter()
        .flat_map(|row| row.at.iter().map(move |place| Key { path: format!("{}{}", place.prefix(), row.path), row }))
        .collect();
    keys.sort_by_key(|key| {
        let section = key.path.split(['.', '[']).next().unwrap_or("");
        SECTIONS.iter().position(|name| *name == section)
    });
    // Within an endpoint or a route, what it is comes before its policy: the table lists names first already,
    // except that a route's own rows stand at the end.
    let (mut own, rest): (Vec<Key>, Vec<Key>) = keys.into_iter().partition(|key| !key.path.starts_with("routes[]"));
    let (identity, policy): (Vec<Key>, Vec<Key>) = rest.into_iter().partition(|key| key.row.at == TOP);
    own.extend(identity);
    own.extend(policy);
    own
});

/// Keys that must be given wherever their map stands.
pub const REQUIRED: &[&str] = &[
    "version",
    "endpoints",
    "server.keys[].name",
    "server.keys[].hash_file",
    "endpoints[].name",
    "endpoints[].url",
    "endpoints[].probe.path",
    "routes[].targets",
];

/// Maps in whose place `off` may stand.
const SWITCHES: &[&str] = &["breaker", "hedge"];

/// Whether the map at `path` is off where it is not given.
pub fn is_off(path: &str) -> bool {
    path.rsplit('.').next() == Some("hedge")
}

/// Whether `off` may stand in place of the map at `path`.
pub fn may_be_off(path: &str) -> bool {
    SWITCHES.iter().any(|name| path.rsplit('.').next() == Some(*name))
}

/// Sections of the file, in order.
pub const SECTIONS: &[&str] =
    &["version", "server", "admin", "drain", "log", "telemetry", "state", "endpoints", "defaults", "routes"];

/// What a path leads to.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// A value.
    Value(&'static Row),
    /// A map of further keys.
    Map,
    /// A list of maps.
    List,
}

/// What stands at `path`, such as `endpoints[].timeouts`; `None` when there is no such key.
pub fn find(path: &str) -> Option<Found> {
    for key in KEYS.iter() {
        if key.path == path {
            return Some(Found::Value(key.row));
        }
        match key.path.strip_prefix(path) {
            Some(rest) if rest.starts_with('.') => return Some(Found::Map),
            Some(rest) if rest.starts_with("[]") => return Some(Found::List),
            _ => {}
        }
    }
    None
}

/// Names of the keys right below `path` (`""` for the top), in order; those not built only if `all`.
pub fn children(path: &str, all: bool) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in KEYS.iter().filter(|key| all || key.row.built) {
        let rest = if path.is_empty() {
            Some(key.path.as_str())
        } else {
            key.path.strip_prefix(path).and_then(|rest| rest.strip_prefix('.'))
        };
        if let Some(name) = rest.and_then(|rest| rest.split(['.', '[']).next())
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

/// Joins a path and a name.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// What a type wants, for messages and for the reference.
pub fn wants(ty: Type) -> String {
    match ty {
        Type::Text => "text".to_owned(),
        Type::Name => "a name: letters, digits, `-`, `_`, `.`".to_owned(),
        Type::Secret => "a secret".to_owned(),
        Type::Path => "a path".to_owned(),
        Type::Url => "a URL: `http://host:port/v1`".to_owned(),
        Type::Address => "an address: `127.0.0.1:8700`".to_owned(),
        Type::Duration | Type::Clock => "a duration: `250ms`, `30s`, `2m`, `1h`".to_owned(),
        Type::Between(low, high) => {
            let show = |seconds| units::show_duration(std::time::Duration::from_secs(u64::from(seconds)));
            format!("a duration from `{}` to `{}`", show(low), show(high))
        }
        Type::HttpPath => "a path on the server: `/health`".to_owned(),
        Type::Size => "a size: `64KiB`, `32MiB`, `1GiB`".to_owned(),
        Type::Amount => "a number: `600`, `500k`, `1M`".to_owned(),
        Type::Ratio => "a percentage: `20%`".to_owned(),
        Type::Count(low, high) if low == high => format!("the number {low}"),
        Type::Count(low, high) => format!("a whole number from {low} to {high}"),
        Type::Switch => "`true` or `false`".to_owned(),
        Type::Choice([one]) => format!("only `{one}`"),
        Type::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            format!("one of {}", words.join(", "))
        }
        Type::Targets => "a list of endpoints and `{ balance: [..] }`".to_owned(),
        Type::Later => "not in this version".to_owned(),
    }
}

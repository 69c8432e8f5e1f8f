//! How log lines leave: pretty for people on a terminal, one JSON object a line otherwise; always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// How lines look, after `auto` was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

impl Look {
    /// Pretty on a terminal, JSON otherwise.
    pub fn auto() -> Self {
        if std::io::stderr().is_terminal() { Look::Pretty } else { Look::Json }
    }
}

/// Starts logging. `level` is `error`, `warn`, `info` or `debug`; a second start is ignored.
pub fn start(look: Look, level: &str) {
    let filter =
        EnvFilter::try_new(format!("warn,outrigger={level},call={level}")).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let started = match look {
        Look::Pretty => lines.with_target(false).compact().try_init(),
        Look::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
    };
    // Tests start several gateways in one process; the first look stands.
    drop(started);
}

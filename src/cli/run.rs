//! `outrigger run`: says where it listens and what it knows, then serves until it is told to stop.

use std::sync::Arc;

use super::{FINE, RunArgs, output};
use crate::app::{self, Again};
use crate::config::{Loaded, Settings};

/// Serves. Ends with the exit code of the whole.
///
/// # Errors
/// A port cannot be had, or a credential cannot be sent.
pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let loaded = match args.load() {
        Ok(loaded) => loaded,
        Err(report) => return Ok(output::refuse(&report)),
    };
    output::warnings(&loaded);
    app::start_logging(&loaded.settings.log);
    let banner = |settings: &Settings| output::talk(&banner(&loaded, settings));
    runtime()?.block_on(app::serve(loaded.clone(), again(args), banner))?;
    Ok(FINE)
}

/// The same arguments once more, where there is a file to read.
fn again(args: &RunArgs) -> Option<Again> {
    let watch = args.watch.then_some(app::WATCH_EVERY);
    let args = args.clone();
    args.upstream.is_none().then(|| Again { load: Arc::new(move || args.load()), watch })
}

/// The runtime that everything long-lived runs on.
///
/// # Errors
/// The system gives no threads.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// At most six lines: version, config, what to paste, what is known, where to look.
fn banner(loaded: &Loaded, settings: &Settings) -> String {
    let of = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    format!(
        "outrigger {version}  config: {source}\n  \
         OPENAI_BASE_URL=http://{data}/v1\n  \
         {routes}, {endpoints}\n  \
         admin http://{admin}  (metrics, readiness, status)\n",
        version = env!("CARGO_PKG_VERSION"),
        source = loaded.source_name(),
        data = settings.server.listen,
        routes = of(settings.routes.len(), "route"),
        endpoints = of(settings.endpoints.len(), "endpoint"),
        admin = settings.admin.listen,
    )
}

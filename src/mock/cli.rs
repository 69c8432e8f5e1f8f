//! `outrigger mock`: the stand-in on a terminal.
//!
//! Owns what it prints and how it ends. Invariant: talk goes to stderr, nothing to stdout.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::{Mock, Scenario, VOCABULARY};

/// Runs the stand-in until SIGINT or SIGTERM. `seed` overrides the scenario's; `control` is a second address for `/_mock`;
/// a history is added to the file `record`.
///
/// # Errors
/// A scenario that cannot be read or parsed, or an address that cannot be listened on.
pub async fn serve_cli(
    listen: SocketAddr,
    control: Option<SocketAddr>,
    scenario: Option<&Path>,
    seed: Option<u64>,
    record: Option<&Path>,
) -> io::Result<()> {
    let mut script = match scenario {
        Some(path) => load(path)?,
        None => Scenario::default(),
    };
    script.seed = seed.unwrap_or(script.seed);
    let (seed, rules) = (script.seed, script.rules.len());
    let mut running = Mock::start_recorded(listen, script, record).await?;
    let control = match control {
        Some(address) => running.control(address).await?,
        None => running.addr(),
    };
    anstream::eprintln!("mock model server on http://{} (seed {seed}, {rules} rules)", running.addr());
    anstream::eprintln!("  OPENAI_BASE_URL={}", running.base_url());
    anstream::eprintln!("  what came in:    curl http://{control}/_mock/stats");
    anstream::eprintln!("  other behaviour: curl --data-binary @scenario.yaml http://{control}/_mock/scenario");
    anstream::eprintln!("  an outage:       curl -d 'refuse 20s' http://{control}/_mock/network");
    anstream::eprintln!("  a rule can do:   {}", hint());
    ended().await?;
    anstream::eprintln!("mock model server: {} calls, stopping", running.stats().calls);
    running.stop().await;
    Ok(())
}

fn load(path: &Path) -> io::Result<Scenario> {
    let named = |what: String| io::Error::other(format!("{}: {what}", path.display()));
    let yaml = std::fs::read_to_string(path).map_err(|e| named(e.to_string()))?;
    Scenario::parse(&yaml).map_err(named)
}

fn hint() -> String {
    VOCABULARY.iter().map(|(key, _)| *key).collect::<Vec<_>>().join(", ")
}

#[cfg(unix)]
async fn ended() -> io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn ended() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}

//! `outrigger check`: is the config right, and can every endpoint be reached?
//!
//! Owns the order (fields, references, lints, then the network) and the exit code. Invariant: with `--offline` no
//! packet leaves the machine.

use clap::Args;
use serde_json::json;

use super::probe::{self, Found};
use super::{BAD_CONFIG, FAILED, FINE, SourceArgs, output};
use crate::config::{Loaded, Report};

/// `outrigger check`
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Which config.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Do not ask the endpoints
    #[arg(long)]
    pub offline: bool,
    /// Fail on warnings too
    #[arg(long)]
    pub deny_warnings: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> anyhow::Result<u8> {
    let loaded = match args.source.load() {
        Ok(loaded) => loaded,
        Err(report) if args.json => {
            print_json(false, &report, &[]);
            return Ok(BAD_CONFIG);
        }
        Err(report) => return Ok(output::refuse(&report)),
    };
    let denied = args.deny_warnings && !loaded.warnings.problems.is_empty();
    if !args.json {
        output::warnings(&loaded);
        output::data(&headline(&loaded, denied));
    }
    let found = if args.offline || denied { Vec::new() } else { probe::all(&loaded.settings.endpoints)? };
    let reachable = found.iter().all(|found| found.good);
    if args.json {
        print_json(!denied && reachable, &loaded.warnings, &found);
    } else {
        output::data(&lines(&found));
    }
    Ok(match (denied, reachable) {
        (true, _) => BAD_CONFIG,
        (_, false) => FAILED,
        _ => FINE,
    })
}

fn headline(loaded: &Loaded, denied: bool) -> String {
    let of = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    let settings = &loaded.settings;
    let mut line = format!(
        "{} {}: {}, {}",
        output::mark(!denied),
        loaded.source_name(),
        of(settings.endpoints.len(), "endpoint"),
        of(settings.routes.len(), "route"),
    );
    if !loaded.warnings.problems.is_empty() {
        line.push_str(&format!(", {}", output::count(&loaded.warnings)));
        line.push_str(if denied { ", denied" } else { "" });
    }
    line.push('\n');
    line
}

fn lines(found: &[Found]) -> String {
    let width = found.iter().map(|found| found.name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for found in found {
        let Found { name, url, detail, .. } = found;
        out.push_str(&format!("{} {name:<width$}  {url}  {detail}\n", output::mark(found.good)));
        if let Some(fix) = &found.fix {
            out.push_str(&format!("  {:<width$}  {fix}\n", ""));
        }
    }
    out
}

fn print_json(good: bool, report: &Report, found: &[Found]) {
    let endpoints: Vec<_> = found
        .iter()
        .map(|found| json!({ "name": found.name, "url": found.url, "ok": found.good, "detail": found.detail, "fix": found.fix }))
        .collect();
    let value = json!({ "ok": good, "problems": report.to_json(), "endpoints": endpoints });
    output::data(&format!("{value:#}\n"));
}

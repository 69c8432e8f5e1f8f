//! `outrigger explain`: what a call for a model would meet, and where each value comes from.
//!
//! Owns the telling. Invariant: it reads the same settings as `run`, so what it says is what happens.

use std::fmt::Write as _;

use clap::Args;

use super::{FAILED, FINE, SourceArgs, output};
use crate::call::Capability;
use crate::config::show::percentile;
use crate::config::units::{show_amount, show_duration, show_ratio};
use crate::config::{ClientKey, Loaded, Part};
use crate::policy::glob;
use crate::policy::settings::{RouteSettings, Spread};
use crate::transport::settings::{Credential, EndpointSettings};

/// `outrigger explain`
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Which config.
    #[command(flatten)]
    pub source: SourceArgs,
    /// The model a client asks for; without it every route is told
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,
}

/// Runs the command.
pub fn run(args: &ExplainArgs) -> u8 {
    let loaded = match args.source.load() {
        Ok(loaded) => loaded,
        Err(report) => return output::refuse(&report),
    };
    output::mention_warnings(&loaded);
    let routes = &loaded.settings.routes;
    let Some(model) = &args.model else {
        let texts: Vec<String> = (0..routes.len()).map(|index| route(&loaded, index, None)).collect();
        output::data(&format!("config  {}\n\n{}{}", loaded.source_name(), texts.join("\n"), keys(&loaded)));
        return FINE;
    };
    match routes.iter().position(|route| glob::matches(&route.model, model)) {
        Some(index) => {
            let told = route(&loaded, index, Some(model));
            output::data(&format!("config  {}\n\n{told}{}", loaded.source_name(), keys(&loaded)));
            FINE
        }
        None => {
            let known: Vec<String> = routes.iter().map(|route| format!("`{}`", route.model)).collect();
            output::talk(&format!(
                "no route matches `{model}`: the client gets a 404\nroutes match {}; a last route without `match` takes all others\n",
                known.join(", ")
            ));
            FAILED
        }
    }
}

fn route(loaded: &Loaded, index: usize, model: Option<&str>) -> String {
    let route = &loaded.settings.routes[index];
    let part = &loaded.origins.routes[index];
    let mut out = String::new();
    if let Some(model) = model {
        let _ = writeln!(out, "model   {model}");
    }
    let _ = writeln!(out, "route   {}   matches `{}` ({})", route.name, route.model, part.origin("match.model"));
    let _ = writeln!(out, "\ntargets, in this order ({})", part.origin("targets"));
    let rows: Vec<[String; 4]> = targets(loaded, route, model);
    table(&mut out, &rows);
    out.push_str("\npolicy\n");
    table(&mut out, &policy(route, part));
    out.push_str("\nclocks and breakers of the endpoints\n");
    let mut seen = Vec::new();
    for number in route.targets.iter().flat_map(|target| &target.endpoints) {
        if !seen.contains(number) {
            seen.push(*number);
        }
    }
    let rows: Vec<[String; 4]> = seen.iter().flat_map(|number| clocks(loaded, *number)).collect();
    table(&mut out, &rows);
    out
}

/// Who may call, and how much; nothing where no key is asked for.
fn keys(loaded: &Loaded) -> String {
    let keys = &loaded.settings.server.keys;
    if keys.is_empty() {
        return String::new();
    }
    let mut out = "\nclient keys\n".to_owned();
    let limit = |limit: Option<u64>, what: &str| match limit {
        Some(limit) => format!("{} {what} a minute", show_amount(limit)),
        None => format!("any number of {what}"),
    };
    let row = |key: &ClientKey| {
        let (requests, tokens) = (limit(key.limits.requests, "requests"), limit(key.limits.tokens, "tokens"));
        [key.name.clone(), format!("priority {}", key.priority.as_str()), requests, tokens]
    };
    table(&mut out, &keys.iter().map(row).collect::<Vec<_>>());
    out
}

fn targets(loaded: &Loaded, route: &RouteSettings, model: Option<&str>) -> Vec<[String; 4]> {
    let mut rows = Vec::new();
    for (position, target) in route.targets.iter().enumerate() {
        for (place, number) in target.endpoints.iter().enumerate() {
            let endpoint = &loaded.settings.endpoints[*number];
            let head = match (place, target.endpoints.len()) {
                (0, 1) => (position + 1).to_string(),
                (0, _) if target.by == Spread::Prefix => format!("{} pool, by prefix", position + 1),
                (0, _) => format!("{} pool", position + 1),
                _ => "  pool".to_owned(),
            };
            let sent = match (&endpoint.model, model) {
                (Some(sent), _) => format!("sends `{sent}`"),
                (None, Some(asked)) => format!("sends `{asked}`"),
                (None, None) => "sends the model asked for".to_owned(),
            };
            let mut what = format!("{sent}, dialect {}, {}", endpoint.dialect.as_str(), credential(endpoint));
            if let Some(window) = endpoint.window {
                let _ = write!(what, ", holds {window} tokens");
            }
            for capability in Capability::ALL.into_iter().filter(|one| endpoint.supports.get(*one) == Some(false)) {
                let _ = write!(what, ", no {}", capability.as_str());
            }
            rows.push([head, endpoint.name.clone(), endpoint.url.clone(), what]);
        }
    }
    rows
}

fn credential(endpoint: &EndpointSettings) -> String {
    match &endpoint.credential {
        Credential::Key(_) => "its own key".to_owned(),
        Credential::File { path, .. } => format!("key from {}", path.display()),
        Credential::None if endpoint.forward_client_key => "the client's key".to_owned(),
        Credential::None => "no key".to_owned(),
    }
}

fn policy(route: &RouteSettings, part: &Part) -> Vec<[String; 4]> {
    let row = |key: &str, value: String| [key.to_owned(), value, part.origin(key).to_string(), String::new()];
    let (timeouts, retry) = (route.timeouts, route.retry);
    let mut rows = vec![
        row("timeouts.headers", show_duration(timeouts.headers)),
        row("timeouts.first_token", show_duration(timeouts.first_token)),
        row("timeouts.total", show_duration(timeouts.total)),
        row("retry.attempts", retry.attempts.to_string()),
        row("retry.budget", show_ratio(retry.budget)),
        row("retry.backoff.base", show_duration(retry.backoff.base)),
        row("retry.backoff.max", show_duration(retry.backoff.max)),
        row("retry.respect_retry_after", retry.respect_retry_after.to_string()),
        row("max_sends", route.max_sends.to_string()),
        row("queue.wait", show_duration(route.queue_wait)),
        row("stream", route.streams.mode.as_str().to_owned()),
        row("rescue", if route.streams.rescue { "continue" } else { "off" }.to_owned()),
    ];
    let hedge = route.hedge;
    if !hedge.on {
        rows.push(row("hedge", "off".to_owned()));
        return rows;
    }
    rows.extend([row("hedge.after", percentile(hedge.after)), row("hedge.budget", show_ratio(hedge.budget))]);
    rows
}

fn clocks(loaded: &Loaded, number: usize) -> Vec<[String; 4]> {
    let endpoint = &loaded.settings.endpoints[number];
    let part = &loaded.origins.endpoints[number];
    let row = |key: &str, value: String| [endpoint.name.clone(), key.to_owned(), value, part.origin(key).to_string()];
    let (timeouts, breaker, connections) = (endpoint.timeouts, endpoint.breaker, endpoint.connections);
    let mut rows = vec![
        row("timeouts.connect", show_duration(timeouts.connect)),
        row("timeouts.idle", show_duration(timeouts.idle)),
        row("concurrency.mode", endpoint.concurrency.mode.as_str().to_owned()),
        row("concurrency.max", endpoint.concurrency.max.to_string()),
        row("connections.max_age", show_duration(connections.max_age)),
        row("connections.dns_refresh", show_duration(connections.dns_refresh)),
    ];
    if let Some(probe) = &endpoint.probe {
        let what = format!("GET {} every {}", probe.path, show_duration(probe.every));
        rows.push([endpoint.name.clone(), "probe".to_owned(), what, String::new()]);
    }
    if !breaker.on {
        rows.push(row("breaker", "off".to_owned()));
        return rows;
    }
    rows.extend([
        row("breaker.consecutive", breaker.consecutive.to_string()),
        row("breaker.failure_rate", show_ratio(breaker.failure_rate)),
        row("breaker.min_calls", breaker.min_calls.to_string()),
        row("breaker.window", show_duration(breaker.window)),
        row("breaker.open_for", show_duration(breaker.open_for)),
        row("breaker.max_open", show_duration(breaker.max_open)),
        row("breaker.probes", breaker.probes.to_string()),
    ]);
    rows
}

fn table(out: &mut String, rows: &[[String; 4]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (a, b, c) = (width(0), width(1), width(2));
    for [first, second, third, fourth] in rows {
        let line = format!("  {first:<a$}  {second:<b$}  {third:<c$}  {fourth}");
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

//! The settings in force, as YAML that could be a config file, with secrets as `***`.
//!
//! Owns the writing only. Invariant: no credential and no hash is ever in the text.

use std::fmt::Write as _;

use crate::call::Capability;
use crate::policy::HedgeSettings;
use crate::policy::settings::{BreakerSettings, Concurrency, RetrySettings, Spread, Timeouts};
use crate::transport::settings::{Connections, Credential, EndpointSettings};

use super::settings::{LogFormat, Settings};
use super::units::{show_amount, show_duration, show_ratio, show_size};

/// The name of a log format in the config file.
pub fn log_format(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Auto => "auto",
        LogFormat::Pretty => "pretty",
        LogFormat::Json => "json",
    }
}

/// The whole configuration as YAML.
pub fn yaml(settings: &Settings) -> String {
    let mut out = String::from("version: 1\n");
    let server = &settings.server;
    let _ = writeln!(out, "server:\n  listen: {}", text(&server.listen.to_string()));
    let _ = writeln!(out, "  max_body: {}\n  max_connections: {}", show_size(server.max_body), server.max_connections);
    let _ = writeln!(out, "  max_held: {}", show_size(server.max_held));
    let _ = writeln!(
        out,
        "  max_buffered: {}\n  max_header_bytes: {}",
        show_size(server.max_buffered),
        show_size(server.max_header_bytes)
    );
    for (name, clock) in
        [("header", server.header_timeout), ("body", server.body_timeout), ("write", server.write_timeout)]
    {
        let _ = writeln!(out, "  {name}_timeout: {}", show_duration(clock));
    }
    let (ttl, memory) = (show_duration(server.idempotency.ttl), show_size(server.idempotency.max_memory));
    let _ = writeln!(out, "  idempotency:\n    ttl: {ttl}\n    max_memory: {memory}");
    if server.keys.is_empty() {
        out.push_str("  keys: []\n");
        if !server.listen.ip().is_loopback() {
            out.push_str("  auth: none\n");
        }
    } else {
        out.push_str("  keys:\n");
        for key in &server.keys {
            let _ = writeln!(out, "    - name: {}\n      hash_file: \"***\"", text(&key.name));
            let _ = writeln!(out, "      priority: {}", key.priority.as_str());
            if !key.limits.is_empty() {
                out.push_str("      limits:\n");
            }
            let limits = [("requests", key.limits.requests), ("tokens", key.limits.tokens)];
            for (name, limit) in limits.into_iter().filter_map(|(name, limit)| Some((name, limit?))) {
                let _ = writeln!(out, "        {name}_per_minute: {}", show_amount(limit));
            }
        }
    }
    let _ = writeln!(out, "admin:\n  listen: {}", text(&settings.admin.listen.to_string()));
    let drain = settings.drain;
    let _ =
        writeln!(out, "drain:\n  delay: {}\n  timeout: {}", show_duration(drain.delay), show_duration(drain.timeout));
    let _ = writeln!(
        out,
        "log:\n  format: {}\n  level: {}\n  bodies: never",
        log_format(settings.log.format),
        settings.log.level
    );
    let dir = settings.state_dir.as_deref().map(|dir| dir.display().to_string()).unwrap_or_default();
    let _ = writeln!(out, "state:\n  dir: {}", text(&dir));
    out.push_str("endpoints:\n");
    for endpoint in &settings.endpoints {
        one_endpoint(&mut out, endpoint);
    }
    out.push_str("routes:\n");
    for route in &settings.routes {
        let _ = writeln!(out, "  - name: {}\n    match:\n      model: {}", text(&route.name), text(&route.model));
        let names = |numbers: &[usize]| -> Vec<String> {
            numbers
                .iter()
                .filter_map(|number| settings.endpoints.get(*number))
                .map(|endpoint| text(&endpoint.name))
                .collect()
        };
        let targets: Vec<String> = route
            .targets
            .iter()
            .map(|target| match names(&target.endpoints).as_slice() {
                [one] => one.clone(),
                pool if target.by == Spread::Prefix => format!("{{ balance: [{}], by: prefix }}", pool.join(", ")),
                pool => format!("{{ balance: [{}] }}", pool.join(", ")),
            })
            .collect();
        let _ = writeln!(out, "    targets: [{}]", targets.join(", "));
        let Timeouts { headers, first_token, total, .. } = route.timeouts;
        let clocks = [("headers", headers), ("first_token", first_token), ("total", total)];
        out.push_str("    timeouts:\n");
        for (name, clock) in clocks {
            let _ = writeln!(out, "      {name}: {}", show_duration(clock));
        }
        retry(&mut out, &route.retry);
        let _ = writeln!(out, "    max_sends: {}", route.max_sends);
        let _ = writeln!(out, "    queue:\n      wait: {}", show_duration(route.queue_wait));
        let _ = writeln!(out, "    stream: {}", route.streams.mode.as_str());
        let _ = writeln!(out, "    rescue: {}", text(if route.streams.rescue { "continue" } else { "off" }));
        hedge(&mut out, &route.hedge);
    }
    out
}

fn one_endpoint(out: &mut String, endpoint: &EndpointSettings) {
    let _ = writeln!(out, "  - name: {}\n    url: {}", text(&endpoint.name), text(&endpoint.url));
    match &endpoint.credential {
        Credential::None => {}
        Credential::Key(_) => out.push_str("    key: \"***\"\n"),
        Credential::File { path, .. } => {
            let _ = writeln!(out, "    key_file: {}", text(&path.display().to_string()));
        }
    }
    let _ = writeln!(out, "    dialect: {}", endpoint.dialect.as_str());
    if let Some(model) = &endpoint.model {
        let _ = writeln!(out, "    model: {}", text(model));
    }
    if let Some(window) = endpoint.window {
        let _ = writeln!(out, "    context_window: {window}");
    }
    let said: Vec<String> = Capability::ALL
        .into_iter()
        .filter_map(|one| Some((one.as_str(), endpoint.supports.get(one)?)))
        .map(|(name, can)| format!("{name}: {}", if can { "on" } else { "off" }))
        .collect();
    if !said.is_empty() {
        let _ = writeln!(out, "    supports: {{ {} }}", said.join(", "));
    }
    let Timeouts { connect, idle, .. } = endpoint.timeouts;
    let _ =
        writeln!(out, "    timeouts:\n      connect: {}\n      idle: {}", show_duration(connect), show_duration(idle));
    let Concurrency { mode, max } = endpoint.concurrency;
    let Connections { max_age, dns_refresh } = endpoint.connections;
    let (max_age, dns_refresh) = (show_duration(max_age), show_duration(dns_refresh));
    let _ = writeln!(out, "    connections:\n      max_age: {max_age}\n      dns_refresh: {dns_refresh}");
    if let Some(probe) = &endpoint.probe {
        let (every, timeout) = (show_duration(probe.every), show_duration(probe.timeout));
        let _ = writeln!(
            out,
            "    probe:\n      path: {}\n      every: {every}\n      timeout: {timeout}",
            text(&probe.path)
        );
        let _ = writeln!(out, "      fail_after: {}\n      ok_after: {}", probe.fail_after, probe.ok_after);
    }
    let _ = writeln!(out, "    concurrency:\n      mode: {}\n      max: {max}", mode.as_str());
    breaker(out, &endpoint.breaker);
}

fn hedge(out: &mut String, hedge: &HedgeSettings) {
    if !hedge.on {
        out.push_str("    hedge: off\n");
        return;
    }
    let _ = writeln!(out, "    hedge:\n      after: {}", percentile(hedge.after));
    let _ = writeln!(out, "      budget: {}", show_ratio(hedge.budget));
}

/// A quantile as the config file has it: `p95`.
pub fn percentile(quantile: f64) -> String {
    format!("p{}", (quantile * 100.0).round())
}

fn breaker(out: &mut String, breaker: &BreakerSettings) {
    if !breaker.on {
        out.push_str("    breaker: off\n");
        return;
    }
    let (consecutive, rate, least) = (breaker.consecutive, show_ratio(breaker.failure_rate), breaker.min_calls);
    let _ = writeln!(out, "    breaker:\n      consecutive: {consecutive}\n      failure_rate: {rate}");
    let _ = writeln!(out, "      min_calls: {least}\n      window: {}", show_duration(breaker.window));
    let (first, most) = (show_duration(breaker.open_for), show_duration(breaker.max_open));
    let _ = writeln!(out, "      open_for: {first}\n      max_open: {most}\n      probes: {}", breaker.probes);
}

fn retry(out: &mut String, retry: &RetrySettings) {
    let _ = writeln!(out, "    retry:\n      attempts: {}\n      budget: {}", retry.attempts, show_ratio(retry.budget));
    let (base, max) = (show_duration(retry.backoff.base), show_duration(retry.backoff.max));
    let _ = writeln!(out, "      backoff:\n        base: {base}\n        max: {max}");
    let _ = writeln!(out, "      respect_retry_after: {}", retry.respect_retry_after);
}

/// A scalar, in quotes where YAML would read it as something else.
fn text(value: &str) -> String {
    let plain = !value.is_empty()
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':'))
        && value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !value.ends_with(':')
        && !matches!(
            value.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

//! The starter file: every key of this version with its default and one line of why.
//!
//! Written from the table of keys; `config/outrigger.yaml` is this text. Invariant: it loads as it stands and changes
//! no default.

use super::keys::{self, Found, Place, Row};

const HEAD: &str = "\
# Outrigger: every key, its default, one line of why. A file needs only `version` and one endpoint.
# Durations carry units (250ms, 30s, 2m, 1h), sizes too (64KiB, 32MiB), ratios are percent (20%).
# ${VAR}, ${VAR:-default} and ${VAR:?message} come from the environment: unquoted, on a line of their own.
";

/// The text of the starter file.
pub fn text() -> String {
    let mut out = HEAD.to_owned();
    for section in
        keys::SECTIONS.iter().filter(|section| !keys::children(section, false).is_empty() || is_list_or_value(section))
    {
        if *section != "version" {
            out.push('\n');
        }
        entry(&mut out, section, section, 0, false);
    }
    out
}

fn is_list_or_value(path: &str) -> bool {
    match keys::find(path) {
        Some(Found::Value(row)) => row.built,
        Some(Found::List) => true,
        _ => false,
    }
}

fn entry(out: &mut String, path: &str, name: &str, indent: usize, off: bool) {
    match keys::find(path) {
        Some(Found::Value(row)) => value(out, row, path, name, indent, off),
        Some(Found::Map) if keys::is_off(path) => push(out, indent, off, &format!("{name}: off"), section_why(path)),
        Some(Found::Map) => {
            // A map of which nothing is given by itself would be an empty one.
            let off = off || matches!(path, "endpoints[].supports" | "endpoints[].probe");
            push(out, indent, off, &format!("{name}:"), section_why(path));
            for child in keys::children(path, false) {
                entry(out, &keys::join(path, child), child, indent + 2, off);
            }
        }
        Some(Found::List) => {
            let off = off || path == "server.keys";
            push(out, indent, off, &format!("{name}:"), section_why(path));
            member(out, &format!("{path}[]"), indent + 2, off);
        }
        None => {}
    }
}

fn member(out: &mut String, path: &str, indent: usize, off: bool) {
    let mut first = true;
    for child in keys::children(path, false) {
        let full = keys::join(path, child);
        let own = keys::KEYS
            .iter()
            .any(|key| key.row.at == [Place::Top] && (key.path == full || key.path.starts_with(&format!("{full}."))));
        if !own {
            let why = format!("the same keys as under `defaults`, for {} alone", thing(path));
            let text = match (child, path.starts_with("routes")) {
                ("timeouts", true) => "timeouts: { total: 60s }",
                ("timeouts", false) => "timeouts: { connect: 1s }",
                ("breaker", _) => "breaker: off",
                ("concurrency", _) => "concurrency: { mode: fixed, max: 4 }",
                ("hedge", _) => "hedge: { after: p95, budget: 5% }",
                ("connections", _) => "connections: { max_age: 1m }",
                ("queue", _) => "queue: { wait: 1s }",
                ("stream", _) => "stream: hold",
                ("rescue", _) => "rescue: continue",
                ("retry", _) => "retry: { attempts: 1 }",
                _ => "max_sends: 2",
            };
            push(out, indent + 2, true, text, &why);
            continue;
        }
        let start = out.len();
        entry(out, &full, child, indent + 2, off);
        if first {
            dash(out, start, indent, off);
            first = false;
        }
    }
}

/// Turns the first line written since `start` into the first of a list member.
fn dash(out: &mut String, start: usize, indent: usize, off: bool) {
    let at = start + indent + if off { 2 } else { 0 };
    out.replace_range(at..at + 1, "-");
}

fn thing(path: &str) -> &'static str {
    if path.starts_with("routes") { "this route" } else { "this endpoint" }
}

fn section_why(path: &str) -> &'static str {
    match path {
        "server.keys" => "Clients that may call; without keys only this machine may, or everybody with `auth: none`.",
        "endpoints" => "Where calls may go: one base URL with one credential each.",
        "endpoints[].probe" => "Asks for the endpoint's health in the background.",
        "defaults" => "Policy wherever an endpoint or a route does not say otherwise.",
        "defaults.breaker" => "Leaves an endpoint alone that keeps failing; `breaker: off` never does.",
        "defaults.hedge" => {
            "A second send beside one that is late, as `{ after: p95, budget: 5% }`: in a pool, for streams."
        }
        "endpoints[].supports" => "What its model can do; a call that needs more is not sent there.",
        "routes" => "Which model goes where; the first route that matches wins.",
        _ => "",
    }
}

fn value(out: &mut String, row: &Row, path: &str, name: &str, indent: usize, off: bool) {
    let given = row.default.unwrap_or(row.example);
    let live = row.default.is_some() || keys::REQUIRED.contains(&path) || path == "routes[].name";
    push(out, indent, off || !live, &format!("{name}: {given}"), row.why);
}

fn push(out: &mut String, indent: usize, off: bool, text: &str, why: &str) {
    let lead = " ".repeat(indent);
    let line = if off { format!("# {lead}{text}") } else { format!("{lead}{text}") };
    if why.is_empty() {
        out.push_str(&line);
    } else {
        out.push_str(&format!("{line:<42} # {why}"));
    }
    out.push('\n');
}

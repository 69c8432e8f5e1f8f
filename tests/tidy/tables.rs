//! The rules that hold the reference tables in `docs/` to the code.
//!
//! A table row is a line that begins with a pipe and has its key in backticks in the first cell. Invariant: a
//! name the code has and the table lacks is reported, and the other way round.

use std::collections::BTreeSet;

use outrigger::call::{Class, Counts, Fault, Retry};

use crate::scan::Source;

/// The cells of every row, its key in backticks in the first.
fn rows(markdown: &str) -> Vec<Vec<String>> {
    markdown
        .lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .map(|row| row.split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>())
        .filter(|cells| cells[0].starts_with('`'))
        .collect()
}

/// Every name in backticks in first cells: `a`, `b` may share a row, and a name may carry labels, as `a{b}` does.
fn keys(markdown: &str) -> BTreeSet<String> {
    let cells = rows(markdown);
    cells
        .iter()
        .flat_map(|cells| cells[0].split('`').skip(1).step_by(2))
        .map(|key| key.split(['{', ':', ' ']).next().unwrap_or(key).to_owned())
        .collect()
}

fn fault(class: Class) -> &'static str {
    match class.fault() {
        Fault::Upstream => "endpoint",
        Fault::Credential => "credential",
        Fault::Caller => "caller",
        Fault::Answer => "answer",
        Fault::Local => "outrigger",
        Fault::Client => "client",
    }
}

fn again(class: Class) -> &'static str {
    match class.retry() {
        Retry::Again => "again",
        Retry::Once => "once",
        Retry::Elsewhere => "elsewhere",
        Retry::Never => "never",
    }
}

fn breaker(class: Class) -> &'static str {
    match class.counts() {
        Counts::Both => "both",
        Counts::RatioOnly => "share",
        Counts::Nothing => "no",
        Counts::Credential => "rests",
    }
}

fn status(class: Class) -> String {
    match class {
        Class::Upstream400 => "as upstream".into(),
        Class::ClientDisconnect => "none (499 in the log)".into(),
        _ => class.status().to_string(),
    }
}

/// One row for each class, with the sentence, the fault, what its breaker makes of it and the answer to "sent again?" the code has.
pub fn errors(markdown: &str) -> Vec<String> {
    let page = "docs/reference/errors.md";
    let rows = rows(markdown);
    let mut found = Vec::new();
    for &class in Class::ALL {
        let key = format!("`{class}`");
        let Some(row) = rows.iter().find(|row| row[0] == key) else {
            found.push(format!("{page}: no row for the class {key}"));
            continue;
        };
        let status = status(class);
        let wanted = [class.meaning(), fault(class), again(class), breaker(class), &status];
        for (cell, want) in wanted.iter().enumerate() {
            if row.get(cell + 1).map(String::as_str) != Some(*want) {
                found.push(format!("{page}: row {key}: {:?} should be {want:?}", row.get(cell + 1)));
            }
        }
        if row.len() != 7 || row.iter().any(String::is_empty) {
            found.push(format!("{page}: row {key}: seven cells are due, {} stand there", row.len()));
        }
    }
    let known: BTreeSet<&str> = Class::ALL.iter().map(|class| class.as_str()).collect();
    let strangers = keys(markdown).into_iter().filter(|key| !known.contains(key.as_str()));
    found.extend(strangers.map(|key| format!("{page}: `{key}` is no class of outrigger::call::Class")));
    found
}

/// Metric names in the string literals of some sources.
pub fn metric_names<'a>(sources: impl Iterator<Item = &'a Source>) -> BTreeSet<String> {
    let is_metric = |text: &str| {
        ["outrigger_", "gen_ai_"].iter().any(|prefix| text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    sources.flat_map(|source| &source.literals).map(|(_, text)| text).filter(|text| is_metric(text)).cloned().collect()
}

/// `x-outrigger-*` header names in the string literals of some sources.
pub fn header_names<'a>(sources: impl Iterator<Item = &'a Source>) -> BTreeSet<String> {
    let is_header = |text: &str| {
        text.strip_prefix("x-outrigger-").is_some_and(|rest| !rest.is_empty())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
    };
    sources.flat_map(|source| &source.literals).map(|(_, text)| text).filter(|text| is_header(text)).cloned().collect()
}

/// Holds a page to the names the code has; names with this prefix that only the page has are strangers.
pub fn same(page: &str, markdown: &str, names: &BTreeSet<String>, prefix: &str) -> Vec<String> {
    let rows = keys(markdown);
    let missing = names.difference(&rows).map(|name| format!("{page}: no row for `{name}`"));
    let strangers = rows.difference(names).filter(|name| name.starts_with(prefix));
    missing.chain(strangers.map(|name| format!("{page}: `{name}` is nowhere in the code"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_a_strange_and_a_stale_class_row_are_caught() {
        let page: String = Class::ALL
            .iter()
            .map(|class| {
                let (meaning, fault, again) = (class.meaning(), fault(*class), again(*class));
                let (breaker, status) = (breaker(*class), status(*class));
                format!("| `{class}` | {meaning} | {fault} | {again} | {breaker} | {status} | Wait. |\n")
            })
            .collect();
        assert_eq!(errors(&page), Vec::<String>::new());
        assert_eq!(errors(&page.replace("`dns_failure`", "dns_failure")).len(), 1);
        assert_eq!(errors(&format!("{page}| `gremlins` | a | b | c | d | e | f |\n")).len(), 1);
        assert_eq!(errors(&page.replace("did not resolve", "did resolve")).len(), 1);
        assert_eq!(errors(&page.replacen("| endpoint |", "| caller |", 1)).len(), 1);
    }

    #[test]
    fn a_metric_without_a_row_and_a_row_without_a_metric_are_caught() {
        let code =
            Source::new("src/telemetry/x.rs", "const A: &str = \"outrigger_a_total\"; const P: &str = \"outrigger_\";");
        let names = metric_names([&code].into_iter());
        assert_eq!(names.len(), 1);
        assert_eq!(
            same("m.md", "| name |\n|---|\n| `outrigger_a_total`, `gen_ai_b` | counter |\n", &names, "outrigger_")
                .len(),
            0
        );
        let found = same("m.md", "| `outrigger_b_total` | counter |\n", &names, "outrigger_");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_header_without_a_row_is_caught() {
        let code = Source::new("src/server/x.rs", "const A: &str = \"x-outrigger-id\"; // \"x-outrigger-no\"");
        let names = header_names([&code].into_iter());
        assert_eq!(same("h.md", "", &names, "x-outrigger-"), ["h.md: no row for `x-outrigger-id`"]);
        assert_eq!(same("h.md", "| `x-outrigger-id: ULID` | both |\n", &names, "x-outrigger-").len(), 0);
    }
}

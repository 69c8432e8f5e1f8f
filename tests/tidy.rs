//! The house rules, as tests over the tree: floors, purity, locks, sizes, panics, time, tables, words, the catalogue of faults.
//!
//! Each rule lives under `tests/tidy/` beside a test that plants a violation of it. A rule that is in the way is
//! changed there, in the open, never worked around.

#![allow(clippy::expect_used, reason = "a tree that cannot be read fails the test, and says so")]

#[path = "tidy/catalogue.rs"]
mod catalogue;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/scan.rs"]
mod scan;
#[path = "tidy/tables.rs"]
mod tables;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use scan::Source;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Tracked files, or every file where there is no git: those that are not in a build or cache folder.
fn tracked() -> Vec<String> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-co", "--exclude-standard"]).output();
    match listed {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout)
            .expect("git prints paths in UTF-8")
            .lines()
            .filter(|path| root().join(path).is_file())
            .map(str::to_owned)
            .collect(),
        _ => {
            let mut found = Vec::new();
            walk(&root(), &mut found);
            found
        }
    }
}

fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the tree can be read").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if !["target", ".cache", ".git", "node_modules"].iter().any(|skip| name == *skip) {
                walk(&path, found);
            }
        } else if let Ok(inside) = path.strip_prefix(root()) {
            found.push(inside.to_string_lossy().into_owned());
        }
    }
}

/// The Rust files of a folder, those that hold only tests included.
fn all_sources(folder: &str) -> Vec<Source> {
    tracked()
        .iter()
        .filter(|path| path.starts_with(folder) && path.ends_with(".rs"))
        .map(|path| Source::new(path, &fs::read_to_string(root().join(path)).expect("a source is UTF-8")))
        .collect()
}

fn sources(folder: &str) -> Vec<Source> {
    let all = all_sources(folder);
    let tests: Vec<String> = all.iter().flat_map(|source| source.test_files.clone()).collect();
    let is_test = |path: &str| {
        tests.iter().any(|test| path.strip_prefix(test).is_some_and(|rest| rest == ".rs" || rest.starts_with('/')))
    };
    all.into_iter().filter(|source| !is_test(&source.path)).collect()
}

fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

#[track_caller]
fn none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{} to mend:\n  {}\n", found.len(), found.join("\n  "));
}

fn hold(rule: fn(&Source) -> Vec<String>) -> Vec<String> {
    sources("src/").iter().flat_map(rule).collect()
}

#[test]
fn imports_go_down_the_floors_only() {
    none(hold(rules::floors));
}

#[test]
fn floors_that_decide_are_pure() {
    none(hold(rules::purity));
}

#[test]
fn locks_stand_in_one_file() {
    none(hold(rules::locks));
}

#[test]
fn files_and_functions_are_short_and_say_what_they_own() {
    let files = all_sources("src/");
    let functions = hold(rules::functions);
    none(files.iter().flat_map(rules::size).chain(functions).collect());
}

#[test]
fn nothing_outside_tests_panics_on_purpose() {
    none(hold(rules::panics));
}

#[test]
fn time_and_chance_come_from_the_clock() {
    none(hold(rules::time));
}

#[test]
fn every_class_has_its_row() {
    none(tables::errors(&page("docs/reference/errors.md")));
}

#[test]
fn every_metric_has_its_row() {
    let names = tables::metric_names(sources("src/telemetry").iter());
    if !names.is_empty() {
        let path = "docs/reference/metrics.md";
        none(tables::same(path, &page(path), &names, "outrigger_"));
    }
}

#[test]
fn every_header_has_its_row() {
    let names = tables::header_names(sources("src/server").iter());
    if !names.is_empty() {
        let path = "docs/reference/headers.md";
        none(tables::same(path, &page(path), &names, "x-outrigger-"));
    }
}

#[test]
fn no_file_names_a_workplace() {
    let texts = tracked().into_iter().filter_map(|path| Some((fs::read_to_string(root().join(&path)).ok()?, path)));
    none(texts.flat_map(|(text, path)| rules::workplace(&path, &text)).collect());
}

#[test]
fn tests_never_sleep_and_hope() {
    none(sources("tests/").iter().flat_map(rules::sleeps).collect());
}

/// With `OUTRIGGER_BLESS=1` the page is written anew.
#[test]
fn every_fault_has_the_tests_it_names() {
    let paths = tracked();
    let under = |folder: &str| paths.iter().filter(|path| path.starts_with(folder)).map(|path| page(path)).collect();
    let sources: Vec<Source> = ["src/", "tests/"].into_iter().flat_map(all_sources).collect();
    let drivers = [("sdk", under("tests/sdk/")), ("soak", under("tests/soak/"))].into();
    let known = catalogue::Known::of(&sources, &paths, drivers, page("docs/reference/fault-coverage.md"));
    let catalogue = catalogue::Catalogue::parse(&page("tests/catalogue.yaml")).expect("it is as described in its head");
    none(catalogue::check(&catalogue, &known));
    let (path, wanted) = ("docs/explanation/fault-catalogue.md", catalogue::page(&catalogue, &known));
    if std::env::var_os("OUTRIGGER_BLESS").is_some() {
        fs::write(root().join(path), &wanted).expect("the page can be written");
    }
    assert!(page(path) == wanted, "{path} is not current: run again with OUTRIGGER_BLESS=1");
}

//! The rules on single files. Each takes what it judges and returns one line for every violation.
//!
//! Owns no file system: the tests below plant a violation for each rule, `tidy.rs` brings the real tree.

use crate::scan::{Path, Source};

/// Every module of the library and the floor it lives on. A file imports from strictly lower floors only.
const FLOORS: &[(&str, u8)] = &[
    ("clock", 0),
    ("wire", 1),
    ("call", 2),
    ("dialect", 3),
    ("policy", 3),
    ("validate", 3),
    ("transport", 4),
    ("telemetry", 4),
    ("layer", 5),
    ("config", 6),
    ("stack", 7),
    ("server", 8),
    ("mock", MOCK_FLOOR),
    ("app", 9),
    ("cli", 10),
    ("main", 11),
];

/// The stand-in server stands beside the product: it builds on these two alone, and only the command line uses it.
const MOCK_MAY_IMPORT: [&str; 2] = ["clock", "wire"];
const MOCK_FLOOR: u8 = 9;

/// Floors that decide and translate, and so must stay pure.
const PURE: std::ops::RangeInclusive<u8> = 1..=3;

const LONGEST_FILE: usize = 600;
const LONGEST_FUNCTION: usize = 100;

/// The comment that lets a test sleep.
const PACES: &str = "// paces the load, not a wait";

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// `src/wire/sse.rs` belongs to `wire`, `src/app.rs` to `app`, `src/lib.rs` to nothing.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let module = inside.split('/').next()?.trim_end_matches(".rs");
    (module != "lib").then_some(module)
}

fn is_mock(path: &str) -> bool {
    module_of(path) == Some("mock")
}

/// The top-level module a path leads to, through `crate::` or through enough `super::`.
fn target<'a>(file: &str, path: &'a Path) -> Option<&'a str> {
    let segments: Vec<&str> = path.segments.iter().map(String::as_str).collect();
    match *segments.first()? {
        "crate" => segments.get(1).copied(),
        "outrigger" if file == "src/main.rs" => segments.get(1).copied(),
        "super" => {
            let depth = file.trim_start_matches("src/").trim_end_matches("/mod.rs").split('/').count();
            let ups = segments.iter().take_while(|segment| **segment == "super").count();
            if ups < depth { None } else { segments.get(ups).copied() }
        }
        _ => None,
    }
}

/// Imports go down the floors only.
pub fn floors(source: &Source) -> Vec<String> {
    let Some(own) = module_of(&source.path) else { return Vec::new() };
    let Some(own_floor) = floor_of(own) else {
        return vec![format!("{}:1: module `{own}` has no floor; give it one in tests/tidy/rules.rs", source.path)];
    };
    let mut found = Vec::new();
    for path in source.paths() {
        let Some(other) = target(&source.path, &path).filter(|other| *other != own) else { continue };
        let complaint = match floor_of(other) {
            None => Some("is not a module with a floor".to_owned()),
            Some(_) if own == "mock" && !MOCK_MAY_IMPORT.contains(&other) => {
                Some(format!("is out of reach: mock builds on {MOCK_MAY_IMPORT:?} only"))
            }
            Some(floor) if floor >= own_floor => {
                Some(format!("is on floor {floor}, `{own}` on {own_floor}; imports only go down"))
            }
            Some(_) => None,
        };
        if let Some(complaint) = complaint {
            found.push(format!("{}:{}: `{path}`: `{other}` {complaint}", source.path, path.line));
        }
    }
    found
}

/// Floors 1 to 3 decide without a runtime, a network, a clock, a lock or chance.
pub fn purity(source: &Source) -> Vec<String> {
    const CRATES: [&str; 10] =
        ["tokio", "tower", "tower_http", "hyper", "hyper_util", "reqwest", "axum", "tracing", "prometheus", "fastrand"];
    const PATHS: [&[&str]; 3] = [&["crate", "clock"], &["Instant", "now"], &["SystemTime", "now"]];
    let pure = module_of(&source.path).and_then(floor_of).is_some_and(|floor| PURE.contains(&floor));
    if !pure {
        return Vec::new();
    }
    let mut found = locks_named(source, "on a pure floor");
    for path in source.paths() {
        let names_crate = path.segments.first().is_some_and(|first| CRATES.contains(&first.as_str()));
        let to_clock = target(&source.path, &path) == Some("clock");
        if names_crate || to_clock || PATHS.iter().any(|part| path.contains(part)) {
            found.push(format!("{}:{}: `{path}` on a pure floor", source.path, path.line));
        }
    }
    found
}

/// Locks are written in one file, so that their order and their holders can be read there.
pub fn locks(source: &Source) -> Vec<String> {
    if source.path.starts_with("src/layer/state/") || is_mock(&source.path) {
        return Vec::new();
    }
    locks_named(source, "outside src/layer/state/")
}

fn locks_named(source: &Source, place: &str) -> Vec<String> {
    let mut lines: Vec<(usize, &str)> = source
        .tokens
        .iter()
        .filter(|token| ["Mutex", "RwLock"].contains(&token.text.as_str()))
        .map(|token| (token.line, token.text.as_str()))
        .collect();
    lines.dedup();
    lines.iter().map(|(line, name)| format!("{}:{line}: `{name}` {place}", source.path)).collect()
}

/// Files stay short, and each says what it owns.
pub fn size(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let lines = source.text.lines().count();
    if lines > LONGEST_FILE {
        found.push(format!("{}: {lines} lines; split it at {LONGEST_FILE}", source.path));
    }
    if !source.text.starts_with("//!") {
        found.push(format!("{}:1: no `//!` head that says what the file owns", source.path));
    }
    found
}

/// Functions fit a screen or two; the tables of tests may be longer.
pub fn functions(source: &Source) -> Vec<String> {
    source
        .functions()
        .into_iter()
        .filter(|(.., length)| *length > LONGEST_FUNCTION)
        .map(|(name, line, length)| {
            format!("{}:{line}: `{name}` has {length} lines, over {LONGEST_FUNCTION}", source.path)
        })
        .collect()
}

/// Nothing outside tests may panic on purpose or be left half done.
pub fn panics(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let call = at > 0 && source.is(".", at - 1) && source.is("(", at + 1);
        let bad = match token.text.as_str() {
            "unwrap" | "expect" => call,
            "todo" | "unimplemented" | "dbg" => source.is("!", at + 1),
            _ => false,
        };
        if bad {
            found.push(format!("{}:{}: `{}` outside tests", source.path, token.line, token.text));
        }
    }
    found
}

/// Time and chance come from `clock.rs`, so that tests can replace both.
pub fn time(source: &Source) -> Vec<String> {
    const BANNED: [&[&str]; 5] =
        [&["Instant", "now"], &["SystemTime", "now"], &["time", "sleep"], &["time", "sleep_until"], &["fastrand"]];
    if source.path == "src/clock.rs" || is_mock(&source.path) {
        return Vec::new();
    }
    source
        .paths()
        .iter()
        .filter(|path| BANNED.iter().any(|part| path.contains(part)))
        .map(|path| format!("{}:{}: `{path}` outside src/clock.rs", source.path, path.line))
        .collect()
}

/// Tests wait for what they wait for; they never sleep and hope. On a paused clock `clock::sleep` is no wait.
pub fn sleeps(source: &Source) -> Vec<String> {
    const SLEEPS: [&[&str]; 2] = [&["thread", "sleep"], &["time", "sleep"]];
    let lines: Vec<&str> = source.text.lines().collect();
    source
        .paths()
        .iter()
        .filter(|path| SLEEPS.iter().any(|part| path.contains(part)))
        .filter(|path| !lines[path.line - 1].trim_end().ends_with(PACES))
        .map(|path| format!("{}:{}: `{path}` as a wait; wait for the event itself", source.path, path.line))
        .collect()
}

/// What belongs to the place a change was made in, not to the project.
pub fn workplace(path: &str, text: &str) -> Vec<String> {
    // Written in pieces, so that this file passes its own test.
    const WORDS: [&str; 8] = [
        concat!("/wor", "k/"),
        concat!("../sha", "red"),
        concat!("registry.npm", "js.org"),
        concat!("files.python", "hosted.org"),
        concat!("pypi", ".org"),
        concat!("index.crates", ".io"),
        concat!("index", "-url"),
        concat!("\"reso", "lved\""),
    ];
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for word in WORDS.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{path}:{}: `{word}` belongs to a workplace, not to the project", number + 1));
        }
        let foreign = path.ends_with("Cargo.lock")
            && line.starts_with("source = ")
            && line != "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
        if foreign {
            found.push(format!("{path}:{}: {line}: not crates.io", number + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planted(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
        rule(&Source::new(path, text))
    }

    fn catches(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, line: &str) {
        let found = planted(rule, path, text);
        assert!(found.iter().any(|one| one.starts_with(&format!("{path}:{line}"))), "{found:?}");
    }

    fn passes(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) {
        assert_eq!(planted(rule, path, text), Vec::<String>::new());
    }

    #[test]
    fn imports_up_and_across_are_caught() {
        catches(floors, "src/wire/sse.rs", "\nuse crate::{call::Class, wire::x};", "2: `crate::call::Class`");
        catches(floors, "src/policy/plan.rs", "fn f() { crate::dialect::x() }", "1");
        catches(floors, "src/telemetry/mod.rs", "use crate::transport::leaf;", "1");
        catches(floors, "src/call/mod.rs", "use super::policy::Plan;", "1");
        catches(floors, "src/call/class.rs", "use super::super::policy::Plan;", "1");
        catches(floors, "src/app.rs", "use crate::cli;", "1");
        catches(floors, "src/mock/mod.rs", "use crate::call::Class;", "1");
        catches(floors, "src/server/mod.rs", "use crate::mock::Mock;", "1");
        catches(floors, "src/server/mod.rs", "use crate::Class;", "1");
        catches(floors, "src/helpers/mod.rs", "", "1");
    }

    #[test]
    fn imports_down_and_at_home_pass() {
        passes(floors, "src/layer/retry.rs", "use crate::{call, policy::plan}; use super::state; use crate::clock;");
        passes(floors, "src/call/class.rs", "use super::reply::Reply; use crate::wire::sse;");
        passes(floors, "src/mock/mod.rs", "use crate::{clock, wire};");
        passes(floors, "src/cli/demo.rs", "use crate::{app, mock};");
        passes(floors, "src/main.rs", "use outrigger::cli;");
        passes(floors, "src/lib.rs", "pub mod call; pub use crate::call::Class;");
        passes(floors, "src/wire/x.rs", "#[cfg(test)] mod tests { use crate::call::Class; }");
    }

    #[test]
    fn the_world_is_caught_on_pure_floors() {
        for line in [
            "use tokio::sync::mpsc;",
            "fn f() { tower::util::x() }",
            "use std::{sync::Mutex};",
            "struct S(RwLock<u8>);",
            "fn f() { std::time::Instant::now(); }",
            "fn f() { SystemTime::now(); }",
            "use crate::clock;",
            "use super::super::clock::now;",
            "fn f() { fastrand::f64(); }",
            "use tracing::info;",
            "use prometheus::Registry;",
        ] {
            catches(purity, "src/policy/backoff.rs", line, "1");
        }
        passes(purity, "src/policy/backoff.rs", "use std::time::Instant; fn f(now: Instant, clock: u8) {}");
        passes(purity, "src/layer/retry.rs", "use tokio::sync::mpsc;");
    }

    #[test]
    fn locks_elsewhere_are_caught() {
        catches(locks, "src/server/status.rs", "use std::sync::{Arc, Mutex};", "1");
        catches(locks, "src/layer/retry.rs", "struct A { b: tokio::sync::RwLock<u8> }", "1");
        passes(locks, "src/layer/state/slots.rs", "use std::sync::Mutex;");
        passes(locks, "src/mock/stats.rs", "use std::sync::Mutex;");
    }

    #[test]
    fn long_files_long_functions_and_missing_heads_are_caught() {
        catches(size, "src/a.rs", "fn a() {}", "1: no `//!`");
        catches(functions, "src/a.rs", &format!("//! A.\nfn b() {{{}}}", "\n".repeat(100)), "2: `b` has 101");
        assert_eq!(planted(size, "src/a.rs", &"//! A.\n".repeat(601)).len(), 1);
        passes(functions, "src/a.rs", &format!("//! A.\nfn b() {{{}}}", "\n".repeat(99)));
    }

    #[test]
    fn panics_are_caught_outside_tests_only() {
        for line in
            ["fn f() { g().unwrap() }", "fn f() { g().expect(\"h\") }", "fn f() { todo!() }", "fn f() { dbg!(1) }"]
        {
            catches(panics, "src/a.rs", line, "1");
        }
        passes(panics, "src/a.rs", "#[expect(dead_code)] fn f() { g().unwrap_or(1) } // h.unwrap()");
        passes(panics, "src/a.rs", "#[cfg(test)]\nmod tests { fn f() { g().unwrap() } }");
    }

    #[test]
    fn the_wall_clock_and_chance_are_caught() {
        for line in [
            "fn f() { Instant::now(); }",
            "fn f() { std::time::SystemTime::now(); }",
            "use tokio::time::{self, sleep};",
            "async fn f() { time::sleep(d).await }",
            "fn f() { fastrand::u8(..); }",
        ] {
            catches(time, "src/layer/retry.rs", line, "1");
            passes(time, "src/clock.rs", line);
            passes(time, "src/mock/serve.rs", line);
        }
    }

    #[test]
    fn sleeping_tests_are_caught() {
        catches(sleeps, "tests/it/a.rs", "\nfn f() { std::thread::sleep(d); }", "2");
        catches(sleeps, "tests/it/a.rs", "use tokio::time::sleep;", "1");
        passes(sleeps, "tests/it/a.rs", &format!("async fn f() {{ tokio::time::sleep(d).await; }} {PACES}"));
    }

    #[test]
    fn words_of_a_workplace_are_caught() {
        let path = concat!("see /wor", "k/notes");
        assert_eq!(workplace("README.md", path).len(), 1);
        assert_eq!(workplace("Cargo.lock", "source = \"git+https://example.org/a\"").len(), 1);
        assert_eq!(workplace("README.md", "it will work/rest").len(), 0);
    }
}

//! Writing to the terminal.
//!
//! Owns which stream a text goes to, and whether it keeps its colours: only on a terminal, and never under `NO_COLOR`.
//! Invariant: a reader that goes away early, such as `head`, is no error.

use std::io::Write as _;

use crate::config::{Loaded, Report};

use super::BAD_CONFIG;

/// What was asked for, to stdout.
pub fn data(text: &str) {
    let mut stream = anstream::stdout().lock();
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

/// What is said beside it, to stderr.
pub fn talk(text: &str) {
    let mut stream = anstream::stderr().lock();
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

/// The warnings of a config that loaded.
pub fn warnings(loaded: &Loaded) {
    if !loaded.warnings.problems.is_empty() {
        talk(&format!("{}\n", loaded.warnings.render(true)));
    }
}

/// Everything that is wrong with a config that did not load, and the exit code for it.
pub fn refuse(report: &Report) -> u8 {
    talk(&format!("{}\n{}\n", report.render(true), count(report)));
    BAD_CONFIG
}

/// `3 errors, 1 warning`.
pub fn count(report: &Report) -> String {
    let of = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    match (report.errors(), report.warnings()) {
        (errors, 0) => of(errors, "error"),
        (0, warnings) => of(warnings, "warning"),
        (errors, warnings) => format!("{}, {}", of(errors, "error"), of(warnings, "warning")),
    }
}

/// `text` in green or red.
pub fn mark(good: bool) -> &'static str {
    if good { "\u{1b}[32m✔\u{1b}[0m" } else { "\u{1b}[31m✘\u{1b}[0m" }
}

//! The reference page of the command line, `docs/reference/cli.md`.
//!
//! Written from what clap itself prints as help; a test compares it with the page that is checked in.

use clap::{Command, CommandFactory};

use super::Cli;

const HEAD: &str = "\
# The command line

<!-- Written by the code: `cargo test` says how to bring it up to date. -->

Data goes to stdout and talk to stderr. Colour only on a terminal, and never with `NO_COLOR` set.

| exit code | meaning |
|---|---|
| 0 | fine |
| 1 | failed |
| 2 | the command line is wrong |
| 3 | a goal was missed |
| 78 | the config is wrong |
";

/// The page.
pub fn page() -> String {
    let mut out = HEAD.to_owned();
    let mut command = Cli::command();
    command.build();
    section(&mut out, &mut command, "");
    out
}

fn section(out: &mut String, command: &mut Command, parent: &str) {
    let name =
        if parent.is_empty() { command.get_name().to_owned() } else { format!("{parent} {}", command.get_name()) };
    let help = command.render_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    out.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end()));
    for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
        section(out, inner, &name);
    }
}

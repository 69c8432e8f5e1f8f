//! The reference page of the config file, `docs/reference/config.md`.
//!
//! Written from the table of keys and the list of codes; a test compares it with the page that is checked in.

use std::fmt::Write as _;

use super::keys::{self, KEYS, Key, Place};
use super::report::Code;

const HEAD: &str = "\
# The config file

<!-- Written by the code: `cargo test` says how to bring it up to date. -->

YAML, in `./outrigger.yaml` unless `-c FILE` or `OUTRIGGER_CONFIG` names another. `outrigger config init` writes a file
with every key, `outrigger check` reads one without starting anything, `outrigger config show` prints what is in force,
`outrigger explain` says where each value comes from.

- Durations carry a unit: `250ms`, `30s`, `2m`, `1h`. Sizes too: `64KiB`, `32MiB`, `10MB`. Ratios are percent: `20%`.
- `${VAR}`, `${VAR:-default}` and `${VAR:?message}` come from the environment. They work in unquoted values on a line of
  their own, not in quotes and not inside `{ }` or `[ ]`. `$${` is a literal `${`.
- A relative path starts at the directory of the config file.
- Values merge in this order: built in, `defaults`, the endpoint or the route.
- `breaker: off` in place of its map switches the breaker off; a map under an endpoint switches it on again.
- Hedging is off until there is a `hedge` map; `hedge: {}` has both defaults, `hedge: off` on a route switches it off there.
- Without `routes`, a file with exactly one endpoint sends every call there.
";

/// The page.
pub fn page() -> String {
    let mut out = HEAD.to_owned();
    for section in keys::SECTIONS {
        let rows: Vec<&Key> = KEYS.iter().filter(|key| key.row.built && in_section(key, section)).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(out, "\n## `{section}`\n\n| key | value | default | why |\n|---|---|---|---|\n");
        for key in rows.iter().filter(|key| key.row.at == [Place::Top] || *section == "defaults") {
            let default = match key.row.default {
                Some(default) => format!("`{default}`"),
                None if keys::REQUIRED.contains(&key.path.as_str()) => "required".to_owned(),
                None => "none".to_owned(),
            };
            let _ = writeln!(out, "| `{}` | {} | {default} | {} |", key.path, keys::wants(key.row.ty), key.row.why);
        }
        inherited(&mut out, section, &rows);
    }
    restart(&mut out);
    later(&mut out);
    codes(&mut out);
    out
}

fn in_section(key: &Key, section: &str) -> bool {
    key.path.split(['.', '[']).next() == Some(section)
}

fn inherited(out: &mut String, section: &str, rows: &[&Key]) {
    let names: Vec<String> = rows
        .iter()
        .filter(|key| key.row.at != [Place::Top] && section != "defaults")
        .map(|key| format!("`{}`", key.row.path))
        .collect();
    if !names.is_empty() {
        let _ = writeln!(out, "\nAnd, over what `defaults` says: {}.", names.join(", "));
    }
}

fn restart(out: &mut String) {
    let keys: Vec<String> = KEYS.iter().filter(|key| key.row.restart).map(|key| format!("`{}`", key.path)).collect();
    let _ = write!(
        out,
        "\n## Change it while it runs\n\nEvery key takes effect at a [reload](../how-to/reload.md), except these, which need a restart: {}.\n",
        keys.join(", ")
    );
}

fn later(out: &mut String) {
    out.push_str("\n## Not in this version\n\nThese keys are planned. A file that holds one is refused, so that nothing is believed to act that does not.\n\n");
    for key in KEYS.iter().filter(|key| !key.row.built) {
        let _ = writeln!(out, "- `{}`: {}", key.path, key.row.why);
    }
}

fn codes(out: &mut String) {
    out.push_str("\n## Errors and warnings\n\nAll of a file's problems are told at once. An error stops the start, with exit code 78; a warning does not, except under\n`outrigger check --deny-warnings`.\n\n| code | meaning |\n|---|---|\n");
    for code in Code::ALL {
        let _ = writeln!(out, "| {} | {} |", code.as_str(), code.meaning());
    }
}

//! Walks the tree beside the table of keys: unknown keys, keys of a later version, values of the wrong kind.
//!
//! Owns everything that can be said of one value by itself. What values say of each other is `resolve.rs` and
//! `lints.rs`. Invariant: after a walk without errors every reader of `resolve.rs` finds the kind it expects.

use std::net::SocketAddr;

use super::keys::{self, Found, Row, Type};
use super::nearest::nearest;
use super::report::{Code, Problem};
use super::tree::{Key, Kind, Node, Scalar, Span};
use super::units::{self, UnitError};
use super::url;

/// The first character of the file.
const TOP: Span = Span { line: 1, column: 1, start: 0, end: 0 };

/// Reports everything that is wrong with single keys and values.
pub fn walk(root: &Node, problems: &mut Vec<Problem>) {
    match root.kind {
        Kind::Map(_) => map(root, "", problems),
        Kind::Broken => {}
        _ => problems.push(
            Problem::new(Code::WrongType, TOP, "the file must hold a map of keys")
                .label("no key here")
                .help("`outrigger config init` writes a file to start from"),
        ),
    }
}

fn map(node: &Node, path: &str, problems: &mut Vec<Problem>) {
    for (key, value) in node.entries() {
        let full = keys::join(path, &key.name);
        match keys::find(&full) {
            None => problems.push(match value.text().filter(|text| !harmless(text)) {
                Some(_) => unknown(key, path).hide(value.span),
                None => unknown(key, path),
            }),
            Some(Found::Value(row)) if !row.built => problems.push(not_available(key, &full)),
            Some(Found::Value(row)) => scalar(value, key, row, problems),
            Some(Found::Map) => match value.kind {
                Kind::Map(_) => map(value, &full, problems),
                Kind::Null | Kind::Broken => {}
                _ if keys::may_be_off(&full) && value.text() == Some("off") => {}
                _ if keys::may_be_off(&full) => {
                    problems.push(kind(value, key, "a map of keys, or `off`", &example(&full)));
                }
                _ => problems.push(kind(value, key, "a map of keys", &example(&full))),
            },
            Some(Found::List) => list(value, key, &full, problems),
        }
    }
}

fn list(value: &Node, key: &Key, full: &str, problems: &mut Vec<Problem>) {
    match &value.kind {
        Kind::Seq(items) => {
            let member = format!("{full}[]");
            for item in items {
                match item.kind {
                    Kind::Map(_) => map(item, &member, problems),
                    Kind::Broken => {}
                    _ => problems.push(kind(item, key, "a map of keys as each member", &example(&member))),
                }
            }
        }
        Kind::Null | Kind::Broken => {}
        _ => problems.push(kind(value, key, "a list", &format!("each member begins with `- {}:`", first(full)))),
    }
}

fn first(full: &str) -> &'static str {
    keys::children(&format!("{full}[]"), false).first().copied().unwrap_or("name")
}

fn example(full: &str) -> String {
    let names: Vec<String> = keys::children(full, false).iter().map(|name| format!("`{name}`")).collect();
    format!("`{}` holds {}", full.trim_end_matches("[]"), names.join(", "))
}

fn kind(value: &Node, key: &Key, wanted: &str, help: &str) -> Problem {
    let got = match value.kind {
        Kind::Map(_) => "a map",
        Kind::Seq(_) => "a list",
        _ => "a single value",
    };
    Problem::new(Code::WrongType, value.span, format!("`{}` must be {wanted}", key.name))
        .label(format!("this is {got}"))
        .help(help)
}

/// Whether a value is plainly no secret, so that it may be shown beside a key that is not known.
fn harmless(text: &str) -> bool {
    units::duration(text).is_ok()
        || units::size(text).is_ok()
        || units::ratio(text).is_ok()
        || text.parse::<SocketAddr>().is_ok()
        || text.len() <= 5
        || matches!(text, "true" | "false")
        || url::base(text).is_ok()
}

fn unknown(key: &Key, path: &str) -> Problem {
    let known = keys::children(path, false);
    let place = match path {
        "" => "the top level".to_owned(),
        "endpoints[]" => "an endpoint".to_owned(),
        "routes[]" => "a route".to_owned(),
        "server.keys[]" => "a client key".to_owned(),
        _ => format!("`{}`", path.replace("[]", "")),
    };
    let problem = Problem::new(Code::UnknownKey, key.span, format!("unknown key `{}`", key.name));
    if let Some(meant) = nearest(&key.name, &known) {
        return problem.label(format!("{place} has no such key; did you mean `{meant}`?"));
    }
    let problem = problem.label(format!("{place} has no such key"));
    let elsewhere = keys::KEYS.iter().find(|other| {
        other.row.built && other.path.rsplit(['.']).next().is_some_and(|last| last.trim_end_matches("[]") == key.name)
    });
    match elsewhere {
        Some(other) => {
            let parent = other.path.rsplit_once('.').map_or("the top level", |(parent, _)| parent);
            problem.help(format!("`{}` belongs under `{}`", key.name, parent.trim_end_matches("[]")))
        }
        None => {
            let names: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            problem.help(format!("known here: {}", names.join(", ")))
        }
    }
}

fn not_available(key: &Key, full: &str) -> Problem {
    let shown = full.replace("[]", "");
    Problem::new(Code::NotAvailable, key.span, format!("`{shown}` is not available in this version"))
        .label("known, but not built yet")
        .help(format!("remove `{}`: nothing would act on it", key.name))
}

fn scalar(value: &Node, key: &Key, row: &Row, problems: &mut Vec<Problem>) {
    if row.ty == Type::Targets {
        return targets(value, key, problems);
    }
    match &value.kind {
        Kind::Broken => {}
        Kind::Null => problems.push(
            Problem::new(Code::Missing, key.span, format!("`{}` has no value", key.name))
                .label(format!("wants {}", keys::wants(row.ty))),
        ),
        Kind::Scalar(scalar) => {
            if let Err((code, label, help)) = value_of(scalar, row.ty) {
                let shown = if row.ty == Type::Secret { "***" } else { scalar.written.as_str() };
                let mut problem =
                    Problem::new(code, value.span, format!("`{}` cannot be `{shown}`", key.name)).label(label);
                problem.help = help;
                problems.push(problem);
            }
        }
        _ => problems.push(kind(value, key, &keys::wants(row.ty), "write one value")),
    }
}

fn targets(value: &Node, key: &Key, problems: &mut Vec<Problem>) {
    match &value.kind {
        Kind::Seq(items) => {
            for item in items {
                target(item, key, problems);
            }
        }
        Kind::Null | Kind::Broken => {}
        _ => problems.push(kind(value, key, "a list of targets", "write `targets: [name]`")),
    }
}

fn target(item: &Node, key: &Key, problems: &mut Vec<Problem>) {
    for (inner, value) in item.entries() {
        match inner.name.as_str() {
            "balance" if !matches!(value.kind, Kind::Seq(_) | Kind::Broken) => {
                problems.push(kind(value, inner, "a list of endpoints", "write `{ balance: [a, b] }`"));
            }
            "balance" => {}
            "by" if item.get("balance").is_none() => {
                let problem = Problem::new(Code::UnknownKey, inner.span, "`by` says how a pool shares its load");
                problems.push(problem.label("this target is no pool").help("a pool is written `{ balance: [a, b] }`"));
            }
            "by" if !matches!(value.text(), Some("load" | "prefix")) => {
                problems.push(kind(value, inner, "one of `load`, `prefix`", "write `{ balance: [a, b], by: prefix }`"));
            }
            "by" => {}
            _ => {
                let problem = Problem::new(Code::UnknownKey, inner.span, format!("unknown key `{}`", inner.name));
                let meant = nearest(&inner.name, &["balance", "by"]);
                problems.push(match meant {
                    Some(meant) => problem.label(format!("a pool has no such key; did you mean `{meant}`?")),
                    None => problem.label("a pool has no such key").help("a pool is written `{ balance: [a, b] }`"),
                });
            }
        }
    }
    let odd = match &item.kind {
        Kind::Scalar(_) | Kind::Broken => false,
        Kind::Map(entries) => entries.is_empty(),
        _ => true,
    };
    if odd {
        problems.push(kind(item, key, "a list of endpoint names and pools", "a pool is written `{ balance: [a, b] }`"));
    }
}

type Flaw = (Code, String, Option<String>);

fn value_of(scalar: &Scalar, ty: Type) -> Result<(), Flaw> {
    let text = scalar.text.as_str();
    let flaw = |code: Code, label: String| Err((code, label, None));
    match ty {
        Type::Text | Type::Secret | Type::Path | Type::Later | Type::Targets => Ok(()),
        Type::Name => name(text),
        Type::Url => url::base(text).map(drop).map_err(|why| (Code::BadUrl, why.label, Some(why.help))),
        Type::Address => match text.parse::<SocketAddr>() {
            Ok(_) => Ok(()),
            Err(_) => Err((Code::BadAddress, "not an address with a port".to_owned(), Some(address_help(text)))),
        },
        Type::Duration | Type::Clock => match units::duration(text) {
            Ok(value) if value.is_zero() && ty == Type::Clock => Err((
                Code::Zero,
                "must be longer than zero".to_owned(),
                Some("there is no way to switch a clock off: give it a long time".to_owned()),
            )),
            Ok(_) => Ok(()),
            Err(error) => Err(quantity(error, ty)),
        },
        Type::Between(low, high) => match units::duration(text) {
            Ok(value)
                if (u64::from(low)..=u64::from(high)).contains(&value.as_secs())
                    && value.as_secs_f64() <= f64::from(high) =>
            {
                Ok(())
            }
            Ok(_) => flaw(Code::BadValue, format!("wants {}", keys::wants(ty))),
            Err(error) => Err(quantity(error, ty)),
        },
        Type::HttpPath if text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') => Ok(()),
        Type::HttpPath => flaw(Code::BadValue, format!("wants {}", keys::wants(ty))),
        Type::Size => match units::size(text) {
            Ok(0) => flaw(Code::Zero, "must be more than zero".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(quantity(error, ty)),
        },
        Type::Amount => match units::amount(text) {
            Ok(0) => flaw(Code::Zero, "must be more than zero".to_owned()),
            Ok(_) => Ok(()),
            Err(error) => Err(quantity(error, ty)),
        },
        Type::Ratio => units::ratio(text).map(drop).map_err(|error| quantity(error, ty)),
        Type::Count(low, high) => match text.parse::<u32>() {
            Ok(value) if (low..=high).contains(&value) => Ok(()),
            Ok(0) => flaw(Code::Zero, format!("wants {}", keys::wants(ty))),
            _ => flaw(Code::BadValue, format!("wants {}", keys::wants(ty))),
        },
        Type::Switch if matches!(text, "true" | "false") => Ok(()),
        Type::Switch => flaw(Code::BadValue, format!("wants {}", keys::wants(ty))),
        Type::Choice(words) if words.contains(&text) => Ok(()),
        Type::Choice(words) => {
            let meant = nearest(text, words).map(|word| format!("did you mean `{word}`?"));
            Err((Code::BadValue, format!("wants {}", keys::wants(ty)), meant))
        }
    }
}

fn name(text: &str) -> Result<(), Flaw> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() {
        Err((Code::Missing, "a name cannot be empty".to_owned(), None))
    } else if text.len() > 64 {
        Err((Code::BadValue, "a name has at most 64 characters".to_owned(), None))
    } else if text.chars().all(fits) {
        Ok(())
    } else {
        Err((Code::BadValue, "names go into headers and metrics: letters, digits, `-`, `_`, `.`".to_owned(), None))
    }
}

fn address_help(text: &str) -> String {
    if let Some(port) = text.strip_prefix(':').filter(|port| port.parse::<u16>().is_ok()) {
        format!("write `0.0.0.0:{port}` for every interface or `127.0.0.1:{port}` for this machine only")
    } else if text.parse::<u16>().is_ok() {
        format!("write `127.0.0.1:{text}`")
    } else if let Some(port) = text.strip_prefix("localhost:") {
        format!("write `127.0.0.1:{port}`")
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        "add a port".to_owned()
    } else {
        "write an IP address and a port, such as `127.0.0.1:8700`".to_owned()
    }
}

fn quantity(error: UnitError, ty: Type) -> Flaw {
    let wanted = keys::wants(ty);
    match error {
        UnitError::MissingUnit(meant) => {
            (Code::NoUnit, format!("has no unit; did you mean `{meant}`?"), Some(format!("write {wanted}")))
        }
        UnitError::UnknownUnit(unit) => {
            (Code::BadQuantity, format!("`{unit}` is not a unit here"), Some(format!("write {wanted}")))
        }
        UnitError::NotANumber => (Code::BadQuantity, format!("wants {wanted}"), None),
        UnitError::TooLarge => (Code::BadQuantity, "too large".to_owned(), Some(format!("write {wanted}"))),
    }
}

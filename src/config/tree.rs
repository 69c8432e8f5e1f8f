//! A YAML text as a tree that remembers where every value stood.
//!
//! Owns parsing, `${VAR}` interpolation and what is wrong with the text as text: syntax, duplicate keys, variables
//! that are not set, references left in quotes. Knows no key by name: that is `keys.rs`. Invariant: a value that came
//! out of the environment is marked, and a problem shows the text of the file, never the value behind it.

use std::collections::HashMap;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Spanned};

use super::report::{Code, Problem};

/// A place in the file. Lines and columns count from 1, columns in characters; `start..end` are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Line, from 1; 0 when there is no place to point at.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub span: Span,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// One value.
    Scalar(Scalar),
    /// A list.
    Seq(Vec<Node>),
    /// A map, in the order of the file, each key once.
    Map(Vec<(Key, Node)>),
    /// A value that has been reported already; readers pass over it in silence.
    Broken,
}

/// A scalar as text: the type is for the reader to decide.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// After interpolation.
    pub text: String,
    /// As written in the file; what messages may show.
    pub written: String,
    /// Whether the environment had a part in it.
    pub interpolated: bool,
    /// Whether it stood in quotes or in a block.
    pub quoted: bool,
}

/// A key of a map.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its text.
    pub name: String,
    /// Where it stands.
    pub span: Span,
}

impl Node {
    /// The value under `name` if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entries().iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// The pairs of a map; nothing for anything else.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The members of a list; nothing for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            Kind::Seq(items) => items,
            _ => &[],
        }
    }

    /// The text of a scalar, without what is empty.
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(scalar) if !scalar.text.is_empty() => Some(&scalar.text),
            _ => None,
        }
    }
}

/// Stands in for a variable that is not set, so that one reading of the file finds all of them.
const UNSET: &str = "\u{1}unset\u{1}";

/// Reads `source`, with `variables` for `${...}`. What is wrong goes to `problems`; `None` when there is no tree at all.
pub fn parse(source: &str, variables: &HashMap<String, String>, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut variables = variables.clone();
    loop {
        match read(source, &variables) {
            Ok(raw) => return Some(Builder { source, problems }.node(raw)),
            Err(error) => {
                let (problem, unset) = explain(error.without_snippet(), source);
                problems.push(problem);
                match unset {
                    // Set it and read again: the next variable that is missing is found too.
                    Some(name) if problems.len() < 100 => variables.insert(name, UNSET.to_owned()),
                    _ => return None,
                };
            }
        }
    }
}

fn read(source: &str, variables: &HashMap<String, String>) -> Result<Spanned<Raw>, Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(source, options.with_properties(variables.clone()))
}

fn explain(error: &Error, source: &str) -> (Problem, Option<String>) {
    let span = error.location().map_or(Span::default(), |location| span(location, source));
    match error {
        Error::UnresolvedProperty { name, .. } => {
            let problem = Problem::new(Code::Unset, span, format!("the environment variable `{name}` is not set"))
                .label("needed here")
                .help(format!("set {name}, or write `${{{name}:-}}` if it may be empty"));
            (problem, Some(name.clone()))
        }
        Error::PropertyRequiredButUnset { name, message, .. }
        | Error::PropertyRequiredButEmpty { name, message, .. } => {
            let state = if matches!(error, Error::PropertyRequiredButEmpty { .. }) { "empty" } else { "not set" };
            let mut problem = Problem::new(Code::Unset, span, format!("the environment variable `{name}` is {state}"))
                .label("needed here");
            if !message.is_empty() {
                problem = problem.help(message.clone());
            }
            (problem, Some(name.clone()))
        }
        Error::InvalidPropertyName { name, .. } => {
            let problem = Problem::new(Code::Unset, span, format!("`{name}` is no name of an environment variable"))
                .label("not a name")
                .help("write `${NAME}` with letters, digits and `_`, or `$${` for a literal `${`");
            (problem, None)
        }
        other => {
            let message = other.to_string();
            let first = message.lines().next().unwrap_or("not YAML").trim_end_matches(['.', ':']).to_owned();
            let mut problem =
                Problem::new(Code::Syntax, span, format!("this is not valid YAML: {first}")).label("here");
            if line(source, span.line).contains("${") {
                problem = problem
                    .help("inside `{ }` or `[ ]` a `${VAR}` breaks the syntax: put the value on a line of its own");
            } else if line(source, span.line).contains('\t') {
                problem = problem.help("YAML indents with spaces, never with tabs");
            }
            (problem, None)
        }
    }
}

/// The text of line `number`, counted from 1.
pub fn line(source: &str, number: usize) -> &str {
    number.checked_sub(1).and_then(|index| source.lines().nth(index)).unwrap_or("")
}

fn span(location: serde_saphyr::Location, source: &str) -> Span {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let start = location.span().byte_offset().map_or(0, number).min(source.len());
    let end = start.saturating_add(location.span().byte_len().map_or(0, number)).min(source.len());
    Span { line: number(location.line()), column: number(location.column()), start, end }
}

/// What the parser hands over, before it is joined with the text of the file.
enum Raw {
    Null,
    Text(String),
    Seq(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

struct Builder<'a> {
    source: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl Builder<'_> {
    fn node(&mut self, raw: Spanned<Raw>) -> Node {
        let span = span(raw.referenced, self.source);
        let kind = match raw.value {
            Raw::Null => Kind::Null,
            Raw::Text(text) => self.scalar(text, span),
            Raw::Seq(items) => Kind::Seq(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(entries) => self.map(entries),
        };
        Node { kind, span }
    }

    fn scalar(&mut self, text: String, span: Span) -> Kind {
        let written = self.source.get(span.start..span.end).unwrap_or("").trim().to_owned();
        let quoted = written.starts_with(['"', '\'', '|', '>']);
        let interpolated = !quoted && written.contains("${");
        if text.contains(UNSET) {
            return Kind::Broken;
        }
        // `$${` is the way to write it on purpose.
        if text.contains("${") && !written.contains("$${") {
            self.problems.push(
                Problem::new(Code::Literal, span, "this value still holds `${`").label("stays as it is written").help(
                    "interpolation works in unquoted block values; remove the quotes, or write `$${` for a literal",
                ),
            );
            return Kind::Broken;
        }
        // A plain value keeps the spelling of the file: `1.50` and `007` are not ours to tidy.
        let text = if quoted
            || interpolated
            || written.is_empty()
            || written.starts_with(['&', '*', '!'])
            || written.contains("$${")
        {
            text
        } else {
            written.clone()
        };
        Kind::Scalar(Scalar { text, written, interpolated, quoted })
    }

    fn map(&mut self, entries: Vec<(Spanned<String>, Spanned<Raw>)>) -> Kind {
        let mut pairs: Vec<(Key, Node)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key = Key { span: span(key.referenced, self.source), name: key.value };
            if let Some((first, _)) = pairs.iter().find(|(seen, _)| seen.name == key.name) {
                self.problems.push(
                    Problem::new(Code::DuplicateKey, key.span, format!("the key `{}` stands here twice", key.name))
                        .label(format!("first given on line {}", first.span.line))
                        .help("keep one of the two"),
                );
                continue;
            }
            let value = self.node(value);
            pairs.push((key, value));
        }
        Kind::Map(pairs)
    }
}

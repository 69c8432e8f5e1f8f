//! Where each value in force comes from, so that `explain` can say it.
//!
//! Owns the record only. Invariant: a key without a record has its built-in default.

use std::collections::BTreeMap;
use std::fmt;

use super::files::Source;
use super::tree::Span;

/// Where a value was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: the default of this version.
    #[default]
    BuiltIn,
    /// Under `defaults`, on this line.
    Defaults(usize),
    /// Under the endpoint, on this line.
    Endpoint(usize),
    /// Under the route, on this line.
    Route(usize),
    /// Elsewhere in the file, on this line.
    File(usize),
    /// By `--upstream`.
    Upstream,
    /// By an option of the command line or its environment variable.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built-in"),
            Origin::Defaults(line) => write!(f, "defaults, line {line}"),
            Origin::Endpoint(line) => write!(f, "endpoint, line {line}"),
            Origin::Route(line) => write!(f, "route, line {line}"),
            Origin::File(line) => write!(f, "line {line}"),
            Origin::Upstream => f.write_str("--upstream"),
            Origin::Flag => f.write_str("command line"),
        }
    }
}

/// The origins of one part of the settings: a route's, an endpoint's, or what is global.
#[derive(Clone, Debug, Default)]
pub struct Part {
    values: BTreeMap<&'static str, (Origin, Span)>,
}

impl Part {
    /// Notes that `key` was given there.
    pub fn set(&mut self, key: &'static str, origin: Origin, span: Span) {
        self.values.insert(key, (origin, span));
    }

    /// Where `key`, such as `timeouts.total`, was given.
    pub fn origin(&self, key: &str) -> Origin {
        self.values.get(key).map_or(Origin::BuiltIn, |(origin, _)| *origin)
    }

    /// The place of `key` in the file, if it was given in one.
    pub fn span(&self, key: &str) -> Option<Span> {
        self.values.get(key).map(|(_, span)| *span).filter(|span| span.line > 0)
    }
}

/// The origins of all settings.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// `server.listen` and the like, by full path.
    pub global: Part,
    /// One per endpoint, in the order of the settings.
    pub endpoints: Vec<Part>,
    /// One per route, in the order of the settings.
    pub routes: Vec<Part>,
    /// The files that were read, in the order of reading.
    pub files: Vec<Source>,
}

//! What is wrong with a config file, and how it is told: every problem at once, with its place, a caret and a way out.
//!
//! Owns the codes, the order and the rendering. Does not find problems. Invariant: no line of the file is shown before
//! `mask.rs` has been over it, so the value of a secret never appears.

use std::fmt::Write as _;

use super::files::Source;
use super::mask;
use super::tree::Span;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal;)*) => {
        /// The kinds of problem, each with the code that is printed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[doc = $doc])* $variant,)* }

        impl Code {
            /// Every code, errors first.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// `E` and a number for an error, `W` and a number for a warning.
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// One sentence for the reference.
            pub const fn meaning(self) -> &'static str {
                match self { $(Code::$variant => concat!($($doc),*).trim_ascii_start(),)* }
            }
        }
    };
}

codes! {
    /// There is no config file, or it cannot be read.
    NoFile = "E001";
    /// The file is not valid YAML.
    Syntax = "E002";
    /// A `${VAR}` names an environment variable that is not set.
    Unset = "E003";
    /// A value still holds `${` after interpolation.
    Literal = "E004";
    /// A key stands twice in one map.
    DuplicateKey = "E005";
    /// A key that Outrigger does not know.
    UnknownKey = "E010";
    /// A key that this version does not have yet.
    NotAvailable = "E011";
    /// A key that must be given is missing.
    Missing = "E012";
    /// A value of the wrong kind, such as a list where one value belongs.
    WrongType = "E013";
    /// A value outside of what the key allows.
    BadValue = "E014";
    /// A duration, size or ratio without its unit.
    NoUnit = "E015";
    /// A duration, size or ratio that cannot be read.
    BadQuantity = "E016";
    /// A clock or a count that must not be zero is zero.
    Zero = "E017";
    /// Not an address to listen on.
    BadAddress = "E018";
    /// Not a base URL of an endpoint.
    BadUrl = "E019";
    /// Two endpoints, routes or keys have one name.
    DuplicateName = "E020";
    /// A target names an endpoint that does not exist.
    UnknownEndpoint = "E021";
    /// A list that needs at least one member has none.
    Empty = "E022";
    /// Two values that cannot both hold.
    Conflict = "E023";
    /// A file that the config names cannot be read, or does not hold what it should.
    BadFile = "E024";
    /// The data port is open to other machines and asks for no key.
    OpenDoor = "E025";
    /// A target of a route repeats an earlier one.
    RepeatedTarget = "E026";
    /// The call's deadline passes before a clock inside it can.
    ShortTotal = "W101";
    /// More sends are configured than `max_sends` lets happen.
    UnusedSends = "W102";
    /// Retries are configured and their budget is zero.
    NoBudget = "W103";
    /// A key would cross the network in the clear.
    PlainKey = "W105";
    /// A route that no call can reach.
    Shadowed = "W106";
    /// An endpoint that no route uses.
    Unused = "W107";
    /// A clock that is read elsewhere and does nothing here.
    WrongPlace = "W108";
    /// Something in the environment or on the command line is passed over.
    PassedOver = "W109";
    /// Hedging is on where no target is a pool.
    LoneHedge = "W110";
}

impl Code {
    /// Whether it is a warning.
    pub fn is_warning(self) -> bool {
        self.as_str().starts_with('W')
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub code: Code,
    /// Its place; line 0 when it has none.
    pub span: Span,
    /// What is wrong.
    pub message: String,
    /// What stands beside the caret.
    pub label: String,
    /// The way out.
    pub help: Option<String>,
    /// A value on the same line that must not be shown, for it may be a secret under a misspelt key.
    pub hide: Option<Span>,
}

impl Problem {
    /// A problem at `span`.
    pub fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self { code, span, message: message.into(), label: String::new(), help: None, hide: None }
    }

    /// The text beside the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// A value that must not be shown.
    #[must_use]
    pub fn hide(mut self, value: Span) -> Self {
        self.hide = Some(value);
        self
    }

    /// The way out.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// The problems of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The file's name as the user knows it; empty without a file.
    pub file: String,
    /// Its text.
    pub source: String,
    /// In file order, errors and warnings mixed.
    pub problems: Vec<Problem>,
    /// The files that were read to find them.
    pub files: Vec<Source>,
}

impl Report {
    /// A report over `source`, its problems put into file order.
    pub fn new(file: impl Into<String>, source: impl Into<String>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| {
            let key = |p: &Problem| (p.span.line, p.span.column, p.code);
            key(a).cmp(&key(b)).then_with(|| a.message.cmp(&b.message))
        });
        problems.dedup();
        Self { file: file.into(), source: source.into(), problems, files: Vec::new() }
    }

    /// How many of the problems are errors.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| !problem.code.is_warning()).count()
    }

    /// How many of the problems are warnings.
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }

    /// As text for people, with ANSI colours if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let mut lines = mask::lines(&self.source);
        for hide in self.problems.iter().filter_map(|problem| problem.hide) {
            if let Some(line) = hide.line.checked_sub(1).and_then(|index| lines.get_mut(index)) {
                line.cut(hide.column, self.caret_length(hide));
            }
        }
        let mut out = String::new();
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            self.render_one(problem, &lines, colour, &mut out);
        }
        out
    }

    fn render_one(&self, problem: &Problem, lines: &[mask::Line], colour: bool, out: &mut String) {
        let paint = |style: &str, text: &str| {
            if colour { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
        };
        let (word, style) = if problem.code.is_warning() { ("warning", "1;33") } else { ("error", "1;31") };
        let head = paint(style, &format!("{word}[{}]", problem.code.as_str()));
        let _ = writeln!(out, "{head}: {}", paint("1", &mask::text(&problem.message)));
        let line = problem.span.line.checked_sub(1).and_then(|index| lines.get(index));
        if let Some(line) = line {
            let number = problem.span.line.to_string();
            let at = format!("{}:{}:{}", self.file, problem.span.line, problem.span.column);
            let _ = writeln!(out, "{}{} {at}", " ".repeat(number.len().max(2) - 1), paint("34", "-->"));
            let _ = writeln!(out, "{} {}", paint("34", &format!("{number} |")), line.shown);
            let length = self.caret_length(problem.span);
            let (column, length) = line.place(problem.span.column, length);
            let caret = format!("{} {}", "^".repeat(length), problem.label);
            let pad = " ".repeat(column.saturating_sub(1));
            let bar = paint("34", &format!("{} |", " ".repeat(number.len())));
            let _ = writeln!(out, "{bar} {pad}{}", paint(style, caret.trim_end()));
        } else if !problem.label.is_empty() {
            let _ = writeln!(out, "  {}", problem.label);
        }
        if let Some(help) = &problem.help {
            let _ = writeln!(out, "{}: {}", paint("1;36", "help"), mask::text(help));
        }
    }

    /// Carets stay on the first line of a value, and point at one character when it has no length.
    fn caret_length(&self, span: Span) -> usize {
        let text = self.source.get(span.start..span.end).unwrap_or("");
        text.lines().next().unwrap_or("").trim_end().chars().count().max(1)
    }

    /// As JSON for programs: an array of objects.
    pub fn to_json(&self) -> serde_json::Value {
        self.problems
            .iter()
            .map(|problem| {
                serde_json::json!({
                    "code": problem.code.as_str(),
                    "level": if problem.code.is_warning() { "warning" } else { "error" },
                    "file": self.file,
                    "line": problem.span.line,
                    "column": problem.span.column,
                    "message": mask::text(&problem.message),
                    "label": problem.label,
                    "help": problem.help.as_deref().map(mask::text),
                })
            })
            .collect()
    }
}

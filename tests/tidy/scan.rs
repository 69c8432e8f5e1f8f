//! Reads Rust sources as text: what is code, which paths it names, how long its functions are.
//!
//! Not a parser. It knows just enough (comments, literals, `#[cfg(test)]` items, `use` trees) that the rules
//! above it need no regular expressions. Invariant: line numbers always are those of the file.

use std::ops::Range;

/// A source file, seen three ways.
pub struct Source {
    /// Path from the root of the repository, with forward slashes.
    pub path: String,
    /// As it stands on disk.
    pub text: String,
    /// Tokens of what is neither comment, literal nor test.
    pub tokens: Vec<Token>,
    /// String literals outside comments and tests, with their line.
    pub literals: Vec<(usize, String)>,
    /// Paths without `.rs` of files that hold only tests: `#[cfg(test)] mod name;`.
    pub test_files: Vec<String>,
}

/// One word or one sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Line, counted from 1.
    pub line: usize,
    /// An identifier or number, `::`, or a single character.
    pub text: String,
}

/// A path such as `crate::call::Class`, `use` groups written out.
#[derive(Debug, PartialEq, Eq)]
pub struct Path {
    /// Line of its first segment.
    pub line: usize,
    /// Its segments.
    pub segments: Vec<String>,
}

impl Path {
    /// Whether these segments stand next to each other somewhere in it.
    pub fn contains(&self, part: &[&str]) -> bool {
        self.segments.windows(part.len()).any(|window| window.iter().zip(part).all(|(have, want)| have == want))
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.segments.join("::"))
    }
}

impl Source {
    /// Scans the text of one file.
    pub fn new(path: &str, text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let (mut code, literals) = blank(&chars);
        let (tests, test_files) = test_items(path, &chars, &code);
        for range in &tests {
            erase(&mut code, range.clone());
        }
        let literals = literals
            .into_iter()
            .filter(|literal| !tests.iter().any(|range| range.contains(&literal.start)))
            .map(|literal| (line_of(&chars, literal.start), chars[literal].iter().collect()))
            .collect();
        Self { path: path.to_owned(), text: text.to_owned(), tokens: tokens(&code), literals, test_files }
    }

    /// Every path it names, in `use` items and elsewhere.
    pub fn paths(&self) -> Vec<Path> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            if is_word(&self.tokens[at]) && (self.is("use", at) || self.is_sign("::", at + 1)) {
                let start = if self.is("use", at) { at + 1 } else { at };
                at = self.path_tree(start, &[], &mut found).max(at + 1);
            } else {
                at += 1;
            }
        }
        found
    }

    /// Name, first line and length in lines of every function with a body.
    pub fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut found = Vec::new();
        for at in 0..self.tokens.len() {
            let Some(name) = self.tokens.get(at + 1).filter(|next| self.is("fn", at) && is_word(next)) else {
                continue;
            };
            if let Some(last) = self.body_end(at) {
                let first = self.tokens[at].line;
                found.push((name.text.clone(), first, self.tokens[last].line + 1 - first));
            }
        }
        found
    }

    /// Whether the token at this place is exactly this text.
    pub fn is(&self, text: &str, at: usize) -> bool {
        self.tokens.get(at).is_some_and(|token| token.text == text)
    }

    fn is_sign(&self, text: &str, at: usize) -> bool {
        self.is(text, at)
    }

    /// Reads one path, or one group of them, and returns where it ends.
    fn path_tree(&self, mut at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
        if self.is("::", at) {
            at += 1;
        }
        let mut segments = prefix.to_vec();
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        loop {
            match self.tokens.get(at) {
                Some(token) if token.text == "{" && self.is_sign("::", at.wrapping_sub(1)) || self.is_group(at) => {
                    return self.group(at, &segments, found);
                }
                Some(token) if token.text == "*" && self.is_sign("::", at.wrapping_sub(1)) => {
                    segments.push(token.text.clone());
                    at += 1;
                    break;
                }
                Some(token) if is_word(token) => segments.push(token.text.clone()),
                _ => break,
            }
            at += 1;
            if !self.is_sign("::", at) {
                break;
            }
            at += 1;
        }
        if segments.len() > prefix.len() {
            found.push(Path { line, segments });
        }
        at
    }

    /// `use {a, b};` opens a group without a path before it.
    fn is_group(&self, at: usize) -> bool {
        self.is("{", at) && at > 0 && (self.is("use", at - 1))
    }

    fn group(&self, open: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
        let mut at = open + 1;
        while at < self.tokens.len() && !self.is("}", at) {
            let next = self.path_tree(at, prefix, found);
            // `as name` and commas are stepped over; a group never stands still.
            at = if next > at { next } else { at + 1 };
            if self.is("as", at) {
                at += 2;
            }
        }
        at + 1
    }

    fn body_end(&self, from: usize) -> Option<usize> {
        let mut round = 0_i32;
        let mut at = from;
        loop {
            match self.tokens.get(at)?.text.as_str() {
                "(" | "[" => round += 1,
                ")" | "]" => round -= 1,
                ";" if round == 0 => return None,
                "{" if round == 0 => break,
                _ => {}
            }
            at += 1;
        }
        let mut depth = 0_i32;
        loop {
            match self.tokens.get(at)?.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Some(at);
            }
            at += 1;
        }
    }
}

fn is_word(token: &Token) -> bool {
    token.text.starts_with(|first: char| first.is_alphanumeric() || first == '_')
}

fn line_of(chars: &[char], at: usize) -> usize {
    1 + chars[..at].iter().filter(|&&c| c == '\n').count()
}

fn erase(code: &mut [char], range: Range<usize>) {
    for c in &mut code[range] {
        if *c != '\n' {
            *c = ' ';
        }
    }
}

/// Replaces comments and literals by blanks; returns where the insides of string literals stood.
fn blank(chars: &[char]) -> (Vec<char>, Vec<Range<usize>>) {
    let mut code = chars.to_vec();
    let mut literals = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let end = if rest.starts_with(&['/', '/']) {
            at + rest.iter().position(|&c| c == '\n').unwrap_or(rest.len())
        } else if rest.starts_with(&['/', '*']) {
            at + block_comment(rest)
        } else if let Some(hashes) = raw_string(chars, at) {
            let open = at + rest.iter().position(|&c| c == '"').unwrap_or(0) + 1;
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let length = chars[open..].windows(close.len()).position(|w| w == close).unwrap_or(chars.len() - open);
            literals.push(open..open + length);
            (open + length + close.len()).min(chars.len())
        } else if rest[0] == '"' {
            let length = quoted(&rest[1..], '"');
            literals.push(at + 1..at + 1 + length);
            (at + length + 2).min(chars.len())
        } else if rest[0] == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'')) {
            (at + quoted(&rest[1..], '\'') + 2).min(chars.len())
        } else {
            at += 1;
            continue;
        };
        erase(&mut code, at..end);
        at = end;
    }
    (code, literals)
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(&['*', '/']) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The number of hashes of a raw string that begins here.
fn raw_string(chars: &[char], at: usize) -> Option<usize> {
    let inside_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if inside_word {
        return None;
    }
    let mut next = at;
    if matches!(chars[next], 'b' | 'c') {
        next += 1;
    }
    if chars.get(next) != Some(&'r') {
        return None;
    }
    let hashes = chars[next + 1..].iter().take_while(|&&c| c == '#').count();
    (chars.get(next + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// The length of a literal up to its closing quote.
fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 0;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at.min(rest.len())
}

/// The items under `#[cfg(test)]` in blanked code, and where those that are modules in files of their own stand.
fn test_items(path: &str, chars: &[char], code: &[char]) -> (Vec<Range<usize>>, Vec<String>) {
    let mark: Vec<char> = "#[cfg(test)]".chars().collect();
    let (mut ranges, mut files) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at + mark.len() <= code.len() {
        if !code[at..].starts_with(&mark) {
            at += 1;
            continue;
        }
        let end = item_end(code, at + mark.len());
        let item: String = chars[at + mark.len()..end].iter().collect();
        files.extend(module_file(path, item.trim()));
        ranges.push(at..end);
        at = end;
    }
    (ranges, files)
}

/// Where the file of `mod name;` stands, without `.rs`.
fn module_file(path: &str, item: &str) -> Option<String> {
    let (_, name) = item.strip_suffix(';')?.rsplit_once("mod ")?;
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    if let Some((_, given)) = item.split_once("#[path = \"") {
        let file = given.split('"').next()?.trim_end_matches(".rs");
        return Some(format!("{folder}/{file}"));
    }
    let is_root = ["/mod.rs", "/lib.rs", "/main.rs"].iter().any(|root| path.ends_with(root));
    let home = if is_root { folder } else { path.trim_end_matches(".rs") };
    Some(format!("{home}/{}", name.trim()))
}

fn item_end(code: &[char], from: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, c) in code[from..].iter().enumerate() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(c, ';' | '}') {
            return from + offset + 1;
        }
    }
    code.len()
}

fn tokens(code: &[char]) -> Vec<Token> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < code.len() {
        let c = code[at];
        if c == '\n' {
            line += 1;
        }
        let length = if c.is_alphanumeric() || c == '_' {
            code[at..].iter().take_while(|c| c.is_alphanumeric() || **c == '_').count()
        } else if code[at..].starts_with(&[':', ':']) {
            2
        } else {
            1
        };
        if !c.is_whitespace() {
            found.push(Token { line, text: code[at..at + length].iter().collect() });
        }
        at += length;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        Source::new("src/x.rs", text).paths().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn use_groups_are_written_out() {
        assert_eq!(
            paths("use crate::{a, b::c, d::{self, E as F}, g::*};\nuse ::std::time::Instant;"),
            ["crate::a", "crate::b::c", "crate::d::self", "crate::d::E", "crate::g::*", "std::time::Instant"]
        );
    }

    #[test]
    fn inline_paths_are_found_and_pub_crate_is_none() {
        assert_eq!(
            paths("pub(crate) fn f() -> crate::a::B { c::<u8>::d(); super::e() }"),
            ["crate::a::B", "c", "super::e"]
        );
    }

    #[test]
    fn comments_literals_and_tests_are_not_code() {
        let text = "// crate::a\n/* crate::b /* crate::c */ */\nconst A: &str = \"crate::d \\\" crate::e\";\n\
                    const B: &str = r#\"crate::f \" \"#; const C: char = '\"'; fn g<'a>(x: &'a str) { crate::h(); }\n\
                    #[cfg(test)]\nmod tests { fn i() { crate::j(); let _ = \"crate::k\"; } }\nfn l() { crate::m() }";
        let source = Source::new("src/x.rs", text);
        assert_eq!(paths(text), ["crate::h", "crate::m"]);
        assert_eq!(source.literals.len(), 2, "{:?}", source.literals);
        assert_eq!(source.paths()[1].line, 7);
    }

    #[test]
    fn test_modules_in_their_own_files_are_found() {
        let text =
            "#[cfg(test)]\nmod proofs;\n#[cfg(test)]\n#[path = \"y_tests.rs\"]\nmod tests;\nfn a() { crate::b::c() }";
        let files = |path: &str| Source::new(path, text).test_files;
        assert_eq!(files("src/x/y.rs"), ["src/x/y/proofs", "src/x/y_tests"]);
        assert_eq!(files("src/x/mod.rs"), ["src/x/proofs", "src/x/y_tests"]);
        assert_eq!(Source::new("src/x/y.rs", text).paths().len(), 1);
    }

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let source = Source::new("src/x.rs", "trait T { fn a(); }\nfn b(\n  x: [u8; 2],\n) {\n  if x { }\n}\n");
        assert_eq!(source.functions(), [("b".to_owned(), 2, 5)]);
    }
}

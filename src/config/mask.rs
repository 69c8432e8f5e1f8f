//! Hides what may be a secret before a line of the config is shown.
//!
//! Owns the guess of what is one: the value of a key that sounds like a credential, a long opaque word, user and
//! password of a URL. It works on text, because a broken file has no tree. Invariant: in doubt it hides.

/// A line as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The text.
    pub shown: String,
    /// From this column on (from 1) the text is not the file's.
    hidden_from: Option<usize>,
}

const HIDDEN: &str = "***";
const SOUNDS_SECRET: &[&str] = &["key", "token", "secret", "passw", "credential", "authorization", "bearer"];
/// Names that hold one of those words and no secret.
const HARMLESS: &[&str] = &["keys", "key_file", "hash_file", "first_token", "max_tokens", "tokens_per_minute"];

impl Line {
    /// Where a caret of `length` characters at `column` goes once the line is masked.
    pub fn place(&self, column: usize, length: usize) -> (usize, usize) {
        match self.hidden_from {
            Some(from) if column >= from => (from, HIDDEN.len()),
            Some(from) => (column, length.min(from + HIDDEN.len() - column)),
            None => (column, length),
        }
    }
}

/// Every line of `source`, masked.
pub fn lines(source: &str) -> Vec<Line> {
    let mut secret_indent: Option<usize> = None;
    source
        .lines()
        .map(|line| {
            let indent = line.chars().take_while(|c| *c == ' ').count();
            if secret_indent.is_some_and(|outer| line.trim().is_empty() || indent > outer) {
                // The value of the secret above goes on.
                return Line { shown: format!("{}{HIDDEN}", " ".repeat(indent)), hidden_from: Some(indent + 1) };
            }
            secret_indent = None;
            if let Some((name_at, value_at)) = secret_value(line) {
                secret_indent = Some(line[..name_at].chars().count());
                return hide_from(line, value_at);
            }
            match opaque(line) {
                Some(at) => hide_from(line, at),
                None => Line { shown: line.to_owned(), hidden_from: None },
            }
        })
        .collect()
}

/// A message, with opaque words and credentials of URLs hidden.
pub fn text(message: &str) -> String {
    message
        .split_inclusive(|c: char| c.is_whitespace() || c == '`' || c == '"')
        .map(|word| {
            let bare = word.trim_end_matches(|c: char| c.is_whitespace() || c == '`' || c == '"');
            if opaque(bare).is_some() { format!("{HIDDEN}{}", &word[bare.len()..]) } else { word.to_owned() }
        })
        .collect()
}

fn hide_from(line: &str, byte: usize) -> Line {
    let kept = &line[..byte];
    Line { shown: format!("{kept}{HIDDEN}"), hidden_from: Some(kept.chars().count() + 1) }
}

/// Where the name and the value of a credential stand in the line, in bytes.
fn secret_value(line: &str) -> Option<(usize, usize)> {
    for (colon, _) in line.match_indices(':') {
        let head = line[..colon].trim_end().trim_end_matches(['"', '\'']);
        let start = head.rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').map_or(0, |at| at + 1);
        let start = start + head[start..].len() - head[start..].trim_start_matches('-').len();
        let name = head[start..].to_lowercase();
        let value = line[colon + 1..].trim_start();
        let spaced = value.len() < line.len() - colon - 1 || value.is_empty();
        let open = value.is_empty() || value.starts_with('{') || value.starts_with('[') || value.starts_with('#');
        let reference = value.starts_with("${") && value.trim_end().ends_with('}') && !value.contains(":-");
        if spaced
            && !HARMLESS.contains(&name.as_str())
            && SOUNDS_SECRET.iter().any(|word| name.contains(word))
            && !(open && name != "key")
            && !reference
            && !value.is_empty()
        {
            return Some((start, line.len() - value.len()));
        }
    }
    None
}

/// Where a word stands that looks like a credential, in bytes.
fn opaque(line: &str) -> Option<usize> {
    if let Some(at) = line.find("://")
        && let Some(user) = line[at + 3..].find('@')
        && !line[at + 3..at + 3 + user].contains(|c: char| c == '/' || c.is_whitespace())
    {
        return Some(at + 3);
    }
    if let Some(at) = line.find("://")
        && let Some(query) = line[at..].find('?')
        && !line[at..at + query].contains(char::is_whitespace)
    {
        return Some(at + query + 1);
    }
    let mut start = 0;
    for word in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-') {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        let mixed = bare.bytes().any(|b| b.is_ascii_digit()) && bare.bytes().any(|b| b.is_ascii_alphabetic());
        let words = bare.split(['-', '_']).map(str::len).max().unwrap_or(0);
        if (bare.starts_with("sk-") && bare.len() > 5) || (mixed && bare.len() >= 20 && words >= 12) {
            return Some(start);
        }
        start += word.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_pass() {
        for line in [
            "    key: hunter2",
            "  - { name: a, key: hunter2, url: x }",
            "\"key\": hunter2",
            "api_key: hunter2",
            "apiKey: 'hunter2'",
            "key: ${X:-hunter2}",
            "url: http://me:hunter2@host/v1",
            "url: http://host/v1?k=hunter2",
            "nmae: sk-hunter2",
            "- key: hunter2",
        ] {
            assert!(!lines(line)[0].shown.contains("hunter2"), "{line} -> {}", lines(line)[0].shown);
        }
        let block = lines("  key: |\n    hunter2\n\n    hunter2\n  url: x\n");
        assert!(block.iter().all(|line| !line.shown.contains("hunter2")));
        assert_eq!(block[4].shown, "  url: x");
    }

    #[test]
    fn plain_lines_pass() {
        for line in [
            "    key: ${OPENAI_API_KEY}",
            "key_file: /run/secrets/openai",
            "keys: [{ name: a, hash_file: b }]",
            "timeouts: { first_token: 10s }",
            "match: { model: \"meta-llama-3.1-8b-instruct\" }",
            "url: http://vllm-a:8000/v1",
        ] {
            assert_eq!(lines(line)[0].shown, line);
        }
    }
}

//! The small scalars a scenario is written in: durations, sizes, percentages, call sets, positions.
//!
//! Owns their spelling and their error messages, nothing else. Invariant: a number without the unit it needs is
//! refused, never guessed.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// A duration with its unit: `20ms`, `1.5s`, `2m`, `1h`; plain `0` is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Span(pub Duration);

/// A number of bytes: `512`, `1KiB`, `10MiB`, `1GiB` (`KB` and `MB` count in thousands).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Size(pub u64);

/// A share of all calls: `30%`, or `0.3`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(pub f64);

/// Which calls, by number, the first being 1: `3`, `"1-5"`, `"2,4"`, `"7-"`, `every 3`.
#[derive(Clone, Debug, PartialEq)]
pub enum Calls {
    /// Any number within one of these closed ranges.
    Among(Vec<(u64, u64)>),
    /// Every n-th call.
    Every(u64),
}

impl Span {
    /// Reads one, if it is one.
    pub fn parse(text: &str) -> Option<Span> {
        span(text)
    }
}

impl Calls {
    /// Whether call `number` is meant.
    pub fn contains(&self, number: u64) -> bool {
        match self {
            Calls::Among(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&number)),
            Calls::Every(n) => number.is_multiple_of(*n),
        }
    }
}

/// A place in an answer: `first`, `token 5`, `byte 120`, `half`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    /// Before anything of the answer.
    First,
    /// Right after the n-th token.
    Token(usize),
    /// Right after the n-th byte of the body.
    Byte(usize),
    /// Right after half of the tokens (or of the body).
    Half,
}

fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].parse::<f64>().ok().filter(|n| n.is_finite())?;
    Some((number, text[end..].trim()))
}

fn span(text: &str) -> Option<Span> {
    let (number, unit) = number_and_unit(text)?;
    let seconds = match unit {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "" if number == 0.0 => 0.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().map(Span)
}

fn size(text: &str) -> Option<Size> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "KB" => 1e3,
        "MB" => 1e6,
        _ => return None,
    };
    Some(Size((number * factor) as u64))
}

fn percent(text: &str) -> Option<Percent> {
    let (number, unit) = number_and_unit(text)?;
    let share = match unit {
        "%" => number / 100.0,
        "" => number,
        _ => return None,
    };
    (0.0..=1.0).contains(&share).then_some(Percent(share))
}

fn calls(text: &str) -> Option<Calls> {
    let text = text.trim();
    if let Some(n) = text.strip_prefix("every ") {
        return n.trim().parse().ok().filter(|n| *n > 0).map(Calls::Every);
    }
    let mut ranges = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let range = match part.split_once('-') {
            Some((from, "")) => (from.trim().parse().ok()?, u64::MAX),
            Some((from, to)) => (from.trim().parse().ok()?, to.trim().parse().ok()?),
            None => part.parse().ok().map(|n| (n, n))?,
        };
        ranges.push(range);
    }
    Some(Calls::Among(ranges))
}

fn place(text: &str) -> Option<Place> {
    match text.trim() {
        "first" => return Some(Place::First),
        "half" => return Some(Place::Half),
        _ => {}
    }
    let (what, n) = text.trim().split_once(' ')?;
    let n = n.trim().parse().ok()?;
    match what {
        "token" | "after" => Some(Place::Token(n)),
        "byte" => Some(Place::Byte(n)),
        _ => None,
    }
}

/// Reads a scalar as text, whatever YAML took it for, and hands it to a parser.
struct Scalar<T> {
    parse: fn(&str) -> Option<T>,
    wanted: &'static str,
}

impl<T> Visitor<'_> for Scalar<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::custom(format!("`{text}` is not {}", self.wanted)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! scalar {
    ($type:ident, $parse:path, $wanted:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Scalar { parse: $parse, wanted: $wanted })
            }
        }
    };
}

scalar!(Span, span, "a duration with its unit, such as 20ms or 1.5s");
scalar!(Size, size, "a number of bytes, such as 512, 64KiB or 10MiB");
scalar!(Percent, percent, "a share, such as 30% or 0.3");
scalar!(Calls, calls, "a set of call numbers, such as 3, \"1-5\", \"2,4\", \"7-\" or every 3");
scalar!(Place, place, "a place in the answer, such as first, half, token 5 or byte 120");

/// Whether `text` matches `pattern`, where `*` stands for any run of characters.
pub fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(tail) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_read_their_spellings_and_refuse_the_rest() {
        assert_eq!(span("20ms"), Some(Span(Duration::from_millis(20))));
        assert_eq!(span("0"), Some(Span(Duration::ZERO)));
        assert_eq!(span("20"), None);
        assert_eq!(size("1KiB"), Some(Size(1024)));
        assert_eq!(percent("30%"), Some(Percent(0.3)));
        assert_eq!(percent("130%"), None);
        assert_eq!(place("token 5"), Some(Place::Token(5)));
        assert_eq!(place("tokens"), None);
    }

    #[test]
    fn call_sets_contain_what_they_say() {
        let of = |text| calls(text).expect("parses");
        assert!(of("3").contains(3) && !of("3").contains(4));
        assert!(of("1-5").contains(5) && !of("1-5").contains(6));
        assert!(of("2,4").contains(4) && !of("2,4").contains(3));
        assert!(of("7-").contains(1000) && !of("7-").contains(6));
        assert!(of("every 3").contains(6) && !of("every 3").contains(7));
        assert_eq!(calls("every 0"), None);
    }

    #[test]
    fn a_glob_star_matches_any_run() {
        assert!(glob("gpt-*", "gpt-5"));
        assert!(glob("*", ""));
        assert!(glob("a*c*e", "abcde"));
        assert!(!glob("a*c*e", "abcd"));
        assert!(!glob("gpt", "gpt-5"));
    }
}

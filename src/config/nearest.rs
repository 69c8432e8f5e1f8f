//! "Did you mean": the closest of a few names.
//!
//! Owns the distance and the names that other gateways use for our keys. Invariant: a suggestion is always a name that
//! would be accepted in that place.

/// What people who come from elsewhere write, and what it is called here.
const ELSEWHERE: &[(&str, &str)] = &[
    ("base_url", "url"),
    ("api_base", "url"),
    ("base", "url"),
    ("address", "listen"),
    ("port", "listen"),
    ("bind", "listen"),
    ("api_key", "key"),
    ("token", "key"),
    ("secret", "key"),
    ("provider", "dialect"),
    ("type", "dialect"),
    ("model_name", "model"),
    ("models", "model"),
    ("upstreams", "endpoints"),
    ("backends", "endpoints"),
    ("providers", "endpoints"),
    ("model_list", "endpoints"),
    ("upstream", "targets"),
    ("endpoints", "targets"),
    ("fallbacks", "targets"),
    ("pool", "balance"),
    ("timeout", "timeouts"),
    ("retries", "retry"),
    ("max_retries", "attempts"),
    ("num_retries", "attempts"),
    ("logging", "log"),
    ("metrics", "admin"),
    ("shutdown", "drain"),
    ("ttft", "first_token"),
    ("ttfb", "headers"),
    ("request", "total"),
];

/// The name among `known` that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = fold(name);
    if let Some(same) = known.iter().find(|candidate| fold(candidate) == plain) {
        return Some(same);
    }
    let limit = (name.chars().count() / 3).clamp(1, 3);
    let close = known
        .iter()
        .map(|candidate| (distance(&plain, &fold(candidate)), *candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, candidate)) = close {
        return Some(candidate);
    }
    let ours = ELSEWHERE.iter().filter(|(theirs, _)| fold(theirs) == plain).map(|(_, ours)| *ours);
    ours.filter_map(|ours| known.iter().find(|candidate| **candidate == ours).copied()).next()
}

fn fold(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Edits between two texts: insertions, deletions, changes, and swaps of neighbours (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let width = right.len() + 1;
    let mut rows = vec![(0..width).collect::<Vec<usize>>()];
    for i in 1..=left.len() {
        let mut row = vec![i; width];
        for j in 1..width {
            let same = left[i - 1] == right[j - 1];
            row[j] = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + usize::from(!same));
            if i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_cases_and_foreign_names_are_understood() {
        let known = ["name", "url", "key", "key_file", "timeouts", "endpoints"];
        for (wrote, meant) in [
            ("nmae", "name"),
            ("baseUrl", "url"),
            ("apiKey", "key"),
            ("keyFile", "key_file"),
            ("timeout", "timeouts"),
            ("endpoint", "endpoints"),
            ("model_list", "endpoints"),
        ] {
            assert_eq!(nearest(wrote, &known), Some(meant), "{wrote}");
        }
        assert_eq!(nearest("colour", &known), None);
    }
}

//! Globs over model names: `*` matches any run of characters, `?` exactly one.
//!
//! Owns matching, for the router and for the lints alike. Invariant: time is at most the product of both lengths,
//! whatever the pattern.

/// Whether `model` fits `pattern`, upper and lower case apart.
pub fn matches(pattern: &str, model: &str) -> bool {
    let (pattern, model): (Vec<char>, Vec<char>) = (pattern.chars().collect(), model.chars().collect());
    let (mut p, mut m) = (0, 0);
    // The last star, and the text it has swallowed so far up to.
    let mut star: Option<(usize, usize)> = None;
    while m < model.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, m));
                p += 1;
            }
            Some(c) if *c == '?' || *c == model[m] => {
                p += 1;
                m += 1;
            }
            _ => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    p = at + 1;
                    m = swallowed + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Whether every model that fits `narrow` certainly fits `wide`. May miss some pairs, never claims too much.
pub fn covers(wide: &str, narrow: &str) -> bool {
    let all = !wide.is_empty() && wide.chars().all(|c| c == '*');
    // A star in the narrow pattern, read as a character, can only be taken by a star of the wide one.
    let plain = !wide.contains('?') && matches(wide, narrow);
    all || wide == narrow || plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, model, yes) in [
            ("*", "", true),
            ("gpt-*", "gpt-4o", true),
            ("gpt-*", "GPT-4o", false),
            ("*-mini", "gpt-4o-mini", true),
            ("gpt-?", "gpt-4", true),
            ("gpt-?", "gpt-4o", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, model), yes, "{pattern} {model}");
        }
    }

    #[test]
    fn covering_is_never_claimed_too_far() {
        assert!(covers("*", "gpt-*"));
        assert!(covers("gpt-*", "gpt-4*"));
        assert!(covers("gpt-*", "gpt-4o"));
        assert!(!covers("gpt-4", "gpt-*"));
        assert!(!covers("gpt-?", "gpt-*"));
    }

    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..])),
            (Some((p, pattern)), Some((t, text))) => (*p == '?' || p == t) && naive(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let (p, t): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), naive(&p, &t));
        }

        #[test]
        fn what_is_covered_matches(wide in "[ab*?]{0,6}", narrow in "[ab*?]{0,6}", model in "[ab]{0,8}") {
            if covers(&wide, &narrow) && matches(&narrow, &model) {
                prop_assert!(matches(&wide, &model));
            }
        }
    }
}

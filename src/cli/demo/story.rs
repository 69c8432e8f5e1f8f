//! The bad day, act by act: what the first of the two model servers goes through.

use std::time::Duration;

/// One act of the story.
pub struct Act {
    /// What people read while it runs.
    pub title: &'static str,
    /// Its share of the whole time, in percent.
    pub share: u32,
    /// The first server's rules, in the mock's own scenario language.
    pub rules: &'static str,
    /// Whether the first server is gone altogether.
    pub down: bool,
}

const fn act(title: &'static str, share: u32, rules: &'static str) -> Act {
    Act { title, share, rules, down: false }
}

/// What the second server goes through all day long: it is not perfect either.
pub const SECOND: &str = "- { chance: 5%, do: { error: overloaded } }";

/// The acts in their order; their shares add up to 100.
pub const ACTS: &[Act] = &[
    act("calm", 10, ""),
    act(
        "rate limits: 40 % of calls get a 429",
        15,
        "- { chance: 40%, do: { status: 429, headers: { retry-after: \"1\" }, error: rate_limit } }",
    ),
    act("stalls: 1 call in 4 stays silent", 20, "- { chance: 25%, do: { hang: first_token } }"),
    act("errors: half of the calls fail inside", 15, "- { chance: 50%, do: { error: server_error } }"),
    act(
        "answers that only look right",
        20,
        "- { chance: 12%, do: { inband_error: { at: first } } }\n\
         - { chance: 12%, do: { empty: true } }\n\
         - { chance: 12%, do: { content_type: text/html } }\n\
         - { when: { stream: true }, chance: 8%, do: { cut: { at: half, how: eof } } }",
    ),
    Act { title: "outage: nothing listens", share: 10, rules: "", down: true },
    act("recovery", 10, ""),
];

/// The act that runs at `elapsed` of `total`, by number.
pub fn act_at(elapsed: Duration, total: Duration) -> usize {
    let percent = 100.0 * elapsed.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
    let mut end = 0.0;
    let at = ACTS.iter().position(|act| {
        end += f64::from(act.share);
        percent < end
    });
    at.unwrap_or(ACTS.len() - 1)
}

/// A scenario with these rules, in the mock's language.
pub fn scenario(seed: u64, rules: &str) -> String {
    let answer = "answer: { tokens: 24, first_token: 60ms, per_token: 4ms }";
    match rules {
        "" => format!("seed: {seed}\n{answer}\n"),
        rules => {
            let rules: String = rules.lines().map(|line| format!("  {}\n", line.trim())).collect();
            format!("seed: {seed}\n{answer}\nrules:\n{rules}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::Scenario;

    #[test]
    fn the_acts_fill_the_day_and_can_be_played() {
        assert_eq!(ACTS.iter().map(|act| act.share).sum::<u32>(), 100);
        for rules in ACTS.iter().map(|act| act.rules).chain([SECOND]) {
            let text = scenario(7, rules);
            assert!(Scenario::parse(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn acts_follow_each_other() {
        let total = Duration::from_secs(100);
        let numbers: Vec<_> = (0..=120).step_by(10).map(|s| act_at(Duration::from_secs(s), total)).collect();
        assert!(numbers.is_sorted());
        assert_eq!((numbers[0], numbers[12]), (0, ACTS.len() - 1));
    }
}

//! A scenario: how the stand-in answers, and the rules by which it misbehaves.
//!
//! Owns the YAML shape and which rule a call gets. Owns no clock and no counters: those come in. Invariant: which
//! rule wins depends only on the seed, the call's number, the call itself, its time, and how often rules were used.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::dice::Dice;
use super::fault::{Fault, Phase};
use super::units::{Calls, Percent, Span, glob};
use super::words::{Dialect, Tools, Usage};

/// A whole script. The default one behaves well.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// What every draw is seeded with.
    pub seed: u64,
    /// Whose error shapes are worn; by itself, the surface's.
    pub dialect: Option<Dialect>,
    /// What `GET /v1/models` lists. Any other model is answered too.
    pub models: Vec<String>,
    /// Prompts of more words than this are refused (cut without a word in the ollama dialect).
    pub context_window: Option<u64>,
    /// At most so many calls at work; the rest wait their turn.
    pub slots: Option<usize>,
    /// How a call is answered when no rule says otherwise.
    pub answer: Answer,
    /// The first rule that matches, and whose chance falls, wins.
    pub rules: Vec<Spanned<Rule>>,
}

/// The well-behaved answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// Words in the answer.
    pub tokens: usize,
    /// Wait before the first token.
    pub first_token: Span,
    /// Wait between tokens.
    pub per_token: Span,
    /// A fixed text instead of a generated one.
    pub text: Option<String>,
    /// Words of reasoning before the answer.
    pub reasoning_tokens: usize,
    /// What the usage numbers are.
    pub usage: Usage,
    /// Whether tools are called when a request offers some without demanding it.
    pub tools: Option<Tools>,
    /// The `system_fingerprint`.
    pub fingerprint: String,
    /// Numbers in an embedding.
    pub dimensions: usize,
}

/// When to do what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which calls.
    #[serde(default)]
    pub when: When,
    /// Which share of those calls; all by itself.
    #[serde(default)]
    pub chance: Option<Percent>,
    /// How many times at most.
    #[serde(default)]
    pub times: Option<u64>,
    /// What happens.
    #[serde(rename = "do", default)]
    pub fault: Fault,
}

/// Conditions, all of which must hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// The model asked for; `*` stands for anything.
    pub model: Option<String>,
    /// The path, without its query; `*` stands for anything.
    pub path: Option<String>,
    /// Whether a stream is asked for.
    pub stream: Option<bool>,
    /// The call's number.
    pub calls: Option<Calls>,
    /// Request headers and what they hold; `*` stands for anything.
    pub header: BTreeMap<String, String>,
    /// From this long after the scenario began.
    pub after: Option<Span>,
    /// Until this long after the scenario began.
    pub until: Option<Span>,
}

/// What is known of a call when a rule is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The call's number; none for a listing or a health check, which only rules that name their path touch.
    pub number: Option<u64>,
    /// The path without its query.
    pub path: &'a str,
    /// The model, once the body is read.
    pub model: Option<&'a str>,
    /// Whether a stream is asked for, once the body is read.
    pub stream: Option<bool>,
    /// Header names and values as they came.
    pub headers: &'a [(String, String)],
    /// Time since the scenario began.
    pub elapsed: Duration,
}

impl Default for Scenario {
    fn default() -> Self {
        Scenario {
            seed: 1,
            dialect: None,
            models: vec!["mock-small".into(), "mock-large".into()],
            context_window: None,
            slots: None,
            answer: Answer::default(),
            rules: Vec::new(),
        }
    }
}

impl Default for Answer {
    fn default() -> Self {
        Answer {
            tokens: 40,
            first_token: Span(Duration::from_millis(20)),
            per_token: Span(Duration::from_millis(2)),
            text: None,
            reasoning_tokens: 0,
            usage: Usage::Ok,
            tools: None,
            fingerprint: "fp_mock".into(),
            dimensions: 8,
        }
    }
}

impl Scenario {
    /// Reads a scenario. The error names line and column and is meant for people.
    pub fn parse(yaml: &str) -> Result<Scenario, String> {
        let scenario: Scenario = if yaml.trim().is_empty() {
            Scenario::default()
        } else {
            serde_saphyr::from_str(yaml).map_err(|e| e.to_string())?
        };
        for rule in &scenario.rules {
            rule.value.check().map_err(|what| {
                let at = rule.referenced;
                format!("error: line {} column {}: {what}", at.line(), at.column())
            })?;
        }
        Ok(scenario)
    }

    /// The fault for a call at `phase`, if any. `used` counts how often each rule has won and is counted up.
    pub fn pick(&self, phase: Phase, facts: &Facts, used: &mut Vec<u64>) -> Option<&Fault> {
        used.resize(self.rules.len(), 0);
        for (at, rule) in self.rules.iter().map(|r| &r.value).enumerate() {
            if rule.fault.phase() != phase || !rule.when.holds(facts) {
                continue;
            }
            if rule.times.is_some_and(|most| used[at] >= most) {
                continue;
            }
            let draw = Dice::of(&[self.seed, facts.number.unwrap_or(0), at as u64]).unit();
            if rule.chance.is_some_and(|chance| draw >= chance.0) {
                continue;
            }
            used[at] += 1;
            return Some(&rule.fault);
        }
        None
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let when = &self.when;
        let about_body = when.model.is_some() || when.stream.is_some();
        let about_head = when.path.is_some() || !when.header.is_empty();
        match self.fault.phase() {
            Phase::Accept if about_body || about_head => {
                Err("this fault strikes before anything of the request is read, so `when` can only name `calls`, \
                     `after` and `until`"
                    .into())
            }
            Phase::Head if about_body => Err("this fault strikes before the body is read, so `when` cannot name \
                                              `model` or `stream`"
                .into()),
            _ => Ok(()),
        }
    }
}

impl When {
    fn holds(&self, facts: &Facts) -> bool {
        let known = |wanted: &Option<String>, found: Option<&str>| match wanted {
            Some(pattern) => found.is_some_and(|text| glob(pattern, text)),
            None => true,
        };
        let header = |(name, pattern): (&String, &String)| {
            facts.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case(name) && glob(pattern, v))
        };
        (facts.number.is_some() || self.path.is_some())
            && known(&self.model, facts.model)
            && known(&self.path, Some(facts.path))
            && self.stream.is_none_or(|wanted| facts.stream == Some(wanted))
            && self.calls.as_ref().is_none_or(|set| facts.number.is_some_and(|n| set.contains(n)))
            && self.header.iter().all(header)
            && self.after.is_none_or(|after| facts.elapsed >= after.0)
            && self.until.is_none_or(|until| facts.elapsed < until.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(number: u64) -> Facts<'static> {
        let path = "/v1/chat/completions";
        Facts { number: Some(number), path, model: Some("m"), stream: None, headers: &[], elapsed: Duration::ZERO }
    }

    #[test]
    fn a_mistake_names_its_line() {
        let wrong = Scenario::parse("seed: 1\nrules:\n  - do: { statsu: 500 }\n").expect_err("a typo");
        assert!(wrong.contains("line 3") && wrong.contains("statsu"), "{wrong}");
        assert!(Scenario::parse("# nothing but a comment\n").is_ok());
        let wrong = Scenario::parse("rules:\n  - when: { model: a }\n    do: { reset_on_accept: true }\n");
        assert!(wrong.expect_err("too early").contains("line 2"));
    }

    #[test]
    fn the_first_rule_whose_chance_falls_wins_and_the_draw_repeats() {
        let yaml = "seed: 7\nrules:\n  - chance: 30%\n    do: { status: 500 }\n  - do: { status: 429 }\n";
        let scenario = Scenario::parse(yaml).expect("parses");
        let row = || -> Vec<_> {
            let mut used = Vec::new();
            let status = |n| scenario.pick(Phase::Request, &facts(n), &mut used).and_then(|f| f.status);
            (1..=200).map(status).collect()
        };
        assert_eq!(row(), row());
        let hits = row().iter().filter(|s| **s == Some(500)).count();
        assert!((40..80).contains(&hits), "{hits}");
    }

    #[test]
    fn times_bounds_a_rule() {
        let scenario = Scenario::parse("rules:\n  - times: 2\n    do: { status: 500 }\n").expect("parses");
        let mut used = Vec::new();
        let hit = (1..=5).filter(|n| scenario.pick(Phase::Request, &facts(*n), &mut used).is_some()).count();
        assert_eq!(hit, 2);
    }
}

//! The answer itself, before any surface gives it a shape: words, tool calls, finish reasons, usage.
//!
//! Owns what the stand-in says, and the faults that change what it says. Owns no JSON shape and no timing.
//! Invariant: equal seeds, asks and faults give equal replies.

use serde_json::{Value, json};

use super::ask::{Ask, Choice, Format, Tool};
use super::dice::Dice;
use super::fault::Fault;
use super::scenario::Scenario;
use super::words::{Json, Tools, Usage};
use super::{resume, schema, spoil};

const WORDS: &[&str] = &[
    "the", "a", "river", "light", "stone", "model", "answer", "quiet", "signal", "carries", "over", "under", "north",
    "wind", "turns", "slowly", "bright", "field", "keeps", "small", "steady", "boat", "crosses", "water", "every",
    "morning", "before", "after", "open", "harbor", "line", "holds", "against", "tide", "and", "then", "again", "far",
    "clear", "sound",
];

/// One tool call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its id.
    pub id: String,
    /// The tool called.
    pub name: String,
    /// The arguments, JSON unless a fault says otherwise.
    pub arguments: String,
}

/// One choice of a reply.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Tokens of reasoning.
    pub reasoning: Vec<String>,
    /// Tokens of the text.
    pub tokens: Vec<String>,
    /// Whether the text is a refusal.
    pub refusal: bool,
    /// The tool calls.
    pub calls: Vec<Call>,
    /// Why it ended, in the words of chat completions; empty: it never says.
    pub finish: String,
}

/// What was used.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the answer, reasoning among them.
    pub completion: u64,
    /// Tokens of reasoning.
    pub reasoning: u64,
    /// What is claimed to be the sum.
    pub total: u64,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Sixteen hex digits every id in the answer is made of.
    pub id: String,
    /// The model.
    pub model: String,
    /// The `system_fingerprint`.
    pub fingerprint: String,
    /// The choices.
    pub said: Vec<Said>,
    /// The usage, if any is told.
    pub used: Option<Used>,
    /// Whether tool calls are streamed a character at a time.
    pub split_calls: bool,
}

impl Said {
    /// The text as one string.
    pub fn text(&self) -> String {
        self.tokens.concat()
    }

    /// The reasoning as one string.
    pub fn thought(&self) -> String {
        self.reasoning.concat()
    }
}

/// The answer to `ask` under `fault`.
pub fn reply(scenario: &Scenario, ask: &Ask, fault: &Fault) -> Reply {
    let seed = scenario.seed;
    let n = if fault.n_missing { ask.n - 1 } else { ask.n };
    let mut said: Vec<Said> = (0..n).map(|at| choice(scenario, ask, fault, at as u64)).collect();
    if let (true, Some(last)) = (fault.unfinished, said.last_mut()) {
        last.finish.clear();
    }
    Reply {
        id: format!("{:016x}", Dice::of(&[seed, ask.fingerprint, 1]).next()),
        model: ask.model.clone(),
        fingerprint: fault.fingerprint.clone().unwrap_or_else(|| scenario.answer.fingerprint.clone()),
        used: used(fault.usage.unwrap_or(scenario.answer.usage), ask, fault, &said),
        said,
        split_calls: fault.tools == Some(Tools::Split1),
    }
}

fn choice(scenario: &Scenario, ask: &Ask, fault: &Fault, at: u64) -> Said {
    let mut dice = Dice::of(&[scenario.seed, ask.fingerprint, 2, at]);
    let wanted = fault.tokens.unwrap_or(scenario.answer.tokens);
    let mut said = Said { finish: "stop".to_string(), ..Said::default() };
    if !fault.empty {
        said.reasoning = split(&prose(&mut dice, scenario.answer.reasoning_tokens));
    }
    if let Some(how) = tools_wanted(scenario, ask, fault) {
        said.calls = calls(ask, how, &mut dice);
        said.finish = "tool_calls".to_string();
    } else if fault.refusal {
        said.refusal = true;
        said.tokens = split("I'm sorry, but I can't help with that.");
    } else if !fault.empty {
        said.tokens = split(&resume::rest(&text(scenario, ask, fault, wanted, &mut dice), ask.said.as_deref()));
    }
    let limit = if fault.length { Some((said.tokens.len() / 2).max(1)) } else { None };
    let limit = limit.into_iter().chain(ask.max_tokens).min().unwrap_or(usize::MAX);
    if fault.length || said.tokens.len() > limit {
        said.tokens.truncate(limit);
        said.finish = "length".to_string();
    }
    if let Some(finish) = &fault.finish {
        said.finish.clone_from(finish);
    }
    said
}

fn text(scenario: &Scenario, ask: &Ask, fault: &Fault, tokens: usize, dice: &mut Dice) -> String {
    if fault.json.is_some() || fault.schema_break || ask.format != Format::Text {
        json_text(scenario, ask, fault, dice)
    } else if let Some(fixed) = fault.text.as_ref().or(scenario.answer.text.as_ref()) {
        fixed.clone()
    } else if let Some(times) = fault.repetition {
        "over and over again, ".repeat(times)
    } else if fault.garbage {
        let letter = |dice: &mut Dice| char::from(b'!' + dice.below(90) as u8);
        (0..tokens).map(|_| (0..6).map(|_| letter(dice)).chain([' ']).collect::<String>()).collect()
    } else {
        prose(dice, tokens)
    }
}

fn json_text(scenario: &Scenario, ask: &Ask, fault: &Fault, dice: &mut Dice) -> String {
    let plain = json!({"type": "object", "required": ["answer", "count"],
        "properties": {"answer": {"type": "string"}, "count": {"type": "integer"}}});
    let schema = if let Format::Schema(schema) = &ask.format { schema } else { &plain };
    let fixed = fault.text.as_ref().or(scenario.answer.text.as_ref()).and_then(|t| serde_json::from_str(t).ok());
    let value = fixed.unwrap_or_else(|| schema::generate(schema, dice));
    let value = if fault.schema_break { spoil::break_schema(&value) } else { value };
    match fault.json {
        Some(how) => spoil::text(&value, &required(schema), how),
        None => value.to_string(),
    }
}

fn required(schema: &Value) -> Vec<String> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
}

fn prose(dice: &mut Dice, tokens: usize) -> String {
    (0..tokens).map(|at| format!("{}{}", if at == 0 { "" } else { " " }, dice.one(WORDS))).collect()
}

/// Tokens of `text`: words with the space before them, long runs in pieces of eight characters.
pub fn split(text: &str) -> Vec<String> {
    if text.len() > 100_000 {
        // Deep nesting: the number of events is not the point.
        let letters: Vec<char> = text.chars().collect();
        return letters.chunks(16 * 1024).map(|part| part.iter().collect()).collect();
    }
    let mut tokens: Vec<String> = Vec::new();
    let mut word = 0;
    for letter in text.chars() {
        let starts = letter.is_whitespace() || word >= 8;
        let after_space = tokens.last().is_some_and(|t| t.ends_with(char::is_whitespace)) && word == 1;
        match tokens.last_mut() {
            Some(last) if !starts || (letter.is_whitespace() && after_space) => {
                last.push(letter);
                word += 1;
            }
            _ => {
                tokens.push(letter.to_string());
                word = 1;
            }
        }
    }
    tokens
}

fn tools_wanted(scenario: &Scenario, ask: &Ask, fault: &Fault) -> Option<Tools> {
    let told = fault.tools.or(scenario.answer.tools);
    let demanded = matches!(ask.choice, Choice::Required | Choice::Named(_));
    match told {
        _ if ask.tools.is_empty() || fault.empty || fault.refusal => None,
        Some(Tools::ChoiceIgnored) => None,
        _ if ask.choice == Choice::None => None,
        Some(how) => Some(how),
        None => demanded.then_some(Tools::Good),
    }
}

fn calls(ask: &Ask, how: Tools, dice: &mut Dice) -> Vec<Call> {
    let named = match &ask.choice {
        Choice::Named(name) => ask.tools.iter().find(|tool| tool.name == *name),
        _ => None,
    };
    let count = if matches!(how, Tools::TwoCalls | Tools::AllIndex0 | Tools::NoIndex) { 2 } else { 1 };
    (0..count).map(|at| call(named.unwrap_or(&ask.tools[at % ask.tools.len()]), how, dice)).collect()
}

fn call(tool: &Tool, how: Tools, dice: &mut Dice) -> Call {
    let good = schema::generate(&tool.parameters, dice);
    let (name, arguments) = match how {
        Tools::BadArgs => (tool.name.clone(), spoil::break_schema(&good).to_string()),
        Tools::TruncatedArgs => {
            (tool.name.clone(), spoil::text(&json!({"args": good}), &[], Json::Truncated).replacen("{\"args\":", "", 1))
        }
        Tools::UnknownTool => (format!("{}_v2_unknown", tool.name), good.to_string()),
        Tools::CaseName => (tool.name.to_uppercase(), good.to_string()),
        _ => (tool.name.clone(), good.to_string()),
    };
    Call { id: format!("call_{:016x}", dice.next()), name, arguments }
}

fn used(how: Usage, ask: &Ask, fault: &Fault, said: &[Said]) -> Option<Used> {
    let tokens = |s: &Said| s.tokens.len() + s.calls.iter().map(|c| split(&c.arguments).len() + 1).sum::<usize>();
    let reasoning = said.iter().map(|s| s.reasoning.len()).sum::<usize>() as u64;
    let completion = said.iter().map(tokens).sum::<usize>() as u64 + reasoning;
    let prompt = fault.prompt_tokens.unwrap_or(ask.prompt_tokens);
    let right = Used { prompt, completion, reasoning, total: prompt + completion };
    match how {
        Usage::Ok => Some(right),
        Usage::Missing => None,
        Usage::Zero => Some(Used { prompt: 0, completion: 0, reasoning: 0, total: 0 }),
        Usage::Wrong => Some(Used { prompt: prompt * 3 + 17, completion: completion / 2, total: 1, ..right }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_join_to_the_text_they_came_from() {
        for text in ["", "one two", " lead  and trail ", "{\"long\":\"abcdefghijklmnop\"}", "zażółć gęślą\n\njaźń"]
        {
            assert_eq!(split(text).concat(), text);
        }
        assert_eq!(split("one two"), ["one", " two"]);
    }

    #[test]
    fn cut_arguments_are_never_json() {
        let tool = Tool { name: "f".into(), parameters: json!({"type": "object"}) };
        let made = call(&tool, Tools::TruncatedArgs, &mut Dice::of(&[1]));
        assert!(serde_json::from_str::<Value>(&made.arguments).is_err(), "{}", made.arguments);
    }
}

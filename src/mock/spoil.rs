//! The many ways in which a model's JSON is almost right.
//!
//! Owns the damage done to one JSON text. Knows nothing of streams or surfaces. Invariant: each kind of damage is
//! really there in the text it returns, also when the value has no place for it (then a place is added).

use serde_json::{Map, Value, json};

use super::words::Json;

/// How deep [`Json::Deep`] nests.
const DEPTH: usize = 100_000;

/// The text of `value`, damaged as `how` says. `required` names properties that must not be missing.
pub fn text(value: &Value, required: &[String], how: Json) -> String {
    let plain = value.to_string();
    match how {
        Json::Fenced => format!("```json\n{plain}\n```"),
        Json::Prose => format!("Sure! Here is the JSON you asked for:\n\n{plain}\n\nLet me know if you need more."),
        Json::TrailingComma => match plain.char_indices().next_back() {
            Some((at, '}' | ']')) if plain.len() > 2 => format!("{},{}", &plain[..at], &plain[at..]),
            _ => "{\"value\":1,}".to_string(),
        },
        Json::Truncated => cut(&plain),
        Json::DuplicateKeys => {
            let first = value.as_object().and_then(|o| o.keys().next()).map_or("value", String::as_str);
            let rest = plain.strip_prefix('{').filter(|rest| *rest != "}").unwrap_or("\"value\":1}");
            format!("{{{}:null,{rest}", json!(first))
        }
        Json::TwoValues => format!("{plain}\n{plain}"),
        Json::Deep => "[".repeat(DEPTH) + &"]".repeat(DEPTH),
        Json::StringNumber => first_number(value, |n| Value::String(n.to_string())).to_string(),
        Json::BigNumber => mark(value, "1e400"),
        Json::Nan => mark(value, "NaN"),
        Json::MissingRequired => without_required(value, required).to_string(),
    }
}

/// `text` cut at two thirds, on a character boundary.
pub fn cut(text: &str) -> String {
    let mut end = text.len() * 2 / 3;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}

/// Valid JSON that satisfies no schema `value` satisfied: its first property has the wrong type, and one is added.
pub fn break_schema(value: &Value) -> Value {
    let Value::Object(fields) = value else {
        return json!({ "unexpected": true });
    };
    let mut broken = fields.clone();
    if let Some(first) = fields.keys().next() {
        let wrong = if fields[first].is_object() { json!([0]) } else { json!({ "unexpected": true }) };
        broken.insert(first.clone(), wrong);
    }
    broken.insert("unexpected".to_string(), json!(true));
    Value::Object(broken)
}

fn without_required(value: &Value, required: &[String]) -> Value {
    let Value::Object(fields) = value else { return json!({}) };
    let gone = required.iter().find(|name| fields.contains_key(*name)).or_else(|| fields.keys().next());
    Value::Object(fields.iter().filter(|(name, _)| Some(*name) != gone).map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// `value` with its first number (depth first) replaced; if there is none, one is added to an object around it.
fn first_number(value: &Value, replace: impl Fn(&serde_json::Number) -> Value) -> Value {
    fn walk(value: &mut Value, replace: &dyn Fn(&serde_json::Number) -> Value) -> bool {
        match value {
            Value::Number(n) => {
                *value = replace(n);
                true
            }
            Value::Array(items) => items.iter_mut().any(|item| walk(item, replace)),
            Value::Object(fields) => fields.values_mut().any(|item| walk(item, replace)),
            _ => false,
        }
    }
    let mut changed = value.clone();
    if walk(&mut changed, &replace) {
        return changed;
    }
    let mut fields = match changed {
        Value::Object(fields) => fields,
        other => Map::from_iter([("value".to_string(), other)]),
    };
    fields.insert("number".to_string(), replace(&serde_json::Number::from(1)));
    Value::Object(fields)
}

fn mark(value: &Value, literal: &str) -> String {
    const MARK: &str = "@@number@@";
    first_number(value, |_| json!(MARK)).to_string().replacen(&format!("\"{MARK}\""), literal, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_damage_is_visible_to_a_parser() {
        let value = json!({"age": 3, "name": "x"});
        let of = |how| text(&value, &["name".to_string()], how);
        let parse = |text: &str| serde_json::from_str::<Value>(text);
        for how in [Json::Fenced, Json::Prose, Json::TrailingComma, Json::Truncated, Json::TwoValues, Json::Nan] {
            assert!(parse(&of(how)).is_err(), "{how:?}: {}", of(how));
        }
        assert!(parse(&of(Json::Deep)).is_err());
        assert_eq!(of(Json::StringNumber), r#"{"age":"3","name":"x"}"#);
        assert_eq!(of(Json::BigNumber), r#"{"age":1e400,"name":"x"}"#);
        assert_eq!(of(Json::MissingRequired), r#"{"age":3}"#);
        assert_eq!(of(Json::DuplicateKeys), r#"{"age":null,"age":3,"name":"x"}"#);
        assert_eq!(text(&json!({}), &[], Json::TrailingComma), "{\"value\":1,}");
        assert_eq!(break_schema(&value)["age"], json!({"unexpected": true}));
    }
}

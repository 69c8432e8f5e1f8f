//! A small generator: from a JSON Schema to a value that satisfies it.
//!
//! Owns the keywords type, enum, const, properties, required, items, prefixItems, anyOf/oneOf/allOf, local `$ref`,
//! the length and number bounds and the common formats. Patterns are not read. Invariant: it always ends: past
//! twelve levels only what is required is made, past forty nothing is.

use serde_json::{Map, Number, Value, json};

use super::dice::Dice;

const WORDS: &[&str] = &["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor"];

/// A value that satisfies `schema`, drawn from `dice`.
pub fn generate(schema: &Value, dice: &mut Dice) -> Value {
    Maker { root: schema, dice }.make(schema, 0)
}

struct Maker<'a> {
    root: &'a Value,
    dice: &'a mut Dice,
}

impl Maker<'_> {
    fn make(&mut self, schema: &Value, depth: usize) -> Value {
        if depth > 40 {
            return Value::Null;
        }
        if let Some(path) = schema["$ref"].as_str() {
            let target = path.strip_prefix('#').and_then(|path| self.root.pointer(path)).cloned();
            return self.make(&target.unwrap_or(Value::Null), depth + 1);
        }
        if let Some(fixed) = schema.get("const") {
            return fixed.clone();
        }
        if let Some(allowed) = schema["enum"].as_array().filter(|a| !a.is_empty()) {
            return self.dice.one(allowed).clone();
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(ways) = schema[key].as_array().filter(|w| !w.is_empty()) {
                let deep = depth > 12 && ways.iter().any(|w| w["type"] == "null");
                return if deep { Value::Null } else { self.make(&ways[0].clone(), depth + 1) };
            }
        }
        if let Some(parts) = schema["allOf"].as_array() {
            let merged = merge(schema, parts);
            return self.make(&merged, depth + 1);
        }
        match self.kind(schema) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "string" => self.string(schema),
            "integer" => self.integer(schema),
            "number" => self.number(schema),
            "boolean" => json!(self.dice.below(2) == 0),
            _ => Value::Null,
        }
    }

    fn kind<'s>(&self, schema: &'s Value) -> &'s str {
        let named = match &schema["type"] {
            Value::String(name) => Some(name.as_str()),
            Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
            _ => None,
        };
        let has = |keys: &[&str]| keys.iter().any(|key| schema.get(*key).is_some());
        named.unwrap_or(match () {
            () if has(&["properties", "required"]) => "object",
            () if has(&["items", "prefixItems"]) => "array",
            () if has(&["minimum", "maximum"]) => "number",
            () if schema.is_null() => "null",
            () => "string",
        })
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut made = Map::new();
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            if depth <= 12 || required.contains(&name.as_str()) {
                made.insert(name.clone(), self.make(inner, depth + 1));
            }
        }
        for name in required {
            if !made.contains_key(name) {
                let inner = schema["additionalProperties"].clone();
                let value = if inner.is_object() { self.make(&inner, depth + 1) } else { self.string(&Value::Null) };
                made.insert(name.to_string(), value);
            }
        }
        Value::Object(made)
    }

    fn array(&mut self, schema: &Value, depth: usize) -> Value {
        let least = schema["minItems"].as_u64().unwrap_or(0);
        let most = schema["maxItems"].as_u64().unwrap_or(u64::MAX);
        let wanted = if depth > 12 { least } else { least.max(2).min(most) }.min(1000);
        let unique = schema["uniqueItems"].as_bool().unwrap_or(false);
        let mut made: Vec<Value> = Vec::new();
        let mut tries = wanted * 20;
        while (made.len() as u64) < wanted && tries > 0 {
            tries -= 1;
            let inner = schema["prefixItems"].get(made.len()).unwrap_or(&schema["items"]).clone();
            let inner = if inner.is_object() { inner } else { json!({ "type": "string" }) };
            let item = self.make(&inner, depth + 1);
            if !unique || !made.contains(&item) {
                made.push(item);
            }
        }
        Value::Array(made)
    }

    fn string(&mut self, schema: &Value) -> Value {
        let digits = self.dice.below(90) + 10;
        let fixed = match schema["format"].as_str() {
            Some("date") => Some("2025-03-14".to_string()),
            Some("date-time") => Some("2025-03-14T09:26:53Z".to_string()),
            Some("time") => Some("09:26:53Z".to_string()),
            Some("email") => Some(format!("user{digits}@example.com")),
            Some("uri" | "url") => Some(format!("https://example.com/{digits}")),
            Some("uuid") => Some(format!("00000000-0000-4000-8000-0000000000{digits}")),
            Some("ipv4") => Some(format!("192.0.2.{digits}")),
            _ => None,
        };
        let mut text = fixed.unwrap_or_else(|| (*self.dice.one(WORDS)).to_string());
        let least = schema["minLength"].as_u64().unwrap_or(0).min(100_000) as usize;
        while text.len() < least {
            text.push(' ');
            let word: &&str = self.dice.one(WORDS);
            text.push_str(word);
        }
        if let Some(most) = schema["maxLength"].as_u64() {
            text.truncate((most as usize).max(least));
        }
        json!(text)
    }

    fn integer(&mut self, schema: &Value) -> Value {
        let (low, high) = bounds(schema, 1.0);
        let step = schema["multipleOf"].as_f64().filter(|s| *s >= 1.0).unwrap_or(1.0);
        let low = (low / step).ceil() as i64;
        let high = ((high / step).floor() as i64).max(low);
        let drawn = low.saturating_add(self.dice.below(high.abs_diff(low).saturating_add(1)) as i64);
        json!(drawn.saturating_mul(step as i64))
    }

    fn number(&mut self, schema: &Value) -> Value {
        let (low, high) = bounds(schema, 0.25);
        if let Some(step) = schema["multipleOf"].as_f64().filter(|s| *s > 0.0) {
            return json!((low / step).ceil() * step);
        }
        let drawn = low + (high - low) * 0.5 + (high - low) * 0.25 * (self.dice.below(3) as f64 - 1.0);
        Number::from_f64(drawn).map_or(Value::Null, Value::Number)
    }
}

/// The closed range of numbers allowed; `gap` is what an exclusive bound takes away.
fn bounds(schema: &Value, gap: f64) -> (f64, f64) {
    let low = schema["minimum"].as_f64().or(schema["exclusiveMinimum"].as_f64().map(|n| n + gap));
    let high = schema["maximum"].as_f64().or(schema["exclusiveMaximum"].as_f64().map(|n| n - gap));
    match (low, high) {
        (Some(low), Some(high)) => (low, high.max(low)),
        (Some(low), None) => (low, low + 100.0),
        (None, Some(high)) => (high - 100.0, high),
        (None, None) => (0.0, 100.0),
    }
}

fn merge(schema: &Value, parts: &[Value]) -> Value {
    let mut whole = schema.as_object().cloned().unwrap_or_default();
    whole.remove("allOf");
    for (key, value) in parts.iter().filter_map(Value::as_object).flatten() {
        match (whole.get_mut(key), value) {
            (Some(Value::Object(have)), Value::Object(more)) => {
                have.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
            }
            (Some(Value::Array(have)), Value::Array(more)) => have.extend(more.iter().cloned()),
            _ => {
                whole.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_makes_satisfies_the_schema() {
        let schema = json!({"type": "object", "required": ["age", "tags", "kind"], "properties": {
            "age": {"type": "integer", "minimum": 18, "maximum": 20},
            "tags": {"type": "array", "minItems": 3, "maxItems": 3, "items": {"type": "string", "maxLength": 4}},
            "kind": {"enum": ["a", "b"]}, "score": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "node": {"$ref": "#/$defs/node"}},
            "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}}});
        for n in 0..50 {
            let made = generate(&schema, &mut Dice::of(&[n]));
            assert!((18..=20).contains(&made["age"].as_i64().expect("an integer")), "{made}");
            assert_eq!(made["tags"].as_array().map(Vec::len), Some(3));
            assert!(made["tags"][0].as_str().is_some_and(|s| s.len() <= 4));
            assert!(["a", "b"].contains(&made["kind"].as_str().expect("a string")));
            let score = made["score"].as_f64().expect("a number");
            assert!(score > 0.0 && score <= 1.0);
        }
    }
}

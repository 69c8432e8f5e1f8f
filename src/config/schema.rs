//! The JSON Schema of the config file, for editors.
//!
//! Written from the table of keys; holds only what this version has. Invariant: a file that loads satisfies it.

use serde_json::{Map, Value, json};

use super::keys::{self, Found, Row, Type};

/// The schema as JSON.
pub fn schema() -> Value {
    let mut root = object("");
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("Outrigger config");
    root
}

fn object(path: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for name in keys::children(path, false) {
        let full = keys::join(path, name);
        if keys::REQUIRED.contains(&full.as_str()) {
            required.push(json!(name));
        }
        let value = match keys::find(&full) {
            Some(Found::Value(row)) => leaf(row),
            Some(Found::Map) if keys::may_be_off(&full) => json!({ "anyOf": [object(&full), { "const": "off" }] }),
            Some(Found::Map) => object(&full),
            Some(Found::List) => json!({ "type": "array", "items": object(&format!("{full}[]")) }),
            None => continue,
        };
        properties.insert(name.to_owned(), value);
    }
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        object["required"] = Value::Array(required);
    }
    object
}

fn leaf(row: &Row) -> Value {
    // `${VAR}` may stand for any value.
    let or_variable = |pattern: &str| json!({ "type": "string", "pattern": format!("^({pattern}|.*\\$\\{{.*)$") });
    let mut value = match row.ty {
        Type::Text | Type::Secret | Type::Path | Type::Address => json!({ "type": "string" }),
        Type::Name => or_variable("[A-Za-z0-9._-]{1,64}"),
        Type::Url => or_variable("https?://[^?#@]+"),
        Type::Duration => or_variable("[0-9]+(\\.[0-9]+)?(ms|s|m|h)"),
        Type::Between(..) => or_variable("[0-9]+(\\.[0-9]+)?(ms|s|m|h)"),
        Type::HttpPath => or_variable("/[!-\"$-~]*"),
        Type::Clock => or_variable("[0-9]*\\.?[0-9]*[1-9][0-9]*\\.?[0-9]*(ms|s|m|h)"),
        Type::Size => or_variable("[0-9]+(\\.[0-9]+)?([KMG]i?B|B)"),
        Type::Amount => json!({ "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^([0-9]+(\\.[0-9]+)?[kMG]|.*\\$\\{.*)$" },
        ] }),
        Type::Ratio => or_variable("[0-9]+(\\.[0-9]+)?%"),
        Type::Count(low, high) => json!({ "anyOf": [
            { "type": "integer", "minimum": low, "maximum": high },
            { "type": "string", "pattern": "\\$\\{" },
        ] }),
        Type::Switch => json!({ "type": "boolean" }),
        Type::Choice(words) => json!({ "enum": words }),
        Type::Targets => json!({ "type": "array", "minItems": 1, "items": { "anyOf": [
            { "type": "string" },
            { "type": "object", "additionalProperties": false, "required": ["balance"], "properties": {
                "balance": { "type": "array", "minItems": 1, "items": { "type": "string" } },
                "by": { "enum": ["load", "prefix"] },
            } },
        ] } }),
        Type::Later => json!(true),
    };
    if let Some(object) = value.as_object_mut() {
        object.insert("description".to_owned(), json!(row.why));
        if let Some(default) = row.default {
            object.insert("default".to_owned(), default_of(row.ty, default));
        }
    }
    value
}

fn default_of(ty: Type, text: &str) -> Value {
    match ty {
        Type::Count(..) | Type::Switch => text.parse().unwrap_or_else(|_| json!(text)),
        _ => json!(text.trim_matches('"')),
    }
}

//! Whether a JSON value says anything at all, found without building it.
//!
//! Owns one question, asked of deltas and messages whose shape differs from server to server. Invariant: null,
//! false, "", and containers of nothing but these are hollow; everything else is full.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// True when the value it was read from says something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Full(pub bool);

impl<'de> Deserialize<'de> for Full {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = bool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<bool, E> {
                Ok(false)
            }

            fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
                Ok(value)
            }

            fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
                Ok(true)
            }

            fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
                Ok(true)
            }

            fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
                Ok(true)
            }

            fn visit_str<E>(self, value: &str) -> Result<bool, E> {
                Ok(!value.is_empty())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
                while let Some(item) = seq.next_element::<Full>()? {
                    if item.0 {
                        while seq.next_element::<IgnoredAny>()?.is_some() {}
                        return Ok(true);
                    }
                }
                Ok(false)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
                while map.next_key::<IgnoredAny>()?.is_some() {
                    if map.next_value::<Full>()?.0 {
                        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                        return Ok(true);
                    }
                }
                Ok(false)
            }
        }
        from.deserialize_any(Look).map(Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hollow_and_full_values() {
        for hollow in ["null", "\"\"", "[]", "{}", "false", r#"{"content":[],"refusal":null}"#, r#"[{"a":""}]"#] {
            assert!(!serde_json::from_str::<Full>(hollow).unwrap().0, "{hollow}");
        }
        for full in
            ["0", "\" \"", "\"\\n\"", "true", "1.5", "-1", r#"[null,{"a":[0]},7]"#, r#"{"a":null,"b":"x","c":{}}"#]
        {
            assert!(serde_json::from_str::<Full>(full).unwrap().0, "{full}");
        }
    }
}

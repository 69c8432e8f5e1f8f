//! The beginning of a prompt, as a number: equal for calls whose prompts begin alike.
//!
//! Owns finding where a conversation begins and where its first turn ends; says nothing of tokens. What counts is what
//! stands before the first answer of a model: the system text and everything up to the first turn of the user, so that
//! the calls of one conversation are alike from the first to the last. Reading stops there: the rest of a long
//! conversation is never looked at.

use std::hash::{DefaultHasher, Hasher};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Prompts shorter than this many bytes (about 512 tokens) are read again sooner than they are found again.
const SHORTEST: usize = 2048;
/// So many bytes of each part count.
const COUNTED: usize = 4096;

/// A number for the beginning of the prompt in a JSON request body; `None` where it is too short to matter, or there
/// is none. `salt` keeps apart what must not be taken for alike, such as two models.
pub fn key(body: &[u8], salt: &[&str]) -> Option<u64> {
    if body.len() < SHORTEST {
        return None;
    }
    let mut beginning = Beginning { hash: DefaultHasher::new(), parts: 0 };
    for text in salt {
        beginning.hash.write(text.as_bytes());
        beginning.hash.write_u8(0);
    }
    // It ends early on purpose, with an error; a body that is no JSON was refused before.
    drop(serde_json::Deserializer::from_slice(body).deserialize_map(Members(&mut beginning)));
    (beginning.parts > 0).then(|| beginning.hash.finish())
}

struct Beginning {
    hash: DefaultHasher,
    parts: u32,
}

impl Beginning {
    fn take(&mut self, part: &str) {
        let part = part.as_bytes();
        self.hash.write(&part[..part.len().min(COUNTED)]);
        self.hash.write_usize(part.len().min(COUNTED));
        self.parts += 1;
    }
}

struct Members<'b>(&'b mut Beginning);

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            match name.as_ref() {
                "system" | "instructions" | "prompt" => {
                    let raw: &RawValue = map.next_value()?;
                    self.0.take(raw.get());
                }
                "messages" | "input" => map.next_value_seed(Turns(&mut *self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The turns of a conversation, or one text that stands for all of them.
struct Turns<'b>(&'b mut Beginning);

impl<'de> DeserializeSeed<'de> for Turns<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Turns<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of turns, or a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.take(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut turns: A) -> Result<(), A::Error> {
        while let Some(turn) = turns.next_element::<&RawValue>()? {
            self.0.take(turn.get());
            let role = serde_json::from_str::<Role<'_>>(turn.get()).ok().and_then(|turn| turn.role);
            if role.as_deref() == Some("user") {
                return Err(A::Error::custom("that is the beginning"));
            }
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
struct Role<'a> {
    #[serde(borrow)]
    role: Option<std::borrow::Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(system: &str, first: &str, rest: &str) -> Vec<u8> {
        format!(
            r#"{{"model":"m","messages":[{{"role":"system","content":"{system}"}},{{"role":"user","content":"{first}"}}{rest}],"temperature":0}}"#
        )
        .into_bytes()
    }

    fn of(body: &[u8]) -> Option<u64> {
        key(body, &["m", "team"])
    }

    #[test]
    fn a_conversation_stays_itself_as_it_grows() {
        let long = "s".repeat(3000);
        let begun = of(&chat(&long, "hello", "")).unwrap();
        let grown = r#",{"role":"assistant","content":"hi"},{"role":"user","content":"more"}"#;
        assert_eq!(of(&chat(&long, "hello", grown)), Some(begun));
        assert_ne!(of(&chat(&long, "another", "")), Some(begun));
        assert_ne!(of(&chat(&"t".repeat(3000), "hello", "")), Some(begun));
        assert_ne!(key(&chat(&long, "hello", ""), &["m", "others"]), Some(begun), "keys are kept apart");
        assert_ne!(key(&chat(&long, "hello", ""), &["mt", "eam"]), Some(begun), "the parts of a salt are kept apart");
    }

    #[test]
    fn every_surface_has_a_beginning() {
        let text = "x".repeat(3000);
        let beginning = |body: String| of(body.as_bytes());
        assert!(beginning(format!(r#"{{"prompt":"{text}"}}"#)).is_some());
        assert!(beginning(format!(r#"{{"instructions":"be brief","input":"{text}"}}"#)).is_some());
        assert!(beginning(format!(r#"{{"input":[{{"role":"user","content":"{text}"}}]}}"#)).is_some());
        let messages = |system: &str| {
            beginning(format!(r#"{{"system":"{system}","messages":[{{"role":"user","content":"{text}"}}]}}"#))
        };
        assert_ne!(messages("a"), messages("b"));
        assert_eq!(beginning(format!(r#"{{"other":"{text}"}}"#)), None);
        assert_eq!(beginning(r#"{"prompt":"short"}"#.to_owned()), None);
    }

    #[test]
    fn what_is_not_json_is_no_beginning_and_no_trouble() {
        for body in ["", "[", "{", "nonsense", "{\"messages\":[{\"role\":\"us"] {
            let mut body = body.as_bytes().to_vec();
            body.extend(std::iter::repeat_n(b' ', 3000));
            assert_eq!(of(&body), None, "{}", String::from_utf8_lossy(&body[..10]));
        }
    }
}

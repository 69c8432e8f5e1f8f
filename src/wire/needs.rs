//! What a request body holds that its envelope does not tell: images, sound, and at least how many tokens.
//!
//! Owns three scans over raw bytes, made only when somebody wants to know. Reads no JSON. Invariant: a text that quotes
//! a part of a request does not count as one, for inside a JSON string its quotes are escaped.

use memchr::memmem;

/// Whether a message holds an image: a part whose `type` is one of the words for it.
pub fn has_image(body: &[u8]) -> bool {
    [&b"\"image_url\""[..], b"\"input_image\"", b"\"image\""].iter().any(|word| has_part(body, word))
}

/// Whether a message holds sound.
pub fn has_audio(body: &[u8]) -> bool {
    [&b"\"input_audio\""[..], b"\"audio_url\""].iter().any(|word| has_part(body, word))
}

/// A number of tokens that no tokenizer gets below.
///
/// Tokenizers split at white space before anything else, so a blank with a letter behind it begins a token. Escapes,
/// base64 and scripts without blanks are not counted at all: this is a floor, not an estimate.
pub fn tokens_at_least(body: &[u8]) -> u64 {
    body.windows(2).map(|pair| u64::from(pair[0] == b' ' && pair[1].is_ascii_alphabetic())).sum()
}

/// Whether `word`, quotes included, is the value of a `type` member anywhere. As a member's name, such as a tool's
/// parameter of this name, it is not.
fn has_part(body: &[u8], word: &[u8]) -> bool {
    memmem::find_iter(body, word).any(|at| {
        let before = body[..at].trim_ascii_end();
        before.strip_suffix(b":").is_some_and(|before| before.trim_ascii_end().ends_with(b"\"type\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_seen_in_every_api_s_words() {
        for image in [
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:"}}]}]}"#,
            r#"{"input":[{"role":"user","content":[{ "type" : "input_image", "image_url": "data:" }]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image","source":{}}]}]}"#,
        ] {
            assert!(has_image(image.as_bytes()), "{image}");
            assert!(!has_audio(image.as_bytes()), "{image}");
        }
        let audio = r#"{"messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":""}}]}]}"#;
        assert!(has_audio(audio.as_bytes()) && !has_image(audio.as_bytes()));
    }

    #[test]
    fn words_about_images_are_no_images() {
        for text in [
            r#"{"messages":[{"role":"user","content":"what is \"type\":\"image_url\" in the API?"}]}"#,
            r#"{"tools":[{"function":{"parameters":{"properties":{"image_url":{"type":"string"}}}}}]}"#,
            r#"{"messages":[{"role":"user","content":"image"}]}"#,
            r#"{"model":"image"}"#,
        ] {
            assert!(!has_image(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_floor_is_below_every_tokenizer() {
        let words = |text: &str| tokens_at_least(text.as_bytes());
        assert_eq!(words(r#"{"content":"one two three"}"#), 2);
        assert_eq!(words(&format!("{{\"url\":\"data:image/png;base64,{}\"}}", "iVBORw0KGgo".repeat(100_000))), 0);
        assert_eq!(words(r#"{"content":"\u4f60\u597d\u4f60\u597d 你好"}"#), 0);
        assert_eq!(words(&" ".repeat(1000)), 0);
    }
}

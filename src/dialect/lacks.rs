//! What a server says it cannot do, and how large it says its window is.
//!
//! Why: "no tools here" and "too long for me" are refusals of this model, not of the request: another model may take the
//! call as it stands. Owns the words for it. Invariant: a phrase is a server's own turn of speech, long enough that a
//! caller's text quoted in a message does not hold it by chance; whether the call asked for the thing at all is looked
//! at where the call is known.

use crate::call::Capability;
use crate::wire::WireError;

/// Per capability the phrases, in lower case.
const PHRASES: &[(Capability, &[&str])] = &[
    (
        Capability::Tools,
        &[
            // Ollama, vLLM, llama.cpp, DeepSeek, OpenRouter, Groq, OpenAI
            "does not support tools",
            "does not support tool",
            "tool choice requires --enable-auto-tool-choice",
            "tools param requires --jinja",
            "tool_choice param requires --jinja",
            "does not support function calling",
            "no endpoints found that support tool use",
            "`tool calling` is not supported with this model",
            "tool calling is not supported",
            "tools is not supported in this model",
            "unsupported parameter: 'tools'",
            "'tools' is not supported with this model",
        ],
    ),
    (
        Capability::JsonSchema,
        &[
            "'response_format' of type 'json_schema' is not supported",
            "does not support response format `json_schema`",
            "this response_format type is unavailable",
            "response_format is not supported",
            "response_format' is not supported",
            "does not support response_format",
            "does not support structured output",
            "does not support output format",
            "structured outputs are not supported",
            "json_schema is not supported",
            "response_format.type must be one of",
        ],
    ),
    (
        Capability::Vision,
        &[
            "does not support image",
            "image input is not supported",
            "image inputs are not supported",
            "image_url is only supported by certain models",
            "images are not supported",
            "does not support vision",
            "no endpoints found that support image input",
            "is not a multimodal model",
            "at most 0 image",
            "unknown variant `image_url`",
            "missing data required for image input",
        ],
    ),
    (
        Capability::Audio,
        &[
            "does not support audio",
            "audio input is not supported",
            "input_audio is only supported by certain models",
            "no endpoints found that support input audio",
            "at most 0 audio",
            "unknown variant `input_audio`",
        ],
    ),
];

/// Words after which a server tells the size of its window, in lower case.
const WINDOWS: &[&str] = &[
    "maximum context length is ",
    "maximum context length of ",
    "maximum prompt length is ",
    "maximum model length of ",
    "maximum input length of ",
    "available context size (",
    "maximum number of tokens allowed (",
    "`inputs` must have less than ",
    "`max_new_tokens` must be <= ",
    "exceeds the context length of ",
    "loaded with context length of only ",
];

/// What the endpoint says it cannot do. Under a status with which servers say so: what the caller got wrong, what is not
/// there, and the 500 of a server that finds out late.
pub(super) fn capability(status: Option<u16>, error: &WireError) -> Option<Capability> {
    if !matches!(status, None | Some(200..=299 | 400 | 404 | 415 | 422 | 500 | 501)) {
        return None;
    }
    let text = error.message.to_ascii_lowercase();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    PHRASES.iter().find(|(_, phrases)| says(phrases)).map(|(capability, _)| *capability)
}

/// The window's size in tokens, where a refusal tells it.
pub(super) fn window(error: &WireError) -> Option<u64> {
    let text = error.message.to_ascii_lowercase();
    let after = |phrase: &&str| number(&text[text.find(*phrase)? + phrase.len()..]);
    // Anthropic: "... : 210000 tokens > 200000 maximum", "... 190000 + 20000 > 200000, decrease ...".
    let over = || number(text.rsplit_once(" > ")?.1);
    // Mistral: "... too large for model with 32768 maximum context length".
    let before = || {
        let before = text.split_once(" maximum context length")?.0;
        number(before.rsplit_once(' ').map_or(before, |(_, last)| last))
    };
    WINDOWS.iter().find_map(after).or_else(over).or_else(before).filter(|window| (16..=1 << 40).contains(window))
}

/// The number a text begins with; `128,000` is one.
fn number(text: &str) -> Option<u64> {
    let digits: String =
        text.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_say_what_they_cannot_do() {
        use Capability::{Audio, JsonSchema, Tools, Vision};
        for (status, message, what) in [
            (400, "registry.ollama.ai/library/gemma:2b does not support tools", Some(Tools)),
            (
                400,
                "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set",
                Some(Tools),
            ),
            (500, "tools param requires --jinja flag", Some(Tools)),
            (400, "deepseek-reasoner does not support Function Calling", Some(Tools)),
            (404, "No endpoints found that support tool use. Try disabling \"search\".", Some(Tools)),
            (
                400,
                "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model. Learn more.",
                Some(JsonSchema),
            ),
            (400, "This model does not support response format `json_schema`. See supported models", Some(JsonSchema)),
            (400, "This response_format type is unavailable now", Some(JsonSchema)),
            (400, "Invalid content type. image_url is only supported by certain models.", Some(Vision)),
            (500, "image input is not supported - hint: you may need to provide the mmproj", Some(Vision)),
            (400, "At most 0 image(s) may be provided in one request.", Some(Vision)),
            (400, "openai/gpt-oss-20b is not a multimodal model", Some(Vision)),
            (422, "Failed to deserialize: messages[0]: unknown variant `image_url`, expected `text`", Some(Vision)),
            (500, "audio input is not supported - hint: you may need to provide the mmproj", Some(Audio)),
            (400, "tools[0].function.name is invalid", None),
            (400, "Invalid image: could not be decoded", None),
            (429, "tools param requires --jinja flag", None),
            (503, "does not support tools", None),
        ] {
            assert_eq!(capability(Some(status), &WireError::new(message)), what, "{message}");
        }
    }

    #[test]
    fn servers_say_how_large_their_window_is() {
        for (message, size) in [
            ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000", Some(8192)),
            ("This model's maximum context length is 128,000 tokens.", Some(128_000)),
            ("request (12345 tokens) exceeds the available context size (4096 tokens), try increasing it", Some(4096)),
            ("the request exceeds the available context size. try increasing the context size", None),
            ("prompt is too long: 210000 tokens > 200000 maximum", Some(200_000)),
            ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease", Some(200_000)),
            (
                "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
                Some(1_048_576),
            ),
            ("Prompt contains 40000 tokens, too large for model with 32768 maximum context length", Some(32768)),
            ("This model's maximum prompt length is 131072 but the request contains 200000 tokens.", Some(131_072)),
            ("`inputs` must have less than 1024 tokens. Given: 2000", Some(1024)),
            ("Input is too long for requested model.", None),
            ("maximum context length is 3 tokens", None),
        ] {
            assert_eq!(window(&WireError::new(message)), size, "{message}");
        }
    }
}

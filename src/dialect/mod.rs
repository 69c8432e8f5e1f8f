//! Dialects: how each kind of server says things. Pure translation from wire shapes to classes.

use std::str::FromStr;

/// The kind of server behind an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Decided from the URL and from what the server says of itself.
    #[default]
    Auto,
    /// api.openai.com and whatever follows it closely.
    OpenAi,
    /// vLLM.
    Vllm,
    /// llama.cpp's own server.
    LlamaCpp,
    /// Ollama.
    Ollama,
    /// api.anthropic.com.
    Anthropic,
}

impl Dialect {
    /// Every dialect, in the order of the reference.
    pub const ALL: [Dialect; 6] =
        [Dialect::Auto, Dialect::OpenAi, Dialect::Vllm, Dialect::LlamaCpp, Dialect::Ollama, Dialect::Anthropic];

    /// The name in the config file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Dialect::Auto => "auto",
            Dialect::OpenAi => "openai",
            Dialect::Vllm => "vllm",
            Dialect::LlamaCpp => "llamacpp",
            Dialect::Ollama => "ollama",
            Dialect::Anthropic => "anthropic",
        }
    }
}

impl FromStr for Dialect {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Dialect::ALL.into_iter().find(|dialect| dialect.as_str() == name).ok_or(())
    }
}

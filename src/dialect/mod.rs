//! Dialects: how each kind of server says things. Pure translation from wire shapes to classes.
//!
//! Owns telling servers apart, sorting their errors, and the rules for the ends of their streams. Decides nothing
//! about what follows from a class. Invariant: a server we do not know is read as an OpenAI-like one, and every
//! known quirk is recognised by what is on the wire before it is by the server's name.

pub mod continuation;
pub mod errors;
mod lacks;
pub mod retry_after;
pub mod stream;
mod words;

use std::str::FromStr;

use http::header::{HeaderMap, SERVER};

pub use errors::{classify, from_wire_error};
pub use stream::{Closing, body_kind, close, error_shape, reader};

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

/// The dialect to read a server in: the configured one, or else what its URL and an answer's headers tell.
pub fn detect(configured: Dialect, url: &str, headers: &HeaderMap) -> Dialect {
    if configured != Dialect::Auto {
        return configured;
    }
    let server = headers.get(SERVER).map_or(&b""[..], |value| value.as_bytes()).to_ascii_lowercase();
    if memchr::memmem::find(&server, b"llama.cpp").is_some() {
        return Dialect::LlamaCpp;
    }
    let Ok(url) = url.parse::<http::Uri>() else { return Dialect::OpenAi };
    match (url.host().unwrap_or("").to_ascii_lowercase().as_str(), url.port_u16()) {
        ("api.openai.com", _) => Dialect::OpenAi,
        ("api.anthropic.com", _) => Dialect::Anthropic,
        (_, Some(11434)) => Dialect::Ollama,
        _ => Dialect::OpenAi,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.as_str().parse(), Ok(dialect));
        }
        assert!("gpt".parse::<Dialect>().is_err());
    }

    #[test]
    fn servers_are_told_apart() {
        for (configured, url, server, want) in [
            (Dialect::Vllm, "http://h:11434/v1", "llama.cpp", Dialect::Vllm),
            (Dialect::Auto, "http://h:8080/v1", "llama.cpp", Dialect::LlamaCpp),
            (Dialect::Auto, "http://h:11434/v1", "", Dialect::Ollama),
            (Dialect::Auto, "http://[::1]:11434/v1", "", Dialect::Ollama),
            (Dialect::Auto, "https://API.openai.com/v1", "cloudflare", Dialect::OpenAi),
            (Dialect::Auto, "https://api.anthropic.com/v1", "cloudflare", Dialect::Anthropic),
            (Dialect::Auto, "https://not-api.anthropic.com.example/v1", "", Dialect::OpenAi),
            (Dialect::Auto, "http://h:8000/v1", "uvicorn", Dialect::OpenAi),
            (Dialect::Auto, "not a url", "", Dialect::OpenAi),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(SERVER, server.parse().unwrap());
            assert_eq!(detect(configured, url, &headers), want, "{url} {server}");
        }
    }
}

//! What a model server may be unable to do for a call, in words of a closed list.
//!
//! Owns the words. Who lacks what, and for how long that is believed, is `policy/capability.rs`'s.

/// What a call may need and a model may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Calling tools.
    Tools,
    /// Answers after a JSON schema.
    JsonSchema,
    /// Looking at images.
    Vision,
    /// Listening to sound.
    Audio,
}

impl Capability {
    /// Every one.
    pub const ALL: [Capability; 4] = [Capability::Tools, Capability::JsonSchema, Capability::Vision, Capability::Audio];

    /// The public name, as in the config and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Capability::Tools => "tools",
            Capability::JsonSchema => "json_schema",
            Capability::Vision => "vision",
            Capability::Audio => "audio",
        }
    }

    /// The request member that asks for it, where it is one.
    pub const fn param(self) -> Option<&'static str> {
        match self {
            Capability::Tools => Some("tools"),
            Capability::JsonSchema => Some("response_format"),
            Capability::Vision | Capability::Audio => None,
        }
    }
}

/// Why a model cannot serve a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lack {
    /// It cannot do this.
    Of(Capability),
    /// The prompt does not fit its context window: so many tokens, where that is known.
    Window(Option<u64>),
}

impl Lack {
    /// Every word of [`Lack::as_str`], for metrics.
    pub const WORDS: [&'static str; 5] = ["tools", "json_schema", "vision", "audio", "context_window"];

    /// The public name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Lack::Of(capability) => capability.as_str(),
            Lack::Window(_) => "context_window",
        }
    }
}

/// What a call asks of a model, as far as its envelope tells; images and sound are looked for when somebody wants to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// It offers tools.
    pub tools: bool,
    /// It wants its answer after a JSON schema.
    pub json_schema: bool,
}

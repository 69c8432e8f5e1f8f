//! The closed words a fault's value may be, each with its meaning.
//!
//! Owns the spelling; what each word does stands where it is done. Invariant: a word exists here once, and the
//! parser, the reference page and [`WORDS`] read the same table.

use serde::Deserialize;

macro_rules! words {
    ($($(#[doc = $head:literal])* $name:ident { $($variant:ident = $word:literal: $doc:literal,)* })*) => {
        $(
            $(#[doc = $head])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
            pub enum $name { $(#[doc = $doc] #[serde(rename = $word)] $variant,)* }

            impl $name {
                /// Every word of this list with its meaning.
                pub const WORDS: &'static [(&'static str, &'static str)] = &[$(($word, $doc),)*];
            }
        )*
    };
}

words! {
    /// The server whose error shapes are worn.
    Dialect {
        Openai = "openai": "type and string code inside `error`",
        Vllm = "vllm": "`error.code` is the status as a number",
        Llamacpp = "llamacpp": "`error` without `param`, with its own types",
        Ollama = "ollama": "`error` with `code` and `param` null",
        Anthropic = "anthropic": "`{\"type\":\"error\",\"error\":{…},\"request_id\"}`",
    }
    /// An error by what it means; status, headers and body follow from it and the dialect.
    Trouble {
        BadRequest = "bad_request": "400",
        ContextOverflow = "context_overflow": "400, the prompt is longer than the window",
        ContentFilter = "content_filter": "400, the prompt was refused by a filter",
        Auth = "auth": "401",
        Forbidden = "forbidden": "403",
        NotFound = "not_found": "404, no such model",
        TooLarge = "too_large": "413",
        RateLimit = "rate_limit": "429 with `retry-after: 1`",
        Quota = "quota": "429 without `retry-after`: the money is gone",
        ServerError = "server_error": "500",
        BadGateway = "bad_gateway": "502 with an HTML page, as a load balancer sends it",
        Overloaded = "overloaded": "503 (529 in the anthropic dialect)",
        Loading = "loading": "503, the model is still being loaded",
        Timeout = "timeout": "504 with an HTML page",
    }
    /// Where a call hangs until the client leaves.
    Hang {
        Accept = "accept": "the connection is accepted, nothing is ever read",
        Headers = "headers": "the request is read, no answer begins",
        FirstToken = "first_token": "headers go out, then nothing",
        Mid = "mid": "half of the tokens go out, then nothing",
    }
    /// At which moment of a request the connection is reset.
    Reset {
        Head = "head": "RST as soon as the head is read, before the body is",
        Request = "request": "RST when the whole request is read, before anything of the answer",
    }
    /// What the network before the whole server is like.
    Network {
        Up = "up": "as it should be",
        Refuse = "refuse": "the listener is closed and every connection reset; whoever connects is refused",
        Blackhole = "blackhole": "no handshake is answered, and on open connections nothing comes or goes",
        HalfOpen = "half_open": "connections come about, and nothing comes or goes on any, old or new",
        Reset = "reset": "every connection is reset, a new one as soon as it is accepted",
    }
    /// How a cut ends the connection.
    How {
        Eof = "eof": "the chunked body ends properly, but without finish reason and end mark",
        Close = "close": "FIN without the last chunk",
        Reset = "reset": "RST",
        Half = "half": "our half of the connection is shut, the other stays open and is read",
        Stall = "stall": "silence, the connection stays open",
    }
    /// What is wrong with one event's JSON.
    Malformed {
        BadJson = "bad_json": "the object is cut in the middle",
        Nan = "nan": "a bare `NaN`",
        BadEscape = "bad_escape": "a string with `\\x`",
        BadUtf8 = "bad_utf8": "bytes that are not UTF-8 inside a string",
        Number = "number": "a bare number instead of an object",
        BigNumber = "big_number": "numbers that fit no double and no 64-bit integer",
    }
    /// How events are framed.
    Framing {
        Lf = "lf": "LF line ends (the default)",
        Crlf = "crlf": "CRLF line ends",
        Cr = "cr": "CR line ends",
        Bom = "bom": "a byte order mark before the first event",
        NoSpace = "no_space": "`data:` without the space",
        Multiline = "multiline": "one event's JSON over several `data:` lines",
        OneByte = "one_byte": "every byte in a write and a chunk of its own",
        NoFinalBlank = "no_final_blank": "no blank line after the last event",
    }
    /// The shape of an error inside a stream that began well.
    Inband {
        Native = "native": "whatever the surface itself does (the default)",
        Openai = "openai": "`data: {\"error\":{…}}`, then the stream ends",
        String = "string": "`data: {\"error\":\"text\"}`",
        Event = "event": "`event: error` with the error as data",
        LlamaField = "llama_field": "an SSE field `error:` instead of `data:`",
        FinishError = "finish_error": "`finish_reason: error`, no error object, then the end mark",
        ThenDone = "then_done": "the error, then `[DONE]` as if all were well",
        Choice = "choice": "a chunk with choices and a top-level `error`",
    }
    /// What is wrong with the declared length.
    Length {
        Short = "short": "less is declared than sent",
        Long = "long": "more is declared than sent, then the connection closes",
    }
    /// What the usage numbers are.
    Usage {
        Ok = "ok": "consistent with prompt and answer (the default)",
        Missing = "missing": "no usage at all",
        Wrong = "wrong": "numbers that do not add up",
        Zero = "zero": "all zero",
    }
    /// What is wrong with a JSON answer's text.
    Json {
        Fenced = "fenced": "inside a Markdown fence",
        Prose = "prose": "between two sentences",
        TrailingComma = "trailing_comma": "a comma before the last bracket",
        Truncated = "truncated": "cut at two thirds",
        DuplicateKeys = "duplicate_keys": "the first key twice, with different values",
        TwoValues = "two_values": "two documents, one after the other",
        Deep = "deep": "100,000 nested arrays",
        StringNumber = "string_number": "the first number as a string",
        MissingRequired = "missing_required": "the first required property is absent",
        BigNumber = "big_number": "the first number is `1e400`",
        Nan = "nan": "the first number is `NaN`",
    }
    /// Whether and how tools are called.
    Tools {
        Good = "good": "one call whose arguments satisfy the tool's parameters",
        BadArgs = "bad_args": "arguments that break the parameters' schema",
        UnknownTool = "unknown_tool": "a tool nobody offered",
        CaseName = "case_name": "the right tool, its name in capitals",
        TruncatedArgs = "truncated_args": "arguments that are cut JSON",
        Split1 = "split_1": "a good call, streamed one character at a time",
        AllIndex0 = "all_index_0": "two calls, both with index 0",
        NoIndex = "no_index": "two whole calls without `index`",
        TwoCalls = "two_calls": "two good calls",
        ChoiceIgnored = "choice_ignored": "plain text, whatever `tool_choice` says",
    }
}

/// A key and its closed list: each word with its meaning.
pub type WordList = (&'static str, &'static [(&'static str, &'static str)]);

/// Every closed list, by the fault it belongs to.
pub const WORDS: &[WordList] = &[
    ("error", Trouble::WORDS),
    ("dialect", Dialect::WORDS),
    ("hang", Hang::WORDS),
    ("reset", Reset::WORDS),
    ("network", Network::WORDS),
    ("cut.how", How::WORDS),
    ("malformed_chunk.as", Malformed::WORDS),
    ("framing", Framing::WORDS),
    ("inband_error.shape", Inband::WORDS),
    ("wrong_content_length", Length::WORDS),
    ("usage", Usage::WORDS),
    ("json", Json::WORDS),
    ("tools", Tools::WORDS),
];

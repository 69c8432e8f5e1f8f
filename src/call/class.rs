//! The closed list of failure classes: one name for logs, metric labels, `error.code`, headers and docs.
//!
//! Owns what each class *means*: whose fault it is, whether another send can help, whether it counts
//! against an endpoint, the status a client gets. How a
//! class is recognised is `dialect/`'s; how it is put into words is `server/respond.rs`'s.

use std::fmt;

/// Whose fault a failure is. Only [`Fault::Upstream`] may ever count against an endpoint's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The endpoint, its network path, or the model process failed.
    Upstream,
    /// Our credential at that endpoint is refused or spent.
    Credential,
    /// The caller's request cannot be served as it stands.
    Caller,
    /// The endpoint answered in time, but the answer is not what was asked for.
    Answer,
    /// Outrigger refused or ended the call itself.
    Local,
    /// The client went away.
    Client,
}

/// What a further send may achieve after a failure of this class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same target may be asked again, another endpoint of it first.
    Again,
    /// The same target may be asked once more, not oftener.
    Once,
    /// This endpoint's answer will not change; only another endpoint or target can help.
    Elsewhere,
    /// No further send can help, or none is allowed.
    Never,
}

/// What a failure counts for at the breaker of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// As one more failure in a row, and in the share of failures.
    Both,
    /// In the share of failures: the endpoint is busy or not ready, but it is there.
    RatioOnly,
    /// Not at all.
    Nothing,
    /// Not as a failure; the credential rests.
    Credential,
}

macro_rules! classes {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal, $fault:ident, $retry:ident, $counts:ident, $status:literal;)*) => {
        /// What went wrong, in one word of a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Class { $($(#[doc = $doc])* $variant,)* }

        impl Class {
            /// Every class, in the order of the reference table.
            pub const ALL: &'static [Class] = &[$(Class::$variant,)*];

            /// The public name, as in metric labels and `error.code`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Class::$variant => $name,)* }
            }

            /// One sentence for people; the same sentence stands in `docs/reference/errors.md`.
            pub const fn meaning(self) -> &'static str {
                match self { $(Class::$variant => concat!($($doc),*).trim_ascii_start(),)* }
            }

            /// Whose fault it is.
            pub const fn fault(self) -> Fault {
                match self { $(Class::$variant => Fault::$fault,)* }
            }

            /// Whether a further send can help. A single failure may be stricter than its class.
            pub const fn retry(self) -> Retry {
                match self { $(Class::$variant => Retry::$retry,)* }
            }

            /// What it counts for at the breaker of the endpoint it happened at.
            pub const fn counts(self) -> Counts {
                match self { $(Class::$variant => Counts::$counts,)* }
            }

            /// The HTTP status a client gets before commit, unless the upstream's own answer is passed on; 200 for
            /// answers that pass as they are.
            pub const fn status(self) -> u16 {
                match self { $(Class::$variant => $status,)* }
            }
        }
    };
}

classes! {
    /// The endpoint's name did not resolve.
    DnsFailure = "dns_failure", Upstream, Again, Both, 502;
    /// Nothing listens at the endpoint's address, or it cannot be reached.
    ConnectRefused = "connect_refused", Upstream, Again, Both, 502;
    /// No connection within `timeouts.connect`.
    ConnectTimeout = "connect_timeout", Upstream, Again, Both, 504;
    /// The TLS handshake or the certificate failed.
    TlsFailure = "tls_failure", Upstream, Elsewhere, Both, 502;
    /// The connection broke before a response head arrived.
    ResetBeforeResponse = "reset_before_response", Upstream, Again, Both, 502;
    /// No response head within `timeouts.headers`.
    HeadersTimeout = "headers_timeout", Upstream, Again, Both, 504;
    /// No first model event within the patience for it.
    FirstTokenTimeout = "first_token_timeout", Upstream, Again, Both, 504;
    /// A stream made no progress for `timeouts.idle`; keep-alives are not progress.
    StreamStalled = "stream_stalled", Upstream, Again, Both, 504;
    /// A stream ended without its terminal marker.
    StreamTruncated = "stream_truncated", Upstream, Again, Both, 502;
    /// The response broke HTTP framing: wrong length, bad chunk, bad compression.
    BadFraming = "bad_framing", Upstream, Again, Both, 502;
    /// A success status with a body of another kind, such as a login page.
    WrongContentType = "wrong_content_type", Upstream, Again, Both, 502;
    /// A body or event that is not the JSON it should be.
    Undecodable = "undecodable", Upstream, Again, Both, 502;
    /// A response over our limits.
    OversizeResponse = "oversize_response", Upstream, Never, RatioOnly, 502;
    /// The endpoint refused the request as it stands; its own answer is passed on.
    Upstream400 = "upstream_400", Caller, Never, Nothing, 400;
    /// The endpoint refused our credential.
    UpstreamAuth = "upstream_auth", Credential, Elsewhere, Credential, 502;
    /// The credential's quota or money is spent; never retried on the same credential.
    UpstreamQuota = "upstream_quota", Credential, Elsewhere, Credential, 503;
    /// The endpoint limits our rate.
    RateLimited = "rate_limited", Upstream, Again, RatioOnly, 429;
    /// The endpoint failed inside.
    Upstream500 = "upstream_500", Upstream, Again, Both, 502;
    /// The endpoint or a proxy before it is not available.
    UpstreamUnavailable = "upstream_unavailable", Upstream, Again, Both, 503;
    /// The endpoint says that it is overloaded.
    UpstreamOverloaded = "upstream_overloaded", Upstream, Again, Both, 503;
    /// The server is still loading its model.
    ModelLoading = "model_loading", Upstream, Again, RatioOnly, 503;
    /// An error object arrived inside a success response.
    InbandError = "inband_error", Upstream, Again, Both, 502;
    /// A finished answer with nothing in it.
    EmptyCompletion = "empty_completion", Answer, Once, Nothing, 502;
    /// The answer was cut at the caller's own token cap where that breaks its contract.
    LengthCap = "length_cap", Answer, Never, Nothing, 200;
    /// The answer was cut because the context window was full.
    ContextFull = "context_full", Answer, Never, Nothing, 200;
    /// The provider's content filter ended the answer.
    ContentFilter = "content_filter", Answer, Never, Nothing, 200;
    /// The model refused.
    Refusal = "refusal", Answer, Never, Nothing, 200;
    /// JSON was asked for and the answer is not JSON.
    InvalidJson = "invalid_json", Answer, Again, Nothing, 502;
    /// The answer does not satisfy the schema it was asked for.
    SchemaViolation = "schema_violation", Answer, Again, Nothing, 502;
    /// A tool call's arguments do not satisfy the tool's schema.
    ToolArgsInvalid = "tool_args_invalid", Answer, Again, Nothing, 502;
    /// A tool call names a tool the request does not have.
    UnknownTool = "unknown_tool", Answer, Again, Nothing, 502;
    /// The answer ignores the request's `tool_choice`.
    ToolChoiceViolated = "tool_choice_violated", Answer, Again, Nothing, 502;
    /// The number of choices is not the number asked for.
    WrongN = "wrong_n", Answer, Once, Nothing, 502;
    /// The model repeats itself without end.
    RepetitionLoop = "repetition_loop", Answer, Once, Nothing, 502;
    /// The prompt does not fit the model's context window.
    ContextOverflow = "context_overflow", Caller, Never, Nothing, 400;
    /// The queue before the pool is full.
    QueueFull = "queue_full", Local, Elsewhere, Nothing, 503;
    /// The call waited too long for a free slot.
    QueueTimeout = "queue_timeout", Local, Elsewhere, Nothing, 503;
    /// The call's deadline passed.
    DeadlineExceeded = "deadline_exceeded", Local, Never, Nothing, 504;
    /// The client key is over its own limit.
    TenantLimit = "tenant_limit", Caller, Never, Nothing, 429;
    /// The workflow looks like an endless loop.
    LoopSuspected = "loop_suspected", Caller, Never, Nothing, 429;
    /// Every endpoint of the route is held open by its breaker.
    BreakerOpen = "breaker_open", Local, Elsewhere, Nothing, 503;
    /// The client went away before the answer was complete.
    ClientDisconnect = "client_disconnect", Client, Never, Nothing, 499;
    /// The request is malformed, unauthorised, too large, or names something unknown.
    BadRequest = "bad_request", Caller, Never, Nothing, 400;
    /// Outrigger is shutting down.
    Shutdown = "shutdown", Local, Never, Nothing, 503;
    /// A fault in Outrigger itself.
    Internal = "internal", Local, Never, Nothing, 500;
}

impl Class {
    /// What an error status alone says, of an answer nobody looks into.
    pub const fn of_status(status: u16) -> Option<Self> {
        match status {
            429 => Some(Class::RateLimited),
            400..=499 => Some(Class::Upstream400),
            502..=504 => Some(Class::UpstreamUnavailable),
            500..=599 => Some(Class::Upstream500),
            _ => None,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_snake_case() {
        let names: HashSet<_> = Class::ALL.iter().map(|class| class.as_str()).collect();
        assert_eq!(names.len(), Class::ALL.len());
        assert!(
            names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
        );
    }

    #[test]
    fn a_caller_s_fault_is_never_sent_again() {
        for class in Class::ALL.iter().filter(|class| matches!(class.fault(), Fault::Caller | Fault::Client)) {
            assert_eq!(class.retry(), Retry::Never, "{class}");
        }
    }

    #[test]
    fn only_the_endpoint_s_own_faults_count_against_it() {
        for class in Class::ALL {
            match class.fault() {
                Fault::Upstream => assert!(matches!(class.counts(), Counts::Both | Counts::RatioOnly), "{class}"),
                Fault::Credential => assert_eq!(class.counts(), Counts::Credential, "{class}"),
                _ => assert_eq!(class.counts(), Counts::Nothing, "{class}"),
            }
        }
    }

    #[test]
    fn our_own_refusals_are_never_repeated_where_they_were_made() {
        for class in Class::ALL.iter().filter(|class| class.fault() == Fault::Local) {
            assert!(matches!(class.retry(), Retry::Never | Retry::Elsewhere), "{class}");
        }
    }

    #[test]
    fn a_spent_credential_is_only_ever_left() {
        for class in Class::ALL.iter().filter(|class| class.fault() == Fault::Credential) {
            assert_eq!(class.retry(), Retry::Elsewhere, "{class}");
        }
    }
}

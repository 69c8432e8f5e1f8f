//! The words servers use for what went wrong: codes, types and, where a server has neither, turns of phrase.
//!
//! Owns the tables. Does not look at headers. Invariant: a phrase is matched only under statuses with which a
//! server is known to say it, so that a caller's text quoted in a message cannot sort a failure by chance.

use super::Dialect;
use crate::call::Class;
use crate::wire::WireError;

/// Money and quota: waiting does not help.
const QUOTA: &[&str] = &[
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "enforced_spend_limit_reached",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_balance",
];
const QUOTA_PHRASES: &[&str] = &["credit balance is too low", "insufficient balance"];

/// The provider's filter.
const FILTER: &[&str] = &[
    "content_filter",
    "content_policy_violation",
    "responsibleaipolicyviolation",
    "data_inspection_failed",
    "moderation_blocked",
    "bio_policy",
];
const FILTER_PHRASES: &[&str] = &["content management policy", "requires moderation"];

/// A prompt over the context window.
const OVERFLOW: &[&str] = &[
    "context_length_exceeded",
    "exceed_context_size_error",
    "model_context_window_exceeded",
    "context_window_exceeded",
];
const OVERFLOW_PHRASES: &[&str] = &[
    "maximum context length",
    "context length exceeded",
    "exceeds the context length",
    "exceeds the available context size",
    "exceed context limit",
    "context window",
    "context size has been exceeded",
    "model's context length",
    "loaded with context length",
    "context the overflows",
    "prompt is too long",
    "input is too long",
    "too long to fit into the model",
    "maximum model length",
    "maximum prompt length",
    "maximum input length",
    "maximum number of tokens allowed",
    "reduce the length of the messages",
    "`max_new_tokens` must be <=",
    "`inputs` must have less than",
];

/// Too much to do.
const OVERLOAD: &[&str] = &[
    "overloaded_error",
    "overloaded",
    "server_is_overloaded",
    "slow_down",
    "engine_overloaded",
    "engine_overloaded_error",
    "model_overloaded",
    "capacity_exceeded",
    "insufficient_system_resource",
];
const OVERLOAD_PHRASES: &[&str] =
    &["overloaded", "maximum pending requests", "server busy", "queue is full", "at capacity", "over capacity"];

const LOADING_PHRASES: &[&str] = &["loading model", "model is loading", "is currently loading"];

/// Words that settle the class under any status that fits them.
pub(super) fn said(dialect: Dialect, status: Option<u16>, error: &WireError) -> Option<Class> {
    let says = |words: &[&str]| words.iter().any(|word| error.says(word));
    let text = error.message.to_ascii_lowercase();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    let refused = matches!(status, None | Some(200..=299 | 400 | 413 | 422));
    let ours = matches!(status, None | Some(200..=299 | 400..=499));

    if status == Some(402) || (ours && (says(QUOTA) || (status != Some(429) && has(QUOTA_PHRASES)))) {
        return Some(Class::UpstreamQuota);
    }
    if ours && (says(FILTER) || (matches!(status, Some(400 | 403)) && has(FILTER_PHRASES))) {
        return Some(Class::ContentFilter);
    }
    if refused && error.says("tool_use_failed") {
        return Some(Class::ToolArgsInvalid);
    }
    if refused && error.says("json_validate_failed") {
        return Some(Class::InvalidJson);
    }
    if says(OVERFLOW) || ((refused || status == Some(500)) && has(OVERFLOW_PHRASES)) {
        return Some(Class::ContextOverflow);
    }
    if matches!(status, None | Some(200..=299 | 503)) {
        let unavailable = dialect == Dialect::LlamaCpp && error.says("unavailable_error");
        if unavailable || has(LOADING_PHRASES) {
            return Some(Class::ModelLoading);
        }
    }
    let busy = matches!(status, None | Some(200..=299 | 429 | 498 | 500 | 502 | 503 | 529));
    let ollama_queue = dialect == Dialect::Ollama && status == Some(503);
    (busy && (says(OVERLOAD) || has(OVERLOAD_PHRASES) || ollama_queue)).then_some(Class::UpstreamOverloaded)
}

/// The class that a type or code names, where no status does.
pub(super) fn kind(error: &WireError) -> Option<Class> {
    const KINDS: &[(&[&str], Class)] = &[
        (
            &["rate_limit_error", "rate_limit_exceeded", "resource_exhausted", "requests", "tokens", "RateLimitError"],
            Class::RateLimited,
        ),
        (
            &[
                "authentication_error",
                "permission_error",
                "invalid_api_key",
                "unauthenticated",
                "permission_denied",
                "unsupported_country_region_territory",
            ],
            Class::UpstreamAuth,
        ),
        (
            &[
                "invalid_request_error",
                "invalid_request",
                "BadRequestError",
                "not_found_error",
                "NotFoundError",
                "model_not_found",
                "request_too_large",
                "invalid_prompt",
                "data_residency_mismatch",
                "invalid_argument",
                "failed_precondition",
                "not_found",
                "validation",
            ],
            Class::Upstream400,
        ),
        (
            &[
                "unavailable",
                "unavailable_error",
                "service_unavailable_error",
                "timeout_error",
                "deadline_exceeded",
                "vector_store_timeout",
            ],
            Class::UpstreamUnavailable,
        ),
        (
            &[
                "server_error",
                "api_error",
                "InternalServerError",
                "internal_server_error",
                "internal",
                "generation",
                "incomplete_generation",
            ],
            Class::Upstream500,
        ),
    ];
    let image =
        error.code.as_deref().is_some_and(|code| code.starts_with("invalid_image") || code.starts_with("image_"));
    let named = KINDS.iter().find(|(words, _)| words.iter().any(|word| error.says(word))).map(|(_, class)| *class);
    named.or(image.then_some(Class::Upstream400))
}

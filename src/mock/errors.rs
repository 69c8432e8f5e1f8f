//! Errors in the shapes of the servers worn: status, headers and body of each trouble in each dialect.
//!
//! Owns those tables. Decides nothing. Invariant: every trouble has an answer in every dialect.

use serde_json::{Value, json};

use super::ask::Surface;
use super::words::{Dialect, Trouble};

/// An error answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The status code.
    pub status: u16,
    /// Headers besides the usual ones.
    pub headers: Vec<(String, String)>,
    /// The JSON body; none where a load balancer's HTML page is sent.
    pub body: Value,
    /// Whether the body is that HTML page.
    pub html: bool,
}

/// The dialect an error on `surface` wears.
pub fn dialect(fault: Option<Dialect>, scenario: Option<Dialect>, surface: Option<Surface>) -> Dialect {
    let own = if surface == Some(Surface::Messages) { Dialect::Anthropic } else { Dialect::Openai };
    fault.or(scenario).unwrap_or(own)
}

/// The answer to `trouble` in `dialect`. `model` and `tokens` (prompt, window) fill its message.
pub fn failure(trouble: Trouble, dialect: Dialect, model: &str, tokens: (u64, u64)) -> Failure {
    let (status, kind, code, message) = row(trouble, model, tokens);
    let status = if (trouble, dialect) == (Trouble::Overloaded, Dialect::Anthropic) { 529 } else { status };
    let body = match dialect {
        Dialect::Openai => json!({"error": {"message": message, "type": kind, "param": null, "code": code}}),
        Dialect::Ollama => json!({"error": {"message": message, "type": ollama(status), "param": null, "code": null}}),
        Dialect::Vllm => {
            json!({"error": {"message": message, "type": vllm(status), "param": null, "code": status}})
        }
        Dialect::Llamacpp => llamacpp(trouble, status, &message, tokens),
        Dialect::Anthropic => json!({"type": "error", "error": {"type": anthropic(trouble), "message": message},
            "request_id": "req_mock"}),
    };
    let headers = match trouble {
        Trouble::RateLimit => vec![("retry-after".to_string(), "1".to_string())],
        _ => Vec::new(),
    };
    Failure { status, headers, body, html: matches!(trouble, Trouble::BadGateway | Trouble::Timeout) }
}

/// The page a load balancer sends.
pub fn page(status: u16) -> String {
    let title = format!("{status} {}", reason(status));
    format!("<html>\r\n<head><title>{title}</title></head>\r\n<body><h1>{title}</h1></body>\r\n</html>\r\n")
}

type Row = (u16, &'static str, Option<&'static str>, String);

fn row(trouble: Trouble, model: &str, (prompt, window): (u64, u64)) -> Row {
    const REQUEST: &str = "invalid_request_error";
    let text = |text: &str| text.to_string();
    match trouble {
        Trouble::BadRequest => (400, REQUEST, Some("invalid_value"), text("The request is not valid.")),
        Trouble::ContextOverflow => (
            400,
            REQUEST,
            Some("context_length_exceeded"),
            format!(
                "This model's maximum context length is {window} tokens. However, your messages resulted in {prompt} \
                 tokens. Please reduce the length of the messages."
            ),
        ),
        Trouble::ContentFilter => {
            (400, REQUEST, Some("content_policy_violation"), text("The prompt was refused by the content filter."))
        }
        Trouble::Auth => (401, REQUEST, Some("invalid_api_key"), text("Incorrect API key provided.")),
        Trouble::Forbidden => (403, REQUEST, Some("model_access_denied"), format!("No access to model `{model}`.")),
        Trouble::NotFound => (404, REQUEST, Some("model_not_found"), format!("The model `{model}` does not exist.")),
        Trouble::TooLarge => (413, REQUEST, Some("request_too_large"), text("The request is too large.")),
        Trouble::RateLimit => (429, "requests", Some("rate_limit_exceeded"), text("Rate limit reached for requests.")),
        Trouble::Quota => {
            let message = "You exceeded your current quota, please check your plan and billing details.";
            (429, "insufficient_quota", Some("insufficient_quota"), text(message))
        }
        Trouble::ServerError => {
            (500, "server_error", None, text("The server had an error while processing the request."))
        }
        Trouble::BadGateway => (502, "server_error", None, text("Bad gateway.")),
        Trouble::Overloaded => {
            (503, "service_unavailable_error", Some("server_is_overloaded"), text("The model is overloaded."))
        }
        Trouble::Loading => (503, "unavailable_error", Some("model_loading"), text("Loading model")),
        Trouble::Timeout => (504, "timeout_error", None, text("Gateway timeout.")),
    }
}

fn vllm(status: u16) -> &'static str {
    match status {
        404 => "NotFoundError",
        401 | 403 => "AuthenticationError",
        429 => "RateLimitError",
        400..=499 => "BadRequestError",
        503 => "ServiceUnavailableError",
        _ => "InternalServerError",
    }
}

fn ollama(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        404 => "not_found_error",
        _ => "api_error",
    }
}

fn llamacpp(trouble: Trouble, status: u16, message: &str, (prompt, window): (u64, u64)) -> Value {
    let kind = match trouble {
        Trouble::ContextOverflow => "exceed_context_size_error",
        Trouble::Auth => "authentication_error",
        Trouble::Forbidden => "permission_error",
        Trouble::NotFound => "not_found_error",
        Trouble::Loading | Trouble::Overloaded => "unavailable_error",
        _ if status < 500 => "invalid_request_error",
        _ => "server_error",
    };
    let mut body = json!({"error": {"code": status, "message": message, "type": kind}});
    if trouble == Trouble::ContextOverflow {
        body["error"]["n_prompt_tokens"] = json!(prompt);
        body["error"]["n_ctx"] = json!(window);
    }
    body
}

fn anthropic(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::BadRequest | Trouble::ContextOverflow | Trouble::ContentFilter => "invalid_request_error",
        Trouble::Auth => "authentication_error",
        Trouble::Forbidden => "permission_error",
        Trouble::NotFound => "not_found_error",
        Trouble::TooLarge => "request_too_large",
        Trouble::RateLimit => "rate_limit_error",
        Trouble::Quota => "billing_error",
        Trouble::Overloaded | Trouble::Loading => "overloaded_error",
        Trouble::Timeout => "timeout_error",
        Trouble::ServerError | Trouble::BadGateway => "api_error",
    }
}

/// The reason phrase of a status line.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Payload Too Large",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        529 => "Overloaded",
        _ => "Status",
    }
}

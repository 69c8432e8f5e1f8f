//! Tests of the sorting: one row for each thing a server is known to say.

use super::*;
use http::HeaderValue;
use proptest::prelude::*;

fn sort(dialect: Dialect, status: u16, body: &str) -> Failure {
    classify(dialect, status, &HeaderMap::new(), body.as_bytes(), SystemTime::UNIX_EPOCH)
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

#[test]
fn every_status_and_word() {
    use Class::*;
    use Dialect::*;
    let rows: &[(Dialect, u16, &str, Class)] = &[
        // the caller's fault
        (
            OpenAi,
            400,
            r#"{"error":{"message":"bad","type":"invalid_request_error","code":"invalid_value"}}"#,
            Upstream400,
        ),
        (
            OpenAi,
            404,
            r#"{"error":{"message":"no","type":"invalid_request_error","code":"model_not_found"}}"#,
            Upstream400,
        ),
        (OpenAi, 405, "", Upstream400),
        (
            Anthropic,
            413,
            r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
            Upstream400,
        ),
        (OpenAi, 415, "", Upstream400),
        (OpenAi, 422, r#"{"object":"error","message":{"detail":[{"msg":"Extra inputs"}]},"type":"x"}"#, Upstream400),
        (OpenAi, 409, "", Upstream400),
        (
            OpenAi,
            413,
            r#"{"error":{"message":"Request too large for model: tokens per minute (TPM): Limit 6000","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Upstream400,
        ),
        // the context window
        (
            OpenAi,
            400,
            r#"{"error":{"message":"m","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
            ContextOverflow,
        ),
        (
            Vllm,
            400,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000","type":"BadRequestError","code":400}"#,
            ContextOverflow,
        ),
        (
            Vllm,
            400,
            r#"{"error":{"message":"The decoder prompt (length 9) is longer than the maximum model length of 5.","type":"BadRequestError","code":400}}"#,
            ContextOverflow,
        ),
        (
            LlamaCpp,
            400,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":4}}"#,
            ContextOverflow,
        ),
        (
            LlamaCpp,
            500,
            r#"{"error":{"code":500,"message":"the request exceeds the available context size","type":"server_error"}}"#,
            ContextOverflow,
        ),
        (
            Anthropic,
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
            ContextOverflow,
        ),
        (
            Anthropic,
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 1 + 2 > 2"}}"#,
            ContextOverflow,
        ),
        (
            OpenAi,
            422,
            r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048","error_type":"validation"}"#,
            ContextOverflow,
        ),
        (
            OpenAi,
            400,
            r#"[{"error":{"code":400,"message":"The input token count (9) exceeds the maximum number of tokens allowed (5).","status":"INVALID_ARGUMENT"}}]"#,
            ContextOverflow,
        ),
        (
            Ollama,
            400,
            r#"{"error":{"message":"the input length exceeds the context length","type":"invalid_request_error"}}"#,
            ContextOverflow,
        ),
        // the filter
        (
            OpenAi,
            400,
            r#"{"error":{"code":"content_filter","status":400,"message":"m","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            ContentFilter,
        ),
        (
            OpenAi,
            400,
            r#"{"error":{"code":null,"message":"m","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            ContentFilter,
        ),
        (OpenAi, 400, r#"{"error":{"code":"content_policy_violation","message":"m"}}"#, ContentFilter),
        (
            OpenAi,
            403,
            r#"{"error":{"code":403,"message":"This model requires moderation. Your input was flagged"}}"#,
            ContentFilter,
        ),
        // our credential
        (
            OpenAi,
            401,
            r#"{"error":{"message":"Incorrect API key provided: sk-ab**yz","code":"invalid_api_key"}}"#,
            UpstreamAuth,
        ),
        (OpenAi, 403, r#"{"error":{"code":"unsupported_country_region_territory","message":"m"}}"#, UpstreamAuth),
        (OpenAi, 403, r#"{"error":{"message":"Project does not have access to model"}}"#, UpstreamAuth),
        (OpenAi, 403, "<html>Forbidden</html>", UpstreamAuth),
        (OpenAi, 407, "", UpstreamAuth),
        // our quota
        (OpenAi, 402, "", UpstreamQuota),
        (OpenAi, 402, r#"{"error":{"message":"Insufficient Balance"}}"#, UpstreamQuota),
        (
            OpenAi,
            429,
            r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#,
            UpstreamQuota,
        ),
        (
            OpenAi,
            429,
            r#"{"error":{"message":"m","type":"insufficient_quota","code":"credit_balance_exhausted"}}"#,
            UpstreamQuota,
        ),
        (OpenAi, 429, r#"{"error":{"message":"m","code":"project_spend_limit_exceeded"}}"#, UpstreamQuota),
        (OpenAi, 429, r#"{"error":{"message":"m","code":"organization_usage_limit_exceeded"}}"#, UpstreamQuota),
        (
            Anthropic,
            429,
            r#"{"type":"error","error":{"type":"enforced_spend_limit_reached","message":"m"}}"#,
            UpstreamQuota,
        ),
        (
            Anthropic,
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API"}}"#,
            UpstreamQuota,
        ),
        // rate
        (
            OpenAi,
            429,
            r#"{"error":{"message":"Rate limit reached","type":"tokens","code":"rate_limit_exceeded"}}"#,
            RateLimited,
        ),
        (OpenAi, 429, r#"{"error":{"code":"429","message":"m"}}"#, RateLimited),
        (OpenAi, 429, r#"{"statusCode":429,"message":"Rate limit is exceeded"}"#, RateLimited),
        (
            OpenAi,
            429,
            r#"[{"error":{"code":429,"message":"You exceeded your current quota, please check","status":"RESOURCE_EXHAUSTED"}}]"#,
            RateLimited,
        ),
        (OpenAi, 429, "", RateLimited),
        // load
        (OpenAi, 429, r#"{"error":{"message":"m","code":"slow_down"}}"#, UpstreamOverloaded),
        (
            OpenAi,
            503,
            r#"{"error":{"message":"m","type":"service_unavailable_error","code":"slow_down"}}"#,
            UpstreamOverloaded,
        ),
        (OpenAi, 503, r#"{"error":{"message":"m","code":"server_is_overloaded"}}"#, UpstreamOverloaded),
        (
            Anthropic,
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            UpstreamOverloaded,
        ),
        (OpenAi, 529, "", UpstreamOverloaded),
        (OpenAi, 429, r#"{"error":"Model is busy","error_type":"overloaded"}"#, UpstreamOverloaded),
        (
            Ollama,
            503,
            r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
            UpstreamOverloaded,
        ),
        (
            OpenAi,
            503,
            r#"{"error":{"message":"server busy, please try again.  maximum pending requests exceeded"}}"#,
            UpstreamOverloaded,
        ),
        (
            OpenAi,
            503,
            r#"[{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}]"#,
            UpstreamOverloaded,
        ),
        (OpenAi, 498, "", UpstreamOverloaded),
        // the server
        (OpenAi, 408, "", UpstreamUnavailable),
        (OpenAi, 425, "", UpstreamUnavailable),
        (Ollama, 499, "", UpstreamUnavailable),
        (OpenAi, 500, r#"{"error":{"message":"m","type":"server_error"}}"#, Upstream500),
        (LlamaCpp, 500, "std::exception", Upstream500),
        (OpenAi, 424, r#"{"error":"m","error_type":"generation"}"#, Upstream500),
        (Vllm, 501, r#"{"error":{"message":"m","type":"NotImplementedError","code":501}}"#, Upstream500),
        (OpenAi, 505, "", Upstream500),
        (OpenAi, 302, "", Upstream500),
        (OpenAi, 502, "<html><title>502 Bad Gateway</title></html>", UpstreamUnavailable),
        (OpenAi, 503, "", UpstreamUnavailable),
        (OpenAi, 504, "", UpstreamUnavailable),
        (OpenAi, 520, "", UpstreamUnavailable),
        (OpenAi, 524, "", UpstreamUnavailable),
        (LlamaCpp, 503, r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#, ModelLoading),
        (OpenAi, 503, r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#, ModelLoading),
        (LlamaCpp, 503, r#"{"error":{"code":503,"message":"","type":"unavailable_error"}}"#, ModelLoading),
        // a sample that went wrong
        (
            OpenAi,
            400,
            r#"{"error":{"message":"Failed to call a function","code":"tool_use_failed","failed_generation":"<f"}}"#,
            ToolArgsInvalid,
        ),
        (OpenAi, 400, r#"{"error":{"message":"Failed to generate JSON","code":"json_validate_failed"}}"#, InvalidJson),
    ];
    for (dialect, status, body, class) in rows {
        let failure = sort(*dialect, *status, body);
        assert_eq!(failure.class, *class, "{status} {body}");
        assert_eq!(failure.status, Some(*status));
        let kept = (400..500).contains(status) && is_for_the_caller(*class);
        assert_eq!(
            failure.original.as_ref().map(|original| &original.body[..]),
            kept.then_some(body.as_bytes()),
            "{body}"
        );
        assert_eq!(failure.fingerprint.is_some(), *class == Upstream500, "{body}");
        let elsewhere = matches!(status, 300..=399 | 501 | 505);
        assert_eq!(failure.retry, if elsewhere { Retry::Elsewhere } else { class.retry() }, "{status} {body}");
        assert!(!failure.message.is_empty() && failure.message.len() <= LONGEST + 4);
    }
}

#[test]
fn our_own_key_is_never_quoted() {
    let failure = sort(Dialect::OpenAi, 401, r#"{"error":{"message":"Incorrect API key provided: sk-ab**yz"}}"#);
    assert!(!failure.message.contains("sk-"));
    assert!(failure.original.is_none());
}

#[test]
fn waits() {
    let at = |class_status: u16, body: &str, pairs: &[(&'static str, &'static str)]| {
        classify(Dialect::OpenAi, class_status, &headers(pairs), body.as_bytes(), SystemTime::UNIX_EPOCH).retry_after
    };
    let secs = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(at(429, "", &[("retry-after", "7")]), secs(7));
    assert_eq!(at(429, "", &[("x-ratelimit-reset-requests", "6m0s")]), secs(360));
    assert_eq!(at(429, "", &[("retry-after", "7"), ("x-ratelimit-reset-requests", "6m0s")]), secs(7));
    assert_eq!(at(503, "", &[("x-ratelimit-reset-requests", "6m0s")]), None);
    assert_eq!(at(503, "", &[("retry-after", "3")]), secs(3));
    assert_eq!(at(503, "Loading model", &[]), secs(2));
    assert_eq!(at(503, "Loading model", &[("retry-after", "9")]), secs(9));
    assert_eq!(at(400, "", &[("retry-after", "9")]), None);
}

#[test]
fn a_server_may_say_no_but_never_make_it_looser() {
    let says = |status, value| {
        classify(Dialect::OpenAi, status, &headers(&[("x-should-retry", value)]), b"", SystemTime::UNIX_EPOCH).retry
    };
    assert_eq!(says(500, "false"), Retry::Elsewhere);
    assert_eq!(says(429, "False"), Retry::Elsewhere);
    assert_eq!(says(429, "true"), Retry::Again);
    assert_eq!(says(400, "true"), Retry::Never);
    assert_eq!(says(400, "false"), Retry::Never);
    assert_eq!(says(401, "false"), Retry::Elsewhere);
}

#[test]
fn fingerprints_tell_equal_failures_from_others() {
    let mark = |status, body| sort(Dialect::OpenAi, status, body).fingerprint.unwrap();
    assert_eq!(mark(500, "a"), mark(500, "a"));
    assert_ne!(mark(500, "a"), mark(500, "b"));
    assert_ne!(mark(500, "a"), mark(511, "a"));
}

#[test]
fn a_kept_answer_has_end_to_end_headers_only() {
    let given = headers(&[
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("x-request-id", "r"),
        ("retry-after", "7"),
    ]);
    let failure = classify(Dialect::OpenAi, 429, &given, b"{}", SystemTime::UNIX_EPOCH);
    let original = failure.original.unwrap();
    let mut names: Vec<_> = original.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["retry-after", "x-request-id"]);
}

#[test]
fn errors_inside_streams() {
    use Class::*;
    let rows: &[(Dialect, &str, Class)] = &[
        (
            Dialect::Anthropic,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            UpstreamOverloaded,
        ),
        (Dialect::Anthropic, r#"{"type":"error","error":{"type":"rate_limit_error","message":"m"}}"#, RateLimited),
        (Dialect::Anthropic, r#"{"type":"error","error":{"type":"api_error","message":"m"}}"#, Upstream500),
        (Dialect::Anthropic, r#"{"type":"error","error":{"type":"timeout_error","message":"m"}}"#, UpstreamUnavailable),
        (Dialect::OpenAi, r#"{"error":{"code":502,"message":"m"}}"#, UpstreamUnavailable),
        (Dialect::OpenAi, r#"{"error":{"code":429,"message":"m"}}"#, RateLimited),
        (Dialect::OpenAi, r#"{"error":{"code":429,"type":"invalid_request_error","message":"m"}}"#, RateLimited),
        (Dialect::Vllm, r#"{"error":{"message":"m","type":"InternalServerError","code":500}}"#, Upstream500),
        (
            Dialect::Vllm,
            r#"{"error":{"message":"maximum context length is 5","type":"BadRequestError","code":400}}"#,
            ContextOverflow,
        ),
        (Dialect::LlamaCpp, r#"{"code":400,"message":"m","type":"exceed_context_size_error"}"#, ContextOverflow),
        (
            Dialect::OpenAi,
            r#"{"error":{"message":"Trying to keep the first 9 tokens when context the overflows."}}"#,
            ContextOverflow,
        ),
        (
            Dialect::OpenAi,
            r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"m"}}}"#,
            Upstream500,
        ),
        (
            Dialect::OpenAi,
            r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"m"}}}"#,
            RateLimited,
        ),
        (
            Dialect::OpenAi,
            r#"{"type":"response.failed","response":{"error":{"code":"invalid_image_format","message":"m"}}}"#,
            Upstream400,
        ),
        (Dialect::OpenAi, r#"{"error":{"code":"insufficient_quota","message":"m"}}"#, UpstreamQuota),
        (Dialect::OpenAi, r#"{"error":{"code":"insufficient_system_resource","message":"m"}}"#, UpstreamOverloaded),
        (Dialect::OpenAi, r#"{"error":{"type":"authentication_error","message":"m"}}"#, UpstreamAuth),
        (Dialect::OpenAi, r#"{"error":{"code":"content_filter","message":"m"}}"#, ContentFilter),
        (Dialect::OpenAi, r#"{"error":{"message":"m","http_status_code":422}}"#, Upstream400),
        (Dialect::OpenAi, r#"[{"error":{"message":"m","status":"UNAVAILABLE"}}]"#, UpstreamUnavailable),
        (Dialect::OpenAi, r#"{"error":"something broke"}"#, InbandError),
        (Dialect::OpenAi, r#"{"error":{"code":"error","message":"m"}}"#, InbandError),
        (Dialect::OpenAi, r#"{"error":{"code":"abort"}}"#, InbandError),
    ];
    for (dialect, body, class) in rows {
        let failure = from_wire_error(*dialect, &error::parse(None, body.as_bytes()));
        assert_eq!((failure.class, failure.retry), (*class, class.retry()), "{body}");
        assert!(!failure.message.is_empty());
    }
    assert_eq!(from_wire_error(Dialect::OpenAi, &WireError::undecodable(3)).class, Undecodable);
}

proptest! {
    #[test]
    fn any_answer_has_a_class_no_looser_than_its_own(status in 100u16..1000, body in prop::collection::vec(any::<u8>(), 0..80), text in ".{0,700}") {
        let quoted = format!(r#"{{"error":{{"message":{}}}}}"#, serde_json::Value::from(text));
        for dialect in Dialect::ALL {
            for body in [&body[..], quoted.as_bytes()] {
                let failure = classify(dialect, status, &HeaderMap::new(), body, SystemTime::UNIX_EPOCH);
                let allowed = failure.class.retry();
                prop_assert!(failure.retry == allowed || (failure.retry == Retry::Elsewhere && allowed == Retry::Again));
                prop_assert!(failure.message.len() <= LONGEST + 4);
                let _ = from_wire_error(dialect, &error::parse(None, body));
            }
        }
    }
}

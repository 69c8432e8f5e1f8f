//! Tests of error bodies: one row per server shape, and what our own look like.

use super::*;
use proptest::prelude::*;

/// body, status in the body, type, code, message
type Row = (&'static str, Option<u16>, Option<&'static str>, Option<&'static str>, &'static str);

const SHAPES: &[Row] = &[
    // OpenAI
    (
        r#"{"error":{"message":"m","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
        None,
        Some("invalid_request_error"),
        Some("context_length_exceeded"),
        "m",
    ),
    (r#"{"error":{"message":"m","type":"requests","param":null,"code":null}}"#, None, Some("requests"), None, "m"),
    // Anthropic
    (
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}"#,
        None,
        Some("overloaded_error"),
        None,
        "Overloaded",
    ),
    // vLLM, new and old
    (
        r#"{"error":{"message":"m","type":"BadRequestError","param":null,"code":400}}"#,
        Some(400),
        Some("BadRequestError"),
        None,
        "m",
    ),
    (
        r#"{"object":"error","message":"m","type":"NotFoundError","param":null,"code":404}"#,
        Some(404),
        Some("NotFoundError"),
        None,
        "m",
    ),
    // llama.cpp
    (
        r#"{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}"#,
        Some(503),
        Some("unavailable_error"),
        None,
        "Loading model",
    ),
    (
        r#"{"code":400,"message":"too big","type":"exceed_context_size_error","n_prompt_tokens":9}"#,
        Some(400),
        Some("exceed_context_size_error"),
        None,
        "too big",
    ),
    // Ollama, native
    (r#"{"error":"server busy"}"#, None, None, None, "server busy"),
    // Mistral, with a message of either kind
    (
        r#"{"object":"error","message":"m","type":"invalid_request","param":null,"code":"1800"}"#,
        None,
        Some("invalid_request"),
        None,
        "m",
    ),
    (
        r#"{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","user"],"msg":"Extra inputs"}]},"type":"invalid_request_error","param":null,"code":null}"#,
        None,
        Some("invalid_request_error"),
        None,
        "body.user: Extra inputs",
    ),
    // Gemini
    (
        r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#,
        Some(429),
        Some("RESOURCE_EXHAUSTED"),
        None,
        "m",
    ),
    // TGI, plain and in a stream
    (r#"{"error":"busy","error_type":"overloaded"}"#, None, Some("overloaded"), None, "busy"),
    (r#"{"error":{"message":"m","http_status_code":422}}"#, Some(422), None, None, "m"),
    // OpenRouter
    (r#"{"error":{"code":502,"message":"m","metadata":{"raw":"x"}}}"#, Some(502), None, None, "m"),
    // Azure, and the API manager before it
    (
        r#"{"error":{"code":"content_filter","status":400,"message":"m","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
        Some(400),
        None,
        Some("content_filter"),
        "m",
    ),
    (r#"{"error":{"code":"429","message":"m"}}"#, Some(429), None, None, "m"),
    (r#"{"statusCode":429,"message":"m"}"#, Some(429), None, None, "m"),
    // FastAPI
    (r#"{"detail":"Not Found"}"#, None, None, None, "Not Found"),
    (
        r#"{"detail":[{"loc":["body","n"],"msg":"bad n","type":"t"},{"msg":"worse"}]}"#,
        None,
        None,
        None,
        "body.n: bad n; worse",
    ),
    // Responses API
    (r#"{"type":"error","code":"server_error","message":"m","param":null}"#, None, None, Some("server_error"), "m"),
    (
        r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"m"}}}"#,
        None,
        None,
        Some("rate_limit_exceeded"),
        "m",
    ),
    // JSON inside a string
    (r#"{"error":"{\"error\":{\"code\":\"c\",\"message\":\"m\"}}"}"#, None, None, Some("c"), "m"),
    // No JSON
    ("<html><head><title>502 Bad\nGateway</title></head><body>x</body></html>", None, None, None, "502 Bad Gateway"),
    ("<!doctype html><p>so <b>sorry</b></p>", None, None, None, "so sorry"),
    ("upstream connect error", None, None, None, "upstream connect error"),
    ("", None, None, None, ""),
    ("null", None, None, None, ""),
    ("[]", None, None, None, ""),
    ("{}", None, None, None, ""),
];

#[test]
fn every_shape_is_read() {
    for (body, status, kind, code, message) in SHAPES {
        let error = parse(None, body.as_bytes());
        let got = (error.status, error.error_type.as_deref(), error.code.as_deref(), error.message.as_str());

        assert_eq!(got, (*status, *kind, *code, *message), "{body}");
        assert_eq!(parse(Some(418), body.as_bytes()).status, Some(418));
    }
}

#[test]
fn messages_are_short_and_of_one_line() {
    let error = parse(None, "a\u{0}\n b\u{1b}[1m".as_bytes());
    assert_eq!(error.message, "a b [1m");
    let error = parse(None, "é".repeat(5000).as_bytes());
    assert!(error.message.len() < LONGEST + 8);
}

fn told() -> Told<'static> {
    const NOTES: &[TrailNote<'static>] = &[TrailNote { endpoint: "a", class: "upstream_500", ms: 12 }];
    Told {
        message: "no \"luck\"",
        error_type: "api_error",
        code: "upstream_500",
        param: None,
        id: "01X",
        attempts: NOTES,
    }
}

#[test]
fn our_bodies() {
    insta::assert_snapshot!(String::from_utf8_lossy(&openai_body(&told())), @r#"{"error":{"code":"upstream_500","message":"no \"luck\"","outrigger":{"attempts":[{"class":"upstream_500","endpoint":"a","ms":12}],"id":"01X"},"param":null,"type":"api_error"}}"#);
    insta::assert_snapshot!(String::from_utf8_lossy(&anthropic_body(&told())), @r#"{"error":{"code":"upstream_500","message":"no \"luck\"","outrigger":{"attempts":[{"class":"upstream_500","endpoint":"a","ms":12}],"id":"01X"},"type":"api_error"},"request_id":"01X","type":"error"}"#);
    let named = Told { param: Some("model"), ..told() };
    assert!(String::from_utf8_lossy(&openai_body(&named)).contains(r#""param":"model""#));
}

#[test]
fn our_stream_errors_are_one_event_each_and_carry_an_error_object() {
    for (shape, event) in
        [(StreamShape::Chunks, None), (StreamShape::Responses, Some("error")), (StreamShape::Messages, Some("error"))]
    {
        let (mut decoder, mut out) = (crate::wire::sse::Decoder::new(1 << 16), Vec::new());
        decoder.push(stream_error(shape, &told(), 7), &mut out).unwrap();
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].event.as_deref(), event.map(str::as_bytes));
        let data: Value = serde_json::from_slice(out[0].data.as_ref().unwrap()).unwrap();
        assert_eq!(data["error"]["message"], "no \"luck\"");
        assert_eq!(data["error"]["code"], "upstream_500");
        if shape != StreamShape::Chunks {
            assert_eq!(data["type"], "error");
        }
        if shape == StreamShape::Responses {
            assert_eq!((&data["sequence_number"], &data["param"]), (&Value::from(7), &Value::Null));
        }
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(body in prop::collection::vec(any::<u8>(), 0..200), html in ".*<[tT]itle.*>.*</tiTle.*") {
        let _ = parse(None, &body);
        let _ = parse(None, html.as_bytes());
    }
}

//! Tests of the request envelope: tables, and properties of splicing.

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn ok(body: &str) -> Envelope {
    read(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

#[test]
fn what_is_read() {
    let body = r#"  {"messages":[{"content":"{\"model\":\"no\"}","model":"nor this"}],"mod\u0065l" : "a/b:c\u00e9" ,
        "stream":true,"n":2,"max_completion_tokens":7,"stream_options":{"include_usage":true},"tools":[{"type":"function"}]}"#;
    let envelope = ok(body);
    assert_eq!(envelope.model.as_deref(), Some("a/b:cé"));
    let (start, end) = envelope.model_span.unwrap();
    assert_eq!(&body[start..end], r#""a/b:c\u00e9""#);
    assert!(envelope.stream && envelope.has_tools && envelope.includes_usage);
    assert_eq!((envelope.n, envelope.max_tokens), (Some(2), Some(7)));
}

#[test]
fn what_is_left_open() {
    for body in
        ["{}", r#"{"stream":null,"tools":[],"stream_options":null,"n":"x","max_tokens":-1}"#, r#"{"tools":null}"#]
    {
        assert_eq!(ok(body), Envelope::default(), "{body}");
    }
    assert_eq!(ok(r#"{"max_tokens":5,"max_completion_tokens":null}"#).max_tokens, Some(5));
    assert_eq!(ok(r#"{"max_output_tokens":9}"#).max_tokens, Some(9));
    assert!(!ok(r#"{"stream":true,"stream_options":{"include_usage":"yes"}}"#).includes_usage);
    assert!(!ok(r#"{"stream":false}"#).stream);
}

#[test]
fn prompts_are_counted() {
    for (prompt, count) in [
        (r#""a""#, None),
        ("null", None),
        ("[]", None),
        ("[1,2,3]", None),
        (r#"["a","b"]"#, Some(2)),
        ("[[1,2],[3]]", Some(2)),
    ] {
        assert_eq!(ok(&format!(r#"{{"prompt":{prompt}}}"#)).prompts, count, "{prompt}");
    }
}

#[test]
fn what_is_refused_and_where() {
    // body, member at fault, offset, line, column
    let rows: &[(&str, Option<&str>, usize, usize, usize)] = &[
        ("", None, 0, 1, 1),
        ("  \n ", None, 4, 2, 2),
        ("[1]", None, 0, 1, 1),
        ("\"text\"", None, 0, 1, 1),
        ("null", None, 0, 1, 1),
        (r#"{"model":7}"#, Some("model"), 9, 1, 10),
        (r#"{"model":null}"#, Some("model"), 9, 1, 10),
        ("{\n \"stream\":\"true\"}", Some("stream"), 12, 2, 11),
        (r#"{"stream":1}"#, Some("stream"), 10, 1, 11),
        (r#"{"model":"a","model":"b"}"#, Some("model"), 21, 1, 22),
        (r#"{"stream":true,"x":1,"stream":true}"#, Some("stream"), 30, 1, 31),
        ("{\"a\":1,\n  oops}", None, 10, 2, 3),
        (r#"{"a":1} x"#, None, 8, 1, 9),
    ];
    for (body, param, offset, line, column) in rows {
        let error = read(body.as_bytes()).unwrap_err();
        assert_eq!(error.param.as_deref(), *param, "{body}");
        assert_eq!((error.offset, error.line, error.column), (*offset, *line, *column), "{body}: {error}");
    }
    assert!(read(br#"{"a":"#).is_err());
    assert!(read(b"{\"model\":\"\xff\"}").is_err());
}

#[test]
fn depth_is_no_way_to_overflow_the_stack() {
    let deep = format!("{{\"messages\":{}{},\"model\":\"m\"}}", "[".repeat(100_000), "]".repeat(100_000));
    let _ = read(deep.as_bytes());
    let deep = format!("{{\"tools\":{}{},\"model\":\"m\"}}", "[".repeat(100_000), "]".repeat(100_000));
    let _ = read(deep.as_bytes());
}

#[test]
fn a_missing_model_can_be_put_in() {
    for (body, want) in
        [("{}", r#"{"model":"m"}"#), (" { } ", r#" {"model":"m" } "#), (r#"{"a":1}"#, r#"{"model":"m","a":1}"#)]
    {
        assert_eq!(insert_model(&Bytes::from(body), "m"), want);
    }
}

proptest! {
    #[test]
    fn splicing_changes_only_the_model(old in ".*", new in ".*", text in ".*", before in any::<bool>()) {
        let (model, content) = (Value::from(old.as_str()), Value::from(text.as_str()));
        let body = if before {
            format!("{{ \"model\" : {model} , \"messages\":[{{\"content\":{content}}}]}}")
        } else {
            format!("{{\"messages\":[{{\"model\":\"decoy\",\"content\":{content}}}],\"model\":{model}}}")
        };
        let envelope = ok(&body);
        prop_assert_eq!(envelope.model.as_deref(), Some(old.as_str()));
        let body = Bytes::from(body);
        let span = envelope.model_span.unwrap();
        let spliced = splice(&body, span, &new);
        let (mut want, got): (Value, Value) =
            (serde_json::from_slice(&body).unwrap(), serde_json::from_slice(&spliced).unwrap());
        want["model"] = json!(new);
        prop_assert_eq!(got, want);
        prop_assert_eq!(&spliced[..span.0], &body[..span.0]);
        prop_assert!(spliced.ends_with(&body[span.1..]));
    }

    #[test]
    fn reading_never_panics(body in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = read(&body);
    }
}

#[test]
fn a_schema_is_asked_for_in_each_api_s_own_place() {
    for body in [
        r#"{"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}}"#,
        r#"{"text":{"format":{"name":"x","type":"json_schema","schema":{}},"verbosity":"low"}}"#,
        r#"{"output_format":{"type":"json_schema","schema":{}}}"#,
        r#"{"output_config":{"format":{"type":"json_schema","schema":{}}}}"#,
    ] {
        assert!(ok(body).json_schema, "{body}");
    }
    for body in [
        r#"{"response_format":{"type":"json_object"}}"#,
        r#"{"response_format":null}"#,
        r#"{"response_format":"json_schema"}"#,
        r#"{"text":{"format":{"type":"text"}}}"#,
        r#"{"text":"json_schema"}"#,
        r#"{"text":{"format":{"format":{"type":"json_schema"}}}}"#,
    ] {
        assert!(!ok(body).json_schema, "{body}");
    }
}

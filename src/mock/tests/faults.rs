//! Every fault of answers, streams and text, seen on the wire.

use super::*;

#[tokio::test]
async fn errors_wear_their_dialect() {
    let cases = [
        ("error: rate_limit", 429, "/error/code", json!("rate_limit_exceeded")),
        ("error: rate_limit, dialect: vllm", 429, "/error/code", json!(429)),
        ("error: loading, dialect: llamacpp", 503, "/error/type", json!("unavailable_error")),
        ("error: not_found, dialect: ollama", 404, "/error/type", json!("not_found_error")),
        ("error: overloaded, dialect: anthropic", 529, "/error/type", json!("overloaded_error")),
        ("error: quota", 429, "/error/code", json!("insufficient_quota")),
        ("error: server_error, status: 200", 200, "/error/type", json!("server_error")),
        ("status: 422", 422, "/error/type", json!("invalid_request_error")),
        ("status: 418, body: { detail: tea }", 418, "/detail", json!("tea")),
    ];
    for (fault, status, pointer, wanted) in cases {
        let got = say(&faulty(fault).await, true).await;
        assert_eq!((got.status, got.json().pointer(pointer)), (status, Some(&wanted)), "{fault}");
    }
    let got = say(&faulty("error: rate_limit").await, true).await;
    assert_eq!(got.header("retry-after"), Some("1"));
    let got = say(&faulty("status: 429, headers: { retry-after: '86400', x-a: b }").await, true).await;
    assert_eq!((got.header("retry-after"), got.header("x-a")), (Some("86400"), Some("b")));
    let got = say(&faulty("error: rate_limit, headers: { retry-after: '' }").await, true).await;
    assert_eq!(got.header("retry-after"), None);
    let got = say(&faulty("error: bad_gateway").await, true).await;
    assert!(got.status == 502 && got.text().starts_with("<html>"));
}

#[tokio::test]
async fn replaced_answers_look_as_they_were_told_to() {
    let got = say(&faulty("content_type: text/html").await, true).await;
    assert!(got.status == 200 && got.text().contains("Sign in") && got.header("content-type") == Some("text/html"));
    let got = say(&faulty("redirect: 'http://elsewhere.example/v1'").await, true).await;
    assert_eq!((got.status, got.header("location")), (307, Some("http://elsewhere.example/v1")));
    let got = say(&faulty("json_for_stream: true").await, true).await;
    assert_eq!(got.json()["object"], "chat.completion");
    let got = say(&faulty("stream_for_json: true").await, false).await;
    assert!(got.text().ends_with("data: [DONE]\n\n"));
    let got = say(&faulty("body: plain words").await, false).await;
    assert_eq!(got.text(), "plain words");
}

#[tokio::test]
async fn end_marks_are_lost_doubled_and_outlived() {
    let ends = |text: &str| text.matches("data: [DONE]").count();
    let finishes = |got: &Got| got.events().iter().filter(|e| e["choices"][0]["finish_reason"].is_string()).count();
    for (fault, done, finish) in [
        ("no_done: true", 0, 1),
        ("done_only: true", 1, 0),
        ("double_done: true", 2, 1),
        ("events_after_done: true", 1, 1),
        ("cut: { at: token 3, how: eof }", 0, 0),
    ] {
        let got = say(&faulty(fault).await, true).await;
        assert_eq!((ends(&got.text()), finishes(&got), got.whole), (done, finish, true), "{fault}");
    }
    let got = say(&faulty("events_after_done: true").await, true).await;
    assert!(got.text().rfind("\"content\"") > got.text().rfind("[DONE]"));
    let got = ask(&faulty("no_done: true").await, "/v1/messages", &chat(true)).await;
    assert!(!got.text().contains("message_stop") && got.text().contains("message_delta"));
}

#[tokio::test]
async fn events_are_damaged_doubled_and_emptied() {
    for form in ["bad_json", "nan", "bad_escape", "bad_utf8"] {
        let got = say(&faulty(&format!("malformed_chunk: {{ at: 2, as: {form} }}")).await, true).await;
        let lines = got.body.split(|b| *b == b'\n').filter(|l| l.starts_with(b"data: {"));
        let broken = lines.filter(|l| serde_json::from_slice::<Value>(&l[6..]).is_err()).count();
        assert_eq!(broken, 1, "{form}");
    }
    let got = say(&faulty("malformed_chunk: { as: number }").await, true).await;
    assert!(got.text().contains("data: 42\n\n"));
    let got = say(&faulty("empty_data_frames: true").await, true).await;
    assert_eq!(got.text().matches("data: \n\n").count(), 6);
    let plain = say(&mock("").await, true).await.events().len();
    assert_eq!(say(&faulty("duplicate_chunks: true").await, true).await.events().len(), plain + 6);
    let got = say(&faulty("huge_event: 1MiB").await, true).await;
    assert!(got.text().lines().any(|l| l.len() > 1 << 20));
    let got = say(&faulty("huge_body: 1MiB").await, true).await;
    assert!(got.body.len() > 1 << 20 && got.whole);
}

#[tokio::test]
async fn every_framing_keeps_the_text() {
    let plain = say(&mock("").await, true).await;
    for framing in ["lf", "crlf", "cr", "bom", "no_space", "multiline", "one_byte", "no_final_blank"] {
        let got = say(&faulty(&format!("framing: {framing}")).await, true).await;
        let text = got.text().replace("\r\n", "\n").replace('\r', "\n").replace("data:{", "data: {");
        let joined = text.trim_start_matches('\u{feff}').replace("\ndata: ", "\u{1}").replace('\u{1}', "\ndata: ");
        if framing != "multiline" {
            let again = Got { body: joined.into_bytes(), ..parse(b"HTTP/1.1 200 OK\r\n\r\n", false) };
            assert_eq!(again.said(), plain.said(), "{framing}");
        }
    }
    let got = say(&faulty("framing: crlf").await, true).await;
    assert!(got.text().ends_with("data: [DONE]\r\n\r\n"));
    let got = say(&faulty("framing: no_final_blank").await, true).await;
    assert!(got.text().ends_with("data: [DONE]\n") && !got.text().ends_with("\n\n"));
    let got = say(&faulty("framing: multiline").await, true).await;
    assert!(got.text().contains("data: {\ndata:   \"choices\": ["));
    let request = post("/v1/chat/completions", &chat(true), true);
    let (bytes, _) = raw(&faulty("framing: one_byte").await, &request).await;
    assert!(String::from_utf8_lossy(&bytes).contains("\r\n\r\n1\r\nd\r\n1\r\na\r\n"));
    let (bytes, _) = raw(&faulty("slice: 7").await, &request).await;
    assert!(String::from_utf8_lossy(&bytes).contains("\r\n\r\n7\r\ndata: {\r\n"));
}

#[tokio::test]
async fn errors_inside_a_stream_take_their_place_and_shape() {
    let of = async |at: &str, shape: &str, path: &str| {
        let fault = format!("inband_error: {{ at: {at}, shape: {shape}, error: overloaded }}");
        ask(&faulty(&fault).await, path, &chat(true)).await
    };
    const CHAT: &str = "/v1/chat/completions";
    let got = of("first", "native", CHAT).await;
    assert_eq!((got.status, got.events().len()), (200, 1));
    assert_eq!(got.events()[0]["error"]["code"], "server_is_overloaded");
    let got = of("token 2", "then_done", CHAT).await;
    assert!(got.events()[3]["error"].is_object() && got.text().ends_with("[DONE]\n\n"));
    assert!(of("first", "string", CHAT).await.events()[0]["error"].is_string());
    assert!(of("first", "event", CHAT).await.text().starts_with("event: error\ndata: {"));
    assert!(of("first", "llama_field", CHAT).await.text().starts_with("error: {"));
    let got = of("first", "finish_error", CHAT).await;
    assert_eq!(got.events()[0]["choices"][0]["finish_reason"], "error");
    assert!(got.events()[0].get("error").is_none());
    assert!(of("first", "choice", CHAT).await.events()[0]["error"].is_object());
    let got = of("token 2", "native", "/v1/messages").await;
    assert!(got.text().contains("event: error\n") && got.text().contains("overloaded_error"));
    let got = of("token 2", "native", "/v1/responses").await;
    let events = got.events();
    let last = events.last().expect("events");
    assert_eq!((&last["type"], &last["sequence_number"]), (&json!("response.failed"), &json!(events.len() - 1)));
}

#[tokio::test]
async fn usage_tells_the_truth_or_not() {
    let of = async |fault: &str| say(&faulty(fault).await, false).await.json()["usage"].clone();
    assert_eq!(of("usage: missing").await, Value::Null);
    assert_eq!(of("usage: zero").await["total_tokens"], 0);
    assert_eq!(of("usage: wrong").await["total_tokens"], 1);
    assert_eq!(of("prompt_tokens: 4096").await["prompt_tokens"], 4096);
}

#[tokio::test]
async fn json_answers_are_almost_right() {
    for how in ["fenced", "prose", "trailing_comma", "truncated", "two_values", "nan", "deep"] {
        let answer = say(&faulty(&format!("json: {how}")).await, false).await.json();
        let text = answer["choices"][0]["message"]["content"].as_str().expect("text").to_string();
        assert!(serde_json::from_str::<Value>(&text).is_err(), "{how}: {:.80}", text);
    }
    let answer = say(&faulty("json: string_number").await, false).await.json();
    let text = answer["choices"][0]["message"]["content"].as_str().expect("text");
    assert!(serde_json::from_str::<Value>(text).expect("JSON")["count"].is_string());
    let answer = say(&faulty("schema_break: true").await, false).await.json();
    let text = answer["choices"][0]["message"]["content"].as_str().expect("text");
    assert_eq!(serde_json::from_str::<Value>(text).expect("JSON")["unexpected"], true);
}

fn with_tools(stream: bool) -> Value {
    let mut body = chat(stream);
    let parameters = json!({"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}});
    body["tools"] = json!([{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}]);
    body
}

#[tokio::test]
async fn tools_are_called_well_and_badly() {
    let of = async |how: &str| {
        let mock = faulty(&format!("tools: {how}")).await;
        let answer = ask(&mock, "/v1/chat/completions", &with_tools(false)).await.json();
        answer["choices"][0]["message"]["tool_calls"].clone()
    };
    let arguments =
        |calls: &Value| serde_json::from_str::<Value>(calls[0]["function"]["arguments"].as_str().unwrap_or("")).ok();
    assert!(arguments(&of("good").await).expect("JSON")["city"].is_string());
    assert!(!arguments(&of("bad_args").await).expect("JSON")["city"].is_string());
    assert_eq!(arguments(&of("truncated_args").await), None);
    assert_eq!(of("case_name").await[0]["function"]["name"], "GET_WEATHER");
    assert_ne!(of("unknown_tool").await[0]["function"]["name"], "get_weather");
    assert_eq!(of("two_calls").await.as_array().map(Vec::len), Some(2));
    let mut required = with_tools(false);
    required["tool_choice"] = json!("required");
    let path = "/v1/chat/completions";
    assert!(ask(&mock("").await, path, &required).await.json()["choices"][0]["message"]["tool_calls"].is_array());
    let ignored = ask(&faulty("tools: choice_ignored").await, path, &required).await.json();
    assert!(ignored["choices"][0]["message"]["content"].is_string());
    let anthropic = json!({"model": "m", "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"}, "messages": []});
    let answer = ask(&mock("").await, "/v1/messages", &anthropic).await.json();
    assert_eq!((&answer["stop_reason"], &answer["content"][0]["name"]), (&json!("tool_use"), &json!("f")));
}

#[tokio::test]
async fn streamed_tool_calls_come_in_every_cut() {
    let of = async |how: &str| {
        let mock = faulty(&format!("tools: {how}")).await;
        let events = ask(&mock, "/v1/chat/completions", &with_tools(true)).await.events();
        let calls = events.iter().filter_map(|e| e["choices"][0]["delta"]["tool_calls"].as_array().cloned());
        calls.flatten().collect::<Vec<Value>>()
    };
    let index = |calls: &[Value]| calls.iter().map(|c| c["index"].as_u64()).collect::<Vec<_>>();
    let single = of("split_1").await;
    assert!(single[1..].iter().all(|c| c["function"]["arguments"].as_str().map(str::len) == Some(1)));
    assert!(index(&of("two_calls").await).contains(&Some(1)));
    assert!(index(&of("all_index_0").await).iter().all(|i| *i == Some(0)));
    let whole = of("no_index").await;
    assert_eq!((whole.len(), index(&whole)), (2, vec![None, None]));
}

#[tokio::test]
async fn choices_go_missing_unfinished_and_in_turn() {
    let of = async |fault: &str| {
        let mut body = chat(true);
        body["n"] = json!(3);
        let events = ask(&faulty(fault).await, "/v1/chat/completions", &body).await.events();
        let row = |e: &Value| (e["choices"][0]["index"].as_u64(), e["choices"][0]["finish_reason"].is_string());
        events.iter().map(row).collect::<Vec<_>>()
    };
    let finished = |rows: &[(Option<u64>, bool)]| rows.iter().filter(|(_, end)| *end).count();
    assert_eq!(finished(&of("n_missing: true").await), 2);
    assert_eq!(finished(&of("unfinished: true").await), 2);
    let turns: Vec<_> = of("interleave: true").await.iter().take(4).map(|(at, _)| *at).collect();
    assert_eq!(turns, [Some(0), Some(1), Some(2), Some(0)]);
}

#[tokio::test]
async fn models_say_odd_things() {
    let of = async |fault: &str| say(&faulty(fault).await, false).await.json()["choices"][0].clone();
    assert_eq!(of("empty: true").await["message"]["content"], "");
    let refused = of("refusal: true").await;
    assert!(refused["message"]["refusal"].is_string() && refused["message"]["content"].is_null());
    let short = of("length: true").await;
    assert_eq!(short["finish_reason"], "length");
    assert_eq!(of("finish: load").await["finish_reason"], "load");
    let looped = of("repetition: 50").await;
    assert_eq!(looped["message"]["content"].as_str().map(|t| t.matches("over and over again").count()), Some(50));
    assert_eq!(of("text: 'as told'").await["message"]["content"], "as told");
    assert_ne!(of("garbage: true").await, of("tokens: 6").await);
    let got = say(&faulty("fingerprint: fp_other").await, false).await.json();
    assert_eq!(got["system_fingerprint"], "fp_other");
}

#[tokio::test]
async fn rules_choose_by_model_stream_header_and_number() {
    let mock = mock(
        "  - when: { model: 'gpt-*' }\n    do: { status: 501 }\n  - when: { stream: true, calls: 2 }\n    do: { status: 502 }\n  \
         - when: { header: { x-who: 'me*' } }\n    do: { status: 503 }",
    )
    .await;
    let mut gpt = chat(false);
    gpt["model"] = json!("gpt-9");
    assert_eq!(ask(&mock, "/v1/chat/completions", &gpt).await.status, 501);
    assert_eq!(say(&mock, true).await.status, 502);
    assert_eq!(say(&mock, true).await.status, 200);
    let (bytes, _) = raw(&mock, b"POST /v1/x HTTP/1.1\r\nX-Who: me too\r\nconnection: close\r\n\r\n").await;
    assert_eq!(parse(&bytes, false).status, 503);
}

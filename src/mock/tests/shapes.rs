//! Well-behaved answers: every surface, whole and streamed, and that they repeat.

use super::*;

#[tokio::test]
async fn a_chat_answer_is_the_same_text_whole_and_streamed() {
    let mock = mock("").await;
    let whole = say(&mock, false).await.json();
    let streamed = say(&mock, true).await;
    let text = whole["choices"][0]["message"]["content"].as_str().expect("text");
    assert_eq!(streamed.said(), text);
    assert_eq!(text.split_whitespace().count(), 6);
    assert_eq!(whole["usage"]["prompt_tokens"], 3);
    assert_eq!(whole["usage"]["total_tokens"].as_u64(), whole["usage"]["completion_tokens"].as_u64().map(|n| n + 3));
    assert!(streamed.text().ends_with("data: [DONE]\n\n") && streamed.whole);
    assert_eq!(streamed.events().last().expect("events")["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn equal_seeds_give_equal_bytes_and_others_do_not() {
    let yaml = |seed| {
        format!(
            "seed: {seed}\nanswer: {{ first_token: 0, per_token: 0 }}\nrules:\n  - chance: 40%\n    do: {{ error: rate_limit }}"
        )
    };
    let mut runs = Vec::new();
    for seed in [3, 3, 4] {
        let mock = start(&yaml(seed)).await;
        let mut bytes = Vec::new();
        for _ in 0..20 {
            bytes.push(raw(&mock, &post("/v1/chat/completions", &chat(true), true)).await.0);
        }
        runs.push(bytes);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn usage_comes_last_when_it_is_asked_for() {
    let mock = mock("").await;
    let mut body = chat(true);
    body["stream_options"] = json!({"include_usage": true});
    let events = ask(&mock, "/v1/chat/completions", &body).await.events();
    assert_eq!(events[0]["usage"], Value::Null);
    let last = events.last().expect("events");
    assert_eq!((last["choices"].as_array().map(Vec::len), last["usage"]["prompt_tokens"].as_u64()), (Some(0), Some(3)));
}

#[tokio::test]
async fn n_choices_and_max_tokens_are_obeyed() {
    let mock = mock("").await;
    let mut body = chat(false);
    body["n"] = json!(3);
    body["max_tokens"] = json!(2);
    let answer = ask(&mock, "/v1/chat/completions", &body).await.json();
    let choices = answer["choices"].as_array().expect("choices");
    assert_eq!(choices.len(), 3);
    assert!(choices.iter().all(|c| c["finish_reason"] == "length"));
    assert_ne!(choices[0]["message"]["content"], choices[1]["message"]["content"]);
}

#[tokio::test]
async fn legacy_completions_answer_both_ways() {
    let mock = mock("").await;
    let body = |stream| json!({"model": "m", "prompt": "once upon", "stream": stream});
    let whole = ask(&mock, "/v1/completions", &body(false)).await.json();
    let streamed = ask(&mock, "/v1/completions", &body(true)).await;
    let text: String =
        streamed.events().iter().filter_map(|e| e["choices"][0]["text"].as_str().map(String::from)).collect();
    assert_eq!(whole["choices"][0]["text"], text.as_str());
    assert_eq!(whole["object"], "text_completion");
}

#[tokio::test]
async fn responses_number_their_events_and_end_with_completed() {
    let mock = start("answer: { tokens: 4, reasoning_tokens: 2, first_token: 0, per_token: 0 }").await;
    let got = ask(&mock, "/v1/responses", &json!({"model": "m", "input": "hello there", "stream": true})).await;
    let events = got.events();
    assert!(events.iter().enumerate().all(|(at, e)| e["sequence_number"] == at));
    assert_eq!(events[0]["type"], "response.created");
    let last = events.last().expect("events");
    assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.completed"), &json!("completed")));
    let deltas: String = events
        .iter()
        .filter(|e| e["type"] == "response.output_text.delta")
        .filter_map(|e| e["delta"].as_str())
        .collect();
    assert_eq!(last["response"]["output"][1]["content"][0]["text"], deltas.as_str());
    assert!(got.text().contains("event: response.output_text.delta\ndata: ") && !got.text().contains("[DONE]"));
    let whole = ask(&mock, "/v1/responses", &json!({"model": "m", "input": "hello there"})).await.json();
    assert_eq!(whole["output"], last["response"]["output"]);
}

#[tokio::test]
async fn messages_open_and_close_their_blocks() {
    let mock = start("answer: { tokens: 4, reasoning_tokens: 2, first_token: 0, per_token: 0 }").await;
    let body = |stream| json!({"model": "m", "max_tokens": 99, "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
    let events = ask(&mock, "/v1/messages", &body(true)).await.events();
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["type"].as_str()).collect();
    assert_eq!(
        (kinds[0], kinds[kinds.len() - 2], kinds[kinds.len() - 1]),
        ("message_start", "message_delta", "message_stop")
    );
    let count = |kind: &str| kinds.iter().filter(|k| **k == kind).count();
    assert_eq!((count("content_block_start"), count("content_block_stop"), count("content_block_delta")), (2, 2, 6));
    let whole = ask(&mock, "/v1/messages", &body(false)).await.json();
    assert_eq!((&whole["stop_reason"], &whole["content"][1]["type"]), (&json!("end_turn"), &json!("text")));
}

#[tokio::test]
async fn a_schema_asked_for_is_satisfied() {
    let mock = mock("").await;
    let mut body = chat(false);
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "p", "schema":
        {"type": "object", "required": ["age"], "properties": {"age": {"type": "integer", "minimum": 5, "maximum": 6}}}}});
    let answer = ask(&mock, "/v1/chat/completions", &body).await.json();
    let text = answer["choices"][0]["message"]["content"].as_str().expect("text");
    let made: Value = serde_json::from_str(text).expect("JSON");
    assert!([5, 6].contains(&made["age"].as_i64().expect("an integer")));
}

#[tokio::test]
async fn embeddings_come_as_numbers_and_as_base64() {
    let mock = mock("").await;
    let body = |format: &str| json!({"model": "e", "input": ["one two", "three"], "encoding_format": format});
    let floats = ask(&mock, "/v1/embeddings", &body("float")).await.json();
    let packed = ask(&mock, "/v1/embeddings", &body("base64")).await.json();
    assert_eq!(floats["data"][0]["embedding"].as_array().map(Vec::len), Some(8));
    assert_eq!(floats["usage"]["prompt_tokens"], 3);
    assert_eq!(packed["data"][1]["embedding"].as_str().map(str::len), Some(44));
}

#[tokio::test]
async fn the_echo_gives_back_what_came() {
    let mock = mock("").await;
    let (bytes, _) = raw(
        &mock,
        b"PUT /v1/files/x?a=%5B HTTP/1.1\r\nX-OdD: Case\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
    )
    .await;
    let echo = parse(&bytes, false).json();
    assert_eq!((&echo["method"], &echo["path"]), (&json!("PUT"), &json!("/v1/files/x?a=%5B")));
    assert_eq!(echo["headers"][0], json!(["X-OdD", "Case"]));
    assert_eq!(echo["body_sha256"], "36bbe50ed96841d10443bcb670d6554f0a34b761be67ec9c4a8ad2c0c44ca42c");
    let (bytes, _) =
        raw(&mock, b"POST /v1/echo/raw HTTP/1.1\r\nconnection: close\r\ncontent-length: 4\r\n\r\n\x00\xff\r\n").await;
    assert_eq!(parse(&bytes, false).body, b"\x00\xff\r\n");
    assert_eq!(mock.stats().last_requests[1].body_base64, "AP8NCg==");
}

#[tokio::test]
async fn a_head_request_gets_a_head() {
    let mock = mock("").await;
    let (bytes, _) = raw(&mock, b"HEAD /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n") && bytes.ends_with(b"\r\n\r\n"));
}

#[tokio::test]
async fn an_old_client_gets_no_chunks() {
    let mock = mock("").await;
    let body = chat(true).to_string();
    let request = format!("POST /v1/chat/completions HTTP/1.0\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (bytes, reset) = raw(&mock, request.as_bytes()).await;
    assert!(parse(&bytes, reset).text().ends_with("\n\ndata: [DONE]\n\n"));
    mock.until(|s| s.finished == 1).await;
}

#[tokio::test]
async fn listings_and_health_take_no_call_number() {
    let mock = start("models: [a/b]\ncontext_window: 5\nrules:\n  - do: { status: 500 }\n  - when: { path: /health }\n    do: { status: 503 }").await;
    assert_eq!(get(&mock, "/v1/models").await.json()["data"][0]["max_model_len"], 5);
    assert_eq!(get(&mock, "/v1/models/a/b").await.json()["id"], "a/b");
    assert_eq!(get(&mock, "/v1/models/c").await.status, 404);
    assert_eq!(get(&mock, "/health").await.status, 503);
    assert_eq!(get(&mock, "/v1/audio/voices").await.status, 500);
    let stats = get(&mock, "/_mock/stats").await.json();
    assert_eq!((&stats["calls"], &stats["by_path"]["/health"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn the_window_is_kept_in_each_dialect() {
    let mut long = chat(false);
    long["messages"][0]["content"] = json!("word ".repeat(20));
    let strict = start("context_window: 10\ndialect: llamacpp\nanswer: { first_token: 0, per_token: 0 }").await;
    let got = ask(&strict, "/v1/chat/completions", &long).await;
    assert_eq!((got.status, &got.json()["error"]["n_ctx"]), (400, &json!(10)));
    let silent = start("context_window: 10\ndialect: ollama\nanswer: { first_token: 0, per_token: 0 }").await;
    let got = ask(&silent, "/v1/chat/completions", &long).await;
    assert_eq!((got.status, &got.json()["usage"]["prompt_tokens"]), (200, &json!(10)));
}

#[tokio::test]
async fn the_scenario_can_be_replaced_and_the_counters_zeroed() {
    let mock = mock("").await;
    assert_eq!(say(&mock, false).await.status, 200);
    let post_text = |path: &str, text: &str| {
        format!("POST {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}", text.len())
            .into_bytes()
    };
    let (bytes, _) = raw(&mock, &post_text("/_mock/scenario", "rules:\n  - do: { statsu: 1 }")).await;
    assert!(parse(&bytes, false).status == 400 && parse(&bytes, false).text().contains("line 2"));
    let (bytes, _) = raw(&mock, &post_text("/_mock/scenario", "rules:\n  - do: { status: 418 }")).await;
    assert_eq!(parse(&bytes, false).status, 200);
    assert_eq!(say(&mock, false).await.status, 418);
    raw(&mock, &post_text("/_mock/reset", "")).await;
    assert_eq!(mock.stats().calls, 0);
}

#[tokio::test]
async fn an_ordinary_client_reads_streams_on_one_connection() {
    use http_body_util::{BodyExt, Full};
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};

    let mock = mock("").await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    for _ in 0..3 {
        let request = http::Request::post(format!("{}/chat/completions", mock.base_url()))
            .body(Full::from(chat(true).to_string()))
            .expect("a request");
        let body = client.request(request).await.expect("a head").into_body().collect().await.expect("a body");
        assert!(body.to_bytes().ends_with(b"data: [DONE]\n\n"));
    }
    assert_eq!(mock.until(|s| s.finished == 3).await.connections, 1);
}

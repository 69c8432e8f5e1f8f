//! What a client is told when a call cannot be answered: the status, the class, the words of its own API.

use std::time::Duration;

use outrigger::config::{ClientKey, Settings};
use outrigger::dialect::Dialect;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::tools::{Raw, head_value, request, total};
use crate::support::{Answer, base, chat, gateway, get, http, mock, no_breakers, post, settings};

/// One call to a gateway over one stand-in, and how often that one was called.
async fn called(scenario: &str, path: &str, body: String, settle: impl FnOnce(&mut Settings)) -> (Answer, u64) {
    let upstream = mock(scenario).await;
    let mut settings = settings(&[upstream.base_url()]);
    settle(&mut settings);
    let gateway = gateway(settings).await;
    let answer = post(&http(), &format!("{}{path}", base(&gateway)), body).await;
    (answer, upstream.stats().calls)
}

fn at_once(settings: &mut Settings) {
    no_breakers(settings);
    settings.routes[0].retry.backoff.base = Duration::from_millis(1);
    settings.routes[0].retry.backoff.max = Duration::from_millis(1);
}

#[tokio::test]
async fn a_request_that_cannot_be_read() {
    for (body, status, param, says) in [
        ("{\n \"model\": \"m\",,}", 400, None, "line 2 column 15"),
        ("{\"model\":\"m\"", 400, None, "line 1 column"),
        ("", 400, None, "the body is empty"),
        (" \n", 400, None, "the body is empty"),
        ("[]", 400, None, "must be a JSON object"),
        ("\"text\"", 400, None, "must be a JSON object"),
        ("{\"model\":7}", 400, Some("model"), "must be a string at line 1 column 10"),
        ("{\"model\":null}", 400, Some("model"), "must be a string"),
        ("{\"model\":\"m\",\"stream\":\"yes\"}", 400, Some("stream"), "must be true or false"),
        ("{\"model\":\"m\",\"model\":\"other\"}", 400, Some("model"), "twice"),
        ("{\"model\":\"m\",\"stream\":true,\"stream\":false}", 400, Some("stream"), "twice"),
    ] {
        for path in ["/chat/completions", "/messages"] {
            let (answer, calls) = called("{}", path, body.into(), |_| {}).await;
            let told = answer.json();
            assert_eq!((answer.status, calls), (status, 0), "{body}: {told}");
            assert!(told["error"]["message"].as_str().unwrap().contains(says), "{body}: {told}");
            let param = param.filter(|_| path != "/messages");
            assert_eq!(told["error"]["param"].as_str(), param, "{body}: {told}");
            assert_eq!(told["type"].as_str(), (path == "/messages").then_some("error"), "{told}");
            assert_eq!(told["error"]["type"], "invalid_request_error", "{told}");
            assert_eq!(answer.header("x-should-retry"), None, "nothing of ours is spent");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit() {
    let upstream = mock("{}").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.server.max_body = 64 * 1024;
    let gateway = gateway(settings).await;
    let body = chat(false).replace("hello", &"x".repeat(4 << 20));
    for _ in 0..5 {
        let answer = post(&http(), &format!("{}/chat/completions", base(&gateway)), body.clone()).await;
        assert_eq!((answer.status, answer.error_code().as_deref()), (413, Some("bad_request")));
        assert!(answer.text().contains("server.max_body"), "{}", answer.text());
    }
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut raw = Raw::send(gateway.data(), head).await;
    for _ in 0..5 {
        raw.write(format!("{:x}\r\n{}\r\n", 16 * 1024, " ".repeat(16 * 1024))).await;
    }
    let told = raw.until("\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 413"), "{told}");
    assert_eq!(upstream.stats().calls, 0);
    // The limit is for what is held; what is passed on as it comes has none.
    let through = post(&http(), &format!("{}/files", base(&gateway)), body.clone()).await;
    assert_eq!((through.status, through.json()["body_length"].as_u64()), (200, Some(body.len() as u64)));
}

#[tokio::test]
async fn a_model_or_a_path_that_is_not_served() {
    let upstream = mock("{}").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.routes[0].model = "gpt-*".into();
    let mut second = settings.routes[0].clone();
    (second.name, second.model) = ("local".into(), "qwen?".into());
    settings.routes.push(second);
    let gateway = gateway(settings).await;
    let http = http();
    let answer = post(&http, &format!("{}/chat/completions", base(&gateway)), chat(false)).await;
    let told = answer.json();
    let message = told["error"]["message"].as_str().unwrap();
    assert_eq!((answer.status, told["error"]["param"].as_str()), (404, Some("model")));
    assert!(["`m`", "gpt-*", "qwen?"].iter().all(|part| message.contains(part)), "{message}");
    let answer = post(&http, &format!("{}/chat/completions", base(&gateway)), "{}").await;
    assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some("model")));
    for path in ["/", "/chat/completions", "/v2/chat/completions", "/v10/x", "/V1/models", "/metrics"] {
        let answer = post(&http, &format!("http://{}{path}", gateway.data()), chat(false)).await;
        assert_eq!((answer.status, answer.error_code().as_deref()), (404, Some("bad_request")), "{path}");
        assert!(answer.text().contains("/v1"), "{path}: {}", answer.text());
    }
    assert_eq!(upstream.stats().calls, 0);
    let counted = total(&http, &gateway, "outrigger_calls_total", &["class=\"bad_request\"", "route=\"none\""]).await;
    assert_eq!(counted, 8.0, "what matched no route is counted too");
}

#[tokio::test]
async fn headers_of_ours_that_say_nothing() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    for (name, value) in [
        ("x-outrigger-retrys", "0"),
        ("x-outrigger-retries", "many"),
        ("x-outrigger-timeout", "30"),
        ("x-outrigger-hedge", "on"),
        ("x-outrigger-fallback", ""),
        ("x-outrigger-validate", "off"),
    ] {
        let answer =
            Raw::ask(gateway.data(), "POST", "/v1/chat/completions", &[(name, value)], chat(false).as_bytes()).await;
        let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert_eq!((&told["error"]["param"], &told["error"]["code"]), (&name.into(), &"bad_request".into()));
        assert!(told["error"]["message"].as_str().unwrap().contains(name), "{told}");
    }
    assert_eq!(upstream.stats().calls, 0);
}

#[tokio::test]
async fn a_client_without_a_key_that_is_known() {
    let upstream = mock("{}").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.server.keys = vec![ClientKey {
        name: "team".into(),
        sha256: Sha256::digest("sk-good").into(),
        priority: outrigger::call::Priority::Critical,
        limits: Default::default(),
    }];
    settings.endpoints[0].forward_client_key = false;
    let gateway = gateway(settings).await;
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        Raw::ask(gateway.data(), "POST", path, headers, chat(false).as_bytes()).await
    };
    for headers in [
        &[][..],
        &[("authorization", "Bearer sk-wrong")],
        &[("x-api-key", "sk-wrong")],
        &[("authorization", "sk-good")],
    ] {
        let answer = ask("/v1/chat/completions", headers).await;
        let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("sk-"), "{answer}");
        assert_eq!(told["error"]["type"], "authentication_error", "{told}");
        assert_eq!(head_value(&answer, "x-should-retry"), None, "official clients do not repeat a 401");
        let answer = ask("/v1/messages", headers).await;
        let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(
            (&told["type"], &told["error"]["type"]),
            (&"error".into(), &"authentication_error".into()),
            "{told}"
        );
    }
    assert_eq!(upstream.stats().calls, 0);
    for headers in [("authorization", "Bearer sk-good"), ("authorization", "bearer  sk-good"), ("x-api-key", "sk-good")]
    {
        let answer = ask("/v1/chat/completions", &[headers]).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let stats = upstream.stats();
    assert!(!format!("{:?}", stats.last_requests).contains("sk-good"), "a key of ours went to an endpoint");
}

#[tokio::test]
async fn what_the_caller_can_mend_comes_in_the_endpoint_s_own_words() {
    let fault = "status: 400, headers: { x-own: 'yes', content-type: application/problem+json }, body: '{\"error\" : {\"message\":\"bad é\"}} '";
    let (answer, calls) =
        called(&format!("rules: [{{ do: {{ {fault} }} }}]"), "/chat/completions", chat(true), |_| {}).await;
    assert_eq!((answer.status, calls), (400, 1));
    assert_eq!(answer.text(), "{\"error\" : {\"message\":\"bad é\"}} ");
    assert_eq!(
        (answer.header("x-own"), answer.header("content-type")),
        (Some("yes"), Some("application/problem+json"))
    );
    assert_eq!(answer.header("x-should-retry"), None);
    for dialect in ["openai", "vllm", "llamacpp", "ollama"] {
        let scenario = format!("rules: [{{ do: {{ error: context_overflow, dialect: {dialect} }} }}]");
        let direct = mock(&scenario).await;
        let direct = post(&http(), &format!("{}/chat/completions", direct.base_url()), chat(true)).await;
        let (answer, calls) = called(&scenario, "/chat/completions", chat(true), |settings| {
            settings.endpoints[0].dialect = dialect.parse::<Dialect>().unwrap();
        })
        .await;
        assert_eq!((answer.status, answer.text(), calls), (direct.status, direct.text(), 1), "{dialect}");
        assert!(answer.header("x-outrigger-trail").unwrap().contains("class=context_overflow"), "{dialect}");
    }
}

#[tokio::test]
async fn what_speaks_of_our_credential_stays_with_us() {
    for (fault, class, status) in [
        ("error: auth", "upstream_auth", 502),
        ("status: 403, body: { error: { message: 'account org-secret may not' } }", "upstream_auth", 502),
        ("error: quota", "upstream_quota", 503),
    ] {
        let (answer, calls) =
            called(&format!("rules: [{{ do: {{ {fault} }} }}]"), "/chat/completions", chat(false), |_| {}).await;
        assert_eq!((answer.status, answer.error_code().as_deref(), calls), (status, Some(class), 1));
        for theirs in ["Incorrect API key", "org-secret", "billing"] {
            assert!(!answer.text().contains(theirs), "{}", answer.text());
        }
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
}

#[tokio::test]
async fn a_rate_limit_is_told_with_its_wait_once_our_tries_are_spent() {
    let soon = httpdate::fmt_http_date(outrigger::clock::wall() + Duration::from_secs(90));
    for (headers, calls, waits) in [
        ("retry-after: '0'".to_owned(), 3, 1..=1),
        ("retry-after-ms: '20'".to_owned(), 3, 1..=1),
        ("retry-after: '0', retry-after-ms: garbage".to_owned(), 3, 1..=1),
        // Longer than what is waited for.
        ("retry-after: '77'".to_owned(), 1, 77..=77),
        (format!("retry-after: '{soon}'"), 1, 80..=91),
        // Nothing that can be understood: our own wait.
        ("retry-after: soon".to_owned(), 3, 1..=1),
    ] {
        let scenario = format!("rules: [{{ do: {{ status: 429, headers: {{ {headers} }} }} }}]");
        for (path, stream) in [("/chat/completions", false), ("/chat/completions", true), ("/messages", false)] {
            let (answer, sent) = called(&scenario, path, chat(stream), at_once).await;
            assert_eq!(
                (answer.status, answer.error_code().as_deref(), sent),
                (429, Some("rate_limited"), calls),
                "{headers}"
            );
            assert_eq!(answer.header("x-should-retry"), Some("false"), "{headers}");
            let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!(waits.contains(&wait), "{headers}: told to wait {wait} s");
            assert_eq!(answer.json()["error"]["type"], "rate_limit_error");
        }
    }
}

#[tokio::test]
async fn the_body_tells_what_the_headers_tell() {
    let (one, other) = (
        mock("rules: [{ do: { status: 500, body: oops } }]").await,
        mock("rules: [{ do: { error: overloaded } }]").await,
    );
    let mut settings = settings(&[one.base_url(), other.base_url()]);
    at_once(&mut settings);
    let gateway = gateway(settings).await;
    for path in ["/chat/completions", "/messages", "/responses", "/embeddings"] {
        let answer = post(&http(), &format!("{}{path}", base(&gateway)), chat(false)).await;
        let told = answer.json();
        let ours = &told["error"]["outrigger"];
        assert_eq!(ours["id"].as_str(), answer.header("x-outrigger-id"), "{told}");
        let attempts = ours["attempts"].as_array().unwrap().iter();
        let trail: Vec<String> = attempts
            .map(|attempt| {
                let of = |name: &str| attempt[name].as_str().unwrap();
                format!("{};class={};ms={}", of("endpoint"), of("class"), attempt["ms"])
            })
            .collect();
        assert_eq!(Some(trail.join(", ").as_str()), answer.header("x-outrigger-trail"));
        assert_eq!(answer.header("x-outrigger-attempts"), Some(trail.len().to_string().as_str()));
        assert_eq!(told["error"]["code"], "upstream_500", "the first cause: {told}");
        assert_eq!(
            (answer.header("x-outrigger-outcome"), answer.header("x-should-retry")),
            (Some("failed"), Some("false"))
        );
        assert!(answer.header("x-request-id").is_some());
    }
}

#[tokio::test]
async fn a_503_always_says_when_to_come_back() {
    for fault in [
        "error: overloaded",
        "error: loading, headers: { retry-after: '40' }",
        "error: quota",
        "status: 502",
        "status: 504",
    ] {
        let scenario = format!("rules: [{{ do: {{ {fault} }} }}]");
        for path in ["/chat/completions", "/messages"] {
            let (answer, _) = called(&scenario, path, chat(false), at_once).await;
            assert_eq!(answer.status, 503, "{fault}: {}", answer.text());
            let wait: u64 = answer.header("retry-after").unwrap_or_else(|| panic!("{fault}")).parse().unwrap();
            assert!(wait >= 1, "{fault}");
        }
    }
}

#[tokio::test]
async fn a_success_that_is_none_becomes_a_status() {
    for (fault, status, class) in [
        ("status: 200, error: server_error", 502, "upstream_500"),
        ("status: 200, error: overloaded", 503, "upstream_overloaded"),
        ("status: 200, error: bad_request", 400, "upstream_400"),
        ("content_type: text/html", 502, "wrong_content_type"),
        ("status: 200, body: '{\"choices\": ['", 502, "wrong_content_type"),
    ] {
        for stream in [false, true] {
            let scenario = format!("rules: [{{ do: {{ {fault} }} }}]");
            let (answer, _) = called(&scenario, "/chat/completions", chat(stream), at_once).await;
            assert_eq!(
                (answer.status, answer.error_code().as_deref()),
                (status, Some(class)),
                "{fault} {stream}: {}",
                answer.text()
            );
        }
        let scenario = format!("rules: [{{ times: 1, do: {{ {fault} }} }}]");
        let (answer, calls) = called(&scenario, "/chat/completions", chat(true), at_once).await;
        let rescued = status >= 500;
        assert_eq!((answer.looks_complete(), calls), (rescued, if rescued { 2 } else { 1 }), "{fault}");
    }
}

#[tokio::test]
async fn an_error_as_the_first_event_is_an_error_like_any_other() {
    for path in ["/chat/completions", "/responses", "/messages"] {
        for shape in ["native", "event"] {
            let fault = format!("inband_error: {{ at: first, shape: {shape}, error: overloaded }}");
            let (answer, calls) =
                called(&format!("rules: [{{ times: 1, do: {{ {fault} }} }}]"), path, chat(true), at_once).await;
            assert_eq!((answer.status, calls), (200, 2), "{path} {shape}: {}", answer.text());
            let (answer, calls) = called(&format!("rules: [{{ do: {{ {fault} }} }}]"), path, chat(true), at_once).await;
            assert!(answer.status >= 500 && calls == 3, "{path} {shape}: {} after {calls}", answer.status);
        }
    }
}

#[tokio::test]
async fn a_whole_answer_to_a_call_for_a_stream_becomes_one() {
    let (answer, calls) =
        called("rules: [{ do: { json_for_stream: true, text: all of it } }]", "/chat/completions", chat(true), |_| {})
            .await;
    assert_eq!((answer.status, calls), (200, 1));
    assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"));
    assert!(answer.looks_complete() && answer.text().ends_with("data: [DONE]\n\n"), "{}", answer.text());
    assert!(answer.text().contains("all of it"));
}

#[tokio::test]
async fn an_empty_answer_is_asked_for_once_more() {
    for stream in [false, true] {
        let (answer, calls) =
            called("rules: [{ do: { empty: true } }]", "/chat/completions", chat(stream), at_once).await;
        assert_eq!(
            (answer.status, answer.error_code().as_deref(), calls),
            (502, Some("empty_completion"), 2),
            "{stream}"
        );
        let (answer, calls) =
            called("rules: [{ times: 1, do: { empty: true } }]", "/chat/completions", chat(stream), at_once).await;
        assert!(answer.looks_complete() && calls == 2, "{}", answer.text());
        assert_eq!(answer.header("x-outrigger-outcome"), Some("retried"));
    }
}

#[tokio::test]
async fn a_head_that_is_not_http() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let answer = Raw::send(gateway.data(), "hello there\r\n\r\n").await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let huge = "x".repeat(1 << 20);
    let mut raw = Raw::send(gateway.data(), request("GET", "/v1/models", &[], b"")).await;
    raw.until("\r\n\r\n").await;
    drop(raw);
    let asked =
        Raw::send(gateway.data(), format!("GET /v1/models HTTP/1.1\r\nhost: h\r\nx-huge: {}", &huge[..200_000])).await;
    drop(asked);
    assert_eq!(get(&http(), &format!("{}/models", base(&gateway))).await.status, 200, "it goes on");
}

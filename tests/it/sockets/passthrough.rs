//! What is not ours to change passes byte for byte: paths, headers, bodies, and errors of calls nobody looks into.

use outrigger::dialect::Dialect;
use outrigger::mock;
use outrigger::transport::Credential;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::tools::{Raw, head_value, request};
use crate::support::{Answer, base, chat, gateway, get, http, mock, post, settings};

/// The request that the stand-in saw last.
fn seen(upstream: &mock::Running) -> mock::Seen {
    upstream.stats().last_requests.back().unwrap().clone()
}

fn header<'a>(seen: &'a mock::Seen, name: &str) -> Option<&'a str> {
    let found = seen.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.as_str())
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn raw_paths_and_queries() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    for (method, target) in [
        ("POST", "/v1/chat/completions?beta=true"),
        ("POST", "/v1/responses?include%5B%5D=reasoning.encrypted_content&include[]=x"),
        ("GET", "/v1/responses/resp_1?stream=true&starting_after=5"),
        ("GET", "/v1/models/org/name:free"),
        ("GET", "/v1/models/org%2Fname%3Afree"),
        ("DELETE", "/v1/models/ft:gpt:org::id"),
        ("GET", "/v1/files//double//slash"),
        ("GET", "/v1/trailing/slash/"),
        ("POST", "/v1/chat/completions/"),
        ("GET", "/v1/a/../b/./c"),
        ("GET", "/v1/a%20b+c;d=1,2?q=a+b&empty=&=x&e=%E2%82%AC"),
        ("GET", "/v1/query?"),
        ("GET", "/v1?only=query"),
    ] {
        let body = if method == "POST" { chat(false) } else { String::new() };
        Raw::ask(gateway.data(), method, target, &[], body.as_bytes()).await;
        let seen = seen(&upstream);
        assert_eq!((seen.method.as_str(), seen.path.as_str()), (method, target));
        assert_eq!(seen.body, body, "{target}");
    }
}

#[tokio::test]
async fn methods() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    for method in ["GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"] {
        let answer = Raw::ask(gateway.data(), method, "/v1/files/file-1", &[], b"").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{method}: {answer}");
        assert_eq!(seen(&upstream).method, method);
        let length = head_value(&answer, "content-length").unwrap();
        assert_ne!(length, "0", "{method}");
        assert_eq!(answer.ends_with("\r\n\r\n"), method == "HEAD", "a body: {answer}");
    }
}

#[tokio::test]
async fn an_upload_is_passed_on_as_it_comes() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let body: Vec<u8> = (0..8u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let kind = "multipart/form-data; boundary=xyz";
    for chunked in [false, true] {
        let length =
            if chunked { "transfer-encoding: chunked".into() } else { format!("content-length: {}", body.len()) };
        let head = format!(
            "POST /v1/files HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-type: {kind}\r\n{length}\r\n\r\n"
        );
        let mut raw = Raw::send(gateway.data(), head).await;
        let (half, rest) = body.split_at(body.len() / 2);
        for (number, part) in [half, rest].into_iter().enumerate() {
            if chunked {
                raw.write(format!("{:x}\r\n", part.len())).await;
            }
            raw.write(part).await;
            if chunked {
                raw.write("\r\n").await;
            }
            if number == 0 {
                upstream.until(|stats| stats.active == 1).await;
            }
        }
        if chunked {
            raw.write("0\r\n\r\n").await;
        }
        let answer = raw.rest().await;
        let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&told["body_length"], &told["body_sha256"]), (&body.len().into(), &sha256(&body).into()));
        let seen = seen(&upstream);
        assert_eq!(header(&seen, "content-type"), Some(kind));
        assert_eq!(header(&seen, "content-length").is_some(), !chunked, "the framing stays what it was");
    }
}

#[tokio::test]
async fn binary_answers() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let http = http();
    let direct = post(&http, &format!("{}/audio/speech", upstream.base_url()), chat(false)).await;
    let through = post(&http, &format!("{}/audio/speech", base(&gateway)), chat(false)).await;
    assert_eq!((through.status, &through.body), (200, &direct.body));
    for name in ["content-type", "content-length", "x-request-id"] {
        assert_eq!(through.header(name), direct.header(name), "{name}");
    }
}

#[tokio::test]
async fn unknown_members_and_formatting() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let history: String = (0..800)
        .map(|n| format!("{{\"role\":\"user\",\"content\":\"turn {n} \\u00e4 é \\/ {}\"}},", "x".repeat(40)))
        .collect();
    for body in [
        "\u{20}\r\n{ \"zeta\" : 1e400,\t\"model\":\"\\u006d\" , \"messages\":[ {\"content\":\"\\ud83d\\ude00\"} ],\"x\":1,\"x\":2 }\n".to_owned(),
        r#"{"messages":[],"model":"m","seed":18446744073709551616,"temperature":1.10,"extra":{"a":[[],{}]},"stream":null}"#.to_owned(),
        format!("{{\"model\":\"m\",\"messages\":[{}]}}", history.trim_end_matches(',')),
    ] {
        Raw::ask(gateway.data(), "POST", "/v1/chat/completions", &[], body.as_bytes()).await;
                assert_eq!(seen(&upstream).body, body);
    }
    assert!(seen(&upstream).body_length > 64 * 1024);
}

#[tokio::test]
async fn hop_by_hop_headers_end_here() {
    let fault = "connection: x-theirs, x-also, x-theirs: '1', x-also: '2', keep-alive: timeout=9, proxy-authenticate: Basic, \
                 x-ratelimit-remaining-requests: '41', openai-processing-ms: '12', openai-version: 2020-10-01, x-request-id: req_own";
    let upstream = mock(&format!(
        "rules: [{{ do: {{ headers: {{ {} }} }} }}]",
        fault.replacen("x-theirs, x-also", "'x-theirs, x-also'", 1)
    ))
    .await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    for path in ["/v1/chat/completions", "/v1/files"] {
        let ours = [
            ("connection", "x-private, x-more"),
            ("x-private", "1"),
            ("x-more", "2"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic c2VjcmV0"),
            ("proxy-connection", "keep-alive"),
            ("openai-organization", "org-1"),
            ("x-custom", "kept"),
            ("user-agent", "OpenAI/Python 3.54.0"),
            ("x-stainless-lang", "python"),
        ];
        let answer = Raw::ask(gateway.data(), "POST", path, &ours, chat(false).as_bytes()).await;
        let seen = seen(&upstream);
        for gone in ["x-private", "x-more", "keep-alive", "te", "proxy-authorization", "proxy-connection"] {
            assert_eq!(header(&seen, gone), None, "{path}: {gone} was sent on");
        }
        for (kept, value) in &ours[7..] {
            assert_eq!(header(&seen, kept), Some(*value), "{path}: {kept}");
        }
        assert_eq!(header(&seen, "host"), Some(upstream.addr().to_string().as_str()));
        for gone in ["x-theirs", "x-also", "keep-alive", "proxy-authenticate"] {
            assert_eq!(head_value(&answer, gone), None, "{path}: {gone} came through");
        }
        for (kept, value) in [
            ("x-ratelimit-remaining-requests", "41"),
            ("openai-processing-ms", "12"),
            ("openai-version", "2020-10-01"),
            ("x-request-id", "req_own"),
        ] {
            assert_eq!(head_value(&answer, kept), Some(value), "{path}: {kept}");
        }
    }
}

#[tokio::test]
async fn our_own_headers_end_here_and_compression_is_asked_for_only_where_nobody_reads() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let ours = [
        ("accept-encoding", "gzip, br"),
        ("x-outrigger-timeout", "9s"),
        ("x-outrigger-retries", "1"),
        ("x-outrigger-hedge", "off"),
        ("x-outrigger-fallback", "off"),
    ];
    for (path, encoding) in
        [("/v1/chat/completions", "identity"), ("/v1/messages", "identity"), ("/v1/files", "gzip, br")]
    {
        Raw::ask(gateway.data(), "POST", path, &ours, chat(false).as_bytes()).await;
        let seen = seen(&upstream);
        assert_eq!(header(&seen, "accept-encoding"), Some(encoding), "{path}");
        let leaked: Vec<_> =
            seen.headers.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with("x-outrigger")).collect();
        assert!(leaked.is_empty(), "{path}: {leaked:?}");
    }
}

#[tokio::test]
async fn a_trace_goes_on_or_begins() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    Raw::ask(
        gateway.data(),
        "POST",
        "/v1/chat/completions",
        &[("traceparent", given), ("tracestate", "a=1")],
        chat(false).as_bytes(),
    )
    .await;
    assert_eq!(header(&seen(&upstream), "traceparent"), Some(given));
    assert_eq!(header(&seen(&upstream), "tracestate"), Some("a=1"));
    for headers in [&[][..], &[("traceparent", "garbage")]] {
        Raw::ask(gateway.data(), "POST", "/v1/chat/completions", headers, chat(false).as_bytes()).await;
        let seen = seen(&upstream);
        let begun = header(&seen, "traceparent").unwrap();
        assert!(begun.starts_with("00-") && begun.len() == given.len() && begun != given, "{begun}");
    }
}

#[tokio::test]
async fn credentials_go_where_they_belong() {
    let upstream = mock("{}").await;
    let mut with_key = settings(&[upstream.base_url()]);
    with_key.endpoints[0].credential = Credential::Key("sk-ours".to_owned().into());
    with_key.endpoints[0].forward_client_key = false;
    let mut without = settings(&[upstream.base_url()]);
    without.endpoints[0].forward_client_key = false;
    let forwarding = gateway(settings(&[upstream.base_url()])).await;
    let mut anthropic = with_key.clone();
    anthropic.endpoints[0].dialect = Dialect::Anthropic;
    let (with_key, without, anthropic) = (gateway(with_key).await, gateway(without).await, gateway(anthropic).await);
    let theirs = [("authorization", "Bearer sk-theirs"), ("x-api-key", "sk-bare"), ("api-key", "sk-azure")];
    for (gateway, path, expected) in [
        (&forwarding, "/v1/chat/completions", [Some("Bearer sk-theirs"), Some("sk-bare"), Some("sk-azure")]),
        (&forwarding, "/v1/files", [Some("Bearer sk-theirs"), Some("sk-bare"), Some("sk-azure")]),
        (&with_key, "/v1/chat/completions", [Some("Bearer sk-ours"), None, None]),
        (&with_key, "/v1/files", [Some("Bearer sk-ours"), None, None]),
        // A server that only imitates that API may want its own header.
        (&with_key, "/v1/messages", [Some("Bearer sk-ours"), Some("sk-ours"), None]),
        (&anthropic, "/v1/messages", [None, Some("sk-ours"), None]),
        (&anthropic, "/v1/messages/count_tokens", [None, Some("sk-ours"), None]),
        (&anthropic, "/v1/chat/completions", [Some("Bearer sk-ours"), None, None]),
        (&without, "/v1/chat/completions", [None, None, None]),
        (&without, "/v1/messages", [None, None, None]),
        (&without, "/v1/files", [None, None, None]),
    ] {
        let answer = Raw::ask(gateway.data(), "POST", path, &theirs, chat(false).as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && !answer.split("\r\n\r\n").next().unwrap().contains("sk-"),
            "{answer}"
        );
        let seen = seen(&upstream);
        assert_eq!(["authorization", "x-api-key", "api-key"].map(|name| header(&seen, name)), expected, "{path}");
    }
}

#[tokio::test]
async fn a_caller_whose_own_key_is_refused_reads_that_and_nobody_else_does() {
    let upstream = mock("rules: [{ do: { error: auth } }]").await;
    let forwarding = gateway(settings(&[upstream.base_url()])).await;
    let mut ours = settings(&[upstream.base_url()]);
    ours.endpoints[0].credential = Credential::Key("sk-ours".to_owned().into());
    let ours = gateway(ours).await;
    let theirs = [("authorization", "Bearer sk-theirs")];
    for (gateway, status) in [(&forwarding, "HTTP/1.1 401"), (&ours, "HTTP/1.1 502")] {
        let answer = Raw::ask(gateway.data(), "POST", "/v1/chat/completions", &theirs, chat(false).as_bytes()).await;
        assert!(answer.starts_with(status), "{answer}");
    }
}

#[tokio::test]
async fn a_model_of_the_endpoint_s_own_changes_that_member_alone() {
    let upstream = mock("{}").await;
    let mut settings = settings(&[upstream.base_url()]);
    settings.endpoints[0].model = Some("qwen\"3".into());
    settings.endpoints[0].dialect = Dialect::Vllm;
    let gateway = gateway(settings).await;
    let body = "{ \"messages\":[{\"role\":\"user\",\"content\":\"model\"}] ,\n \"model\" :  \"gpt-4o\"  ,\"x\" : 1.0 }";
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"] {
        Raw::ask(gateway.data(), "POST", path, &[], body.as_bytes()).await;
        let seen = seen(&upstream);
        assert_eq!(seen.body, body.replace("\"gpt-4o\"", "\"qwen\\\"3\""), "{path}");
        assert_eq!(header(&seen, "content-length"), Some(seen.body_length.to_string().as_str()));
    }
    Raw::ask(gateway.data(), "POST", "/v1/chat/completions", &[], b"{\"messages\":[]}").await;
    assert_eq!(seen(&upstream).body, "{\"model\":\"qwen\\\"3\",\"messages\":[]}", "named where the caller named none");
    // What nobody reads, nobody rewrites.
    Raw::ask(gateway.data(), "POST", "/v1/images/generations", &[], body.as_bytes()).await;
    assert_eq!(seen(&upstream).body, body);
}

#[tokio::test]
async fn packed_requests() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let body: Vec<u8> = (0..=255u8).cycle().take(5000).collect();
    for encoding in ["zstd", "gzip"] {
        let answer =
            Raw::ask(gateway.data(), "POST", "/v1/chat/completions", &[("content-encoding", encoding)], &body).await;
        // The stand-in cannot unpack it, and its own words come back.
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("The request is not valid."), "{answer}");
        let seen = seen(&upstream);
        assert_eq!(
            (seen.body_sha256, header(&upstream.stats().last_requests[0], "content-encoding").is_some()),
            (sha256(&body), true)
        );
    }
}

#[tokio::test]
async fn errors_of_calls_nobody_looks_into() {
    for status in [400, 401, 409, 418, 422, 429, 500, 503] {
        let fault = format!("status: {status}, headers: {{ x-own: 'yes' }}, body: '{{\"odd\" :  {status}}}'");
        let upstream = mock(&format!("rules: [{{ do: {{ {fault} }} }}]")).await;
        let gateway = gateway(settings(&[upstream.base_url()])).await;
        let answer = post(&http(), &format!("{}/images/edits", base(&gateway)), "x").await;
        assert_eq!((answer.status, answer.text()), (status, format!("{{\"odd\" :  {status}}}")));
        assert_eq!(answer.header("x-own"), Some("yes"));
        assert_eq!(upstream.stats().calls, 1, "what may have had an effect is sent once: {status}");
    }
}

#[tokio::test]
async fn only_what_has_no_effect_is_asked_again() {
    let scenario = "rules: [{ times: 1, do: { status: 503, body: try again } }]";
    for (method, status, calls) in [("GET", 200, 2), ("HEAD", 200, 2), ("POST", 503, 1), ("PATCH", 503, 1)] {
        let upstream = mock(scenario).await;
        let gateway = gateway(settings(&[upstream.base_url()])).await;
        let answer = Raw::ask(gateway.data(), method, "/v1/batches/b1", &[], b"").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{method}: {answer}");
        assert_eq!(upstream.stats().calls, calls, "{method}");
    }
    let upstream =
        mock("rules: [{ do: { status: 503, headers: { retry-after: '0', x-own: 'yes' }, body: down for good } }]")
            .await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let answer = get(&http(), &format!("{}/batches/b1", base(&gateway))).await;
    assert_eq!((answer.status, answer.text().as_str(), answer.header("x-own")), (503, "down for good", Some("yes")));
    assert_eq!((answer.header("x-outrigger-attempts"), answer.header("x-should-retry")), (Some("3"), Some("false")));
}

#[tokio::test]
async fn a_cut_download_never_ends_well() {
    for (how, framing) in [("close", ""), ("reset", ""), ("close", ", trailers: true"), ("reset", ", trailers: true")] {
        let upstream = mock(&format!("rules: [{{ do: {{ cut: {{ at: byte 1000, how: {how} }}{framing} }} }}]")).await;
        let gateway = gateway(settings(&[upstream.base_url()])).await;
        let answer = post(&http(), &format!("{}/audio/speech", base(&gateway)), chat(false)).await;
        assert!(answer.broken, "{how}{framing}: {} bytes and a clean end", answer.body.len());
    }
}

#[tokio::test]
async fn a_websocket_is_refused_in_words_and_any_other_upgrade_is_not_taken() {
    let upstream = mock("{}").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let handshake =
        [("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")];
    let asked = [&[("connection", "upgrade, close")][..], &handshake].concat();
    let mut raw = Raw::send(gateway.data(), request("GET", "/v1/realtime?model=m", &asked, b"")).await;
    let head = raw.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 501"), "{head}");
    let answer = raw.rest().await;
    let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(told["error"]["code"], "bad_request");
    assert_eq!(upstream.stats().calls, 0);
    // Some clients offer HTTP/2 on every call in clear text; a server is free to stay with HTTP/1.1.
    let offer = [
        ("connection", "upgrade, http2-settings, close"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
    ];
    let answer = Raw::send(gateway.data(), request("POST", "/v1/chat/completions", &offer, chat(false).as_bytes()))
        .await
        .rest()
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!((header(&seen(&upstream), "upgrade"), header(&seen(&upstream), "http2-settings")), (None, None));
}

#[tokio::test]
async fn http_2_with_prior_knowledge() {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let upstream = mock("rules: [{ when: { stream: true, model: hung }, do: { hang: mid } }]").await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let direct = post(&http(), &format!("{}/chat/completions", upstream.base_url()), chat(true)).await;
    let io = TokioIo::new(tokio::net::TcpStream::connect(gateway.data()).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let call = |body: String| {
        let url = format!("http://{}/v1/chat/completions", gateway.data());
        http::Request::post(url).body(Full::new(bytes::Bytes::from(body))).unwrap()
    };
    let mut hung = client.send_request(call(chat(true).replace("\"m\"", "\"hung\""))).await.unwrap();
    hung.body_mut().frame().await.unwrap().unwrap();
    let response = client.send_request(call(chat(true))).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(String::from_utf8_lossy(&body), direct.text());
    // Leaving one call of a connection leaves the others alone.
    drop(hung);
    let stats =
        tokio::time::timeout(std::time::Duration::from_secs(1), upstream.until(|stats| stats.cancelled == 1)).await;
    assert!(stats.is_ok(), "not let go within a second");
    assert_eq!(client.send_request(call(chat(false))).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_redirect_is_handed_on_not_followed() {
    let elsewhere = mock("{}").await;
    let upstream = mock(&format!("rules: [{{ do: {{ redirect: '{}/x' }} }}]", elsewhere.base_url())).await;
    let gateway = gateway(settings(&[upstream.base_url()])).await;
    let answer: Answer = get(&http(), &format!("{}/files/f/content", base(&gateway))).await;
    assert_eq!((answer.status, elsewhere.stats().calls), (307, 0), "a key goes to no other host");
}

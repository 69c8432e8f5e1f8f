//! Tests of chunk streams: one script per server and quirk.

use super::*;
use crate::wire::ErrorKind;
use crate::wire::play::letter;
use crate::wire::sse::Decoder;
use bytes::Bytes;
use proptest::prelude::*;

/// Plays events (each a line of data, or whole lines when it starts with a field) and gives one letter for each.
fn play(events: &[&str]) -> (String, ChunkReader, Option<WireError>) {
    let (mut reader, mut letters, mut error) = (ChunkReader::new(), String::new(), None);
    for event in events {
        let whole = ["data:", ":", "event:", "error:", "\n"].iter().any(|field| event.starts_with(field));
        let text = if whole { format!("{event}\n\n") } else { format!("data: {event}\n\n") };
        let (mut decoder, mut out) = (Decoder::new(1 << 20), Vec::new());
        decoder.push(Bytes::from(text), &mut out).unwrap();
        for frame in out.iter().filter(|frame| frame.raw.len() > 1) {
            letters.push(letter(reader.read(frame), &mut error));
        }
    }
    (letters, reader, error)
}

const ROLE: &str = r#"{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}"#;
const TEXT: &str = r#"{"choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}]}"#;
const THINK: &str = r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const LENGTH: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}"#;
const DONE: &str = "[DONE]";

#[test]
fn scripts() {
    use End::*;
    type Row = (&'static str, &'static [&'static str], &'static str, End, Option<(u64, u64)>);
    let rows: &[Row] = &[
        ("plain", &[ROLE, TEXT, TEXT, STOP, USAGE, DONE], "qPPPqD", Complete, Some((5, 2))),
        ("no marker", &[ROLE, TEXT, STOP], "qPP", Unmarked, None),
        ("no finish", &[ROLE, TEXT, DONE], "qPD", DoneOnly, None),
        ("cut", &[ROLE, TEXT], "qP", Truncated, None),
        ("nothing", &[], "", Truncated, None),
        ("only a role, as Ollama after an error inside", &[ROLE], "q", Truncated, None),
        ("empty", &[ROLE, STOP, DONE], "qqD", Empty, None),
        ("empty, no marker", &[ROLE, STOP], "qq", Empty, None),
        ("empty with nothing but a marker", &[ROLE, DONE], "qD", Empty, None),
        ("marker alone", &[DONE], "D", Empty, None),
        ("nothing before the cap", &[ROLE, LENGTH, DONE], "qqD", Complete, None),
        ("reasoning", &[ROLE, THINK, TEXT, STOP, DONE], "qPPPD", Complete, None),
        ("reasoning only", &[ROLE, THINK, STOP, DONE], "qPPD", Complete, None),
        ("after the end", &[TEXT, STOP, DONE, DONE, TEXT, ": c"], "PPDxxx", Complete, None),
        ("comments", &[": OPENROUTER PROCESSING", ":", TEXT, ": keep-alive", STOP, DONE], "qqPqPD", Complete, None),
        ("empty data", &["data:", "data: ", TEXT, STOP, DONE], "xxPPD", Complete, None),
        (
            "no space",
            &["data:{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}", STOP, "data:[DONE]"],
            "PPD",
            Complete,
            None,
        ),
        ("done with a tail", &[TEXT, STOP, "[DONE] "], "PPD", Complete, None),
        ("done with text", &[TEXT, STOP, "[DONE]x"], "PPD", Complete, None),
        (
            "azure: prompt filter first, filter results last",
            &[
                r#"{"id":"","model":"","choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
                ROLE,
                TEXT,
                STOP,
                r#"{"id":"","choices":[{"index":0,"content_filter_offsets":{"check_offset":1},"content_filter_results":{},"finish_reason":null}]}"#,
                DONE,
            ],
            "qqPPqD",
            Complete,
            None,
        ),
        (
            "groq usage",
            &[
                TEXT,
                r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"r","usage":{"prompt_tokens":9,"completion_tokens":1}}}"#,
                DONE,
            ],
            "PPD",
            Complete,
            Some((9, 1)),
        ),
        (
            "ollama completions: zero usage first",
            &[
                r#"{"choices":[{"index":0,"text":"x","finish_reason":""}],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
                r#"{"choices":[{"index":0,"text":"","finish_reason":"stop"}]}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
                r#"{"choices":[],"usage":{"prompt_tokens":0,"completion_tokens":0}}"#,
                DONE,
            ],
            "PPqqD",
            Complete,
            Some((3, 4)),
        ),
        (
            "ollama: role in every delta, empty finish reason",
            &[r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"x"},"finish_reason":""}]}"#, TEXT],
            "PP",
            Truncated,
            None,
        ),
        (
            "ollama: load",
            &[r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"load"}]}"#, DONE],
            "qD",
            Complete,
            None,
        ),
        (
            "tool calls",
            &[
                ROLE,
                r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}]}}]}"#,
                r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}"#,
                r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
                DONE,
            ],
            "qPPPD",
            Complete,
            None,
        ),
        (
            "gemini: tool call without index, finish stop",
            &[
                r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"}]}"#,
                DONE,
            ],
            "PD",
            Complete,
            None,
        ),
        ("refusal", &[r#"{"choices":[{"index":0,"delta":{"refusal":"No"}}]}"#, STOP, DONE], "PPD", Complete, None),
        ("audio", &[r#"{"choices":[{"index":0,"delta":{"audio":{"data":"AA"}}}]}"#, STOP, DONE], "PPD", Complete, None),
        (
            "null content, as llama.cpp",
            &[r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}"#, TEXT, STOP, DONE],
            "qPPD",
            Complete,
            None,
        ),
        (
            "null keys, as SGLang",
            &[
                r#"{"choices":[{"index":0,"delta":{"role":null,"content":null,"tool_calls":null,"reasoning_content":null},"matched_stop":null}]}"#,
                TEXT,
                STOP,
                STOP,
                DONE,
            ],
            "qPPPD",
            Complete,
            None,
        ),
        (
            "hollow logprobs",
            &[
                r#"{"choices":[{"index":0,"delta":{"content":""},"logprobs":{"content":[],"refusal":null}}]}"#,
                TEXT,
                STOP,
                DONE,
            ],
            "qPPD",
            Complete,
            None,
        ),
        (
            "logprobs alone",
            &[r#"{"choices":[{"index":0,"delta":{"content":""},"logprobs":{"content":[{"token":"","logprob":-1}]}}]}"#],
            "P",
            Truncated,
            None,
        ),
        (
            "two choices, one unfinished",
            &[TEXT, r#"{"choices":[{"index":1,"delta":{"content":"b"}}]}"#, STOP, DONE],
            "PPPD",
            DoneOnly,
            None,
        ),
        (
            "two choices",
            &[
                TEXT,
                r#"{"choices":[{"index":1,"delta":{"content":"b"}}]}"#,
                STOP,
                r#"{"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}"#,
                DONE,
            ],
            "PPPPD",
            Complete,
            None,
        ),
        (
            "two choices, cut at one",
            &[TEXT, r#"{"choices":[{"index":1,"delta":{"content":"b"}}]}"#, STOP],
            "PPP",
            Truncated,
            None,
        ),
        (
            "usage without choices",
            &[r#"{"usage":{"prompt_tokens":1,"completion_tokens":2}}"#],
            "q",
            Truncated,
            Some((1, 2)),
        ),
        (
            "null choices",
            &[r#"{"choices":null,"usage":{"prompt_tokens":1,"completion_tokens":2}}"#],
            "q",
            Truncated,
            Some((1, 2)),
        ),
        (
            "usage in a choice",
            &[
                r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop","usage":{"prompt_tokens":1,"completion_tokens":2}}]}"#,
                DONE,
            ],
            "PD",
            Complete,
            Some((1, 2)),
        ),
        (
            "continuous usage",
            &[
                r#"{"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":4,"completion_tokens":1}}"#,
                r#"{"choices":[{"index":0,"delta":{"content":"y"},"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":2}}"#,
                DONE,
            ],
            "PPD",
            Complete,
            Some((4, 2)),
        ),
        (
            "usage second to last, then an empty one, as xAI",
            &[TEXT, STOP, USAGE, r#"{"choices":[]}"#, DONE],
            "PPqqD",
            Complete,
            Some((5, 2)),
        ),
        (
            "a shape we do not know",
            &[r#"{"token":{"id":1,"text":"x"}}"#, r#"{"choices":[{"index":"0","delta":"x"}]}"#, "[7]"],
            "PPP",
            Truncated,
            None,
        ),
        ("a bare number is no event", &[TEXT, "7", STOP, DONE], "PExx", Truncated, None),
        (
            "odd types, finish all the same",
            &[r#"{"choices":[{"index":0,"delta":"x","finish_reason":"stop"}]}"#, DONE],
            "PD",
            Complete,
            None,
        ),
        ("hollow object", &["{}"], "q", Truncated, None),
        (
            "null error members",
            &[r#"{"error":null,"choices":[{"index":0,"delta":{"content":"x"}}]}"#, r#"{"error":{},"choices":[]}"#],
            "Pq",
            Truncated,
            None,
        ),
        ("event without data", &["event: ping"], "q", Truncated, None),
    ];
    for (name, events, letters, end, usage) in rows {
        let (got, reader, error) = play(events);
        assert_eq!((got.as_str(), reader.ended(), reader.usage()), (*letters, *end, *usage), "{name}: {error:?}");
    }
}

#[test]
fn reasoning_without_an_answer_is_told() {
    assert!(play(&[ROLE, THINK, STOP, DONE]).1.reasoning_only());
    assert!(!play(&[ROLE, THINK, LENGTH, DONE]).1.reasoning_only());
    assert!(!play(&[ROLE, THINK, TEXT, STOP, DONE]).1.reasoning_only());
    assert!(!play(&[ROLE, STOP, DONE]).1.reasoning_only());
}

#[test]
fn errors_in_every_shape() {
    // event, status, type, code, message
    type Row = (&'static str, Option<u16>, Option<&'static str>, Option<&'static str>, &'static str);
    let rows: &[Row] = &[
        (r#"{"error":{"message":"m","type":"server_error","code":"c"}}"#, None, Some("server_error"), Some("c"), "m"),
        (r#"{"error":"text"}"#, None, None, None, "text"),
        ("event: error\ndata: {\"error\":{\"message\":\"m\"}}", None, None, None, "m"),
        ("event: error\ndata: {\"message\":\"m\"}", None, None, None, "m"),
        ("event: error\ndata: plain words", None, None, None, "plain words"),
        (
            "error: {\"code\":500,\"message\":\"m\",\"type\":\"server_error\"}",
            Some(500),
            Some("server_error"),
            None,
            "m",
        ),
        (
            r#"{"object":"error","message":"m","type":"BadRequestError","code":400}"#,
            Some(400),
            Some("BadRequestError"),
            None,
            "m",
        ),
        (
            r#"{"id":"x","choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],"error":{"code":502,"message":"m"}}"#,
            Some(502),
            None,
            None,
            "m",
        ),
        (
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}"#,
            None,
            None,
            Some("error"),
            "the server ended the answer with finish_reason \"error\"",
        ),
        (r#"[{"error":{"code":503,"message":"m","status":"UNAVAILABLE"}}]"#, Some(503), Some("UNAVAILABLE"), None, "m"),
        (r#"{"error":{"message":"m","http_status_code":422}}"#, Some(422), None, None, "m"),
        (r#"{"error":7,"choices":"odd"}"#, None, None, None, ""),
    ];
    for (event, status, kind, code, message) in rows {
        for before in [&[][..], &[ROLE, TEXT]] {
            let (letters, reader, error) = play(&[before, &[event, DONE, TEXT]].concat());
            assert!(letters.ends_with("Exx"), "{event}: {letters}");
            assert_eq!(reader.ended(), End::Truncated);
            let error = error.unwrap();
            let got = (error.status, error.error_type.as_deref(), error.code.as_deref(), error.message.as_str());
            assert_eq!(got, (*status, *kind, *code, *message), "{event}");
            assert_eq!(error.kind, ErrorKind::Reported);
        }
    }
    for garbage in ["<html>", "{\"choices\":[", "\u{1}", "nonsense"] {
        assert_eq!(play(&[garbage]).2.unwrap().kind, ErrorKind::Undecodable, "{garbage}");
    }
}

#[test]
fn depth_and_breadth_do_no_harm() {
    let deep = format!(r#"{{"choices":[{{"delta":{{"x":{}{}}}}}]}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(play(&[&deep]).0, "P");
    let wide: String = (0..5000).map(|i| format!(r#"{{"index":{i},"delta":{{}}}},"#)).collect();
    assert_eq!(play(&[&format!(r#"{{"choices":[{}]}}"#, wide.trim_end_matches(','))]).0, "q");
}

proptest! {
    #[test]
    fn reading_never_panics_and_never_completes_by_accident(data in prop::collection::vec("[ -~]{0,40}", 0..6)) {
        let events: Vec<String> = data.into_iter().map(|data| format!("data: {data}")).collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let (letters, reader, _) = play(&events);
        prop_assert!(letters.contains('D') || reader.ended() == End::Truncated);
    }
}

#[test]
fn a_choice_that_never_began_is_missing_unless_the_server_says_done() {
    for (wanted, marked, end) in [(1, false, End::Unmarked), (2, false, End::Truncated), (2, true, End::Complete)] {
        let mut reader = ChunkReader::of(wanted);
        for event in [TEXT, STOP].into_iter().chain(marked.then_some(DONE)) {
            let (mut decoder, mut out) = (Decoder::new(1 << 20), Vec::new());
            decoder.push(Bytes::from(format!("data: {event}\n\n")), &mut out).unwrap();
            out.iter().for_each(|frame| drop(reader.read(frame)));
        }
        assert_eq!(reader.ended(), end, "{wanted} wanted, marked: {marked}");
    }
}

//! Tests of the event decoder: tables, and properties against a naive splitter over the whole input.

use super::*;
use proptest::prelude::*;

fn decode(input: &[u8], sizes: &[usize]) -> (Vec<Frame>, Option<Frame>) {
    let (mut decoder, mut out, mut at, mut turn) = (Decoder::new(1 << 20), Vec::new(), 0, 0);
    while at < input.len() {
        let size = sizes.get(turn % sizes.len().max(1)).copied().unwrap_or(input.len()).max(1);
        let end = (at + size).min(input.len());
        decoder.push(Bytes::copy_from_slice(&input[at..end]), &mut out).unwrap();
        (at, turn) = (end, turn + 1);
    }
    let last = decoder.finish();
    (out, last)
}

/// Lines with their endings, then groups of lines up to a blank one. Knows nothing of chunks.
fn naive(input: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let (mut events, mut raw, mut data, mut at) = (Vec::new(), Vec::new(), None::<Vec<u8>>, 0);
    let (mut bare, mut stray) = (false, false);
    if input.starts_with(BOM) {
        raw.extend_from_slice(BOM);
        at = 3;
    }
    while at < input.len() {
        if std::mem::take(&mut stray) && input[at] == b'\n' {
            raw.push(b'\n');
            at += 1;
            bare = false;
            continue;
        }
        let Some(len) = input[at..].iter().position(|b| matches!(b, b'\n' | b'\r')) else { break };
        let (line, mut end) = (&input[at..at + len], at + len + 1);
        let cr = input[end - 1] == b'\r';
        let dispatch_now = line.is_empty() && bare && cr;
        if cr && !dispatch_now && input.get(end) == Some(&b'\n') {
            end += 1;
        }
        if cr && !dispatch_now && end == input.len() && line.is_empty() && input[end - 1] == b'\r' {
            break; // its LF may still come
        }
        bare = cr && input[end - 1] == b'\r';
        raw.extend_from_slice(&input[at..end]);
        at = end;
        if line.is_empty() {
            events.push((std::mem::take(&mut raw), data.take()));
            stray = dispatch_now;
            bare = dispatch_now;
        } else if let Some(value) = line.strip_prefix(b"data") {
            let value = match value {
                [] => value,
                [b':', b' ', rest @ ..] | [b':', rest @ ..] => rest,
                _ => continue,
            };
            match &mut data {
                None => data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            }
        }
    }
    events
}

#[test]
fn fields_are_read_as_the_standard_says() {
    // input, event, data, error field, comment
    type Row = (&'static str, Option<&'static str>, Option<&'static str>, Option<&'static str>, bool);
    let rows: &[Row] = &[
        ("data: x\n\n", None, Some("x"), None, false),
        ("data:x\r\n\r\n", None, Some("x"), None, false),
        ("data:  x\r\r", None, Some(" x"), None, false),
        ("data: a\ndata: b\ndata:c\n\n", None, Some("a\nb\nc"), None, false),
        ("data\n\n", None, Some(""), None, false),
        ("data:\n\n", None, Some(""), None, false),
        ("data:\ndata:\n\n", None, Some("\n"), None, false),
        ("event: ping\ndata: {}\n\n", Some("ping"), Some("{}"), None, false),
        ("event:\ndata: {}\n\n", None, Some("{}"), None, false),
        (": keep-alive\n\n", None, None, None, true),
        (":\n\n", None, None, None, true),
        ("\n", None, None, None, false),
        ("id: 7\nretry: 10\ndata: x\n\n", None, Some("x"), None, false),
        ("error: {\"code\":500}\n\n", None, None, Some("{\"code\":500}"), false),
        ("\u{feff}data: x\n\n", None, Some("x"), None, false),
        ("database: x\n\n", None, None, None, false),
    ];
    for (input, event, data, error, comment) in rows {
        let text = |value: &Option<Bytes>| value.as_ref().map(|v| String::from_utf8(v.to_vec()).unwrap());
        for size in [1, 2, 3, usize::MAX] {
            let (frames, last) = decode(input.as_bytes(), &[size]);
            assert_eq!(frames.len(), 1, "{input:?}");
            assert_eq!(last, None);
            let frame = &frames[0];
            assert_eq!(frame.raw, input.as_bytes());
            assert_eq!(text(&frame.event).as_deref(), *event, "{input:?}");
            assert_eq!(text(&frame.data).as_deref(), *data, "{input:?}");
            assert_eq!(text(&frame.error_field).as_deref(), *error, "{input:?}");
            assert_eq!(frame.comment, *comment, "{input:?}");
        }
    }
}

#[test]
fn an_unfinished_event_is_given_at_the_end_only_if_it_carries_something() {
    for (input, some) in [
        ("data: [DONE]", true),
        ("data: [DONE]\n", true),
        ("data: [DONE]\r\n\r", true),
        (": comment\n", false),
        ("\r", false),
        ("error: {}\n", true),
        ("event: x\n", false),
        ("", false),
    ] {
        let (frames, last) = decode(input.as_bytes(), &[usize::MAX]);
        assert!(frames.is_empty(), "{input:?}");
        assert_eq!(last.is_some(), some, "{input:?}");
        if let Some(last) = last {
            assert_eq!(last.raw, input.as_bytes());
            assert!(last.cut);
            let (again, rest) = decode(&last.closed(), &[usize::MAX]);
            assert_eq!((&again[0].data, &again[0].error_field, rest), (&last.data, &last.error_field, None));
            assert_eq!(again[0].closed(), again[0].raw);
        }
    }
}

#[test]
fn a_lone_cr_framing_does_not_wait_for_the_next_event() {
    let (mut decoder, mut out) = (Decoder::new(100), Vec::new());
    decoder.push(Bytes::from_static(b"data: a\r\r"), &mut out).unwrap();
    assert_eq!(out.len(), 1);
    decoder.push(Bytes::from_static(b"data: b\r"), &mut out).unwrap();
    decoder.push(Bytes::from_static(b"\r"), &mut out).unwrap();
    assert_eq!(out.len(), 2);
    assert_eq!(decoder.pending(), 0);
}

#[test]
fn a_whole_event_in_a_chunk_is_not_copied() {
    let chunk = Bytes::from_static(b"data: a\n\ndata: b\n\ndat");
    let (mut decoder, mut out) = (Decoder::new(100), Vec::new());
    decoder.push(chunk.clone(), &mut out).unwrap();
    assert_eq!(out.len(), 2);
    assert_eq!(out[1].raw.as_ptr(), chunk[9..].as_ptr());
    assert_eq!(out[1].data.as_ref().unwrap().as_ptr(), chunk[15..].as_ptr());
    assert_eq!(decoder.pending(), 3);
}

#[test]
fn the_limit_holds_for_whole_and_for_growing_events() {
    let mut out = Vec::new();
    let long = Bytes::from(format!("data: {}\n\n", "x".repeat(100)));
    assert_eq!(Decoder::new(50).push(long.clone(), &mut out), Err(TooLong { limit: 50 }));
    let mut decoder = Decoder::new(50);
    let failed = (0..long.len()).find(|&at| decoder.push(long.slice(at..at + 1), &mut out).is_err());
    assert_eq!(failed, Some(50));
    assert!(out.is_empty());
    let mut decoder = Decoder::new(9);
    for _ in 0..3 {
        decoder.push(Bytes::from_static(b"data: x\n\n"), &mut out).unwrap();
    }
    assert_eq!(out.len(), 3);
}

#[test]
fn one_byte_chunks_cost_linear_time() {
    // A quadratic rescan of 2 MB would take minutes, not the blink this takes.
    let body = Bytes::from(format!("data: {}\n\n", "x".repeat(2_000_000)));
    let (mut decoder, mut out) = (Decoder::new(4 << 20), Vec::new());
    for at in 0..body.len() {
        decoder.push(body.slice(at..at + 1), &mut out).unwrap();
    }
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].raw, body);
}

fn streamish() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "data: x",
        "data:",
        "data",
        "é\u{1F600}",
        ": c",
        "event: e",
        "error: y",
        "\n",
        "\n",
        "\r",
        "\r",
        "\r\n",
        "\r\n\r\n",
        "\n\n",
        "\r\r",
        "\u{feff}",
        "[DONE]",
        " ",
        ":",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn chunking_changes_nothing(input in streamish(), sizes in prop::collection::vec(1usize..9, 1..8)) {
        let whole = decode(&input, &[usize::MAX]);
        prop_assert_eq!(&decode(&input, &sizes), &whole);
        prop_assert_eq!(&decode(&input, &[1]), &whole);
    }

    #[test]
    fn the_naive_splitter_agrees(input in streamish()) {
        let (frames, _) = decode(&input, &[usize::MAX]);
        let got: Vec<_> =
            frames.iter().map(|frame| (frame.raw.to_vec(), frame.data.as_ref().map(|data| data.to_vec()))).collect();
        prop_assert_eq!(got, naive(&input));
    }

    #[test]
    fn raws_are_the_input(input in prop::collection::vec(any::<u8>(), 0..200), tail in streamish(), size in 1usize..9) {
        let input = [input, tail].concat();
        let (mut decoder, mut out) = (Decoder::new(1 << 20), Vec::new());
        for chunk in input.chunks(size) {
            decoder.push(Bytes::copy_from_slice(chunk), &mut out).unwrap();
        }
        let pending = decoder.pending();
        let raws: Vec<u8> = out.iter().flat_map(|frame| frame.raw.to_vec()).collect();
        prop_assert_eq!(&raws[..], &input[..input.len() - pending]);
        if let Some(last) = decoder.finish() {
            prop_assert_eq!(&last.raw[..], &input[input.len() - pending..]);
        }
        prop_assert_eq!(decoder.pending(), 0);
    }
}

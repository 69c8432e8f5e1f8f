//! Hostile input for the event decoder: any bytes, cut anywhere.
//!
//! The first byte chooses the sizes of the chunks, the second the limit on an event; the rest is the stream. What
//! must hold: no panic, the same frames whatever the chunks, not a byte lost or altered, memory under the limit.

#![no_main]

#[path = "../../src/wire/sse.rs"]
#[allow(dead_code, missing_docs)]
mod sse;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sse::{Decoder, Frame};

/// What came of one run over a stream.
#[derive(Debug, PartialEq)]
struct Decoded {
    frames: Vec<Frame>,
    too_long: bool,
    /// Bytes at the end that no frame has.
    left: usize,
}

fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>, limit: usize) -> Decoded {
    let mut decoder = Decoder::new(limit);
    let mut decoded = Decoded { frames: Vec::new(), too_long: false, left: 0 };
    for chunk in chunks {
        if decoder.push(Bytes::copy_from_slice(chunk), &mut decoded.frames).is_err() {
            decoded.too_long = true;
            return decoded;
        }
        assert!(decoder.pending() <= limit, "{} bytes held over a limit of {limit}", decoder.pending());
    }
    decoded.left = decoder.pending();
    if let Some(last) = decoder.finish() {
        decoded.left -= last.raw.len();
        decoded.frames.push(last);
    }
    decoded
}

/// Chunks of one to sixteen bytes in a pattern that the seed chooses; seed 0 is all bytes one by one.
fn cut(stream: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut state = seed;
    let mut rest = stream;
    std::iter::from_fn(move || {
        let size = if seed == 0 { 1 } else { 1 + usize::from(state >> 4) };
        state = state.wrapping_mul(37).wrapping_add(11);
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

fuzz_target!(|input: &[u8]| {
    let [seed, limit, stream @ ..] = input else { return };
    let limit = if *limit < 128 { 1 << 20 } else { usize::from(*limit) - 120 };

    let whole = decode(std::iter::once(stream), limit);
    let chunked = decode(cut(stream, *seed), limit);
    assert_eq!(whole, chunked, "the chunks made a difference");

    let raws: Vec<u8> = whole.frames.iter().flat_map(|frame| frame.raw.iter().copied()).collect();
    assert!(stream.starts_with(&raws), "the raws are not the input");
    if !whole.too_long {
        assert_eq!(raws.len() + whole.left, stream.len(), "bytes were lost");
    }
    for frame in &whole.frames {
        assert!(!frame.raw.is_empty() && frame.raw.len() <= limit);
        let data = frame.data.iter().flat_map(|data| data.split(|&b| b == b'\n'));
        for line in data.chain(frame.event.as_deref()).chain(frame.error_field.as_deref()) {
            assert!(!line.contains(&b'\r') && line.len() <= frame.raw.len());
            assert!(line.is_empty() || frame.raw.windows(line.len()).any(|window| window == line));
        }
    }
});

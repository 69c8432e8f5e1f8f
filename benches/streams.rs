//! How fast the tap of a stream is: cutting bytes into events and reading what each event means.
//!
//! One chat stream, handed over in large chunks (a server that is far ahead), one event at a time (a model that is
//! just writing) and byte by byte (the worst there is).

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a bench that cannot run is to say so at once")]

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use outrigger::wire::chunk::ChunkReader;
use outrigger::wire::sse::Decoder;
use outrigger::wire::{End, StreamReader};

const EVENTS: usize = 512;
const EVENT_LIMIT: usize = 1 << 20;

fn main() {
    let events = recorded();
    let whole: Bytes = events.concat().into();
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("tap");
    group.throughput(Throughput::Bytes(whole.len() as u64));
    let cuts = [
        ("16 KiB chunks", cut(&whole, 16 * 1024)),
        ("one event a chunk", events.iter().map(|event| Bytes::copy_from_slice(event.as_bytes())).collect()),
        ("one byte a chunk", cut(&whole, 1)),
    ];
    for (name, chunks) in &cuts {
        group.bench_with_input(BenchmarkId::from_parameter(name), chunks, |bencher, chunks| {
            bencher.iter(|| tap(black_box(chunks)));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// What the gateway does with a stream, less the forwarding.
fn tap(chunks: &[Bytes]) -> Option<(u64, u64)> {
    let (mut decoder, mut reader, mut frames) = (Decoder::new(EVENT_LIMIT), ChunkReader::new(), Vec::new());
    for chunk in chunks {
        decoder.push(chunk.clone(), &mut frames).expect("no event is that long");
        for frame in frames.drain(..) {
            black_box(reader.read(&frame));
        }
    }
    assert_eq!(reader.ended(), End::Complete);
    reader.usage()
}

fn cut(whole: &Bytes, size: usize) -> Vec<Bytes> {
    (0..whole.len()).step_by(size).map(|at| whole.slice(at..whole.len().min(at + size))).collect()
}

/// A stream as `api.openai.com` sends it.
fn recorded() -> Vec<String> {
    let event = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-CzT0yTmsF2bU7\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\
             \"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_560af6e559\",\
             \"choices\":[{choices}],\"usage\":{usage}}}\n\n"
        )
    };
    let choice = |delta: &str, finish: &str| {
        format!("{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":{finish}}}")
    };
    let words = ["Keep", " the", " boat", " upright", ",", " \\u00e0", " l'ombre", ".\\n\\n"];
    let mut events = vec![event(&choice("{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}", "null"), "null")];
    events.extend(
        (0..EVENTS)
            .map(|at| event(&choice(&format!("{{\"content\":\"{}\"}}", words[at % words.len()]), "null"), "null")),
    );
    events.push(event(&choice("{}", "\"stop\""), "null"));
    events.push(event("", "{\"prompt_tokens\":21,\"completion_tokens\":512,\"total_tokens\":533}"));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

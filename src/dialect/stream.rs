//! Which reader follows a surface's streams, and what to do where one ends.
//!
//! Owns the choice and the closing rule; the readers themselves are in `wire/`. Invariant: `[DONE]` is only ever
//! added to a stream whose every choice said why it finished.

use bytes::Bytes;

use super::Dialect;
use crate::call::{Class, Failure, Surface};
use crate::wire::chunk::ChunkReader;
use crate::wire::error::{StreamShape, done};
use crate::wire::messages::MessagesReader;
use crate::wire::responses::ResponsesReader;
use crate::wire::whole::BodyKind;
use crate::wire::{End, StreamReader};

/// What to do with a stream whose input ended.
#[derive(Clone, Debug)]
pub enum Closing {
    /// Nothing: it is complete.
    Fine,
    /// It is complete but for this.
    Append(Bytes),
    /// It is not complete.
    Fail(Failure),
}

/// The reader for a surface's streams, of which so many choices were asked; `None` where there are none to read.
pub fn reader(surface: Surface, choices: u64) -> Option<Box<dyn StreamReader + Send>> {
    match surface {
        Surface::Chat | Surface::Completions => Some(Box::new(ChunkReader::of(choices))),
        Surface::Responses => Some(Box::new(ResponsesReader::new())),
        Surface::Messages => Some(Box::new(MessagesReader::new())),
        Surface::Embeddings | Surface::Models | Surface::Opaque => None,
    }
}

/// The reader for a stream that goes on with a chat answer.
pub fn rest_reader() -> Box<dyn StreamReader + Send> {
    Box::new(ChunkReader::going_on())
}

/// How a stream that ended so is to be closed.
pub fn close(dialect: Dialect, end: End) -> Closing {
    match end {
        End::Complete => Closing::Fine,
        End::Unmarked => Closing::Append(done()),
        End::DoneOnly if dialect == Dialect::Ollama => Closing::Fine,
        End::DoneOnly => Closing::Fail(Failure::new(
            Class::StreamTruncated,
            "the stream was marked as done, but not every choice gave a finish_reason",
        )),
        End::Empty => Closing::Fail(Failure::new(Class::EmptyCompletion, "the answer finished with nothing in it")),
        End::Truncated => {
            Closing::Fail(Failure::new(Class::StreamTruncated, "the stream ended without its terminal marker"))
        }
    }
}

/// What a complete answer on a surface is to be read as.
pub fn body_kind(surface: Surface) -> BodyKind {
    match surface {
        Surface::Chat => BodyKind::Chat,
        Surface::Completions => BodyKind::Completions,
        Surface::Embeddings => BodyKind::Embeddings,
        Surface::Responses => BodyKind::Responses,
        Surface::Messages => BodyKind::Messages,
        Surface::Models | Surface::Opaque => BodyKind::Other,
    }
}

/// The form of an in-stream error on a surface.
pub fn error_shape(surface: Surface) -> StreamShape {
    match surface {
        Surface::Responses => StreamShape::Responses,
        Surface::Messages => StreamShape::Messages,
        _ => StreamShape::Chunks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Meaning;
    use crate::wire::sse::Decoder;

    fn closed(dialect: Dialect, end: End) -> String {
        match close(dialect, end) {
            Closing::Fine => "fine".into(),
            Closing::Append(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Closing::Fail(failure) => failure.class.to_string(),
        }
    }

    #[test]
    fn the_closing_rule() {
        for dialect in Dialect::ALL {
            assert_eq!(closed(dialect, End::Complete), "fine");
            assert_eq!(closed(dialect, End::Unmarked), "data: [DONE]\n\n");
            let lenient = dialect == Dialect::Ollama;
            assert_eq!(closed(dialect, End::DoneOnly), if lenient { "fine" } else { "stream_truncated" });
            assert_eq!(closed(dialect, End::Empty), "empty_completion");
            assert_eq!(closed(dialect, End::Truncated), "stream_truncated");
        }
    }

    #[test]
    fn only_surfaces_with_streams_have_readers() {
        for surface in [Surface::Chat, Surface::Completions, Surface::Responses, Surface::Messages] {
            assert!(reader(surface, 1).is_some(), "{surface:?}");
        }
        for surface in [Surface::Embeddings, Surface::Models, Surface::Opaque] {
            assert!(reader(surface, 1).is_none(), "{surface:?}");
        }
    }

    /// A recorded stream of each surface, cut at every byte: never complete before its end is there.
    #[test]
    fn a_stream_cut_anywhere_is_not_called_complete() {
        let chat = concat!(
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n",
            ": wait\r\n\r\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hé\"}}]}\r\n\r\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\n",
            "data: [DONE]\r\n\r\n",
        );
        let responses = concat!(
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"x\"}\n\n",
            "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\"}}\n\n",
        );
        let messages = concat!(
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"x\"}}\n\n",
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        );
        for (surface, text, marker) in [
            (Surface::Chat, chat, "\"finish_reason\":\"stop\"}]}"),
            (Surface::Responses, responses, "{\"status\":\"completed\"}}"),
            (Surface::Messages, messages, "{\"type\":\"message_stop\"}"),
        ] {
            let sure = text.find(marker).unwrap() + marker.len();
            for cut in 0..=text.len() {
                let (mut decoder, mut out) = (Decoder::new(1 << 20), Vec::new());
                let mut reader = reader(surface, 1).unwrap();
                decoder.push(Bytes::copy_from_slice(&text.as_bytes()[..cut]), &mut out).unwrap();
                out.extend(decoder.finish());
                for frame in &out {
                    let meaning = reader.read(frame);
                    assert!(!matches!(meaning, Meaning::Error(_)), "{surface:?} at {cut}: {meaning:?}");
                }
                assert!(reader.ended() == End::Truncated || cut >= sure, "{surface:?} at {cut}");
            }
        }
    }
}

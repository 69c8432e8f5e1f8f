//! Answers on their way out: pieces become body frames, and a failure becomes the one honest ending that is left.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::respond;
use super::stop::Cut;
use crate::call::{Class, Failure, Fate, PieceStream, Surface, Verdict};
use crate::layer::state::LiveGuard;

/// Most of a whole answer that is handed to the connection at once, in bytes.
const SLICE: usize = 64 * 1024;

/// A whole answer. It goes out in slices, so that its call counts as running until nearly all of it is taken.
pub struct Complete {
    /// What is left of it.
    pub bytes: Bytes,
    /// Counts the call until its end.
    pub(super) _live: LiveGuard,
}

impl Body for Complete {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let slice = self.bytes.len().min(SLICE);
        let slice = self.bytes.split_to(slice);
        Poll::Ready((!slice.is_empty()).then(|| Ok(Frame::data(slice))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}

/// An event stream. It ends well only if the upstream's did; otherwise its last event is an error, in the words of
/// the API, and nothing that looks like a proper end follows.
pub struct Events {
    /// The upstream's events.
    pub pieces: PieceStream,
    /// Our id for the call, told in the error.
    pub id: String,
    /// Whose words an error is put in.
    pub surface: Surface,
    /// Ends the stream at a shutdown.
    pub cut: Cut,
    /// What the send counts as when a shutdown ends it.
    pub fate: Arc<Fate>,
    /// Counts the call until its end.
    pub(super) _live: LiveGuard,
    /// Events so far, for APIs that number them.
    pub sent: u64,
    /// The answer is complete: whatever still goes wrong is no business of its client.
    pub complete: bool,
    /// Nothing more follows.
    pub over: bool,
}

impl Events {
    fn error(&mut self, failure: &Failure) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.over = true;
        if self.complete {
            return Poll::Ready(None);
        }
        let event = respond::stream_error(&self.id, self.surface, failure, self.sent);
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        loop {
            match self.pieces.as_mut().poll_next(cx) {
                Poll::Ready(None) => {
                    self.over = true;
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(piece))) if piece.bytes.is_empty() => {}
                Poll::Ready(Some(Ok(piece))) => {
                    self.sent += u64::from(piece.events);
                    self.complete |= piece.done;
                    return Poll::Ready(Some(Ok(Frame::data(piece.bytes))));
                }
                Poll::Ready(Some(Err(failure))) => return self.error(&failure),
                Poll::Pending => break,
            }
        }
        if Pin::new(&mut self.cut).poll(cx).is_ready() {
            self.fate.set(Verdict::Failed(Class::Shutdown));
            let failure = Failure::new(Class::Shutdown, "the answer is incomplete");
            return self.error(&failure);
        }
        Poll::Pending
    }
}

/// Bytes nobody looked into. A failure breaks the connection: the only ending that cannot be taken for a good one.
pub struct Opaque {
    /// The upstream's bytes.
    pub pieces: PieceStream,
    /// Breaks the transfer at a shutdown.
    pub cut: Cut,
    /// What the send counts as when a shutdown ends it.
    pub fate: Arc<Fate>,
    /// Counts the call until its end.
    pub(super) _live: LiveGuard,
}

impl Body for Opaque {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.pieces.as_mut().poll_next(cx) {
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Ok(piece))) => Poll::Ready(Some(Ok(Frame::data(piece.bytes)))),
            Poll::Ready(Some(Err(failure))) => {
                Poll::Ready(Some(Err(io::Error::other(format!("{}: {}", failure.class, failure.message)))))
            }
            Poll::Pending if Pin::new(&mut self.cut).poll(cx).is_ready() => {
                self.fate.set(Verdict::Failed(Class::Shutdown));
                Poll::Ready(Some(Err(io::Error::other("shutting down"))))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::BodyExt;

    use super::*;
    use crate::call::Piece;
    use crate::layer::state::Live;
    use crate::server::stop::Stop;

    async fn written(done: bool, stop: &Stop) -> String {
        let piece = Piece { bytes: Bytes::from_static(b"data: [DONE]\n\n"), done, ..Piece::default() };
        let late = Failure::new(Class::DeadlineExceeded, "");
        let events = Events {
            pieces: Box::pin(stream::iter([Ok(piece), Err(late)])),
            id: String::new(),
            surface: Surface::Chat,
            cut: stop.when_cut(),
            fate: Arc::default(),
            _live: Live::default().enter(),
            sent: 0,
            complete: false,
            over: false,
        };
        String::from_utf8(events.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn nothing_goes_wrong_any_more_after_the_terminal_marker() {
        assert_eq!(written(true, &Stop::default()).await, "data: [DONE]\n\n");
        assert!(written(false, &Stop::default()).await.contains("deadline_exceeded"));
    }
}

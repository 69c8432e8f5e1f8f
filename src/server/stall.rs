//! Connections whose clients do nothing are broken: one that takes nothing of what we write, so that it cannot hold a
//! model's slot for ever, and one that never says what it speaks, so that it cannot hold a connection's.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::clock;

/// What an HTTP/2 client says first. Until a client has said something else, or all of this, no HTTP server is there yet
/// whose own clock could run.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream whose greeting and whose blocked writes run out of patience.
pub struct Stalling<T> {
    io: T,
    patience: Duration,
    blocked: Option<Pin<Box<Sleep>>>,
    greeting: Option<Greeting>,
}

/// A client that has not said yet what it speaks.
struct Greeting {
    /// So much of the greeting has come.
    said: usize,
    clock: Pin<Box<Sleep>>,
}

impl Greeting {
    /// Whether it is over with these bytes.
    fn hears(&mut self, bytes: &[u8]) -> bool {
        let rest = &GREETING[self.said..];
        self.said += bytes.len();
        bytes.len() >= rest.len() || !rest.starts_with(bytes)
    }
}

impl<T> Stalling<T> {
    /// Watches `io`: its client has `greeting` to say what it speaks, and `patience` to take something of a write.
    pub fn new(io: T, greeting: Duration, patience: Duration) -> Self {
        let greeting = Greeting { said: 0, clock: Box::pin(clock::sleep(greeting)) };
        Self { io, patience, blocked: None, greeting: Some(greeting) }
    }

    fn watch<R>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.blocked = None;
            return result;
        }
        let clock = self.blocked.get_or_insert_with(|| Box::pin(clock::sleep(self.patience)));
        match clock.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stalling<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let Some(greeting) = &mut self.greeting else { return read };
        match read {
            Poll::Pending if greeting.clock.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client says nothing")))
            }
            Poll::Ready(Ok(())) => {
                if greeting.hears(&buf.filled()[before..]) {
                    self.greeting = None;
                }
                read
            }
            read => read,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stalling<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, wrote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PATIENCE: Duration = Duration::from_secs(30);
    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_is_given_up() {
        for said in [&b""[..], b"P", &GREETING[..GREETING.len() - 1]] {
            let (near, mut far) = tokio::io::duplex(64);
            let (mut near, started) = (Stalling::new(near, PATIENCE, HOUR), clock::now());
            far.write_all(said).await.unwrap();
            let mut heard = Vec::new();
            assert_eq!(near.read_to_end(&mut heard).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!((&heard[..], clock::now() - started), (said, PATIENCE));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_said_what_it_speaks_is_left_to_the_server() {
        for said in [&b"G"[..], b"PUT", b"PRI * HTTP/1.1", GREETING] {
            let (near, mut far) = tokio::io::duplex(64);
            let mut near = Stalling::new(near, PATIENCE, HOUR);
            for byte in said {
                far.write_all(&[*byte]).await.unwrap();
                near.read_exact(&mut [0]).await.unwrap();
            }
            let waited = tokio::time::timeout(HOUR, near.read_exact(&mut [0])).await;
            assert!(waited.is_err(), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_takes_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(16);
        let mut near = Stalling::new(near, HOUR, PATIENCE);
        let started = clock::now();
        let error = near.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(clock::now() - started, PATIENCE);
    }
}

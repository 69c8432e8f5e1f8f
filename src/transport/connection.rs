//! One connection upstream: whether it was used, how old it may grow, and when it takes no further send.
//!
//! A connection is retired, never cut: what it carries runs to its end. Invariant: one that is past its age, or whose
//! address its name has lost, is not used for another send.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{CaptureConnection, Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::lookup::Place;
use crate::clock;

/// Connections made in the same moment do not all end in the same moment: each lives this share longer or shorter.
const SPREAD: f64 = 0.1;

/// What all holders of a connection know of it.
#[derive(Clone, Debug)]
pub struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    uses: AtomicU32,
    born: Instant,
    address: SocketAddr,
    closed: Notify,
}

impl Life {
    fn new(address: SocketAddr) -> Self {
        Self(Arc::new(Inner { uses: AtomicU32::new(0), born: clock::now(), address, closed: Notify::new() }))
    }

    /// Counts one more answer; `true` for the first.
    pub fn count(&self) -> bool {
        self.0.uses.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Whether an earlier answer came over this connection.
    pub fn any(&self) -> bool {
        self.0.uses.load(Ordering::Relaxed) > 0
    }

    /// Retires the connection in time; ends with it. `sample` is uniform in `0..1`.
    pub fn watch(
        self,
        captured: CaptureConnection,
        place: &Place,
        max_age: Duration,
        sample: f64,
    ) -> impl Future<Output = ()> + Send + use<> {
        let left = place.left(self.0.address);
        let age = max_age.mul_f64(1.0 + SPREAD * (2.0 * sample - 1.0));
        async move {
            let expired = async {
                match age.is_zero() {
                    true => std::future::pending().await,
                    false => clock::sleep_until(self.0.born + age).await,
                }
            };
            tokio::select! {
                () = self.0.closed.notified() => return,
                () = left => {}
                () = expired => {}
            }
            if let Some(connected) = captured.connection_metadata().as_ref() {
                connected.poison();
            }
        }
    }
}

/// A TCP connection with a [`Life`].
pub struct Counted {
    io: TokioIo<TcpStream>,
    life: Life,
}

impl Counted {
    /// A new connection to `address`.
    pub fn new(io: TokioIo<TcpStream>, address: SocketAddr) -> Self {
        Self { io, life: Life::new(address) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.life.0.closed.notify_one();
    }
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.io.connected().extra(self.life.clone())
    }
}

impl Read for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
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
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

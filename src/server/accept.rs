//! The accept loop: a connection cap, a clock on request heads, and a shutdown that ends.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use super::stall::Stalling;
use crate::clock;
use crate::config::ServerSettings;

/// How long to wait before accepting again when the process is out of descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// Whoever opened the connection that a request came on; an extension of each request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// Bytes of a request head, at least 8 KiB.
    pub head: usize,
    /// Time for a request head, the pause between two requests included.
    pub head_time: Duration,
    /// Time in which something must be taken of what is written.
    pub write_time: Duration,
}

impl Bounds {
    /// Those of the data port.
    pub fn of(server: &ServerSettings) -> Self {
        Self {
            connections: server.max_connections,
            head: server.max_header_bytes,
            head_time: server.header_timeout,
            write_time: server.write_timeout,
        }
    }
}

/// Serves `router` until `stop` resolves, then lets connections finish until `end` resolves.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
    end: impl Future<Output = ()>,
) {
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((socket, peer, slot)) = accepted else { continue };
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.head_time);
        builder.http1().max_buf_size(bounds.head);
        builder.http2().max_header_list_size(u32::try_from(bounds.head).unwrap_or(u32::MAX));
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
        let router = router.clone().map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            request
        });
        let service = TowerToHyperService::new(router);
        let connection = builder
            .serve_connection(TokioIo::new(Stalling::new(socket, bounds.head_time, bounds.write_time)), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            drop(slot);
        });
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = end => {}
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, peer)) => {
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY");
            }
            Some((socket, peer, slot))
        }
        Err(error) => {
            // A client that is already gone, or no descriptor left: neither is a reason to stop, nor to spin.
            tracing::warn!(%error, "cannot accept a connection");
            clock::sleep(OUT_OF_FILES).await;
            None
        }
    }
}

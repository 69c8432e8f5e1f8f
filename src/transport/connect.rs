//! Dialling: name lookup, TCP and TLS under one clock, with failures told apart.
//!
//! Owns the connector beneath the HTTP client. Invariant: every error leaves here as a [`Dial`] with its class.

use std::error::Error as StdError;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::Service;

use crate::call::Class;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Dial {
    /// `dns_failure`, `connect_refused`, `connect_timeout`, `tls_failure` or `reset_before_response`.
    pub class: Class,
    /// In our words, naming no credential.
    pub message: String,
}

/// How often a connection has carried an answer; shared by all holders of the connection.
#[derive(Clone, Debug, Default)]
pub struct Uses(Arc<AtomicU32>);

impl Uses {
    /// Counts one more answer.
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether an earlier answer came over this connection.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// Roots from the system's store, else the ones built in; loaded once for all endpoints.
pub fn tls_config() -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Marks name-lookup failures, which otherwise look like any other dial failure.
#[derive(Clone, Debug)]
struct Resolver(GaiResolver);

#[derive(Debug, thiserror::Error)]
#[error("name lookup failed: {0}")]
struct LookupFailed(io::Error);

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = LookupFailed;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, LookupFailed>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LookupFailed>> {
        self.0.poll_ready(cx).map_err(LookupFailed)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let lookup = self.0.call(name);
        Box::pin(async move { lookup.await.map_err(LookupFailed) })
    }
}

/// The TCP part, with a use counter on each connection.
#[derive(Clone, Debug)]
struct Tcp(HttpConnector<Resolver>);

impl Service<Uri> for Tcp {
    type Response = Counted;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Counted, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dial = self.0.call(uri);
        Box::pin(async move { Ok(Counted { io: dial.await?, uses: Uses::default() }) })
    }
}

/// A TCP connection that knows whether it was used.
pub struct Counted {
    io: TokioIo<TcpStream>,
    uses: Uses,
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.io.connected().extra(self.uses.clone())
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

/// Dials an endpoint within its connect clock.
#[derive(Clone)]
pub struct Connector {
    https: HttpsConnector<Tcp>,
    clock: Duration,
}

impl Connector {
    /// A connector with one clock over lookup, TCP and TLS together.
    pub fn new(tls: Arc<ClientConfig>, clock: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let tls = Arc::unwrap_or_clone(tls);
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self { https: https.wrap_connector(Tcp(tcp)), clock }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Counted>;
    type Error = Dial;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Dial>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Dial>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (clock, at) = (self.clock, authority(&uri));
        let dial = self.https.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(clock, dial).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(classify(&at, error.as_ref())),
                Err(_) => Err(Dial {
                    class: Class::ConnectTimeout,
                    message: format!("no connection to {at} within {} ms", clock.as_millis()),
                }),
            }
        })
    }
}

fn authority(uri: &Uri) -> String {
    uri.authority().map_or_else(String::new, |authority| authority.as_str().to_owned())
}

fn classify(at: &str, error: &(dyn StdError + 'static)) -> Dial {
    let mut cause = Some(error);
    let mut root = error.to_string();
    while let Some(error) = cause {
        if error.is::<LookupFailed>() {
            return Dial { class: Class::DnsFailure, message: format!("{at}: {error}") };
        }
        if let Some(tls) = tls_error(error) {
            return Dial { class: Class::TlsFailure, message: format!("TLS with {at} failed: {tls}") };
        }
        match io_kind(error) {
            // Somebody listens, takes the connection and throws it away.
            Some(io::ErrorKind::ConnectionReset) => {
                return Dial { class: Class::ResetBeforeResponse, message: format!("{at} reset the new connection") };
            }
            // TCP alone has no end of file: it came in the midst of the handshake.
            Some(io::ErrorKind::UnexpectedEof) => {
                return Dial { class: Class::TlsFailure, message: format!("{at} closed within the TLS handshake") };
            }
            _ => {}
        }
        root = error.to_string();
        cause = error.source();
    }
    Dial { class: Class::ConnectRefused, message: format!("cannot connect to {at}: {root}") }
}

/// What an I/O error is at its core.
fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let error = error.downcast_ref::<io::Error>()?;
    error.get_ref().and_then(|inner| io_kind(inner)).or(Some(error.kind()))
}

fn tls_error(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(tls.to_string());
    }
    // `io::Error` hides what it wraps from `source`.
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    tls_error(inner)
}

//! Dialling: name lookup, TCP and TLS under one clock, with failures told apart.
//!
//! Owns the connector beneath the HTTP client. Invariants: every error leaves here as a [`Dial`] with its class; one address
//! that is silent costs a moment, not the whole clock.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use rustls::{ClientConfig, RootCertStore};
use tower::Service;

use super::connection::Counted;
use super::lookup::{Lookup, LookupFailed, Place, SystemLookup};
use crate::call::Class;
use crate::clock;

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Dial {
    /// `dns_failure`, `connect_refused`, `connect_timeout`, `tls_failure` or `reset_before_response`.
    pub class: Class,
    /// In our words, naming no credential.
    pub message: String,
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

/// What every endpoint is dialled with.
#[derive(Clone)]
pub struct Dialler {
    /// For `https`.
    pub tls: Arc<ClientConfig>,
    /// Who knows the addresses of names.
    pub lookup: Arc<dyn Lookup>,
}

impl Dialler {
    /// The system's roots and the system's resolver.
    pub fn system() -> Self {
        Self { tls: tls_config(), lookup: Arc::new(SystemLookup) }
    }
}

/// After so long without a connection the next address is tried beside (RFC 8305, 5), sooner where there are many.
const STAGGER: Duration = Duration::from_millis(250);

/// The TCP part: one address after the other, those that are still silent beside the next.
#[derive(Clone)]
struct Tcp {
    place: Place,
    clock: Duration,
}

/// Stands in for name lookup where the address is known.
#[derive(Clone, Copy, Debug)]
struct Only(SocketAddr);

impl Service<Name> for Only {
    type Response = std::iter::Once<SocketAddr>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        std::future::ready(Ok(std::iter::once(self.0)))
    }
}

impl Service<Uri> for Tcp {
    type Response = Counted;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Counted, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (place, clock, until) = (self.place.clone(), self.clock, clock::now() + self.clock);
        Box::pin(async move { race(place.addresses(clock).await?, &uri, until).await })
    }
}

/// The first connection to any of `addresses`, never none; each is begun in time to have its share of what is left.
async fn race(
    addresses: Vec<SocketAddr>,
    uri: &Uri,
    until: Instant,
) -> Result<Counted, Box<dyn StdError + Send + Sync>> {
    let left = until.saturating_duration_since(clock::now());
    let stagger = STAGGER.min(left / (addresses.len() as u32 + 1));
    let mut addresses = addresses.into_iter();
    let mut dials = FuturesUnordered::new();
    let mut first = None;
    loop {
        dials.extend(addresses.next().map(|address| dial(address, uri.clone())));
        let more = addresses.len() > 0;
        tokio::select! {
            dialled = dials.next() => match dialled {
                Some(Ok(connection)) => return Ok(connection),
                Some(Err(error)) => { first.get_or_insert(error); }
                None => return Err(first.unwrap_or_else(|| "no address".into())),
            },
            () = clock::sleep(stagger), if more => {}
        }
    }
}

async fn dial(address: SocketAddr, uri: Uri) -> Result<Counted, Box<dyn StdError + Send + Sync>> {
    let mut tcp = HttpConnector::new_with_resolver(Only(address));
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    Ok(Counted::new(tcp.call(uri).await?, address))
}

/// Dials an endpoint within its connect clock.
#[derive(Clone)]
pub struct Connector {
    https: HttpsConnector<Tcp>,
    place: Place,
    clock: Duration,
}

impl Connector {
    /// A connector with one clock over lookup, TCP and TLS together.
    pub fn new(tls: Arc<ClientConfig>, place: Place, clock: Duration) -> Self {
        let tls = Arc::unwrap_or_clone(tls);
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self { https: https.wrap_connector(Tcp { place: place.clone(), clock }), place, clock }
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
        let (clock, at, place) = (self.clock, authority(&uri), self.place.clone());
        let dial = self.https.call(uri);
        Box::pin(async move {
            let dialled = tokio::time::timeout(clock, dial).await;
            if !matches!(dialled, Ok(Ok(_))) {
                // Whoever was there may be elsewhere by now.
                place.doubt();
            }
            match dialled {
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

//! Names into addresses: asks the system beside the calls, keeps the answers, and lives on old ones.
//!
//! Owns one name of one endpoint; `policy/addresses.rs` decides. Invariants: one lookup of a name at a time, and a call
//! that has an older answer waits for a new one a moment only.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::sync::watch;

use crate::call::{Signal, Sink};
use crate::clock;
use crate::policy::Addresses;
use crate::policy::addresses::Change;

/// A lookup that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a dial waits for a new answer while there is an old one, and not more than a quarter of its clock.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whoever knows the addresses of names.
pub trait Lookup: Send + Sync {
    /// The addresses of `host`, each with `port`, best first.
    fn lookup(&self, host: String, port: u16) -> Found;
}

/// An answer on its way.
pub type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's own resolver (`getaddrinfo`, on a thread of its own).
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String, port: u16) -> Found {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// There is no address, and never was one.
#[derive(Debug, thiserror::Error)]
#[error("name lookup failed: {0}")]
pub struct LookupFailed(Arc<str>);

/// Whom to tell of lookups, and as which endpoint.
pub type Told = Option<(Arc<dyn Sink>, usize)>;

/// Where an endpoint is.
#[derive(Clone)]
pub enum Place {
    /// At an address that its URL names.
    Address(SocketAddr),
    /// Wherever a name leads.
    Name(Arc<Name>),
}

impl Place {
    /// Where `url` leads.
    pub fn of(url: &Uri, lookup: &Arc<dyn Lookup>, refresh: Duration, told: Told) -> Self {
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
        if let Ok(address) = host.parse::<IpAddr>() {
            return Place::Address(SocketAddr::new(address, port));
        }
        let book = watch::Sender::new(Book { addresses: Addresses::new(refresh), trouble: Arc::from("not asked yet") });
        Place::Name(Arc::new(Name { host: host.to_owned(), port, lookup: Arc::clone(lookup), book, told }))
    }

    /// The endpoint is in use: what is known of it is brought up to date beside the call.
    pub fn touch(&self) {
        if let Place::Name(name) = self {
            name.touch();
        }
    }

    /// The addresses that a new connection tries, in this order; never none. `clock` is what the whole dial may take.
    ///
    /// # Errors
    /// There never was one.
    pub async fn addresses(&self, clock: Duration) -> Result<Vec<SocketAddr>, LookupFailed> {
        match self {
            Place::Address(address) => Ok(vec![*address]),
            Place::Name(name) => name.addresses(clock).await,
        }
    }

    /// No connection came about there.
    pub fn doubt(&self) {
        if let Place::Name(name) = self {
            name.book.send_if_modified(|book| {
                book.addresses.doubt();
                false
            });
        }
    }

    /// Waits until `address` leads here no longer.
    pub fn left(&self, address: SocketAddr) -> impl Future<Output = ()> + Send + use<> {
        // The name itself is not held: it goes with its client, and with it goes the wait.
        let book = match self {
            Place::Address(_) => None,
            Place::Name(name) => Some(name.book.subscribe()),
        };
        async move {
            if let Some(mut book) = book
                && book.wait_for(|book| !book.addresses.has(address)).await.is_ok()
            {
                return;
            }
            std::future::pending().await
        }
    }
}

/// One name.
pub struct Name {
    host: String,
    port: u16,
    lookup: Arc<dyn Lookup>,
    book: watch::Sender<Book>,
    told: Told,
}

struct Book {
    addresses: Addresses,
    trouble: Arc<str>,
}

impl Name {
    fn touch(self: &Arc<Self>) {
        let now = clock::now();
        if !self.book.borrow().addresses.is_due(now) {
            return;
        }
        let mut ask = false;
        self.book.send_if_modified(|book| {
            ask = book.addresses.is_due(now);
            if ask {
                book.addresses.begin();
            }
            false
        });
        if ask {
            tokio::spawn(Arc::clone(self).ask());
        }
    }

    async fn ask(self: Arc<Self>) {
        let answer = tokio::time::timeout(LONGEST, self.lookup.lookup(self.host.clone(), self.port)).await;
        let answer = match answer {
            Ok(Ok(addresses)) if addresses.is_empty() => Err("the name has no address".to_owned()),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", LONGEST.as_secs())),
        };
        let trouble = answer.as_ref().err().cloned();
        let (mut change, mut known) = (Change::None, 0);
        self.book.send_modify(|book| {
            change = book.addresses.ended(answer.ok(), clock::now());
            known = book.addresses.known();
            if let Some(trouble) = &trouble {
                book.trouble = Arc::from(trouble.as_str());
            }
        });
        if let Some((sink, endpoint)) = &self.told {
            sink.emit(Signal::Lookup { endpoint: *endpoint, trouble, turned: change != Change::None, known });
        }
    }

    async fn addresses(self: &Arc<Self>, clock: Duration) -> Result<Vec<SocketAddr>, LookupFailed> {
        self.touch();
        let mut book = self.book.subscribe();
        let known = book.borrow().addresses.known() > 0;
        // A little before the dial's own clock, so that the failure has its right name.
        let patience = if known { PATIENCE.min(clock / 4) } else { clock.mul_f64(0.9) };
        let ended = tokio::time::timeout(patience, book.wait_for(|book| !book.addresses.asking())).await.is_ok();
        drop(book);
        if !known && !ended {
            return Err(LookupFailed(format!("no answer within {} ms", patience.as_millis()).into()));
        }
        let mut found = Err(LookupFailed(Arc::from("")));
        self.book.send_if_modified(|book| {
            let order = book.addresses.order();
            found = if order.is_empty() { Err(LookupFailed(Arc::clone(&book.trouble))) } else { Ok(order) };
            false
        });
        found
    }
}

#[cfg(test)]
#[path = "lookup_tests.rs"]
mod tests;

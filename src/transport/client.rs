//! One HTTP client per endpoint, and the meaning of its errors.
//!
//! HTTP/1.1 by default: a cancelled call closes one connection and nothing else, and no hundred-and-first call waits
//! behind a stream limit. The client's own hidden retries are off; every send is the plan's.

use std::error::Error as StdError;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::connect::{Connector, Dial, Dialler};
use super::connection::Life;
use super::lookup::{Place, Told};
use super::settings::EndpointSettings;
use crate::call::{Class, Failure};
use crate::clock;

/// Any request body on its way out.
pub type Outgoing = UnsyncBoxBody<Bytes, Box<dyn StdError + Send + Sync>>;

/// Idle connections are dropped before common servers drop them (uvicorn and llama.cpp after 5 s), so that a send
/// seldom meets one that is just being closed.
const IDLE: Duration = Duration::from_secs(4);
const IDLE_TLS: Duration = Duration::from_secs(30);

/// A pool of connections to one endpoint.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<Connector, Outgoing>,
    place: Place,
    max_age: Duration,
}

impl HttpClient {
    /// A pool that dials where the endpoint's URL leads, within its connect clock.
    pub fn new(dialler: &Dialler, settings: &EndpointSettings, told: Told) -> Self {
        let url = Uri::from_str(&settings.url).unwrap_or_default();
        let https = url.scheme_str() == Some("https");
        let place = Place::of(&url, &dialler.lookup, settings.connections.dns_refresh, told);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(if https { IDLE_TLS } else { IDLE })
            .retry_canceled_requests(false)
            .build(Connector::new(Arc::clone(&dialler.tls), place.clone(), settings.timeouts.connect));
        Self { client, place, max_age: settings.connections.max_age }
    }

    /// Sends a request and waits for the response head. Dropping the future ends the send.
    ///
    /// # Errors
    /// A failure with a dial class, `reset_before_response` or `bad_framing`.
    pub async fn send(&self, mut request: Request<Outgoing>) -> Result<Response<Incoming>, Failure> {
        self.place.touch();
        let ends = !self.max_age.is_zero() || matches!(self.place, Place::Name(_));
        let captured = ends.then(|| capture_connection(&mut request));
        match self.client.request(request).await {
            Ok(response) => {
                if let Some(life) = response.extensions().get::<Life>()
                    && life.count()
                    && let Some(captured) = captured
                {
                    let (life, max_age) = (life.clone(), self.max_age);
                    tokio::spawn(life.watch(captured, &self.place, max_age, clock::sample()));
                }
                Ok(response)
            }
            Err(error) => Err(explain(&error)),
        }
    }
}

fn explain(error: &Error) -> Failure {
    let causes = || std::iter::successors(error.source(), |cause: &&(dyn StdError + 'static)| (*cause).source());
    if let Some(dial) = causes().find_map(|cause| cause.downcast_ref::<Dial>()) {
        let mut failure = Failure::new(dial.class, dial.message.clone());
        failure.unsent = true;
        return failure;
    }
    let hyper = causes().find_map(|cause| cause.downcast_ref::<hyper::Error>());
    if hyper.is_some_and(|error| error.is_parse() || error.is_parse_too_large()) {
        return Failure::new(Class::BadFraming, "the response head is not HTTP, or over our limits");
    }
    if hyper.is_some_and(hyper::Error::is_user) {
        // The only body that can fail is one passed on as it comes: its sender left, and the endpoint did nothing wrong.
        return Failure::new(Class::ClientDisconnect, "the body broke off before its announced end");
    }
    let reused = error.connect_info().is_some_and(|info| {
        let mut extras = http::Extensions::new();
        info.get_extras(&mut extras);
        extras.get::<Life>().is_some_and(Life::any)
    });
    let mut failure = Failure::new(Class::ResetBeforeResponse, "the connection broke before a response arrived");
    // A pooled connection that the server had closed, or one the request was never written to.
    failure.unsent = reused || hyper.is_some_and(hyper::Error::is_canceled);
    failure
}

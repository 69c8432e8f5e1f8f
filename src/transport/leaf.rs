//! The innermost service: one request to one endpoint, judged as far as one answer can be.
//!
//! Returns when the whole answer, or the first model event of a stream, is in hand: until then every fault is still an
//! ordinary failure. Owns the credential; nothing above ever sees it.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use secrecy::ExposeSecret;
use tower::Service;

use super::client::{HttpClient, Outgoing};
use super::connect::Dialler;
use super::lookup::Told;
use super::proof::Proof;
use super::settings::{Credential, EndpointSettings};
use super::{events, headers, whole};
use crate::call::{
    Attempt, AttemptReply, Call, Class, Continuation, Failure, Milestone, Original, Payload, Piece, Report,
    RequestBody, Upload,
};
use crate::clock;
use crate::dialect::continuation::{Request as Resumable, can_continue};
use crate::dialect::{self, Dialect};
use crate::wire::envelope;

/// One endpoint, ready to be asked.
#[derive(Clone)]
pub struct Leaf(Arc<Inner>);

struct Inner {
    client: HttpClient,
    settings: EndpointSettings,
    bearer: Option<HeaderValue>,
    bare: Option<HeaderValue>,
    is_anthropic: bool,
    /// What its answers have shown it to be, where that was not configured.
    seen: OnceLock<Dialect>,
}

impl Leaf {
    /// Prepares an endpoint; `told` hears of its name lookups. One that is reached as `before` was keeps its connections,
    /// and whoever heard of them.
    ///
    /// # Errors
    /// The credential cannot stand in a header.
    pub fn new(
        settings: EndpointSettings,
        dialler: &Dialler,
        told: Told,
        before: Option<&Leaf>,
    ) -> anyhow::Result<Self> {
        let (bearer, bare) = keys(&settings)?;
        let client = match before.filter(|before| settings.is_reached_as(&before.0.settings)) {
            Some(before) => before.0.client.clone(),
            None => HttpClient::new(dialler, &settings, told),
        };
        let is_anthropic = dialect::detect(settings.dialect, &settings.url, &HeaderMap::new()) == Dialect::Anthropic;
        Ok(Self(Arc::new(Inner { client, settings, bearer, bare, is_anthropic, seen: OnceLock::new() })))
    }

    /// Whether [`Leaf::new`] can succeed.
    ///
    /// # Errors
    /// As there.
    pub fn check(settings: &EndpointSettings) -> anyhow::Result<()> {
        keys(settings).map(drop)
    }
}

/// The credential as a bearer token, and bare.
fn keys(settings: &EndpointSettings) -> anyhow::Result<(Option<HeaderValue>, Option<HeaderValue>)> {
    let secret = |text: String| {
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| anyhow::anyhow!("endpoint `{}`: its key cannot stand in a header", settings.name))?;
        value.set_sensitive(true);
        Ok::<_, anyhow::Error>(value)
    };
    let key = match &settings.credential {
        Credential::None => None,
        Credential::Key(key) | Credential::File { key, .. } => Some(key.expose_secret()),
    };
    let bearer = key.map(|key| secret(format!("Bearer {key}"))).transpose()?;
    let bare = key.map(|key| secret(key.to_owned())).transpose()?;
    Ok((bearer, bare))
}

impl Service<Attempt> for Leaf {
    type Response = AttemptReply;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<AttemptReply, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let inner = Arc::clone(&self.0);
        let Attempt { call, endpoint, report, upload, continuation, .. } = attempt;
        Box::pin(async move { inner.ask(Asked { call, endpoint, report, continuation }, upload).await })
    }
}

/// What of an attempt the leaf keeps while it waits.
struct Asked {
    call: Arc<Call>,
    endpoint: usize,
    report: Report,
    continuation: Option<Arc<Continuation>>,
}

impl Inner {
    async fn ask(&self, attempt: Asked, upload: Option<Upload>) -> Result<AttemptReply, Failure> {
        let mut request = self.request(&attempt.call, upload)?;
        if let Some(continuation) = &attempt.continuation {
            *request.body_mut() = self.rest(&attempt.call, continuation).await?;
        }
        let response = self.client.send(request).await?;
        attempt.report.tell(Milestone::Head);
        let call = &attempt.call;
        let dialect = dialect::detect(self.settings.dialect, &self.settings.url, response.headers());
        if self.settings.dialect == Dialect::Auto && dialect == Dialect::LlamaCpp {
            // Once is enough.
            let _ = self.seen.set(dialect);
        }
        if call.surface.is_read() {
            return self.read(&attempt, dialect, response).await;
        }
        let status = response.status().as_u16();
        if matches!(call.method, Method::GET | Method::HEAD) && matches!(status, 429 | 500 | 502 | 503 | 504 | 529) {
            // Nothing was changed by asking, so it may be asked again; what it said last is kept word for word.
            let (head, body) = response.into_parts();
            let (body, complete) = whole::collect_some(body).await;
            let headers = headers::end_to_end(head.headers);
            let mut failure = dialect::classify(dialect, status, &headers, &body, clock::wall());
            failure.original = complete.then(|| Box::new(Original { status, headers, body }));
            return Err(failure);
        }
        Ok(opaque(&attempt, response))
    }

    fn request(&self, call: &Call, upload: Option<Upload>) -> Result<Request<Outgoing>, Failure> {
        let uri = Uri::from_str(&format!("{}{}", self.settings.url, call.path))
            .map_err(|error| Failure::new(Class::BadRequest, format!("the path cannot be sent on: {error}")))?;
        let body = match &call.body {
            RequestBody::Whole(bytes) => {
                Full::new(self.with_model(call, bytes)).map_err(|never| match never {}).boxed_unsync()
            }
            RequestBody::Streamed => {
                let upload =
                    upload.ok_or_else(|| Failure::new(Class::Internal, "a streamed body was asked for twice"))?;
                StreamBody::new(upload.map_ok(Frame::data)).boxed_unsync()
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers(call);
        Ok(request)
    }

    /// The body that asks for the rest of an answer, once the endpoint has shown that it would give exactly that.
    async fn rest(&self, call: &Call, continuation: &Continuation) -> Result<Outgoing, Failure> {
        let cannot = || Failure::new(Class::Upstream400, "it is not sure that the endpoint goes on from exactly there");
        let dialect = self.seen.get().copied().unwrap_or(self.settings.dialect);
        let RequestBody::Whole(body) = &call.body else { return Err(cannot()) };
        let request = Some(dialect).filter(|dialect| can_continue(*dialect));
        let request = request.and_then(|_| Resumable::read(call.surface, body)).ok_or_else(cannot)?;
        let own = call.headers.get(AUTHORIZATION).filter(|_| self.settings.forward_client_key);
        let model = self.settings.model.as_deref();
        let proof = Proof {
            client: &self.client,
            url: &self.settings.url,
            bearer: self.bearer.as_ref().or(own),
            dialect,
            model,
        };
        let before = proof.shown(&request, &continuation.text).await;
        let before = before.map_err(|failure| failure.unwrap_or_else(cannot))?;
        let resumed = request.resume(dialect, model, &continuation.text, before.output).ok_or_else(cannot)?;
        continuation.shown(before);
        Ok(Full::new(Bytes::from(resumed)).map_err(|never| match never {}).boxed_unsync())
    }

    /// The original bytes, unless the endpoint names its own model: then that member alone is replaced.
    fn with_model(&self, call: &Call, bytes: &Bytes) -> Bytes {
        match (&self.settings.model, call.model_span) {
            (Some(model), Some(span)) => envelope::splice(bytes, span, model),
            (Some(model), None) if call.surface.has_model() => envelope::insert_model(bytes, model),
            _ => bytes.clone(),
        }
    }

    fn headers(&self, call: &Call) -> HeaderMap {
        let mut headers = call.headers.clone();
        headers.remove(HOST);
        if matches!(call.body, RequestBody::Whole(_)) {
            headers.remove(CONTENT_LENGTH);
        }
        if call.surface.is_read() {
            // We have to read the answer; a compressed one would only be unpacked again.
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        const API_KEYS: [&str; 2] = ["x-api-key", "api-key"];
        if !self.settings.forward_client_key || self.bearer.is_some() {
            headers.remove(AUTHORIZATION);
            API_KEYS.iter().for_each(|name| {
                headers.remove(*name);
            });
        }
        // Messages are authorised by `x-api-key`; servers that only imitate that API want their own header.
        let is_messages = call.path.starts_with("/messages");
        if is_messages && let Some(key) = &self.bare {
            headers.insert(HeaderName::from_static("x-api-key"), key.clone());
        }
        if let Some(key) = &self.bearer
            && !(is_messages && self.is_anthropic)
        {
            headers.insert(AUTHORIZATION, key.clone());
        }
        if let Ok(value) = HeaderValue::from_str(&call.traceparent) {
            headers.insert(HeaderName::from_static("traceparent"), value);
        }
        headers
    }

    /// Whether this call went out with the client's own credential.
    fn used_client_key(&self, call: &Call) -> bool {
        let has_key = || ["authorization", "x-api-key", "api-key"].iter().any(|name| call.headers.contains_key(*name));
        self.bearer.is_none() && self.settings.forward_client_key && has_key()
    }

    async fn read(
        &self,
        attempt: &Asked,
        dialect: Dialect,
        response: Response<Incoming>,
    ) -> Result<AttemptReply, Failure> {
        let call = &attempt.call;
        let (head, body) = response.into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        if !head.status.is_success() {
            // What can be read of it: a refusal cut short is still a refusal.
            let (body, complete) = whole::collect_some(body).await;
            let body = whole::unpack(body.clone(), headers.get(CONTENT_ENCODING)).unwrap_or(body);
            let headers = headers::end_to_end(headers);
            let mut failure = dialect::classify(dialect, status, &headers, &body, clock::wall());
            if !complete {
                // Half an answer is not the endpoint's word; ours says what can be said.
                failure.original = None;
            } else if failure.class == Class::UpstreamAuth && self.used_client_key(call) {
                // The caller's own key was refused: the caller has to read that.
                failure = Failure::new(Class::Upstream400, "the endpoint refused the caller's own key");
                failure = failure.with_status(status);
                failure.original = Some(Box::new(Original { status, headers, body }));
            }
            return Err(failure);
        }
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_events = kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        if is_events && !call.stream {
            return Err(Failure::new(Class::WrongContentType, "a stream where a whole answer was asked for"));
        }
        if !is_events && attempt.continuation.is_some() {
            return Err(Failure::new(
                Class::WrongContentType,
                "a whole answer where the rest of a stream was asked for",
            ));
        }
        let reader = match attempt.continuation {
            Some(_) => Some(dialect::stream::rest_reader()),
            None => dialect::reader(call.surface, call.choices),
        };
        if is_events && let Some(reader) = reader {
            if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
                return Err(Failure::new(Class::Undecodable, "a compressed event stream that was not asked for"));
            }
            let events = events::first(body, reader, dialect).await?;
            let first_at = clock::now();
            return Ok(AttemptReply {
                status,
                headers: headers::end_to_end(headers),
                payload: Payload::Events(Box::pin(events)),
                endpoint: attempt.endpoint,
                first_at,
                usage: None,
            });
        }
        let bytes = whole::collect(body).await?;
        let unpacked = whole::unpack(bytes, headers.get(CONTENT_ENCODING))?;
        let mut headers = headers::end_to_end(headers);
        headers.remove(CONTENT_ENCODING);
        headers.remove(CONTENT_LENGTH);
        whole::judge(call, dialect, status, headers, unpacked, attempt.endpoint)
    }
}

/// An answer nobody looks into, whatever its status.
fn opaque(attempt: &Asked, response: Response<Incoming>) -> AttemptReply {
    let (head, body) = response.into_parts();
    let pieces = body
        .into_data_stream()
        .map_ok(|bytes| Piece { bytes, ..Piece::default() })
        .map_err(|_| Failure::new(Class::StreamTruncated, "the body was cut"));
    AttemptReply {
        status: head.status.as_u16(),
        headers: headers::end_to_end(head.headers),
        payload: Payload::Opaque(Box::pin(pieces)),
        endpoint: attempt.endpoint,
        first_at: clock::now(),
        usage: None,
    }
}

//! What is compared: the least that a proxy can be on the same parts, and Outrigger with everything on.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use outrigger::app::{self, Running};
use outrigger::config::{AdminSettings, DrainSettings, LogFormat, LogSettings, ServerSettings, Settings};
use outrigger::dialect::Dialect;
use outrigger::policy::{BreakerSettings, MAX_SENDS, RetrySettings, RouteSettings, Target, Timeouts};
use outrigger::transport::{Credential, EndpointSettings};
use tokio::net::TcpListener;

/// Passes requests and answers on without looking at them: no timer, no limit, no second try.
pub async fn floor(upstream: SocketAddr) -> (SocketAddr, ()) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let at = listener.local_addr().expect("its address");
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).expect("TCP_NODELAY");
            let client = client.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                let uri: Uri = format!("http://{upstream}{path}").parse().expect("an address and a path");
                *request.uri_mut() = uri;
                client.request(request)
            });
            tokio::spawn(async move {
                // A client that hangs up is no fault.
                drop(auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await);
            });
        }
    });
    (at, ())
}

/// Outrigger as it is, with one endpoint and one route.
pub async fn outrigger(upstream: SocketAddr) -> (SocketAddr, Running) {
    let running = app::start(settings(upstream)).await.expect("it starts");
    (running.data(), running)
}

fn settings(upstream: SocketAddr) -> Settings {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    Settings {
        server: ServerSettings { listen: any_port, ..ServerSettings::default() },
        admin: AdminSettings { listen: any_port },
        drain: DrainSettings { delay: Duration::ZERO, timeout: Duration::ZERO },
        log: LogSettings { format: LogFormat::Json, level: "info".into() },
        state_dir: None,
        endpoints: vec![EndpointSettings {
            name: "bench".into(),
            url: format!("http://{upstream}/v1"),
            credential: Credential::Key("sk-bench".into()),
            forward_client_key: false,
            dialect: Dialect::Auto,
            model: None,
            window: None,
            supports: Default::default(),
            timeouts: Timeouts::default(),
            concurrency: outrigger::policy::Concurrency::default(),
            breaker: BreakerSettings::default(),
            connections: Default::default(),
            probe: None,
        }],
        routes: vec![RouteSettings {
            name: "all".into(),
            model: "*".into(),
            targets: vec![Target::of(vec![0])],
            timeouts: Timeouts::default(),
            retry: RetrySettings::default(),
            max_sends: MAX_SENDS,
            queue_wait: outrigger::policy::QUEUE_WAIT,
            streams: Default::default(),
            hedge: Default::default(),
        }],
    }
}

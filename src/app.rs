//! Assembly: from settings to a running gateway, and back down again without breaking what is in flight.
//!
//! A shutdown has three steps: the readiness probe says no while calls are still accepted (`drain.delay`), nothing new
//! is accepted while calls finish (`drain.timeout`), then what is left ends with an error its client can see.

mod probes;
mod signals;
mod slots;
mod snapshot;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::call::Sink;
use crate::config::{LogFormat, LogSettings, Settings};
use crate::server::stop::Stop;
use crate::server::{Gateway, accept};
use crate::telemetry::log::{self, Look};
use crate::telemetry::{Metrics, Telemetry};
use crate::transport::Dialler;
use crate::{clock, stack};

/// How long connections may take to close once their calls were cut.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Admin connections served at once.
const ADMIN_CONNECTIONS: usize = 256;
/// How often state is written down.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);

/// A gateway that serves.
pub struct Running {
    gateway: Arc<Gateway>,
    stop: Stop,
    closing: watch::Sender<Phase>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Closing,
    Ended,
}

/// Installs the one TLS provider; a second time is fine.
pub fn install_tls() {
    // An error only says that it is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// Starts logging as configured.
pub fn start_logging(settings: &LogSettings) {
    let look = match settings.format {
        LogFormat::Auto => Look::auto(),
        LogFormat::Pretty => Look::Pretty,
        LogFormat::Json => Look::Json,
    };
    log::start(look, &settings.level);
}

/// Binds both ports and serves. Port 0 takes any free one; [`Running::settings`] then has the real one.
///
/// # Errors
/// A port cannot be bound, or an endpoint's credential cannot be sent.
pub async fn start(settings: Settings) -> anyhow::Result<Running> {
    install_tls();
    start_with(settings, Dialler::system()).await
}

/// As [`start`], with what endpoints are dialled with: tests bring a resolver of their own.
///
/// # Errors
/// As [`start`].
pub async fn start_with(mut settings: Settings, dialler: Dialler) -> anyhow::Result<Running> {
    let data = bind(settings.server.listen, "server.listen").await?;
    let admin = bind(settings.admin.listen, "admin.listen").await?;
    settings.server.listen = data.local_addr()?;
    settings.admin.listen = admin.local_addr()?;

    let routes: Vec<String> = settings.routes.iter().map(|route| route.name.clone()).collect();
    let endpoints: Vec<String> = settings.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let metrics = Arc::new(Metrics::new(&routes, &endpoints, &fingerprint(&settings))?);
    let probed = settings.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.probe.is_some());
    probed.for_each(|(number, _)| metrics.health.probed(number));
    let sink: Arc<dyn Sink> = Arc::new(Telemetry::new(Arc::clone(&metrics), routes, endpoints));
    let stacks = stack::build(&settings, &dialler, &sink)?;
    if let Some(dir) = &settings.state_dir {
        snapshot::restore(dir, &settings, &stacks);
    }
    let stop = Stop::default();
    let bounds = accept::Bounds::of(&settings.server);
    let gateway = Gateway::new(settings, stacks, metrics, sink, stop.clone());
    let (closing, phase) = watch::channel(Phase::Serving);
    let mut tasks = vec![
        tokio::spawn(accept::serve(
            data,
            gateway.data(),
            bounds,
            reached(phase.clone(), Phase::Closing),
            flushed(phase.clone()),
        )),
        // The admin port answers until the very end, so that a probe can see the drain.
        tokio::spawn(accept::serve(
            admin,
            gateway.admin(),
            accept::Bounds { connections: ADMIN_CONNECTIONS, ..bounds },
            reached(phase.clone(), Phase::Ended),
            std::future::ready(()),
        )),
    ];
    for asker in slots::askers(&gateway, &dialler) {
        tasks.push(tokio::spawn(until(asker, reached(phase.clone(), Phase::Ended))));
    }
    for asker in probes::askers(&gateway, &dialler) {
        tasks.push(tokio::spawn(until(asker, reached(phase.clone(), Phase::Ended))));
    }
    if gateway.settings().state_dir.is_some() {
        tasks.push(tokio::spawn(keep_snapshots(Arc::clone(&gateway), phase)));
    }
    Ok(Running { gateway, stop, closing, tasks })
}

impl Running {
    /// The settings with the addresses that were bound.
    pub fn settings(&self) -> &Settings {
        self.gateway.settings()
    }

    /// Where the data port listens.
    pub fn data(&self) -> SocketAddr {
        self.settings().server.listen
    }

    /// Where the admin port listens.
    pub fn admin(&self) -> SocketAddr {
        self.settings().admin.listen
    }

    /// Shuts down in three steps. `now` ends the waiting of the first two at once.
    pub async fn drain(self, now: impl Future<Output = ()>) {
        let drain = self.settings().drain;
        let mut now = std::pin::pin!(now);
        self.stop.drain();
        tracing::info!(calls = self.gateway.live().count(), "draining");
        let hurried = tokio::select! {
            () = clock::sleep(drain.delay) => false,
            () = &mut now => true,
        };
        self.closing.send_replace(Phase::Closing);
        if !hurried {
            tokio::select! {
                () = self.idle() => {}
                () = clock::sleep(drain.timeout) => {}
                () = &mut now => {}
            }
        }
        let left = self.gateway.live().count();
        if left > 0 {
            tracing::warn!(calls = left, "ending calls that did not finish in time");
            self.stop.cut();
            tokio::select! {
                () = self.idle() => {}
                () = clock::sleep(LAST_WORDS) => {}
            }
        }
        self.closing.send_replace(Phase::Ended);
        for task in self.tasks {
            if tokio::time::timeout(LAST_WORDS, task).await.is_err() {
                tracing::debug!("a listener did not end in time");
            }
        }
        tracing::info!("stopped");
    }

    async fn idle(&self) {
        while self.gateway.live().count() > 0 {
            clock::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Serves until SIGTERM or SIGINT, then drains; a second signal ends at once.
///
/// # Errors
/// As [`start`], or signals cannot be listened for.
pub async fn serve(settings: Settings, started: impl FnOnce(&Settings)) -> anyhow::Result<()> {
    let mut signals = signals::Signals::new()?;
    let running = start(settings).await?;
    started(running.settings());
    signals.next().await;
    running.drain(async move { signals.next().await }).await;
    Ok(())
}

async fn bind(at: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at} (`{key}`)"))
}

async fn until(asker: impl Future<Output = ()>, ended: impl Future<Output = ()>) {
    tokio::select! {
        () = asker => {}
        () = ended => {}
    }
}

async fn reached(mut phase: watch::Receiver<Phase>, at_least: Phase) {
    // A sender that is gone has nothing more to close.
    drop(phase.wait_for(|phase| *phase >= at_least).await);
}

/// The calls have ended; what was written for them is on its way for a little longer.
async fn flushed(phase: watch::Receiver<Phase>) {
    reached(phase, Phase::Ended).await;
    clock::sleep(LAST_WORDS).await;
}

async fn keep_snapshots(gateway: Arc<Gateway>, phase: watch::Receiver<Phase>) {
    loop {
        let ended = tokio::select! {
            () = clock::sleep(SNAPSHOT_EVERY) => false,
            () = reached(phase.clone(), Phase::Ended) => true,
        };
        if let Some(dir) = gateway.settings().state_dir.clone() {
            snapshot::write(&dir, gateway.settings(), gateway.stacks()).await;
        }
        if ended {
            return;
        }
    }
}

/// Tells two configs apart in a metric, without telling anything else.
fn fingerprint(settings: &Settings) -> String {
    let mut hasher = DefaultHasher::new();
    // `Debug` of a secret is redacted, so the hash says nothing of keys.
    format!("{settings:?}").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

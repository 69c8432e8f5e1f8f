//! Assembly: from settings to a running gateway, and back down again without breaking what is in flight.
//!
//! A shutdown has three steps: the readiness probe says no while calls are still accepted (`drain.delay`), nothing new
//! is accepted while calls finish (`drain.timeout`), then what is left ends with an error its client can see.

mod probes;
mod reload;
mod signals;
mod slots;
mod snapshot;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock;
use crate::config::{Loaded, LogFormat, LogSettings, Settings, SourceFile};
use crate::layer::state::{Live, Memory};
use crate::server::reload::Reloads;
use crate::server::stop::Stop;
use crate::server::{Current, Gateway, Process, accept};
use crate::telemetry::log::{self, Look};
use crate::transport::Dialler;
pub use reload::{Again, WATCH_EVERY};
use reload::{Builder, Reloader};

/// How long connections may take to close once their calls were cut.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Admin connections served at once.
const ADMIN_CONNECTIONS: usize = 256;
/// How often state is written down.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(30);

/// A gateway that serves.
pub struct Running {
    current: Current,
    process: Process,
    bound: (SocketAddr, SocketAddr),
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

/// Binds both ports and serves by settings that no file stands behind. Port 0 takes any free one; [`Running::data`] then
/// has the real one.
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
pub async fn start_with(settings: Settings, dialler: Dialler) -> anyhow::Result<Running> {
    launch(settings, Vec::new(), None, dialler).await
}

/// As [`start`], by what was loaded and can be loaded again.
///
/// # Errors
/// As [`start`].
pub async fn start_loaded(loaded: Loaded, again: Option<Again>) -> anyhow::Result<Running> {
    install_tls();
    launch(loaded.settings, loaded.origins.files, again, Dialler::system()).await
}

async fn launch(
    settings: Settings,
    files: Vec<SourceFile>,
    again: Option<Again>,
    dialler: Dialler,
) -> anyhow::Result<Running> {
    let data = bind(settings.server.listen, "server.listen").await?;
    let admin = bind(settings.admin.listen, "admin.listen").await?;
    let bound = (data.local_addr()?, admin.local_addr()?);

    let (reloads, wishes) = Reloads::new();
    let process = Process {
        live: Live::default(),
        memory: Memory::new(settings.server.max_buffered),
        stop: Stop::default(),
        reloads,
        started: clock::now(),
    };
    let mut builder = Builder::new(process.clone(), bound, dialler);
    let first = builder.build(settings.clone())?;
    if let Some(dir) = &settings.state_dir {
        snapshot::restore(dir, &settings, first.stacks());
    }
    let current = Current::new(first);
    let bounds = accept::Bounds::of(&settings.server);
    let (closing, phase) = watch::channel(Phase::Serving);
    let ended = || reached(phase.clone(), Phase::Ended);
    let mut tasks = vec![
        tokio::spawn(accept::serve(
            data,
            current.data(),
            bounds,
            reached(phase.clone(), Phase::Closing),
            flushed(phase.clone()),
        )),
        // The admin port answers until the very end, so that a probe can see the drain.
        tokio::spawn(accept::serve(
            admin,
            current.admin(),
            accept::Bounds { connections: ADMIN_CONNECTIONS, ..bounds },
            ended(),
            std::future::ready(()),
        )),
    ];
    if let Some(dir) = settings.state_dir.clone() {
        tasks.push(tokio::spawn(keep_snapshots(current.clone(), dir, phase.clone())));
    }
    let reloader = Reloader::new(again, builder, current.clone(), settings, files);
    tasks.push(tokio::spawn(reloader.run(wishes, ended())));
    Ok(Running { current, process, bound, closing, tasks })
}

impl Running {
    /// What new requests get: settings, with the addresses that were bound, and all that was built from them.
    pub fn gateway(&self) -> Arc<Gateway> {
        self.current.get()
    }

    /// Where the data port listens.
    pub fn data(&self) -> SocketAddr {
        self.bound.0
    }

    /// Where the admin port listens.
    pub fn admin(&self) -> SocketAddr {
        self.bound.1
    }

    /// Shuts down in three steps. `now` ends the waiting of the first two at once.
    pub async fn drain(self, now: impl Future<Output = ()>) {
        let drain = self.gateway().settings().drain;
        let mut now = std::pin::pin!(now);
        self.process.stop.drain();
        tracing::info!(calls = self.process.live.count(), "draining");
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
        let left = self.process.live.count();
        if left > 0 {
            tracing::warn!(calls = left, "ending calls that did not finish in time");
            self.process.live.end();
            self.process.stop.cut();
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
        while self.process.live.count() > 0 {
            clock::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Serves until SIGTERM, SIGINT or a request on the admin port, then drains; a further signal ends at once. SIGHUP reads
/// the config again.
///
/// # Errors
/// As [`start`], or signals cannot be listened for.
pub async fn serve(loaded: Loaded, again: Option<Again>, started: impl FnOnce(&Settings)) -> anyhow::Result<()> {
    let mut signals = signals::Signals::new()?;
    let mut hangups = signals::Hangups::new()?;
    let running = start_loaded(loaded, again).await?;
    started(running.gateway().settings());
    let reloads = running.process.reloads.clone();
    let hearing = tokio::spawn(async move {
        loop {
            hangups.next().await;
            // What came of it is logged where it is done.
            drop(reloads.again().await);
        }
    });
    tokio::select! {
        () = signals.next() => {}
        () = running.process.stop.wished() => {}
    }
    running.drain(async move { signals.next().await }).await;
    hearing.abort();
    Ok(())
}

async fn bind(at: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at} (`{key}`)"))
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

async fn keep_snapshots(current: Current, dir: PathBuf, phase: watch::Receiver<Phase>) {
    loop {
        let ended = tokio::select! {
            () = clock::sleep(SNAPSHOT_EVERY) => false,
            () = reached(phase.clone(), Phase::Ended) => true,
        };
        let gateway = current.get();
        snapshot::write(&dir, gateway.settings(), gateway.stacks()).await;
        if ended {
            return;
        }
    }
}

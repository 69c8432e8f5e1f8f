//! From settings to a generation that serves, and from one to the next without a call noticing.
//!
//! Reading and checking come first, then everything that can fail, and only then the step that cannot: the swap. One
//! attempt at a time, whoever asks. Invariant: until the swap the old generation is as it was, and after it the new one is
//! whole.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{probes, slots};
use crate::call::Sink;
use crate::clock;
use crate::config::{Loaded, Report, Settings, SourceFile, restart};
use crate::server::reload::{Last, Refused, Reloaded, Wish, unix};
use crate::server::{Current, Gateway, Generation, Process};
use crate::stack::{self, Carried};
use crate::telemetry::{Families, Metrics, Telemetry};
use crate::transport::{Dialler, Leaf};

/// How often files are looked at.
pub const WATCH_EVERY: Duration = Duration::from_secs(2);

/// How the config is read again.
#[derive(Clone)]
pub struct Again {
    /// Reads and checks it, as at the start.
    pub load: Arc<dyn Fn() -> Result<Loaded, Report> + Send + Sync>,
    /// How often to look whether a file has changed; `None` waits to be asked.
    pub watch: Option<Duration>,
}

/// Builds generations, and remembers what they have in common.
pub struct Builder {
    /// What lives as long as the process.
    pub process: Process,
    /// The addresses of the data port and of the admin port, as they were bound.
    pub bound: (SocketAddr, SocketAddr),
    dialler: Dialler,
    carried: Carried,
    families: Families,
}

impl Builder {
    /// Nothing was built yet.
    pub fn new(process: Process, bound: (SocketAddr, SocketAddr), dialler: Dialler) -> Self {
        let carried = Carried::new(process.live.clone());
        Self { process, bound, dialler, carried, families: Families::default() }
    }

    /// A generation, which serves nobody yet.
    ///
    /// # Errors
    /// An endpoint's credential cannot be sent.
    pub fn build(&mut self, mut settings: Settings) -> anyhow::Result<Arc<Gateway>> {
        let loaded = Generation { hash: fingerprint(&settings), at: clock::wall() };
        (settings.server.listen, settings.admin.listen) = self.bound;
        // Readings begin anew below, so what can fail comes first.
        settings.endpoints.iter().try_for_each(Leaf::check)?;
        let routes: Vec<String> = settings.routes.iter().map(|route| route.name.clone()).collect();
        let endpoints: Vec<String> = settings.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        let told = (loaded.hash.as_str(), unix(loaded.at) as f64);
        let metrics = Arc::new(Metrics::new(&mut self.families, &routes, &endpoints, told)?);
        let sink: Arc<dyn Sink> = Arc::new(Telemetry::new(Arc::clone(&metrics), routes, endpoints));
        let leaves = self.carried.leaves(&settings, &self.dialler, &sink)?;
        let stacks = stack::build(&settings, leaves, &mut self.carried, &sink);
        for at in 0..settings.endpoints.len() {
            stacks.health.probed(at).into_iter().for_each(|up| metrics.health.probed(at, up));
        }
        self.process.memory.set(settings.server.max_buffered);
        Ok(Gateway::new(settings, stacks, metrics, sink, &self.process, loaded))
    }
}

/// Reads the config again when it is asked to.
pub struct Reloader {
    again: Option<Again>,
    builder: Builder,
    current: Current,
    /// The settings that run, with addresses as they were written.
    configured: Settings,
    /// What they were read from.
    running: Vec<SourceFile>,
    /// What the last attempt read.
    seen: Vec<SourceFile>,
    /// Tasks of this generation.
    askers: JoinSet<()>,
}

impl Reloader {
    /// Goes on from the first generation.
    pub fn new(
        again: Option<Again>,
        builder: Builder,
        current: Current,
        configured: Settings,
        running: Vec<SourceFile>,
    ) -> Self {
        let seen = running.clone();
        let mut this = Self { again, builder, current, configured, running, seen, askers: JoinSet::new() };
        this.ask_endpoints();
        this
    }

    /// Answers requests, and looks at the files if it is to, until `ended`.
    pub async fn run(mut self, mut wishes: mpsc::Receiver<Wish>, ended: impl Future<Output = ()>) {
        let mut ended = std::pin::pin!(ended);
        loop {
            let wish = tokio::select! {
                () = &mut ended => return,
                wish = wishes.recv() => match wish {
                    Some(wish) => Some(wish),
                    None => return,
                },
                () = self.changed() => None,
            };
            let told = self.again().await;
            if let Some(wish) = wish {
                // Whoever asked may be gone.
                drop(wish.send(told));
            }
        }
    }

    /// Resolves when a file holds something else than at the last attempt.
    async fn changed(&self) {
        let Some(every) = self.again.as_ref().and_then(|again| again.watch) else {
            return std::future::pending().await;
        };
        loop {
            clock::sleep(every).await;
            let seen = self.seen.clone();
            let look = tokio::task::spawn_blocking(move || seen.iter().any(SourceFile::has_changed));
            if look.await.unwrap_or(false) {
                return;
            }
        }
    }

    /// One attempt, with whatever is to be said of it.
    async fn again(&mut self) -> Result<Reloaded, Refused> {
        let Some(load) = self.again.as_ref().map(|again| Arc::clone(&again.load)) else {
            let said = "there is no file to read again: this instance was started without one\n";
            tracing::warn!("{}", said.trim_end());
            return Err(Refused::unread(said));
        };
        let told = match tokio::task::spawn_blocking(move || load()).await {
            Ok(Ok(loaded)) => self.take(loaded),
            Ok(Err(report)) => {
                self.seen.clone_from(&report.files);
                Err(Refused::config(report.render(false)))
            }
            Err(_) => Err(Refused::unread("a fault in Outrigger: the config could not be read\n")),
        };
        let at = clock::wall();
        let gateway = self.current.get();
        gateway.metrics().config.last(told.is_ok(), told.is_ok().then(|| unix(at) as f64));
        match &told {
            Ok(done) if !done.needs_restart.is_empty() => {
                tracing::warn!(keys = done.needs_restart.join(", "), "changed in the config, and in need of a restart");
            }
            Ok(_) => {}
            Err(why) => tracing::error!(why = why.said, "the config was not reloaded; the old one stays"),
        }
        self.builder.process.reloads.note(Last { error: told.as_ref().err().map(|why| why.said.clone()), at });
        told
    }

    /// Makes these settings the current ones.
    fn take(&mut self, loaded: Loaded) -> Result<Reloaded, Refused> {
        let (mut settings, files) = (loaded.settings, loaded.origins.files);
        self.seen.clone_from(&files);
        let needs_restart = restart::hold(&self.configured, &mut settings);
        let warnings = loaded.warnings.to_json();
        if files == self.running {
            let hash = self.current.get().loaded().hash.clone();
            return Ok(Reloaded { changed: false, hash, warnings, needs_restart });
        }
        if opens_the_door(&settings, &needs_restart, self.builder.bound.0) {
            let at = self.builder.bound.0;
            return Err(Refused::config(format!(
                "the data port is still at {at}, which other machines reach, and this config asks for no key: \
                 `server.listen` needs a restart\n"
            )));
        }
        let next = self.builder.build(settings.clone()).map_err(|error| Refused::config(format!("{error:#}\n")))?;
        let hash = next.loaded().hash.clone();
        let (routes, endpoints) = (settings.routes.len(), settings.endpoints.len());
        self.current.put(next);
        (self.configured, self.running) = (settings, files);
        self.ask_endpoints();
        if !loaded.warnings.problems.is_empty() {
            tracing::warn!(warnings = loaded.warnings.render(false), "the config has warnings");
        }
        tracing::info!(hash, routes, endpoints, "config reloaded");
        Ok(Reloaded { changed: true, hash, warnings, needs_restart })
    }

    /// Starts what runs beside the calls of this generation, and ends what ran beside those of the last.
    fn ask_endpoints(&mut self) {
        let (gateway, dialler) = (self.current.get(), &self.builder.dialler);
        self.askers = JoinSet::new();
        for asker in slots::askers(&gateway, dialler) {
            self.askers.spawn(asker);
        }
        for asker in probes::askers(&gateway, dialler) {
            self.askers.spawn(asker);
        }
    }
}

/// Whether a config that was judged by another address would let everybody in at the one that is bound.
fn opens_the_door(settings: &Settings, needs_restart: &[&str], bound: SocketAddr) -> bool {
    needs_restart.contains(&"server.listen") && settings.server.keys.is_empty() && !bound.ip().is_loopback()
}

/// Tells two configs apart, without telling anything else.
fn fingerprint(settings: &Settings) -> String {
    let mut hasher = DefaultHasher::new();
    // `Debug` of a secret is redacted, so the hash says nothing of keys.
    format!("{settings:?}").hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, from_upstream};

    #[test]
    fn an_address_that_stays_is_not_left_without_its_keys() {
        let settings = from_upstream("http://127.0.0.1:9", &Overrides::default()).unwrap().settings;
        let (open, local) = ("192.0.2.1:8700".parse().unwrap(), "127.0.0.1:8700".parse().unwrap());
        assert!(opens_the_door(&settings, &["server.listen"], open));
        assert!(!opens_the_door(&settings, &["server.listen"], local));
        assert!(!opens_the_door(&settings, &[], open), "the check of the config has judged this address");
    }
}

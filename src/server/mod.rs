//! The HTTP edge: connections, routes, reading requests into calls, writing replies and errors.
//!
//! HTTP servers stop here; below, there are calls. Invariant: every request gets exactly one answer in the words of the
//! API it came in on, whatever happens beneath.

pub mod accept;
mod admin;
mod auth;
mod body;
mod handle;
mod intake;
mod models;
mod options;
pub mod reload;
mod request;
mod respond;
mod stall;
pub mod stop;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::FromRef;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;

use crate::call::Sink;
use crate::config::Settings;
use crate::layer::state::{Live, Memory};
use crate::stack::Stacks;
use crate::telemetry::Metrics;
use reload::Reloads;
use stop::Stop;

/// What lives as long as the process, whatever the settings.
#[derive(Clone)]
pub struct Process {
    /// Calls in flight.
    pub live: Live,
    /// What their bodies take.
    pub memory: Memory,
    /// The shutdown.
    pub stop: Stop,
    /// The way to other settings.
    pub reloads: Reloads,
    /// When it started.
    pub started: Instant,
}

/// What every handler shares: one generation of settings and all that was built from them. A call keeps the generation
/// it began with to its end.
pub struct Gateway {
    settings: Settings,
    stacks: Stacks,
    metrics: Arc<Metrics>,
    sink: Arc<dyn Sink>,
    live: Live,
    memory: Memory,
    stop: Stop,
    reloads: Reloads,
    started: Instant,
    loaded: Generation,
}

/// Which generation it is.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Tells configs apart.
    pub hash: String,
    /// When it was loaded.
    pub at: SystemTime,
}

impl Gateway {
    /// Puts the parts together.
    pub fn new(
        settings: Settings,
        stacks: Stacks,
        metrics: Arc<Metrics>,
        sink: Arc<dyn Sink>,
        process: &Process,
        loaded: Generation,
    ) -> Arc<Self> {
        let Process { live, memory, stop, reloads, started } = process.clone();
        Arc::new(Self { settings, stacks, metrics, sink, live, memory, stop, reloads, started, loaded })
    }

    /// The settings it runs by.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What serves calls.
    pub fn stacks(&self) -> &Stacks {
        &self.stacks
    }

    /// Whoever listens to signals.
    pub fn sink(&self) -> &Arc<dyn Sink> {
        &self.sink
    }

    /// Calls in flight.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Its metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Which generation it is.
    pub fn loaded(&self) -> &Generation {
        &self.loaded
    }
}

/// The generation that new requests get.
#[derive(Clone)]
pub struct Current(Arc<ArcSwap<Gateway>>);

impl Current {
    /// Begins with this one.
    pub fn new(first: Arc<Gateway>) -> Self {
        Self(Arc::new(ArcSwap::new(first)))
    }

    /// The one of this moment.
    pub fn get(&self) -> Arc<Gateway> {
        self.0.load_full()
    }

    /// From now on, this one.
    pub fn put(&self, next: Arc<Gateway>) {
        self.0.store(next);
    }

    /// The data port.
    pub fn data(&self) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .fallback(handle::any)
            .with_state(self.clone())
            .layer(CatchPanicLayer::custom(respond::panicked))
    }

    /// The admin port.
    pub fn admin(&self) -> Router {
        admin::router(self.clone()).layer(CatchPanicLayer::custom(respond::panicked))
    }
}

/// Each request takes the current generation once, and keeps it.
impl FromRef<Current> for Arc<Gateway> {
    fn from_ref(current: &Current) -> Self {
        current.get()
    }
}

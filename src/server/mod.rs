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
mod request;
mod respond;
mod stall;
pub mod stop;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;

use crate::call::Sink;
use crate::config::Settings;
use crate::layer::state::{Live, Memory};
use crate::stack::Stacks;
use crate::telemetry::Metrics;
use stop::Stop;

/// What every handler shares.
pub struct Gateway {
    settings: Settings,
    stacks: Stacks,
    metrics: Arc<Metrics>,
    sink: Arc<dyn Sink>,
    live: Live,
    memory: Memory,
    stop: Stop,
    started: Instant,
}

impl Gateway {
    /// Puts the parts together.
    pub fn new(
        settings: Settings,
        stacks: Stacks,
        metrics: Arc<Metrics>,
        sink: Arc<dyn Sink>,
        stop: Stop,
    ) -> Arc<Self> {
        let started = crate::clock::now();
        let memory = Memory::new(settings.server.max_buffered);
        Arc::new(Self { settings, stacks, metrics, sink, live: Live::default(), memory, stop, started })
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

    /// The data port.
    pub fn data(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .fallback(handle::any)
            .with_state(Arc::clone(self))
            .layer(CatchPanicLayer::custom(respond::panicked))
    }

    /// The admin port.
    pub fn admin(self: &Arc<Self>) -> Router {
        admin::router(Arc::clone(self)).layer(CatchPanicLayer::custom(respond::panicked))
    }
}

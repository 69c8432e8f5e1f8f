//! Turns signals into metrics and into one log line per call. Never a prompt, never a key.

use std::sync::Arc;

use super::Metrics;
use crate::call::{BreakerChange, BreakerState, CallEnd, Class, Outcome, Signal, Sink};

/// The process's one listener.
pub struct Telemetry {
    metrics: Arc<Metrics>,
    routes: Vec<String>,
    endpoints: Vec<String>,
}

impl Telemetry {
    /// Counts into `metrics`; `routes` and `endpoints` are the names for log lines.
    pub fn new(metrics: Arc<Metrics>, routes: Vec<String>, endpoints: Vec<String>) -> Self {
        Self { metrics, routes, endpoints }
    }

    /// One line per change, so that a long outage is a few lines and not one per call.
    fn log_breaker(&self, change: &BreakerChange) {
        let endpoint = self.endpoints.get(change.endpoint).map_or("", String::as_str);
        let route = change.route.and_then(|route| self.routes.get(route)).map_or("", String::as_str);
        let (to, reason) = (change.to.as_str(), change.reason.as_str());
        let for_ms = change.lasts.map_or(0, |lasts| lasts.as_millis() as u64);
        match change.to {
            BreakerState::Closed | BreakerState::HalfOpen => {
                tracing::info!(endpoint, route, to, reason, "breaker");
            }
            _ => tracing::warn!(endpoint, route, to, reason, for_ms, "breaker"),
        }
    }

    fn log(&self, end: &CallEnd) {
        let route = end.route.and_then(|route| self.routes.get(route)).map_or("none", String::as_str);
        let class = end.class.map_or("", Class::as_str);
        let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
        let usage = end.usage.unwrap_or_default();
        let first = end.first.map_or(0.0, ms);
        let (endpoint, key) = (end.endpoint.as_deref().unwrap_or(""), end.key_name.as_deref().unwrap_or(""));
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "call",
                    $level,
                    id = end.id,
                    route,
                    surface = end.surface.as_str(),
                    endpoint,
                    status = end.status,
                    outcome = end.outcome.as_str(),
                    class,
                    attempts = end.sends,
                    stream = end.streamed,
                    first_ms = (first * 10.0).round() / 10.0,
                    total_ms = (ms(end.took) * 10.0).round() / 10.0,
                    tokens_in = usage.input,
                    tokens_out = usage.output,
                    key,
                )
            };
        }
        match (end.outcome, end.class) {
            (Outcome::Failed, Some(Class::Internal)) => line!(tracing::Level::ERROR),
            (Outcome::Failed, _) => line!(tracing::Level::WARN),
            _ => line!(tracing::Level::INFO),
        }
    }
}

impl Sink for Telemetry {
    fn emit(&self, signal: Signal) {
        match signal {
            Signal::CallStarted { route } => self.metrics.call_started(route),
            Signal::CallEnded(end) => {
                self.metrics.call_ended(&end);
                self.log(&end);
            }
            Signal::AttemptEnded(end) => self.metrics.attempt_ended(&end),
            // Each send is counted at its end.
            Signal::Send(_) => {}
            Signal::Breaker(change) => {
                self.metrics.breaker(&change);
                self.log_breaker(&change);
            }
            Signal::Gap { route, gap } => self.metrics.gap(route, gap.as_secs_f64()),
            Signal::Queued { route, waited } => self.metrics.load.queued(route, waited.as_secs_f64()),
            Signal::Fallback { route, reason } => self.metrics.onward.fallback(route, reason),
            Signal::Hedge { route, outcome } => self.metrics.onward.hedge(route, outcome),
            Signal::HedgeWasted { route, tokens } => self.metrics.onward.wasted(route, tokens),
            Signal::NoMemory { priority } => self.metrics.load.no_memory(priority),
            Signal::Picked { endpoint, reason } => self.metrics.load.picked(endpoint, reason),
            Signal::Repeated { route, result } => self.metrics.repeated(route, result),
            Signal::Shed { route, reason, priority } => self.metrics.load.shed(route, reason, priority),
            Signal::Lookup { endpoint, trouble, turned, known } => {
                self.metrics.health.lookup(endpoint, trouble.as_deref(), turned, known);
            }
            Signal::Probed { endpoint, trouble, up, turned } => {
                self.metrics.health.probe(endpoint, trouble.as_deref(), up, turned);
            }
        }
    }
}

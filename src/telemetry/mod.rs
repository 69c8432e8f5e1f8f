//! What becomes of signals: metrics and log lines. The only place that knows Prometheus or `tracing`.

pub mod log;
pub mod metrics;
mod sink;

pub use metrics::Metrics;
pub use sink::Telemetry;

//! What becomes of signals: metrics and log lines. The only place that knows Prometheus or `tracing`.

mod health;
mod load;
pub mod log;
pub mod metrics;
mod onward;
mod sink;

pub use health::HealthMetrics;
pub use load::LoadMetrics;
pub use metrics::Metrics;
pub use onward::OnwardMetrics;
pub use sink::Telemetry;

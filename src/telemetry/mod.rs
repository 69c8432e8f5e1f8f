//! What becomes of signals: metrics and log lines. The only place that knows Prometheus or `tracing`.

mod families;
mod health;
mod load;
pub mod log;
pub mod metrics;
mod onward;
mod reload;
mod sink;

pub use families::Families;
pub use health::HealthMetrics;
pub use load::LoadMetrics;
pub use metrics::Metrics;
pub use onward::OnwardMetrics;
pub use reload::ConfigMetrics;
pub use sink::Telemetry;

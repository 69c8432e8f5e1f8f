//! Metrics of the config that runs, and of the last attempt to change it.

use prometheus::{GaugeVec, IntGaugeVec};

use super::families::Adder;

/// Handles of them.
pub struct ConfigMetrics {
    successful: IntGaugeVec,
    at: GaugeVec,
}

impl ConfigMetrics {
    pub(super) fn new(add: &Adder<'_>, hash: &str, at: f64) -> prometheus::Result<Self> {
        let successful =
            add.gauges("outrigger_config_last_reload_successful", "1 when the config that runs is the newest.", &[])?;
        let loaded = add.ratios(
            "outrigger_config_last_reload_success_timestamp_seconds",
            "When the config that runs was loaded, in Unix time.",
            &[],
        )?;
        add.info("outrigger_config_info", "The config that runs, by hash.", "hash", hash)?;
        let metrics = Self { successful, at: loaded };
        metrics.last(true, Some(at));
        Ok(metrics)
    }

    /// What became of the last attempt, and, if it went well, when (Unix time).
    pub fn last(&self, successful: bool, at: Option<f64>) {
        self.successful.with_label_values::<&str>(&[]).set(i64::from(successful));
        if let Some(at) = at {
            self.at.with_label_values::<&str>(&[]).set(at);
        }
    }
}

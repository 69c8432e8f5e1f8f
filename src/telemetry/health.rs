//! Metrics and log lines of what is learnt of endpoints beside the calls: name lookups and probes.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::families::Adder;

/// Handles of all of them.
pub struct HealthMetrics {
    endpoints: Vec<String>,
    lookups: IntCounterVec,
    probes: IntCounterVec,
    up: IntGaugeVec,
}

impl HealthMetrics {
    /// Every series of them, present at zero; of probes only where [`HealthMetrics::probed`] says so.
    pub(super) fn new(add: &Adder<'_>, endpoints: &[String]) -> prometheus::Result<Self> {
        let lookups =
            add.counters("outrigger_dns_lookups_total", "Lookups of an endpoint's name.", &["endpoint", "result"])?;
        let probes = add.counters("outrigger_probes_total", "Probes of an endpoint.", &["endpoint", "result"])?;
        let up =
            add.readings("outrigger_probe_up", "0 when an endpoint's probes say that it is down.", &["endpoint"])?;
        for endpoint in endpoints {
            for result in [OK, FAILED] {
                lookups.with_label_values(&[endpoint.as_str(), result]);
            }
        }
        Ok(Self { endpoints: endpoints.to_vec(), lookups, probes, up })
    }

    /// An endpoint is probed: from now on it has its series.
    pub fn probed(&self, endpoint: usize, up: bool) {
        let Some(name) = self.endpoints.get(endpoint) else { return };
        for result in [OK, FAILED] {
            self.probes.with_label_values(&[name.as_str(), result]);
        }
        self.up.with_label_values(&[name]).set(i64::from(up));
    }

    /// A name was looked up. Told once when lookups begin to fail, once when they succeed again.
    pub(super) fn lookup(&self, endpoint: usize, trouble: Option<&str>, turned: bool, known: usize) {
        let Some(endpoint) = self.endpoints.get(endpoint) else { return };
        self.lookups.with_label_values(&[endpoint.as_str(), result(trouble)]).inc();
        match trouble {
            Some(trouble) if turned && known == 0 => tracing::warn!(endpoint, trouble, "name lookup fails"),
            Some(trouble) if turned => {
                tracing::warn!(endpoint, trouble, kept = known, "name lookup fails; the last addresses are kept");
            }
            None if turned => tracing::info!(endpoint, addresses = known, "name lookup succeeds again"),
            _ => {}
        }
    }

    /// An endpoint was probed. Told once when it goes down, once when it is up again.
    pub(super) fn probe(&self, endpoint: usize, trouble: Option<&str>, up: bool, turned: bool) {
        let Some(endpoint) = self.endpoints.get(endpoint) else { return };
        self.probes.with_label_values(&[endpoint.as_str(), result(trouble)]).inc();
        self.up.with_label_values(&[endpoint]).set(i64::from(up));
        match (turned, up) {
            (true, false) => tracing::warn!(endpoint, trouble, "probes fail; others are asked first"),
            (true, true) => tracing::info!(endpoint, "probes succeed again"),
            (false, _) => {}
        }
    }
}

const OK: &str = "ok";
const FAILED: &str = "failed";

fn result(trouble: Option<&str>) -> &'static str {
    if trouble.is_some() { FAILED } else { OK }
}

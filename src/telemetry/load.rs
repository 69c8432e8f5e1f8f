//! Metrics of how full things are, who waits for a place, and who is turned away.
//!
//! Limits, sends in flight and queue lengths are read where they are kept when metrics are asked for; waits and refusals
//! are counted as they happen.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::families::Adder;
use crate::call::Priority;
use crate::policy::Shed;
use crate::policy::balance::Pick;
use crate::policy::rate::Limit;

/// Metric label `route` of what is turned away before its route is known.
const NO_ROUTE: &str = "none";
/// Why those are: no memory is left to hold their bodies.
const MEMORY: &str = "memory";

const WAITS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0];

/// Handles of all of them.
pub struct LoadMetrics {
    endpoints: Vec<(IntGauge, IntGauge)>,
    routes: Vec<RouteLoad>,
    shed: IntCounterVec,
    buffered: IntGauge,
    /// Per endpoint, one for each reason in the order of its list.
    picks: Vec<Vec<IntCounter>>,
}

struct RouteLoad {
    name: String,
    depth: IntGauge,
    wait: Histogram,
}

impl LoadMetrics {
    /// Every series of them, present at zero.
    pub(super) fn new(add: &Adder<'_>, routes: &[String], endpoints: &[String]) -> prometheus::Result<Self> {
        let limit =
            add.readings("outrigger_concurrency_limit", "Sends an endpoint may have in flight.", &["endpoint"])?;
        let in_use = add.readings("outrigger_concurrency_in_use", "Sends an endpoint has in flight.", &["endpoint"])?;
        let depth = add.readings("outrigger_queue_depth", "Sends that wait for a place now.", &["route"])?;
        let wait = add.histograms(
            "outrigger_queue_wait_seconds",
            "How long sends waited that had to wait for a place.",
            &["route"],
            WAITS,
        )?;
        let picks =
            add.counters("outrigger_balance_picks_total", "Sends by why they went where.", &["endpoint", "reason"])?;
        let pick =
            |name: &String| Pick::ALL.map(|pick| picks.with_label_values(&[name.as_str(), pick.as_str()])).into();
        let picks = endpoints.iter().map(pick).collect();
        let shed = add.counters(
            "outrigger_shed_total",
            "Sends refused a place, and calls turned away.",
            &["route", "reason", "priority"],
        )?;
        let route = |name: &String| {
            for reason in Shed::ALL.map(Shed::as_str).into_iter().chain(Limit::ALL.map(Limit::as_str)) {
                for priority in Priority::ALL {
                    shed.with_label_values(&[name.as_str(), reason, priority.as_str()]);
                }
            }
            RouteLoad {
                name: name.clone(),
                depth: depth.with_label_values(&[name]),
                wait: wait.with_label_values(&[name]),
            }
        };
        let routes = routes.iter().map(route).collect();
        for priority in Priority::ALL {
            shed.with_label_values(&[NO_ROUTE, MEMORY, priority.as_str()]);
        }
        let buffered = add.gauges("outrigger_buffered_bytes", "Request bodies held in memory.", &[])?;
        let buffered = buffered.with_label_values::<&str>(&[]);
        let gauge = |gauges: &IntGaugeVec, name: &String| gauges.with_label_values(&[name]);
        let endpoints = endpoints.iter().map(|name| (gauge(&limit, name), gauge(&in_use, name))).collect();
        Ok(Self { endpoints, routes, shed, buffered, picks })
    }

    /// How full an endpoint is at this moment.
    pub fn endpoint(&self, number: usize, (limit, in_use): (usize, usize)) {
        if let Some((limits, in_uses)) = self.endpoints.get(number) {
            limits.set(i64::try_from(limit).unwrap_or(i64::MAX));
            in_uses.set(i64::try_from(in_use).unwrap_or(i64::MAX));
        }
    }

    /// How many bytes of request bodies are held at this moment.
    pub fn buffered(&self, bytes: usize) {
        self.buffered.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How many sends of a route wait at this moment.
    pub fn queue_depth(&self, route: usize, waiting: usize) {
        if let Some(route) = self.routes.get(route) {
            route.depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
    }

    /// A send that had to wait for a place does so no longer.
    pub fn queued(&self, route: usize, seconds: f64) {
        if let Some(route) = self.routes.get(route) {
            route.wait.observe(seconds);
        }
    }

    /// A send was given to an endpoint.
    pub fn picked(&self, endpoint: usize, reason: &str) {
        let at = Pick::ALL.iter().position(|pick| pick.as_str() == reason);
        if let (Some(picks), Some(at)) = (self.picks.get(endpoint), at) {
            picks[at].inc();
        }
    }

    /// A call was turned away because no memory was left for its body.
    pub fn no_memory(&self, priority: Priority) {
        self.shed.with_label_values(&[NO_ROUTE, MEMORY, priority.as_str()]).inc();
    }

    /// A send was refused a place, or a call turned away.
    pub fn shed(&self, route: usize, reason: &str, priority: Priority) {
        if let Some(route) = self.routes.get(route) {
            self.shed.with_label_values(&[route.name.as_str(), reason, priority.as_str()]).inc();
        }
    }
}

//! Metrics of sends to further targets, and of sends beside late ones.

use prometheus::IntCounterVec;
use prometheus::core::{AtomicU64, GenericCounter};

use super::families::Adder;
use crate::call::{Class, Lack, Retry};
use crate::policy::hedge::Hedged;

/// Handles of all of them.
pub struct OnwardMetrics {
    routes: Vec<RouteOnward>,
    fallbacks: IntCounterVec,
    hedges: IntCounterVec,
}

struct RouteOnward {
    name: String,
    wasted: GenericCounter<AtomicU64>,
}

impl OnwardMetrics {
    /// Every series of them, present at zero.
    pub(super) fn new(add: &Adder<'_>, routes: &[String]) -> prometheus::Result<Self> {
        let fallbacks =
            add.counters("outrigger_fallback_total", "Sends to a later target of the route.", &["route", "reason"])?;
        let hedges = add.counters(
            "outrigger_hedges_total",
            "Hedges made and not made, and what came of them.",
            &["route", "outcome"],
        )?;
        let wasted = add.counters(
            "outrigger_hedge_wasted_tokens_total",
            "Prompt tokens of sends that were dropped because their twin was faster, estimated.",
            &["route"],
        )?;
        let route = |name: &String| {
            let classes = Class::ALL.iter().filter(|class| class.retry() != Retry::Never).map(|class| class.as_str());
            for reason in classes.chain(Lack::WORDS) {
                fallbacks.with_label_values(&[name.as_str(), reason]);
            }
            for outcome in Hedged::ALL {
                hedges.with_label_values(&[name.as_str(), outcome.as_str()]);
            }
            RouteOnward { name: name.clone(), wasted: wasted.with_label_values(&[name]) }
        };
        Ok(Self { routes: routes.iter().map(route).collect(), fallbacks, hedges })
    }

    /// A send went out to a later target.
    pub fn fallback(&self, route: usize, reason: &str) {
        if let Some(route) = self.routes.get(route) {
            self.fallbacks.with_label_values(&[route.name.as_str(), reason]).inc();
        }
    }

    /// A hedge came out, or was not made.
    pub fn hedge(&self, route: usize, outcome: &str) {
        if let Some(route) = self.routes.get(route) {
            self.hedges.with_label_values(&[route.name.as_str(), outcome]).inc();
        }
    }

    /// A send of a hedged call was dropped.
    pub fn wasted(&self, route: usize, tokens: u64) {
        if let Some(route) = self.routes.get(route) {
            route.wasted.inc_by(tokens);
        }
    }
}

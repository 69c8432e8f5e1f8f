//! The families of metrics by name: created and registered once, found again by every generation of settings.
//!
//! A counter goes on where it was, so that a rate does not break at a reload; a name that is gone keeps its counters until
//! a restart. Readings are of what there is now: a name that is gone has none. Invariant: one family per name, whoever
//! asks.

use std::cell::RefCell;
use std::collections::HashMap;

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// All families of the process.
#[derive(Default)]
pub struct Families {
    registry: Registry,
    gauges: HashMap<String, IntGaugeVec>,
    ratios: HashMap<String, GaugeVec>,
    counters: HashMap<String, IntCounterVec>,
    histograms: HashMap<String, HistogramVec>,
}

impl Families {
    /// What is scraped.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// Creates and registers in one step what is not there yet.
pub struct Adder<'a>(RefCell<&'a mut Families>);

impl<'a> Adder<'a> {
    /// Adds to these.
    pub fn new(families: &'a mut Families) -> Self {
        Self(RefCell::new(families))
    }

    /// Gauges that are counted up and down.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let families = &mut **self.0.borrow_mut();
        let make = || IntGaugeVec::new(Opts::new(name, help), labels);
        find(&mut families.gauges, &families.registry, name, make)
    }

    /// Gauges that are set at the moment of a scrape, and so begin anew with every generation.
    pub fn readings(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let gauges = self.gauges(name, help, labels)?;
        gauges.reset();
        Ok(gauges)
    }

    /// Readings that are no whole numbers.
    pub fn ratios(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        let families = &mut **self.0.borrow_mut();
        let make = || GaugeVec::new(Opts::new(name, help), labels);
        let gauges = find(&mut families.ratios, &families.registry, name, make)?;
        gauges.reset();
        Ok(gauges)
    }

    /// Counters.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let families = &mut **self.0.borrow_mut();
        let make = || IntCounterVec::new(Opts::new(name, help), labels);
        find(&mut families.counters, &families.registry, name, make)
    }

    /// Histograms.
    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let families = &mut **self.0.borrow_mut();
        let make = || HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels);
        find(&mut families.histograms, &families.registry, name, make)
    }

    /// A fact, as a label of what is always 1.
    pub fn info(&self, name: &str, help: &str, label: &str, value: &str) -> prometheus::Result<()> {
        self.readings(name, help, &[label])?.with_label_values(&[value]).set(1);
        Ok(())
    }
}

fn find<T: Clone + prometheus::core::Collector + 'static>(
    known: &mut HashMap<String, T>,
    registry: &Registry,
    name: &str,
    make: impl FnOnce() -> prometheus::Result<T>,
) -> prometheus::Result<T> {
    if let Some(family) = known.get(name) {
        return Ok(family.clone());
    }
    let family = make()?;
    registry.register(Box::new(family.clone()))?;
    known.insert(name.to_owned(), family.clone());
    Ok(family)
}

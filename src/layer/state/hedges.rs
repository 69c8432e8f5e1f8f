//! The hedging of each target of a route. What it decides is `policy/hedge.rs`'s.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::policy::{HedgeSettings, Hedger};

/// One route's hedging, shared by all its calls. A route without has none, and no lock.
#[derive(Clone, Debug)]
pub struct Hedges(Option<Arc<[Mutex<Hedger>]>>);

impl Hedges {
    /// One for each of so many targets, if the route hedges at all.
    pub fn new(settings: HedgeSettings, targets: usize) -> Self {
        let hedgers = || (0..targets).map(|_| Mutex::new(Hedger::new(settings))).collect();
        Self(settings.on.then(hedgers))
    }

    /// That of one target; `None` where the route does not hedge.
    pub fn of(&self, target: usize) -> Option<MutexGuard<'_, Hedger>> {
        let hedger = self.0.as_ref()?.get(target)?;
        // Counters cannot be left half-written; a panic elsewhere must not take the hedging with it.
        Some(hedger.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

//! The limits of client keys, by the name of the key, shared by all routes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::policy::rate::{Asked, Cost, Estimate, Limit, OverLimit, Rate, RateLimits, Standing};

/// The limits of every key that has any.
#[derive(Clone, Debug, Default)]
pub struct Rates(Arc<HashMap<String, Arc<SharedRate>>>);

/// The limits of one key, shared by all its calls.
#[derive(Debug)]
pub struct SharedRate(Mutex<Rate>);

impl Rates {
    /// These keys, by name.
    pub fn new(keys: impl IntoIterator<Item = (String, Arc<SharedRate>)>) -> Self {
        Self(Arc::new(keys.into_iter().collect()))
    }

    /// The limits of the key with this name; `None` where it has none.
    pub fn of(&self, key: Option<&str>) -> Option<&Arc<SharedRate>> {
        self.0.get(key?)
    }
}

impl SharedRate {
    /// Full buckets.
    pub fn new(limits: RateLimits, now: Instant) -> Self {
        Self(Mutex::new(Rate::new(limits, now)))
    }

    /// Other limits from now on: one that is what it was goes on where it stands, another begins full.
    pub fn set(&self, limits: RateLimits, now: Instant) {
        self.lock().set(limits, now);
    }

    /// Lets a call in and holds back what it is thought to cost.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn admit(&self, asked: &Asked, now: Instant) -> Result<Estimate, OverLimit> {
        self.lock().admit(asked, now)
    }

    /// A call that was let in is over.
    pub fn settle(&self, estimate: &Estimate, cost: Cost, now: Instant) {
        self.lock().settle(estimate, cost, now);
    }

    /// Where its limits stand.
    pub fn standing(&self, now: Instant) -> impl Iterator<Item = (Limit, Standing)> + use<> {
        self.lock().standing(now)
    }

    fn lock(&self) -> MutexGuard<'_, Rate> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

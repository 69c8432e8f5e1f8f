//! What the probes of all endpoints say, for whoever chooses one. A hint: nobody is refused because of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One entry per endpoint, numbered as in the settings.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<[Entry]>);

#[derive(Debug)]
struct Entry {
    probed: bool,
    up: AtomicBool,
}

impl Health {
    /// For each endpoint, whether it is probed, and whether it is up.
    pub fn new(endpoints: impl Iterator<Item = (bool, bool)>) -> Self {
        Self(endpoints.map(|(probed, up)| Entry { probed, up: AtomicBool::new(up) }).collect())
    }

    /// Whether nothing speaks against the endpoint; always so of one that is not probed.
    pub fn is_up(&self, endpoint: usize) -> bool {
        self.0.get(endpoint).is_none_or(|entry| entry.up.load(Ordering::Relaxed))
    }

    /// As [`Health::is_up`], for an endpoint that is probed.
    pub fn probed(&self, endpoint: usize) -> Option<bool> {
        self.0.get(endpoint).filter(|entry| entry.probed).map(|_| self.is_up(endpoint))
    }

    /// The endpoints that are down.
    pub fn down(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|endpoint| !self.is_up(*endpoint)).collect()
    }

    /// An endpoint has turned.
    pub fn turn(&self, endpoint: usize, up: bool) {
        if let Some(entry) = self.0.get(endpoint) {
            entry.up.store(up, Ordering::Relaxed);
        }
    }
}

//! What layers share and change: the only locks we write. Each is held for a few instructions and never across an
//! await.

mod breakers;
mod capabilities;
mod dedupe;
mod hedges;
mod kept;
mod memory;
mod rate;
mod shared;
mod slots;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::policy::Budget;

pub use breakers::{Asking, Breakers, CircuitView, Entry, Fuse, Guarded, Route};
pub use capabilities::{AbilityView, Capabilities, Learnt};
pub use dedupe::{Execution, Keyed, Keys};
pub use hedges::Hedges;
pub use kept::Kept;
pub use memory::{Hold, Memory};
pub use rate::{Rates, SharedRate};
pub use shared::{Begun, Head, Reader};
pub use slots::{Asked, Line, Permit, Places, Slots, Turn};

/// The retry budget of one target, shared by all calls of its route.
#[derive(Debug)]
pub struct SharedBudget(Mutex<Budget>);

impl SharedBudget {
    /// A fresh budget.
    pub fn new(ratio: f64, now: Instant) -> Self {
        Self(Mutex::new(Budget::new(ratio, now)))
    }

    /// Another ratio from now on; what was spent stays spent.
    pub fn set_ratio(&self, ratio: f64) {
        self.lock().set_ratio(ratio);
    }

    /// A first send was made.
    pub fn deposit(&self, now: Instant) {
        self.lock().deposit(now);
    }

    /// Asks for one repeat.
    pub fn withdraw(&self, now: Instant) -> bool {
        self.lock().withdraw(now)
    }

    /// Whether not even one repeat could be paid for.
    pub fn is_spent(&self, now: Instant) -> bool {
        self.lock().is_spent(now)
    }

    /// Share left, 0 to 1.
    pub fn left(&self, now: Instant) -> f64 {
        self.lock().left(now)
    }

    /// First sends and repeats of the window.
    pub fn counts(&self, now: Instant) -> (u32, u32) {
        self.lock().counts(now)
    }

    /// Takes over counts from before a restart.
    pub fn restore(&self, now: Instant, firsts: u32, repeats: u32) {
        self.lock().restore(now, firsts, repeats);
    }

    fn lock(&self) -> MutexGuard<'_, Budget> {
        // Counters cannot be left half-written; a panic elsewhere must not take the budget with it.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Calls that a shutdown waits for, and in the end does not wait for any longer.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    calls: AtomicUsize,
    ended: AtomicBool,
}

impl Live {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.calls.load(Ordering::Acquire)
    }

    /// Counts one until the guard is dropped.
    pub fn enter(&self) -> LiveGuard {
        self.0.calls.fetch_add(1, Ordering::AcqRel);
        LiveGuard(self.clone())
    }

    /// What still runs is ended by us from now on.
    pub fn end(&self) {
        self.0.ended.store(true, Ordering::Release);
    }

    /// Whether it is.
    pub fn is_ended(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }
}

/// One call in flight.
#[derive(Debug)]
pub struct LiveGuard(Live);

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.0.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

//! What is known of each endpoint's abilities. What it means for a call is `policy/capability.rs`'s.
//!
//! Invariant: where nothing was ever known of anybody, no lock is taken.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::call::{Capability, Lack};
use crate::policy::Target;
use crate::policy::capability::{Ability, Missing, Need, Refused, Supports, passed_over};

/// The abilities of all endpoints.
#[derive(Clone, Debug)]
pub struct Capabilities(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Vec<Slot>,
    /// Whether anything is known of anybody.
    known: AtomicBool,
}

#[derive(Debug)]
struct Slot {
    learnt: Arc<Learnt>,
    supports: Supports,
    /// The one model that is asked for there, whatever a call names.
    model: Option<u64>,
}

/// What one endpoint is known to be able to, whatever the settings around it.
#[derive(Debug)]
pub struct Learnt(Mutex<Ability>);

impl Learnt {
    /// What the config says, and nothing more yet.
    pub fn new(ability: Ability) -> Self {
        Self(Mutex::new(ability))
    }

    fn lock(&self) -> MutexGuard<'_, Ability> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What one endpoint is known to lack, for whoever wants to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AbilityView {
    /// Its window as the config or the server has it.
    pub window: Option<u64>,
    /// What the config says it can and cannot do.
    pub supports: Vec<(Capability, bool)>,
    /// What was learnt, and for how long it is believed.
    pub learnt: Vec<(Lack, Duration)>,
}

impl Capabilities {
    /// For each endpoint what is known of it, what the config says, and the model that is always asked.
    pub fn new(endpoints: Vec<(Arc<Learnt>, Supports, Option<String>)>) -> Self {
        let known = endpoints.iter().any(|(learnt, ..)| learnt.lock().is_known());
        let slot = |(learnt, supports, model): (Arc<Learnt>, Supports, Option<String>)| Slot {
            learnt,
            supports,
            model: model.as_deref().map(number),
        };
        let slots = endpoints.into_iter().map(slot).collect();
        Self(Arc::new(Inner { slots, known: AtomicBool::new(known) }))
    }

    /// Whether anything is known of anybody.
    pub fn is_known(&self) -> bool {
        self.0.known.load(Ordering::Relaxed)
    }

    /// Which endpoints of the first `among` targets a call for `model` passes over, and why. `refused` is what they
    /// refused of this call.
    pub fn passed_over(
        &self,
        (targets, among): (&[Target], usize),
        model: &str,
        need: &dyn Need,
        refused: &[Refused],
        now: Instant,
    ) -> Vec<(usize, Lack)> {
        if refused.is_empty() && !self.is_known() {
            return Vec::new();
        }
        let model = number(model);
        passed_over(targets, among, |target, endpoint| {
            let (slot, ability) = self.lock(endpoint)?;
            let model = slot.model.unwrap_or(model);
            for refused in refused {
                let can = match refused.lack {
                    Lack::Of(capability) => ability.can(capability, model, now),
                    Lack::Window(_) => None,
                };
                if !refused.may_be_served_by(target, endpoint, ability.window(model, now), can) {
                    return Some(Missing { lack: refused.lack, sure: true });
                }
            }
            ability.missing(model, need, now)
        })
    }

    /// A model there refused a call for what it lacks. Returns the same with the window as it is known now.
    pub fn learn(&self, endpoint: usize, model: &str, lack: Lack, now: Instant) -> Lack {
        let Some((slot, mut ability)) = self.lock(endpoint) else { return lack };
        let model = slot.model.unwrap_or_else(|| number(model));
        ability.learn(model, lack, now);
        self.0.known.store(true, Ordering::Relaxed);
        match lack {
            Lack::Window(_) => Lack::Window(ability.window(model, now)),
            other => other,
        }
    }

    /// The server told its window.
    pub fn tell(&self, endpoint: usize, window: u64) {
        if let Some((_, mut ability)) = self.lock(endpoint) {
            ability.tell(window);
            self.0.known.store(true, Ordering::Relaxed);
        }
    }

    /// What is known of an endpoint.
    pub fn view(&self, endpoint: usize, now: Instant) -> AbilityView {
        let Some((slot, ability)) = self.lock(endpoint) else { return AbilityView::default() };
        let said = |capability: Capability| Some((capability, slot.supports.get(capability)?));
        AbilityView {
            window: ability.window_here(),
            supports: Capability::ALL.into_iter().filter_map(said).collect(),
            learnt: ability.learnt(now).collect(),
        }
    }

    fn lock(&self, endpoint: usize) -> Option<(&Slot, MutexGuard<'_, Ability>)> {
        let slot = self.0.slots.get(endpoint)?;
        Some((slot, slot.learnt.lock()))
    }
}

/// A number for a model's name: names are the clients', and are not kept.
fn number(model: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    model.hash(&mut hasher);
    hasher.finish()
}

//! Who can serve a call: what an endpoint's model is known to lack, and what of that a call needs.
//!
//! Why: a call with images that is sent to a model without eyes costs a refusal, and the refusal hides the failure that
//! the call was moved away from. So a target is asked only if nothing is known against it. Why it is careful: a call
//! that is passed over by mistake gets a worse answer, or none, while one that is sent in vain gets a cheap refusal and
//! moves on. Not knowing is not lacking; a prompt is too long only when no tokenizer could make it fit; and what was
//! merely learnt from a refusal is forgotten after a while, and never the reason to refuse a call ourselves.
//!
//! Owns what is known and its comparison with a need. Invariant: what is not known to be missing is there.

use std::time::{Duration, Instant};

use super::Target;
use crate::call::{Capability, Lack};

/// How long a refusal is believed.
pub const BELIEVED: Duration = Duration::from_secs(600);
/// Most refusals remembered of one endpoint: a client may name any number of models.
const MOST: usize = 64;

/// What a call needs. Asked only for what somebody lacks, so that looking costs nothing where nobody does.
pub trait Need {
    /// Whether it needs this.
    fn needs(&self, capability: Capability) -> bool;
    /// Whether it surely does not fit so many tokens. With `output`, what it wants written has to fit too.
    fn exceeds(&self, window: u64, output: bool) -> bool;
}

/// What the config says an endpoint can do; `None` where it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supports([Option<bool>; Capability::ALL.len()]);

impl Supports {
    /// What it says of this one.
    pub fn get(&self, capability: Capability) -> Option<bool> {
        self.0[capability as usize]
    }

    /// Says it.
    pub fn set(&mut self, capability: Capability, can: bool) {
        self.0[capability as usize] = Some(can);
    }
}

/// Something that speaks against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it lacks.
    pub lack: Lack,
    /// The config or the server itself says so; else it was learnt from a refusal.
    pub sure: bool,
}

/// An endpoint's refusal within a call, for what its model lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which target of the route.
    pub target: usize,
    /// Which endpoint of the settings.
    pub endpoint: usize,
    /// What it lacks, with its window as far as that is known now.
    pub lack: Lack,
}

/// What is known of one endpoint.
#[derive(Clone, Debug, Default)]
pub struct Ability {
    window: Option<u64>,
    told: Option<u64>,
    supports: Supports,
    /// What a call wants written has to fit beside its prompt, or it is refused.
    output_counts: bool,
    learnt: Vec<Learnt>,
}

#[derive(Clone, Copy, Debug)]
struct Learnt {
    /// A number for the model that was asked: one server may have several.
    model: u64,
    lack: Lack,
    until: Instant,
}

impl Ability {
    /// As the config says. `output_counts`: the server refuses a prompt that leaves no room for what is to be written.
    pub fn new(window: Option<u64>, supports: Supports, output_counts: bool) -> Self {
        Self { window, supports, output_counts, ..Self::default() }
    }

    /// The server told its window itself.
    pub fn tell(&mut self, window: u64) {
        self.told = Some(window);
    }

    /// A model there refused a call for what it lacks. A window of unknown size teaches nothing.
    pub fn learn(&mut self, model: u64, lack: Lack, now: Instant) {
        if lack == Lack::Window(None) {
            return;
        }
        let same = |old: &Learnt| old.model == model && old.lack.as_str() == lack.as_str();
        self.learnt.retain(|old| old.until > now && !same(old));
        if self.learnt.len() >= MOST {
            self.learnt.remove(0);
        }
        self.learnt.push(Learnt { model, lack, until: now + BELIEVED });
    }

    /// Whether anything is known at all.
    pub fn is_known(&self) -> bool {
        let declared = Capability::ALL.iter().any(|capability| self.supports.get(*capability) == Some(false));
        declared || self.window.is_some() || self.told.is_some() || !self.learnt.is_empty()
    }

    /// The window in tokens, the least that is known.
    pub fn window(&self, model: u64, now: Instant) -> Option<u64> {
        self.window_here().into_iter().chain(self.window_learnt(model, now)).min()
    }

    /// Whether this can be done there, as far as anything is known.
    pub fn can(&self, capability: Capability, model: u64, now: Instant) -> Option<bool> {
        if self.believed(model, now).any(|lack| lack == Lack::Of(capability)) {
            return Some(false);
        }
        self.supports.get(capability)
    }

    /// What speaks against a call that asks for this model; what is sure goes first.
    pub fn missing(&self, model: u64, need: &dyn Need, now: Instant) -> Option<Missing> {
        let sure = Capability::ALL.into_iter().filter(|one| self.supports.get(*one) == Some(false));
        if let Some(capability) = sure.into_iter().find(|capability| need.needs(*capability)) {
            return Some(Missing { lack: Lack::Of(capability), sure: true });
        }
        let too_long = |window: &u64| need.exceeds(*window, self.output_counts);
        if let Some(window) = self.window_here().filter(too_long) {
            return Some(Missing { lack: Lack::Window(Some(window)), sure: true });
        }
        let learnt = self.believed(model, now).find(|lack| match lack {
            Lack::Of(capability) => need.needs(*capability),
            Lack::Window(window) => window.as_ref().is_some_and(too_long),
        });
        learnt.map(|lack| Missing { lack, sure: false })
    }

    /// What was learnt and is believed still: the lack, and for how long.
    pub fn learnt(&self, now: Instant) -> impl Iterator<Item = (Lack, Duration)> {
        let left = move |one: &Learnt| (one.lack, one.until.saturating_duration_since(now));
        self.learnt.iter().map(left).filter(|(_, left)| !left.is_zero())
    }

    /// The window as the config and the server have it.
    pub fn window_here(&self) -> Option<u64> {
        self.window.into_iter().chain(self.told).min()
    }

    fn window_learnt(&self, model: u64, now: Instant) -> Option<u64> {
        self.believed(model, now).find_map(|lack| match lack {
            Lack::Window(window) => window,
            Lack::Of(_) => None,
        })
    }

    fn believed(&self, model: u64, now: Instant) -> impl Iterator<Item = Lack> {
        self.learnt.iter().filter(move |one| one.model == model && one.until > now).map(|one| one.lack)
    }
}

impl Refused {
    /// Whether another endpoint may serve what this one refused. One of the same pool has the same model, so something
    /// must speak for it; of another target, nothing must speak against it.
    pub fn may_be_served_by(&self, target: usize, endpoint: usize, window: Option<u64>, can: Option<bool>) -> bool {
        if endpoint == self.endpoint {
            return false;
        }
        let better = match self.lack {
            Lack::Of(_) => can,
            Lack::Window(known) => known.zip(window).map(|(here, there)| there > here),
        };
        better.unwrap_or(target != self.target)
    }
}

/// Which endpoints of the first `among` targets a call passes over. `missing` says what speaks against an endpoint; what
/// was merely learnt stands back where it would leave nobody to ask.
pub fn passed_over(
    targets: &[Target],
    among: usize,
    missing: impl Fn(usize, usize) -> Option<Missing>,
) -> Vec<(usize, Lack)> {
    let endpoints = targets.iter().enumerate().take(among).flat_map(|(number, target)| {
        let with_target = move |endpoint: &usize| (number, *endpoint);
        target.endpoints.iter().map(with_target)
    });
    let mut nobody_left = true;
    let mut found = Vec::new();
    for (target, endpoint) in endpoints {
        match missing(target, endpoint) {
            Some(one) => found.push((endpoint, one)),
            None => nobody_left = false,
        }
    }
    let counts = |(_, one): &(usize, Missing)| one.sure || !nobody_left;
    found.into_iter().filter(counts).map(|(endpoint, one)| (endpoint, one.lack)).collect()
}

#[cfg(test)]
#[path = "capability_tests.rs"]
mod tests;

//! What is carried from one generation of settings to the next, and by what name.
//!
//! A further kind of state is one more field here: a [`Kept`] of whatever the layers share, asked by key when the stacks
//! are built. Invariant: the name alone decides what is carried, and where it leads to elsewhere, nothing is.
//!
//! | what | is the same while these are |
//! |---|---|
//! | limit, sends in flight, waiting sends | endpoint's name and URL |
//! | breaker | endpoint's name, URL and credential; what an operator said, its name |
//! | connections | endpoint's name, URL, credential and connect clock |
//! | what probes say | endpoint's name and URL |
//! | where a client key's limits stand | key's name, and the limit |
//! | retry budget | route's name and the target's endpoints by name |
//! | executions of calls with an `Idempotency-Key`, and their answers | key, caller, surface, and the route's name |
//! | what an endpoint was learnt to lack | endpoint's name and URL, and what the config says of it |
//! | first-token times and the budget of hedges | route's name, its targets, and `hedge` |
//! | room for answers that are held | always |
//! | a model's own circuit | route's name |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use crate::call::Sink;
use crate::config::Settings;
use crate::dialect::Dialect;
use crate::layer::Health;
use crate::layer::room::Room;
use crate::layer::state::{
    Breakers, Capabilities, Fuse, Guarded, Hedges, Kept, Keys, Learnt, Live, Places, Rates, Route, SharedBudget,
    SharedRate, Slots,
};
use crate::policy::capability::Ability;
use crate::policy::{RouteSettings, Target};
use crate::transport::{Credential, Dialler, EndpointSettings, Leaf};

/// What outlives a generation of settings.
#[derive(Default)]
pub struct Carried {
    live: Live,
    leaves: HashMap<String, Leaf>,
    places: Places,
    fuses: Kept<(String, String, Option<[u8; 32]>), Fuse>,
    /// The newest fuse of each endpoint by name: an operator names no URL.
    newest: HashMap<String, Arc<Fuse>>,
    budgets: Kept<(String, Vec<String>, usize), SharedBudget>,
    rates: Kept<String, SharedRate>,
    keys: Option<Keys>,
    room: Option<Room>,
    learnt: Kept<String, Learnt>,
    hedges: Kept<String, Hedges>,
    /// Endpoints that probes have found down.
    health: (Vec<(String, String)>, Health),
    routes: Kept<String, usize>,
    next_route: usize,
}

impl Carried {
    /// Nothing is known yet; `live` are the calls in flight.
    pub fn new(live: Live) -> Self {
        Self { live, ..Self::default() }
    }

    /// Calls in flight.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// The endpoints, ready to be asked; who is reached as before keeps its connections. Changes nothing that lasts
    /// until all of them are.
    ///
    /// # Errors
    /// An endpoint's credential cannot be sent.
    pub fn leaves(
        &mut self,
        settings: &Settings,
        dialler: &Dialler,
        sink: &Arc<dyn Sink>,
    ) -> anyhow::Result<Vec<Leaf>> {
        let leaf = |(number, it): (usize, &EndpointSettings)| {
            Leaf::new(it.clone(), dialler, Some((Arc::clone(sink), number)), self.leaves.get(&it.name))
        };
        let leaves = settings.endpoints.iter().enumerate().map(leaf).collect::<anyhow::Result<Vec<_>>>()?;
        let named = settings.endpoints.iter().map(|endpoint| endpoint.name.clone());
        self.leaves = named.zip(leaves.iter().cloned()).collect();
        Ok(leaves)
    }

    /// The places at all endpoints.
    pub fn slots(&mut self, settings: &Settings, pools: &[Vec<usize>], now: Instant) -> Slots {
        let place = |it: &EndpointSettings| (format!("{}\n{}", it.name, it.url), it.concurrency);
        let routes = settings.routes.iter().map(|route| self.route(&route.name)).collect();
        self.places.view(settings.endpoints.iter().map(place).collect(), pools, routes, now)
    }

    /// The breakers of all endpoints, who know which routes share which endpoint.
    pub fn breakers(&mut self, settings: &Settings, sink: &Arc<dyn Sink>, now: Instant) -> Breakers {
        let before = std::mem::take(&mut self.newest);
        let mut endpoints = Vec::with_capacity(settings.endpoints.len());
        for it in &settings.endpoints {
            let make = || Fuse::new(it.breaker, before.get(&it.name).and_then(|fuse| fuse.forced()), now);
            let key = (it.name.clone(), it.url.clone(), credential(it));
            let fuse = self.fuses.take(key, |_| {}, make);
            self.newest.insert(it.name.clone(), Arc::clone(&fuse));
            // What a client's own key is refused is the client's.
            let ours = !it.forward_client_key;
            endpoints.push(Guarded { fuse, settings: it.breaker, ours, one_model: it.model.is_some() });
        }
        let route = |it: &RouteSettings| Route { number: self.route(&it.name), targets: it.targets.clone() };
        let routes = settings.routes.iter().map(route).collect();
        Breakers::new(endpoints, routes, Arc::clone(sink), now)
    }

    /// One retry budget per target of a route.
    pub fn budgets(&mut self, settings: &Settings, route: &RouteSettings, now: Instant) -> Vec<Arc<SharedBudget>> {
        let name = |endpoint: &usize| settings.endpoints.get(*endpoint).map(|endpoint| endpoint.name.clone());
        let mut seen: Vec<Vec<String>> = Vec::new();
        let mut budgets = Vec::with_capacity(route.targets.len());
        for target in &route.targets {
            let mut names: Vec<String> = target.endpoints.iter().filter_map(name).collect();
            names.sort_unstable();
            // A target may stand in a route twice.
            let before = seen.iter().filter(|other| **other == names).count();
            seen.push(names.clone());
            let ratio = route.retry.budget;
            let (set, make) = (|budget: &SharedBudget| budget.set_ratio(ratio), || SharedBudget::new(ratio, now));
            budgets.push(self.budgets.take((route.name.clone(), names, before), set, make));
        }
        budgets
    }

    /// The limits of client keys.
    pub fn rates(&mut self, settings: &Settings, now: Instant) -> Rates {
        let limited = settings.server.keys.iter().filter(|key| !key.limits.is_empty());
        Rates::new(limited.map(|key| {
            let (set, make) = (|rate: &SharedRate| rate.set(key.limits, now), || SharedRate::new(key.limits, now));
            (key.name.clone(), self.rates.take(key.name.clone(), set, make))
        }))
    }

    /// Calls that came with an `Idempotency-Key`.
    pub fn keys(&mut self, settings: &Settings) -> Keys {
        let keys = self.keys.get_or_insert_with(|| Keys::new(settings.server.idempotency));
        keys.set(settings.server.idempotency);
        keys.clone()
    }

    /// Room for answers that are held.
    pub fn room(&mut self, settings: &Settings) -> Room {
        let room = self.room.get_or_insert_with(|| Room::new(settings.server.max_held));
        room.set(settings.server.max_held);
        room.clone()
    }

    /// What is known of what each endpoint can do.
    pub fn capabilities(&mut self, settings: &Settings) -> Capabilities {
        let mut endpoints = Vec::with_capacity(settings.endpoints.len());
        for it in &settings.endpoints {
            // vLLM refuses a prompt that leaves no room for what is to be written; others cut what they write.
            let ability = || Ability::new(it.window, it.supports, it.dialect == Dialect::Vllm);
            let key = format!("{:?}", (&it.name, &it.url, it.window, it.supports, it.dialect, &it.model));
            let learnt = self.learnt.take(key, |_| {}, || Learnt::new(ability()));
            endpoints.push((learnt, it.supports, it.model.clone()));
        }
        Capabilities::new(endpoints)
    }

    /// How soon the targets of a route answer, and what may be spent on those that are late.
    pub fn hedges(&mut self, settings: &Settings, route: &RouteSettings) -> Arc<Hedges> {
        let name = |endpoint: &usize| settings.endpoints.get(*endpoint).map(|endpoint| &endpoint.name);
        let names = |target: &Target| target.endpoints.iter().filter_map(name).collect::<Vec<_>>();
        let targets: Vec<_> = route.targets.iter().map(names).collect();
        let key = format!("{:?}", (&route.name, targets, route.hedge));
        self.hedges.take(key, |_| {}, || Hedges::new(route.hedge, route.targets.len()))
    }

    /// What probes say of the endpoints.
    pub fn health(&mut self, settings: &Settings) -> Health {
        let (before, said) = std::mem::take(&mut self.health);
        let keys: Vec<_> = settings.endpoints.iter().map(|it| (it.name.clone(), it.url.clone())).collect();
        let up = |key| before.iter().position(|known| known == key).is_none_or(|at| said.is_up(at));
        let endpoints = settings.endpoints.iter().zip(&keys);
        let health = Health::new(endpoints.map(|(it, key)| (it.probe.is_some(), it.probe.is_none() || up(key))));
        self.health = (keys, health.clone());
        health
    }

    /// What a route is called in every generation that has it.
    fn route(&mut self, name: &str) -> Arc<usize> {
        let next = &mut self.next_route;
        let make = || {
            *next += 1;
            *next - 1
        };
        self.routes.take(name.to_owned(), |_| {}, make)
    }
}

/// Tells two credentials apart without being one.
fn credential(endpoint: &EndpointSettings) -> Option<[u8; 32]> {
    match &endpoint.credential {
        Credential::None => None,
        Credential::Key(key) | Credential::File { key, .. } => Some(Sha256::digest(key.expose_secret()).into()),
    }
}

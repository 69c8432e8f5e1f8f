//! The table of contents: both stacks, outermost layer first, with the reason why each stands where it stands.
//!
//! Nothing else composes layers. Two rules fix the order: whatever creates sends stands outside whatever admits them,
//! and whatever measures an endpoint stands inside the choice of it.

mod carried;

use std::sync::Arc;

use tower::ServiceBuilder;

use crate::call::Sink;
use crate::config::Settings;
use crate::layer::room::Room;
use crate::layer::state::{Breakers, Capabilities, Hedges, Keys, Live, Rates, SharedBudget, Slots};
use crate::layer::{
    AdmitLayer, Around, AttemptService, Balance, BreakerLayer, CallService, DeadlineLayer, DedupeLayer, Endpoints,
    Health, HoldLayer, IdleLayer, Kin, LimitLayer, ObserveAttemptLayer, ObserveCallLayer, RetryLayer,
};
use crate::policy::{RouteSettings, StreamMode};
use crate::transport::EndpointSettings;
pub use carried::Carried;

/// The call stack of one route.
#[rustfmt::skip]
fn call_stack(number: usize, route: Arc<RouteSettings>, shared: &Shared) -> CallService {
    let around = Around {
        names: Arc::clone(&shared.names),
        budgets: Arc::clone(&shared.budgets[number]),
        breakers: shared.endpoints.breakers.clone(),
        kin: Arc::clone(&shared.kin),
        health: shared.endpoints.health.clone(),
        capabilities: shared.capabilities.clone(),
        hedges: Arc::clone(&shared.hedges[number]),
        slots: shared.endpoints.slots.clone(),
        sink: Arc::clone(&shared.sink),
    };
    CallService::new(ServiceBuilder::new()
        // One outcome per call: what is refused, cancelled or panics below is counted too.
        .layer(ObserveCallLayer::new(Arc::clone(&shared.sink), number, shared.live.clone()))
        // A client key over its limits: refused before it costs anything, a place in a queue included.
        .layer(AdmitLayer::new(shared.rates.clone(), Arc::clone(&shared.sink), number))
        // One absolute clock, set once: every wait and every send below lives under it.
        .layer(DeadlineLayer::new(route.timeouts.total))
        // Duplicates join before they cost: calls with the same `Idempotency-Key` are one execution below here.
        .layer(DedupeLayer::new(shared.keys.clone(), Arc::clone(&shared.sink), number, &route.name))
        // The only loop: starts the next send after a failure, beside a silent one, at the next target.
        .layer(RetryLayer::new(number, Arc::clone(&route), around))
        // A stream kept until it is complete, where the route wants it: below the loop, so that whatever happens to it until
        // then is a failure that the loop goes on from.
        .layer(HoldLayer::new(route.streams.mode == StreamMode::Hold, shared.room.clone()))
        // A place for each send, after a wait in its target's queue if need be: at an endpoint that is let through, that is
        // well, and that this call has not asked, the cheaper of two.
        .service(Balance::new(number, route, shared.pools[number].clone(), shared.endpoints.clone(), Arc::clone(&shared.sink))))
}

/// The attempt stack of one endpoint, over whatever asks it.
#[rustfmt::skip]
pub fn attempt_stack<S>(
    endpoint: &EndpointSettings, leaf: S, slots: &Slots, breakers: &Breakers, sink: &Arc<dyn Sink>,
) -> AttemptService
where
    S: tower::Service<crate::call::Attempt, Response = crate::call::AttemptReply, Error = crate::call::Failure>
        + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    AttemptService::new(ServiceBuilder::new()
        // Refuses before anything is sent, so that a refusal counts nowhere; hears once how each send ended.
        .layer(BreakerLayer::new(breakers.clone()))
        // One outcome per send, at the end of its body.
        .layer(ObserveAttemptLayer::new(Arc::clone(sink)))
        // The send's place at the endpoint, kept until the body is dropped: what is in flight, and not more.
        .layer(LimitLayer::new(slots.clone()))
        // Silence between two model events; connect is the dialler's clock, headers and first token are the plan's.
        .layer(IdleLayer::new(endpoint.timeouts.idle))
        // Dialect, credential, HTTP client, event decoder; returns with the first model event in hand.
        .service(leaf))
}

/// What the stacks of all routes share.
struct Shared {
    sink: Arc<dyn Sink>,
    live: Live,
    names: Arc<Vec<String>>,
    endpoints: Endpoints,
    budgets: Vec<Arc<Vec<Arc<SharedBudget>>>>,
    hedges: Vec<Arc<Hedges>>,
    room: Room,
    kin: Arc<Vec<Kin>>,
    capabilities: Capabilities,
    rates: Rates,
    keys: Keys,
    /// Per route, the pool of each target.
    pools: Vec<Vec<usize>>,
}

/// Everything that serves calls.
pub struct Stacks {
    /// One per route, in the order of the settings.
    pub calls: Vec<CallService>,
    /// One per endpoint, in the order of the settings.
    pub attempts: Arc<Vec<AttemptService>>,
    /// Per route, one retry budget per target.
    pub budgets: Vec<Arc<Vec<Arc<SharedBudget>>>>,
    /// Sends in flight and waiting, and their limits.
    pub slots: Slots,
    /// Memory for answers that are held until they are complete.
    pub room: Room,
    /// The limits of client keys.
    pub rates: Rates,
    /// One breaker per endpoint.
    pub breakers: Breakers,
    /// What each endpoint can do.
    pub capabilities: Capabilities,
    /// What the endpoints' probes say.
    pub health: Health,
    /// Per route, the number of each target's pool among the slots.
    pub pools: Vec<Vec<usize>>,
}

/// Builds the stacks over any leaves, one per endpoint: the tests bring scripted ones. What is known of endpoints, pools
/// and routes by their names is taken from `carried`.
pub fn build<S>(settings: &Settings, leaves: Vec<S>, carried: &mut Carried, sink: &Arc<dyn Sink>) -> Stacks
where
    S: tower::Service<crate::call::Attempt, Response = crate::call::AttemptReply, Error = crate::call::Failure>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let now = crate::clock::now();
    let (pools, pools_of) = pools(&settings.routes);
    let breakers = carried.breakers(settings, sink, now);
    let slots = carried.slots(settings, &pools, now);
    let budgets = settings.routes.iter().map(|route| Arc::new(carried.budgets(settings, route, now))).collect();
    let leaves = settings.endpoints.iter().zip(leaves);
    let attempts = leaves.map(|(endpoint, leaf)| attempt_stack(endpoint, leaf, &slots, &breakers, sink));
    let shared = Shared {
        sink: Arc::clone(sink),
        live: carried.live().clone(),
        names: Arc::new(settings.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect()),
        endpoints: Endpoints {
            stacks: Arc::new(attempts.collect()),
            ids: settings.endpoints.iter().map(|endpoint| Endpoints::id(&endpoint.name)).collect(),
            slots: slots.clone(),
            breakers: breakers.clone(),
            health: carried.health(settings),
        },
        capabilities: carried.capabilities(settings),
        budgets,
        hedges: settings.routes.iter().map(|route| carried.hedges(settings, route)).collect(),
        room: carried.room(settings),
        kin: Arc::new(
            settings.endpoints.iter().map(|it| Kin { dialect: it.dialect, model: it.model.clone() }).collect(),
        ),
        rates: carried.rates(settings, now),
        keys: carried.keys(settings),
        pools: pools_of,
    };
    let routes = settings.routes.iter().cloned().map(Arc::new).enumerate();
    let calls = routes.map(|(number, route)| call_stack(number, route, &shared)).collect();
    let Shared { endpoints, budgets, capabilities, rates, room, pools, .. } = shared;
    let Endpoints { stacks: attempts, health, .. } = endpoints;
    Stacks { calls, attempts, budgets, slots, breakers, capabilities, rates, room, health, pools }
}

/// Targets of the same endpoints are one pool, whatever routes they stand in: one queue, in which the order of classes
/// holds. Returns the pools, and for each route the pool of each target.
fn pools(routes: &[RouteSettings]) -> (Vec<Vec<usize>>, Vec<Vec<usize>>) {
    let mut pools: Vec<Vec<usize>> = Vec::new();
    let mut pool = |endpoints: &[usize]| {
        let mut endpoints = endpoints.to_vec();
        endpoints.sort_unstable();
        pools.iter().position(|known| *known == endpoints).unwrap_or_else(|| {
            pools.push(endpoints);
            pools.len() - 1
        })
    };
    let of = routes.iter().map(|route| route.targets.iter().map(|target| pool(&target.endpoints)).collect()).collect();
    (pools, of)
}

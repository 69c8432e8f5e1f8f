//! Chooses an endpoint of the attempt's target and hands the attempt to that endpoint's stack.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use tower::{Service, ServiceExt};

use super::state::{Breakers, InFlight, Load};
use super::{AttemptService, Pending};
use crate::call::{Attempt, AttemptReply, Class, Failure, Milestone, Payload};
use crate::clock;
use crate::policy::Target;
use crate::policy::balance::{cost, pick};

/// The targets of one route over the attempt stacks of all endpoints.
#[derive(Clone)]
pub struct Balance {
    targets: Arc<Vec<Target>>,
    endpoints: Arc<Vec<AttemptService>>,
    load: Load,
    breakers: Breakers,
}

impl Balance {
    /// `endpoints` are numbered as in the settings; so are `load` and `breakers`.
    pub fn new(targets: Vec<Target>, endpoints: Arc<Vec<AttemptService>>, load: Load, breakers: Breakers) -> Self {
        Self { targets: Arc::new(targets), endpoints, load, breakers }
    }

    /// Who is let through, the less loaded of two; with nobody let through, whoever it is will refuse.
    fn choose(&self, target: &Target, attempt: &Attempt) -> usize {
        let now = clock::now();
        let peek = |endpoint: &usize| Some((*endpoint, self.breakers.peek(*endpoint, attempt.route, now).ok()?));
        let open: Vec<_> = target.endpoints.iter().filter_map(peek).collect();
        // Where a probe is due it is sent: the sooner it is, the sooner the endpoint is back. What can be sent only once
        // is not risked on it.
        let due = open.iter().find(|(at, allowed)| allowed.probe && !attempt.used.contains(at));
        if let Some((due, _)) = due.filter(|_| attempt.call.body.replayable()) {
            return *due;
        }
        let share = |endpoint: usize| open.iter().find(|(at, _)| *at == endpoint).map_or(1.0, |(_, open)| open.share);
        let names: Vec<usize> = open.iter().map(|(endpoint, _)| *endpoint).collect();
        let among = if names.is_empty() { &target.endpoints } else { &names };
        let samples = (clock::sample(), clock::sample());
        pick(among, &attempt.used, |endpoint| cost(self.load.at(endpoint), share(endpoint)), samples)
    }
}

impl Service<Attempt> for Balance {
    type Response = AttemptReply;
    type Error = Failure;
    type Future = Pending<AttemptReply, Failure>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut attempt: Attempt) -> Self::Future {
        let Some(target) = self.targets.get(attempt.target) else {
            return Box::pin(async { Err(Failure::new(Class::Internal, "the plan named a target that is not there")) });
        };
        attempt.endpoint = self.choose(target, &attempt);
        (attempt.report)(Milestone::Picked(attempt.endpoint));
        let in_flight = self.load.enter(attempt.endpoint);
        let Some(service) = self.endpoints.get(attempt.endpoint).cloned() else {
            return Box::pin(async {
                Err(Failure::new(Class::Internal, "a target names an endpoint that is not there"))
            });
        };
        Box::pin(async move {
            let reply = service.oneshot(attempt).await?;
            Ok(AttemptReply { payload: hold(reply.payload, in_flight), ..reply })
        })
    }
}

/// Keeps the endpoint's count up until the body has ended or is dropped.
fn hold(payload: Payload, in_flight: InFlight) -> Payload {
    match payload {
        Payload::Whole(bytes) => Payload::Whole(bytes),
        Payload::Events(pieces) => Payload::Events(keep(pieces, in_flight)),
        Payload::Opaque(pieces) => Payload::Opaque(keep(pieces, in_flight)),
    }
}

fn keep(pieces: crate::call::PieceStream, in_flight: InFlight) -> crate::call::PieceStream {
    Box::pin(pieces.inspect(move |_| {
        let _ = &in_flight;
    }))
}

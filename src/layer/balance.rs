//! Chooses an endpoint of the attempt's target and hands the attempt to that endpoint's stack.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use tower::{Service, ServiceExt};

use super::state::{InFlight, Load};
use super::{AttemptService, Pending};
use crate::call::{Attempt, AttemptReply, Class, Failure, Milestone, Payload};
use crate::clock;
use crate::policy::{Target, balance::pick};

/// The targets of one route over the attempt stacks of all endpoints.
#[derive(Clone)]
pub struct Balance {
    targets: Arc<Vec<Target>>,
    endpoints: Arc<Vec<AttemptService>>,
    load: Load,
}

impl Balance {
    /// `endpoints` are numbered as in the settings; so is `load`.
    pub fn new(targets: Vec<Target>, endpoints: Arc<Vec<AttemptService>>, load: Load) -> Self {
        Self { targets: Arc::new(targets), endpoints, load }
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
        let samples = (clock::sample(), clock::sample());
        attempt.endpoint = pick(&target.endpoints, &attempt.used, |endpoint| self.load.at(endpoint), samples);
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

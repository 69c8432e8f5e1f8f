//! Tower layers: thin adapters that act on what the policies decide. `stack.rs` says which stands where, and why.

pub mod admit;
mod balance;
mod breaker;
mod carry;
mod deadline;
mod dedupe;
mod health;
mod hold;
mod idle;
mod limit;
mod observe_attempt;
mod observe_call;
mod race;
mod rescue;
mod retry;
pub mod room;
pub mod state;

use tower::util::BoxCloneSyncService;

use crate::call::{Attempt, AttemptReply, CallError, CallRequest, Failure, Reply};

pub use admit::AdmitLayer;
pub use balance::{Balance, Endpoints};
pub use breaker::BreakerLayer;
pub use deadline::DeadlineLayer;
pub use dedupe::DedupeLayer;
pub use health::Health;
pub use hold::HoldLayer;
pub use idle::IdleLayer;
pub use limit::LimitLayer;
pub use observe_attempt::ObserveAttemptLayer;
pub use observe_call::ObserveCallLayer;
pub use rescue::Kin;
pub use retry::{Around, RetryLayer};

/// The call stack of one route, boxed at its outside.
pub type CallService = BoxCloneSyncService<CallRequest, Reply, CallError>;
/// The attempt stack of one endpoint, or of the pools before them, boxed at its outside.
pub type AttemptService = BoxCloneSyncService<Attempt, AttemptReply, Failure>;
/// A service's answer on its way.
pub(crate) type Pending<T, E> = std::pin::Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

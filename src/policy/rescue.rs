//! Whether a stream that broke after its first byte was out may be gone on with.
//!
//! Why so little: after commit a second send is the one exception to the rule that none is made, so it has every bound the
//! others have (deadline, cap of sends, retry budget) and one of its own: there is one continuation to a call, and never
//! a second. Knows no clock.

use std::time::{Duration, Instant};

use crate::call::{Failure, Fault, Retry};

/// What a call has left for a continuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rescue {
    /// The call ends here.
    pub deadline: Instant,
    /// Sends that it may still make.
    pub sends_left: u32,
    /// With less time than this left a continuation could not come to anything.
    pub least_useful: Duration,
}

impl Rescue {
    /// Whether a continuation may be started after this failure. `pay` asks the target's budget, last of all.
    pub fn may(&mut self, now: Instant, failure: &Failure, pay: impl FnOnce() -> bool) -> bool {
        let mendable = failure.class.fault() == Fault::Upstream && failure.retry == Retry::Again;
        let may = mendable && self.sends_left > 0 && now + self.least_useful < self.deadline && pay();
        if may {
            // One, whatever comes of it.
            self.sends_left = 0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Class;

    #[test]
    fn one_within_every_bound() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let fresh = Rescue { deadline: now + 10 * second, sends_left: 3, least_useful: second };
        let may = |mut rescue: Rescue, class: Class, paid: bool| rescue.may(now, &Failure::new(class, ""), || paid);
        for class in Class::ALL.iter().copied() {
            let wanted = class.fault() == Fault::Upstream && class.retry() == Retry::Again;
            assert_eq!(may(fresh, class, true), wanted, "{class}");
        }
        let cut = Class::StreamTruncated;
        assert!(!may(fresh, cut, false), "the budget does not pay");
        assert!(!may(Rescue { sends_left: 0, ..fresh }, cut, true));
        assert!(!may(Rescue { deadline: now + second, ..fresh }, cut, true));
        let mut twice = fresh;
        assert!(twice.may(now, &Failure::new(cut, ""), || true));
        assert!(!twice.may(now, &Failure::new(cut, ""), || panic!("asked to pay for what is not made")));
    }
}

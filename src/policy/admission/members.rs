//! Endpoints and pools that come, change and go while sends are in flight and waiting.
//!
//! Why numbers are used again: a config may be changed ten thousand times. Invariant: a number keeps its meaning until
//! whoever was given it gives it back, and by then nothing is in flight or waiting under it.

use std::time::Instant;

use super::{Admission, Endpoint, Grant, Pool};
use crate::policy::latency::Latency;
use crate::policy::limiter::Limiter;
use crate::policy::queue::Queue;
use crate::policy::settings::Concurrency;

/// Numbers that stand for nothing now.
#[derive(Clone, Debug, Default)]
pub struct Free {
    endpoints: Vec<usize>,
    pools: Vec<usize>,
}

impl Admission {
    /// One more endpoint, of which nothing is known; its number.
    pub fn add_endpoint(&mut self, settings: Concurrency) -> usize {
        let endpoint =
            Endpoint { limiter: Limiter::new(settings), in_use: 0, work: 0, latency: Latency::default(), stay: None };
        put(&mut self.endpoints, &mut self.free.endpoints, endpoint)
    }

    /// Other settings for an endpoint. What the new limit has room for is granted; what is in flight beyond a shorter one
    /// stays until it ends.
    pub fn set_endpoint(&mut self, endpoint: usize, settings: Concurrency, now: Instant) -> Vec<Grant> {
        let Some(it) = self.endpoints.get_mut(endpoint) else { return Vec::new() };
        it.limiter.set(settings);
        self.grant(endpoint, now)
    }

    /// Nobody knows the endpoint by this number any more.
    pub fn remove_endpoint(&mut self, endpoint: usize) {
        self.free.endpoints.push(endpoint);
    }

    /// One more pool, of these endpoints; its number.
    pub fn add_pool(&mut self, endpoints: Vec<usize>) -> usize {
        put(&mut self.pools, &mut self.free.pools, Pool { endpoints, queue: Queue::default() })
    }

    /// Nobody knows the pool by this number any more.
    pub fn remove_pool(&mut self, pool: usize) {
        if let Some(it) = self.pools.get_mut(pool) {
            *it = Pool { endpoints: Vec::new(), queue: Queue::default() };
            self.free.pools.push(pool);
        }
    }
}

fn put<T>(all: &mut Vec<T>, free: &mut Vec<usize>, one: T) -> usize {
    match free.pop() {
        Some(number) if number < all.len() => {
            all[number] = one;
            number
        }
        _ => {
            all.push(one);
            all.len() - 1
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::call::Priority;
    use crate::policy::balance::{Candidate, Pick};
    use crate::policy::{Answer, Ask, Mode, Sample};

    fn fixed(max: u32) -> Concurrency {
        Concurrency { mode: Mode::Fixed, max }
    }

    fn ask(admission: &mut Admission, pool: usize, endpoint: usize, now: Instant) -> Answer {
        let ask = Ask {
            pool,
            route: 0,
            class: Priority::Critical,
            again: false,
            key: Arc::from(""),
            prompt_bytes: 0,
            candidates: vec![Candidate { endpoint, share: 1.0, affinity: None }],
            due: None,
            deadline: now + Duration::from_secs(60),
            wait: Duration::from_secs(60),
        };
        admission.ask(ask, now, (0.0, 0.0, 0.0))
    }

    #[test]
    fn a_shorter_limit_lets_what_is_in_flight_end_and_a_longer_one_lets_in_who_waits() {
        let now = Instant::now();
        let mut admission = Admission::new(&[fixed(2)], &[vec![0]]);
        for _ in 0..2 {
            assert_eq!(ask(&mut admission, 0, 0, now), Answer::Go { endpoint: 0, why: Pick::Only });
        }
        assert_eq!(admission.set_endpoint(0, fixed(1), now), []);
        assert_eq!(admission.at(0), (1, 2), "none is thrown out");
        assert!(matches!(ask(&mut admission, 0, 0, now), Answer::Wait { id: 0, .. }));
        assert_eq!(admission.release(0, 1, Duration::ZERO, now), [], "still one, which is the limit");
        assert_eq!(admission.set_endpoint(0, fixed(2), now), [Grant { id: 0, endpoint: 0, cost: 1 }]);
    }

    #[test]
    fn what_was_learnt_stays_within_other_settings() {
        let now = Instant::now();
        let mut admission = Admission::new(&[Concurrency { mode: Mode::Adaptive, max: 100 }], &[vec![0]]);
        admission.slots(0, 40, now);
        assert_eq!(admission.at(0).0, 40);
        admission.set_endpoint(0, Concurrency { mode: Mode::Adaptive, max: 200 }, now);
        assert_eq!(admission.at(0).0, 40);
        admission.set_endpoint(0, Concurrency { mode: Mode::Adaptive, max: 10 }, now);
        assert_eq!(admission.at(0).0, 10);
        admission.set_endpoint(0, fixed(7), now);
        admission.learn(0, Sample::Refused, now);
        assert_eq!(admission.at(0).0, 7, "nothing is learnt under `fixed`");
        admission.set_endpoint(0, Concurrency { mode: Mode::Adaptive, max: 100 }, now);
        assert_eq!(admission.at(0).0, 8, "nor was anything: it begins anew");
    }

    #[test]
    fn a_number_given_back_is_given_out_again_as_new() {
        let now = Instant::now();
        let mut admission = Admission::new(&[fixed(1), fixed(1)], &[vec![0], vec![1]]);
        assert_eq!(ask(&mut admission, 1, 1, now), Answer::Go { endpoint: 1, why: Pick::Only });
        admission.release(1, 1, Duration::from_secs(5), now);
        admission.remove_pool(1);
        admission.remove_endpoint(1);
        for round in 0..100 {
            let endpoint = admission.add_endpoint(fixed(3));
            let pool = admission.add_pool(vec![endpoint]);
            assert_eq!((endpoint, pool), (1, 1), "round {round}");
            assert_eq!((admission.at(endpoint), admission.waiting(pool)), ((3, 0), 0));
            admission.remove_pool(pool);
            admission.remove_endpoint(endpoint);
        }
        assert_eq!(admission.add_pool(vec![0]), 1);
        assert_eq!(admission.add_pool(vec![0, 0]), 2);
    }
}

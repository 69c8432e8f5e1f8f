//! Which endpoint of a target takes the next send.
//!
//! Why two choices: the shorter of two random queues is nearly as good as the shortest of all, and it does not send
//! every caller to the same momentarily idle endpoint. An endpoint that this call has asked already comes last: a
//! repeat elsewhere is worth more than a repeat.

/// An endpoint that may be given a send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// By number in the settings.
    pub endpoint: usize,
    /// Share of its ordinary load that it should get: less than 1 while it comes back after an outage.
    pub share: f64,
}

/// Those of `candidates` that are not in `used`; all of them when none is left.
pub fn fresh(candidates: Vec<Candidate>, used: &[usize]) -> Vec<Candidate> {
    let is_fresh = |candidate: &Candidate| !used.contains(&candidate.endpoint);
    if !candidates.iter().any(is_fresh) {
        return candidates;
    }
    candidates.into_iter().filter(is_fresh).collect()
}

/// What one more send costs at an endpoint with so many of its places in use that should get this share of its
/// ordinary load.
pub fn cost(in_use: usize, limit: usize, share: f64) -> f64 {
    (in_use + 1) as f64 / (limit.max(1) as f64 * share)
}

/// Chooses one of so many (at least one) by power of two choices on `cost`. Both samples are uniform in `0..1`.
pub fn pick(len: usize, cost: impl Fn(usize) -> f64, samples: (f64, f64)) -> usize {
    let at = |sample: f64, len: usize| ((sample * len as f64) as usize).min(len.saturating_sub(1));
    let first = at(samples.0, len);
    if len <= 1 {
        return first;
    }
    let second = (first + 1 + at(samples.1, len - 1)) % len;
    if cost(second) < cost(first) { second } else { first }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_endpoint_comes_last() {
        let of = |endpoints: &[usize]| -> Vec<_> {
            endpoints.iter().map(|endpoint| Candidate { endpoint: *endpoint, share: 1.0 }).collect()
        };
        assert_eq!(fresh(of(&[3, 4]), &[3]), of(&[4]));
        assert_eq!(fresh(of(&[3]), &[3]), of(&[3]));
        assert_eq!(pick(1, |_| 0.0, (0.9, 0.9)), 0);
    }

    #[test]
    fn the_longer_queue_is_avoided() {
        for sample in [0.0, 0.3, 0.6, 0.99] {
            assert_eq!(pick(2, |at| [5.0, 1.0][at], (sample, sample)), 1);
        }
    }

    #[test]
    fn who_has_just_come_back_gets_a_smaller_share() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut load = [0usize; 2];
        for _ in 0..1000 {
            let at = |endpoint: usize| cost(load[endpoint], 1000, [0.25, 1.0][endpoint]);
            load[pick(2, at, (rng.f64(), rng.f64()))] += 1;
        }
        assert_eq!(load, [200, 800]);
    }

    #[test]
    fn equal_queues_share_evenly() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut taken = [0; 5];
        for _ in 0..10_000 {
            taken[pick(5, |_| 0.0, (rng.f64(), rng.f64()))] += 1;
        }
        assert!(taken.iter().all(|count| (1_800..2_200).contains(count)), "{taken:?}");
    }

    #[test]
    fn thousand_endpoints_stay_level() {
        let mut rng = fastrand::Rng::with_seed(2);
        let mut load = vec![0usize; 1000];
        for _ in 0..10_000 {
            let to = pick(1000, |endpoint| load[endpoint] as f64, (rng.f64(), rng.f64()));
            load[to] += 1;
        }
        assert!(load.iter().max() <= Some(&14), "worst of an average of 10: {:?}", load.iter().max());
    }
}

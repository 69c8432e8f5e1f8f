//! Which endpoint of a target takes the next send.
//!
//! Why two choices: the shorter of two random queues is nearly as good as the shortest of all, and it does not send
//! every caller to the same momentarily idle endpoint. An endpoint that this call has asked already comes last: a
//! repeat elsewhere is worth more than a repeat.

/// What one more send costs at an endpoint with so many in flight that should get this share of its ordinary load.
pub fn cost(in_flight: usize, share: f64) -> f64 {
    (in_flight + 1) as f64 / share
}

/// Chooses one of `endpoints` (never empty), preferring those not in `used`, by power of two choices on `cost`: what is
/// in flight, weighed by the share of load that an endpoint should get. Both samples are uniform in `0..1`.
pub fn pick(endpoints: &[usize], used: &[usize], cost: impl Fn(usize) -> f64, samples: (f64, f64)) -> usize {
    let fresh: Vec<usize> = endpoints.iter().copied().filter(|endpoint| !used.contains(endpoint)).collect();
    let from = if fresh.is_empty() { endpoints } else { &fresh };
    let at = |sample: f64, len: usize| ((sample * len as f64) as usize).min(len - 1);
    let first = at(samples.0, from.len());
    if from.len() == 1 {
        return from[first];
    }
    let second = (first + 1 + at(samples.1, from.len() - 1)) % from.len();
    if cost(from[second]) < cost(from[first]) { from[second] } else { from[first] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_endpoint_comes_last() {
        assert_eq!(pick(&[3, 4], &[3], |_| 0.0, (0.0, 0.0)), 4);
        assert_eq!(pick(&[3], &[3], |_| 0.0, (0.9, 0.9)), 3);
    }

    #[test]
    fn the_longer_queue_is_avoided() {
        for sample in [0.0, 0.3, 0.6, 0.99] {
            assert_eq!(pick(&[0, 1], &[], |endpoint| [5.0, 1.0][endpoint], (sample, sample)), 1);
        }
    }

    #[test]
    fn who_has_just_come_back_gets_a_smaller_share() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut load = [0usize; 2];
        for _ in 0..1000 {
            let at = |endpoint: usize| cost(load[endpoint], [0.25, 1.0][endpoint]);
            load[pick(&[0, 1], &[], at, (rng.f64(), rng.f64()))] += 1;
        }
        assert_eq!(load, [200, 800]);
    }

    #[test]
    fn equal_queues_share_evenly() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut taken = [0; 5];
        for _ in 0..10_000 {
            taken[pick(&[0, 1, 2, 3, 4], &[], |_| 0.0, (rng.f64(), rng.f64()))] += 1;
        }
        assert!(taken.iter().all(|count| (1_800..2_200).contains(count)), "{taken:?}");
    }

    #[test]
    fn thousand_endpoints_stay_level() {
        let mut rng = fastrand::Rng::with_seed(2);
        let (all, mut load): (Vec<_>, _) = ((0..1000).collect(), vec![0usize; 1000]);
        for _ in 0..10_000 {
            let to = pick(&all, &[], |endpoint| load[endpoint] as f64, (rng.f64(), rng.f64()));
            load[to] += 1;
        }
        assert!(load.iter().max() <= Some(&14), "worst of an average of 10: {:?}", load.iter().max());
    }
}

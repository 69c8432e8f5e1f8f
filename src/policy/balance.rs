//! Which endpoint of a target takes the next send.
//!
//! Why two choices: the shorter of two random queues is nearly as good as the shortest of all, and it does not send
//! every caller to the same momentarily idle endpoint. An endpoint that this call has asked already comes last: a
//! repeat elsewhere is worth more than a repeat.

/// Those of `endpoints` that are not in `used`; all of them when none is left.
pub fn fresh(endpoints: &[usize], used: &[usize]) -> Vec<usize> {
    let fresh: Vec<usize> = endpoints.iter().copied().filter(|endpoint| !used.contains(endpoint)).collect();
    if fresh.is_empty() { endpoints.to_vec() } else { fresh }
}

/// Chooses one of `from` (never empty) by power of two choices on `load`. Both samples are uniform in `0..1`.
pub fn pick(from: &[usize], load: impl Fn(usize) -> usize, samples: (f64, f64)) -> usize {
    let at = |sample: f64, len: usize| ((sample * len as f64) as usize).min(len - 1);
    let first = at(samples.0, from.len());
    if from.len() == 1 {
        return from[first];
    }
    let second = (first + 1 + at(samples.1, from.len() - 1)) % from.len();
    if load(from[second]) < load(from[first]) { from[second] } else { from[first] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_endpoint_comes_last() {
        assert_eq!(fresh(&[3, 4], &[3]), [4]);
        assert_eq!(fresh(&[3], &[3]), [3]);
        assert_eq!(pick(&[3], |_| 0, (0.9, 0.9)), 3);
    }

    #[test]
    fn the_longer_queue_is_avoided() {
        for sample in [0.0, 0.3, 0.6, 0.99] {
            assert_eq!(pick(&[0, 1], |endpoint| [5, 1][endpoint], (sample, sample)), 1);
        }
    }

    #[test]
    fn equal_queues_share_evenly() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut taken = [0; 5];
        for _ in 0..10_000 {
            taken[pick(&[0, 1, 2, 3, 4], |_| 0, (rng.f64(), rng.f64()))] += 1;
        }
        assert!(taken.iter().all(|count| (1_800..2_200).contains(count)), "{taken:?}");
    }

    #[test]
    fn thousand_endpoints_stay_level() {
        let mut rng = fastrand::Rng::with_seed(2);
        let (all, mut load): (Vec<_>, _) = ((0..1000).collect(), vec![0usize; 1000]);
        for _ in 0..10_000 {
            let to = pick(&all, |endpoint| load[endpoint], (rng.f64(), rng.f64()));
            load[to] += 1;
        }
        assert!(load.iter().max() <= Some(&14), "worst of an average of 10: {:?}", load.iter().max());
    }
}

//! Which endpoint of a target takes the next send.
//!
//! Why two choices: the shorter of two random queues is nearly as good as the shortest of all, and it does not send
//! every caller to the same momentarily idle endpoint. An endpoint that this call has asked already comes last: a
//! repeat elsewhere is worth more than a repeat.

/// Those of `endpoints` that are up and not in `used`; those that are up when none of them is left; where none is up,
/// as if all were. What a probe says is a hint, and nobody is refused because of it.
pub fn fresh(endpoints: &[usize], used: &[usize], is_up: impl Fn(usize) -> bool) -> Vec<usize> {
    let up: Vec<usize> = endpoints.iter().copied().filter(|endpoint| is_up(*endpoint)).collect();
    let from = if up.is_empty() { endpoints.to_vec() } else { up };
    let fresh: Vec<usize> = from.iter().copied().filter(|endpoint| !used.contains(endpoint)).collect();
    if fresh.is_empty() { from } else { fresh }
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
        let up = |_| true;
        assert_eq!(fresh(&[3, 4], &[3], up), [4]);
        assert_eq!(fresh(&[3], &[3], up), [3]);
        assert_eq!(pick(&[3], |_| 0, (0.9, 0.9)), 3);
    }

    #[test]
    fn who_is_down_is_passed_over_while_another_can_be_asked() {
        assert_eq!(fresh(&[1, 2, 3], &[], |endpoint| endpoint != 2), [1, 3]);
        assert_eq!(fresh(&[1, 2], &[1], |endpoint| endpoint != 2), [1]);
        assert_eq!(fresh(&[1, 2], &[1], |_| false), [2], "where all are down it says nothing");
        assert_eq!(fresh(&[1], &[], |_| false), [1]);
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

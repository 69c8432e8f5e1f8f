//! Which endpoint of a target takes the next send.
//!
//! Why two choices: the shorter of two random queues is nearly as good as the shortest of all, and it does not send
//! every caller to the same momentarily idle endpoint. An endpoint that this call has asked already comes last: a
//! repeat elsewhere is worth more than a repeat.
//!
//! Why affinity has a bound: a server that has read a prompt's beginning before answers sooner, but not if everybody is
//! sent there. Who comes first for a prompt is settled by rendezvous hashing, so that an endpoint that goes takes only
//! its own prompts with it; it is passed over while it has a quarter more than its share in flight. Sources:
//! Mitzenmacher, "The Power of Two Choices"; Mirrokni et al., "Consistent Hashing with Bounded Loads".

/// How much more than its share an endpoint may have in flight and still be given what belongs to it.
const BOUND: f64 = 1.25;

/// An endpoint that may be given a send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// By number in the settings.
    pub endpoint: usize,
    /// Share of its ordinary load that it should get: less than 1 while it comes back after an outage.
    pub share: f64,
    /// How much the call's prompt belongs to it, where the pool goes by that: the greatest has it.
    pub affinity: Option<u64>,
}

/// Why a send went where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// There was one that could take it.
    Only,
    /// It was the cheaper of two.
    Spread,
    /// The beginning of the prompt belongs there.
    Affinity,
    /// Where the prompt belongs there was too much in flight already.
    Overflow,
    /// The endpoint waited for a probe.
    Probe,
    /// Its place became free while the send waited.
    Queued,
}

impl Pick {
    /// Every reason, for metrics.
    pub const ALL: [Pick; 6] = [Pick::Only, Pick::Spread, Pick::Affinity, Pick::Overflow, Pick::Probe, Pick::Queued];

    /// The public name, as in the metric label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Pick::Only => "only",
            Pick::Spread => "spread",
            Pick::Affinity => "affinity",
            Pick::Overflow => "overflow",
            Pick::Probe => "probe",
            Pick::Queued => "queued",
        }
    }
}

/// Those of `candidates` that are not in `used`; all of them when none is left.
pub fn fresh(candidates: Vec<Candidate>, used: &[usize]) -> Vec<Candidate> {
    let is_fresh = |candidate: &Candidate| !used.contains(&candidate.endpoint);
    if !candidates.iter().any(is_fresh) {
        return candidates;
    }
    candidates.into_iter().filter(is_fresh).collect()
}

/// Those of `candidates` whose health checks pass; all of them where none does. What a check says is a hint, and nobody is
/// refused because of it.
pub fn up(candidates: Vec<Candidate>, is_up: impl Fn(usize) -> bool) -> Vec<Candidate> {
    if !candidates.iter().any(|candidate| is_up(candidate.endpoint)) {
        return candidates;
    }
    candidates.into_iter().filter(|candidate| is_up(candidate.endpoint)).collect()
}

/// What a send that weighs `more` costs at an endpoint with so much work under way in so many places, which says its
/// first word after so long and should get this share of its ordinary load.
pub fn cost(work: u64, more: u32, limit: usize, first: f64, share: f64) -> f64 {
    (work + u64::from(more)) as f64 * first / (limit.max(1) as f64 * share)
}

/// How much a prompt belongs to an endpoint; `id` is the same wherever the endpoint stands in the config.
pub fn affinity(prompt: u64, id: u64) -> u64 {
    // The finaliser of SplitMix64: close keys come out far apart.
    let mut mixed = prompt ^ id.rotate_left(32);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Whether one more in flight is within the bound, where all `members` of a pool have `total` in flight together.
pub fn within_bound(in_use: usize, total: usize, members: usize) -> bool {
    let share = (total + 1) as f64 / members.max(1) as f64;
    in_use < (BOUND * share).ceil() as usize
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
            endpoints.iter().map(|endpoint| Candidate { endpoint: *endpoint, share: 1.0, affinity: None }).collect()
        };
        assert_eq!(fresh(of(&[3, 4]), &[3]), of(&[4]));
        assert_eq!(fresh(of(&[3]), &[3]), of(&[3]));
        assert_eq!(pick(1, |_| 0.0, (0.9, 0.9)), 0);
    }

    #[test]
    fn who_is_down_is_passed_over_while_another_can_be_asked() {
        let of = |endpoints: &[usize]| -> Vec<_> {
            endpoints.iter().map(|endpoint| Candidate { endpoint: *endpoint, share: 1.0, affinity: None }).collect()
        };
        assert_eq!(up(of(&[1, 2, 3]), |endpoint| endpoint != 2), of(&[1, 3]));
        assert_eq!(fresh(up(of(&[1, 2]), |endpoint| endpoint != 2), &[1]), of(&[1]), "also when it was not asked yet");
        assert_eq!(fresh(up(of(&[1, 2]), |_| false), &[1]), of(&[2]), "where all are down it says nothing");
        assert_eq!(up(of(&[1]), |_| false), of(&[1]));
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
        let mut load = [0u64; 2];
        for _ in 0..1000 {
            let at = |endpoint: usize| cost(load[endpoint], 1, 1000, 0.5, [0.25, 1.0][endpoint]);
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

    #[test]
    fn an_endpoint_that_goes_takes_only_its_own_prompts_with_it() {
        let first = |ids: &[u64], prompt: u64| ids.iter().copied().max_by_key(|id| affinity(prompt, *id)).unwrap();
        let mut rng = fastrand::Rng::with_seed(4);
        let ids: Vec<u64> = (0..8).map(|_| rng.u64(..)).collect();
        let mut counts = [0u32; 8];
        for _ in 0..8_000 {
            let prompt = rng.u64(..);
            let before = first(&ids, prompt);
            counts[ids.iter().position(|id| *id == before).unwrap()] += 1;
            let after = first(&ids[1..], prompt);
            assert!(before == ids[0] || before == after, "a prompt moved that need not have");
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn the_bound_is_a_quarter_over_the_share() {
        assert!(within_bound(0, 0, 4), "the first always may");
        assert!(within_bound(9, 31, 4) && !within_bound(10, 31, 4));
        for (members, total) in [(1, 0), (1, 100), (3, 7), (5, 1000)] {
            let room = (0..=total).filter(|in_use| within_bound(*in_use, total, members)).count();
            assert!(room * members > total, "somebody is always within it: {members} {total}");
        }
    }
}

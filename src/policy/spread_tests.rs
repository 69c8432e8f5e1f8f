//! How sends are spread over a pool, in simulated time.

use proptest::prelude::*;

use super::*;
use crate::policy::Mode;

fn admission(endpoints: usize, max: u32) -> Admission {
    let all = vec![Concurrency { mode: Mode::Fixed, max }; endpoints];
    Admission::new(&all, &[(0..endpoints).collect()])
}

fn ask(endpoints: usize, prompt: Option<u64>, now: Instant) -> Ask {
    let candidate = |endpoint: usize| Candidate {
        endpoint,
        share: 1.0,
        affinity: prompt.map(|prompt| super::super::balance::affinity(prompt, 7 * endpoint as u64)),
    };
    Ask {
        pool: 0,
        route: 0,
        class: Priority::Default,
        again: false,
        key: Arc::from(""),
        prompt_bytes: 0,
        candidates: (0..endpoints).map(candidate).collect(),
        due: None,
        deadline: now + Duration::from_secs(60),
        wait: Duration::from_secs(5),
    }
}

/// Plays `seconds` of ten calls a second, each in flight for as long as its endpoint's first token takes. Returns how
/// many each of the endpoints was given in the last ten seconds.
fn play(seconds: u64, first: impl Fn(usize, u64) -> Duration, fails: impl Fn(usize, u64) -> bool) -> [u32; 3] {
    let start = Instant::now();
    let mut rng = fastrand::Rng::with_seed(11);
    let mut admission = admission(3, 100);
    let mut running: Vec<(Instant, usize, Duration, bool)> = Vec::new();
    let mut given = [0; 3];
    for tick in 0..seconds * 10 {
        let now = start + Duration::from_millis(100 * tick);
        running.sort_by_key(|(ends, ..)| *ends);
        while running.first().is_some_and(|(ends, ..)| *ends <= now) {
            let (ends, endpoint, took, failed) = running.remove(0);
            if failed {
                admission.failed(endpoint, ends);
            } else {
                admission.learn(endpoint, Sample::First { after: took, prompt_bytes: 0 }, ends);
            }
            admission.release(endpoint, 1, took, ends);
        }
        let samples = (rng.f64(), rng.f64(), rng.f64());
        let Answer::Go { endpoint, .. } = admission.ask(ask(3, None, now), now, samples) else { panic!("no place") };
        let second = tick / 10;
        let failed = fails(endpoint, second);
        let took = if failed { Duration::from_millis(1) } else { first(endpoint, second) };
        running.push((now + took, endpoint, took, failed));
        given[endpoint] += u32::from(second + 10 >= seconds);
    }
    given
}

#[test]
fn who_becomes_slow_gets_less_than_its_share_within_three_time_constants() {
    let first = |endpoint: usize, second: u64| {
        Duration::from_millis(if endpoint == 0 && second >= 60 { 2500 } else { 500 + 10 * endpoint as u64 })
    };
    let [slow, others @ ..] = play(60 + 90, first, |_, _| false);
    assert!(slow < 100 / 9, "{slow} against {others:?}: a third would be 33");
    let back = |endpoint: usize, second: u64| {
        Duration::from_millis(if endpoint == 0 && second < 60 { 2500 } else { 500 + 10 * endpoint as u64 })
    };
    let [back, others @ ..] = play(60 + 90, back, |_, _| false);
    assert!(back > 15, "{back} against {others:?}: it is found out again");
}

#[test]
fn who_fails_at_once_draws_no_traffic() {
    let [failing, others @ ..] = play(60, |_, _| Duration::from_millis(100), |endpoint, _| endpoint == 0);
    assert!(failing < 100 / 9, "{failing} against {others:?}");
}

#[test]
fn a_prompt_goes_where_it_belongs_until_that_is_too_much() {
    let now = Instant::now();
    let mut admission = admission(4, 1000);
    let mut go = |prompt: u64| match admission.ask(ask(4, Some(prompt), now), now, (0.0, 0.0, 0.0)) {
        Answer::Go { endpoint, why } => (endpoint, why),
        other => panic!("{other:?}"),
    };
    let (home, why) = go(1);
    assert_eq!(why, Pick::Affinity);
    // Alone it may have what is a quarter over its share of what is in flight: of everything, that is not much.
    let more: Vec<_> = (0..40).map(|_| go(1)).collect();
    let at_home = 1 + more.iter().filter(|(endpoint, _)| *endpoint == home).count();
    assert!((10..=14).contains(&at_home), "{at_home} of 41 where 1.25 times a quarter may be");
    assert!(more.iter().any(|(_, why)| *why == Pick::Overflow));
}

proptest! {
    /// Whatever comes and goes: what belongs somewhere is never given there beyond the bound, and the weights of what
    /// is in flight are gone when it is.
    #[test]
    fn the_bound_is_never_passed(
        endpoints in 1usize..6,
        calls in proptest::collection::vec((any::<u64>(), 0usize..20, 0usize..100_000), 1..200),
    ) {
        let now = Instant::now();
        let mut admission = admission(endpoints, 50);
        let mut running: Vec<(usize, u32)> = Vec::new();
        for (prompt, ends, bytes) in calls {
            for _ in 0..ends.min(running.len()) {
                let (endpoint, cost) = running.swap_remove(ends % running.len());
                admission.release(endpoint, cost, Duration::ZERO, now);
            }
            let before: Vec<usize> = (0..endpoints).map(|endpoint| admission.at(endpoint).1).collect();
            let ask = Ask { prompt_bytes: bytes, ..ask(endpoints, Some(prompt % 3), now) };
            if let Answer::Go { endpoint, why } = admission.ask(ask, now, (0.3, 0.6, 0.0)) {
                let most = (1.25 * (before.iter().sum::<usize>() + 1) as f64 / endpoints as f64).ceil() as usize;
                prop_assert!(why != Pick::Affinity || before[endpoint] < most, "{before:?}");
                running.push((endpoint, crate::policy::queue::cost(bytes)));
            }
        }
        for (endpoint, cost) in running.drain(..) {
            admission.release(endpoint, cost, Duration::ZERO, now);
        }
        prop_assert!(admission.endpoints.iter().all(|it| it.in_use == 0 && it.work == 0));
    }
}

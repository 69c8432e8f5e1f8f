//! Tables, and properties against models that know nothing of buckets.

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn limits(requests: Option<u64>, tokens: Option<u64>) -> RateLimits {
    RateLimits { requests, tokens }
}

/// A call whose prompt and answer are thought to be so many tokens together.
fn tokens(total: u64) -> Asked {
    Asked { prompt_bytes: 0, expected: Expected::AtMost(total), choices: 1 }
}

fn left(rate: &Rate, limit: Limit, now: Instant) -> u64 {
    rate.standing(now).find(|(which, _)| *which == limit).map(|(_, standing)| standing.remaining).unwrap()
}

fn counted(input: u64, output: u64) -> Cost {
    Cost::Counted { input: Some(input), output, whole: true }
}

#[test]
fn a_minute_s_worth_at_once_and_then_as_it_refills() {
    let start = Instant::now();
    let mut rate = Rate::new(limits(Some(6), None), start);
    for _ in 0..6 {
        assert!(rate.admit(&tokens(1), start).is_ok());
    }
    let over = rate.admit(&tokens(1), start).unwrap_err();
    assert_eq!(over, OverLimit { limit: Limit::Requests, a_minute: 6, retry_after: Duration::from_secs(10) });
    assert!(rate.admit(&tokens(1), start + Duration::from_secs(10)).is_ok());
    assert!(rate.admit(&tokens(1), start + Duration::from_secs(19)).is_err());
}

#[test]
fn a_refusal_charges_neither_limit() {
    let start = Instant::now();
    let mut rate = Rate::new(limits(Some(3), Some(100)), start);
    assert!(rate.admit(&tokens(90), start).is_ok());
    let over = rate.admit(&tokens(20), start).unwrap_err();
    assert_eq!((over.limit, over.a_minute, over.retry_after), (Limit::Tokens, 100, Duration::from_secs(6)));
    assert_eq!((left(&rate, Limit::Requests, start), left(&rate, Limit::Tokens, start)), (2, 10));
    for _ in 0..2 {
        assert!(rate.admit(&tokens(1), start).is_ok());
    }
    let over = rate.admit(&tokens(1), start).unwrap_err();
    assert_eq!((over.limit, left(&rate, Limit::Tokens, start)), (Limit::Requests, 8));
}

#[test]
fn the_longer_wait_is_told() {
    let start = Instant::now();
    let mut rate = Rate::new(limits(Some(1), Some(60)), start);
    assert!(rate.admit(&tokens(60), start).is_ok());
    let short = rate.admit(&tokens(30), start).unwrap_err();
    assert_eq!((short.limit, short.retry_after), (Limit::Requests, MINUTE), "tokens would be there in half of it");
}

#[test]
fn what_is_larger_than_a_minute_waits_for_a_full_bucket_and_leaves_a_debt() {
    let start = Instant::now();
    let mut rate = Rate::new(limits(None, Some(100)), start);
    let estimate = rate.admit(&tokens(250), start).unwrap();
    assert_eq!(left(&rate, Limit::Tokens, start), 0);
    assert_eq!(rate.admit(&tokens(1), start).unwrap_err().retry_after, Duration::from_millis(90_600));
    assert_eq!(rate.admit(&tokens(250), start).unwrap_err().retry_after, Duration::from_secs(150));
    rate.settle(&estimate, counted(10, 20), start);
    assert_eq!(left(&rate, Limit::Tokens, start), 70, "the rest came back");
}

#[test]
fn settling_puts_the_truth_in_the_place_of_the_guess() {
    let start = Instant::now();
    let ask = Asked { prompt_bytes: 400, expected: Expected::AtMost(300), choices: 2 };
    for (cost, charged) in [
        (Cost::Nothing, 0),
        (Cost::Prompt, 100),
        (Cost::Untold, 700),
        (counted(90, 10), 100),
        (counted(500, 900), 1400),
        (Cost::Counted { input: None, output: 7, whole: false }, 107),
    ] {
        let mut rate = Rate::new(limits(Some(10), Some(10_000)), start);
        let estimate = rate.admit(&ask, start).unwrap();
        assert_eq!((estimate.prompt, estimate.output, left(&rate, Limit::Tokens, start)), (100, 600, 9300));
        rate.settle(&estimate, cost, start);
        assert_eq!(left(&rate, Limit::Tokens, start), 10_000 - charged, "{cost:?}");
        assert_eq!(left(&rate, Limit::Requests, start), 9, "a request is a request");
    }
}

#[test]
fn nonsense_locks_nobody_out_for_ever() {
    let start = Instant::now();
    let mut rate = Rate::new(limits(None, Some(1000)), start);
    for _ in 0..3 {
        let Ok(estimate) = rate.admit(&tokens(10), start) else { break };
        rate.settle(&estimate, counted(u64::MAX, u64::MAX), start);
    }
    let wait = rate.admit(&tokens(1), start).unwrap_err().retry_after;
    assert!(wait <= 61 * MINUTE, "{wait:?}");
    assert!(rate.admit(&tokens(1), start + wait).is_ok());
}

#[test]
fn the_length_of_answers_is_learnt_for_each_choice() {
    let start = Instant::now();
    let mut rate = Rate::new(limits(None, Some(u64::MAX >> 24)), start);
    let asked = |choices| Asked { prompt_bytes: 0, expected: Expected::Usual, choices };
    assert_eq!(rate.estimate(&asked(1)).output, 512);
    for _ in 0..100 {
        let estimate = rate.admit(&asked(4), start).unwrap();
        rate.settle(&estimate, counted(5, 80), start);
    }
    assert_eq!((rate.estimate(&asked(1)).output, rate.estimate(&asked(3)).output), (21, 63));
    let before = rate.estimate(&asked(1));
    for cost in [Cost::Nothing, Cost::Prompt, Cost::Untold, Cost::Counted { input: None, output: 9000, whole: false }] {
        rate.settle(&before, cost, start);
    }
    assert_eq!(rate.estimate(&asked(1)), before, "what is not whole teaches nothing");
    let embedding = rate.estimate(&Asked { expected: Expected::Nothing, ..asked(1) });
    rate.settle(&embedding, counted(900, 0), start);
    assert_eq!((embedding.total(), rate.estimate(&asked(1))), (0, before));
}

#[test]
fn a_broken_answer_costs_what_came_of_it() {
    let usage = |input, output| Some(Usage { input, output });
    let told = |input, output, whole| Cost::Counted { input, output, whole };
    for (reported, events, whole, cost) in [
        (usage(10, 20), 7, true, told(Some(10), 20, true)),
        (usage(10, 1), 7, false, told(Some(10), 7, false)),
        (usage(10, 20), 7, false, told(Some(10), 20, false)),
        (usage(0, 0), 7, true, told(None, 7, true)),
        (None, 7, false, told(None, 7, false)),
        (None, 0, true, Cost::Untold),
        (usage(0, 0), 0, false, Cost::Prompt),
    ] {
        assert_eq!(Cost::of(reported, events, whole), cost, "{reported:?} {events} {whole}");
    }
}

/// A time that goes on by uneven steps, now and then by a leap.
fn step() -> impl Strategy<Value = Duration> {
    prop_oneof![
        8 => (0u64..3_000_000_000).prop_map(Duration::from_nanos),
        1 => (0u64..100).prop_map(|minutes| MINUTE * minutes as u32),
        1 => Just(Duration::from_secs(86_400 * 365)),
    ]
}

proptest! {
    #[test]
    fn no_span_admits_more_than_a_minute_s_worth_and_what_refilled(
        limit in 1u64..40, steps in prop::collection::vec((step(), 1u64..12), 1..120),
    ) {
        let mut now = Instant::now();
        let mut rate = Rate::new(limits(None, Some(limit)), now);
        let mut admitted: Vec<(Instant, u64)> = Vec::new();
        for (pause, amount) in steps {
            now += pause;
            let amount = amount.min(limit);
            if rate.admit(&tokens(amount), now).is_ok() {
                admitted.push((now, amount));
            }
        }
        for (from, (start, _)) in admitted.iter().enumerate() {
            let mut sum = 0;
            for (at, amount) in &admitted[from..] {
                sum += u128::from(*amount);
                let refilled = u128::from(limit) * (*at - *start).as_nanos() / 60_000_000_000;
                prop_assert!(sum <= u128::from(limit) + refilled, "{sum} of {limit} in {:?}", *at - *start);
            }
        }
    }

    #[test]
    fn a_refused_call_gets_in_when_it_was_told_to_come_and_not_before(
        requests in 1u64..20, per_minute in 1u64..5000,
        calls in prop::collection::vec((step(), 0u64..8000), 1..60),
    ) {
        let mut now = Instant::now();
        let mut rate = Rate::new(limits(Some(requests), Some(per_minute)), now);
        for (pause, amount) in calls {
            now += pause;
            if let Err(over) = rate.clone().admit(&tokens(amount), now) {
                let then = now + over.retry_after;
                prop_assert!(rate.clone().admit(&tokens(amount), then - Duration::from_nanos(1)).is_err());
                prop_assert!(rate.clone().admit(&tokens(amount), then).is_ok());
            }
            let _ = rate.admit(&tokens(amount), now);
        }
    }

    /// The model: an account in whole tokens that is never full, into which a minute's worth is paid each minute.
    #[test]
    fn reserving_and_settling_lose_and_invent_nothing(
        calls in prop::collection::vec((0u64..500, 0u64..500, any::<prop::sample::Index>(), any::<bool>()), 1..80),
    ) {
        let start = Instant::now();
        let limit = 1_000_000;
        let mut rate = Rate::new(limits(None, Some(limit)), start);
        let mut open: Vec<(Estimate, u64)> = Vec::new();
        let (mut minutes, mut account) = (0u32, i64::try_from(limit).unwrap());
        // Spent beforehand, so that what refills and comes back has room.
        let first = rate.admit(&tokens(limit), start).unwrap();
        account -= i64::try_from(first.total()).unwrap();
        for (guess, cost, which, later) in calls {
            if later && minutes == 0 {
                minutes += 1;
                account += i64::try_from(limit / 2).unwrap();
            }
            let now = start + MINUTE / 2 * minutes;
            if let Ok(estimate) = rate.admit(&tokens(guess), now) {
                account -= i64::try_from(guess).unwrap();
                open.push((estimate, cost));
            }
            if !open.is_empty() && which.index(2) == 0 {
                let (estimate, cost) = open.swap_remove(which.index(open.len()));
                rate.settle(&estimate, counted(0, cost), now);
                account += i64::try_from(estimate.total()).unwrap() - i64::try_from(cost).unwrap();
            }
            prop_assert_eq!(i64::try_from(left(&rate, Limit::Tokens, now)).unwrap(), account.max(0));
        }
    }

    #[test]
    fn nothing_overflows(
        limit in 1u64.., calls in prop::collection::vec((step(), any::<u64>(), any::<u64>(), any::<u64>()), 1..20),
    ) {
        let mut now = Instant::now();
        let mut rate = Rate::new(limits(Some(limit), Some(limit)), now);
        for (pause, guess, cost, choices) in calls {
            now += pause;
            let asked = Asked { prompt_bytes: usize::MAX, expected: Expected::AtMost(guess), choices };
            if let Ok(estimate) = rate.admit(&asked, now) {
                rate.settle(&estimate, counted(cost, cost), now);
            }
            for (_, standing) in rate.standing(now) {
                prop_assert!(standing.remaining <= standing.limit);
            }
        }
    }
}

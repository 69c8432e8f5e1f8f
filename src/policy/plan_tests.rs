//! The plan against tables of what should follow what, and against its invariants under random histories.

use super::*;
use crate::call::Retry;
use crate::policy::{Backoff, RetrySettings, StreamSettings, Target, Timeouts};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn route(targets: &[&[usize]]) -> RouteSettings {
    RouteSettings {
        name: "chat".into(),
        model: "*".into(),
        targets: targets.iter().map(|endpoints| Target::of(endpoints.to_vec())).collect(),
        timeouts: Timeouts::default(),
        retry: RetrySettings {
            attempts: 3,
            budget: 0.2,
            backoff: Backoff { base: SECOND, max: 8 * SECOND },
            respect_retry_after: true,
        },
        max_sends: 4,
        queue_wait: 5 * SECOND,
        hedge: crate::policy::HedgeSettings::default(),
        streams: StreamSettings::default(),
    }
}

fn terms(now: Instant) -> Terms {
    Terms {
        deadline: now + 120 * SECOND,
        options: Options::default(),
        replayable: true,
        streamed: true,
        prompt_bytes: 100,
    }
}

fn fail(class: Class) -> Failure {
    Failure::new(class, "")
}

/// Drives a plan through failures at once after each start; answers the sends it made and the waits between them.
fn story(
    route: &RouteSettings,
    terms: Terms,
    now: Instant,
    failures: &[Failure],
) -> Vec<(usize, AttemptKind, Duration)> {
    let mut plan = Plan::new(route, terms);
    let (mut time, mut last, mut told) = (now, now, Vec::new());
    loop {
        match plan.next(time, &mut |_| true) {
            Step::Start { target, kind } => {
                let n = told.len();
                told.push((target, kind, time - last));
                last = time;
                let pool = &route.targets[target].endpoints;
                let used = plan.used();
                let endpoint = pool.iter().find(|e| !used.contains(e)).or(pool.first()).copied();
                plan.dispatched(n, endpoint.unwrap_or(0), time);
                match failures.get(n) {
                    Some(failure) => plan.failed(n, failure, time, 0.5),
                    None => return told,
                }
            }
            Step::Wait(until) => time = until,
            Step::Drop { attempt, class } => plan.failed(attempt, &fail(class), time, 0.5),
            Step::Stop | Step::Hedge { .. } => return told,
        }
    }
}

#[test]
fn a_target_that_is_down_comes_last_and_is_not_forgotten() {
    let (route, now) = (route(&[&[0], &[1], &[2]]), Instant::now());
    let order = |down: &[usize]| {
        let mut plan = Plan::new(&route, terms(now)).passing_over(down.to_vec());
        let mut targets = Vec::new();
        while let Step::Start { target, kind } = plan.next(now, &mut |_| true) {
            plan.dispatched(targets.len(), target, now);
            plan.failed(targets.len(), &fail(Class::UpstreamQuota), now, 0.5);
            targets.push(target);
            assert_eq!(kind == AttemptKind::First, target == 0 && targets.len() == 1, "{down:?}");
        }
        targets
    };
    for (down, asked) in
        [(&[][..], [0, 1, 2]), (&[0], [1, 2, 0]), (&[1], [0, 2, 1]), (&[0, 1], [2, 0, 1]), (&[0, 1, 2], [0, 1, 2])]
    {
        assert_eq!(order(down), asked, "{down:?}");
    }
}

#[test]
fn an_endpoint_that_is_down_is_no_other_of_its_pool() {
    let (route, now) = (route(&[&[0, 1]]), Instant::now());
    let twins = |down: &[usize]| {
        let mut plan = Plan::new(&route, terms(now)).passing_over(down.to_vec());
        assert!(matches!(plan.next(now, &mut |_| true), Step::Start { .. }));
        plan.dispatched(0, 0, now);
        matches!(plan.next(now + 11 * SECOND, &mut |_| true), Step::Start { kind: AttemptKind::Hedge, .. })
    };
    assert!(twins(&[]) && twins(&[0, 1]), "where all are down it says nothing");
    assert!(!twins(&[1]));
}

#[test]
fn a_failing_target_is_repeated_and_then_the_next_is_asked() {
    let (route, now) = (route(&[&[0], &[1]]), Instant::now());
    let failures = vec![fail(Class::Upstream500); 9];
    let told = story(&route, terms(now), now, &failures);
    use AttemptKind::*;
    let half = SECOND / 2;
    assert_eq!(told, [(0, First, Duration::ZERO), (0, Retry, half), (0, Retry, SECOND), (1, Fallback, Duration::ZERO)]);
}

fn start(target: usize, kind: AttemptKind) -> Step {
    Step::Start { target, kind }
}

#[test]
fn who_said_not_to_come_again_is_left_to_himself() {
    let (route, now) = (route(&[&[0, 1]]), Instant::now());
    let quota = fail(Class::UpstreamQuota);
    let wait = Failure { retry_after: Some(5 * SECOND), ..fail(Class::RateLimited) };
    for (failure, until) in [(quota, 120 * SECOND), (wait, 5 * SECOND)] {
        let mut plan = Plan::new(&route, terms(now));
        assert_eq!(plan.next(now, &mut |_| true), start(0, AttemptKind::First));
        plan.dispatched(0, 0, now);
        plan.failed(0, &failure, now, 0.0);
        assert_eq!(plan.next(now, &mut |_| true), start(0, AttemptKind::Retry));
        plan.dispatched(1, 1, now);
        plan.failed(1, &fail(Class::Upstream500), now, 0.5);
        let Step::Wait(later) = plan.next(now, &mut |_| true) else { panic!("the other one is repeated") };
        assert_eq!(plan.next(later, &mut |_| true), start(0, AttemptKind::Retry));
        assert_eq!(plan.barred(later), [0], "{failure:?}");
        assert!(plan.barred(now + until).is_empty(), "{failure:?}");
    }
}

#[test]
fn a_twin_counts_among_the_sends_of_its_target() {
    let (mut route, now) = (route(&[&[0, 1]]), Instant::now());
    for (attempts, twin) in [(1, false), (2, true)] {
        route.retry.attempts = attempts;
        let mut plan = Plan::new(&route, terms(now));
        plan.next(now, &mut |_| true);
        plan.dispatched(0, 0, now);
        let Step::Wait(silent) = plan.next(now, &mut |_| true) else { panic!("it is waited for") };
        assert_eq!(plan.next(silent, &mut |_| true) == start(0, AttemptKind::Hedge), twin, "{attempts}");
    }
}

#[test]
fn who_is_held_back_is_passed_over() {
    let (route, now) = (route(&[&[0], &[1, 2], &[3]]), Instant::now());
    let first = |shut: &[usize], terms: Terms| {
        let mut plan = Plan::new(&route, terms);
        plan.see(shut.iter().map(|endpoint| (*endpoint, now + SECOND)).collect());
        (plan.next(now, &mut |_| false), plan.claimed())
    };
    assert_eq!(first(&[1, 2, 3], terms(now)), (start(0, AttemptKind::First), 1));
    assert_eq!(first(&[0, 1], terms(now)), (start(1, AttemptKind::Fallback), 1));
    assert_eq!(first(&[0, 1, 2], terms(now)), (start(2, AttemptKind::Fallback), 1));
    assert_eq!(first(&[0, 1, 2, 3], terms(now)), (Step::Stop, 0));
    let options = Options { no_fallback: true, ..Options::default() };
    assert_eq!(first(&[0], Terms { options, ..terms(now) }), (Step::Stop, 0));
}

#[test]
fn a_refusal_at_the_last_moment_was_no_send() {
    let (route, now) = (route(&[&[0], &[1]]), Instant::now());
    let mut plan = Plan::new(&route, terms(now));
    assert_eq!(plan.next(now, &mut |_| false), start(0, AttemptKind::First));
    plan.see(vec![(0, now + SECOND)]);
    plan.failed(0, &fail(Class::BreakerOpen), now, 0.5);
    assert_eq!(plan.next(now, &mut |_| false), start(1, AttemptKind::Fallback));
    plan.dispatched(1, 1, now);
    assert_eq!((plan.sends(), plan.claimed(), plan.used()), (1, 1, vec![1]));
}

#[test]
fn a_refused_move_leads_back_to_where_the_call_was() {
    let (mut route, now) = (route(&[&[0], &[1]]), Instant::now());
    // With somebody else to ask, so long a wait is not worth it.
    route.retry.backoff = Backoff { base: 20 * SECOND, max: 20 * SECOND };
    let limited = Failure { retry_after: Some(25 * SECOND), ..fail(Class::RateLimited) };
    let mut plan = Plan::new(&route, Terms { deadline: now + 60 * SECOND, ..terms(now) });
    plan.next(now, &mut |_| true);
    plan.dispatched(0, 0, now);
    plan.failed(0, &limited, now, 0.5);
    assert_eq!(plan.next(now, &mut |_| true), start(1, AttemptKind::Fallback));
    plan.see(vec![(1, now + SECOND)]);
    plan.failed(1, &fail(Class::BreakerOpen), now, 0.5);
    assert_eq!(plan.next(now, &mut |_| true), Step::Wait(now + 25 * SECOND));
    let later = now + 25 * SECOND;
    assert_eq!(plan.next(later, &mut |_| true), start(0, AttemptKind::Retry));
    assert_eq!(plan.claimed(), 2);
}

#[test]
fn refusals_without_end_end_the_call() {
    let (route, now) = (route(&[&[0]]), Instant::now());
    let mut plan = Plan::new(&route, terms(now));
    let mut starts = 0;
    while let Step::Start { .. } = plan.next(now, &mut |_| true) {
        starts += 1;
        plan.failed(starts - 1, &fail(Class::BreakerOpen), now, 0.5);
    }
    assert_eq!((starts, plan.sends()), (after::MOST_REFUSALS + 1, 0));
}

#[test]
fn who_has_spoken_is_silent_no_longer_and_sends_are_counted_down() {
    let (route, now) = (route(&[&[0, 1], &[2]]), Instant::now());
    let mut plan = Plan::new(&route, terms(now));
    assert_eq!(plan.left(), 4);
    assert!(matches!(plan.next(now, &mut |_| true), Step::Start { .. }));
    plan.dispatched(0, 0, now);
    plan.head(0);
    plan.spoke(0);
    assert_eq!(plan.left(), 3);
    let late = now + 60 * SECOND;
    assert_eq!(plan.next(late, &mut |_| true), Step::Wait(now + 120 * SECOND), "no twin, whatever time passes");
    assert_eq!(plan.standing(0, late), None);
    plan.failed(0, &fail(Class::StreamTruncated), late, 0.5);
    assert!(matches!(plan.next(late + 10 * SECOND, &mut |_| true), Step::Start { kind: AttemptKind::Retry, .. }));
    let once = Plan::new(&route, Terms { replayable: false, ..terms(now) });
    assert_eq!(once.left(), 0, "what can be sent once is not sent again");
}

#[test]
fn who_cannot_be_reached_is_not_asked_until_nothing_is_left_for_the_next() {
    let (route, now) = (route(&[&[0], &[1]]), Instant::now());
    use AttemptKind::*;
    for class in [Class::DnsFailure, Class::ConnectTimeout, Class::ConnectRefused, Class::ResetBeforeResponse] {
        let failures = vec![Failure { unsent: true, ..fail(class) }; 9];
        let told = story(&route, terms(now), now, &failures);
        assert_eq!(told.last().map(|(target, kind, _)| (*target, *kind)), Some((1, Fallback)), "{class}: {told:?}");
        let at_once = told[1].2.is_zero();
        assert_eq!(at_once, class == Class::ResetBeforeResponse, "{class}: {told:?}");
    }
    let few = RouteSettings { max_sends: 2, ..route };
    let told = story(&few, terms(now), now, &vec![fail(Class::Upstream500); 9]);
    assert_eq!(told[1].1, Fallback, "the last send is for who has not failed yet");
    let most = Terms { options: Options { retries: Some(u32::MAX), ..Options::default() }, ..terms(now) };
    assert_eq!(story(&few, most, now, &vec![fail(Class::Upstream500); 9]).len(), 2);
}

#[test]
fn what_cannot_help_is_not_sent() {
    let now = Instant::now();
    // A refusal is no send; it has tests of its own.
    for class in Class::ALL.iter().copied().filter(|class| *class != Class::BreakerOpen) {
        let told = story(&route(&[&[0]]), terms(now), now, &vec![fail(class); 9]);
        let expected = match class.retry() {
            Retry::Never | Retry::Elsewhere => 1,
            Retry::Once => 2,
            Retry::Again => 3,
        };
        assert_eq!(told.len(), expected, "{class}");
        let told = story(&route(&[&[0], &[1]]), terms(now), now, &vec![fail(class); 9]);
        assert_eq!(told.len() > 1, class.retry() != Retry::Never, "{class} with a fallback");
    }
}

#[test]
fn an_asked_wait_is_kept_when_there_is_time_and_left_when_there_is_not() {
    let now = Instant::now();
    let limited = |secs| Failure { retry_after: Some(secs * SECOND), ..fail(Class::RateLimited) };
    let alone = route(&[&[0]]);
    assert_eq!(
        story(&alone, terms(now), now, &[limited(2)]),
        [(0, AttemptKind::First, Duration::ZERO), (0, AttemptKind::Retry, 2 * SECOND)]
    );
    assert_eq!(story(&alone, terms(now), now, &[limited(86_400)]).len(), 1, "a day is not waited for");
    let short = Terms { deadline: now + 2 * SECOND, ..terms(now) };
    assert_eq!(story(&alone, short, now, &[limited(2)]).len(), 1, "a wait past the deadline is not begun");
    let two = route(&[&[0], &[1]]);
    let told = story(&two, terms(now), now, &[limited(40)]);
    assert_eq!(told[1], (1, AttemptKind::Fallback, Duration::ZERO), "too long a wait moves on at once");
    let deaf = RouteSettings { retry: RetrySettings { respect_retry_after: false, ..alone.retry }, ..alone };
    assert_eq!(story(&deaf, terms(now), now, &[limited(20)])[1].2, SECOND * 3 / 4, "equal jitter instead");
}

#[test]
fn a_pool_s_other_endpoint_goes_first_and_at_once_for_a_spent_credential() {
    let now = Instant::now();
    let pool = route(&[&[0, 1]]);
    let told = story(&pool, terms(now), now, &[fail(Class::UpstreamQuota), fail(Class::UpstreamQuota)]);
    assert_eq!(told.iter().map(|(_, _, wait)| *wait).collect::<Vec<_>>(), [Duration::ZERO, Duration::ZERO]);
    let asked = Failure { retry_after: Some(20 * SECOND), ..fail(Class::RateLimited) };
    assert_eq!(story(&pool, terms(now), now, &[asked])[1].2, SECOND / 2, "the other endpoint asked for no wait");
}

#[test]
fn a_stale_connection_is_repeated_once_for_nothing() {
    let now = Instant::now();
    let stale = Failure { unsent: true, ..fail(Class::ResetBeforeResponse) };
    let told = story(&route(&[&[0]]), terms(now), now, &vec![stale; 9]);
    assert_eq!(told[1].2, Duration::ZERO);
    assert_eq!(told.len(), 4, "one for nothing, then the target's own three");
}

#[test]
fn the_same_500_twice_closes_a_target() {
    let now = Instant::now();
    let same = Failure { fingerprint: Some(7), ..fail(Class::Upstream500) };
    assert_eq!(story(&route(&[&[0]]), terms(now), now, &vec![same.clone(); 9]).len(), 2);
    let other = Failure { fingerprint: Some(8), ..same.clone() };
    assert_eq!(story(&route(&[&[0]]), terms(now), now, &[same.clone(), other, same]).len(), 3);
}

#[test]
fn an_empty_budget_moves_to_the_next_target_or_stops() {
    let now = Instant::now();
    for (targets, then) in
        [(&[&[0usize][..], &[1]][..], Step::Start { target: 1, kind: AttemptKind::Fallback }), (&[&[0]], Step::Stop)]
    {
        let route = route(targets);
        let mut plan = Plan::new(&route, terms(now));
        assert_eq!(plan.next(now, &mut |_| false), Step::Start { target: 0, kind: AttemptKind::First });
        plan.dispatched(0, 0, now);
        plan.failed(0, &fail(Class::Upstream500), now, 0.0);
        assert_eq!(plan.next(now, &mut |_| false), then);
    }
}

#[test]
fn silence_starts_a_twin_and_ends_nobody() {
    let (route, now) = (route(&[&[0], &[1]]), Instant::now());
    let mut plan = Plan::new(&route, terms(now));
    let mut pay = |_| true;
    plan.next(now, &mut pay);
    plan.dispatched(0, 0, now);
    plan.head(0);
    assert_eq!(plan.next(now, &mut pay), Step::Wait(now + 10 * SECOND));
    assert_eq!(plan.standing(0, now + 9 * SECOND), None);
    let later = now + 10 * SECOND;
    assert_eq!(plan.next(later, &mut pay), Step::Start { target: 1, kind: AttemptKind::Fallback });
    plan.dispatched(1, 1, later);
    assert_eq!(plan.standing(0, later), Some(Class::FirstTokenTimeout));
    // Nobody else is left: both are waited for until the deadline, however silent.
    for seconds in [20, 30, 40, 100] {
        assert!(matches!(plan.next(now + seconds * SECOND, &mut pay), Step::Wait(_)), "after {seconds} s");
    }
    assert_eq!(plan.next(now + 100 * SECOND, &mut pay), Step::Wait(now + 120 * SECOND));
    // The twin fails: the slow one still has the word.
    plan.failed(1, &fail(Class::Upstream500), now + 40 * SECOND, 0.5);
    assert!(matches!(plan.next(now + 40 * SECOND, &mut pay), Step::Wait(_)));
}

#[test]
fn a_missing_head_is_given_up_only_where_another_can_be_asked() {
    let now = Instant::now();
    let mut two = route(&[&[0], &[1]]);
    two.timeouts.headers = SECOND;
    let mut plan = Plan::new(&two, terms(now));
    plan.next(now, &mut |_| true);
    plan.dispatched(0, 0, now);
    let step = plan.next(now + SECOND, &mut |_| true);
    assert_eq!(step, Step::Drop { attempt: 0, class: Class::HeadersTimeout });
    plan.failed(0, &fail(Class::HeadersTimeout), now + SECOND, 0.5);
    let step = plan.next(now + SECOND, &mut |_| true);
    assert_eq!(step, Step::Start { target: 1, kind: AttemptKind::Fallback }, "not the silent one again");
    plan.dispatched(1, 1, now + SECOND);
    assert!(matches!(plan.next(now + 5 * SECOND, &mut |_| true), Step::Wait(_)), "the last is waited for");
}

#[test]
fn a_whole_answer_is_silent_by_nature() {
    let (route, now) = (route(&[&[0], &[1]]), Instant::now());
    let mut plan = Plan::new(&route, Terms { streamed: false, ..terms(now) });
    plan.next(now, &mut |_| true);
    plan.dispatched(0, 0, now);
    assert_eq!(plan.next(now, &mut |_| true), Step::Wait(now + 30 * SECOND), "headers is its patience");
    let step = plan.next(now + 30 * SECOND, &mut |_| true);
    assert_eq!(step, Step::Start { target: 1, kind: AttemptKind::Fallback });
}

#[test]
fn clients_may_tighten() {
    let (two, now) = (route(&[&[0], &[1]]), Instant::now());
    let with = |options| Terms { options, ..terms(now) };
    let failures = vec![fail(Class::Upstream500); 9];
    let none = with(Options { retries: Some(0), ..Options::default() });
    assert_eq!(story(&two, none, now, &failures).len(), 1);
    let here = with(Options { no_fallback: true, ..Options::default() });
    assert!(story(&two, here, now, &failures).iter().all(|(target, ..)| *target == 0));
    let mut plan = Plan::new(&two, with(Options { no_hedge: true, ..Options::default() }));
    plan.next(now, &mut |_| true);
    plan.dispatched(0, 0, now);
    plan.head(0);
    let step = plan.next(now + 10 * SECOND, &mut |_| true);
    assert_eq!(step, Step::Drop { attempt: 0, class: Class::FirstTokenTimeout }, "one after the other, not beside");
}

#[test]
fn waiting_for_a_place_is_not_silence() {
    let (route, now) = (route(&[&[0], &[1]]), Instant::now());
    let mut plan = Plan::new(&route, terms(now));
    plan.next(now, &mut |_| true);
    assert_eq!(plan.next(now + 60 * SECOND, &mut |_| true), Step::Wait(now + 120 * SECOND));
    assert_eq!((plan.standing(0, now + 60 * SECOND), plan.sends()), (None, 0));
    plan.dispatched(0, 0, now + 60 * SECOND);
    assert_eq!(plan.next(now + 60 * SECOND, &mut |_| true), Step::Wait(now + 70 * SECOND), "its clock starts now");
    assert_eq!(plan.sends(), 1);
}

#[test]
fn a_target_without_a_place_is_left_for_the_next_and_costs_no_send() {
    let now = Instant::now();
    let mut three = route(&[&[0], &[1, 2], &[3]]);
    three.max_sends = 1;
    let mut plan = Plan::new(&three, terms(now));
    plan.next(now, &mut |_| true);
    for (attempt, target) in [(0, 1), (1, 2)] {
        plan.failed(attempt, &fail(Class::QueueFull), now, 0.5);
        assert_eq!(plan.next(now, &mut |_| true), Step::Start { target, kind: AttemptKind::Fallback });
    }
    plan.failed(2, &fail(Class::QueueTimeout), now, 0.5);
    assert_eq!(plan.next(now, &mut |_| true), Step::Stop);
    assert_eq!(plan.sends(), 0);
}

#[test]
fn a_twin_without_a_place_leaves_the_slow_one_its_word() {
    let (pool, now) = (route(&[&[0, 1]]), Instant::now());
    let mut plan = Plan::new(&pool, terms(now));
    plan.next(now, &mut |_| true);
    plan.dispatched(0, 0, now);
    plan.head(0);
    let later = now + 10 * SECOND;
    assert_eq!(plan.next(later, &mut |_| true), Step::Start { target: 0, kind: AttemptKind::Hedge });
    plan.failed(1, &fail(Class::QueueFull), later, 0.5);
    assert!(matches!(plan.next(later, &mut |_| true), Step::Wait(_)));
    plan.failed(0, &fail(Class::Upstream500), later, 0.0);
    assert_eq!(plan.next(later, &mut |_| true), Step::Start { target: 0, kind: AttemptKind::Retry });
}

#[derive(Clone, Debug)]
enum Event {
    Fail(usize, usize, u64),
    Pass(u64),
    Head(usize),
    /// These endpoints are held back for so many milliseconds.
    Shut(u16, u64),
    Dispatch(usize),
    /// It cannot serve the call, and these others cannot either.
    Lack(usize, u16),
}

proptest! {
    /// Whatever happens: sends stay under the cap, none starts at or after the deadline, none is made for a class
    /// that forbids it or where a breaker holds it back, every repeat was paid for, and the machine always ends.
    #[test]
    fn invariants_hold_under_any_history(
        shape in proptest::collection::vec(1usize..4, 1..4),
        cap in 1u32..7,
        budget in 0u32..5,
        down in proptest::collection::vec(0usize..9, 0..5),
        events in proptest::collection::vec(prop_oneof![
            (0usize..8, 0usize..Class::ALL.len(), 0u64..50).prop_map(|(n, class, after)| Event::Fail(n, class, after)),
            (0u64..40_000).prop_map(Event::Pass),
            (0usize..8).prop_map(Event::Head),
            (any::<u16>(), 0u64..5_000).prop_map(|(which, millis)| Event::Shut(which, millis)),
            (0usize..8).prop_map(Event::Dispatch),
            (0usize..8, any::<u16>()).prop_map(|(n, others)| Event::Lack(n, others)),
        ], 0..40),
        late_after in 0u64..20_000,
        hedging in any::<bool>(),
    ) {
        let mut number = 0..;
        let targets: Vec<Vec<usize>> = shape.iter().map(|size| number.by_ref().take(*size).collect()).collect();
        let refs: Vec<&[usize]> = targets.iter().map(Vec::as_slice).collect();
        let route = RouteSettings { max_sends: cap, ..route(&refs) };
        let start = Instant::now();
        let terms = terms(start);
        let mut plan = Plan::new(&route, terms.clone()).passing_over(down.clone());
        let (mut now, mut left, mut paid, mut repeats, mut running) = (start, budget, 0u32, 0u32, Vec::new());
        let (mut forbidden, mut made, mut out) = (false, Vec::new(), Vec::new());
        let (mut kinds, mut shut) = (Vec::new(), Vec::new());
        let (mut unfit, mut hedges): (Vec<usize>, u32) = (Vec::new(), 0);
        let mut events = events.into_iter();
        for _ in 0..500 {
            let step = plan.next(now, &mut |_| { let ok = left > 0; if ok { left -= 1; paid += 1; } ok });
            match step {
                Step::Start { target, kind } => {
                    prop_assert!(now < terms.deadline);
                    prop_assert!(!forbidden || !running.is_empty(), "a send after a class that forbids it");
                    prop_assert!(targets[target].iter().any(|at| !shut.iter().any(|(s, until)| s == at && *until > now)));
                    let repeat = matches!(kind, AttemptKind::Retry | AttemptKind::Hedge);
                    repeats += u32::from(repeat);
                    let n = made.len();
                    kinds.push(repeat);
                    made.push(targets[target][n % targets[target].len()]);
                    prop_assert!(targets[target].iter().any(|at| !unfit.contains(at)), "sent to who cannot serve it");
                    if n % 2 == 0 {
                        plan.dispatched(n, made[n], now);
                        plan.late_at(n, now + Duration::from_millis(late_after));
                        out.push(n);
                    }
                    running.push(n);
                }
                Step::Hedge { target } => {
                    prop_assert!(running.len() == 1, "beside nothing, or beside two");
                    let other = targets[target].iter().find(|at| !unfit.contains(at) && !plan.used().contains(at));
                    prop_assert!(other.is_some(), "nobody else in the pool");
                    if hedging {
                        hedges += 1;
                        plan.hedge(target);
                        kinds.push(false);
                        running.push(made.len());
                        made.push(*other.unwrap());
                    }
                }
                Step::Drop { attempt, class } => {
                    prop_assert!(running.contains(&attempt));
                    running.retain(|n| *n != attempt);
                    plan.failed(attempt, &fail(class), now, 0.5);
                }
                Step::Stop => break,
                Step::Wait(until) => {
                    prop_assert!(until > now && until <= terms.deadline, "a wait that passes");
                    match events.next() {
                        Some(Event::Fail(n, class, after)) if running.contains(&n) => {
                            // What has not gone out can only be refused a place, or not be let through.
                            let refused = if class % 2 == 0 { Class::QueueFull } else { Class::BreakerOpen };
                            let class = if out.contains(&n) { Class::ALL[class] } else { refused };
                            let failure = Failure { retry_after: Some(Duration::from_secs(after)), ..fail(class) };
                            running.retain(|other| *other != n);
                            forbidden |= class.retry() == Retry::Never;
                            // What was not let through was no repeat.
                            let held_back = class == Class::BreakerOpen && !out.contains(&n);
                            repeats -= u32::from(held_back && kinds[n]);
                            plan.failed(n, &failure, now, 0.5);
                        }
                        Some(Event::Pass(millis)) => now = until.min(now + Duration::from_millis(millis)),
                        Some(Event::Head(n)) if out.contains(&n) => plan.head(n),
                        Some(Event::Shut(which, millis)) => {
                            let until = now + Duration::from_millis(millis);
                            shut = (0..16).filter(|at| which >> at & 1 == 1).map(|at| (at, until)).collect();
                            plan.see(shut.clone());
                        }
                        Some(Event::Lack(n, others)) if out.contains(&n) && running.contains(&n) => {
                            running.retain(|other| *other != n);
                            unfit.push(made[n]);
                            unfit.extend((0..16).filter(|at| others >> at & 1 == 1));
                            plan.pass_over(unfit.clone());
                            let lacks = Some(crate::call::Lack::Window(None));
                            plan.failed(n, &Failure { lacks, ..fail(Class::ContextOverflow) }, now, 0.5);
                        }
                        Some(Event::Dispatch(n)) if running.contains(&n) && !out.contains(&n) => {
                            plan.dispatched(n, made[n], now);
                            out.push(n);
                        }
                        _ => now = until,
                    }
                }
            }
        }
        prop_assert!(plan.sends() <= cap, "{} sends of {cap}", plan.sends());
        prop_assert!(hedges <= 1);
        let is_down = |target: &Vec<usize>| target.iter().all(|endpoint| down.contains(endpoint));
        let first = targets.iter().position(|target| !is_down(target)).unwrap_or(0);
        prop_assert!(made.first().is_some_and(|endpoint| targets[first].contains(endpoint)), "who is first");
        prop_assert!(repeats <= paid + 1, "{repeats} repeats, {paid} paid");
        prop_assert!(matches!(plan.next(now.max(terms.deadline), &mut |_| true), Step::Stop));
    }
}

#[cfg(test)]
#[path = "plan_onward_tests.rs"]
mod onward;

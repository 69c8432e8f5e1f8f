//! The plan where a model lacks something, and where a first send is late.

use super::*;
use crate::call::{Capability, Lack};

fn lacks(lack: Lack) -> Failure {
    Failure { lacks: Some(lack), ..fail(Class::ContextOverflow) }
}

/// What follows a refusal of the only send so far, by the first endpoint of the first target.
fn after_a_refusal(route: &RouteSettings, unfit: &[usize], terms: Terms, lack: Lack) -> Step {
    let now = terms.deadline - 120 * SECOND;
    let mut plan = Plan::new(route, terms);
    assert_eq!(plan.next(now, &mut |_| true), start(0, AttemptKind::First));
    plan.dispatched(0, 0, now);
    plan.pass_over(unfit.to_vec());
    plan.failed(0, &lacks(lack), now, 0.5);
    plan.next(now, &mut |_| true)
}

#[test]
fn a_refusal_for_what_is_lacking_moves_on_to_who_may_have_it() {
    let (route, now) = (route(&[&[0, 1], &[2], &[3]]), Instant::now());
    use AttemptKind::*;
    for (unfit, next) in [
        (&[0][..], start(0, Retry)),
        (&[0, 1], start(1, Fallback)),
        (&[0, 1, 2], start(2, Fallback)),
        (&[0, 1, 2, 3], Step::Stop),
    ] {
        for lack in [Lack::Window(Some(8000)), Lack::Window(None), Lack::Of(Capability::Tools)] {
            assert_eq!(after_a_refusal(&route, unfit, terms(now), lack), next, "{unfit:?}");
        }
    }
    let only = |options| after_a_refusal(&route, &[0, 1], Terms { options, ..terms(now) }, Lack::Window(None));
    assert_eq!(only(Options { no_fallback: true, ..Options::default() }), Step::Stop);
    assert_eq!(only(Options { retries: Some(0), ..Options::default() }), Step::Stop);
    let once = Terms { replayable: false, ..terms(now) };
    assert_eq!(after_a_refusal(&route, &[0, 1], once, Lack::Window(None)), Step::Stop);
}

#[test]
fn any_other_fault_of_the_caller_s_stays_where_it_is() {
    let (route, now) = (route(&[&[0], &[1]]), Instant::now());
    for class in [Class::ContentFilter, Class::Upstream400, Class::ContextOverflow, Class::Refusal, Class::LengthCap] {
        assert_eq!(story(&route, terms(now), now, &[fail(class)]), [(0, AttemptKind::First, Duration::ZERO)]);
    }
}

#[test]
fn who_cannot_serve_the_call_is_never_asked() {
    let (route, now) = (route(&[&[0], &[1, 2], &[3]]), Instant::now());
    let first = |unfit: &[usize]| {
        let mut plan = Plan::new(&route, terms(now));
        plan.pass_over(unfit.to_vec());
        plan.next(now, &mut |_| true)
    };
    assert_eq!(first(&[0]), start(1, AttemptKind::Fallback));
    assert_eq!(first(&[0, 1]), start(1, AttemptKind::Fallback));
    assert_eq!(first(&[0, 1, 2]), start(2, AttemptKind::Fallback));
    assert_eq!(first(&[0, 1, 2, 3]), Step::Stop);
}

#[test]
fn a_first_send_that_is_late_gets_one_beside_it() {
    let (route, now) = (route(&[&[0, 1], &[2]]), Instant::now());
    let late = now + SECOND;
    let sent = |terms: Terms| {
        let mut plan = Plan::new(&route, terms);
        assert_eq!(plan.next(now, &mut |_| true), start(0, AttemptKind::First));
        plan.dispatched(0, 0, now);
        plan.late_at(0, late);
        plan
    };
    let mut plan = sent(terms(now));
    assert_eq!(plan.next(now, &mut |_| true), Step::Wait(late));
    assert_eq!(plan.next(late, &mut |_| panic!("hedging has its own budget")), Step::Hedge { target: 0 });
    // Not allowed: nothing more is asked, and its patience goes on as ever.
    assert_eq!(plan.next(late, &mut |_| true), Step::Wait(now + 10 * SECOND));
    assert_eq!(plan.next(now + 10 * SECOND, &mut |_| true), start(0, AttemptKind::Hedge));

    let mut plan = sent(terms(now));
    assert_eq!(plan.next(late, &mut |_| true), Step::Hedge { target: 0 });
    plan.hedge(0);
    plan.dispatched(1, 1, late);
    plan.late_at(1, late + SECOND);
    assert_eq!(plan.next(late, &mut |_| true), Step::Wait(now + 10 * SECOND), "one hedge and no second");
    assert_eq!(plan.standing(0, late + SECOND), None, "to lose is no failure");

    let off = Options { no_hedge: true, ..Options::default() };
    for terms in [
        Terms { options: off, ..terms(now) },
        Terms { streamed: false, ..terms(now) },
        Terms { replayable: false, ..terms(now) },
        Terms { options: Options { retries: Some(0), ..Options::default() }, ..terms(now) },
    ] {
        assert!(!matches!(sent(terms).next(late, &mut |_| true), Step::Hedge { .. }));
    }
    let mut plan = sent(terms(now));
    plan.see(vec![(1, late + SECOND)]);
    assert_eq!(plan.next(late, &mut |_| true), Step::Wait(now + 10 * SECOND), "nobody else in the pool");
}

#[test]
fn a_repeat_is_not_hedged() {
    let (route, now) = (route(&[&[0, 1, 2]]), Instant::now());
    let mut plan = Plan::new(&route, terms(now));
    plan.next(now, &mut |_| true);
    plan.dispatched(0, 0, now);
    plan.failed(0, &fail(Class::Upstream500), now, 0.0);
    assert_eq!(plan.next(now, &mut |_| true), start(0, AttemptKind::Retry));
    plan.dispatched(1, 1, now);
    plan.late_at(1, now + SECOND);
    assert_eq!(plan.next(now + SECOND, &mut |_| true), Step::Wait(now + 10 * SECOND));
}

//! Circuits of several models at one endpoint.

use std::time::Duration;

use proptest::prelude::*;

use super::super::Alone;
use super::*;

const BAD: Failed = Failed { counts: Counts::Both, wait: None };

fn key(model: &str) -> Key<'_> {
    Key { route: 0, model }
}

fn send(circuits: &mut Circuits, model: &str, good: bool, now: Instant) -> (bool, Vec<Changed>) {
    let mut changed = Vec::new();
    let Ok(mut pass) = circuits.enter(key(model), now, &mut changed) else { return (false, changed) };
    if good {
        let told = Told { alone: Alone::default(), sample: 0.5, changed: &mut changed };
        circuits.first(&mut pass, now, None, told);
        circuits.succeeded(&mut pass, now, &mut changed);
    } else {
        let told = Told { alone: Alone::default(), sample: 0.5, changed: &mut changed };
        circuits.failed(&mut pass, now, BAD, told);
    }
    (true, changed)
}

fn circuits(now: Instant) -> Circuits {
    Circuits::new(BreakerSettings::default(), &[0], now)
}

#[test]
fn what_opened_the_only_circuit_turns_out_to_be_the_model_s() {
    let now = Instant::now();
    let mut circuits = circuits(now);
    for _ in 0..5 {
        send(&mut circuits, "broken", false, now);
    }
    assert_eq!(circuits.whole().state(now), State::Open);
    assert!(circuits.peek(Some(key("broken")), now).is_err());
    assert!(circuits.peek(Some(key("fine")), now).is_ok(), "nothing is known of it");
    let (sent, changed) = send(&mut circuits, "fine", true, now);
    assert!(sent);
    let told: Vec<_> = changed.iter().map(|(route, change)| (*route, change.to, change.reason)).collect();
    assert_eq!(told, [(Some(0), State::Open, Reason::Consecutive), (None, State::Closed, Reason::Parted)]);
    assert!(!send(&mut circuits, "broken", true, now).0, "its own circuit is open still");
    assert!((0..50).all(|_| send(&mut circuits, "fine", true, now).0));
    assert_eq!(circuits.whole().state(now), State::Closed);
}

#[test]
fn two_broken_models_and_no_answer_are_a_broken_endpoint() {
    let now = Instant::now();
    let mut circuits = circuits(now);
    for model in ["one", "other"] {
        for _ in 0..5 {
            send(&mut circuits, model, false, now);
        }
    }
    assert_eq!(circuits.whole().state(now), State::Open);
    assert!(circuits.peek(Some(key("third")), now).is_err());
    let later = now + Duration::from_secs(30);
    assert!(send(&mut circuits, "third", true, later).0, "it is a probe");
    assert_eq!(circuits.whole().state(later), State::Closed);
}

#[test]
fn failures_of_ever_other_models_open_the_whole() {
    let now = Instant::now();
    let mut circuits = circuits(now);
    let sent = (0..100).filter(|n| send(&mut circuits, &format!("model-{n}"), false, now).0).count();
    assert_eq!(sent, 11, "twice a row of failures, and the one before a second model was known");
    assert_eq!(circuits.whole().state(now), State::Open);
}

#[test]
fn a_lone_broken_model_beside_idle_ones_stays_alone() {
    let now = Instant::now();
    let mut circuits = circuits(now);
    send(&mut circuits, "fine", true, now);
    for second in 0..600 {
        send(&mut circuits, "broken", false, now + Duration::from_secs(second));
    }
    assert_eq!(circuits.whole().state(now + Duration::from_secs(600)), State::Closed);
}

#[test]
fn a_route_s_endpoint_with_a_rest_is_left_alone_by_all() {
    let now = Instant::now();
    let mut circuits = circuits(now);
    let mut changed = Vec::new();
    let mut pass = circuits.enter(key("one"), now, &mut changed).unwrap();
    let refused = Failed { counts: Counts::Credential, wait: None };
    circuits.failed(&mut pass, now, refused, Told { alone: Alone::default(), sample: 0.5, changed: &mut changed });
    assert!(circuits.peek(Some(key("other")), now).is_err(), "the credential is the endpoint's");
}

proptest! {
    /// Whatever names clients make up: circuits are bounded, and what is let through is judged by a circuit that is there
    /// or by none.
    #[test]
    fn circuits_are_bounded(sends in proptest::collection::vec((0u32..100, any::<bool>(), 0u64..2000), 1..300)) {
        let mut now = Instant::now();
        let mut circuits = circuits(now);
        for (model, good, passed) in sends {
            now += Duration::from_millis(passed);
            let name = "x".repeat(200) + &model.to_string();
            send(&mut circuits, if model % 2 == 0 { &name } else { &name[195..] }, good, now);
            prop_assert!(circuits.own().len() <= MODELS);
            prop_assert!(circuits.own().iter().all(|own| own.model.len() <= NAMED));
        }
    }
}

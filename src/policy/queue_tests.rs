//! The order of a queue, against what it should be, and against its invariants under random histories.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn entry(id: u64, class: Priority, key: &str, deadline: u64, now: Instant) -> Waiting {
    Waiting {
        id,
        route: 0,
        class,
        again: false,
        key: Arc::from(key),
        cost: 1,
        deadline: now + Duration::from_secs(deadline),
        until: now + Duration::from_secs(5),
        endpoints: vec![0],
    }
}

fn drain(queue: &mut Queue, now: Instant) -> Vec<u64> {
    std::iter::from_fn(|| queue.take(now, |_| true)).map(|entry| entry.id).collect()
}

#[test]
fn class_comes_before_deadline_and_repeats_come_last_in_their_class() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    let again = Waiting { again: true, ..entry(4, Priority::Default, "", 1, now) };
    for entry in [
        entry(0, Priority::Sheddable, "", 1, now),
        entry(1, Priority::Default, "", 9, now),
        entry(2, Priority::Default, "", 3, now),
        entry(3, Priority::Critical, "", 99, now),
        again,
    ] {
        queue.arrive(entry, 99);
    }
    assert_eq!(drain(&mut queue, now), [3, 2, 1, 4, 0]);
    assert!(queue.is_empty());
}

#[test]
fn the_youngest_of_the_lowest_class_makes_way() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for (id, class) in [Priority::Default, Priority::Sheddable, Priority::Sheddable].into_iter().enumerate() {
        queue.arrive(entry(id as u64, class, "", 10, now), 3);
    }
    assert!(matches!(queue.arrive(entry(3, Priority::Sheddable, "", 1, now), 3), Arrival::Full));
    let mut evicts = |id, class| match queue.arrive(entry(id, class, "", 10, now), 3) {
        Arrival::Instead(victim) => Some(victim.id),
        _ => None,
    };
    assert_eq!(evicts(4, Priority::Default), Some(2));
    assert_eq!(evicts(5, Priority::Critical), Some(1));
    assert_eq!(evicts(6, Priority::Critical), Some(4));
    assert_eq!(evicts(7, Priority::Default), None);
    assert_eq!(drain(&mut queue, now), [5, 6, 0]);
}

#[test]
fn keys_take_turns_by_what_they_cost() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for id in 0..6 {
        queue.arrive(entry(id, Priority::Default, "many", 1 + id, now), 99);
    }
    queue.arrive(entry(10, Priority::Default, "few", 50, now), 99);
    queue.arrive(entry(11, Priority::Default, "few", 51, now), 99);
    assert_eq!(drain(&mut queue, now), [0, 10, 1, 11, 2, 3, 4, 5]);
    for id in 0..4 {
        queue.arrive(Waiting { cost: 2, ..entry(id, Priority::Default, "long", 1, now) }, 99);
        queue.arrive(entry(10 + id, Priority::Default, "short", 50, now), 99);
    }
    let first: Vec<u64> = drain(&mut queue, now).into_iter().take(6).collect();
    let long = first.iter().filter(|id| **id < 10).count();
    assert_eq!(long, 2, "a place that costs twice comes half as often: {first:?}");
}

#[test]
fn what_does_not_fit_is_passed_over() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.arrive(Waiting { endpoints: vec![1], ..entry(0, Priority::Critical, "a", 1, now) }, 9);
    queue.arrive(entry(1, Priority::Sheddable, "b", 1, now), 9);
    let at_zero = |entry: &Waiting| entry.endpoints.contains(&0);
    assert_eq!(queue.take(now, at_zero).map(|entry| entry.id), Some(1));
    assert_eq!(queue.take(now, at_zero).map(|entry| entry.id), None);
    assert_eq!(queue.take(now + Duration::from_secs(6), |_| true).map(|entry| entry.id), None, "expired");
    assert_eq!(queue.len(), 1);
}

proptest! {
    /// Nothing is handed out twice or after its time, a higher class never after a lower one, none is turned away
    /// while a lower one stays, and the count is right.
    #[test]
    fn order_and_count_hold(ops in proptest::collection::vec((0u8..6, 0usize..3, 0u8..3, 1u64..20, any::<bool>()), 1..200)) {
        let start = Instant::now();
        let (mut now, mut queue, mut inside) = (start, Queue::default(), Vec::<Waiting>::new());
        for (id, (op, class, key, seconds, again)) in ops.into_iter().enumerate() {
            let class = Priority::ALL[class];
            match op {
                0..=2 => {
                    let new = Waiting {
                        again,
                        until: now + Duration::from_secs(seconds),
                        cost: u32::from(key) + 1,
                        ..entry(id as u64, class, &key.to_string(), seconds, now)
                    };
                    match queue.arrive(new.clone(), 6) {
                        Arrival::Queued => inside.push(new),
                        Arrival::Instead(victim) => {
                            prop_assert!(victim.class < class);
                            prop_assert!(inside.iter().all(|other| other.class >= victim.class));
                            inside.retain(|other| other.id != victim.id);
                            inside.push(new);
                        }
                        Arrival::Full => prop_assert!(inside.iter().all(|other| other.class >= class)),
                    }
                }
                3 => {
                    let taken = queue.take(now, |_| true);
                    let alive = |entry: &&Waiting| entry.until > now;
                    let best = inside.iter().filter(alive).map(|entry| entry.rank()).min();
                    prop_assert_eq!(taken.as_ref().map(Waiting::rank), best);
                    if let Some(taken) = taken {
                        prop_assert!(inside.iter().filter(alive).any(|other| other.id == taken.id));
                        inside.retain(|other| other.id != taken.id);
                    }
                }
                4 => if let Some(first) = inside.first().map(|entry| entry.id) {
                    prop_assert!(queue.remove(first).is_some());
                    inside.retain(|other| other.id != first);
                    prop_assert!(queue.remove(first).is_none());
                },
                _ => now += Duration::from_secs(seconds),
            }
            prop_assert!(queue.len() == inside.len() && queue.len() <= 6);
        }
    }
}

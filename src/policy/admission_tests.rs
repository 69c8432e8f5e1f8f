//! Admission under load it cannot bear, in simulated time, and its counts under random histories.
//!
//! The loads were first simulated in Python against several policies (32 slots, answers of a median of 4 s, a deadline
//! of 30 s, three calls in ten critical). Its record for a bounded queue by class that looks at deadlines, and for what
//! is common instead, an unbounded queue without cancellation:
//!
//! | load | goodput of capacity | critical calls answered | the common way |
//! |---|---|---|---|
//! | 1.2 | 1.001 | 1.000 | 0.12 |
//! | 2 | 1.002 | 1.000 | 0.03 |
//! | 5 | 1.004 | 0.670 (they alone are 1.5 times the capacity) | |
//! | 0.9, 4 for 120 s | 0.905 | 0.955 | 0.17 |

#![allow(clippy::print_stdout, reason = "the figures are there to be compared")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::policy::Mode;

const SLOTS: usize = 32;
const MEDIAN: f64 = 4.0;
const SIGMA: f64 = 0.6;
const SPAN: f64 = 1800.0;
const DEADLINE: f64 = 30.0;
const PREFILL: f64 = 0.25;

struct Load {
    base: f64,
    burst: Option<(f64, f64, f64)>,
    mode: Mode,
    wait: f64,
}

impl Load {
    fn steady(base: f64) -> Self {
        Self { base, burst: None, mode: Mode::Fixed, wait: DEADLINE }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive,
    First(usize),
    Done(usize, bool),
    Expire(u64),
}

#[derive(Clone, Copy)]
struct Call {
    at: f64,
    critical: bool,
    sent: f64,
}

#[derive(Default)]
struct Tally {
    good: usize,
    critical: (usize, usize),
    /// Arrival and whether it was answered in time.
    fates: Vec<(f64, bool)>,
    longest_queue: usize,
}

impl Tally {
    fn end(&mut self, call: Call, good: bool) {
        self.good += usize::from(good);
        self.critical.0 += usize::from(good && call.critical);
        self.critical.1 += usize::from(call.critical);
        self.fates.push((call.at, good));
    }

    fn goodput(&self) -> f64 {
        let mean = MEDIAN * (SIGMA * SIGMA / 2.0).exp();
        self.good as f64 / (SLOTS as f64 / mean * SPAN).min(self.fates.len() as f64)
    }

    fn critical(&self) -> f64 {
        self.critical.0 as f64 / self.critical.1 as f64
    }

    fn answered(&self, from: f64, to: f64) -> f64 {
        let seen: Vec<bool> = self.fates.iter().filter(|(at, _)| (from..to).contains(at)).map(|fate| fate.1).collect();
        seen.iter().filter(|good| **good).count() as f64 / seen.len() as f64
    }
}

/// One pool of one endpoint: `Admission` before a server with slots and a queue of its own.
fn simulate(load: &Load, seed: u64) -> Tally {
    let origin = Instant::now();
    let at = |seconds: f64| origin + Duration::from_secs_f64(seconds);
    let nanos = |seconds: f64| (seconds * 1e9) as u64;
    let max = if load.mode == Mode::Fixed { SLOTS as u32 } else { 200 };
    let mut admission = Admission::new(&[Concurrency { mode: load.mode, max }], &[vec![0]]);
    let mut rng = fastrand::Rng::with_seed(seed);
    let capacity = SLOTS as f64 / (MEDIAN * (SIGMA * SIGMA / 2.0).exp());
    let mut events = BinaryHeap::from([Reverse((0, Event::Arrive))]);
    let (mut calls, mut lined): (Vec<Call>, HashMap<u64, usize>) = (Vec::new(), HashMap::new());
    let (mut hidden, mut busy): (VecDeque<usize>, usize) = (VecDeque::new(), 0);
    let mut tally = Tally::default();
    while let Some(Reverse((now, event))) = events.pop() {
        let t = now as f64 / 1e9;
        let mut granted = Vec::new();
        match event {
            Event::Arrive if t >= SPAN => {}
            Event::Arrive => {
                let rate = load.burst.filter(|(from, to, _)| (*from..*to).contains(&t)).map_or(load.base, |it| it.2);
                events.push(Reverse((nanos(t - (1.0 - rng.f64()).ln() / (rate * capacity)), event)));
                let call = Call { at: t, critical: rng.f64() < 0.3, sent: 0.0 };
                calls.push(call);
                let ask = Ask {
                    pool: 0,
                    route: 0,
                    class: if call.critical { Priority::Critical } else { Priority::Default },
                    again: false,
                    key: Arc::from(""),
                    prompt_bytes: 0,
                    candidates: vec![Candidate { endpoint: 0, share: 1.0, affinity: None }],
                    due: None,
                    deadline: at(t + DEADLINE),
                    wait: Duration::from_secs_f64(load.wait),
                };
                match admission.ask(ask, at(t), (0.0, 0.0, 0.0)) {
                    Answer::Go { .. } => granted.push(calls.len() - 1),
                    Answer::Refused(_) => tally.end(call, false),
                    Answer::Wait { id, until, evicted } => {
                        lined.insert(id, calls.len() - 1);
                        let until = nanos((until - origin).as_secs_f64());
                        events.push(Reverse((until, Event::Expire(id))));
                        if let Some(victim) = evicted.and_then(|(victim, _)| lined.remove(&victim)) {
                            tally.end(calls[victim], false);
                        }
                    }
                }
                tally.longest_queue = tally.longest_queue.max(admission.waiting(0));
            }
            Event::First(number) => {
                let after = Duration::from_secs_f64(t - calls[number].sent);
                let grants = admission.learn(0, Sample::First { after, prompt_bytes: 0 }, at(t));
                granted.extend(grants.iter().filter_map(|grant| lined.remove(&grant.id)));
            }
            Event::Done(number, good) => {
                busy -= 1;
                tally.end(calls[number], good);
                let stay = Duration::from_secs_f64(t - calls[number].sent);
                let grants = admission.release(0, 1, stay, at(t));
                granted.extend(grants.iter().filter_map(|grant| lined.remove(&grant.id)));
            }
            Event::Expire(id) => {
                if admission.leave(0, id) {
                    let number = lined.remove(&id).unwrap();
                    tally.end(calls[number], false);
                }
            }
        }
        for number in granted {
            assert!(t < calls[number].at + DEADLINE, "an expired entry was dispatched");
            calls[number].sent = t;
            hidden.push_back(number);
        }
        while busy < SLOTS
            && let Some(number) = hidden.pop_front()
        {
            busy += 1;
            let answer = t + MEDIAN * (SIGMA * normal(&mut rng)).exp();
            let deadline = calls[number].at + DEADLINE;
            events.push(Reverse((nanos(t + PREFILL), Event::First(number))));
            events.push(Reverse((nanos(answer.min(deadline)), Event::Done(number, answer <= deadline))));
        }
    }
    assert_eq!((admission.at(0).1, admission.waiting(0), lined.len()), (0, 0, 0), "something was left behind");
    tally
}

fn normal(rng: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

#[test]
fn capacity_is_used_and_critical_calls_are_answered_whatever_the_load() {
    println!("load | limit    | wait | goodput | Python | critical | Python | longest queue");
    for (base, python) in [(1.2, (1.001, 1.0)), (2.0, (1.002, 1.0)), (5.0, (1.004, 0.67))] {
        for (mode, wait) in [(Mode::Fixed, DEADLINE), (Mode::Fixed, 5.0), (Mode::Adaptive, 5.0)] {
            let tally = simulate(&Load { mode, wait, ..Load::steady(base) }, 1);
            let (goodput, critical, longest) = (tally.goodput(), tally.critical(), tally.longest_queue);
            println!(
                "{base:4} | {:8} | {wait:2} s | {goodput:.3}   | {:.3}  | {critical:.3}    | {:.3}  | {longest}",
                mode.as_str(),
                python.0,
                python.1
            );
            assert!(goodput >= 0.95, "goodput {goodput:.3} at {base}");
            // Three in ten of five times the capacity is half as much again as there is.
            assert!(critical >= if base * 0.3 < 1.0 { 0.99 } else { 0.6 }, "critical {critical:.3} at {base}");
        }
    }
}

#[test]
fn a_burst_leaves_nothing_behind() {
    let (from, to) = (300.0, 420.0);
    for (mode, wait) in [(Mode::Fixed, DEADLINE), (Mode::Fixed, 5.0), (Mode::Adaptive, 5.0)] {
        let load = Load { burst: Some((from, to, 4.0)), mode, wait, ..Load::steady(0.9) };
        let tally = simulate(&load, 1);
        let (before, after) = (tally.answered(180.0, from), tally.answered(to + 30.0, to + 150.0));
        println!(
            "{}, {wait} s: goodput {:.3} (Python 0.905), critical {:.3} (Python 0.955); answered before the burst \
             {before:.3}, in it {:.3}, from 30 s after it {after:.3}",
            mode.as_str(),
            tally.goodput(),
            tally.critical(),
            tally.answered(from, to)
        );
        assert!(after >= 0.95 * before, "half a minute after the burst {after:.3} are answered, {before:.3} before it");
    }
}

fn may_have(ask: &Ask, endpoint: usize) -> bool {
    ask.candidates.iter().any(|it| it.endpoint == endpoint)
}

fn ask(pool: usize, class: Priority, endpoints: Vec<usize>, now: Instant) -> Ask {
    Ask {
        pool,
        route: 0,
        class,
        again: false,
        key: Arc::from(""),
        prompt_bytes: 0,
        candidates: endpoints.into_iter().map(|endpoint| Candidate { endpoint, share: 1.0, affinity: None }).collect(),
        due: None,
        deadline: now + Duration::from_secs(60),
        wait: Duration::from_secs(5),
    }
}

const SAMPLES: (f64, f64, f64) = (0.0, 0.5, 0.5);

fn fixed(max: u32) -> Concurrency {
    Concurrency { mode: Mode::Fixed, max }
}

#[test]
fn the_last_places_are_kept_for_the_higher_classes() {
    let now = Instant::now();
    for (limit, expected) in [(1, [1, 1, 1]), (4, [3, 4, 4]), (20, [14, 19, 20]), (100, [70, 95, 100])] {
        for (class, expected) in Priority::ALL.into_iter().zip(expected) {
            let mut admission = Admission::new(&[fixed(limit)], &[vec![0]]);
            let all = (0..200)
                .filter(|_| matches!(admission.ask(ask(0, class, vec![0], now), now, SAMPLES), Answer::Go { .. }));
            assert_eq!(all.count(), expected, "{} of {limit}", class.as_str());
        }
    }
}

#[test]
fn what_cannot_be_served_in_time_is_refused_at_once_and_told_when_to_come_back() {
    let now = Instant::now();
    let mut admission = Admission::new(&[fixed(1)], &[vec![0]]);
    admission.ask(ask(0, Priority::Default, vec![0], now), now, SAMPLES);
    admission.release(0, 1, Duration::from_secs(10), now);
    admission.ask(ask(0, Priority::Default, vec![0], now), now, SAMPLES);
    let hurried = Ask { deadline: now + Duration::from_secs(8), ..ask(0, Priority::Default, vec![0], now) };
    let refused = admission.ask(hurried, now, SAMPLES);
    let retry_after = Duration::from_millis(12_500);
    assert_eq!(refused, Answer::Refused(Refusal { shed: Shed::Late, retry_after }), "10 s, jittered");
    for _ in 0..5 {
        assert!(matches!(
            admission.ask(ask(0, Priority::Default, vec![0], now), now, SAMPLES),
            Answer::Wait { until, .. } if until == now + Duration::from_secs(5)
        ));
    }
    let twin = Ask { wait: Duration::ZERO, ..ask(0, Priority::Default, vec![0], now) };
    assert!(matches!(admission.ask(twin, now, SAMPLES), Answer::Refused(Refusal { shed: Shed::Full, .. })));
}

#[test]
fn a_place_goes_to_the_best_of_all_pools_that_hold_its_endpoint() {
    let now = Instant::now();
    let mut admission = Admission::new(&[fixed(1), fixed(1)], &[vec![0], vec![0, 1]]);
    admission.ask(ask(0, Priority::Default, vec![0], now), now, SAMPLES);
    admission.ask(ask(1, Priority::Default, vec![0, 1], now), now, SAMPLES);
    let mut wait = |ask| match admission.ask(ask, now, SAMPLES) {
        Answer::Wait { id, .. } => id,
        other => panic!("{other:?}"),
    };
    let low = wait(ask(0, Priority::Default, vec![0], now));
    let high = wait(ask(1, Priority::Critical, vec![0, 1], now));
    let elsewhere = wait(ask(1, Priority::Critical, vec![0], now));
    assert_eq!(admission.release(1, 1, Duration::ZERO, now), [Grant { id: high, endpoint: 1, cost: 1 }]);
    assert_eq!(admission.release(0, 1, Duration::ZERO, now), [Grant { id: elsewhere, endpoint: 0, cost: 1 }]);
    assert_eq!(admission.release(0, 1, Duration::ZERO, now), [Grant { id: low, endpoint: 0, cost: 1 }]);
}

#[test]
fn a_limit_that_jumps_is_filled_at_once() {
    let now = Instant::now();
    let mut admission = Admission::new(&[Concurrency::default()], &[vec![0]]);
    let all = (0..12).map(|_| admission.ask(ask(0, Priority::Default, vec![0], now), now, SAMPLES));
    assert_eq!(all.filter(|answer| matches!(answer, Answer::Wait { .. })).count(), 4);
    assert_eq!(admission.slots(0, 64, now).len(), 4);
    assert_eq!((admission.at(0), admission.waiting(0)), ((64, 12), 0));
}

proptest! {
    /// No place stays free while somebody who may have it waits; nobody gets one twice or too late; nothing is turned
    /// away for want of room while a lower class stays; and when everything has ended, nothing is left.
    #[test]
    fn no_wakeup_is_lost_and_counts_return_to_zero(
        limits in proptest::collection::vec(1u32..5, 1..4),
        adaptive in any::<bool>(),
        ops in proptest::collection::vec((0u8..9, 0usize..4, 0usize..3, 0u64..4000, 0usize..20), 1..300),
    ) {
        let start = Instant::now();
        let mode = if adaptive { Mode::Adaptive } else { Mode::Fixed };
        let settings: Vec<Concurrency> = limits.iter().map(|max| Concurrency { mode, max: *max }).collect();
        let all: Vec<usize> = (0..limits.len()).collect();
        let pools = [vec![0], all.clone()];
        let mut admission = Admission::new(&settings, &pools);
        let mut now = start;
        let mut running: Vec<usize> = Vec::new();
        let mut waiting: BTreeMap<u64, (usize, Ask, Instant)> = BTreeMap::new();
        for (op, which, class, millis, nth) in ops {
            let class = Priority::ALL[class];
            let pool = which % 2;
            let mut grants = Vec::new();
            match op {
                0..=2 => {
                    let from = if which == 3 { vec![all[nth % all.len()]] } else { pools[pool].clone() };
                    let asked = Ask { again: op == 2, ..ask(pool, class, from, now) };
                    match admission.ask(asked.clone(), now, SAMPLES) {
                        Answer::Go { endpoint, .. } => {
                            prop_assert!(may_have(&asked, endpoint));
                            running.push(endpoint);
                        }
                        Answer::Wait { id, until, evicted } => {
                            if let Some((victim, _)) = evicted {
                                let victim = waiting.remove(&victim).unwrap();
                                prop_assert!(victim.0 == pool && victim.1.class < class);
                            }
                            waiting.insert(id, (pool, asked, until));
                        }
                        Answer::Refused(Refusal { shed: Shed::Full, .. }) => {
                            let lower = waiting.values().any(|(other, asked, _)| *other == pool && asked.class < class);
                            prop_assert!(!lower, "shed while a lower class waits");
                        }
                        Answer::Refused(_) => {}
                    }
                }
                3 | 4 if !running.is_empty() => {
                    let endpoint = running.swap_remove(nth % running.len());
                    grants = admission.release(endpoint, 1, Duration::from_millis(millis), now);
                }
                5 if !running.is_empty() => {
                    let sample = if nth % 2 == 0 { Sample::Refused } else { Sample::Whole };
                    grants = admission.learn(running[nth % running.len()], sample, now);
                }
                6 => if let Some(id) = waiting.keys().nth(nth).copied() {
                    let (pool, ..) = waiting.remove(&id).unwrap();
                    prop_assert!(admission.leave(pool, id) && !admission.leave(pool, id));
                },
                7 => grants = admission.slots(nth % all.len(), 1 + which, now),
                _ => {
                    now += Duration::from_millis(millis);
                    let late: Vec<u64> = waiting.iter().filter(|(_, it)| it.2 <= now).map(|(id, _)| *id).collect();
                    for id in late {
                        let (pool, ..) = waiting.remove(&id).unwrap();
                        prop_assert!(admission.leave(pool, id));
                    }
                }
            }
            for grant in grants {
                let (_, asked, until) = waiting.remove(&grant.id).unwrap();
                prop_assert!(until > now && may_have(&asked, grant.endpoint));
                running.push(grant.endpoint);
            }
            for endpoint in &all {
                let count = running.iter().filter(|other| *other == endpoint).count();
                prop_assert_eq!(admission.at(*endpoint).1, count);
                let idle = |class| admission.endpoints[*endpoint].has_room(class);
                let owed = waiting.values().any(|(_, asked, _)| may_have(asked, *endpoint) && idle(asked.class));
                prop_assert!(!owed, "a place is free and somebody waits for it");
            }
        }
        while let Some(endpoint) = running.pop() {
            running.extend(admission.release(endpoint, 1, Duration::ZERO, now).iter().map(|grant| {
                waiting.remove(&grant.id);
                grant.endpoint
            }));
        }
        prop_assert!(waiting.is_empty() && admission.waiting(0) + admission.waiting(1) == 0);
        prop_assert!(all.iter().all(|endpoint| admission.at(*endpoint).1 == 0));
    }
}

//! The limit against a simulated server with slots and a hidden queue of its own, in simulated time.
//!
//! The same model was first written in Python, where several controllers were compared on it (16 slots, twice the load
//! they can bear, answers of a median of 3 s, then three times longer). Its record, as limit / busy slots / 99th
//! percentile of the hidden wait, first with the short answers, then with the long ones:
//!
//! | controller | short answers | long answers |
//! |---|---|---|
//! | none | 200 / 1.00 / 54 s | 200 / 1.00 / 149 s |
//! | gradient on total latency | 17 / 0.91 / 3 s | 2.3 / 0.13 / 0 s |
//! | AIMD on total latency | 21.7 / 1.00 / 3.05 s | 6.2 / 0.35 / 0 s |
//! | AIMD on time to first token, 2 s | 19.4 / 1.00 / 2.23 s | 16.1 / 0.95 / 2.76 s |
//!
//! The last is what stands in this file; the tests print what it comes to here.

#![allow(clippy::print_stdout, reason = "the figures are there to be compared")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;

const PREFILL: f64 = 0.25;
const MEDIAN: f64 = 3.0;
const SIGMA: f64 = 0.7;
const SPAN: f64 = 3600.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(usize),
    First(usize, u64),
    Done(usize),
}

struct World {
    slots: fn(f64) -> usize,
    /// How much longer answers are.
    longer: fn(f64) -> f64,
    gateways: usize,
    load: f64,
}

/// What was seen at one event: the time, each gateway's limit, busy slots.
struct Seen {
    at: f64,
    limits: Vec<f64>,
    busy: f64,
}

struct Record {
    seen: Vec<Seen>,
    /// When a send left the hidden queue, and how long it was in there.
    hidden: Vec<(f64, f64)>,
}

fn normal(rng: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

fn simulate(world: &World, concurrency: Concurrency, seed: u64) -> Record {
    let origin = Instant::now();
    let at = |seconds: f64| origin + Duration::from_secs_f64(seconds);
    let nanos = |seconds: f64| (seconds * 1e9) as u64;
    let mut rng = fastrand::Rng::with_seed(seed);
    let capacity = (world.slots)(0.0) as f64 / (PREFILL + MEDIAN * (SIGMA * SIGMA / 2.0).exp());
    let rate = world.load * capacity / world.gateways as f64;
    let mut events = BinaryHeap::new();
    let mut limiters = vec![Limiter::new(concurrency); world.gateways];
    let mut in_flight = vec![0usize; world.gateways];
    let mut waiting = vec![VecDeque::new(); world.gateways];
    let (mut hidden, mut busy): (VecDeque<(usize, f64)>, usize) = (VecDeque::new(), 0);
    let mut record = Record { seen: Vec::new(), hidden: Vec::new() };
    for gateway in 0..world.gateways {
        events.push(Reverse((0, Event::Arrive(gateway))));
    }
    while let Some(Reverse((now, event))) = events.pop() {
        let t = now as f64 / 1e9;
        if t > SPAN {
            break;
        }
        match event {
            Event::Arrive(gateway) => {
                events.push(Reverse((nanos(t - (1.0 - rng.f64()).ln() / rate), event)));
                if waiting[gateway].len() < 32 {
                    waiting[gateway].push_back(t);
                }
            }
            Event::First(gateway, sent) => {
                let after = Duration::from_nanos(now - sent);
                limiters[gateway].learn(Sample::First { after, prompt_bytes: 0 }, in_flight[gateway], at(t));
            }
            Event::Done(gateway) => {
                busy -= 1;
                in_flight[gateway] -= 1;
            }
        }
        for gateway in 0..world.gateways {
            while in_flight[gateway] < limiters[gateway].limit() && !waiting[gateway].is_empty() {
                waiting[gateway].pop_front();
                in_flight[gateway] += 1;
                hidden.push_back((gateway, t));
            }
        }
        while busy < (world.slots)(t)
            && let Some((gateway, sent)) = hidden.pop_front()
        {
            busy += 1;
            let answer = MEDIAN * (world.longer)(t) * (SIGMA * normal(&mut rng)).exp();
            events.push(Reverse((nanos(t + PREFILL), Event::First(gateway, nanos(sent)))));
            events.push(Reverse((nanos(t + PREFILL + answer), Event::Done(gateway))));
            record.hidden.push((t, t - sent));
        }
        let limits = limiters.iter().map(|limiter| limiter.limit).collect();
        record.seen.push(Seen { at: t, limits, busy: busy as f64 / (world.slots)(t) as f64 });
    }
    record
}

impl Record {
    fn mean(&self, from: f64, to: f64, value: impl Fn(&Seen) -> f64) -> f64 {
        let seen: Vec<f64> = self.seen.iter().filter(|seen| (from..to).contains(&seen.at)).map(value).collect();
        seen.iter().sum::<f64>() / seen.len() as f64
    }

    fn limit(&self, from: f64, to: f64) -> f64 {
        self.mean(from, to, |seen| seen.limits.iter().sum())
    }

    fn busy(&self, from: f64, to: f64) -> f64 {
        self.mean(from, to, |seen| seen.busy)
    }

    fn hidden_p99(&self, from: f64, to: f64) -> f64 {
        let mut waits: Vec<f64> =
            self.hidden.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, wait)| *wait).collect();
        waits.sort_by(f64::total_cmp);
        waits[(waits.len() - 1) * 99 / 100]
    }
}

const ADAPTIVE: Concurrency = Concurrency { mode: Mode::Adaptive, max: 200 };
const HALF: f64 = SPAN / 2.0;

#[test]
fn slots_stay_busy_and_the_hidden_queue_short_also_when_answers_grow() {
    let longer = |t| if t > HALF { 3.0 } else { 1.0 };
    for seed in [3, 4, 5] {
        let record = simulate(&World { slots: |_| 16, longer, gateways: 1, load: 2.0 }, ADAPTIVE, seed);
        let (short, long) = ((300.0, HALF), (HALF + 300.0, SPAN));
        let limits = (record.limit(short.0, short.1), record.limit(long.0, long.1));
        let busy = (record.busy(short.0, short.1), record.busy(long.0, long.1));
        let hidden = (record.hidden_p99(short.0, short.1), record.hidden_p99(long.0, long.1));
        println!(
            "seed {seed}: short answers {:.1} / {:.2} / {:.2} s, long {:.1} / {:.2} / {:.2} s",
            limits.0, busy.0, hidden.0, limits.1, busy.1, hidden.1
        );
        assert!(busy.0 >= 0.95 && busy.1 >= 0.95, "busy {busy:?}");
        assert!(hidden.0 < 3.0 && hidden.1 < 3.0, "hidden wait {hidden:?}");
        assert!((limits.1 / limits.0 - 1.0).abs() <= 0.25, "longer answers moved the limit: {limits:?}");
    }
}

#[test]
fn the_limit_is_found_within_a_minute() {
    let record = simulate(&World { slots: |_| 16, longer: |_| 1.0, gateways: 1, load: 2.0 }, ADAPTIVE, 3);
    let after = record.limit(60.0, 120.0);
    println!("limit in the second minute: {after:.1} of 16");
    assert!((14.0..=21.0).contains(&after), "{after}");
}

#[test]
fn half_the_slots_are_noticed_in_half_a_minute() {
    let slots = |t| if t > HALF { 8 } else { 16 };
    let record = simulate(&World { slots, longer: |_| 1.0, gateways: 1, load: 2.0 }, ADAPTIVE, 3);
    let settled = record.limit(HALF + 300.0, SPAN);
    let soon = record.limit(HALF + 28.0, HALF + 30.0);
    println!("limit {:.1}, half a minute later {soon:.1}, in the end {settled:.1}", record.limit(HALF - 300.0, HALF));
    assert!(soon <= 8.0 * 1.3 && (7.0..=12.0).contains(&settled), "{soon} {settled}");
}

#[test]
fn two_gateways_share_a_server() {
    for seed in [3, 4, 5] {
        let record = simulate(&World { slots: |_| 16, longer: |_| 1.0, gateways: 2, load: 2.0 }, ADAPTIVE, seed);
        let mean = |gateway: usize| record.mean(600.0, SPAN, |seen| seen.limits[gateway]);
        let (one, other) = (mean(0), mean(1));
        println!("seed {seed}: {one:.1} and {other:.1}, hidden p99 {:.2} s", record.hidden_p99(600.0, SPAN));
        assert!((one / ((one + other) / 2.0) - 1.0).abs() <= 0.3, "{one} and {other}");
    }
}

fn warm(limiter: &mut Limiter, now: Instant) {
    limiter.learn(Sample::First { after: Duration::from_millis(100), prompt_bytes: 100 }, 1, now);
}

const LATE: Sample = Sample::First { after: Duration::from_secs(60), prompt_bytes: 100 };

#[test]
fn it_shrinks_once_per_interval_and_never_below_one() {
    let (mut limiter, now) = (Limiter::new(Concurrency::default()), Instant::now());
    warm(&mut limiter, now);
    for _ in 0..50 {
        limiter.learn(LATE, 8, now);
    }
    assert_eq!(limiter.limit, 8.0 * SHRINK);
    for second in 1..1000 {
        limiter.learn(Sample::Refused, 8, now + Duration::from_secs(3 * second));
    }
    assert_eq!((limiter.limit, limiter.limit()), (1.0, 1));
}

#[test]
fn it_does_not_grow_while_half_of_it_is_idle() {
    let (mut limiter, now) = (Limiter::new(Concurrency::default()), Instant::now());
    for _ in 0..100 {
        warm(&mut limiter, now);
    }
    assert_eq!(limiter.limit(), 8);
    limiter.learn(Sample::Whole, 4, now);
    assert_eq!(limiter.limit(), 9, "until the first excess one more with each answer");
}

#[test]
fn a_fixed_limit_learns_nothing_and_a_ceiling_holds() {
    let now = Instant::now();
    let mut fixed = Limiter::new(Concurrency { mode: Mode::Fixed, max: 4 });
    fixed.slots(64);
    fixed.learn(Sample::Refused, 4, now);
    assert_eq!(fixed.limit(), 4);
    let mut told = Limiter::new(Concurrency::default());
    told.slots(4);
    assert_eq!(told.limit(), 4, "slots are where it starts");
    for _ in 0..1000 {
        told.learn(Sample::Whole, 5, now);
    }
    assert_eq!(told.limit(), 5, "a quarter above the slots");
    let mut capped = Limiter::new(Concurrency { mode: Mode::Adaptive, max: 3 });
    capped.learn(Sample::Whole, 3, now);
    assert_eq!(capped.limit(), 3);
}

#[test]
fn a_slow_model_is_not_a_queue() {
    let (mut limiter, now) = (Limiter::new(Concurrency::default()), Instant::now());
    let thinks = Sample::First { after: Duration::from_secs(20), prompt_bytes: 100 };
    limiter.learn(thinks, 1, now);
    for second in 0..100 {
        limiter.learn(thinks, limiter.limit(), now + Duration::from_secs(3 * second));
    }
    assert!(limiter.limit() > 50, "it always takes 20 s: {}", limiter.limit());
    let long = Sample::First { after: Duration::from_secs(60), prompt_bytes: 60_000 };
    let before = limiter.limit;
    limiter.learn(long, limiter.limit(), now + Duration::from_secs(900));
    assert!(limiter.limit > before, "a prompt sixteen times as long may take longer");
}

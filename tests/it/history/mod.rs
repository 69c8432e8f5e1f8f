//! The invariants over random schedules of faults and load.
//!
//! A schedule comes of one number, its history of playing it, the verdict of judging the history. When one is broken,
//! the schedule is made as small as it can be and still is, its history is written to `target/histories/`, and the
//! test says how to get it again.

mod check;
mod event;
mod leaf;
mod planted;
mod record;
mod run;
mod schedule;
mod view;

use std::collections::{BTreeSet, HashSet};

use check::{Broken, check};
use event::What;
use run::run;
use schedule::Schedule;

/// What breaks in the history of a schedule.
fn broken(schedule: &Schedule) -> Vec<Broken> {
    check(&run(schedule))
}

/// The smallest schedule that still breaks the same invariant: without this call, without that phase.
fn shrink(schedule: Schedule, invariant: &str) -> Schedule {
    let still = |schedule: &Schedule| broken(schedule).iter().any(|broken| broken.invariant == invariant);
    let mut smallest = schedule;
    loop {
        let mut smaller = Vec::new();
        for call in 0..smallest.calls.len() {
            let mut without = smallest.clone();
            without.calls.remove(call);
            smaller.push(without);
        }
        for (endpoint, phases) in smallest.endpoints.iter().enumerate().filter(|(_, phases)| phases.len() > 1) {
            for phase in 0..phases.len() {
                let mut without = smallest.clone();
                without.endpoints[endpoint].remove(phase);
                smaller.push(without);
            }
        }
        match smaller.into_iter().find(still) {
            Some(one) => smallest = one,
            None => return smallest,
        }
    }
}

/// Tells of a broken schedule, as small as it can be.
fn report(seed: u64, found: &[Broken]) -> String {
    let smallest = shrink(Schedule::of(seed), found[0].invariant);
    let history = run(&smallest);
    let path = format!("target/histories/{seed}.jsonl");
    std::fs::create_dir_all("target/histories").unwrap();
    std::fs::write(&path, event::write(&history)).unwrap();
    let lines: Vec<String> = check(&history).iter().map(ToString::to_string).collect();
    format!(
        "seed {seed}: {}\n  {} calls are enough, their history is in {path}:\n    {}\n  again: SEED={seed} cargo nextest run \
         history::replay",
        found[0],
        smallest.calls.len(),
        lines.join("\n    ")
    )
}

#[track_caller]
fn all_hold(seeds: impl Iterator<Item = u64>) {
    let mut reports = Vec::new();
    for seed in seeds {
        let found = broken(&Schedule::of(seed));
        if !found.is_empty() {
            reports.push(report(seed, &found));
        }
        if reports.len() == 3 && std::env::var("SEEDS").is_err() {
            break;
        }
    }
    assert!(reports.is_empty(), "\n{}\n", reports.join("\n"));
}

/// `SEED=N` plays one schedule and writes its history down, `SEEDS=N` plays the first so many of another set.
#[test]
fn replay() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("SEED") {
        let schedule = Schedule::of(seed);
        let history = run(&schedule);
        std::fs::create_dir_all("target/histories").unwrap();
        std::fs::write(format!("target/histories/{seed}.jsonl"), event::write(&history)).unwrap();
        std::fs::write(format!("target/histories/{seed}.schedule.txt"), format!("{schedule:#?}")).unwrap();
    }
    all_hold(number("SEED").into_iter());
    let more = number("SEEDS").unwrap_or(1);
    all_hold(1_000_000..1_000_000 + more);
}

#[test]
fn equal_seeds_give_equal_histories() {
    for seed in 0..30 {
        let schedule = Schedule::of(seed);
        let (one, other) = (run(&schedule), run(&schedule));
        let differs = one.iter().zip(&other).find(|(one, other)| one != other);
        assert!(differs.is_none() && one.len() == other.len(), "seed {seed}: {differs:?}");
    }
}

/// What a history had in it, in words.
fn reached(history: &[event::Event]) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let (mut sent, mut waiting, mut heads) = (HashSet::new(), HashSet::new(), HashSet::new());
    for event in history {
        let word = match &event.what {
            What::Started { kind, paid, .. } => format!("{kind}, paid: {paid}"),
            What::Refused { reason, .. } => format!("refused: {reason}"),
            What::Circuit { to, reason, .. } => format!("circuit {to}: {reason}"),
            What::Verdict { verdict, .. } => format!("verdict {verdict}"),
            What::Ended { outcome, .. } => format!("outcome {outcome}"),
            What::Waits { call, .. } => {
                waiting.insert(*call);
                continue;
            }
            What::Waited { call, .. } => {
                waiting.remove(call);
                continue;
            }
            What::Sent(send) => {
                sent.insert(send.call);
                continue;
            }
            What::Head { call, .. } => {
                heads.insert(*call);
                continue;
            }
            What::Left { call } if heads.contains(call) => "left mid-stream".to_owned(),
            What::Left { call } if waiting.contains(call) => "left the queue".to_owned(),
            What::Left { call } if sent.contains(call) => "left before the head".to_owned(),
            _ => continue,
        };
        reached.insert(word);
    }
    reached
}

/// A schedule that never gets anywhere breaks nothing.
#[test]
fn schedules_get_everywhere() {
    let all: BTreeSet<String> = (0..250).flat_map(|seed| reached(&run(&Schedule::of(seed)))).collect();
    let wanted = [
        "first, paid: false",
        "retry, paid: true",
        "retry, paid: false",
        "hedge, paid: true",
        "fallback, paid: false",
        "refused: full",
        "refused: late",
        "refused: evicted",
        "refused: timeout",
        "circuit open: consecutive",
        "circuit open: failure_rate",
        "circuit open: probe",
        "circuit half_open: elapsed",
        "circuit closed: recovered",
        "circuit cooldown: rate_limited",
        "circuit credential: credential",
        "verdict superseded",
        "verdict headers_timeout",
        "verdict first_token_timeout",
        "verdict stream_stalled",
        "verdict stream_truncated",
        "verdict deadline_exceeded",
        "verdict client_disconnect",
        "outcome ok",
        "outcome retried",
        "outcome hedged",
        "outcome fallback",
        "outcome cached",
        "outcome failed",
        "outcome cancelled",
        "left mid-stream",
        "left the queue",
        "left before the head",
    ];
    let missing: Vec<&str> = wanted.into_iter().filter(|word| !all.contains(*word)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}\nseen: {all:?}");
}

macro_rules! shards {
    ($($name:ident: $from:literal,)*) => {
        $(#[test]
        fn $name() {
            all_hold($from..$from + SHARD);
        })*
    };
}

/// Schedules per test: eight tests, so that they run side by side.
const SHARD: u64 = 1250;

shards! {
    invariants_hold_1: 0,
    invariants_hold_2: 1_250,
    invariants_hold_3: 2_500,
    invariants_hold_4: 3_750,
    invariants_hold_5: 5_000,
    invariants_hold_6: 6_250,
    invariants_hold_7: 7_500,
    invariants_hold_8: 8_750,
}

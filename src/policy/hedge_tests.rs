//! Hedging: when it acts and when it does not, its budget, and the tail it cuts in a simulation.

use super::*;
use crate::call::{AttemptKind, Options};
use crate::policy::{Plan, RouteSettings, Step, Terms};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const QUIET: Around = Around { in_flight: 1, places: 20, other_is_well: true, throttled: false };

fn settings(after: f64, budget: f64) -> HedgeSettings {
    HedgeSettings { on: true, after, budget }
}

fn hedger(samples: u64, now: Instant) -> Hedger {
    let mut hedger = Hedger::new(settings(0.95, 0.05));
    (0..samples).for_each(|_| hedger.spoke(100, SECOND, now));
    (0..200).for_each(|_| hedger.deposit());
    hedger
}

#[test]
fn nobody_is_late_before_it_is_known_what_is_usual() {
    let now = Instant::now();
    assert_eq!(hedger(99, now).late_after(100, now), None);
    let late = hedger(100, now).late_after(100, now).unwrap();
    assert!((SECOND..SECOND * 17 / 16).contains(&late), "{late:?}");
    assert_eq!(hedger(100, now).late_after(100, now + Duration::from_secs(700)), None, "that was long ago");
    assert_eq!(hedger(100, now).late_after(8 * 1024, now), None, "prompts of another size");
}

#[test]
fn a_late_send_is_never_hedged_at_once_nor_after_an_age() {
    let now = Instant::now();
    for (usual, late) in [(Duration::from_millis(5), SECOND / 2), (60 * SECOND, 10 * SECOND)] {
        let mut hedger = Hedger::new(settings(0.95, 0.05));
        (0..200).for_each(|_| hedger.spoke(100, usual, now));
        assert_eq!(hedger.late_after(100, now), Some(late));
    }
}

#[test]
fn a_dear_prompt_is_not_read_twice() {
    let now = Instant::now();
    let mut hedger = hedger(0, now);
    for bytes in [64 * 1024, 64 * 1024 + 1] {
        (0..200).for_each(|_| hedger.spoke(bytes, SECOND, now));
    }
    assert!(hedger.late_after(64 * 1024, now).is_some());
    assert_eq!(hedger.late_after(64 * 1024 + 1, now), None);
}

#[test]
fn what_suppresses_a_hedge() {
    let mut hedger = hedger(100, Instant::now());
    let busy = |in_flight| Around { in_flight, ..QUIET };
    assert_eq!(hedger.pay(busy(15)), Err(Suppressed::Load));
    assert_eq!(hedger.pay(Around { throttled: true, ..QUIET }), Err(Suppressed::Throttle));
    assert_eq!(hedger.pay(Around { other_is_well: false, ..QUIET }), Err(Suppressed::Breaker));
    for _ in 0..10 {
        assert_eq!(hedger.pay(busy(14)), Ok(()));
    }
    assert_eq!(hedger.pay(QUIET), Err(Suppressed::Budget), "200 first sends pay for 10");
    hedger.refund();
    assert_eq!(hedger.pay(QUIET), Ok(()));
}

#[test]
fn the_least_budget_is_what_is_late() {
    for (after, least) in [(0.95, 0.05), (0.9, 0.1), (0.99, 0.01), (0.5, 0.5)] {
        assert_eq!(settings(after, 0.0).least_budget(), least);
    }
}

proptest! {
    /// In every stretch of calls, hedges are at most the budget's share of them and what was saved up before.
    #[test]
    fn hedges_are_a_share_of_first_sends(
        budget in 0.01f64..0.5,
        steps in proptest::collection::vec(any::<bool>(), 1..2000),
    ) {
        let mut hedger = Hedger::new(settings(0.95, budget));
        let mut hedges = vec![0usize];
        let mut firsts = vec![0usize];
        for late in steps {
            hedger.deposit();
            let paid = late && hedger.pay(QUIET).is_ok();
            firsts.push(firsts.last().unwrap() + 1);
            hedges.push(hedges.last().unwrap() + usize::from(paid));
        }
        let last = firsts.len() - 1;
        prop_assert!(hedges[last] as f64 <= budget * firsts[last] as f64 + 1e-6);
        for from in (0..last).step_by(97) {
            let (made, paid) = (hedges[last] - hedges[from], firsts[last] - firsts[from]);
            prop_assert!(made as f64 <= budget * paid as f64 + SAVED + 1e-6);
        }
    }
}

/// What one run came to.
#[derive(Debug)]
struct Figures {
    sends: f64,
    p50: f64,
    p99: f64,
    p999: f64,
}

/// Calls one after the other over a pool of two, of which 3 in a hundred take about 12 times as long. The plan and the
/// hedging are the real ones; only the clock and the endpoints are made up. `alike` is the share of twins that are as
/// slow as the send they stand beside.
fn simulate(hedge: Option<(f64, f64)>, alike: f64) -> Figures {
    const CALLS: usize = 100_000;
    let mut rng = fastrand::Rng::with_seed(7);
    let normal = |rng: &mut fastrand::Rng| {
        // Box and Muller.
        (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
    };
    let first_token = |rng: &mut fastrand::Rng| {
        let slow = rng.f64() < 0.03;
        let (median, sigma) = if slow { (6.0, 0.5) } else { (0.5, 0.35) };
        Duration::from_secs_f64(median * (sigma * normal(rng)).exp())
    };
    let start = Instant::now();
    let route = RouteSettings {
        name: "chat".into(),
        model: "*".into(),
        targets: vec![crate::policy::Target { endpoints: vec![0, 1], by: crate::policy::Spread::Load }],
        timeouts: crate::policy::Timeouts {
            headers: 1000 * SECOND,
            first_token: 1000 * SECOND,
            ..crate::policy::Timeouts::default()
        },
        retry: crate::policy::RetrySettings::default(),
        max_sends: 4,
        queue_wait: SECOND,
        hedge: HedgeSettings::default(),
        streams: Default::default(),
    };
    let mut hedger = hedge.map(|(after, budget)| Hedger::new(settings(after, budget)));
    let (mut took, mut sends) = (Vec::with_capacity(CALLS), 0usize);
    for call in 0..CALLS {
        let now = start + Duration::from_millis(5) * call as u32;
        let terms = Terms {
            deadline: now + 120 * SECOND,
            options: Options::default(),
            replayable: true,
            streamed: true,
            prompt_bytes: 1000,
        };
        let mut plan = Plan::new(&route, terms);
        assert_eq!(plan.next(now, &mut |_| true), Step::Start { target: 0, kind: AttemptKind::First });
        plan.dispatched(0, 0, now);
        let first = first_token(&mut rng);
        // When it went out, and when it speaks.
        let mut running = vec![(now, now + first)];
        if let Some(hedger) = &mut hedger {
            hedger.deposit();
            hedger.late_after(1000, now).into_iter().for_each(|late| plan.late_at(0, now + late));
        }
        let (mut at, mut speaks) = (now, now + first);
        loop {
            match plan.next(at, &mut |_| true) {
                Step::Wait(until) if until < speaks => at = until,
                Step::Hedge { target } => {
                    let hedger = hedger.as_mut().unwrap();
                    if hedger.pay(QUIET).is_ok() {
                        plan.hedge(target);
                        plan.dispatched(1, 1, at);
                        let own = first_token(&mut rng);
                        let twin = if rng.f64() < alike { first } else { own };
                        running.push((at, at + twin));
                        speaks = speaks.min(at + twin);
                    }
                }
                _ => break,
            }
        }
        sends += running.len();
        took.push((speaks - now).as_secs_f64());
        if let Some(hedger) = &mut hedger {
            for (sent, heard) in running {
                if heard == speaks {
                    hedger.spoke(1000, heard - sent, now)
                } else {
                    hedger.dropped(1000, speaks - sent, now)
                }
            }
        }
    }
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took[(share * (CALLS - 1) as f64) as usize];
    Figures { sends: sends as f64 / CALLS as f64, p50: at(0.5), p99: at(0.99), p999: at(0.999) }
}

/// The table in the documentation is what this prints. The reference is a model without a plan, a clock or anything to
/// learn; its hedges go out at the exact quantile.
#[test]
#[allow(clippy::print_stdout, reason = "the figures are for whoever writes them down")]
fn the_tail_is_cut_as_in_the_reference() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/explanation/hedging.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut made = String::new();
    let mut wrong = Vec::new();
    for (name, hedge, alike, reference, tolerance) in [
        ("no hedging", None, 0.0, 7.30, 0.1),
        ("`after: p95`, `budget: 5%`", Some((0.95, 0.05)), 0.0, 1.61, 0.1),
        ("`after: p95`, 2 %", Some((0.95, 0.02)), 0.0, 5.65, 0.12),
        ("`after: p90`, 5 %", Some((0.90, 0.05)), 0.0, 4.81, 0.12),
        ("`after: p99`, `budget: 5%`", Some((0.99, 0.05)), 0.0, 7.26, 0.1),
        ("`after: p95`, `budget: 5%`, half the twins as slow", Some((0.95, 0.05)), 0.5, 4.90, 0.1),
    ] {
        let Figures { sends, p50, p99, p999 } = simulate(hedge, alike);
        made.push_str(&format!("| {name} | {sends:.3} | {p50:.2} s | {p99:.2} s | {reference:.2} s | {p999:.1} s |\n"));
        if (p99 / reference - 1.0).abs() > tolerance {
            wrong.push(format!("{name}: {p99:.2} s, not about {reference} s"));
        }
        let row = page.lines().find(|line| line.starts_with(&format!("| {name} |"))).unwrap_or_default();
        let figures = row.split('|').skip(2).filter_map(|cell| cell.trim().trim_end_matches(" s").parse::<f64>().ok());
        let close = figures.zip([sends, p50, p99, reference, p999]).filter(|(told, is)| (told / is - 1.0).abs() < 0.03);
        if close.count() != 5 {
            wrong.push(format!("docs/explanation/hedging.md is not current: {row}"));
        }
        let most = hedge.map_or(1.0, |(_, budget)| 1.0 + budget + 1e-9);
        assert!(sends <= most, "{name}: {sends} sends a call");
    }
    println!("{made}");
    assert!(wrong.is_empty(), "{wrong:?}\n{made}");
}

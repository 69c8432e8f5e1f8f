//! The circuit against tables, against a small reference model under random histories, and against its promises.

use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const POOL: Alone = Alone { in_pool: false, on_route: false };
const LONE: Alone = Alone { in_pool: true, on_route: true };

/// A circuit with a clock and a record of its changes.
struct Bench {
    breaker: Breaker,
    now: Instant,
    changes: Vec<Change>,
    alone: Alone,
    sample: f64,
}

impl Bench {
    fn new(settings: BreakerSettings) -> Self {
        let now = Instant::now();
        Self { breaker: Breaker::new(settings, now), now, changes: Vec::new(), alone: POOL, sample: 0.5 }
    }

    fn enter(&mut self) -> Option<Ticket> {
        self.breaker.tick(self.now, &mut self.changes);
        self.breaker.enter(self.now).ok()
    }

    fn fail(&mut self, mut ticket: Ticket, counts: Counts, wait: Option<Duration>) {
        let hand = Hand { alone: self.alone, sample: self.sample, changes: &mut self.changes };
        self.breaker.failed(&mut ticket, self.now, Failed { counts, wait }, hand);
    }

    fn answer(&mut self, mut ticket: Ticket, slow: Option<bool>) {
        let hand = Hand { alone: self.alone, sample: self.sample, changes: &mut self.changes };
        self.breaker.first(&mut ticket, self.now, slow, hand);
        self.breaker.succeeded(&mut ticket, self.now, &mut self.changes);
    }

    /// One send, if it is let through.
    fn send(&mut self, good: bool) -> bool {
        let Some(ticket) = self.enter() else { return false };
        if good {
            self.answer(ticket, None)
        } else {
            self.fail(ticket, Counts::Both, None)
        }
        true
    }

    fn state(&self) -> State {
        self.breaker.state(self.now)
    }

    fn opened(&self) -> Vec<Reason> {
        self.changes.iter().filter(|change| change.to == State::Open).map(|change| change.reason).collect()
    }
}

fn off_in_a_row() -> BreakerSettings {
    BreakerSettings { consecutive: 1000, ..BreakerSettings::default() }
}

#[test]
fn failures_in_a_row_open_it_and_a_probe_closes_it() {
    let mut bench = Bench::new(BreakerSettings::default());
    (0..4).for_each(|_| assert!(bench.send(false)));
    assert!(bench.send(true));
    (0..5).for_each(|_| assert!(bench.send(false)));
    assert_eq!((bench.state(), bench.opened()), (State::Open, vec![Reason::Consecutive]));
    bench.now += 2 * SECOND - Duration::from_millis(1);
    assert!(!bench.send(true));
    bench.now += Duration::from_millis(1);
    let probe = bench.enter().unwrap();
    assert!(bench.enter().is_none(), "one probe at a time");
    bench.answer(probe, None);
    assert_eq!(bench.state(), State::Closed);
    let shares: Vec<f64> =
        [0, 9, 10, 20, 1000].iter().map(|at| bench.breaker.share(bench.now + *at * SECOND)).collect();
    assert_eq!(shares, [0.25, 0.25, 0.5, 1.0, 1.0]);
}

#[test]
fn a_probe_without_a_verdict_gives_its_place_back() {
    let mut bench = Bench::new(BreakerSettings::default());
    (0..5).for_each(|_| assert!(bench.send(false)));
    bench.now += 3 * SECOND;
    for _ in 0..3 {
        let mut probe = bench.enter().unwrap();
        assert!(bench.enter().is_none());
        bench.breaker.left(&mut probe);
    }
    let probe = bench.enter().unwrap();
    bench.fail(probe, Counts::Nothing, None);
    assert_eq!(bench.state(), State::HalfOpen);
    assert!(bench.enter().is_some());
}

#[test]
fn what_was_let_through_before_it_opened_says_nothing() {
    let mut bench = Bench::new(BreakerSettings::default());
    let stragglers: Vec<Ticket> = (0..20).map(|_| bench.enter().unwrap()).collect();
    (0..5).for_each(|_| assert!(bench.send(false)));
    bench.now += 2 * SECOND;
    let mut probe = bench.enter().unwrap();
    for (number, mut ticket) in stragglers.into_iter().enumerate() {
        match number % 3 {
            0 => bench.answer(ticket, None),
            1 => bench.fail(ticket, Counts::Both, None),
            _ => bench.breaker.left(&mut ticket),
        }
        assert_eq!(bench.state(), State::HalfOpen);
        assert!(bench.enter().is_none(), "the place of the probe is still taken");
    }
    bench.breaker.left(&mut probe);
    assert!(bench.enter().is_some());
}

#[test]
fn half_of_the_sends_failing_opens_it_and_three_in_ten_do_not() {
    for (failing, opens) in [(3u64, false), (5, true)] {
        for gap in [Duration::ZERO, SECOND / 2] {
            let mut bench = Bench::new(off_in_a_row());
            for number in 0..100 {
                // Spread as evenly as it goes, successes first.
                bench.send((number + 1) * failing / 10 == number * failing / 10);
                bench.now += gap;
                if bench.state() != State::Closed {
                    break;
                }
            }
            let expected = if opens { vec![Reason::FailureRate] } else { Vec::new() };
            assert_eq!(bench.opened(), expected, "{failing} of 10, {gap:?} apart");
        }
    }
}

#[test]
fn a_burst_and_a_spread_decide_alike() {
    for gap in [0u64, 100, 1000, 5000, 5900] {
        let mut bench = Bench::new(off_in_a_row());
        for number in 0..10 {
            assert_eq!(bench.state(), State::Closed, "{gap} ms apart, before send {number}");
            bench.send(number < 5);
            bench.now += Duration::from_millis(gap);
        }
        assert_eq!(bench.opened(), [Reason::FailureRate], "{gap} ms apart");
    }
    let mut bench = Bench::new(off_in_a_row());
    for _ in 0..100 {
        bench.send(false);
        bench.now += 7 * SECOND;
    }
    assert_eq!(bench.opened(), [], "fewer than the least in any window");
}

#[test]
fn the_last_one_standing_is_opened_by_a_row_of_failures_only() {
    let mut bench = Bench::new(BreakerSettings::default());
    bench.alone = LONE;
    for number in 0..100 {
        bench.send(number % 4 == 0);
        let ticket = bench.enter().unwrap();
        bench.fail(ticket, Counts::RatioOnly, Some(10 * SECOND));
        let ticket = bench.enter().unwrap();
        bench.fail(ticket, Counts::Credential, None);
        let ticket = bench.enter().unwrap();
        bench.answer(ticket, Some(true));
    }
    assert_eq!(bench.changes, []);
    (0..5).for_each(|_| assert!(bench.send(false)));
    assert_eq!(bench.opened(), [Reason::Consecutive]);
}

#[test]
fn slowness_opens_it_where_somebody_is_faster() {
    let mut bench = Bench::new(BreakerSettings::default());
    for number in 0..10 {
        assert_eq!(bench.state(), State::Closed);
        let ticket = bench.enter().unwrap();
        bench.answer(ticket, Some(number >= 2));
    }
    assert_eq!(bench.opened(), [Reason::Slow]);
}

#[test]
fn a_rate_limit_with_a_wait_is_a_cooldown_and_the_longest_holds() {
    let mut bench = Bench::new(BreakerSettings::default());
    let tickets: Vec<Ticket> = (0..3).map(|_| bench.enter().unwrap()).collect();
    for (ticket, wait) in tickets.into_iter().zip([10, 40, 2]) {
        bench.fail(ticket, Counts::RatioOnly, Some(wait * SECOND));
    }
    assert_eq!(bench.breaker.peek(bench.now).unwrap_err().until, bench.now + 40 * SECOND);
    bench.now += 40 * SECOND;
    assert!(bench.send(true), "it ends at its moment");
    assert_eq!(bench.opened(), []);
    (0..5).for_each(|_| assert!(bench.send(false)));
    assert_eq!(bench.breaker.until(), Some(bench.now + 2 * SECOND), "the back-off did not grow");
}

#[test]
fn rate_limits_count_in_the_share_and_not_in_a_row() {
    let mut bench = Bench::new(BreakerSettings::default());
    for _ in 0..9 {
        let ticket = bench.enter().unwrap();
        bench.fail(ticket, Counts::RatioOnly, None);
    }
    assert_eq!(bench.changes, []);
    let ticket = bench.enter().unwrap();
    bench.fail(ticket, Counts::RatioOnly, None);
    assert_eq!(bench.opened(), [Reason::FailureRate]);
    bench.now += 3 * SECOND;
    let probe = bench.enter().unwrap();
    bench.fail(probe, Counts::RatioOnly, None);
    assert_eq!(bench.opened(), [Reason::FailureRate, Reason::Probe]);
}

#[test]
fn an_operator_s_word_stands_until_it_is_taken_back() {
    let mut bench = Bench::new(BreakerSettings::default());
    bench.breaker.force(Some(State::ForcedClosed), &mut bench.changes);
    (0..50).for_each(|_| assert!(bench.send(false)));
    bench.breaker.force(Some(State::ForcedOpen), &mut bench.changes);
    bench.now += 1000 * SECOND;
    assert!(!bench.send(true));
    bench.breaker.force(None, &mut bench.changes);
    assert!(bench.send(true));
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn one_that_is_off_never_opens() {
    let mut bench = Bench::new(BreakerSettings { on: false, ..BreakerSettings::default() });
    (0..100).for_each(|_| assert!(bench.send(false)));
}

/// The whole of it in a few lines, with every moment kept and nothing clever.
struct Model {
    settings: BreakerSettings,
    made: Instant,
    /// Moment and whether it failed, since the circuit last opened or closed.
    sends: Vec<(Instant, bool)>,
    open: Option<Instant>,
    closed: Option<Instant>,
    row: u32,
    trips: u32,
}

impl Model {
    fn allows(&self, now: Instant) -> bool {
        self.open.is_none_or(|until| until <= now)
    }

    fn send(&mut self, now: Instant, good: bool) {
        let probe = self.open.is_some();
        if good && probe {
            (self.open, self.closed, self.row) = (None, Some(now), 0);
            self.sends.clear();
        }
        self.sends.push((now, !good));
        self.row = if good { 0 } else { self.row + 1 };
        let settings = self.settings;
        // Whole tenths of a window, as they are counted: ten of them, the one that has just begun included.
        let tenth = |at: Instant| (at - self.made).as_millis() / (settings.window.as_millis() / 10);
        let recent: Vec<bool> =
            self.sends.iter().filter(|(at, _)| tenth(*at) + 10 > tenth(now)).map(|(_, failed)| *failed).collect();
        let failed = recent.iter().filter(|failed| **failed).count() as f64;
        let share =
            recent.len() >= settings.min_calls as usize && failed / recent.len() as f64 >= settings.failure_rate;
        if !good && (probe || self.row >= settings.consecutive || share) {
            if !probe && self.closed.is_none_or(|since| now - since >= settings.window) {
                self.trips = 0;
            }
            self.open = Some(now + (settings.open_for * 2u32.pow(self.trips.min(10))).min(settings.max_open));
            (self.trips, self.row) = (self.trips + 1, 0);
            self.sends.clear();
        }
    }
}

proptest! {
    #[test]
    fn it_does_what_the_model_does(
        consecutive in 2u32..6,
        steps in proptest::collection::vec((0u64..4_000, 0u8..10), 1..300),
    ) {
        let settings = BreakerSettings { consecutive, min_calls: 4, ..BreakerSettings::default() };
        let mut bench = Bench::new(settings);
        let mut model =
            Model { settings, made: bench.now, sends: Vec::new(), open: None, closed: None, row: 0, trips: 0 };
        for (millis, luck) in steps {
            bench.now += Duration::from_millis(millis);
            let good = luck < 6;
            prop_assert_eq!(bench.breaker.peek(bench.now).is_ok(), model.allows(bench.now));
            if bench.send(good) {
                model.send(bench.now, good);
            }
        }
    }

    #[test]
    fn it_never_opens_faster_than_its_back_off(
        steps in proptest::collection::vec((0u64..1_500, 0.0f64..1.0), 1..400),
    ) {
        // An endpoint that is up for three seconds and down for three, asked all the time.
        let settings = BreakerSettings::default();
        let mut bench = Bench::new(settings);
        let start = bench.now;
        let mut opened: Vec<(Instant, Duration)> = Vec::new();
        for (millis, sample) in steps {
            bench.now += Duration::from_millis(millis);
            bench.sample = sample;
            bench.changes.clear();
            for _ in 0..8 {
                bench.send((bench.now - start).as_secs() % 6 < 3);
            }
            let lasts = bench.changes.iter().filter(|change| change.to == State::Open).map(|change| change.until);
            opened.extend(lasts.flatten().map(|until| (bench.now, until - bench.now)));
        }
        let mut doublings = 0;
        for pair in opened.windows(2) {
            let [(before, lasted), (at, lasts)] = [pair[0], pair[1]];
            prop_assert!(at - before >= lasted, "open for {lasted:?}, and again after {:?}", at - before);
            // Within a window every opening is one more of the same outage.
            doublings = if at - before < settings.window { doublings + 1 } else { 0 };
            let least = (settings.open_for * 2u32.pow(doublings.min(10))).min(settings.max_open) / 2;
            prop_assert!(lasts >= least && lasts <= settings.max_open, "{lasts:?} after {doublings} doublings");
        }
    }

    /// Whatever happens to probes, there are never more than may be, and in the end the place is free.
    #[test]
    fn places_of_probes_are_given_back(
        probes in 1u32..4,
        steps in proptest::collection::vec((0u64..3_000, 0u8..5), 1..200),
    ) {
        let settings = BreakerSettings { probes, ..BreakerSettings::default() };
        let mut bench = Bench::new(settings);
        let mut held: Vec<Ticket> = Vec::new();
        for (millis, what) in steps {
            bench.now += Duration::from_millis(millis);
            if let Some(ticket) = bench.enter() {
                held.push(ticket);
            }
            let current = bench.breaker.generation;
            let out = held.iter().filter(|ticket| ticket.probe && ticket.generation == current).count();
            prop_assert!(out <= probes as usize);
            if what < 4 && !held.is_empty() {
                let mut ticket = held.swap_remove(millis as usize % held.len());
                match what {
                    0 => bench.answer(ticket, None),
                    1 => bench.breaker.left(&mut ticket),
                    2 => bench.fail(ticket, Counts::Nothing, None),
                    _ => bench.fail(ticket, Counts::Both, None),
                }
            }
        }
        held.into_iter().for_each(|mut ticket| bench.breaker.left(&mut ticket));
        bench.now += 3600 * SECOND;
        prop_assert!(bench.enter().is_some());
    }
}

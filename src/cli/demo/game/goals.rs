//! What each scenario promises, and whether this run kept it. Pure: no clock, nothing printed.

use std::time::Duration;

use super::record::{Figures, Record};
use super::script::Name;

/// Sends per call at most, in an outage.
const OUTAGE_SENDS: f64 = 1.1;
/// Repeats a minute that each target gets whatever the traffic: the floor of the retry budget.
const FLOOR: u64 = 3;
/// A failure takes at most this long, once the gateway knows of the outage.
const SOON: Duration = Duration::from_secs(1);
/// The longest a breaker leaves an endpoint alone: `breaker.max_open`.
const MAX_OPEN: Duration = Duration::from_secs(20);
/// Good answers per call, in a brownout.
const BROWNOUT_GOOD: f64 = 0.999;
/// Sends per call at most, in a brownout.
const BROWNOUT_SENDS: f64 = 1.4;
/// Sends that a spent quota may meet: it has to be noticed, and some are under way then.
const FEW: u64 = 5;
/// Good answers per second, as a share of what the server can serve.
const GOODPUT: f64 = 0.95;
/// Good answers per critical call.
const CRITICAL_GOOD: f64 = 0.99;

/// One promise.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// What is promised.
    pub goal: String,
    /// What this run came to.
    pub measured: String,
    /// Whether that is as good.
    pub met: bool,
}

fn goal(goal: impl Into<String>, measured: String, met: bool) -> Goal {
    Goal { goal: goal.into(), measured, met }
}

/// The promises of a scenario, with what this run made of them.
pub fn goals(name: Name, record: &Record) -> Vec<Goal> {
    let sums = Figures::of(record.faulty(true));
    match name {
        Name::BadDay => Vec::new(),
        Name::Outage => outage(record, &sums),
        Name::Brownout => vec![
            goal(
                format!("at least {:.1} % good answers in the brownout", BROWNOUT_GOOD * 100.0),
                format!("{:.2} %, {} of {} lost", sums.success() * 100.0, sums.calls - sums.good, sums.calls),
                sums.success() >= BROWNOUT_GOOD,
            ),
            goal(
                format!("at most {BROWNOUT_SENDS} sends per call"),
                format!("{:.2}", sums.amplification()),
                sums.amplification() <= BROWNOUT_SENDS,
            ),
        ],
        Name::Flap => vec![none_lost(record)],
        Name::Ratelimit => {
            let spent = record.spent.unwrap_or(0);
            let few = format!("at most {FEW} sends to the credential whose quota is spent");
            vec![goal(few, format!("{spent}"), spent <= FEW), none_lost(record)]
        }
        Name::Overload => overload(record),
    }
}

/// Over the whole story: a call that was under way when it went wrong counts too.
fn none_lost(record: &Record) -> Goal {
    let sums = Figures::of(record.way(true));
    goal(
        "no call lost that the other server could have served",
        format!("{} of {} lost, and {} cut after their answer had begun", sums.lost, sums.calls, sums.cut),
        sums.lost == 0,
    )
}

/// Sends that an outage of this length may cost: a little more than one per call, and the floor of both targets.
pub fn allowed_sends(calls: u64, length: Duration) -> u64 {
    let minutes = length.as_secs().div_ceil(60).max(1);
    (calls as f64 * OUTAGE_SENDS) as u64 + 2 * FLOOR * minutes
}

fn outage(record: &Record, sums: &Figures) -> Vec<Goal> {
    let (from, to) = record.fault_time();
    let allowed = allowed_sends(sums.calls, to - from);
    let knew = record.after_the_trip();
    let slowest = knew.as_ref().unwrap_or(sums).failed_after(99.0);
    let after = match (knew.is_some(), slowest) {
        (true, slowest) => ms(slowest),
        (false, slowest) => format!("{}, of all failures: it never refused one unsent", ms(slowest)),
    };
    let back = record.first_good();
    vec![
        goal(
            format!("at most {OUTAGE_SENDS} sends per call in the outage, and {FLOOR} a minute and target: {allowed}"),
            format!("{} for {} calls, {:.2} per call", sums.sends, sums.calls, sums.amplification()),
            sums.sends <= allowed,
        ),
        goal(
            "99 of 100 failures within 1 s, once the breakers are open",
            after,
            knew.is_some() && slowest.is_none_or(|slowest| slowest < SOON),
        ),
        goal(
            format!("a good answer within {} s of the outage's end", MAX_OPEN.as_secs()),
            back.map_or_else(|| "none in this run".to_owned(), |back| format!("after {:.1} s", back.as_secs_f64())),
            back.is_some_and(|back| back <= MAX_OPEN),
        ),
    ]
}

fn overload(record: &Record) -> Vec<Goal> {
    let capacity = record.capacity.unwrap_or(0.0);
    let critical = Figures::of(record.faulty(true).filter(|seen| seen.priority == Some("critical")));
    vec![
        goal(
            format!("good answers at {:.0} % of what the server can serve", GOODPUT * 100.0),
            format!("{:.1} of {capacity:.1} a second, {:.1} %", record.goodput(), 100.0 * record.goodput() / capacity),
            record.goodput() >= GOODPUT * capacity,
        ),
        goal(
            format!("at least {:.0} % of the critical calls good", CRITICAL_GOOD * 100.0),
            format!(
                "{:.2} %, {} of {} lost",
                critical.success() * 100.0,
                critical.calls - critical.good,
                critical.calls
            ),
            critical.success() >= CRITICAL_GOOD,
        ),
    ]
}

/// A time in whole milliseconds, for people.
pub fn ms(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.0} ms", time.as_secs_f64() * 1e3))
}

#[cfg(test)]
mod tests {
    use super::super::super::client::Told;
    use super::super::record::Seen;
    use super::*;

    fn record(calls: Vec<Seen>) -> Record {
        let times =
            [(0, 10), (10, 20), (20, 40)].map(|(from, to)| (Duration::from_secs(from), Duration::from_secs(to)));
        Record { calls, times: times.to_vec(), faults: 1..2, spent: Some(5), capacity: Some(1.0) }
    }

    fn seen(at: u64, took: u64, good: bool, sends: u32) -> Seen {
        let phase = usize::from(at >= 10) + usize::from(at >= 20);
        let told = Told { good, sends: Some(sends), ..Told::default() };
        let (at, took) = (Duration::from_secs(at), Duration::from_millis(took));
        Seen { at, took, through: true, phase, priority: Some("critical"), told }
    }

    fn met(name: Name, record: &Record) -> Vec<bool> {
        goals(name, record).iter().map(|goal| goal.met).collect()
    }

    #[test]
    fn an_outage_is_judged_by_sends_speed_and_return() {
        let storm = |sends| (0..10).map(move |at| seen(10 + at, 5, false, if at < 3 { sends } else { 0 }));
        let back = |at| seen(at, 100, true, 1);
        assert_eq!(allowed_sends(10, Duration::from_secs(10)), 17);
        assert_eq!(allowed_sends(10, Duration::from_secs(61)), 23);
        assert_eq!(met(Name::Outage, &record(storm(2).chain([back(39)]).collect())), [true, true, true]);
        assert_eq!(met(Name::Outage, &record(storm(6).chain([back(39)]).collect())), [false, true, true]);
        assert_eq!(met(Name::Outage, &record(storm(2).collect())), [true, true, false]);
        let slow = storm(2).chain([seen(19, 1500, false, 1), back(21)]);
        assert_eq!(met(Name::Outage, &record(slow.collect())), [true, false, true]);
        let never = (0..10).map(|at| seen(10 + at, 5, false, 1)).chain([back(21)]);
        assert_eq!(met(Name::Outage, &record(never.collect())), [true, false, true], "it did not trip");
    }

    #[test]
    fn the_others_are_judged_by_their_own_measure() {
        let good: Vec<_> = (10..20).map(|at| seen(at, 100, true, 1)).collect();
        let mut worse = good.clone();
        worse[0] = seen(10, 100, false, 9);
        for (name, when_worse) in [
            (Name::Brownout, vec![false, false]),
            (Name::Flap, vec![false]),
            (Name::Ratelimit, vec![true, false]),
            (Name::Overload, vec![false, false]),
        ] {
            assert!(met(name, &record(good.clone())).iter().all(|met| *met), "{name:?}");
            assert_eq!(met(name, &record(worse.clone())), when_worse, "{name:?}");
        }
        let spent = Record { spent: Some(6), ..record(good) };
        assert_eq!(met(Name::Ratelimit, &spent), [false, true]);
        let mut cut = record(worse);
        cut.calls[0].told.began = true;
        assert_eq!(met(Name::Flap, &cut), [true], "no other server can end an answer that has begun");
    }
}

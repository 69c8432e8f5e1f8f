//! What is remembered of every call, and the figures that come of it. Pure: no clock, nothing printed.

use std::time::Duration;

use super::super::client::Told;

/// How long nothing may fail until a service counts as steady.
pub const STEADY: Duration = Duration::from_secs(3);

/// One call as its client saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it began, since the story did.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// Whether it went through the gateway.
    pub through: bool,
    /// The number of the phase in which it began.
    pub phase: usize,
    /// The priority it asked for, if any.
    pub priority: Option<&'static str>,
    /// What came of it.
    pub told: Told,
}

/// Sums over some calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Calls made.
    pub calls: u64,
    /// Calls with a complete, good answer.
    pub good: u64,
    /// Calls that failed before anything of an answer was handed out.
    pub lost: u64,
    /// Calls whose answer began, and did not come to a good end.
    pub cut: u64,
    /// Calls that failed without a send.
    pub unsent: u64,
    /// Sends upstream.
    pub sends: u64,
    /// How long the calls that failed took, sorted.
    pub failed: Vec<Duration>,
}

impl Figures {
    /// The sums over `calls`.
    pub fn of<'a>(calls: impl Iterator<Item = &'a Seen>) -> Self {
        let mut sums = Self::default();
        for seen in calls {
            sums.calls += 1;
            sums.sends += u64::from(seen.told.sends.unwrap_or(0));
            if seen.told.good {
                sums.good += 1;
                continue;
            }
            sums.failed.push(seen.took);
            sums.unsent += u64::from(seen.told.sends == Some(0));
            *if seen.told.began { &mut sums.cut } else { &mut sums.lost } += 1;
        }
        sums.failed.sort_unstable();
        sums
    }

    /// Good answers per call, 0 to 1; 1 without a call.
    pub fn success(&self) -> f64 {
        if self.calls == 0 { 1.0 } else { self.good as f64 / self.calls as f64 }
    }

    /// Sends per call.
    pub fn amplification(&self) -> f64 {
        self.sends as f64 / self.calls.max(1) as f64
    }

    /// A percentile of how long the failed calls took; `None` if none failed.
    pub fn failed_after(&self, percentile: f64) -> Option<Duration> {
        let rank = (self.failed.len() as f64 * percentile / 100.0).ceil() as usize;
        self.failed.get(rank.max(1) - 1).copied()
    }
}

/// The whole run.
pub struct Record {
    /// Every call, in the order in which they ended.
    pub calls: Vec<Seen>,
    /// When each phase began and ended.
    pub times: Vec<(Duration, Duration)>,
    /// The numbers of the phases in which something was wrong: one run of neighbours.
    pub faults: std::ops::Range<usize>,
    /// Sends that met the spent quota, in a scenario that has one.
    pub spent: Option<u64>,
    /// Calls a second that a server can serve, where that was measured.
    pub capacity: Option<f64>,
}

impl Record {
    /// The calls of one way.
    pub fn way(&self, through: bool) -> impl Iterator<Item = &Seen> {
        self.calls.iter().filter(move |seen| seen.through == through)
    }

    /// The calls of one way that began while something was wrong.
    pub fn faulty(&self, through: bool) -> impl Iterator<Item = &Seen> {
        self.way(through).filter(|seen| self.faults.contains(&seen.phase))
    }

    /// When things went wrong, and when they were mended.
    pub fn fault_time(&self) -> (Duration, Duration) {
        let from = self.times.get(self.faults.start).map_or(Duration::ZERO, |time| time.0);
        let to = self.faults.clone().next_back().and_then(|last| self.times.get(last)).map_or(from, |time| time.1);
        (from, to)
    }

    /// The calls through the gateway that began after the first one it refused without a send: it knew by then.
    pub fn after_the_trip(&self) -> Option<Figures> {
        let knew =
            self.faulty(true).filter(|seen| !seen.told.good && seen.told.sends == Some(0)).map(|seen| seen.at).min()?;
        Some(Figures::of(self.faulty(true).filter(|seen| seen.at >= knew)))
    }

    /// From the fault's end to the end of the first good answer through the gateway.
    pub fn first_good(&self) -> Option<Duration> {
        let (_, end) = self.fault_time();
        let ends = self.way(true).filter(|seen| seen.told.good).map(|seen| seen.at + seen.took);
        ends.filter(|at| *at >= end).min().map(|at| at - end)
    }

    /// From the fault's end to the first call through the gateway from which on nothing failed for [`STEADY`].
    pub fn steady(&self) -> Option<Duration> {
        let (_, end) = self.fault_time();
        let over = self.times.last().map_or(end, |time| time.1);
        let mut after: Vec<_> =
            self.way(true).filter(|seen| seen.at >= end).map(|seen| (seen.at, seen.told.good)).collect();
        after.sort_unstable();
        let mut since = None;
        for (at, good) in after {
            if since.is_some_and(|since| at >= since + STEADY) {
                break;
            }
            since = if good { since.or(Some(at)) } else { None };
        }
        since.filter(|since| *since + STEADY <= over).map(|since| since - end)
    }

    /// Good answers through the gateway that ended while something was wrong, per second of it.
    pub fn goodput(&self) -> f64 {
        let (from, to) = self.fault_time();
        let ended = self.way(true).filter(|seen| seen.told.good).map(|seen| seen.at + seen.took);
        ended.filter(|at| (from..to).contains(at)).count() as f64 / (to - from).as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(at: u64, took: u64, good: bool, sends: u32) -> Seen {
        let told = Told { good, sends: Some(sends), ..Told::default() };
        let phase = usize::from(at >= 1000) + usize::from(at >= 2000);
        let (at, took) = (Duration::from_millis(at), Duration::from_millis(took));
        Seen { at, took, through: true, phase, priority: None, told }
    }

    fn record(calls: Vec<Seen>) -> Record {
        let times = [(0, 1), (1, 2), (2, 8)].map(|(from, to)| (Duration::from_secs(from), Duration::from_secs(to)));
        Record { calls, times: times.to_vec(), faults: 1..2, spent: None, capacity: None }
    }

    #[test]
    fn sums_add_up() {
        let mut cut = seen(1100, 9, false, 1);
        cut.told.began = true;
        let calls = [seen(0, 5, true, 1), seen(1000, 7, false, 3), cut, seen(1200, 1, false, 0)];
        let sums = Figures::of(calls.iter());
        assert_eq!((sums.calls, sums.good, sums.lost, sums.cut, sums.unsent, sums.sends), (4, 1, 2, 1, 1, 5));
        assert_eq!((sums.success(), sums.amplification()), (0.25, 1.25));
        assert_eq!(sums.failed_after(50.0), Some(Duration::from_millis(7)));
        assert_eq!(sums.failed_after(99.0), Some(Duration::from_millis(9)));
        assert_eq!(Figures::default().failed_after(99.0), None);
        let record = record(calls.to_vec());
        assert_eq!(Figures::of(record.faulty(true)).calls, 3);
        assert_eq!(record.after_the_trip().map(|sums| sums.calls), Some(1));
    }

    #[test]
    fn recovery_is_measured_from_the_faults_end() {
        let none = record(vec![seen(1500, 10, false, 2), seen(2100, 10, false, 2)]);
        assert_eq!((none.first_good(), none.steady()), (None, None));
        let calls = vec![
            seen(500, 10, true, 1),
            seen(2100, 50, true, 1),
            seen(2500, 10, false, 1),
            seen(2600, 10, true, 1),
            seen(5000, 10, true, 1),
            seen(6000, 10, false, 1),
        ];
        let back = record(calls);
        assert_eq!(back.first_good(), Some(Duration::from_millis(150)));
        assert_eq!(back.steady(), Some(Duration::from_millis(600)), "what fails later is another matter");
        let late = record(vec![seen(5500, 10, true, 1), seen(7900, 10, true, 1)]);
        assert_eq!(late.steady(), None, "the story ends before it is known");
    }

    #[test]
    fn goodput_counts_what_ends_within() {
        let calls =
            vec![seen(900, 150, true, 1), seen(1200, 10, true, 1), seen(1950, 100, true, 1), seen(1300, 1, false, 1)];
        assert_eq!(record(calls).goodput(), 2.0);
    }
}

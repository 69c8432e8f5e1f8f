//! Each judge against histories that break what it judges: a judge that never speaks proves nothing.

use super::check::check;
use super::event::{Breaker, Called, Event, Failed, Sent, Setup, What, read, write};

const SECOND: u64 = 1_000_000;
const ONE: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n";
const TWO: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"two\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const ERROR: &str = "data: {\"error\":{\"code\":\"stream_truncated\"}}\n\n";

fn setup() -> Setup {
    Setup {
        exact: true,
        targets: vec![vec![0, 1], vec![2]],
        mechanisms: vec!["retry".into(), "breaker".into()],
        max_sends: 3,
        attempts: 2,
        budget: 0.1,
        total: 60 * SECOND,
        breaker: Some(Breaker { consecutive: 2, failure_rate: 0.5, min_calls: 4, probes: 1 }),
        ..Setup::default()
    }
}

/// A history as it is written: in seconds, in order.
#[derive(Clone)]
struct Story(Vec<Event>);

impl Story {
    fn new(setup: Setup) -> Self {
        Self(Vec::new()).then(0.0, What::Setup(setup))
    }

    fn then(mut self, seconds: f64, what: What) -> Self {
        self.0.push(Event { at: (seconds * SECOND as f64) as u64, what });
        self
    }

    fn called(self, at: f64, called: Called) -> Self {
        self.then(at, What::Called(Called { read: true, stream: true, priority: 1, body: "b".into(), ..called }))
    }

    fn started(self, at: f64, call: u32, send: u32, kind: &str, target: usize, paid: bool) -> Self {
        self.then(at, What::Started { call, send, kind: kind.into(), target, paid })
    }

    fn sent(self, at: f64, call: u32, send: u32, endpoint: usize) -> Self {
        self.then(at, What::Sent(Sent { call, send, endpoint, limit: Some(2), body: Some("b".into()) }))
    }

    /// A send that goes out at once.
    fn goes(self, at: f64, call: u32, send: u32, kind: &str, target: usize) -> Self {
        let endpoint = if target == 0 { 0 } else { 2 };
        self.started(at, call, send, kind, target, false).sent(at, call, send, endpoint)
    }

    fn failed(self, at: f64, call: u32, send: u32, class: &str, retry: &str) -> Self {
        let (class, retry) = (class.to_owned(), retry.to_owned());
        let verdict = class.clone();
        self.then(at, What::Failed(Failed { call, send, class, retry, ..Failed::default() }))
            .then(at, What::Dropped { call, send, limit: None })
            .then(at, What::Verdict { call, send, verdict })
    }

    fn said(self, at: f64, call: u32, send: u32, text: &str, complete: bool) -> Self {
        self.then(at, What::Said { call, send, text: text.into(), complete }).then(at, What::First { call, send })
    }

    fn head(self, at: f64, call: u32, status: u16, sends: u32) -> Self {
        let outcome = if status < 400 { "ok" } else { "failed" };
        self.then(at, What::Head { call, status, outcome: outcome.into(), sends })
    }

    fn bytes(self, at: f64, call: u32, text: &str) -> Self {
        self.then(at, What::Bytes { call, text: text.into() })
    }

    fn over(self, at: f64, call: u32, send: u32) -> Self {
        let verdict = "ok".to_owned();
        self.then(at, What::Dropped { call, send, limit: None }).then(at, What::Verdict { call, send, verdict })
    }

    fn ended(self, at: f64, call: u32, status: u16, outcome: &str, sends: u32) -> Self {
        let class = (outcome == "failed").then(|| "upstream_500".to_owned());
        self.then(at, What::Ended { call, status, outcome: outcome.into(), class, sends })
    }

    fn closed(self, at: f64, call: u32) -> Self {
        self.then(at, What::Closed { call, broken: false })
    }

    /// The call's last send answers, and its client has all of it.
    fn answered(self, at: f64, call: u32, sends: u32) -> Self {
        let text = format!("{ONE}{DONE}");
        self.said(at, call, sends - 1, &text, true)
            .head(at, call, 200, sends)
            .bytes(at, call, &text)
            .over(at, call, sends - 1)
            .ended(at, call, 200, "ok", sends)
            .closed(at, call)
    }

    fn refused(self, at: f64, call: u32, sends: u32) -> Self {
        self.ended(at, call, 502, "failed", sends).head(at, call, 502, sends).bytes(at, call, "{}").closed(at, call)
    }

    fn rests(self) -> Self {
        self.then(99.0, What::Rest { in_use: vec![0, 0, 0], waiting: vec![0, 0], live: 0 })
    }

    /// Says whether exactly this invariant is broken.
    #[track_caller]
    fn breaks(self, invariant: &str) {
        let found = check(&self.0);
        assert!(!found.is_empty(), "nothing was found, {invariant} was broken");
        for broken in found {
            assert_eq!(broken.invariant, invariant, "{broken}");
        }
    }

    #[track_caller]
    fn holds(self) {
        let found: Vec<String> = check(&self.0).iter().map(ToString::to_string).collect();
        assert_eq!(found, Vec::<String>::new());
    }
}

fn call(call: u32) -> Called {
    Called { call, ..Called::default() }
}

fn story() -> Story {
    Story::new(setup())
}

/// One call, one send.
fn begun() -> Story {
    story().called(0.0, call(1)).goes(0.0, 1, 0, "first", 0)
}

/// Its answer has begun.
fn streaming(text: &str, complete: bool) -> Story {
    begun().said(1.0, 1, 0, text, complete).head(1.0, 1, 200, 1)
}

fn ends_well(story: Story) -> Story {
    story.over(2.0, 1, 0).ended(2.0, 1, 200, "ok", 1).closed(2.0, 1).rests()
}

fn ends_badly(story: Story) -> Story {
    story.over(2.0, 1, 0).ended(2.0, 1, 200, "failed", 1).closed(2.0, 1).rests()
}

#[test]
fn good_histories_pass_and_can_be_read_again() {
    let good = begun().answered(1.0, 1, 1).rests();
    assert_eq!(read(&write(&good.0)), good.0);
    good.holds();
    begun().failed(1.0, 1, 0, "upstream_500", "again").goes(1.0, 1, 1, "retry", 0).answered(2.0, 1, 2).rests().holds();
    ends_badly(streaming(&format!("{ONE}{TWO}{DONE}"), true).bytes(1.0, 1, ONE).bytes(2.0, 1, ERROR)).holds();
    let left = streaming(&format!("{ONE}{DONE}"), true).bytes(1.0, 1, ONE).then(1.5, What::Left { call: 1 });
    left.over(1.5, 1, 0).ended(1.5, 1, 499, "ok", 1).rests().holds();
}

#[test]
fn i1_a_send_after_commit() {
    let text = format!("{ONE}{DONE}");
    let late = streaming(&text, true).goes(1.0, 1, 1, "hedge", 0).over(1.0, 1, 1);
    let found = check(&ends_well(late.bytes(1.0, 1, &text)).0);
    assert!(found.iter().any(|broken| broken.invariant == "I1"), "{found:?}");
}

#[test]
fn i2_bytes_of_no_one_answer() {
    let text = format!("{ONE}{TWO}{DONE}");
    let client = |bytes: &str| streaming(&text, true).bytes(1.0, 1, bytes);
    ends_well(client(&text)).holds();
    // Something is missing, something is repeated, the end is missing, both ends are there, nobody's words.
    for bytes in [format!("{ONE}{DONE}"), format!("{ONE}{ONE}{TWO}{DONE}"), format!("{ONE}{TWO}"), "data: x\n\n".into()]
    {
        ends_well(client(&bytes)).breaks("I2");
    }
    ends_badly(client(&format!("{text}{ERROR}"))).breaks("I2");
    ends_badly(client(&format!("{TWO}{ERROR}"))).breaks("I2");
    // Half an event before the error.
    ends_badly(client(&format!("{}{ERROR}", &ONE[..20]))).breaks("I2");
    let left = client("data: x").then(1.0, What::Left { call: 1 });
    left.over(1.0, 1, 0).ended(1.0, 1, 499, "ok", 1).rests().breaks("I2");
    // An answer that never had an end passes for a whole one.
    ends_well(streaming(ONE, false).bytes(1.0, 1, ONE)).breaks("I2");
}

#[test]
fn i2_an_answer_of_two_sends() {
    let two = story().called(0.0, call(1)).goes(0.0, 1, 0, "first", 0).goes(0.5, 1, 1, "hedge", 0);
    let two =
        two.said(1.0, 1, 0, &format!("{ONE}{ONE}{DONE}"), true).said(1.0, 1, 1, &format!("{TWO}{TWO}{DONE}"), true);
    let two = two.head(1.0, 1, 200, 2).bytes(1.0, 1, &format!("{ONE}{TWO}{DONE}"));
    two.over(1.0, 1, 0).over(1.0, 1, 1).ended(1.0, 1, 200, "ok", 2).closed(1.0, 1).rests().breaks("I2");
}

#[test]
fn i3_more_sends_than_allowed() {
    let four = |retries| {
        let mut story = story().called(0.0, Called { retries, ..call(1) });
        for (send, target) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
            story = story.goes(0.0, 1, send, "fallback", target).failed(0.0, 1, send, "upstream_500", "again");
        }
        story.refused(1.0, 1, 4).rests()
    };
    four(None).breaks("I3");
    four(Some(1)).breaks("I3");
    let three_at_one = (0..3).fold(story().called(0.0, call(1)), |story, send| {
        story.goes(0.0, 1, send, "retry", 0).failed(0.0, 1, send, "upstream_500", "again")
    });
    three_at_one.refused(1.0, 1, 3).rests().breaks("I3");
    let no_fallback = story().called(0.0, Called { no_fallback: true, ..call(1) }).goes(0.0, 1, 0, "fallback", 1);
    no_fallback.answered(1.0, 1, 1).rests().breaks("I3");
    let no_hedge = story().called(0.0, Called { no_hedge: true, ..call(1) }).goes(0.0, 1, 0, "hedge", 0);
    no_hedge.answered(1.0, 1, 1).rests().breaks("I3");
}

#[test]
fn i3_more_repeats_than_traffic_pays_for() {
    let storm = |calls: u32| {
        let mut story = story();
        for number in 0..calls {
            let at = f64::from(number);
            story = story.called(at, call(number)).goes(at, number, 0, "first", 0);
            story = story.failed(at, number, 0, "upstream_500", "again");
            story = story.started(at, number, 1, "retry", 0, true).sent(at, number, 1, 1).answered(at, number, 2);
        }
        story.rests()
    };
    storm(3).holds();
    storm(4).breaks("I3");
}

#[test]
fn i4_too_late_or_too_early() {
    begun_at_the_deadline(60.0).breaks("I4");
    begun_at_the_deadline(59.9).holds();
    let repeat = |at: f64| {
        let failed = begun().failed(1.0, 1, 0, "upstream_500", "again").started(at, 1, 1, "retry", 0, true);
        failed.sent(at, 1, 1, 1).answered(at + 0.1, 1, 2).rests()
    };
    repeat(58.9).holds();
    repeat(59.1).breaks("I4");
    let asked = |at: f64| {
        let wait = Some(5 * SECOND);
        let (class, retry) = ("rate_limited".to_owned(), "again".to_owned());
        let failed = begun().then(1.0, What::Failed(Failed { call: 1, send: 0, class, retry, wait, unsent: false }));
        let verdict = What::Verdict { call: 1, send: 0, verdict: "rate_limited".into() };
        let over = failed.then(1.0, What::Dropped { call: 1, send: 0, limit: None }).then(1.0, verdict);
        over.goes(at, 1, 1, "retry", 0).answered(at, 1, 2).rests()
    };
    asked(6.0).holds();
    asked(5.0).breaks("I4");
}

fn begun_at_the_deadline(at: f64) -> Story {
    story().called(0.0, call(1)).goes(at, 1, 0, "first", 0).answered(at, 1, 1).rests()
}

#[test]
fn i5_something_is_kept() {
    let answer = || {
        let text = format!("{ONE}{DONE}");
        let read = streaming(&text, true).bytes(1.0, 1, &text).ended(1.0, 1, 200, "ok", 1).closed(1.0, 1);
        read.then(1.0, What::Verdict { call: 1, send: 0, verdict: "ok".into() })
    };
    answer().rests().breaks("I5");
    let gone = |story: Story| story.then(1.0, What::Dropped { call: 1, send: 0, limit: None });
    gone(answer()).rests().holds();
    gone(gone(answer())).rests().breaks("I5");
    gone(answer()).breaks("I5");
    for (in_use, waiting, live) in [(1, 0, 0), (0, 1, 0), (0, 0, 1)] {
        let rest = What::Rest { in_use: vec![0, in_use], waiting: vec![waiting], live };
        gone(answer()).then(9.0, rest).breaks("I5");
    }
    let stays = story().called(0.0, call(1)).started(0.0, 1, 0, "first", 0, false);
    stays.then(0.0, What::Waits { call: 1, send: 0, endpoints: vec![0] }).refused(1.0, 1, 0).rests().breaks("I5");
}

fn circuit(endpoint: usize, to: &str, reason: &str) -> What {
    What::Circuit { endpoint, to: to.into(), reason: reason.into() }
}

#[test]
fn i6_a_circuit_opens_for_what_is_not_the_upstreams_fault() {
    let fails = |class: &str, retry: &str| {
        let mut story = story();
        for number in 0..2 {
            let at = f64::from(number);
            story = story.called(at, call(number)).goes(at, number, 0, "first", 0);
            story = story.failed(at, number, 0, class, retry);
            if number == 1 {
                story = story.then(at, circuit(0, "open", "consecutive"));
            }
            story = story.refused(at, number, 1);
        }
        story.rests()
    };
    fails("upstream_500", "again").holds();
    fails("upstream_400", "never").breaks("I6");
    fails("client_disconnect", "never").breaks("I6");
    fails("rate_limited", "again").breaks("I6");
    begun().answered(1.0, 1, 1).then(2.0, circuit(0, "credential", "credential")).rests().breaks("I6");
    let off = Story::new(Setup { breaker: None, ..setup() });
    off.then(1.0, circuit(0, "open", "consecutive")).rests().breaks("I6");
}

#[test]
fn i7_more_in_flight_than_the_limit() {
    let at_once = |calls: u32| {
        let story =
            (0..calls).fold(story(), |story, number| story.called(0.0, call(number)).goes(0.0, number, 0, "first", 0));
        (0..calls).fold(story, |story, number| story.answered(1.0, number, 1)).rests()
    };
    at_once(2).holds();
    at_once(3).breaks("I7");
}

#[test]
fn i8_a_second_probe_and_a_send_where_it_is_shut() {
    let opened = || {
        let story = (1..3).fold(story(), |story, number| {
            let story = story.called(0.0, call(number)).goes(0.0, number, 0, "first", 0);
            story.failed(0.0, number, 0, "upstream_500", "again").refused(0.0, number, 1)
        });
        story.then(0.0, circuit(0, "open", "consecutive"))
    };
    let one = |story: Story, number| story.called(5.0, call(number)).goes(5.0, number, 0, "first", 0);
    one(opened(), 3).answered(5.0, 3, 1).rests().breaks("I8");
    let probing = || one(opened().then(5.0, circuit(0, "half_open", "elapsed")), 3);
    probing().answered(6.0, 3, 1).rests().holds();
    one(probing(), 4).answered(6.0, 3, 1).answered(6.0, 4, 1).rests().breaks("I8");
}

#[test]
fn i9_counted_twice_not_at_all_or_as_something_else() {
    let text = format!("{ONE}{DONE}");
    let read = || streaming(&text, true).bytes(1.0, 1, &text).over(1.0, 1, 0).closed(1.0, 1);
    read().ended(1.0, 1, 200, "ok", 1).rests().holds();
    read().rests().breaks("I9");
    read().ended(1.0, 1, 200, "ok", 1).ended(1.0, 1, 200, "ok", 1).rests().breaks("I9");
    read().ended(1.0, 1, 502, "ok", 1).rests().breaks("I9");
    read().ended(1.0, 1, 200, "ok", 2).rests().breaks("I9");
    read().ended(1.0, 1, 200, "retried", 1).rests().breaks("I9");
    read().ended(1.0, 1, 200, "failed", 1).rests().breaks("I9");
    let twice = read().then(1.0, What::Verdict { call: 1, send: 0, verdict: "ok".into() });
    twice.ended(1.0, 1, 200, "ok", 1).rests().breaks("I9");
    let (class, retry) = ("upstream_500".to_owned(), "again".to_owned());
    let other = What::Failed(Failed { call: 1, send: 0, class, retry, ..Failed::default() });
    begun().then(0.5, other).answered(1.0, 1, 1).rests().breaks("I9");
    // A stream that broke, counted as a good one.
    ends_well(streaming(&text, true).bytes(1.0, 1, ONE).bytes(1.0, 1, ERROR)).breaks("I9");
}

#[test]
fn i10_a_client_that_left_is_still_worked_for() {
    let left = |sends| begun().then(1.0, What::Left { call: 1 }).ended(1.0, 1, 499, "failed", sends);
    left(1).over(1.0, 1, 0).rests().holds();
    left(1).over(2.5, 1, 0).rests().breaks("I10");
    left(2).over(1.0, 1, 0).goes(1.2, 1, 1, "retry", 0).over(1.2, 1, 1).rests().breaks("I10");
}

#[test]
fn i11_the_lower_before_the_higher() {
    let with = |story: Story, number: u32, priority: u8| {
        let called = Called { call: number, priority, read: true, stream: true, body: "b".into(), ..Called::default() };
        let story = story.then(0.0, What::Called(called)).started(0.0, number, 0, "first", 0, false);
        story.then(0.0, What::Waits { call: number, send: 0, endpoints: vec![0, 1] })
    };
    let goes = |story: Story, at: f64, number: u32| {
        let story = story.then(at, What::Waited { call: number, send: 0 }).sent(at, number, 0, 0);
        story.answered(at, number, 1)
    };
    let both = || with(with(story(), 1, 0), 2, 2);
    goes(goes(both(), 1.0, 2), 2.0, 1).rests().holds();
    goes(goes(both(), 1.0, 1), 2.0, 2).rests().breaks("I11");
    let turned_away = both().then(1.0, What::Waited { call: 2, send: 0 });
    let turned_away = turned_away.then(1.0, What::Refused { call: 2, send: 0, reason: "evicted".into() });
    goes(turned_away.refused(1.0, 2, 0), 2.0, 1).rests().breaks("I11");
}

#[test]
fn i12_what_cannot_help_is_sent_again() {
    let after = |class: &str, retry: &str, target| {
        begun().failed(1.0, 1, 0, class, retry).goes(2.0, 1, 1, "retry", target).answered(3.0, 1, 2).rests()
    };
    after("upstream_500", "again", 0).holds();
    after("upstream_400", "never", 1).breaks("I12");
    after("upstream_auth", "elsewhere", 0).breaks("I12");
    after("upstream_auth", "elsewhere", 1).holds();
    let wide = Story::new(Setup { attempts: 3, ..setup() }).called(0.0, call(1));
    let once = (0..3).fold(wide, |story, send| {
        story.goes(0.0, 1, send, "retry", 0).failed(0.0, 1, send, "empty_completion", "once")
    });
    once.refused(1.0, 1, 3).rests().breaks("I12");
}

#[test]
fn i13_one_key_twice_at_the_same_time() {
    let pair = |second: f64| {
        let story = [1, 2].iter().fold(story(), |story, number| {
            let at = if *number == 1 { 0.0 } else { second };
            let called = Called { key: Some("k".into()), ..call(*number) };
            story.called(at, called).goes(at, *number, 0, "first", 0)
        });
        story.answered(2.0, 1, 1).answered(9.0, 2, 1).rests()
    };
    pair(1.0).breaks("I13");
    pair(3.0).holds();
}

#[test]
fn i15_bytes_are_changed() {
    let other = |body: &str| {
        let story = story().called(0.0, call(1)).started(0.0, 1, 0, "first", 0, false);
        let sent = Sent { call: 1, send: 0, endpoint: 0, limit: None, body: Some(body.into()) };
        story.then(0.0, What::Sent(sent)).answered(1.0, 1, 1).rests()
    };
    other("b").holds();
    other("c").breaks("I15");
    let carried = |bytes: &str, complete| {
        let called = Called { call: 1, body: "b".into(), ..Called::default() };
        let story = story().then(0.0, What::Called(called)).goes(0.0, 1, 0, "first", 0);
        ends_well(story.said(1.0, 1, 0, "abc", complete).head(1.0, 1, 200, 1).bytes(1.0, 1, bytes))
    };
    carried("abc", true).holds();
    carried("abd", true).breaks("I15");
    carried("ab", true).breaks("I15");
    carried("abc", false).breaks("I15");
    let plain = || Story::new(Setup { mechanisms: Vec::new(), ..setup() }).called(0.0, call(1));
    plain().goes(0.0, 1, 0, "first", 0).answered(1.0, 1, 1).rests().holds();
    let twice = plain().goes(0.0, 1, 0, "first", 0).failed(0.0, 1, 0, "upstream_500", "again");
    twice.goes(0.0, 1, 1, "retry", 0).answered(1.0, 1, 2).rests().breaks("I15");
}

#[test]
fn i16_a_call_that_does_not_end() {
    let open = || begun().over(1.0, 1, 0).ended(1.0, 1, 502, "failed", 1);
    open().head(1.0, 1, 502, 1).rests().breaks("I16");
    open().head(1.0, 1, 502, 1).closed(61.0, 1).rests().holds();
    open().head(1.0, 1, 502, 1).closed(61.1, 1).rests().breaks("I16");
    open().head(1.0, 1, 502, 1).then(1.0, What::Closed { call: 1, broken: true }).rests().breaks("I16");
}

//! The addresses of one name: how long an answer holds, what is kept when there is none, who is tried first.
//!
//! Why a book of our own: the system's lookup tells no lifetime, so an answer is believed for a bound of ours; and a
//! resolver that fails says nothing of the server, so the last good answer stays. Invariant: once there was an answer
//! there always is one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Most addresses that one connection tries.
const TRIED: usize = 16;
/// Most addresses that are remembered of one answer.
const REMEMBERED: usize = 256;
/// After a lookup that failed, or one whose answer is in doubt, the next is made no sooner, as long as there is an answer to
/// live on.
const AGAIN: Duration = Duration::from_secs(1);

/// What a lookup has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing worth telling.
    None,
    /// Lookups have begun to fail.
    Failing,
    /// Lookups succeed again.
    Recovered,
}

/// What is known of one name.
#[derive(Clone, Debug)]
pub struct Addresses {
    refresh: Duration,
    newest: Vec<SocketAddr>,
    /// The answer before: names with many addresses tell a few of them at a time.
    before: Vec<SocketAddr>,
    /// The next lookup is due.
    due: Option<Instant>,
    /// It may not be due sooner.
    not_before: Option<Instant>,
    asking: bool,
    failing: bool,
    turn: usize,
}

impl Addresses {
    /// Nothing known yet; an answer holds for `refresh`.
    pub fn new(refresh: Duration) -> Self {
        let (newest, before) = (Vec::new(), Vec::new());
        Self { refresh, newest, before, due: None, not_before: None, asking: false, failing: false, turn: 0 }
    }

    /// Whether a lookup is to be made now. Once it was begun this says no until its end was told.
    pub fn is_due(&self, now: Instant) -> bool {
        !self.asking && self.due.is_none_or(|due| due <= now)
    }

    /// A lookup was begun; its end will be told.
    pub fn begin(&mut self) {
        self.asking = true;
    }

    /// Whether a lookup is under way.
    pub fn asking(&self) -> bool {
        self.asking
    }

    /// A lookup ended. An answer without addresses is none.
    pub fn ended(&mut self, answer: Option<Vec<SocketAddr>>, now: Instant) -> Change {
        self.asking = false;
        self.not_before = Some(now + AGAIN.min(self.refresh));
        let was_failing = self.failing;
        match answer.filter(|answer| !answer.is_empty()) {
            Some(mut answer) => {
                answer.truncate(REMEMBERED);
                self.before = std::mem::replace(&mut self.newest, answer);
                self.due = Some(now + self.refresh);
                self.failing = false;
            }
            None => {
                self.due = self.not_before.filter(|_| !self.newest.is_empty());
                self.failing = true;
            }
        }
        match (was_failing, self.failing) {
            (false, true) => Change::Failing,
            (true, false) => Change::Recovered,
            _ => Change::None,
        }
    }

    /// No connection came about: the answer may be old, and the next lookup is due as soon as may be.
    pub fn doubt(&mut self) {
        self.due = self.due.min(self.not_before);
    }

    /// How many addresses there are.
    pub fn known(&self) -> usize {
        self.newest.len()
    }

    /// Whether a connection to `address` still leads to this name: one of the last two answers had it.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.newest.contains(&address) || self.before.contains(&address)
    }

    /// What the next connection tries, in this order: both families by turns (RFC 8305, 4), the one that the system
    /// puts first in front; each time another address of a family first, so that not every connection is to the same.
    pub fn order(&mut self) -> Vec<SocketAddr> {
        let first_is_v6 = self.newest.first().is_some_and(SocketAddr::is_ipv6);
        let (mut preferred, mut other): (Vec<_>, Vec<_>) =
            self.newest.iter().copied().partition(|address| address.is_ipv6() == first_is_v6);
        for family in [&mut preferred, &mut other] {
            if !family.is_empty() {
                let by = self.turn % family.len();
                family.rotate_left(by);
            }
        }
        self.turn = self.turn.wrapping_add(1);
        let (mut preferred, mut other) = (preferred.into_iter(), other.into_iter());
        let pairs = std::iter::from_fn(|| {
            let pair = [preferred.next(), other.next()];
            pair.iter().any(Option::is_some).then_some(pair)
        });
        pairs.flatten().flatten().take(TRIED).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REFRESH: Duration = Duration::from_secs(30);

    fn v4(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 80))
    }

    fn v6(last: u16) -> SocketAddr {
        SocketAddr::from(([0xfd00, 0, 0, 0, 0, 0, 0, last], 80))
    }

    fn told(answer: &[SocketAddr], now: Instant) -> Addresses {
        let mut book = Addresses::new(REFRESH);
        book.begin();
        book.ended(Some(answer.to_vec()), now);
        book
    }

    #[test]
    fn families_take_turns_and_the_system_s_choice_is_first() {
        let mut book = told(&[v6(1), v6(2), v4(1), v4(2), v4(3)], Instant::now());
        assert_eq!(book.order(), [v6(1), v4(1), v6(2), v4(2), v4(3)]);
        assert_eq!(book.order(), [v6(2), v4(2), v6(1), v4(3), v4(1)]);
        assert_eq!(told(&[v4(1), v6(1)], Instant::now()).order(), [v4(1), v6(1)]);
    }

    #[test]
    fn a_hundred_addresses_are_bounded_and_all_have_their_turn() {
        let all: Vec<_> = (0..100).map(v4).collect();
        let mut book = told(&all, Instant::now());
        let mut first: Vec<_> = (0..100).map(|_| book.order()).map(|order| (order.len(), order[0])).collect();
        first.sort();
        assert_eq!(first, all.iter().map(|address| (16, *address)).collect::<Vec<_>>());
        assert!(book.has(v4(99)));
    }

    #[test]
    fn an_address_is_gone_when_two_answers_do_not_name_it() {
        let now = Instant::now();
        let mut book = told(&[v4(1), v4(2)], now);
        book.ended(Some(vec![v4(2)]), now);
        assert!(book.has(v4(1)) && !book.order().contains(&v4(1)), "kept for those who have it, not for new ones");
        book.ended(None, now);
        assert!(book.has(v4(1)), "a failure says nothing");
        book.ended(Some(vec![v4(2)]), now);
        assert!(!book.has(v4(1)) && book.has(v4(2)));
    }

    #[test]
    fn an_answer_in_doubt_is_asked_for_again_and_not_at_every_failure() {
        let now = Instant::now();
        let mut book = told(&[v4(1)], now);
        assert!(!book.is_due(now + AGAIN));
        book.doubt();
        assert!(!book.is_due(now) && book.is_due(now + AGAIN));
        book.begin();
        book.ended(Some(vec![v4(1)]), now + AGAIN);
        assert!(!book.is_due(now + 10 * AGAIN), "the new answer is not in doubt");
        let mut new = Addresses::new(REFRESH);
        new.doubt();
        assert!(new.is_due(now), "nothing to doubt");
    }

    #[test]
    fn the_turns_are_told_once() {
        let now = Instant::now();
        let mut book = Addresses::new(REFRESH);
        let changes = [None, None, Some(vec![v4(1)]), Some(vec![v4(1)]), Some(vec![]), None, Some(vec![v4(2)])];
        let told: Vec<_> = changes.into_iter().map(|answer| book.ended(answer, now)).collect();
        use Change::{Failing, None as Same, Recovered};
        assert_eq!(told, [Failing, Same, Recovered, Same, Failing, Same, Recovered]);
    }

    proptest! {
        /// Against the whole history of answers: what is kept is what the last good ones said, and a lookup is due when
        /// the last is old enough and none is under way.
        #[test]
        fn the_book_is_what_the_history_says(
            steps in prop::collection::vec((0u64..40_000, 0u8..4, prop::option::of(prop::collection::vec(0u8..6, 0..5))), 1..60)
        ) {
            let start = Instant::now();
            let mut book = Addresses::new(REFRESH);
            let mut good: Vec<Vec<SocketAddr>> = Vec::new();
            let mut last: Option<(u64, bool)> = None;
            let mut now_ms = 0;
            let mut doubted = false;
            for (pause, does, answer) in steps {
                now_ms += pause;
                let now = start + Duration::from_millis(now_ms);
                let due = match last {
                    None => true,
                    Some((at, true)) if !doubted => now_ms >= at + 30_000,
                    Some((at, true)) => now_ms >= at + 1_000,
                    Some((at, false)) => good.is_empty() || now_ms >= at + 1_000,
                };
                prop_assert_eq!(book.is_due(now), due);
                if does == 0 {
                    book.doubt();
                    doubted = true;
                }
                if does > 1 {
                    doubted = false;
                    book.begin();
                    prop_assert!(book.asking() && !book.is_due(now));
                    let answer = answer.map(|answer| answer.into_iter().map(v4).collect::<Vec<_>>());
                    let is_good = answer.as_ref().is_some_and(|answer| !answer.is_empty());
                    book.ended(answer.clone(), now);
                    if is_good {
                        good.extend(answer);
                    }
                    last = Some((now_ms, is_good));
                }
                let mut order = book.order();
                let mut newest = good.last().cloned().unwrap_or_default();
                order.sort();
                newest.sort();
                prop_assert_eq!(&order, &newest);
                prop_assert_eq!(book.known(), newest.len());
                for address in (0..6).map(v4) {
                    prop_assert_eq!(book.has(address), good.iter().rev().take(2).any(|answer| answer.contains(&address)));
                }
            }
        }
    }
}

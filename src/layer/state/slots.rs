//! The places at all endpoints, and who waits for one. What is decided about them is `policy/admission.rs`'s.
//!
//! Invariant: a place that is given is free again when its permit is dropped, whoever holds it then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::policy::balance::Pick;
use crate::policy::queue::cost;
use crate::policy::{Admission, Answer, Ask, Concurrency, Grant, Refusal, Sample, Shed};

/// The places at all endpoints, and who waits for one.
#[derive(Clone, Debug)]
pub struct Slots {
    places: Arc<Mutex<Places>>,
    /// One per endpoint: told when it is seen to be a server that can be asked for its places.
    spotted: Arc<[Notify]>,
}

#[derive(Debug)]
struct Places {
    admission: Admission,
    lines: HashMap<u64, oneshot::Sender<Turn>>,
}

/// What became of a wait.
#[derive(Debug)]
pub enum Turn {
    /// Its turn has come.
    Go(Permit),
    /// It had to make way.
    Evicted(Refusal),
}

/// The answer to a send that asks for a place.
#[derive(Debug)]
pub enum Asked {
    /// It has one.
    Go(Permit),
    /// It stands in line for one.
    Wait(Line),
    /// It gets none.
    Refused(Refusal),
}

impl Slots {
    /// Places at these endpoints, behind one queue for each pool of them.
    pub fn new(endpoints: &[Concurrency], pools: &[Vec<usize>]) -> Self {
        let places = Places { admission: Admission::new(endpoints, pools), lines: HashMap::new() };
        let spotted = endpoints.iter().map(|_| Notify::new()).collect();
        Self { places: Arc::new(Mutex::new(places)), spotted }
    }

    /// Asks for a place. `samples` are uniform in `0..1`.
    pub fn ask(&self, ask: Ask, now: Instant, samples: (f64, f64, f64)) -> Asked {
        let (pool, cost) = (ask.pool, cost(ask.prompt_bytes));
        let mut places = self.lock();
        match places.admission.ask(ask, now, samples) {
            Answer::Go { endpoint, why } => Asked::Go(Permit { slots: self.clone(), endpoint, cost, why, since: now }),
            Answer::Refused(refusal) => Asked::Refused(refusal),
            Answer::Wait { id, until, evicted } => {
                let (tell, turn) = oneshot::channel();
                places.lines.insert(id, tell);
                let victim = evicted.and_then(|(id, refusal)| Some((places.lines.remove(&id)?, refusal)));
                drop(places);
                if let Some((victim, refusal)) = victim {
                    // One that has left meanwhile need not be told.
                    drop(victim.send(Turn::Evicted(refusal)));
                }
                Asked::Wait(Line { slots: self.clone(), pool, id, until, turn })
            }
        }
    }

    /// A send in flight taught something of its endpoint.
    pub fn learn(&self, endpoint: usize, sample: Sample, now: Instant) {
        self.change(now, |admission| admission.learn(endpoint, sample, now));
    }

    /// A send failed at an endpoint.
    pub fn failed(&self, endpoint: usize, now: Instant) {
        self.lock().admission.failed(endpoint, now);
    }

    /// The endpoint told how many places it has itself.
    pub fn found(&self, endpoint: usize, slots: usize, now: Instant) {
        self.change(now, |admission| admission.slots(endpoint, slots, now));
    }

    /// The endpoint was seen to be a server that can be asked for its places.
    pub fn spot(&self, endpoint: usize) {
        if let Some(spotted) = self.spotted.get(endpoint) {
            spotted.notify_one();
        }
    }

    /// Waits until the endpoint was seen to be one, once for any number of times.
    pub async fn spotted(&self, endpoint: usize) {
        match self.spotted.get(endpoint) {
            Some(spotted) => spotted.notified().await,
            None => std::future::pending().await,
        }
    }

    /// What to tell a send that this pool refuses now.
    pub fn refusal(&self, pool: usize, shed: Shed, sample: f64) -> Refusal {
        self.lock().admission.refusal(pool, shed, sample)
    }

    /// An endpoint's limit, and how much of it is in use.
    pub fn at(&self, endpoint: usize) -> (usize, usize) {
        self.lock().admission.at(endpoint)
    }

    /// How many sends wait in a pool's queue.
    pub fn waiting(&self, pool: usize) -> usize {
        self.lock().admission.waiting(pool)
    }

    /// How many sends of a route wait.
    pub fn waiting_of(&self, route: usize) -> usize {
        self.lock().admission.waiting_of(route)
    }

    /// Hands out what a change has made free. A permit that nobody takes any more comes back here by its drop, so no
    /// lock is held while they are sent.
    fn change(&self, now: Instant, change: impl FnOnce(&mut Admission) -> Vec<Grant>) {
        let mut places = self.lock();
        let grants = change(&mut places.admission);
        let turns: Vec<_> = grants.iter().filter_map(|grant| Some((*grant, places.lines.remove(&grant.id)?))).collect();
        drop(places);
        for (grant, tell) in turns {
            let Grant { endpoint, cost, .. } = grant;
            let permit = Permit { slots: self.clone(), endpoint, cost, why: Pick::Queued, since: now };
            drop(tell.send(Turn::Go(permit)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// One place at an endpoint; free again when dropped.
#[derive(Debug)]
pub struct Permit {
    slots: Slots,
    endpoint: usize,
    cost: u32,
    why: Pick,
    since: Instant,
}

impl Permit {
    /// Where it is.
    pub fn endpoint(&self) -> usize {
        self.endpoint
    }

    /// Why it is there.
    pub fn why(&self) -> Pick {
        self.why
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = clock::now();
        let stay = now.saturating_duration_since(self.since);
        self.slots.change(now, |admission| admission.release(self.endpoint, self.cost, stay, now));
    }
}

/// A send in line; dropped, it is out of it.
#[derive(Debug)]
pub struct Line {
    slots: Slots,
    pool: usize,
    id: u64,
    until: Instant,
    /// Told once.
    pub turn: oneshot::Receiver<Turn>,
}

impl Line {
    /// It waits no longer than this.
    pub fn until(&self) -> Instant {
        self.until
    }

    /// Leaves; `false` when its turn has come, or it was made to leave, in this very moment.
    pub fn leave(&self) -> bool {
        let mut places = self.slots.lock();
        let left = places.admission.leave(self.pool, self.id);
        if left {
            places.lines.remove(&self.id);
        }
        left
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // A permit that was sent meanwhile is dropped with the channel.
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call::Priority;
    use crate::policy::Mode;
    use crate::policy::balance::Candidate;

    fn slots(max: u32) -> Slots {
        Slots::new(&[Concurrency { mode: Mode::Fixed, max }], &[vec![0]])
    }

    fn ask(slots: &Slots, class: Priority) -> Asked {
        let now = clock::now();
        let ask = Ask {
            pool: 0,
            route: 0,
            class,
            again: false,
            key: Arc::from(""),
            prompt_bytes: 0,
            candidates: vec![Candidate { endpoint: 0, share: 1.0, affinity: None }],
            due: None,
            deadline: now + Duration::from_secs(3600),
            wait: Duration::from_secs(3600),
        };
        slots.ask(ask, now, (0.0, 0.0, 0.0))
    }

    fn line(slots: &Slots) -> Line {
        match ask(slots, Priority::Default) {
            Asked::Wait(line) => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_place_that_nobody_takes_any_more_goes_to_the_next() {
        let slots = slots(1);
        let held = ask(&slots, Priority::Default);
        let (first, mut second, third) = (line(&slots), line(&slots), line(&slots));
        drop(held);
        assert_eq!(slots.waiting(0), 2, "the first has its turn and has not looked yet");
        drop(first);
        drop(third);
        let Ok(Turn::Go(permit)) = second.turn.try_recv() else { panic!("the place was lost") };
        assert_eq!((slots.at(0), slots.waiting(0)), ((1, 1), 0));
        drop(permit);
        assert_eq!(slots.at(0), (1, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_place_is_lost_among_many_who_come_wait_and_leave() {
        let slots = slots(3);
        let one = |number: u64| {
            let slots = slots.clone();
            async move {
                let mut served = 0;
                for round in 0..300 {
                    let permit = match ask(&slots, Priority::ALL[(number + round) as usize % 3]) {
                        Asked::Go(permit) => Some(permit),
                        Asked::Refused(_) => None,
                        // Every third leaves after a moment, the others wait for their turn, which must come.
                        Asked::Wait(line) if round % 3 == 0 => {
                            tokio::task::yield_now().await;
                            drop(line);
                            None
                        }
                        Asked::Wait(mut line) => match (&mut line.turn).await {
                            Ok(Turn::Go(permit)) => Some(permit),
                            Ok(Turn::Evicted(_)) => None,
                            Err(_) => panic!("left without a word"),
                        },
                    };
                    assert!(slots.at(0).1 <= 3);
                    tokio::task::yield_now().await;
                    served += usize::from(permit.is_some());
                }
                served
            }
        };
        let tasks: Vec<_> = (0..16).map(|number| tokio::spawn(one(number))).collect();
        let mut served = 0;
        for task in tasks {
            served += task.await.unwrap();
        }
        assert!(served > 300, "{served}");
        assert_eq!((slots.at(0), slots.waiting(0)), ((3, 0), 0));
    }
}

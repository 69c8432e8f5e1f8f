//! The places at all endpoints, and who waits for one. What is decided about them is `policy/admission.rs`'s.
//!
//! The places are one machine for the whole process; [`Slots`] is how one generation of settings sees it, by its own
//! numbers. Invariant: a place that is given is free again when its permit is dropped, whoever holds it then, and who
//! waits gets its turn, however often the settings change meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::Kept;
use crate::clock;
use crate::policy::balance::Pick;
use crate::policy::queue::cost;
use crate::policy::{Admission, Answer, Ask, Concurrency, Grant, Refusal, Sample, Shed};

/// The places of the process, from which each generation of settings takes what it names.
#[derive(Debug, Default)]
pub struct Places {
    shared: Arc<Shared>,
    seats: Kept<String, Seat>,
    benches: Kept<Vec<usize>, Bench>,
}

/// The places at all endpoints, and who waits for one, as one generation of settings numbers them.
#[derive(Clone, Debug)]
pub struct Slots(Arc<View>);

#[derive(Debug)]
struct View {
    shared: Arc<Shared>,
    /// Dropped before the seats they are made of.
    benches: Vec<Arc<Bench>>,
    seats: Vec<Arc<Seat>>,
    /// What of the seats' numbers is which of ours.
    ours: Vec<Option<usize>>,
    routes: Vec<Arc<usize>>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    admission: Admission,
    /// Whoever waits, and by whose numbers.
    lines: HashMap<u64, (oneshot::Sender<Turn>, Slots)>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Hands out what a change has made free. A permit that nobody takes any more comes back here by its drop, so no
    /// lock is held while they are sent.
    fn change(&self, now: Instant, change: impl FnOnce(&mut Admission) -> Vec<Grant>) {
        let mut inner = self.lock();
        let grants = change(&mut inner.admission);
        let turns: Vec<_> = grants.iter().filter_map(|grant| Some((*grant, inner.lines.remove(&grant.id)?))).collect();
        drop(inner);
        for (grant, (tell, slots)) in turns {
            let endpoint = slots.ours(grant.endpoint);
            let permit = Permit { slots, endpoint, cost: grant.cost, why: Pick::Queued, since: now };
            drop(tell.send(Turn::Go(permit)));
        }
    }
}

/// An endpoint's place among the places.
#[derive(Debug)]
struct Seat {
    number: usize,
    shared: Arc<Shared>,
    /// Told when it is seen to be a server that can be asked for its places.
    spotted: Notify,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.lock().admission.remove_endpoint(self.number);
    }
}

/// A pool's queue.
#[derive(Debug)]
struct Bench {
    number: usize,
    shared: Arc<Shared>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shared.lock().admission.remove_pool(self.number);
    }
}

impl Places {
    /// Places at these endpoints, behind one queue for each pool of them. Who has a key that is known has its limit, its
    /// sends in flight and its waiting sends. `routes` are what routes are called in the queues.
    pub fn view(
        &mut self,
        endpoints: Vec<(String, Concurrency)>,
        pools: &[Vec<usize>],
        routes: Vec<Arc<usize>>,
        now: Instant,
    ) -> Slots {
        let shared = &self.shared;
        let mut seat = |(key, settings): (String, Concurrency)| {
            let set = |seat: &Seat| shared.change(now, |admission| admission.set_endpoint(seat.number, settings, now));
            let make = || {
                let number = shared.lock().admission.add_endpoint(settings);
                Seat { number, shared: Arc::clone(shared), spotted: Notify::new() }
            };
            self.seats.take(key, set, make)
        };
        let seats: Vec<Arc<Seat>> = endpoints.into_iter().map(&mut seat).collect();
        let mut bench = |pool: &Vec<usize>| {
            let mut numbers: Vec<usize> = pool.iter().filter_map(|at| Some(seats.get(*at)?.number)).collect();
            numbers.sort_unstable();
            let make = || {
                let number = shared.lock().admission.add_pool(numbers.clone());
                Bench { number, shared: Arc::clone(shared) }
            };
            self.benches.take(numbers.clone(), |_| {}, make)
        };
        let benches = pools.iter().map(&mut bench).collect();
        let mut ours = vec![None; seats.iter().map(|seat| seat.number + 1).max().unwrap_or(0)];
        for (at, seat) in seats.iter().enumerate() {
            ours[seat.number] = Some(at);
        }
        Slots(Arc::new(View { shared: Arc::clone(shared), benches, seats, ours, routes }))
    }
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
    /// Asks for a place. `samples` are uniform in `0..1`.
    pub fn ask(&self, mut ask: Ask, now: Instant, samples: (f64, f64, f64)) -> Asked {
        let (pool, cost) = (ask.pool, cost(ask.prompt_bytes));
        ask.pool = self.bench(pool);
        ask.route = self.0.routes.get(ask.route).map_or(usize::MAX, |route| **route);
        ask.due = ask.due.map(|endpoint| self.seat(endpoint));
        ask.candidates.iter_mut().for_each(|candidate| candidate.endpoint = self.seat(candidate.endpoint));
        let mut inner = self.0.shared.lock();
        match inner.admission.ask(ask, now, samples) {
            Answer::Go { endpoint, why } => {
                let endpoint = self.ours(endpoint);
                Asked::Go(Permit { slots: self.clone(), endpoint, cost, why, since: now })
            }
            Answer::Refused(refusal) => Asked::Refused(refusal),
            Answer::Wait { id, until, evicted } => {
                let (tell, turn) = oneshot::channel();
                inner.lines.insert(id, (tell, self.clone()));
                let victim = evicted.and_then(|(id, refusal)| Some((inner.lines.remove(&id)?, refusal)));
                drop(inner);
                if let Some(((victim, _slots), refusal)) = victim {
                    // One that has left meanwhile need not be told.
                    drop(victim.send(Turn::Evicted(refusal)));
                }
                Asked::Wait(Line { slots: self.clone(), pool, id, until, turn })
            }
        }
    }

    /// A send in flight taught something of its endpoint.
    pub fn learn(&self, endpoint: usize, sample: Sample, now: Instant) {
        let endpoint = self.seat(endpoint);
        self.0.shared.change(now, |admission| admission.learn(endpoint, sample, now));
    }

    /// A send failed at an endpoint.
    pub fn failed(&self, endpoint: usize, now: Instant) {
        let endpoint = self.seat(endpoint);
        self.0.shared.lock().admission.failed(endpoint, now);
    }

    /// The endpoint told how many places it has itself.
    pub fn found(&self, endpoint: usize, slots: usize, now: Instant) {
        let endpoint = self.seat(endpoint);
        self.0.shared.change(now, |admission| admission.slots(endpoint, slots, now));
    }

    /// The endpoint was seen to be a server that can be asked for its places.
    pub fn spot(&self, endpoint: usize) {
        if let Some(seat) = self.0.seats.get(endpoint) {
            seat.spotted.notify_one();
        }
    }

    /// Waits until the endpoint was seen to be one, once for any number of times.
    pub async fn spotted(&self, endpoint: usize) {
        match self.0.seats.get(endpoint) {
            Some(seat) => seat.spotted.notified().await,
            None => std::future::pending().await,
        }
    }

    /// What to tell a send that this pool refuses now.
    pub fn refusal(&self, pool: usize, shed: Shed, sample: f64) -> Refusal {
        let pool = self.bench(pool);
        self.0.shared.lock().admission.refusal(pool, shed, sample)
    }

    /// An endpoint's limit, and how much of it is in use.
    pub fn at(&self, endpoint: usize) -> (usize, usize) {
        let endpoint = self.seat(endpoint);
        self.0.shared.lock().admission.at(endpoint)
    }

    /// How many sends wait in a pool's queue.
    pub fn waiting(&self, pool: usize) -> usize {
        let pool = self.bench(pool);
        self.0.shared.lock().admission.waiting(pool)
    }

    /// How many sends of a route wait.
    pub fn waiting_of(&self, route: usize) -> usize {
        let Some(route) = self.0.routes.get(route) else { return 0 };
        self.0.shared.lock().admission.waiting_of(**route)
    }

    /// The place's number of one of our endpoints.
    fn seat(&self, endpoint: usize) -> usize {
        self.0.seats.get(endpoint).map_or(usize::MAX, |seat| seat.number)
    }

    /// The queue's number of one of our pools.
    fn bench(&self, pool: usize) -> usize {
        self.0.benches.get(pool).map_or(usize::MAX, |bench| bench.number)
    }

    /// Our endpoint that has a place's number.
    fn ours(&self, seat: usize) -> usize {
        self.0.ours.get(seat).copied().flatten().unwrap_or(usize::MAX)
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
        let seat = self.slots.seat(self.endpoint);
        self.slots.0.shared.change(now, |admission| admission.release(seat, self.cost, stay, now));
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
        let pool = self.slots.bench(self.pool);
        let mut inner = self.slots.0.shared.lock();
        let left = inner.admission.leave(pool, self.id);
        let line = if left { inner.lines.remove(&self.id) } else { None };
        drop(inner);
        drop(line);
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
        view(&mut Places::default(), max)
    }

    fn view(places: &mut Places, max: u32) -> Slots {
        let endpoints = vec![("a".to_owned(), Concurrency { mode: Mode::Fixed, max })];
        places.view(endpoints, &[vec![0]], vec![Arc::new(0)], clock::now())
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

    /// One generation: endpoints with one place each, and a pool of each.
    fn generation(places: &mut Places, names: &[&str]) -> Slots {
        let one = Concurrency { mode: Mode::Fixed, max: 1 };
        let endpoints = names.iter().map(|name| ((*name).to_owned(), one)).collect();
        let pools: Vec<Vec<usize>> = (0..names.len()).map(|at| vec![at]).collect();
        places.view(endpoints, &pools, vec![Arc::new(0)], clock::now())
    }

    fn ask_at(slots: &Slots, at: usize) -> Asked {
        let now = clock::now();
        let ask = Ask {
            pool: at,
            route: 0,
            class: Priority::Default,
            again: false,
            key: Arc::from(""),
            prompt_bytes: 0,
            candidates: vec![Candidate { endpoint: at, share: 1.0, affinity: None }],
            due: None,
            deadline: now + Duration::from_secs(3600),
            wait: Duration::from_secs(3600),
        };
        slots.ask(ask, now, (0.0, 0.0, 0.0))
    }

    #[test]
    fn generations_share_places_by_name_each_in_its_own_numbers() {
        let mut places = Places::default();
        let old = generation(&mut places, &["a", "b"]);
        let Asked::Go(held) = ask_at(&old, 0) else { panic!("a is free") };
        let Asked::Wait(mut waiting) = ask_at(&old, 0) else { panic!("a is taken") };
        let new = generation(&mut places, &["c", "b", "a"]);
        assert_eq!((new.at(0), new.at(1), new.at(2)), ((1, 0), (1, 0), (1, 1)));
        assert_eq!((new.waiting(2), new.waiting_of(0)), (1, 1), "in the same queue");
        let Asked::Wait(mut behind) = ask_at(&new, 2) else { panic!("a is taken, whoever asks") };
        drop(held);
        let Ok(Turn::Go(held)) = waiting.turn.try_recv() else { panic!("it was first") };
        assert_eq!(held.endpoint(), 0, "by the numbers of the one that asked");
        assert!(behind.turn.try_recv().is_err());
        drop((held, waiting, old));
        let Ok(Turn::Go(held)) = behind.turn.try_recv() else { panic!("it is its turn") };
        assert_eq!((held.endpoint(), new.at(2)), (2, (1, 1)));
    }

    #[test]
    fn what_was_removed_serves_who_waits_for_it_and_is_gone_with_the_last() {
        let mut places = Places::default();
        let old = generation(&mut places, &["a"]);
        let Asked::Go(held) = ask_at(&old, 0) else { panic!("a is free") };
        let Asked::Wait(mut waiting) = ask_at(&old, 0) else { panic!("a is taken") };
        drop(old);
        let _new = generation(&mut places, &["b"]);
        drop(held);
        let Ok(Turn::Go(held)) = waiting.turn.try_recv() else { panic!("its turn is lost") };
        drop(waiting);
        let again = generation(&mut places, &["a"]);
        assert_eq!(again.at(0), (1, 1), "somebody is there still");
        drop((held, again));
        assert_eq!(generation(&mut places, &["a"]).at(0), (1, 0));
    }

    #[test]
    fn ten_thousand_generations_leave_nothing_behind() {
        let mut places = Places::default();
        let mut current = generation(&mut places, &["a"]);
        for round in 0..10_000 {
            current = generation(&mut places, &["a", &format!("b{round}")]);
        }
        assert!(current.0.seats.iter().all(|seat| seat.number < 4), "{current:?}");
        assert!(current.0.benches.iter().all(|bench| bench.number < 4), "{current:?}");
        assert!(places.seats.len() < 4 && places.benches.len() < 4);
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

//! The calls that wait before one pool, and whose turn it is.
//!
//! Order: class first; within a class first sends before repeats; then round robin over the client keys, each place
//! costing what its prompt weighs, so that one key's thousand calls do not stand before another's one; within a key the
//! nearest deadline. A queue that is full gives the place of its youngest entry of the lowest class to a newcomer of a
//! higher one. Invariant: nothing that has expired is ever handed out, and nothing is handed out twice.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::call::Priority;

/// What a client key may take before it is the next key's turn, in units of cost.
const QUANTUM: u32 = 1;

/// A prompt of this size costs one unit more, in bytes (about 4000 tokens).
const UNIT: usize = 16 * 1024;

/// What a place costs its key: one, and more for a long prompt.
pub fn cost(prompt_bytes: usize) -> u32 {
    u32::try_from(1 + prompt_bytes / UNIT).unwrap_or(u32::MAX)
}

/// One send that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Grows with every arrival.
    pub id: u64,
    /// The route it came by, as numbered in the settings.
    pub route: usize,
    /// Its class.
    pub class: Priority,
    /// A repeat: it stands behind the first sends of its class.
    pub again: bool,
    /// Name of the client key; empty without one.
    pub key: Arc<str>,
    /// What its place costs its key, at least 1.
    pub cost: u32,
    /// The call's deadline.
    pub deadline: Instant,
    /// It waits no longer than this.
    pub until: Instant,
    /// The endpoints it can be given.
    pub endpoints: Vec<usize>,
}

impl Waiting {
    fn rank(&self) -> usize {
        rank(self.class, self.again)
    }
}

/// Ranks, the first served first.
const RANKS: usize = 2 * Priority::ALL.len();

fn rank(class: Priority, again: bool) -> usize {
    let classes = Priority::ALL.len() - 1 - class as usize;
    2 * classes + usize::from(again)
}

/// What became of an arrival.
#[derive(Clone, Debug)]
pub enum Arrival {
    /// It waits.
    Queued,
    /// It waits in the place of this one.
    Instead(Box<Waiting>),
    /// There is no room for it.
    Full,
}

/// All sends that wait before one pool.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    ranks: [VecDeque<Share>; RANKS],
    len: usize,
}

/// The entries of one client key, nearest deadline first.
#[derive(Clone, Debug)]
struct Share {
    key: Arc<str>,
    credit: u32,
    waiting: VecDeque<Waiting>,
}

impl Queue {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many wait that came by this route.
    pub fn of_route(&self, route: usize) -> usize {
        self.all().filter(|entry| entry.route == route).count()
    }

    /// How many would be served before a newcomer of this class.
    pub fn ahead_of(&self, class: Priority, again: bool) -> usize {
        self.ranks[..=rank(class, again)].iter().flatten().map(|share| share.waiting.len()).sum()
    }

    /// Takes a newcomer in, if there are fewer than `room` or somebody of a lower class can make way.
    pub fn arrive(&mut self, entry: Waiting, room: usize) -> Arrival {
        if self.len < room {
            self.insert(entry);
            return Arrival::Queued;
        }
        let lower = self.all().filter(|other| other.class < entry.class);
        let Some(victim) = lower.min_by_key(|other| (other.class, Reverse(other.id))).map(|other| other.id) else {
            return Arrival::Full;
        };
        let evicted = self.remove(victim);
        self.insert(entry);
        evicted.map_or(Arrival::Queued, |evicted| Arrival::Instead(Box::new(evicted)))
    }

    /// Takes out one entry: it left, or its time is up.
    pub fn remove(&mut self, id: u64) -> Option<Waiting> {
        for rank in &mut self.ranks {
            for at in 0..rank.len() {
                if let Some(place) = rank[at].waiting.iter().position(|entry| entry.id == id) {
                    let entry = rank[at].waiting.remove(place);
                    if rank[at].waiting.is_empty() {
                        rank.remove(at);
                    }
                    self.len -= 1;
                    return entry;
                }
            }
        }
        None
    }

    /// The rank and deadline of the best entry that `fits` and has not expired; lower is better.
    pub fn best(&self, now: Instant, fits: impl Fn(&Waiting) -> bool) -> Option<(usize, Instant)> {
        let good = |entry: &&Waiting| entry.until > now && fits(entry);
        self.ranks.iter().enumerate().find_map(|(rank, shares)| {
            let deadlines = shares.iter().filter_map(|share| share.waiting.iter().find(good));
            Some((rank, deadlines.map(|entry| entry.deadline).min()?))
        })
    }

    /// Hands out whoever's turn it is among those that `fits` and have not expired.
    pub fn take(&mut self, now: Instant, fits: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        let good = |entry: &Waiting| entry.until > now && fits(entry);
        for rank in &mut self.ranks {
            let mut passed_over = 0;
            while passed_over < rank.len() {
                let share = &mut rank[0];
                let Some(place) = share.waiting.iter().position(good) else {
                    rank.rotate_left(1);
                    passed_over += 1;
                    continue;
                };
                let cost = share.waiting[place].cost.max(1);
                if share.credit < cost {
                    // Somebody fits, so the ring is gone round until its credit does.
                    share.credit += QUANTUM;
                    rank.rotate_left(1);
                    passed_over = 0;
                    continue;
                }
                share.credit -= cost;
                let entry = share.waiting.remove(place);
                if share.waiting.is_empty() {
                    rank.pop_front();
                }
                self.len -= 1;
                return entry;
            }
        }
        None
    }

    fn all(&self) -> impl Iterator<Item = &Waiting> {
        self.ranks.iter().flatten().flat_map(|share| &share.waiting)
    }

    fn insert(&mut self, entry: Waiting) {
        let rank = &mut self.ranks[entry.rank()];
        self.len += 1;
        let Some(share) = rank.iter_mut().find(|share| share.key == entry.key) else {
            rank.push_back(Share { key: Arc::clone(&entry.key), credit: 0, waiting: VecDeque::from([entry]) });
            return;
        };
        let at = share.waiting.partition_point(|other| (other.deadline, other.id) <= (entry.deadline, entry.id));
        share.waiting.insert(at, entry);
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

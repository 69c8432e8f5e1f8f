//! Which call with an `Idempotency-Key` executes, which joins it, which gets its answer again, and which is refused.
//!
//! Why: a client that lost its connection cannot tell whether its call was served, and asks again. Without a key the
//! second call costs a second answer, and gives a different one. With a key the two are one execution: while it runs
//! the second joins it, afterwards it is given the same bytes again, for a while and within a bound of memory. A failure
//! is nobody's answer, so it is forgotten at once. Whoever uses a key for another request has made a mistake, and is
//! told so. (The shape is Stripe's: a key, a fingerprint of the request, an answer kept for a time.)
//!
//! Owns no bytes, only how many there are: what is kept for an execution is the caller's `T`. Invariant: for one key
//! there is at most one execution at a time, from [`Verdict::Lead`] until [`Idempotency::remove`] or
//! [`Idempotency::finish`].

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::settings::IdempotencySettings;

/// A SHA-256: of a key with its scope, or of a request. Nothing a client sent is kept in clear.
pub type Hash = [u8; 32];

/// Keys remembered at once, whatever their size.
pub const MAX_KEYS: usize = 65_536;
/// One answer may take this part of the memory for all, so that a single long one cannot push out all others.
pub const SHARE: usize = 4;

/// Names one execution; a later one of the same key has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    key: Hash,
    number: u64,
}

/// Why a call can be neither executed nor given an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Its key stands for another request.
    OtherRequest,
    /// The execution under way has outgrown what is kept, so its beginning is gone.
    TooLong,
    /// Every key that can be remembered belongs to an execution under way.
    Full,
}

/// What to do with a call that has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<T> {
    /// Execute it.
    Lead(Ticket, T),
    /// Wait for the execution under way.
    Join(Ticket, T),
    /// Give it the finished answer.
    Replay(T),
    /// An execution that everybody has left is still being taken down: ask again when it is gone.
    Wait(T),
    /// Refuse it.
    Conflict(Conflict),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Under way; `open` while everything from its beginning is kept.
    InFlight { open: bool },
    /// Left by everybody.
    Ending,
    /// Finished well.
    Done,
}

#[derive(Debug)]
struct Entry<T> {
    number: u64,
    request: Hash,
    state: State,
    /// Bytes charged to it.
    held: usize,
    kept: T,
}

/// All keys of the process.
#[derive(Debug)]
pub struct Idempotency<T> {
    settings: IdempotencySettings,
    entries: HashMap<Hash, Entry<T>>,
    /// The finished ones, the first to expire in front: each is kept equally long.
    done: VecDeque<(Instant, Ticket)>,
    held: usize,
    next: u64,
    dropped: Vec<T>,
}

impl<T: Clone> Idempotency<T> {
    /// Without any key.
    pub fn new(settings: IdempotencySettings) -> Self {
        let (entries, done) = (HashMap::new(), VecDeque::new());
        Self { settings, entries, done, held: 0, next: 0, dropped: Vec::new() }
    }

    /// Other settings for what comes from now on.
    pub fn set(&mut self, settings: IdempotencySettings) {
        self.settings = settings;
    }

    /// A call came with `key` for `request`. `kept` makes what is to be kept of it, if it executes.
    pub fn ask(&mut self, key: Hash, request: Hash, now: Instant, kept: impl FnOnce() -> T) -> Verdict<T> {
        self.expire(now);
        if let Some(entry) = self.entries.get(&key) {
            let kept = || entry.kept.clone();
            return match entry.state {
                State::Ending => Verdict::Wait(kept()),
                _ if entry.request != request => Verdict::Conflict(Conflict::OtherRequest),
                State::InFlight { open: true } => Verdict::Join(Ticket { key, number: entry.number }, kept()),
                State::InFlight { open: false } => Verdict::Conflict(Conflict::TooLong),
                State::Done => Verdict::Replay(kept()),
            };
        }
        while self.entries.len() >= MAX_KEYS {
            if !self.drop_oldest() {
                return Verdict::Conflict(Conflict::Full);
            }
        }
        let ticket = Ticket { key, number: self.next };
        self.next += 1;
        let kept = kept();
        let state = State::InFlight { open: true };
        self.entries.insert(key, Entry { number: ticket.number, request, state, held: 0, kept: kept.clone() });
        Verdict::Lead(ticket, kept)
    }

    /// So many more bytes are to be kept of an execution. `false` leaves the charge as it was: it is too long, there is
    /// no room even without every finished answer, or it is not kept any more; then [`Self::close`] it.
    pub fn grow(&mut self, ticket: Ticket, bytes: usize) -> bool {
        let ceiling = self.settings.max_memory / SHARE;
        let Some(entry) = self.in_flight(ticket) else { return false };
        if entry.state != (State::InFlight { open: true }) || entry.held.saturating_add(bytes) > ceiling {
            return false;
        }
        while self.held.saturating_add(bytes) > self.settings.max_memory {
            if !self.drop_oldest() {
                return false;
            }
        }
        let Some(entry) = self.in_flight(ticket) else { return false };
        entry.held += bytes;
        self.held += bytes;
        true
    }

    /// An execution is not kept from its beginning any more: nobody can join it. It goes on holding at most `held` bytes.
    pub fn close(&mut self, ticket: Ticket, held: usize) {
        let Some(entry) = self.in_flight(ticket) else { return };
        let given_back = entry.held.saturating_sub(held);
        entry.held -= given_back;
        if entry.state != State::Ending {
            entry.state = State::InFlight { open: false };
        }
        self.held -= given_back;
    }

    /// An execution ended well. What is kept of it can be given again until its time is over.
    pub fn finish(&mut self, ticket: Ticket, now: Instant) {
        let Some(entry) = self.in_flight(ticket) else { return };
        if entry.state == (State::InFlight { open: true }) {
            entry.state = State::Done;
            self.done.push_back((now + self.settings.ttl, ticket));
        } else {
            self.forget(ticket);
        }
    }

    /// Everybody has left an execution: it is being taken down.
    pub fn abandon(&mut self, ticket: Ticket) {
        if let Some(entry) = self.in_flight(ticket) {
            entry.state = State::Ending;
        }
    }

    /// An execution is over without an answer: the next call with its key executes. A finished one stays.
    pub fn remove(&mut self, ticket: Ticket) {
        if self.in_flight(ticket).is_some() {
            self.forget(ticket);
        }
    }

    /// Forgets what has expired; returns when the next does.
    pub fn expire(&mut self, now: Instant) -> Option<Instant> {
        while let Some((until, _)) = self.done.front() {
            if *until > now {
                return Some(*until);
            }
            self.drop_oldest();
        }
        None
    }

    /// What was kept and is not any more, to be dropped where it is in nobody's way.
    pub fn dropped(&mut self) -> Vec<T> {
        std::mem::take(&mut self.dropped)
    }

    /// Bytes charged to all executions and answers.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Keys remembered.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key is remembered.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of an execution that has not finished.
    fn in_flight(&mut self, ticket: Ticket) -> Option<&mut Entry<T>> {
        let entry = self.entries.get_mut(&ticket.key)?;
        (entry.number == ticket.number && entry.state != State::Done).then_some(entry)
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.done.pop_front();
        oldest.is_some_and(|(_, ticket)| self.forget(ticket))
    }

    fn forget(&mut self, ticket: Ticket) -> bool {
        let Slot::Occupied(slot) = self.entries.entry(ticket.key) else { return false };
        if slot.get().number != ticket.number {
            return false;
        }
        let entry = slot.remove();
        self.held -= entry.held;
        self.dropped.push(entry.kept);
        true
    }
}

#[cfg(test)]
#[path = "idempotency_tests.rs"]
mod tests;

//! All keys of the process, and the running side of an execution.
//!
//! Invariant: a key is free for a next execution only when nothing of the one before runs any more; its readers learn
//! the end after that.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::shared::{Head, NoReader, Reader, Shared, cost};
use crate::call::{CallError, Failure, Fate, Piece, Usage};
use crate::policy::idempotency::Hash;
use crate::policy::{Conflict, Idempotency, IdempotencySettings, KeyVerdict, Ticket};

/// What an execution takes beside its body and its headers.
const ENTRY: usize = 1024;

/// Every key that is remembered.
#[derive(Clone)]
pub struct Keys(Arc<Mutex<Table>>);

struct Table {
    policy: Idempotency<Arc<Shared>>,
    /// Somebody sees to it that what has expired goes.
    swept: bool,
}

/// The answer to a call that has a key.
pub enum Keyed {
    /// It executes, and reads what comes of it.
    Lead(Execution, Reader),
    /// It reads what comes of the execution under way.
    Join(Reader),
    /// It reads the finished answer.
    Replay(Reader),
    /// It asks again when this turns true.
    Wait(watch::Receiver<bool>),
    /// It is refused.
    Conflict(Conflict),
}

impl Keys {
    /// Without any key.
    pub fn new(settings: IdempotencySettings) -> Self {
        Self(Arc::new(Mutex::new(Table { policy: Idempotency::new(settings), swept: false })))
    }

    /// Other settings from now on. What is kept already stays as long as it was to.
    pub fn set(&self, settings: IdempotencySettings) {
        self.change(|table| table.policy.set(settings));
    }

    /// A call came with `key`, a hash over its scope as well, for `request`, a hash too.
    pub fn ask(&self, key: Hash, request: Hash, now: Instant) -> Keyed {
        let wait = |shared: &Shared| Keyed::Wait(shared.gone.subscribe());
        let read = |shared: &Arc<Shared>, ticket, with: fn(Reader) -> Keyed| match shared.reader(self, ticket) {
            Ok(reader) => with(reader),
            Err(NoReader::Left) => wait(shared),
            Err(NoReader::Late) => Keyed::Conflict(Conflict::TooLong),
        };
        match self.change(|table| table.policy.ask(key, request, now, Shared::new)) {
            KeyVerdict::Lead(ticket, shared) => {
                let reader = shared.first_reader(self, ticket);
                Keyed::Lead(Execution { keys: self.clone(), ticket, shared, open: true }, reader)
            }
            KeyVerdict::Join(ticket, shared) => read(&shared, Some(ticket), Keyed::Join),
            KeyVerdict::Replay(shared) => read(&shared, None, Keyed::Replay),
            KeyVerdict::Wait(shared) => wait(&shared),
            KeyVerdict::Conflict(conflict) => Keyed::Conflict(conflict),
        }
    }

    /// Forgets what has expired; returns when the next does. With nothing left to expire the sweeping is over.
    pub fn sweep(&self, now: Instant) -> Option<Instant> {
        self.change(|table| {
            let next = table.policy.expire(now);
            table.swept = next.is_some();
            next
        })
    }

    /// Bytes kept, and for how many keys.
    pub fn held(&self) -> (usize, usize) {
        self.change(|table| (table.policy.held(), table.policy.len()))
    }

    pub(super) fn abandon(&self, ticket: Ticket) {
        self.change(|table| table.policy.abandon(ticket));
    }

    /// One change under the lock; what it lets go of is dropped after it.
    fn change<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self.lock();
        let result = change(&mut table);
        let dropped = table.policy.dropped();
        drop(table);
        drop(dropped);
        result
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The running side of an execution. Dropped, it is over: its key is free, unless the answer was complete.
pub struct Execution {
    keys: Keys,
    ticket: Ticket,
    shared: Arc<Shared>,
    /// Everything from the beginning is kept.
    open: bool,
}

impl Execution {
    /// What ends it when everybody has left.
    pub fn abort_with(&self) -> impl FnOnce(AbortHandle) + use<> {
        let shared = Arc::clone(&self.shared);
        move |abort| shared.abort_with(abort)
    }

    /// The answer begins; where its body is whole, it is complete. Returns whether a sweep is to be started.
    pub fn answered(&mut self, mut head: Head, usage: Option<Usage>, fate: Arc<Fate>, now: Instant) -> bool {
        // Copied, so that what is kept is no slice of something larger.
        head.body = head.body.map(|body| Bytes::copy_from_slice(&body));
        let headers: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        self.grow(ENTRY + headers + head.body.as_ref().map_or(0, Bytes::len));
        let sweep = head.body.is_some() && self.complete(now);
        self.shared.head(Ok(Arc::new(head)), usage, Some(fate));
        sweep
    }

    /// Resolves when somebody has everything and waits for more.
    pub async fn wanted(&self) {
        std::future::poll_fn(|cx| self.shared.poll_wanted(cx)).await;
    }

    /// The next piece. With the terminal marker in it the answer is complete. Returns whether a sweep is to be started.
    pub fn push(&mut self, mut piece: Piece, now: Instant) -> bool {
        piece.bytes = Bytes::copy_from_slice(&piece.bytes);
        self.grow(cost(&piece));
        let sweep = piece.done && self.complete(now);
        self.shared.push(piece);
        sweep
    }

    /// The body has ended well. Returns whether a sweep is to be started.
    pub fn ended(&mut self, now: Instant) -> bool {
        let sweep = self.complete(now);
        self.shared.end(Ok(()));
        sweep
    }

    /// The body has broken off. Nothing of it may run any more.
    pub fn broken(self, failure: Failure) {
        self.free();
        self.shared.end(Err(failure));
    }

    /// There is no answer. Nothing of it may run any more.
    pub fn refused(self, error: CallError) {
        self.free();
        self.shared.head(Err(error), None, None);
    }

    fn grow(&mut self, bytes: usize) {
        let Self { keys, ticket, shared, open } = self;
        if *open && !keys.change(|table| table.policy.grow(*ticket, bytes)) {
            *open = false;
            let held = shared.close();
            keys.change(|table| table.policy.close(*ticket, held));
        }
    }

    fn complete(&self, now: Instant) -> bool {
        self.shared.seal()
            && self.keys.change(|table| {
                table.policy.finish(self.ticket, now);
                !std::mem::replace(&mut table.swept, true)
            })
    }

    fn free(&self) {
        self.keys.change(|table| table.policy.remove(self.ticket));
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.free();
        self.shared.broke();
        self.shared.gone.send_replace(true);
    }
}

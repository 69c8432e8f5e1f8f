//! One execution that several calls read: its answer as far as it has come, and how far each of them is.
//!
//! The upstream is asked for more when the furthest reader has everything, so it is slowed by the fastest and never by
//! a slow one. While everything from the beginning is kept, a reader may come late. Once it is not, what the slowest
//! still needs is kept within a bound, and whoever falls further behind is dropped. Invariant: every reader has a
//! prefix of the one answer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::dedupe::Keys;
use crate::call::{CallError, Class, Failure, Fate, Outcome, Piece, TrailEntry, Usage, Verdict};
use crate::policy::Ticket;

/// What a piece takes beside its bytes.
const PIECE: usize = 96;
/// How far a reader may fall behind an answer that is not kept, in bytes.
const SLACK: usize = 1024 * 1024;

/// How the answer began: all of a reply but its events.
#[derive(Clone, Debug)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// Upstream's own end-to-end headers.
    pub headers: HeaderMap,
    /// Configured name of the endpoint that answered.
    pub endpoint: String,
    /// Configured name of the route.
    pub route: String,
    /// Sends made upstream for it.
    pub sends: u32,
    /// How the answer came about.
    pub outcome: Outcome,
    /// Failed sends, in order.
    pub trail: Vec<TrailEntry>,
    /// How long the winning send waited for a place.
    pub queued: Duration,
    /// Time from the winning send's start to its first model event.
    pub upstream: Duration,
    /// The body, where it is whole; otherwise it follows in pieces.
    pub body: Option<Bytes>,
}

/// How the answer begins, and its tokens where the call that reads it is the one to tell them.
pub type Begun = (Arc<Head>, Option<Usage>);

/// What a piece counts in memory.
pub(super) fn cost(piece: &Piece) -> usize {
    piece.bytes.len() + PIECE
}

pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Turns true when nothing of the execution runs any more.
    pub gone: watch::Sender<bool>,
}

#[derive(Default)]
struct Inner {
    head: Option<Result<Arc<Head>, CallError>>,
    pieces: VecDeque<Piece>,
    /// Number of the first piece that is still here.
    first: u64,
    /// Bytes of all pieces so far.
    total: usize,
    /// How far a reader may be behind, once not everything is kept.
    slack: Option<usize>,
    /// The answer is complete; what is not here yet comes without being asked for.
    sealed: bool,
    end: Option<Result<(), Failure>>,
    /// Everybody left before the answer was complete.
    left: bool,
    readers: Vec<Place>,
    next: u64,
    /// Whose call tells the tokens: one reader's, so that they are counted once.
    teller: Option<u64>,
    usage: Option<Usage>,
    source: Option<Waker>,
    abort: Option<AbortHandle>,
    fate: Option<Arc<Fate>>,
}

/// How far one reader is.
struct Place {
    id: u64,
    /// Number of the piece it reads next.
    at: u64,
    /// Bytes it has read.
    read: usize,
    /// It fell too far behind.
    lost: bool,
    waker: Option<Waker>,
}

/// Why an execution takes no reader more.
pub(super) enum NoReader {
    /// Everybody left, and it is being taken down.
    Left,
    /// Its beginning is gone.
    Late,
}

impl Inner {
    fn head_at(&self) -> u64 {
        self.first + self.pieces.len() as u64
    }

    fn is_wanted(&self) -> bool {
        let head = self.head_at();
        self.readers.iter().any(|reader| !reader.lost && reader.at == head)
    }

    fn wake_readers(&mut self) {
        self.readers.iter_mut().filter_map(|reader| reader.waker.take()).for_each(Waker::wake);
    }

    fn wake_source(&mut self) {
        if self.is_wanted()
            && let Some(source) = self.source.take()
        {
            source.wake();
        }
    }

    /// Lets go of what every reader has.
    fn trim(&mut self) {
        if self.slack.is_none() {
            return;
        }
        let head = self.head_at();
        let slowest = self.readers.iter().filter(|reader| !reader.lost).map(|reader| reader.at).min().unwrap_or(head);
        while self.first < slowest && self.pieces.pop_front().is_some() {
            self.first += 1;
        }
    }
}

impl Shared {
    /// An execution with one reader already, so that nobody who joins and leaves can be the last before it.
    pub fn new() -> Arc<Self> {
        let first = Place { id: 0, at: 0, read: 0, lost: false, waker: None };
        let inner = Inner { readers: vec![first], next: 1, teller: Some(0), ..Inner::default() };
        Arc::new(Self { inner: Mutex::new(inner), gone: watch::Sender::new(false) })
    }

    /// The reader it was made with; to be taken once.
    pub fn first_reader(self: &Arc<Self>, keys: &Keys, ticket: Ticket) -> Reader {
        self.reads(keys, Some(ticket), 0)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// One more reader, from the beginning.
    ///
    /// # Errors
    /// There is none any more.
    pub fn reader(self: &Arc<Self>, keys: &Keys, ticket: Option<Ticket>) -> Result<Reader, NoReader> {
        let mut inner = self.lock();
        if inner.left {
            return Err(NoReader::Left);
        }
        if inner.slack.is_some() {
            return Err(NoReader::Late);
        }
        let id = inner.next;
        inner.next += 1;
        inner.readers.push(Place { id, at: 0, read: 0, lost: false, waker: None });
        inner.wake_source();
        drop(inner);
        Ok(self.reads(keys, ticket, id))
    }

    fn reads(self: &Arc<Self>, keys: &Keys, ticket: Option<Ticket>, id: u64) -> Reader {
        Reader { keys: keys.clone(), ticket, shared: Arc::clone(self), id, fate: Arc::default(), over: false }
    }

    /// What ends the execution when everybody has left.
    pub fn abort_with(&self, abort: AbortHandle) {
        self.lock().abort = Some(abort);
    }

    pub fn head(&self, head: Result<Arc<Head>, CallError>, usage: Option<Usage>, fate: Option<Arc<Fate>>) {
        let mut inner = self.lock();
        (inner.usage, inner.fate) = (usage, fate);
        inner.head.get_or_insert(head);
        inner.wake_readers();
    }

    /// Whether somebody has everything and waits for more, now or later.
    pub fn poll_wanted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        if inner.is_wanted() {
            return Poll::Ready(());
        }
        inner.source = Some(cx.waker().clone());
        Poll::Pending
    }

    pub fn push(&self, piece: Piece) {
        let mut inner = self.lock();
        if let Some(slack) = inner.slack {
            let total = inner.total;
            inner.readers.iter_mut().for_each(|reader| reader.lost |= total - reader.read > slack);
            inner.trim();
        }
        inner.usage = piece.usage.or(inner.usage);
        inner.total += piece.bytes.len();
        inner.pieces.push_back(piece);
        inner.wake_readers();
    }

    /// From now on only what somebody still has to read is kept. Returns how much that is.
    pub fn close(&self) -> usize {
        let mut inner = self.lock();
        let furthest = inner.readers.iter().map(|reader| inner.total - reader.read).max().unwrap_or(0);
        inner.slack = Some(furthest.max(SLACK));
        inner.trim();
        inner.pieces.iter().map(cost).sum()
    }

    /// The answer is complete, and no leaving ends the execution any more. `false` when everybody has left before.
    pub fn seal(&self) -> bool {
        let mut inner = self.lock();
        inner.sealed = !inner.left;
        inner.sealed
    }

    pub fn end(&self, end: Result<(), Failure>) {
        let mut inner = self.lock();
        inner.end.get_or_insert(end);
        inner.wake_readers();
    }

    /// The execution broke off without a word.
    pub fn broke(&self) {
        let mut inner = self.lock();
        let told = "a fault in Outrigger; the log of this instance has the place";
        inner.head.get_or_insert_with(|| Err(CallError::local(Class::Internal, told)));
        inner.end.get_or_insert_with(|| Err(Failure::new(Class::Internal, told)));
        inner.wake_readers();
    }

    fn leave(&self, id: u64, fate: &Fate) -> Option<AbortHandle> {
        let mut inner = self.lock();
        inner.readers.retain(|reader| reader.id != id);
        if inner.teller == Some(id) {
            inner.teller = inner.readers.first().map(|reader| reader.id);
        }
        inner.trim();
        inner.wake_source();
        if !inner.readers.is_empty() || inner.sealed || inner.end.is_some() {
            return None;
        }
        inner.left = true;
        if let Some(shared) = &inner.fate
            && fate.get() != Verdict::Failed(Class::ClientDisconnect)
        {
            shared.set(fate.get());
        }
        inner.abort.take()
    }
}

/// One call's view of an execution. Dropped, the call has left; the last to leave ends what still runs.
pub struct Reader {
    keys: Keys,
    ticket: Option<Ticket>,
    shared: Arc<Shared>,
    id: u64,
    /// Why it left, where somebody else than its client ended it.
    pub fate: Arc<Fate>,
    over: bool,
}

impl Reader {
    /// How the answer begins, as soon as it does.
    ///
    /// # Errors
    /// The execution has no answer.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Begun, CallError>> {
        let mut inner = self.shared.lock();
        let Some(head) = inner.head.clone() else {
            if let Some(place) = inner.readers.iter_mut().find(|place| place.id == self.id) {
                place.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        let head = head?;
        let usage = inner.usage.filter(|_| head.body.is_some() && inner.teller == Some(self.id));
        if head.body.is_some() && inner.teller == Some(self.id) {
            inner.teller = None;
        }
        Poll::Ready(Ok((head, usage)))
    }

    /// The next piece of the body; ends as the answer ends, or because this reader fell too far behind.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, Failure>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut guard = self.shared.lock();
        let inner = &mut *guard;
        let Some(place) = inner.readers.iter_mut().find(|place| place.id == self.id) else {
            return Poll::Ready(None);
        };
        if place.lost {
            self.over = true;
            let told = "too slow for an answer that others share: it is too long to be kept for whoever falls behind";
            return Poll::Ready(Some(Err(Failure::new(Class::OversizeResponse, told))));
        }
        if let Some(piece) = inner.pieces.get((place.at - inner.first) as usize) {
            let mut piece = piece.clone();
            place.at += 1;
            place.read += piece.bytes.len();
            let tells = inner.teller == Some(self.id);
            piece.usage = inner.usage.filter(|_| tells);
            if tells && piece.done {
                inner.teller = None;
            }
            self.over = piece.done;
            inner.trim();
            inner.wake_source();
            return Poll::Ready(Some(Ok(piece)));
        }
        match inner.end.clone() {
            Some(end) => {
                self.over = true;
                if inner.teller == Some(self.id) {
                    inner.teller = None;
                }
                Poll::Ready(end.err().map(Err))
            }
            None => {
                place.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let Some(abort) = self.shared.leave(self.id, &self.fate) else { return };
        if let Some(ticket) = self.ticket {
            self.keys.abandon(ticket);
        }
        abort.abort();
    }
}

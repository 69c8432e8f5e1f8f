//! The memory that request bodies take while they are held, and its ceiling.
//!
//! What is counted is held by the bytes themselves: the last of them to be dropped, wherever that is, gives it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::call::Priority;
use crate::policy::admission::share;

/// How much is held, and how much may be.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Ceiling>);

#[derive(Debug)]
struct Ceiling {
    most: AtomicUsize,
    held: AtomicUsize,
}

impl Memory {
    /// Nothing is held; `most` bytes may be.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Ceiling { most: AtomicUsize::new(most), held: AtomicUsize::new(0) }))
    }

    /// Another ceiling from now on; what is held beyond it stays until it is given back.
    pub fn set(&self, most: usize) {
        self.0.most.store(most, Ordering::Relaxed);
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Room for so many bytes of a call of this class; `None` when there is not so much left of its share. Where
    /// nothing is held there is room for any body.
    pub fn take(&self, bytes: usize, class: Priority) -> Option<Hold> {
        let mut hold = Hold { memory: self.clone(), bytes: 0 };
        hold.grow(bytes, class).then_some(hold)
    }
}

/// Some of the memory, given back when dropped.
#[derive(Debug)]
pub struct Hold {
    memory: Memory,
    bytes: usize,
}

impl Hold {
    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more; `false`, and no more, when there is not so much left.
    pub fn grow(&mut self, more: usize, class: Priority) -> bool {
        let Ceiling { most, held } = &*self.memory.0;
        let most = most.load(Ordering::Relaxed);
        let within = (most as f64 * share(class)) as usize;
        let own = self.bytes;
        let grown = held.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |held| {
            let sum = held.checked_add(more)?;
            (sum <= within || (held == own && sum <= most)).then_some(sum)
        });
        if grown.is_ok() {
            self.bytes += more;
        }
        grown.is_ok()
    }

    /// These bytes, which hold the memory as long as any part of them is alive.
    pub fn over(self, body: Vec<u8>) -> Bytes {
        Bytes::from_owner(Held { body, _hold: self })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.0.held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

struct Held {
    body: Vec<u8>,
    _hold: Hold,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_the_bytes_gives_it_back() {
        let memory = Memory::new(100);
        let hold = memory.take(10, Priority::Default).unwrap();
        let body = hold.over(vec![b'x'; 10]);
        let (part, clone) = (body.slice(3..5), body.clone());
        drop((body, clone));
        assert_eq!((memory.held(), &part[..]), (10, &b"xx"[..]));
        drop(part);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn the_lower_classes_stop_before_the_higher() {
        for (class, most) in [(Priority::Sheddable, 70), (Priority::Default, 95), (Priority::Critical, 100)] {
            let memory = Memory::new(100);
            let mut hold = memory.take(60, class).unwrap();
            let other = memory.take(most - 60, class).unwrap();
            assert!(memory.take(1, class).is_none() && !hold.grow(1, class), "{class:?}");
            assert_eq!((memory.held(), hold.bytes()), (most, 60), "a refusal takes nothing");
            drop(other);
            assert!(hold.grow(1, class));
        }
    }

    #[test]
    fn an_empty_memory_takes_any_body_but_no_more_than_there_is() {
        let memory = Memory::new(100);
        let mut hold = memory.take(50, Priority::Sheddable).unwrap();
        assert!(hold.grow(50, Priority::Sheddable), "nobody else is there");
        assert!(!hold.grow(1, Priority::Critical));
        drop(hold);
        assert!(memory.take(101, Priority::Critical).is_none());
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn many_at_once_never_pass_the_ceiling() {
        let memory = Memory::new(1000);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let memory = &memory;
                scope.spawn(move || {
                    for round in 0..2000 {
                        let hold = memory.take(1 + (thread * 97 + round * 31) % 400, Priority::Critical);
                        assert!(memory.held() <= 1000);
                        drop(hold);
                    }
                });
            }
        });
        assert_eq!(memory.held(), 0);
    }
}

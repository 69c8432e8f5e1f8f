//! Room in memory for answers that are held until they are complete: one ceiling over all calls.
//!
//! Invariant: what was taken is given back, byte for byte, when its [`Stock`] is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The room there is. Clones share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: AtomicUsize,
    used: AtomicUsize,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most: AtomicUsize::new(most), used: AtomicUsize::new(0) }))
    }

    /// Room for so many bytes from now on; what is held stays.
    pub fn set(&self, most: usize) {
        self.0.most.store(most, Ordering::Relaxed);
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.used() >= self.0.most.load(Ordering::Relaxed)
    }

    /// A share of it, empty yet.
    pub fn stock(&self) -> Stock {
        Stock { room: self.clone(), bytes: 0 }
    }
}

/// What one answer holds of the room.
#[derive(Debug)]
pub struct Stock {
    room: Room,
    bytes: usize,
}

impl Stock {
    /// Takes so many bytes more; `false`, and nothing taken, where they do not fit.
    pub fn take(&mut self, bytes: usize) -> bool {
        let Inner { most, used } = &*self.room.0;
        let most = most.load(Ordering::Relaxed);
        let fits = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= most);
        let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.bytes += if taken { bytes } else { 0 };
        taken
    }

    /// Gives so many back; at most what it has.
    pub fn give(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.room.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_and_nothing_goes_over() {
        let room = Room::new(100);
        let (mut one, mut two) = (room.stock(), room.stock());
        assert!(one.take(60) && two.take(40) && room.is_full());
        assert!(!two.take(1));
        assert_eq!(room.used(), 100);
        one.give(10);
        assert!(two.take(10) && !two.take(usize::MAX));
        two.give(1000);
        assert_eq!(room.used(), 50, "no more comes back than was taken");
        drop((one, two));
        assert_eq!(room.used(), 0);
    }

    #[test]
    fn many_at_once_stay_below() {
        let room = Room::new(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..2000 {
                        let mut stock = room.stock();
                        stock.take(round % 400);
                        assert!(room.used() <= 1000);
                    }
                });
            }
        });
        assert_eq!(room.used(), 0);
    }
}

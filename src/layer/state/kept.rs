//! State that outlives the settings it was made for, as long as anybody holds it.
//!
//! Each generation of settings takes what it needs by key and holds it; whoever serves a call holds it too. What nobody
//! holds any more is gone, so a config that is changed ten thousand times leaves nothing behind. Invariant: while one
//! holder is left, everybody who asks for that key gets the same thing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

/// Things by key, known but not held.
#[derive(Debug)]
pub struct Kept<K, T>(HashMap<K, Weak<T>>);

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, T> Kept<K, T> {
    /// What there is by this key.
    pub fn get(&self, key: &K) -> Option<Arc<T>> {
        self.0.get(key)?.upgrade()
    }

    /// What there is by this key, changed by `change`; else what `make` makes.
    pub fn take(&mut self, key: K, change: impl FnOnce(&T), make: impl FnOnce() -> T) -> Arc<T> {
        if let Some(found) = self.get(&key) {
            change(&found);
            return found;
        }
        self.0.retain(|_, held| held.strong_count() > 0);
        let made = Arc::new(make());
        self.0.insert(key, Arc::downgrade(&made));
        made
    }

    /// How many keys are remembered, of which some may be gone.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model that knows of each key whether anybody holds it.
        #[test]
        fn it_is_the_same_while_one_holder_is_left_and_new_after(steps in prop::collection::vec((0..4u8, 0..3u8), 1..200)) {
            let mut kept = Kept::default();
            let mut held: Vec<(u8, Arc<u32>)> = Vec::new();
            let mut made = 0;
            for (key, step) in steps {
                if step < 2 {
                    let expected = held.iter().find(|(of, _)| *of == key).map(|(_, thing)| **thing);
                    let taken = kept.take(key, |_| {}, || { made += 1; made });
                    prop_assert_eq!(*taken, expected.unwrap_or(made));
                    held.push((key, taken));
                } else if let Some(at) = held.iter().position(|(of, _)| *of == key) {
                    held.swap_remove(at);
                }
                prop_assert_eq!(kept.get(&key).is_some(), held.iter().any(|(of, _)| *of == key));
            }
            held.clear();
            kept.take(9, |_| {}, || 0);
            prop_assert_eq!(kept.len(), 1, "what nobody holds is forgotten");
        }
    }
}

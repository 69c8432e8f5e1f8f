//! Chance without luck: every draw is a pure function of a seed and a few numbers.
//!
//! Owns the generator and the text hash. Owns no state between calls. Invariant: the same inputs give the same
//! draws on every machine and in every release, which is why the two algorithms are written out here.

/// A stream of draws (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The stream that belongs to `parts`, in that order.
    pub fn of(parts: &[u64]) -> Self {
        let mut dice = Dice(0x6f75_7472_6967_6765);
        for part in parts {
            dice.0 ^= *part;
            dice.0 = dice.next();
        }
        dice
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number in `0..end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// One of `items`, which must not be empty.
    pub fn one<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

/// FNV-1a over the bytes of `text`.
pub fn hash(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_every_part_and_on_nothing_else() {
        assert_eq!(Dice::of(&[7, 1]).next(), Dice::of(&[7, 1]).next());
        assert_ne!(Dice::of(&[7, 1]).next(), Dice::of(&[7, 2]).next());
        assert_ne!(Dice::of(&[7, 1]).next(), Dice::of(&[1, 7]).next());
    }

    #[test]
    fn units_are_spread_evenly_enough() {
        let low = (0..10_000).filter(|n| Dice::of(&[3, *n]).unit() < 0.3).count();
        assert!((2_800..3_200).contains(&low), "{low}");
    }
}

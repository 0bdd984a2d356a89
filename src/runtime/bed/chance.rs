//! [`Chance`]: random numbers of a test, which follow from its seed.

use std::ops::Range;

/// Random numbers that follow from a seed: the same seed gives the same ones.
///
/// ```
/// use onceflow::testing::Chance;
///
/// let mut chance = Chance::new(7);
/// let words: Vec<&str> = chance.list(1..10, |chance| *chance.pick(&["tea", "milk"]));
/// assert!((1..10).contains(&words.len()));
/// assert!(chance.below(6) < 6);
/// ```
#[derive(Debug, Clone)]
pub struct Chance {
    state: u64,
}

impl Chance {
    /// The numbers of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number of 64 bits.
    ///
    /// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// `true` once in `count` times.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// One of `choices`, each as likely as the others.
    ///
    /// # Panics
    /// If there are none.
    #[track_caller]
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        assert!(!choices.is_empty(), "there is nothing to pick from");
        &choices[self.index(choices.len())]
    }

    /// A list whose length lies in `lengths`.
    pub fn list<T>(
        &mut self,
        lengths: Range<usize>,
        mut one: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let length = lengths.start + self.index(lengths.len());
        (0..length).map(|_| one(self)).collect()
    }

    /// An index below `bound`; 0 if the bound is 0.
    pub(super) fn index(&mut self, bound: usize) -> usize {
        let below = self.below(u64::try_from(bound).unwrap_or(u64::MAX));
        usize::try_from(below).unwrap_or(0)
    }
}

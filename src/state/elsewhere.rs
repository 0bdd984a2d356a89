//! The keys of a store in order that may have rows on disk alone: a range of a key that has none costs no search there.
//!
//! A counting Bloom filter: each row counts, under its key, while it is on disk and not in memory. It may count too much, which costs a
//! search, and never too little.
//!
//! ```text
//! a row leaves memory and stays on disk    + 1, unless it counts already
//! a row comes back from disk               counts on, and its entry knows
//! its deletion has reached the disk        - 1, if its entry knows that it counts
//! ```
//! Of a state partition that RocksDB held before the store was opened nothing is known, until its rows were counted one after the other:
//! some at each end of a cycle (`Store::count_rows_on_disk`). Up to the place where that stands the rules above hold; behind it nothing
//! counts.

/// The largest count: it stands for any that is larger, too, and is never left again.
const COUNT_MAX: u8 = 15;
/// The share of a store's memory that the counts take.
const SHARE_OF_MEMORY: usize = 4;
const COUNTS_BYTES_MIN: usize = 1 << 10;

#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Two counts in each byte; none before the first row counts.
    counts: Vec<u8>,
    /// Whether all rows of a state partition that are to count do so.
    known: Vec<bool>,
    /// The state partition whose rows are being counted, and the last one that was.
    counted: Option<(u16, Vec<u8>)>,
}

impl Elsewhere {
    /// Knows, or no longer knows, all rows of a state partition that are to count.
    pub(super) fn set_known(&mut self, state_partition: u16, is_known: bool) {
        let partition = usize::from(state_partition);
        if self.known.len() <= partition {
            self.known.resize(partition + 1, false);
        }
        self.known[partition] = is_known;
        self.counted.take_if(|counted| counted.0 == state_partition);
    }

    /// The last row of a state partition that was counted, if some were.
    pub(super) fn counted_to(&self, state_partition: u16) -> Option<&[u8]> {
        let (partition, row) = self.counted.as_ref()?;
        (*partition == state_partition).then_some(row)
    }

    /// All rows of a state partition up to this one count that are to.
    pub(super) fn set_counted_to(&mut self, state_partition: u16, row: &[u8]) {
        let (partition, counted) = self.counted.get_or_insert_default();
        *partition = state_partition;
        counted.clear();
        counted.extend_from_slice(row);
    }

    /// Whether a row counts if it is on disk alone.
    #[inline]
    pub(super) fn covers(&self, state_partition: u16, row: &[u8]) -> bool {
        let is_counted = |counted: &[u8]| row <= counted;
        self.knows(state_partition) || self.counted_to(state_partition).is_some_and(is_counted)
    }

    /// Whether all rows of a state partition that are to count do so.
    #[inline]
    pub(super) fn knows(&self, state_partition: u16) -> bool {
        let known = self.known.get(usize::from(state_partition));
        known.copied().unwrap_or(false)
    }

    /// Whether a key with this hash may have a row on disk alone.
    #[inline]
    pub(super) fn may_have(&self, state_partition: u16, hash: u64) -> bool {
        if !self.knows(state_partition) {
            return true;
        }
        if self.counts.is_empty() {
            return false;
        }
        let [first, second] = self.places(hash);
        self.count(first) > 0 && self.count(second) > 0
    }

    /// Counts a row of a key with this hash, in a store of so much memory.
    pub(super) fn add(&mut self, hash: u64, memory_bytes: usize) {
        if self.counts.is_empty() {
            let size_bytes = (memory_bytes / SHARE_OF_MEMORY).max(COUNTS_BYTES_MIN);
            self.counts = vec![0; size_bytes.min(u32::MAX as usize / 4)];
        }
        for place in self.places(hash) {
            let count = self.count(place);
            if count < COUNT_MAX {
                self.set_count(place, count + 1);
            }
        }
    }

    /// Counts a row of a key with this hash, which counted, no more.
    ///
    /// # Panics
    /// If there is no such row: a range of another key would be taken for empty.
    pub(super) fn remove(&mut self, hash: u64) {
        for place in self.places(hash) {
            let count = self.count(place);
            assert!(count > 0, "a row that was counted is in the counts");
            if count < COUNT_MAX {
                self.set_count(place, count - 1);
            }
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.counts.len()
    }

    /// Where the counts of a hash are.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "takes a hash apart into its two halves"
    )]
    fn places(&self, hash: u64) -> [usize; 2] {
        let places_count = self.counts.len() as u64 * 2;
        // Each half of the hash as a share of all places.
        [hash as u32, (hash >> 32) as u32]
            .map(|half| ((u64::from(half) * places_count) >> 32) as usize)
    }

    #[inline]
    fn count(&self, place: usize) -> u8 {
        self.counts[place / 2] >> (place % 2 * 4) & COUNT_MAX
    }

    #[inline]
    fn set_count(&mut self, place: usize, count: u8) {
        let (byte, shift) = (&mut self.counts[place / 2], place % 2 * 4);
        *byte = *byte & !(COUNT_MAX << shift) | count << shift;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_rows_elsewhere_is_never_said_to_have_none() {
        let mut elsewhere = Elsewhere::default();
        assert!(elsewhere.may_have(3, 7), "nothing is known yet");
        elsewhere.set_known(3, true);
        assert!(!elsewhere.may_have(3, 7));
        let hash = |number: u64| super::super::key::hash_key(&number.to_be_bytes());
        // Many more than there are counts, and each up to four times.
        let times = |number: u64| 1 + number % 4;
        for number in 0..10_000 {
            (0..times(number)).for_each(|_| elsewhere.add(hash(number), 0));
        }
        for gone in 0..10_000 {
            (0..times(gone)).for_each(|_| elsewhere.remove(hash(gone)));
            let left = [gone + 1, gone + 77, 9_999];
            let left = left.into_iter().filter(|it| *it > gone && *it < 10_000);
            for number in left {
                assert!(elsewhere.may_have(3, hash(number)));
            }
        }
    }

    #[test]
    fn keys_whose_rows_are_gone_are_known_to_have_none() {
        let mut elsewhere = Elsewhere::default();
        elsewhere.set_known(0, true);
        let hash = |number: u64| super::super::key::hash_key(&number.to_be_bytes());
        let memory_bytes = 4 << 20;
        (0..100_000).for_each(|number| elsewhere.add(hash(number), memory_bytes));
        let other = |elsewhere: &Elsewhere| {
            let others = 100_000..200_000u64;
            others.filter(|it| elsewhere.may_have(0, hash(*it))).count()
        };
        // (1 - e^(-2 · 100,000 / 2^21))² = 0.8 %
        assert!(
            (400..1_300).contains(&other(&elsewhere)),
            "{}",
            other(&elsewhere)
        );
        (0..100_000).for_each(|number| elsewhere.remove(hash(number)));
        assert_eq!(other(&elsewhere), 0);
    }
}

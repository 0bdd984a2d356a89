//! The demo's judge: given what was counted and what was written, it says what is doubled and what is lost.
//!
//! Word count writes every update, `(word, 1)`, `(word, 2)`, … Exactly once means that each word's updates are
//! exactly 1, 2, …, n in this order, n being the plain count of the same input. So a record processed twice shows as
//! an update beyond n or as a number written before, and a lost one as a gap or as an end before n.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use rapidhash::fast::RapidHasher;

/// Occurrences of each word: the plain count, and the last update seen.
pub(crate) type Counts = HashMap<Box<str>, u64, BuildHasherDefault<RapidHasher<'static>>>;

/// Adds one to `word`, without allocating for a word that is known.
pub(crate) fn add_one(counts: &mut Counts, word: &str) -> u64 {
    if let Some(count) = counts.get_mut(word) {
        *count += 1;
        return *count;
    }
    counts.insert(word.into(), 1);
    1
}

/// Follows the updates of every word, in the order in which a reader sees them.
#[derive(Default)]
pub(super) struct Ledger {
    last: Counts,
    updates: u64,
    repeated: u64,
    skipped: u64,
}

/// Result of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Updates read.
    pub(super) updates: u64,
    /// Updates beyond exactly one for each occurrence of a word in the input.
    pub(super) duplicates: u64,
    /// Occurrences in the input without their update.
    pub(super) losses: u64,
}

impl Verdict {
    /// Whether the output is what the input says, exactly once.
    pub(super) fn is_exact(&self) -> bool {
        self.duplicates == 0 && self.losses == 0
    }
}

impl Ledger {
    /// Takes note that `word` was said to have occurred `count` times so far.
    pub(super) fn update(&mut self, word: &str, count: u64) {
        self.updates += 1;
        let last = match self.last.get_mut(word) {
            Some(last) => last,
            None => self.last.entry(word.into()).or_insert(0),
        };
        if count <= *last {
            self.repeated += 1;
            return;
        }
        self.skipped += count - *last - 1;
        *last = count;
    }

    /// Compares with the plain count of the same input.
    pub(super) fn settle(&self, expected: &Counts) -> Verdict {
        let mut verdict = Verdict {
            updates: self.updates,
            duplicates: self.repeated,
            losses: self.skipped,
        };
        for (word, last) in &self.last {
            let counted = expected.get(word).copied().unwrap_or(0);
            verdict.duplicates += last.saturating_sub(counted);
            verdict.losses += counted.saturating_sub(*last);
        }
        verdict.losses += expected
            .iter()
            .filter(|(word, _)| !self.last.contains_key(*word))
            .map(|(_, counted)| counted)
            .sum::<u64>();
        verdict
    }
}

/// The `n` most frequent words, equal ones by name.
pub(super) fn top(counts: &Counts, n: usize) -> Vec<(&str, u64)> {
    let mut words: Vec<(&str, u64)> = counts.iter().map(|(word, n)| (&**word, *n)).collect();
    words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    words.truncate(n);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(words: &[&str]) -> Counts {
        let mut counts = Counts::default();
        for word in words {
            add_one(&mut counts, word);
        }
        counts
    }

    fn judge(input: &[&str], output: &[(&str, u64)]) -> (u64, u64) {
        let mut ledger = Ledger::default();
        for (word, count) in output {
            ledger.update(word, *count);
        }
        let verdict = ledger.settle(&counted(input));
        assert_eq!(verdict.updates, output.len() as u64);
        (verdict.duplicates, verdict.losses)
    }

    #[test]
    fn one_update_for_each_occurrence_in_order_is_exact() {
        let output = [("tea", 1), ("cup", 1), ("tea", 2)];
        assert_eq!(judge(&["tea", "tea", "cup"], &output), (0, 0));
    }

    #[test]
    fn an_update_written_twice_is_a_duplicate() {
        assert_eq!(
            judge(&["tea", "tea"], &[("tea", 1), ("tea", 1), ("tea", 2)]),
            (1, 0)
        );
        // A whole replay: the input was read again from an old position with old state.
        let replay = [("tea", 1), ("tea", 2), ("tea", 1), ("tea", 2)];
        assert_eq!(judge(&["tea", "tea"], &replay), (2, 0));
    }

    #[test]
    fn input_counted_twice_is_a_duplicate() {
        assert_eq!(
            judge(&["tea"], &[("tea", 1), ("tea", 2), ("tea", 3)]),
            (2, 0)
        );
        assert_eq!(judge(&[], &[("cup", 1)]), (1, 0));
    }

    #[test]
    fn a_gap_an_early_end_and_a_missing_word_are_losses() {
        assert_eq!(
            judge(&["tea", "tea", "tea"], &[("tea", 1), ("tea", 3)]),
            (0, 1)
        );
        assert_eq!(judge(&["tea", "tea", "tea"], &[("tea", 1)]), (0, 2));
        assert_eq!(
            judge(&["tea", "cup", "cup"], &[("cup", 1), ("cup", 2)]),
            (0, 1)
        );
    }

    #[test]
    fn updates_out_of_order_are_not_exact() {
        assert_ne!(judge(&["tea", "tea"], &[("tea", 2), ("tea", 1)]), (0, 0));
    }

    #[test]
    fn the_top_words_come_by_count_then_by_name() {
        let counts = counted(&["b", "a", "c", "c"]);
        assert_eq!(top(&counts, 2), [("c", 2), ("a", 1)]);
    }
}

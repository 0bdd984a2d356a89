//! The reasons of dead letters, by kinds: few enough to be labels of metrics.

use std::collections::BTreeMap;

/// Kinds of reasons that are counted one by one; the rest together.
const KINDS_MAX: usize = 20;
/// The most characters of a kind.
const CHARACTERS_MAX: usize = 120;
/// The kind of the rest.
const OTHERS: &str = "other reasons";

/// The dead letters that were written, by kinds of reasons.
#[derive(Debug, Clone, Default)]
pub(crate) struct LetterReasons {
    counts: BTreeMap<String, u64>,
}

impl LetterReasons {
    /// A letter was written for this reason.
    pub(crate) fn note(&mut self, why: &str) {
        let kind = kind(why);
        let is_known = self.counts.contains_key(&kind) || self.counts.len() < KINDS_MAX;
        let kind = if is_known { kind } else { OTHERS.to_owned() };
        *self.counts.entry(kind).or_default() += 1;
    }

    pub(crate) fn by_kind(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// All of them.
    pub(crate) fn count(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// A reason without what is of one record: what stands in quotes, and numbers.
fn kind(why: &str) -> String {
    let mut kind = String::new();
    let (mut quote, mut is_number) = (None, false);
    for character in why.chars() {
        if let Some(end) = quote {
            if character == end {
                quote = None;
                kind.push(character);
            }
            continue;
        }
        if character.is_ascii_digit() {
            if !is_number {
                kind.push('#');
            }
            is_number = true;
            continue;
        }
        is_number = false;
        kind.push(if character.is_control() {
            ' '
        } else {
            character
        });
        // An apostrophe within a word is none.
        if matches!(character, '"' | '`') {
            quote = Some(character);
            kind.push('…');
        }
    }
    match kind.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => {
            kind.truncate(end);
            kind + "…"
        }
        None => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_reason_are_of_one_kind() {
        let first = "\"a b\" is no number: invalid digit found, at column 17";
        let second = "\"\" is no number: invalid digit found, at column 4";
        assert_eq!(kind(first), kind(second));
        assert_eq!(kind("it's -12.5"), "it's -#.#");
        assert_eq!(kind("an open \"quote"), "an open \"…");
        assert_eq!(kind("two\nlines"), "two lines");
        assert_eq!(kind(&"ä".repeat(500)).chars().count(), CHARACTERS_MAX + 1);
    }

    #[test]
    fn kinds_are_bounded_and_no_letter_is_lost() {
        let mut reasons = LetterReasons::default();
        for name in 'a'..='z' {
            reasons.note(&format!("reason {name}"));
        }
        reasons.note("reason a");
        assert_eq!(reasons.by_kind().len(), KINDS_MAX + 1);
        assert_eq!(reasons.by_kind()["reason a"], 2);
        assert_eq!(reasons.by_kind()[OTHERS], 6);
        assert_eq!(reasons.count(), 27);
    }
}

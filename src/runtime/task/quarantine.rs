//! Source records that are set apart because they cannot be processed whole (D11): they outlive the attempt that found them.
//!
//! A record that fails after it left a trace has effects in the open cycle, so the cycle is given up and done again without
//! the record, which becomes a dead letter where it enters. Who is to blame must be known for certain: what a failed
//! record left behind can make the next one fail. So a record that failed in a job with stores is only a *suspect*: the
//! next attempt stops before it and gives it a cycle of its own. If it fails there, on committed state alone, it is poison.
//! A job without stores carries nothing from record to record: all failures of its cycle are poison at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::runtime::contract::source::Split;
use crate::types::Offset;

/// The records that are set apart at once, at most. A cycle with more is given up early.
const APART_MAX: usize = 16_384;
/// The most that is kept of a reason, in bytes.
const WHY_BYTES_MAX: usize = 1_024;

/// State of a record set apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Apart {
    /// It failed among others: it gets a cycle of its own.
    Suspect,
    /// It failed, and nothing else can be to blame: it becomes a dead letter with this reason.
    Poison(String),
}

/// Whether the attempt that found a bad record can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// To find more of them; the cycle is not committed.
    GoesOn,
    /// The job starts again from the last commit.
    IsOver,
}

/// The records that are set apart in a job, by split.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: BTreeMap<Split, BTreeMap<Offset, Apart>>,
    count: usize,
    /// Something was set apart in this attempt, so that its cycle cannot be committed.
    is_doomed: bool,
}

impl Quarantine {
    /// A suspect: the attempt is over.
    pub(crate) fn suspect(&self, split: Split, offset: Offset) -> Attempt {
        self.0.lock().add(split, offset, Apart::Suspect);
        Attempt::IsOver
    }

    /// A record that is poison for certain.
    pub(crate) fn poison(&self, split: Split, offset: Offset, mut why: String) -> Attempt {
        let mut end = why.len().min(WHY_BYTES_MAX);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        why.truncate(end);
        let mut inner = self.0.lock();
        inner.add(split, offset, Apart::Poison(why));
        match inner.count < APART_MAX {
            true => Attempt::GoesOn,
            false => Attempt::IsOver,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().count == 0
    }

    /// Whether the open cycle has records that are set apart only in the next attempt.
    pub(crate) fn is_doomed(&self) -> bool {
        self.0.lock().is_doomed
    }

    /// An attempt ended: whether it set records apart, so that the next one is another.
    pub(crate) fn end_attempt(&self) -> bool {
        std::mem::take(&mut self.0.lock().is_doomed)
    }

    /// The records set apart of a split from a position on, in order.
    pub(crate) fn of(&self, split: &Split, position: Offset) -> Vec<(Offset, Apart)> {
        let inner = self.0.lock();
        let records = inner.records.get(split);
        let from = records.map(|records| records.range(position..));
        let from = from.into_iter().flatten();
        from.map(|(offset, apart)| (*offset, apart.clone()))
            .collect()
    }

    /// Forgets records before a committed position, for good.
    pub(crate) fn forget_before(&self, split: &Split, position: Offset) {
        let mut inner = self.0.lock();
        let Some(records) = inner.records.get_mut(split) else {
            return;
        };
        let rest = records.split_off(&position);
        let decided = std::mem::replace(records, rest).len();
        inner.count -= decided;
    }
}

impl Inner {
    fn add(&mut self, split: Split, offset: Offset, apart: Apart) {
        let before = self.records.entry(split).or_default().insert(offset, apart);
        self.count += usize::from(before.is_none());
        self.is_doomed = true;
    }
}

/// The split whose next record has the open cycle to itself.
#[derive(Debug)]
pub(crate) struct Alone(AtomicU64);

impl Default for Alone {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

impl Alone {
    pub(crate) fn set(&self, split: Option<u32>) {
        let value = split.map_or(u64::MAX, u64::from);
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn split(&self) -> Option<u32> {
        u32::try_from(self.0.load(Ordering::Relaxed)).ok()
    }
}

/// The records of one split that are set apart, as its reader meets them.
#[derive(Debug, Default)]
pub(crate) struct ApartAhead {
    /// In order; the next one is last.
    ahead: Vec<(Offset, Apart)>,
    /// The suspect that the reader stopped at.
    held: Option<Offset>,
    /// The suspect that has this cycle to itself.
    alone: Option<Offset>,
    /// Records below this offset enter without a question.
    next_offset: Offset,
}

/// The decision about a record that may be set apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is processed.
    Enters,
    /// It waits for a cycle of its own, and the records behind it for theirs.
    Waits,
    /// It becomes a dead letter, for this reason.
    IsPoison(String),
}

impl ApartAhead {
    pub(crate) fn new(mut ahead: Vec<(Offset, Apart)>) -> Self {
        ahead.reverse();
        Self {
            ahead,
            held: None,
            alone: None,
            next_offset: Offset(i64::MAX),
        }
        .looking_ahead()
    }

    /// Records below this offset enter without a question.
    #[inline]
    pub(crate) fn next_offset(&self) -> Offset {
        self.next_offset
    }

    fn looking_ahead(mut self) -> Self {
        self.look_ahead();
        self
    }

    fn look_ahead(&mut self) {
        let next = self.ahead.last().map(|next| next.0);
        self.next_offset = self.held.or(next).unwrap_or(Offset(i64::MAX));
    }

    /// Where the reader stopped, if it waits for a cycle of its next record alone.
    pub(crate) fn held(&self) -> Option<Offset> {
        self.held
    }

    /// The reader was opened again at the record that it stopped at.
    pub(crate) fn release(&mut self) {
        self.alone = self.held.take();
        self.look_ahead();
    }

    #[cold]
    pub(crate) fn admit(&mut self, offset: Offset) -> Admission {
        let admission = self.decide(offset);
        self.look_ahead();
        admission
    }

    fn decide(&mut self, offset: Offset) -> Admission {
        if self.held.is_some() {
            return Admission::Waits;
        }
        while self.ahead.pop_if(|next| next.0 < offset).is_some() {}
        match self.ahead.last() {
            Some((at, Apart::Suspect)) if *at == offset && self.alone != Some(offset) => {
                self.held = Some(offset);
                Admission::Waits
            }
            Some((at, _)) if *at == offset => match self.ahead.pop() {
                Some((_, Apart::Poison(why))) => Admission::IsPoison(why),
                _ => Admission::Enters,
            },
            _ => Admission::Enters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(name: &str) -> Split {
        Split::Named {
            source: "s".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn x9_a_suspect_waits_for_its_cycle_and_poison_becomes_a_letter() {
        let quarantine = Quarantine::default();
        quarantine.suspect(split("a"), Offset(5));
        quarantine.poison(split("a"), Offset(7), "bad".to_owned());
        assert!(quarantine.is_doomed() && quarantine.end_attempt() && !quarantine.end_attempt());
        let mut ahead = ApartAhead::new(quarantine.of(&split("a"), Offset(2)));
        assert_eq!(ahead.next_offset(), Offset(5));
        assert_eq!(ahead.admit(Offset(5)), Admission::Waits);
        assert_eq!(
            (ahead.held(), ahead.next_offset()),
            (Some(Offset(5)), Offset(5))
        );
        assert_eq!(ahead.admit(Offset(6)), Admission::Waits);
        ahead.release();
        assert_eq!(ahead.admit(Offset(5)), Admission::Enters);
        assert_eq!(ahead.admit(Offset(6)), Admission::Enters);
        assert_eq!(
            ahead.admit(Offset(7)),
            Admission::IsPoison("bad".to_owned())
        );
        assert_eq!(ahead.next_offset(), Offset(i64::MAX));
    }

    #[test]
    fn x9_what_is_committed_is_forgotten_and_too_many_end_the_attempt() {
        let quarantine = Quarantine::default();
        for n in 0..3 {
            quarantine.poison(split("a"), Offset(n), String::new());
        }
        quarantine.forget_before(&split("a"), Offset(2));
        assert_eq!(quarantine.of(&split("a"), Offset(0)).len(), 1);
        assert_eq!(quarantine.of(&split("b"), Offset(0)), []);
        let long = "é".repeat(2 * WHY_BYTES_MAX);
        let many = (0..).map(|n| quarantine.poison(split("b"), Offset(n), long.clone()));
        let before = many
            .take_while(|attempt| *attempt == Attempt::GoesOn)
            .count();
        assert_eq!(before, APART_MAX - 2);
    }
}

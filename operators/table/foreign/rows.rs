//! The row that a join by foreign key keeps of each left key: what it shows, and what it waits for. Pure.
//!
//! ```text
//!   home of the left key                 home of the foreign key
//!   change fk1 → fk2  ── leave fk1 ────►  fk1: forgets the key
//!                     ── ask fk2 ──────►  fk2: remembers the key, and answers once; then tells it of each change of the right value
//!   row: due + 1      ◄── answer ───────
//! ```
//! A row that is due answers shows what it showed before. Between two homes messages keep their order, between more there is none: answers
//! to a key that went from one foreign key to another may come in any order, and what the last home had told before it was left may come
//! behind all of them. So a row counts the answers that are due, takes the right value only from the home of its foreign key of now, whose
//! messages come in the order of its changes, and shows something new once no answer is due: then the last one was the newest (J15).

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{Datum, First, Parts, Second};
use crate::operators::join::Joiner;
use crate::runtime::Change;

/// The state of a left key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Matched<V, W> {
    /// Number of answers to come.
    due: u32,
    /// The result that is shown while they are: the values on both sides as they were.
    before: Option<(V, Option<W>)>,
    /// The right value, as the home of the foreign key told it last.
    right: Option<W>,
    /// The latest time of a result (J16).
    time: i64,
}

impl<V, W> Default for Matched<V, W> {
    fn default() -> Self {
        Self {
            due: 0,
            before: None,
            right: None,
            time: i64::MIN,
        }
    }
}

impl<V: Datum, W: Datum> Matched<V, W> {
    /// Where the values of both sides are in it.
    pub(super) fn parts() -> Parts {
        Parts::two::<Matched<First, Second>, V, W>(|walk| {
            walk.same::<u32>()?;
            walk.optional(|walk| {
                walk.part::<V>(0)?;
                walk.optional(|walk| walk.part::<W>(1))
            })?;
            walk.optional(|walk| walk.part::<W>(1))?;
            walk.same::<i64>()
        })
    }
}

/// The fate of the foreign key when a left value changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Move {
    /// It is the same, or there is none, as before.
    Stays,
    /// There is another one, which is asked for its value.
    Asks,
    /// There is none any more.
    Leaves,
}

/// The answer of the home of a foreign key to a left key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer<W> {
    /// The foreign key.
    pub(super) of: SharedBytes,
    pub(super) told: Told<W>,
}

/// The news.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Told<W> {
    /// Whether it was asked; else the value changed.
    pub(super) is_answer: bool,
    pub(super) right: Option<W>,
}

/// Bytes that many answers have.
#[derive(Debug, Clone)]
pub(super) struct SharedBytes(Arc<[u8]>);

impl SharedBytes {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(super) fn is(&self, bytes: &[u8]) -> bool {
        *self.0 == *bytes
    }
}

impl Serialize for SharedBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(|bytes| Self(bytes.into()))
    }
}

impl<V: Clone, W: Clone> Matched<V, W> {
    /// The result that is shown, with this left value.
    fn shown<J: Joiner<V, W>>(&self, left: Option<&V>, joiner: &J) -> Option<J::Out> {
        if self.due == 0 {
            return left.and_then(|left| joiner.of(Some(left), self.right.as_ref()));
        }
        let (left, right) = self.before.as_ref()?;
        joiner.of(Some(left), right.as_ref())
    }

    /// Shows the row to who reads the table: `left` is the left value of now.
    pub(super) fn seen<J: Joiner<V, W>>(
        row: Option<&Self>,
        left: Option<&V>,
        joiner: &J,
    ) -> Option<J::Out> {
        match row {
            Some(row) => row.shown(left, joiner),
            None => Self::default().shown(left, joiner),
        }
    }

    /// Takes a change of the left value; returns the change of what is shown, if there is one.
    pub(super) fn change_left<J: Joiner<V, W>>(
        &mut self,
        change: &Change<V>,
        moves: Move,
        joiner: &J,
    ) -> Option<Change<J::Out>> {
        let old = self.shown(change.old.as_ref(), joiner);
        if moves != Move::Stays {
            let right = self.right.take();
            if self.due == 0 {
                self.before = change.old.clone().map(|left| (left, right));
            }
        }
        self.due = self.due.saturating_add(u32::from(moves == Move::Asks));
        if change.new.is_none() {
            (self.before, self.right) = (None, None);
        } else if self.due > 0 {
            return None;
        }
        self.settle();
        give(old, self.shown(change.new.as_ref(), joiner))
    }

    /// Takes what the home of a foreign key tells: of the one that `left`, the left value of now, has, if `is_of_now`. Returns the
    /// change of what is shown, if there is one.
    pub(super) fn hear<J: Joiner<V, W>>(
        &mut self,
        told: &Told<W>,
        left: Option<&V>,
        is_of_now: bool,
        joiner: &J,
    ) -> Option<Change<J::Out>> {
        let old = self.shown(left, joiner);
        let was_due = self.due;
        // A record that was set apart may have taken its question with it, but not the answer: `due` is 0 then.
        self.due -= u32::from(told.is_answer && self.due > 0);
        if is_of_now {
            self.right.clone_from(&told.right);
        }
        if self.due > 0 || (was_due == 0 && !is_of_now) {
            return None;
        }
        self.settle();
        give(old, self.shown(left, joiner))
    }

    fn settle(&mut self) {
        if self.due == 0 {
            self.before = None;
        }
    }

    /// The time of a result because of a record at `time`: results of a key never go back (J16).
    pub(super) fn time_of(&mut self, time: i64) -> i64 {
        self.time = self.time.max(time);
        self.time
    }

    /// Whether a key with this left value needs no row.
    pub(super) fn is_over(&self, has_left: bool) -> bool {
        self.due == 0 && !has_left
    }
}

/// A change, unless there was nothing and there is nothing.
fn give<R>(old: Option<R>, new: Option<R>) -> Option<Change<R>> {
    (old.is_some() || new.is_some()).then_some(Change { old, new })
}

#[cfg(test)]
mod tests;

//! The contract of a sink's end on a worker: what it does before and at a commit. The sink itself is a
//! [`Sink`](crate::runtime::Sink), where streams end: `graph/sink.rs`.

use std::collections::BTreeMap;

use super::operator::Flow;
use super::record::Record;

/// One worker's end of a [`Sink`](crate::runtime::Sink), used on the worker's thread.
pub trait SinkWriter<K: ?Sized, V: ?Sized> {
    /// Takes a record. One that is refused with [`Failure::poison`](crate::runtime::Failure::poison) must leave nothing.
    ///
    /// # Errors
    /// A [`Failure`](crate::runtime::Failure).
    fn write(&mut self, record: Record<'_, K, V>) -> Flow;

    /// Every record of the cycle was written: makes them durable, so that they can be finished or undone after any crash, and
    /// changes the marks that are committed with the cycle.
    ///
    /// # Errors
    /// A [`Failure`](crate::runtime::Failure), with which the cycle is not committed.
    fn prepare_commit(&mut self, _marks: &mut MarkChanges) -> Flow {
        Ok(())
    }

    /// The cycle that was prepared last is committed: shows what it wrote. Records of the next cycle may have come meanwhile.
    /// A crash may come before this; then [`Sink::recover`](crate::runtime::Sink::recover) finishes it.
    ///
    /// # Errors
    /// A [`Failure`](crate::runtime::Failure), which ends the attempt; the cycle stays committed.
    fn commit(&mut self) -> Flow {
        Ok(())
    }
}

/// The marks of a sink as of the last committed cycle, by part. The sink chooses its parts: workers, files, tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks(BTreeMap<String, Vec<u8>>);

impl Marks {
    /// The mark of a part.
    #[must_use]
    pub fn get(&self, part: &str) -> Option<&[u8]> {
        self.0.get(part).map(Vec::as_slice)
    }

    /// Every part with its mark.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(part, mark)| (&**part, &**mark))
    }
}

impl FromIterator<(String, Vec<u8>)> for Marks {
    fn from_iter<I: IntoIterator<Item = (String, Vec<u8>)>>(marks: I) -> Self {
        Self(marks.into_iter().collect())
    }
}

/// The marks that a cycle changes; those of other parts stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarkChanges(BTreeMap<String, Option<Vec<u8>>>);

impl MarkChanges {
    /// Sets the mark of a part.
    pub fn set(&mut self, part: impl Into<String>, mark: impl Into<Vec<u8>>) {
        self.0.insert(part.into(), Some(mark.into()));
    }

    /// Forgets a part, of which nothing need be known any more.
    pub fn forget(&mut self, part: impl Into<String>) {
        self.0.insert(part.into(), None);
    }

    /// Whether no mark changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every part with its new mark, or none where it is forgotten.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.iter().map(|(part, mark)| (&**part, mark.as_deref()))
    }
}

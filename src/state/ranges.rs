//! Ranges of a store that keeps its keys in order: each costs what it shows.

use std::ops::ControlFlow;

use super::error::StateError;
use super::key::{HashedKey, PlacedKey, encode_stored_key, hash_key};
use super::order::Slots;
use super::scan::{stored_end, successor};
use super::store::Store;

/// Rows on disk that are counted for each row that a cycle changed, and how many in a cycle at least and at most.
const COUNTED_PER_CHANGE: usize = 2;
const COUNTED_MIN: usize = 16;
const COUNTED_MAX: usize = 8 << 10;

/// In which order a range is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The least key first.
    Forward,
    /// The greatest key first.
    Backward,
}

impl Direction {
    pub(super) fn is_before(self, a: &[u8], b: &[u8]) -> bool {
        match self {
            Self::Forward => a < b,
            Self::Backward => a > b,
        }
    }
}

/// Keys of one state partition: those that are at least `from` and below `to`.
#[derive(Debug, Default)]
pub(crate) struct KeyRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

impl KeyRange {
    /// Makes this the range of all keys that begin with the prefix, which is not empty and has a byte that is not 255.
    pub(crate) fn set_prefix(&mut self, prefix: &[u8]) {
        self.from.clear();
        self.from.extend_from_slice(prefix);
        self.to = successor(prefix).unwrap_or_default();
    }
}

impl<V: Clone + Send + 'static> Store<V> {
    /// Keeps the keys of all entries in memory in order from here on. To be called before the first entry.
    pub(crate) fn keep_order(&mut self) {
        self.table.keep_order();
        let partitions = self.partitions.clone();
        self.note_partitions(&partitions);
    }

    /// Of a state partition that begins here all rows on disk will be known, those of another one are to be counted.
    pub(super) fn note_partitions(&mut self, partitions: &[u16]) {
        for &partition in partitions {
            let begins = self.backend.position(&self.name, partition).is_none();
            if let Some(elsewhere) = self.table.elsewhere_mut() {
                elsewhere.set_known(partition, begins);
            }
        }
    }

    /// Counts some more of the rows that RocksDB held before the store was opened: a few for each change of the cycle.
    pub(super) fn count_rows_on_disk(&mut self, changes_count: usize) -> Result<(), StateError> {
        let Some(elsewhere) = self.table.elsewhere_mut() else {
            return Ok(());
        };
        let mut partitions = self.partitions.iter().copied();
        let Some(partition) = partitions.find(|it| !elsewhere.knows(*it)) else {
            return Ok(());
        };
        let mut from = Vec::new();
        if let Some(last) = elsewhere.counted_to(partition) {
            encode_stored_key(partition, last, &mut from);
            from.push(0);
        } else {
            encode_stored_key(partition, &[], &mut from);
        }
        let mut rows_left = (COUNTED_PER_CHANGE * changes_count).clamp(COUNTED_MIN, COUNTED_MAX);
        let limit_bytes = self.limit_bytes();
        let table = &mut self.table;
        let mut count = |row: &[u8], _: &[u8]| {
            if rows_left == 0 {
                return Ok(ControlFlow::Break(()));
            }
            rows_left -= 1;
            let key = PlacedKey {
                hash: hash_key(row),
                state_partition: partition,
                bytes: row,
            };
            table.count_stored(&key, limit_bytes);
            Ok(ControlFlow::Continue(()))
        };
        let to = stored_end(partition, None);
        self.backend
            .scan(&self.name, &from, to, Direction::Forward, &mut count)?;
        if rows_left > 0
            && let Some(elsewhere) = self.table.elsewhere_mut()
        {
            elsewhere.set_known(partition, true);
        }
        Ok(())
    }

    /// Shows the keys of a range with their values, until `visit` breaks. Changes of the open cycle are seen. Where all rows of the
    /// key are in memory it costs what it shows, and deletions in the range that are not flushed; else a read of RocksDB's range, too.
    /// The range is one of a single key's rows. Returns how many deletions it passed in memory.
    ///
    /// # Errors
    /// If RocksDB fails or holds a value that is not of the store's type.
    ///
    /// # Panics
    /// If the store does not keep its keys in order.
    pub(crate) fn visit_range(
        &self,
        state_partition: u16,
        range: &KeyRange,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
    ) -> Result<usize, StateError> {
        self.check_not_broken()?;
        if range.from >= range.to {
            return Ok(0);
        }
        let (slots, may_have_more) = self.rows_in_memory(state_partition, range);
        let mut deletions_count = 0;
        let entry = |slot: u32| {
            let entry = self.table.entry(slot);
            deletions_count += usize::from(entry.value.is_none());
            (entry.key.as_slice(), entry.value.as_ref())
        };
        if self.is_resident || !may_have_more {
            let _ = match direction {
                Direction::Forward => show(slots.map(entry), visit),
                Direction::Backward => show(slots.rev().map(entry), visit),
            };
            self.reads.hit(usize::from(!self.is_resident));
            return Ok(deletions_count);
        }
        self.reads.miss(1);
        let bounds = (&*range.from, Some(&*range.to), direction);
        match direction {
            Direction::Forward => {
                self.scan_merged(state_partition, bounds, slots.map(entry), visit)?;
            }
            Direction::Backward => {
                self.scan_merged(state_partition, bounds, slots.rev().map(entry), visit)?;
            }
        }
        Ok(deletions_count)
    }

    /// As [`visit_range`](Self::visit_range) forward, of a range that has `count` keys: if all of them are in memory, RocksDB is not read.
    pub(crate) fn visit_counted(
        &self,
        state_partition: u16,
        range: &KeyRange,
        count: usize,
        visit: &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
    ) -> Result<usize, StateError> {
        let is_here = |slot: &u32| self.table.entry(*slot).value.is_some();
        let (slots, _) = self.rows_in_memory(state_partition, range);
        if self.is_resident || slots.filter(is_here).count() != count {
            return self.visit_range(state_partition, range, Direction::Forward, visit);
        }
        self.check_not_broken()?;
        self.reads.hit(1);
        let (slots, _) = self.rows_in_memory(state_partition, range);
        let entries = slots.map(|slot| self.table.entry(slot));
        let _ = show(
            entries.map(|it| (it.key.as_slice(), it.value.as_ref())),
            visit,
        );
        Ok(0)
    }

    /// The slots of a range's rows in memory, and whether there may be more of them on disk.
    fn rows_in_memory(&self, state_partition: u16, range: &KeyRange) -> (Slots<'_>, bool) {
        let rows = self.table.range(state_partition, &range.from, &range.to);
        rows.unwrap_or_else(|| panic!("store {:?} does not keep its keys in order", self.name))
    }

    /// Sets the value of a key without a look at what it was.
    ///
    /// # Errors
    /// If an earlier operation failed.
    pub(crate) fn put(&mut self, key: HashedKey<'_>, value: V) -> Result<(), StateError> {
        self.set(key, Some(value))
    }

    /// Removes a key that has a value, which is not looked at.
    ///
    /// # Errors
    /// If an earlier operation failed.
    pub(crate) fn delete_present(&mut self, key: HashedKey<'_>) -> Result<(), StateError> {
        self.set(key, None)
    }

    /// Sets a value that is the same whenever there is one, without a read from disk. Returns whether there was none in memory.
    ///
    /// # Errors
    /// If an earlier operation failed.
    #[inline]
    pub(crate) fn insert_unread(
        &mut self,
        key: HashedKey<'_>,
        value: V,
    ) -> Result<bool, StateError> {
        let placed = key.place(self.state_partitions);
        if let Some(slot) = self.table.find(&placed)
            && self.table.entry(slot).value.is_some()
        {
            return Ok(false);
        }
        self.set(key, Some(value))?;
        Ok(true)
    }

    /// Sets the value of a key, or removes the one that it has, without a look at what it was.
    fn set(&mut self, key: HashedKey<'_>, value: Option<V>) -> Result<(), StateError> {
        self.check_not_broken()?;
        let key = key.place(self.state_partitions);
        assert!(
            self.partitions.contains(&key.state_partition),
            "store {:?} does not own state partition {}",
            self.name,
            key.state_partition
        );
        let (slot, is_known) = match self.table.find(&key) {
            Some(slot) => (slot, true),
            None => {
                let slot = self.table.insert(&key, None, 0);
                // It is on disk alone.
                if value.is_none() && !self.is_resident {
                    self.table.note_stored(slot);
                }
                (slot, self.is_resident)
            }
        };
        let entry = self.table.entry_mut(slot);
        let is_absent = entry.value.is_none();
        let is_new = is_absent && value.is_some();
        entry.value = value;
        self.trace.leave();
        if !entry.is_in_cycle {
            entry.is_in_cycle = true;
            entry.is_new = is_known && is_absent;
            self.mark_changed(slot, is_new);
        }
        Ok(())
    }
}

/// Shows what has a value.
fn show<'s, V: 's>(
    rows: impl Iterator<Item = (&'s [u8], Option<&'s V>)>,
    visit: &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut values = rows.filter_map(|(key, value)| Some((key, value?)));
    values.try_for_each(|(key, value)| visit(key, value))
}

//! Ranges of a store that keeps its keys in order: each costs what it shows.

use std::ops::ControlFlow;

use super::error::StateError;
use super::key::HashedKey;
use super::scan::successor;
use super::store::Store;

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
    }

    /// Shows the keys of a range with their values, until `visit` breaks. Changes of the open cycle are seen. While all state is in
    /// memory it costs what it shows, and deletions in the range that are not flushed; else a read of RocksDB's range, too.
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
    ) -> Result<(), StateError> {
        self.check_not_broken()?;
        let Some(order) = self.table.order() else {
            panic!("store {:?} does not keep its keys in order", self.name);
        };
        let entry = |slot: u32| {
            let entry = self.table.entry(slot);
            (entry.key.as_slice(), entry.value.as_ref())
        };
        let slots = order.range(state_partition, &range.from, &range.to);
        match direction {
            Direction::Forward => {
                self.visit_laid_over(state_partition, range, direction, slots.map(entry), visit)
            }
            Direction::Backward => {
                let slots = slots.rev();
                self.visit_laid_over(state_partition, range, direction, slots.map(entry), visit)
            }
        }
    }

    /// As [`visit_range`](Self::visit_range) forward, of a range that has `count` keys: if all of them are in memory, RocksDB is not read.
    pub(crate) fn visit_counted(
        &self,
        state_partition: u16,
        range: &KeyRange,
        count: usize,
        visit: &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        if self.is_resident || count == 0 {
            return self.visit_range(state_partition, range, Direction::Forward, visit);
        }
        let in_memory = self.table.order().map_or(0, |order| {
            let slots = order.range(state_partition, &range.from, &range.to);
            let values = slots.filter(|slot| self.table.entry(*slot).value.is_some());
            values.count()
        });
        if in_memory != count {
            return self.visit_range(state_partition, range, Direction::Forward, visit);
        }
        self.check_not_broken()?;
        let order = self.table.order().into_iter();
        let slots = order.flat_map(|it| it.range(state_partition, &range.from, &range.to));
        let entries = slots.map(|slot| self.table.entry(slot));
        let _ = entries
            .filter_map(|entry| Some((entry.key.as_slice(), entry.value.as_ref()?)))
            .try_for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    fn visit_laid_over<'s>(
        &'s self,
        state_partition: u16,
        range: &KeyRange,
        direction: Direction,
        overlay: impl Iterator<Item = (&'s [u8], Option<&'s V>)>,
        visit: &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        if !self.is_resident {
            let bounds = (&*range.from, Some(&*range.to), direction);
            return self.scan_merged(state_partition, bounds, overlay, visit);
        }
        let _ = overlay
            .filter_map(|(key, value)| Some((key, value?)))
            .try_for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    /// Sets the value of a key without a look at what it was.
    ///
    /// # Errors
    /// If an earlier operation failed.
    pub(crate) fn put(&mut self, key: HashedKey<'_>, value: V) -> Result<(), StateError> {
        self.set(key, Some(value))
    }

    /// Removes a key without a look at what it was.
    ///
    /// # Errors
    /// If an earlier operation failed.
    pub(crate) fn delete(&mut self, key: HashedKey<'_>) -> Result<(), StateError> {
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

    /// Sets the value of a key, or removes it, without a look at what it was.
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
            None => (self.table.insert(&key, None, 0), self.is_resident),
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

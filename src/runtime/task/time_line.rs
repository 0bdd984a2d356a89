//! The rows with a time of one kind, in the order of their times: an index in memory, which is filled from the store.

use std::cell::RefCell;
use std::ops::ControlFlow;

use super::read_ahead::RowList;
use super::time_index::TimeIndex;
use super::timed_row::{HASH_BYTES, Row, TIMED_KEY_START, ordered, time_of};
use super::timed_store::Due;
use crate::runtime::contract::error::Failure;
use crate::state::{StateError, Store};
use crate::types::Timestamp;

/// The rows that are due and read at once.
const READ_AHEAD_ROWS: usize = 1_024;

/// The rows of one kind that have a time, in order.
pub(super) struct Line {
    /// The first byte of their keys.
    pub(super) kind: u8,
    pub(super) index: TimeIndex,
    /// Whether a row was removed before its time: if it came again, the index has it twice.
    pub(super) may_repeat: bool,
    /// The next rows that were read ahead.
    read_count: usize,
    rows: RowList,
}

impl Line {
    pub(super) fn new(kind: u8, index_bytes_max: usize) -> Self {
        Self {
            kind,
            index: TimeIndex::new(index_bytes_max),
            may_repeat: false,
            read_count: 0,
            rows: RowList::default(),
        }
    }

    /// Takes the next entry at or below `until` out of the index. Those up to `ahead` are about to be taken; `has_values` says
    /// whether the values of their keys are, too.
    pub(super) fn pop<V: Clone + Send + 'static>(
        &mut self,
        until: Timestamp,
        due: &mut Due,
        store: &RefCell<Store<Row<V>>>,
        ahead: Timestamp,
        has_values: bool,
    ) -> Result<bool, Failure> {
        if self.first(until, store)?.is_none() {
            return Ok(false);
        }
        if self.read_count == 0 && !store.borrow().is_resident() {
            self.read_ahead(ahead, has_values, store)?;
        }
        let Some((time, entry)) = self.index.pop(until) else {
            return Ok(false);
        };
        due.set(self.kind, time, entry);
        self.read_count = self.read_count.saturating_sub(1);
        Ok(true)
    }

    /// The time of the first entry at or below `until`.
    pub(super) fn first<V: Clone + Send + 'static>(
        &mut self,
        until: Timestamp,
        store: &RefCell<Store<Row<V>>>,
    ) -> Result<Option<Timestamp>, Failure> {
        loop {
            if let Some(first) = self.index.first(until) {
                return Ok(Some(first));
            }
            if !self.index.must_load(until) {
                return Ok(None);
            }
            self.load(store)?;
        }
    }

    /// Brings the next rows up to `until` into memory in one go.
    fn read_ahead<V: Clone + Send + 'static>(
        &mut self,
        until: Timestamp,
        has_values: bool,
        store: &RefCell<Store<Row<V>>>,
    ) -> Result<(), Failure> {
        self.rows.clear();
        self.read_count = 0;
        for (time, entry) in self.index.next_due(until).take(READ_AHEAD_ROWS) {
            self.read_count += 1;
            let Some((key, hash)) = entry.split_last_chunk::<HASH_BYTES>() else {
                continue;
            };
            let hash = u32::from_be_bytes(*hash);
            self.rows.push_timed(self.kind, key, time, hash);
            if has_values {
                self.rows.push_value(key, hash);
            }
        }
        match self.read_count {
            0 => Ok(()),
            _ => Ok(store.borrow_mut().prefetch(self.rows.iter())?),
        }
    }

    /// Fills the index from the store, from where it ends.
    pub(super) fn load<V: Clone + Send + 'static>(
        &mut self,
        store: &RefCell<Store<Row<V>>>,
    ) -> Result<(), Failure> {
        let kind = self.kind;
        let mut from = vec![kind];
        from.extend_from_slice(&ordered(self.index.horizon()));
        let partitions_count = store.borrow().partitions().len();
        let mut loading = self.index.begin_load(partitions_count);
        let loaded: Result<(), StateError> =
            store
                .borrow_mut()
                .scan_partitions(&from, &mut |partition, row, _| match row
                    .split_first_chunk::<TIMED_KEY_START>()
                {
                    Some(([it, time @ ..], entry)) if *it == kind => {
                        loading.offer(partition, time_of(*time), entry)
                    }
                    _ => ControlFlow::Break(()),
                });
        loaded?;
        loading.finish();
        Ok(())
    }
}

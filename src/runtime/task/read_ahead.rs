//! Reads of the rows that a batch's records will need, in one go before the first of them is processed.
//!
//! Only where a store is larger than its memory is anything read. What is read too much costs time, and what is not read ahead is
//! read when it is needed: nothing else depends on it.

use std::cell::RefCell;
use std::rc::Rc;

use super::context::OperatorContext;
use super::stores::SharedStore;
use super::timed_row::{KEY, Row, TIMED, timed_row};
use super::timed_store::TimedStore;
use crate::runtime::contract::error::Failure;
use crate::state::{HashedKey, StateError, Store};
use crate::types::Timestamp;

/// A record that comes: the bytes of its key with their murmur2, and its time.
pub(crate) type Coming<'k> = (&'k [u8], u32, Timestamp);

/// A store that knows which of its rows a record needs.
pub(crate) trait ReadAhead {
    /// Brings what the records of a batch need into memory.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn read_ahead(&self, batch: &mut dyn Iterator<Item = Coming<'_>>) -> Result<(), StateError>;
}

pub(crate) type SharedReadAhead = Rc<dyn ReadAhead>;

/// Brings what the records of a batch need of each of these stores into memory.
pub(crate) fn read_ahead<'k>(
    stores: &[SharedReadAhead],
    batch: impl Iterator<Item = Coming<'k>> + Clone,
) -> Result<(), Failure> {
    for store in stores {
        store.read_ahead(&mut batch.clone())?;
    }
    Ok(())
}

impl OperatorContext {
    /// Has the values of each batch's keys that have no time read in one go, where the store is larger than its memory: for an
    /// operator that changes the value of each record's key ([`TimedStore::update`]).
    pub fn read_ahead<V: Clone + Send + 'static>(&mut self, store: &mut TimedStore<V>) {
        self.met_stores.push(store.ahead(None));
    }

    /// Has the values of each batch's keys at times read in one go, where the store is larger than its memory: for an operator that
    /// changes the value of each record's key at a time ([`TimedStore::update_at`]). `at` says at which, by the time of the record,
    /// if at any.
    pub fn read_ahead_at<V: Clone + Send + 'static>(
        &mut self,
        store: &mut TimedStore<V>,
        at: impl Fn(Timestamp) -> Option<Timestamp> + 'static,
    ) {
        self.met_stores.push(store.ahead(Some(Box::new(at))));
    }
}

/// One value for each key.
pub(crate) struct ValuesAhead(pub(crate) SharedStore);

impl ReadAhead for ValuesAhead {
    fn read_ahead(&self, batch: &mut dyn Iterator<Item = Coming<'_>>) -> Result<(), StateError> {
        let mut keys = batch.map(|(bytes, hash, _)| HashedKey::with_partition_hash(bytes, hash));
        self.0.borrow_mut().prefetch(&mut keys)
    }
}

/// The time at which a record with a time needs its key's value, or none.
pub(super) type TimeOfValue = Box<dyn Fn(Timestamp) -> Option<Timestamp>>;

/// The rows of a store with times.
pub(super) struct TimedAhead<V> {
    pub(super) store: Rc<RefCell<Store<Row<V>>>>,
    /// The values at times, or else those without.
    pub(super) at: Option<TimeOfValue>,
    pub(super) rows: RefCell<RowList>,
}

impl<V: Clone + Send + 'static> ReadAhead for TimedAhead<V> {
    fn read_ahead(&self, batch: &mut dyn Iterator<Item = Coming<'_>>) -> Result<(), StateError> {
        let mut rows = self.rows.borrow_mut();
        rows.clear();
        let mut store = self.store.borrow_mut();
        if !store.is_resident() {
            for (bytes, hash, time) in batch {
                match &self.at {
                    None => rows.push_value(bytes, hash),
                    Some(at) => {
                        if let Some(time) = at(time) {
                            rows.push_timed(TIMED, bytes, time, hash);
                        }
                    }
                }
            }
        }
        store.prefetch(rows.iter())
    }
}

/// Keys of rows, one behind the other.
#[derive(Debug, Default)]
pub(super) struct RowList {
    bytes: Vec<u8>,
    /// Where each ends, and the murmur2 of the key that it belongs to.
    ends: Vec<(usize, u32)>,
    scratch: Vec<u8>,
}

impl RowList {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds the row of a key's value, which has no time.
    pub(super) fn push_value(&mut self, key: &[u8], hash: u32) {
        self.bytes.push(KEY);
        self.bytes.extend_from_slice(key);
        self.ends.push((self.bytes.len(), hash));
    }

    /// Adds the row of a key and a time.
    pub(super) fn push_timed(&mut self, kind: u8, key: &[u8], time: Timestamp, hash: u32) {
        let row = timed_row(&mut self.scratch, kind, key, time, hash);
        self.bytes.extend_from_slice(row);
        self.ends.push((self.bytes.len(), hash));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = HashedKey<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, hash)| {
            let row = &self.bytes[start..end];
            start = end;
            HashedKey::with_partition_hash(row, hash)
        })
    }
}

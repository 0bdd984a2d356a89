//! State with time: one value for each key, one for each key and time, and timers, in one store and one changelog (design D19).
//!
//! ```text
//! row of the store           key's bytes                                               value
//! the operator's time        0                                                         tag 1, i64 milliseconds, big-endian
//! a key's value              1, key                                                    tag 0, value
//! a key's value at a time    2, time (8, sign flipped, big-endian), key, hash (4)      tag 0, value
//! a timer                    2, time, key, hash                                        tag 2
//! ```
//! Each row is in the key's own state partition, so it moves with the key. `hash` is the key's murmur2: the key of a window keeps that of
//! the key it was made of. Rows with a time are found in (time, key) order through an index (`time_index.rs`), which is derived
//! from the store and may be forgotten at any moment (I11).

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::stores::SharedStore;
use super::time_index::TimeIndex;
use crate::codec::{Codec, CodecError, CodecId, Datum, Schema, TypeIdentity};
use crate::runtime::contract::error::Failure;
use crate::runtime::contract::record::Key;
use crate::state::{HashedKey, StateError, Store};
use crate::types::Timestamp;

/// Begins the row of the operator's time, of a key's value, and of what has a time.
const OWN_TIME: u8 = 0;
const KEY: u8 = 1;
const TIMED: u8 = 2;
/// Begins the value of a row.
const VALUE: u8 = 0;
const TIME: u8 = 1;
const TIMER: u8 = 2;
/// Where the key begins in a row with a time.
const TIMED_KEY_START: usize = 1 + 8;
const HASH_BYTES: usize = 4;

/// What a row of the store holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row<V> {
    Value(V),
    Time(Timestamp),
    Timer,
}

/// Rows as bytes: a tag, and what belongs to it.
#[derive(Clone, Default)]
pub(crate) struct RowCodec<C>(C);

impl<V: Clone, C: Codec<V>> Codec<Row<V>> for RowCodec<C> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, row: &Row<V>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match row {
            Row::Value(value) => {
                out.push(VALUE);
                self.0.encode(value, out)?;
            }
            Row::Time(time) => {
                out.push(TIME);
                out.extend_from_slice(&time.0.to_be_bytes());
            }
            Row::Timer => out.push(TIMER),
        }
        Ok(())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Row<V>>, CodecError> {
        let refuse = || CodecError::Decode {
            codec: "a row of state with time",
            length_bytes: bytes.len(),
            why: "it begins with no known tag".to_owned(),
        };
        let (tag, rest) = bytes.split_first().ok_or_else(refuse)?;
        let row = match (*tag, rest) {
            (VALUE, value) => Row::Value(self.0.decode(value)?.into_owned()),
            (TIME, millis) => Row::Time(Timestamp(i64::from_be_bytes(
                millis.try_into().map_err(|_| refuse())?,
            ))),
            (TIMER, []) => Row::Timer,
            _ => return Err(refuse()),
        };
        Ok(Cow::Owned(row))
    }
}

/// A key whose time has come: what [`TimedStore::next_due`] found last.
#[derive(Debug, Default)]
pub struct Due {
    /// The time.
    pub time: Timestamp,
    bytes: Vec<u8>,
    partition_hash: u32,
}

impl Due {
    /// The key.
    #[must_use]
    pub fn key<K: ?Sized>(&self) -> Key<'_, K> {
        let key = self.bytes.get(TIMED_KEY_START..).unwrap_or_default();
        Key::with_hash(
            &key[..key.len().saturating_sub(HASH_BYTES)],
            self.partition_hash,
        )
    }

    /// Takes on an entry of the index.
    fn set(&mut self, time: Timestamp, entry: &[u8]) {
        self.time = time;
        self.bytes.clear();
        self.bytes.push(TIMED);
        self.bytes.extend_from_slice(&ordered(time));
        self.bytes.extend_from_slice(entry);
        let hash = entry.last_chunk().copied().unwrap_or_default();
        self.partition_hash = u32::from_be_bytes(hash);
    }

    fn row(&self) -> HashedKey<'_> {
        HashedKey::with_partition_hash(&self.bytes, self.partition_hash)
    }
}

/// What became due with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came<V> {
    /// The value that the key had at that time, which is taken out of the store.
    Value(V),
    /// A timer, which is no more.
    Timer,
}

/// One worker's part of a named store whose rows have keys, or keys and times, and timers: made by
/// [`OperatorContext::timed_store`](crate::runtime::OperatorContext::timed_store).
///
/// Changes belong to the open cycle: they are committed with its results and positions, or none of them is. A timer is state like any
/// other: it is there after a restart, goes with its key to another worker, and fires once in effect (I15).
pub struct TimedStore<V> {
    store: Rc<RefCell<Store<Row<V>>>>,
    state_partitions: u16,
    index: TimeIndex,
    /// The partitions of which the index knows.
    partitions: Vec<u16>,
    /// How far the operator had come in each partition, in the order of `partitions`, as of the last commit.
    times: Vec<(u16, Timestamp)>,
    watermark: Timestamp,
    scratch: Vec<u8>,
}

/// The number that orders as the time does, as bytes.
fn ordered(time: Timestamp) -> [u8; 8] {
    (time.0 ^ i64::MIN).to_be_bytes()
}

fn time_of(ordered: [u8; 8]) -> Timestamp {
    Timestamp(i64::from_be_bytes(ordered) ^ i64::MIN)
}

impl<V: Clone + Send + 'static> TimedStore<V> {
    pub(crate) fn open(
        store: Store<Row<V>>,
        state_partitions: u16,
        index_bytes_max: usize,
    ) -> Result<Self, StateError> {
        let mut opened = Self {
            store: Rc::new(RefCell::new(store)),
            state_partitions,
            index: TimeIndex::new(index_bytes_max),
            partitions: Vec::new(),
            times: Vec::new(),
            watermark: Timestamp::MIN,
            scratch: Vec::new(),
        };
        opened.follow_partitions()?;
        Ok(opened)
    }

    pub(crate) fn shared(&self) -> SharedStore {
        Rc::clone(&self.store) as SharedStore
    }

    /// Takes note of state partitions that came or went between two cycles.
    fn follow_partitions(&mut self) -> Result<(), StateError> {
        if self.store.borrow().partitions() == self.partitions {
            return Ok(());
        }
        self.partitions = self.store.borrow().partitions().to_vec();
        self.index.forget();
        self.times.clear();
        for &partition in &self.partitions {
            let row = own_time_key(partition);
            let mut store = self.store.borrow_mut();
            let time = match store.get(HashedKey::with_partition_hash(&[OWN_TIME], row))? {
                Some(Row::Time(time)) => *time,
                _ => Timestamp::MIN,
            };
            self.times.push((partition, time));
        }
        Ok(())
    }

    /// How far the operator had come for a key at the last commit, if that is farther than it has come since.
    #[must_use]
    #[inline]
    pub fn kept_time<K: ?Sized>(&self, key: Key<'_, K>) -> Option<Timestamp> {
        if self.times.is_empty() {
            return None;
        }
        let partition = crate::state::state_partition(key.partition_hash(), self.state_partitions);
        let kept = self.times.iter().find(|(it, _)| *it == partition);
        kept.map(|(_, time)| *time)
            .filter(|time| *time > self.watermark)
    }

    /// How far the operator has come for a key: at least as far as it had at the last commit, on whichever worker (I13).
    #[must_use]
    pub fn time<K: ?Sized>(&self, key: Key<'_, K>) -> Timestamp {
        self.kept_time(key).unwrap_or(self.watermark)
    }

    /// Notes how far the operator has come, as state: after a restart it is no less. To be called where that matters for what a
    /// record finds, and not at each watermark.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn set_time(&mut self, watermark: Timestamp) -> Result<(), Failure> {
        self.follow_partitions()?;
        if watermark <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark;
        let mut store = self.store.borrow_mut();
        for &partition in &self.partitions {
            let kept = self.times.iter().find(|(it, _)| *it == partition);
            if kept.is_some_and(|(_, time)| *time >= watermark) {
                continue;
            }
            let key = HashedKey::with_partition_hash(&[OWN_TIME], own_time_key(partition));
            store.update(key, |row| *row = Some(Row::Time(watermark)))?;
        }
        drop(store);
        self.times.retain(|(_, time)| *time > watermark);
        Ok(())
    }

    /// Changes the value of a key at a time; `None` is absent. Returns what `change` returns.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk.
    ///
    /// # Panics
    /// If the key belongs to another worker: only the keys of records that an operator is given are its own.
    #[inline]
    pub fn update_at<K: ?Sized, R>(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, Failure> {
        let hash = key.partition_hash();
        let row = timed_row(&mut self.scratch, key.bytes(), time, hash);
        let mut is_new = false;
        let mut store = self.store.borrow_mut();
        let result = store.update(HashedKey::with_partition_hash(row, hash), |row| {
            change_value(row, change, &mut is_new)
        })?;
        if is_new {
            self.index.insert(time, &row[TIMED_KEY_START..]);
        }
        Ok(result)
    }

    /// The value of a key at a time.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk.
    pub fn get_at<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
    ) -> Result<Option<V>, Failure> {
        let hash = key.partition_hash();
        let row = timed_row(&mut self.scratch, key.bytes(), time, hash);
        let mut store = self.store.borrow_mut();
        match store.get(HashedKey::with_partition_hash(row, hash))? {
            Some(Row::Value(value)) => Ok(Some(value.clone())),
            _ => Ok(None),
        }
    }

    /// Changes the value of a key, which has no time; `None` is absent.
    ///
    /// # Errors
    /// As [`update_at`](Self::update_at).
    ///
    /// # Panics
    /// As [`update_at`](Self::update_at).
    #[inline]
    pub fn update<K: ?Sized, R>(
        &mut self,
        key: Key<'_, K>,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, Failure> {
        self.scratch.clear();
        self.scratch.push(KEY);
        self.scratch.extend_from_slice(key.bytes());
        let key = HashedKey::with_partition_hash(&self.scratch, key.partition_hash());
        let mut store = self.store.borrow_mut();
        Ok(store.update(key, |row| change_value(row, change, &mut false))?)
    }

    /// Shows the value of a key, which has no time, to `see`; returns what that returns.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk.
    pub fn peek<K: ?Sized, R>(
        &mut self,
        key: Key<'_, K>,
        see: impl FnOnce(Option<&V>) -> R,
    ) -> Result<R, Failure> {
        self.scratch.clear();
        self.scratch.push(KEY);
        self.scratch.extend_from_slice(key.bytes());
        let key = HashedKey::with_partition_hash(&self.scratch, key.partition_hash());
        let mut store = self.store.borrow_mut();
        Ok(match store.get(key)? {
            Some(Row::Value(value)) => see(Some(value)),
            _ => see(None),
        })
    }

    /// Sets a timer of a key: [`next_due`](Self::next_due) finds it once its time has come. A key has one at most for each time.
    ///
    /// A timer and a value of one key at one time are one row: a timer takes the place of the value that
    /// [`update_at`](Self::update_at) put there, and the other way round. Keep them in two stores, or at other times.
    ///
    /// # Errors
    /// As [`update_at`](Self::update_at).
    pub fn set_timer<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
    ) -> Result<(), Failure> {
        let hash = key.partition_hash();
        let row = timed_row(&mut self.scratch, key.bytes(), time, hash);
        let mut store = self.store.borrow_mut();
        let is_new = store.update(HashedKey::with_partition_hash(row, hash), |row| {
            row.replace(Row::Timer).is_none()
        })?;
        if is_new {
            self.index.insert(time, &row[TIMED_KEY_START..]);
        }
        Ok(())
    }

    /// Cancels the timer of a key at a time; returns whether there was one.
    ///
    /// # Errors
    /// As [`update_at`](Self::update_at).
    pub fn cancel_timer<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
    ) -> Result<bool, Failure> {
        let hash = key.partition_hash();
        let row = timed_row(&mut self.scratch, key.bytes(), time, hash);
        let mut store = self.store.borrow_mut();
        // The index still has it, and finds nothing when its time has come.
        Ok(
            store.update(HashedKey::with_partition_hash(row, hash), |row| {
                row.take().is_some()
            })?,
        )
    }

    /// Takes the next row whose time is at or below `until`, in the order of times and then of keys' bytes, and says in `due` whose it
    /// is. One that is added meanwhile with an earlier time is the next.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn next_due(
        &mut self,
        until: Timestamp,
        due: &mut Due,
    ) -> Result<Option<Came<V>>, Failure> {
        self.follow_partitions()?;
        loop {
            if self.index.must_load(until) {
                self.load()?;
            }
            let Some((time, entry, is_first)) = self.index.pop(until) else {
                match self.index.must_load(until) {
                    true => continue,
                    false => return Ok(None),
                }
            };
            due.set(time, entry);
            if is_first {
                self.prefetch(time)?;
            }
            match self.store.borrow_mut().update(due.row(), Option::take)? {
                Some(Row::Value(value)) => return Ok(Some(Came::Value(value))),
                Some(Row::Timer) => return Ok(Some(Came::Timer)),
                // Cancelled, or removed.
                Some(Row::Time(_)) | None => {}
            }
        }
    }

    /// The time of the first row at or below `until`; it may be gone already.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn first_time(&mut self, until: Timestamp) -> Result<Option<Timestamp>, Failure> {
        self.follow_partitions()?;
        loop {
            if let Some(first) = self.index.first(until) {
                return Ok(Some(first));
            }
            if !self.index.must_load(until) {
                return Ok(None);
            }
            self.load()?;
        }
    }

    /// Shows the values of all keys at the times that are above `after` and at or below `until`, in the order of times and then of
    /// no particular one. They stay.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn visit_between(
        &mut self,
        after: Timestamp,
        until: Timestamp,
        due: &mut Due,
        mut visit: impl FnMut(&Due, &V),
    ) -> Result<(), Failure> {
        self.follow_partitions()?;
        while self.index.must_load(until) {
            self.load()?;
        }
        let mut store = self.store.borrow_mut();
        for (time, entry) in self.index.between(after, until) {
            due.set(time, entry);
            if let Some(Row::Value(value)) = store.get(due.row())? {
                visit(due, value);
            }
        }
        Ok(())
    }

    /// Brings what is due at one time into memory in one go.
    fn prefetch(&mut self, time: Timestamp) -> Result<(), Failure> {
        if self.store.borrow().is_resident() {
            return Ok(());
        }
        let mut each = Due::default();
        let mut rows = Vec::new();
        for entry in self.index.now_due() {
            each.set(time, entry);
            rows.push((each.bytes.clone(), each.partition_hash));
        }
        let keys = rows
            .iter()
            .map(|(row, hash)| HashedKey::with_partition_hash(row, *hash));
        Ok(self.store.borrow_mut().prefetch(keys)?)
    }

    /// Fills the index from the store, from where it ends.
    fn load(&mut self) -> Result<(), Failure> {
        let mut from = vec![TIMED];
        from.extend_from_slice(&ordered(self.index.horizon()));
        let mut loading = self.index.begin_load();
        let loaded: Result<(), StateError> =
            self.store
                .borrow_mut()
                .scan_partitions(&from, &mut |partition, row, _| match row
                    .split_first_chunk::<TIMED_KEY_START>()
                {
                    Some(([TIMED, time @ ..], entry)) => {
                        loading.offer(partition, time_of(*time), entry)
                    }
                    _ => ControlFlow::Break(()),
                });
        loaded?;
        loading.finish();
        Ok(())
    }

    /// How many rows with a time the index has in memory.
    #[cfg(test)]
    pub(crate) fn indexed_count(&self) -> usize {
        self.index.count()
    }
}

/// Stands before the type of keys in the schema of a store with time.
const TIMED_KEY: &str = "with time: ";

/// The schema of a store with time.
pub(crate) fn timed_schema<K: Datum + ?Sized, V: Datum + ?Sized>() -> Schema {
    let schema = Schema::of::<K, V>();
    Schema {
        key: TypeIdentity::named(&format!("{TIMED_KEY}{}", schema.key)),
        ..schema
    }
}

/// Whether keys of this type are those of a store with time.
pub(crate) fn is_timed_key(key: &TypeIdentity) -> bool {
    key.as_str().starts_with(TIMED_KEY)
}

/// A partition hash of the row that keeps the operator's time in a state partition.
fn own_time_key(partition: u16) -> u32 {
    // The remainder of its division by the number of state partitions is the partition.
    u32::from(partition)
}

/// Writes the row's key for a key and a time.
#[inline]
fn timed_row<'s>(scratch: &'s mut Vec<u8>, key: &[u8], time: Timestamp, hash: u32) -> &'s [u8] {
    scratch.clear();
    scratch.push(TIMED);
    scratch.extend_from_slice(&ordered(time));
    scratch.extend_from_slice(key);
    scratch.extend_from_slice(&hash.to_be_bytes());
    scratch
}

#[inline]
fn change_value<V, R>(
    row: &mut Option<Row<V>>,
    change: impl FnOnce(&mut Option<V>) -> R,
    is_new: &mut bool,
) -> R {
    let mut value = match row.take() {
        Some(Row::Value(value)) => Some(value),
        _ => None,
    };
    let was_absent = value.is_none();
    let result = change(&mut value);
    *is_new = was_absent && value.is_some();
    *row = value.map(Row::Value);
    result
}

#[cfg(test)]
mod tests;

//! State with time: one value for each key, one for each key and time, and timers, in one store and one changelog (design D19).
//!
//! ```text
//! row of the store           key's bytes                                               value
//! the operator's time        0                                                         tag 1, i64 milliseconds, big-endian
//! a key's value              1, key                                                    tag 0, value
//! a key's value at a time    2, time (8, sign flipped, big-endian), key, hash (4)      tag 0, value
//! a timer                    3, time, key, hash                                        tag 2
//! ```
//! Each row is in the key's own state partition, so it moves with the key. `hash` is the key's murmur2: the key of a window keeps that of
//! the key it was made of. Rows with a time are found in (time, key) order through an index of values and one of timers
//! (`time_index.rs`), which are derived from the store and may be forgotten at any moment (I11).

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::context::OperatorContext;
use super::read_ahead::{SharedReadAhead, TimeOfValue, TimedAhead};
use super::stores::StoreKind;
use super::time_line::Line;
use super::timed_row::{
    HASH_BYTES, KEY, OWN_TIME, Row, RowCodec, TIMED, TIMED_KEY_START, TIMER_AT, ordered, time_of,
    timed_row,
};
use crate::codec::{Datum, Schema, TypeIdentity};
use crate::env::failpoint;
use crate::runtime::contract::error::{Failure, JobError};
use crate::runtime::contract::record::Key;
use crate::state::{HashedKey, StateError, Store};
use crate::types::Timestamp;

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

    /// Takes on an entry of an index.
    pub(super) fn set(&mut self, kind: u8, time: Timestamp, entry: &[u8]) {
        self.time = time;
        self.bytes.clear();
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&ordered(time));
        self.bytes.extend_from_slice(entry);
        let hash = entry.last_chunk().copied().unwrap_or_default();
        self.partition_hash = u32::from_be_bytes(hash);
    }

    fn row(&self) -> HashedKey<'_> {
        HashedKey::with_partition_hash(&self.bytes, self.partition_hash)
    }
}

/// Value or timer that became due.
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
    values: Line,
    timers: Line,
    /// The partitions of which the indexes know.
    partitions: Vec<u16>,
    /// The operator's time in each partition, in the order of `partitions`, as of the last commit.
    times: Vec<(u16, Timestamp)>,
    watermark: Timestamp,
    scratch: Vec<u8>,
    /// Whether the value of a key that is due is read with its timer.
    reads_values: bool,
}

impl<V: Clone + Send + 'static> TimedStore<V> {
    pub(crate) fn open(
        store: Rc<RefCell<Store<Row<V>>>>,
        state_partitions: u16,
        index_bytes_max: usize,
    ) -> Result<Self, StateError> {
        let mut opened = Self {
            store,
            state_partitions,
            values: Line::new(TIMED, index_bytes_max),
            timers: Line::new(TIMER_AT, index_bytes_max),
            partitions: Vec::new(),
            times: Vec::new(),
            watermark: Timestamp::MIN,
            scratch: Vec::new(),
            reads_values: false,
        };
        opened.follow_partitions()?;
        Ok(opened)
    }

    /// The reader of a batch's rows of the store: of values without times, or of those at the times that `at` says.
    pub(super) fn ahead(&mut self, at: Option<TimeOfValue>) -> SharedReadAhead {
        self.reads_values |= at.is_none();
        Rc::new(TimedAhead {
            store: Rc::clone(&self.store),
            at,
            rows: RefCell::default(),
        })
    }

    /// Takes note of state partitions that came or went between two cycles.
    fn follow_partitions(&mut self) -> Result<(), StateError> {
        if self.store.borrow().partitions() == self.partitions {
            return Ok(());
        }
        self.partitions = self.store.borrow().partitions().to_vec();
        self.values.index.forget();
        self.timers.index.forget();
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

    /// Returns the operator's time for a key at the last commit, if that is farther than it has come since.
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

    /// Returns the operator's time for a key: at least that of the last commit, on whichever worker (I13).
    #[must_use]
    pub fn time<K: ?Sized>(&self, key: Key<'_, K>) -> Timestamp {
        self.kept_time(key).unwrap_or(self.watermark)
    }

    /// Returns the operator's time where it is farthest: at the last commit, or since.
    #[must_use]
    pub fn last_time(&self) -> Timestamp {
        let kept = self.times.iter().map(|(_, time)| *time);
        kept.fold(self.watermark, Timestamp::max)
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
        failpoint("time.kept");
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
        let row = timed_row(&mut self.scratch, TIMED, key.bytes(), time, hash);
        let mut effect = Effect::None;
        let mut store = self.store.borrow_mut();
        let result = store.update(HashedKey::with_partition_hash(row, hash), |row| {
            change_value(row, change, &mut effect)
        })?;
        match effect {
            Effect::None => {}
            Effect::Added => self.values.index.insert(time, &row[TIMED_KEY_START..]),
            Effect::Removed => self.values.may_repeat = true,
        }
        Ok(result)
    }

    /// Sets the value of a key at a time at which it has none yet. Nothing is read.
    ///
    /// # Errors
    /// If the store failed before.
    ///
    /// # Panics
    /// As [`update_at`](Self::update_at).
    pub fn put_at<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
        value: V,
    ) -> Result<(), Failure> {
        let hash = key.partition_hash();
        let row = timed_row(&mut self.scratch, TIMED, key.bytes(), time, hash);
        let mut store = self.store.borrow_mut();
        store.put(HashedKey::with_partition_hash(row, hash), Row::Value(value))?;
        self.values.index.insert(time, &row[TIMED_KEY_START..]);
        Ok(())
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
        let row = timed_row(&mut self.scratch, TIMED, key.bytes(), time, hash);
        let mut store = self.store.borrow_mut();
        match store.get(HashedKey::with_partition_hash(row, hash))? {
            Some(Row::Value(value)) => Ok(Some(value.clone())),
            _ => Ok(None),
        }
    }

    /// Shows the value of a key at a time to `see`; returns what that returns.
    ///
    /// # Errors
    /// If the value was not in memory and cannot be read from disk.
    pub fn peek_at<K: ?Sized, R>(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
        see: impl FnOnce(Option<&V>) -> R,
    ) -> Result<R, Failure> {
        let hash = key.partition_hash();
        let row = timed_row(&mut self.scratch, TIMED, key.bytes(), time, hash);
        let mut store = self.store.borrow_mut();
        Ok(
            match store.get(HashedKey::with_partition_hash(row, hash))? {
                Some(Row::Value(value)) => see(Some(value)),
                _ => see(None),
            },
        )
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
        Ok(store.update(key, |row| change_value(row, change, &mut Effect::None))?)
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

    /// Sets a timer of a key: [`next_due`](Self::next_due) finds it once its time has come. A key has one at most for each time,
    /// beside the value that it may have then.
    ///
    /// # Errors
    /// As [`update_at`](Self::update_at).
    pub fn set_timer<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        time: Timestamp,
    ) -> Result<(), Failure> {
        let hash = key.partition_hash();
        let row = timed_row(&mut self.scratch, TIMER_AT, key.bytes(), time, hash);
        let mut store = self.store.borrow_mut();
        // A timer that only the disk has is set again, and found twice by the index, which knows.
        let is_new = store.insert_unread(HashedKey::with_partition_hash(row, hash), Row::Timer)?;
        if is_new {
            self.timers.index.insert(time, &row[TIMED_KEY_START..]);
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
        let row = timed_row(&mut self.scratch, TIMER_AT, key.bytes(), time, hash);
        let mut store = self.store.borrow_mut();
        // The index still has it, and finds nothing when its time has come.
        Ok(
            store.update(HashedKey::with_partition_hash(row, hash), |row| {
                row.take().is_some()
            })?,
        )
    }

    /// Takes the next row whose time is at or below `until`, in the order of times, and says in `due` whose it is. At one time values
    /// come before timers, each in the order of the keys' bytes. One that is added meanwhile with an earlier time is the next.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn next_due(
        &mut self,
        until: Timestamp,
        due: &mut Due,
    ) -> Result<Option<Came<V>>, Failure> {
        self.follow_partitions()?;
        let ahead = until;
        loop {
            let timer = self.timers.first(until, &self.store)?;
            let until = timer.unwrap_or(until);
            if self.values.pop(until, due, &self.store, ahead, false)? {
                // Absent where it was removed.
                if let Some(Row::Value(value)) = self.take(due)? {
                    return Ok(Some(Came::Value(value)));
                }
            } else if timer.is_none() {
                return Ok(None);
            } else {
                let values = self.reads_values;
                let is_timer = self.timers.pop(until, due, &self.store, ahead, values)?;
                if is_timer && self.take(due)?.is_some() {
                    return Ok(Some(Came::Timer));
                }
            }
        }
    }

    fn take(&mut self, due: &Due) -> Result<Option<Row<V>>, Failure> {
        let taken = self.store.borrow_mut().update(due.row(), Option::take)?;
        failpoint("time.due_taken");
        Ok(taken)
    }

    /// The time of the first value at or below `until`; it may be gone already.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn first_time(&mut self, until: Timestamp) -> Result<Option<Timestamp>, Failure> {
        self.follow_partitions()?;
        self.values.first(until, &self.store)
    }

    /// Shows the values of all keys at the times that are above `after` and at or below `until`: those of one key in the order of times,
    /// keys in no particular one. They stay.
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
        let index = &self.values.index;
        if index.must_load(until) && index.first(Timestamp::MAX).is_none() {
            self.values.load(&self.store)?;
        }
        if self.values.index.must_load(until) || self.values.may_repeat {
            return self.scan_between(after, until, due, visit);
        }
        let mut store = self.store.borrow_mut();
        for (time, entry) in self.values.index.between(after, until) {
            due.set(TIMED, time, entry);
            if let Some(Row::Value(value)) = store.get(due.row())? {
                visit(due, value);
            }
        }
        Ok(())
    }

    /// As [`visit_between`](Self::visit_between), where the index has not all of them, or some twice.
    fn scan_between(
        &mut self,
        after: Timestamp,
        until: Timestamp,
        due: &mut Due,
        mut visit: impl FnMut(&Due, &V),
    ) -> Result<(), Failure> {
        if after >= until {
            return Ok(());
        }
        let mut from = vec![TIMED];
        from.extend_from_slice(&ordered(after.plus_millis(1)));
        let mut show =
            |_, row: &[u8], value: &Row<V>| match row.split_first_chunk::<TIMED_KEY_START>() {
                Some(([TIMED, time @ ..], entry)) if time_of(*time) <= until => {
                    due.set(TIMED, time_of(*time), entry);
                    if let Row::Value(value) = value {
                        visit(due, value);
                    }
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            };
        Ok(self.store.borrow_mut().scan_partitions(&from, &mut show)?)
    }

    /// Counts the rows with a time that are in the indexes.
    #[cfg(test)]
    pub(crate) fn indexed_count(&self) -> usize {
        self.values.index.count() + self.timers.index.count()
    }
}

impl OperatorContext {
    /// Opens this worker's part of a store of values and timers with times, which was declared with
    /// [`Keyed::with_timed_store`](crate::runtime::Keyed::with_timed_store), restored to the last committed cycle.
    ///
    /// # Errors
    /// If the store was not declared or is open already, or cannot be restored.
    pub fn timed_store<V: Datum + Sized + Clone>(
        &mut self,
        name: &str,
    ) -> Result<TimedStore<V>, JobError> {
        let codec = RowCodec::new(self.codec_of::<V>(name));
        let store = self.open_store::<V, Row<V>>(name, StoreKind::Timed, codec)?;
        let index_bytes_max = self.job.backend.overlay_bytes_max() / (4 * self.job.inboxes.len());
        Ok(TimedStore::open(
            store,
            self.job.state_partitions,
            index_bytes_max,
        )?)
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

/// The type of the keys of a store with time, if it is one.
pub(crate) fn timed_key_type(key: &str) -> Option<&str> {
    key.strip_prefix(TIMED_KEY)
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

/// The effect of a change on whether there is a value.
enum Effect {
    None,
    Added,
    Removed,
}

#[inline]
fn change_value<V, R>(
    row: &mut Option<Row<V>>,
    change: impl FnOnce(&mut Option<V>) -> R,
    effect: &mut Effect,
) -> R {
    let mut value = match row.take() {
        Some(Row::Value(value)) => Some(value),
        _ => None,
    };
    let was_absent = value.is_none();
    let result = change(&mut value);
    *effect = match (was_absent, value.is_some()) {
        (true, true) => Effect::Added,
        (false, false) => Effect::Removed,
        _ => Effect::None,
    };
    *row = value.map(Row::Value);
    result
}

#[cfg(test)]
mod tests;

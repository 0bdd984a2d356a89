//! One worker's part of a named store: typed values in memory, the rest in RocksDB.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backend::StateBackend;
use super::budget::TableShare;
use super::error::StateError;
use super::flush::FlushTicket;
use super::key::{HashedKey, PlacedKey};
use super::prefetch::Misses;
use super::size::ReadCounter;
use super::table::{Entry, Table};
use super::trace::Trace;
use super::value::{ValueCodec, decode, encode};
use super::view::Viewed;
use crate::codec::Codec;
use crate::env::Instant;
use crate::types::Offset;

/// Keys of one `multi_get`: each result pins a block of the cache while the group is decoded.
const GROUP_KEYS_MAX: usize = 512;

/// Changed entries to bring near the processor at once.
pub(super) const WARM_SLOTS: usize = 64;

/// One new value in about so many is encoded at once, to learn how large such values are.
const SAMPLE_EVERY: u32 = 64;

/// The values of some state partitions of one store. It belongs to one worker and is used by one thread at a time.
///
/// A cycle is: [`prefetch`](Self::prefetch) the keys of a batch, [`update`](Self::update) each, and so on;
/// [`drain_cycle`](Self::drain_cycle) at its end; then [`take_flush`](Self::take_flush), whose batch goes to
/// [`StateBackend::flush`] after the cycle is committed, and [`flushed`](Self::flushed). If the cycle is aborted,
/// drop the store, open it again, and [`restore`](Self::restore) from the position that the backend gives.
///
/// After any error the store is in between and is dropped in the same way; a flush that it gave out is written
/// before, or dropped.
pub struct Store<V> {
    pub(super) backend: StateBackend,
    pub(super) name: Arc<str>,
    /// Number of state partitions of the job.
    pub(super) state_partitions: u16,
    pub(super) partitions: Vec<u16>,
    /// Number of changes of the partitions.
    pub(super) partitions_version: u32,
    pub(super) codec: Box<dyn ValueCodec<V>>,
    pub(super) table: Table<V>,
    pub(super) share: TableShare,
    /// Every key that exists is in the table: RocksDB need not be asked.
    pub(super) is_resident: bool,
    /// Slots that the open cycle changed, each once.
    pub(super) cycle: Vec<u32>,
    cycle_bytes: usize,
    /// Slots that drained cycles changed since the last flush took them, each once.
    pub(super) dirty: Vec<u32>,
    pub(super) dirty_bytes: usize,
    pub(super) in_flight: Option<InFlight>,
    pub(super) next_ticket: u32,
    /// Changelog bytes since the last flush.
    pub(super) changelog_bytes: u64,
    pub(super) last_flush: Instant,
    /// The mean encoded length of the values drained last, or sampled since: the guess for values not encoded yet.
    typical_value_bytes: usize,
    scratch: Vec<u8>,
    misses: Misses,
    pub(super) reads: ReadCounter,
    /// The hashes of the keys of a batch.
    hashes: Vec<u64>,
    /// Where the replay of each partition stands.
    pub(super) restored: BTreeMap<u16, Offset>,
    is_broken: bool,
    pub(super) trace: Trace,
    /// The rows that readers on other threads need of it, while there are some.
    pub(super) viewed: Viewed,
}

/// A flush that was taken and is not written yet.
pub(super) struct InFlight {
    pub(super) ticket: FlushTicket,
    pub(super) slots: Vec<u32>,
    pub(super) bytes: usize,
    pub(super) changelog_bytes: u64,
}

impl<V: Clone + Send + 'static> Store<V> {
    /// Opens these partitions of the store called `name`, which was declared when the backend was opened.
    /// Changelog beyond [`StateBackend::position`] must be [`restore`](Self::restore)d before use.
    ///
    /// # Errors
    /// If the store was not declared, was declared with another codec, or one of the partitions is open already.
    ///
    /// # Panics
    /// If the job has fewer state partitions.
    pub fn open(
        backend: &StateBackend,
        name: &str,
        partitions: &[u16],
        codec: impl Codec<V>,
    ) -> Result<Self, StateError> {
        let name = backend.claim(name, Codec::id(&codec), partitions)?;
        let mut store = Self {
            name,
            state_partitions: backend.config().state_partitions,
            partitions: partitions.to_vec(),
            partitions_version: 0,
            codec: Box::new(codec),
            table: Table::new(),
            share: TableShare::new(backend.table_budget()),
            is_resident: true,
            cycle: Vec::new(),
            cycle_bytes: 0,
            dirty: Vec::new(),
            dirty_bytes: 0,
            in_flight: None,
            next_ticket: 1,
            changelog_bytes: 0,
            last_flush: backend.now(),
            typical_value_bytes: 0,
            scratch: Vec::new(),
            misses: Misses::default(),
            reads: ReadCounter::default(),
            hashes: Vec::new(),
            restored: BTreeMap::new(),
            is_broken: false,
            trace: Trace::default(),
            viewed: Viewed::default(),
            backend: backend.clone(),
        };
        for &partition in partitions {
            store.is_resident &= store.backend.position(&store.name, partition).is_none();
        }
        Ok(store)
    }

    /// The store's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The state partitions that it owns.
    #[must_use]
    pub fn partitions(&self) -> &[u16] {
        &self.partitions
    }

    /// A number that changes with the state partitions.
    pub(crate) fn partitions_version(&self) -> u32 {
        self.partitions_version
    }

    /// Whether every key that exists is in memory.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.is_resident
    }

    /// The state partition that a key belongs to: what a scan of the keys beside it asks for.
    #[must_use]
    #[inline]
    pub fn state_partition_of(&self, key: &HashedKey<'_>) -> u16 {
        key.place(self.state_partitions).state_partition
    }

    /// Brings the keys of a batch into memory: those that are missing are read from RocksDB in one sorted
    /// multi-get. Keys known to be absent are remembered too. While everything is in memory, the entries are brought near the
    /// processor, if there are so many that they are not.
    ///
    /// # Errors
    /// If RocksDB fails or holds a value that is not of the store's type.
    pub fn prefetch<'k>(
        &mut self,
        keys: impl Iterator<Item = HashedKey<'k>>,
    ) -> Result<(), StateError> {
        self.check_not_broken()?;
        // Before the keys are looked up, so that none of this batch is evicted again.
        self.make_room();
        if self.is_resident {
            if self.table.is_far() {
                let mut hashes = std::mem::take(&mut self.hashes);
                hashes.clear();
                hashes.extend(keys.map(|key| key.hash()));
                self.table.warm(&hashes);
                self.hashes = hashes;
            }
            return Ok(());
        }
        let mut misses = std::mem::take(&mut self.misses);
        let mut hits_count = 0;
        for key in keys {
            let key = key.place(self.state_partitions);
            match self.table.find(&key) {
                Some(_) => hits_count += 1,
                None => misses.push(&key),
            }
        }
        misses.sort();
        self.reads.hit(hits_count);
        self.reads.miss(misses.len());
        let result = self.read_missing(&misses);
        misses.clear();
        self.misses = misses;
        self.broken_on_error(result)
    }

    fn read_missing(&mut self, misses: &Misses) -> Result<(), StateError> {
        let Self {
            backend,
            name,
            table,
            codec,
            ..
        } = self;
        for group in misses.groups(GROUP_KEYS_MAX) {
            let mut keys = group.keys();
            backend.read_many(name, group.stored_keys(), &mut |bytes| {
                let Some(key) = keys.next() else {
                    return Ok(());
                };
                let value = decode(codec.as_ref(), name, bytes)?;
                let is_stored = value.is_some();
                let slot = table.insert(&key, value, bytes.map_or(0, <[u8]>::len));
                if is_stored {
                    table.note_stored(slot);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Changes the value of a key; `None` is absent. What `change` returns is returned.
    ///
    /// # Errors
    /// If the key was not in memory and RocksDB fails.
    #[inline]
    pub fn update<R>(
        &mut self,
        key: HashedKey<'_>,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, StateError> {
        let key = key.place(self.state_partitions);
        let slot = match self.table.find(&key) {
            Some(slot) => slot,
            None => self.load(&key)?,
        };
        let entry = self.table.entry_mut(slot);
        let was_absent = entry.value.is_none();
        let result = change(&mut entry.value);
        self.trace.leave();
        let stayed_absent = was_absent && entry.value.is_none();
        if !entry.is_in_cycle && !stayed_absent {
            entry.is_in_cycle = true;
            entry.is_new = was_absent;
            self.mark_changed(slot, was_absent);
        }
        Ok(result)
    }

    #[inline]
    pub(super) fn mark_changed(&mut self, slot: u32, is_new: bool) {
        if is_new && std::mem::needs_drop::<V>() {
            if self.typical_value_bytes == 0 || slot.is_multiple_of(SAMPLE_EVERY) {
                self.sample_value_bytes(slot);
            }
            let before = self.table.entry(slot).size_bytes();
            self.table.set_value_bytes(slot, self.typical_value_bytes);
            let entry = self.table.entry(slot);
            if entry.is_dirty {
                // A key that was deleted and comes again before the flush.
                self.dirty_bytes = self.dirty_bytes + entry.size_bytes() - before;
            }
        }
        self.cycle_bytes += self.table.entry(slot).size_bytes();
        self.cycle.push(slot);
    }

    /// Encodes a new value to see how large such values are: the cycle is bounded by what they take, long before
    /// it is drained.
    #[cold]
    #[inline(never)]
    fn sample_value_bytes(&mut self, slot: u32) {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let value = self.table.entry(slot).value.as_ref();
        // A value that cannot be encoded is an error when it is drained.
        let is_encoded = value.is_some_and(|value| self.codec.encode(value, &mut bytes).is_ok());
        if is_encoded {
            self.typical_value_bytes = match self.typical_value_bytes {
                0 => bytes.len(),
                known => (known * 7 + bytes.len()).div_ceil(8),
            };
        }
        self.scratch = bytes;
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If the key was not in memory and RocksDB fails.
    #[inline]
    pub fn get(&mut self, key: HashedKey<'_>) -> Result<Option<&V>, StateError> {
        let key = key.place(self.state_partitions);
        let slot = match self.table.find(&key) {
            Some(slot) => slot,
            None if self.is_resident => return Ok(None),
            None => self.load(&key)?,
        };
        Ok(self.table.entry(slot).value.as_ref())
    }

    #[cold]
    #[inline(never)]
    fn load(&mut self, key: &PlacedKey<'_>) -> Result<u32, StateError> {
        self.check_not_broken()?;
        assert!(
            self.partitions.contains(&key.state_partition),
            "store {:?} does not own state partition {}",
            self.name,
            key.state_partition
        );
        if self.is_resident || !self.table.may_be_elsewhere(key) {
            return Ok(self.table.insert(key, None, 0));
        }
        self.reads.miss(1);
        let mut found = None;
        let mut stored = std::mem::take(&mut self.scratch);
        stored.clear();
        super::key::encode_stored_key(key.state_partition, key.bytes, &mut stored);
        let (codec, name) = (self.codec.as_ref(), &self.name);
        let read = self
            .backend
            .read_many(name, std::iter::once(&*stored), &mut |bytes| {
                found =
                    decode(codec, name, bytes)?.map(|value| (value, bytes.map_or(0, <[u8]>::len)));
                Ok(())
            });
        self.scratch = stored;
        self.broken_on_error(read)?;
        let Some((value, value_bytes)) = found else {
            return Ok(self.table.insert(key, None, 0));
        };
        let slot = self.table.insert(key, Some(value), value_bytes);
        self.table.note_stored(slot);
        Ok(slot)
    }

    /// Returns the bytes in memory that the open cycle changed; values count with the size they had when they
    /// were last encoded. Past its budget the runtime closes the cycle early (design D6).
    #[must_use]
    #[inline]
    pub fn overlay_bytes(&self) -> usize {
        self.cycle_bytes
    }

    /// Ends the cycle: hands each key that it changed, with its last value, to `emit`, which appends it to
    /// the changelog in the cycle's transaction. From here on these values can be flushed.
    ///
    /// # Errors
    /// If a value cannot be encoded, or what `emit` answers.
    pub fn drain_cycle<E: From<StateError>>(
        &mut self,
        emit: &mut (impl FnMut(u16, &[u8], Option<&[u8]>) -> Result<(), E> + ?Sized),
    ) -> Result<(), E> {
        self.check_not_broken()?;
        // Until all is emitted the store is in between.
        self.is_broken = true;
        self.begin_view();
        let mut bytes = std::mem::take(&mut self.scratch);
        let slots = std::mem::take(&mut self.cycle);
        let mut values_bytes = 0;
        for slots in slots.chunks(WARM_SLOTS) {
            self.table.warm_slots(slots.iter().copied());
            for &slot in slots {
                self.drain_entry(slot, &mut bytes, emit)?;
                values_bytes += bytes.len();
            }
        }
        self.typical_value_bytes = values_bytes
            .checked_div(slots.len())
            .unwrap_or(self.typical_value_bytes);
        self.scratch = bytes;
        let changes_count = slots.len();
        self.cycle = slots;
        self.cycle.clear();
        self.cycle_bytes = 0;
        self.end_view()?;
        self.count_rows_on_disk(changes_count)?;
        self.is_broken = false;
        self.make_room();
        Ok(())
    }

    fn drain_entry<E: From<StateError>>(
        &mut self,
        slot: u32,
        bytes: &mut Vec<u8>,
        emit: &mut (impl FnMut(u16, &[u8], Option<&[u8]>) -> Result<(), E> + ?Sized),
    ) -> Result<(), E> {
        bytes.clear();
        let entry = self.table.entry_mut(slot);
        entry.is_in_cycle = false;
        if std::mem::take(&mut entry.is_new) && entry.value.is_none() {
            self.forget_passing(slot);
            return Ok(());
        }
        let entry = self.table.entry(slot);
        let value = match &entry.value {
            Some(value) => {
                encode(self.codec.as_ref(), &self.name, value, bytes)?;
                Some(&**bytes)
            }
            None => None,
        };
        let key = entry.key.as_slice();
        emit(entry.state_partition, key, value)?;
        self.viewed.put(entry.state_partition, key, value);
        self.changelog_bytes += (key.len() + bytes.len()) as u64;
        self.mark_dirty(slot, bytes.len());
        Ok(())
    }

    /// A key that came and went within the cycle: neither the changelog nor RocksDB need hear of it.
    fn forget_passing(&mut self, slot: u32) {
        let in_flight = self.in_flight.as_ref().map(|flight| flight.ticket.0);
        let entry = self.table.entry(slot);
        if entry.is_dirty {
            // It was deleted before, which RocksDB has not heard of yet.
            self.mark_dirty(slot, 0);
        } else if Some(entry.flush_ticket) == in_flight {
            self.table.set_value_bytes(slot, 0);
        } else {
            self.table.remove(slot);
        }
    }

    /// Notes that RocksDB lacks the entry's value, which takes `value_bytes` encoded.
    pub(super) fn mark_dirty(&mut self, slot: u32, value_bytes: usize) {
        let entry = self.table.entry_mut(slot);
        match std::mem::replace(&mut entry.is_dirty, true) {
            true => self.dirty_bytes -= entry.size_bytes(),
            false => self.dirty.push(slot),
        }
        self.table.set_value_bytes(slot, value_bytes);
        self.dirty_bytes += self.table.entry(slot).size_bytes();
    }

    /// Returns the store's memory, as counted against the bound.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.table.size_bytes() + self.viewed.size_bytes()
    }

    /// Counts the entries in memory, absent keys included.
    #[must_use]
    pub fn entries_count(&self) -> usize {
        self.table.entries_count()
    }

    pub(super) fn limit_bytes(&mut self) -> usize {
        self.share.limit_bytes(self.memory_bytes())
    }

    pub(super) fn make_room(&mut self) {
        // What is kept for readers cannot be evicted either.
        let viewed_bytes = self.viewed.size_bytes();
        let limit_bytes = self.limit_bytes().saturating_sub(viewed_bytes);
        if self.table.size_bytes() <= limit_bytes {
            return;
        }
        let in_flight = self.in_flight.as_ref().map(|flight| flight.ticket.0);
        let is_flushed = |entry: &Entry<V>| {
            !entry.is_in_cycle && !entry.is_dirty && Some(entry.flush_ticket) != in_flight
        };
        // Below what cannot be evicted the clock's hand would go round for nothing.
        let target_bytes = limit_bytes.max(self.unflushed_bytes());
        if self.table.evict(target_bytes, is_flushed) {
            self.is_resident = false;
        }
    }

    pub(super) fn unflushed_bytes(&self) -> usize {
        let in_flight_bytes = self.in_flight.as_ref().map_or(0, |flight| flight.bytes);
        self.dirty_bytes + self.cycle_bytes + in_flight_bytes
    }

    pub(super) fn check_not_broken(&self) -> Result<(), StateError> {
        match self.is_broken {
            true => Err(StateError::Broken {
                store: self.name.to_string(),
            }),
            false => Ok(()),
        }
    }

    pub(super) fn broken_on_error<T>(
        &mut self,
        result: Result<T, StateError>,
    ) -> Result<T, StateError> {
        self.is_broken |= result.is_err();
        result
    }
}

impl<V> Drop for Store<V> {
    fn drop(&mut self) {
        self.close_view();
        self.backend.release(&self.name, &self.partitions);
    }
}

impl<V> std::fmt::Debug for Store<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("name", &self.name)
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

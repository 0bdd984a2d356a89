//! The committed values of all stores of a process, for readers on other threads (design D25).
//!
//! Workers change values in place, and RocksDB hears of them late, so neither can be read as of one commit. While somebody reads, each
//! store therefore keeps beside its table what RocksDB may lack, as the bytes that it writes to the changelog anyway: the last value
//! of each key with its epoch, and the one before it.
//!
//! ```text
//!   drain of cycle n+1 ──rows of n+1──► shard ──flushed──► (forgotten: RocksDB has them)
//!   decision of n+1 ──publish──► gate: epoch n+1           a reader inside the gate sees epoch n, whole, until it leaves
//! ```
//! A cycle drains only after the one before it is decided, so there is one undecided epoch at most, and two values of a key are enough.
//! Nobody publishes while a reader is inside the gate, and RocksDB gets an epoch's values only after it was published: so all that a reader
//! sees inside is of one epoch (I1), and an epoch that is not decided is never seen.
//! Where nobody reads, stores keep nothing; `Views::close_cycle` decides that for all workers at once.

mod layer;
mod read;
mod rows;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::error::StateError;
use super::key::encode_stored_key;
use super::store::Store;
use super::value::encode;
use layer::Layer;

pub(crate) use read::{Found, RangeOf};

/// The views of one process on a job's stores.
#[derive(Debug, Default)]
pub(crate) struct Views {
    gate: RwLock<Gate>,
    /// The epoch that the cycle drained next becomes.
    next_epoch: AtomicU64,
    /// Whether stores keep what readers need, from the cycle on that was closed last.
    is_armed: AtomicBool,
    shards: Mutex<HashMap<Arc<str>, Vec<Arc<Shard>>>>,
}

#[derive(Debug, Default)]
struct Gate {
    epoch: u64,
    /// Whether all shards have what belongs to the epoch.
    is_open: bool,
}

/// A reader inside the gate: the epoch stays while it is there, and the next commit waits.
pub(crate) struct Inside<'v>(RwLockReadGuard<'v, Gate>);

impl Inside<'_> {
    /// The epoch of all that is seen.
    pub(crate) fn epoch(&self) -> u64 {
        self.0.epoch
    }
}

impl Views {
    /// Says that all that is committed now has this epoch, or a lower one. To be called before the first cycle.
    pub(crate) fn begin(&self, epoch: u64) {
        *self.gate.write() = Gate {
            epoch,
            is_open: false,
        };
        self.next_epoch.store(epoch + 1, Ordering::Release);
        self.is_armed.store(false, Ordering::Release);
    }

    /// The cycle is about to close: from here on stores keep what readers need, or they do no longer.
    pub(crate) fn close_cycle(&self, is_wanted: bool) {
        if !is_wanted {
            // Before a store forgets anything.
            self.gate.write().is_open = false;
        }
        self.is_armed.store(is_wanted, Ordering::Release);
    }

    /// The drained cycle is decided: its values are what readers see from here on. To be called before RocksDB gets any of them.
    pub(crate) fn publish(&self) {
        let mut gate = self.gate.write();
        gate.epoch = self.next_epoch.fetch_add(1, Ordering::AcqRel);
        gate.is_open = self.is_armed.load(Ordering::Acquire);
    }

    /// Lets nobody in any more: the stores are about to go.
    pub(crate) fn close(&self) {
        self.is_armed.store(false, Ordering::Release);
        self.gate.write().is_open = false;
    }

    /// The epoch that the cycle drained next becomes.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.next_epoch.load(Ordering::Acquire)
    }

    /// Whether stores keep what readers need.
    pub(crate) fn is_armed(&self) -> bool {
        self.is_armed.load(Ordering::Acquire)
    }

    /// Lets a reader in; `None` where the stores do not have what it needs.
    pub(crate) fn enter(&self) -> Option<Inside<'_>> {
        let gate = self.gate.read();
        gate.is_open.then(|| Inside(gate))
    }

    fn register(&self, store: &Arc<str>, shard: &Arc<Shard>) {
        let mut shards = self.shards.lock();
        let of_store = shards.entry(Arc::clone(store)).or_default();
        of_store.push(Arc::clone(shard));
    }

    fn forget(&self, store: &Arc<str>, shard: &Arc<Shard>) {
        if let Some(shards) = self.shards.lock().get_mut(store) {
            shards.retain(|it| !Arc::ptr_eq(it, shard));
        }
    }

    /// The part of a store that has a state partition.
    fn shard(&self, store: &str, state_partition: u16) -> Option<Arc<Shard>> {
        let shards = self.shards.lock();
        let mut shards = shards.get(store)?.iter();
        shards
            .find(|shard| shard.has(state_partition))
            .map(Arc::clone)
    }

    /// The state partitions of a store that are in this process, in order.
    pub(crate) fn partitions(&self, store: &str) -> Vec<u16> {
        let shards = self.shards.lock();
        let shards = shards.get(store).into_iter().flatten();
        let mut partitions: Vec<u16> = shards
            .flat_map(|shard| shard.kept.lock().partitions.clone())
            .collect();
        partitions.sort_unstable();
        partitions
    }
}

/// The rows that one worker's part of a store keeps for readers.
#[derive(Debug)]
pub(super) struct Shard {
    kept: Mutex<Kept>,
    size_bytes: AtomicUsize,
    current_bytes: AtomicUsize,
}

#[derive(Debug)]
struct Kept {
    partitions: Vec<u16>,
    /// The changes since the last flush was taken.
    current: Layer,
    /// The changes that this flush brings to RocksDB.
    in_flight: Option<Layer>,
    scratch: Vec<u8>,
}

impl Shard {
    fn new(partitions: &[u16], is_sorted: bool) -> Self {
        Self {
            kept: Mutex::new(Kept {
                partitions: partitions.to_vec(),
                current: Layer::new(is_sorted),
                in_flight: None,
                scratch: Vec::new(),
            }),
            size_bytes: AtomicUsize::new(0),
            current_bytes: AtomicUsize::new(0),
        }
    }

    fn has(&self, state_partition: u16) -> bool {
        self.kept.lock().partitions.contains(&state_partition)
    }

    /// Notes a value of the cycle that becomes `epoch`.
    pub(super) fn put(&self, epoch: u64, state_partition: u16, key: &[u8], value: Option<&[u8]>) {
        let mut kept = self.kept.lock();
        let Kept {
            current, scratch, ..
        } = &mut *kept;
        scratch.clear();
        encode_stored_key(state_partition, key, scratch);
        current.put(epoch, scratch, value);
    }

    /// A flush takes all that is here.
    pub(super) fn flush_taken(&self) {
        let mut kept = self.kept.lock();
        assert!(kept.in_flight.is_none(), "a store has one flush at a time");
        let empty = kept.current.emptied();
        kept.in_flight = Some(std::mem::replace(&mut kept.current, empty));
    }

    /// RocksDB has what the flush took.
    pub(super) fn flushed(&self) {
        let done = self.kept.lock().in_flight.take();
        // Not under the lock, since it may be large.
        drop(done);
        self.count();
    }

    pub(super) fn set_partitions(&self, partitions: &[u16]) {
        let mut kept = self.kept.lock();
        kept.partitions = partitions.to_vec();
        let is_gone = |key: &[u8]| {
            let partition = key.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
            partition.is_none_or(|partition| !partitions.contains(&partition))
        };
        kept.current.remove_where(is_gone);
        if let Some(in_flight) = &mut kept.in_flight {
            in_flight.remove_where(is_gone);
        }
    }

    fn count(&self) {
        let kept = self.kept.lock();
        let in_flight = kept.in_flight.as_ref().map_or(0, Layer::size_bytes);
        let current_bytes = kept.current.size_bytes();
        self.size_bytes
            .store(current_bytes + in_flight, Ordering::Relaxed);
        self.current_bytes.store(current_bytes, Ordering::Relaxed);
    }

    /// Bytes that it takes in memory, as of the last drain or flush.
    fn size_bytes(&self) -> usize {
        self.size_bytes.load(Ordering::Relaxed)
    }
}

/// A store's hold on its shard, while somebody reads.
#[derive(Debug, Default)]
pub(super) struct Viewed {
    shard: Option<Arc<Shard>>,
    /// The epoch that the cycle being drained becomes.
    epoch: u64,
}

impl Viewed {
    /// Notes a value of the cycle being drained.
    #[inline]
    pub(super) fn put(&self, state_partition: u16, key: &[u8], value: Option<&[u8]>) {
        if let Some(shard) = &self.shard {
            shard.put(self.epoch, state_partition, key, value);
        }
    }

    pub(super) fn flush_taken(&self) {
        if let Some(shard) = &self.shard {
            shard.flush_taken();
        }
    }

    pub(super) fn flushed(&self) {
        if let Some(shard) = &self.shard {
            shard.flushed();
        }
    }

    pub(super) fn set_partitions(&self, partitions: &[u16]) {
        if let Some(shard) = &self.shard {
            shard.set_partitions(partitions);
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.shard.as_ref().map_or(0, |shard| shard.size_bytes())
    }

    /// Those of them that no flush has taken.
    pub(super) fn current_bytes(&self) -> usize {
        let bytes_of = |shard: &Arc<Shard>| shard.current_bytes.load(Ordering::Relaxed);
        self.shard.as_ref().map_or(0, bytes_of)
    }
}

impl<V: Clone + Send + 'static> Store<V> {
    /// Begins to note what the cycle being drained changes, if this store does so.
    pub(super) fn begin_view(&mut self) {
        let views = self.backend.views();
        if self.viewed.shard.is_some() {
            self.viewed.epoch = views.next_epoch();
        }
        if !views.is_armed() {
            self.forget_view();
        }
    }

    /// The cycle is drained. Where readers came since the last one, all that RocksDB may lack is noted now.
    pub(super) fn end_view(&mut self) -> Result<(), StateError> {
        let is_armed = self.backend.views().is_armed();
        if is_armed && self.viewed.shard.is_none() {
            self.take_view()?;
        }
        if let Some(shard) = &self.viewed.shard {
            shard.count();
        }
        Ok(())
    }

    fn take_view(&mut self) -> Result<(), StateError> {
        let views = self.backend.views();
        let shard = Arc::new(Shard::new(&self.partitions, self.table.order().is_some()));
        let epoch = views.next_epoch();
        if let Some(in_flight) = &self.in_flight {
            self.note_slots(&shard, epoch, &in_flight.slots)?;
            shard.flush_taken();
        }
        self.note_slots(&shard, epoch, &self.dirty)?;
        views.register(&self.name, &shard);
        self.viewed = Viewed {
            shard: Some(shard),
            epoch,
        };
        Ok(())
    }

    fn note_slots(&self, shard: &Shard, epoch: u64, slots: &[u32]) -> Result<(), StateError> {
        let mut bytes = Vec::new();
        for &slot in slots {
            let entry = self.table.entry(slot);
            bytes.clear();
            let value = match &entry.value {
                Some(value) => {
                    encode(self.codec.as_ref(), &self.name, value, &mut bytes)?;
                    Some(&*bytes)
                }
                None => None,
            };
            shard.put(epoch, entry.state_partition, entry.key.as_slice(), value);
        }
        Ok(())
    }
}

impl<V> Store<V> {
    /// Forgets what it kept for readers, who were shut out before.
    fn forget_view(&mut self) {
        if let Some(shard) = self.viewed.shard.take() {
            self.backend.views().forget(&self.name, &shard);
        }
    }

    /// The store goes, also where a worker failed: nobody may find the others without it.
    pub(super) fn close_view(&mut self) {
        if self.viewed.shard.is_some() {
            self.backend.views().close();
            self.forget_view();
        }
    }
}

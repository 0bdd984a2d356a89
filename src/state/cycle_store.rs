//! Interface of a store when a cycle closes and when a job starts, whatever its values are.

use super::{
    FlushBatch, FlushTicket, FlushUrgency, HashedKey, StateError, Store, StoreReads, StoreSize,
};
use crate::types::Offset;

/// Any error of whoever takes the changes of a cycle.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Takes one change of a cycle: state partition, key, and the value (`None` deletes the key). It becomes a changelog record.
pub(crate) type EmitChange<'a> = dyn FnMut(u16, &[u8], Option<&[u8]>) -> Result<(), BoxError> + 'a;

/// A [`Store`] with the type of its values forgotten. See there for what each method does.
pub(crate) trait CycleStore: Send {
    /// The store's name.
    fn name(&self) -> &str;

    /// The state partitions that it owns.
    fn partitions(&self) -> &[u16];

    /// See [`Store::prefetch`].
    ///
    /// # Errors
    /// If RocksDB fails or holds a value that is not of the store's type.
    fn prefetch(&mut self, keys: &mut dyn Iterator<Item = HashedKey<'_>>)
    -> Result<(), StateError>;

    /// See [`Store::overlay_bytes`].
    fn overlay_bytes(&self) -> usize;

    /// See [`Store::size`].
    fn size(&self) -> StoreSize;

    /// See [`Store::take_reads`].
    fn take_reads(&self) -> StoreReads;

    /// See [`Store::drain_cycle`].
    ///
    /// # Errors
    /// If a value cannot be encoded, or what `emit` answers; the store must then be opened again.
    fn drain_cycle(&mut self, emit: &mut EmitChange<'_>) -> Result<(), BoxError>;

    /// See [`Store::take_flush`].
    ///
    /// # Errors
    /// If a value cannot be encoded.
    fn take_flush(&mut self, urgency: FlushUrgency) -> Result<Option<FlushBatch>, StateError>;

    /// See [`Store::flushed`].
    fn flushed(&mut self, ticket: FlushTicket);

    /// See [`Store::must_wait_for_flush`].
    fn must_wait_for_flush(&mut self) -> bool;

    /// See [`Store::restore`].
    ///
    /// # Errors
    /// If the value is not of the store's type, or RocksDB fails.
    fn restore(
        &mut self,
        state_partition: u16,
        key: &[u8],
        value: Option<&[u8]>,
        next_offset: Offset,
    ) -> Result<(), StateError>;

    /// See [`Store::add_partitions`].
    ///
    /// # Errors
    /// If one of the partitions is open already.
    fn add_partitions(&mut self, partitions: &[u16]) -> Result<(), StateError>;

    /// See [`Store::remove_partitions`].
    fn remove_partitions(&mut self, partitions: &[u16]);
}

impl<V: Clone + Send + 'static> CycleStore for Store<V> {
    fn name(&self) -> &str {
        Store::name(self)
    }

    fn partitions(&self) -> &[u16] {
        Store::partitions(self)
    }

    fn prefetch(
        &mut self,
        keys: &mut dyn Iterator<Item = HashedKey<'_>>,
    ) -> Result<(), StateError> {
        Store::prefetch(self, keys)
    }

    fn overlay_bytes(&self) -> usize {
        Store::overlay_bytes(self)
    }

    fn size(&self) -> StoreSize {
        Store::size(self)
    }

    fn take_reads(&self) -> StoreReads {
        Store::take_reads(self)
    }

    fn drain_cycle(&mut self, emit: &mut EmitChange<'_>) -> Result<(), BoxError> {
        Store::drain_cycle(self, emit)
    }

    fn take_flush(&mut self, urgency: FlushUrgency) -> Result<Option<FlushBatch>, StateError> {
        Store::take_flush(self, urgency)
    }

    fn flushed(&mut self, ticket: FlushTicket) {
        Store::flushed(self, ticket);
    }

    fn must_wait_for_flush(&mut self) -> bool {
        Store::must_wait_for_flush(self)
    }

    fn restore(
        &mut self,
        state_partition: u16,
        key: &[u8],
        value: Option<&[u8]>,
        next_offset: Offset,
    ) -> Result<(), StateError> {
        Store::restore(self, state_partition, key, value, next_offset)
    }

    fn add_partitions(&mut self, partitions: &[u16]) -> Result<(), StateError> {
        Store::add_partitions(self, partitions)
    }

    fn remove_partitions(&mut self, partitions: &[u16]) {
        Store::remove_partitions(self, partitions);
    }
}

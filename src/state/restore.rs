//! A store's way back: the replay of its changelog into memory, before the first cycle.

use super::error::StateError;
use super::flush::FlushUrgency;
use super::key::{PlacedKey, hash_key};
use super::store::Store;
use super::value::decode;
use crate::types::Offset;

impl<V: Clone + Send + 'static> Store<V> {
    /// Applies one committed changelog record; `next_offset` is the offset after it. Records of a partition come in
    /// order, from [`StateBackend::position`] on, before the first cycle. What does not fit in memory goes to
    /// RocksDB with its position, so a restore that was interrupted resumes (S8).
    ///
    /// # Errors
    /// If the value is not of the store's type, or RocksDB fails.
    ///
    /// # Panics
    /// If the store does not own the partition, or a cycle has begun.
    pub fn restore(
        &mut self,
        state_partition: u16,
        key: &[u8],
        value: Option<&[u8]>,
        next_offset: Offset,
    ) -> Result<(), StateError> {
        assert!(
            self.cycle.is_empty() && self.partitions.contains(&state_partition),
            "store {:?} cannot restore state partition {state_partition} now",
            self.name
        );
        self.check_not_broken()?;
        let decoded = decode(self.codec.as_ref(), &self.name, value)?;
        let value_bytes = value.map_or(0, <[u8]>::len);
        let key = PlacedKey {
            hash: hash_key(key),
            state_partition,
            bytes: key,
        };
        self.restored.insert(state_partition, next_offset);
        self.changelog_bytes += (key.bytes.len() + value_bytes) as u64;
        let slot = match self.table.find(&key) {
            Some(slot) => {
                self.table.entry_mut(slot).value = decoded;
                slot
            }
            None => self.table.insert(&key, decoded, 0),
        };
        self.mark_dirty(slot, value_bytes);
        match self.dirty_bytes > self.restored_bytes_max() {
            true => self.flush_restored(),
            false => Ok(()),
        }
    }

    /// Returns how much of what was replayed may wait in memory: half of the store's limit, beside which the first cycle opens at once
    /// ([`Store::must_wait_for_flush`]). RocksDB compacts when it has just been opened, and a write to it takes seconds then. Where the
    /// other stores have taken more than their parts it is a quarter.
    fn restored_bytes_max(&mut self) -> usize {
        let limit_bytes = self.limit_bytes();
        match limit_bytes > self.share.equal_bytes() || self.share.stores_count() == 1 {
            true => limit_bytes / 2,
            false => limit_bytes / 4,
        }
    }

    /// Flushes replayed rows: they are committed, so they may go to RocksDB at once (I7).
    fn flush_restored(&mut self) -> Result<(), StateError> {
        let Some(batch) = self.take_flush(FlushUrgency::Now)? else {
            return Ok(());
        };
        let ticket = batch.ticket();
        // Rows that come and go meanwhile need not be counted one by one.
        for partition in self.restored.keys() {
            if let Some(elsewhere) = self.table.elsewhere_mut() {
                elsewhere.set_known(*partition, false);
            }
        }
        let positions: Vec<_> = self.restored.iter().map(|(&p, &o)| (p, o)).collect();
        let result = self.backend.flush(batch, &positions);
        self.broken_on_error(result)?;
        self.flushed(ticket);
        Ok(())
    }
}

//! Changelog records that go to RocksDB directly: the state of partitions that no store has open.

use rocksdb::WriteBatch;

use super::backend::StateBackend;
use super::claims::in_use;
use super::error::StateError;
use super::key::encode_stored_key;
use crate::types::Offset;

/// A committed changelog record: its key, and the value (`None` deletes the key).
pub(crate) type Change<'a> = (&'a [u8], Option<&'a [u8]>);

impl StateBackend {
    /// Applies committed changelog records of a state partition that no store has open, in their order and all at once with
    /// the offset behind them (I7). A standby lives on it, and so does a partition before a store takes it over.
    ///
    /// # Errors
    /// If the store was not declared, the partition is open, or RocksDB fails.
    ///
    /// # Panics
    /// If the position goes back.
    pub fn replay<'a>(
        &self,
        store: &str,
        state_partition: u16,
        changes: impl Iterator<Item = Change<'a>>,
        next_offset: Offset,
    ) -> Result<(), StateError> {
        let name = self.shared.name_of(store)?;
        let positions = [(state_partition, next_offset)];
        self.shared.check_positions(&name, &positions);
        let family = self.shared.family(store)?;
        let (mut write, mut stored, mut bytes) = (WriteBatch::default(), Vec::new(), 0);
        for (key, value) in changes {
            stored.clear();
            encode_stored_key(state_partition, key, &mut stored);
            match value {
                Some(value) => write.put_cf(&family, &stored, value),
                None => write.delete_cf(&family, &stored),
            }
            bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        }
        self.shared.put_position(&mut write, store, positions[0])?;
        // Held while writing, so that no store opens the partition in between.
        let claimed = self.shared.claimed.lock();
        if claimed.contains(&(name.clone(), state_partition)) {
            return Err(in_use(store, state_partition));
        }
        self.shared.write_and_wait(write)?;
        drop(claimed);
        self.note_written(&name, &positions, bytes)
    }

    /// The state partitions of which RocksDB holds something, with the sum of their positions in all stores' changelogs: of two
    /// holders of a partition, the one with the larger sum is nearer to the changelogs' ends.
    #[must_use]
    pub fn held_partitions(&self) -> std::collections::BTreeMap<u16, u64> {
        let mut held = std::collections::BTreeMap::new();
        for ((_, partition), offset) in &self.shared.progress.lock().latest {
            *held.entry(*partition).or_default() += u64::try_from(offset.0).unwrap_or(0);
        }
        held
    }
}

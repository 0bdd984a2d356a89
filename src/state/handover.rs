//! State partitions that come to an open store and leave it, between two cycles: those that stay are not touched.

use super::error::StateError;
use super::store::Store;

impl<V: Clone + Send + 'static> Store<V> {
    /// Makes the store the owner of more partitions, of which RocksDB holds all that their changelogs do: see
    /// [`StateBackend::replay`](super::StateBackend::replay).
    ///
    /// # Errors
    /// If one of the partitions is open already.
    ///
    /// # Panics
    /// If a cycle has begun.
    pub fn add_partitions(&mut self, partitions: &[u16]) -> Result<(), StateError> {
        self.check_not_broken()?;
        assert!(
            self.cycle.is_empty(),
            "store {:?}: partitions come between cycles",
            self.name
        );
        self.backend.claim_partitions(&self.name, partitions)?;
        self.partitions.extend_from_slice(partitions);
        self.partitions_version += 1;
        for &partition in partitions {
            self.is_resident &= self.backend.position(&self.name, partition).is_none();
        }
        self.note_partitions(partitions);
        self.viewed.set_partitions(&self.partitions);
        Ok(())
    }

    /// Forgets partitions that another store is to open. What RocksDB lacks of them is in their changelogs.
    ///
    /// # Panics
    /// If there are any, and a cycle has begun or a flush is in flight, which could overtake what the next owner writes.
    pub fn remove_partitions(&mut self, partitions: &[u16]) {
        if partitions.is_empty() {
            return;
        }
        assert!(
            self.cycle.is_empty() && self.in_flight.is_none(),
            "store {:?}: partitions leave between cycles, with no flush under way",
            self.name
        );
        let is_gone = |partition: u16| partitions.contains(&partition);
        let table = &self.table;
        let mut gone_bytes = 0;
        self.dirty.retain(|&slot| {
            let entry = table.entry(slot);
            let is_gone = is_gone(entry.state_partition);
            gone_bytes += if is_gone { entry.size_bytes() } else { 0 };
            !is_gone
        });
        self.dirty_bytes -= gone_bytes;
        self.table
            .remove_where(|entry| is_gone(entry.state_partition));
        for &partition in partitions {
            if let Some(elsewhere) = self.table.elsewhere_mut() {
                elsewhere.set_known(partition, false);
            }
        }
        self.partitions.retain(|&partition| !is_gone(partition));
        self.partitions_version += 1;
        self.restored.retain(|&partition, _| !is_gone(partition));
        self.viewed.set_partitions(&self.partitions);
        self.backend.release(&self.name, partitions);
    }
}

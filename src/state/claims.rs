//! Who owns which state partitions of a store: one open store each, at any time.

use std::sync::Arc;

use super::backend::StateBackend;
use super::error::StateError;
use crate::codec::CodecId;

impl StateBackend {
    /// Makes the caller the owner of these partitions until `release`.
    pub(super) fn claim(
        &self,
        store: &str,
        codec: CodecId,
        partitions: &[u16],
    ) -> Result<Arc<str>, StateError> {
        let name = self.shared.name_of(store)?;
        self.shared.check_codec(store, codec)?;
        self.claim_partitions(&name, partitions)?;
        Ok(name)
    }

    /// Makes the caller the owner of more partitions of a store.
    pub(super) fn claim_partitions(
        &self,
        store: &Arc<str>,
        partitions: &[u16],
    ) -> Result<(), StateError> {
        let mut claimed = self.shared.claimed.lock();
        for &partition in partitions {
            let count = self.shared.config.state_partitions;
            assert!(
                partition < count,
                "there are {count} state partitions, not {partition}"
            );
            if claimed.contains(&(Arc::clone(store), partition)) {
                return Err(in_use(store, partition));
            }
        }
        claimed.extend(
            partitions
                .iter()
                .map(|&partition| (Arc::clone(store), partition)),
        );
        Ok(())
    }

    pub(super) fn release(&self, store: &Arc<str>, partitions: &[u16]) {
        let mut claimed = self.shared.claimed.lock();
        for &partition in partitions {
            claimed.remove(&(Arc::clone(store), partition));
        }
    }
}

pub(super) fn in_use(store: &str, state_partition: u16) -> StateError {
    StateError::PartitionInUse {
        store: store.to_owned(),
        state_partition,
    }
}

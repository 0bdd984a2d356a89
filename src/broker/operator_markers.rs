//! Ending a transaction in one partition, as an operator asks for it: one that hangs there because no coordinator knows it.

use std::sync::Arc;

use super::core::Core;
use super::partition::Partition;
use super::transactions::{Failure, append_marker};
use super::{Broker, BrokerError, Reply};
use crate::coordinator::transaction::Holder;
use crate::protocol::ErrorCode;
use crate::protocol::batch::{ControlRecord, ControlType};
use crate::protocol::messages::TransactionResult;
use crate::types::{EpochAtEnd, ProducerIdentity, TopicPartition};

/// End of a producer's transaction in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorMarker {
    /// Whose transaction, with the epoch of its data or a later one.
    pub producer: ProducerIdentity,
    /// The epoch of the coordinator that decided so.
    pub coordinator_epoch: i32,
    /// Its end.
    pub result: TransactionResult,
}

impl Broker {
    #[doc(hidden)]
    /// Ends a producer's transaction in one partition. If the coordinator holds that transaction open, it aborts the
    /// whole of it, since a part alone must not end (I1).
    ///
    /// The reply's errors: `UnknownTopicOrPartition`; `InvalidProducerEpoch` and `TransactionCoordinatorFenced` if a later
    /// marker is there already; `ConcurrentTransactions` if the transaction is ending; `InvalidTxnState` if it is to be
    /// committed, but the coordinator holds it open.
    pub fn write_marker(&self, partition: &TopicPartition, marker: OperatorMarker) -> Reply<()> {
        self.core.write_operator_marker(partition, marker)
    }
}

impl Core {
    fn write_operator_marker(&self, name: &TopicPartition, marker: OperatorMarker) -> Reply<()> {
        if let Err(error) = self.check_open() {
            return Reply::ready(Err(error));
        }
        let held = self
            .partition(name)
            .and_then(|partition| self.end_unless_held(&partition, marker));
        match held {
            Ok(None) => Reply::ready(Ok(())),
            Ok(Some(holder)) => self.end_held(&holder, marker),
            Err(error) => Reply::ready(Err(error)),
        }
    }

    /// Writes the marker, unless the coordinator knows the transaction: then its holder is returned.
    fn end_unless_held(
        &self,
        partition: &Arc<Partition>,
        marker: OperatorMarker,
    ) -> Result<Option<Holder>, BrokerError> {
        let record = ControlRecord {
            kind: match marker.result {
                TransactionResult::Commit => ControlType::Commit,
                TransactionResult::Abort => ControlType::Abort,
            },
            coordinator_epoch: marker.coordinator_epoch,
        };
        let (producer, kept) = (marker.producer, EpochAtEnd::Kept);
        if partition.name == self.groups.journal().name {
            if let Some(holder) = self.transactions.holder(producer.id, &partition.name) {
                return Ok(Some(holder));
            }
            let written = self.write_offsets_marker(producer, kept, marker.result, record);
            written.map_err(|failure| self.marker_failed(failure))?;
        } else {
            let mut log = partition.lock()?;
            // Under the partition's lock: nobody can join the partition to a transaction in between.
            if let Some(holder) = self.transactions.holder(producer.id, &partition.name) {
                return Ok(Some(holder));
            }
            let written = self.with_ballast(|| {
                append_marker(&mut log, producer, kept, record)
                    .map_err(|e| Failure::of(e, log.poisoned().is_some()))
            });
            drop(log);
            written.map_err(|failure| self.marker_failed(failure))?;
        }
        partition.wake_all();
        if self.is_fsync() {
            self.flush_later(partition);
        }
        Ok(None)
    }

    fn marker_failed(&self, failure: Failure) -> BrokerError {
        if failure.is_poisoned {
            self.halt(&failure.error);
        }
        failure.error
    }

    /// Ends a transaction that its coordinator knows, as a whole.
    fn end_held(&self, holder: &Holder, marker: OperatorMarker) -> Reply<()> {
        let id = &holder.transactional_id;
        let (code, why) = match (holder.is_ending, marker.result) {
            (true, _) => (
                ErrorCode::ConcurrentTransactions,
                "is decided, and ending: try again",
            ),
            _ if marker.producer.epoch < holder.producer.epoch => (
                ErrorCode::InvalidProducerEpoch,
                "is open under a later epoch",
            ),
            (false, TransactionResult::Commit) => (
                ErrorCode::InvalidTxnState,
                "is open: only its producer can commit it",
            ),
            (false, TransactionResult::Abort) => return self.abort_transaction(id),
        };
        let message = format!("the transaction of {id} {why}");
        Reply::ready(Err(BrokerError::new(code, message)))
    }
}

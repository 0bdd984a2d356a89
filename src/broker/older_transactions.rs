//! Transactions of clients that cannot learn a new epoch (`coordinator/transaction/older.rs`): they say what joins a
//! transaction, and nothing else is taken from them.

use super::core::Core;
use super::partition::Partition;
use super::{Broker, BrokerError, Reply};
use crate::coordinator::transaction::PartitionCheck;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{
    EndTxnRequest, ProduceRequest, ProduceResponse, TxnOffsetCommitRequest,
};
use crate::types::{ProducerIdentity, TopicPartition, TransactionalId};

/// Which transactional appends are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joining {
    /// The partition joins the transaction by the append itself (KIP-890 part 2).
    ByAppend,
    /// The partition must have joined before.
    Before,
}

impl Broker {
    #[doc(hidden)]
    /// Adds partitions to a transaction, for clients whose batches don't.
    /// The reply's errors: those of [`Broker::produce`] about transactions; `InvalidProducerIdMapping` if the producer
    /// must renew its identity, which it had before a restart.
    pub fn add_partitions_to_txn(
        &self,
        id: &TransactionalId,
        producer: ProducerIdentity,
        partitions: Vec<TopicPartition>,
    ) -> Reply<()> {
        self.core.add_partitions_to_txn(id, producer, partitions)
    }

    #[doc(hidden)]
    /// Adds the partition of all groups' positions to a transaction, for clients whose commits don't.
    /// The reply's errors: as those of [`Broker::add_partitions_to_txn`].
    pub fn add_offsets_to_txn(
        &self,
        id: &TransactionalId,
        producer: ProducerIdentity,
    ) -> Reply<()> {
        let journal = self.core.groups.journal().name.clone();
        self.core.add_partitions_to_txn(id, producer, vec![journal])
    }

    #[doc(hidden)]
    /// As [`Broker::produce`], for clients that are not ours: a partition must have joined the transaction before
    /// (`TransactionAbortable` otherwise), and takes any first sequence from a producer that it does not know.
    pub fn produce_to_joined(&self, request: ProduceRequest) -> Reply<ProduceResponse> {
        self.core.produce(request, Joining::Before)
    }

    #[doc(hidden)]
    /// As [`Broker::txn_offset_commit`], in a transaction that the positions must have joined before:
    /// `TransactionAbortable` otherwise.
    pub fn txn_offset_commit_to_joined(&self, request: TxnOffsetCommitRequest) -> Reply<()> {
        self.core.txn_offset_commit(request, Joining::Before)
    }

    #[doc(hidden)]
    /// As [`Broker::end_txn`], but the producer's epoch stays: the reply holds the identity that it had.
    pub fn end_txn_keeping_epoch(&self, request: EndTxnRequest) -> Reply<ProducerIdentity> {
        self.core.end_txn_keeping_epoch(request)
    }
}

impl Core {
    fn add_partitions_to_txn(
        &self,
        id: &TransactionalId,
        producer: ProducerIdentity,
        partitions: Vec<TopicPartition>,
    ) -> Reply<()> {
        if let Err(error) = self.check_open() {
            return Reply::ready(Err(error));
        }
        if self.transactions.must_renew(id, producer) {
            return Reply::ready(Err(renew(id)));
        }
        self.add_partitions(id, producer, partitions)
    }

    /// Lets an append of the transaction through. The caller holds the partition's lock.
    pub(super) fn join_or_check(
        &self,
        id: &TransactionalId,
        producer: ProducerIdentity,
        partition: &Partition,
        joining: Joining,
    ) -> Result<(), BrokerError> {
        let check = self
            .transactions
            .check_append(id, producer, &partition.name)?;
        match (check, joining) {
            (PartitionCheck::Joined, _) => Ok(()),
            (PartitionCheck::MustJoin, Joining::ByAppend) => {
                self.add_partition(id, producer, &partition.name)
            }
            (PartitionCheck::MustJoin, Joining::Before) => Err(not_joined(id, partition)),
        }
    }
}

fn renew(id: &TransactionalId) -> BrokerError {
    BrokerError::new(
        ErrorCode::InvalidProducerIdMapping,
        format!(
            "the producer of {id} had its identity before the broker was restarted: it must ask for a new one"
        ),
    )
}

fn not_joined(id: &TransactionalId, partition: &Partition) -> BrokerError {
    BrokerError::new(
        ErrorCode::TransactionAbortable,
        format!(
            "the open transaction of {id} does not hold {}: the request is late, or the client did not add the partition",
            partition.name
        ),
    )
}

//! Asking about producers and transactions.

use onceflow::internals::protocol::wire::messages::{
    add_offsets_to_txn as ao, add_partitions_to_txn as ap, describe_producers as dp,
    describe_transactions as dt, end_txn as et, init_producer_id as ip, txn_offset_commit as to,
};

use super::side::{Identity, Side, line, name};
use super::steps::{Ask, IDEMPOTENT, Step};

impl Side {
    pub(super) fn init(&mut self, step: &Step) -> Option<String> {
        let Ask::InitProducer {
            slot,
            timeout_ms,
            current,
        } = step.ask
        else {
            return None;
        };
        let known = self.identity(slot);
        let mut request = ip::InitProducerIdRequest {
            transactional_id: (slot >= IDEMPOTENT).then(|| self.transactional_id(slot)),
            transaction_timeout_ms: timeout_ms,
            ..ip::InitProducerIdRequest::default()
        };
        if let Some(shift) = current.filter(|_| step.version >= 3) {
            request.producer_id = known.id;
            request.producer_epoch = known.epoch.wrapping_add(shift);
        }
        let answer = self.ask_until(step.version, &request, |it| it.error_code)?;
        if answer.error_code == 0 {
            self.ids.insert(answer.producer_id, slot);
            let is_same = known.id == answer.producer_id && known.epoch == answer.producer_epoch;
            let identity = Identity {
                id: answer.producer_id,
                epoch: answer.producer_epoch,
                sequences: if is_same {
                    known.sequences
                } else {
                    Default::default()
                },
            };
            self.producers.insert(slot, identity);
        }
        self.until_ended();
        let is_new = known.id != answer.producer_id;
        let producer = self.producer_name(answer.producer_id);
        Some(format!(
            "{}, {producer}, epoch {}, new id: {is_new}\n",
            name(answer.error_code),
            answer.producer_epoch
        ))
    }

    pub(super) fn add_partitions(&mut self, step: &Step) -> Option<String> {
        let Ask::AddPartitions {
            slot,
            partitions,
            epoch,
        } = &step.ask
        else {
            return None;
        };
        let identity = self.identity(*slot);
        let request = ap::AddPartitionsToTxnRequest {
            transactional_id: self.transactional_id(*slot),
            producer_id: identity.id,
            producer_epoch: identity.epoch.wrapping_add(*epoch),
            topics: vec![ap::AddPartitionsToTxnTopic {
                name: self.topic(),
                partitions: partitions.clone(),
            }],
        };
        let first = |answer: &ap::AddPartitionsToTxnResponse| {
            Some(
                answer
                    .results_by_topic
                    .first()?
                    .results_by_partition
                    .first()?
                    .partition_error_code,
            )
        };
        let answer = self.ask_until(step.version, &request, |it| first(it).unwrap_or(0))?;
        let results = answer
            .results_by_topic
            .into_iter()
            .flat_map(|it| it.results_by_partition);
        let mut results: Vec<_> = results
            .map(|it| (it.partition_index, it.partition_error_code))
            .collect();
        results.sort_unstable();
        let lines = results
            .into_iter()
            .map(|(index, code)| format!("partition {index}: {}\n", name(code)));
        Some(lines.collect())
    }

    pub(super) fn add_offsets(&mut self, step: &Step) -> Option<String> {
        let Ask::AddOffsets { slot, group, epoch } = step.ask else {
            return None;
        };
        let identity = self.identity(slot);
        let request = ao::AddOffsetsToTxnRequest {
            transactional_id: self.transactional_id(slot),
            producer_id: identity.id,
            producer_epoch: identity.epoch.wrapping_add(epoch),
            group_id: self.group(group),
        };
        let answer = self.ask_until(step.version, &request, |it| it.error_code)?;
        Some(format!("{}\n", name(answer.error_code)))
    }

    pub(super) fn txn_offsets(&mut self, step: &Step) -> Option<String> {
        let Ask::TxnOffsets {
            slot,
            group,
            epoch,
            partition,
            offset,
        } = step.ask
        else {
            return None;
        };
        let identity = self.identity(slot);
        let request = to::TxnOffsetCommitRequest {
            transactional_id: self.transactional_id(slot),
            group_id: self.group(group),
            producer_id: identity.id,
            producer_epoch: identity.epoch.wrapping_add(epoch),
            topics: vec![to::TxnOffsetCommitRequestTopic {
                name: self.topic(),
                partitions: vec![to::TxnOffsetCommitRequestPartition {
                    partition_index: partition,
                    committed_offset: offset,
                    committed_metadata: Some("t".to_owned()),
                    ..to::TxnOffsetCommitRequestPartition::default()
                }],
            }],
            ..to::TxnOffsetCommitRequest::default()
        };
        let code = |it: &to::TxnOffsetCommitResponse| it.topics[0].partitions[0].error_code;
        let answer = self.ask_until(step.version, &request, code)?;
        Some(format!("{}\n", name(code(&answer))))
    }

    pub(super) fn end(&mut self, step: &Step) -> Option<String> {
        let Ask::EndTransaction {
            slot,
            epoch,
            is_commit,
        } = step.ask
        else {
            return None;
        };
        let identity = self.identity(slot);
        let request = et::EndTxnRequest {
            transactional_id: self.transactional_id(slot),
            producer_id: identity.id,
            producer_epoch: identity.epoch.wrapping_add(epoch),
            committed: is_commit,
        };
        let answer = self.ask_until(step.version, &request, |it| it.error_code)?;
        self.until_ended();
        if answer.error_code == 0 && step.version >= 5 {
            let is_new = self.ids.insert(answer.producer_id, slot).is_none();
            if let Some(known) = self.producers.get_mut(&slot)
                && (is_new || known.epoch != answer.producer_epoch)
            {
                known.sequences.clear();
                known.id = answer.producer_id;
                known.epoch = answer.producer_epoch;
            }
        }
        let producer = self.producer_name(answer.producer_id);
        Some(format!(
            "{}, {producer}, epoch {}\n",
            name(answer.error_code),
            answer.producer_epoch
        ))
    }

    pub(super) fn describe_producers(&mut self, step: &Step) -> Option<String> {
        let Ask::DescribeProducers { partition } = step.ask else {
            return None;
        };
        let request = dp::DescribeProducersRequest {
            topics: vec![dp::TopicRequest {
                name: self.topic(),
                partition_indexes: vec![partition],
            }],
        };
        let answer = self.ask(step.version, &request)?;
        let it = &answer.topics[0].partitions[0];
        let mut text = format!("{}\n", name(it.error_code));
        let producers = it.active_producers.iter().map(|it| {
            let (producer, time) = (
                self.producer_name(it.producer_id),
                self.time(it.last_timestamp),
            );
            format!(
                "  {producer}, epoch {}, sequence {}, time {time}, coordinator {}, open from {}",
                it.producer_epoch,
                it.last_sequence,
                it.coordinator_epoch,
                it.current_txn_start_offset
            )
        });
        let mut producers: Vec<String> = producers.collect();
        producers.sort();
        producers
            .iter()
            .for_each(|it| line(&mut text, format_args!("{it}")));
        Some(text)
    }

    pub(super) fn describe_transaction(&mut self, step: &Step) -> Option<String> {
        let Ask::DescribeTransaction { slot } = step.ask else {
            return None;
        };
        let request = dt::DescribeTransactionsRequest {
            transactional_ids: vec![self.transactional_id(slot)],
        };
        let code = |it: &dt::DescribeTransactionsResponse| it.transaction_states[0].error_code;
        let answer = self.ask_until(step.version, &request, code)?;
        let it = &answer.transaction_states[0];
        let mut partitions: Vec<(&str, i32)> = Vec::new();
        for topic in &it.topics {
            let name = topic.topic.trim_end_matches(&self.suffix);
            partitions.extend(topic.partitions.iter().map(|index| (name, *index)));
        }
        partitions.retain(|(name, _)| *name != "__consumer_offsets");
        partitions.sort_unstable();
        Some(format!(
            "{}, {}, timeout {}, started {}, {}, epoch {}, partitions {partitions:?}\n",
            name(it.error_code),
            it.transaction_state,
            it.transaction_timeout_ms,
            self.time(it.transaction_start_time_ms),
            self.producer_name(it.producer_id),
            it.producer_epoch
        ))
    }
}

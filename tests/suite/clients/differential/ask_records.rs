//! Asking about records: Produce, Fetch, ListOffsets, DeleteRecords.

use bytes::Bytes;
use onceflow::internals::protocol::wire::messages::{
    delete_records as dr, fetch as ft, list_offsets as lo, offset_for_leader_epoch as le,
    produce as pr,
};

use super::batches::{BatchPlan, SequencePlan, Stamp};
use super::seen;
use super::side::{Identity, Side, line, name};
use super::steps::{Ask, Place, Step};

/// The id of the first slot's producer as long as no broker gave it one.
const STRANGER: i64 = 424_242;

impl Side {
    pub(super) fn produce(&mut self, step: &Step) -> Option<String> {
        let Ask::Produce {
            acks,
            transactional,
            partitions,
        } = &step.ask
        else {
            return None;
        };
        let request = self.produce_request(*acks, *transactional, partitions);
        let stamps = partitions.iter().flat_map(|(index, batches)| {
            let batches = batches.iter().flatten();
            batches.map(|batch| (*index, self.stamp(batch, *index), batch))
        });
        let stamps: Vec<_> = stamps.collect();
        let first = |answer: &pr::ProduceResponse| {
            answer
                .responses
                .first()?
                .partition_responses
                .first()
                .map(|it| it.error_code)
        };
        let answer = self.ask_until(step.version, &request, |it| first(it).unwrap_or(0))?;
        let answers = answer
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses);
        let mut answers: Vec<_> = answers.collect();
        answers.sort_by_key(|it| it.index);
        let mut text = String::new();
        for it in answers {
            if it.error_code == 0 {
                self.note(it.index, &stamps);
            }
            self.produced(it, &mut text);
        }
        Some(text)
    }

    fn produced(&self, it: &pr::PartitionProduceResponse, text: &mut String) {
        let (code, time) = (name(it.error_code), self.time(it.log_append_time_ms));
        // Of a refused batch Kafka tells the start for some errors and not for others, and no client reads it.
        let start = (it.error_code == 0).then_some(it.log_start_offset);
        line(
            text,
            format_args!(
                "partition {}: {code}, offset {}, time {time}, start {start:?}",
                it.index, it.base_offset
            ),
        );
        for bad in &it.record_errors {
            line(text, format_args!("  record {} is bad", bad.batch_index));
        }
    }

    #[allow(clippy::type_complexity, reason = "as the step has it")]
    fn produce_request(
        &self,
        acks: i16,
        transactional: Option<u8>,
        partitions: &[(i32, Option<Vec<BatchPlan>>)],
    ) -> pr::ProduceRequest {
        let data = partitions
            .iter()
            .map(|(index, batches)| pr::PartitionProduceData {
                index: *index,
                records: batches.as_ref().map(|batches| {
                    let all = batches
                        .iter()
                        .map(|it| it.bytes(self.base_time, self.stamp(it, *index)));
                    Bytes::from(all.collect::<Vec<_>>().concat())
                }),
            });
        pr::ProduceRequest {
            transactional_id: transactional.map(|slot| self.transactional_id(slot)),
            acks,
            timeout_ms: 10_000,
            topic_data: vec![pr::TopicProduceData {
                name: self.topic(),
                partition_data: data.collect(),
                ..pr::TopicProduceData::default()
            }],
        }
    }

    /// Remembers the sequences that a partition took.
    pub(super) fn note(&mut self, partition: i32, stamps: &[(i32, Stamp, &BatchPlan)]) {
        for (index, stamp, batch) in stamps {
            let Some(plan) = batch.producer.filter(|_| *index == partition) else {
                continue;
            };
            let next = stamp.sequence.wrapping_add(batch.sequences());
            if let Some(identity) = self.producers.get_mut(&plan.slot) {
                identity.sequences.insert(partition, (next, stamp.sequence));
            }
        }
    }

    pub(super) fn stamp(&self, batch: &BatchPlan, partition: i32) -> Stamp {
        let Some(plan) = batch.producer else {
            return Stamp::PLAIN;
        };
        let identity = self.identity(plan.slot);
        let (next, last) = identity
            .sequences
            .get(&partition)
            .copied()
            .unwrap_or((0, 0));
        Stamp {
            id: identity.id,
            epoch: identity.epoch.wrapping_add(plan.epoch),
            sequence: match plan.sequence {
                SequencePlan::Next => next,
                SequencePlan::Again => last,
                SequencePlan::Ahead(by) => next.wrapping_add(by),
                SequencePlan::Exactly(sequence) => sequence,
            },
            is_transactional: plan.is_transactional,
        }
    }

    pub(super) fn identity(&self, slot: u8) -> Identity {
        self.producers.get(&slot).cloned().unwrap_or(Identity {
            id: STRANGER + i64::from(slot),
            ..Identity::default()
        })
    }

    pub(super) fn offset(&mut self, partition: i32, place: Place) -> i64 {
        match place {
            Place::At(offset) => offset,
            Place::FromEnd(more) => self.end_offset(partition) + more,
        }
    }

    pub(super) fn end_offset(&mut self, partition: i32) -> i64 {
        let request = self.list_request(partition, 0, -1);
        let answer = self.ask(4, &request).expect("offsets are listed");
        answer.topics[0].partitions[0].offset
    }

    pub(super) fn list_request(
        &self,
        partition: i32,
        isolation: i8,
        time: i64,
    ) -> lo::ListOffsetsRequest {
        let asked = lo::ListOffsetsPartition {
            partition_index: partition,
            timestamp: time,
            ..lo::ListOffsetsPartition::default()
        };
        lo::ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation,
            topics: vec![lo::ListOffsetsTopic {
                name: self.topic(),
                partitions: vec![asked],
            }],
            ..lo::ListOffsetsRequest::default()
        }
    }

    pub(super) fn listed(&self, answer: &lo::ListOffsetsResponse) -> String {
        let found = &answer.topics[0].partitions[0];
        let (code, time) = (name(found.error_code), self.time(found.timestamp));
        format!("{}, time {time}, {code}", found.offset)
    }

    pub(super) fn list_offsets(&mut self, step: &Step) -> Option<String> {
        let Ask::ListOffsets {
            partition,
            time,
            isolation,
        } = step.ask
        else {
            return None;
        };
        let is_special = time < i64::MIN + 10;
        let time = if is_special {
            i64::MIN.wrapping_sub(time)
        } else {
            self.base_time + time
        };
        let isolation = if step.version < 2 { 0 } else { isolation };
        let request = self.list_request(partition, isolation, time);
        let answer = self.ask(step.version, &request)?;
        Some(self.listed(&answer) + "\n")
    }

    pub(super) fn fetch_request(
        &self,
        partition: i32,
        isolation: i8,
        offset: i64,
        max_bytes: i32,
    ) -> ft::FetchRequest {
        let asked = ft::FetchPartition {
            partition,
            fetch_offset: offset,
            partition_max_bytes: max_bytes,
            ..ft::FetchPartition::default()
        };
        ft::FetchRequest {
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 50 << 20,
            isolation_level: isolation,
            topics: vec![ft::FetchTopic {
                topic: self.topic(),
                topic_id: self.topic_id,
                partitions: vec![asked],
            }],
            ..ft::FetchRequest::default()
        }
    }

    pub(super) fn fetch(&mut self, step: &Step) -> Option<String> {
        let Ask::Fetch {
            partition,
            from,
            isolation,
            max_bytes,
        } = step.ask
        else {
            return None;
        };
        let offset = self.offset(partition, from);
        let request = self.fetch_request(partition, isolation, offset, max_bytes);
        let answer = self.ask(step.version, &request)?;
        if answer.error_code != 0 {
            return Some(format!("{}\n", name(answer.error_code)));
        }
        let mut text = String::new();
        for it in answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
        {
            line(
                &mut text,
                format_args!(
                    "partition {}: {}, end {}, stable {}, start {}",
                    it.partition_index,
                    name(it.error_code),
                    it.high_watermark,
                    it.last_stable_offset,
                    it.log_start_offset
                ),
            );
            let (aborted, _) = seen::aborted(self, &it);
            text += &aborted;
            text += &seen::batches(self, it.records.into_bytes()).0;
        }
        Some(text)
    }

    pub(super) fn delete_records(&mut self, step: &Step) -> Option<String> {
        let Ask::DeleteRecords { partition, before } = step.ask else {
            return None;
        };
        let offset = self.offset(partition, before);
        let request = dr::DeleteRecordsRequest {
            timeout_ms: 10_000,
            topics: vec![dr::DeleteRecordsTopic {
                name: self.topic(),
                partitions: vec![dr::DeleteRecordsPartition {
                    partition_index: partition,
                    offset,
                }],
            }],
        };
        let answer = self.ask(step.version, &request)?;
        let it = &answer.topics[0].partitions[0];
        Some(format!(
            "{}, start {}\n",
            name(it.error_code),
            it.low_watermark
        ))
    }

    /// Epochs are counted from the topic's own: brokers begin with different ones.
    pub(super) fn epoch_end(&mut self, step: &Step) -> Option<String> {
        let Ask::EpochEnd {
            partition,
            epoch,
            current,
        } = step.ask
        else {
            return None;
        };
        let absolute = |shift: Option<i32>| shift.map_or(-1, |it| self.leader_epoch + it);
        let request = le::OffsetForLeaderEpochRequest {
            replica_id: -1,
            topics: vec![le::OffsetForLeaderTopic {
                topic: self.topic(),
                partitions: vec![le::OffsetForLeaderPartition {
                    partition,
                    current_leader_epoch: absolute(current),
                    leader_epoch: absolute(epoch),
                }],
            }],
        };
        let answer = self.ask(step.version, &request)?;
        let it = &answer.topics[0].partitions[0];
        let epoch = match it.leader_epoch {
            -1 => "none".to_owned(),
            epoch => format!("{:+}", epoch - self.leader_epoch),
        };
        let code = name(it.error_code);
        Some(format!("{code}, epoch {epoch} ends at {}\n", it.end_offset))
    }
}

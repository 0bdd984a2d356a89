//! `Scripted`: a broker in memory whose answers can be refused, lost or held back on demand, for tests of retries and order.
//!
//! It keeps to the rules that clients rely on: Kafka's sequence and epoch checks with the five-batch window.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{pending, ready};
use parking_lot::Mutex;

use super::{FetchedOffset, Reply, Transport};
use crate::broker::GroupDescription;
use crate::client::ClientError;
use crate::env::Env;
use crate::protocol::batch::{Batch, DecompressionLimit, Header};
use crate::protocol::messages::{
    ConfigEntry, EndTxnRequest, FetchRequest, FetchedPartition, InitProducerIdRequest,
    ListedOffset, NewTopic, OffsetCommitRequest, OffsetFetchRequest, OffsetSpec,
    PartitionDescription, ProduceRequest, ProduceResponse, ProducerDescription, TopicMetadata,
    TransactionDescription, TxnOffsetCommitRequest,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{
    GroupId, Isolation, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Timestamp, TopicId,
    TopicName, TopicPartition, TransactionalId,
};

/// Fate of the next request of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None: it is answered.
    Answer,
    /// It is refused without effect.
    Refuse(ErrorCode),
    /// It takes effect, but the connection breaks before the answer.
    Lose,
    /// It takes effect and is never answered.
    Swallow,
    /// It is lost on the way, without effect and answer.
    Drop,
    /// It takes effect, and is answered once released.
    Hold,
}

/// One request that reached the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Produced {
    pub(crate) partition: i32,
    pub(crate) header: Header,
}

#[derive(Default)]
struct State {
    partitions_count: i32,
    max_message_bytes: usize,
    logs: HashMap<TopicPartition, Log>,
    produce_faults: VecDeque<Fault>,
    default_fault: Option<Fault>,
    end_txn_faults: VecDeque<Fault>,
    offset_faults: VecDeque<Fault>,
    held: Vec<oneshot::Sender<()>>,
    produced: Vec<Produced>,
    end_txns: Vec<EndTxnRequest>,
    identities_count: i64,
    transactional: Option<ProducerIdentity>,
}

#[derive(Default)]
struct Log {
    values: Vec<Vec<u8>>,
    producers: HashMap<ProducerId, Window>,
}

struct Window {
    epoch: ProducerEpoch,
    next: i32,
    batches: VecDeque<(i32, i32, Offset)>,
}

impl Log {
    fn append(&mut self, bytes: &bytes::Bytes) -> Result<Offset, ErrorCode> {
        let batch = Batch::parse(bytes.clone()).map_err(|_| ErrorCode::CorruptMessage)?;
        batch.check_crc().map_err(|_| ErrorCode::CorruptMessage)?;
        let header = *batch.header();
        let base = Offset(i64::try_from(self.values.len()).unwrap());
        if header.has_producer()
            && let Some(first) = self.check_sequence(&header, base)?
        {
            return Ok(first);
        }
        let records = batch.records(&DecompressionLimit::default()).unwrap();
        let values = records.iter().map(|r| r.unwrap().value.unwrap().to_vec());
        self.values.extend(values);
        Ok(base)
    }

    fn check_sequence(
        &mut self,
        header: &Header,
        base: Offset,
    ) -> Result<Option<Offset>, ErrorCode> {
        let fresh = || Window {
            epoch: header.producer.epoch,
            next: 0,
            batches: VecDeque::new(),
        };
        let window = self
            .producers
            .entry(header.producer.id)
            .or_insert_with(fresh);
        if header.producer.epoch < window.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        if header.producer.epoch > window.epoch {
            *window = fresh();
        }
        let key = (header.base_sequence.0, header.last_sequence().0);
        let same = |(first, last, _): &&(i32, i32, Offset)| (*first, *last) == key;
        if let Some((_, _, offset)) = window.batches.iter().find(same) {
            return Ok(Some(*offset));
        }
        if header.base_sequence.0 != window.next {
            return Err(ErrorCode::OutOfOrderSequenceNumber);
        }
        window.next = header.last_sequence().plus(1).0;
        window.batches.push_back((key.0, key.1, base));
        if window.batches.len() > 5 {
            window.batches.pop_front();
        }
        Ok(None)
    }
}

/// The scripted broker.
pub(crate) struct Scripted {
    env: Env,
    state: Mutex<State>,
}

impl Scripted {
    /// Every topic has so many partitions.
    pub(crate) fn new(partitions_count: i32) -> Arc<Self> {
        Arc::new(Self {
            env: Env::real(),
            state: Mutex::new(State {
                partitions_count,
                max_message_bytes: 1_048_588,
                ..State::default()
            }),
        })
    }

    pub(crate) fn set_max_message_bytes(&self, bytes: usize) {
        self.state.lock().max_message_bytes = bytes;
    }

    /// The next produce requests meet these faults, in this order.
    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().produce_faults.extend(faults);
    }

    /// Sets the fault for produce requests after the script.
    pub(crate) fn set_default(&self, fault: Fault) {
        self.state.lock().default_fault = Some(fault);
    }

    pub(crate) fn script_end_txn(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().end_txn_faults.extend(faults);
    }

    pub(crate) fn script_offsets(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().offset_faults.extend(faults);
    }

    /// Answers all that is held.
    pub(crate) fn release(&self) {
        let held = std::mem::take(&mut self.state.lock().held);
        for hold in held {
            let _ = hold.send(());
        }
    }

    pub(crate) fn held_count(&self) -> usize {
        self.state.lock().held.len()
    }

    /// Another producer took the transactional id.
    pub(crate) fn fence(&self) {
        let mut state = self.state.lock();
        let owner = state.transactional.as_mut().unwrap();
        owner.epoch = ProducerEpoch(owner.epoch.0 + 1);
    }

    /// The values in a partition's log.
    pub(crate) fn values(&self, partition: &TopicPartition) -> Vec<Vec<u8>> {
        let state = self.state.lock();
        let log = state.logs.get(partition);
        log.map(|log| log.values.clone()).unwrap_or_default()
    }

    /// Forgets the producers of a partition, as after their expiry.
    pub(crate) fn forget_producers(&self, partition: &TopicPartition) {
        let mut state = self.state.lock();
        state.logs.get_mut(partition).unwrap().producers.clear();
    }

    pub(crate) fn produced(&self) -> Vec<Produced> {
        self.state.lock().produced.clone()
    }

    pub(crate) fn end_txns(&self) -> Vec<EndTxnRequest> {
        self.state.lock().end_txns.clone()
    }

    /// Answers with what `effect` does, unless `fault` comes between.
    fn answer<T: Send + 'static>(
        &self,
        state: &mut State,
        request: &'static str,
        fault: Fault,
        effect: impl FnOnce(&mut State) -> Result<T, ErrorCode>,
    ) -> Reply<T> {
        let refuse = move |code| ClientError::refused(request, code);
        let run = |state: &mut State| effect(state).map_err(refuse);
        match fault {
            Fault::Answer => ready(run(state)).boxed(),
            Fault::Refuse(code) => ready(Err(refuse(code))).boxed(),
            Fault::Lose => {
                let _ = run(state);
                let lost = ClientError::Unanswered {
                    request,
                    why: "the connection broke".to_owned(),
                    kind: ErrorKind::Retriable,
                };
                ready(Err(lost)).boxed()
            }
            Fault::Swallow => {
                let _ = run(state);
                pending().boxed()
            }
            Fault::Drop => pending().boxed(),
            Fault::Hold => {
                let (hold, held) = oneshot::channel();
                state.held.push(hold);
                let result = run(state);
                held.map(|_| result).boxed()
            }
        }
    }
}

fn unsupported<T: Send + 'static>(request: &'static str) -> Reply<T> {
    let error = ClientError::refused(request, ErrorCode::UnsupportedVersion);
    ready(Err(error)).boxed()
}

impl Transport for Scripted {
    fn env(&self) -> &Env {
        &self.env
    }

    fn produce(&self, request: ProduceRequest) -> Reply<ProduceResponse> {
        let mut state = self.state.lock();
        let fallback = state.default_fault.unwrap_or(Fault::Answer);
        let fault = state.produce_faults.pop_front().unwrap_or(fallback);
        state.produced.push(Produced {
            partition: request.partition.partition,
            header: Header::parse(request.records.bytes()).unwrap(),
        });
        self.answer(&mut state, "Produce", fault, |state| {
            if request.records.bytes().len() > state.max_message_bytes {
                return Err(ErrorCode::MessageTooLarge);
            }
            let log = state.logs.entry(request.partition).or_default();
            Ok(ProduceResponse {
                base_offset: log.append(request.records.bytes())?,
                log_append_time: Timestamp::NONE,
                log_start_offset: Offset::ZERO,
            })
        })
    }

    fn fetch(&self, _: FetchRequest) -> Reply<Vec<FetchedPartition>> {
        unsupported("Fetch")
    }

    fn list_offset(
        &self,
        _: &TopicPartition,
        _: OffsetSpec,
        _: Isolation,
    ) -> Reply<Option<ListedOffset>> {
        unsupported("ListOffsets")
    }

    fn delete_records(&self, _: &TopicPartition, _: Offset) -> Reply<Offset> {
        unsupported("DeleteRecords")
    }

    fn create_topic(&self, _: NewTopic) -> Reply<TopicMetadata> {
        unsupported("CreateTopics")
    }

    fn delete_topic(&self, _: &TopicName) -> Reply<()> {
        unsupported("DeleteTopics")
    }

    fn create_partitions(&self, _: &TopicName, _: i32) -> Reply<()> {
        unsupported("CreatePartitions")
    }

    fn topics(&self) -> Reply<Vec<TopicMetadata>> {
        unsupported("Metadata")
    }

    fn topic(&self, topic: &TopicName) -> Reply<Option<TopicMetadata>> {
        let partitions_count = self.state.lock().partitions_count;
        let metadata = TopicMetadata {
            name: topic.clone(),
            id: TopicId(1),
            partitions_count,
            is_internal: false,
        };
        ready(Ok((topic.as_str() != "missing").then_some(metadata))).boxed()
    }

    fn describe_configs(&self, _: &TopicName) -> Reply<Vec<ConfigEntry>> {
        let limit = ConfigEntry {
            name: "max.message.bytes".to_owned(),
            value: self.state.lock().max_message_bytes.to_string(),
            is_default: true,
            documentation: String::new(),
        };
        ready(Ok(vec![limit])).boxed()
    }

    fn alter_configs(&self, _: &TopicName, _: BTreeMap<String, Option<String>>) -> Reply<()> {
        unsupported("IncrementalAlterConfigs")
    }

    fn describe_partitions(&self, _: &TopicName) -> Reply<Vec<PartitionDescription>> {
        unsupported("DescribeLogDirs")
    }

    fn describe_producers(&self, _: &TopicPartition) -> Reply<Vec<ProducerDescription>> {
        unsupported("DescribeProducers")
    }

    fn init_producer_id(&self, request: InitProducerIdRequest) -> Reply<ProducerIdentity> {
        let mut state = self.state.lock();
        state.identities_count += 1;
        let identity = match (&request.transactional_id, state.transactional) {
            (Some(_), Some(owner)) => ProducerIdentity {
                id: owner.id,
                epoch: ProducerEpoch(owner.epoch.0 + 1),
            },
            _ => ProducerIdentity {
                id: ProducerId(state.identities_count),
                epoch: ProducerEpoch::ZERO,
            },
        };
        if request.transactional_id.is_some() {
            state.transactional = Some(identity);
        }
        ready(Ok(identity)).boxed()
    }

    fn end_txn(&self, request: EndTxnRequest) -> Reply<ProducerIdentity> {
        let mut state = self.state.lock();
        let fault = state.end_txn_faults.pop_front().unwrap_or(Fault::Answer);
        state.end_txns.push(request.clone());
        self.answer(&mut state, "EndTxn", fault, |state| {
            let owner = state.transactional.unwrap();
            let next = ProducerEpoch(request.producer.epoch.0 + 1);
            // The epoch of the next transaction: a retry of the end that gave it (C16).
            let is_retry = owner.epoch == next;
            if owner.epoch != request.producer.epoch && !is_retry {
                return Err(ErrorCode::ProducerFenced);
            }
            let identity = ProducerIdentity {
                id: owner.id,
                epoch: next,
            };
            state.transactional = Some(identity);
            Ok(identity)
        })
    }

    fn txn_offset_commit(&self, _: TxnOffsetCommitRequest) -> Reply<()> {
        let mut state = self.state.lock();
        let fault = state.offset_faults.pop_front().unwrap_or(Fault::Answer);
        self.answer(&mut state, "TxnOffsetCommit", fault, |_| Ok(()))
    }

    fn offset_commit(&self, _: OffsetCommitRequest) -> Reply<()> {
        unsupported("OffsetCommit")
    }

    fn offset_fetch(&self, _: OffsetFetchRequest) -> Reply<Vec<FetchedOffset>> {
        unsupported("OffsetFetch")
    }

    fn list_transactions(&self) -> Reply<Vec<TransactionDescription>> {
        unsupported("ListTransactions")
    }

    fn describe_transaction(&self, _: &TransactionalId) -> Reply<TransactionDescription> {
        unsupported("DescribeTransactions")
    }

    fn abort_transaction(&self, _: &TransactionalId) -> Reply<()> {
        unsupported("abort of the transaction")
    }

    fn list_groups(&self) -> Reply<Vec<GroupId>> {
        unsupported("ListGroups")
    }

    fn describe_group(&self, _: &GroupId) -> Reply<GroupDescription> {
        unsupported("DescribeGroups")
    }

    fn delete_group(&self, _: &GroupId) -> Reply<()> {
        unsupported("DeleteGroups")
    }
}

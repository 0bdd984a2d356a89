//! The way between a bed's job and its log, on which requests and answers get lost while a test wants it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::ready;
use parking_lot::Mutex;

use super::chance::Chance;
use super::unfenced::Unfenced;
use crate::broker::{CompactionHold, GroupDescription};
use crate::client::consumer::ConsumerConfig;
use crate::client::producer::ProducerConfig;
use crate::client::transport::{FetchedOffset, Reply};
use crate::client::{ClientError, Transport};
use crate::env::Env;
use crate::protocol::ErrorKind;
use crate::protocol::messages::groups::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use crate::protocol::messages::{
    ConfigEntry, EndTxnRequest, FetchRequest, FetchedPartition, GroupMember, InitProducerIdRequest,
    ListedOffset, NewTopic, OffsetCommitRequest, OffsetFetchRequest, OffsetSpec,
    PartitionDescription, ProduceRequest, ProduceResponse, ProducerDescription, TopicMetadata,
    TransactionDescription, TxnOffsetCommitRequest,
};
use crate::types::{
    GroupId, Isolation, Offset, ProducerId, ProducerIdentity, TopicName, TopicPartition,
    TransactionalId,
};

/// One request in so many meets something bad.
const ONE_IN: u64 = 6;
/// The longest that an answer is late.
const LATE_MAX: Duration = Duration::from_millis(200);

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is answered.
    Answered,
    /// It never arrives; its caller hears nothing.
    RequestLost,
    /// It is done; its caller hears nothing.
    AnswerLost,
    /// It arrives a second time, after it was done, and the second answer is what its caller hears.
    Repeated,
    /// It is answered late.
    Late(Duration),
}

/// The fencing of a bed's log. Crash tests are tested with those that leave something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests leave something out"))]
pub(super) enum Fencing {
    /// Everything.
    Whole,
    /// No holder of a transactional id.
    NoTransactionalIds,
    /// No member of the job's group, whatever its generation.
    NoGenerations,
}

/// Whether requests get lost now, for all links of a bed.
#[derive(Clone, Default)]
pub(super) struct Weather {
    bad: Arc<Mutex<Option<Bad>>>,
    /// Where no holder of a transactional id is fenced.
    unfenced: Option<Unfenced>,
    /// Whether positions are committed for nobody in particular, which no group refuses.
    has_no_members: bool,
}

/// Bad weather.
struct Bad {
    chance: Chance,
    /// Requests that met something.
    met: u64,
}

impl Weather {
    pub(super) fn new(fencing: Fencing) -> Self {
        let is_unfenced = fencing == Fencing::NoTransactionalIds;
        Self {
            unfenced: is_unfenced.then(Unfenced::default),
            has_no_members: fencing == Fencing::NoGenerations,
            ..Self::default()
        }
    }

    /// From now on requests meet what follows from `seed`.
    pub(super) fn begin(&self, seed: u64) {
        let chance = Chance::new(seed);
        *self.bad.lock() = Some(Bad { chance, met: 0 });
    }

    /// All is well again; returns how many requests met something.
    pub(super) fn end(&self) -> u64 {
        self.bad.lock().take().map_or(0, |bad| bad.met)
    }

    /// The id under which a producer is known that asked for `asked`.
    fn id_of(&self, producer: ProducerId, asked: TransactionalId) -> TransactionalId {
        match &self.unfenced {
            Some(unfenced) => unfenced.id_of(producer, asked),
            None => asked,
        }
    }

    fn is_bad(&self) -> bool {
        self.bad.lock().is_some()
    }

    fn draw(&self) -> Fate {
        let mut bad = self.bad.lock();
        let Some(Bad { chance, met }) = bad.as_mut() else {
            return Fate::Answered;
        };
        if !chance.one_in(ONE_IN) {
            return Fate::Answered;
        }
        *met += 1;
        let late_millis = u64::try_from(LATE_MAX.as_millis()).unwrap_or(u64::MAX);
        match chance.below(4) {
            0 => Fate::RequestLost,
            1 => Fate::AnswerLost,
            2 => Fate::Repeated,
            _ => Fate::Late(Duration::from_millis(1 + chance.below(late_millis))),
        }
    }
}

/// The connection of one process: once it is cut, nothing of the process arrives any more.
#[derive(Clone, Default)]
pub(super) struct Line {
    is_cut: Arc<AtomicBool>,
}

impl Line {
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }
}

/// A transport whose requests have the fates that the weather draws. Those that only people send pass.
pub(super) struct Link {
    way: Arc<dyn Transport>,
    weather: Weather,
    line: Line,
}

impl Link {
    pub(super) fn new(way: Arc<dyn Transport>, weather: Weather, line: Line) -> Self {
        Self { way, weather, line }
    }

    fn carry<T: Send + 'static>(
        &self,
        request: &'static str,
        ask: impl Fn() -> Reply<T>,
    ) -> Reply<T> {
        if self.line.is_cut.load(Ordering::Relaxed) {
            return lost(request, "the process is gone");
        }
        match self.weather.draw() {
            Fate::Answered => ask(),
            Fate::RequestLost => lost(request, "the request got lost"),
            Fate::AnswerLost => {
                // A request is handed over by the call, and dropping its answer withdraws nothing.
                drop(ask());
                lost(request, "the answer got lost")
            }
            Fate::Repeated => {
                drop(ask());
                ask()
            }
            Fate::Late(time) => {
                let answer = ask();
                self.way.env().clock.sleep(time);
                answer
            }
        }
    }
}

fn lost<T: Send + 'static>(request: &'static str, why: &str) -> Reply<T> {
    let error = ClientError::Unanswered {
        request,
        why: why.to_owned(),
        kind: ErrorKind::Retriable,
    };
    ready(Err(error)).boxed()
}

impl Transport for Link {
    fn env(&self) -> &Env {
        self.way.env()
    }

    fn may_lose_answers(&self) -> bool {
        self.weather.is_bad()
    }

    fn producer_config(&self) -> Result<ProducerConfig, ClientError> {
        self.way.producer_config()
    }

    fn consumer_config(&self) -> Result<ConsumerConfig, ClientError> {
        self.way.consumer_config()
    }

    fn produce(&self, request: ProduceRequest) -> Reply<ProduceResponse> {
        let request = match &self.weather.unfenced {
            Some(unfenced) => unfenced.produce(request),
            None => request,
        };
        self.carry("Produce", || self.way.produce(request.clone()))
    }

    fn fetch(&self, request: FetchRequest) -> Reply<Vec<FetchedPartition>> {
        self.carry("Fetch", || self.way.fetch(request.clone()))
    }

    fn list_offset(
        &self,
        partition: &TopicPartition,
        spec: OffsetSpec,
        isolation: Isolation,
    ) -> Reply<Option<ListedOffset>> {
        let ask = || self.way.list_offset(partition, spec, isolation);
        self.carry("ListOffsets", ask)
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Reply<Offset> {
        let ask = || self.way.delete_records(partition, before);
        self.carry("DeleteRecords", ask)
    }

    fn compaction_holds(
        &self,
        group: &GroupId,
    ) -> Result<Option<Vec<CompactionHold>>, ClientError> {
        self.way.compaction_holds(group)
    }

    fn hold_compaction(
        &self,
        topic: &TopicName,
        group: &GroupId,
        table: &str,
    ) -> Result<(), ClientError> {
        self.way.hold_compaction(topic, group, table)
    }

    fn release_compaction(&self, group: &GroupId, table: Option<&str>) -> Result<(), ClientError> {
        self.way.release_compaction(group, table)
    }

    fn create_topic(&self, topic: NewTopic) -> Reply<TopicMetadata> {
        self.way.create_topic(topic)
    }

    fn delete_topic(&self, topic: &TopicName) -> Reply<()> {
        self.way.delete_topic(topic)
    }

    fn create_partitions(&self, topic: &TopicName, partitions_count: i32) -> Reply<()> {
        self.way.create_partitions(topic, partitions_count)
    }

    fn topics(&self) -> Reply<Vec<TopicMetadata>> {
        self.carry("Metadata", || self.way.topics())
    }

    fn topic(&self, topic: &TopicName) -> Reply<Option<TopicMetadata>> {
        self.carry("Metadata", || self.way.topic(topic))
    }

    fn describe_configs(&self, topic: &TopicName) -> Reply<Vec<ConfigEntry>> {
        let ask = || self.way.describe_configs(topic);
        self.carry("DescribeConfigs", ask)
    }

    fn alter_configs(
        &self,
        topic: &TopicName,
        changes: BTreeMap<String, Option<String>>,
    ) -> Reply<()> {
        self.way.alter_configs(topic, changes)
    }

    fn describe_partitions(&self, topic: &TopicName) -> Reply<Vec<PartitionDescription>> {
        let ask = || self.way.describe_partitions(topic);
        self.carry("ListOffsets", ask)
    }

    fn describe_producers(&self, partition: &TopicPartition) -> Reply<Vec<ProducerDescription>> {
        let ask = || self.way.describe_producers(partition);
        self.carry("DescribeProducers", ask)
    }

    fn init_producer_id(&self, mut request: InitProducerIdRequest) -> Reply<ProducerIdentity> {
        let asked = request.transactional_id.clone();
        let Some((unfenced, asked)) = self.weather.unfenced.clone().zip(asked) else {
            let ask = || self.way.init_producer_id(request.clone());
            return self.carry("InitProducerId", ask);
        };
        let id = match request.current {
            Some(current) => unfenced.id_of(current.id, asked),
            None => unfenced.another(&asked),
        };
        request.transactional_id = Some(id.clone());
        let answer = self.way.init_producer_id(request);
        answer.map(move |it| unfenced.give(id, it)).boxed()
    }

    fn end_txn(&self, mut request: EndTxnRequest) -> Reply<ProducerIdentity> {
        let (producer, id) = (request.producer.id, request.transactional_id);
        request.transactional_id = self.weather.id_of(producer, id);
        self.carry("EndTxn", || self.way.end_txn(request.clone()))
    }

    fn txn_offset_commit(&self, mut request: TxnOffsetCommitRequest) -> Reply<()> {
        let (producer, id) = (request.producer.id, request.transactional_id);
        request.transactional_id = self.weather.id_of(producer, id);
        if self.weather.has_no_members {
            request.member = GroupMember::default();
        }
        let ask = || self.way.txn_offset_commit(request.clone());
        self.carry("TxnOffsetCommit", ask)
    }

    fn offset_commit(&self, request: OffsetCommitRequest) -> Reply<()> {
        let ask = || self.way.offset_commit(request.clone());
        self.carry("OffsetCommit", ask)
    }

    fn offset_fetch(&self, request: OffsetFetchRequest) -> Reply<Vec<FetchedOffset>> {
        let ask = || self.way.offset_fetch(request.clone());
        self.carry("OffsetFetch", ask)
    }

    fn list_transactions(&self) -> Reply<Vec<TransactionDescription>> {
        self.carry("ListTransactions", || self.way.list_transactions())
    }

    fn describe_transaction(&self, id: &TransactionalId) -> Reply<TransactionDescription> {
        let ask = || self.way.describe_transaction(id);
        self.carry("DescribeTransactions", ask)
    }

    fn abort_transaction(&self, id: &TransactionalId) -> Reply<()> {
        self.way.abort_transaction(id)
    }

    fn list_groups(&self) -> Reply<Vec<GroupId>> {
        self.carry("ListGroups", || self.way.list_groups())
    }

    fn describe_group(&self, group: &GroupId) -> Reply<GroupDescription> {
        let ask = || self.way.describe_group(group);
        self.carry("DescribeGroups", ask)
    }

    fn join_group(&self, request: JoinGroupRequest) -> Reply<JoinGroupResponse> {
        let ask = || self.way.join_group(request.clone());
        self.carry("JoinGroup", ask)
    }

    fn sync_group(&self, request: SyncGroupRequest) -> Reply<SyncGroupResponse> {
        let ask = || self.way.sync_group(request.clone());
        self.carry("SyncGroup", ask)
    }

    fn heartbeat(&self, request: HeartbeatRequest) -> Reply<()> {
        let ask = || self.way.heartbeat(request.clone());
        self.carry("Heartbeat", ask)
    }

    fn leave_group(&self, request: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
        let ask = || self.way.leave_group(request.clone());
        self.carry("LeaveGroup", ask)
    }

    fn delete_group(&self, group: &GroupId) -> Reply<()> {
        self.way.delete_group(group)
    }
}

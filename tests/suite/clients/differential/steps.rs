//! `Step`: a request that both brokers are asked, and `Round`: a topic with its settings and the requests about it.

use super::batches::BatchPlan;

/// Partitions of a round's topic.
pub(super) const PARTITIONS: i32 = 2;
/// Groups of a round.
pub(super) const GROUPS: u8 = 3;
/// Producers: those below this number are idempotent, the others transactional.
pub(super) const IDEMPOTENT: u8 = 2;
/// Producers in all.
pub(super) const PRODUCERS: u8 = 4;

/// A topic of its own, and what is asked about it.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) settings: Vec<(&'static str, String)>,
    pub(super) steps: Vec<Step>,
}

/// A request in one of its versions.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) version: i16,
    pub(super) ask: Ask,
}

/// Where in a partition: counted from its first record, or behind its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Place {
    At(i64),
    FromEnd(i64),
}

/// A request. Producers are named by slot; who is not initialised yet is a stranger with an id that nobody has.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Produce {
        acks: i16,
        /// Whose transactional id the request carries.
        transactional: Option<u8>,
        /// `None` for the records is null.
        partitions: Vec<(i32, Option<Vec<BatchPlan>>)>,
    },
    Fetch {
        partition: i32,
        from: Place,
        isolation: i8,
        max_bytes: i32,
    },
    ListOffsets {
        partition: i32,
        /// Kafka's special numbers below 0; else milliseconds after the run's time.
        time: i64,
        isolation: i8,
    },
    DeleteRecords {
        partition: i32,
        before: Place,
    },
    EpochEnd {
        partition: i32,
        /// Added to the topic's leader epoch; `None` says none.
        epoch: Option<i32>,
        /// The epoch that the client believes to be the leader's, likewise.
        current: Option<i32>,
    },
    InitProducer {
        slot: u8,
        timeout_ms: i32,
        /// Added to the epoch of the identity that it says it has; `None` says none.
        current: Option<i16>,
    },
    AddPartitions {
        slot: u8,
        partitions: Vec<i32>,
        epoch: i16,
    },
    AddOffsets {
        slot: u8,
        group: u8,
        epoch: i16,
    },
    TxnOffsets {
        slot: u8,
        group: u8,
        epoch: i16,
        partition: i32,
        offset: i64,
    },
    EndTransaction {
        slot: u8,
        epoch: i16,
        is_commit: bool,
    },
    CommitOffsets {
        group: u8,
        partition: i32,
        offset: i64,
        metadata: Option<String>,
        generation: i32,
        member: &'static str,
    },
    FetchOffsets {
        group: u8,
        partitions: Option<Vec<i32>>,
        is_stable: bool,
    },
    DeleteOffsets {
        group: u8,
        partitions: Vec<i32>,
    },
    DescribeProducers {
        partition: i32,
    },
    DescribeTransaction {
        slot: u8,
    },
    AlterConfig {
        name: &'static str,
        /// 0 sets, 1 deletes, 2 appends, 3 subtracts.
        operation: i8,
        value: Option<String>,
        is_validation: bool,
    },
    ReplaceConfigs {
        settings: Vec<(&'static str, Option<String>)>,
        is_validation: bool,
    },
    DescribeConfigs {
        names: Vec<&'static str>,
    },
    CreateTopic {
        /// Appended to the name of the round's topic.
        suffix: &'static str,
        partitions: i32,
        replication: i16,
        settings: Vec<(&'static str, Option<String>)>,
        is_validation: bool,
    },
    GrowTopic {
        to: i32,
        is_validation: bool,
    },
    DeleteTopic {
        /// Appended to the name of the round's topic.
        suffix: &'static str,
        /// Names it by its id, if the version can.
        is_by_id: bool,
    },
    Metadata,
}

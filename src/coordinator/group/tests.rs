//! The group coordinator: histories by name, and a model under random operations with crashes.

pub(in crate::coordinator::group) mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::coordinator::Now;
use crate::protocol::messages::{CommittedOffset, GroupMember, OffsetFetchRequest};
use crate::types::{ProducerEpoch, Timestamp, TransactionalId};

const COMMIT: TransactionResult = TransactionResult::Commit;
const ABORT: TransactionResult = TransactionResult::Abort;

/// One entry of the journal: a record with its producer, or a marker.
#[derive(Debug, Clone)]
enum Entry {
    Record(ProducerId, JournalRecord),
    Marker(ProducerId, TransactionResult),
}

struct Driver {
    coordinator: GroupCoordinator,
    journal: Vec<Entry>,
    replies: Vec<Result<(), ErrorCode>>,
    now: Now,
    config: Config,
}

fn group() -> GroupId {
    GroupId::new("g").unwrap()
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), number)
}

fn at(offset: i64) -> CommittedOffset {
    CommittedOffset {
        offset: Offset(offset),
        leader_epoch: -1,
        metadata: String::new(),
    }
}

fn fetch_request(require_stable: bool) -> OffsetFetchRequest {
    OffsetFetchRequest {
        group: group(),
        partitions: None,
        require_stable,
    }
}

impl Driver {
    fn new(config: Config) -> Self {
        Self {
            coordinator: GroupCoordinator::new(config.clone()),
            journal: Vec::new(),
            replies: Vec::new(),
            now: Now::default(),
            config,
        }
    }

    fn step(&mut self, input: Input) {
        for effect in self.coordinator.step(input, self.now) {
            match effect {
                Effect::AppendJournal {
                    ticket,
                    producer,
                    records,
                    sync,
                } => {
                    assert_eq!(sync, producer.is_none());
                    let base_offset = Offset(i64::try_from(self.journal.len()).unwrap());
                    let id = producer.map_or(ProducerId::NONE, |producer| producer.id);
                    let records = records.into_iter().map(|it| Entry::Record(id, it));
                    self.journal.extend(records);
                    self.step(Input::JournalWritten {
                        ticket,
                        base_offset,
                    });
                }
                Effect::Reply { result, .. } => self.replies.push(result.map(drop)),
            }
        }
    }

    fn ask(&mut self, input: Input) -> Result<(), ErrorCode> {
        self.step(input);
        self.replies.pop().expect("every request is answered")
    }

    fn commit(&mut self, number: i32, offset: i64) -> Result<(), ErrorCode> {
        self.ask(Input::Commit {
            request: RequestId(0),
            message: OffsetCommitRequest {
                group: group(),
                member: GroupMember::default(),
                offsets: vec![(partition(number), at(offset))],
            },
        })
    }

    fn txn_commit(&mut self, id: i64, number: i32, offset: i64) -> Result<(), ErrorCode> {
        self.ask(Input::TxnCommit {
            request: RequestId(0),
            message: TxnOffsetCommitRequest {
                transactional_id: TransactionalId::new("job").unwrap(),
                producer: ProducerIdentity {
                    id: ProducerId(id),
                    epoch: ProducerEpoch(0),
                },
                group: group(),
                member: GroupMember::default(),
                offsets: vec![(partition(number), at(offset))],
            },
        })
    }

    fn marker(&mut self, id: i64, result: TransactionResult) {
        self.journal.push(Entry::Marker(ProducerId(id), result));
        self.step(Input::Marker {
            producer_id: ProducerId(id),
            result,
        });
    }

    fn delete(&mut self) -> Result<(), ErrorCode> {
        self.ask(Input::DeleteGroup {
            request: RequestId(0),
            group: group(),
        })
    }

    fn reopen(&mut self) {
        self.coordinator = GroupCoordinator::new(self.config.clone());
        for (entry, offset) in self.journal.iter().zip(0..) {
            match entry {
                Entry::Record(id, record) => self
                    .coordinator
                    .replay(
                        *id,
                        Offset(offset),
                        &record.key,
                        record.value.as_deref(),
                        self.now,
                    )
                    .unwrap(),
                Entry::Marker(id, result) => self.coordinator.replay_marker(*id, *result),
            }
        }
    }

    fn positions(&self) -> BTreeMap<i32, i64> {
        let found = self.coordinator.fetch(&fetch_request(false)).unwrap();
        let found = found
            .into_iter()
            .filter_map(|(at, it)| Some((at.partition, it?.offset.0)));
        found.collect()
    }
}

#[test]
fn c27_pending_positions_are_unstable_until_the_marker() {
    for (result, expected) in [(COMMIT, 20), (ABORT, 10)] {
        let mut driver = Driver::new(Config::default());
        driver.commit(0, 10).unwrap();
        driver.txn_commit(5, 0, 20).unwrap();
        for _ in 0..2 {
            assert_eq!(driver.positions(), [(0, 10)].into());
            let stable = driver.coordinator.fetch(&fetch_request(true));
            assert_eq!(stable, Err(ErrorCode::UnstableOffsetCommit));
            driver.reopen();
        }
        driver.marker(5, result);
        for _ in 0..2 {
            assert_eq!(driver.positions(), [(0, expected)].into());
            assert!(driver.coordinator.fetch(&fetch_request(true)).is_ok());
            driver.reopen();
        }
    }
}

#[test]
fn a_partition_that_is_not_pending_is_stable() {
    let mut driver = Driver::new(Config::default());
    driver.txn_commit(5, 0, 20).unwrap();
    let mut request = fetch_request(true);
    request.partitions = Some(vec![partition(1)]);
    let found = driver.coordinator.fetch(&request).unwrap();
    assert_eq!(found, [(partition(1), None)]);
}

#[test]
fn the_record_that_stands_later_wins_over_a_marker_that_comes_later() {
    let mut driver = Driver::new(Config::default());
    driver.txn_commit(5, 0, 20).unwrap();
    driver.commit(0, 30).unwrap();
    driver.marker(5, COMMIT);
    assert_eq!(driver.positions(), [(0, 30)].into());
    driver.reopen();
    assert_eq!(driver.positions(), [(0, 30)].into());
}

#[test]
fn a_group_is_deleted_unless_a_transaction_holds_it() {
    let mut driver = Driver::new(Config::default());
    assert_eq!(driver.delete(), Err(ErrorCode::GroupIdNotFound));
    driver.commit(0, 10).unwrap();
    driver.txn_commit(5, 1, 20).unwrap();
    assert_eq!(driver.delete(), Err(ErrorCode::UnstableOffsetCommit));
    let shown = driver.coordinator.describe(&group()).unwrap();
    assert_eq!(shown.offsets, [(partition(0), at(10))]);
    assert_eq!(shown.pending, [(ProducerId(5), partition(1), at(20))]);
    driver.marker(5, COMMIT);
    driver.delete().unwrap();
    assert_eq!(driver.coordinator.list().count(), 0);
    driver.reopen();
    assert_eq!(driver.coordinator.describe(&group()), None);
}

#[test]
fn a_deleted_topic_takes_its_pending_positions_along() {
    let mut driver = Driver::new(Config::default());
    driver.commit(0, 10).unwrap();
    driver.txn_commit(5, 1, 20).unwrap();
    driver.step(Input::TopicDeleted {
        topic: partition(0).topic,
    });
    driver.marker(5, COMMIT);
    assert_eq!(driver.positions(), [].into());
    driver.reopen();
    assert_eq!(driver.positions(), [].into());
}

#[test]
fn positions_expire_only_when_that_is_configured() {
    let retention = Duration::from_secs(100);
    for (offsets_retention, is_kept) in [(None, true), (Some(retention), false)] {
        let mut driver = Driver::new(Config {
            offsets_retention,
            ..Config::default()
        });
        driver.commit(0, 10).unwrap();
        driver.now.instant = driver.now.instant.plus(Duration::from_secs(99));
        driver.step(Input::Tick);
        assert_eq!(driver.positions().len(), 1);
        // C24: the wall clock has no say.
        driver.now.wall = Timestamp(i64::MAX);
        driver.step(Input::Tick);
        assert_eq!(driver.positions().len(), 1);
        driver.now.instant = driver.now.instant.plus(Duration::from_secs(1));
        driver.step(Input::Tick);
        assert_eq!(driver.positions().len(), usize::from(is_kept));
    }
}

#[test]
fn bad_requests_are_refused_before_the_journal() {
    let mut driver = Driver::new(Config::default());
    assert_eq!(driver.commit(0, -1), Err(ErrorCode::InvalidRequest));
    let member = GroupMember {
        generation: 3,
        ..GroupMember::default()
    };
    let stale = driver.ask(Input::Commit {
        request: RequestId(0),
        message: OffsetCommitRequest {
            group: group(),
            member,
            offsets: vec![(partition(0), at(1))],
        },
    });
    assert_eq!(stale, Err(ErrorCode::IllegalGeneration));
    let long = CommittedOffset {
        metadata: "x".repeat(4097),
        ..at(1)
    };
    let too_long = driver.ask(Input::Commit {
        request: RequestId(0),
        message: OffsetCommitRequest {
            group: group(),
            member: GroupMember::default(),
            offsets: vec![(partition(0), long)],
        },
    });
    assert_eq!(too_long, Err(ErrorCode::InvalidRequest));
    assert!(driver.journal.is_empty());
}

#[test]
fn a_failed_append_changes_nothing() {
    let mut coordinator = GroupCoordinator::new(Config::default());
    let effects = coordinator.step(
        Input::Commit {
            request: RequestId(1),
            message: OffsetCommitRequest {
                group: group(),
                member: GroupMember::default(),
                offsets: vec![(partition(0), at(1))],
            },
        },
        Now::default(),
    );
    let [Effect::AppendJournal { ticket, .. }] = effects[..] else {
        panic!("{effects:?}");
    };
    let error = ErrorCode::KafkaStorageError;
    let effects = coordinator.step(Input::JournalFailed { ticket, error }, Now::default());
    let (request, result) = (RequestId(1), Err(error));
    assert_eq!(effects, [Effect::Reply { request, result }]);
    assert_eq!(coordinator.list().count(), 0);
}

#[derive(Debug, Clone)]
enum Operation {
    Commit(i32, i64),
    TxnCommit(i64, i32, i64),
    Marker(i64, bool),
    Delete,
    Reopen,
    /// Loses the end of the journal that no reply has promised.
    Crash,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        3 => (0..3, 0i64..100).prop_map(|(at, to)| Operation::Commit(at, to)),
        4 => (0i64..3, 0..3, 0i64..100).prop_map(|(id, at, to)| Operation::TxnCommit(id, at, to)),
        3 => (0i64..3, any::<bool>()).prop_map(|(id, commits)| Operation::Marker(id, commits)),
        1 => Just(Operation::Delete),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Crash),
    ]
}

/// Committed positions by partition, each with its place in the journal; and the pending ones.
#[derive(Debug, Default, Clone, PartialEq)]
struct Model {
    committed: BTreeMap<i32, (usize, i64)>,
    pending: BTreeMap<i64, BTreeMap<i32, (usize, i64)>>,
}

impl Model {
    fn apply(&mut self, operation: &Operation, place: usize) {
        match operation {
            Operation::Commit(at, to) => {
                self.committed.insert(*at, (place, *to));
            }
            Operation::TxnCommit(id, at, to) => {
                self.pending
                    .entry(*id)
                    .or_default()
                    .insert(*at, (place, *to));
            }
            Operation::Marker(id, commits) => {
                for (at, new) in self.pending.remove(id).unwrap_or_default() {
                    let old = self.committed.get(&at);
                    if *commits && old.is_none_or(|old| old.0 < new.0) {
                        self.committed.insert(at, new);
                    }
                }
            }
            Operation::Delete if self.pending.is_empty() => self.committed.clear(),
            Operation::Delete | Operation::Reopen => {}
            // The embedded process lost its transactions: they are rolled back by markers.
            Operation::Crash => self.pending.clear(),
        }
    }

    fn positions(&self) -> BTreeMap<i32, i64> {
        self.committed
            .iter()
            .map(|(at, (_, to))| (*at, *to))
            .collect()
    }
}

proptest! {
    #[test]
    fn positions_follow_the_model_through_crashes(operations in prop::collection::vec(operation(), 1..60)) {
        let mut driver = Driver::new(Config::default());
        let mut model = Model::default();
        for operation in &operations {
            model.apply(operation, driver.journal.len());
            match operation {
                Operation::Commit(at, to) => driver.commit(*at, *to).unwrap(),
                Operation::TxnCommit(id, at, to) => driver.txn_commit(*id, *at, *to).unwrap(),
                Operation::Marker(id, true) => driver.marker(*id, COMMIT),
                Operation::Marker(id, false) => driver.marker(*id, ABORT),
                Operation::Delete => { let _ = driver.delete(); }
                Operation::Reopen => driver.reopen(),
                Operation::Crash => {
                    driver.reopen();
                    (0..3).for_each(|id| driver.marker(id, ABORT));
                }
            }
            prop_assert_eq!(driver.positions(), model.positions());
            let is_stable = driver.coordinator.fetch(&fetch_request(true)).is_ok();
            prop_assert_eq!(is_stable, model.pending.is_empty());
        }
    }
}

//! The journal of decisions: what an interrupted abort leaves, what compaction keeps, and what rot and copies do to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::faults::{Told, check, prepared, run};
use super::support::{
    Producer, committed, open_simulated, partition, read_committed, try_open_simulated,
};
use crate::coordinator::Now;
use crate::coordinator::transaction::{Config, Found, Input, Residence, TransactionCoordinator};
use crate::coordinator::transaction_log::{Key, TransactionRecord};
use crate::env::simulated::{Call, Fault, FaultEffect, PowerLoss, SimulatedWorld};
use crate::env::{Env, OpenMode};
use crate::log::{AppendOrigin, CleanupPolicy, LogConfig, PartitionLog, RecoveryMarks, dump};
use crate::protocol::ErrorKind;
use crate::protocol::batch::{
    Batch, BatchBuilder, BatchProducer, Batches, Compression, ControlType, DecompressionLimit,
};
use crate::protocol::messages::{TransactionResult, TransactionState};
use crate::types::{
    EpochAtEnd, Isolation, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Timestamp, TopicId,
    TransactionalId,
};

const JOURNAL: &str = "/data/log/__transaction_state-0/00000000000000000000.log";

fn batches(env: &Env, partition: &str) -> Vec<Batch> {
    let mut batches = Vec::new();
    let dir = PathBuf::from("/data/log").join(partition);
    dump(env, &dir, &mut |dumped| {
        batches.push(dumped.batch);
        true
    })
    .unwrap();
    batches
}

/// The states that the journal holds of the transactional id `p`, in order, with the producer of each.
fn states(env: &Env) -> Vec<(TransactionState, ProducerIdentity)> {
    let mut states = Vec::new();
    for batch in batches(env, "__transaction_state-0") {
        let mut records = batch.records(&DecompressionLimit::default()).unwrap();
        while let Some(record) = records.next() {
            let record = record.unwrap();
            let key = Key::decode(record.key.unwrap()).unwrap();
            if let (Key::Transaction(_), Some(value)) = (key, record.value) {
                let value = TransactionRecord::decode(value).unwrap();
                states.push((value.state, value.producer));
            }
        }
    }
    states
}

fn aborts(env: &Env, partition: &str) -> Vec<ProducerIdentity> {
    let markers = batches(env, partition).into_iter().filter(|batch| {
        let control = batch.control().unwrap();
        control.is_some_and(|control| control.kind == ControlType::Abort)
    });
    markers.map(|batch| batch.header().producer).collect()
}

fn has_data(env: &Env, partition: &str, producer: ProducerIdentity) -> bool {
    let batches = batches(env, partition);
    let mut headers = batches.iter().map(Batch::header);
    headers.any(|header| header.producer == producer && !header.is_control())
}

/// Part of an abort on the disk when the power failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reached {
    Undecided,
    Decided,
    OneMarker,
    AllMarkers,
    Complete,
}

fn reached(env: &Env) -> Reached {
    let decisions = states(env);
    let decided = decisions
        .iter()
        .filter(|(state, _)| *state == TransactionState::PrepareAbort)
        .count();
    let is_complete = decisions
        .iter()
        .any(|(state, _)| *state == TransactionState::CompleteAbort);
    let marked = ["a-0", "b-0", "__consumer_offsets-0"]
        .iter()
        .filter(|name| !aborts(env, name).is_empty())
        .count();
    match (decided, marked, is_complete) {
        (0, 0, _) => Reached::Undecided,
        (0, _, _) => panic!("a marker without its decision"),
        (_, _, true) => Reached::Complete,
        (_, 0, _) => Reached::Decided,
        (_, 3, _) => Reached::AllMarkers,
        (_, _, _) => Reached::OneMarker,
    }
}

#[test]
fn c8_an_explicit_abort_that_is_interrupted_anywhere_is_rolled_forward_as_it_was_decided() {
    let (world, broker) = prepared(8);
    let mut producer = Producer::new(&broker, "p");
    let source = partition("source", 0);
    producer.send(&partition("a", 0), &["kept", "kept"]);
    producer.send(&partition("b", 0), &["kept"]);
    producer.send_offset("g", &source, 1);
    producer.commit();
    world.start_recording();
    producer.send(&partition("a", 0), &["aborted", "aborted"]);
    producer.send(&partition("b", 0), &["aborted"]);
    producer.send_offset("g", &source, 2);
    let identity = producer.identity;
    producer.abort();
    drop((broker, producer));
    let recording = world.stop_recording().unwrap();
    let mut replay = recording.replay();
    let mut seen = std::collections::BTreeMap::new();
    loop {
        let done = replay.done_count() as u64;
        for loss in PowerLoss::every_mode(done).step_by(2) {
            let after = replay.after_power_loss(loss);
            let what = (done, loss);
            // Cut off torn tails first: they hide what is whole from nobody but this test.
            let before = reached(&after.env());
            *seen.entry(before).or_insert(0) += 1;
            let broker = try_open_simulated(&after).unwrap_or_else(|e| panic!("{what:?}: {e}"));
            assert_eq!(read_committed(&broker, "a"), ["kept", "kept"], "{what:?}");
            assert_eq!(read_committed(&broker, "b"), ["kept"], "{what:?}");
            assert_eq!(committed(&broker, "g", &source), Some(1), "{what:?}");
            // The decision stands as it was written: nothing was decided anew, and no marker stands twice.
            let env = after.env();
            let decisions = states(&env);
            let decisions: Vec<_> = decisions
                .iter()
                .filter(|(state, _)| *state == TransactionState::PrepareAbort)
                .collect();
            if before > Reached::Undecided {
                assert_eq!(decisions.len(), 1, "{what:?}, {before:?}");
                for name in ["a-0", "b-0", "__consumer_offsets-0"] {
                    // Nothing of an abort is synced but its decision: its data may be lost, and then needs no marker.
                    let expected =
                        vec![decisions[0].1; usize::from(has_data(&env, name, identity))];
                    assert_eq!(aborts(&env, name), expected, "{what:?}: {name}");
                }
            }
            // Asked again, an abort that was decided is answered as such, and can never become a commit.
            let mut again = Producer::new(&broker, "other");
            again.id = super::support::transactional_id("p");
            again.begin_as(identity);
            let commit = again.try_end(TransactionResult::Commit);
            assert!(commit.is_err(), "{what:?}: aborted, then committed");
            if before > Reached::Undecided {
                again.begin_as(identity);
                again.try_end(TransactionResult::Abort).unwrap();
            }
        }
        if !replay.step() {
            break;
        }
    }
    for point in [
        Reached::Undecided,
        Reached::Decided,
        Reached::OneMarker,
        Reached::AllMarkers,
        Reached::Complete,
    ] {
        assert!(seen.contains_key(&point), "never met {point:?}: {seen:?}");
    }
}

#[test]
fn f9_rot_in_the_journal_is_refused_as_soon_as_a_later_record_says_that_it_was_durable() {
    let (world, broker) = prepared(9);
    let mut told = Told::default();
    run(&broker, &mut told).unwrap();
    // No checkpoint was written: only the journal itself can tell.
    drop(broker);
    let mut position = 0;
    let mut refused_count = 0;
    let whole = world.after_kill();
    let all = batches(&whole.env(), "__transaction_state-0");
    let sizes: Vec<_> = all.iter().map(|batch| batch.bytes().len() as u64).collect();
    for (index, size) in sizes.iter().enumerate() {
        for at in [position, position + 17, position + 62, position + size - 1] {
            let after = world.after_kill();
            after.flip_bit(JOURNAL.as_ref(), at, 3).unwrap();
            let length = |world: &SimulatedWorld| {
                let file = world.env().files.open(JOURNAL.as_ref(), OpenMode::Read);
                file.unwrap().length_bytes().unwrap()
            };
            let before = length(&after);
            match try_open_simulated(&after) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    let place = format!("byte {position}");
                    assert!(error.message.contains(&place), "{at}: {error}");
                    assert_eq!(length(&after), before, "it was cut");
                    refused_count += 1;
                }
                Ok(broker) => {
                    // The last record, which nobody waited for: it was never synced.
                    assert_eq!(index, sizes.len() - 1, "byte {at} of {position}");
                    check(&broker, &told, &at);
                }
            }
        }
        position += size;
    }
    assert!(refused_count >= 4 * (sizes.len() - 1));
}

#[test]
fn f9_f3_a_tail_of_the_journal_that_was_never_synced_is_cut_though_whole_records_follow() {
    let (world, broker) = prepared(3);
    let mut producer = Producer::new(&broker, "p");
    let before = batches(&world.env(), "__transaction_state-0").len();
    // Joining partitions is journalled, but nobody waits for it.
    for index in 0..2 {
        producer.send(&partition(["a", "b"][index], 0), &["open"]);
    }
    let all = batches(&world.env(), "__transaction_state-0");
    assert!(all.len() >= before + 2);
    drop((broker, producer));
    let position: usize = all[..before].iter().map(|batch| batch.bytes().len()).sum();
    let after = world.after_kill();
    after
        .flip_bit(JOURNAL.as_ref(), position as u64 + 62, 3)
        .unwrap();
    let broker = open_simulated(&after);
    assert!(read_committed(&broker, "a").is_empty());
    check(&broker, &Told::default(), &"an unsynced tail");
}

/// Copies a directory, file by file, running `meanwhile` before each.
fn copy(from: &Env, to: &Env, dir: &Path, order: &[&str], meanwhile: &mut dyn FnMut()) {
    to.files.create_dir(dir).unwrap();
    let mut entries = from.files.read_dir(dir).unwrap();
    let rank = |name: &str| order.iter().position(|first| name == *first);
    entries.sort_by_key(|entry| rank(&entry.name).unwrap_or(order.len()));
    for entry in entries {
        let path = dir.join(&entry.name);
        meanwhile();
        if entry.is_dir {
            copy(from, to, &path, order, meanwhile);
            continue;
        }
        let Ok(bytes) = from.files.read(&path, 1 << 30) else {
            continue;
        };
        let file = to.files.open(&path, OpenMode::OpenOrCreate).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
    to.files.sync_dir(dir).unwrap();
}

#[test]
fn f24_a_directory_copied_while_it_is_in_use_opens_untorn_or_is_refused() {
    let names = [
        "a-0",
        "b-0",
        "__transaction_state-0",
        "__consumer_offsets-0",
    ];
    let (mut opened, mut refused) = (0, 0);
    for first in 0..names.len() {
        for second in (0..names.len()).filter(|&second| second != first) {
            for transactions in [0, 1, 2] {
                let (world, broker) = prepared(24);
                let mut producer = Producer::new(&broker, "p");
                let mut count = 0;
                let mut work = || {
                    for _ in 0..transactions {
                        count += 1;
                        let value = count.to_string();
                        producer.send(&partition("a", 0), &[&value, &value]);
                        producer.send(&partition("b", 0), &[&value]);
                        producer.send_offset("g", &partition("source", 0), count);
                        producer.commit();
                    }
                };
                work();
                let other = SimulatedWorld::new(25);
                let order = ["log", names[first], names[second]];
                copy(
                    &world.env(),
                    &other.env(),
                    "/data".as_ref(),
                    &order,
                    &mut work,
                );
                let Ok(broker) = try_open_simulated(&other) else {
                    refused += 1;
                    continue;
                };
                let read = |topic: &str| -> Option<Vec<String>> {
                    broker
                        .describe_partitions(&super::support::topic_name(topic))
                        .unwrap()[0]
                        .offline
                        .is_none()
                        .then(|| read_committed(&broker, topic))
                };
                // A partition that is offline is refused by itself.
                let (Some(a), Some(b)) = (read("a"), read("b")) else {
                    refused += 1;
                    continue;
                };
                let what = (order, transactions);
                let twice: Vec<_> = b.iter().flat_map(|v| [v.clone(), v.clone()]).collect();
                assert_eq!(a, twice, "{what:?}: torn between topics");
                let position = committed(&broker, "g", &partition("source", 0));
                assert_eq!(
                    position.map(|p| p.to_string()).as_ref(),
                    b.last(),
                    "{what:?}: torn between records and positions"
                );
                opened += 1;
            }
        }
    }
    assert!(
        opened >= 12 && refused > 0,
        "{opened} opened, {refused} refused"
    );
}

#[test]
fn f16_a_disk_that_stalls_costs_time_and_nothing_else() {
    let (world, broker) = prepared(16);
    let stall = |seconds| FaultEffect::Stall(Duration::from_secs(seconds));
    let timeout = Duration::from_secs(30);
    let mut producer = Producer::with_timeout(&broker, "p", timeout);
    // Each sync takes five seconds.
    world.inject(
        Fault::new(stall(5))
            .on(&[Call::SyncData, Call::SyncDir])
            .for_ever(),
    );
    for value in ["1", "2", "3"] {
        let before = world.env().clock.now();
        producer.send(&partition("a", 0), &[value]);
        producer.commit();
        broker.housekeep();
        assert!(world.env().clock.now().since(before) >= Duration::from_secs(10));
    }
    world.clear_faults();
    // One sync of a commit takes longer than the transaction may: the commit began in time, and is finished.
    producer.send(&partition("a", 0), &["4"]);
    world.inject(Fault::new(stall(60)).on(&[Call::SyncData]).in_path("a-0"));
    producer.commit();
    broker.housekeep();
    // A write takes as long: the transaction was still open when its time was over.
    producer.send(&partition("a", 0), &["late"]);
    world.inject(Fault::new(stall(60)).on(&[Call::Write]).in_path("b-0"));
    producer.send(&partition("b", 0), &["late"]);
    broker.housekeep();
    assert!(producer.try_end(TransactionResult::Commit).is_err());
    assert!(world.faults_struck() >= 8);
    assert_eq!(read_committed(&broker, "a"), ["1", "2", "3", "4"]);
    assert!(read_committed(&broker, "b").is_empty());
    drop((broker, producer));
    let broker = open_simulated(&world.after_power_loss(PowerLoss::STRICT));
    assert_eq!(read_committed(&broker, "a"), ["1", "2", "3", "4"]);
}

#[derive(Debug, Clone)]
enum Operation {
    /// Journals a state of an id; `None` is a tombstone.
    Journal {
        id: u8,
        state: Option<u8>,
        epoch: i16,
    },
    Compact,
    /// Compacts, and loses power after so many calls.
    CrashInCompaction {
        calls: u64,
        seed: u64,
    },
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let state = prop::option::weighted(0.9, 0u8..6);
    prop_oneof![
        8 => (0u8..3, state, 0i16..100)
            .prop_map(|(id, state, epoch)| Operation::Journal { id, state, epoch }),
        2 => Just(Operation::Compact),
        1 => (0u64..40, any::<u64>())
            .prop_map(|(calls, seed)| Operation::CrashInCompaction { calls, seed }),
        1 => Just(Operation::Reopen),
    ]
}

type Journal = Vec<(Vec<u8>, Option<Vec<u8>>)>;

const STATES: [TransactionState; 6] = [
    TransactionState::Empty,
    TransactionState::Ongoing,
    TransactionState::PrepareCommit,
    TransactionState::PrepareAbort,
    TransactionState::CompleteCommit,
    TransactionState::CompleteAbort,
];

fn journal_record(id: u8, state: Option<u8>, epoch: i16) -> (Vec<u8>, Option<Vec<u8>>) {
    let name = TransactionalId::new(&format!("id-{id}")).unwrap();
    let value = state.map(|state| {
        let state = STATES[usize::from(state)];
        let has_partitions = matches!(
            state,
            TransactionState::Ongoing
                | TransactionState::PrepareCommit
                | TransactionState::PrepareAbort
        );
        let partitions = has_partitions.then(|| partition("a", i32::from(epoch % 4)));
        let record = TransactionRecord {
            producer: ProducerIdentity {
                id: ProducerId(i64::from(id)),
                epoch: ProducerEpoch(epoch),
            },
            last: None,
            next_producer_id: ProducerId::NONE,
            timeout_ms: 60_000,
            state,
            partitions: partitions.into_iter().collect(),
            last_update: Timestamp(5),
            start: Timestamp(4),
            last_commit: None,
            durable_ends: Vec::new(),
            epochs: EpochAtEnd::Bumped,
            opening: 0,
            // Its open transactions are aborted, which is to be compared, too.
            holder: Residence::Embedded,
        };
        record.encode().to_vec()
    });
    (Key::Transaction(name).encode().to_vec(), value)
}

/// Replays; returns the coordinator's state, and all that it then does about what is undecided.
fn replayed(journal: &Journal) -> (Vec<String>, Vec<String>) {
    let mut coordinator = TransactionCoordinator::new(Config::default());
    for (key, value) in journal {
        coordinator
            .replay(key, value.as_deref(), Now::default())
            .unwrap();
    }
    let mut known: Vec<_> = coordinator.list().map(|it| format!("{it:?}")).collect();
    known.sort();
    let effects = coordinator.step(Input::ReplayDone(Found::default()), Now::default());
    let mut effects: Vec<_> = effects.iter().map(|effect| format!("{effect:?}")).collect();
    effects.sort();
    (known, effects)
}

fn read_journal(log: &PartitionLog) -> Journal {
    let mut journal = Journal::new();
    let mut next = log.log_start_offset();
    loop {
        let plan = log.plan_read(next, 1 << 20, Isolation::ReadUncommitted);
        let records = plan.unwrap().execute().unwrap().records;
        let before = next;
        for batch in Batches::new(records) {
            let batch = batch.unwrap();
            next = batch.header().next_offset();
            let mut records = batch.records(&DecompressionLimit::default()).unwrap();
            while let Some(record) = records.next() {
                let record = record.unwrap();
                let key = record.key.unwrap().to_vec();
                journal.push((key, record.value.map(<[u8]>::to_vec)));
            }
        }
        if next == before {
            return journal;
        }
    }
}

fn journal_config() -> LogConfig {
    LogConfig {
        cleanup: CleanupPolicy::Compact,
        segment_bytes: 500,
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    }
}

/// Runs the operations on a real log; whatever was journalled, its replay must equal that of the whole history.
fn check_journal(operations: Vec<Operation>) {
    let dir = Path::new("/__transaction_state-0");
    let mut world = SimulatedWorld::new(25);
    let mut log = PartitionLog::create(&world.env(), dir, TopicId(1), journal_config()).unwrap();
    let mut history = Journal::new();
    for operation in operations {
        let mut reopened = None;
        match operation {
            Operation::Journal { id, state, epoch } => {
                let (key, value) = journal_record(id, state, epoch);
                let mut builder = BatchBuilder::new(Compression::None, None);
                builder.push(Timestamp(1), Some(&key), value.as_deref());
                let batch = builder.finish(BatchProducer::Plain).freeze();
                log.append(batch, AppendOrigin::Coordinator).unwrap();
                if let Some(plan) = log.plan_sync() {
                    plan.execute().unwrap();
                    log.synced(&plan);
                }
                history.push((key, value));
            }
            Operation::Compact => {
                log.compact(Timestamp(10)).unwrap();
            }
            Operation::CrashInCompaction { calls, seed } => {
                world.power_off_after(calls);
                let _ = log.compact(Timestamp(10));
                let modes: Vec<_> = PowerLoss::every_mode(seed).collect();
                let mode = usize::try_from(seed % modes.len() as u64).unwrap();
                reopened = Some(world.after_power_loss(modes[mode]));
            }
            Operation::Reopen => reopened = Some(world.after_kill()),
        }
        if let Some(after) = reopened {
            let marks = RecoveryMarks {
                durable_end: Offset(i64::try_from(history.len()).unwrap()),
                ..RecoveryMarks::default()
            };
            world = after;
            log = PartitionLog::open(&world.env(), dir, journal_config(), marks)
                .unwrap()
                .0;
        }
        assert_eq!(replayed(&read_journal(&log)), replayed(&history));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn c25_the_journal_compacted_at_any_time_and_through_power_losses_replays_to_the_same_decisions(
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        check_journal(operations);
    }
}

#[test]
fn c25_the_record_of_a_decision_that_is_not_complete_is_still_there_after_any_compaction() {
    let mut operations = Vec::new();
    let prepare_commit = Some(2);
    operations.push(Operation::Journal {
        id: 0,
        state: prepare_commit,
        epoch: 7,
    });
    for epoch in 0..60 {
        operations.push(Operation::Journal {
            id: 1,
            state: Some(1),
            epoch,
        });
        if epoch % 20 == 19 {
            operations.push(Operation::Compact);
        }
    }
    check_journal(operations);
}

//! One partition's log through every power loss: what was synced stays, the torn tail goes, the rest agrees.

use std::path::Path;

use bytes::Bytes;
use onceflow::internals::protocol::batch::{BatchProducer, ControlRecord, ControlType};
use onceflow::internals::{AppendOrigin, LogConfig, LogError, PartitionLog, RecoveryMarks};
use onceflow::testing::Env;
use onceflow::testing::{PowerLoss, Recording, Replay, SimulatedWorld};
use onceflow::types::{
    Isolation, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, TopicId,
};

use super::{ALL_MODES, at_every_change, at_every_state};
use crate::support::records::{Seen, all_records, batch, committed_records};

const TOPIC: TopicId = TopicId(7);

pub(super) fn dir() -> &'static Path {
    Path::new("/log/t-0")
}

pub(super) fn config() -> LogConfig {
    let mut config = LogConfig::default();
    config.segment_bytes = 3000;
    config.index_interval_bytes = 200;
    config
}

pub(super) fn producer(id: i64, epoch: i16) -> ProducerIdentity {
    ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    }
}

/// Knowledge of the script after a number of changes.
#[derive(Debug, Clone, Default)]
struct Known {
    changes_count: usize,
    /// One past the last offset that a sync was acknowledged for; `None` before the log was created.
    synced_end: Option<Offset>,
}

/// A recorded run of one partition, and what it wrote.
struct Script {
    recording: Recording,
    known: Vec<Known>,
    /// All records in order, and those that a reader at `read_committed` sees in the end.
    all: Vec<Seen>,
    committed: Vec<Seen>,
    log_end: Offset,
    /// The idempotent producer's batches, with the offset of each.
    idempotent: Vec<(Bytes, Offset)>,
}

/// Writes to a partition what an idempotent producer and two transactional ones would, one committing and one aborting.
struct Writer {
    world: SimulatedWorld,
    log: PartitionLog,
    known: Vec<Known>,
    all: Vec<Seen>,
    idempotent: Vec<(Bytes, Offset)>,
    next_sequence: Sequence,
}

impl Writer {
    fn append(&mut self, producer: BatchProducer, round: usize, lengths: &[usize]) -> Offset {
        let value =
            |(index, length): (usize, &usize)| format!("{round}.{index}.{}", "x".repeat(*length));
        let values: Vec<String> = lengths.iter().enumerate().map(value).collect();
        let bytes = batch(producer, &values);
        let appended = self
            .log
            .append(bytes.clone(), AppendOrigin::Client)
            .unwrap();
        for (offset, value) in (appended.base_offset.0..).zip(values) {
            let offset = Offset(offset);
            self.all.push(Seen { offset, value });
        }
        if matches!(producer, BatchProducer::Idempotent(..)) {
            self.idempotent.push((bytes, appended.base_offset));
        }
        appended.base_offset
    }

    fn sync(&mut self) {
        if let Some(plan) = self.log.plan_sync() {
            plan.execute().unwrap();
            self.log.synced(&plan);
        }
        self.known.push(Known {
            changes_count: self.world.changes_count(),
            synced_end: Some(self.log.synced_end()),
        });
    }

    fn round(&mut self, round: usize) {
        let epoch = i16::try_from(round).unwrap();
        let identity = producer(1, 0);
        let lengths = [[40, 90].as_slice(), &[500], &[10, 10, 700]][round % 3];
        self.append(
            BatchProducer::Idempotent(identity, self.next_sequence),
            round,
            lengths,
        );
        self.next_sequence = self
            .next_sequence
            .plus(i32::try_from(lengths.len()).unwrap());
        let (commits, aborts) = (producer(2, epoch), producer(3, epoch));
        self.append(
            BatchProducer::Transactional(commits, Sequence::ZERO),
            100 + round,
            &[60, 60],
        );
        self.append(
            BatchProducer::Transactional(aborts, Sequence::ZERO),
            200 + round,
            &[300],
        );
        if round.is_multiple_of(2) {
            self.sync();
        }
        self.mark(commits, ControlType::Commit);
        self.mark(aborts, ControlType::Abort);
    }

    fn mark(&mut self, producer: ProducerIdentity, kind: ControlType) {
        let bumped = ProducerIdentity {
            epoch: ProducerEpoch(producer.epoch.0 + 1),
            ..producer
        };
        let marker = ControlRecord {
            kind,
            coordinator_epoch: 0,
        };
        self.log.append_marker(bumped, marker).unwrap();
    }
}

/// A world with the parent directory that a partition needs.
pub(super) fn prepared_world(seed: u64) -> SimulatedWorld {
    let world = SimulatedWorld::new(seed);
    let files = world.env().files;
    files.create_dir(Path::new("/log")).unwrap();
    files.sync_dir(Path::new("/")).unwrap();
    world
}

fn run_script() -> Script {
    let world = prepared_world(1);
    world.start_recording();
    let log = PartitionLog::create(&world.env(), dir(), TOPIC, config()).unwrap();
    let mut writer = Writer {
        log,
        known: vec![Known::default()],
        all: Vec::new(),
        idempotent: Vec::new(),
        next_sequence: Sequence::ZERO,
        world: world.clone(),
    };
    writer.sync();
    for round in 0..12 {
        writer.round(round);
    }
    writer.sync();
    let committed = read_committed(&writer.log);
    let log_end = writer.log.log_end_offset();
    assert!(
        writer.log.segments_count() > 3,
        "the script must roll segments"
    );
    writer.log.close().unwrap();
    Script {
        recording: world.stop_recording().unwrap(),
        known: writer.known,
        all: writer.all,
        committed,
        log_end,
        idempotent: writer.idempotent,
    }
}

impl Script {
    /// The synced end that had been acknowledged when this many changes were made.
    fn synced_end(&self, changes_count: usize) -> Option<Offset> {
        let known = self
            .known
            .iter()
            .filter(|known| known.changes_count <= changes_count);
        known.filter_map(|known| known.synced_end).max()
    }

    fn all_below(&self, end: Offset) -> Vec<Seen> {
        let all = self.all.iter().filter(|seen| seen.offset < end);
        all.cloned().collect()
    }

    fn committed_below(&self, end: Offset) -> Vec<Seen> {
        let committed = self.committed.iter().filter(|seen| seen.offset < end);
        committed.cloned().collect()
    }
}

fn fetch_all(log: &PartitionLog, isolation: Isolation) -> Vec<onceflow::client::FetchedRecords> {
    let mut fetched = Vec::new();
    let mut from = log.log_start_offset();
    loop {
        let plan = log.plan_read(from, 2000, isolation).unwrap();
        let part = plan.execute().unwrap();
        let Some(last) =
            onceflow::internals::protocol::batch::Batches::new(part.records.clone()).last()
        else {
            return fetched;
        };
        from = last.unwrap().header().next_offset();
        fetched.push(part);
    }
}

pub(super) fn read_all(log: &PartitionLog) -> Vec<Seen> {
    let fetched = fetch_all(log, Isolation::ReadUncommitted);
    fetched
        .into_iter()
        .flat_map(|part| all_records(part.records))
        .collect()
}

fn read_committed(log: &PartitionLog) -> Vec<Seen> {
    let fetched = fetch_all(log, Isolation::ReadCommitted);
    fetched.iter().flat_map(committed_records).collect()
}

pub(super) fn open(env: &Env, durable_end: Offset) -> Result<PartitionLog, LogError> {
    let marks = RecoveryMarks {
        durable_end,
        ..RecoveryMarks::default()
    };
    PartitionLog::open(env, dir(), config(), marks).map(|(log, _)| log)
}

/// Everything that must hold of a log that was opened after a power loss.
fn check_opened(script: &Script, log: &PartitionLog, synced_end: Offset) {
    let end = log.log_end_offset();
    assert!(
        end >= synced_end,
        "synced up to {synced_end}, but the log ends at {end} (I9)"
    );
    assert!(end <= script.log_end);
    // What opening found, it synced: it is all visible, and it is what was written.
    assert_eq!(log.high_watermark(), end);
    assert_eq!(read_all(log), script.all_below(end));
    let stable = log.last_stable_offset();
    let open = log.first_open_transaction().unwrap_or(end);
    assert_eq!(
        stable, open,
        "the last stable offset stands at the first open transaction (I5)"
    );
    assert_eq!(read_committed(log), script.committed_below(stable));
}

/// The last five batches of the idempotent producer are known, and the log goes on (I6).
fn check_goes_on(script: &Script, log: &mut PartitionLog) {
    let end = log.log_end_offset();
    let survived = script.idempotent.iter().filter(|(_, offset)| *offset < end);
    for (bytes, offset) in survived.rev().take(5) {
        let again = log.append(bytes.clone(), AppendOrigin::Client).unwrap();
        assert!(again.is_duplicate);
        assert_eq!(again.base_offset, *offset);
    }
    assert_eq!(log.log_end_offset(), end);
    let more = log
        .append(batch(BatchProducer::Plain, &["more"]), AppendOrigin::Client)
        .unwrap();
    assert_eq!(more.base_offset, end);
}

/// Opens what a power loss left, checks it, goes on, and checks again after another restart.
fn check(script: &Script, replay: &Replay<'_>, loss: PowerLoss) {
    let synced_end = script.synced_end(replay.done_count());
    let world = replay.after_power_loss(loss);
    let opened = open(&world.env(), synced_end.unwrap_or(Offset::ZERO));
    let Some(synced_end) = synced_end else {
        // The creation was never acknowledged: whether it is there is chance, but not that it does harm.
        return drop(opened);
    };
    let mut log = opened.unwrap();
    check_opened(script, &log, synced_end);
    check_goes_on(script, &mut log);
    let plan = log.plan_sync().unwrap();
    plan.execute().unwrap();
    log.synced(&plan);
    let end = log.log_end_offset();
    drop(log);
    // Nothing that opening did may rest on something that it did not sync.
    let again = world.after_power_loss(PowerLoss::STRICT);
    let log = open(&again.env(), end).unwrap();
    assert_eq!(log.log_end_offset(), end);
    let mut seen = read_all(&log);
    let more = seen.pop().unwrap();
    assert_eq!(more.value, "more");
    assert_eq!(seen, script.all_below(more.offset));
}

#[test]
fn f1_f3_f4_f5_f10_a_partition_survives_power_loss_at_every_change() {
    let script = run_script();
    let synced_end = |changes_count| script.synced_end(changes_count);
    at_every_state(&script.recording, synced_end, |replay, loss| {
        check(&script, replay, loss)
    });
}

/// Opens the log of `world` up to five times, each time losing power again somewhere on the way.
fn interrupt_opening(world: SimulatedWorld, durable_end: Offset, seed: u64) -> SimulatedWorld {
    let mut world = world;
    for attempt in 0..5 {
        world.start_recording();
        drop(open(&world.env(), durable_end).unwrap());
        let recording = world.stop_recording().unwrap();
        let steps_count = (seed + attempt * 7) % (recording.changes_count() as u64 + 1);
        let mut replay = recording.replay();
        for _ in 0..steps_count {
            assert!(replay.step());
        }
        let mut modes = PowerLoss::every_mode(seed ^ attempt);
        let nth = usize::try_from((seed * 11 + attempt * 5) % ALL_MODES as u64).unwrap();
        world = replay.after_power_loss(modes.nth(nth).unwrap());
    }
    world
}

#[test]
fn c9_power_lost_again_while_a_partition_opens_changes_nothing() {
    let script = run_script();
    at_every_change(&script.recording, 4, |replay, loss| {
        let Some(synced_end) = script.synced_end(replay.done_count()) else {
            return;
        };
        let seed = loss.seed * 31 + replay.done_count() as u64;
        let world = interrupt_opening(replay.after_power_loss(loss), synced_end, seed);
        let log = open(&world.env(), synced_end).unwrap();
        check_opened(&script, &log, synced_end);
    });
}

//! The sink under power loss: it fails after every change of the disk, and each committed line is there once.

use std::time::Duration;

use super::*;
use crate::broker::{Broker, BrokerConfig, SyncMode};
use crate::client::{CommitOutcome, InProcess, TransactionalWriter, Transport, wait};
use crate::env::simulated::{PowerLoss, Replay, SimulatedWorld};
use crate::protocol::messages::NewTopic;
use crate::runtime::topics::positions::{Positions, positions_topic, read_positions};
use crate::runtime::{Key, Meta, Origin};
use crate::types::{Offset, Timestamp, TransactionalId};

const OUT: &str = "/out";
const JOB: &str = "copy";
const CYCLES_COUNT: u64 = 5;
const LINES_A_CYCLE: u64 = 3;
const LINES_COUNT: u64 = CYCLES_COUNT * LINES_A_CYCLE;
/// Of the ways to lose power, so many are met at each change; their numbers move on, so that all are met.
const MODES_A_CHANGE: usize = 2;

/// A job of one worker: what drives the sink, and the transactions that its lengths are committed in.
struct Life {
    env: Env,
    transport: Arc<dyn Transport>,
    writers: [TransactionalWriter; 2],
    positions: Positions,
    sink: String,
    writer: FilesWriter<ValueLines>,
    /// The lines that are committed.
    committed: u64,
    cycle: usize,
}

impl Life {
    /// Starts as the runtime does: first the earlier holder of the ids is fenced, then positions are read.
    fn begin(world: &SimulatedWorld, part_bytes: u64) -> Self {
        let env = world.env();
        let config = BrokerConfig {
            sync_mode: SyncMode::Inline,
            ballast_bytes: 0,
            ..BrokerConfig::default()
        };
        let broker = Broker::open(env.clone(), "/data".as_ref(), config).unwrap();
        let transport: Arc<dyn Transport> = Arc::new(InProcess::new(env.clone(), broker.clone()));
        let writers = ["copy-0", "copy-1"].map(|id| {
            let id = TransactionalId::new(id).unwrap();
            let timeout = Duration::from_secs(60);
            wait(TransactionalWriter::init(transport.clone(), id, timeout)).unwrap()
        });
        let topic = positions_topic(JOB).unwrap();
        if broker.topic(&topic).unwrap().is_none() {
            let configs = [("cleanup.policy".to_owned(), "compact".to_owned())];
            let new = NewTopic {
                name: topic.clone(),
                partitions_count: 1,
                configs: configs.into(),
            };
            broker.create_topic(&new).unwrap();
        }
        let named = read_positions(&transport, &topic).unwrap().positions;
        let of_lines = named.position("lines", "all").unwrap();
        let committed = of_lines.map_or(0, |position| u64::try_from(position.offset.0).unwrap());
        let sink = Sink::<str, str>::name(&files(OUT));
        let directory = FileDirectory::open(&env, JOB, OUT.as_ref(), &named.marks(&sink)).unwrap();
        Self {
            sink,
            writer: FilesWriter {
                next_mark: format!("{NEXT}0"),
                directory: Arc::new(directory),
                env: env.clone(),
                part_bytes,
                format: ValueLines,
                lines: Vec::new(),
                part: None,
                covered: Vec::new(),
                sealed: Vec::new(),
            },
            positions: Positions::new(env.clone(), topic, &writers),
            env,
            transport,
            writers,
            committed,
            cycle: 0,
        }
    }

    /// Writes the next lines and commits them, with the position behind them and the lengths of the parts.
    fn commit_lines(&mut self) {
        let to = self.committed + LINES_A_CYCLE;
        for number in self.committed..to {
            let value = line(number);
            let meta = Meta {
                timestamp: Timestamp(0),
                origin: Origin::default(),
            };
            let record: Record<'_, str, str> = Record::new(Key::new(b""), &value, meta);
            self.writer.write(record).unwrap();
        }
        let mut marks = MarkChanges::default();
        let sink: &mut dyn SinkWriter<str, str> = &mut self.writer;
        sink.prepare_commit(&mut marks).unwrap();
        let writer = self.cycle % 2;
        let position = Offset(i64::try_from(to).unwrap());
        let positions = &mut self.positions;
        positions
            .append(writer, "lines", "all", &position.into())
            .unwrap();
        positions.append_marks(writer, &self.sink, &marks).unwrap();
        positions.flush(writer).unwrap();
        let outcome = wait(self.writers[writer].commit()).unwrap();
        assert_eq!(outcome, CommitOutcome::Committed);
        let sink: &mut dyn SinkWriter<str, str> = &mut self.writer;
        sink.commit().unwrap();
        (self.committed, self.cycle) = (to, self.cycle + 1);
    }

    /// Commits what is left, and ends in order.
    fn finish(mut self) {
        while self.committed < LINES_COUNT {
            self.commit_lines();
        }
        let topic = positions_topic(JOB).unwrap();
        let committed = read_positions(&self.transport, &topic).unwrap();
        let marks = committed.positions.marks(&self.sink);
        self.writer.directory.close(&self.env, &marks).unwrap();
    }
}

fn line(number: u64) -> String {
    format!("line {number}")
}

/// The lines of all files, which must be sealed ones.
fn sealed_lines(env: &Env) -> Vec<String> {
    let entries = env.files.read_dir(OUT.as_ref()).unwrap();
    let mut lines = Vec::new();
    for entry in entries {
        assert!(entry.name.starts_with(SEALED), "{} is left", entry.name);
        let path = Path::new(OUT).join(&entry.name);
        let text = String::from_utf8(env.files.read(&path, 1 << 20).unwrap()).unwrap();
        assert!(text.ends_with('\n'), "{} ends within a line", entry.name);
        lines.extend(text.lines().map(str::to_owned));
    }
    lines
}

fn assert_lines(env: &Env, count: u64, what: &str) {
    let expected: Vec<_> = (0..count).map(line).collect();
    assert_eq!(sealed_lines(env), expected, "{what}");
}

/// Checks a start after a crash at which `told` lines were known to be committed, and that the job goes on.
fn check(after: &SimulatedWorld, told: u64, part_bytes: u64, what: &str) {
    let life = Life::begin(after, part_bytes);
    let committed = life.committed;
    assert!(
        committed == told || committed == told + LINES_A_CYCLE,
        "{what}: {committed} lines are committed, {told} were acknowledged"
    );
    assert_lines(&after.env(), committed, what);
    life.finish();
    assert_lines(&after.env(), LINES_COUNT, what);
}

/// Some of the ways to lose power here.
fn losses(replay: &Replay<'_>) -> impl Iterator<Item = PowerLoss> {
    let modes: Vec<_> = PowerLoss::every_mode(replay.done_count() as u64).collect();
    let first = replay.done_count() * MODES_A_CHANGE;
    // Steps of 7 meet all modes, whose number is a power of two.
    (first..first + MODES_A_CHANGE).map(move |index| modes[index * 7 % modes.len()])
}

/// Runs the script with parts of that size, and loses power after each of its changes.
fn lose_power_at_every_change(part_bytes: u64) {
    let world = SimulatedWorld::new(part_bytes);
    world.start_recording();
    let mut life = Life::begin(&world, part_bytes);
    let mut told = vec![(world.changes_count(), 0)];
    while life.committed < LINES_COUNT {
        life.commit_lines();
        told.push((world.changes_count(), life.committed));
    }
    life.finish();
    assert_lines(&world.env(), LINES_COUNT, "without a crash");
    let recording = world.stop_recording().unwrap();
    let mut replay = recording.replay();
    loop {
        let done = replay.done_count();
        let passed = told.iter().rev().find(|(at, _)| *at <= done);
        let told = passed.map_or(0, |(_, lines)| *lines);
        for loss in losses(&replay) {
            let what = format!("parts of {part_bytes} bytes, after change {done}, {loss:?}");
            let after = replay.after_power_loss(loss);
            if done.is_multiple_of(5) {
                // C9: the power fails again while that is recovered from.
                after.power_off_after(done as u64 * 3 % 50);
                let begun = std::panic::AssertUnwindSafe(|| drop(Life::begin(&after, part_bytes)));
                let _ = std::panic::catch_unwind(begun);
                check(&after.after_power_loss(loss), told, part_bytes, &what);
            } else {
                check(&after, told, part_bytes, &what);
            }
        }
        if !replay.step() {
            break;
        }
    }
    assert!(recording.changes_count() > 100);
}

#[test]
fn c1_c3_c9_f1_f10_a_file_a_commit_survives_power_loss_at_every_change() {
    lose_power_at_every_change(0);
}

#[test]
fn c1_c3_c9_f1_f10_files_of_several_commits_survive_power_loss_at_every_change() {
    lose_power_at_every_change(40);
}

#[test]
fn c1_c3_c9_f1_f10_a_file_that_is_never_large_enough_survives_power_loss_at_every_change() {
    lose_power_at_every_change(1 << 20);
}

//! Damage, failing calls, and what is lost beside the log: each found and told, or harmless.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::support::*;
use crate::env::simulated::{Call, Fault, FaultEffect, SimulatedWorld};
use crate::env::{File, OpenMode};
use crate::log::derived;
use crate::log::leftovers::Listing;
use crate::log::names::{self, FileKind};
use crate::log::*;
use crate::protocol::batch::Batches;
use crate::types::{Isolation, Offset, Timestamp};

fn small(world: &SimulatedWorld) -> Place {
    let mut place = Place::new(world);
    place.config.segment_bytes = 500;
    place.config.index_interval_bytes = 100;
    place
}

/// A log with several segments, aborted and open transactions, and an idempotent producer.
fn filled(place: &Place) -> PartitionLog {
    let mut log = place.create();
    for round in 0..6i16 {
        log.put(plain(&["p", "q"])).unwrap();
        log.put(transactional(1, round, 0, &["x"])).unwrap();
        log.put(transactional(2, round, 0, &["y"])).unwrap();
        log.append_marker(producer(1, round + 1), abort()).unwrap();
        log.put(idempotent(3, 0, i32::from(round), &["i"])).unwrap();
        log.append_marker(producer(2, round + 1), commit()).unwrap();
    }
    log.put(transactional(4, 0, 0, &["open"])).unwrap();
    log.sync();
    log
}

/// Everything that a log answers.
#[derive(Debug, PartialEq)]
struct Answers {
    committed: Vec<Vec<Seen>>,
    uncommitted: Vec<Seen>,
    times: Vec<Option<(i64, i64)>>,
    open: Vec<(crate::types::ProducerIdentity, Offset)>,
    marks: (Offset, Offset, Offset),
}

fn answers(log: &PartitionLog) -> Answers {
    let end = log.log_end_offset().0;
    let committed = |from| {
        log.seen_from(Offset(from), 200, Isolation::ReadCommitted)
            .unwrap()
    };
    let time = |at| {
        let found = log.offset_for_timestamp(Timestamp(at), Isolation::ReadUncommitted);
        found
            .unwrap()
            .map(|found| (found.offset.0, found.timestamp.0))
    };
    Answers {
        committed: (0..end).map(committed).collect(),
        uncommitted: log.uncommitted(),
        times: (0..4).map(time).collect(),
        open: log.open_transactions(),
        marks: (
            log.log_start_offset(),
            log.last_stable_offset(),
            log.log_end_offset(),
        ),
    }
}

fn derived_files(place: &Place) -> Vec<PathBuf> {
    let entries = place.env.files.read_dir(&place.dir).unwrap();
    let is_derived = |name: &str| match names::parse(name) {
        names::Name::Live(kind, _) => kind != FileKind::Log,
        _ => name == names::LEADER_EPOCHS,
    };
    let names = entries.into_iter().map(|entry| entry.name);
    names
        .filter(|name| is_derived(name))
        .map(|name| place.dir.join(name))
        .collect()
}

fn rewrite(place: &Place, path: &Path, bytes: &[u8]) {
    let file = place.env.files.open(path, OpenMode::OpenOrCreate).unwrap();
    file.set_length(0).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// Lists damages of a derived file.
fn damages(place: &Place, original: &[u8], other: &[u8]) -> Vec<Option<Vec<u8>>> {
    let half = original.len() / 2;
    let mut flipped = original.to_vec();
    if let Some(byte) = flipped.get_mut(half) {
        *byte ^= 0x40;
    }
    let random: Vec<u8> = (0..original.len())
        .map(|_| place.env.random.next_u64().to_be_bytes()[0])
        .collect();
    let entry_shorter = original[..original.len().saturating_sub(34)].to_vec();
    vec![
        None,
        Some(Vec::new()),
        Some(original[..half].to_vec()),
        Some(entry_shorter),
        Some(vec![0; original.len()]),
        Some(flipped),
        Some(random),
        Some(other.to_vec()),
    ]
}

#[test]
fn f6_c21_any_derived_file_may_be_lost_short_stale_or_random() {
    let world = SimulatedWorld::new(2);
    let place = small(&world);
    filled(&place).close().unwrap();
    let (log, _) = place
        .open_with(RecoveryMarks {
            clean_shutdown: true,
            ..RecoveryMarks::default()
        })
        .unwrap();
    let expected = answers(&log);
    let producers = log
        .producers
        .entries()
        .map(|(id, entry)| (id, entry.window.clone()))
        .collect::<Vec<_>>();
    drop(log);
    let paths = derived_files(&place);
    assert!(paths.len() > 20);
    let originals: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| place.env.files.read(path, 1 << 20).unwrap())
        .collect();
    for (index, path) in paths.iter().enumerate() {
        let original = &originals[index];
        let other = &originals[(index + 5) % originals.len()];
        for damaged in damages(&place, original, other) {
            match &damaged {
                None => place.env.files.remove_file(path).unwrap(),
                Some(bytes) => rewrite(&place, path, bytes),
            }
            let (log, _) = place
                .open_with(RecoveryMarks {
                    clean_shutdown: true,
                    ..RecoveryMarks::default()
                })
                .unwrap();
            assert_eq!(answers(&log), expected, "{} as {damaged:?}", path.display());
            let found = log
                .producers
                .entries()
                .map(|(id, entry)| (id, entry.window.clone()))
                .collect::<Vec<_>>();
            assert_eq!(found, producers, "{} as {damaged:?}", path.display());
            drop(log);
            for (path, bytes) in paths.iter().zip(&originals) {
                rewrite(&place, path, bytes);
            }
        }
    }
    for path in &paths {
        place.env.files.remove_file(path).unwrap();
    }
    let (log, report) = place
        .open_with(RecoveryMarks {
            clean_shutdown: true,
            ..RecoveryMarks::default()
        })
        .unwrap();
    assert_eq!(answers(&log), expected);
    assert!(report.rebuilt_segments_count > 3);
}

#[test]
fn f2_damage_below_the_durable_end_is_refused_with_its_exact_place_and_nothing_is_changed() {
    let world = SimulatedWorld::new(2);
    let place = small(&world);
    let end = filled(&place).log_end_offset();
    for base in [0, 1, 2] {
        let segments = Listing::read(&place.env, &place.dir).unwrap().segments;
        // The first, a middle and the last segment.
        let base_offset = segments[base * (segments.len() - 1) / 2];
        let path = names::path(&place.dir, FileKind::Log, base_offset);
        let before = place.env.files.read(&path, 1 << 20).unwrap();
        let second = Batches::new(before.clone().into())
            .next()
            .unwrap()
            .unwrap()
            .bytes()
            .len();
        world.flip_bit(&path, second as u64 + 62, 3).unwrap();
        derived::remove(&place.env, &place.dir, base_offset).unwrap();
        let damaged = place.env.files.read(&path, 1 << 20).unwrap();
        let error = place
            .open_with(RecoveryMarks {
                durable_end: end,
                ..RecoveryMarks::default()
            })
            .unwrap_err();
        match &error {
            LogError::Corrupt { file, position, .. } => {
                assert_eq!((file, *position), (&path, second as u64), "{error}");
            }
            other => panic!("{other}"),
        }
        assert_eq!(
            place.env.files.read(&path, 1 << 20).unwrap(),
            damaged,
            "the file was changed"
        );
        let report = verify(&place.env, &place.dir).unwrap();
        assert_eq!(report.findings[0].position, second as u64);
        world.flip_bit(&path, second as u64 + 62, 3).unwrap();
        place
            .open_with(RecoveryMarks {
                durable_end: end,
                ..RecoveryMarks::default()
            })
            .unwrap();
        assert!(verify(&place.env, &place.dir).unwrap().is_sound());
    }
}

#[test]
fn f2_missing_ends_and_missing_segments_are_refused() {
    let world = SimulatedWorld::new(2);
    let place = small(&world);
    let end = filled(&place).log_end_offset();
    let marks = RecoveryMarks {
        durable_end: end,
        ..RecoveryMarks::default()
    };
    let segments = Listing::read(&place.env, &place.dir).unwrap().segments;
    let last = names::path(&place.dir, FileKind::Log, segments[segments.len() - 1]);
    let whole = place.env.files.read(&last, 1 << 20).unwrap();
    let first_batch = Batches::new(whole.clone().into())
        .next()
        .unwrap()
        .unwrap()
        .bytes()
        .len();
    for kept in [0, first_batch] {
        world.truncate(&last, kept as u64).unwrap();
        let error = place.open_with(marks).unwrap_err();
        assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
        rewrite(&place, &last, &whole);
    }
    for missing in [segments[1], segments[segments.len() - 1]] {
        let path = names::path(&place.dir, FileKind::Log, missing);
        let bytes = place.env.files.read(&path, 1 << 20).unwrap();
        place.env.files.remove_file(&path).unwrap();
        let error = place.open_with(marks).unwrap_err();
        assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
        rewrite(&place, &path, &bytes);
    }
    for base_offset in &segments {
        place
            .env
            .files
            .remove_file(&names::path(&place.dir, FileKind::Log, *base_offset))
            .unwrap();
    }
    assert!(matches!(
        place.open_with(marks).unwrap_err(),
        LogError::Corrupt { .. }
    ));
}

#[test]
fn f5_an_empty_segment_is_the_new_active_one_or_refused() {
    let world = SimulatedWorld::new(2);
    let place = small(&world);
    let mut log = filled(&place);
    log.roll().unwrap();
    let end = log.log_end_offset();
    let marks = RecoveryMarks {
        durable_end: end,
        ..RecoveryMarks::default()
    };
    assert_eq!(place.open_with(marks).unwrap().0.log_end_offset(), end);
    let segments = Listing::read(&place.env, &place.dir).unwrap().segments;
    let sealed = names::path(&place.dir, FileKind::Log, segments[1]);
    world.truncate(&sealed, 0).unwrap();
    match place.open_with(marks).unwrap_err() {
        LogError::Corrupt { file, position, .. } => assert_eq!((file, position), (sealed, 0)),
        other => panic!("{other}"),
    }
    world.truncate(&place.dir.join(names::METADATA), 0).unwrap();
    assert!(matches!(
        place.open_with(marks).unwrap_err(),
        LogError::Corrupt { .. }
    ));
}

#[test]
fn f3_f4_a_torn_tail_is_cut_at_the_first_bad_batch() {
    let world = SimulatedWorld::new(2);
    let place = Place::new(&world);
    let mut log = place.create();
    for n in 0..4 {
        log.put(idempotent(1, 0, n, &["some value"])).unwrap();
    }
    let size = usize::try_from(log.size_bytes()).unwrap();
    let path = names::path(&place.dir, FileKind::Log, Offset::ZERO);
    let whole = place.env.files.read(&path, 1 << 20).unwrap();
    let batch = size / 4;
    let marks = RecoveryMarks {
        durable_end: Offset(2),
        ..RecoveryMarks::default()
    };
    let opens_with = |bytes: &[u8], records: usize| {
        rewrite(&place, &path, bytes);
        let (mut log, report) = place.open_with(marks).unwrap();
        assert_eq!(log.uncommitted().len(), records);
        assert_eq!(report.cut_bytes, (bytes.len() - records * batch) as u64);
        assert_eq!(
            place.env.files.read(&path, 1 << 20).unwrap(),
            whole[..records * batch]
        );
        let next = i32::try_from(records).unwrap();
        assert!(
            !log.put(idempotent(1, 0, next, &["some value"]))
                .unwrap()
                .is_duplicate
        );
    };
    for kept in 2 * batch..size {
        opens_with(&whole[..kept], kept / batch);
    }
    let mut zeroed = whole.clone();
    zeroed[2 * batch + 30..3 * batch].fill(0);
    opens_with(&zeroed, 2);
    for zeros in [1, 60, 61, 5000] {
        let mut longer = whole.clone();
        longer.resize(size + zeros, 0);
        opens_with(&longer, 4);
    }
    let mut no_length = whole.clone();
    no_length[3 * batch + 8..3 * batch + 12].fill(0);
    opens_with(&no_length, 3);
}

/// A segment in memory.
pub(super) struct MemoryFile(parking_lot::Mutex<Vec<u8>>);

impl MemoryFile {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(parking_lot::Mutex::new(bytes))
    }

    /// Damages a byte, or mends it.
    pub(super) fn flip(&self, at: usize) {
        self.0.lock()[at] ^= 0x40;
    }
}

impl File for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> std::io::Result<usize> {
        let bytes = self.0.lock();
        let from = usize::try_from(position).unwrap().min(bytes.len());
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        Ok(count)
    }
    fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    fn length_bytes(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }
    fn set_length(&self, _: u64) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn start_writeback(&self, _: u64, _: u64) {}
}

#[test]
fn f7_every_flipped_bit_of_a_segment_is_detected_by_a_read() {
    let world = SimulatedWorld::new(2);
    let mut place = Place::new(&world);
    place.config.index_interval_bytes = 0;
    let mut log = place.create();
    let value = "0123456789".repeat(40);
    while log.size_bytes() < 64 << 10 {
        log.put(plain(&[&value])).unwrap();
    }
    log.sync();
    let path = names::path(&place.dir, FileKind::Log, Offset::ZERO);
    let whole = place.env.files.read(&path, 1 << 20).unwrap();
    let file = Arc::new(MemoryFile::new(whole.clone()));
    log.segments[0].pinned = Some(file.clone());
    let mut flips = 0;
    let mut position = 0;
    for batch in Batches::new(whole.clone().into()) {
        let batch = batch.unwrap();
        let from = batch.header().base_offset;
        let end = position + batch.bytes().len();
        for at in position..end {
            for bit in 0..8 {
                file.0.lock()[at] ^= 1 << bit;
                let plan = log.plan_read(from, 1, Isolation::ReadCommitted).unwrap();
                let result = plan.execute();
                assert!(
                    matches!(result, Err(LogError::Corrupt { .. })),
                    "bit {bit} of byte {at}: {result:?}"
                );
                file.0.lock()[at] ^= 1 << bit;
                flips += 1;
            }
        }
        assert!(
            log.plan_read(from, 1, Isolation::ReadCommitted)
                .unwrap()
                .execute()
                .is_ok()
        );
        position += batch.bytes().len();
    }
    assert_eq!(flips, 8 * whole.len());
}

#[test]
fn f8_a_stale_or_misplaced_block_is_never_served() {
    let world = SimulatedWorld::new(2);
    let place = Place::new(&world);
    let mut log = place.create();
    for n in 0..8 {
        log.put(idempotent(1, 0, n, &["value"])).unwrap();
    }
    log.sync();
    let batch = usize::try_from(log.size_bytes()).unwrap() / 8;
    let path = names::path(&place.dir, FileKind::Log, Offset::ZERO);
    let whole = place.env.files.read(&path, 1 << 20).unwrap();
    for from in 0..8 {
        for to in (0..8).filter(|&to| to != from) {
            world
                .overwrite(
                    &path,
                    (to * batch) as u64,
                    &whole[from * batch..(from + 1) * batch],
                )
                .unwrap();
            let result = log.seen_from(Offset::ZERO, 1 << 20, Isolation::ReadCommitted);
            assert!(
                matches!(result, Err(LogError::Corrupt { position, .. }) if position == (to * batch) as u64)
            );
            let marks = RecoveryMarks {
                durable_end: Offset(8),
                ..RecoveryMarks::default()
            };
            assert!(matches!(
                place.open_with(marks),
                Err(LogError::Corrupt { .. })
            ));
            world.overwrite(&path, 0, &whole).unwrap();
        }
    }
}

#[test]
fn f11_after_a_failed_sync_nothing_more_is_acknowledged_until_the_log_is_reopened() {
    let world = SimulatedWorld::new(2);
    let place = Place::new(&world);
    let mut log = place.create();
    log.put(plain(&["kept"])).unwrap();
    log.sync();
    log.put(plain(&["lost"])).unwrap();
    let (first, second) = (log.plan_sync().unwrap(), log.plan_sync().unwrap());
    world.inject(Fault::new(FaultEffect::InputOutput).on(&[Call::SyncData]));
    let error = first.execute().unwrap_err();
    assert!(matches!(error, LogError::Io { .. }));
    assert!(
        second.execute().is_err(),
        "a sync that would succeed on lost pages was tried"
    );
    log.poison(&error.to_string());
    assert!(matches!(
        log.put(plain(&["more"])),
        Err(LogError::Poisoned { .. })
    ));
    assert!(matches!(
        log.append_marker(producer(1, 1), abort()),
        Err(LogError::Poisoned { .. })
    ));
    assert!(log.plan_sync().is_none());
    assert_eq!(log.committed(), numbered(&["kept"]));
    assert!(matches!(log.close(), Err(LogError::Poisoned { .. })));
    let after = world.after_power_loss(crate::env::simulated::PowerLoss::STRICT);
    assert_eq!(place.on(&after).open().committed(), numbered(&["kept"]));
}

#[test]
fn f11_a_failed_sync_within_a_roll_poisons_the_log() {
    for call in [Call::SyncData, Call::SyncDir] {
        let world = SimulatedWorld::new(2);
        let place = small(&world);
        let mut log = place.create();
        log.put(plain(&["a"])).unwrap();
        world.inject(Fault::new(FaultEffect::InputOutput).on(&[call]));
        while log.put(plain(&["b"])).is_ok() {}
        assert!(log.poisoned().is_some());
        assert!(log.plan_sync().is_none());
    }
}

#[test]
fn f12_a_failed_read_is_an_error_with_its_place() {
    let world = SimulatedWorld::new(2);
    let place = Place::new(&world);
    let mut log = filled(&place);
    log.sync();
    world.inject(
        Fault::new(FaultEffect::InputOutput)
            .on(&[Call::Read])
            .after(1),
    );
    let error = log
        .seen_from(Offset(3), 100, Isolation::ReadCommitted)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, LogError::Io { .. }) && text.contains(".log") && text.contains("at byte"),
        "{text}"
    );
    assert!(
        log.seen_from(Offset(3), 100, Isolation::ReadCommitted)
            .is_ok()
    );
}

#[test]
fn f25_a_file_that_is_cut_below_a_reader_is_an_error_with_its_place_and_no_signal() {
    // Real files: if they were mapped into memory, this would end the process with SIGBUS.
    let home = tempfile::tempdir().unwrap();
    let mut place = small(&SimulatedWorld::new(2));
    place.env = crate::env::Env::real();
    place.dir = home.path().join("t-0");
    let log = filled(&place);
    let whole = log.uncommitted();
    let segments = Listing::read(&place.env, &place.dir).unwrap().segments;
    for base_offset in segments {
        let path = names::path(&place.dir, FileKind::Log, base_offset);
        let bytes = place.env.files.read(&path, 1 << 20).unwrap();
        for kept in [0, 30, bytes.len() as u64 / 2] {
            let file = place.env.files.open(&path, OpenMode::Write).unwrap();
            file.set_length(kept).unwrap();
            let result = log.seen_from(base_offset, 1 << 20, Isolation::ReadUncommitted);
            match result.unwrap_err() {
                LogError::Corrupt { file, why, .. } => {
                    assert_eq!(file, path);
                    assert!(why.contains("shorter than it was"), "{why}");
                }
                other => panic!("{other}"),
            }
            file.write_all_at(&bytes, 0).unwrap();
        }
    }
    assert_eq!(log.uncommitted(), whole);
}

#[test]
fn f13_a_full_disk_at_any_write_leaves_no_half_batch_and_the_log_usable() {
    for k in 0.. {
        let world = SimulatedWorld::new(2);
        let place = small(&world);
        let mut log = place.create();
        let writes = [Call::Write, Call::Open, Call::SetLength];
        world.inject(Fault::new(FaultEffect::StorageFull).on(&writes).after(k));
        let mut expected = Vec::new();
        let mut failed = 0;
        for n in 0..12 {
            match log.put(idempotent(1, 0, n, &["v"])) {
                Ok(appended) => expected.push((appended.base_offset.0, "v".to_owned())),
                Err(LogError::StorageFull { .. }) => {
                    failed += 1;
                    let again = log.put(idempotent(1, 0, n, &["v"])).unwrap();
                    expected.push((again.base_offset.0, "v".to_owned()));
                }
                Err(other) => panic!("write {k}: {other}"),
            }
        }
        log.sync();
        assert_eq!(log.committed(), expected);
        log.close().unwrap();
        world.clear_faults();
        assert_eq!(place.open().committed(), expected);
        assert!(failed <= 1);
        if world.faults_struck() == 0 {
            assert!(k > 15);
            break;
        }
    }
}

#[test]
fn f15_short_and_interrupted_calls_lose_and_double_nothing() {
    for effect in [
        FaultEffect::Short(1),
        FaultEffect::Short(700),
        FaultEffect::Interrupted,
    ] {
        let world = SimulatedWorld::new(2);
        let place = small(&world);
        world.inject(Fault::new(effect).on(&[Call::Read, Call::Write]).for_ever());
        let log = filled(&place);
        let expected = answers(&log);
        log.close().unwrap();
        assert_eq!(answers(&place.open()), expected);
        assert!(world.faults_struck() > 100);
    }
}

#[test]
fn f20_leftovers_are_cleaned_and_foreign_files_left_alone() {
    let world = SimulatedWorld::new(2);
    let place = small(&world);
    let log = filled(&place);
    let expected = answers(&log);
    drop(log);
    let leftovers = [
        "00000000000000000000.log.deleted",
        "00000000000000000000.log.cleaned",
        "partition.metadata.tmp",
        "00000000000000000777.index",
    ];
    let foreign = [
        "notes.txt",
        "5.log",
        "00000000000000000001.log.bak",
        ".hidden",
    ];
    for name in leftovers.iter().chain(&foreign) {
        rewrite(&place, &place.dir.join(name), b"anything");
    }
    place
        .env
        .files
        .create_dir(&place.dir.join("00000000000000000009.log"))
        .unwrap();
    assert_eq!(answers(&place.open()), expected);
    for name in leftovers {
        assert!(
            !place.env.files.exists(&place.dir.join(name)).unwrap(),
            "{name}"
        );
    }
    for name in foreign {
        assert!(
            place.env.files.exists(&place.dir.join(name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn a_directory_of_a_newer_release_is_refused() {
    let world = SimulatedWorld::new(2);
    let place = small(&world);
    filled(&place);
    rewrite(
        &place,
        &place.dir.join(names::METADATA),
        b"version: 1\ntopic_id: AAAAAAAAAAAAAAAAAAAAAQ\n",
    );
    assert!(matches!(
        place.open_with(RecoveryMarks::default()),
        Err(LogError::NewerFormat { found: 1, .. })
    ));
}

#[test]
fn c21_a_checkpoint_within_the_active_segment_shortens_recovery_and_changes_nothing() {
    let world = SimulatedWorld::new(2);
    let place = Place::new(&world);
    let mut log = place.create();
    for n in 0..40 {
        log.put(transactional(n, 0, 0, &["v"])).unwrap();
        if n % 3 == 0 {
            log.append_marker(producer(n, 1), abort()).unwrap();
        }
        if n == 30 {
            log.sync();
            log.write_checkpoint();
        }
    }
    log.sync();
    let expected = answers(&log);
    let size = log.size_bytes();
    let (log, report) = place.open_with(RecoveryMarks::default()).unwrap();
    assert!(report.scanned_bytes < size / 2, "{report:?}");
    assert_eq!(answers(&log), expected);
    assert_eq!(log.producers().len(), 40);
}

#[test]
fn a_dump_shows_every_batch_and_stops_when_told() {
    let world = SimulatedWorld::new(2);
    let place = small(&world);
    let log = filled(&place);
    let mut offsets = Vec::new();
    let findings = dump(&place.env, &place.dir, &mut |dumped| {
        offsets.push(dumped.batch.header().base_offset);
        true
    });
    assert!(findings.unwrap().is_empty());
    assert_eq!(offsets.len(), 37);
    assert!(offsets.is_sorted());
    let mut count = 0;
    dump(&place.env, &place.dir, &mut |_| {
        count += 1;
        count < 5
    })
    .unwrap();
    assert_eq!(count, 5);
    drop(log);
}

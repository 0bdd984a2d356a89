//! More segments than files may be open, or indexes may be in memory (I10, F14).

use std::sync::Arc;

use super::support::*;
use crate::env::simulated::{Call, Fault, FaultEffect, SimulatedWorld};
use crate::log::*;
use crate::types::{Durability, Isolation, Offset, Timestamp};

const FILES_MAX: usize = 4;
const INDEXES_BYTES_MAX: usize = 4 << 10;

fn small(world: &SimulatedWorld) -> Place {
    let mut place = Place::new(world);
    place.config.segment_bytes = 300;
    place.config.index_interval_bytes = 50;
    place
}

fn cache(place: &Place) -> Arc<SegmentCache> {
    SegmentCache::with_bounds(&place.env, FILES_MAX, INDEXES_BYTES_MAX)
}

fn create(place: &Place, cache: &Arc<SegmentCache>) -> PartitionLog {
    let config = place.config.clone();
    PartitionLog::create_with_cache(&place.env, &place.dir, TOPIC, config, cache).unwrap()
}

fn open(place: &Place, cache: &Arc<SegmentCache>, marks: RecoveryMarks) -> PartitionLog {
    let config = place.config.clone();
    let opened = PartitionLog::open_with_cache(&place.env, &place.dir, config, marks, cache);
    opened.unwrap().0
}

/// Rounds of records, of which every third is aborted.
fn fill(log: &mut PartitionLog, rounds: i16) {
    for round in 0..rounds {
        log.put(plain(&["p", "q"])).unwrap();
        log.put(transactional(1, round, 0, &["x"])).unwrap();
        let marker = if round % 3 == 0 { abort() } else { commit() };
        log.append_marker(producer(1, round + 1), marker).unwrap();
    }
    log.sync();
}

fn clean(log: &PartitionLog) -> RecoveryMarks {
    RecoveryMarks {
        durable_end: log.log_end_offset(),
        clean_shutdown: true,
        clean_end: Some(log.log_end_offset()),
        ..RecoveryMarks::default()
    }
}

#[test]
fn i10_many_segments_are_read_with_few_files_open_and_few_indexes_in_memory() {
    let world = SimulatedWorld::new(14);
    let place = small(&world);
    let bounded = cache(&place);
    let mut log = create(&place, &bounded);
    // The active segment, a file in use, one that is written, its directory, and the cache.
    world.set_open_files_max(Some(FILES_MAX as u64 + 4));
    fill(&mut log, 400);
    assert!(log.segments_count() > 300);
    let check = |log: &PartitionLog| {
        assert_eq!(log.uncommitted().len(), 3 * 400);
        assert_eq!(log.committed().len(), 2 * 400 + 266);
        for at in [Timestamp(0), Timestamp(1)] {
            let found = log.offset_for_timestamp(at, Isolation::ReadCommitted);
            assert_eq!(found.unwrap().unwrap().offset, Offset(at.0));
        }
        assert!(bounded.files_count() <= FILES_MAX, "{bounded:?}");
        assert!(bounded.indexes_bytes() <= INDEXES_BYTES_MAX, "{bounded:?}");
        assert!(world.open_files_count() <= FILES_MAX as u64 + 1);
    };
    check(&log);
    let marks = clean(&log);
    log.close().unwrap();
    assert_eq!(world.open_files_count(), 0, "a closed log keeps files open");
    let (opens, reads) = (Call::Open, Call::Read);
    let before = (world.calls_count_of(opens), world.calls_count_of(reads));
    let log = open(&place, &bounded, marks);
    let segments = log.segments_count() as u64;
    assert_eq!(
        world.open_files_count(),
        1,
        "only the active segment is open"
    );
    assert_eq!(bounded.indexes_bytes(), 0);
    // One manifest a segment, and the partition's own few files: no index and no record is read.
    assert!(world.calls_count_of(opens) - before.0 < segments + 20);
    assert!(world.calls_count_of(reads) - before.1 < 2 * segments + 40);
    check(&log);
    drop(log);
    assert_eq!(world.open_files_count(), 0);
}

#[test]
fn readers_at_the_end_open_nothing() {
    let world = SimulatedWorld::new(14);
    let place = small(&world);
    let mut log = create(&place, &cache(&place));
    fill(&mut log, 20);
    let opens = world.calls_count_of(Call::Open);
    let from = log.log_end_offset().0 - 1;
    for _ in 0..10 {
        let plan = log.plan_read(Offset(from), 1 << 20, Isolation::ReadCommitted);
        assert!(!plan.unwrap().execute().unwrap().records.is_empty());
    }
    assert_eq!(world.calls_count_of(Call::Open), opens);
}

#[test]
fn f6_an_index_that_is_damaged_while_the_log_is_open_is_rebuilt_when_it_is_needed() {
    let world = SimulatedWorld::new(14);
    let place = small(&world);
    // A cache without room for any index.
    let bounded = SegmentCache::with_bounds(&place.env, FILES_MAX, 0);
    let mut log = create(&place, &bounded);
    fill(&mut log, 30);
    let before = (log.committed(), log.uncommitted());
    for suffix in ["index", "timeindex", "txnindex"] {
        for entry in place.env.files.read_dir(&place.dir).unwrap() {
            let is_of_kind = entry.name.ends_with(&format!(".{suffix}"));
            if is_of_kind && entry.length_bytes > 0 {
                let path = place.dir.join(&entry.name);
                match entry.length_bytes % 3 {
                    0 => world.truncate(&path, entry.length_bytes - 1).unwrap(),
                    1 => place.env.files.remove_file(&path).unwrap(),
                    _ => world.flip_bit(&path, 5, 2).unwrap(),
                }
            }
        }
        assert_eq!((log.committed(), log.uncommitted()), before, "{suffix}");
    }
    // What was rebuilt was written again, too.
    let marks = clean(&log);
    log.close().unwrap();
    let log = open(&place, &bounded, marks);
    assert_eq!((log.committed(), log.uncommitted()), before);
}

#[test]
fn f14_without_a_file_to_spare_appends_say_so_and_go_on_as_soon_as_there_is_one() {
    let world = SimulatedWorld::new(14);
    let place = small(&world);
    let bounded = cache(&place);
    let mut log = create(&place, &bounded);
    fill(&mut log, 40);
    let before = log.uncommitted();
    // Somebody else takes every file that is left: the cache gives its own up, and then there is none.
    world.set_open_files_max(Some(1));
    let mut appended = 0;
    let refused = loop {
        match log.put(plain(&["more"])) {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
        assert!(appended < 20, "no segment was rolled");
    };
    assert!(
        matches!(refused, LogError::TooManyFiles { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("ulimit"), "{refused}");
    assert!(log.poisoned().is_none());
    log.sync();
    let read = log.seen_from(Offset(0), 1 << 20, Isolation::ReadUncommitted);
    assert!(matches!(read.unwrap_err(), LogError::TooManyFiles { .. }));
    world.set_open_files_max(None);
    assert_eq!(log.uncommitted().len(), before.len() + appended);
    log.put(plain(&["at last"])).unwrap();
    log.sync();
    assert_eq!(log.uncommitted().last().unwrap().1, "at last");
    let marks = clean(&log);
    log.close().unwrap();
    let log = open(&place, &bounded, marks);
    assert_eq!(log.uncommitted().len(), before.len() + appended + 1);
}

#[test]
fn f14_files_that_are_only_kept_for_later_are_closed_when_others_need_them() {
    let world = SimulatedWorld::new(14);
    let place = small(&world);
    let bounded = SegmentCache::with_bounds(&place.env, 1000, 1 << 20);
    let mut log = create(&place, &bounded);
    fill(&mut log, 40);
    let expected = log.uncommitted();
    assert!(bounded.files_count() > 20);
    world.set_open_files_max(Some(world.open_files_count()));
    fill_more(&mut log);
    assert_eq!(&log.uncommitted()[..expected.len()], &expected[..]);
}

fn fill_more(log: &mut PartitionLog) {
    for _ in 0..20 {
        log.put(plain(&["more"])).unwrap();
    }
    log.sync();
}

#[test]
fn segments_sealed_without_a_sync_are_synced_later_though_their_files_were_closed() {
    let world = SimulatedWorld::new(14);
    let mut place = small(&world);
    place.config.durability = Durability::Process;
    let bounded = cache(&place);
    let mut log = create(&place, &bounded);
    world.set_open_files_max(Some(FILES_MAX as u64 + 3));
    for _ in 0..50 {
        log.put(plain(&["p"])).unwrap();
    }
    log.sync();
    let end = log.synced_end();
    assert_eq!(end, log.log_end_offset());
    let after = world.after_power_loss(crate::env::simulated::PowerLoss::STRICT);
    let place = place.on(&after);
    let marks = RecoveryMarks {
        durable_end: end,
        ..RecoveryMarks::default()
    };
    assert_eq!(open(&place, &cache(&place), marks).uncommitted().len(), 50);
}

#[test]
fn f14_f11_a_sync_that_lacks_a_file_handle_is_tried_again_and_a_failed_one_is_not() {
    for (effect, call) in [
        (FaultEffect::TooManyFiles, Call::Open),
        (FaultEffect::InputOutput, Call::SyncDir),
    ] {
        let world = SimulatedWorld::new(14);
        let mut place = small(&world);
        place.config.durability = Durability::Process;
        let mut log = create(&place, &cache(&place));
        for _ in 0..20 {
            log.put(plain(&["p"])).unwrap();
        }
        let plan = log.plan_sync().unwrap();
        world.inject(Fault::new(effect).on(&[call]).for_ever());
        let error = plan.execute().unwrap_err();
        let is_missing = matches!(error, LogError::TooManyFiles { .. });
        assert_eq!(is_missing, effect == FaultEffect::TooManyFiles, "{error}");
        world.clear_faults();
        let again = log.plan_sync().unwrap().execute();
        assert_eq!(again.is_ok(), is_missing, "{again:?}");
    }
}

#[test]
fn f14_a_failing_open_during_a_read_is_told_and_the_next_read_succeeds() {
    let world = SimulatedWorld::new(14);
    let place = small(&world);
    let log = {
        let mut log = create(&place, &cache(&place));
        fill(&mut log, 20);
        log
    };
    let expected = log.uncommitted();
    // Twice: the cache tries again once it has closed what it can.
    let fault = Fault::new(FaultEffect::TooManyFiles).on(&[Call::Open]);
    world.inject(fault.clone().in_path(".log"));
    world.inject(fault.in_path(".log").after(1));
    let read = log.seen_from(Offset(0), 1 << 20, Isolation::ReadUncommitted);
    assert!(matches!(read.unwrap_err(), LogError::TooManyFiles { .. }));
    assert_eq!(log.uncommitted(), expected);
}

#[test]
#[ignore = "writes 600,000 files; run it alone, with --nocapture"]
fn i10_a_hundred_thousand_segments_open_in_little_memory_and_with_one_file() {
    const SEGMENTS_COUNT: usize = 100_000;
    let home = tempfile::tempdir().unwrap();
    let mut place = small(&SimulatedWorld::new(1));
    place.env = crate::env::Env::real();
    place.dir = home.path().join("t-0");
    place.config.segment_bytes = 80;
    // Nothing is synced: this is about opening.
    place.config.durability = Durability::Process;
    let mut log = place.create();
    for _ in 0..SEGMENTS_COUNT {
        log.put(plain(&["p"])).unwrap();
    }
    let marks = clean(&log);
    drop(log);
    let resident_kib = || {
        let text = std::process::Command::new("grep")
            .args(["VmRSS", &format!("/proc/{}/status", std::process::id())])
            .output()
            .unwrap();
        let text = String::from_utf8(text.stdout).unwrap();
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap()
    };
    let (before, start) = (resident_kib(), place.env.clock.now());
    let (log, report) = place.open_with(marks).unwrap();
    let taken = place.env.clock.now().since(start);
    let grown_kib = resident_kib() - before;
    println!(
        "{} segments: opened in {taken:?}, {grown_kib} KiB",
        log.segments_count()
    );
    // The active segment alone: it was not closed.
    assert!(report.scanned_bytes < 100);
    assert!(grown_kib < 200 << 10);
    assert_eq!(log.uncommitted().len(), SEGMENTS_COUNT);
}

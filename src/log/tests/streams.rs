//! Large reads in pieces: they give what one read gives, end where a batch begins, and never pass on damage.

use std::sync::Arc;

use super::faults::MemoryFile;
use super::support::*;
use crate::env::simulated::SimulatedWorld;
use crate::log::index::OffsetIndex;
use crate::log::names::{self, FileKind};
use crate::log::segment::IndexPlace;
use crate::log::{CleanupPolicy, LogError, PartitionLog, RecordSource, RecordStream, SegmentCache};
use crate::protocol::batch::{BatchProducer, Batches};
use crate::protocol::messages::FetchedRecords;
use crate::types::{Durability, Isolation, Offset, Timestamp};

const ISOLATIONS: [Isolation; 2] = [Isolation::ReadCommitted, Isolation::ReadUncommitted];

/// Reads as a server does: all pieces of a stream, or all at once.
fn whole(fetched: FetchedRecords<RecordSource>) -> (FetchedRecords, usize) {
    let length_bytes = fetched.records.length_bytes();
    let mut pieces = Vec::new();
    match fetched.records {
        RecordSource::Read(records) => pieces.push(records),
        RecordSource::Stream(mut stream) => {
            while let Some(piece) = stream.next_piece().unwrap() {
                assert!(!piece.is_empty());
                pieces.push(piece);
            }
            assert!(stream.next_piece().unwrap().is_none());
        }
    }
    let records = pieces.concat();
    assert_eq!(records.len(), length_bytes, "the length was announced");
    let fetched = FetchedRecords {
        records: records.into(),
        aborted_transactions: fetched.aborted_transactions,
        high_watermark: fetched.high_watermark,
        last_stable_offset: fetched.last_stable_offset,
        log_start_offset: fetched.log_start_offset,
    };
    (fetched, pieces.len())
}

/// Everything that a reader sees from `from` on, and the most pieces that one read had.
fn seen(
    log: &PartitionLog,
    from: Offset,
    max_bytes: usize,
    isolation: Isolation,
) -> (Vec<Seen>, usize) {
    let (mut seen, mut most, mut position) = (Vec::new(), 0, from);
    loop {
        let plan = log.plan_stream(position, max_bytes, isolation).unwrap();
        let (fetched, pieces) = whole(plan.open(usize::MAX).unwrap());
        let first = Batches::new(fetched.records.clone()).next();
        let first = first.map_or(0, |batch| batch.unwrap().bytes().len());
        assert!(fetched.records.len() <= max_bytes.max(first));
        let next = collect(
            &mut seen,
            position,
            &fetched.records,
            &fetched.aborted_transactions,
        );
        most = most.max(pieces);
        if next == position {
            return (seen, most);
        }
        position = next;
    }
}

/// A value of the `n`-th batch: of many lengths, some larger than a piece.
fn value(n: usize) -> String {
    let length = match n % 97 {
        0 => 300 << 10,
        50 => 700 << 10,
        _ => 100 + n * 7919 % 30_000,
    };
    format!("{n} {}", "x".repeat(length))
}

/// Rounds of three transactions beside other records: they commit, or abort, and the last ones stay open.
fn fill(log: &mut PartitionLog) {
    const ROUNDS: i16 = 12;
    let mut n = 0;
    for round in 0..ROUNDS {
        for sequence in 0..14 {
            for id in 0..3 {
                n += 1;
                log.put(transactional(id, round, sequence, &[&value(n)]))
                    .unwrap();
            }
            n += 1;
            log.put(plain(&[&value(n), "second"])).unwrap();
        }
        for id in 0..3 {
            let kind = match (i64::from(round) + id) % 2 {
                0 => commit(),
                _ => abort(),
            };
            if round + 1 < ROUNDS || id == 0 {
                log.append_marker(producer(id, round + 1), kind).unwrap();
            }
        }
    }
    log.sync();
}

#[test]
fn a_stream_gives_what_one_read_gives_and_no_more_than_the_reader_may_see() {
    let world = SimulatedWorld::new(3);
    for segment_bytes in [3 << 20, 1 << 30] {
        let mut place = Place::new(&world);
        place.dir = format!("/t-{segment_bytes}").into();
        place.config.segment_bytes = segment_bytes;
        place.config.max_message_bytes = 2 << 20;
        let mut log = place.create();
        fill(&mut log);
        for isolation in ISOLATIONS {
            let end = log.visible_end(isolation);
            for max_bytes in [400 << 10, 1 << 20, 50 << 20] {
                for from in [0, 1, 77, 300, 801] {
                    let from = Offset(from);
                    let expected = log.seen_from(from, max_bytes, isolation).unwrap();
                    let (seen, most_pieces) = seen(&log, from, max_bytes, isolation);
                    assert!(seen == expected, "{isolation:?} {max_bytes} {from}");
                    assert!(seen.iter().all(|(offset, _)| *offset < end.0));
                    assert!(most_pieces > 1 || from.0 > 700, "nothing was streamed");
                }
            }
        }
        assert!(log.last_stable_offset() < log.log_end_offset());
    }
}

#[test]
fn a_stream_reads_what_compaction_left() {
    let world = SimulatedWorld::new(3);
    let mut place = Place::new(&world);
    place.config.cleanup = CleanupPolicy::Compact;
    place.config.segment_bytes = 2 << 20;
    place.config.durability = Durability::Process;
    let mut log = place.create();
    let text = "v".repeat(20_000);
    for n in 0..400 {
        let key = format!("{}", n % 90 + n / 300 * 50);
        let records = [(key.as_str(), Some(text.as_str()))];
        log.put(keyed(&records, n, BatchProducer::Plain)).unwrap();
    }
    assert!(log.compact(Timestamp(1_000_000)).unwrap().is_some());
    let isolation = Isolation::ReadCommitted;
    let expected = log.seen(isolation);
    assert!(expected.len() < 300, "nothing was left out");
    for from in 0..400 {
        let expected: Vec<_> = expected.iter().filter(|seen| seen.0 >= from).collect();
        let (seen, _) = seen(&log, Offset(from), 1 << 20, isolation);
        assert!(seen.iter().eq(expected), "from {from}");
    }
    let (_, most_pieces) = seen(&log, Offset::ZERO, 1 << 20, isolation);
    assert!(most_pieces > 1, "nothing was streamed");
}

/// The stream that a reader of all would be given.
fn stream(log: &PartitionLog) -> Option<RecordStream> {
    let plan = log.plan_stream(Offset::ZERO, 50 << 20, Isolation::ReadCommitted);
    match plan.unwrap().open(usize::MAX) {
        Ok(FetchedRecords {
            records: RecordSource::Stream(stream),
            ..
        }) => Some(stream),
        _ => None,
    }
}

/// A log whose every batch has an index entry.
fn densely_indexed(world: &SimulatedWorld) -> Place {
    let mut place = Place::new(world);
    place.config.index_interval_bytes = 0;
    place
}

/// Batches of many lengths.
fn put_values(log: &mut PartitionLog) {
    for n in 1..60 {
        log.put(plain(&[&value(n)])).unwrap();
    }
}

#[test]
fn i10_only_so_many_streams_are_open_and_other_reads_are_whole() {
    const FILES_MAX: usize = 3;
    let world = SimulatedWorld::new(3);
    let place = densely_indexed(&world);
    let cache = SegmentCache::with_bounds(&place.env, FILES_MAX, 1 << 20);
    let config = place.config.clone();
    let mut log =
        PartitionLog::create_with_cache(&place.env, &place.dir, TOPIC, config, &cache).unwrap();
    put_values(&mut log);
    log.sync();
    let mut streams: Vec<_> = (0..FILES_MAX).map(|_| stream(&log).unwrap()).collect();
    for _ in 0..2 {
        let expected = log.seen(Isolation::ReadCommitted);
        let (whole, most_pieces) = seen(&log, Offset::ZERO, 50 << 20, Isolation::ReadCommitted);
        assert!(whole == expected && most_pieces == 1, "{most_pieces}");
    }
    drop(streams.pop());
    streams.push(stream(&log).unwrap());
    assert!(stream(&log).is_none());
}

#[test]
fn f7_a_stream_stops_before_damage_and_then_nothing_is_streamed_any_more() {
    let world = SimulatedWorld::new(3);
    let place = densely_indexed(&world);
    let mut log = place.create();
    put_values(&mut log);
    log.sync();
    let path = names::path(&place.dir, FileKind::Log, Offset::ZERO);
    let whole = place.env.files.read(&path, 10 << 20).unwrap();
    let file = Arc::new(MemoryFile::new(whole.clone()));
    log.segments[0].pinned = Some(file.clone());
    let mut position = 0;
    for batch in Batches::new(whole.clone().into()) {
        let length = batch.unwrap().bytes().len();
        // The base offset, the length, the leader epoch, the checksum, the last offset delta, a record.
        for at in [0, 8, 11, 12, 17, 23, length - 1] {
            file.flip(position + at);
            log.has_damage = Arc::default();
            let mut given = 0;
            // What is damaged at the very beginning is found before an answer begins.
            if let Some(mut stream) = stream(&log) {
                let error = loop {
                    match stream.next_piece() {
                        Ok(piece) => given += piece.expect("the damage is passed on").len(),
                        Err(error) => break error,
                    }
                };
                assert!(
                    matches!(&error, LogError::Corrupt { position: found, .. } if *found == position as u64),
                    "{error} but byte {at} of the batch at {position} is damaged"
                );
                assert!(given <= position, "damage was passed on");
                assert!(stream.left_bytes() > 0);
            }
            assert!(position == 0 || log.has_damage.load(std::sync::atomic::Ordering::Relaxed));
            let plan = log.plan_stream(Offset::ZERO, 50 << 20, Isolation::ReadCommitted);
            let told = plan.unwrap().open(usize::MAX);
            assert!(matches!(told, Err(LogError::Corrupt { .. })), "{told:?}");
            file.flip(position + at);
        }
        position += length;
    }
    log.has_damage = Arc::default();
    let mut stream = stream(&log).unwrap();
    let mut given = 0;
    while let Some(piece) = stream.next_piece().unwrap() {
        given += piece.len();
    }
    assert_eq!(given, whole.len());
}

#[test]
fn f7_an_index_that_lies_ends_a_stream_and_shows_nobody_what_is_hidden() {
    let world = SimulatedWorld::new(3);
    let place = densely_indexed(&world);
    let mut log = place.create();
    put_values(&mut log);
    log.put(transactional(1, 0, 0, &["hidden"])).unwrap();
    put_values(&mut log);
    log.sync();
    let hidden = log.last_stable_offset();
    assert_eq!(hidden, Offset(59));
    let honest = stream(&log).unwrap().left_bytes();
    // One entry says that the batches below the hidden one go on to where others stand.
    let mut lying = OffsetIndex::new(Offset::ZERO);
    lying.push(hidden.plus(-1), u32::try_from(honest).unwrap() + 100_000);
    let IndexPlace::Memory(index) = &mut log.segments[0].index else {
        panic!("the active segment's index is in memory");
    };
    index.offsets = lying;
    let mut stream = stream(&log).unwrap();
    let mut seen = 0;
    let error = loop {
        match stream.next_piece() {
            Ok(piece) => {
                for batch in Batches::new(piece.unwrap()) {
                    seen = batch.unwrap().header().last_offset().0;
                }
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
    assert!(seen < hidden.0, "{seen} is behind {hidden}");
}

//! Golden bytes of every file, and the rules of producer state, one by one.

use crate::env::simulated::SimulatedWorld;
use crate::log::aborted::{self, AbortedEntry};
use crate::log::index::{OffsetIndex, TimeIndex};
use crate::log::leader_epochs::LeaderEpochs;
use crate::log::producer_state::{
    ProducerEntry, ProducerState, Verdict, WINDOW_BATCHES, WindowBatch,
};
use crate::log::{AppendOrigin, PartitionLog, snapshot};
use crate::protocol::ErrorCode;
use crate::protocol::batch::{BatchProducer, ControlRecord, ControlType, Header};
use crate::types::{EpochAtEnd, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

use super::support::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn the_bytes_of_the_offset_index() {
    let mut index = OffsetIndex::new(Offset(100));
    index.push(Offset(104), 4097);
    index.push(Offset(110), 0x0001_0000);
    let bytes = hex("00000004 00001001  0000000a 00010000");
    assert_eq!(index.encode(), bytes);
    assert_eq!(OffsetIndex::decode(Offset(100), &bytes), Some(index));
    assert_eq!(OffsetIndex::decode(Offset(100), &bytes[..15]), None);
    let not_increasing = hex("00000004 00001001  00000004 00010000");
    assert_eq!(OffsetIndex::decode(Offset(100), &not_increasing), None);
}

#[test]
fn the_bytes_of_the_time_index() {
    let mut index = TimeIndex::new(Offset(100));
    index.push(Timestamp(0x0102), Offset(104));
    index.push(Timestamp(0x0102), Offset(105));
    index.push(Timestamp(0x0103), Offset(110));
    let bytes = hex("0000000000000102 00000004  0000000000000103 0000000a");
    assert_eq!(index.encode(), bytes);
    assert_eq!(TimeIndex::decode(Offset(100), &bytes), Some(index));
    assert_eq!(TimeIndex::decode(Offset(100), &bytes[..11]), None);
}

#[test]
fn the_bytes_of_the_aborted_transaction_index() {
    let entry = AbortedEntry {
        producer_id: ProducerId(1),
        first_offset: Offset(0),
        last_offset: Offset(29),
        last_stable_offset: Offset(8),
    };
    let bytes = hex("0000 0000000000000001 0000000000000000 000000000000001d 0000000000000008");
    assert_eq!(aborted::encode(&[entry]), bytes);
    assert_eq!(aborted::decode(&bytes), Some(vec![entry]));
    assert_eq!(aborted::decode(&bytes[..33]), None);
    assert_eq!(
        aborted::decode(&[&bytes[..], &bytes[..]].concat()),
        None,
        "markers increase"
    );
}

fn snapshot_state() -> ProducerState {
    let mut entry = ProducerEntry::new(ProducerEpoch(3));
    entry.coordinator_epoch = 4;
    entry.transaction_start = Some(Offset(5));
    entry.last_append = Timestamp(6);
    entry.last_timestamp = Timestamp(12);
    entry.window.push_back(WindowBatch {
        first_sequence: Sequence(8),
        last_sequence: Sequence(9),
        first_offset: Offset(10),
        last_offset: Offset(11),
        timestamp: Timestamp(12),
    });
    let mut state = ProducerState::default();
    state.insert(ProducerId(2), entry);
    let epochs = vec![(0, Offset(0)), (3, Offset(10))];
    state.epochs = LeaderEpochs::new(epochs).unwrap().into();
    state
}

#[test]
fn the_bytes_of_a_producer_snapshot() {
    let body = hex("00000001
         0000000000000002 0003 00000009 000000000000000b 00000001 000000000000000c 00000004 0000000000000005
         0002
         0000000000000006 ffffffffffffffff 01
         00000008 00000009 000000000000000a 000000000000000b 000000000000000c
         00000002 00000000 0000000000000000 00000003 000000000000000a");
    let sealed = |body: &[u8]| {
        let crc = crc32c::crc32c(body).to_be_bytes();
        [&hex("0001")[..], &crc, body].concat()
    };
    assert_eq!(snapshot::encode(&snapshot_state()), sealed(&body));
    assert_eq!(snapshot::decode(&sealed(&body)), Ok(snapshot_state()));
    // The first appendix had no leader epochs, because there was only one.
    let mut older = body[..body.len() - 28].to_vec();
    older[51] = 1;
    let mut state = snapshot_state();
    state.epochs = LeaderEpochs::beginning(0, Offset(0)).into();
    assert_eq!(snapshot::decode(&sealed(&older)), Ok(state));
}

#[test]
fn a_damaged_producer_snapshot_is_never_believed() {
    let bytes = snapshot::encode(&snapshot_state());
    for kept in 0..bytes.len() {
        assert!(snapshot::decode(&bytes[..kept]).is_err());
    }
    for bit in 0..8 * bytes.len() {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(snapshot::decode(&flipped).is_err(), "bit {bit}");
    }
    let mut count = bytes.clone();
    count[6..10].fill(0xff);
    let crc = crc32c::crc32c(&count[6..]).to_be_bytes();
    count[2..6].copy_from_slice(&crc);
    assert!(
        snapshot::decode(&count).is_err(),
        "a count is checked against what is there"
    );
}

fn header(id: i64, epoch: i16, sequence: i32, records_count: usize, at: i64) -> Header {
    let records = vec!["r"; records_count];
    let bytes = idempotent(id, epoch, sequence, &records);
    Header {
        base_offset: Offset(at),
        ..Header::parse(&bytes).unwrap()
    }
}

fn transactional_header(id: i64, epoch: i16, sequence: i32, at: i64) -> Header {
    let bytes = transactional(id, epoch, sequence, &["r"]);
    Header {
        base_offset: Offset(at),
        ..Header::parse(&bytes).unwrap()
    }
}

fn refused(verdict: Verdict) -> ErrorCode {
    match verdict {
        Verdict::Refuse(code, _) => code,
        other => panic!("not refused: {other:?}"),
    }
}

const NOW: Timestamp = Timestamp(1000);

#[test]
fn c20_sequences_wrap_and_duplicates_across_the_wrap_are_known() {
    let mut state = ProducerState::default();
    let mut entry = ProducerEntry::new(ProducerEpoch(0));
    entry.window.push_back(WindowBatch {
        first_sequence: Sequence(i32::MAX - 1),
        last_sequence: Sequence(i32::MAX - 1),
        first_offset: Offset(0),
        last_offset: Offset(0),
        timestamp: NOW,
    });
    state.insert(ProducerId(1), entry);
    let straddling = header(1, 0, i32::MAX, 3, 1);
    assert_eq!(
        state.check(&straddling, AppendOrigin::Client),
        Verdict::Append
    );
    state.apply(&straddling, NOW);
    let next = header(1, 0, 2, 1, 4);
    assert_eq!(state.check(&next, AppendOrigin::Client), Verdict::Append);
    state.apply(&next, NOW);
    let again = state.check(&header(1, 0, i32::MAX, 3, 9), AppendOrigin::Client);
    assert!(matches!(
        again,
        Verdict::Duplicate {
            first_offset: Offset(1),
            last_offset: Offset(3),
            ..
        }
    ));
    let part = state.check(&header(1, 0, i32::MAX, 2, 9), AppendOrigin::Client);
    assert_eq!(
        refused(part),
        ErrorCode::OutOfOrderSequenceNumber,
        "only an exact match is a duplicate"
    );
}

#[test]
fn the_window_holds_five_batches_of_one_epoch() {
    let mut state = ProducerState::default();
    for n in 0..8 {
        state.apply(&header(1, 0, n, 1, i64::from(n)), NOW);
    }
    for n in 0..8 {
        let verdict = state.check(&header(1, 0, n, 1, 9), AppendOrigin::Client);
        let is_known = usize::try_from(8 - n).unwrap() <= WINDOW_BATCHES;
        assert_eq!(
            matches!(verdict, Verdict::Duplicate { .. }),
            is_known,
            "sequence {n}"
        );
    }
    assert_eq!(
        refused(state.check(&header(1, 1, 8, 1, 9), AppendOrigin::Client)),
        ErrorCode::OutOfOrderSequenceNumber
    );
    state.apply(&header(1, 1, 0, 1, 8), NOW);
    assert_eq!(
        refused(state.check(&header(1, 0, 7, 1, 9), AppendOrigin::Client)),
        ErrorCode::InvalidProducerEpoch
    );
}

#[test]
fn x14_a_producer_that_was_forgotten_goes_on_where_it_was() {
    let mut state = ProducerState::default();
    state.apply(&header(1, 5, 0, 3, 0), Timestamp(1000));
    let skipped = header(1, 5, 4, 1, 3);
    assert_eq!(
        refused(state.check(&skipped, AppendOrigin::Client)),
        ErrorCode::OutOfOrderSequenceNumber
    );
    state.expire(Timestamp(2000), 1000);
    assert_eq!(state.check(&skipped, AppendOrigin::Client), Verdict::Append);
    state.apply(&skipped, Timestamp(3000));
    // From here on it is known again.
    assert!(matches!(
        state.check(&skipped, AppendOrigin::Client),
        Verdict::Duplicate { .. }
    ));
    for (epoch, sequence, expected) in [
        (5, 6, ErrorCode::OutOfOrderSequenceNumber),
        (4, 5, ErrorCode::InvalidProducerEpoch),
        (6, 5, ErrorCode::OutOfOrderSequenceNumber),
    ] {
        let next = header(1, epoch, sequence, 1, 4);
        assert_eq!(refused(state.check(&next, AppendOrigin::Client)), expected);
    }
    for (epoch, sequence) in [(5, 5), (6, 0)] {
        let next = header(1, epoch, sequence, 1, 4);
        assert_eq!(state.check(&next, AppendOrigin::Client), Verdict::Append);
    }
}

#[test]
fn an_open_transaction_takes_only_its_own_batches() {
    let mut state = ProducerState::default();
    state.apply(&transactional_header(1, 0, 0, 7), NOW);
    assert_eq!(
        refused(state.check(&header(1, 0, 1, 1, 8), AppendOrigin::Client)),
        ErrorCode::InvalidTxnState
    );
    assert_eq!(
        refused(state.check(&transactional_header(1, 1, 0, 8), AppendOrigin::Client)),
        ErrorCode::ConcurrentTransactions
    );
    assert_eq!(
        state.check(&transactional_header(1, 0, 1, 8), AppendOrigin::Client),
        Verdict::Append
    );
    assert_eq!(state.first_open_offset(), Some(Offset(7)));
    let ended = state
        .apply_marker(producer(1, 1), ControlType::Abort, 0, (Offset(9), NOW), NOW)
        .unwrap();
    assert_eq!(
        (
            ended.first_offset,
            ended.last_offset,
            ended.last_stable_offset
        ),
        (Offset(7), Offset(9), Offset(10))
    );
    assert_eq!(state.first_open_offset(), None);
}

#[test]
fn a_marker_of_an_older_coordinator_or_producer_is_refused() {
    let mut state = ProducerState::default();
    state.apply(&transactional_header(1, 4, 0, 0), NOW);
    state.apply_marker(
        producer(1, 5),
        ControlType::Commit,
        7,
        (Offset(1), NOW),
        NOW,
    );
    assert_eq!(
        refused(state.check_marker(producer(1, 6), 6, Default::default())),
        ErrorCode::TransactionCoordinatorFenced
    );
    assert_eq!(
        refused(state.check_marker(producer(1, 4), 7, Default::default())),
        ErrorCode::InvalidProducerEpoch
    );
    assert!(matches!(
        state.check_marker(producer(1, 5), 7, Default::default()),
        Verdict::Duplicate {
            first_offset: Offset(1),
            ..
        }
    ));
    assert_eq!(
        state.check_marker(producer(1, 6), 7, Default::default()),
        Verdict::Append
    );
}

#[test]
fn c26_idle_producers_expire_by_the_wall_clock_but_never_with_an_open_transaction() {
    let mut state = ProducerState::default();
    state.apply(&header(1, 0, 0, 1, 0), NOW);
    state.apply(&transactional_header(2, 0, 0, 1), NOW);
    state.expire(Timestamp(1999), 1000);
    assert_eq!(state.entries().len(), 2);
    state.expire(Timestamp(2000), 1000);
    assert!(state.entry(ProducerId(1)).is_none() && state.entry(ProducerId(2)).is_some());
}

#[test]
fn a_marker_of_the_datas_epoch_is_taken_only_where_the_epoch_is_kept_and_a_transaction_is_open() {
    let mut state = ProducerState::default();
    let kept = EpochAtEnd::Kept;
    assert_eq!(state.check_marker(producer(1, 5), 0, kept), Verdict::Append);
    state.apply(&transactional_header(1, 5, 0, 0), NOW);
    let bumped = state.check_marker(producer(1, 5), 0, EpochAtEnd::Bumped);
    assert!(matches!(bumped, Verdict::Refuse(..)), "{bumped:?}");
    assert_eq!(state.check_marker(producer(1, 5), 0, kept), Verdict::Append);
    let stale = state.check_marker(producer(1, 4), 0, kept);
    assert!(matches!(stale, Verdict::Refuse(..)), "{stale:?}");
}

#[test]
fn x16_a_partition_tells_its_producers_last_coordinator_epoch_and_time_also_after_a_restart() {
    let world = SimulatedWorld::new(1);
    let place = Place::new(&world);
    let mut log = place.create();
    let batch = BatchProducer::Transactional(producer(1, 4), Sequence(0));
    log.put(keyed(&[("a", Some("1"))], 5, batch)).unwrap();
    let told = |log: &PartitionLog| {
        let described = log.producers().remove(0);
        (described.last_timestamp, described.coordinator_epoch)
    };
    assert_eq!(told(&log), (Timestamp(5), -1));
    let marker = ControlRecord {
        kind: ControlType::Commit,
        coordinator_epoch: 7,
    };
    log.append_marker(producer(1, 5), marker).unwrap();
    let (time, epoch) = told(&log);
    assert!(time > Timestamp(5), "the marker's, by the wall clock");
    assert_eq!(epoch, 7);
    // From the records, and from a snapshot.
    log.roll().unwrap();
    log.close().unwrap();
    assert_eq!(told(&place.open()), (time, 7));
}

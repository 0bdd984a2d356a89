//! A client's rules, markers of other kinds, and what compaction leaves.

use super::*;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::Offset;

const LIMIT: fn() -> DecompressionLimit = DecompressionLimit::default;

fn refused(change: impl Fn(&mut Header)) -> &'static str {
    let mut header = Header::parse(&sample(Compression::None)).unwrap();
    change(&mut header);
    match check_client_batch(&header) {
        Err(error @ BatchError::Refused { why }) => {
            assert_eq!(error.code(), ErrorCode::InvalidRecord);
            assert_eq!(error.kind(), ErrorKind::Fatal);
            why
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn clients_may_not_send_what_is_the_logs_own() {
    let control = refused(|header| header.attributes = header.attributes.control());
    assert_eq!(control, "control batches are the log's own");
    let time = refused(|header| header.attributes = header.attributes.log_append_time());
    assert_eq!(time, "log append time is the log's to set");
    let horizon = refused(|header| header.attributes = header.attributes.delete_horizon());
    assert_eq!(horizon, "a delete horizon is the log's to set");
    let mut bytes = sample(Compression::None);
    bytes[21] |= 0x80;
    let reserved = Header::parse(&bytes).unwrap();
    assert_eq!(
        refused(|header| *header = reserved),
        "it sets attribute bits that are reserved"
    );
}

#[test]
fn clients_must_count_and_number_their_records() {
    let count = "its count of records differs from its count of offsets";
    assert_eq!(
        refused(|header| header.records_count = 0),
        "it has no records"
    );
    assert_eq!(refused(|header| header.records_count = 1), count);
    assert_eq!(refused(|header| header.last_offset_delta = i32::MAX), count);
    let sequence = refused(|header| header.base_sequence = Sequence::NONE);
    assert_eq!(sequence, "it has a producer id without a sequence");
    let epoch = refused(|header| header.producer.epoch = ProducerEpoch::NONE);
    assert_eq!(epoch, "it has a producer id without a producer epoch");
    let id = refused(|header| header.producer.id = ProducerId::NONE);
    assert_eq!(id, "it is transactional without a producer id");
}

#[test]
fn plain_idempotent_and_transactional_batches_are_accepted() {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for producer in [
        BatchProducer::Plain,
        BatchProducer::Idempotent(identity(0, 0), Sequence(0)),
        BatchProducer::Transactional(identity(5, 2), Sequence(i32::MAX)),
    ] {
        builder.push(Timestamp(1), None, None);
        builder.push(Timestamp(1), None, None);
        let batch = parse(builder.finish(producer));
        let header = batch.header();
        assert_eq!(check_client_batch(header), Ok(()));
        assert_eq!(header.has_producer(), producer != BatchProducer::Plain);
        let expected = match producer {
            BatchProducer::Plain => Sequence::NONE,
            BatchProducer::Idempotent(..) => Sequence(1),
            // c20: the sequence wraps inside the batch.
            BatchProducer::Transactional(..) => Sequence(0),
        };
        assert_eq!(header.last_sequence(), expected);
    }
}

#[test]
fn clients_records_have_no_gaps_and_keys_where_they_must() {
    let batch = parse(sample(Compression::Zstd));
    let free = RecordRules::default();
    let keyed = RecordRules {
        is_key_required: true,
        ..RecordRules::default()
    };
    let newest = Ok(Timestamp(1064));
    assert_eq!(check_client_records(&batch, &LIMIT(), &free), newest);
    let refused = check_client_records(&batch, &LIMIT(), &keyed).unwrap_err();
    let bad = BadRecord {
        index: 1,
        fault: RecordFault::NoKey,
    };
    assert_eq!(refused.bad_records(), [bad]);
    assert_eq!(refused.code(), ErrorCode::InvalidRecord);

    let second_only = rewrite(&batch, &LIMIT(), None, |record| record.key.is_none()).unwrap();
    let why = "its records' offsets have gaps";
    let refused = Err(BatchError::Refused { why });
    assert_eq!(
        check_client_records(&parse(second_only), &LIMIT(), &free),
        refused
    );
}

#[test]
fn compaction_keeps_what_identifies_a_batch_and_its_records() {
    for compression in Compression::ALL {
        let mut bytes = sample(compression);
        stamp(&mut bytes, Offset(500), 6);
        let batch = parse(bytes);
        let rewritten =
            parse(rewrite(&batch, &LIMIT(), None, |record| record.key.is_some()).unwrap());
        rewritten.check_crc().unwrap();
        assert_eq!(read(&rewritten).unwrap(), read(&batch).unwrap()[..1]);
        let expected = Header {
            records_count: 1,
            max_timestamp: Timestamp(1000),
            length_bytes: rewritten.header().length_bytes,
            crc: rewritten.header().crc,
            ..*batch.header()
        };
        assert_eq!(rewritten.header(), &expected);
    }
}

#[test]
fn compaction_that_removes_nothing_changes_nothing() {
    for compression in Compression::ALL {
        let batch = parse(sample(compression));
        let rewritten = rewrite(&batch, &LIMIT(), None, |_| true).unwrap();
        assert_eq!(rewritten, batch.bytes());
    }
}

#[test]
fn an_emptied_batch_is_a_header_alone() {
    for compression in Compression::ALL {
        let batch = parse(sample(compression));
        let emptied = parse(rewrite(&batch, &LIMIT(), None, |_| false).unwrap());
        assert_eq!(emptied.bytes().len(), HEADER_BYTES);
        assert_eq!(emptied.header().compression(), Compression::None);
        assert_eq!(emptied.header().max_timestamp, Timestamp(1064));
        assert_eq!(read(&emptied).unwrap(), []);
        let again = rewrite(&emptied, &LIMIT(), None, |_| true).unwrap();
        assert_eq!(again, emptied.bytes());
    }
}

#[test]
fn a_delete_horizon_is_kept_and_moves_no_timestamp() {
    let record = ControlRecord {
        kind: ControlType::Abort,
        coordinator_epoch: 1,
    };
    let marker = parse(encode_marker(identity(1, 1), record, Timestamp(77)));
    assert_eq!(marker.header().delete_horizon(), None);
    let noted = rewrite(&marker, &LIMIT(), Some(Timestamp(9000)), |_| true).unwrap();
    let again = rewrite(&parse(noted), &LIMIT(), None, |_| true).unwrap();
    let again = parse(again);
    assert_eq!(again.header().delete_horizon(), Some(Timestamp(9000)));
    assert_eq!(again.control(), Ok(Some(record)));
    assert_eq!(read(&again).unwrap()[0].timestamp, 77);
}

fn control_batch(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Option<ControlRecord>, BatchError> {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(Timestamp(1), key, value);
    let attributes = Attributes::new(Compression::None).control();
    parse(builder.finish_as(attributes, identity(1, 1), Sequence::NONE)).control()
}

#[test]
fn control_batches_of_other_kinds_are_skipped_and_malformed_ones_refused() {
    let value = Some(&[0, 0, 0, 0, 0, 5][..]);
    let leader_change = control_batch(Some(&[0, 0, 0, 2]), value);
    assert_eq!(leader_change, Ok(None));
    let newer = control_batch(Some(&[0, 1, 0, 1, 9]), Some(&[0, 1, 0, 0, 0, 5, 9]));
    assert_eq!(newer.unwrap().unwrap().coordinator_epoch, 5);
    let malformed = [
        control_batch(None, value),
        control_batch(Some(&[0, 0, 0]), value),
        control_batch(Some(&[0xff, 0xff, 0, 1]), value),
        control_batch(Some(&[0, 0, 0, 1]), None),
        control_batch(Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 0])),
        control_batch(Some(&[0, 0, 0, 1]), Some(&[0xff, 0xff, 0, 0, 0, 5])),
    ];
    for refused in malformed {
        assert!(
            matches!(refused, Err(BatchError::BadRecord { index: 0, .. })),
            "{refused:?}"
        );
    }
    assert_eq!(parse(sample(Compression::None)).control(), Ok(None));
    let marker = encode_marker(
        identity(1, 1),
        ControlRecord {
            kind: ControlType::Commit,
            coordinator_epoch: 0,
        },
        Timestamp(1),
    );
    let emptied = rewrite(&parse(marker), &LIMIT(), None, |_| false).unwrap();
    assert_eq!(parse(emptied).control(), Ok(None));
}

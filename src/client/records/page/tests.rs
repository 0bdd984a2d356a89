//! Pages of batches made here: every fate of a record, and pages that begin and end within a batch.

use ::bytes::{Bytes, BytesMut};

use super::*;
use crate::client::AbortedTransaction;
use crate::protocol::batch::{
    BatchBuilder, BatchProducer, Compression, ControlRecord, encode_marker, stamp,
};
use crate::types::{ProducerEpoch, Sequence};

fn identity(id: i64) -> ProducerIdentity {
    ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(3),
    }
}

/// A log of batches in a row.
#[derive(Default)]
pub(crate) struct Written {
    bytes: BytesMut,
    end: i64,
}

impl Written {
    fn put(&mut self, mut batch: BytesMut, records: i64) {
        stamp(&mut batch, Offset(self.end), 0);
        self.bytes.extend_from_slice(&batch);
        self.end += records;
    }

    fn data(&mut self, producer: BatchProducer, values: &[&str]) {
        let mut builder = BatchBuilder::new(Compression::None, None);
        for value in values {
            builder.push(Timestamp(7), Some(b"key"), Some(value.as_bytes()));
        }
        let built = builder.finish(producer);
        self.put(built, i64::try_from(values.len()).unwrap());
    }

    fn transactional(&mut self, id: i64, values: &[&str]) {
        self.data(
            BatchProducer::Transactional(identity(id), Sequence::ZERO),
            values,
        );
    }

    fn marker(&mut self, id: i64, kind: ControlType) {
        let record = ControlRecord {
            kind,
            coordinator_epoch: 0,
        };
        self.put(encode_marker(identity(id), record, Timestamp(9)), 1);
    }

    fn fetched(&self, aborted: &[(i64, i64)]) -> FetchedRecords {
        let aborted = aborted.iter().map(|(id, first)| AbortedTransaction {
            producer_id: ProducerId(*id),
            first_offset: Offset(*first),
        });
        FetchedRecords {
            records: Bytes::copy_from_slice(&self.bytes),
            aborted_transactions: aborted.collect(),
            high_watermark: Offset(self.end),
            last_stable_offset: Offset(self.end),
            log_start_offset: Offset::ZERO,
        }
    }
}

/// Two transactions, one of them aborted, and a plain record.
fn some() -> Written {
    let mut log = Written::default();
    log.transactional(1, &["a", "b"]);
    log.transactional(2, &["x"]);
    log.data(BatchProducer::Plain, &["plain"]);
    log.marker(2, ControlType::Abort);
    log.marker(1, ControlType::Commit);
    log
}

fn states(page: &Page) -> Vec<(i64, State, bool)> {
    let rows = page.rows.iter();
    rows.map(|row| (row.offset.0, row.state, row.is_visible))
        .collect()
}

#[test]
fn committed_aborted_and_plain_records_and_markers_are_told_apart() {
    let fetched = some().fetched(&[(2, 2)]);
    let page = Page::of(fetched, Offset::ZERO, Isolation::ReadCommitted, 100).unwrap();
    assert_eq!(
        states(&page),
        [
            (0, State::Committed, true),
            (1, State::Committed, true),
            (2, State::Aborted, false),
            (3, State::Plain, true),
            (4, State::Plain, false),
            (5, State::Plain, false),
        ]
    );
    assert_eq!(page.next, Offset(6));
    let json = page.rows[4].json();
    assert_eq!(
        (&json["kind"], &json["marker"]),
        (&"marker".into(), &"abort".into())
    );
    assert_eq!(page.rows[5].json()["marker"], "commit");
    let json = page.rows[1].json();
    assert_eq!(
        (&json["kind"], &json["transaction"]),
        (&"record".into(), &"committed".into())
    );
    assert_eq!(
        (&json["value"]["text"], &json["time"]),
        (&"b".into(), &7.into())
    );
    assert_eq!(
        (&json["producer_id"], &json["producer_epoch"]),
        (&1.into(), &3.into())
    );
    assert_eq!(page.rows[3].json()["producer_id"], Value::Null);
}

#[test]
fn behind_the_last_stable_offset_markers_and_the_producers_decide() {
    let mut log = some();
    log.transactional(1, &["c"]);
    log.transactional(5, &["d"]);
    let mut page = Page::of(
        log.fetched(&[]),
        Offset::ZERO,
        Isolation::ReadUncommitted,
        100,
    )
    .unwrap();
    let ended: Vec<_> = states(&page)
        .into_iter()
        .map(|(_, state, _)| state)
        .collect();
    assert_eq!(
        ended[..4],
        [
            State::Committed,
            State::Committed,
            State::Aborted,
            State::Plain
        ]
    );
    assert_eq!(ended[6..], [State::Open, State::Open]);
    assert!(
        page.rows.iter().all(|row| !row.is_visible),
        "nobody is shown them yet"
    );
    page.settle(&[ProducerDescription {
        producer: identity(5),
        last_sequence: 0,
        last_timestamp: Timestamp(7),
        coordinator_epoch: 0,
        current_transaction_start: Some(Offset(7)),
    }]);
    assert_eq!(
        (page.rows[6].state, page.rows[7].state),
        (State::Ended, State::Open)
    );
}

#[test]
fn a_page_begins_and_ends_within_a_batch() {
    let page = Page::of(some().fetched(&[]), Offset(1), Isolation::ReadCommitted, 2).unwrap();
    let offsets: Vec<i64> = page.rows.iter().map(|row| row.offset.0).collect();
    assert_eq!((offsets, page.next), (vec![1, 2], Offset(3)));
    let none = Page::of(some().fetched(&[]), Offset(6), Isolation::ReadCommitted, 2).unwrap();
    assert!(none.rows.is_empty() && none.next == Offset(6));
}

#[test]
fn a_batch_that_nobody_can_read_is_a_row_that_says_so() {
    let mut log = Written::default();
    log.data(BatchProducer::Plain, &["a", "b"]);
    let last = log.bytes.len() - 1;
    // The number of headers of the last record.
    log.bytes[last] = 0x7f;
    log.data(BatchProducer::Plain, &["c"]);
    let page = Page::of(log.fetched(&[]), Offset::ZERO, Isolation::ReadCommitted, 9).unwrap();
    let kinds: Vec<Value> = page
        .rows
        .iter()
        .map(|row| row.json()["kind"].clone())
        .collect();
    assert_eq!(kinds, ["record", "unreadable", "record"]);
    assert_eq!((page.rows[1].offset, page.next), (Offset(1), Offset(3)));
}

//! The transactional writer against a scripted broker.

use super::*;
use crate::client::transport::scripted::{Fault, Scripted};
use crate::client::wait::wait;
use crate::protocol::ErrorCode;
use crate::protocol::batch::{BatchBuilder, Compression};
use crate::types::{Offset, Timestamp};

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), number)
}

fn writer(broker: &Arc<Scripted>) -> TransactionalWriter {
    let id = TransactionalId::new("job").unwrap();
    wait(TransactionalWriter::init(
        broker.clone(),
        id,
        Duration::from_secs(60),
    ))
    .unwrap()
}

fn batch(values: &[&str]) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for value in values {
        builder.push(Timestamp(1), None, Some(value.as_bytes()));
    }
    builder
}

#[test]
fn batches_of_a_partition_are_numbered_across_its_writers_and_from_0_in_each_transaction() {
    let broker = Scripted::new(2);
    let writer = writer(&broker);
    let mut one = writer.partition(&partition(0));
    let mut other = writer.partition(&partition(0));
    for _ in 0..2 {
        one.append(&mut batch(&["a", "b"])).unwrap();
        other.append(&mut batch(&["c"])).unwrap();
        assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    }
    let sequences: Vec<_> = broker
        .produced()
        .iter()
        .map(|p| (p.header.producer.epoch.0, p.header.base_sequence.0))
        .collect();
    assert_eq!(sequences, [(0, 0), (0, 2), (1, 0), (1, 2)]);
}

#[test]
fn c28_a_transaction_without_effects_asks_nothing() {
    let broker = Scripted::new(1);
    let writer = writer(&broker);
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
    assert!(broker.end_txns().is_empty());
}

#[test]
fn a_failed_append_leaves_nothing_but_an_abort() {
    let broker = Scripted::new(1);
    broker.script([Fault::Refuse(ErrorCode::MessageTooLarge)]);
    let writer = writer(&broker);
    let mut partition = writer.partition(&partition(0));
    assert!(partition.append(&mut batch(&["big"])).is_err());
    let error = partition.append(&mut batch(&["next"])).unwrap_err();
    assert!(matches!(error, ClientError::MustAbort { .. }));
    assert!(matches!(
        wait(writer.commit()),
        Err(ClientError::MustAbort { .. })
    ));
    assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
    partition.append(&mut batch(&["good"])).unwrap();
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
}

#[test]
fn c16_a_commit_whose_answer_was_lost_is_asked_again() {
    let broker = Scripted::new(1);
    broker.script_end_txn([
        Fault::Lose,
        Fault::Refuse(ErrorCode::ConcurrentTransactions),
    ]);
    let writer = writer(&broker);
    let mut partition = writer.partition(&partition(0));
    partition.append(&mut batch(&["a"])).unwrap();
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    let asked = broker.end_txns();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|ask| ask.producer == asked[0].producer));
    partition.append(&mut batch(&["b"])).unwrap();
}

#[test]
fn a_refusal_after_a_lost_answer_is_unknown_and_stops_the_writer() {
    let broker = Scripted::new(1);
    broker.script_end_txn([Fault::Lose, Fault::Refuse(ErrorCode::ProducerFenced)]);
    let writer = writer(&broker);
    let mut partition = writer.partition(&partition(0));
    partition.append(&mut batch(&["a"])).unwrap();
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Unknown);
    assert!(partition.append(&mut batch(&["b"])).is_err());
    // I4: who owns the id now is known, and a job that hears it does not take it back.
    let told = wait(writer.abort()).unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Fenced, "{told}");
}

#[test]
fn c11_a_fenced_writer_is_told_so_by_every_later_call() {
    let broker = Scripted::new(1);
    let first = writer(&broker);
    let mut partition = first.partition(&partition(0));
    partition.append(&mut batch(&["a"])).unwrap();
    broker.fence();
    broker.fence();
    let fenced = [
        wait(first.commit()).map(drop),
        wait(first.abort()).map(drop),
        partition.append(&mut batch(&["b"])).map(drop),
    ];
    for result in fenced {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Fenced);
    }
}

#[test]
fn c17_the_outcome_of_a_dropped_commit_is_still_there() {
    let broker = Scripted::new(1);
    broker.script_end_txn([Fault::Hold]);
    let writer = writer(&broker);
    let mut partition = writer.partition(&partition(0));
    partition.append(&mut batch(&["a"])).unwrap();
    drop(writer.commit());
    let error = partition.append(&mut batch(&["b"])).unwrap_err();
    assert!(error.to_string().contains("await commit"), "{error}");
    assert!(wait(writer.abort()).is_err(), "it is being committed");
    broker.release();
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    partition.append(&mut batch(&["b"])).unwrap();
    assert_eq!(broker.end_txns().len(), 1);
}

#[test]
fn batches_behind_one_that_is_sent_again_are_sent_again_in_order() {
    let broker = Scripted::new(1);
    // The second one is found out of order, because the first one is missing.
    broker.script([Fault::Refuse(ErrorCode::NotLeaderOrFollower)]);
    let writer = writer(&broker);
    let mut partition_writer = writer.partition(&partition(0));
    for value in ["a", "b", "c"] {
        partition_writer.hand_over(&mut batch(&[value])).unwrap();
    }
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    assert_eq!(broker.values(&partition(0)), [b"a", b"b", b"c"]);
    let sent: Vec<_> = broker
        .produced()
        .iter()
        .map(|p| p.header.base_sequence.0)
        .collect();
    assert_eq!(sent, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn c12_a_batch_whose_answer_was_lost_is_written_once() {
    let broker = Scripted::new(1);
    broker.script([Fault::Answer, Fault::Lose, Fault::Answer]);
    let writer = writer(&broker);
    let mut partition_writer = writer.partition(&partition(0));
    for value in ["a", "b", "c"] {
        partition_writer.hand_over(&mut batch(&[value])).unwrap();
    }
    assert_eq!(partition_writer.settle().unwrap(), Some(Offset(3)));
    assert_eq!(broker.values(&partition(0)), [b"a", b"b", b"c"]);
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
}

#[test]
fn a_batch_that_fails_after_it_was_handed_over_makes_the_commit_fail_and_the_abort_end_it() {
    let broker = Scripted::new(1);
    broker.set_max_message_bytes(10);
    broker.script([Fault::Hold]);
    let writer = writer(&broker);
    let mut partition_writer = writer.partition(&partition(0));
    partition_writer.hand_over(&mut batch(&["big"])).unwrap();
    let commit = writer.commit();
    assert!(
        broker.end_txns().is_empty(),
        "the batch is not answered yet"
    );
    broker.release();
    assert!(matches!(wait(commit), Err(ClientError::MustAbort { .. })));
    assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
    assert_eq!(broker.end_txns().len(), 1);
}

#[test]
fn c29_positions_that_came_with_the_last_generation_are_sent_again_in_the_same_transaction() {
    let broker = Scripted::new(1);
    broker.script_offsets([Fault::Refuse(ErrorCode::IllegalGeneration)]);
    let writer = writer(&broker);
    let mut partition = writer.partition(&partition(0));
    partition.append(&mut batch(&["a"])).unwrap();
    let group = GroupId::new("g").unwrap();
    let offer = || wait(writer.offer_offsets(group.clone(), GroupMember::default(), vec![]));
    assert_eq!(offer().unwrap(), Offered::AnotherGeneration);
    assert_eq!(offer().unwrap(), Offered::Taken);
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    // Of one that is no member any more nothing may be committed.
    broker.script_offsets([Fault::Refuse(ErrorCode::UnknownMemberId)]);
    partition.append(&mut batch(&["b"])).unwrap();
    assert!(offer().is_err());
    assert!(wait(writer.commit()).is_err());
}

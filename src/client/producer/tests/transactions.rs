//! Transactional calls: their order, failures, lost answers, fencing, dropped futures.

use super::*;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{Sequence, TransactionalId};

fn transactional() -> ProducerConfig {
    quick().transactional_id(TransactionalId::new("id").unwrap())
}

fn ready_producer(broker: &Arc<Scripted>, config: ProducerConfig) -> Producer<str, str> {
    let producer = producer(broker, config);
    wait(producer.init_transactions()).unwrap();
    producer
}

#[test]
fn calls_in_the_wrong_order_say_which_comes_first() {
    let broker = Scripted::new(1);
    let producer = producer(&broker, transactional());
    let says = |result: Result<Delivery, ClientError>| result.unwrap_err().to_string();
    wait(async {
        assert!(says(producer.send(record("x")).await).contains("init_transactions"));
        assert!(producer.begin_transaction().is_err());
        producer.init_transactions().await.unwrap();
        assert!(producer.init_transactions().await.is_err());
        assert!(says(producer.send(record("x")).await).contains("begin_transaction"));
        assert!(producer.commit_transaction().await.is_err());
        producer.begin_transaction().unwrap();
        assert!(producer.begin_transaction().is_err());
        assert_eq!(
            producer.commit_transaction().await.unwrap(),
            CommitOutcome::Committed
        );
    });
    let plain = self::producer(&broker, quick());
    assert!(
        plain
            .begin_transaction()
            .unwrap_err()
            .to_string()
            .contains("transactional.id")
    );
}

#[test]
fn c28_an_empty_transaction_asks_the_coordinator_nothing() {
    let broker = Scripted::new(1);
    let producer = ready_producer(&broker, transactional());
    wait(async {
        producer.begin_transaction().unwrap();
        assert_eq!(
            producer.commit_transaction().await.unwrap(),
            CommitOutcome::Committed
        );
        producer.begin_transaction().unwrap();
        assert_eq!(
            producer.abort_transaction().await.unwrap(),
            CommitOutcome::Aborted
        );
    });
    assert!(broker.end_txns().is_empty());
}

#[test]
fn each_transaction_has_its_own_epoch_and_sequences_from_0() {
    let broker = Scripted::new(1);
    let producer = ready_producer(&broker, transactional());
    wait(async {
        for value in ["a", "b", "c"] {
            producer.begin_transaction().unwrap();
            let sent = producer.send(record(value)).await.unwrap();
            assert_eq!(
                producer.commit_transaction().await.unwrap(),
                CommitOutcome::Committed
            );
            let _ = sent.await.unwrap();
        }
    });
    for (epoch, produced) in (0..).zip(broker.produced()) {
        assert_eq!(produced.header.producer.epoch.0, epoch);
        assert_eq!(produced.header.base_sequence, Sequence::ZERO);
        assert!(produced.header.is_transactional());
    }
    assert_eq!(values(&broker, 0), ["a", "b", "c"]);
}

#[test]
fn a_commit_waits_for_records_that_are_sent_again() {
    let broker = Scripted::new(1);
    broker.script([Fault::Drop, Fault::Lose]);
    let producer = ready_producer(&broker, transactional().linger(Duration::from_secs(19)));
    wait(async {
        producer.begin_transaction().unwrap();
        let _ = producer.send(record("x")).await.unwrap();
        assert_eq!(
            producer.commit_transaction().await.unwrap(),
            CommitOutcome::Committed
        );
    });
    assert_eq!(values(&broker, 0), ["x"]);
}

#[test]
fn a_failed_record_leaves_nothing_but_an_abort() {
    let broker = Scripted::new(1);
    broker.script([Fault::Refuse(ErrorCode::InvalidTimestamp)]);
    let producer = ready_producer(&broker, transactional());
    wait(async {
        producer.begin_transaction().unwrap();
        assert!(producer.send(record("bad")).await.unwrap().await.is_err());
        let error = producer.send(record("after")).await.unwrap_err();
        assert!(matches!(error, ClientError::MustAbort { .. }), "{error}");
        let error = producer.commit_transaction().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Abortable);
        assert_eq!(
            producer.abort_transaction().await.unwrap(),
            CommitOutcome::Aborted
        );
        producer.begin_transaction().unwrap();
        let sent = producer.send(record("good")).await.unwrap();
        assert_eq!(
            producer.commit_transaction().await.unwrap(),
            CommitOutcome::Committed
        );
        let _ = sent.await.unwrap();
    });
    assert_eq!(values(&broker, 0), ["good"]);
}

#[test]
fn a_record_that_fails_during_the_commit_fails_the_commit() {
    let broker = Scripted::new(1);
    broker.script([Fault::Refuse(ErrorCode::InvalidTimestamp)]);
    let producer = ready_producer(&broker, transactional().linger(Duration::from_secs(19)));
    wait(async {
        producer.begin_transaction().unwrap();
        let sent = producer.send(record("bad")).await.unwrap();
        let error = producer.commit_transaction().await.unwrap_err();
        assert!(matches!(error, ClientError::MustAbort { .. }), "{error}");
        assert!(sent.await.is_err());
        assert_eq!(
            producer.abort_transaction().await.unwrap(),
            CommitOutcome::Aborted
        );
    });
    assert_eq!(broker.end_txns().len(), 1);
}

#[test]
fn refused_positions_leave_nothing_but_an_abort() {
    let broker = Scripted::new(1);
    broker.script_offsets([Fault::Refuse(ErrorCode::IllegalGeneration)]);
    let producer = ready_producer(&broker, transactional());
    let group = GroupId::new("g").unwrap();
    wait(async {
        producer.begin_transaction().unwrap();
        let sent = producer.send_offsets(group, GroupMember::default(), Vec::new());
        assert!(sent.await.is_err());
        assert!(producer.commit_transaction().await.is_err());
        assert_eq!(
            producer.abort_transaction().await.unwrap(),
            CommitOutcome::Aborted
        );
    });
}

#[test]
fn an_abort_gives_up_what_was_not_sent() {
    let broker = Scripted::new(1);
    let producer = ready_producer(&broker, transactional().linger(Duration::from_secs(19)));
    wait(async {
        producer.begin_transaction().unwrap();
        let sent = producer.send(record("unsent")).await.unwrap();
        assert_eq!(
            producer.abort_transaction().await.unwrap(),
            CommitOutcome::Aborted
        );
        assert!(matches!(sent.await, Err(ClientError::NotSent { .. })));
    });
    assert!(broker.produced().is_empty());
}

#[test]
fn s15_a_refused_record_leaves_the_transaction_usable() {
    let broker = Scripted::new(1);
    let producer = ready_producer(&broker, transactional());
    let huge = "x".repeat(1 << 21);
    wait(async {
        producer.begin_transaction().unwrap();
        let _ = producer.send(record("before")).await.unwrap();
        let error = producer.send(record(&huge)).await.unwrap_err();
        assert!(matches!(error, ClientError::RecordTooLarge { .. }));
        let _ = producer.send(record("after")).await.unwrap();
        assert_eq!(
            producer.commit_transaction().await.unwrap(),
            CommitOutcome::Committed
        );
    });
    assert_eq!(values(&broker, 0), ["before", "after"]);
}

#[test]
fn c16_a_commit_whose_answer_was_lost_is_asked_again_and_gets_the_same_answer() {
    for fault in [Fault::Lose, Fault::Swallow, Fault::Drop] {
        let broker = Scripted::new(1);
        broker.script_end_txn([fault, Fault::Refuse(ErrorCode::ConcurrentTransactions)]);
        let producer = ready_producer(&broker, transactional());
        wait(async {
            producer.begin_transaction().unwrap();
            let _ = producer.send(record("x")).await.unwrap();
            let outcome = producer.commit_transaction().await.unwrap();
            assert_eq!(outcome, CommitOutcome::Committed, "{fault:?}");
        });
        let asked = broker.end_txns();
        assert_eq!(asked.len(), 3);
        assert!(asked.iter().all(|ask| ask.producer == asked[0].producer));
    }
}

#[test]
fn an_outcome_that_cannot_be_known_is_unknown_until_the_id_is_initialised_again() {
    let broker = Scripted::new(1);
    broker.script_end_txn([Fault::Swallow; 20]);
    let config = transactional()
        .max_block(Duration::from_millis(60))
        .request_timeout(Duration::from_millis(10));
    let producer = ready_producer(&broker, config);
    wait(async {
        producer.begin_transaction().unwrap();
        let _ = producer.send(record("x")).await.unwrap();
        assert_eq!(
            producer.commit_transaction().await.unwrap(),
            CommitOutcome::Unknown
        );
        assert!(producer.begin_transaction().is_err());
        producer.init_transactions().await.unwrap();
        producer.begin_transaction().unwrap();
    });
}

#[test]
fn a_refusal_after_a_lost_answer_does_not_hide_a_commit() {
    let broker = Scripted::new(1);
    broker.script_end_txn([Fault::Lose, Fault::Refuse(ErrorCode::ProducerFenced)]);
    let producer = ready_producer(&broker, transactional());
    wait(async {
        producer.begin_transaction().unwrap();
        let _ = producer.send(record("x")).await.unwrap();
        assert_eq!(
            producer.commit_transaction().await.unwrap(),
            CommitOutcome::Unknown
        );
        // I4: somebody else has the id, and has settled it. It is not taken back.
        let told = producer.init_transactions().await.unwrap_err();
        assert_eq!(told.kind(), ErrorKind::Fenced, "{told}");
    });
}

#[test]
fn c11_a_fenced_producer_is_told_so_by_every_later_call() {
    let broker = Scripted::new(1);
    let producer = ready_producer(&broker, transactional());
    wait(async {
        producer.begin_transaction().unwrap();
        let _ = producer.send(record("x")).await.unwrap();
        producer.flush().await;
        broker.fence();
        broker.fence();
        let fenced = [
            producer.commit_transaction().await.map(drop),
            producer.commit_transaction().await.map(drop),
            producer.abort_transaction().await.map(drop),
            producer.begin_transaction(),
            producer.send(record("y")).await.map(drop),
            producer.init_transactions().await,
        ];
        for result in fenced {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Fenced);
        }
    });
}

#[test]
fn c17_a_commit_whose_future_was_dropped_is_finished() {
    let broker = Scripted::new(1);
    broker.script_end_txn([Fault::Hold]);
    let producer = ready_producer(
        &broker,
        transactional().request_timeout(Duration::from_secs(15)),
    );
    wait(async {
        producer.begin_transaction().unwrap();
        let sent = producer.send(record("x")).await.unwrap();
        drop(producer.commit_transaction());
        assert_eq!(offset(sent.await), 0);
        until(&broker, "EndTxn is held", || broker.held_count() == 1);
        let again = producer.commit_transaction();
        broker.release();
        assert_eq!(again.await.unwrap(), CommitOutcome::Committed);
        producer.begin_transaction().unwrap();
    });
    assert_eq!(broker.end_txns().len(), 1, "it was committed once");
}

#[test]
fn close_aborts_an_open_transaction() {
    let broker = Scripted::new(1);
    let producer = ready_producer(&broker, transactional());
    wait(async {
        producer.begin_transaction().unwrap();
        let _ = producer.send(record("x")).await.unwrap();
        producer.flush().await;
        producer.close().await.unwrap();
    });
    let ends = broker.end_txns();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].result, TransactionResult::Abort);
}

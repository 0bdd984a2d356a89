//! Retries: each record once, in order, whatever happens to requests and answers (I6).

use proptest::prelude::*;

use super::*;
use crate::protocol::ErrorCode;
use crate::types::Sequence;

#[test]
fn a_batch_whose_answer_was_lost_is_written_once() {
    for fault in [Fault::Lose, Fault::Swallow, Fault::Drop] {
        let broker = Scripted::new(1);
        broker.script([fault]);
        let producer = producer(&broker, quick());
        let sent = wait(async { producer.send(record("once")).await.unwrap().await });
        assert_eq!(offset(sent), 0, "{fault:?}");
        assert_eq!(values(&broker, 0), ["once"], "{fault:?}");
        let produced = broker.produced();
        assert_eq!(produced.len(), 2, "{fault:?}");
        assert_eq!(produced[0], produced[1], "a retry is the same batch");
    }
}

#[test]
fn batches_that_overtook_a_refused_one_are_sent_again_in_order() {
    let broker = Scripted::new(1);
    broker.script([Fault::Refuse(ErrorCode::NotEnoughReplicas)]);
    let producer = producer(&broker, quick().batch_size_bytes(1usize));
    wait(async {
        let mut sent = Vec::new();
        for number in 0..20 {
            sent.push(producer.send(record(&number.to_string())).await.unwrap());
        }
        for (number, sent) in (0..).zip(sent) {
            assert_eq!(offset(sent.await), number);
        }
    });
    let expected: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(values(&broker, 0), expected);
}

#[test]
fn a_batch_that_is_never_acknowledged_fails_after_the_delivery_timeout() {
    let broker = Scripted::new(1);
    broker.set_default(Fault::Drop);
    let config = quick()
        .request_timeout(Duration::from_millis(10))
        .delivery_timeout(Duration::from_millis(60));
    let producer = producer(&broker, config);
    let clock = broker.env().clock.clone();
    let begun = clock.now();
    let error = wait(async { producer.send(record("x")).await.unwrap().await }).unwrap_err();
    assert!(
        matches!(error, ClientError::DeliveryTimeout { .. }),
        "{error}"
    );
    assert!(error.is_outcome_unknown());
    assert!(clock.now().since(begun) >= Duration::from_millis(60));
    assert!(broker.produced().len() > 1, "it was tried more than once");
}

#[test]
fn after_a_lost_batch_the_producer_goes_on_under_a_new_identity() {
    let broker = Scripted::new(1);
    broker.script([
        Fault::Answer,
        Fault::Refuse(ErrorCode::InvalidTimestamp),
        Fault::Answer,
    ]);
    let producer = producer(&broker, quick());
    wait(async {
        assert_eq!(
            offset(producer.send(record("first")).await.unwrap().await),
            0
        );
        let refused = producer.send(record("refused")).await.unwrap().await;
        assert_eq!(
            refused.unwrap_err().code(),
            Some(ErrorCode::InvalidTimestamp)
        );
        assert_eq!(
            offset(producer.send(record("next")).await.unwrap().await),
            1
        );
    });
    let produced = broker.produced();
    assert_ne!(produced[1].header.producer, produced[2].header.producer);
    assert_eq!(produced[2].header.base_sequence, Sequence::ZERO);
}

#[test]
fn batches_behind_a_refused_one_get_new_sequences_and_are_written() {
    let broker = Scripted::new(1);
    broker.script([Fault::Refuse(ErrorCode::InvalidTimestamp)]);
    let producer = producer(&broker, quick().batch_size_bytes(1usize));
    wait(async {
        let mut sent = Vec::new();
        for number in 0..8 {
            sent.push(producer.send(record(&number.to_string())).await.unwrap());
        }
        let mut sent = sent.into_iter();
        assert!(sent.next().unwrap().await.is_err());
        for (number, sent) in (0..).zip(sent) {
            assert_eq!(offset(sent.await), number);
        }
    });
    assert_eq!(values(&broker, 0), ["1", "2", "3", "4", "5", "6", "7"]);
}

#[test]
fn a_producer_that_the_partition_forgot_gets_a_new_identity_and_loses_nothing() {
    let broker = Scripted::new(1);
    let producer = producer(&broker, quick());
    wait(async {
        assert_eq!(offset(producer.send(record("a")).await.unwrap().await), 0);
        broker.forget_producers(&partition(0));
        broker.script([Fault::Refuse(ErrorCode::UnknownProducerId)]);
        assert_eq!(offset(producer.send(record("b")).await.unwrap().await), 1);
    });
    assert_eq!(values(&broker, 0), ["a", "b"]);
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::Answer),
        2 => Just(Fault::Lose),
        2 => Just(Fault::Refuse(ErrorCode::NotEnoughReplicas)),
        1 => Just(Fault::Swallow),
        1 => Just(Fault::Drop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// With five batches in flight, every record is written once and in order, under any mix of
    /// refusals, lost requests and lost answers.
    #[test]
    fn every_record_is_written_once_and_in_order(
        faults in proptest::collection::vec(fault(), 0..25),
        in_flight in 1usize..=5,
        batch_size in prop_oneof![Just(1usize), Just(100)],
    ) {
        let broker = Scripted::new(2);
        broker.script(faults);
        let config = quick()
            .request_timeout(Duration::from_millis(3))
            .max_in_flight(in_flight)
            .batch_size_bytes(batch_size);
        let producer = producer(&broker, config);
        wait(async {
            let mut sent = Vec::new();
            for number in 0..30i32 {
                let value = number.to_string();
                let record = record(&value).partition(number % 2);
                sent.push((number / 2, producer.send(record).await.unwrap()));
            }
            for (number, sent) in sent {
                assert_eq!(offset(sent.await), i64::from(number));
            }
        });
        for parity in 0..2 {
            let expected: Vec<_> = (0..15).map(|n| (2 * n + parity).to_string()).collect();
            prop_assert_eq!(values(&broker, parity), expected);
        }
    }
}

//! Transactions of clients that cannot learn a new epoch, through the whole broker.

use super::faults::{Told, check, lose_power_at_every_step, prepared};
use super::support::{
    Producer, create, group, open_simulated, partition, position, read_committed,
};
use crate::broker::{Broker, BrokerError};
use crate::env::block_on;
use crate::env::simulated::{PowerLoss, SimulatedWorld};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{TransactionResult, TxnOffsetCommitRequest};
use crate::types::TopicPartition;

/// A client that says what joins its transactions, and goes on with the identity that it has.
struct OlderProducer(Producer);

impl OlderProducer {
    fn add(&self, partitions: &[TopicPartition]) -> Result<(), BrokerError> {
        let Producer {
            broker,
            id,
            identity,
            ..
        } = &self.0;
        block_on(broker.add_partitions_to_txn(id, *identity, partitions.to_vec()))
    }

    fn send(&mut self, to: &TopicPartition, values: &[&str]) -> Result<(), BrokerError> {
        let request = self.0.request(to, values);
        block_on(self.0.broker.produce_to_joined(request)).map(drop)
    }

    fn send_offset(&self, source: &TopicPartition, offset: i64) -> Result<(), BrokerError> {
        let producer = &self.0;
        block_on(
            producer
                .broker
                .add_offsets_to_txn(&producer.id, producer.identity),
        )?;
        let request = TxnOffsetCommitRequest {
            transactional_id: producer.id.clone(),
            producer: producer.identity,
            group: group("g"),
            member: Default::default(),
            offsets: vec![(source.clone(), position(offset))],
        };
        block_on(producer.broker.txn_offset_commit_to_joined(request))
    }

    fn end(&self, result: TransactionResult) -> Result<(), BrokerError> {
        let request = self.0.end_request(result);
        let next = block_on(self.0.broker.end_txn_keeping_epoch(request))?;
        assert_eq!(next, self.0.identity);
        Ok(())
    }
}

/// Commits and aborts transactions until the broker refuses. One of the aborted ones writes where no other does.
fn run(broker: &Broker, told: &mut Told) -> Result<(), BrokerError> {
    let (a, b, c) = (partition("a", 0), partition("b", 0), partition("c", 0));
    let mut producer = OlderProducer(Producer::try_new(broker, "p")?);
    for count in 1..=5 {
        let value = count.to_string();
        producer.add(&[a.clone(), b.clone()])?;
        producer.send(&a, &[&value, &value])?;
        producer.send(&b, &[&value])?;
        producer.send_offset(&partition("source", 0), count)?;
        if count % 2 == 0 {
            producer.add(std::slice::from_ref(&c))?;
            producer.send(&c, &["never"])?;
            producer.end(TransactionResult::Abort)?;
            continue;
        }
        told.in_doubt = Some(value.clone());
        producer.end(TransactionResult::Commit)?;
        told.in_doubt = None;
        told.committed.push(value);
    }
    Ok(())
}

fn with_third_topic(seed: u64) -> (SimulatedWorld, Broker) {
    let (world, broker) = prepared(seed);
    create(&broker, "c", 1);
    (world, broker)
}

#[test]
fn c1_to_c10_a_power_loss_at_any_step_tears_no_transaction_that_keeps_its_epoch() {
    lose_power_at_every_step(with_third_topic, run, |broker, told, what| {
        let in_c = read_committed(broker, "c");
        assert!(in_c.is_empty(), "{what:?}: {in_c:?}");
        check(broker, told, what);
    });
}

#[test]
fn c13_a_batch_is_refused_where_its_open_transaction_is_not() {
    let (_world, broker) = with_third_topic(1);
    let mut producer = OlderProducer(Producer::new(&broker, "p"));
    let (a, b) = (partition("a", 0), partition("b", 0));
    producer.add(std::slice::from_ref(&a)).unwrap();
    producer.send(&a, &["1"]).unwrap();
    let refused = producer.send(&b, &["stray"]).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TransactionAbortable);
    producer.end(TransactionResult::Commit).unwrap();
    // Late: the transaction that it belongs to is over.
    let refused = producer.send(&a, &["late"]).unwrap_err();
    assert_eq!(refused.code, ErrorCode::TransactionAbortable);
    assert_eq!(read_committed(&broker, "a"), ["1"]);
}

#[test]
fn after_a_restart_the_producer_is_asked_to_renew_its_identity_and_nothing_else() {
    let (world, broker) = with_third_topic(2);
    let mut producer = OlderProducer(Producer::new(&broker, "p"));
    let a = partition("a", 0);
    producer.add(std::slice::from_ref(&a)).unwrap();
    producer.send(&a, &["1"]).unwrap();
    producer.end(TransactionResult::Commit).unwrap();
    drop(broker);
    producer.0.broker = open_simulated(&world.after_power_loss(PowerLoss::STRICT));
    let refused = producer.add(std::slice::from_ref(&a)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidProducerIdMapping);
    producer.end(TransactionResult::Abort).unwrap();
    let renewed = Producer::new(&producer.0.broker, "p");
    assert!(renewed.identity.epoch > producer.0.identity.epoch);
    assert_eq!(read_committed(&renewed.broker, "a"), ["1"]);
}

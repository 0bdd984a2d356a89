//! KAFKA-17754: with Kafka's older transactions, an EndTxn that is late ends the next transaction. Shown with requests
//! of our own making, as a client without our guard would send them; then that our client is not that one.

use std::net::TcpStream;

use onceflow::client::ErrorKind;
use onceflow::client::{CommitOutcome, wait};
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::wire::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic,
};
use onceflow::internals::protocol::wire::messages::end_txn::EndTxnRequest;
use onceflow::internals::protocol::wire::messages::init_producer_id::InitProducerIdRequest;
use onceflow::internals::protocol::wire::messages::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use onceflow::types::{ProducerEpoch, ProducerId, ProducerIdentity, Sequence};

use super::proxy::{END_TXN, Fate, until};
use super::stage::{END_TXN_CODE, World, commit, stage};
use crate::support::raw::{ask, frame, write_frame};
use crate::support::records::now;

/// The last versions before transactions v2.
const END_TXN_V1: i16 = 3;
const PRODUCE_V1: i16 = 9;

/// A producer of the older protocol that believes its requests to arrive in time: one epoch for all its transactions.
pub(super) struct Unguarded<'a> {
    world: &'a World<'a>,
    id: &'static str,
    identity: ProducerIdentity,
    next_sequence: i32,
}

impl<'a> Unguarded<'a> {
    pub(super) fn begin(world: &'a World<'a>, id: &'static str) -> Self {
        let request = InitProducerIdRequest {
            transactional_id: Some(id.to_owned()),
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        let identity = std::cell::Cell::new(None);
        until("the coordinator gives an identity", || {
            let answer = ask(&world.proxy.address(), 4, &request).unwrap();
            identity.set((answer.error_code == 0).then_some(ProducerIdentity {
                id: ProducerId(answer.producer_id),
                epoch: ProducerEpoch(answer.producer_epoch),
            }));
            identity.get().is_some()
        });
        Self {
            world,
            id,
            identity: identity.get().unwrap(),
            next_sequence: 0,
        }
    }

    pub(super) fn identity(&self) -> ProducerIdentity {
        self.identity
    }

    /// Adds the partition to the transaction, and writes a record.
    fn write(&mut self, value: &str) {
        let add = AddPartitionsToTxnRequest {
            transactional_id: self.id.to_owned(),
            producer_id: self.identity.id.0,
            producer_epoch: self.identity.epoch.0,
            topics: vec![AddPartitionsToTxnTopic {
                name: self.world.name.to_owned(),
                partitions: vec![0],
            }],
        };
        // The markers of the last transaction may still be on their way.
        until("the partition is added", || {
            let answer = ask(&self.world.proxy.address(), 3, &add).unwrap();
            answer.results_by_topic[0].results_by_partition[0].partition_error_code == 0
        });
        assert_eq!(self.write_unannounced(value), 0);
    }

    /// Writes a record, whether the partition is in the transaction or not; gives the error's code.
    pub(super) fn write_unannounced(&mut self, value: &str) -> i16 {
        let mut batch = BatchBuilder::new(Compression::None, None);
        batch.push(now(), None, Some(value.as_bytes()));
        let sequence = Sequence(self.next_sequence);
        let producer = BatchProducer::Transactional(self.identity, sequence);
        let produce = ProduceRequest {
            transactional_id: Some(self.id.to_owned()),
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![TopicProduceData {
                name: self.world.name.to_owned(),
                partition_data: vec![PartitionProduceData {
                    index: 0,
                    records: Some(batch.finish(producer).freeze()),
                }],
                ..TopicProduceData::default()
            }],
        };
        let answer = ask(&self.world.proxy.address(), PRODUCE_V1, &produce).unwrap();
        let code = answer.responses[0].partition_responses[0].error_code;
        self.next_sequence += i32::from(code == 0);
        code
    }

    fn end_request(&self, committed: bool) -> EndTxnRequest {
        EndTxnRequest {
            transactional_id: self.id.to_owned(),
            producer_id: self.identity.id.0,
            producer_epoch: self.identity.epoch.0,
            committed,
        }
    }

    fn end(&self, committed: bool) -> i16 {
        let request = self.end_request(committed);
        let answer = ask(&self.world.proxy.address(), END_TXN_V1, &request).unwrap();
        answer.error_code
    }
}

#[test]
fn k3_a_client_without_our_guard_has_what_it_aborts_committed_by_a_late_end() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "unguarded", "v1");
    let mut producer = Unguarded::begin(&world, "unguarded");
    producer.write("a");
    // The first attempt to commit is late, and the second one commits: this is how clients before KIP-890 do it.
    world.proxy.expect(END_TXN, [Fate::Hold]);
    let met = world.proxy.met();
    let mut first = TcpStream::connect(world.proxy.address()).unwrap();
    write_frame(&mut first, &frame(END_TXN_V1, &producer.end_request(true))).unwrap();
    until("the first attempt is held", || world.proxy.met() > met);
    assert_eq!(producer.end(true), 0);
    // The next transaction has the same epoch, so the late request means it just as well.
    producer.write("b");
    assert_eq!(world.proxy.release(END_TXN_CODE), [0], "it is taken");
    assert_ne!(producer.end(false), 0, "there is nothing left to abort");
    // The wrong outcome: `b` was to be aborted, and everybody sees it.
    world.until_committed(&["a", "b"]);
}

#[test]
fn k3_under_the_older_protocol_our_client_retires_the_producer_and_a_late_end_is_harmless() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "guarded", "v1");
    let writer = world.writer();
    world.append(&writer, "a").unwrap();
    world.proxy.expect(END_TXN, [Fate::Hold]);
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Unknown);
    let refused = world.append(&writer, "more").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Fatal, "the producer is retired");
    // Whoever goes on takes the id anew, which decides the first transaction, under another epoch.
    let writer = world.writer();
    world.append(&writer, "b").unwrap();
    let codes = world.proxy.release(END_TXN_CODE);
    assert_eq!(codes.len(), 1, "one was held");
    assert_ne!(codes[0], 0, "it names an epoch that is over");
    assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
    world.append(&writer, "c").unwrap();
    commit(&writer);
    world.until_committed(&["c"]);
    world.until_nothing_is_open();
}

#[test]
fn k2_under_the_older_protocol_no_end_is_sent_twice() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "once", "v1");
    for fate in [Fate::LoseAnswer, Fate::Drop] {
        let writer = world.writer();
        world.append(&writer, "a").unwrap();
        let met = world.proxy.met();
        // Were it sent again, the second request would meet the second fate.
        world.proxy.expect(END_TXN, [fate, Fate::Repeat]);
        assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Unknown);
        assert_eq!(wait(writer.commit()).unwrap_err().kind(), ErrorKind::Fatal);
        assert_eq!(world.proxy.met() - met, 1);
        world.proxy.forget();
    }
    drop(world.writer());
    world.until_nothing_is_open();
    world.until_committed(&["a"]);
}

#[test]
fn k3_with_transactions_v2_a_copy_of_an_end_gets_its_answer_and_ends_nothing_else() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "copied-end", "v2");
    let writer = world.writer();
    let mut committed = Vec::new();
    for value in ["a", "b", "c"] {
        let identity = writer.identity();
        world.append(&writer, value).unwrap();
        world.proxy.expect(END_TXN, [Fate::Repeat]);
        commit(&writer);
        committed.push(value);
        // Another copy, much later: the next transaction is open by then.
        world.append(&writer, "aborted").unwrap();
        let late = EndTxnRequest {
            transactional_id: world.name.to_owned(),
            producer_id: identity.id.0,
            producer_epoch: identity.epoch.0,
            committed: true,
        };
        let answer = ask(&world.proxy.address(), 5, &late).unwrap();
        assert_ne!(answer.error_code, 0, "its epoch is over");
        assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
    }
    world.until_committed(&committed);
    world.until_nothing_is_open();
}

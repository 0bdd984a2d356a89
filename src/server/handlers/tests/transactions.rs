//! Transactions, by the older rule and by the newer one; positions in them.

use bytes::Bytes;

use super::{Fixture, batch, fetch_request, only, values};
use crate::protocol::ErrorCode;
use crate::protocol::batch::BatchProducer;
use crate::protocol::wire::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use crate::protocol::wire::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic,
};
use crate::protocol::wire::messages::describe_transactions::DescribeTransactionsRequest;
use crate::protocol::wire::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use crate::protocol::wire::messages::init_producer_id::InitProducerIdRequest;
use crate::protocol::wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use crate::protocol::wire::messages::list_transactions::ListTransactionsRequest;
use crate::protocol::wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use crate::protocol::wire::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use crate::types::{ProducerEpoch, ProducerId, ProducerIdentity, Sequence};

const ID: &str = "tx";

impl Fixture {
    async fn init(&self, version: i16) -> ProducerIdentity {
        let request = InitProducerIdRequest {
            transactional_id: Some(ID.to_owned()),
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        let answer = self.ask(version, &request).await;
        assert_eq!(answer.error_code, 0);
        ProducerIdentity {
            id: ProducerId(answer.producer_id),
            epoch: ProducerEpoch(answer.producer_epoch),
        }
    }

    async fn add(
        &self,
        version: i16,
        producer: ProducerIdentity,
        topics: &[(&str, i32)],
    ) -> Vec<i16> {
        let topics = topics
            .iter()
            .map(|(name, partition)| AddPartitionsToTxnTopic {
                name: (*name).to_owned(),
                partitions: vec![*partition],
            });
        let request = AddPartitionsToTxnRequest {
            transactional_id: ID.to_owned(),
            producer_id: producer.id.0,
            producer_epoch: producer.epoch.0,
            topics: topics.collect(),
        };
        let answer = self.ask(version, &request).await;
        let topics = answer
            .results_by_topic
            .iter()
            .flat_map(|topic| &topic.results_by_partition);
        topics
            .map(|partition| partition.partition_error_code)
            .collect()
    }

    async fn end(
        &self,
        version: i16,
        producer: ProducerIdentity,
        committed: bool,
    ) -> EndTxnResponse {
        let request = EndTxnRequest {
            transactional_id: ID.to_owned(),
            producer_id: producer.id.0,
            producer_epoch: producer.epoch.0,
            committed,
        };
        self.ask(version, &request).await
    }

    async fn committed(&self, topic: &str) -> Vec<String> {
        let read = self.fetch(12, &fetch_request(topic, 0, 1)).await;
        let data = only(&read);
        let mut aborted = Vec::new();
        for transaction in data.aborted_transactions.as_deref().unwrap_or_default() {
            aborted.push(transaction.first_offset);
        }
        assert!(aborted.is_sorted(), "clients rely on the order");
        values(&data.records)
    }
}

fn of(producer: ProducerIdentity, sequence: i32, value: &str) -> Bytes {
    batch(
        &[value],
        BatchProducer::Transactional(producer, Sequence(sequence)),
    )
}

#[tokio::test]
async fn clients_of_the_older_rule_keep_their_epoch_and_their_sequences_go_on() {
    // The versions of aiokafka, of librdkafka, and the newest with this rule.
    for (init, add, produce, end) in [(0, 0, 7, 0), (4, 0, 10, 1), (4, 3, 11, 4)] {
        let fixture = Fixture::new();
        fixture.create("t", 1).await;
        let producer = fixture.init(init).await;
        for (sequence, committed) in [(0, true), (1, false), (2, true)] {
            let records = of(producer, sequence, &format!("{sequence}"));
            let refused = fixture
                .produce(produce, "t", Some(ID), records.clone())
                .await;
            let expected = match produce {
                ..=10 => ErrorCode::InvalidTxnState,
                _ => ErrorCode::TransactionAbortable,
            };
            assert_eq!(refused.error_code, expected.code(), "not added yet");
            assert_eq!(fixture.add(add, producer, &[("t", 0)]).await, [0]);
            assert_eq!(
                fixture
                    .produce(produce, "t", Some(ID), records)
                    .await
                    .error_code,
                0
            );
            assert_eq!(fixture.end(end, producer, committed).await.error_code, 0);
            // A repeated request is answered again.
            assert_eq!(fixture.end(end, producer, committed).await.error_code, 0);
        }
        let read = fixture.fetch(12, &fetch_request("t", 0, 1)).await;
        let aborted = only(&read).aborted_transactions.clone().unwrap();
        assert_eq!(aborted.len(), 1);
        assert_eq!(aborted[0].producer_id, producer.id.0);
    }
}

#[tokio::test]
async fn clients_of_the_newer_rule_get_a_new_epoch_at_each_end() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let producer = fixture.init(5).await;
    // The batch joins its partition by itself.
    assert_eq!(
        fixture
            .produce(12, "t", Some(ID), of(producer, 0, "a"))
            .await
            .error_code,
        0
    );
    let latest = ListOffsetsRequest {
        isolation_level: 1,
        topics: vec![ListOffsetsTopic {
            name: "t".to_owned(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    let stable = fixture.ask(5, &latest).await;
    assert_eq!(
        stable.topics[0].partitions[0].offset, 0,
        "the transaction is open"
    );
    let ended = fixture.end(5, producer, true).await;
    assert_eq!((ended.error_code, ended.producer_id), (0, producer.id.0));
    assert_eq!(ended.producer_epoch, producer.epoch.0 + 1);
    let stable = fixture.ask(5, &latest).await;
    assert_eq!(stable.topics[0].partitions[0].offset, 2);
    // Late: this epoch's transaction is over.
    let late = fixture
        .produce(12, "t", Some(ID), of(producer, 1, "b"))
        .await;
    assert_eq!(late.error_code, ErrorCode::InvalidProducerEpoch.code());
    assert_eq!(fixture.committed("t").await, ["a"]);
}

#[tokio::test]
async fn a_fenced_producer_hears_of_it_by_the_code_that_its_version_knows() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let old = fixture.init(4).await;
    let new = fixture.init(4).await;
    assert!(new.epoch > old.epoch);
    let (epoch, fenced) = (
        ErrorCode::InvalidProducerEpoch.code(),
        ErrorCode::ProducerFenced.code(),
    );
    assert_eq!(fixture.end(1, old, true).await.error_code, epoch);
    assert_eq!(fixture.end(2, old, true).await.error_code, fenced);
    assert_eq!(fixture.add(1, old, &[("t", 0)]).await, [epoch]);
    assert_eq!(fixture.add(2, old, &[("t", 0)]).await, [fenced]);
    let produced = fixture.produce(12, "t", Some(ID), of(old, 0, "v")).await;
    assert_eq!(produced.error_code, epoch);
}

#[tokio::test]
async fn with_one_bad_partition_the_others_are_not_attempted() {
    let fixture = Fixture::new();
    fixture.create("t", 1).await;
    let producer = fixture.init(4).await;
    let answer = fixture
        .add(3, producer, &[("t", 0), ("t", 9), ("missing", 0)])
        .await;
    let not_attempted = ErrorCode::OperationNotAttempted.code();
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(answer, [not_attempted, unknown, unknown]);
    let id = vec![ID.to_owned()];
    let described = fixture
        .ask(
            0,
            &DescribeTransactionsRequest {
                transactional_ids: id,
            },
        )
        .await;
    assert_eq!(described.transaction_states[0].transaction_state, "Empty");
    assert_eq!(fixture.add(3, producer, &[("t", 0)]).await, [0]);
    let filter = ListTransactionsRequest {
        state_filters: vec!["Ongoing".to_owned(), "Odd".to_owned()],
        ..ListTransactionsRequest::default()
    };
    let listed = fixture.ask(0, &filter).await;
    assert_eq!(listed.transaction_states[0].transactional_id, ID);
    assert_eq!(listed.unknown_state_filters, ["Odd"]);
}

fn positions(producer: ProducerIdentity, metadata: &str) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: ID.to_owned(),
        group_id: "g".to_owned(),
        producer_id: producer.id.0,
        producer_epoch: producer.epoch.0,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: "t".to_owned(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 7,
                committed_leader_epoch: 0,
                committed_metadata: Some(metadata.to_owned()),
            }],
        }],
        ..TxnOffsetCommitRequest::default()
    }
}

#[tokio::test]
async fn c27_positions_of_an_open_transaction_are_unstable_until_it_ends() {
    for (commit, end) in [(2, 1), (5, 5)] {
        let fixture = Fixture::new();
        fixture.create("t", 1).await;
        let producer = fixture.init(4).await;
        if commit < 5 {
            let early = fixture.ask(commit, &positions(producer, "words")).await;
            let code = early.topics[0].partitions[0].error_code;
            assert_eq!(
                code,
                ErrorCode::InvalidTxnState.code(),
                "the group was not added"
            );
            let add = AddOffsetsToTxnRequest {
                transactional_id: ID.to_owned(),
                producer_id: producer.id.0,
                producer_epoch: producer.epoch.0,
                group_id: "g".to_owned(),
            };
            assert_eq!(fixture.ask(0, &add).await.error_code, 0);
        }
        let pending = fixture.ask(commit, &positions(producer, "words")).await;
        assert_eq!(pending.topics[0].partitions[0].error_code, 0);
        let one = vec![OffsetFetchRequestTopics {
            name: "t".to_owned(),
            partition_indexes: vec![0],
        }];
        let fetch = |topics| OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: "g".to_owned(),
                topics,
                ..OffsetFetchRequestGroup::default()
            }],
            require_stable: true,
            ..OffsetFetchRequest::default()
        };
        let unstable = fixture.ask(8, &fetch(Some(one.clone()))).await;
        let partition = &unstable.groups[0].topics[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::UnstableOffsetCommit.code());
        assert_eq!(fixture.end(end, producer, true).await.error_code, 0);
        for topics in [Some(one), None] {
            let stable = fixture.ask(8, &fetch(topics)).await;
            let partition = &stable.groups[0].topics[0].partitions[0];
            assert_eq!((partition.error_code, partition.committed_offset), (0, 7));
            assert_eq!(partition.committed_leader_epoch, 0);
            assert_eq!(partition.metadata.as_deref(), Some("words"));
        }
        let older = OffsetFetchRequest {
            group_id: "g".to_owned(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: "t".to_owned(),
                partition_indexes: vec![0, 1],
            }]),
            ..OffsetFetchRequest::default()
        };
        let answer = fixture.ask(1, &older).await;
        let offsets = answer.topics[0]
            .partitions
            .iter()
            .map(|p| p.committed_offset);
        assert_eq!(offsets.collect::<Vec<_>>(), [7, -1]);
    }
}

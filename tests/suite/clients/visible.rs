//! The view of readers, and when it changes: records and not markers, uncommitted ones as soon as they are acknowledged.

use bytes::Bytes;
use futures::FutureExt;

use super::*;
use onceflow::client::ErrorCode;
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::messages::{
    Acks, InitProducerIdRequest, OffsetSpec, ProduceRequest, ProduceResponse,
};
use onceflow::types::{ProducerIdentity, Sequence, Timestamp, TransactionalId};

fn send_at(producer: &Producer<str, str>, value: &str, time: i64) {
    let record = record(value).timestamp(Timestamp(time));
    let sent = wait(async { producer.send(record).await?.await });
    sent.unwrap();
}

fn list(world: &World, spec: OffsetSpec, isolation: Isolation) -> Option<(i64, i64)> {
    let listed = wait(world.admin.list_offset(&partition(0), spec, isolation));
    let listed = listed.unwrap();
    listed.map(|listed| (listed.timestamp.0, listed.offset.0))
}

fn end(world: &World, isolation: Isolation) -> i64 {
    list(world, OffsetSpec::Latest, isolation).unwrap().1
}

fn newest(world: &World) -> Option<(i64, i64)> {
    list(world, OffsetSpec::MaxTimestamp, Isolation::ReadUncommitted)
}

fn identity(world: &World, id: Option<&TransactionalId>) -> ProducerIdentity {
    let request = InitProducerIdRequest {
        transactional_id: id.cloned(),
        transaction_timeout: Duration::from_secs(30),
        current: None,
    };
    wait(world.transport.init_producer_id(request)).unwrap()
}

fn batch(value: &str, producer: BatchProducer) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(Timestamp(1000), None, Some(value.as_bytes()));
    builder.finish(producer).freeze()
}

/// Sends bytes that no producer of ours would send.
fn produce(
    world: &World,
    records: Bytes,
    transactional_id: Option<&TransactionalId>,
    acks: Acks,
) -> Result<ProduceResponse, Option<ErrorCode>> {
    for _ in 0..100 {
        let request = ProduceRequest {
            partition: partition(0),
            records: records.clone().into(),
            acks,
            transactional_id: transactional_id.cloned(),
        };
        match wait(world.transport.produce(request)).map_err(|error| error.code()) {
            // The transport has to learn who leads the partition.
            Err(Some(ErrorCode::NotLeaderOrFollower)) => {
                wait(world.transport.topic(&topic())).unwrap();
            }
            result => return result,
        }
    }
    panic!("no leader was found for {}", partition(0));
}

pub(super) fn x7_lookups_by_time_name_records_that_readers_see(backend: Backend) {
    let world = World::synced(backend);
    let producer = world.producer(quick());
    for (value, time) in [("a", 1000), ("b", 500), ("c", 400)] {
        send_at(&producer, value, time);
    }
    assert_eq!(newest(&world), Some((1000, 0)));
    wait(world.admin.delete_records(&partition(0), Offset(1))).unwrap();
    // Kafka names a record that it has deleted.
    if backend != Backend::Kafka {
        assert_eq!(newest(&world), Some((500, 1)));
    }
    let transactional = world.transactional("id");
    transactional.begin_transaction().unwrap();
    send_at(&transactional, "d", 600);
    let outcome = wait(transactional.commit_transaction()).unwrap();
    assert_eq!(outcome, CommitOutcome::Committed);
    world.until("the marker is written", || {
        end(&world, Isolation::ReadCommitted) == 5
    });
    // Kafka names the marker, which no reader gets.
    if backend != Backend::Kafka {
        assert_eq!(newest(&world), Some((600, 3)));
    }
    let since = |time| {
        let spec = OffsetSpec::Timestamp(Timestamp(time));
        list(&world, spec, Isolation::ReadCommitted)
    };
    assert_eq!(since(550), Some((600, 3)));
    assert_eq!(since(601), None);
}

pub(super) fn x12_uncommitted_records_are_visible_as_soon_as_they_are_acknowledged(
    backend: Backend,
) {
    let world = World::synced(backend);
    let plain = world.producer(quick());
    send(&plain, "plain");
    let transactional = world.transactional("id");
    transactional.begin_transaction().unwrap();
    let uncommitted = Isolation::ReadUncommitted;
    for count in 2..5 {
        send(&transactional, "open");
        assert_eq!(end(&world, uncommitted), count);
        assert_eq!(end(&world, Isolation::ReadCommitted), 1);
        assert_eq!(
            world.read(uncommitted).len(),
            usize::try_from(count).unwrap()
        );
        assert_eq!(world.committed_values(), ["plain"]);
    }
    let latest = ConsumerConfig::default()
        .auto_offset_reset(OffsetReset::Latest)
        .isolation(uncommitted);
    let mut consumer = world.consumer(latest);
    wait(async {
        assert!(consumer.poll(Duration::ZERO).await.unwrap().is_empty());
        assert_eq!(consumer.lag(&partition(0)).await.unwrap(), Some(0));
        let mut poll = Box::pin(consumer.poll(PATIENCE));
        assert!((&mut poll).now_or_never().is_none(), "it began too early");
        let sent = transactional.send(record("next")).await.unwrap();
        assert_eq!(sent.await.unwrap().offset, Some(Offset(4)));
        let records = poll.await.unwrap();
        assert_eq!(offsets_and_values(&records), [(4, "next".to_owned())]);
        assert_eq!(consumer.lag(&partition(0)).await.unwrap(), Some(0));
    });
    assert_eq!(world.committed_values(), ["plain"]);
}

pub(super) fn x14_a_producer_that_a_partition_does_not_know_begins_with_any_sequence(
    backend: Backend,
) {
    let world = World::new(backend);
    let producer = identity(&world, None);
    let send = |sequence: i32| {
        let producer = BatchProducer::Idempotent(producer, Sequence(sequence));
        let value = sequence.to_string();
        // Our client would wait for the first batch of a producer, unless it expects no answer.
        produce(&world, batch(&value, producer), None, Acks::None)
    };
    if backend == Backend::Embedded {
        // Who calls functions is a producer of ours, which takes a new sequence then.
        assert_eq!(send(57).unwrap_err(), Some(ErrorCode::UnknownProducerId));
        return;
    }
    for (sequence, expected) in [(57, vec!["57"]), (58, vec!["57", "58"])] {
        // Without an answer a batch that came before the partition was led is lost; one that comes twice is written once.
        world.until("the next one is written", || {
            send(sequence).unwrap();
            world.committed_values() == expected
        });
    }
    // From here on it is known.
    send(60).unwrap();
    world.until("the next one is written", || {
        send(59).unwrap();
        world.committed_values() == ["57", "58", "59"]
    });
}

pub(super) fn x14_a_transaction_with_an_epoch_of_its_own_begins_with_sequence_0(backend: Backend) {
    let world = World::new(backend);
    let id = id("id");
    let producer = identity(&world, Some(&id));
    let send = |sequence| {
        let producer = BatchProducer::Transactional(producer, Sequence(sequence));
        let sent = produce(&world, batch("x", producer), Some(&id), Acks::All);
        sent.map(|response| response.base_offset.0)
    };
    assert_eq!(send(1), Err(Some(ErrorCode::OutOfOrderSequenceNumber)));
    assert_eq!(send(0), Ok(0));
    assert_eq!(send(1), Ok(1));
}

pub(super) fn x16_records_are_deleted_before_an_offset_of_the_partition_or_all_of_them(
    backend: Backend,
) {
    let world = World::new(backend);
    let producer = world.producer(quick());
    for value in ["a", "b", "c"] {
        send(&producer, value);
    }
    let delete = |before| {
        let deleted = wait(world.admin.delete_records(&partition(0), Offset(before)));
        deleted.map(|start| start.0).map_err(|error| error.code())
    };
    let out_of_range = Err(Some(ErrorCode::OffsetOutOfRange));
    for before in [-1001, -2, i64::MIN, 4, i64::MAX] {
        assert_eq!(delete(before), out_of_range, "before {before}");
    }
    assert_eq!(delete(1), Ok(1));
    assert_eq!(delete(0), Ok(1));
    assert_eq!(world.committed_values(), ["b", "c"]);
    assert_eq!(delete(-1), Ok(3));
}

//! Where records go.

use super::*;
use crate::env::Env;

fn ask<'a>(topic: &'a TopicName, key: Option<&'a [u8]>, count: i32) -> Partitioning<'a> {
    Partitioning {
        topic,
        key,
        value: None,
        size_bytes: 100,
        partitions_count: count,
    }
}

#[test]
fn keys_go_where_the_java_client_sends_them() {
    let partitioner = DefaultPartitioner::new(Env::real().random, 16_384);
    let topic = topic();
    // Utils.toPositive(Utils.murmur2(key)) % 10 and % 7, from the Java client's test vectors.
    for (key, of_ten, of_seven) in [
        ("21", 0, 3),
        ("foobar", 6, 0),
        ("a-little-bit-long-string", 2, 1),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 7, 3),
    ] {
        let key = Some(key.as_bytes());
        assert_eq!(partitioner.partition(&ask(&topic, key, 10)), of_ten);
        assert_eq!(partitioner.partition(&ask(&topic, key, 7)), of_seven);
    }
}

#[test]
fn records_without_a_key_stick_until_a_batch_is_full_and_then_move_on() {
    let partitioner = DefaultPartitioner::new(Env::real().random, 1000);
    let topic = topic();
    let next = || partitioner.partition(&ask(&topic, None, 3));
    let mut last = -1;
    for _ in 0..20 {
        let first = next();
        assert_ne!(first, last, "a full batch is followed by another partition");
        // 10 records of 100 bytes make 1,000.
        assert!((1..10).all(|_| next() == first));
        last = first;
    }
}

#[test]
fn a_sticky_partition_that_is_gone_is_left() {
    let partitioner = DefaultPartitioner::new(Env::real().random, 1000);
    let topic = topic();
    for _ in 0..50 {
        partitioner.partition(&ask(&topic, None, 100));
        assert_eq!(partitioner.partition(&ask(&topic, None, 1)), 0);
    }
}

#[test]
fn round_robin_deals_records_out_in_turn() {
    let partitioner = RoundRobinPartitioner::default();
    let topic = topic();
    let dealt: Vec<_> = (0..7)
        .map(|_| partitioner.partition(&ask(&topic, Some(b"same"), 3)))
        .collect();
    assert_eq!(dealt, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn a_closure_is_a_partitioner_and_an_explicit_partition_overrules_it() {
    let broker = Scripted::new(4);
    let producer: Producer<str, str> = Producer::builder(broker.clone(), quick())
        .partitioner(|record: &Partitioning<'_>| record.partitions_count - 1)
        .build()
        .unwrap();
    wait(async {
        let topic = topic();
        let chosen = ProducerRecord::new(&topic).key("k").value("chosen");
        let chosen = producer.send(chosen).await.unwrap();
        assert_eq!(chosen.partition().partition, 3);
        let explicit = ProducerRecord::new(&topic).partition(1).value("explicit");
        let explicit = producer.send(explicit).await.unwrap();
        assert_eq!(explicit.await.unwrap().partition.partition, 1);
        producer.close().await.unwrap();
    });
    assert_eq!(values(&broker, 3), ["chosen"]);
    assert_eq!(values(&broker, 1), ["explicit"]);
}

#[test]
fn a_partition_or_topic_that_does_not_exist_is_refused_at_once() {
    let broker = Scripted::new(2);
    let producer = producer(&broker, quick());
    let topic = topic();
    let beyond = ProducerRecord::new(&topic).partition(2).value("x");
    let error = wait(producer.send(beyond)).unwrap_err();
    assert!(matches!(
        error,
        ClientError::NoSuchPartition {
            partition: 2,
            partitions_count: 2,
            ..
        }
    ));
    let missing = TopicName::new("missing").unwrap();
    let error = wait(producer.send(ProducerRecord::new(&missing).value("x"))).unwrap_err();
    assert!(error.to_string().contains("there is no topic missing"));
    assert!(broker.produced().is_empty());
}

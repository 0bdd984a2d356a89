//! Round trips of keys, values, headers, times, compressions, sizes.

use super::*;
use onceflow::client::Compression;
use onceflow::client::ErrorCode;
use onceflow::types::Timestamp;

pub(super) fn records_come_back_as_they_were_sent_under_every_compression(backend: Backend) {
    let world = World::new(backend);
    let kinds = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for compression in kinds {
        let producer = world.producer(
            ProducerConfig::default()
                .compression(compression)
                .linger(Duration::from_secs(19)),
        );
        wait(async {
            let full = record("value").key("key").timestamp(Timestamp(77));
            let _ = producer
                .send(full.header("h", b"1").header("h", b"2"))
                .await
                .unwrap();
            let tombstone = ProducerRecord::new(&topic()).partition(0).key("gone");
            let _ = producer.send(tombstone).await.unwrap();
            producer.flush().await;
        });
    }
    let mut consumer = world.consumer(earliest());
    let records = wait(consumer.poll(PATIENCE)).unwrap();
    assert_eq!(records.len(), 2 * kinds.len());
    for (number, record) in (0..).zip(records.iter()) {
        assert_eq!(record.offset().0, number);
        let headers: Vec<_> = record.headers().collect();
        match number % 2 {
            0 => {
                assert_eq!(record.key().unwrap().as_deref(), Some("key"));
                assert_eq!(record.value().unwrap().as_deref(), Some("value"));
                assert_eq!(record.timestamp(), Timestamp(77));
                let values: Vec<_> = headers.iter().map(|(_, value)| *value).collect();
                assert_eq!(values, [Some(&b"1"[..]), Some(&b"2"[..])]);
            }
            _ => {
                assert_eq!(record.value().unwrap(), None);
                assert!(headers.is_empty());
            }
        }
    }
}

pub(super) fn empty_and_10_mb_values_come_back_whole(backend: Backend) {
    let world = World::with_topic(backend, &[("max.message.bytes", "20000000")]);
    let config = quick().max_request_size_bytes(20_000_000usize);
    let producer = world.producer(config);
    let huge = "xyz".repeat(3_500_000);
    send(&producer, "");
    send(&producer, &huge);
    send(&producer, "after");
    let values = world.committed_values();
    assert_eq!(values.len(), 3);
    assert_eq!(values[0], "");
    assert!(values[1] == huge);
    assert_eq!(values[2], "after");
}

pub(super) fn s15_a_record_over_the_topics_limit_leaves_the_transaction_usable(backend: Backend) {
    let world = World::with_topic(backend, &[("max.message.bytes", "1000")]);
    let producer = world.transactional("id");
    producer.begin_transaction().unwrap();
    send(&producer, "before");
    let huge = "x".repeat(1000);
    let error = wait(producer.send(record(&huge))).unwrap_err();
    assert!(matches!(
        error,
        ClientError::RecordTooLarge {
            limit_bytes: 1000,
            ..
        }
    ));
    send(&producer, "after");
    let outcome = wait(producer.commit_transaction()).unwrap();
    assert_eq!(outcome, CommitOutcome::Committed);
    world.until_committed(&["before", "after"]);
}

pub(super) fn batches_are_kept_within_the_topics_limit(backend: Backend) {
    let world = World::with_topic(backend, &[("max.message.bytes", "500")]);
    let producer = world.producer(ProducerConfig::default().linger(Duration::from_secs(19)));
    let value = "x".repeat(100);
    wait(async {
        let mut sent = Vec::new();
        for _ in 0..20 {
            sent.push(producer.send(record(&value)).await.unwrap());
        }
        producer.flush().await;
        for (expected, sent) in (0..).zip(sent) {
            assert_eq!(sent.await.unwrap().offset, Some(Offset(expected)));
        }
    });
}

pub(super) fn a_limit_lowered_behind_the_producers_back_is_reported_by_the_record(
    backend: Backend,
) {
    let world = World::new(backend);
    let producer = world.producer(quick());
    send(&producer, "small");
    wait(world.admin.set_config(&topic(), "max.message.bytes", "200")).unwrap();
    let value = "x".repeat(1000);
    let outcome = wait(async { producer.send(record(&value)).await?.await });
    let error = outcome.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge), "{error}");
    assert_eq!(send(&producer, "small again"), 1);
}

pub(super) fn many_senders_lose_and_duplicate_nothing(backend: Backend) {
    let world = World::new(backend);
    let producer = world.producer(
        quick()
            .batch_size_bytes(300usize)
            .buffer_memory_bytes(3000usize),
    );
    // Names belong to this thread.
    let topic = topic();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (producer, topic) = (producer.clone(), &topic);
            scope.spawn(move || {
                for number in 0..200 {
                    let value = format!("{thread}-{number}");
                    let record = ProducerRecord::new(topic).partition(0).value(&*value);
                    let _ = wait(producer.send(record)).unwrap();
                }
            });
        }
    });
    wait(producer.close()).unwrap();
    let values = world.committed_values();
    assert_eq!(values.len(), 800);
    for thread in 0..4 {
        let prefix = format!("{thread}-");
        let mine: Vec<_> = values.iter().filter(|v| v.starts_with(&prefix)).collect();
        let expected: Vec<_> = (0..200).map(|n| format!("{thread}-{n}")).collect();
        assert_eq!(mine, expected.iter().collect::<Vec<_>>());
    }
}

pub(super) fn a_new_writer_goes_on_over_a_restart_of_the_broker(backend: Backend) {
    let mut world = World::new(backend);
    let before = world.producer(quick());
    send(&before, "a");
    drop(before);
    world.reopen();
    let after = world.producer(quick());
    assert_eq!(send(&after, "b"), 1);
    assert_eq!(world.committed_values(), ["a", "b"]);
}

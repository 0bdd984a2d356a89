//! Positions, limits, pauses, times, ends, committed positions.

use futures::FutureExt;

use super::*;
use onceflow::client::ErrorCode;
use onceflow::client::consumer::PartitionReader;
use onceflow::codec::{Json, Raw};
use onceflow::types::Timestamp;

fn world_with(backend: Backend, count: i64) -> World {
    let world = World::new(backend);
    let producer = world.producer(quick().batch_size_bytes(200usize));
    wait(async {
        for number in 0..count {
            let value = number.to_string();
            let record = record(&value).timestamp(Timestamp(1000 + number));
            let _ = producer.send(record).await.unwrap();
        }
        producer.close().await.unwrap();
    });
    world
}

fn numbers(records: &ConsumerRecords<str, str>) -> Vec<i64> {
    records.iter().map(|r| r.offset().0).collect()
}

pub(super) fn a_poll_returns_at_most_max_poll_records_and_the_next_one_goes_on(backend: Backend) {
    let world = world_with(backend, 25);
    let mut consumer = world.consumer(earliest().max_poll_records(10usize));
    let mut seen = Vec::new();
    for expected in [10, 10, 5, 0] {
        let records = wait(consumer.poll(Duration::ZERO)).unwrap();
        assert_eq!(records.len(), expected);
        seen.extend(numbers(&records));
        let position = consumer.position(&partition(0)).unwrap().unwrap();
        assert_eq!(position.0, i64::try_from(seen.len()).unwrap());
    }
    assert_eq!(seen, (0..25).collect::<Vec<_>>());
}

pub(super) fn a_seek_into_the_middle_of_a_batch_begins_exactly_there(backend: Backend) {
    let world = world_with(backend, 25);
    let mut consumer = world.consumer(earliest());
    for from in [24, 0, 13, 7] {
        consumer.seek(&partition(0), Offset(from)).unwrap();
        let records = wait(consumer.poll(Duration::ZERO)).unwrap();
        assert_eq!(numbers(&records), (from..25).collect::<Vec<_>>());
    }
    assert!(matches!(
        consumer.seek(&partition(1), Offset(0)),
        Err(ClientError::NotAssigned { .. })
    ));
}

pub(super) fn beginning_end_and_times_can_be_sought_and_looked_up(backend: Backend) {
    let world = world_with(backend, 25);
    let mut consumer = world.consumer(earliest());
    wait(async {
        let at = |time| [(partition(0), Timestamp(time))];
        let found = consumer.offsets_for_times(at(1007)).await.unwrap();
        assert_eq!(found[0].1.unwrap().offset, Offset(7));
        let none = consumer.offsets_for_times(at(5000)).await.unwrap();
        assert_eq!(none[0].1, None);
        for (time, expected) in [(1020, 20), (0, 0), (5000, 25)] {
            consumer.seek_to_time(Timestamp(time)).await.unwrap();
            let position = consumer.position(&partition(0)).unwrap();
            assert_eq!(position, Some(Offset(expected)));
        }
        assert_eq!(consumer.lag(&partition(0)).await.unwrap(), Some(0));
        consumer.seek_to_beginning().await.unwrap();
        assert_eq!(consumer.lag(&partition(0)).await.unwrap(), Some(25));
        consumer.seek_to_end().await.unwrap();
        assert!(consumer.poll(Duration::ZERO).await.unwrap().is_empty());
        let first = consumer.beginning_offset(&partition(0)).await.unwrap();
        assert_eq!(first, Offset(0));
    });
}

pub(super) fn a_paused_partition_is_silent_and_keeps_its_place(backend: Backend) {
    let world = world_with(backend, 25);
    let mut consumer = world.consumer(earliest().max_poll_records(10usize));
    assert_eq!(wait(consumer.poll(Duration::ZERO)).unwrap().len(), 10);
    consumer.pause(&partition(0)).unwrap();
    assert_eq!(consumer.paused().count(), 1);
    assert!(wait(consumer.poll(Duration::ZERO)).unwrap().is_empty());
    consumer.resume(&partition(0)).unwrap();
    let records = wait(consumer.poll(Duration::ZERO)).unwrap();
    assert_eq!(numbers(&records), (10..20).collect::<Vec<_>>());
}

pub(super) fn a_new_assignment_keeps_the_positions_of_what_stays(backend: Backend) {
    let world = world_with(backend, 25);
    let mut consumer = world.consumer(earliest().max_poll_records(10usize));
    assert_eq!(wait(consumer.poll(Duration::ZERO)).unwrap().len(), 10);
    consumer.assign([partition(0), partition(1)]);
    assert_eq!(consumer.assignment().count(), 2);
    let records = wait(consumer.poll(Duration::ZERO)).unwrap();
    assert_eq!(numbers(&records), (10..20).collect::<Vec<_>>());
}

pub(super) fn a_poll_waits_for_records_and_a_dropped_poll_loses_none(backend: Backend) {
    let world = World::new(backend);
    let producer = world.producer(quick());
    let mut consumer = world.consumer(earliest());
    wait(async {
        let mut poll = Box::pin(consumer.poll(PATIENCE));
        assert!((&mut poll).now_or_never().is_none(), "there is nothing yet");
        drop(poll);
        let mut poll = Box::pin(consumer.poll(PATIENCE));
        assert!((&mut poll).now_or_never().is_none());
        let _ = producer.send(record("x")).await.unwrap();
        let records = poll.await.unwrap();
        assert_eq!(offsets_and_values(&records), [(0, "x".to_owned())]);
    });
}

pub(super) fn without_a_position_the_reset_policy_decides(backend: Backend) {
    let world = world_with(backend, 3);
    let policy = |reset| ConsumerConfig::default().auto_offset_reset(reset);
    let mut none = world.consumer(policy(OffsetReset::None));
    let error = wait(none.poll(Duration::ZERO)).unwrap_err();
    assert!(matches!(error, ClientError::NoPosition { .. }), "{error}");
    let mut earliest = world.consumer(policy(OffsetReset::Earliest));
    assert_eq!(wait(earliest.poll(Duration::ZERO)).unwrap().len(), 3);
    let mut latest = world.consumer(policy(OffsetReset::Latest));
    assert!(wait(latest.poll(Duration::ZERO)).unwrap().is_empty());
    let position = latest.position(&partition(0)).unwrap();
    assert_eq!(position, Some(Offset(3)));
}

pub(super) fn a_group_goes_on_where_it_committed(backend: Backend) {
    let mut world = world_with(backend, 25);
    let config = || earliest().group_id(group()).max_poll_records(10usize);
    let mut first = world.consumer(config());
    assert_eq!(wait(first.poll(Duration::ZERO)).unwrap().len(), 10);
    wait(first.commit()).unwrap();
    drop(first);
    world.reopen();
    let mut second = world.consumer(config());
    let records = wait(second.poll(Duration::ZERO)).unwrap();
    assert_eq!(numbers(&records), (10..20).collect::<Vec<_>>());
    let committed = wait(second.committed(vec![partition(0), partition(1)])).unwrap();
    assert_eq!(committed[0].1.as_ref().unwrap().offset, Offset(10));
    assert_eq!(committed[1].1, None);
    let ungrouped = world.consumer(earliest());
    assert!(wait(ungrouped.commit()).is_err(), "it has no group.id");
}

pub(super) fn s14_a_position_that_retention_overtook_is_an_error_and_not_a_jump(backend: Backend) {
    let world = world_with(backend, 25);
    for reset in [
        OffsetReset::None,
        OffsetReset::Earliest,
        OffsetReset::Latest,
    ] {
        let config = ConsumerConfig::default().auto_offset_reset(reset);
        let mut consumer = world.consumer(config);
        consumer.seek(&partition(0), Offset(5)).unwrap();
        wait(world.admin.delete_records(&partition(0), Offset(10))).unwrap();
        for _ in 0..2 {
            match wait(consumer.poll(Duration::ZERO)).unwrap_err() {
                ClientError::OffsetOutOfRange {
                    position,
                    log_start_offset,
                    end_offset,
                    ..
                } => {
                    let found = (position.0, log_start_offset.0, end_offset.0);
                    assert_eq!(found, (5, 10, 25));
                }
                other => panic!("{other}"),
            }
        }
        wait(consumer.seek_to_beginning()).unwrap();
        let records = wait(consumer.poll(Duration::ZERO)).unwrap();
        assert_eq!(numbers(&records), (10..25).collect::<Vec<_>>());
    }
}

pub(super) fn a_position_beyond_the_end_is_an_error_too(backend: Backend) {
    let world = world_with(backend, 3);
    let mut consumer = world.consumer(earliest());
    consumer.seek(&partition(0), Offset(4)).unwrap();
    let error = wait(consumer.poll(Duration::ZERO)).unwrap_err();
    assert!(
        matches!(error, ClientError::OffsetOutOfRange { .. }),
        "{error}"
    );
}

pub(super) fn an_unreadable_value_names_its_place_and_can_be_read_as_bytes(backend: Backend) {
    let world = world_with(backend, 0);
    let raw: Producer<[u8], [u8]> = Producer::new(world.transport.clone(), quick()).unwrap();
    let topic = topic();
    let not_text = ProducerRecord::new(&topic)
        .partition(0)
        .value(&[0xff, 0xfe][..]);
    wait(async { raw.send(not_text).await.unwrap().await.unwrap() });
    let mut consumer = world.consumer(earliest());
    let records = wait(consumer.poll(Duration::ZERO)).unwrap();
    let record = records.iter().next().unwrap();
    let error = record.value().unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("{} at offset 0", partition(0))),
        "{error}"
    );
    assert_eq!(record.value_bytes().unwrap()[..], [0xff, 0xfe]);
    assert_eq!(record.key().unwrap(), None);
}

pub(super) fn codecs_of_ones_choice_write_and_read(backend: Backend) {
    let world = World::new(backend);
    let builder = Producer::<[u8], Vec<i32>>::builder(world.transport.clone(), quick());
    let producer = builder.key_codec(Raw).value_codec(Json).build().unwrap();
    let topic = topic();
    let record = ProducerRecord::new(&topic).partition(0);
    let value = vec![1, 2];
    let record = record.key(&b"k"[..]).value(&value);
    wait(async { producer.send(record).await.unwrap().await.unwrap() });
    let mut consumer: Consumer<[u8], Vec<i32>> =
        Consumer::with_codecs(world.transport.clone(), earliest(), Raw, Json);
    consumer.assign([partition(0)]);
    let records = wait(consumer.poll(Duration::ZERO)).unwrap();
    let record = records.iter().next().unwrap();
    assert_eq!(record.value_bytes().unwrap()[..], b"[1,2]"[..]);
    assert_eq!(record.value().unwrap().unwrap().into_owned(), [1, 2]);
    assert_eq!(record.key().unwrap().as_deref(), Some(&b"k"[..]));
}

pub(super) fn a_partition_reader_reads_batches_in_place_and_waits_for_more(backend: Backend) {
    let world = world_with(backend, 25);
    let transport = world.transport.clone();
    let isolation = Isolation::ReadCommitted;
    let mut reader = PartitionReader::new(transport, partition(0), Offset(3), isolation);
    let mut seen = Vec::new();
    for batch in reader.fetch_now().unwrap() {
        let batch = batch.unwrap();
        seen.extend(batch.iter().map(|record| record.unwrap().offset.0));
    }
    assert_eq!(seen, (3..25).collect::<Vec<_>>());
    assert_eq!(reader.position(), Offset(25));
    assert_eq!(reader.end_offset(), Offset(25));
    assert_eq!(reader.fetch_now().unwrap().count(), 0);
    let producer = world.producer(quick());
    wait(async {
        let mut fetch = Box::pin(reader.fetch(PATIENCE));
        assert!(
            (&mut fetch).now_or_never().is_none(),
            "there is nothing yet"
        );
        let _ = producer.send(record("x")).await.unwrap();
        assert_eq!(fetch.await.unwrap().end(), Offset(26));
    });
}

pub(super) fn a_missing_partition_says_so(backend: Backend) {
    let world = World::new(backend);
    let mut consumer = world.consumer(earliest());
    consumer.assign([partition(9)]);
    let error = wait(consumer.poll(Duration::ZERO)).unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopicOrPartition));
}

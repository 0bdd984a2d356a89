//! Batches, bounds, callbacks, flush, close.

use std::sync::mpsc;

use parking_lot::Mutex;

use super::super::accumulator::{Accumulator, Appended, Encoded, Rules};
use super::super::memory::Memory;
use super::*;
use crate::protocol::messages::Acks;
use crate::types::{Offset, Timestamp};

const NOW: Instant = Instant(Duration::from_secs(100));

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The pure accumulator of a plain producer.
fn accumulator(config: &ProducerConfig) -> Accumulator {
    Accumulator::new(Rules::new(config))
}

fn plain() -> ProducerConfig {
    ProducerConfig::default().enable_idempotence(false)
}

fn push(accumulator: &mut Accumulator, value: &[u8], now: Instant) {
    let encoded = Encoded {
        timestamp: Timestamp(1),
        key: None,
        value: Some(value),
        headers: &[],
    };
    let memory = Memory::new(1 << 20);
    let mut reservation = match memory.reserve(1000, now, Duration::ZERO) {
        Reserved::Now(reservation) => Some(reservation),
        Reserved::Later(_) => None,
    };
    let limit = 1 << 20;
    let appended = accumulator.append(&partition(0), &encoded, limit, &mut reservation, now);
    assert!(matches!(appended, Appended::Done { .. }));
}

#[test]
fn records_within_the_linger_share_a_batch() {
    let mut accumulator = accumulator(&plain().linger(millis(5)));
    push(&mut accumulator, b"a", NOW);
    push(&mut accumulator, b"b", NOW.plus(millis(4)));
    assert!(accumulator.drain(false, NOW.plus(millis(4))).is_empty());
    assert_eq!(accumulator.next_deadline(NOW), Some(NOW.plus(millis(5))));
    let batches = accumulator.drain(false, NOW.plus(millis(5)));
    assert_eq!(batches.len(), 1);
    let batch = crate::protocol::batch::Header::parse(batches[0].records.bytes()).unwrap();
    assert_eq!(batch.records_count, 2);
}

#[test]
fn a_full_batch_does_not_wait_for_its_linger() {
    let config = plain()
        .linger(Duration::from_secs(60))
        .batch_size_bytes(200usize);
    let mut accumulator = accumulator(&config);
    for _ in 0..5 {
        push(&mut accumulator, &[b'x'; 60], NOW);
    }
    let batches = accumulator.drain(false, NOW);
    assert_eq!(batches.len(), 4, "each but the open one is full");
    assert!(
        batches
            .iter()
            .all(|batch| batch.records.bytes().len() <= 200)
    );
}

#[test]
fn the_sender_is_woken_only_for_what_it_can_do() {
    // Three records fill a batch.
    let config = plain().linger(millis(5)).batch_size_bytes(300usize);
    let mut accumulator = accumulator(&config);
    let wakes = |accumulator: &mut Accumulator, now| {
        let encoded = Encoded {
            timestamp: Timestamp(1),
            key: None,
            value: Some(&[b'x'; 60]),
            headers: &[],
        };
        let memory = Memory::new(1 << 20);
        let Reserved::Now(reservation) = memory.reserve(1000, now, Duration::ZERO) else {
            panic!("there was room");
        };
        let mut reservation = Some(reservation);
        match accumulator.append(&partition(0), &encoded, 1 << 20, &mut reservation, now) {
            Appended::Done { wakes_sender, .. } => wakes_sender,
            Appended::NeedsMemory(_) => panic!("there was memory"),
        }
    };
    assert!(wakes(&mut accumulator, NOW), "nobody knows of its linger");
    assert!(!wakes(&mut accumulator, NOW), "the batch has room");
    assert!(!wakes(&mut accumulator, NOW), "the batch has room");
    assert!(wakes(&mut accumulator, NOW), "the first batch is full");
    for _ in 0..40 {
        wakes(&mut accumulator, NOW);
    }
    assert_eq!(accumulator.drain(false, NOW).len(), 5);
    accumulator.next_deadline(NOW);
    for _ in 0..8 {
        assert!(!wakes(&mut accumulator, NOW), "no more may be in flight");
    }
}

#[test]
fn at_most_five_batches_of_a_partition_are_in_flight() {
    let mut accumulator = accumulator(&plain().batch_size_bytes(1usize));
    for _ in 0..9 {
        push(&mut accumulator, b"x", NOW);
    }
    let first = accumulator.drain(true, NOW);
    assert_eq!(first.len(), 5);
    assert!(accumulator.drain(true, NOW).is_empty());
    let answer = crate::protocol::messages::ProduceResponse {
        base_offset: Offset(0),
        log_append_time: Timestamp::NONE,
        log_start_offset: Offset(0),
    };
    for fate in accumulator.complete(&partition(0), first[0].number, Ok(answer), NOW) {
        fate.tell();
    }
    assert_eq!(accumulator.drain(true, NOW).len(), 1);
}

#[test]
fn a_record_that_waits_unsent_fails_after_the_delivery_timeout() {
    // An idempotent producer that never gets an identity sends nothing.
    let mut accumulator = accumulator(&ProducerConfig::default());
    push(&mut accumulator, b"x", NOW);
    assert!(accumulator.drain(true, NOW).is_empty());
    assert!(accumulator.expire(NOW.plus(millis(119_999))).is_empty());
    let fates = accumulator.expire(NOW.plus(millis(120_000)));
    assert!(matches!(
        fates[0].error(),
        Some(ClientError::NotSent { .. })
    ));
    assert!(accumulator.is_empty());
}

#[test]
fn memory_is_given_in_the_order_of_asking_and_returned() {
    let memory = Memory::new(100);
    let Reserved::Now(first) = memory.reserve(80, NOW, millis(10)) else {
        panic!("there was room");
    };
    let Reserved::Later(mut large) = memory.reserve(90, NOW, millis(10)) else {
        panic!("there was no room");
    };
    let Reserved::Later(mut small) = memory.reserve(1, NOW, millis(10)) else {
        panic!("the small one must not overtake the large one");
    };
    drop(first);
    let large = large.try_recv().unwrap().unwrap().unwrap();
    let small = small.try_recv().unwrap().unwrap().unwrap();
    assert_eq!(memory.used_bytes(), 91);
    drop((large, small));
    assert_eq!(memory.used_bytes(), 0);
}

#[test]
fn who_waits_for_memory_goes_on_once_an_eighth_of_it_is_free() {
    let memory = Memory::new(800);
    let mut batches: Vec<_> = std::iter::repeat_with(|| memory.reserve(50, NOW, millis(10)))
        .take(16)
        .collect();
    let Reserved::Later(mut waiting) = memory.reserve(50, NOW, millis(10)) else {
        panic!("there was no room");
    };
    batches.pop();
    assert!(waiting.try_recv().unwrap().is_none(), "one batch is little");
    batches.pop();
    assert!(waiting.try_recv().unwrap().unwrap().is_ok());
}

#[test]
fn a_grant_that_nobody_takes_goes_to_the_next() {
    let memory = Memory::new(100);
    let Reserved::Now(first) = memory.reserve(100, NOW, millis(10)) else {
        panic!("there was room");
    };
    let Reserved::Later(dropped) = memory.reserve(100, NOW, millis(10)) else {
        panic!("there was no room");
    };
    drop(dropped);
    let Reserved::Later(mut next) = memory.reserve(100, NOW, millis(10)) else {
        panic!("there was no room");
    };
    drop(first);
    assert!(next.try_recv().unwrap().unwrap().is_ok());
    assert_eq!(memory.used_bytes(), 0, "the grant was dropped at once");
}

#[test]
fn s13_a_full_buffer_makes_senders_wait_and_then_fail() {
    let broker = Scripted::new(1);
    broker.set_default(Fault::Hold);
    let config = quick()
        .request_timeout(Duration::from_secs(15))
        .batch_size_bytes(1000usize)
        .buffer_memory_bytes(2000usize)
        .max_block(millis(30));
    let producer = producer(&broker, config);
    let big = "x".repeat(900);
    wait(async {
        let first = producer.send(record(&big)).await.unwrap();
        let second = producer.send(record(&big)).await.unwrap();
        let error = producer.send(record(&big)).await.unwrap_err();
        assert!(
            matches!(error, ClientError::BufferExhausted { .. }),
            "{error}"
        );
        assert_eq!(error.kind(), crate::protocol::ErrorKind::Retriable);
        until(&broker, "both are held", || broker.held_count() == 2);
        broker.set_default(Fault::Answer);
        broker.release();
        assert_eq!(offset(first.await), 0);
        assert_eq!(offset(second.await), 1);
        let third = producer.send(record(&big)).await.unwrap();
        assert_eq!(offset(third.await), 2);
    });
}

#[test]
fn a_waiting_sender_goes_on_once_there_is_room() {
    let broker = Scripted::new(1);
    broker.script([Fault::Hold]);
    let config = quick()
        .request_timeout(Duration::from_secs(15))
        .batch_size_bytes(1000usize)
        .buffer_memory_bytes(1000usize);
    let producer = producer(&broker, config);
    let big = "x".repeat(900);
    wait(async {
        let first = producer.send(record(&big)).await.unwrap();
        until(&broker, "it is held", || broker.held_count() == 1);
        let release = async {
            broker.release();
        };
        let (second, ()) = futures::join!(producer.send(record(&big)), release);
        assert_eq!(offset(first.await), 0);
        assert_eq!(offset(second.unwrap().await), 1);
    });
}

#[test]
fn flush_sends_half_full_batches_and_waits_for_all() {
    let broker = Scripted::new(1);
    let producer = producer(&broker, quick().linger(Duration::from_secs(19)));
    wait(async {
        for number in 0..10 {
            let _ = producer.send(record(&number.to_string())).await.unwrap();
        }
        producer.flush().await;
    });
    assert_eq!(values(&broker, 0).len(), 10);
    assert_eq!(broker.produced().len(), 1, "they lingered together");
}

#[test]
fn callbacks_come_in_order_with_metadata_and_survive_a_panic() {
    let broker = Scripted::new(1);
    let producer = producer(&broker, quick().linger(Duration::from_secs(19)));
    let (tell, told) = mpsc::channel();
    wait(async {
        for number in 0..3 {
            let tell = tell.clone();
            let sent = producer.send_with_callback(
                record("value").key("k").timestamp(Timestamp(7 + number)),
                move |outcome| {
                    tell.send(outcome.unwrap()).unwrap();
                    assert_ne!(number, 1, "a panic in a callback");
                },
            );
            let _ = sent.await.unwrap();
        }
        producer.flush().await;
    });
    let told: Vec<_> = told.try_iter().collect();
    let offsets: Vec<_> = told.iter().map(|m| m.offset.unwrap().0).collect();
    assert_eq!(offsets, [0, 1, 2]);
    assert_eq!(told[2].timestamp, Timestamp(9));
    assert_eq!((told[2].key_bytes, told[2].value_bytes), (Some(1), Some(5)));
}

#[derive(Default)]
struct Spy {
    acknowledged: Arc<Mutex<Vec<i64>>>,
}

impl ProducerInterceptor<str, str> for Spy {
    fn on_send(&self, record: &mut ProducerRecord<'_, str, str>) {
        record.value = Some("changed".to_owned().into());
        record.partition = Some(1);
    }

    fn on_acknowledgement(&self, outcome: &Result<RecordMetadata, ClientError>) {
        let metadata = outcome.as_ref().unwrap();
        self.acknowledged.lock().push(metadata.offset.unwrap().0);
    }
}

#[test]
fn interceptors_may_change_records_and_see_their_fate() {
    let broker = Scripted::new(2);
    let spy = Spy::default();
    let acknowledged = spy.acknowledged.clone();
    let producer: Producer<str, str> = Producer::builder(broker.clone(), quick())
        .interceptor(spy)
        .build()
        .unwrap();
    wait(async {
        let sent = producer.send(record("original")).await.unwrap();
        let _ = sent.await.unwrap();
    });
    assert_eq!(values(&broker, 1), ["changed"]);
    assert_eq!(*acknowledged.lock(), [0]);
}

#[test]
fn close_writes_what_is_buffered_and_refuses_what_comes_later() {
    let broker = Scripted::new(1);
    let producer = producer(&broker, quick().linger(Duration::from_secs(19)));
    wait(async {
        let sent = producer.send(record("last")).await.unwrap();
        producer.close().await.unwrap();
        assert_eq!(offset(sent.await), 0);
        let error = producer.send(record("late")).await.unwrap_err();
        assert!(matches!(error, ClientError::Closed { .. }));
        assert!(producer.close().await.is_err());
    });
}

#[test]
fn close_gives_up_after_its_timeout() {
    let broker = Scripted::new(1);
    broker.set_default(Fault::Drop);
    let producer = producer(&broker, quick());
    wait(async {
        let sent = producer.send(record("stuck")).await.unwrap();
        producer.close_within(millis(20)).await.unwrap();
        assert!(sent.await.is_err());
    });
}

#[test]
fn dropping_the_producer_still_writes_what_is_buffered() {
    let broker = Scripted::new(1);
    let producer = producer(&broker, quick().linger(Duration::from_secs(19)));
    let sent = wait(producer.send(record("last"))).unwrap();
    drop(producer);
    assert_eq!(offset(wait(sent)), 0);
}

#[test]
fn without_acknowledgements_the_offset_stays_unknown() {
    let broker = Scripted::new(1);
    broker.set_default(Fault::Swallow);
    let config = quick().acks(Acks::None).enable_idempotence(false);
    let producer = producer(&broker, config);
    let sent = wait(async { producer.send(record("x")).await.unwrap().await });
    assert_eq!(sent.unwrap().offset, None);
    assert_eq!(values(&broker, 0), ["x"]);
}

#[test]
fn s15_records_over_a_limit_are_refused_before_they_enter_a_batch() {
    let broker = Scripted::new(1);
    broker.set_max_message_bytes(2000);
    let producer = producer(&broker, quick().max_request_size_bytes(3000usize));
    for (size, limit_name) in [
        (2500, "the topic's max.message.bytes"),
        (4000, "max.request.size"),
    ] {
        let big = "x".repeat(size);
        match wait(producer.send(record(&big))) {
            Err(ClientError::RecordTooLarge { limit, .. }) => assert_eq!(limit, limit_name),
            other => panic!("{other:?}"),
        }
    }
    // 64 KiB of key count as well as value bytes.
    let key = "k".repeat(65_536);
    let error = wait(producer.send(record("x").key(&key))).unwrap_err();
    assert!(matches!(error, ClientError::RecordTooLarge { .. }));
    assert!(broker.produced().is_empty());
}

#[test]
fn settings_by_name_are_checked() {
    let refused =
        |settings: &[(&str, &str)]| ProducerConfig::from_map(settings).unwrap_err().to_string();
    assert!(refused(&[("batch.sise", "1")]).contains("there is no such setting"));
    assert!(refused(&[("linger.ms", "soon")]).contains("milliseconds"));
    assert!(refused(&[("delivery.timeout.ms", "10")]).contains("linger.ms"));
    let twenty = [
        ("max.in.flight.requests.per.connection", "20"),
        ("enable.idempotence", "true"),
    ];
    assert!(refused(&twenty).contains("at most 5"));
    assert!(refused(&[("transactional.id", "x"), ("acks", "1")]).contains("idempotence"));
    let config = ProducerConfig::from_map(&[("acks", "1"), ("compression.type", "zstd")]).unwrap();
    assert!(!config.enable_idempotence);
}

//! Many clients, and clients that take much.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use onceflow::internals::protocol::batch::{Batch, Batches};
use onceflow::internals::protocol::wire::encode_request;

use super::{PATIENCE, Raw, Target, batch, fetch};

#[test]
fn thousand_idle_and_sixty_four_busy_connections() {
    let target = Target::start();
    let before = target.rss_bytes();
    let idle: Vec<Raw> = (0..1_000)
        .map(|_| {
            let mut client = target.connect();
            // Each is there, and has been of use.
            assert!(
                client
                    .request(9, &super::MetadataRequest::default())
                    .is_some()
            );
            client
        })
        .collect();
    let per_connection = target.rss_bytes().saturating_sub(before) / 1_000;
    println!("an idle connection takes {per_connection} bytes");
    assert!(
        per_connection < 32 << 10,
        "{per_connection} bytes a connection"
    );

    fill(&target, 16);
    let stalled = stalled_readers(&target);
    let counts = busy_rounds(&target);
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    println!("{BUSY} busy connections: {least} to {most} rounds each of {SHARE} on average");
    assert!(*least >= SHARE / 4, "somebody starved: {counts:?}");
    drop(idle);
    target.assert_unharmed_beside(1_000 + BUSY, BUSY + stalled.len());
}

/// Connections that work at a time.
const BUSY: usize = 64;
/// Rounds of each of them on average.
const SHARE: u64 = 20;

/// Counts the rounds of each busy connection until together they had done [`SHARE`] each: a broker that favoured
/// some would leave others behind.
fn busy_rounds(target: &Target) -> Vec<u64> {
    let value = vec![b'x'; 16 << 10];
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..BUSY)
            .map(|_| {
                let mut client = target.connect();
                let (value, done) = (&value, &done);
                scope.spawn(move || {
                    let mut count = 0;
                    while done.fetch_add(1, Ordering::Relaxed) < SHARE * BUSY as u64 {
                        assert_eq!(client.produce("honest", batch(&[value])), 0);
                        client.fetch("honest", 0);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect()
    })
}

/// Readers that ask for everything, and take nothing of it.
fn stalled_readers(target: &Target) -> Vec<Raw> {
    let frame = encode_request(12, 1, None, &fetch("large", 0, i32::MAX)).unwrap();
    let reader = |_| {
        let mut client = target.connect();
        client.send_frame(&frame.to_bytes());
        client.send_frame(&frame.to_bytes());
        client
    };
    (0..16).map(reader).collect()
}

/// Fills the topic `large` with `mebibytes` of records.
fn fill(target: &Target, mebibytes: usize) {
    let value = vec![b'x'; 512 << 10];
    let mut client = target.connect();
    assert_eq!(client.create_topic("large"), 0);
    for _ in 0..mebibytes * 2 {
        assert_eq!(client.produce("large", batch(&[&value])), 0);
    }
}

#[test]
fn readers_that_ask_for_everything_and_take_nothing() {
    let target = Target::start();
    fill(&target, 64);
    let frame = encode_request(12, 1, None, &fetch("large", 0, i32::MAX)).unwrap();
    let stalled: Vec<Raw> = (0..64)
        .map(|_| {
            let mut client = target.connect();
            client.send_frame(&frame.to_bytes());
            client.send_frame(&frame.to_bytes());
            client
        })
        .collect();
    let took = target.serve_an_honest_client();
    assert!(took < PATIENCE / 3, "{took:?}");
    assert_eq!(stalled.len(), 64);
    target.assert_unharmed_beside(64, 64);
}

#[test]
fn f7_damage_met_in_the_middle_of_an_answer_ends_it_and_the_next_answer_says_so() {
    let target = Target::start();
    fill(&target, 8);
    let segment = target
        .directory
        .path()
        .join("data/log/large-0/00000000000000000000.log");
    let file = File::options().write(true).open(&segment).unwrap();
    file.write_all_at(&[0; 100], 5 << 20).unwrap();

    let mut reader = target.connect();
    let frame = encode_request(12, 1, None, &fetch("large", 0, i32::MAX)).unwrap();
    reader.send_frame(&frame.to_bytes());
    let mut announced = [0; 4];
    reader.stream.read_exact(&mut announced).unwrap();
    let announced = u32::from_be_bytes(announced);
    let mut given = Vec::new();
    reader.stream.read_to_end(&mut given).unwrap();
    assert!(announced > 8 << 20, "{announced}");
    assert!((4 << 20..5 << 20).contains(&given.len()), "{}", given.len());

    // From now on it reads before it answers: what is sound is given, then what is wrong is told.
    let mut reader = target.connect();
    let mut offset = 0;
    let code = loop {
        let answer = reader.request(12, &fetch("large", offset, i32::MAX));
        let partition = answer.unwrap().responses.remove(0).partitions.remove(0);
        if partition.error_code != 0 {
            break partition.error_code;
        }
        let batches = Batches::new(partition.records.into_bytes());
        let next = |batch: Result<Batch, _>| batch.unwrap().header().next_offset().0;
        offset = batches.map(next).last().expect("a reader gets on");
    };
    // 56: KAFKA_STORAGE_ERROR; nine batches of half a mebibyte stand before the damage.
    assert_eq!((offset, code), (9, 56));
    let complaints = target.complaints.lock().unwrap().join("\n");
    assert!(
        complaints.contains("00000000000000000000.log"),
        "{complaints}"
    );
    target.assert_unharmed();
}

#[test]
fn fetches_that_wait_for_ever() {
    let target = Target::start();
    let waiting: Vec<Raw> = (0..200)
        .map(|_| {
            let mut request = fetch("honest", 1_000_000, 1 << 20);
            request.topics[0].partitions[0].fetch_offset = 1;
            request.max_wait_ms = i32::MAX;
            request.min_bytes = i32::MAX;
            let frame = encode_request(12, 1, None, &request).unwrap();
            let mut client = target.connect();
            client.send_frame(&frame.to_bytes());
            client
        })
        .collect();
    target.serve_an_honest_client();
    drop(waiting);
    target.assert_unharmed();
}

#[test]
fn fetch_sessions_without_end() {
    let target = Target::start();
    let mut client = target.connect();
    for _ in 0..5_000 {
        let mut request = fetch("honest", 0, 1_000);
        // A new session each time, never used again.
        (request.session_id, request.session_epoch) = (0, 0);
        request.max_wait_ms = 0;
        assert_eq!(client.request(12, &request).unwrap().error_code, 0);
    }
    target.assert_unharmed();
}

#[test]
fn producers_without_end() {
    use onceflow::internals::protocol::wire::messages::init_producer_id::InitProducerIdRequest;
    let target = Target::start();
    let mut client = target.connect();
    for _ in 0..5_000 {
        let request = InitProducerIdRequest {
            transaction_timeout_ms: 1_000,
            ..InitProducerIdRequest::default()
        };
        assert_eq!(client.request(4, &request).unwrap().error_code, 0);
    }
    target.assert_unharmed();
}

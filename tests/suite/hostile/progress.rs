//! Cost of an attack for the others while it lasts: an honest client gets on beside every one of them.
//!
//! Nothing here looks at a clock: what is counted is how many blows the attackers land while the honest client is served
//! once. A broker that served them in turn would let each attacker land about as many blows as the client has requests.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use onceflow::client::Compression;
use onceflow::internals::protocol::wire::encode_request;
use onceflow::internals::protocol::wire::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use onceflow::internals::protocol::wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};

use super::{PATIENCE, Raw, Target, batch, compressed, fetch, head};

/// Attackers at a time, each on a connection of its own.
const ATTACKERS: usize = 8;
/// Writes and reads of the honest client.
const ROUNDS: usize = 100;
/// Most blows of the attackers during all but one in a hundred of the client's rounds: 32 blows each for its
/// two requests. Blows are cheaper than rounds, and the scheduler is not fair from one moment to the next.
const BLOWS_A_ROUND_MAX: u64 = 32 * 2 * ATTACKERS as u64;

/// One blow. The connection is kept for the next one where the broker leaves it open.
type Blow = fn(&Target, &mut Option<Raw>, u64);

const ATTACKS: [(&str, Blow); 9] = [
    ("frames that are too large", |target, _, _| {
        cut_off(target, &i32::MAX.to_be_bytes());
    }),
    ("counts of two billion", |target, _, _| {
        let body = [&head(3, 4)[..], &i32::MAX.to_be_bytes()].concat();
        let size = u32::try_from(body.len()).unwrap().to_be_bytes();
        cut_off(target, &[&size[..], &body].concat());
    }),
    ("bytes without sense", |target, _, blow| {
        let byte = u8::try_from(blow % 255 + 1).unwrap();
        cut_off(target, &[&100u32.to_be_bytes()[..], &[byte; 100]].concat());
    }),
    ("connections opened and dropped", |target, _, _| {
        drop(target.connect())
    }),
    ("batches that are damaged", |target, kept, _| {
        let mut damaged = batch(&[&[b'x'; 1000]]).to_vec();
        damaged[80] ^= 1;
        let client = kept.get_or_insert_with(|| target.connect());
        assert_ne!(client.produce("attacked", damaged.into()), 0);
    }),
    ("compressed bombs", |target, kept, _| {
        static BOMB: LazyLock<Bytes> = LazyLock::new(|| {
            let zeros = vec![0; 1 << 20];
            compressed(&[&zeros[..]; 8], Compression::Gzip)
        });
        // A compacted topic needs keys, so that the broker has to look inside.
        let client = kept.get_or_insert_with(|| target.connect());
        assert_ne!(client.produce("compacted", BOMB.clone()), 0);
    }),
    ("readers that take nothing", |target, _, _| {
        let frame = encode_request(12, 1, None, &fetch("attacked", 0, i32::MAX)).unwrap();
        let mut client = target.connect();
        client.send_frame(&frame.to_bytes());
        client.send_frame(&frame.to_bytes());
    }),
    ("sessions begun and left", |target, kept, _| {
        let mut request = fetch("attacked", 0, 1_000);
        (request.session_id, request.session_epoch) = (0, 0);
        request.max_wait_ms = 0;
        let client = kept.get_or_insert_with(|| target.connect());
        assert_eq!(client.request(12, &request).unwrap().error_code, 0);
    }),
    ("regular expressions that explode", |target, kept, blow| {
        let request = ConsumerGroupHeartbeatRequest {
            group_id: "attacked".to_owned(),
            member_id: format!("member-{}", blow % 20),
            rebalance_timeout_ms: 1_000,
            subscribed_topic_regex: Some(format!("((a|b){{30}}){{{}}}(x*)*(x|xx)+y", blow % 40)),
            topic_partitions: Some(Vec::new()),
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let client = kept.get_or_insert_with(|| target.connect());
        // Taken or refused (128), but answered.
        let code = client.request(1, &request).unwrap().error_code;
        assert!([0, 128].contains(&code), "{code}");
    }),
];

/// Sends what ends a connection, and waits until it has.
fn cut_off(target: &Target, bytes: &[u8]) {
    let mut client = target.connect();
    client.send(bytes);
    client.finish();
    assert!(client.is_cut());
}

/// The blows that landed during each round of an honest client.
fn rounds_beside(target: &Target, blow: Blow) -> Vec<u64> {
    let (landed, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..ATTACKERS {
            scope.spawn(|| {
                let mut kept = None;
                while !is_over.load(Ordering::Relaxed) {
                    blow(target, &mut kept, landed.load(Ordering::Relaxed));
                    landed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut client = target.connect();
        let begin = Instant::now();
        while landed.load(Ordering::Relaxed) < ATTACKERS as u64 && begin.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        let rounds = (0..ROUNDS).map(|_| {
            let before = landed.load(Ordering::Relaxed);
            // Each of them is waited for with a deadline: whoever is starved fails here.
            assert_eq!(client.produce("honest", batch(&[b"honest"])), 0);
            let fetched = client.fetch("honest", 0);
            assert_eq!(fetched.responses[0].partitions[0].error_code, 0);
            landed.load(Ordering::Relaxed) - before
        });
        let rounds = rounds.collect();
        is_over.store(true, Ordering::Relaxed);
        rounds
    })
}

#[test]
fn an_honest_client_gets_on_beside_every_attack() {
    let target = Target::start();
    let mut client = target.connect();
    assert_eq!(client.create_topic("attacked"), 0);
    let compacted = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "compacted".to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            configs: vec![CreatableTopicConfig {
                name: "cleanup.policy".to_owned(),
                value: Some("compact".to_owned()),
            }],
            ..CreatableTopic::default()
        }],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let created = client.request(5, &compacted).unwrap();
    assert_eq!(created.topics[0].error_code, 0);
    for value in 0..32u8 {
        let records = batch(&[&vec![value; 512 << 10]]);
        assert_eq!(client.produce("attacked", records), 0);
    }
    let mut slow = Vec::new();
    for (what, blow) in ATTACKS {
        let begin = Instant::now();
        let mut rounds = rounds_beside(&target, blow);
        rounds.sort_unstable();
        let (median, p99) = (rounds[ROUNDS / 2], rounds[ROUNDS - 2]);
        println!(
            "{what}: {median} blows a round, {p99} at the 99th percentile ({:?})",
            begin.elapsed()
        );
        if p99 > BLOWS_A_ROUND_MAX {
            slow.push(format!("{what}: {p99} blows during one round"));
        }
    }
    assert!(slow.is_empty(), "{slow:#?}");
    target.assert_unharmed_beside(ATTACKERS, ATTACKERS);
}

//! Tables that every process has as a whole: complete before the first record, one state a cycle, and the job's policy for bad records.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use onceflow::client::wait;
use onceflow::codec::{Codec, Datum};
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::messages::{Acks, ProduceRequest};
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::{Timestamp, TopicName, TopicPartition};

use super::support::{Entry, PARTITIONS, feed, input, last, make_topic, written};
use crate::jobs::support::{OFTEN, Place, committed, committed_values, run, until};

fn bytes(number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let codec = <u64 as Datum>::DefaultCodec::default();
    codec.encode(&number, &mut bytes).unwrap();
    bytes
}

/// Appends keys and values, as bytes, to a partition.
fn append(log: &Log, topic: &str, partition: i32, rows: &[(Vec<u8>, Option<Vec<u8>>)]) {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for (key, value) in rows {
        builder.push(Timestamp(0), Some(key), value.as_deref());
    }
    let request = ProduceRequest {
        partition: TopicPartition::new(TopicName::new(topic).unwrap(), partition),
        records: builder.finish(BatchProducer::Plain).freeze().into(),
        acks: Acks::Leader,
        transactional_id: None,
    };
    wait(log.transport().produce(request)).unwrap();
}

/// Changes values of the table.
pub(super) fn set(log: &Log, entries: &[Entry]) {
    for partition in 0..PARTITIONS {
        let own = entries.iter();
        let own = own.filter(|(key, _)| key % 2 == u64::from(partition.unsigned_abs()));
        let rows: Vec<_> = own
            .map(|(key, value)| (bytes(*key), value.map(bytes)))
            .collect();
        if !rows.is_empty() {
            append(log, "whole", partition, &rows);
        }
    }
}

/// Gives each value of `in` the value that `whole` has for it, and 0 if there is none; 99 is the key of nothing.
pub(super) fn look_up(is_endless: bool) -> Job {
    let job = Job::new("whole");
    let table = keyed_topic::<u64, u64>("whole");
    let table = job.broadcast(match is_endless {
        true => table,
        false => table.until_end(),
    });
    let (all, found) = input(&job, "in", is_endless).tee();
    let key_of = |value: &Option<u64>| value.filter(|it| *it != 99);
    all.left_join_broadcast(&table, key_of, |value, found| {
        (value.unwrap_or(0), found.copied().unwrap_or(0))
    })
    .sink(topic::<(u64, u64)>("all"));
    found
        .join_broadcast(&table, key_of, |_, found| *found)
        .sink(topic::<u64>("found"));
    job
}

fn once(workers: usize) -> Launch {
    let launch = look_up(false).exactly_once(Commit::every(OFTEN));
    launch.workers(workers)
}

fn world() -> (Place, Log) {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "in");
    make_topic(&log, "whole");
    (place, log)
}

fn all(log: &Log) -> Vec<(u64, u64)> {
    committed_values::<(u64, u64)>(log, "all")
}

#[test]
fn j21_a_table_is_whole_before_the_first_record_at_every_start() {
    let (_place, log) = world();
    let keys = 0..3_000u64;
    // Each key has another value first, which no record finds.
    set(
        &log,
        &keys.clone().map(|key| (key, Some(1))).collect::<Vec<_>>(),
    );
    set(
        &log,
        &keys
            .clone()
            .map(|key| (key, Some(key + 10)))
            .collect::<Vec<_>>(),
    );
    let records: Vec<Entry> = keys.clone().map(|key| (key % 7, Some(key))).collect();
    feed(&log, "in", &records);
    run(once(3), &log).unwrap();
    assert_eq!(all(&log).len(), 3_000);
    assert!(all(&log).iter().all(|(key, found)| *found
        == match key {
            99 => 0,
            key => key + 10,
        }));
    assert_eq!(committed_values::<u64>(&log, "found").len(), 2_999);
    let before = all(&log);
    // What changed while it stood still is there when it goes on.
    set(&log, &[(1, Some(500)), (2, None)]);
    feed(&log, "in", &[(0, Some(1)), (0, Some(2)), (0, Some(3))]);
    run(once(2), &log).unwrap();
    let mut after = all(&log);
    for seen in before {
        let place = after.iter().position(|it| *it == seen);
        after.swap_remove(place.unwrap());
    }
    after.sort_unstable();
    assert_eq!(after, [(1, 500), (2, 0), (3, 13)]);
}

/// A record looks something up on one worker, and then on another: in one cycle, so that both are the same.
#[test]
fn j17_all_records_of_a_cycle_find_one_state_of_a_broadcast_table() {
    let (_place, log) = world();
    set(&log, &[(0, Some(0))]);
    let job = Job::new("twice");
    let table = job.broadcast(keyed_topic::<u64, u64>("whole"));
    input(&job, "in", true)
        .join_broadcast(&table, |_| 0u64, |value, found| (*value, *found))
        .entries(|_, entry| *entry)
        .key_by(|(value, _)| value.unwrap_or(0))
        .partitioned("again")
        .join_broadcast(&table, |_| 0u64, |(_, before), found| (*before, *found))
        .sink(topic::<(u64, u64)>("both"));
    let launch = job.exactly_once(Commit::every(Duration::from_millis(10)));
    let running = launch.workers(4).start(&log).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1.. {
                set(&log, &[(0, Some(value))]);
                std::thread::sleep(Duration::from_millis(2));
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut fed = 0;
        until("many states were found", || {
            let records: Vec<Entry> = (0..50).map(|n| (n, Some(fed + n))).collect();
            feed(&log, "in", &records);
            fed += 50;
            let both = committed_values::<(u64, u64)>(&log, "both");
            let states: std::collections::BTreeSet<_> = both.iter().map(|it| it.0).collect();
            states.len() >= 20
        });
        is_over.store(true, Ordering::Relaxed);
    });
    wait(running.stop()).unwrap();
    let both = committed_values::<(u64, u64)>(&log, "both");
    let torn: Vec<_> = both.iter().filter(|(one, other)| one != other).collect();
    assert!(torn.is_empty(), "{torn:?} of {}", both.len());
}

/// The table of so many keys with values of so many letters.
fn of_words(log: &Log, keys: u64, letters: usize) {
    let rows = (0..keys).map(|key| {
        let codec = <String as Datum>::DefaultCodec::default();
        let mut value = Vec::new();
        codec.encode(&"x".repeat(letters), &mut value).unwrap();
        (bytes(key), Some(value))
    });
    append(log, "whole", 0, &rows.collect::<Vec<_>>());
}

/// Looks words up in a table that takes at most `bytes_max`.
fn look_words_up(bytes_max: usize, is_endless: bool) -> Launch {
    let job = Job::new("words");
    let table = keyed_topic::<u64, String>("whole");
    let table = job.broadcast(match is_endless {
        true => table,
        false => table.until_end(),
    });
    let table = table.memory_bytes_max(bytes_max);
    input(&job, "in", is_endless)
        .left_join_broadcast(&table, |value| *value, |_, word| word.is_some())
        .sink(topic::<bool>("found"));
    job.exactly_once(Commit::every(OFTEN)).workers(2)
}

#[test]
fn a_broadcast_table_that_is_larger_than_it_may_be_stops_the_job_and_is_named() {
    let (_place, log) = world();
    of_words(&log, 100, 1_000);
    feed(&log, "in", &[(1, Some(1))]);
    let error = run(look_words_up(50_000, false), &log).unwrap_err();
    let JobError::TableTooLarge {
        table, bytes_max, ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((table.as_str(), *bytes_max), ("whole", 50_000));
    assert!(error.to_string().contains("memory_bytes_max"), "{error}");
    // With more, it goes on where it was; a key that gets another value, or none, makes room for one that comes.
    of_words(&log, 100, 400);
    let running = look_words_up(120_000, true).start(&log).unwrap();
    until("its size is told", || {
        let stores = running.progress().stores;
        let size = stores.get("broadcast whole").copied().unwrap_or_default();
        size.rows_in_memory == 100 && size.memory_bytes < 60_000
    });
    until("the record is out", || committed(&log, "found").len() == 1);
    // It grows while the job runs.
    of_words(&log, 100, 2_000);
    let error = wait(running.finished()).unwrap_err();
    assert!(matches!(error, JobError::TableTooLarge { .. }), "{error}");
}

fn dead() -> PoisonPolicy {
    PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap())
}

#[test]
fn u13_a_bad_record_of_a_broadcast_table_follows_the_policy_of_the_job() {
    let (_place, log) = world();
    set(&log, &[(1, Some(11)), (3, Some(13))]);
    append(
        &log,
        "whole",
        1,
        &[(bytes(3), Some(b"no number at all".to_vec()))],
    );
    set(&log, &[(5, Some(15))]);
    feed(&log, "in", &[(0, Some(1)), (0, Some(3)), (0, Some(5))]);
    let error = run(once(2), &log).unwrap_err();
    let JobError::Poison { split, offset, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((split.as_str(), offset.0), ("whole-1", 2));
    let launch = || once(2).on_poison(dead());
    run(launch(), &log).unwrap();
    run(launch(), &log).unwrap();
    // Once for the job, whoever reads the table and how often.
    let letters = committed(&log, "dead");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value.as_deref(), Some(&b"no number at all"[..]));
    let mut found = all(&log);
    found.sort_unstable();
    assert_eq!(found, [(1, 11), (3, 13), (5, 15)]);
}

#[test]
fn a_broadcast_table_is_whole_in_every_instance_and_changes_reach_them_all() {
    let (_place, log) = world();
    set(&log, &(0..40).map(|key| (key, Some(1))).collect::<Vec<_>>());
    let instance = |name: &str| {
        let launch = look_up(true).exactly_once(Commit::every(Duration::from_millis(20)));
        let launch = launch.workers(2).state_partitions(4);
        launch
            .scale_out(ScaleOut::instance(name))
            .start(&log)
            .unwrap()
    };
    let (one, two) = (instance("one"), instance("two"));
    until("both read the input", || {
        [&one, &two].iter().all(|it| {
            let partitions = it.share().partitions;
            partitions.iter().any(|it| it.topic.as_str() == "in")
        })
    });
    let mut expected = 0;
    for value in [1, 2, 3] {
        set(
            &log,
            &(0..40).map(|key| (key, Some(value))).collect::<Vec<_>>(),
        );
        // Until both partitions of the input, one of each instance, find it.
        let hits = || {
            all(&log)
                .iter()
                .filter(|(_, found)| *found == value)
                .count()
        };
        until("the change is seen", || {
            let (before, hits_before) = (all(&log).len(), hits());
            feed(&log, "in", &[(0, Some(2)), (1, Some(3))]);
            expected += 2;
            until("these are out", || all(&log).len() >= before + 2);
            hits() == hits_before + 2
        });
    }
    assert_eq!(all(&log).len(), expected);
    // No value came back once it was replaced, in any partition.
    wait(one.stop()).unwrap();
    wait(two.stop()).unwrap();
    assert!(
        last(&written(&log, "found"))
            .values()
            .all(|found| *found == 3)
    );
}

#[test]
fn a_broadcast_table_is_an_input_of_the_steps_that_read_it() {
    let text = look_up(false).describe().to_string();
    assert!(text.contains("table: "), "{text}");
}

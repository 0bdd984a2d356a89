//! A record is a value or a deletion: what a source says of tombstones, and tables that read and write them.

use onceflow::client::wait;
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::messages::{Acks, ProduceRequest};
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::{Timestamp, TopicName, TopicPartition};

use super::support::{OFTEN, Place, Seen, committed, committed_values, run};

/// A key, and its new value or none.
type Change = (&'static str, Option<&'static str>);

const T: i64 = 1_700_000_000_000;

/// Appends changes to a topic of one partition, with their times one behind the other and a header each.
fn write(log: &Log, topic: &str, changes: &[Change]) {
    let topic = TopicName::new(topic).unwrap();
    if wait(log.transport().topic(&topic)).unwrap().is_none() {
        wait(log.admin().create_topic(&topic, 1)).unwrap();
    }
    let mut builder = BatchBuilder::new(Compression::None, None);
    for (n, (key, value)) in (0..).zip(changes) {
        let value = value.map(str::as_bytes);
        let headers = [("by", Some(key.as_bytes()))];
        builder.push_with_headers(Timestamp(T + n), Some(key.as_bytes()), value, &headers);
    }
    let request = ProduceRequest {
        partition: TopicPartition::new(topic, 0),
        records: builder.finish(BatchProducer::Plain).freeze().into(),
        acks: Acks::Leader,
        transactional_id: None,
    };
    wait(log.transport().produce(request)).unwrap();
}

/// The changes in a topic.
fn changes(log: &Log, topic: &str) -> Vec<(String, Option<String>)> {
    let change = |seen: &Seen| {
        let value = seen.value.as_ref().map(|_| seen.value::<str>());
        (seen.key::<str>(), value)
    };
    committed(log, topic).iter().map(change).collect()
}

fn owned(changes: &[Change]) -> Vec<(String, Option<String>)> {
    let changes = changes.iter();
    changes
        .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
        .collect()
}

fn dead() -> PoisonPolicy {
    PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap())
}

fn often(job: Job) -> Launch {
    job.exactly_once(Commit::every(OFTEN)).workers(1)
}

const SET_AND_DELETED: [Change; 3] = [("a", Some("1")), ("a", None), ("b", Some("2"))];

#[test]
fn x6_a_source_of_values_says_what_a_tombstone_does() {
    let place = Place::new();
    let log = place.log();
    write(&log, "in", &SET_AND_DELETED);
    let failing = Job::new("failing");
    failing
        .source(topic::<str>("in").until_end())
        .sink(topic("failed"));
    let error = run(often(failing), &log).unwrap_err();
    let said = error.to_string();
    for word in [
        "record 1 of in-0",
        "deletes the key",
        "on_tombstone",
        "as_option",
    ] {
        assert!(said.contains(word), "{said}");
    }

    let skipping = Job::new("skipping");
    let source = topic::<str>("in").on_tombstone(TombstonePolicy::Skip);
    skipping.source(source.until_end()).sink(topic("skipped"));
    let keyed = keyed_topic::<str, str>("in").on_tombstone(TombstonePolicy::Skip);
    let both = Job::new("keyed");
    both.keyed_source(keyed.until_end()).sink(topic("keyed"));
    run(often(skipping), &log).unwrap();
    run(often(both), &log).unwrap();
    assert_eq!(committed_values::<str>(&log, "skipped"), ["1", "2"]);
    assert_eq!(committed_values::<str>(&log, "keyed"), ["1", "2"]);

    let options = Job::new("options");
    options
        .source(topic::<str>("in").as_option().until_end())
        .map(|value: &Option<String>| value.clone().unwrap_or("deleted".to_owned()))
        .sink(topic::<String>("optional").codec(Text));
    run(often(options), &log).unwrap();
    assert_eq!(
        committed_values::<str>(&log, "optional"),
        ["1", "deleted", "2"]
    );
}

/// A table of the topic's last values, and its changes.
fn table(job: &str) -> Launch {
    let job = Job::new(job);
    job.keyed_source(keyed_topic::<str, str>("in").as_option().until_end())
        .to_table("latest")
        .changes()
        .sink(topic::<str>("out").as_option());
    often(job)
}

#[test]
fn x6_a_table_reads_and_writes_tombstones_also_over_a_restart() {
    let place = Place::new();
    let log = place.log();
    write(&log, "in", &SET_AND_DELETED);
    write(&log, "in", &[("never", None), ("b", Some("3"))]);
    run(table("tables"), &log).unwrap();
    let mut expected = owned(&SET_AND_DELETED);
    // What was never there is not deleted.
    expected.extend(owned(&[("b", Some("3"))]));
    assert_eq!(changes(&log, "out"), expected);
    // The state is lost: its changelog has tombstones, too.
    std::fs::remove_dir_all(place.state_dir("tables")).unwrap();
    let again = [("a", None), ("b", None), ("a", Some("4"))];
    write(&log, "in", &again);
    run(table("tables"), &log).unwrap();
    expected.extend(owned(&again[1..]));
    assert_eq!(changes(&log, "out"), expected);
    let of_state = committed(&log, "tables-latest-changelog");
    assert!(of_state.iter().any(|record| record.value.is_none()));
}

#[test]
fn x6_a_state_that_is_forgotten_is_a_tombstone_of_its_table() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("forgetting");
    job.source(values("n", 0..8u64))
        .key_by(|n| n % 2)
        // Every third change forgets the key.
        .update("seen", |seen: &mut Option<u64>, _: &u64| {
            *seen = match seen.unwrap_or(0) {
                2 => None,
                count => Some(count + 1),
            }
        })
        .changes()
        .sink(topic::<u64>("out").as_option().partitions(1));
    run(often(job), &log).unwrap();
    let even: Vec<Option<u64>> = committed(&log, "out")
        .iter()
        .filter(|seen| seen.key::<u64>() == 0)
        .map(|seen| seen.value.as_ref().map(|_| seen.value::<u64>()))
        .collect();
    assert_eq!(even, [Some(1), Some(2), None, Some(1)]);
}

#[test]
fn x6_a_dead_letter_of_a_tombstone_is_as_it_came() {
    let place = Place::new();
    let log = place.log();
    write(&log, "in", &SET_AND_DELETED);
    let job = Job::new("refusing");
    job.keyed_source(keyed_topic::<str, str>("in").as_option().until_end())
        .to_table("latest")
        .changes()
        .try_map(|value: &Option<String>| value.clone().ok_or("no deletions here"))
        .sink(topic::<String>("out").codec(Text));
    run(often(job).on_poison(dead()), &log).unwrap();
    assert_eq!(committed_values::<str>(&log, "out"), ["1", "2"]);
    let letters = committed(&log, "dead");
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.key.as_deref(), Some(&b"a"[..]));
    assert_eq!(letter.value, None);
    assert_eq!(letter.header("by"), "a");
    assert_eq!(letter.header("onceflow.timestamp"), (T + 1).to_string());
    assert_eq!(letter.header("onceflow.error"), "no deletions here");
}

#[test]
fn x6_a_deletion_without_a_key_is_poison() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("nothing");
    job.source(values("v", [Some(1u64), None, Some(2)]))
        .sink(topic::<u64>("out").as_option());
    run(often(job).on_poison(dead()), &log).unwrap();
    assert_eq!(committed_values::<u64>(&log, "out"), [1, 2]);
    let why = committed(&log, "dead")[0]
        .header("onceflow.error")
        .to_owned();
    assert!(why.contains("without a key"), "{why}");
}

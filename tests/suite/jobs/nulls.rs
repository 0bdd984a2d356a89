//! Null keys and values of topics: never an empty one (what strangers found, row 6).

use onceflow::client::wait;
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::messages::{Acks, ProduceRequest};
use onceflow::prelude::*;
use onceflow::types::{TopicName, TopicPartition};

use super::support::{
    AT_THE_END, OFTEN, Place, committed, committed_by_key, committed_values, run,
};

type Record<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Appends keys and values to the first partition of a topic, which is created if it is absent.
fn append(log: &Log, topic: &str, records: &[Record<'_>]) {
    let topic = TopicName::new(topic).unwrap();
    if wait(log.transport().topic(&topic)).unwrap().is_none() {
        wait(log.admin().create_topic(&topic, 1)).unwrap();
    }
    let mut builder = BatchBuilder::new(Compression::None, None);
    for (key, value) in records {
        builder.push(log.env().clock.wall(), *key, *value);
    }
    let request = ProduceRequest {
        partition: TopicPartition::new(topic, 0),
        records: builder.finish(BatchProducer::Plain).freeze().into(),
        acks: Acks::Leader,
        transactional_id: None,
    };
    wait(log.transport().produce(request)).unwrap();
}

fn dead() -> PoisonPolicy {
    PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap())
}

fn poison_of(job: Job, log: &Log) -> (i64, String) {
    // No commit comes between the records in front of the poison and the poison.
    let seldom = Commit::every(AT_THE_END);
    match run(job.exactly_once(seldom), log).unwrap_err() {
        JobError::Poison { offset, why, .. } => (offset.0, why),
        other => panic!("{other}"),
    }
}

#[test]
fn x6_a_null_value_of_a_source_is_poison_and_an_empty_one_is_empty() {
    let place = Place::new();
    let log = place.log();
    append(&log, "in", &[(Some(b"a"), Some(b"")), (Some(b"a"), None)]);
    let copy = || {
        let job = Job::new("copy");
        job.source(topic::<str>("in").until_end())
            .sink(topic("out"));
        job
    };
    let (offset, why) = poison_of(copy(), &log);
    assert_eq!(offset, 1);
    assert!(why.contains("no value") && why.contains("deletes"), "{why}");
    assert_eq!(committed(&log, "out"), []);

    let keeping = copy().exactly_once(Commit::every(OFTEN)).on_poison(dead());
    run(keeping, &log).unwrap();
    assert_eq!(committed_values::<str>(&log, "out"), [""]);
    let letters = committed(&log, "dead");
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&letters[0].key, &letters[0].value),
        (&Some(b"a".to_vec()), &None)
    );
}

#[test]
fn x6_a_null_key_of_a_keyed_source_is_poison_and_an_empty_one_is_a_key() {
    let place = Place::new();
    let log = place.log();
    append(&log, "in", &[(Some(b""), Some(b"x")), (None, Some(b""))]);
    let count = || {
        let job = Job::new("counting");
        job.keyed_source(keyed_topic::<str, str>("in").until_end())
            .count("counts")
            .changes()
            .sink(topic("out"));
        job
    };
    let (offset, why) = poison_of(count(), &log);
    assert_eq!(offset, 1);
    assert!(why.contains("no key"), "{why}");

    run(
        count().exactly_once(Commit::every(OFTEN)).on_poison(dead()),
        &log,
    )
    .unwrap();
    let counts = committed_by_key::<str, u64>(&log, "out");
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [(String::new(), vec![1])]
    );
    let letters = committed(&log, "dead");
    assert_eq!(letters.len(), 1);
    assert_eq!(
        (&letters[0].key, &letters[0].value),
        (&None, &Some(Vec::new()))
    );
}

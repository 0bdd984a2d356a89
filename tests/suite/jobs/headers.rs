//! A record's headers go with it through steps, shuffles and processes, and into topics whose sink keeps them.

use onceflow::client::wait;
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::messages::{Acks, ProduceRequest};
use onceflow::prelude::*;
use onceflow::runtime::{HeaderList, Headers, Launch, Record, ScaleOut};
use onceflow::types::{TopicName, TopicPartition};

use super::support::{OFTEN, Place, Seen, committed, run, until};

/// Fills a topic with numbered words; every third one has headers: its number, twice, and a null one.
fn fill(log: &Log, count: usize) {
    let topic = TopicName::new("in").unwrap();
    wait(log.admin().create_topic(&topic, 1)).unwrap();
    let mut builder = BatchBuilder::new(Compression::None, None);
    for n in 0..count {
        let (value, number) = (format!("word {n}"), n.to_string());
        let time = log.env().clock.wall();
        let headers = headers_of(&number);
        match n % 3 {
            0 => builder.push_with_headers(time, None, Some(value.as_bytes()), &headers),
            _ => builder.push(time, None, Some(value.as_bytes())),
        }
    }
    let request = ProduceRequest {
        partition: TopicPartition::new(topic, 0),
        records: builder.finish(BatchProducer::Plain).freeze().into(),
        acks: Acks::Leader,
        transactional_id: None,
    };
    wait(log.transport().produce(request)).unwrap();
}

fn headers_of(number: &str) -> [(&str, Option<&[u8]>); 2] {
    [("n", Some(number.as_bytes())), ("n", Some(b"again"))]
}

/// Each record has the headers that it began with.
fn assert_kept(records: &[Seen], count: usize) {
    assert_eq!(records.len(), count);
    for record in records {
        let value = record.value::<str>();
        let number = value.strip_prefix("word ").unwrap();
        let own: Vec<(&str, Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_slice())))
            .collect();
        match number.parse::<usize>().unwrap() % 3 {
            0 => assert_eq!(own, headers_of(number), "{value}"),
            _ => assert_eq!(own, [], "{value}"),
        }
    }
}

/// Copies the topic over a shuffle.
fn copy(source: onceflow::runtime::Topic<str>) -> Launch {
    let job = Job::new("copy");
    job.source(source)
        .key_by_ref(|value: &str| value)
        .partitioned("words")
        .filter(|_| true)
        .sink(topic::<str>("out").keep_headers());
    job.exactly_once(Commit::every(OFTEN))
}

#[test]
fn headers_go_over_a_shuffle_in_memory_to_the_topic_that_keeps_them() {
    let place = Place::new();
    let log = place.log();
    fill(&log, 5_000);
    run(copy(topic("in").until_end()).workers(3), &log).unwrap();
    assert_kept(&committed(&log, "out"), 5_000);
}

#[test]
fn headers_go_over_a_repartition_topic_to_the_topic_that_keeps_them() {
    let place = Place::new();
    let log = place.log();
    fill(&log, 500);
    let spread = copy(topic("in")).scale_out(ScaleOut::instance("a"));
    let running = spread.start(&log).unwrap();
    until("all is copied", || committed(&log, "out").len() == 500);
    wait(running.stop()).unwrap();
    assert_kept(&committed(&log, "out"), 500);
    let between = committed(&log, "copy-words-repartition");
    assert_kept(&between, 500);
}

#[test]
fn steps_read_headers_and_sinks_write_their_own() {
    let place = Place::new();
    let log = place.log();
    fill(&log, 6);
    let job = Job::new("both");
    let (left, right) = job.source(topic::<str>("in").until_end()).tee();
    left.operator(|_| Ok(Numbers)).sink(topic("plain"));
    let add = |value: &str, own: Headers<'_>, headers: &mut HeaderList| {
        headers.add_all(own);
        headers.add("length", Some(value.len().to_string().as_bytes()));
        headers.add("nothing", Some(b""));
    };
    right.sink(topic::<str>("marked").headers(add));
    run(job.exactly_once(Commit::every(OFTEN)).workers(1), &log).unwrap();
    let mut plain = committed(&log, "plain");
    plain.sort_by(|a, b| a.value.cmp(&b.value));
    let values: Vec<String> = plain.iter().map(Seen::value::<String>).collect();
    assert_eq!(values, ["again", "again"]);
    assert!(plain.iter().all(|record| record.headers.is_empty()));
    let marked = committed(&log, "marked");
    assert_eq!(marked.len(), 6);
    for record in marked {
        let own = record.headers.len() - 2;
        let number: usize = record.value::<str>()[5..].parse().unwrap();
        assert_eq!(own, if number.is_multiple_of(3) { 2 } else { 0 });
        assert_eq!(
            (record.header("length"), record.header("nothing")),
            ("6", "")
        );
    }
}

/// The last number of each record that has one.
struct Numbers;

impl Operator<Unkeyed, str> for Numbers {
    type OutKey = Unkeyed;
    type Out = String;

    fn process(
        &mut self,
        record: Record<'_, Unkeyed, str>,
        out: &mut impl Output<Unkeyed, String>,
    ) -> Flow {
        let Some(number) = record.headers.last("n").flatten() else {
            return Ok(());
        };
        let number = String::from_utf8_lossy(number).into_owned();
        out.push(record.with_value(&number))
    }
}

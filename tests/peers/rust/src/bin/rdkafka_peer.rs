//! librdkafka, through the crate rdkafka, as a peer: see ../README.md.

use std::collections::BTreeSet;
use std::time::Duration;

use peers::{Options, print, records};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

type Sender = ThreadedProducer<DefaultProducerContext>;

/// Longest time of one step.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let options = Options::parse();
    match options.command.as_str() {
        "write" => write(&options),
        "read" => read(&options),
        other => panic!("{other}"),
    }
}

fn config(options: &Options) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", options.get("bootstrap"));
    config
}

fn producer(options: &Options, codec: &str, transactional_id: Option<&str>) -> Sender {
    let mut config = config(options);
    config
        .set("compression.type", codec)
        .set("linger.ms", "20")
        .set("enable.idempotence", "true");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id);
    }
    config.create().unwrap()
}

fn send(producer: &Sender, topic: &str, phase: &str, count: usize) {
    for (key, value) in records(phase, count) {
        let header = OwnedHeaders::new().insert(Header {
            key: "h",
            value: Some(phase),
        });
        let record = BaseRecord::to(topic)
            .partition(0)
            .key(&key)
            .payload(&value)
            .headers(header);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

fn write(options: &Options) {
    let (prefix, count) = (options.get("prefix"), options.count());
    for codec in options.list("codecs") {
        let topic = format!("{prefix}-{codec}");
        let plain = producer(options, codec, None);
        send(&plain, &topic, "p", count);
        transact(options, &topic, codec);
        let record: BaseRecord<'_, (), str> = BaseRecord::to(&topic).partition(0).payload("end");
        plain.send(record).map_err(|(error, _)| error).unwrap();
        plain.flush(PATIENCE).unwrap();
    }
}

fn transact(options: &Options, topic: &str, codec: &str) {
    let id = format!("rdkafka-{topic}");
    let producer = producer(options, codec, Some(&id));
    producer.init_transactions(PATIENCE).unwrap();
    let mut config = config(options);
    config.set("group.id", format!("{}-offsets", options.get("prefix")));
    let group: BaseConsumer = config.create().unwrap();
    for (phase, offset) in [("c", 1), ("a", 2), ("d", 3)] {
        producer.begin_transaction().unwrap();
        send(&producer, topic, phase, options.count());
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(topic, 0, Offset::Offset(offset))
            .unwrap();
        let metadata = group.group_metadata().expect("the consumer has a group");
        producer
            .send_offsets_to_transaction(&offsets, &metadata, PATIENCE)
            .unwrap();
        if phase == "a" {
            producer.abort_transaction(PATIENCE).unwrap();
        } else {
            producer.commit_transaction(PATIENCE).unwrap();
        }
    }
}

fn read(options: &Options) {
    let topics = options.list("topics");
    let mut config = config(options);
    // librdkafka wants a group's name even where none is joined.
    config
        .set("group.id", options.find("group").unwrap_or("unused"))
        .set("isolation.level", options.get("isolation"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    if options.find("group").is_some() {
        consumer.subscribe(&topics).unwrap();
    } else {
        let mut partitions = TopicPartitionList::new();
        for topic in &topics {
            partitions
                .add_partition_offset(topic, 0, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&partitions).unwrap();
    }
    let mut open: BTreeSet<&str> = topics.iter().copied().collect();
    while !open.is_empty() {
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        let message = message.unwrap();
        let header = message
            .headers()
            .and_then(|headers| headers.iter().find(|header| header.key == "h"));
        let header = header.and_then(|header| header.value);
        print(
            message.topic(),
            message.offset(),
            message.key(),
            message.payload(),
            header,
        );
        if message.payload() == Some(b"end") {
            open.remove(message.topic());
        }
    }
    if options.find("group").is_some() {
        consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    }
}

//! krafka as a peer: see ../README.md. `--protocol consumer` reads through a KIP-848 group.

use std::collections::BTreeSet;
use std::time::Duration;

use krafka::consumer::{AutoOffsetReset, Consumer, GroupProtocol, IsolationLevel};
use krafka::producer::TopicPartitionOffset;
use krafka::{Compression, Kafka, Record};
use peers::{Options, print, records};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let options = Options::parse();
    let kafka = Kafka::builder(options.get("bootstrap"))
        .allow_auto_create_topics(true)
        .connect()
        .await?;
    match options.command.as_str() {
        "write" => write(&kafka, &options).await,
        "read" => read(&kafka, &options).await,
        other => panic!("{other}"),
    }
}

fn compression(codec: &str) -> Compression {
    match codec {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => panic!("{other}"),
    }
}

fn phase_records(topic: &str, phase: &str, count: usize) -> Vec<Record> {
    let record = |(key, value): (String, String)| {
        let header = phase.to_owned();
        Record::new(topic, value)
            .key(key)
            .header("h", header)
            .partition(0)
    };
    records(phase, count).into_iter().map(record).collect()
}

async fn write(kafka: &Kafka, options: &Options) -> Outcome {
    for codec in options.list("codecs") {
        let topic = format!("{}-{codec}", options.get("prefix"));
        let linger = Duration::from_millis(20);
        let plain = kafka
            .producer()
            .compression(compression(codec))
            .linger(linger)
            .build()
            .await?;
        let mut sent = Vec::new();
        for record in phase_records(&topic, "p", options.count()) {
            sent.push(plain.enqueue(record).await?);
        }
        for handle in sent {
            let _ = handle.await?;
        }
        transact(kafka, options, &topic, codec).await?;
        let _ = plain.send(Record::new(&topic, "end").partition(0)).await?;
        plain.close().await?;
    }
    Ok(())
}

async fn transact(kafka: &Kafka, options: &Options, topic: &str, codec: &str) -> Outcome {
    let producer = kafka
        .producer()
        .compression(compression(codec))
        .linger(Duration::from_millis(20))
        .transaction_timeout(Duration::from_secs(60))
        .delivery_timeout(Duration::from_secs(45))
        .build_transactional(format!("krafka-{topic}"))
        .await?;
    // It sends offsets as a member of the group only.
    let group = format!("{}-offsets", options.get("prefix"));
    let consumer = kafka
        .consumer(group)
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .enable_auto_commit(false)
        .build()
        .await?;
    consumer.subscribe([topic]).await?;
    while !consumer
        .group_metadata()
        .await
        .is_some_and(|group| group.is_fenceable())
    {
        let _ = consumer.poll(Duration::from_millis(100)).await?;
    }
    for (phase, offset) in [("c", 1), ("a", 2), ("d", 3)] {
        producer.begin()?;
        let mut sent = Vec::new();
        for record in phase_records(topic, phase, options.count()) {
            sent.push(producer.enqueue(record).await?);
        }
        for handle in sent {
            let _ = handle.await?;
        }
        let group = consumer.group_metadata().await.expect("it is a member");
        producer
            .send_offsets(&[TopicPartitionOffset::new(topic, 0, offset)], &group)
            .await?;
        if phase == "a" {
            producer.abort().await?;
        } else {
            producer.commit().await?;
        }
    }
    producer.close().await?;
    consumer.close().await?;
    Ok(())
}

async fn consumer(kafka: &Kafka, options: &Options) -> Outcome<Consumer> {
    let isolation = match options.get("isolation") {
        "read_committed" => IsolationLevel::ReadCommitted,
        _ => IsolationLevel::ReadUncommitted,
    };
    let builder = match options.find("group") {
        Some(group) => kafka.consumer(group),
        None => kafka.consumer_without_group(),
    };
    let protocol = match options.find("protocol") {
        Some("consumer") => GroupProtocol::Consumer,
        _ => GroupProtocol::Classic,
    };
    let builder = builder
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .isolation_level(isolation);
    Ok(builder
        .group_protocol(protocol)
        .enable_auto_commit(false)
        .build()
        .await?)
}

async fn read(kafka: &Kafka, options: &Options) -> Outcome {
    let topics = options.list("topics");
    let consumer = consumer(kafka, options).await?;
    if options.find("group").is_some() {
        consumer.subscribe(topics.iter().copied()).await?;
    } else {
        for topic in &topics {
            consumer.assign(topic, vec![0]).await?;
            consumer.seek_to_beginning(topic, 0).await?;
        }
    }
    let mut open: BTreeSet<&str> = topics.iter().copied().collect();
    while !open.is_empty() {
        for record in consumer.poll(Duration::from_millis(200)).await? {
            let header = record.headers.iter().find(|header| header.0 == "h");
            let header = header.and_then(|header| header.1.as_deref());
            print(
                &record.topic,
                record.offset,
                record.key.as_deref(),
                record.value.as_deref(),
                header,
            );
            if record.value.as_deref() == Some(b"end") {
                open.remove(&*record.topic);
            }
        }
    }
    if options.find("group").is_some() {
        consumer.commit().await?;
    }
    consumer.close().await?;
    Ok(())
}

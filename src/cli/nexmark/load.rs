//! Writes events to the log before a query runs, so that no query waits for the generator.

use std::collections::VecDeque;

use super::events::Format;
use super::generator::Generator;
use super::queries::{EVENTS, SIDE_INPUT, SIDE_INPUT_ROWS};
use crate::client::producer::{Producer, ProducerConfig, ProducerRecord};
use crate::client::wait;
use crate::codec::Codec;
use crate::env::progress::Unit;
use crate::runtime::Log;
use crate::types::{PartitionIndex, Timestamp, TopicName};

/// Most records that wait for acknowledgement.
const UNACKNOWLEDGED_MAX: usize = 100_000;

/// The clock is looked at once for so many events.
const TELL_EVERY: usize = 4096;

/// Writes the first `events` events, in turn to the partitions of the topic of events, and the side input of q13.
///
/// # Errors
/// If a topic cannot be created or written.
pub fn load(
    log: &Log,
    generator: &Generator,
    format: Format,
    events: u64,
    partitions_count: i32,
) -> anyhow::Result<()> {
    let (events_topic, side_topic) = (TopicName::new(EVENTS)?, TopicName::new(SIDE_INPUT)?);
    for (topic, partitions) in [(&events_topic, partitions_count), (&side_topic, 1)] {
        // Events are years old, and would be deleted as such.
        let configs = [("retention.ms".to_owned(), "-1".to_owned())].into();
        wait(log.admin().create_topic_with(topic, partitions, configs))?;
    }
    let producer: Producer<u64, [u8]> = Producer::new(log.transport(), ProducerConfig::default())?;
    let partitions = (0..partitions_count).cycle();
    let records = (0..events).zip(partitions).map(|(number, partition)| {
        let event = generator.event(number);
        let mut value = Vec::new();
        format.encode(&event, &mut value)?;
        Ok((None, value, partition, event.date_time()))
    });
    let mut told = log
        .env()
        .progress("writing events", Unit::Things("events"), Some(events));
    let records = records.enumerate().map(|(count, record)| {
        if count % TELL_EVERY == 0 {
            told.at(count as u64);
        }
        record
    });
    wait(write(&producer, &events_topic, records))?;
    drop(told);
    let rows = (0..SIDE_INPUT_ROWS).map(|row| {
        let mut value = Vec::new();
        format.encode(&row.to_string(), &mut value)?;
        Ok((Some(row), value, 0, 0))
    });
    wait(write(&producer, &side_topic, rows))?;
    wait(producer.close())?;
    Ok(())
}

/// A key, a value, a partition, and a time.
type Written = (Option<u64>, Vec<u8>, PartitionIndex, i64);

async fn write(
    producer: &Producer<u64, [u8]>,
    topic: &TopicName,
    records: impl Iterator<Item = anyhow::Result<Written>>,
) -> anyhow::Result<()> {
    let mut unacknowledged = VecDeque::new();
    for record in records {
        let (key, value, partition, time) = record?;
        let mut record = ProducerRecord::new(topic).value(value.as_slice());
        record.partition = Some(partition);
        record.timestamp = Some(Timestamp(time));
        record.key = key.map(std::borrow::Cow::Owned);
        unacknowledged.push_back(producer.send(record).await?);
        if unacknowledged.len() == UNACKNOWLEDGED_MAX
            && let Some(oldest) = unacknowledged.pop_front()
        {
            oldest.await?;
        }
    }
    producer.flush().await;
    for delivery in unacknowledged {
        delivery.await?;
    }
    Ok(())
}

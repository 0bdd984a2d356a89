//! `onceflow perf`: how fast this client writes and reads, on a data directory or on Kafka, with any of Kafka's settings.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};

use super::output;
use super::session::{Absent, DataOption, Session, with_session};
use super::topic::topic_of;
use crate::client::consumer::{Consumer, ConsumerConfig};
use crate::client::producer::{Producer, ProducerConfig, ProducerRecord};
use crate::env::Env;
use crate::protocol::messages::OffsetSpec;
use crate::types::{Isolation, TopicName, TopicPartition};

const EXAMPLES: &str = "\
Examples:
  onceflow perf produce lines --records 1000000 --log kafka://localhost:9092
  onceflow perf produce lines --property compression.type=lz4 --property linger.ms=5 --data ./data
  onceflow perf consume lines --records 1000000 --log kafka://localhost:9092

Each prints one line: records, seconds, records/s, MiB/s of values.";

/// Longest wait of a read for records before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// Different values that are sent in turn, so that a codec cannot simply repeat the last one.
const VALUES_COUNT: usize = 1_000;

/// The largest value, in bytes: no batch could hold more.
const RECORD_BYTES_MAX: i64 = 1 << 30;
/// All those values together take at most so many bytes, or one of them does.
const VALUES_BYTES_MAX: usize = 64 << 20;
/// The largest file of values, in bytes.
const PAYLOAD_FILE_BYTES_MAX: u64 = 256 << 20;
/// Most unacknowledged records; then the oldest is waited for. `buffer.memory` holds fewer of usual size.
const UNACKNOWLEDGED_MAX: usize = 65_536;

/// Measure how fast this client writes to a topic, and reads from one.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PerfArguments {
    #[command(subcommand)]
    command: PerfCommand,
}

#[derive(Debug, Subcommand)]
enum PerfCommand {
    /// Write records without keys as fast as they are taken
    Produce(ProducePerf),
    /// Read every partition from its start
    Consume(ConsumePerf),
}

#[derive(Debug, Args)]
struct Common {
    /// The topic, which must exist
    #[arg(value_parser = TopicName::new)]
    topic: TopicName,
    #[command(flatten)]
    data: DataOption,
    /// Number of records
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    records: u64,
    /// A client's setting by Kafka's name; may be given again
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct ProducePerf {
    #[command(flatten)]
    common: Common,
    /// The size of each value, of random capitals
    #[arg(long, value_name = "COUNT", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=RECORD_BYTES_MAX))]
    record_bytes: u32,
    /// Take the values from this file instead, one a line
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct ConsumePerf {
    #[command(flatten)]
    common: Common,
}

pub(super) fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a setting is NAME=VALUE, for example linger.ms=5".to_owned()),
    }
}

/// Runs `onceflow perf`.
pub(super) fn run(env: &Env, arguments: &PerfArguments) -> anyhow::Result<()> {
    let common = match &arguments.command {
        PerfCommand::Produce(arguments) => &arguments.common,
        PerfCommand::Consume(arguments) => &arguments.common,
    };
    let done = with_session(
        env,
        &common.data,
        Absent::Refuse,
        |session| match &arguments.command {
            PerfCommand::Produce(arguments) => produce(env, session, arguments),
            PerfCommand::Consume(arguments) => consume(env, session, arguments),
        },
    )?;
    done.print()
}

/// Work done, and its time.
struct Done {
    records: u64,
    bytes: u64,
    elapsed: Duration,
}

impl Done {
    #[allow(clippy::cast_precision_loss, reason = "a figure has a few digits")]
    fn print(&self) -> anyhow::Result<()> {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        let (records, bytes) = (self.records as f64, self.bytes as f64);
        let mut out = output::stdout();
        if output::is_json() {
            let object = serde_json::json!({
                "records": self.records,
                "seconds": seconds,
                "records_per_second": records / seconds,
                "bytes_per_second": bytes / seconds,
            });
            std::io::Write::write_fmt(&mut out, format_args!("{object}\n"))?;
            return Ok(std::io::Write::flush(&mut out)?);
        }
        std::io::Write::write_fmt(
            &mut out,
            format_args!(
                "{} records in {seconds:.3} s: {:.0} records/s, {:.2} MiB/s\n",
                self.records,
                records / seconds,
                bytes / seconds / f64::from(1 << 20),
            ),
        )?;
        Ok(std::io::Write::flush(&mut out)?)
    }
}

fn produce(env: &Env, session: &Session, arguments: &ProducePerf) -> anyhow::Result<Done> {
    let topic = &arguments.common.topic;
    let values = values(env, arguments)?;
    let config = ProducerConfig::from_map(&arguments.common.properties)?;
    let producer: Producer<[u8], [u8]> = Producer::new(session.transport(), config)?;
    let begin = env.clock.now();
    let bytes = session.wait(async {
        let mut bytes = 0;
        let mut unacknowledged = VecDeque::new();
        let values = values.iter().cycle();
        for (_, value) in (0..arguments.common.records).zip(values) {
            let record = ProducerRecord::new(topic).value(value.as_slice());
            unacknowledged.push_back(producer.send(record).await?);
            bytes += value.len() as u64;
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
        anyhow::Ok(bytes)
    })?;
    let elapsed = env.clock.now().since(begin);
    session.wait(producer.close())?;
    Ok(Done {
        records: arguments.common.records,
        bytes,
        elapsed,
    })
}

fn values(env: &Env, arguments: &ProducePerf) -> anyhow::Result<Vec<Vec<u8>>> {
    if let Some(path) = &arguments.payload_file {
        let text = env.files.read(path, PAYLOAD_FILE_BYTES_MAX);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let values: Vec<_> = lines.map(<[u8]>::to_vec).collect();
        ensure!(!values.is_empty(), "{} has no lines", path.display());
        return Ok(values);
    }
    let record_bytes = usize::try_from(arguments.record_bytes)?;
    let values_count = (VALUES_BYTES_MAX / record_bytes.max(1)).clamp(1, VALUES_COUNT);
    let mut values = vec![vec![0; record_bytes]; values_count];
    for value in &mut values {
        value.fill_with(|| b'A' + u8::try_from(env.random.below(26)).unwrap_or(0));
    }
    Ok(values)
}

fn consume(env: &Env, session: &Session, arguments: &ConsumePerf) -> anyhow::Result<Done> {
    let common = &arguments.common;
    let topic = topic_of(session, &common.topic)?;
    let config = ConsumerConfig::from_map(&common.properties)?;
    let mut consumer: Consumer<[u8], [u8]> = Consumer::new(session.transport(), config);
    let partitions = (0..topic.partitions_count)
        .map(|partition| TopicPartition::new(common.topic.clone(), partition));
    let partitions: Vec<_> = partitions.collect();
    consumer.assign(partitions.iter().cloned());
    let begin = env.clock.now();
    session.wait(async {
        for partition in &partitions {
            let transport = session.transport();
            let spec = OffsetSpec::Earliest;
            let first = transport.list_offset(partition, spec, Isolation::ReadUncommitted);
            if let Some(first) = first.await? {
                consumer.seek(partition, first.offset)?;
            }
        }
        let (mut records, mut bytes) = (0, 0);
        while records < common.records {
            let polled = consumer.poll(PATIENCE).await?;
            ensure!(
                !polled.is_empty(),
                "the topic ended after {records} records"
            );
            for record in polled.iter() {
                records += 1;
                bytes += record.value_bytes().map_or(0, |value| value.len() as u64);
            }
        }
        let elapsed = env.clock.now().since(begin);
        Ok(Done {
            records,
            bytes,
            elapsed,
        })
    })
}

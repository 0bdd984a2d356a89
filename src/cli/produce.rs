//! `onceflow produce`: lines of standard input become records.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use anyhow::{Context, anyhow, bail};
use clap::Args;

use super::format::unescape;
use super::perf::property;
use super::session::{Absent, DataOption, Session, with_session};
use super::topic::{no_such_partition, topic_of};
use crate::client::CommitOutcome;
use crate::client::producer::{Delivery, Producer, ProducerConfig, ProducerRecord};
use crate::env::Env;
use crate::protocol::batch::Compression;
use crate::types::{PartitionIndex, TopicName, TransactionalId};

const EXAMPLES: &str = "\
Examples:
  seq 1000 | onceflow produce lines
  onceflow produce lines < book.txt
  echo 'tea:3' | onceflow produce stock --key-separator :
  onceflow produce orders --transactional-id loader < orders.txt    all lines or none
  echo 'tea:' | onceflow produce stock --key-separator : --null ''   a tombstone: the key tea has no value any more

Each line becomes one record; it may hold any bytes but line ends. Lines with equal keys go to the
same partition. With --null '\\N', a key or value that is \\N is none at all, and \\\\N is the text \\N, as `onceflow
consume` shows them. The command returns once all records are durable.";

/// The size of a batch with one record beside its key, value and headers, generously.
const BATCH_OVERHEAD_BYTES: usize = 4 << 10;
/// Most unacknowledged records; the oldest is waited for before more are sent.
const UNACKNOWLEDGED_MAX: usize = 10_000;

/// Write lines of standard input to a topic.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ProduceArguments {
    /// The topic, which must exist
    #[arg(value_parser = TopicName::new)]
    topic: TopicName,
    #[command(flatten)]
    data: DataOption,
    /// Text between a line's key and its value; without it, records have no key
    #[arg(long, short = 'k', value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    key_separator: Option<String>,
    /// The text that stands for no key, or for no value (a tombstone); without it, all lines have a value
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// Write to this partition, whatever the keys say
    #[arg(long, short, value_name = "NUMBER", allow_negative_numbers = true)]
    partition: Option<PartitionIndex>,
    /// A header that every record gets; may be given again
    #[arg(long = "header", visible_alias = "headers", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'z', value_name = "CODEC", default_value = "none", value_parser = compression)]
    compression: Compression,
    /// Refuse longer lines; the topic has a limit of its own, its setting max.message.bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    max_line_bytes: u32,
    /// A producer's setting by Kafka's name, such as linger.ms=5; may be given again. What the command has a flag for is
    /// said by the flag
    #[arg(long = "property", visible_alias = "producer-property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    /// Write all lines in one transaction of this id, or none if one fails
    #[arg(long, value_name = "ID", value_parser = TransactionalId::new)]
    transactional_id: Option<TransactionalId>,
}

fn compression(text: &str) -> Result<Compression, String> {
    text.parse()
        .map_err(|_| "use none, gzip, snappy, lz4 or zstd".to_owned())
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a header is NAME=VALUE, for example source=shop".to_owned()),
    }
}

/// Runs `onceflow produce`.
pub(super) fn run(env: &Env, arguments: &ProduceArguments) -> anyhow::Result<()> {
    with_session(env, &arguments.data, Absent::Refuse, |session| {
        let topic = topic_of(session, &arguments.topic)?;
        if let Some(partition) = arguments.partition
            && !(0..topic.partitions_count).contains(&partition)
        {
            bail!(no_such_partition(&topic, partition));
        }
        let mut config = match arguments.properties.is_empty() {
            true => session.transport().producer_config()?,
            false => ProducerConfig::from_map(&arguments.properties)?,
        };
        config.batch_size_bytes = config.batch_size_bytes.max(256 << 10);
        // The line's limit and the topic's decide, not the producer's.
        let headers_bytes = arguments
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let record_bytes = headers_bytes.sum::<usize>()
            + usize::try_from(arguments.max_line_bytes)?
            + BATCH_OVERHEAD_BYTES;
        config.max_request_size_bytes = config.max_request_size_bytes.max(record_bytes);
        config.buffer_memory_bytes = config.buffer_memory_bytes.max(record_bytes);
        if arguments.transactional_id.is_some() {
            config.transactional_id = arguments.transactional_id.clone();
        }
        if arguments.compression != Compression::None {
            config.compression = arguments.compression;
        }
        let is_transactional = config.transactional_id.is_some();
        let producer = Producer::new(session.transport(), config)?;
        let mut sender = Sender {
            session,
            arguments,
            producer: &producer,
            unacknowledged: VecDeque::new(),
        };
        let result = match is_transactional {
            true => sender.send_in_transaction(),
            false => sender.send_all(),
        };
        let closed = session.wait(producer.close());
        result?;
        Ok(closed?)
    })
}

/// A record that was sent: the number of its line, and the answer to come.
type Sent = (u64, Delivery);

struct Sender<'a> {
    session: &'a Session,
    arguments: &'a ProduceArguments,
    producer: &'a Producer<[u8], [u8]>,
    unacknowledged: VecDeque<Sent>,
}

impl Sender<'_> {
    fn send_in_transaction(&mut self) -> anyhow::Result<()> {
        self.session.wait(self.producer.init_transactions())?;
        self.producer.begin_transaction()?;
        if let Err(error) = self.send_all() {
            let aborted = self.session.wait(self.producer.abort_transaction());
            let error = error.context("nothing was written: the transaction is aborted");
            return Err(match aborted {
                Ok(_) => error,
                Err(abort) => error.context(format!("the abort failed too ({abort})")),
            });
        }
        match self.session.wait(self.producer.commit_transaction())? {
            CommitOutcome::Committed => Ok(()),
            CommitOutcome::Aborted => bail!("nothing was written: the transaction was aborted"),
            CommitOutcome::Unknown => bail!(
                "whether the records were written is unknown: read the topic before trying again"
            ),
        }
    }

    /// Sends every line, and waits for all answers.
    fn send_all(&mut self) -> anyhow::Result<()> {
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        let mut number = 0;
        while read_line(&mut input, &mut line, self.arguments.max_line_bytes)? {
            number += 1;
            self.send(number, &line)
                .with_context(|| format!("line {number} was not written"))?;
            if self.unacknowledged.len() >= UNACKNOWLEDGED_MAX {
                self.acknowledge_oldest()?;
            }
        }
        self.session.wait(self.producer.flush());
        while !self.unacknowledged.is_empty() {
            self.acknowledge_oldest()?;
        }
        Ok(())
    }

    fn send(&mut self, number: u64, line: &[u8]) -> anyhow::Result<()> {
        let mut record = ProducerRecord::new(&self.arguments.topic);
        let (key, value) = match &self.arguments.key_separator {
            Some(separator) => {
                let (key, value) = split(line, separator)?;
                (self.meant(key), self.meant(value))
            }
            None => (None, self.meant(line)),
        };
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.value(value);
        }
        if let Some(partition) = self.arguments.partition {
            record = record.partition(partition);
        }
        for (name, value) in &self.arguments.headers {
            record = record.header(name, value.as_bytes());
        }
        let delivery = self.session.wait(self.producer.send(record))?;
        self.unacknowledged.push_back((number, delivery));
        Ok(())
    }

    /// The meaning of a key or a value of a line.
    fn meant<'a>(&self, field: &'a [u8]) -> Option<&'a [u8]> {
        match &self.arguments.null {
            Some(null) => unescape(field, null),
            None => Some(field),
        }
    }

    fn acknowledge_oldest(&mut self) -> anyhow::Result<()> {
        match self.unacknowledged.pop_front() {
            Some((number, answer)) => {
                let answer = self.session.wait(answer);
                answer
                    .map(drop)
                    .with_context(|| format!("line {number} was not written"))
            }
            None => Ok(()),
        }
    }
}

fn split<'a>(line: &'a [u8], separator: &str) -> anyhow::Result<(&'a [u8], &'a [u8])> {
    let at = memchr::memmem::find(line, separator.as_bytes()).ok_or_else(|| {
        anyhow!("it has no {separator:?} between key and value (--key-separator)")
    })?;
    Ok((&line[..at], &line[at + separator.len()..]))
}

/// Reads the next line into `line`, without its end; `false` at the end of the input. A line longer than `bytes_max` is refused
/// before it is held in memory.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, bytes_max: u32) -> anyhow::Result<bool> {
    line.clear();
    let read = input
        .take(u64::from(bytes_max) + 1)
        .read_until(b'\n', line)
        .context("cannot read standard input")?;
    match line.last() {
        Some(b'\n') => drop(line.pop()),
        _ if read as u64 > u64::from(bytes_max) => {
            bail!("a line is longer than {bytes_max} bytes: split it, or raise --max-line-bytes")
        }
        _ => {}
    }
    Ok(read > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_without_their_end() {
        let mut input = &b"a\n\nlast"[..];
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while read_line(&mut input, &mut line, 100).unwrap() {
            lines.push(line.clone());
        }
        assert_eq!(lines, [&b"a"[..], b"", b"last"]);
    }

    #[test]
    fn a_line_without_end_is_refused_before_memory_is() {
        let mut input = io::BufReader::new(io::repeat(b'x'));
        let error = read_line(&mut input, &mut Vec::new(), 1 << 20).unwrap_err();
        assert!(error.to_string().contains("split it"), "{error}");
    }

    #[test]
    fn a_key_ends_at_the_first_separator() {
        assert_eq!(split(b"a:b:c", ":").unwrap(), (&b"a"[..], &b"b:c"[..]));
        assert_eq!(split(b"a->b", "->").unwrap(), (&b"a"[..], &b"b"[..]));
        assert!(split(b"abc", ":").is_err());
    }
}

//! `onceflow consume`: records become lines of standard output.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use futures::future::select_all;

use super::UsageError;
use super::format::{self, ByteFormat, Formatter};
use super::last_records::begin_of_last;
use super::output;
use super::perf::property;
use super::session::{Absent, DataOption, Session, with_session};
use super::time;
use super::topic::{no_such_partition, topic_of};
use crate::client::consumer::{ConsumerConfig, FetchedBatches, OffsetReset, PartitionReader};
use crate::env::Env;
use crate::protocol::batch::Record;
use crate::protocol::messages::OffsetSpec;
use crate::types::{Isolation, Offset, PartitionIndex, Timestamp, TopicName, TopicPartition};

const EXAMPLES: &str = "\
Examples:
  onceflow consume lines
  onceflow consume lines --from end --follow             what is written from now on
  onceflow consume lines --from -10 --partition 0        the last ten records of partition 0
  onceflow consume lines --from 2026-11-22T07:00         written at that time (UTC) or later
  onceflow consume lines --property isolation.level=read_uncommitted --output json
  onceflow consume word-counts --key --key-format bincode-string --value-format bincode-u64

Fields are separated by tabs, in this order: timestamp, partition:offset, headers, key, value.
A key or value that is not there is \\N (--null says what else); one that is these bytes gets a backslash in front.
In --json, bytes that are not of the format asked for are an object: {\"hex\":\"fe\"}.
Without --follow the command ends where each partition ended when it began.";

/// Bytes of a fetch.
const FETCH_BYTES: usize = 4 << 20;
/// Wait of a fetch for new records when following.
const FETCH_WAIT: Duration = Duration::from_secs(60);
/// The settings of a consumer that this command has a use for: it reads partitions, and is no member of a group.
const PROPERTIES: [&str; 4] = [
    "isolation.level",
    "auto.offset.reset",
    "fetch.max.wait.ms",
    "max.partition.fetch.bytes",
];

/// Read records of a topic.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConsumeArguments {
    /// The topic
    #[arg(value_parser = TopicName::new)]
    topic: TopicName,
    #[command(flatten)]
    data: DataOption,
    /// Where to begin: beginning (if nothing is said), end, an offset, -N (the last N), or a time such as 2026-11-22T07:00
    #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
    from: Option<From>,
    /// Only this partition; may be given again
    #[arg(
        long = "partition",
        short,
        value_name = "NUMBER",
        allow_negative_numbers = true
    )]
    partitions: Vec<PartitionIndex>,
    /// Which records to show; read_committed unless isolation.level says otherwise
    #[arg(long, value_enum)]
    isolation: Option<Isolated>,
    /// A consumer's setting by Kafka's name: isolation.level, auto.offset.reset, fetch.max.wait.ms,
    /// max.partition.fetch.bytes; may be given again
    #[arg(long = "property", visible_alias = "consumer-property", value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
    /// Wait for more records at the end, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// End after so many records
    #[arg(long, value_name = "COUNT")]
    max: Option<u64>,
    #[command(flatten)]
    shown: Shown,
}

/// Parts of a record to show.
#[derive(Debug, Args)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
struct Shown {
    /// Show timestamps
    #[arg(long)]
    timestamp: bool,
    /// Show partition and offset
    #[arg(long)]
    offset: bool,
    /// Show headers
    #[arg(long)]
    headers: bool,
    /// Show keys
    #[arg(long)]
    key: bool,
    /// Format of keys
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    key_format: ByteFormat,
    /// Format of values
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    value_format: ByteFormat,
    /// The text that stands for a key or a value that is not there
    #[arg(long, value_name = "TEXT", default_value = format::NULL)]
    null: String,
    /// One JSON object a line, with everything
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Isolated {
    /// Records of committed transactions, and records without one
    ReadCommitted,
    /// All records, those of open and aborted transactions too
    ReadUncommitted,
}

impl Isolated {
    fn isolation(self) -> Isolation {
        match self {
            Self::ReadCommitted => Isolation::ReadCommitted,
            Self::ReadUncommitted => Isolation::ReadUncommitted,
        }
    }
}

/// Where to begin to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// The partition's first record.
    Beginning,
    /// Behind its last record.
    End,
    /// This offset.
    At(Offset),
    /// This many records before the end.
    Last(i64),
    /// The first record of this time or later.
    Time(Timestamp),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "beginning" | "earliest" => return Ok(Self::Beginning),
            "end" | "latest" => return Ok(Self::End),
            _ => {}
        }
        match text.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(Self::At(Offset(offset))),
            Ok(before_end) => Ok(Self::Last(before_end.saturating_neg())),
            Err(_) => time::parse(text).map(Self::Time).ok_or_else(|| {
                "use beginning, end, an offset, -N, or a time such as 2026-11-22T07:00 (UTC) or 2026-11-22T08:00+01:00"
                    .to_owned()
            }),
        }
    }
}

/// The way the topic is read: by flags, else by settings, else by our defaults.
struct Plan {
    from: From,
    isolation: Isolation,
    fetch_bytes: usize,
    fetch_wait: Duration,
}

impl Plan {
    fn of(arguments: &ConsumeArguments) -> anyhow::Result<Self> {
        let properties = &arguments.properties;
        let config = ConsumerConfig::from_map(properties)?;
        let names = properties.iter().map(|(name, _)| name.as_str());
        let is_set = |wanted: &str| names.clone().any(|name| name == wanted);
        if let Some(idle) = names.clone().find(|name| !PROPERTIES.contains(name)) {
            return Err(UsageError(format!(
                "{idle} has no effect here: consume reads partitions, and is no member of a group; it takes {}",
                PROPERTIES.join(", ")
            ))
            .into());
        }
        let by_setting = match config.auto_offset_reset {
            OffsetReset::Latest if is_set("auto.offset.reset") => From::End,
            _ => From::Beginning,
        };
        let isolation = arguments.isolation.map(Isolated::isolation);
        Ok(Self {
            from: arguments.from.unwrap_or(by_setting),
            isolation: isolation.unwrap_or(config.isolation),
            fetch_bytes: match is_set("max.partition.fetch.bytes") {
                true => config.max_partition_fetch_bytes,
                false => FETCH_BYTES,
            },
            fetch_wait: match is_set("fetch.max.wait.ms") {
                true => config.fetch_max_wait,
                false => FETCH_WAIT,
            },
        })
    }
}

/// Runs `onceflow consume`.
pub(super) fn run(env: &Env, arguments: &ConsumeArguments) -> anyhow::Result<()> {
    let plan = Plan::of(arguments)?;
    with_session(env, &arguments.data, Absent::Refuse, |session| {
        let mut readers = Vec::new();
        for partition in partitions(session, arguments)? {
            readers.push(Reading::begin(session, partition, &plan)?);
        }
        let mut printer = Printer::new(&arguments.shown, arguments.max);
        let is_done = read_to_end(session, &mut readers, &mut printer)?;
        printer.out.flush()?;
        if arguments.follow && !is_done {
            follow(session, &mut readers, &mut printer, plan.fetch_wait)?;
        }
        Ok(())
    })
}

/// The partitions asked for; all if none were named.
fn partitions(
    session: &Session,
    arguments: &ConsumeArguments,
) -> anyhow::Result<Vec<TopicPartition>> {
    let topic = topic_of(session, &arguments.topic)?;
    if let Some(partition) = arguments
        .partitions
        .iter()
        .find(|p| !(0..topic.partitions_count).contains(*p))
    {
        bail!(no_such_partition(&topic, *partition));
    }
    let named = match arguments.partitions.is_empty() {
        true => (0..topic.partitions_count).collect::<BTreeSet<_>>(),
        false => arguments.partitions.iter().copied().collect(),
    };
    Ok(named
        .into_iter()
        .map(|partition| TopicPartition::new(topic.name.clone(), partition))
        .collect())
}

/// A partition that is read, and where it ended when the command began.
struct Reading {
    reader: PartitionReader,
    end: Offset,
}

impl Reading {
    fn begin(session: &Session, partition: TopicPartition, plan: &Plan) -> anyhow::Result<Self> {
        let isolation = plan.isolation;
        let admin = session.admin();
        let find = |spec| session.wait(admin.list_offset(&partition, spec, isolation));
        let end = find(OffsetSpec::Latest)?.map_or(Offset::ZERO, |listed| listed.offset);
        let start = match plan.from {
            From::Beginning => {
                find(OffsetSpec::Earliest)?.map_or(Offset::ZERO, |listed| listed.offset)
            }
            From::End => end,
            From::At(offset) => {
                if offset > end {
                    output::say(&format!(
                        "onceflow: {partition} ends at {end}, before {offset}"
                    ));
                }
                offset
            }
            From::Last(count) => {
                let first =
                    find(OffsetSpec::Earliest)?.map_or(Offset::ZERO, |listed| listed.offset);
                begin_of_last(session, &partition, isolation, (first, end), count)?
            }
            From::Time(time) => {
                find(OffsetSpec::Timestamp(time))?.map_or(end, |listed| listed.offset)
            }
        };
        let reader = PartitionReader::new(session.transport(), partition, start, isolation);
        Ok(Self {
            reader: reader.with_max_bytes(plan.fetch_bytes),
            end,
        })
    }
}

/// Prints partition after partition up to its end; `true` if no more is wanted.
fn read_to_end(
    session: &Session,
    readings: &mut [Reading],
    printer: &mut Printer<'_>,
) -> anyhow::Result<bool> {
    for reading in readings {
        let partition = reading.reader.partition().partition;
        while reading.reader.position() < reading.end {
            let before = reading.reader.position();
            let fetched = session.wait(reading.reader.fetch(Duration::ZERO))?;
            if printer.print(partition, fetched, reading.end)? {
                return Ok(true);
            }
            if reading.reader.position() == before {
                bail!(
                    "{} ends at {before}, before its end {}: is it being deleted?",
                    reading.reader.partition(),
                    reading.end
                );
            }
        }
    }
    Ok(printer.is_done())
}

/// Prints what becomes visible, until Ctrl-C or until no more is wanted.
fn follow(
    session: &Session,
    readings: &mut [Reading],
    printer: &mut Printer<'_>,
    wait: Duration,
) -> anyhow::Result<()> {
    loop {
        let fetches = readings
            .iter_mut()
            .map(|reading| Box::pin(reading.reader.fetch(wait)));
        // A fetch that is dropped unfinished has not moved its reader.
        let Some((fetched, index, _)) = session.wait_or_interrupt(select_all(fetches)) else {
            return Ok(());
        };
        let partition = readings[index].reader.partition().partition;
        if printer.print(partition, fetched?, Offset(i64::MAX))? {
            return Ok(());
        }
        printer.out.flush()?;
    }
}

/// Prints records as asked for.
struct Printer<'a> {
    shown: &'a Shown,
    formatter: Formatter<'a>,
    out: output::Stdout,
    left: u64,
}

impl<'a> Printer<'a> {
    fn new(shown: &'a Shown, max: Option<u64>) -> Self {
        Self {
            shown,
            formatter: Formatter {
                is_terminal: output::is_terminal(),
                null: &shown.null,
            },
            out: output::stdout(),
            left: max.unwrap_or(u64::MAX),
        }
    }

    fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Prints the records before `end`; `true` if no more is wanted.
    fn print(
        &mut self,
        partition: PartitionIndex,
        fetched: FetchedBatches,
        end: Offset,
    ) -> anyhow::Result<bool> {
        for batch in fetched {
            for record in batch?.iter() {
                let record = record?;
                if record.offset >= end {
                    continue;
                }
                if self.is_done() {
                    self.out.flush()?;
                    return Ok(true);
                }
                self.left -= 1;
                self.print_record(partition, &record)?;
            }
        }
        Ok(self.is_done())
    }

    fn print_record(&mut self, partition: PartitionIndex, record: &Record<'_>) -> io::Result<()> {
        let shown = self.shown;
        if shown.json || output::is_json() {
            return self.print_json(partition, record);
        }
        if shown.timestamp {
            write!(self.out, "{}\t", time::format(record.timestamp))?;
        }
        if shown.offset {
            write!(self.out, "{partition}:{}\t", record.offset)?;
        }
        if shown.headers {
            let headers: Vec<String> = record
                .headers
                .map(|(name, value)| {
                    let name = self.formatter.show(Some(name.as_bytes()), ByteFormat::Text);
                    format!("{name}={}", self.formatter.show(value, ByteFormat::Text))
                })
                .collect();
            write!(self.out, "{}\t", headers.join(","))?;
        }
        if shown.key {
            write!(
                self.out,
                "{}\t",
                self.formatter.show(record.key, shown.key_format)
            )?;
        }
        writeln!(
            self.out,
            "{}",
            self.formatter.show(record.value, shown.value_format)
        )
    }

    fn print_json(&mut self, partition: PartitionIndex, record: &Record<'_>) -> io::Result<()> {
        let headers: Vec<_> = record
            .headers
            .map(|(name, value)| serde_json::json!([name, format::json(value, ByteFormat::Text)]))
            .collect();
        let object = serde_json::json!({
            "partition": partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "headers": headers,
            "key": format::json(record.key, self.shown.key_format),
            "value": format::json(record.value, self.shown.value_format),
        });
        writeln!(self.out, "{object}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_begin_are_read() {
        for (text, from) in [
            ("beginning", From::Beginning),
            ("end", From::End),
            ("0", From::At(Offset(0))),
            ("-10", From::Last(10)),
            ("1970-01-01T00:00:01", From::Time(Timestamp(1000))),
        ] {
            assert_eq!(text.parse(), Ok(from));
        }
        for text in ["", "tea", "1.5", "--", "99999999999999999999"] {
            assert!(text.parse::<From>().is_err(), "{text:?} was read");
        }
    }
}

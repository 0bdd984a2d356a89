//! `onceflow records`: a page of a topic as it lies in the log, and what came of a record.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde_json::Value;

use super::consume::From;
use super::output::{self, Table};
use super::session::{Absent, DataOption, with_session};
use super::time;
use crate::client::records::{self, Follow, LIMIT, LIMIT_MAX, ROWS, ROWS_MAX, Records};
use crate::env::Env;
use crate::types::{GroupId, Offset, PartitionIndex, Timestamp, TopicName, TopicPartition};

const EXAMPLES: &str = "\
Examples:
  onceflow records browse lines                          the last 50 offsets of partition 0
  onceflow records browse lines --from 1200 --max 10 --partition 2
  onceflow records browse lines --from 2026-11-22T07:00 --output json
  onceflow records follow lines --offset 1204 --job word-count
                                                         the transaction in which word-count consumed it, and what that wrote
  onceflow records follow lines --offset 1204 --job word-count --topic word-counts --log kafka://broker:9092

`browse` shows what readers are not shown, too: markers, and records of open and of aborted transactions. Which codec wrote a
key or a value, only the job knows: what the bytes seem to be stands beside them in JSON. `follow` needs the history of the
job's positions, which the log compacts: what happened some hours ago may not be known any more, and is said to be so.";

/// A cell of a table shows no more characters of a key or a value.
const CELL_CHARS_MAX: usize = 60;

/// Look into topics.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RecordsArguments {
    #[command(flatten)]
    data: DataOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show what lies in a partition, offset by offset
    Browse {
        /// The topic
        #[arg(value_parser = TopicName::new)]
        topic: TopicName,
        /// The partition
        #[arg(long, short, value_name = "NUMBER", default_value_t = 0)]
        partition: PartitionIndex,
        /// Where to begin: beginning, an offset, -N (the last N offsets), or a time such as 2026-11-22T07:00
        #[arg(long, value_name = "PLACE", allow_hyphen_values = true)]
        from: Option<From>,
        /// The most offsets that are shown
        #[arg(long, value_name = "COUNT", default_value_t = LIMIT, value_parser = bounded(LIMIT_MAX))]
        max: usize,
    },
    /// Follow a record into the transaction in which a job consumed it: its positions, results, and changes of state
    Follow {
        /// The topic of the record
        #[arg(value_parser = TopicName::new)]
        topic: TopicName,
        /// The record's partition
        #[arg(long, short, value_name = "NUMBER", default_value_t = 0)]
        partition: PartitionIndex,
        /// The record's offset
        #[arg(long, short, value_name = "NUMBER")]
        offset: i64,
        /// The job, or the group, that consumed it
        #[arg(long, short, value_name = "NAME", value_parser = GroupId::new)]
        job: GroupId,
        /// Search only this topic for what was written; may be given again
        #[arg(long = "topic", value_name = "TOPIC", value_parser = TopicName::new)]
        topics: Vec<TopicName>,
        /// The most records that are shown of each partition
        #[arg(long, value_name = "COUNT", default_value_t = ROWS, value_parser = bounded(ROWS_MAX))]
        max: usize,
    },
}

/// A number from 1 to `max`.
fn bounded(max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text
            .parse()
            .ok()
            .filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| format!("it is a number from 1 to {max}"))
    }
}

/// Runs `onceflow records`.
pub(super) fn run(env: &Env, arguments: RecordsArguments) -> anyhow::Result<()> {
    with_session(env, &arguments.data, Absent::Refuse, |session| {
        let records = Records::new(session.transport());
        let mut out = output::stdout();
        match arguments.action {
            Action::Browse {
                topic,
                partition,
                from,
                max,
            } => {
                let place = TopicPartition::new(topic, partition);
                let from = begin(from, max);
                let page = session.wait(records.browse(&place, from, max))?;
                print(&mut out, &page, print_page)?;
            }
            Action::Follow {
                topic,
                partition,
                offset,
                job,
                topics,
                max,
            } => {
                let follow = Follow {
                    job,
                    place: TopicPartition::new(topic, partition),
                    offset: Offset(offset),
                    topics,
                    limit: max,
                };
                let told = session.wait(records.follow(&follow))?;
                print(&mut out, &told, print_followed)?;
            }
        }
        Ok(out.flush()?)
    })
}

fn begin(from: Option<From>, max: usize) -> records::From {
    match from {
        None => records::From::Last(i64::try_from(max).unwrap_or(i64::MAX)),
        Some(From::Beginning) => records::From::Beginning,
        Some(From::End) => records::From::Last(0),
        Some(From::At(offset)) => records::From::At(offset),
        Some(From::Last(count)) => records::From::Last(count),
        Some(From::Time(time)) => records::From::Time(time),
    }
}

fn print<W: Write>(
    out: &mut W,
    told: &Value,
    for_people: fn(&mut W, &Value) -> io::Result<()>,
) -> io::Result<()> {
    match output::is_json() {
        true => writeln!(out, "{told}"),
        false => for_people(out, told),
    }
}

fn print_page<W: Write>(out: &mut W, page: &Value) -> io::Result<()> {
    let (topic, partition) = (text(&page["topic"]), &page["partition"]);
    let (start, stable, end) = (
        &page["log_start_offset"],
        &page["last_stable_offset"],
        &page["high_watermark"],
    );
    writeln!(
        out,
        "{topic}-{partition}  start {start}  last stable {stable}  high watermark {end}\n"
    )?;
    table_of(&page["records"]).print(out)?;
    match &page["next"] {
        Value::Null => Ok(()),
        next => writeln!(out, "\nmore from {next} on"),
    }
}

fn table_of(rows: &Value) -> Table {
    let mut table = Table::new(&[
        "offset",
        "time",
        "what",
        "transaction",
        "producer",
        "key",
        "value",
    ]);
    for row in rows.as_array().into_iter().flatten() {
        let what = match text(&row["kind"]) {
            "marker" => format!("marker: {}", text(&row["marker"])),
            "unreadable" => format!("unreadable: {}", text(&row["error"])),
            kind => kind.to_owned(),
        };
        let producer = match (&row["producer_id"], &row["producer_epoch"]) {
            (Value::Null, _) => "-".to_owned(),
            (id, epoch) => format!("{id} epoch {epoch}"),
        };
        let transaction = match text(&row["kind"]) {
            "marker" => "-",
            _ => text(&row["transaction"]),
        };
        table.row([
            row["offset"].to_string(),
            row["time"]
                .as_i64()
                .map_or_else(|| "-".to_owned(), |millis| time::format(Timestamp(millis))),
            what,
            transaction.to_owned(),
            producer,
            cell(&row["key"]),
            cell(&row["value"]),
        ]);
    }
    table
}

fn print_followed<W: Write>(out: &mut W, told: &Value) -> io::Result<()> {
    let (topic, partition, offset) = (text(&told["topic"]), &told["partition"], &told["offset"]);
    let transaction = &told["transaction"];
    let name = match (transaction, &transaction["transactional_id"]) {
        (Value::Null, _) => "without a transaction that can be told".to_owned(),
        (_, Value::String(id)) => format!(
            "in the transaction of {id} (producer {}, epoch {})",
            transaction["producer_id"], transaction["producer_epoch"]
        ),
        _ => format!(
            "in a transaction of producer {} (epoch {})",
            transaction["producer_id"], transaction["producer_epoch"]
        ),
    };
    let committed = time::format(Timestamp(told["committed"].as_i64().unwrap_or(-1)));
    let job = text(&told["job"]);
    writeln!(
        out,
        "{job} consumed offset {offset} of {topic}-{partition} {name}, committed {committed}"
    )?;
    if let Some(why) = told["untold"].as_str() {
        writeln!(out, "{why}")?;
    }
    writeln!(out, "\npositions")?;
    let mut positions = Table::new(&["partition", "from", "to"]);
    for position in told["positions"].as_array().into_iter().flatten() {
        let place = format!("{}-{}", text(&position["topic"]), position["partition"]);
        let from = match &position["from"] {
            Value::Null => "-".to_owned(),
            from => from.to_string(),
        };
        positions.row([place, from, position["to"].to_string()]);
    }
    positions.print(out)?;
    for part in told["wrote"].as_array().into_iter().flatten() {
        print_part(out, part)?;
    }
    for place in told["not_searched"].as_array().into_iter().flatten() {
        let (topic, partition) = (text(&place["topic"]), &place["partition"]);
        writeln!(
            out,
            "\n{topic}-{partition} could not be searched: {}",
            text(&place["why"])
        )?;
    }
    Ok(())
}

fn print_part<W: Write>(out: &mut W, part: &Value) -> io::Result<()> {
    let what = match (text(&part["role"]), part["of"].as_str()) {
        ("state", Some(store)) => format!("state changes of {store}"),
        ("shuffle", Some(step)) => format!("sent on to {step}"),
        ("positions", _) => "the job's own notes".to_owned(),
        _ => "output".to_owned(),
    };
    let (topic, partition, count) = (text(&part["topic"]), &part["partition"], &part["count"]);
    writeln!(out, "\n{what}: {topic}-{partition}, records: {count}")?;
    if part["is_whole"] != true {
        writeln!(
            out,
            "not all of it was found: the rest was compacted or deleted, or lies too far back"
        )?;
    }
    table_of(&part["records"]).print(out)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A key or a value in a few characters: what it seems to be, else its bytes.
fn cell(bytes: &Value) -> String {
    let shown = match (&bytes["decoded"], &bytes["hex"]) {
        (Value::String(decoded), _) => decoded,
        (_, Value::String(hex)) => hex,
        _ => return "-".to_owned(),
    };
    let shown = output::printable(shown);
    match shown.char_indices().nth(CELL_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown.into_owned(),
    }
}

//! `onceflow txn`: what transactions are open or were decided, and an operator's way to abort one.

use std::io::Write;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;

use super::output::{self, Table};
use super::session::{Absent, DataOption, Session, with_session};
use super::time;
use crate::env::Env;
use crate::protocol::messages::TransactionDescription;
use crate::types::{ProducerId, TopicName, TopicPartition, TransactionalId};

const EXAMPLES: &str = "\
Examples:
  onceflow txn list
  onceflow txn describe orders-writer
  onceflow txn abort orders-writer      end a transaction that holds readers up
  onceflow txn hanging --log kafka://broker:9092
                                        find those that nobody will ever end
  onceflow txn abort-hanging orders-0 4711 --log kafka://broker:9092
                                        end one of them, in its partition

A transaction that was open when its process died is aborted when the directory is opened next,
by this command too.";

/// Work on transactions.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TxnArguments {
    #[command(flatten)]
    data: DataOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all transactional ids with their state
    List,
    /// Show one transactional id
    Describe {
        /// The transactional id
        #[arg(value_parser = TransactionalId::new)]
        id: TransactionalId,
    },
    /// List transactions that are open in a partition and that no coordinator knows of: readers of committed records
    /// wait before them for good
    Hanging,
    /// Abort the open transaction of an id; its producer is fenced
    Abort {
        /// The transactional id
        #[arg(value_parser = TransactionalId::new)]
        id: TransactionalId,
    },
    /// Abort a hanging transaction in one partition
    AbortHanging {
        /// The partition, such as orders-0
        #[arg(value_parser = parse_partition)]
        partition: TopicPartition,
        /// The producer id, as `hanging` lists it
        producer: i64,
    },
}

fn parse_partition(text: &str) -> Result<TopicPartition, String> {
    let of = |text: &str| {
        let (topic, number) = text.rsplit_once('-')?;
        Some(TopicPartition::new(
            TopicName::new(topic).ok()?,
            number.parse().ok()?,
        ))
    };
    of(text).ok_or_else(|| "a partition is its topic and its number, such as orders-0".to_owned())
}

/// Runs `onceflow txn`.
pub(super) fn run(env: &Env, arguments: TxnArguments) -> anyhow::Result<()> {
    with_session(env, &arguments.data, Absent::Refuse, |session| {
        let admin = session.admin();
        match arguments.action {
            Action::List => list(session),
            Action::Describe { id } => describe(&session.wait(admin.describe_transaction(&id))?),
            Action::Hanging => hanging(session),
            Action::Abort { id } => {
                let aborted = session.wait(admin.abort_transaction(&id));
                aborted.with_context(|| {
                    format!(
                        "nothing of {id} was aborted (`onceflow txn describe {id}` shows its state)"
                    )
                })?;
                tell_aborted(&json!({ "aborted": id.as_str() }))
            }
            Action::AbortHanging {
                partition,
                producer,
            } => {
                let producer_id = ProducerId(producer);
                session.wait(admin.abort_hanging_transaction(&partition, producer_id))?;
                let place = partition.to_string();
                tell_aborted(&json!({ "aborted": producer, "partition": place }))
            }
        }
    })
}

/// Says what was done to programs. People hear of failures only.
fn tell_aborted(told: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = output::stdout();
    if output::is_json() {
        writeln!(out, "{told}")?;
    }
    Ok(out.flush()?)
}

fn list(session: &Session) -> anyhow::Result<()> {
    let transactions = session.wait(session.admin().list_transactions())?;
    let mut table = Table::new(&[
        "transactional id",
        "state",
        "producer id",
        "epoch",
        "begun",
        "partitions",
    ])
    .with_numbers(&["producer id", "epoch", "partitions"]);
    for transaction in transactions {
        table.row([
            transaction.transactional_id.to_string(),
            format!("{:?}", transaction.state),
            transaction.producer_id.to_string(),
            transaction.producer_epoch.to_string(),
            time::format(transaction.start),
            transaction.partitions.len().to_string(),
        ]);
    }
    let mut out = output::stdout();
    table.print(&mut out)?;
    Ok(out.flush()?)
}

fn hanging(session: &Session) -> anyhow::Result<()> {
    let admin = session.admin();
    let mut table = Table::new(&[
        "partition",
        "from offset",
        "producer id",
        "epoch",
        "last write",
    ])
    .with_numbers(&["from offset", "producer id", "epoch"]);
    for topic in session.wait(admin.topics())? {
        for index in 0..topic.partitions_count {
            let partition = TopicPartition::new(topic.name.clone(), index);
            for found in session.wait(admin.hanging_transactions(&partition))? {
                let start = found.current_transaction_start;
                table.row([
                    partition.to_string(),
                    start.map_or_else(String::new, |start| start.to_string()),
                    found.producer.id.to_string(),
                    found.producer.epoch.to_string(),
                    time::format(found.last_timestamp),
                ]);
            }
        }
    }
    let mut out = output::stdout();
    table.print(&mut out)?;
    Ok(out.flush()?)
}

fn describe(transaction: &TransactionDescription) -> anyhow::Result<()> {
    let mut out = output::stdout();
    if output::is_json() {
        let partitions = transaction.partitions.iter().map(ToString::to_string);
        let object = serde_json::json!({
            "transactional_id": transaction.transactional_id.as_str(),
            "state": format!("{:?}", transaction.state),
            "producer_id": transaction.producer_id.0,
            "producer_epoch": transaction.producer_epoch.0,
            "timeout_ms": u64::try_from(transaction.timeout.as_millis()).unwrap_or(u64::MAX),
            "begun": time::format(transaction.start),
            "partitions": partitions.collect::<Vec<_>>(),
        });
        writeln!(out, "{object}")?;
        return Ok(out.flush()?);
    }
    writeln!(out, "transactional id  {}", transaction.transactional_id)?;
    writeln!(out, "state             {:?}", transaction.state)?;
    writeln!(out, "producer id       {}", transaction.producer_id)?;
    writeln!(out, "producer epoch    {}", transaction.producer_epoch)?;
    writeln!(
        out,
        "timeout           {} ms",
        transaction.timeout.as_millis()
    )?;
    writeln!(out, "begun             {}", time::format(transaction.start))?;
    for partition in &transaction.partitions {
        writeln!(out, "partition         {partition}")?;
    }
    Ok(out.flush()?)
}

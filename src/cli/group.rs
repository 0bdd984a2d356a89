//! `onceflow group`: the members of groups, and the positions that they have committed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::output::{self, Table};
use super::reset::{self, ResetArguments};
use super::session::{Absent, DataOption, Session, with_session};
use super::time;
use crate::broker::{GroupDescription, MemberDescription};
use crate::env::Env;
use crate::protocol::ErrorCode;
use crate::protocol::messages::{OffsetSpec, TransactionDescription, TransactionState};
use crate::types::{GroupId, Isolation, TopicPartition, TransactionalId};

const EXAMPLES: &str = "\
Examples:
  onceflow group list
  onceflow group describe word-count    members, committed positions, and how far they are behind
  onceflow group describe readers --log kafka://localhost:9092
  onceflow group reset readers --to beginning --dry-run    show where its positions would go
  onceflow group reset readers --topic lines:0,1 --to 2026-11-22T07:00
  onceflow group reset readers --by -100
  onceflow group reset readers --to-datetime 2026-11-22T07:00:00.000    as Kafka's own tool says it, but done at once
  onceflow group delete old-reader";

/// Work on groups.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct GroupArguments {
    #[command(flatten)]
    data: DataOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List all groups that have members or committed positions
    List,
    /// Show a group's state, its committed positions with their lag, and its members with what each of them reads
    Describe {
        /// The group
        #[arg(value_parser = GroupId::new)]
        group: GroupId,
    },
    /// Move a group's positions (a job's state stays as it is: what it reads again is counted again)
    Reset(ResetArguments),
    /// Delete a group's positions (a job of that group would start over)
    Delete {
        /// The group
        #[arg(value_parser = GroupId::new)]
        group: GroupId,
    },
}

/// Runs `onceflow group`.
pub(super) fn run(env: &Env, arguments: GroupArguments) -> anyhow::Result<()> {
    with_session(
        env,
        &arguments.data,
        Absent::Refuse,
        |session| match arguments.action {
            Action::List => list(session),
            Action::Describe { group } => describe(session, &group),
            Action::Reset(arguments) => reset::run(session, &arguments),
            Action::Delete { group } => {
                let deleted = session.wait(session.admin().delete_group(&group));
                deleted.with_context(|| format!("group {group} was not deleted"))
            }
        },
    )
}

fn list(session: &Session) -> anyhow::Result<()> {
    let mut out = output::stdout();
    let groups = session.wait(session.admin().list_groups())?;
    if output::is_json() {
        let groups: Vec<_> = groups.iter().map(GroupId::as_str).collect();
        writeln!(out, "{}", serde_json::json!(groups))?;
        return Ok(out.flush()?);
    }
    for group in groups {
        writeln!(out, "{group}")?;
    }
    Ok(out.flush()?)
}

fn describe(session: &Session, group: &GroupId) -> anyhow::Result<()> {
    let description = session.wait(session.admin().describe_group(group))?;
    let mut out = output::stdout();
    let (kind, members) = (description.group_type.name(), &description.members);
    if output::is_json() {
        let transactions = transactions_of_job(session, group)?;
        let object = serde_json::json!({
            "group": group.as_str(),
            "type": kind,
            "state": description.state,
            "positions": positions(session, &description).json(),
            "members": table_of(members).json(),
            "transactions": transactions.iter().map(JobTransaction::json).collect::<Vec<_>>(),
        });
        writeln!(out, "{object}")?;
        return Ok(out.flush()?);
    }
    let (state, count) = (output::printable(&description.state), members.len());
    match &transactions_of_job(session, group)?[..] {
        [] => writeln!(out, "{group}: {state}, {kind}, members: {count}")?,
        _ if count > 0 => writeln!(out, "{group}: {state}, {kind}, members: {count}")?,
        transactions => {
            writeln!(
                out,
                "{group}: a job that runs alone, and so without members ({state}, {kind}); its transactions:"
            )?;
            for transaction in transactions {
                writeln!(out, "  {}", transaction.told())?;
            }
        }
    }
    writeln!(out)?;
    positions(session, &description).print(&mut out)?;
    if !members.is_empty() {
        writeln!(out)?;
        table_of(members).print(&mut out)?;
    }
    Ok(out.flush()?)
}

/// The transaction of a job that runs alone: such a job is no member of its group, and commits its positions with its
/// results.
pub(super) struct JobTransaction(TransactionDescription);

impl JobTransaction {
    /// Its transactional id.
    pub(super) fn id(&self) -> &TransactionalId {
        &self.0.transactional_id
    }

    /// Whether the job is at work.
    pub(super) fn is_open(&self) -> bool {
        matches!(
            self.0.state,
            TransactionState::Ongoing
                | TransactionState::PrepareCommit
                | TransactionState::PrepareAbort
        )
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "transactional_id": self.id().as_str(),
            "state": format!("{:?}", self.0.state),
            "is_open": self.is_open(),
            "begun": self.is_open().then(|| time::format(self.0.start)),
        })
    }

    fn told(&self) -> String {
        let (id, state) = (self.id(), self.0.state);
        match self.is_open() {
            true => format!("{id}: {state:?}, begun {}", time::format(self.0.start)),
            false => format!("{id}: {state:?}, no transaction is open"),
        }
    }
}

/// The transactions of the job of this name, if there is one. It uses two ids in turn.
pub(super) fn transactions_of_job(
    session: &Session,
    group: &GroupId,
) -> anyhow::Result<Vec<JobTransaction>> {
    let mut found = Vec::new();
    for number in 0..2 {
        let Ok(id) = TransactionalId::new(&format!("{group}-{number}")) else {
            continue;
        };
        match session.wait(session.admin().describe_transaction(&id)) {
            Ok(description) => found.push(JobTransaction(description)),
            Err(e) if e.code() == Some(ErrorCode::TransactionalIdNotFound) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

/// Each committed position, and how far it is behind.
fn positions(session: &Session, description: &GroupDescription) -> Table {
    let admin = session.admin();
    let mut table = Table::new(&[
        "topic",
        "partition",
        "position",
        "end",
        "lag",
        "pending",
        "metadata",
    ])
    .with_numbers(&["partition", "position", "end", "lag"]);
    for (place, committed) in &description.offsets {
        // The topic may be gone, or the position may name no topic at all (a job's file source): then there is no end.
        let end = session
            .wait(admin.list_offset(place, OffsetSpec::Latest, Isolation::ReadCommitted))
            .ok()
            .flatten()
            .map(|listed| listed.offset);
        let lag = end.map(|end| end.since(committed.offset).max(0));
        let mut pending = description.pending.iter();
        let is_pending = pending.any(|(_, pending, _)| pending == place);
        table.row([
            place.topic.to_string(),
            place.partition.to_string(),
            committed.offset.to_string(),
            end.map_or_else(unknown, |end| end.to_string()),
            lag.map_or_else(unknown, |lag| lag.to_string()),
            if is_pending { "yes" } else { "no" }.to_owned(),
            output::printable(&committed.metadata).into_owned(),
        ]);
    }
    table
}

/// Each member, and what it reads.
fn table_of(members: &[MemberDescription]) -> Table {
    let mut table = Table::new(&["member", "instance", "client", "host", "reads"]);
    for member in members {
        let text = |text: &str| output::printable(text).into_owned();
        let instance = member.instance_id.as_deref();
        let assignment = member.assignment.as_deref();
        table.row([
            text(&member.member_id),
            instance.map_or_else(unknown, text),
            text(&member.client.client_id),
            text(&member.client.client_host),
            assignment.map_or_else(|| "?".to_owned(), partitions),
        ]);
    }
    table
}

/// `topic:0,1,2 other:0`, or nothing.
fn partitions(assignment: &[TopicPartition]) -> String {
    let mut topics: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    for place in assignment {
        let partitions = topics.entry(place.topic.as_str()).or_default();
        partitions.insert(place.partition);
    }
    let topics = topics.into_iter().map(|(topic, partitions)| {
        let numbers: Vec<_> = partitions.iter().map(ToString::to_string).collect();
        format!("{topic}:{}", numbers.join(","))
    });
    let topics: Vec<_> = topics.collect();
    match topics.is_empty() {
        true => unknown(),
        false => topics.join(" "),
    }
}

fn unknown() -> String {
    "-".to_owned()
}

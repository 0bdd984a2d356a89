//! `onceflow group`: the positions that groups have committed.

use std::io::Write;

use clap::{Args, Subcommand};

use super::output::{self, Table};
use super::session::{Absent, DataOption, Session, with_session};
use crate::env::Env;
use crate::protocol::messages::OffsetSpec;
use crate::types::{GroupId, Isolation};

const EXAMPLES: &str = "\
Examples:
  onceflow group list
  onceflow group describe word-count    committed positions, and how far they are behind
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
    /// List all groups that have committed positions
    List,
    /// Show a group's committed positions and its lag behind each partition's end
    Describe {
        /// The group
        #[arg(value_parser = GroupId::new)]
        group: GroupId,
    },
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
            Action::Delete { group } => Ok(session.wait(session.admin().delete_group(&group))?),
        },
    )
}

fn list(session: &Session) -> anyhow::Result<()> {
    let mut out = output::stdout();
    for group in session.wait(session.admin().list_groups())? {
        writeln!(out, "{group}")?;
    }
    Ok(out.flush()?)
}

fn describe(session: &Session, group: &GroupId) -> anyhow::Result<()> {
    let admin = session.admin();
    let description = session.wait(admin.describe_group(group))?;
    let mut table = Table::new(&[
        "topic",
        "partition",
        "position",
        "end",
        "lag",
        "pending",
        "metadata",
    ]);
    for (place, committed) in &description.offsets {
        // The topic may be gone, or the position may name no topic at all (a job's file source): then there is no end.
        let end = session
            .wait(admin.list_offset(place, OffsetSpec::Latest, Isolation::ReadCommitted))
            .ok()
            .flatten()
            .map(|listed| listed.offset);
        table.row([
            place.topic.to_string(),
            place.partition.to_string(),
            committed.offset.to_string(),
            end.map_or_else(|| "-".to_owned(), |end| end.to_string()),
            end.map_or_else(
                || "-".to_owned(),
                |end| end.since(committed.offset).max(0).to_string(),
            ),
            if description
                .pending
                .iter()
                .any(|(_, pending, _)| pending == place)
            {
                "yes"
            } else {
                "no"
            }
            .to_owned(),
            output::printable(&committed.metadata).into_owned(),
        ]);
    }
    let mut out = output::stdout();
    table.print(&mut out)?;
    Ok(out.flush()?)
}

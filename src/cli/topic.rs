//! `onceflow topic`: create, list, describe, alter, grow and delete topics.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use anyhow::{anyhow, bail};
use clap::{Args, Subcommand};

use super::UsageError;
use super::output::{self, Table};
use super::session::{Absent, DataOption, Session, with_session};
use crate::env::Env;
use crate::protocol::messages::{ConfigEntry, PartitionDescription, TopicMetadata};
use crate::types::{PartitionIndex, TopicName};

const EXAMPLES: &str = "\
Examples:
  onceflow topic create lines --partitions 4
  onceflow topic create counts --config cleanup.policy=compact
  onceflow topic list
  onceflow topic describe lines
  onceflow topic alter lines --config retention.ms=86400000
  onceflow topic add-partitions lines 8
  onceflow topic delete lines";

/// Work on topics.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TopicArguments {
    #[command(flatten)]
    data: DataOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a topic (and the data directory, if there is none yet)
    Create {
        /// Its name: letters, digits, '.', '_' and '-'
        #[arg(value_parser = TopicName::new)]
        topic: TopicName,
        /// Number of partitions
        #[arg(long, short, default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: i32,
        /// A setting by Kafka's name, such as retention.ms=86400000; may be given again
        #[arg(long = "config", value_name = "NAME=VALUE", value_parser = setting)]
        configs: Vec<(String, String)>,
    },
    /// List all topics
    List {
        /// Also the coordinators' own topics
        #[arg(long)]
        internal: bool,
    },
    /// Show a topic's partitions and settings
    Describe {
        /// The topic
        #[arg(value_parser = TopicName::new)]
        topic: TopicName,
    },
    /// Change a topic's settings
    Alter {
        /// The topic
        #[arg(value_parser = TopicName::new)]
        topic: TopicName,
        /// A setting by Kafka's name; may be given again
        #[arg(long = "config", value_name = "NAME=VALUE", value_parser = setting, required_unless_present = "resets")]
        configs: Vec<(String, String)>,
        /// A setting that gets its default back; may be given again
        #[arg(long = "reset", value_name = "NAME")]
        resets: Vec<String>,
    },
    /// Add partitions (records with a key then go elsewhere than before)
    AddPartitions {
        /// The topic
        #[arg(value_parser = TopicName::new)]
        topic: TopicName,
        /// Number of partitions afterwards
        #[arg(allow_negative_numbers = true)]
        total: i32,
    },
    /// Delete a topic and all its records
    Delete {
        /// The topic
        #[arg(value_parser = TopicName::new)]
        topic: TopicName,
    },
}

pub(super) fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a setting is NAME=VALUE, for example retention.ms=86400000".to_owned()),
    }
}

/// Runs `onceflow topic`.
pub(super) fn run(env: &Env, arguments: TopicArguments) -> anyhow::Result<()> {
    check_settings(&arguments.action)?;
    let absent = match arguments.action {
        Action::Create { .. } => Absent::Create,
        _ => Absent::Refuse,
    };
    with_session(env, &arguments.data, absent, |session| {
        act(session, arguments.action)
    })
}

fn act(session: &Session, action: Action) -> anyhow::Result<()> {
    let admin = session.admin();
    match action {
        Action::Create {
            topic,
            partitions,
            configs,
        } => {
            let configs = configs.into_iter().collect();
            session.wait(admin.create_topic_with(&topic, partitions, configs))?;
        }
        Action::List { internal } => list(session, internal)?,
        Action::Describe { topic } => describe(session, &topic)?,
        Action::Alter {
            topic,
            configs,
            resets,
        } => {
            let set = configs.into_iter().map(|(name, value)| (name, Some(value)));
            let changes = set.chain(resets.into_iter().map(|name| (name, None)));
            alter(session, &topic, changes.collect())?;
        }
        Action::AddPartitions { topic, total } => {
            session.wait(admin.create_partitions(&topic, total))?
        }
        Action::Delete { topic } => session.wait(admin.delete_topic(&topic))?,
    }
    Ok(())
}

/// Changes settings of a topic that must exist; `None` gives a setting its default back.
pub(super) fn alter(
    session: &Session,
    topic: &TopicName,
    changes: BTreeMap<String, Option<String>>,
) -> anyhow::Result<()> {
    topic_of(session, topic)?;
    check_resets(session, topic, &changes)?;
    Ok(session.wait(session.transport().alter_configs(topic, changes))?)
}

/// Refuses a setting that is named twice: which of two values was meant is not to be guessed.
fn check_settings(action: &Action) -> Result<(), UsageError> {
    match action {
        Action::Create { configs, .. } => refuse_twice(configs, &[]),
        Action::Alter {
            configs, resets, ..
        } => refuse_twice(configs, resets),
        _ => Ok(()),
    }
}

/// See [`check_settings`].
pub(super) fn refuse_twice(
    configs: &[(String, String)],
    resets: &[String],
) -> Result<(), UsageError> {
    let mut seen = BTreeSet::new();
    let mut names = configs.iter().map(|(name, _)| name).chain(resets);
    match names.find(|name| !seen.insert(*name)) {
        Some(twice) => Err(UsageError(format!("the setting {twice:?} is named twice"))),
        None => Ok(()),
    }
}

/// A log takes the reset of a setting that it does not know for done.
fn check_resets(
    session: &Session,
    topic: &TopicName,
    changes: &BTreeMap<String, Option<String>>,
) -> anyhow::Result<()> {
    let known = session.wait(session.admin().describe_configs(topic))?;
    let is_unknown = |name: &str| !known.iter().any(|it| it.name == name);
    let mut resets = changes.iter().filter(|(_, value)| value.is_none());
    match resets.find(|(name, _)| is_unknown(name)) {
        Some((name, _)) => {
            bail!("there is no topic setting {name:?}: see `onceflow topic describe {topic}`")
        }
        None => Ok(()),
    }
}

fn list(session: &Session, internal: bool) -> anyhow::Result<()> {
    let topics = session.wait(session.admin().topics())?;
    let mut table = Table::new(&["topic", "partitions", "id"]).with_numbers(&["partitions"]);
    for topic in topics.iter().filter(|topic| internal || !topic.is_internal) {
        table.row([
            topic.name.to_string(),
            topic.partitions_count.to_string(),
            topic.id.to_string(),
        ]);
    }
    let mut out = output::stdout();
    table.print(&mut out)?;
    Ok(out.flush()?)
}

fn describe(session: &Session, topic: &TopicName) -> anyhow::Result<()> {
    let admin = session.admin();
    let metadata = topic_of(session, topic)?;
    let partitions = session.wait(admin.describe_partitions(topic))?;
    let configs = session.wait(admin.describe_configs(topic))?;
    let mut out = output::stdout();
    let (partitions, settings) = (partitions_table(&partitions), settings_table(configs));
    if output::is_json() {
        let object = serde_json::json!({
            "topic": topic.as_str(),
            "id": metadata.id.to_string(),
            "partitions": partitions.json(),
            "settings": settings.json(),
        });
        writeln!(out, "{object}")?;
        return Ok(out.flush()?);
    }
    writeln!(
        out,
        "topic {}  id {}  {} partitions\n",
        topic, metadata.id, metadata.partitions_count
    )?;
    partitions.print(&mut out)?;
    writeln!(out)?;
    settings.print(&mut out)?;
    Ok(out.flush()?)
}

/// The settings of a topic, and where each has its value from.
pub(super) fn settings_table(configs: Vec<ConfigEntry>) -> Table {
    let mut settings = Table::new(&["setting", "value", "from"]);
    for config in configs {
        let from = if config.is_default {
            "default"
        } else {
            "topic"
        };
        settings.row([config.name, config.value, from.to_owned()]);
    }
    settings
}

fn partitions_table(partitions: &[PartitionDescription]) -> Table {
    let mut table = Table::new(&[
        "partition",
        "start",
        "last stable",
        "high watermark",
        "end",
        "size",
        "state",
    ])
    .with_numbers(&[
        "partition",
        "start",
        "last stable",
        "high watermark",
        "end",
        "size",
    ]);
    for partition in partitions {
        table.row([
            partition.partition.to_string(),
            partition.log_start_offset.to_string(),
            partition.last_stable_offset.to_string(),
            partition.high_watermark.to_string(),
            partition.log_end_offset.to_string(),
            output::size(partition.size_bytes),
            partition
                .offline
                .as_deref()
                .map_or_else(|| "online".to_owned(), |why| format!("offline: {why}")),
        ]);
    }
    table
}

/// Finds a topic's metadata; an error that says what to do if there is none.
pub(super) fn topic_of(session: &Session, name: &TopicName) -> anyhow::Result<TopicMetadata> {
    session.wait(session.transport().topic(name))?.ok_or_else(|| {
        anyhow!("there is no topic {name}: see `onceflow topic list`, or create it with `onceflow topic create {name}`")
    })
}

/// The message for a partition that a topic does not have.
pub(super) fn no_such_partition(topic: &TopicMetadata, partition: PartitionIndex) -> String {
    let last = topic.partitions_count - 1;
    format!(
        "topic {} has no partition {partition}: its partitions are 0 to {last}",
        topic.name
    )
}

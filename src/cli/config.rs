//! `onceflow config`: the settings of a topic, and the names of all settings.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};

use super::output::{self, Table};
use super::session::{Absent, DataOption, Session, with_session};
use super::topic::{alter, refuse_twice, setting, topic_of};
use crate::client::setting_names;
use crate::env::Env;
use crate::types::TopicName;

const EXAMPLES: &str = "\
Examples:
  onceflow config describe lines
  onceflow config describe lines --changed              only what is not the default
  onceflow config alter lines --set retention.ms=86400000 --unset segment.bytes
  onceflow config names consumer                        what `consume --property` and programs may set";

/// Work on settings.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ConfigArguments {
    #[command(flatten)]
    data: DataOption,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the settings of a topic, and what each means
    Describe {
        /// The topic
        #[arg(value_parser = TopicName::new)]
        topic: TopicName,
        /// Only those that somebody set
        #[arg(long)]
        changed: bool,
    },
    /// Change settings of a topic; as `onceflow topic alter`
    Alter {
        /// The topic
        #[arg(value_parser = TopicName::new)]
        topic: TopicName,
        /// A setting by Kafka's name; may be given again
        #[arg(long = "set", visible_alias = "add-config", value_name = "NAME=VALUE", value_parser = setting, required_unless_present = "unset")]
        set: Vec<(String, String)>,
        /// A setting that gets its default back; may be given again
        #[arg(long = "unset", visible_alias = "delete-config", value_name = "NAME")]
        unset: Vec<String>,
    },
    /// List the names of settings
    Names {
        /// Whose
        #[arg(value_enum)]
        whose: Whose,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Whose {
    /// Producers: `onceflow produce --property`, `ProducerConfig::from_map`
    Producer,
    /// Consumers: `onceflow consume --property`, `ConsumerConfig::from_map`
    Consumer,
}

/// Runs `onceflow config`.
pub(super) fn run(env: &Env, arguments: ConfigArguments) -> anyhow::Result<()> {
    match arguments.action {
        Action::Names { whose } => names(whose),
        Action::Describe { topic, changed } => {
            with_session(env, &arguments.data, Absent::Refuse, |session| {
                describe(session, &topic, changed)
            })
        }
        Action::Alter { topic, set, unset } => {
            refuse_twice(&set, &unset)?;
            let set = set.into_iter().map(|(name, value)| (name, Some(value)));
            let changes = set.chain(unset.into_iter().map(|name| (name, None)));
            let changes = changes.collect();
            with_session(env, &arguments.data, Absent::Refuse, |session| {
                alter(session, &topic, changes)
            })
        }
    }
}

fn describe(session: &Session, topic: &TopicName, changed: bool) -> anyhow::Result<()> {
    topic_of(session, topic)?;
    let mut table = Table::new(&["setting", "value", "from", "meaning"]);
    let settings = session.wait(session.admin().describe_configs(topic))?;
    for it in settings
        .into_iter()
        .filter(|it| !(changed && it.is_default))
    {
        let from = if it.is_default { "default" } else { "topic" };
        let meaning = output::printable(&it.documentation).into_owned();
        table.row([it.name, it.value, from.to_owned(), meaning]);
    }
    let mut out = output::stdout();
    table.print(&mut out)?;
    Ok(out.flush()?)
}

fn names(whose: Whose) -> anyhow::Result<()> {
    let [producer, consumer] = setting_names();
    let names = match whose {
        Whose::Producer => producer,
        Whose::Consumer => consumer,
    };
    let mut out = output::stdout();
    output::tell(&mut out, &names.join("\n"), &serde_json::json!(names))?;
    Ok(out.flush()?)
}

//! Which tables have the topic that they are made of as their changelog: decided when a job first runs, kept from then on.
//!
//! ```text
//! no changelog yet ──asked for, and nothing against it──► the log holds the topic's compaction for the job ──► kept, or refused
//!        └──────────────────── else ──────────────────► a changelog of its own, for good
//! ```
//! The hold of the log is the mark. A job that cannot go on with it does not start: its rows are nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info;

use super::start::{Settings, read_kept};
use crate::broker::{CompactionHold, HeldPartition};
use crate::client::{ClientError, Transport, wait};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{OffsetFetchRequest, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::task::changelog::changelog_topic;
use crate::runtime::task::poison::PoisonPolicy;
use crate::runtime::task::source_changelog::{SourceChangelog, SourceTable};
use crate::runtime::topics::positions::Kept;
use crate::types::{GroupId, Offset, TopicName, TopicPartition};

/// The tables of a job whose topics are their changelogs, by store.
pub(crate) type SourceChangelogs = BTreeMap<String, SourceChangelog>;

/// A table's changelog as it is to be.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Own,
    /// Its own, though the topic was asked for.
    OwnBecause(&'static str),
    /// The topic, from here on.
    Begin,
    /// The topic, as before.
    Continue,
    Refuse(&'static str),
}

/// The facts of a table when its job starts.
struct Facts {
    is_asked: bool,
    has_own_changelog: bool,
    /// Whether the job has committed rows whose changelog was a source topic.
    is_noted: bool,
    hold: Option<Holding>,
    /// The reason why its topic cannot be its changelog.
    obstacle: Option<&'static str>,
    /// Whether the job has committed something of the topic, and has a position in it.
    was_read: bool,
    has_position: bool,
}

/// A hold that is there.
struct Holding {
    is_of_topic: bool,
    /// Whether records of the committed positions are gone.
    is_outrun: bool,
}

impl Facts {
    fn choose(&self) -> Choice {
        match &self.hold {
            Some(hold) => self.go_on(hold),
            None if self.has_own_changelog => Choice::Own,
            None if self.is_noted => Choice::Refuse(
                "the log does not hold back its compaction for the job any more: the job's group or the topic was deleted, or the log is \
                 not embedded in this process, as it was before",
            ),
            None if !self.is_asked => Choice::Own,
            None => match self.obstacle {
                Some(why) => Choice::OwnBecause(why),
                None if self.was_read || self.has_position => {
                    Choice::OwnBecause("the job has read the topic before, without the table")
                }
                None => Choice::Begin,
            },
        }
    }

    fn go_on(&self, hold: &Holding) -> Choice {
        match self.obstacle {
            _ if !hold.is_of_topic => Choice::Refuse(
                "the table was made of another topic before, or the topic was deleted and created anew",
            ),
            Some(why) => Choice::Refuse(why),
            None if self.was_read && !self.has_position => {
                Choice::Refuse("the job's committed positions in the topic are gone")
            }
            None if hold.is_outrun => Choice::Refuse(
                "the topic was compacted past the position that the job has now, which went back, or an older release did it",
            ),
            None => Choice::Continue,
        }
    }
}

/// Finds the tables whose topics are their changelogs; takes holds for those of a job that first runs.
///
/// # Errors
/// [`JobError::Incompatible`] if rows that are only in a topic cannot be read from there; if the log does not answer.
pub(super) fn source_changelogs(
    transport: &Arc<dyn Transport>,
    job: &str,
    topology: &Topology,
    settings: &Settings,
    state_partitions: u16,
) -> Result<SourceChangelogs, JobError> {
    let group = GroupId::new(job)?;
    for store in &settings.dropped_stores {
        if !topology.stores.contains_key(store) {
            transport.release_compaction(&group, Some(store))?;
        }
    }
    let finder = Finder {
        transport,
        job,
        topology,
        settings,
        state_partitions,
        kept: read_kept(transport, job)?,
        holds: transport.compaction_holds(&group)?,
        group,
    };
    let mut found = SourceChangelogs::new();
    for store in topology.stores.keys() {
        match topology.source_tables.get(store) {
            Some(table) => found.extend(finder.find(store, table)?.map(|it| (store.clone(), it))),
            None => finder.refuse_others(store)?,
        }
    }
    Ok(found)
}

struct Finder<'a> {
    transport: &'a Arc<dyn Transport>,
    job: &'a str,
    topology: &'a Topology,
    settings: &'a Settings,
    state_partitions: u16,
    group: GroupId,
    kept: Kept,
    holds: Option<Vec<CompactionHold>>,
}

impl Finder<'_> {
    fn find(&self, store: &str, table: &SourceTable) -> Result<Option<SourceChangelog>, JobError> {
        let name = TopicName::new(&table.topic)?;
        let topic = wait(self.transport.topic(&name))?;
        let hold = self.hold_of(store).cloned();
        let committed = match &topic {
            Some(topic) => self.committed(topic)?,
            None => Vec::new(),
        };
        let holding = hold.as_ref().map(|hold| Holding {
            is_of_topic: topic.as_ref().is_some_and(|it| it.id == hold.topic_id),
            is_outrun: is_outrun(&committed, &hold.partitions),
        });
        let own = changelog_topic(self.job, store)?;
        let facts = Facts {
            is_asked: self.settings.reuse_source_topics,
            has_own_changelog: wait(self.transport.topic(&own))?.is_some(),
            is_noted: self.kept.has_source_changelog(store),
            hold: holding,
            obstacle: self.obstacle(store, table, topic.as_ref())?,
            was_read: self.kept.read_topics.contains_key(&name),
            has_position: committed.iter().any(Option::is_some),
        };
        match facts.choose() {
            Choice::Own => return Ok(None),
            Choice::OwnBecause(why) => {
                self.say_own(store, why);
                return Ok(None);
            }
            Choice::Refuse(why) => return Err(self.refuse(store, &table.topic, why)),
            Choice::Begin => match self.transport.hold_compaction(&name, &self.group, store) {
                Ok(()) => {}
                Err(ClientError::Refused {
                    code: ErrorCode::PolicyViolation,
                    message,
                    ..
                }) => {
                    self.say_own(store, &message);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            },
            Choice::Continue => {}
        }
        let Some(topic) = topic else {
            unreachable!("a topic that is not there is an obstacle");
        };
        let hold = match hold {
            Some(hold) => hold,
            None => self.new_hold(store)?,
        };
        Ok(Some(SourceChangelog {
            topic,
            group: self.group.clone(),
            table: store.to_owned(),
            row_of: Arc::clone(&table.row_of),
            committed,
            held: hold.partitions,
        }))
    }

    fn hold_of(&self, store: &str) -> Option<&CompactionHold> {
        let mut holds = self.holds.iter().flatten();
        holds.find(|hold| hold.table == store)
    }

    fn new_hold(&self, store: &str) -> Result<CompactionHold, JobError> {
        let holds = self.transport.compaction_holds(&self.group)?;
        let mut holds = holds.into_iter().flatten();
        holds
            .find(|hold| hold.table == store)
            .ok_or_else(|| JobError::NotCommitted {
                job: self.job.to_owned(),
            })
    }

    /// The committed position of each partition.
    fn committed(&self, topic: &TopicMetadata) -> Result<Vec<Option<Offset>>, JobError> {
        let place = |partition| TopicPartition::new(topic.name.clone(), partition);
        let request = OffsetFetchRequest {
            group: self.group.clone(),
            partitions: Some((0..topic.partitions_count).map(place).collect()),
            require_stable: true,
        };
        let found: BTreeMap<_, _> = wait(self.transport.offset_fetch(request))?
            .into_iter()
            .collect();
        let position = |partition| Some(found.get(&place(partition))?.as_ref()?.offset);
        Ok((0..topic.partitions_count).map(position).collect())
    }

    /// The reason why a table's topic cannot be its changelog.
    fn obstacle(
        &self,
        store: &str,
        table: &SourceTable,
        topic: Option<&TopicMetadata>,
    ) -> Result<Option<&'static str>, JobError> {
        let Some(topic) = topic else {
            return Ok(Some("the topic is not there"));
        };
        let configs = wait(self.transport.describe_configs(&topic.name))?;
        let mut policy = configs.iter().filter(|it| it.name == "cleanup.policy");
        let is_compact = policy.any(|it| it.value == "compact");
        let obstacles = [
            (
                self.holds.is_none(),
                "the log is not embedded in this process",
            ),
            (self.settings.scale_out.is_some(), "the job is scaled out"),
            (
                matches!(self.settings.poison, PoisonPolicy::DeadLetter(_)),
                "the job has a dead-letter topic: a record that becomes a letter is in the topic, and is not in the table",
            ),
            (
                topic.partitions_count != i32::from(self.state_partitions),
                "the topic has another number of partitions than the job has state partitions",
            ),
            (
                !is_compact,
                "the cleanup.policy of the topic is not compact",
            ),
            (
                table.has_other_keys,
                "the topic has its keys in another codec than the job (`key_codec`), so they are placed otherwise",
            ),
            (
                self.topology.versions.contains_key(store),
                "the table has `migrate_from`, and the records of the topic are not converted by it",
            ),
        ];
        let mut obstacles = obstacles.into_iter();
        Ok(obstacles.find_map(|(is_so, why)| is_so.then_some(why)))
    }

    fn say_own(&self, store: &str, why: &str) {
        info!(
            job = self.job,
            store, why, "the table has a changelog of its own, and keeps it"
        );
    }

    /// Refuses another step that has the name of a table whose rows are in a topic.
    fn refuse_others(&self, store: &str) -> Result<(), JobError> {
        match self.hold_of(store) {
            Some(hold)
                if wait(self.transport.topic(&changelog_topic(self.job, store)?))?.is_none() =>
            {
                let why = "the step is no table of that topic any more";
                Err(self.refuse(store, hold.topic.as_str(), why))
            }
            _ => Ok(()),
        }
    }

    fn refuse(&self, store: &str, topic: &str, why: &str) -> JobError {
        JobError::Incompatible {
            job: self.job.to_owned(),
            why: format!(
                "the topic {topic} is the only changelog of the table {store:?} (`reuse_source_topics`), and cannot be that now: {why}. \
                 Take the change back; or give the job another name, to begin anew; or restore a savepoint, after which the table has \
                 a changelog of its own"
            ),
        }
    }
}

/// Whether a partition was compacted past its committed position since the hold was taken.
fn is_outrun(committed: &[Option<Offset>], held: &[HeldPartition]) -> bool {
    let mut both = committed.iter().zip(held);
    both.any(|(committed, held)| match (committed, held.now) {
        (Some(at), Some((cleaned_end, _))) => {
            cleaned_end > *at && cleaned_end != held.cleaned_end_before
        }
        (Some(_), None) => true,
        (None, _) => false,
    })
}

/// Returns the state partitions that a job has, or is to have, for tables whose topics are their changelogs; and whether it has them.
pub(super) fn partitions_of_source_tables(
    transport: &Arc<dyn Transport>,
    job: &str,
    topology: &Topology,
    settings: &Settings,
) -> Result<Option<(i32, bool)>, JobError> {
    let holds = transport.compaction_holds(&GroupId::new(job)?)?;
    let counts = holds.iter().flatten().map(|hold| hold.partitions.len());
    if let Some(count) = counts.max() {
        return Ok(Some((i32::try_from(count).unwrap_or(i32::MAX), true)));
    }
    if !settings.reuse_source_topics || holds.is_none() || settings.scale_out.is_some() {
        return Ok(None);
    }
    for table in topology.source_tables.values() {
        if let Some(topic) = wait(transport.topic(&TopicName::new(&table.topic)?))? {
            return Ok(Some((topic.partitions_count, false)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_table() -> Facts {
        Facts {
            is_asked: true,
            has_own_changelog: false,
            is_noted: false,
            hold: None,
            obstacle: None,
            was_read: false,
            has_position: false,
        }
    }

    fn held(is_outrun: bool) -> Option<Holding> {
        Some(Holding {
            is_of_topic: true,
            is_outrun,
        })
    }

    #[test]
    fn a_layout_is_chosen_once_and_never_changes_in_silence() {
        let chosen = |facts: Facts| facts.choose();
        assert_eq!(chosen(new_table()), Choice::Begin);
        let has_own_changelog = true;
        let own = |is_noted| Facts {
            has_own_changelog,
            is_noted,
            ..new_table()
        };
        assert_eq!(chosen(own(false)), Choice::Own);
        assert_eq!(chosen(own(true)), Choice::Own);
        let read = Facts {
            was_read: true,
            ..new_table()
        };
        assert!(matches!(chosen(read), Choice::OwnBecause(_)));
        // Whoever does not ask any more goes on all the same.
        let begun = |is_asked| Facts {
            is_asked,
            hold: held(false),
            was_read: true,
            has_position: true,
            is_noted: true,
            ..new_table()
        };
        assert_eq!(chosen(begun(true)), Choice::Continue);
        assert_eq!(chosen(begun(false)), Choice::Continue);
        let obstacle = Facts {
            obstacle: Some("why"),
            ..begun(true)
        };
        assert_eq!(chosen(obstacle), Choice::Refuse("why"));
        let outrun = Facts {
            hold: held(true),
            ..begun(true)
        };
        assert!(matches!(chosen(outrun), Choice::Refuse(_)));
        let without_hold = Facts {
            hold: None,
            ..begun(false)
        };
        assert!(matches!(chosen(without_hold), Choice::Refuse(_)));
        let without_position = Facts {
            has_position: false,
            ..begun(true)
        };
        assert!(matches!(chosen(without_position), Choice::Refuse(_)));
    }

    #[test]
    fn a_position_behind_which_the_topic_was_compacted_is_outrun() {
        let held = |before, now| HeldPartition {
            cleaned_end_before: Offset(before),
            now: Some((Offset(now), Offset(0))),
        };
        let outrun = |at: i64, held| is_outrun(&[Some(Offset(at))], &[held]);
        assert!(!outrun(9, held(0, 9)));
        assert!(outrun(8, held(0, 9)));
        assert!(!outrun(8, held(9, 9)));
        assert!(outrun(
            8,
            HeldPartition {
                cleaned_end_before: Offset(0),
                now: None
            }
        ));
    }
}

//! Holds on compaction: partitions of which a table of a job needs the records as they were at the job's committed position.
//!
//! A topic that is the changelog of a table is compacted only up to the position that the table's group has committed. So what is left
//! below any position from `cleaned_end` on is what a table had at that position: no record was removed for the sake of a later one
//! behind it. `holds.json` says which topics these are, and up to where each partition was compacted when its hold was taken.
//!
//! A hold ends with its group, and when the job gives it up. That of a topic that was deleted holds nothing.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::BrokerError;
use super::core::Core;
use super::partition::Partition;
use crate::log::CleanupPolicy;
use crate::protocol::ErrorCode;
use crate::protocol::messages::OffsetFetchRequest;
use crate::types::{GroupId, Offset, TopicId, TopicName, TopicPartition};

/// A topic whose compaction waits for a group, for the sake of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionHold {
    /// The group: the name of the job.
    pub group: String,
    /// The table, by the name of its store.
    pub table: String,
    /// The topic.
    pub topic: TopicName,
    /// The topic's incarnation; there may be another one of the name by now.
    pub topic_id: TopicId,
    /// The marks of each partition; those of now are missing where the topic is gone.
    pub partitions: Vec<HeldPartition>,
}

/// Compaction of a held partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldPartition {
    /// The end of what was compacted when the hold was taken.
    pub cleaned_end_before: Offset,
    /// That of now, and the first offset.
    pub now: Option<(Offset, Offset)>,
}

/// The content of `holds.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HoldList {
    holds: Vec<Hold>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    group: String,
    table: String,
    topic: String,
    topic_id: String,
    cleaned_ends: Vec<Offset>,
    /// Whether the group had a position: if it has none any more, it is gone.
    has_committed: bool,
}

/// The holds of a broker, as they stand on the disk.
pub(super) struct Holds(Mutex<HoldList>);

impl Holds {
    pub(super) fn new(list: HoldList) -> Self {
        Self(Mutex::new(list))
    }
}

impl Core {
    /// Has the compaction of a topic wait for a group from here on. A hold that is there stays as it is.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition`; `PolicyViolation` if the topic is not compacted, or if committed positions may be lost.
    pub(super) fn hold_compaction(
        &self,
        topic: &TopicName,
        group: &GroupId,
        table: &str,
    ) -> Result<(), BrokerError> {
        self.check_open()?;
        let refuse = |why: String| Err(BrokerError::new(ErrorCode::PolicyViolation, why));
        if !self.is_fsync() {
            return refuse(
                "without fsync a loss of power takes committed positions back".to_owned(),
            );
        }
        // No compaction is under way that began without it.
        let _turn = self.housekeeping.lock();
        let found = self.topics.topic(topic)?;
        let mut cleaned_ends = Vec::new();
        for partition in &found.partitions {
            let log = partition.lock()?;
            if log.config().cleanup != CleanupPolicy::Compact {
                return refuse(format!("the cleanup.policy of {topic} is not compact"));
            }
            cleaned_ends.push(log.cleaned_end());
        }
        let hold = Hold {
            group: group.as_str().to_owned(),
            table: table.to_owned(),
            topic: topic.as_str().to_owned(),
            topic_id: found.id.to_string(),
            cleaned_ends,
            has_committed: false,
        };
        let is_same = |it: &Hold| {
            (&it.group, &it.table, &it.topic_id) == (&hold.group, &hold.table, &hold.topic_id)
        };
        self.change_holds(|list| {
            let is_there = list.holds.iter().any(is_same);
            (!is_there).then(|| list.holds.push(hold.clone())).is_some()
        })
    }

    /// Gives up the holds of a group: that for a table, or all of them.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub(super) fn release_compaction(
        &self,
        group: &GroupId,
        table: Option<&str>,
    ) -> Result<(), BrokerError> {
        self.change_holds(|list| {
            let before = list.holds.len();
            list.holds.retain(|it| {
                it.group != group.as_str() || table.is_some_and(|table| table != it.table)
            });
            list.holds.len() < before
        })
    }

    fn change_holds(&self, change: impl FnOnce(&mut HoldList) -> bool) -> Result<(), BrokerError> {
        let mut list = self.holds.0.lock();
        let mut changed = list.clone();
        if change(&mut changed) {
            self.directory.write_holds(&changed)?;
            *list = changed;
        }
        Ok(())
    }

    /// The holds of a group, or of all.
    ///
    /// # Errors
    /// If a list that was written is not understood.
    pub(super) fn compaction_holds(
        &self,
        group: Option<&GroupId>,
    ) -> Result<Vec<CompactionHold>, BrokerError> {
        self.check_open()?;
        let list = self.holds.0.lock().clone();
        let of_group = |it: &&Hold| group.is_none_or(|group| group.as_str() == it.group);
        let holds = list.holds.iter().filter(of_group);
        holds.map(|hold| self.describe_hold(hold)).collect()
    }

    fn describe_hold(&self, hold: &Hold) -> Result<CompactionHold, BrokerError> {
        let topic = TopicName::new(&hold.topic)?;
        let found = self.topics.topic(&topic).ok();
        let found = found.filter(|found| found.id.to_string() == hold.topic_id);
        let marks = |index: usize| {
            let log = found.as_ref()?.partitions.get(index)?.lock().ok()?;
            Some((log.cleaned_end(), log.log_start_offset()))
        };
        let before = hold.cleaned_ends.iter().enumerate();
        let partitions = before.map(|(index, &cleaned_end_before)| HeldPartition {
            cleaned_end_before,
            now: marks(index),
        });
        let topic_id = hold.topic_id.parse().map_err(|_| {
            BrokerError::corrupt(format!(
                "holds.json has {:?} as a topic's id",
                hold.topic_id
            ))
        })?;
        Ok(CompactionHold {
            group: hold.group.clone(),
            table: hold.table.clone(),
            partitions: partitions.collect(),
            topic,
            topic_id,
        })
    }

    /// Up to where a partition may be compacted: as far as all have committed who hold it; `None` if nobody does.
    pub(super) fn compaction_end(&self, partition: &Partition) -> Option<Offset> {
        let name = &partition.name;
        let list = self.holds.0.lock().clone();
        let id = self.topics.topic(&name.topic).ok()?.id.to_string();
        let holds = list.holds.iter().filter(|hold| hold.topic_id == id);
        let ends = holds.map(|hold| self.committed_by(&hold.group, Some(name)));
        ends.map(|end| end.unwrap_or(Offset::ZERO)).min()
    }

    /// The position that a group committed of a partition, or of any.
    fn committed_by(&self, group: &str, partition: Option<&TopicPartition>) -> Option<Offset> {
        let request = OffsetFetchRequest {
            group: GroupId::new(group).ok()?,
            partitions: partition.map(|partition| vec![partition.clone()]),
            require_stable: false,
        };
        let found = self.groups.fetch(&request).ok()?;
        let committed = found.into_iter().find_map(|(_, committed)| committed);
        committed.map(|committed| committed.offset)
    }

    /// Ends the holds of groups that are gone: deleted, or expired.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub(super) fn release_gone_groups(&self) -> Result<(), BrokerError> {
        self.change_holds(|list| {
            let mut is_changed = false;
            list.holds.retain_mut(|hold| {
                let has_committed = self.committed_by(&hold.group, None).is_some();
                let is_gone = hold.has_committed && !has_committed;
                is_changed |= hold.has_committed != has_committed;
                hold.has_committed = has_committed;
                if is_gone {
                    crate::env::warn!(
                        group = hold.group,
                        topic = hold.topic,
                        table = hold.table,
                        "the group is gone: the topic is compacted without regard to its table"
                    );
                }
                !is_gone
            });
            is_changed
        })
    }

    /// Refuses a change that would take records from a table, or put some where it does not look for them.
    pub(super) fn check_not_held(&self, topic: &TopicName, what: &str) -> Result<(), BrokerError> {
        let Ok(found) = self.topics.topic(topic) else {
            return Ok(());
        };
        let id = found.id.to_string();
        let list = self.holds.0.lock();
        match list.holds.iter().find(|hold| hold.topic_id == id) {
            None => Ok(()),
            Some(hold) => Err(BrokerError::new(
                ErrorCode::PolicyViolation,
                format!(
                    "{topic} is the changelog of the table {:?} of the job {:?}, {what}: give the job up first (delete its group)",
                    hold.table, hold.group
                ),
            )),
        }
    }
}

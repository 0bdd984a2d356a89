//! Changes of the list of topics, and what is left of those that a crash or an error interrupted.

use std::ops::Range;
use std::path::Path;

use super::BrokerError;
use super::checkpoints::partition_dir;
use super::directory::Directory;
use super::error::io_error;
use super::topics::{TopicEntry, TopicList};
use crate::env::{Env, failpoint};
use crate::types::{PartitionIndex, TopicName, TopicPartition};

/// Depth of a partition's directory: files only.
const PARTITION_DEPTH: u32 = 1;

impl Directory {
    /// Writes the changed list, and only then shows the change (I3).
    pub(super) fn change_list(
        &self,
        list: &mut TopicList,
        change: impl FnOnce(&mut TopicList),
    ) -> Result<(), BrokerError> {
        let mut changed = list.clone();
        change(&mut changed);
        self.write_topics(&changed)?;
        *list = changed;
        Ok(())
    }

    /// Finishes deletions, and undoes creations and growths, that were interrupted.
    pub(super) fn finish_topics(&self, list: &mut TopicList) -> Result<(), BrokerError> {
        let is_unfinished = |entry: &TopicEntry| entry.is_deleting || entry.growing_to.is_some();
        let unfinished: Vec<_> = list
            .topics
            .iter()
            .filter(|(_, entry)| is_unfinished(entry))
            .map(|(name, _)| TopicName::new(name))
            .collect::<Result<_, _>>()?;
        for name in unfinished {
            tracing::info!(topic = %name, "finishing an interrupted change of a topic");
            self.clear_unfinished(list, &name)?;
        }
        Ok(())
    }

    /// Finishes a deletion, or undoes a creation or growth, that the list announces. Safe to repeat at any step.
    pub(super) fn clear_unfinished(
        &self,
        list: &mut TopicList,
        name: &TopicName,
    ) -> Result<(), BrokerError> {
        let Some(entry) = list.topics.get(name.as_str()).cloned() else {
            return Ok(());
        };
        let is_whole_topic = entry.is_deleting || entry.partitions_count == 0;
        let from = if is_whole_topic {
            0
        } else {
            entry.partitions_count
        };
        let to = entry.growing_to.unwrap_or(entry.partitions_count);
        self.remove_renamed(name, &entry.id, from..to.max(entry.partitions_count))?;
        failpoint("topic.deleted");
        self.change_list(list, |list| {
            if is_whole_topic {
                list.topics.remove(name.as_str());
            } else if let Some(entry) = list.topics.get_mut(name.as_str()) {
                entry.growing_to = None;
            }
        })
    }

    /// Renames the partitions' directories out of the way, all of them before the first is removed.
    fn remove_renamed(
        &self,
        topic: &TopicName,
        id: &str,
        indexes: Range<PartitionIndex>,
    ) -> Result<(), BrokerError> {
        let files = &self.env().files;
        let log_dir = self.log_dir();
        let renamed = |index| log_dir.join(format!("{id}-{index}-delete"));
        // F14: what takes a file handle comes before the first change.
        let opened = files
            .open_dir(&log_dir)
            .map_err(|e| io_error(&e, "open", &log_dir))?;
        for index in indexes.clone() {
            let dir = partition_dir(&log_dir, &TopicPartition::new(topic.clone(), index));
            if files
                .exists(&dir)
                .map_err(|e| io_error(&e, "look for", &dir))?
            {
                files
                    .rename(&dir, &renamed(index))
                    .map_err(|e| io_error(&e, "rename", &dir))?;
            }
        }
        opened.sync().map_err(|e| io_error(&e, "sync", &log_dir))?;
        failpoint("topic.directories_renamed");
        for index in indexes {
            let dir = renamed(index);
            remove_tree(self.env(), &dir, PARTITION_DEPTH)
                .map_err(|e| io_error(&e, "remove", &dir))?;
        }
        Ok(())
    }
}

/// Removes a directory and what is in it, at most `depth` levels deep. `Ok` if it is absent.
fn remove_tree(env: &Env, path: &Path, depth: u32) -> std::io::Result<()> {
    if !env.files.exists(path)? {
        return Ok(());
    }
    for entry in env.files.read_dir(path)? {
        let entry_path = path.join(&entry.name);
        match entry.is_dir && depth > 0 {
            true => remove_tree(env, &entry_path, depth - 1)?,
            false => env.files.remove_file(&entry_path)?,
        }
    }
    env.files.remove_dir(path)
}

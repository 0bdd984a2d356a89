//! `SourceTopics`: notices that a topic which the job reads is not the one that it began with (S16).
//!
//! A topic that is deleted and created anew has the same name and other records: a position in the old one would skip or
//! repeat some of the new one's. So each commit first looks who the topics are. What a cycle read was read before that
//! look, and an id never comes back: if it is still the first one, everything was read from the first one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::warn;

use super::error::JobError;
use super::progress::Progress;
use crate::client::{Transport, wait};
use crate::protocol::ErrorKind;
use crate::types::TopicName;

/// The topics that a job reads.
pub(crate) struct SourceTopics {
    job: String,
    transport: Arc<dyn Transport>,
    /// Knows their ids, also those of earlier incarnations.
    progress: Arc<Progress>,
    partitions_counts: BTreeMap<TopicName, i32>,
    /// Whether all partitions of a topic are this process's to read.
    reads_all: bool,
}

impl SourceTopics {
    /// Remembers who the topics are now.
    ///
    /// # Errors
    /// If the log cannot be asked.
    pub(crate) fn new<'a>(
        job: &str,
        transport: &Arc<dyn Transport>,
        progress: &Arc<Progress>,
        topics: impl IntoIterator<Item = &'a TopicName>,
        reads_all: bool,
    ) -> Result<Self, JobError> {
        let mut known = Self {
            job: job.to_owned(),
            transport: Arc::clone(transport),
            progress: Arc::clone(progress),
            partitions_counts: BTreeMap::new(),
            reads_all,
        };
        known.check(topics)?;
        Ok(known)
    }

    /// Looks who these topics are now; a topic that is new here is remembered.
    ///
    /// # Errors
    /// [`JobError::Source`] if one was created anew. [`JobError::NotCommitted`], after which the job starts again, if one
    /// grew, or cannot be found: brokers may not have heard of it for a while (K7).
    pub(crate) fn check<'a>(
        &mut self,
        topics: impl IntoIterator<Item = &'a TopicName>,
    ) -> Result<(), JobError> {
        for topic in topics {
            let Some(now) = wait(self.transport.topic(topic))? else {
                return Err(self.start_again(topic, "cannot be found"));
            };
            let mut ids = self.progress.read_topics.lock();
            let began_with = *ids.entry(topic.clone()).or_insert(now.id);
            drop(ids);
            if now.id != began_with {
                return Err(self.created_anew(topic));
            }
            let count = now.partitions_count;
            let began_with = *self.partitions_counts.entry(topic.clone()).or_insert(count);
            if self.reads_all && count > began_with {
                return Err(self.start_again(topic, "has more partitions than before"));
            }
        }
        Ok(())
    }

    /// Why the job stops: what went wrong for good may have its reason in a topic that is another one by now.
    pub(crate) fn explain(&self, error: JobError) -> JobError {
        if error.kind() != ErrorKind::Fatal {
            return error;
        }
        let read = self.progress.read_topics.lock().clone();
        let is_another = |topic: &TopicName, id| {
            let now = wait(self.transport.topic(topic));
            now.is_ok_and(|now| now.is_some_and(|now| now.id != id))
        };
        match read.iter().find(|(topic, id)| is_another(topic, **id)) {
            Some((topic, _)) => self.created_anew(topic),
            None => error,
        }
    }

    fn created_anew(&self, topic: &TopicName) -> JobError {
        JobError::Source {
            source_name: topic.to_string(),
            why: format!(
                "it was deleted and created anew since {} began to read it, and what was read last may be of either: \
                 nothing of it was committed. Start the job again to read the new one from its beginning, on top of the \
                 state that it has; give it another name to begin without that",
                self.job
            ),
        }
    }

    fn start_again(&self, topic: &TopicName, why: &str) -> JobError {
        warn!(job = self.job, %topic, "a topic that is read {why}");
        JobError::NotCommitted {
            job: self.job.clone(),
        }
    }
}

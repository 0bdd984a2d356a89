//! `SourceTopics`: notices that a topic which the job reads is not the one that it began with (S16).
//!
//! A topic that is deleted and created anew has the same name and other records: a position in the old one would skip or
//! repeat some of the new one's. So each commit first looks who the topics are. What a cycle read was read before that
//! look, and an id never comes back: if it is still the first one, everything was read from the first one.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::warn;

use super::error::JobError;
use crate::client::{Transport, wait};
use crate::protocol::messages::TopicMetadata;
use crate::types::TopicName;

/// The topics that an incarnation of a job reads.
pub(crate) struct SourceTopics {
    job: String,
    transport: Arc<dyn Transport>,
    began_with: BTreeMap<TopicName, TopicMetadata>,
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
        topics: impl IntoIterator<Item = &'a TopicName>,
        reads_all: bool,
    ) -> Result<Self, JobError> {
        let mut known = Self {
            job: job.to_owned(),
            transport: Arc::clone(transport),
            began_with: BTreeMap::new(),
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
            let now = wait(self.transport.topic(topic))?;
            let (now, began) = match (now, self.began_with.get(topic)) {
                (Some(now), Some(began)) => (now, began),
                (Some(now), None) => {
                    self.began_with.insert(topic.clone(), now);
                    continue;
                }
                (None, _) => return Err(self.start_again(topic, "cannot be found")),
            };
            if now.id != began.id {
                return Err(JobError::Source {
                    source_name: topic.to_string(),
                    why: format!(
                        "it was deleted and created anew since {} began to read it, and what was read last may be of \
                         either: nothing of it was committed. Start the job again to read the new one from its beginning, \
                         on top of the state that it has; give it another name to begin without that",
                        self.job
                    ),
                });
            }
            if self.reads_all && now.partitions_count > began.partitions_count {
                return Err(self.start_again(topic, "has more partitions than before"));
            }
        }
        Ok(())
    }

    fn start_again(&self, topic: &TopicName, why: &str) -> JobError {
        warn!(job = self.job, %topic, "a topic that is read {why}");
        JobError::NotCommitted {
            job: self.job.clone(),
        }
    }
}

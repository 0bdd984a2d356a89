//! `SourceTopics`: notices that a topic which the job reads is not the one that it began with (S16).
//!
//! A topic that is deleted and created anew has the same name and other records: a position in the old one would skip or
//! repeat some of the new one's. So each commit first looks who the topics are. What a cycle read was read before that
//! look, and an id never comes back: if it is still the first one, everything was read from the first one.
//!
//! A topic that was read before and is not there any more was deleted: the job does not create it, because it would then
//! wait for ever in an empty topic, and with another number of partitions (X8).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::job_topics::ensure_topic;
use crate::client::{Transport, wait};
use crate::env::{Env, warn};
use crate::protocol::ErrorKind;
use crate::protocol::messages::{NewTopic, TopicMetadata};
use crate::runtime::contract::error::JobError;
use crate::runtime::task::context::JobContext;
use crate::runtime::task::progress::Progress;
use crate::types::{TopicId, TopicName};

/// Longest search for a topic that was read before: brokers may not have heard of it for a while (K7).
const LOOK_FOR: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A source topic as a job wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// It was read before: it is never created.
    Again,
    /// It is read to what is its end now: one that is not there has none.
    UntilEnd,
    /// It is created if it is absent: a job may start before those who write for it.
    Anyway,
}

impl Wanted {
    /// Chooses for a topic that was read before or not, and is read to its end or on and on.
    pub(crate) fn of(was_read: bool, is_until_end: bool) -> Self {
        match (was_read, is_until_end) {
            (true, _) => Self::Again,
            (false, true) => Self::UntilEnd,
            (false, false) => Self::Anyway,
        }
    }
}

/// Finds a topic that a job reads, or creates it, as it is wanted.
///
/// # Errors
/// [`JobError::Source`] if it is not there and must not be created; if the log does not answer.
pub(crate) fn find_source_topic(
    env: &Env,
    transport: &Arc<dyn Transport>,
    job: &str,
    topic: NewTopic,
    wanted: Wanted,
) -> Result<TopicMetadata, JobError> {
    match wanted {
        Wanted::Anyway => Ok(ensure_topic(transport, topic)?),
        Wanted::UntilEnd => wait(transport.topic(&topic.name))?.ok_or_else(|| JobError::Source {
            source_name: topic.name.to_string(),
            why: "there is no such topic, so it has no end to read to: correct the name, or create the topic first"
                .to_owned(),
        }),
        Wanted::Again => {
            let begin = env.clock.now();
            loop {
                if let Some(found) = wait(transport.topic(&topic.name))? {
                    return Ok(found);
                }
                if env.clock.now().since(begin) >= LOOK_FOR {
                    return Err(was_deleted(job, &topic.name));
                }
                env.clock.sleep(LOOK_AGAIN);
            }
        }
    }
}

/// Looks for the topics that this process has read.
///
/// # Errors
/// As [`find_source_topic`], if one of them was deleted.
pub(crate) fn require_read_topics(job: &JobContext, progress: &Progress) -> Result<(), JobError> {
    let read: Vec<TopicName> = progress.read_topics.lock().keys().cloned().collect();
    for name in read {
        let topic = NewTopic {
            name,
            partitions_count: 1,
            configs: BTreeMap::new(),
        };
        find_source_topic(&job.env, &job.transport, &job.name, topic, Wanted::Again)?;
    }
    Ok(())
}

fn was_deleted(job: &str, topic: &TopicName) -> JobError {
    JobError::Source {
        source_name: topic.to_string(),
        why: format!(
            "it was deleted since {job} began to read it, and a job does not create anew what it has read. Create it \
             yourself to read it from its beginning, on top of the state that the job has; give the job another name to \
             begin without that"
        ),
    }
}

/// The topics that a job reads.
pub(crate) struct SourceTopics {
    job: String,
    transport: Arc<dyn Transport>,
    /// Knows their ids, also those of earlier incarnations.
    progress: Arc<Progress>,
    partitions_counts: BTreeMap<TopicName, i32>,
    /// Who they are as the job keeps it with its positions.
    kept: BTreeMap<TopicName, TopicId>,
    /// Whether all partitions of a topic are this process's to read.
    reads_all: bool,
}

impl SourceTopics {
    /// Remembers who the topics are now.
    ///
    /// # Errors
    /// If the log cannot be asked.
    pub(crate) fn new<'a>(
        job: &JobContext,
        progress: &Arc<Progress>,
        topics: impl IntoIterator<Item = &'a TopicName>,
        reads_all: bool,
    ) -> Result<Self, JobError> {
        let mut known = Self {
            job: job.name.clone(),
            transport: Arc::clone(&job.transport),
            progress: Arc::clone(progress),
            partitions_counts: BTreeMap::new(),
            kept: job.read_topics.clone(),
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
            let began_with = self.progress.first_id(topic, now.id);
            let began_with = began_with.unwrap_or_else(|| {
                self.note_who(topic, now.id);
                now.id
            });
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

    /// Those of the topics that are not kept with the positions as they are; from here on they are.
    pub(crate) fn unkept<'a>(
        &mut self,
        topics: impl IntoIterator<Item = &'a TopicName>,
    ) -> Vec<(&'a TopicName, TopicId)> {
        let ids = self.progress.read_topics.lock();
        let read = topics.into_iter().filter_map(|topic| {
            let id = *ids.get(topic)?;
            let kept = self.kept.insert(topic.clone(), id);
            (kept != Some(id)).then_some((topic, id))
        });
        read.collect()
    }

    /// Says that a topic was created anew while the job did not run.
    fn note_who(&self, topic: &TopicName, id: TopicId) {
        if self.kept.get(topic).is_some_and(|kept| *kept != id) {
            warn!(
                job = self.job, %topic,
                "a topic that the job read before was deleted and created anew: the new one is read from its beginning, on top \
                 of the state that the job has"
            );
        }
    }

    /// Explains the stop: what went wrong for good may have its reason in a topic that is another one by now.
    pub(crate) fn explain(&self, error: JobError) -> JobError {
        if error.cause() != ErrorKind::Fatal {
            return error;
        }
        let read = self.progress.read_topics.lock().clone();
        for (topic, id) in &read {
            match wait(self.transport.topic(topic)) {
                Ok(Some(now)) if now.id != *id => return self.created_anew(topic),
                Ok(None) => return was_deleted(&self.job, topic),
                _ => {}
            }
        }
        error
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

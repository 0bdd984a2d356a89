//! The log that a job under test works on: a data directory, which is open here only while no program runs, or a Kafka cluster.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::broker::BrokerConfig;
use crate::cli::UsageError;
use crate::cli::group::transactions_of_job;
use crate::cli::session::{Place, Session};
use crate::env::{Env, OpenMode};
use crate::protocol::ErrorCode;
use crate::protocol::messages::{TransactionDescription, TransactionState};
use crate::types::{GroupId, TopicName, TopicPartition};

/// A coordinator writes the markers of a decided transaction behind its answer. They are waited for so long.
const MARKERS_MAX: Duration = Duration::from_secs(30);
/// Interval of looks for them.
const MARKERS_EVERY: Duration = Duration::from_millis(50);
/// The end of the name of a job's topic of positions.
const POSITIONS: &str = "-positions";
/// The beginning of the names of topics that are Kafka's own.
const INTERNAL: &str = "__";

/// A log, and the jobs on it that are under test.
pub(super) struct Scene<'a> {
    pub(super) env: &'a Env,
    place: Place,
    /// None means all jobs of a data directory.
    jobs: &'a [GroupId],
}

impl<'a> Scene<'a> {
    /// # Errors
    /// If no job is named on a Kafka cluster, where others may work, too.
    pub(super) fn new(env: &'a Env, place: Place, jobs: &'a [GroupId]) -> anyhow::Result<Self> {
        if jobs.is_empty() && matches!(place, Place::Kafka(_)) {
            let why = "a Kafka cluster may have other jobs, too: name the one that the program runs, --job NAME";
            return Err(UsageError(why.to_owned()).into());
        }
        Ok(Self { env, place, jobs })
    }

    /// The data directory; `None` on a Kafka cluster.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory(path) => Some(path),
            Place::Kafka(_) => None,
        }
    }

    /// The jobs that were named.
    pub(super) fn jobs(&self) -> &[GroupId] {
        self.jobs
    }

    /// The option that names the log to a program which says nothing else, and its value.
    pub(super) fn option(&self) -> (&'static str, OsString) {
        match &self.place {
            Place::Directory(path) => ("--data", path.into()),
            Place::Kafka(brokers) => ("--log", format!("kafka://{brokers}").into()),
        }
    }

    /// Does `work` on the log, and closes it again. Nobody else may have a data directory open meanwhile.
    pub(super) fn with_session<T>(
        &self,
        work: impl FnOnce(&Session) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let session = match &self.place {
            Place::Directory(path) => Session::open(self.env, path, BrokerConfig::default())?,
            Place::Kafka(brokers) => Session::connect(self.env, brokers)?,
        };
        let done = work(&session);
        let closed = session.close();
        let done = done?;
        closed?;
        Ok(done)
    }

    /// The jobs under test: those that are named, or all that a data directory knows.
    pub(super) fn jobs_there(&self, session: &Session) -> anyhow::Result<Vec<GroupId>> {
        if !self.jobs.is_empty() {
            return Ok(self.jobs.to_vec());
        }
        let mut found = Vec::new();
        for topic in session.wait(session.admin().topics())? {
            let name = topic.name.as_str().strip_suffix(POSITIONS);
            let Some(job) = name.and_then(|name| GroupId::new(name).ok()) else {
                continue;
            };
            if !transactions_of_job(session, &job)?.is_empty() {
                found.push(job);
            }
        }
        Ok(found)
    }

    /// The transactional ids under test: all of a data directory, which nobody else uses.
    pub(super) fn transactions(
        &self,
        session: &Session,
    ) -> anyhow::Result<Vec<TransactionDescription>> {
        let mut all = session.wait(session.admin().list_transactions())?;
        if self.directory().is_none() {
            let is_of = |id: &str| self.jobs.iter().any(|job| is_id_of(job, id));
            all.retain(|it| is_of(it.transactional_id.as_str()));
        }
        Ok(all)
    }

    /// Waits until what is decided has its markers.
    pub(super) fn wait_for_markers(&self, session: &Session) -> anyhow::Result<()> {
        let until = self.env.clock.now().plus(MARKERS_MAX);
        let is_decided = |it: &TransactionDescription| {
            matches!(
                it.state,
                TransactionState::PrepareCommit | TransactionState::PrepareAbort
            )
        };
        while self.transactions(session)?.iter().any(is_decided) && self.env.clock.now() < until {
            self.env.clock.sleep(MARKERS_EVERY);
        }
        Ok(())
    }

    /// The partitions to look at besides `read`, which the jobs have read: all of a data directory. On a Kafka cluster those that one of
    /// the jobs' producers has written to, and those of `topics`.
    pub(super) fn partitions(
        &self,
        session: &Session,
        read: impl Iterator<Item = TopicPartition>,
        topics: &[TopicName],
    ) -> anyhow::Result<BTreeSet<TopicPartition>> {
        let admin = session.admin();
        let ids: BTreeSet<i64> = match self.directory() {
            Some(_) => BTreeSet::new(),
            None => {
                let transactions = self.transactions(session)?.into_iter();
                transactions.map(|it| it.producer_id.0).collect()
            }
        };
        let mut found: BTreeSet<TopicPartition> = read.collect();
        for topic in session.wait(admin.topics())? {
            let is_named = topics.contains(&topic.name);
            for index in 0..topic.partitions_count {
                let place = TopicPartition::new(topic.name.clone(), index);
                let is_meant =
                    self.directory().is_some() || is_named || is_written(session, &place, &ids)?;
                if is_meant {
                    found.insert(place);
                }
            }
        }
        Ok(found)
    }

    /// Looks whether the program works, while it runs.
    pub(super) fn watch(&self) -> anyhow::Result<Watch<'_>> {
        Ok(match &self.place {
            Place::Directory(path) => Watch::Files(self.env, path),
            Place::Kafka(brokers) => Watch::Cluster(self, Session::connect(self.env, brokers)?),
        })
    }
}

/// Whether a transactional id is the job's, or one of its instances'.
fn is_id_of(job: &GroupId, id: &str) -> bool {
    let rest = id.strip_prefix(job.as_str());
    rest.is_some_and(|rest| rest.starts_with('@') || matches!(rest, "-0" | "-1"))
}

/// Whether one of these producers has written to the partition.
fn is_written(
    session: &Session,
    place: &TopicPartition,
    ids: &BTreeSet<i64>,
) -> anyhow::Result<bool> {
    if place.topic.as_str().starts_with(INTERNAL) {
        return Ok(false);
    }
    match session.wait(session.admin().describe_producers(place)) {
        Ok(producers) => Ok(producers.iter().any(|it| ids.contains(&it.producer.id.0))),
        // It was deleted since it was listed.
        Err(e) if e.code() == Some(ErrorCode::UnknownTopicOrPartition) => Ok(false),
        Err(e) => Err(e).with_context(|| format!("cannot see who has written to {place}")),
    }
}

/// An eye on a program that runs.
pub(super) enum Watch<'a> {
    Files(&'a Env, &'a Path),
    Cluster(&'a Scene<'a>, Session),
}

impl Watch<'_> {
    /// A number that is another one after the program has written something.
    pub(super) fn mark(&self) -> anyhow::Result<u64> {
        match self {
            Self::Files(env, directory) => Ok(written_bytes(env, directory)),
            Self::Cluster(scene, session) => {
                let mut mark = DefaultHasher::new();
                for group in scene.jobs {
                    let committed = session.wait(session.admin().committed(group))?;
                    for (place, committed) in committed {
                        (place, committed.map(|it| it.offset)).hash(&mut mark);
                    }
                }
                for transaction in scene.transactions(session)? {
                    let state = format!("{:?}", transaction.state);
                    (state, transaction.producer_epoch.0, transaction.start.0).hash(&mut mark);
                }
                Ok(mark.finish())
            }
        }
    }
}

/// The bytes of all files in a directory that another process writes to; files that come and go meanwhile count or not.
fn written_bytes(env: &Env, directory: &Path) -> u64 {
    let entries = env.files.read_dir(directory).unwrap_or_default();
    let sizes = entries.iter().map(|entry| {
        let path = directory.join(&entry.name);
        match entry.is_dir {
            true => written_bytes(env, &path),
            false => {
                let file = env.files.open(&path, OpenMode::Read);
                file.and_then(|file| file.length_bytes()).unwrap_or(0)
            }
        }
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_job_are_told_from_those_of_others() {
        let job = GroupId::new("sums").unwrap();
        for id in ["sums-0", "sums-1", "sums@host-1-0"] {
            assert!(is_id_of(&job, id), "{id}");
        }
        for id in ["sums", "sums-replay", "sums-2-0", "sums2-0", "other-0"] {
            assert!(!is_id_of(&job, id), "{id}");
        }
    }
}

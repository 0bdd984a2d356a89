//! The view of a running job: progress, lag, and when it has caught up (X21).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::job::Running;
use crate::client::Transport;
use crate::protocol::messages::{OffsetFetchRequest, OffsetSpec};
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::task::progress::JobProgress;
use crate::types::{GroupId, Isolation, Offset, TopicName, TopicPartition};

/// The means to ask how far a job is behind its sources.
pub(super) struct Sources {
    transport: Arc<dyn Transport>,
    job: String,
    group: GroupId,
    topics: Vec<TopicName>,
    /// A source that is no topic, if there is one.
    other: Option<String>,
}

/// Where a partition stands.
struct Standing {
    end: Offset,
    committed: Offset,
}

impl Sources {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        job: &str,
        topology: &Topology,
    ) -> Result<Self, JobError> {
        let (mut topics, mut other) = (Vec::new(), None);
        for source in &topology.sources {
            match source.lister.topic() {
                Some((name, _)) => topics.push(TopicName::new(&name)?),
                None => other = Some(source.name.clone()),
            }
        }
        Ok(Self {
            transport,
            job: job.to_owned(),
            group: GroupId::new(job)?,
            topics,
            other,
        })
    }

    /// The way to the log.
    pub(super) fn transport(&self) -> Arc<dyn Transport> {
        Arc::clone(&self.transport)
    }

    async fn standings(&self) -> Result<BTreeMap<TopicPartition, Standing>, JobError> {
        let mut places = Vec::new();
        for name in &self.topics {
            let found = self.transport.topic(name).await?;
            let partitions = 0..found.map_or(0, |found| found.partitions_count);
            places.extend(partitions.map(|number| TopicPartition::new(name.clone(), number)));
        }
        let committed = self.committed(&places).await?;
        let mut standings = BTreeMap::new();
        for place in places {
            let list = |spec| {
                let isolation = Isolation::ReadCommitted;
                self.transport.list_offset(&place, spec, isolation)
            };
            let end = list(OffsetSpec::Latest).await?;
            let committed = match committed.get(&place) {
                Some(&committed) => committed,
                // A job that never committed begins at the start.
                None => (list(OffsetSpec::Earliest).await?).map_or(Offset::ZERO, |at| at.offset),
            };
            let end = end.map_or(committed, |at| at.offset);
            standings.insert(place, Standing { end, committed });
        }
        Ok(standings)
    }

    async fn committed(
        &self,
        places: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Offset>, JobError> {
        let request = OffsetFetchRequest {
            group: self.group.clone(),
            partitions: Some(places.to_vec()),
            require_stable: false,
        };
        let committed = self.transport.offset_fetch(request).await?;
        let committed = committed.into_iter();
        Ok(committed
            .filter_map(|(place, committed)| Some((place, committed?.offset)))
            .collect())
    }
}

impl Running {
    /// Returns the progress of the job in this run, and its restarts.
    #[must_use]
    pub fn progress(&self) -> JobProgress {
        self.progress.report()
    }

    /// Counts the offsets of each partition of its source topics behind what the job has committed, all processes that share
    /// the job together. A transaction's end takes an offset, too. Files and other sources are not among them.
    ///
    /// ```
    /// # fn main() -> anyhow::Result<()> {
    /// # let folder = tempfile::tempdir()?;
    /// # let log = onceflow::runtime::Log::embedded(folder.path().join("data"))?;
    /// use onceflow::client::wait;
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("copy");
    /// job.source(topic::<str>("lines")).sink(topic("copies"));
    /// let running = job.exactly_once(Commit::every(std::time::Duration::from_millis(10))).start(&log)?;
    /// wait(running.caught_up())?;
    /// assert!(wait(running.lag())?.values().all(|&behind| behind == 0));
    /// println!("{:?}", running.progress());
    /// wait(running.stop())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the log does not answer.
    pub async fn lag(&self) -> Result<BTreeMap<TopicPartition, u64>, JobError> {
        let standings = self.sources.standings().await?.into_iter();
        Ok(standings
            .map(|(place, at)| {
                let behind = at.end.0.saturating_sub(at.committed.0);
                (place, u64::try_from(behind).unwrap_or(0))
            })
            .collect())
    }

    /// Waits until everything that the job's source topics hold now is processed and committed, by whichever process
    /// shares the job.
    ///
    /// # Errors
    /// If the job ends before, if it has a source that is no topic, whose end nobody knows, or if the log does not answer.
    pub async fn caught_up(&self) -> Result<(), JobError> {
        let sources = &self.sources;
        if let Some(other) = &sources.other {
            return Err(JobError::Topology {
                job: sources.job.clone(),
                why: format!(
                    "nobody knows where its source {other} ends, so it cannot be waited for: wait for the job's end \
                     (`finished`), or look at `progress`"
                ),
            });
        }
        let mut changes = self.progress.changes();
        let mut wanted = None;
        loop {
            // Looked at before the positions: what the job committed before it ended counts.
            let is_finished = self.is_finished();
            changes.borrow_and_update();
            let now = sources.standings().await?;
            // A topic may be created by the job's own start.
            if wanted.is_none() && (is_finished || self.progress.is_begun()) {
                let ends = sources.standings().await?.into_iter();
                wanted = Some(ends.map(|(place, at)| (place, at.end)).collect());
            }
            let is_reached = |wanted: &BTreeMap<TopicPartition, Offset>| {
                let mut wanted = wanted.iter();
                wanted.all(|(place, end)| now.get(place).is_some_and(|at| at.committed >= *end))
            };
            // Whoever has waited finds it told in `progress`, too.
            if wanted.as_ref().is_some_and(is_reached) && !self.progress.is_behind_the_log() {
                return Ok(());
            }
            if is_finished {
                return Err(JobError::Ended {
                    job: sources.job.clone(),
                });
            }
            // An error means that the job is gone; the next look says so.
            let _ = changes.changed().await;
        }
    }
}

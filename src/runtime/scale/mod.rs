//! A job spread over several processes: who reads and owns what, agreed through a consumer group.
//!
//! The processes of a job are members of one consumer group. What is shared out are *tasks*: a partition of a source
//! topic, or a state partition (the same partition of every repartition topic, with the state behind it). Nothing is in
//! two hands at once: a task moves only after its owner has committed and let go of it (KIP-429), and a process that the
//! group went on without cannot commit (KIP-447).
//!
//! Reading order: `assignor.rs` (who gets what, pure), `plan.rs`, `membership.rs`, `repartition.rs` (the shuffle between processes).

mod assignor;
mod membership;
mod plan;
mod repartition;

use std::sync::Arc;
use std::time::Duration;

use membership::Membership;
use plan::Plan;
pub(crate) use plan::repartition_configs;
pub(crate) use repartition::{RepartitionSender, repartition_feed, repartition_topic};

use super::error::JobError;
use super::log_handle::Log;
use super::report::Reports;
use super::start::{self, Settings};
use super::topology::Topology;
use crate::types::{GroupId, TopicPartition};

/// Spreads a job over several processes that reach one log.
///
/// Each process is an *instance* with a name of its own, which it keeps when it is started again: its share, its state
/// and its transactions are known by it. Instances share the work through the job's consumer group; they come, go and
/// die at any time. Shuffles go through topics of the job.
///
/// ```
/// use onceflow::prelude::*;
///
/// let job = Job::new("word-count");
/// job.source(topic::<str>("lines")).key_by(|line: &str| line).count("counts").changes().sink(topic("counts"));
/// let launch = job.exactly_once(Commit::every(std::time::Duration::from_millis(100))).scale_out(ScaleOut::instance("host-1"));
/// # let _ = launch;
/// ```
#[derive(Debug, Clone)]
pub struct ScaleOut {
    pub(crate) instance: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) leaves: bool,
}

impl ScaleOut {
    /// This process is the instance `name`: no two processes that run at once may share it.
    #[must_use]
    pub fn instance(name: &str) -> Self {
        Self {
            instance: name.to_owned(),
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(60),
            leaves: true,
        }
    }

    /// An instance unheard of for so long is given up, and its share goes to the others (`session.timeout.ms`). The default
    /// is 45 s; less takes over sooner, but also from an instance that only stood still.
    #[must_use]
    pub fn session_timeout(self, timeout: Duration) -> Self {
        Self {
            session_timeout: timeout,
            ..self
        }
    }

    /// So long the instances have to agree anew when one comes or goes (`max.poll.interval.ms`). The default is 60 s.
    #[must_use]
    pub fn rebalance_timeout(self, timeout: Duration) -> Self {
        Self {
            rebalance_timeout: timeout,
            ..self
        }
    }

    /// A process that is stopped in order keeps its share for a session, instead of leaving at once: started again before
    /// that, it goes on where it was and nothing moves. For restarts one by one.
    #[must_use]
    pub fn remain_in_group(self) -> Self {
        Self {
            leaves: false,
            ..self
        }
    }

    /// A third of the session, as Kafka advises, so that two heartbeats may be lost; at most Kafka's default of 3 s.
    pub(crate) fn heartbeat_interval(&self) -> Duration {
        (self.session_timeout / 3).min(Duration::from_secs(3))
    }
}

/// What this process has of the job, until the group agrees anew.
pub(crate) struct Share {
    pub(crate) membership: Arc<Membership>,
    /// The partitions that it reads.
    pub(crate) partitions: Vec<TopicPartition>,
    /// The state partitions that it owns, ascending.
    pub(crate) state_partitions: Vec<u16>,
    /// How many state partitions the job has in all.
    pub(crate) state_partitions_count: u16,
}

/// This process's part in a job that is spread over several.
pub(crate) struct Participation {
    membership: Arc<Membership>,
    state_partitions_count: u16,
}

impl Participation {
    /// Joins the job's processes; `None` if the job runs in this process alone.
    pub(crate) fn begin(
        log: &Log,
        name: &str,
        topology: &Topology,
        settings: &Settings,
    ) -> Result<Option<Self>, JobError> {
        let Some(scale_out) = settings.scale_out.clone() else {
            return Ok(None);
        };
        let state_partitions_count = start::state_partitions(log, name, topology, settings)?;
        let topic_partitions = settings.partitions_of_new_topics(state_partitions_count);
        let transport = log.transport();
        let plan = Plan::new(
            &transport,
            name,
            topology,
            state_partitions_count,
            topic_partitions,
        )?;
        let membership = Membership::start(
            log.env(),
            &transport,
            GroupId::new(name)?,
            name,
            scale_out,
            format!(
                "{}; {} exchanges; {state_partitions_count} state partitions",
                topology.fingerprint(),
                topology.exchanges.len()
            ),
            start::workers(log, settings),
            plan,
        )?;
        Ok(Some(Self {
            membership,
            state_partitions_count,
        }))
    }

    /// Waits for this process's share; `None` if the job was stopped meanwhile.
    pub(crate) fn wait_for_share(
        &self,
        reports: &Reports,
        is_stopped: impl Fn() -> bool,
    ) -> Result<Option<Share>, JobError> {
        let tasks = self.membership.wait_for_share(reports, is_stopped)?;
        Ok(tasks.map(|tasks| {
            let plan = self.membership.plan();
            Share {
                membership: Arc::clone(&self.membership),
                partitions: plan.partitions(&tasks),
                state_partitions: plan.state_partitions(&tasks),
                state_partitions_count: self.state_partitions_count,
            }
        }))
    }

    /// The incarnation that ran the share has ended.
    pub(crate) fn ended(&self) {
        self.membership.ended();
    }
}

impl Drop for Participation {
    /// A process that leaves says so, whatever it ended with.
    fn drop(&mut self) {
        self.membership.leave();
    }
}

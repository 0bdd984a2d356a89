//! A job spread over several processes: who reads and owns what, agreed through a consumer group.
//!
//! The processes of a job are members of one consumer group. What is shared out are *tasks*: a partition of a source
//! topic, or a state partition (the same partition of every repartition topic, with the state behind it). Nothing is in
//! two hands at once: a task moves only after its owner has committed and let go of it (KIP-429), and a process that the
//! group went on without cannot commit (KIP-447).
//!
//! Reading order: `assignor.rs` (who gets what, pure), `plan.rs`, `agreement.rs` (what members say), `membership.rs` with
//! `membership/keeping.rs` (towards the group) and `bell.rs`, `replicas.rs` (state before and beside its use), `placement.rs`. The shuffle between processes is `task/repartition.rs`.

mod agreement;
mod assignor;
mod bell;
mod membership;
mod placement;
mod plan;
mod replicas;

use std::time::Duration;

pub(crate) use assignor::Task;
pub(crate) use membership::{Candidate, Keeper, Membership};
pub(crate) use placement::Placement;
pub(crate) use plan::Plan;
pub(crate) use replicas::{Followed, Follower, ReadyTask, Replicas};

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
/// job.source(topic::<str>("lines")).key_by_ref(|line: &str| line).count("counts").changes().sink(topic("counts"));
/// let launch = job.exactly_once(Commit::every(std::time::Duration::from_millis(100))).scale_out(ScaleOut::instance("host-1"));
/// # let _ = launch;
/// ```
#[derive(Debug, Clone)]
pub struct ScaleOut {
    pub(crate) instance: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) leaves: bool,
    pub(crate) standbys: u16,
    pub(crate) purge_interval: Duration,
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
            standbys: 0,
            purge_interval: Duration::from_secs(30),
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

    /// Sets how many other instances keep a copy of each task's state and follow its changelog, so that one of them takes over without
    /// a restore (`num.standby.replicas`). The default is none. Of instances that ask for different numbers the largest counts.
    #[must_use]
    pub fn standbys(self, count: u16) -> Self {
        Self {
            standbys: count,
            ..self
        }
    }

    /// So often what was read for good is deleted from the topics between the instances (`repartition.purge.interval.ms`). The default is 30 s.
    #[must_use]
    pub fn purge_interval(self, interval: Duration) -> Self {
        Self {
            purge_interval: interval,
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

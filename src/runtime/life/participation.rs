//! A process's part in a job that is spread over several: from its joining to its leaving.

use std::sync::Arc;
use std::time::Duration;

use super::log_handle::Log;
use super::opened::Opened;
use super::savepoint::refuse_half_restored;
use super::start::{self, Settings};
use crate::runtime::contract::error::JobError;
use crate::runtime::graph::topology::Topology;
use crate::runtime::scale::{Candidate, Followed, Follower, Keeper, Membership, Plan, Replicas};
use crate::runtime::task::progress::Progress;
use crate::runtime::task::report::Reports;
use crate::runtime::topics::source_topics::{Wanted, find_source_topic};

/// An incarnation's hold on the group of its job.
pub(crate) struct Share {
    pub(crate) membership: Arc<Membership>,
    /// The job's state partitions in all.
    pub(crate) state_partitions_count: u16,
    /// Parts that outlive incarnations.
    pub(crate) opened: Opened,
}

/// This process's part in a job that is spread over several.
pub(crate) struct Participation {
    membership: Arc<Membership>,
    replicas: Arc<Replicas>,
    opened: Opened,
    state_partitions_count: u16,
    /// Those who work by turns, where there are no threads.
    hands: Option<Hands>,
    has_left: bool,
}

/// Those who keep a participation.
struct Hands {
    keeper: Keeper,
    follower: Follower,
}

impl Participation {
    /// Opens the state and joins the job's processes; `None` if the job runs in this process alone.
    pub(crate) fn begin(
        log: &Log,
        name: &str,
        topology: &Topology,
        settings: &Settings,
        progress: &Arc<Progress>,
    ) -> Result<Option<Self>, JobError> {
        let Some(scale_out) = settings.scale_out.clone() else {
            return Ok(None);
        };
        let state_partitions_count = start::state_partitions(log, name, topology, settings)?;
        let topic_partitions = settings.partitions_of_new_topics(state_partitions_count);
        let transport = log.transport();
        let kept = start::read_kept(&transport, name)?;
        refuse_half_restored(name, &kept)?;
        let read_before = kept.read_topics;
        let plan = Arc::new(Plan::new(
            &transport,
            name,
            topology,
            state_partitions_count,
            topic_partitions,
            |topic, is_until_end| {
                let wanted = Wanted::of(read_before.contains_key(&topic.name), is_until_end);
                find_source_topic(log.env(), &transport, name, topic, wanted)
            },
        )?);
        let sources = match topology.uses_time {
            true => plan.sources_as_text(topology),
            false => String::new(),
        };
        // Before the first join: what is on the disk decides where tasks go.
        let opened = Opened::new(log, name, topology, settings, state_partitions_count)?;
        let mut told_apart: String = opened.backend.stores_told_apart().join(", ");
        if !told_apart.is_empty() {
            told_apart.insert_str(0, "; first versions told apart in ");
        }
        let env = log.env();
        let stores = topology.stores.keys().cloned();
        let backend = &opened.backend;
        let (replicas, follower) =
            Replicas::new(&transport, backend, name, stores, &plan, progress)?;
        let (membership, keeper) = Membership::new(Candidate {
            env,
            transport: &transport,
            job: name,
            settings: scale_out,
            topology: format!(
                "{}; {} exchanges; {state_partitions_count} state partitions{sources}{told_apart}",
                topology.fingerprint(),
                topology.exchanges.len()
            ),
            workers: start::workers(log, settings),
            plan,
            replicas: &replicas,
            progress: Arc::clone(progress),
        })?;
        let hands = match env.spawn.has_threads() {
            true => {
                follower.start(env)?;
                keeper.start().inspect_err(|_| replicas.end())?;
                None
            }
            false => Some(Hands {
                keeper,
                follower: follower.in_steps(),
            }),
        };
        Ok(Some(Self {
            membership,
            replicas,
            opened,
            state_partitions_count,
            hands,
            has_left: false,
        }))
    }

    /// Gives its keeper a turn, where there are no threads; `false` if nothing was due.
    pub(crate) fn keep_turn(&mut self) -> bool {
        let hands = self.hands.as_mut();
        hands.is_some_and(|hands| hands.keeper.turn())
    }

    /// Has what it follows of changelogs fetched once, where there are no threads; `false` if nothing came.
    pub(crate) fn follow_turn(&mut self) -> bool {
        let hands = self.hands.as_mut();
        hands.is_some_and(|hands| hands.follower.turn() == Followed::Came)
    }

    /// In how long its next turn is due, if time brings it about.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.hands.as_ref()?.keeper.next_due()
    }

    /// Returns this process's tasks and all tasks, if those are what the group gave it and nothing is to change.
    pub(crate) fn settled(&self) -> Option<(usize, usize)> {
        let running = self.membership.settled()?;
        Some((running, self.membership.plan().tasks_count()))
    }

    /// Waits until the group has this process in it; `None` if the job was stopped meanwhile.
    pub(crate) fn wait_for_share(
        &self,
        reports: &Reports,
        is_stopped: impl Fn() -> bool,
        is_ours: impl Fn() -> Result<bool, JobError>,
    ) -> Result<Option<Share>, JobError> {
        let is_in = self
            .membership
            .wait_for_share(reports, is_stopped, is_ours)?;
        Ok(is_in.then(|| self.share()))
    }

    /// This process's share, if the group has it in it.
    pub(crate) fn begin_share(
        &self,
        reports: &Reports,
        is_ours: impl FnOnce() -> Result<bool, JobError>,
    ) -> Result<Option<Share>, JobError> {
        let is_in = self.membership.begin_share(reports, is_ours)?;
        Ok(is_in.then(|| self.share()))
    }

    fn share(&self) -> Share {
        Share {
            membership: Arc::clone(&self.membership),
            state_partitions_count: self.state_partitions_count,
            opened: self.opened.clone(),
        }
    }

    /// The incarnation that ran the share has ended.
    pub(crate) fn ended(&self) {
        self.membership.ended();
    }

    /// A process that goes says so, and brings its state to the disk.
    ///
    /// # Errors
    /// If RocksDB fails.
    pub(crate) fn close(mut self) -> Result<(), JobError> {
        self.leave();
        Ok(self.opened.backend.close()?)
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.has_left, true) {
            self.membership.leave();
            // Without threads it hears of that here.
            self.keep_turn();
            self.replicas.end();
        }
    }
}

impl Drop for Participation {
    /// Whatever it ended with.
    fn drop(&mut self) {
        self.leave();
    }
}

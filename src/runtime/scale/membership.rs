//! A process's membership in the group of its job: it joins, learns its share, stays, hands over and leaves.
//!
//! A thread of its own speaks to the group's coordinator (`keeping.rs`); the driver and the job's supervisor see what it agreed on:
//!
//! ```text
//! wait_for_share ──► an incarnation, without tasks at first ──────────────► ended
//!                       │ Report::Reassigned       ▲ Report::Lost: rolls back, ends
//!                       ▼                          │ every commit carries `member_for_commit` (KIP-447)
//!              begin_change ──► tasks go and come between two cycles ──► end_change
//! ```
//! Tasks that are taken away are held until the cycle that they are in is committed and they are closed; then the process
//! joins again, which frees them for their new owner. So a task is never in two hands, and other tasks go on meanwhile.
//! Tasks that are given are made ready by `replicas.rs` first, while the others go on.

mod keeping;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::debug;

pub(crate) use self::keeping::Keeper;
use super::ScaleOut;
use super::agreement::Given;
use super::assignor::Task;
use super::bell::Bell;
use super::plan::Plan;
use super::replicas::{ReadyTask, Replicas};
use crate::client::{ClientError, Transport, wait};
use crate::env::{Env, Instant};
use crate::protocol::ErrorCode;
use crate::protocol::messages::GroupMember;
use crate::protocol::messages::groups::{LeaveGroupRequest, LeavingMember};
use crate::runtime::contract::error::JobError;
use crate::runtime::task::progress::Progress;
use crate::runtime::task::report::{Report, Reports};
use crate::types::{GroupId, Offset, TopicPartition};

/// The longest wait for news of the group, after which it is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The membership; shared by the thread that keeps it, the supervisor and the driver.
pub(crate) struct Membership {
    env: Env,
    transport: Arc<dyn Transport>,
    group: GroupId,
    job: String,
    settings: ScaleOut,
    topology: String,
    workers: u32,
    plan: Arc<Plan>,
    /// Not its own: the state must be closed when the process has left, though its keeper may still wait for an answer.
    replicas: Weak<Replicas>,
    progress: Arc<Progress>,
    state: Mutex<State>,
    /// Tells the supervisor and the driver that the state has changed.
    changed: Condvar,
    /// Gives the keeper its next turn.
    bell: Arc<Bell>,
}

/// A process before it is a member.
pub(crate) struct Candidate<'a> {
    pub(crate) env: &'a Env,
    pub(crate) transport: &'a Arc<dyn Transport>,
    pub(crate) job: &'a str,
    pub(crate) settings: ScaleOut,
    /// Topology behind the job's state.
    pub(crate) topology: String,
    pub(crate) workers: usize,
    pub(crate) plan: Arc<Plan>,
    pub(crate) replicas: &'a Arc<Replicas>,
    pub(crate) progress: Arc<Progress>,
}

/// The change between two cycles.
pub(crate) struct Change {
    /// The tasks to be closed.
    pub(crate) revoked: BTreeSet<Task>,
    /// The tasks to be opened.
    pub(crate) added: Vec<ReadyTask>,
}

#[derive(Default)]
struct State {
    member: GroupMember,
    /// Whether `member` may commit; not while a new generation has begun that is not agreed on yet.
    is_agreed: bool,
    /// Whether this process holds what it was given last; also while it joins anew.
    is_holding: bool,
    /// Share of the last agreement.
    given: Given,
    /// The tasks of the incarnation that runs, if one does.
    running: Option<BTreeSet<Task>>,
    /// Where to tell the incarnation.
    reports: Option<Reports>,
    /// The group went on without this process: what runs must be rolled back.
    is_lost: bool,
    /// Whether the process leaves, so that it does not join again.
    is_leaving: bool,
    /// The group went on without this process, and nobody has looked since whether another one has its transactional ids: until then
    /// it does not join, or it would take the instance's name from that one.
    is_in_doubt: bool,
    /// Whether tasks were let go of since the last join.
    has_let_go: bool,
    /// Whether the group knows the instance from an earlier process, and nothing was agreed on since.
    is_successor: bool,
    /// The positions below which repartition topics are not needed any more.
    read_for_good: BTreeMap<TopicPartition, Offset>,
    /// Reason for the membership's end.
    failure: Option<String>,
}

impl Membership {
    /// A process before it joins the group of its job, and the keeper that is to have it join.
    ///
    /// # Errors
    /// If the job's name is none for a group.
    pub(crate) fn new(candidate: Candidate<'_>) -> Result<(Arc<Self>, Keeper), JobError> {
        let Candidate { env, settings, .. } = candidate;
        let member = GroupMember {
            group_instance_id: Some(settings.instance.clone()),
            ..GroupMember::default()
        };
        let membership = Arc::new(Self {
            env: env.clone(),
            transport: Arc::clone(candidate.transport),
            group: GroupId::new(candidate.job)?,
            job: candidate.job.to_owned(),
            settings,
            topology: candidate.topology,
            workers: u32::try_from(candidate.workers).unwrap_or(u32::MAX),
            plan: candidate.plan,
            replicas: Arc::downgrade(candidate.replicas),
            progress: candidate.progress,
            state: Mutex::new(State {
                member,
                ..State::default()
            }),
            changed: Condvar::new(),
            bell: Arc::default(),
        });
        let keeper = Keeper::new(&membership);
        Ok((membership, keeper))
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Waits until [`Membership::begin_share`] is `true`; `false` once `is_stopped` says so.
    pub(crate) fn wait_for_share(
        &self,
        reports: &Reports,
        is_stopped: impl Fn() -> bool,
        is_ours: impl Fn() -> Result<bool, JobError>,
    ) -> Result<bool, JobError> {
        loop {
            if is_stopped() {
                return Ok(false);
            }
            if self.begin_share(reports, &is_ours)? {
                return Ok(true);
            }
            let mut state = self.state.lock();
            if !state.is_holding {
                self.changed.wait_for(&mut state, LOOK_EVERY);
            }
        }
    }

    /// Whether the group agrees with this process in it. If so, from here on tasks are made ready, and `reports` is told when there
    /// are some to be taken on or let go of. `is_ours` says whether the process still has the transactional ids that it took; it is
    /// asked before a process that the group went on without joins again.
    pub(crate) fn begin_share(
        &self,
        reports: &Reports,
        is_ours: impl FnOnce() -> Result<bool, JobError>,
    ) -> Result<bool, JobError> {
        let is_in_doubt = self.state.lock().is_in_doubt;
        if is_in_doubt && is_ours()? {
            self.state.lock().is_in_doubt = false;
            self.bell.ring();
        }
        let mut state = self.state.lock();
        if let Some(failure) = &state.failure {
            return Err(self.fenced(failure.clone()));
        }
        let replicas = self.replicas.upgrade();
        if let Some(failure) = replicas.and_then(|replicas| replicas.take_failure()) {
            return Err(failure);
        }
        if state.is_holding {
            state.running = Some(BTreeSet::new());
            state.reports = Some(reports.clone());
            state.is_lost = false;
            self.follow(&state);
        }
        Ok(state.is_holding)
    }

    /// Counts the tasks of this process, if those are what the group gave it and nothing is to change.
    pub(crate) fn settled(&self) -> Option<usize> {
        let state = self.state.lock();
        let running = state.running.as_ref()?;
        let is_settled = state.may_commit(None) && !state.has_let_go;
        (is_settled && *running == state.given.tasks).then_some(running.len())
    }

    /// Begins the change, while no cycle is open. Tasks that come are held from here on.
    pub(crate) fn begin_change(&self) -> Change {
        let mut state = self.state.lock();
        let replicas = self.replicas.upgrade();
        let ready = replicas.map_or(vec![], |replicas| replicas.take_ready());
        let given = state.given.tasks.clone();
        let running = state.running.get_or_insert_default();
        let revoked = running.difference(&given).copied().collect();
        let is_new =
            |ready: &ReadyTask| given.contains(&ready.task) && !running.contains(&ready.task);
        let added: Vec<ReadyTask> = ready.into_iter().filter(is_new).collect();
        running.extend(added.iter().map(|ready| ready.task));
        self.follow(&state);
        Change { revoked, added }
    }

    /// Lets go of what was revoked: it is closed, and its last cycle is committed.
    pub(crate) fn end_change(&self, revoked: &BTreeSet<Task>) {
        let mut state = self.state.lock();
        let running = state.running.get_or_insert_default();
        running.retain(|task| !revoked.contains(task));
        self.progress.reads(self.plan.partitions(running));
        state.has_let_go |= !revoked.is_empty();
        self.follow(&state);
        self.bell.ring();
    }

    /// Has the tasks that were given and do not run yet made ready, and the standbys followed.
    fn follow(&self, state: &State) {
        let Some(replicas) = self.replicas.upgrade() else {
            return;
        };
        let Some(running) = state.running.as_ref().filter(|_| !state.is_lost) else {
            return replicas.follow(BTreeSet::new(), BTreeSet::new(), None);
        };
        let given = &state.given.tasks;
        let coming = given.difference(running).copied().collect();
        // A worker has these open, or is about to.
        let held = given.union(running).copied().collect();
        let held: BTreeSet<u16> = self.plan.state_partitions(&held).into_iter().collect();
        let standbys = state.given.standbys.difference(&held).copied().collect();
        replicas.follow(coming, standbys, state.reports.clone());
    }

    /// The incarnation that `wait_for_share` began has ended; what it held and was taken away is let go of.
    pub(crate) fn ended(&self) {
        let mut state = self.state.lock();
        state.reports = None;
        if let Some(ran) = state.running.take() {
            state.has_let_go |= !ran.is_subset(&state.given.tasks);
        }
        self.progress.reads(vec![]);
        self.follow(&state);
        self.bell.ring();
    }

    /// Who commits; `None` while the group agrees anew: afterwards this process still holds what it runs. `refused` is the
    /// generation that the group has left behind, if that is known: then it is the next one's member. `since` is when it was first
    /// asked for so.
    ///
    /// # Errors
    /// If the group went on without this process, so that nothing may be committed any more; or if it does not agree in time.
    pub(crate) fn member_for_commit(
        &self,
        refused: Option<i32>,
        since: Instant,
    ) -> Result<Option<GroupMember>, JobError> {
        let state = self.state.lock();
        if state.may_commit(refused) {
            return Ok(Some(state.member.clone()));
        }
        let is_over = self.env.clock.now() >= self.agreed_until(since);
        match state.is_lost || is_over {
            true => Err(JobError::NotCommitted {
                job: self.job.clone(),
            }),
            false => Ok(None),
        }
    }

    /// Returns the time while [`Membership::member_for_commit`] has no news unless something happens.
    pub(crate) fn commit_waits_at_most(&self, refused: Option<i32>, since: Instant) -> Duration {
        let state = self.state.lock();
        match state.may_commit(refused) || state.is_lost {
            true => Duration::ZERO,
            false => self.agreed_until(since).since(self.env.clock.now()),
        }
    }

    /// Waits until it has, for a moment at most.
    pub(crate) fn wait_for_member(&self, refused: Option<i32>) {
        let mut state = self.state.lock();
        if !state.may_commit(refused) && !state.is_lost {
            self.changed.wait_for(&mut state, LOOK_EVERY);
        }
    }

    fn agreed_until(&self, since: Instant) -> Instant {
        since.plus(self.settings.rebalance_timeout)
    }

    /// After a commit as `member_id` was refused: whether that was because another process has the instance's name. A
    /// process that joined anew replaced itself: it has another id by now, or is about to get one.
    ///
    /// # Errors
    /// [`JobError::Fenced`] if it has. Starting again would fence that process in turn (I4).
    pub(crate) fn check_not_replaced(
        &self,
        member_id: &str,
        error: &ClientError,
    ) -> Result<(), JobError> {
        let is_replaced = error.code() == Some(ErrorCode::FencedInstanceId);
        match is_replaced && self.state.lock().member.member_id == member_id {
            true => Err(self.fenced(self.taken_over())),
            false => Ok(()),
        }
    }

    fn taken_over(&self) -> String {
        format!(
            "another process took over as instance {}: give each process a name of its own",
            self.settings.instance
        )
    }

    /// Everything below these positions of repartition topics was read and committed.
    pub(crate) fn read_for_good(&self, positions: impl Iterator<Item = (TopicPartition, Offset)>) {
        self.state.lock().read_for_good.extend(positions);
    }

    /// Leaves the group, so that the others take over at once; or only goes, if it is to keep its share.
    pub(crate) fn leave(&self) {
        self.state.lock().is_leaving = true;
        self.bell.ring();
        wait(self.tell_that_it_leaves());
    }

    async fn tell_that_it_leaves(&self) {
        let member = self.state.lock().member.clone();
        if member.member_id.is_empty() || !self.settings.leaves {
            return;
        }
        let left = self.transport.leave_group(LeaveGroupRequest {
            group: self.group.clone(),
            members: vec![LeavingMember {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                reason: Some("the process ends".to_owned()),
            }],
        });
        if let Err(e) = left.await {
            debug!(job = self.job, error = %e, "could not leave; the session ends by its timeout");
        }
    }

    fn fenced(&self, why: String) -> JobError {
        JobError::Fenced {
            job: self.job.clone(),
            why,
        }
    }
}

impl State {
    fn may_commit(&self, refused: Option<i32>) -> bool {
        self.is_agreed && !self.is_lost && Some(self.member.generation) != refused
    }

    fn tell(&self, report: Report) {
        if let Some(reports) = &self.reports {
            reports.send(report);
        }
    }
}

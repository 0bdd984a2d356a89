//! A process's membership in the group of its job: it joins, learns its share, stays, hands over and leaves.
//!
//! A thread of its own speaks to the group's coordinator; the driver and the job's supervisor see what it agreed on:
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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tracing::{debug, info};

use super::ScaleOut;
use super::agreement::{self, Given, Meeting, Words};
use super::assignor::Task;
use super::plan::Plan;
use super::replicas::{ReadyTask, Replicas};
use crate::client::{ClientError, Transport, wait};
use crate::env::{Env, warn};
use crate::protocol::consumer_protocol::Subscription;
use crate::protocol::messages::GroupMember;
use crate::protocol::messages::groups::{
    ClientIdentity, HeartbeatRequest, JoinGroupMember, JoinGroupProtocol, JoinGroupRequest,
    JoinGroupResponse, JoinedGroup, LeaveGroupRequest, LeavingMember, SyncGroupRequest,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::runtime::contract::error::JobError;
use crate::runtime::task::progress::Progress;
use crate::runtime::task::report::{Report, Reports};
use crate::types::{GroupId, Offset, TopicPartition};

/// The thread that keeps the membership.
const THREAD: &str = "of-member";
/// The name of the assignor, by which all members must know it.
const ASSIGNOR: &str = "onceflow-sticky";
const PROTOCOL_TYPE: &str = "consumer";
/// How long a failed request to the coordinator is not repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
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
    /// Not its own: the state must be closed when the process has left, though this thread may still wait for an answer.
    replicas: Weak<Replicas>,
    progress: Arc<Progress>,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a process is before it is a member.
pub(crate) struct Candidate<'a> {
    pub(crate) env: &'a Env,
    pub(crate) transport: &'a Arc<dyn Transport>,
    pub(crate) job: &'a str,
    pub(crate) settings: ScaleOut,
    /// What the job's state depends on.
    pub(crate) topology: String,
    pub(crate) workers: usize,
    pub(crate) plan: Arc<Plan>,
    pub(crate) replicas: &'a Arc<Replicas>,
    pub(crate) progress: Arc<Progress>,
}

/// What changes between two cycles.
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
    /// What the last agreement gave.
    given: Given,
    /// The tasks of the incarnation that runs, if one does.
    running: Option<BTreeSet<Task>>,
    /// Where to tell the incarnation.
    reports: Option<Reports>,
    /// The group went on without this process: what runs must be rolled back.
    is_lost: bool,
    is_leaving: bool,
    /// Whether tasks were let go of since the last join.
    has_let_go: bool,
    /// Whether the group knows the instance from an earlier process, and nothing was agreed on since.
    is_successor: bool,
    /// The positions below which repartition topics are not needed any more.
    read_for_good: BTreeMap<TopicPartition, Offset>,
    /// Why the membership ended for good.
    failure: Option<String>,
}

/// How a step of the membership ended.
enum Next {
    Join,
    Leave,
}

impl Membership {
    /// Joins the group of `job`, on a thread of its own.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(candidate: Candidate<'_>) -> Result<Arc<Self>, JobError> {
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
        });
        let body = {
            let membership = Arc::clone(&membership);
            move || membership.run()
        };
        let spawned = env.spawn.spawn(THREAD, Box::new(body));
        spawned.map_err(|e| JobError::no_thread(THREAD, &e))?;
        Ok(membership)
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Waits until the group agrees with this process in it; `false` once `is_stopped` says so. From here on tasks are made ready,
    /// and `reports` is told when there are some to be taken on or let go of.
    pub(crate) fn wait_for_share(
        &self,
        reports: &Reports,
        is_stopped: impl Fn() -> bool,
    ) -> Result<bool, JobError> {
        let mut state = self.state.lock();
        loop {
            if is_stopped() {
                return Ok(false);
            }
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
                return Ok(true);
            }
            self.changed.wait_for(&mut state, RETRY_PAUSE);
        }
    }

    /// What is to change now that no cycle is open. Tasks that come are held from here on.
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

    /// What was revoked is closed, and its last cycle is committed: it is let go of.
    pub(crate) fn end_change(&self, revoked: &BTreeSet<Task>) {
        let mut state = self.state.lock();
        let running = state.running.get_or_insert_default();
        running.retain(|task| !revoked.contains(task));
        self.progress.reads(self.plan.partitions(running));
        state.has_let_go |= !revoked.is_empty();
        self.follow(&state);
        self.changed.notify_all();
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
        self.changed.notify_all();
    }

    /// Who commits. Waits while the group agrees anew: afterwards this process still holds what it runs. `refused` is the
    /// generation that the group has left behind, if that is known: then it waits for the next one.
    ///
    /// # Errors
    /// If the group went on without this process, so that nothing may be committed any more.
    pub(crate) fn member_for_commit(&self, refused: Option<i32>) -> Result<GroupMember, JobError> {
        let mut state = self.state.lock();
        let deadline = self.env.clock.now().plus(self.settings.rebalance_timeout);
        let is_good = |state: &State| {
            state.is_agreed && !state.is_lost && Some(state.member.generation) != refused
        };
        while !is_good(&state) && !state.is_lost && self.env.clock.now() < deadline {
            self.changed.wait_for(&mut state, RETRY_PAUSE);
        }
        match is_good(&state) {
            true => Ok(state.member.clone()),
            false => Err(JobError::NotCommitted {
                job: self.job.clone(),
            }),
        }
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
        {
            let mut state = self.state.lock();
            state.is_leaving = true;
            self.changed.notify_all();
        }
        self.tell_that_it_leaves();
    }

    fn tell_that_it_leaves(&self) {
        let member = self.state.lock().member.clone();
        if member.member_id.is_empty() || !self.settings.leaves {
            return;
        }
        let left = wait(self.transport.leave_group(LeaveGroupRequest {
            group: self.group.clone(),
            members: vec![LeavingMember {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                reason: Some("the process ends".to_owned()),
            }],
        }));
        if let Err(e) = left {
            debug!(job = self.job, error = %e, "could not leave; the session ends by its timeout");
        }
    }

    fn run(&self) {
        self.state.lock().is_successor = self.is_known();
        let mut next = Next::Join;
        while let Next::Join = next {
            next = match self.join_and_stay() {
                Ok(next) => next,
                Err(e) => self.recover(&e),
            };
        }
        // A join that was under way when the process left made it a member again.
        if self.state.lock().is_leaving {
            self.tell_that_it_leaves();
        }
    }

    /// Whether the group has the instance from an earlier process. If it does not say, it may have.
    fn is_known(&self) -> bool {
        match wait(self.transport.describe_group(&self.group)) {
            Ok(group) => {
                let instance = Some(self.settings.instance.as_str());
                let mut members = group.members.iter();
                members.any(|member| member.instance_id.as_deref() == instance)
            }
            Err(e) => e.code() != Some(ErrorCode::GroupIdNotFound),
        }
    }

    /// One generation: joins, agrees, and stays until the group agrees anew.
    fn join_and_stay(&self) -> Result<Next, ClientError> {
        let Some(joined) = self.join()? else {
            return Ok(Next::Leave);
        };
        let is_leader = joined.leader == joined.member_id;
        let assignments = match is_leader {
            true => self.share_out(&joined.members)?,
            false => vec![],
        };
        let synced = wait(self.transport.sync_group(SyncGroupRequest {
            group: self.group.clone(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            group_instance_id: Some(self.settings.instance.clone()),
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol_name: Some(ASSIGNOR.to_owned()),
            assignments,
        }))?;
        if self.take_up(&joined, &synced.assignment) {
            return Ok(Next::Leave);
        }
        self.stay(&joined)
    }

    fn join(&self) -> Result<Option<JoinedGroup>, ClientError> {
        loop {
            let (member_id, subscription) = {
                let mut state = self.state.lock();
                if state.is_leaving {
                    return Ok(None);
                }
                state.has_let_go = false;
                (state.member.member_id.clone(), self.subscription(&state))
            };
            let request = JoinGroupRequest {
                group: self.group.clone(),
                client: ClientIdentity {
                    client_id: self.settings.instance.clone(),
                    client_host: String::new(),
                },
                session_timeout: self.settings.session_timeout,
                rebalance_timeout: self.settings.rebalance_timeout,
                member_id,
                group_instance_id: Some(self.settings.instance.clone()),
                protocol_type: PROTOCOL_TYPE.to_owned(),
                protocols: vec![JoinGroupProtocol {
                    name: ASSIGNOR.to_owned(),
                    metadata: subscription,
                }],
                reason: None,
                requires_known_member_id: true,
                supports_skipping_assignment: false,
            };
            match wait(self.transport.join_group(request))? {
                JoinGroupResponse::Joined(joined) => {
                    let mut state = self.state.lock();
                    state.member.member_id.clone_from(&joined.member_id);
                    // Until now the last generation could commit; from here on it is refused.
                    state.is_agreed = false;
                    return Ok(Some(joined));
                }
                JoinGroupResponse::MemberIdRequired { member_id } => {
                    self.state.lock().member.member_id = member_id;
                }
            }
        }
    }

    fn subscription(&self, state: &State) -> Bytes {
        let mut held = state.given.tasks.clone();
        if !state.is_lost {
            held.extend(state.running.iter().flatten().copied());
        }
        let words = Words {
            topology: self.topology.clone(),
            workers: self.workers,
            standbys: self.settings.standbys,
            held: self.replicas.upgrade().map_or(vec![], |it| it.held()),
        };
        Subscription {
            topics: self.plan.topics().cloned().collect(),
            user_data: Some(words.encode()),
            owned: self.plan.partitions(&held),
            generation: state.member.generation,
            rack: None,
        }
        .encode()
    }

    /// The leader's work: everybody's assignment. A member that cannot share the job is told why instead.
    fn share_out(&self, members: &[JoinGroupMember]) -> Result<Vec<(String, Bytes)>, ClientError> {
        let meeting = Meeting::new(&self.plan, &self.topology, members);
        let ends = match self.replicas.upgrade() {
            Some(replicas) => replicas.ends(&meeting.held())?,
            None => BTreeMap::new(),
        };
        Ok(meeting.share_out(&self.plan, &ends))
    }

    /// Takes up what the group agreed on; `true` if the membership has ended for good.
    fn take_up(&self, joined: &JoinedGroup, assignment: &Bytes) -> bool {
        let mut state = self.state.lock();
        state.member.generation = joined.generation;
        match agreement::read(&self.plan, assignment) {
            Ok(given) => {
                // Nobody has to let go of tasks that it said it had and had not taken on yet.
                let running = state.running.as_ref();
                let is_held = |task| running.is_some_and(|running| running.contains(task));
                let mut before = state.given.tasks.iter();
                let has_less = before.any(|it| !given.tasks.contains(it) && !is_held(it));
                state.has_let_go |= has_less;
                state.given = given;
            }
            Err(why) => {
                state.failure = Some(format!("the group gives it no share: {why}"));
                state.is_lost = true;
                state.tell(Report::Lost);
            }
        }
        state.is_agreed = state.failure.is_none();
        state.is_holding = state.is_agreed;
        // C29: a known instance gets what its predecessor had, without an agreement of all. If that one died while tasks changed
        // hands, nobody has those that it was to let go of: the group is to agree anew.
        state.has_let_go |= std::mem::take(&mut state.is_successor);
        info!(
            job = self.job,
            generation = joined.generation,
            tasks = state.given.tasks.len(),
            standbys = state.given.standbys.len(),
            "has its share"
        );
        self.progress.agreed(joined.generation);
        self.follow(&state);
        let given = &state.given.tasks;
        let running = state.running.as_ref();
        if running.is_some_and(|running| !running.is_subset(given)) {
            state.tell(Report::Reassigned);
        }
        self.changed.notify_all();
        state.failure.is_some()
    }

    /// Heartbeats until the group agrees anew, or this process wants it to.
    fn stay(&self, joined: &JoinedGroup) -> Result<Next, ClientError> {
        let mut purge_at = self.env.clock.now().plus(self.settings.purge_interval);
        loop {
            {
                let mut state = self.state.lock();
                if !state.is_leaving && !state.has_let_go {
                    self.changed
                        .wait_for(&mut state, self.settings.heartbeat_interval());
                }
                if state.is_leaving {
                    return Ok(Next::Leave);
                }
                if state.has_let_go {
                    return Ok(Next::Join);
                }
            }
            let beat = wait(self.transport.heartbeat(HeartbeatRequest {
                group: self.group.clone(),
                generation: joined.generation,
                member_id: joined.member_id.clone(),
                group_instance_id: Some(self.settings.instance.clone()),
            }));
            match beat {
                Ok(()) => {}
                Err(e) if e.code() == Some(ErrorCode::RebalanceInProgress) => {
                    return Ok(Next::Join);
                }
                Err(e) => return Err(e),
            }
            if self.env.clock.now() >= purge_at {
                purge_at = self.env.clock.now().plus(self.settings.purge_interval);
                self.purge();
            }
        }
    }

    /// What to do after an error: come again as a new member, try again, or give up.
    fn recover(&self, error: &ClientError) -> Next {
        let mut state = self.state.lock();
        match error.code() {
            Some(ErrorCode::RebalanceInProgress) => {}
            Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => {
                warn!(job = self.job, %error, "the group went on without this process");
                state.member.member_id.clear();
                state.member.generation = -1;
                state.given = Given::default();
                (state.is_agreed, state.is_holding) = (false, false);
                state.is_lost = state.running.is_some();
                state.tell(Report::Lost);
                self.follow(&state);
            }
            _ if error.kind() == ErrorKind::Retriable => {
                debug!(job = self.job, error = %error, "the coordinator is asked again");
                self.changed.wait_for(&mut state, RETRY_PAUSE);
            }
            code => {
                state.failure = Some(match code {
                    Some(ErrorCode::FencedInstanceId) => self.taken_over(),
                    _ => error.to_string(),
                });
                (state.is_agreed, state.is_holding) = (false, false);
                state.is_lost = true;
                state.tell(Report::Lost);
                self.changed.notify_all();
                return Next::Leave;
            }
        }
        self.changed.notify_all();
        match state.is_leaving {
            true => Next::Leave,
            false => Next::Join,
        }
    }

    fn purge(&self) {
        let positions = std::mem::take(&mut self.state.lock().read_for_good);
        for (partition, offset) in positions {
            if let Err(e) = wait(self.transport.delete_records(&partition, offset)) {
                debug!(%partition, error = %e, "could not delete what was read; the next time does");
            }
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
    fn tell(&self, report: Report) {
        if let Some(reports) = &self.reports {
            reports.send(report);
        }
    }
}

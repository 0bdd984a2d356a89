//! A process's membership in the group of its job: it joins, learns its share, stays, hands over and leaves.
//!
//! A thread of its own speaks to the group's coordinator; the driver and the job's supervisor see what it agreed on:
//!
//! ```text
//! wait_for_share ──► an incarnation runs its tasks ──► ended
//!                       │            ▲ every commit carries `member_for_commit` (KIP-447)
//!                       ▼ Report::Reassigned: commits, ends       Report::Lost: rolls back, ends
//! ```
//! Tasks that are taken away are held until the incarnation has ended; then the process joins again, which frees them
//! for their new owner. So a task is never in two hands, and other tasks go on meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use tracing::{debug, info, warn};

use super::ScaleOut;
use super::assignor::{Member, Task, assign};
use super::plan::Plan;
use crate::client::{ClientError, Transport, wait};
use crate::env::Env;
use crate::protocol::consumer_protocol::{Assignment, Subscription};
use crate::protocol::messages::GroupMember;
use crate::protocol::messages::groups::{
    ClientIdentity, HeartbeatRequest, JoinGroupMember, JoinGroupProtocol, JoinGroupRequest,
    JoinGroupResponse, JoinedGroup, LeaveGroupRequest, LeavingMember, SyncGroupRequest,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::runtime::error::JobError;
use crate::runtime::report::{Report, Reports};
use crate::types::{GroupId, Offset, TopicPartition};

/// The name of the assignor, by which all members must know it.
const ASSIGNOR: &str = "onceflow-sticky";
const PROTOCOL_TYPE: &str = "consumer";
/// How long a failed request to the coordinator is not repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often what was read for good is deleted from the repartition topics (Kafka Streams' `repartition.purge.interval.ms`).
const PURGE_INTERVAL: Duration = Duration::from_secs(30);

/// What a member tells the leader beyond Kafka's own fields.
#[derive(Debug, Serialize, Deserialize)]
struct Words {
    /// What the job's state depends on: processes with another topology cannot share it.
    topology: String,
    workers: u32,
    /// The tasks whose state is on this process's disk.
    near: Vec<(u16, i32)>,
}

/// The membership; shared by the thread that keeps it, the supervisor and the driver.
pub(crate) struct Membership {
    env: Env,
    transport: Arc<dyn Transport>,
    group: GroupId,
    job: String,
    settings: ScaleOut,
    topology: String,
    workers: u32,
    plan: Plan,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    member: GroupMember,
    /// Whether `member` may commit; not while a new generation has begun that is not agreed on yet.
    is_agreed: bool,
    /// Whether this process holds what it was given last; also while it joins anew.
    is_holding: bool,
    /// The tasks of the last agreement.
    given: BTreeSet<Task>,
    /// The tasks of the incarnation that runs, if one does.
    running: Option<BTreeSet<Task>>,
    /// Where to tell the incarnation.
    reports: Option<Reports>,
    /// The group went on without this process: what runs must be rolled back.
    is_lost: bool,
    is_leaving: bool,
    /// Whether tasks were let go of since the last join.
    has_let_go: bool,
    /// Tasks whose state is on this process's disk.
    near: BTreeSet<Task>,
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
    #[allow(clippy::too_many_arguments, reason = "all of it is what a member is")]
    pub(crate) fn start(
        env: &Env,
        transport: &Arc<dyn Transport>,
        group: GroupId,
        job: &str,
        settings: ScaleOut,
        topology: String,
        workers: usize,
        plan: Plan,
    ) -> Result<Arc<Self>, JobError> {
        let member = GroupMember {
            group_instance_id: Some(settings.instance.clone()),
            ..GroupMember::default()
        };
        let membership = Arc::new(Self {
            env: env.clone(),
            transport: Arc::clone(transport),
            group,
            job: job.to_owned(),
            settings,
            topology,
            workers: u32::try_from(workers).unwrap_or(u32::MAX),
            plan,
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
        let spawned = env.spawn.spawn("of-member", Box::new(body));
        spawned.map_err(|e| JobError::Worker {
            worker: 0,
            why: format!("no thread for the membership: {e}"),
        })?;
        Ok(membership)
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Waits until the group gives this process a share and takes it; `None` once `is_stopped` says so.
    /// `reports` is told when the share changes.
    pub(crate) fn wait_for_share(
        &self,
        reports: &Reports,
        is_stopped: impl Fn() -> bool,
    ) -> Result<Option<BTreeSet<Task>>, JobError> {
        let mut state = self.state.lock();
        loop {
            if is_stopped() {
                return Ok(None);
            }
            if let Some(failure) = &state.failure {
                return Err(self.fenced(failure.clone()));
            }
            if state.is_holding {
                let share = state.given.clone();
                state.running = Some(share.clone());
                state.near.extend(share.iter().copied());
                state.reports = Some(reports.clone());
                state.is_lost = false;
                return Ok(Some(share));
            }
            self.changed.wait_for(&mut state, RETRY_PAUSE);
        }
    }

    /// The incarnation that `wait_for_share` began has ended; what it held and was taken away is let go of.
    pub(crate) fn ended(&self) {
        let mut state = self.state.lock();
        state.reports = None;
        if let Some(ran) = state.running.take() {
            state.has_let_go |= !ran.is_subset(&state.given);
        }
        self.changed.notify_all();
    }

    /// Who commits. Waits while the group agrees anew: afterwards this process still holds what it runs.
    ///
    /// # Errors
    /// If the group went on without this process, so that nothing may be committed any more.
    pub(crate) fn member_for_commit(&self) -> Result<GroupMember, JobError> {
        let mut state = self.state.lock();
        let deadline = self.env.clock.now().plus(self.settings.rebalance_timeout);
        while !state.is_agreed && !state.is_lost && self.env.clock.now() < deadline {
            self.changed.wait_for(&mut state, RETRY_PAUSE);
        }
        match state.is_agreed && !state.is_lost {
            true => Ok(state.member.clone()),
            false => Err(JobError::NotCommitted {
                job: self.job.clone(),
            }),
        }
    }

    /// Everything below these positions of repartition topics was read and committed.
    pub(crate) fn read_for_good(&self, positions: impl Iterator<Item = (TopicPartition, Offset)>) {
        self.state.lock().read_for_good.extend(positions);
    }

    /// Leaves the group, so that the others take over at once; or only goes, if it is to keep its share.
    pub(crate) fn leave(&self) {
        let member = {
            let mut state = self.state.lock();
            state.is_leaving = true;
            self.changed.notify_all();
            state.member.clone()
        };
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
        let mut next = Next::Join;
        while let Next::Join = next {
            next = match self.join_and_stay() {
                Ok(next) => next,
                Err(e) => self.recover(&e),
            };
        }
    }

    /// One generation: joins, agrees, and stays until the group agrees anew.
    fn join_and_stay(&self) -> Result<Next, ClientError> {
        let Some(joined) = self.join()? else {
            return Ok(Next::Leave);
        };
        let is_leader = joined.leader == joined.member_id;
        let assignments = match is_leader {
            true => self.share_out(&joined.members),
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
        let mut held = state.given.clone();
        if !state.is_lost {
            held.extend(state.running.iter().flatten().copied());
        }
        let near = state.near.iter().map(|task| (task.topics, task.partition));
        let words = Words {
            topology: self.topology.clone(),
            workers: self.workers,
            near: near.collect(),
        };
        #[expect(clippy::expect_used, reason = "no input decides whether it fails")]
        let user_data = postcard::to_stdvec(&words).expect("words of numbers and text have a form");
        Subscription {
            topics: self.plan.topics().cloned().collect(),
            user_data: Some(user_data.into()),
            owned: self.plan.partitions(&held),
            generation: state.member.generation,
            rack: None,
        }
        .encode()
    }

    /// The leader's work: everybody's assignment. A member that cannot share the job is told why instead.
    fn share_out(&self, members: &[JoinGroupMember]) -> Vec<(String, Bytes)> {
        let (mut fit, mut ids, mut all) = (Vec::new(), BTreeMap::new(), Vec::new());
        for member in members {
            match self.understand(member) {
                Ok(understood) => {
                    ids.insert(understood.id.clone(), member.member_id.clone());
                    fit.push(understood);
                }
                Err(why) => {
                    warn!(
                        job = self.job,
                        member = member.member_id,
                        why,
                        "gives no share"
                    );
                    let told = Assignment {
                        partitions: vec![],
                        user_data: Some(why.into()),
                    };
                    all.push((member.member_id.clone(), told.encode()));
                }
            }
        }
        let given = assign(&fit, &self.plan.topic_groups());
        info!(
            job = self.job,
            members = fit.len(),
            is_final = given.is_final(),
            "shares out the tasks"
        );
        for (id, tasks) in &given.now {
            let told = Assignment {
                partitions: self.plan.partitions(tasks),
                user_data: None,
            };
            all.push((ids[id].clone(), told.encode()));
        }
        all
    }

    fn understand(&self, member: &JoinGroupMember) -> Result<Member, String> {
        let subscription = Subscription::decode(&member.metadata).map_err(|e| e.to_string())?;
        let words = subscription.user_data.as_deref().unwrap_or_default();
        let words: Words = postcard::from_bytes(words)
            .map_err(|e| format!("it is no process of this job, or of another version: {e}"))?;
        if words.topology != self.topology {
            return Err(format!(
                "it has another topology ({:?}) than the process that leads the group ({:?}): \
                 stop all processes of the job, then start the new ones",
                words.topology, self.topology
            ));
        }
        let near = words
            .near
            .iter()
            .map(|&(topics, partition)| (Task { topics, partition }, 0));
        Ok(Member {
            id: member
                .group_instance_id
                .clone()
                .unwrap_or_else(|| member.member_id.clone()),
            workers: words.workers,
            generation: subscription.generation,
            owned: self.plan.tasks(&subscription.owned),
            lags: near.collect(),
        })
    }

    /// Takes up what the group agreed on; `true` if the membership has ended for good.
    fn take_up(&self, joined: &JoinedGroup, assignment: &Bytes) -> bool {
        let mut state = self.state.lock();
        state.member.generation = joined.generation;
        let told = Assignment::decode(assignment).map_err(|e| e.to_string());
        let told = told.and_then(|told| match told.user_data {
            Some(why) => Err(String::from_utf8_lossy(&why).into_owned()),
            None => Ok(told.partitions),
        });
        match told {
            Ok(partitions) => state.given = self.plan.tasks(&partitions),
            Err(why) => {
                state.failure = Some(format!("the group gives it no share: {why}"));
                state.is_lost = true;
                state.tell(Report::Lost);
            }
        }
        state.is_agreed = state.failure.is_none();
        state.is_holding = state.is_agreed;
        info!(
            job = self.job,
            generation = joined.generation,
            tasks = state.given.len(),
            "has its share"
        );
        if state
            .running
            .as_ref()
            .is_some_and(|running| *running != state.given)
        {
            state.tell(Report::Reassigned);
        }
        self.changed.notify_all();
        state.failure.is_some()
    }

    /// Heartbeats until the group agrees anew, or this process wants it to.
    fn stay(&self, joined: &JoinedGroup) -> Result<Next, ClientError> {
        let mut purge_at = self.env.clock.now().plus(PURGE_INTERVAL);
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
                purge_at = self.env.clock.now().plus(PURGE_INTERVAL);
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
                warn!(job = self.job, "the group went on without this process");
                state.member.member_id.clear();
                state.member.generation = -1;
                state.given.clear();
                (state.is_agreed, state.is_holding) = (false, false);
                state.is_lost = state.running.is_some();
                state.tell(Report::Lost);
            }
            _ if error.kind() == ErrorKind::Retriable => {
                debug!(job = self.job, error = %error, "the coordinator is asked again");
                self.changed.wait_for(&mut state, RETRY_PAUSE);
            }
            code => {
                state.failure = Some(match code {
                    Some(ErrorCode::FencedInstanceId) => format!(
                        "another process took over as instance {}: give each process a name of its own",
                        self.settings.instance
                    ),
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

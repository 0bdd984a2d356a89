//! The membership towards the group's coordinator: joins, agrees, heartbeats, joins anew.
//!
//! A [`Keeper`] does it whenever it is due: on a thread of its own, or by the turns that a bed gives it (design D27).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::{debug, info};

use super::{Membership, State};
use crate::client::ClientError;
use crate::env::warn;
use crate::protocol::consumer_protocol::Subscription;
use crate::protocol::messages::groups::{
    ClientIdentity, HeartbeatRequest, JoinGroupMember, JoinGroupProtocol, JoinGroupRequest,
    JoinGroupResponse, JoinedGroup, SyncGroupRequest,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::runtime::contract::error::JobError;
use crate::runtime::scale::agreement::{self, Given, Meeting, Words};
use crate::runtime::task::report::Report;

/// The thread that keeps the membership.
const THREAD: &str = "of-member";
/// The name of the assignor, by which all members must know it.
const ASSIGNOR: &str = "onceflow-sticky";
const PROTOCOL_TYPE: &str = "consumer";
/// Pause before a failed request to the coordinator is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The next step of the membership.
enum Next {
    Join,
    Leave,
}

/// The keeper of a membership, from its first join to its end.
pub(crate) struct Keeper {
    membership: Arc<Membership>,
    /// `None` once the membership has ended.
    work: Option<BoxFuture<'static, ()>>,
}

impl Keeper {
    pub(super) fn new(membership: &Arc<Membership>) -> Self {
        let kept = Arc::clone(membership);
        // Its first turn is due.
        membership.bell.ring();
        Self {
            membership: Arc::clone(membership),
            work: Some(async move { kept.keep().await }.boxed()),
        }
    }

    /// Gives itself turns, on a thread of its own.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(mut self) -> Result<(), JobError> {
        let spawn = Arc::clone(&self.membership.env.spawn);
        let body = move || {
            let membership = Arc::clone(&self.membership);
            while self.work.is_some() {
                membership.bell.wait(&membership.env.clock);
                self.turn();
            }
        };
        let spawned = spawn.spawn(THREAD, Box::new(body));
        spawned
            .map(drop)
            .map_err(|e| JobError::no_thread(THREAD, &e))
    }

    /// Goes on as far as it can without waiting; `false` if nothing was due.
    pub(crate) fn turn(&mut self) -> bool {
        let Membership { bell, env, .. } = &*self.membership;
        let Some(work) = self.work.as_mut() else {
            return false;
        };
        if !bell.take(env.clock.now()) {
            return false;
        }
        let waker = Waker::from(Arc::clone(bell));
        let mut context = Context::from_waker(&waker);
        if work.as_mut().poll(&mut context).is_ready() {
            self.work = None;
        }
        true
    }

    /// In how long its next turn is due, if time brings it about.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        let Membership { bell, env, .. } = &*self.membership;
        bell.next_due(env.clock.now())
    }
}

impl Membership {
    async fn keep(&self) {
        let is_successor = self.is_known().await;
        self.state.lock().is_successor = is_successor;
        let mut next = Next::Join;
        while let Next::Join = next {
            next = match self.join_and_stay().await {
                Ok(next) => next,
                Err(e) => self.recover(&e).await,
            };
        }
        // A join that was under way when the process left made it a member again.
        let is_leaving = self.state.lock().is_leaving;
        if is_leaving {
            self.tell_that_it_leaves().await;
        }
    }

    /// Waits for so long, or until `is_over`; whoever brings that about rings the bell.
    async fn pause(&self, duration: Duration, is_over: impl Fn(&State) -> bool) {
        let until = self.env.clock.now().plus(duration);
        std::future::poll_fn(|_| {
            if is_over(&self.state.lock()) || self.env.clock.now() >= until {
                return Poll::Ready(());
            }
            self.bell.ring_at(until);
            Poll::Pending
        })
        .await;
    }

    /// Whether the group has the instance from an earlier process. If it does not say, it may have.
    async fn is_known(&self) -> bool {
        match self.transport.describe_group(&self.group).await {
            Ok(group) => {
                let instance = Some(self.settings.instance.as_str());
                let mut members = group.members.iter();
                members.any(|member| member.instance_id.as_deref() == instance)
            }
            Err(e) => e.code() != Some(ErrorCode::GroupIdNotFound),
        }
    }

    /// One generation: joins, agrees, and stays until the group agrees anew.
    async fn join_and_stay(&self) -> Result<Next, ClientError> {
        let Some(joined) = self.join().await? else {
            return Ok(Next::Leave);
        };
        let is_leader = joined.leader == joined.member_id;
        let assignments = match is_leader {
            true => self.share_out(&joined.members).await?,
            false => vec![],
        };
        let synced = self.transport.sync_group(SyncGroupRequest {
            group: self.group.clone(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            group_instance_id: Some(self.settings.instance.clone()),
            protocol_type: Some(PROTOCOL_TYPE.to_owned()),
            protocol_name: Some(ASSIGNOR.to_owned()),
            assignments,
        });
        let synced = synced.await?;
        if self.take_up(&joined, &synced.assignment) {
            return Ok(Next::Leave);
        }
        self.stay(&joined).await
    }

    async fn join(&self) -> Result<Option<JoinedGroup>, ClientError> {
        std::future::poll_fn(|_| {
            // Whoever ends the doubt, or has it leave, rings the bell.
            let state = self.state.lock();
            match state.is_in_doubt && !state.is_leaving {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        })
        .await;
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
            match self.transport.join_group(request).await? {
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
    async fn share_out(
        &self,
        members: &[JoinGroupMember],
    ) -> Result<Vec<(String, Bytes)>, ClientError> {
        let meeting = Meeting::new(&self.plan, &self.topology, members);
        let ends = match self.replicas.upgrade() {
            Some(replicas) => replicas.ends(&meeting.held()).await?,
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
    async fn stay(&self, joined: &JoinedGroup) -> Result<Next, ClientError> {
        let mut purge_at = self.env.clock.now().plus(self.settings.purge_interval);
        loop {
            let is_news = |state: &State| state.is_leaving || state.has_let_go;
            self.pause(self.settings.heartbeat_interval(), is_news)
                .await;
            {
                let state = self.state.lock();
                if state.is_leaving {
                    return Ok(Next::Leave);
                }
                if state.has_let_go {
                    return Ok(Next::Join);
                }
            }
            let beat = self.transport.heartbeat(HeartbeatRequest {
                group: self.group.clone(),
                generation: joined.generation,
                member_id: joined.member_id.clone(),
                group_instance_id: Some(self.settings.instance.clone()),
            });
            match beat.await {
                Ok(()) => {}
                Err(e) if e.code() == Some(ErrorCode::RebalanceInProgress) => {
                    return Ok(Next::Join);
                }
                Err(e) => return Err(e),
            }
            if self.env.clock.now() >= purge_at {
                purge_at = self.env.clock.now().plus(self.settings.purge_interval);
                self.purge().await;
            }
        }
    }

    /// Decides after an error: come again as a new member, try again, or give up.
    async fn recover(&self, error: &ClientError) -> Next {
        match error.code() {
            Some(ErrorCode::RebalanceInProgress) => {}
            Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => self.lose(error),
            _ if error.kind() == ErrorKind::Retriable => {
                debug!(job = self.job, error = %error, "the coordinator is asked again");
                self.pause(RETRY_PAUSE, |state| state.is_leaving).await;
            }
            _ => {
                self.give_up(error);
                return Next::Leave;
            }
        }
        self.changed.notify_all();
        match self.state.lock().is_leaving {
            true => Next::Leave,
            false => Next::Join,
        }
    }

    /// The group went on without this process: what runs is rolled back, and it joins as a new member if nobody has taken over.
    fn lose(&self, error: &ClientError) {
        warn!(job = self.job, %error, "the group went on without this process");
        let mut state = self.state.lock();
        state.member.member_id.clear();
        state.member.generation = -1;
        state.given = Given::default();
        (state.is_agreed, state.is_holding) = (false, false);
        state.is_lost = state.running.is_some();
        state.is_in_doubt = true;
        state.tell(Report::Lost);
        self.follow(&state);
    }

    /// The membership has ended for good.
    fn give_up(&self, error: &ClientError) {
        let mut state = self.state.lock();
        state.failure = Some(match error.code() {
            Some(ErrorCode::FencedInstanceId) => self.taken_over(),
            _ => error.to_string(),
        });
        (state.is_agreed, state.is_holding) = (false, false);
        state.is_lost = true;
        state.tell(Report::Lost);
        self.changed.notify_all();
    }

    /// Deletes what was read for good of the topics between the instances.
    async fn purge(&self) {
        let positions = std::mem::take(&mut self.state.lock().read_for_good);
        for (partition, offset) in positions {
            if let Err(e) = self.transport.delete_records(&partition, offset).await {
                debug!(%partition, error = %e, "could not delete what was read; the next time does");
            }
        }
    }
}

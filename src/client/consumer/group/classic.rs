//! A member by the classic protocol: join, sync, heartbeat, and again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::leader::{Counts, Subscriptions, unreadable};
use super::member::{Member, Stop};
use crate::client::ClientError;
use crate::client::consumer::config::AssignmentStrategy;
use crate::client::wait;
use crate::env::Instant;
use crate::protocol::ErrorCode;
use crate::protocol::consumer_protocol::{Assignment, Subscription};
use crate::protocol::messages::groups::{
    ClientIdentity, HeartbeatRequest, JoinGroupProtocol, JoinGroupRequest, JoinGroupResponse,
    JoinedGroup, LeaveGroupRequest, LeavingMember, SyncGroupRequest,
};
use crate::types::{TopicName, TopicPartition};

/// The kind of members that consumers are.
const PROTOCOL_TYPE: &str = "consumer";

/// Runs until the consumer is closed or the group refuses it.
pub(super) fn run(member: Member) {
    let mut classic = Classic {
        member,
        leading: None,
    };
    let stop = loop {
        if let Err(stop) = classic.round() {
            break stop;
        }
    };
    match stop {
        Stop::Closing => classic.leave(),
        Stop::Failed(error) => {
            classic.member.lose();
            classic.member.shared.fail(error);
        }
    }
}

/// Assignment of the leader, and when it looks at the topics again.
struct Leading {
    counts: Counts,
    next_look: Instant,
}

struct Classic {
    member: Member,
    leading: Option<Leading>,
}

impl Classic {
    /// One generation: from the join until the next one is needed.
    fn round(&mut self) -> Result<(), Stop> {
        if !self.is_cooperative() && !self.apply(BTreeSet::new())? {
            return Ok(());
        }
        let Some(joined) = self.join()? else {
            return Ok(());
        };
        let Some(assigned) = self.sync(&joined)? else {
            return Ok(());
        };
        self.member.generation = joined.generation;
        self.member.confirm();
        if self.adopt(assigned)? {
            self.stay()?;
        }
        Ok(())
    }

    fn is_cooperative(&self) -> bool {
        let strategies = &self.member.config.partition_assignment_strategy.0;
        let mut strategies = strategies.iter();
        strategies.all(|it| *it == AssignmentStrategy::CooperativeSticky)
    }

    /// Joins; `None` if it is to be tried again.
    fn join(&mut self) -> Result<Option<JoinedGroup>, Stop> {
        let request = self.join_request();
        let reply = self.member.transport.join_group(request);
        match self.member.ask(reply)? {
            Ok(JoinGroupResponse::Joined(joined)) => {
                self.member.member_id.clone_from(&joined.member_id);
                Ok(Some(joined))
            }
            Ok(JoinGroupResponse::MemberIdRequired { member_id }) => {
                self.member.member_id = member_id;
                Ok(None)
            }
            Err(error) => self.member.judge(error).map(|()| None),
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let member = &self.member;
        let config = &member.config;
        let subscription = Subscription {
            topics: member.topics.clone(),
            owned: member.owned.iter().cloned().collect(),
            generation: member.generation,
            ..Subscription::default()
        };
        let metadata = subscription.encode();
        let strategies = config.partition_assignment_strategy.0.iter();
        let protocols = strategies.map(|it| JoinGroupProtocol {
            name: it.name().to_owned(),
            metadata: metadata.clone(),
        });
        JoinGroupRequest {
            group: member.group.clone(),
            client: ClientIdentity {
                client_id: config.client_id.clone(),
                client_host: String::new(),
            },
            session_timeout: config.session_timeout,
            rebalance_timeout: config.max_poll_interval,
            member_id: member.member_id.clone(),
            group_instance_id: config.group_instance_id.clone(),
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocols: protocols.collect(),
            reason: None,
            requires_known_member_id: true,
            supports_skipping_assignment: true,
        }
    }

    /// Learns what to read, as the leader after having said it; `None` if the group is to be joined again.
    fn sync(&mut self, joined: &JoinedGroup) -> Result<Option<BTreeSet<TopicPartition>>, Stop> {
        let assignments = match self.lead(joined) {
            Ok(assignments) => assignments,
            Err(error) => return self.member.judge(error).map(|()| None),
        };
        let request = SyncGroupRequest {
            group: self.member.group.clone(),
            generation: joined.generation,
            member_id: joined.member_id.clone(),
            group_instance_id: self.member.config.group_instance_id.clone(),
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments,
        };
        let reply = self.member.transport.sync_group(request);
        match self.member.ask(reply)? {
            Ok(synced) => match Assignment::decode(&synced.assignment).map(|it| it.partitions) {
                Ok(assigned) => Ok(Some(assigned.into_iter().collect())),
                Err(error) => Err(Stop::Failed(unreadable(&error))),
            },
            Err(error) => self.member.judge(error).map(|()| None),
        }
    }

    /// The leader's assignments; none from the others.
    fn lead(&mut self, joined: &JoinedGroup) -> Result<Vec<(String, Bytes)>, ClientError> {
        self.leading = None;
        if joined.leader != joined.member_id || joined.members.is_empty() {
            return Ok(Vec::new());
        }
        let subscriptions = Subscriptions::decode(&joined.members)?;
        let counts = self.counts(subscriptions.topics())?;
        self.leading = Some(Leading {
            counts: counts.clone(),
            next_look: self.next_look(),
        });
        if joined.skip_assignment {
            return Ok(Vec::new());
        }
        let name = joined.protocol_name.as_deref().unwrap_or_default();
        let strategy = AssignmentStrategy::from_name(name);
        let strategy = strategy.ok_or_else(|| {
            let code = ErrorCode::InconsistentGroupProtocol;
            ClientError::refused("JoinGroup", code)
        })?;
        let assigned = subscriptions.assign(strategy, &counts).into_iter();
        let encoded = assigned.map(|(id, partitions)| {
            let assignment = Assignment {
                partitions,
                user_data: None,
            };
            (id, assignment.encode())
        });
        Ok(encoded.collect())
    }

    fn next_look(&self) -> Instant {
        let age = self.member.config.metadata_max_age;
        self.member.now().plus(age)
    }

    fn counts(&self, topics: BTreeSet<TopicName>) -> Result<Counts, ClientError> {
        let mut counts = BTreeMap::new();
        for topic in topics {
            if let Some(found) = wait(self.member.transport.topic(&topic))? {
                counts.insert(topic, found.partitions_count);
            }
        }
        Ok(counts)
    }

    /// Takes over what was assigned; false if the group is to be joined again because something was given up for others.
    fn adopt(&mut self, assigned: BTreeSet<TopicPartition>) -> Result<bool, Stop> {
        let kept: BTreeSet<_> = &self.member.owned & &assigned;
        let gives_up = kept != self.member.owned;
        if gives_up && !self.apply(kept)? {
            return Ok(false);
        }
        self.member.owned.clone_from(&assigned);
        self.member.shared.publish(assigned, false);
        Ok(!gives_up)
    }

    /// Waits until the consumer reads just `partitions`, alive meanwhile; false if the membership was lost on the way.
    fn apply(&mut self, partitions: BTreeSet<TopicPartition>) -> Result<bool, Stop> {
        if self.member.owned == partitions {
            return Ok(true);
        }
        let version = self.member.shared.publish(partitions.clone(), false);
        loop {
            let next = self.next_heartbeat();
            if self.member.shared.wait_applied(version, next)? {
                self.member.owned = partitions;
                return Ok(true);
            }
            if self.has_left_for_silence()? {
                return Ok(false);
            }
            if let Err(error) = self.heartbeat()? {
                self.member.judge(error)?;
                if self.member.generation < 0 {
                    return Ok(false);
                }
            }
        }
    }

    fn next_heartbeat(&self) -> Instant {
        let interval = self.member.config.heartbeat_interval;
        self.member.now().plus(interval)
    }

    fn heartbeat(&self) -> Result<Result<(), ClientError>, Stop> {
        let request = HeartbeatRequest {
            group: self.member.group.clone(),
            generation: self.member.generation,
            member_id: self.member.member_id.clone(),
            group_instance_id: self.member.config.group_instance_id.clone(),
        };
        let reply = self.member.transport.heartbeat(request);
        self.member.ask(reply)
    }

    /// Heartbeats until the group is to be joined again.
    fn stay(&mut self) -> Result<(), Stop> {
        loop {
            let next = self.next_heartbeat();
            self.member.shared.sleep(next)?;
            if self.has_left_for_silence()? || self.have_topics_changed()? {
                return Ok(());
            }
            match self.heartbeat()? {
                Ok(()) => {}
                Err(error) if is_passing(&error) => self.member.back_off()?,
                Err(error) => return self.member.judge(error),
            }
        }
    }

    fn have_topics_changed(&mut self) -> Result<bool, Stop> {
        let due = self.leading.as_ref();
        let Some(leading) = due.filter(|it| it.next_look <= self.member.now()) else {
            return Ok(false);
        };
        let topics = leading.counts.keys().chain(&self.member.topics);
        let counts = self.counts(topics.cloned().collect());
        let next_look = self.next_look();
        match (counts, &mut self.leading) {
            (Ok(counts), Some(leading)) => {
                leading.next_look = next_look;
                Ok(counts != leading.counts)
            }
            // The next look may succeed.
            (Err(error), _) if error.kind() == crate::protocol::ErrorKind::Retriable => Ok(false),
            (Err(error), _) => Err(Stop::Failed(error)),
            (Ok(_), None) => Ok(false),
        }
    }

    /// Leaves the group if nobody has polled for too long, and waits for a poll.
    fn has_left_for_silence(&mut self) -> Result<bool, Stop> {
        if !self.member.is_overdue() {
            return Ok(false);
        }
        self.send_leave();
        self.member.member_id.clear();
        self.member.lose();
        self.member.wait_for_a_poll()?;
        Ok(true)
    }

    /// A static member stays until its session ends, so that it may come back without a rebalance.
    fn leave(&mut self) {
        if self.member.config.group_instance_id.is_none() {
            self.send_leave();
        }
    }

    fn send_leave(&self) {
        let member_id = self.member.member_id.clone();
        if member_id.is_empty() {
            return;
        }
        let leaving = LeavingMember {
            member_id,
            group_instance_id: self.member.config.group_instance_id.clone(),
            reason: None,
        };
        let request = LeaveGroupRequest {
            group: self.member.group.clone(),
            members: vec![leaving],
        };
        if let Err(error) = wait(self.member.transport.leave_group(request)) {
            // The session ends by itself.
            crate::env::warn!(group = %self.member.group, %error, "the consumer could not leave its group");
        }
    }
}

/// Whether the membership stands although this heartbeat failed.
fn is_passing(error: &ClientError) -> bool {
    error.kind() == crate::protocol::ErrorKind::Retriable
}

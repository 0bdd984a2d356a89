//! A member by the consumer protocol (KIP-848): it heartbeats, and reads what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::member::{Member, Stop};
use crate::client::{ClientError, wait};
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    AssignedTopic, ClientIdentity, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use crate::types::{TopicId, TopicName, TopicPartition};

/// The epoch of a member that leaves for good, and of a static one that may come back.
const GONE: i32 = -1;
const AWAY: i32 = -2;

/// Runs until the consumer is closed or the group refuses it.
pub(super) fn run(mut member: Member) {
    let unique = member.env().random.next_u128();
    member.member_id = TopicId(unique).to_string();
    let mut modern = Modern {
        target: BTreeSet::new(),
        names: BTreeMap::new(),
        ids: BTreeMap::new(),
        says_everything: true,
        interval: member.config.heartbeat_interval,
        published: None,
        member,
    };
    let stop = loop {
        if let Err(stop) = modern.round() {
            break stop;
        }
    };
    match stop {
        Stop::Closing => modern.leave(),
        Stop::Failed(error) => {
            modern.member.lose();
            modern.member.shared.fail(error);
        }
    }
}

struct Modern {
    member: Member,
    /// Target assignment.
    target: BTreeSet<TopicPartition>,
    names: BTreeMap<TopicId, TopicName>,
    /// The identities of the topics that the member was given.
    ids: BTreeMap<TopicName, TopicId>,
    /// After a lost answer, the next heartbeat repeats all that the group knows of the member.
    says_everything: bool,
    interval: Duration,
    /// Assignment that the consumer has not applied yet.
    published: Option<(u64, BTreeSet<TopicPartition>)>,
}

impl Modern {
    /// One heartbeat, and what follows from it until the next one.
    fn round(&mut self) -> Result<(), Stop> {
        if self.member.is_overdue() {
            return self.leave_for_silence();
        }
        let request = self.request();
        let reply = self.member.transport.consumer_group_heartbeat(request);
        match self.member.ask(reply)? {
            Ok(response) => self.take(response)?,
            Err(error) => return self.refused(error),
        }
        self.reconcile()
    }

    fn is_joining(&self) -> bool {
        self.member.generation <= 0
    }

    fn request(&self) -> ConsumerGroupHeartbeatRequest {
        let config = &self.member.config;
        let says_everything = self.says_everything || self.is_joining();
        ConsumerGroupHeartbeatRequest {
            group: self.member.group.clone(),
            client: ClientIdentity {
                client_id: config.client_id.clone(),
                client_host: String::new(),
            },
            member_id: self.member.member_id.clone(),
            member_epoch: self.member.generation.max(0),
            group_instance_id: config.group_instance_id.clone(),
            rack_id: None,
            rebalance_timeout: says_everything.then_some(config.max_poll_interval),
            subscribed_topic_names: says_everything.then(|| self.member.topics.clone()),
            subscribed_topic_regex: None,
            hidden_topics: Vec::new(),
            server_assignor: match says_everything {
                true => config.group_remote_assignor.clone(),
                false => None,
            },
            topic_partitions: Some(self.owned_topics()),
        }
    }

    fn owned_topics(&self) -> Vec<AssignedTopic> {
        let mut topics: BTreeMap<TopicId, AssignedTopic> = BTreeMap::new();
        for place in &self.member.owned {
            let Some(id) = self.ids.get(&place.topic) else {
                continue;
            };
            let topic = topics.entry(*id).or_insert_with(|| AssignedTopic {
                topic_id: *id,
                topic: Some(place.topic.clone()),
                partitions: Vec::new(),
            });
            topic.partitions.push(place.partition);
        }
        topics.into_values().collect()
    }

    fn refused(&mut self, error: ClientError) -> Result<(), Stop> {
        self.says_everything = true;
        let was_joining = self.is_joining();
        match error.code() {
            // The member keeps its id, and joins with it anew.
            Some(ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch) => self.lose(),
            Some(ErrorCode::GroupIdNotFound) if !was_joining => self.lose(),
            _ => return self.member.judge(error),
        }
        match was_joining {
            true => self.member.back_off(),
            false => Ok(()),
        }
    }

    fn lose(&mut self) {
        self.target.clear();
        self.published = None;
        self.member.lose();
    }

    fn take(&mut self, response: ConsumerGroupHeartbeatResponse) -> Result<(), Stop> {
        self.says_everything = false;
        self.interval = response.heartbeat_interval.max(Duration::from_millis(1));
        self.member.member_id = response.member_id;
        self.member.generation = response.member_epoch;
        self.member.confirm();
        let Some(assignment) = response.assignment else {
            return Ok(());
        };
        match self.places(&assignment) {
            Ok(target) => {
                if self.have_topics_been_recreated(&assignment) {
                    // S16: what was read of the old topic says nothing of the new one.
                    self.lose();
                    self.says_everything = true;
                } else {
                    self.target = target;
                }
                Ok(())
            }
            Err(error) => self.refused(error),
        }
    }

    /// Takes the topics' identities in; whether one that the member owns has another one than before.
    fn have_topics_been_recreated(&mut self, topics: &[AssignedTopic]) -> bool {
        let mut are_new = false;
        for id in topics.iter().map(|it| it.topic_id) {
            let Some(name) = self.names.get(&id) else {
                continue;
            };
            let before = self.ids.insert(name.clone(), id);
            let is_other = before.is_some_and(|before| before != id);
            are_new |= is_other && self.member.owned.iter().any(|it| it.topic == *name);
        }
        are_new
    }

    fn places(
        &mut self,
        topics: &[AssignedTopic],
    ) -> Result<BTreeSet<TopicPartition>, ClientError> {
        let is_known = |it: &AssignedTopic| self.names.contains_key(&it.topic_id);
        if !topics.iter().all(is_known) {
            let all = wait(self.member.transport.topics())?;
            // Names of topics that are gone stay: what is owned of them is still to be given up.
            self.names
                .extend(all.into_iter().map(|it| (it.id, it.name)));
        }
        let mut places = BTreeSet::new();
        for topic in topics {
            let name = self.names.get(&topic.topic_id).ok_or_else(|| {
                ClientError::refused("Metadata", ErrorCode::UnknownTopicOrPartition)
            })?;
            let partitions = topic.partitions.iter();
            places.extend(partitions.map(|it| TopicPartition::new(name.clone(), *it)));
        }
        Ok(places)
    }

    /// Gives up first, then takes over; returns when the next heartbeat is due, at once if what is owned has changed.
    fn reconcile(&mut self) -> Result<(), Stop> {
        let next = self.member.now().plus(self.interval);
        loop {
            if self.published.is_none() {
                self.publish();
            }
            let Some((version, _)) = &self.published else {
                return Ok(self.member.shared.sleep(next)?);
            };
            if !self.member.shared.wait_applied(*version, next)? {
                return Ok(());
            }
            let applied = self.published.take();
            let applied = applied
                .map(|(_, partitions)| partitions)
                .unwrap_or_default();
            let has_given_up = !self.member.owned.is_subset(&applied);
            self.member.owned = applied;
            if has_given_up {
                return Ok(());
            }
        }
    }

    fn publish(&mut self) {
        let kept: BTreeSet<_> = &self.member.owned & &self.target;
        let wanted = match kept == self.member.owned {
            true => self.target.clone(),
            false => kept,
        };
        if wanted != self.member.owned {
            let version = self.member.shared.publish(wanted.clone(), false);
            self.published = Some((version, wanted));
        }
    }

    fn leave_for_silence(&mut self) -> Result<(), Stop> {
        self.send_leave(GONE);
        self.lose();
        self.says_everything = true;
        self.member.wait_for_a_poll()
    }

    fn leave(&self) {
        let is_static = self.member.config.group_instance_id.is_some();
        self.send_leave(if is_static { AWAY } else { GONE });
    }

    fn send_leave(&self, member_epoch: i32) {
        if self.is_joining() {
            return;
        }
        let request = ConsumerGroupHeartbeatRequest {
            member_epoch,
            topic_partitions: None,
            ..self.request()
        };
        if let Err(error) = wait(self.member.transport.consumer_group_heartbeat(request)) {
            // The session ends by itself.
            crate::env::warn!(group = %self.member.group, %error, "the consumer could not leave its group");
        }
    }
}

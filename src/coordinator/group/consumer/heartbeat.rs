//! Requests of a heartbeat: to join, to stay, to leave; and the roster that follows.

use super::assignor::{self, Assignor};
use super::reconcile::reconcile;
use super::roster::{AWAY, GONE, Member, Roster, assignment_of, listed, updated_record};
use super::{Assignment, ConsumerGroup, Context};
use crate::coordinator::consumer_log::{CurrentRecord, MemberRecord};
use crate::coordinator::group::topics::Topics;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};

/// The longest name that a member may give, in bytes: keys hold 16-bit lengths.
const NAME_BYTES_MAX: usize = 4096;
/// Most topics of a member: one group's records must fit one batch of the journal.
const TOPICS_COUNT_MAX: usize = 10_000;

/// Changed roster, and the member's answer.
type Outcome = (Option<Roster>, ConsumerGroupHeartbeatResponse);

/// Checks what does not depend on the group.
pub(in crate::coordinator::group) fn check_heartbeat(
    message: &ConsumerGroupHeartbeatRequest,
) -> Result<(), ErrorCode> {
    let names = [
        Some(&message.member_id),
        Some(&message.client.client_id),
        Some(&message.client.client_host),
        message.group_instance_id.as_ref(),
        message.rack_id.as_ref(),
    ];
    let is_bounded = names
        .into_iter()
        .flatten()
        .all(|it| it.len() <= NAME_BYTES_MAX);
    let topics = message.subscribed_topic_names.as_ref();
    let has_regex = message.subscribed_topic_regex.as_ref();
    let has_regex = has_regex.is_some_and(|it| !it.is_empty());
    let is_legal = match message.member_epoch {
        // Whoever joins owns nothing, and says what it wants.
        0 => {
            message.rebalance_timeout.is_some()
                && (topics.is_some() || has_regex)
                && message.topic_partitions.as_ref().is_none_or(Vec::is_empty)
        }
        GONE => !message.member_id.is_empty(),
        AWAY => !message.member_id.is_empty() && message.group_instance_id.is_some(),
        epoch => epoch > 0 && !message.member_id.is_empty(),
    };
    let is_static_name_legal = message.group_instance_id.as_deref() != Some("");
    if !is_bounded
        || !is_legal
        || !is_static_name_legal
        || topics.is_some_and(|it| it.len() > TOPICS_COUNT_MAX)
    {
        return Err(ErrorCode::InvalidRequest);
    }
    let assignor = message.server_assignor.as_deref();
    match assignor.is_none_or(|it| Assignor::from_name(it).is_some()) {
        true => Ok(()),
        false => Err(ErrorCode::UnsupportedAssignor),
    }
}

impl ConsumerGroup {
    /// The roster after a heartbeat, if it changes, and the answer.
    pub(super) fn compute(
        &mut self,
        message: &ConsumerGroupHeartbeatRequest,
        unique: u128,
        topics: &Topics,
        cx: &Context<'_>,
    ) -> Result<Outcome, ErrorCode> {
        if message.member_epoch < 0 {
            return self.leave(message, cx);
        }
        if let Some(response) = self.unchanged(message, topics, cx) {
            return Ok((None, response));
        }
        let mut after = self.roster.clone();
        let member_id = enter(&mut after, message, unique, cx)?;
        let before = after.members.get(&member_id).cloned().unwrap_or_default();
        let record = updated_record(&before.record, message);
        let wants_other = record.subscribed_topic_names != before.record.subscribed_topic_names
            || record.subscribed_topic_regex != before.record.subscribed_topic_regex
            || record.server_assignor != before.record.server_assignor;
        let member = after.members.entry(member_id.clone()).or_default();
        member.record = record;
        self.resolve(&mut after, &message.hidden_topics, topics)?;
        let metadata_hash = topics.hash(after.subscribed_topics());
        if wants_other || metadata_hash != after.metadata_hash {
            // A target that is to be computed anyway takes this into account, too.
            if after.epoch == after.target_epoch {
                after.epoch = after.epoch.saturating_add(1);
            }
            after.metadata_hash = metadata_hash;
        }
        if after.epoch > after.target_epoch {
            after.target = assignor::assign(&after, topics);
            after.target_epoch = after.epoch;
        }
        let owned = message.topic_partitions.as_deref().map(assignment_of);
        reconcile(&mut after, &member_id, owned.as_ref());
        self.topics_version = Some(topics.version());
        let response = response(&before, &after, &member_id, message, topics, cx);
        Ok((Some(after), response))
    }

    /// The answer to a heartbeat that changes nothing: the usual case, and it costs no copy of the roster.
    fn unchanged(
        &self,
        message: &ConsumerGroupHeartbeatRequest,
        topics: &Topics,
        cx: &Context<'_>,
    ) -> Option<ConsumerGroupHeartbeatResponse> {
        let member = self.roster.members.get(&message.member_id)?;
        let is_settled = member.current.state == super::MemberState::Stable
            && member.current.epoch == message.member_epoch
            && member.current.epoch == self.roster.epoch
            && self.roster.target_epoch == self.roster.epoch
            && self.topics_version == Some(topics.version());
        let says_nothing_new = message.subscribed_topic_names.is_none()
            && message.subscribed_topic_regex.is_none()
            && message.server_assignor.is_none()
            && message.rack_id.is_none()
            && message.rebalance_timeout.is_none()
            && message.group_instance_id == member.record.instance_id;
        (is_settled && says_nothing_new).then(|| ConsumerGroupHeartbeatResponse {
            member_id: message.member_id.clone(),
            member_epoch: member.current.epoch,
            heartbeat_interval: cx.config.consumer_heartbeat_interval,
            assignment: None,
        })
    }

    fn leave(
        &self,
        message: &ConsumerGroupHeartbeatRequest,
        cx: &Context<'_>,
    ) -> Result<Outcome, ErrorCode> {
        let mut after = self.roster.clone();
        let member_id = find(&after, message)?;
        if message.member_epoch == AWAY {
            // A static member keeps its place for a session; what it was to give up, it has given up by going.
            if let Some(member) = after.members.get_mut(&member_id) {
                member.current.epoch = AWAY;
                member.current.state = super::MemberState::Stable;
                member.current.revoking = Assignment::new();
            }
        } else {
            after.remove(&member_id);
        }
        let response = ConsumerGroupHeartbeatResponse {
            member_id,
            member_epoch: message.member_epoch,
            heartbeat_interval: cx.config.consumer_heartbeat_interval,
            assignment: None,
        };
        Ok((Some(after), response))
    }
}

/// The member id that a heartbeat is of: known already, or let in.
fn enter(
    after: &mut Roster,
    message: &ConsumerGroupHeartbeatRequest,
    unique: u128,
    cx: &Context<'_>,
) -> Result<String, ErrorCode> {
    if message.member_epoch > 0 {
        let member_id = find(after, message)?;
        check_epoch(after.members.get(&member_id), message)?;
        return Ok(member_id);
    }
    let member_id = match message.member_id.is_empty() {
        true => crate::types::TopicId(unique).to_string(),
        false => message.member_id.clone(),
    };
    let instance_id = message.group_instance_id.as_deref();
    let holder = instance_id.and_then(|it| after.static_member(it)).cloned();
    match holder {
        Some(holder) if holder != member_id => {
            take_place(after, &holder, &member_id)?;
            return Ok(member_id);
        }
        Some(_) => {}
        None => {
            let is_new = !after.members.contains_key(&member_id);
            if is_new && after.members.len() >= cx.config.group_max_size {
                return Err(ErrorCode::GroupMaxSizeReached);
            }
        }
    }
    if let Some(member) = after.members.get_mut(&member_id) {
        // It joins anew and owns nothing, as it says itself.
        if member.record.instance_id.as_deref() != instance_id {
            return Err(ErrorCode::FencedInstanceId);
        }
        member.current = CurrentRecord::default();
    }
    Ok(member_id)
}

/// A static member comes back under a new member id, which takes over its subscription and its target.
fn take_place(after: &mut Roster, holder: &str, member_id: &str) -> Result<(), ErrorCode> {
    let Some(old) = after.members.get(holder) else {
        return Err(ErrorCode::UnknownMemberId);
    };
    if old.current.epoch != AWAY {
        return Err(ErrorCode::UnreleasedInstanceId);
    }
    let record: MemberRecord = old.record.clone();
    let current = CurrentRecord::default();
    after.members.remove(holder);
    let member = Member { record, current };
    after.members.insert(member_id.to_owned(), member);
    if let Some(target) = after.target.remove(holder) {
        after.target.insert(member_id.to_owned(), target);
    }
    Ok(())
}

/// The member that a heartbeat is of, which must be known.
fn find(after: &Roster, message: &ConsumerGroupHeartbeatRequest) -> Result<String, ErrorCode> {
    if let Some(instance_id) = &message.group_instance_id {
        let holder = after.static_member(instance_id);
        let holder = holder.ok_or(ErrorCode::UnknownMemberId)?;
        if *holder != message.member_id {
            return Err(ErrorCode::FencedInstanceId);
        }
    }
    match after.members.contains_key(&message.member_id) {
        true => Ok(message.member_id.clone()),
        false => Err(ErrorCode::UnknownMemberId),
    }
}

/// A member has the epoch that it was told last; or the one before, if that answer was lost, and then it owns nothing
/// that it was not given.
fn check_epoch(
    member: Option<&Member>,
    message: &ConsumerGroupHeartbeatRequest,
) -> Result<(), ErrorCode> {
    let current = &member.ok_or(ErrorCode::UnknownMemberId)?.current;
    if message.member_epoch == current.epoch {
        return Ok(());
    }
    let owns_no_more = message.topic_partitions.as_deref().is_some_and(|owned| {
        let owned = assignment_of(owned);
        let given = |topic| current.assigned.get(topic);
        owned
            .iter()
            .all(|(topic, it)| given(topic).is_some_and(|given| it.is_subset(given)))
    });
    let has_missed_an_answer = message.member_epoch == current.previous_epoch && owns_no_more;
    match has_missed_an_answer {
        true => Ok(()),
        false => Err(ErrorCode::FencedMemberEpoch),
    }
}

/// The partitions are named if they have changed, or if the member told everything of itself and wants everything back.
fn response(
    before: &Member,
    after: &Roster,
    member_id: &str,
    message: &ConsumerGroupHeartbeatRequest,
    topics: &Topics,
    cx: &Context<'_>,
) -> ConsumerGroupHeartbeatResponse {
    let current = after.members.get(member_id).map(|it| &it.current);
    let current = current.cloned().unwrap_or_default();
    let says_what =
        message.subscribed_topic_names.is_some() || message.subscribed_topic_regex.is_some();
    let says_everything =
        says_what && message.rebalance_timeout.is_some() && message.topic_partitions.is_some();
    let is_wanted = message.member_epoch == 0
        || says_everything
        || message.member_epoch != before.current.epoch
        || current.assigned != before.current.assigned;
    let name = |id| topics.name(id).cloned();
    ConsumerGroupHeartbeatResponse {
        member_id: member_id.to_owned(),
        member_epoch: current.epoch,
        heartbeat_interval: cx.config.consumer_heartbeat_interval,
        assignment: is_wanted.then(|| listed(&current.assigned, name)),
    }
}

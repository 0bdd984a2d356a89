//! A rebalance of a classic group: how it begins, how it ends, and what time does to it.

use std::collections::BTreeMap;

use super::{ClassicGroup, ClassicWrite, Context, Gathering, Phase};
use crate::coordinator::group::Response;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::JoinGroupResponse;

impl ClassicGroup {
    /// Begins a rebalance unless one is under way, and ends it if everybody is there.
    pub(super) fn rebalance(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Preparing { .. }) {
            self.refuse_syncs(ErrorCode::RebalanceInProgress, cx);
            self.phase = self.preparing(cx);
        }
        self.complete_join_if_all_joined(cx);
    }

    fn preparing(&self, cx: &Context<'_>) -> Phase {
        let timeout = self.rebalance_timeout();
        let delay = cx.config.initial_rebalance_delay;
        match self.phase == Phase::Empty && !delay.is_zero() {
            true => Phase::Preparing {
                deadline: cx.now.instant.plus(delay),
                gathering: Gathering::Initial {
                    remaining: timeout.saturating_sub(delay),
                    has_new: false,
                },
            },
            false => Phase::Preparing {
                deadline: cx.now.instant.plus(timeout),
                gathering: Gathering::UntilAllJoined,
            },
        }
    }

    /// Tells those who wait for the leader that no assignment of this generation will come.
    pub(super) fn refuse_syncs(&mut self, error: ErrorCode, cx: &mut Context<'_>) {
        for member in self.members.values_mut() {
            member.must_sync = false;
            if let Some(request) = member.syncing.take() {
                cx.out.reply(request, Err(error));
                member.touch(cx.now.instant);
            }
        }
    }

    pub(super) fn complete_join_if_all_joined(&mut self, cx: &mut Context<'_>) {
        let is_gathering = matches!(
            self.phase,
            Phase::Preparing {
                gathering: Gathering::UntilAllJoined,
                ..
            }
        );
        let are_all_there =
            self.pending.is_empty() && self.members.values().all(|it| it.joining.is_some());
        if is_gathering && are_all_there {
            self.complete_join(cx);
        }
    }

    /// The next generation: of those that have joined, and of static members, which may be away for a session.
    fn complete_join(&mut self, cx: &mut Context<'_>) {
        let absent = self.members.iter();
        let absent = absent.filter(|(_, it)| it.joining.is_none() && it.instance_id.is_none());
        let absent: Vec<_> = absent.map(|(id, _)| id.clone()).collect();
        absent.iter().for_each(|id| self.remove(id, cx));
        if self.members.is_empty() {
            return self.become_empty(cx);
        }
        let deadline = cx.now.instant.plus(self.rebalance_timeout());
        if !self.elect_leader_who_joined() {
            // Only absent static members are left: their sessions decide.
            let gathering = Gathering::UntilAllJoined;
            self.phase = Phase::Preparing {
                deadline,
                gathering,
            };
            return;
        }
        self.generation = self.generation.saturating_add(1);
        self.protocol = self.choose_protocol();
        self.phase = Phase::Completing {
            deadline,
            is_writing: false,
        };
        self.answer_joins(cx);
    }

    fn become_empty(&mut self, cx: &mut Context<'_>) {
        self.generation = self.generation.saturating_add(1);
        self.protocol = None;
        self.leader = None;
        self.phase = Phase::Empty;
        self.empty_since = cx.now.instant;
        let record = self.record(|_, _| bytes::Bytes::new(), cx);
        self.journal(ClassicWrite::Empty, record, false, cx);
    }

    fn elect_leader_who_joined(&mut self) -> bool {
        let leader = self.leader.as_ref().and_then(|it| self.members.get(it));
        if leader.is_none_or(|it| it.joining.is_none()) {
            let mut joined = self.members.iter().filter(|(_, it)| it.joining.is_some());
            let Some((id, _)) = joined.next() else {
                return false;
            };
            self.leader = Some(id.clone());
        }
        true
    }

    /// The protocol that most members prefer among those that all speak; ties go to the first name.
    fn choose_protocol(&self) -> Option<String> {
        let is_common = |name: &str| self.members.values().all(|it| it.speaks(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let preferred = member.protocols.iter().find(|it| is_common(&it.name));
            if let Some(protocol) = preferred {
                *votes.entry(&protocol.name).or_default() += 1;
            }
        }
        let most = votes.values().max().copied()?;
        let mut winners = votes.into_iter().filter(|(_, count)| *count == most);
        winners.next().map(|(name, _)| name.to_owned())
    }

    fn answer_joins(&mut self, cx: &mut Context<'_>) {
        let ids: Vec<_> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            member.must_sync = false;
            if let Some(request) = member.joining.take() {
                member.must_sync = true;
                member.touch(cx.now.instant);
                let response = JoinGroupResponse::Joined(joined);
                cx.out.reply(request, Ok(Response::Joined(response)));
            }
        }
    }

    /// Removes a member; whoever waits under its id is told so.
    pub(super) fn remove(&mut self, member_id: &str, cx: &mut Context<'_>) {
        let Some(member) = self.members.remove(member_id) else {
            return;
        };
        for request in member.joining.into_iter().chain(member.syncing) {
            cx.out.reply(request, Err(ErrorCode::UnknownMemberId));
        }
        if let Some(instance_id) = member.instance_id {
            self.static_members.remove(&instance_id);
        }
        if self.leader.as_deref() == Some(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Continues when members or those to come have gone.
    pub(super) fn members_gone(&mut self, cx: &mut Context<'_>) {
        match self.phase {
            Phase::Completing { .. } | Phase::Stable { .. } => self.rebalance(cx),
            Phase::Preparing { .. } => self.complete_join_if_all_joined(cx),
            Phase::Empty => self.empty_since = cx.now.instant,
        }
    }

    /// Time has passed.
    pub(in crate::coordinator::group) fn tick(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let pending_count = self.pending.len();
        self.pending.retain(|_, end| *end > now);
        let is_late_sync = match self.phase {
            Phase::Completing { deadline, .. } | Phase::Stable { deadline } => deadline <= now,
            Phase::Empty | Phase::Preparing { .. } => false,
        };
        let expired = self.members.iter().filter(|(_, it)| {
            it.deadline.is_some_and(|deadline| deadline <= now)
                || is_late_sync && it.must_sync && it.syncing.is_none()
        });
        let expired: Vec<_> = expired.map(|(id, _)| id.clone()).collect();
        expired.iter().for_each(|id| self.remove(id, cx));
        if !expired.is_empty() {
            self.members_gone(cx);
        } else if pending_count > self.pending.len() {
            self.complete_join_if_all_joined(cx);
        }
        self.end_gathering(cx);
    }

    /// Ends a rebalance whose time is up; the first one of a group is prolonged while members keep coming.
    fn end_gathering(&mut self, cx: &mut Context<'_>) {
        let now = cx.now.instant;
        let delay = cx.config.initial_rebalance_delay;
        let Phase::Preparing {
            deadline,
            gathering,
        } = &mut self.phase
        else {
            return;
        };
        if *deadline > now {
            return;
        }
        match gathering {
            Gathering::Initial { remaining, has_new } if *has_new && !remaining.is_zero() => {
                let wait = delay.min(*remaining);
                *remaining = remaining.saturating_sub(wait);
                *has_new = false;
                *deadline = now.plus(wait);
            }
            Gathering::Initial { .. } | Gathering::UntilAllJoined => self.complete_join(cx),
        }
    }
}

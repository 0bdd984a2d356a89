//! SyncGroup and Heartbeat: assignments are given out once they are durable.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ClassicGroup, ClassicWrite, Context, Phase};
use crate::coordinator::RequestId;
use crate::coordinator::group::Response;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{HeartbeatRequest, SyncGroupRequest, SyncGroupResponse};

impl ClassicGroup {
    pub(in crate::coordinator::group) fn sync(
        &mut self,
        request: RequestId,
        message: SyncGroupRequest,
        cx: &mut Context<'_>,
    ) {
        if let Err(error) = self.try_sync(request, message, cx) {
            cx.out.reply(request, Err(error));
        }
    }

    fn try_sync(
        &mut self,
        request: RequestId,
        message: SyncGroupRequest,
        cx: &mut Context<'_>,
    ) -> Result<(), ErrorCode> {
        let SyncGroupRequest {
            generation,
            member_id,
            group_instance_id,
            ..
        } = &message;
        self.check_member(member_id, group_instance_id.as_deref())?;
        self.check_generation(*generation)?;
        let differs = |theirs: &Option<String>, ours: &Option<String>| {
            theirs.is_some() && theirs.as_ref() != ours.as_ref()
        };
        if differs(&message.protocol_type, &self.protocol_type)
            || differs(&message.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::Empty => Err(ErrorCode::UnknownMemberId),
            Phase::Preparing { .. } => Err(ErrorCode::RebalanceInProgress),
            Phase::Stable { .. } => {
                self.answer_sync(&message.member_id, request, cx);
                Ok(())
            }
            Phase::Completing { is_writing, .. } => {
                self.wait_for_assignment(&message.member_id, request, cx);
                let is_leader = self.leader.as_ref() == Some(&message.member_id);
                if is_leader && !is_writing {
                    self.journal_assignment(message, cx);
                }
                Ok(())
            }
        }
    }

    fn answer_sync(&mut self, member_id: &str, request: RequestId, cx: &mut Context<'_>) {
        let Some(member) = self.members.get_mut(member_id) else {
            return cx.out.reply(request, Err(ErrorCode::UnknownMemberId));
        };
        member.must_sync = false;
        member.syncing = None;
        member.touch(cx.now.instant);
        let response = SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: member.assignment.clone(),
        };
        cx.out.reply(request, Ok(Response::Synced(response)));
    }

    fn wait_for_assignment(&mut self, member_id: &str, request: RequestId, cx: &mut Context<'_>) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        member.deadline = None;
        if let Some(earlier) = member.syncing.replace(request) {
            cx.out.reply(earlier, Err(ErrorCode::RebalanceInProgress));
        }
    }

    fn journal_assignment(&mut self, message: SyncGroupRequest, cx: &mut Context<'_>) {
        let assignments: BTreeMap<String, Bytes> = message.assignments.into_iter().collect();
        let record = self.record(|id, _| assignments.get(id).cloned().unwrap_or_default(), cx);
        if let Phase::Completing { is_writing, .. } = &mut self.phase {
            *is_writing = true;
        }
        let generation = self.generation;
        let write = ClassicWrite::Assignment {
            generation,
            assignments,
        };
        // I3: the assignment is durable before any member hears of it.
        self.journal(write, record, true, cx);
    }

    /// Gives the assignment out, unless a rebalance has overtaken it.
    pub(super) fn assign(
        &mut self,
        generation: i32,
        assignments: &BTreeMap<String, Bytes>,
        cx: &mut Context<'_>,
    ) {
        let Phase::Completing { deadline, .. } = self.phase else {
            return;
        };
        if generation != self.generation {
            return;
        }
        self.phase = Phase::Stable { deadline };
        let mut waiting = Vec::new();
        for (id, member) in &mut self.members {
            member.assignment = assignments.get(id).cloned().unwrap_or_default();
            waiting.extend(member.syncing.map(|request| (id.clone(), request)));
        }
        for (id, request) in waiting {
            self.answer_sync(&id, request, cx);
        }
    }

    pub(super) fn assignment_failed(
        &mut self,
        generation: i32,
        error: ErrorCode,
        cx: &mut Context<'_>,
    ) {
        let is_current =
            matches!(self.phase, Phase::Completing { .. }) && generation == self.generation;
        if is_current {
            self.refuse_syncs(error, cx);
            self.rebalance(cx);
        }
    }

    pub(in crate::coordinator::group) fn heartbeat(
        &mut self,
        message: &HeartbeatRequest,
        cx: &Context<'_>,
    ) -> Result<Response, ErrorCode> {
        let instance_id = message.group_instance_id.as_deref();
        self.check_member(&message.member_id, instance_id)?;
        self.check_generation(message.generation)?;
        if let Some(member) = self.members.get_mut(&message.member_id) {
            member.touch(cx.now.instant);
        }
        match self.phase {
            Phase::Empty => Err(ErrorCode::UnknownMemberId),
            Phase::Preparing { .. } => Err(ErrorCode::RebalanceInProgress),
            Phase::Completing { .. } | Phase::Stable { .. } => Ok(Response::Done),
        }
    }
}

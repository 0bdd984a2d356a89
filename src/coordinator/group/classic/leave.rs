//! LeaveGroup: members that go, or that an administrator removes.

use super::{ClassicGroup, Context};
use crate::coordinator::group::Response;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{LeaveGroupResponse, LeavingMember, LeftMember};

impl ClassicGroup {
    pub(in crate::coordinator::group) fn leave(
        &mut self,
        members: Vec<LeavingMember>,
        cx: &mut Context<'_>,
    ) -> Response {
        let leave = |it: LeavingMember| LeftMember {
            error: self.leave_one(&it, cx).err(),
            member_id: it.member_id,
            group_instance_id: it.group_instance_id,
        };
        let left: Vec<_> = members.into_iter().map(leave).collect();
        if left.iter().any(|it| it.error.is_none()) {
            self.members_gone(cx);
        }
        Response::Left(LeaveGroupResponse { members: left })
    }

    fn leave_one(
        &mut self,
        leaving: &LeavingMember,
        cx: &mut Context<'_>,
    ) -> Result<(), ErrorCode> {
        let instance_id = leaving.group_instance_id.as_deref();
        let member_id = match instance_id {
            // An administrator knows only the instance.
            Some(instance_id) if leaving.member_id.is_empty() => {
                let holder = self.static_members.get(instance_id).cloned();
                holder.ok_or(ErrorCode::UnknownMemberId)?
            }
            None if self.pending.remove(&leaving.member_id).is_some() => return Ok(()),
            _ => leaving.member_id.clone(),
        };
        self.check_member(&member_id, instance_id)?;
        self.remove(&member_id, cx);
        Ok(())
    }
}

/// The answer for a group that does not exist.
pub(in crate::coordinator::group) fn nobody_left(members: &[LeavingMember]) -> Response {
    let left = members.iter().map(|it| LeftMember {
        member_id: it.member_id.clone(),
        group_instance_id: it.group_instance_id.clone(),
        error: Some(ErrorCode::UnknownMemberId),
    });
    Response::Left(LeaveGroupResponse {
        members: left.collect(),
    })
}

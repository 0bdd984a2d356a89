//! Bringing one member towards its target: it gives partitions up before anybody else gets them.

use std::collections::BTreeSet;

use super::roster::Roster;
use super::{Assignment, MemberState};
use crate::types::{PartitionIndex, TopicId};

/// Moves the member one step on. `owned` is what it says to own now, if it says so.
pub(super) fn reconcile(roster: &mut Roster, member_id: &str, owned: Option<&Assignment>) {
    let target_epoch = roster.target_epoch;
    let target = roster.target.get(member_id).cloned().unwrap_or_default();
    let taken = owned_by_others(roster, member_id);
    let Some(member) = roster.members.get_mut(member_id) else {
        return;
    };
    let current = &mut member.current;
    let still_owns = |gone: &Assignment| owned.is_none_or(|owned| intersects(owned, gone));
    match current.state {
        MemberState::Stable if current.epoch == target_epoch => return,
        MemberState::UnrevokedPartitions if still_owns(&current.revoking) => return,
        _ => {}
    }
    let kept = combine(&current.assigned, &target, |ours, theirs| ours & theirs);
    let revoking = combine(&current.assigned, &target, |ours, theirs| ours - theirs);
    let missing = combine(&target, &kept, |ours, theirs| ours - theirs);
    let free = combine(&missing, &taken, |ours, theirs| ours - theirs);
    if !revoking.is_empty() && still_owns(&revoking) {
        current.state = MemberState::UnrevokedPartitions;
        current.assigned = kept;
        current.revoking = revoking;
        return;
    }
    current.state = match free == missing {
        true => MemberState::Stable,
        false => MemberState::UnreleasedPartitions,
    };
    if current.epoch != target_epoch {
        current.previous_epoch = current.epoch;
        current.epoch = target_epoch;
    }
    current.assigned = kept;
    for (topic, partitions) in free {
        current
            .assigned
            .entry(topic)
            .or_default()
            .extend(partitions);
    }
    current.revoking = Assignment::new();
}

/// Finds what the other members own, or have not revoked.
fn owned_by_others(roster: &Roster, member_id: &str) -> Assignment {
    let mut taken = Assignment::new();
    let others = roster.members.iter().filter(|(id, _)| *id != member_id);
    for (_, member) in others {
        let current = &member.current;
        for (topic, partitions) in current.assigned.iter().chain(&current.revoking) {
            taken.entry(*topic).or_default().extend(partitions);
        }
    }
    taken
}

/// Combines the partitions of each topic of `ours`; topics without partitions are left out.
fn combine(
    ours: &Assignment,
    theirs: &Assignment,
    combine: impl Fn(&BTreeSet<PartitionIndex>, &BTreeSet<PartitionIndex>) -> BTreeSet<PartitionIndex>,
) -> Assignment {
    let none = BTreeSet::new();
    let combined = ours.iter().map(|(topic, ours)| {
        let theirs = theirs.get(topic).unwrap_or(&none);
        (*topic, combine(ours, theirs))
    });
    let combined = combined.filter(|(_, it): &(TopicId, _)| !it.is_empty());
    combined.collect()
}

fn intersects(ours: &Assignment, theirs: &Assignment) -> bool {
    !combine(ours, theirs, |ours, theirs| ours & theirs).is_empty()
}

//! Who is to own what: the assignors `uniform` and `range`.

use std::collections::BTreeMap;

use super::Assignment;
use super::roster::Roster;
use crate::coordinator::group::topics::Topics;
use crate::protocol::assignor::{Readers, range, uniform};
use crate::types::TopicId;

/// A way to share partitions out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Assignor {
    /// As even as possible over all topics, and as much as before: Kafka's default.
    Uniform,
    /// Of each topic a contiguous range for each member: topics with equally many partitions are shared out alike.
    Range,
}

impl Assignor {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "uniform" => Some(Self::Uniform),
            "range" => Some(Self::Range),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The one that most members want; `uniform` if nobody says.
    pub(super) fn of(roster: &Roster) -> Self {
        let mut votes = BTreeMap::new();
        for member in roster.members.values() {
            let wanted = member.record.server_assignor.as_deref();
            if let Some(assignor) = wanted.and_then(Self::from_name) {
                *votes.entry(assignor).or_insert(0) += 1;
            }
        }
        let votes = votes.into_iter().rev();
        let most = votes.max_by_key(|(_, count): &(Self, u32)| *count);
        most.map_or(Self::Uniform, |(assignor, _)| assignor)
    }
}

/// The target assignment of all members.
pub(super) fn assign(roster: &Roster, topics: &Topics) -> BTreeMap<String, Assignment> {
    let readers = readers(roster, topics);
    let shared = match Assignor::of(roster) {
        Assignor::Range => range(&readers),
        Assignor::Uniform => uniform(&readers, &roster.target),
    };
    let mut target: BTreeMap<String, Assignment> = roster
        .members
        .keys()
        .map(|id| (id.clone(), Assignment::new()))
        .collect();
    for ((topic, partition), member) in shared {
        let assignment = target.entry(member.to_owned()).or_default();
        assignment.entry(topic).or_default().insert(partition);
    }
    target
}

/// Topics that exist, with their partitions and who wants them. Static members come in the order of their instance ids,
/// so that a new member id changes nothing.
fn readers<'a>(roster: &'a Roster, topics: &Topics) -> Readers<'a, TopicId> {
    let mut wanted = Readers::new();
    let mut members: Vec<_> = roster.members.iter().collect();
    members.sort_by_key(|(id, it)| (it.record.instance_id.as_ref().unwrap_or(id), *id));
    for (id, member) in members {
        for name in roster.wanted_by(member) {
            if let Some((topic, partitions_count)) = topics.find(name) {
                let entry = wanted.entry(topic);
                let (_, readers) = entry.or_insert_with(|| (partitions_count, Vec::new()));
                readers.push(id.as_str());
            }
        }
    }
    wanted
}

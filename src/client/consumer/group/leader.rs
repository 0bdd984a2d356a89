//! The leader of a classic group: who is to read what.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::ClientError;
use crate::client::consumer::config::AssignmentStrategy;
use crate::protocol::ErrorCode;
use crate::protocol::assignor::{Owned, Readers, range, uniform};
use crate::protocol::consumer_protocol::{ConsumerProtocolError, Subscription};
use crate::protocol::messages::groups::JoinGroupMember;
use crate::types::{PartitionIndex, TopicName, TopicPartition};

/// Partitions of each topic.
pub(super) type Counts = BTreeMap<TopicName, PartitionIndex>;

/// The members' subscriptions.
pub(super) struct Subscriptions(BTreeMap<String, (Option<String>, Subscription)>);

impl Subscriptions {
    pub(super) fn decode(members: &[JoinGroupMember]) -> Result<Self, ClientError> {
        let members = members.iter().map(|it| {
            let subscription = Subscription::decode(&it.metadata).map_err(|e| unreadable(&e))?;
            let of = (it.group_instance_id.clone(), subscription);
            Ok((it.member_id.clone(), of))
        });
        members.collect::<Result<_, ClientError>>().map(Self)
    }

    pub(super) fn topics(&self) -> BTreeSet<TopicName> {
        let subscriptions = self.0.values();
        subscriptions
            .flat_map(|(_, it)| it.topics.iter().cloned())
            .collect()
    }

    /// The partitions of each member.
    pub(super) fn assign(
        &self,
        strategy: AssignmentStrategy,
        counts: &Counts,
    ) -> BTreeMap<String, Vec<TopicPartition>> {
        let readers = self.readers(counts);
        let shared = match strategy {
            AssignmentStrategy::Range => range(&readers),
            AssignmentStrategy::CooperativeSticky => uniform(&readers, &self.owned()),
        };
        let mut assigned: BTreeMap<_, Vec<_>> =
            self.0.keys().map(|it| (it.clone(), Vec::new())).collect();
        for ((topic, partition), member) in shared {
            let place = TopicPartition::new(topic, partition);
            assigned.entry(member.to_owned()).or_default().push(place);
        }
        if strategy == AssignmentStrategy::CooperativeSticky {
            self.hold_back_what_moves(&mut assigned);
        }
        assigned
    }

    /// Static members come in the order of their instance ids, so that a new member id changes nothing.
    fn readers(&self, counts: &Counts) -> Readers<'_, TopicName> {
        let mut members: Vec<_> = self.0.iter().collect();
        members.sort_by_key(|(id, (instance, _))| (instance.as_ref().unwrap_or(id), *id));
        let mut readers = Readers::new();
        for (id, (_, subscription)) in members {
            for topic in &subscription.topics {
                if let Some(count) = counts.get(topic) {
                    let entry = readers.entry(topic.clone());
                    let (_, of_topic) = entry.or_insert_with(|| (*count, Vec::new()));
                    of_topic.push(id.as_str());
                }
            }
        }
        readers
    }

    /// Finds owners by the members' words; of two that claim a partition, the one of the newer generation is right.
    fn owners(&self) -> BTreeMap<&TopicPartition, &str> {
        let mut owners: BTreeMap<&TopicPartition, (i32, &str)> = BTreeMap::new();
        for (id, (_, subscription)) in &self.0 {
            for place in &subscription.owned {
                let claim = (subscription.generation, id.as_str());
                let best = owners.entry(place).or_insert(claim);
                *best = claim.max(*best);
            }
        }
        let owners = owners.into_iter();
        owners.map(|(place, (_, id))| (place, id)).collect()
    }

    fn owned(&self) -> BTreeMap<String, Owned<TopicName>> {
        let mut owned: BTreeMap<String, Owned<TopicName>> = BTreeMap::new();
        for (place, id) in self.owners() {
            let of = owned.entry(id.to_owned()).or_default();
            of.entry(place.topic.clone())
                .or_default()
                .insert(place.partition);
        }
        owned
    }

    /// A partition that another member owns is given to nobody yet: its owner gives it up and joins anew first.
    fn hold_back_what_moves(&self, assigned: &mut BTreeMap<String, Vec<TopicPartition>>) {
        let owners = self.owners();
        for (id, places) in assigned {
            places.retain(|it| owners.get(it).is_none_or(|owner| owner == id));
        }
    }
}

pub(super) fn unreadable(error: &ConsumerProtocolError) -> ClientError {
    let code = ErrorCode::InconsistentGroupProtocol;
    ClientError::Refused {
        request: "SyncGroup",
        code,
        message: error.to_string(),
        kind: code.kind(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic() -> TopicName {
        TopicName::new("t").unwrap()
    }

    fn member(id: &str, owned: &[i32], generation: i32) -> JoinGroupMember {
        let owned = owned.iter().map(|it| TopicPartition::new(topic(), *it));
        let subscription = Subscription {
            topics: vec![topic()],
            owned: owned.collect(),
            generation,
            ..Subscription::default()
        };
        JoinGroupMember {
            member_id: id.to_owned(),
            group_instance_id: None,
            metadata: subscription.encode(),
        }
    }

    fn assign(members: &[JoinGroupMember]) -> Vec<Vec<i32>> {
        let subscriptions = Subscriptions::decode(members).unwrap();
        let counts = [(topic(), 4)].into();
        let assigned = subscriptions.assign(AssignmentStrategy::CooperativeSticky, &counts);
        let of = |places: Vec<TopicPartition>| places.iter().map(|it| it.partition).collect();
        assigned.into_values().map(of).collect()
    }

    #[test]
    fn what_moves_is_first_given_up_and_given_on_in_the_next_round() {
        let first = assign(&[member("a", &[0, 1, 2, 3], 1), member("b", &[], -1)]);
        assert_eq!(first[0].len(), 2);
        assert_eq!(first[1], [0; 0]);
        let second = assign(&[member("a", &first[0], 2), member("b", &[], 2)]);
        assert_eq!(second[0], first[0]);
        assert_eq!(second[1].len(), 2);
    }

    #[test]
    fn of_two_that_claim_a_partition_the_newer_generation_is_believed() {
        let assigned = assign(&[member("a", &[0, 1], 2), member("z", &[0, 1, 2, 3], 1)]);
        assert_eq!(assigned, [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn a_member_that_is_no_consumer_is_an_error() {
        let mut stranger = member("a", &[], 1);
        stranger.metadata = bytes::Bytes::from_static(b"x");
        assert!(Subscriptions::decode(&[stranger]).is_err());
    }
}

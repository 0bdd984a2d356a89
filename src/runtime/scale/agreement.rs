//! Words between the members of a job's group, and what the one that leads makes of them.
//!
//! A member says which topology it runs, how many workers it has, and whose state is on its disk and how far it
//! reaches. The leader answers with a share and the state to stand by for, or with the reason why there is none.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::assignor::{Member, Task, assign};
use super::plan::Plan;
use crate::env::warn;
use crate::protocol::consumer_protocol::{Assignment, Subscription};
use crate::protocol::messages::groups::JoinGroupMember;

/// Words of a member to the leader beyond Kafka's own fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Words {
    /// Topology behind the job's state: processes with another one cannot share it.
    pub(super) topology: String,
    pub(super) workers: u32,
    /// The copies of each task's state that it wants kept besides the one in use.
    pub(super) standbys: u16,
    /// The state partitions of which its disk has something, with the sum of the changelog positions that it covers.
    pub(super) held: Vec<(u16, u64)>,
}

/// Words of the leader to a member beyond Kafka's own fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Told {
    /// The state partitions that it stands by for.
    Share { standbys: Vec<u16> },
    /// Reason for no share.
    Refused(String),
}

/// A member's share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) tasks: BTreeSet<Task>,
    pub(super) standbys: BTreeSet<u16>,
}

impl Words {
    pub(super) fn encode(&self) -> Bytes {
        encode(self)
    }
}

#[expect(clippy::expect_used, reason = "no input decides whether it fails")]
fn encode(words: &impl Serialize) -> Bytes {
    let bytes = postcard::to_stdvec(words).expect("words of numbers and text have a form");
    bytes.into()
}

/// Words of all members, as far as they could be understood.
pub(super) struct Meeting {
    fit: Vec<Member>,
    /// State that each holds, as it said.
    held: Vec<Vec<(u16, u64)>>,
    /// Member ids by the names that the assignor knows.
    ids: BTreeMap<String, String>,
    /// Those who get no share, and why.
    refused: Vec<(String, String)>,
    standbys: u16,
}

impl Meeting {
    pub(super) fn new(plan: &Plan, topology: &str, members: &[JoinGroupMember]) -> Self {
        let mut meeting = Self {
            fit: Vec::new(),
            held: Vec::new(),
            ids: BTreeMap::new(),
            refused: Vec::new(),
            standbys: 0,
        };
        for member in members {
            match understand(plan, topology, member) {
                Ok((understood, words)) => {
                    let id = understood.id.clone();
                    meeting.ids.insert(id, member.member_id.clone());
                    meeting.standbys = meeting.standbys.max(words.standbys);
                    meeting.fit.push(understood);
                    meeting.held.push(words.held);
                }
                Err(why) => {
                    warn!(member = member.member_id, why, "gives no share");
                    meeting.refused.push((member.member_id.clone(), why));
                }
            }
        }
        meeting
    }

    /// The state partitions that somebody has on its disk: of these the leader needs to know where their changelogs end.
    pub(super) fn held(&self) -> BTreeSet<u16> {
        let held = self.held.iter().flatten();
        held.map(|&(partition, _)| partition).collect()
    }

    /// Everybody's assignment. `ends` has the sum of the ends of each held partition's changelogs.
    pub(super) fn share_out(
        mut self,
        plan: &Plan,
        ends: &BTreeMap<u16, u64>,
    ) -> Vec<(String, Bytes)> {
        for (member, held) in self.fit.iter_mut().zip(&self.held) {
            let lags = held.iter().filter_map(|(partition, reached)| {
                let end = ends.get(partition)?;
                Some((plan.state_task(*partition)?, end.saturating_sub(*reached)))
            });
            member.lags = lags.collect();
        }
        let given = assign(&self.fit, &plan.topic_groups(), usize::from(self.standbys));
        info!(
            members = self.fit.len(),
            is_final = given.is_final(),
            "shares out the tasks"
        );
        let refused = self.refused.into_iter();
        let mut all: Vec<(String, Bytes)> = refused
            .map(|(id, why)| (id, tell(vec![], &Told::Refused(why))))
            .collect();
        for (id, tasks) in &given.now {
            let standbys = given.standbys.get(id).map(|it| plan.state_partitions(it));
            let told = Told::Share {
                standbys: standbys.unwrap_or_default(),
            };
            let partitions = plan.partitions(tasks);
            all.extend(
                self.ids
                    .get(id)
                    .map(|id| (id.clone(), tell(partitions, &told))),
            );
        }
        all
    }
}

fn tell(partitions: Vec<crate::types::TopicPartition>, told: &Told) -> Bytes {
    let assignment = Assignment {
        partitions,
        user_data: Some(encode(told)),
    };
    assignment.encode()
}

fn understand(
    plan: &Plan,
    topology: &str,
    member: &JoinGroupMember,
) -> Result<(Member, Words), String> {
    let subscription = Subscription::decode(&member.metadata).map_err(|e| e.to_string())?;
    let words = subscription.user_data.as_deref().unwrap_or_default();
    let words: Words = postcard::from_bytes(words)
        .map_err(|e| format!("it is no process of this job, or of another version: {e}"))?;
    if words.topology != topology {
        return Err(format!(
            "it has another topology ({:?}) than the process that leads the group ({topology:?}): \
             stop all processes of the job, then start the new ones",
            words.topology
        ));
    }
    let id = member.group_instance_id.as_ref();
    let understood = Member {
        id: id.unwrap_or(&member.member_id).clone(),
        workers: words.workers,
        generation: subscription.generation,
        owned: plan.tasks(&subscription.owned),
        lags: BTreeMap::new(),
    };
    Ok((understood, words))
}

/// Reads the leader's answer.
///
/// # Errors
/// The reason for no share.
pub(super) fn read(plan: &Plan, assignment: &Bytes) -> Result<Given, String> {
    let assignment = Assignment::decode(assignment).map_err(|e| e.to_string())?;
    // A member that the leader knows nothing of yet, such as one that came back meanwhile, is told nothing.
    let Some(told) = assignment.user_data else {
        return Ok(Given::default());
    };
    match postcard::from_bytes(&told) {
        Ok(Told::Share { standbys }) => Ok(Given {
            tasks: plan.tasks(&assignment.partitions),
            standbys: standbys.into_iter().collect(),
        }),
        Ok(Told::Refused(why)) => Err(why),
        Err(e) => Err(format!("the leader runs another version: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(plan: &Plan, id: &str, topology: &str, held: &[(u16, u64)]) -> JoinGroupMember {
        let words = Words {
            topology: topology.to_owned(),
            workers: 1,
            standbys: u16::from(id == "b"),
            held: held.to_vec(),
        };
        let subscription = Subscription {
            topics: plan.topics().cloned().collect(),
            user_data: Some(words.encode()),
            owned: vec![],
            generation: -1,
            rack: None,
        };
        JoinGroupMember {
            member_id: format!("{id}-1"),
            group_instance_id: Some(id.to_owned()),
            metadata: subscription.encode(),
        }
    }

    #[test]
    fn at_their_first_join_tasks_go_to_whose_disk_needs_least_replay() {
        let plan = Plan::sample(2);
        let members = [
            member(&plan, "a", "t", &[(0, 10), (1, 90)]),
            member(&plan, "b", "t", &[(0, 80), (1, 80)]),
            member(&plan, "c", "another", &[(0, 100)]),
        ];
        let meeting = Meeting::new(&plan, "t", &members);
        assert_eq!(meeting.held(), [0, 1].into());
        let told = meeting.share_out(&plan, &[(0, 100), (1, 100)].into());
        let told: BTreeMap<String, Bytes> = told.into_iter().collect();
        let state = |id: &str| {
            let given = read(&plan, &told[id]).unwrap();
            (plan.state_partitions(&given.tasks), given.standbys)
        };
        // Each also keeps a copy of the other's, because one of them asked for it.
        assert_eq!(state("a-1"), (vec![1], [0].into()));
        assert_eq!(state("b-1"), (vec![0], [1].into()));
        let why = read(&plan, &told["c-1"]).unwrap_err();
        assert!(why.contains("another topology"), "{why}");
    }

    #[test]
    fn words_that_are_none_of_ours_are_no_share() {
        let plan = Plan::sample(2);
        let nonsense = tell(vec![], &Told::Share { standbys: vec![] }).slice(..9);
        assert!(read(&plan, &nonsense).is_err());
        assert_eq!(read(&plan, &Bytes::new()), Ok(Given::default()));
    }
}

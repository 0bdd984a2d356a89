//! The assignor: shares out tasks to the members of a group. Balanced first, then sticky, then near the state.
//!
//! Pure: the member that leads the group runs it on what all members said of themselves. An answer has two parts, the
//! *target*, where every task should be, and what each member may have *now*: a task that another member still holds is
//! withheld until that member has let go of it and joined again (KIP-429), so that no task is ever in two hands.

use std::collections::{BTreeMap, BTreeSet};

/// A task: one partition of a group of topics that are partitioned alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Task {
    /// Which group of topics, by its number in the job's topology.
    pub(crate) topics: u16,
    /// Which partition of each of them.
    pub(crate) partition: i32,
}

/// Topics that are partitioned alike: the same partition of all of them is one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopicGroup {
    /// Its number.
    pub(crate) number: u16,
    /// How many partitions each topic has.
    pub(crate) partitions_count: i32,
}

/// What a member says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its id; with a static member, its instance id, so that a restarted process is the same member.
    pub(crate) id: String,
    /// How many workers it has; its share is proportional to them.
    pub(crate) workers: u32,
    /// The generation in which it was given what it owns.
    pub(crate) generation: i32,
    /// The tasks that it holds.
    pub(crate) owned: BTreeSet<Task>,
    /// The tasks whose state it has on its disk, and how many records it would have to replay.
    pub(crate) lags: BTreeMap<Task, u64>,
}

/// What the members are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Where every task should be, by member.
    pub(crate) target: BTreeMap<String, BTreeSet<Task>>,
    /// What each member may have now: its target without what others still hold.
    pub(crate) now: BTreeMap<String, BTreeSet<Task>>,
}

impl Assignment {
    /// Whether tasks are withheld: their holders let go of them and join again.
    pub(crate) fn is_final(&self) -> bool {
        self.target == self.now
    }
}

/// Shares out all tasks of `groups` to `members`. Equal members in any order give the same answer.
pub(crate) fn assign(members: &[Member], groups: &[TopicGroup]) -> Assignment {
    let owners = owners(members, groups);
    let mut target: BTreeMap<String, BTreeSet<Task>> = members
        .iter()
        .map(|member| (member.id.clone(), BTreeSet::new()))
        .collect();
    for group in groups {
        for (id, tasks) in share_out(members, *group, &owners, &target) {
            target.entry(id).or_default().extend(tasks);
        }
    }
    let is_free = |task: &Task, id: &str| owners.get(task).is_none_or(|owner| *owner == id);
    let now = target.iter().map(|(id, tasks)| {
        let free = tasks.iter().filter(|task| is_free(task, id)).copied();
        (id.clone(), free.collect())
    });
    let now = now.collect();
    Assignment { target, now }
}

/// Who holds what. Of two members that claim a task, the one with the newer generation holds it: the other slept
/// through a rebalance, and is fenced when it tries to commit.
fn owners<'a>(members: &'a [Member], groups: &[TopicGroup]) -> BTreeMap<Task, &'a str> {
    let exists = |task: &Task| {
        let mut groups = groups.iter();
        groups.any(|g| g.number == task.topics && (0..g.partitions_count).contains(&task.partition))
    };
    let mut claims: BTreeMap<Task, (i32, &str)> = BTreeMap::new();
    for member in members {
        for task in member.owned.iter().filter(|task| exists(task)) {
            let claim = (member.generation, member.id.as_str());
            let held = claims.entry(*task).or_insert(claim);
            // Newer first, then the smaller id, so that the order of members does not matter.
            if claim.0 > held.0 || (claim.0 == held.0 && claim.1 < held.1) {
                *held = claim;
            }
        }
    }
    claims
        .into_iter()
        .map(|(task, (_, id))| (task, id))
        .collect()
}

/// The room that is left for one group's tasks.
struct Room<'a> {
    /// By member: the tasks that it certainly gets, and how many it has.
    shares: BTreeMap<&'a str, Share>,
    /// How many members may have one task more than their share.
    extras: usize,
}

struct Share {
    certain: usize,
    /// Tasks of groups before this one, so that the remainders do not all fall to the same member.
    other_tasks: usize,
    tasks: BTreeSet<Task>,
}

impl<'a> Room<'a> {
    fn new(
        members: &'a [Member],
        tasks_count: usize,
        target: &BTreeMap<String, BTreeSet<Task>>,
    ) -> Self {
        let workers_count = members.iter().map(weight).sum::<usize>().max(1);
        let shares: BTreeMap<&str, Share> = members
            .iter()
            .map(|member| {
                let share = Share {
                    certain: tasks_count * weight(member) / workers_count,
                    other_tasks: target.get(&member.id).map_or(0, BTreeSet::len),
                    tasks: BTreeSet::new(),
                };
                (member.id.as_str(), share)
            })
            .collect();
        let certain: usize = shares.values().map(|share| share.certain).sum();
        Self {
            shares,
            extras: tasks_count - certain,
        }
    }

    fn has_room(&self, id: &str) -> bool {
        self.shares.get(id).is_some_and(|share| {
            share.tasks.len() < share.certain
                || (share.tasks.len() == share.certain && self.extras > 0)
        })
    }

    fn give(&mut self, id: &str, task: Task) {
        if let Some(share) = self.shares.get_mut(id) {
            if share.tasks.len() == share.certain {
                self.extras -= 1;
            }
            share.tasks.insert(task);
        }
    }

    /// The member that lacks most of its share; of equals, the one with fewer tasks of other groups.
    fn neediest(&self) -> Option<&'a str> {
        let open = self.shares.iter().filter(|(id, _)| self.has_room(id));
        open.max_by_key(|(id, share)| {
            let lacks = share.certain as i64 - share.tasks.len() as i64;
            let fewer = std::cmp::Reverse(share.other_tasks + share.tasks.len());
            (lacks, fewer, std::cmp::Reverse(*id))
        })
        .map(|(id, _)| *id)
    }
}

fn weight(member: &Member) -> usize {
    usize::try_from(member.workers.max(1)).unwrap_or(usize::MAX)
}

/// The target for the tasks of one group: what is held stays as far as the balance allows, then what a member has the
/// state of, then whoever lacks most.
fn share_out(
    members: &[Member],
    group: TopicGroup,
    owners: &BTreeMap<Task, &str>,
    target: &BTreeMap<String, BTreeSet<Task>>,
) -> BTreeMap<String, BTreeSet<Task>> {
    let tasks = (0..group.partitions_count).map(|partition| Task {
        topics: group.number,
        partition,
    });
    let mut open: Vec<Task> = tasks.collect();
    let mut room = Room::new(members, open.len(), target);
    open.retain(|task| match owners.get(task) {
        Some(owner) if room.has_room(owner) => {
            room.give(owner, *task);
            false
        }
        _ => true,
    });
    open.retain(|task| match nearest(members, *task, &room) {
        Some(id) => {
            room.give(id, *task);
            false
        }
        None => true,
    });
    for task in open {
        // Shares and extras together are exactly as many as there are tasks, so there is room while there are members.
        if let Some(id) = room.neediest() {
            room.give(id, task);
        }
    }
    let shares = room.shares.into_iter();
    shares
        .map(|(id, share)| (id.to_owned(), share.tasks))
        .collect()
}

/// The member with room whose state of the task needs the least replay.
fn nearest<'a>(members: &'a [Member], task: Task, room: &Room<'_>) -> Option<&'a str> {
    let near = members
        .iter()
        .filter(|m| m.lags.contains_key(&task) && room.has_room(&m.id));
    near.min_by_key(|m| (m.lags[&task], m.id.as_str()))
        .map(|m| m.id.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(id: &str, owned: &[(u16, i32)]) -> Member {
        Member {
            id: id.to_owned(),
            workers: 1,
            generation: 1,
            owned: owned.iter().map(|&(t, p)| task(t, p)).collect(),
            lags: BTreeMap::new(),
        }
    }

    fn task(topics: u16, partition: i32) -> Task {
        Task { topics, partition }
    }

    fn groups(counts: &[i32]) -> Vec<TopicGroup> {
        (0..)
            .zip(counts)
            .map(|(number, &partitions_count)| TopicGroup {
                number,
                partitions_count,
            })
            .collect()
    }

    #[test]
    fn one_member_gets_everything() {
        let given = assign(&[member("a", &[])], &groups(&[2, 1]));
        assert_eq!(given.now["a"], [task(0, 0), task(0, 1), task(1, 0)].into());
        assert!(given.is_final());
    }

    #[test]
    fn a_task_that_moves_is_withheld_until_its_holder_lets_go() {
        let holder = member("a", &[(0, 0), (0, 1)]);
        let given = assign(&[holder, member("b", &[])], &groups(&[2]));
        assert_eq!(given.target["b"].len(), 1);
        assert!(given.now["b"].is_empty());
        assert!(!given.is_final());
        let kept: Vec<(u16, i32)> = given.now["a"]
            .iter()
            .map(|t| (t.topics, t.partition))
            .collect();
        let again = assign(&[member("a", &kept), member("b", &[])], &groups(&[2]));
        assert_eq!(again.now["b"].len(), 1);
        assert!(again.is_final());
    }

    #[test]
    fn a_task_goes_where_its_state_is() {
        let mut near = member("b", &[]);
        near.lags = [(task(0, 0), 5), (task(0, 1), 5)].into();
        let mut nearer = member("c", &[]);
        nearer.lags = [(task(0, 1), 1)].into();
        let given = assign(&[member("a", &[]), near, nearer], &groups(&[2]));
        assert!(given.now["b"].contains(&task(0, 0)));
        assert!(given.now["c"].contains(&task(0, 1)));
    }

    #[test]
    fn c29_of_two_that_claim_a_task_the_newer_generation_holds_it() {
        let mut sleeper = member("a", &[(0, 0)]);
        sleeper.generation = 3;
        let mut holder = member("b", &[(0, 0)]);
        holder.generation = 4;
        let given = assign(&[sleeper, holder], &groups(&[1]));
        assert_eq!(given.now["b"], [task(0, 0)].into());
        assert!(given.now["a"].is_empty());
    }

    #[test]
    fn shares_follow_the_workers() {
        let mut large = member("a", &[]);
        large.workers = 3;
        let given = assign(&[large, member("b", &[])], &groups(&[8]));
        assert_eq!((given.now["a"].len(), given.now["b"].len()), (6, 2));
    }

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let tasks =
            || prop::collection::btree_set((0u16..3, 0i32..9).prop_map(|(t, p)| task(t, p)), 0..9);
        let one = (1u32..4, 0i32..3, tasks(), tasks());
        prop::collection::vec(one, 1..6).prop_map(|all| {
            (0..)
                .zip(all)
                .map(|(i, (workers, generation, owned, near))| Member {
                    id: format!("m{i}"),
                    workers,
                    generation,
                    owned,
                    lags: near.into_iter().map(|t| (t, t.partition as u64)).collect(),
                })
                .collect()
        })
    }

    proptest! {
        /// Every task has one owner, shares differ from the fair ones by less than a task, and nobody is given what another holds.
        #[test]
        fn c29_every_task_has_one_owner_and_shares_are_fair(members in members(), counts in prop::collection::vec(0i32..9, 3)) {
            let groups = groups(&counts);
            let given = assign(&members, &groups);
            let all: Vec<Task> = given.target.values().flatten().copied().collect();
            let distinct: BTreeSet<Task> = all.iter().copied().collect();
            prop_assert_eq!(all.len(), distinct.len());
            prop_assert_eq!(all.len(), counts.iter().sum::<i32>() as usize);
            let workers: f64 = members.iter().map(|m| f64::from(m.workers)).sum();
            for group in &groups {
                for m in &members {
                    let has = given.target[&m.id].iter().filter(|t| t.topics == group.number).count() as f64;
                    let fair = f64::from(group.partitions_count) * f64::from(m.workers) / workers;
                    prop_assert!(has > fair - 1.0 && has < fair.floor() + 2.0, "{} has {has}, fair is {fair}", m.id);
                }
            }
            for (id, tasks) in &given.now {
                for t in tasks {
                    prop_assert!(given.target[id].contains(t));
                    let newer = members.iter().filter(|m| m.owned.contains(t)).map(|m| m.generation).max();
                    let holds = |m: &Member| m.owned.contains(t) && Some(m.generation) == newer;
                    prop_assert!(!members.iter().any(holds) || members.iter().any(|m| holds(m) && m.id == *id));
                }
            }
        }

        /// Members that do as they are told agree within two rounds, and then nothing moves any more.
        #[test]
        fn c29_members_that_let_go_and_join_again_settle(members in members(), counts in prop::collection::vec(0i32..9, 3)) {
            let groups = groups(&counts);
            let mut members = members;
            let follow = |members: &mut Vec<Member>, given: &Assignment, generation| {
                for m in members {
                    m.owned = given.now[&m.id].clone();
                    m.generation = generation;
                }
            };
            let first = assign(&members, &groups);
            follow(&mut members, &first, 10);
            let second = assign(&members, &groups);
            follow(&mut members, &second, 11);
            prop_assert!(second.is_final());
            prop_assert_eq!(&assign(&members, &groups).now, &second.now);
            let reversed: Vec<Member> = members.iter().rev().cloned().collect();
            prop_assert_eq!(assign(&reversed, &groups), assign(&members, &groups));
        }
    }
}

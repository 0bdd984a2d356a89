//! The assignor: shares out tasks to the members of a group. Balanced first, then sticky, then near the state.
//!
//! Pure: the member that leads the group runs it on what all members said of themselves. An answer has two parts, the
//! *target*, where every task should be, and what each member may have *now*: a task that another member still holds is
//! withheld until that member has let go of it and joined again (KIP-429), so that no task is ever in two hands.
//! Standbys keep copies of state on members that do not own it, spread so that each member's tasks have many to go to.

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
    /// Partitions of each topic.
    pub(crate) partitions_count: i32,
    /// Whether its tasks have state.
    pub(crate) is_stateful: bool,
}

/// Words of a member when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its id; with a static member, its instance id, so that a restarted process is the same member.
    pub(crate) id: String,
    /// Its workers; its share is proportional to them.
    pub(crate) workers: u32,
    /// The generation in which it was given what it owns.
    pub(crate) generation: i32,
    /// The tasks that it holds.
    pub(crate) owned: BTreeSet<Task>,
    /// The tasks whose state it has on its disk, and how many records it would have to replay.
    pub(crate) lags: BTreeMap<Task, u64>,
}

/// Assignment to the members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Where every task should be, by member.
    pub(crate) target: BTreeMap<String, BTreeSet<Task>>,
    /// Tasks that each member may have now: its target without what others still hold.
    pub(crate) now: BTreeMap<String, BTreeSet<Task>>,
    /// Whose state each member keeps a copy of, besides its own.
    pub(crate) standbys: BTreeMap<String, BTreeSet<Task>>,
}

impl Assignment {
    /// Whether tasks are withheld: their holders let go of them and join again.
    pub(crate) fn is_final(&self) -> bool {
        self.target == self.now
    }
}

/// Shares out all tasks of `groups` to `members`, and `standbys_count` copies of each one's state, or as many as there are
/// other members. Equal members in any order give the same answer.
pub(crate) fn assign(
    members: &[Member],
    groups: &[TopicGroup],
    standbys_count: usize,
) -> Assignment {
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
    let standbys = Standbys::place(members, groups, &target, standbys_count);
    Assignment {
        target,
        now,
        standbys,
    }
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
    /// The members that may have one task more than their share.
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

/// The standbys that are placed so far.
struct Standbys<'a> {
    members: Vec<&'a Member>,
    target: BTreeMap<Task, &'a str>,
    placed: BTreeMap<&'a str, BTreeSet<Task>>,
    /// Tasks of a member with one worker before others are preferred.
    share: usize,
}

impl<'a> Standbys<'a> {
    fn place(
        members: &'a [Member],
        groups: &[TopicGroup],
        target: &'a BTreeMap<String, BTreeSet<Task>>,
        count: usize,
    ) -> BTreeMap<String, BTreeSet<Task>> {
        let owned = target.iter();
        let owned = owned.flat_map(|(id, tasks)| tasks.iter().map(|task| (*task, id.as_str())));
        let is_stateful = |task: &Task| {
            let mut groups = groups.iter();
            groups.any(|group| group.number == task.topics && group.is_stateful)
        };
        let target: BTreeMap<Task, &str> = owned.filter(|(task, _)| is_stateful(task)).collect();
        let mut members: Vec<&Member> = members.iter().collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let count = count.min(members.len().saturating_sub(1));
        let workers_count = members.iter().copied().map(weight).sum::<usize>().max(1);
        let mut standbys = Self {
            share: (count * target.len()).div_ceil(workers_count),
            placed: members
                .iter()
                .map(|m| (m.id.as_str(), BTreeSet::new()))
                .collect(),
            members,
            target,
        };
        let tasks: Vec<Task> = standbys.target.keys().copied().collect();
        for task in &tasks {
            standbys.keep(*task, count);
        }
        for task in &tasks {
            standbys.fill_up(*task, count);
        }
        let placed = standbys.placed.into_iter();
        placed.map(|(id, tasks)| (id.to_owned(), tasks)).collect()
    }

    fn copies(&self, task: Task) -> usize {
        let mut all = self.placed.values();
        all.by_ref().filter(|tasks| tasks.contains(&task)).count()
    }

    /// Those who may have a copy: not the owner, whose death the copy is for, and nobody twice.
    fn candidates(&self, task: Task) -> impl Iterator<Item = &'a Member> {
        let owner = self.target.get(&task).copied();
        let may = |member: &&&'a Member| {
            let has = self.placed.get(member.id.as_str());
            Some(member.id.as_str()) != owner && !has.is_some_and(|tasks| tasks.contains(&task))
        };
        let found: Vec<&'a Member> = self.members.iter().filter(may).copied().collect();
        found.into_iter()
    }

    fn load(&self, member: &Member) -> usize {
        self.placed.get(member.id.as_str()).map_or(0, BTreeSet::len)
    }

    fn has_room(&self, member: &Member) -> bool {
        self.load(member) < self.share * weight(member)
    }

    fn give(&mut self, id: &'a str, task: Task) {
        self.placed.entry(id).or_default().insert(task);
    }

    /// Copies stay where they are, those that are nearest to the state first.
    fn keep(&mut self, task: Task, count: usize) {
        let near = self.candidates(task).filter(|member| self.has_room(member));
        let near = near.filter_map(|member| Some((*member.lags.get(&task)?, member.id.as_str())));
        let mut near: Vec<(u64, &str)> = near.collect();
        near.sort_unstable();
        for (_, id) in near.into_iter().take(count) {
            self.give(id, task);
        }
    }

    /// New copies go where fewest tasks of the same owner have theirs, so that its death is spread; then to whoever has fewest.
    fn fill_up(&mut self, task: Task, count: usize) {
        while self.copies(task) < count {
            let owner = self.target.get(&task).copied();
            let of_same_owner = |member: &Member| {
                let copies = self.placed.get(member.id.as_str()).into_iter().flatten();
                let same = copies.filter(|copy| self.target.get(*copy).copied() == owner);
                same.count()
            };
            let candidates = self.candidates(task);
            let best = candidates.min_by_key(|member| {
                let is_full = !self.has_room(member);
                (
                    is_full,
                    of_same_owner(member),
                    self.load(member),
                    &member.id,
                )
            });
            match best {
                Some(best) => self.give(best.id.as_str(), task),
                None => return,
            }
        }
    }
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
                is_stateful: true,
            })
            .collect()
    }

    /// Without standbys.
    fn assign(members: &[Member], groups: &[TopicGroup]) -> Assignment {
        super::assign(members, groups, 0)
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
    fn a_task_whose_owner_died_goes_to_its_standby() {
        let all = [("a", &[(0, 0), (0, 1)][..]), ("b", &[]), ("c", &[])];
        let members = all.map(|(id, owned)| member(id, owned));
        let groups = groups(&[2]);
        let given = super::assign(&members[..1], &groups, 1);
        assert!(
            given.standbys["a"].is_empty(),
            "a copy beside the original helps nobody"
        );
        let given = super::assign(&members, &groups, 1);
        let standby = |t: Task| {
            let mut all = given.standbys.iter();
            all.find(|(_, tasks)| tasks.contains(&t)).unwrap().0.clone()
        };
        let (first, second) = (standby(task(0, 0)), standby(task(0, 1)));
        let left: Vec<Member> = ["b", "c", "d"]
            .map(|id| {
                let mut left = member(id, &[]);
                left.lags = given
                    .standbys
                    .get(id)
                    .into_iter()
                    .flatten()
                    .map(|t| (*t, 3))
                    .collect();
                left
            })
            .into();
        let after = super::assign(&left, &groups, 1);
        for (number, holder) in [(0, first), (1, second)] {
            if holder != "a" {
                assert!(after.now[&holder].contains(&task(0, number)), "{after:?}");
            }
        }
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

        /// Copies are on other members than the original, each on its own, as many as can be; they stay once they are placed.
        #[test]
        fn c29_standbys_are_elsewhere_and_stay(members in members(), counts in prop::collection::vec(0i32..9, 3), wanted in 0usize..4) {
            let mut groups = groups(&counts);
            groups[2].is_stateful = false;
            let given = super::assign(&members, &groups, wanted);
            let possible = wanted.min(members.len() - 1);
            for (owner, tasks) in &given.target {
                for t in tasks {
                    let copies: Vec<&String> = given.standbys.iter().filter(|it| it.1.contains(t)).map(|it| it.0).collect();
                    let expected = if t.topics == 2 { 0 } else { possible };
                    prop_assert_eq!(copies.len(), expected, "{:?} of {}", t, owner);
                    prop_assert!(!copies.contains(&owner));
                }
            }
            let reversed: Vec<Member> = members.iter().rev().cloned().collect();
            prop_assert_eq!(&super::assign(&reversed, &groups, wanted), &given);
        }

        /// Once the tasks are settled, so are the standbys.
        #[test]
        fn c29_standbys_settle_with_their_tasks(members in members(), counts in prop::collection::vec(0i32..9, 3), wanted in 0usize..3) {
            let groups = groups(&counts);
            let mut members = members;
            let mut before = BTreeMap::new();
            for generation in 10..18 {
                let given = super::assign(&members, &groups, wanted);
                for m in &mut members {
                    m.owned = given.now[&m.id].clone();
                    m.generation = generation;
                    m.lags = m.owned.iter().chain(&given.standbys[&m.id]).map(|t| (*t, 0)).collect();
                }
                if generation == 17 {
                    prop_assert_eq!(&given.standbys, &before);
                }
                before = given.standbys;
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

//! Members that follow the protocol while answers are lost, members vanish and the coordinator crashes.
//!
//! Safety: of the members that believe to own a partition, at most one can commit its position.
//! Liveness: left alone, every member is stable, and each partition has an owner.

use proptest::prelude::*;

use super::world::*;
use crate::coordinator::RequestId;
use crate::coordinator::group::Config;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupState,
};

const TOPICS: [(&str, i32); 2] = [("t", 2), ("u", 3)];

#[derive(Debug, Clone)]
struct Member {
    member_id: String,
    /// Number of its starts: each has a member id of its own.
    starts: u32,
    topics: Vec<&'static str>,
    epoch: i32,
    owned: Vec<AssignedTopic>,
    in_flight: Option<RequestId>,
}

impl Member {
    fn new(index: usize) -> Self {
        Self {
            member_id: format!("m{index}"),
            starts: 0,
            topics: vec!["t", "u"],
            epoch: 0,
            owned: Vec::new(),
            in_flight: None,
        }
    }

    /// Takes an answer in, or sends the next heartbeat: all that it knows, or just that it lives.
    fn act(&mut self, world: &mut World, says_all: bool) {
        if let Some(request) = self.in_flight {
            if world.answer(request).is_some() {
                self.in_flight = None;
                self.take(world.response(request));
            }
            return;
        }
        let message = match self.epoch {
            0 => self.joining(),
            epoch if says_all => ConsumerGroupHeartbeatRequest {
                topic_partitions: Some(self.owned.clone()),
                member_epoch: epoch,
                ..self.joining()
            },
            epoch => owning(&self.member_id, epoch, Some(self.owned.clone())),
        };
        self.in_flight = Some(world.send(message));
    }

    /// The second member names its topics by a regular expression.
    fn joining(&self) -> ConsumerGroupHeartbeatRequest {
        match self.member_id.starts_with("m1") {
            true => matching(&self.member_id, &self.topics.join("|")),
            false => joining(&self.member_id, &self.topics),
        }
    }

    fn take(&mut self, answer: Result<ConsumerGroupHeartbeatResponse, ErrorCode>) {
        match answer {
            Ok(response) => {
                self.epoch = response.member_epoch;
                self.owned = response.assignment.unwrap_or_else(|| self.owned.clone());
            }
            Err(ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId) => self.join_anew(),
            // A group that a crash forgot is not known by its members' epochs.
            Err(ErrorCode::GroupIdNotFound) => self.join_anew(),
            Err(ErrorCode::KafkaStorageError) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    fn join_anew(&mut self) {
        self.epoch = 0;
        self.owned.clear();
    }

    fn restart(&mut self, index: usize) {
        let starts = self.starts + 1;
        *self = Self::new(index);
        self.starts = starts;
        self.member_id = format!("m{index}.{starts}");
    }

    fn owns(&self, topic: &str, partition: i32) -> bool {
        let mut owned = self.owned.iter();
        owned.any(|it| {
            it.topic.as_ref().is_some_and(|it| it.as_str() == topic)
                && it.partitions.contains(&partition)
        })
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Act(usize, bool),
    LoseAnswer(usize),
    Restart(usize),
    Leave(usize),
    Subscribe(usize, bool),
    Grow,
    Flush,
    Fail,
    Pass(u64),
    Reopen,
    /// Keeps so many of the appends that nobody was told of.
    Crash(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        24 => (0usize..3, any::<bool>()).prop_map(|(at, all)| Operation::Act(at, all)),
        2 => (0usize..3).prop_map(Operation::LoseAnswer),
        1 => (0usize..3).prop_map(Operation::Restart),
        1 => (0usize..3).prop_map(Operation::Leave),
        1 => (0usize..3, any::<bool>()).prop_map(|(at, all)| Operation::Subscribe(at, all)),
        1 => Just(Operation::Grow),
        10 => Just(Operation::Flush),
        1 => Just(Operation::Fail),
        2 => (0u64..30).prop_map(Operation::Pass),
        1 => Just(Operation::Reopen),
        1 => (0usize..3).prop_map(Operation::Crash),
    ]
}

fn apply(operation: &Operation, world: &mut World, members: &mut [Member]) {
    match operation {
        Operation::Act(at, says_all) => members[*at].act(world, *says_all),
        Operation::LoseAnswer(at) => members[*at].in_flight = None,
        Operation::Restart(at) => members[*at].restart(*at),
        Operation::Leave(at) => {
            world.send(staying(&members[*at].member_id, -1));
            members[*at].restart(*at);
        }
        Operation::Subscribe(at, to_all) => {
            members[*at].topics = if *to_all { vec!["t", "u"] } else { vec!["t"] };
        }
        Operation::Grow => world.grow("t", 3),
        Operation::Flush => world.flush(),
        Operation::Fail => world.fail(ErrorCode::KafkaStorageError),
        Operation::Pass(seconds) => world.pass(*seconds),
        Operation::Reopen => {
            world.flush();
            world.crash(0);
            members.iter_mut().for_each(|it| it.in_flight = None);
        }
        Operation::Crash(kept) => {
            world.crash(*kept);
            members.iter_mut().for_each(|it| it.in_flight = None);
        }
    }
}

/// Counts members that could commit the position of a partition that they believe to own.
fn owners(world: &World, members: &[Member], topic: &str, partition: i32) -> usize {
    let can_commit = |member: &&Member| {
        let mut world = world.clone();
        member.owns(topic, partition)
            && world.commit(&member.member_id, member.epoch, false).is_ok()
    };
    members.iter().filter(can_commit).count()
}

fn settle(world: &mut World, members: &mut [Member]) {
    for round in 0..200 {
        for member in &mut *members {
            member.topics = vec!["t", "u"];
            member.act(world, round % 3 == 0);
        }
        world.flush();
        world.pass(1);
        world.flush();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn no_partition_has_two_owners_and_every_member_becomes_stable(
        operations in prop::collection::vec(operation(), 1..120),
    ) {
        let mut world = World::with_topics(Config::default(), &TOPICS);
        world.grow("t", 2);
        let mut members: Vec<_> = (0..3).map(Member::new).collect();
        for operation in &operations {
            apply(operation, &mut world, &mut members);
            for (topic, count) in [("t", 3), ("u", 3)] {
                for partition in 0..count {
                    let owners = owners(&world, &members, topic, partition);
                    prop_assert!(owners <= 1, "{topic}-{partition} after {operation:?}");
                }
            }
        }
        settle(&mut world, &mut members);
        prop_assert_eq!(world.state_of_consumers(), GroupState::Stable);
        for (topic, count) in TOPICS {
            for partition in 0..count {
                prop_assert_eq!(owners(&world, &members, topic, partition), 1);
            }
        }
        // The journal holds it all: a new coordinator says the same.
        let before = world.coordinator.describe_consumer(&group());
        world.crash(0);
        prop_assert_eq!(world.coordinator.describe_consumer(&group()), before);
    }
}

//! Clients that follow the protocol, some of them twice under one instance id, while the coordinator crashes.
//!
//! Safety: of the clients that believe to own a partition, at most one can commit its position.
//! Liveness: left alone, every client that was not fenced becomes a member, and each partition has an owner.

use proptest::prelude::*;

use super::world::*;
use crate::coordinator::RequestId;
use crate::coordinator::group::{Config, Response};
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    GroupState, JoinGroupRequest, JoinGroupResponse, JoinedGroup,
};

const PARTITIONS: [char; 3] = ['a', 'b', 'c'];

#[derive(Debug, Clone)]
enum Stage {
    Out,
    Joining(RequestId),
    Syncing(RequestId, JoinedGroup),
    Member(i32, String),
    Fenced,
}

#[derive(Debug, Clone)]
struct Client {
    instance: Option<&'static str>,
    member_id: String,
    stage: Stage,
}

impl Client {
    fn new(instance: Option<&'static str>) -> Self {
        Self {
            instance,
            member_id: String::new(),
            stage: Stage::Out,
        }
    }

    /// Does the next thing that the protocol asks for.
    fn act(&mut self, world: &mut World) {
        match self.stage.clone() {
            Stage::Out => {
                let request = world.join(JoinGroupRequest {
                    group_instance_id: self.instance.map(str::to_owned),
                    ..join("c", &self.member_id)
                });
                self.stage = Stage::Joining(request);
            }
            Stage::Joining(request) => match world.answer(request) {
                None => {}
                Some(Ok(Response::Joined(JoinGroupResponse::MemberIdRequired { member_id }))) => {
                    self.member_id = member_id;
                    self.stage = Stage::Out;
                }
                Some(Ok(Response::Joined(JoinGroupResponse::Joined(joined)))) => {
                    self.member_id.clone_from(&joined.member_id);
                    let assignments = assign(&joined);
                    let assignments: Vec<_> = assignments
                        .iter()
                        .map(|(id, it)| (id.as_str(), it.as_str()))
                        .collect();
                    let request = world.sync_as(self.instance, &joined, &assignments);
                    self.stage = Stage::Syncing(request, joined);
                }
                Some(Ok(answer)) => panic!("{answer:?}"),
                Some(Err(error)) => self.refused(error),
            },
            Stage::Syncing(request, joined) => match world.answer(request) {
                None => {}
                Some(Ok(_)) => {
                    let assignment = world.assignment(request);
                    self.stage = Stage::Member(joined.generation, assignment);
                }
                Some(Err(error)) => self.refused(error),
            },
            Stage::Member(generation, _) => {
                let alive = world.heartbeat(&self.member_id, generation, self.instance);
                if let Err(error) = alive {
                    self.refused(error);
                }
            }
            Stage::Fenced => {}
        }
    }

    fn refused(&mut self, error: ErrorCode) {
        self.stage = match error {
            ErrorCode::FencedInstanceId => Stage::Fenced,
            _ => Stage::Out,
        };
        if error == ErrorCode::UnknownMemberId {
            self.member_id.clear();
        }
    }

    /// Its connection broke: what it asked for is never answered.
    fn disconnect(&mut self) {
        if matches!(self.stage, Stage::Joining(_) | Stage::Syncing(..)) {
            self.stage = Stage::Out;
        }
    }
}

/// Assigns as a leader does: nothing if it does not lead.
fn assign(joined: &JoinedGroup) -> Vec<(String, String)> {
    let count = joined.members.len();
    let members = joined.members.iter().enumerate();
    let share = |index| {
        PARTITIONS
            .iter()
            .skip(index)
            .step_by(count.max(1))
            .collect()
    };
    let assignments = members.map(|(index, member)| (member.member_id.clone(), share(index)));
    assignments.collect()
}

#[derive(Debug, Clone)]
enum Operation {
    Act(usize),
    Restart(usize),
    Disconnect(usize),
    Leave(usize),
    Flush,
    Fail,
    Pass(u64),
    Reopen,
    /// Keeps so many of the appends that nobody was told of.
    Crash(usize),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        24 => (0usize..4).prop_map(Operation::Act),
        1 => (0usize..4).prop_map(Operation::Restart),
        1 => (0usize..4).prop_map(Operation::Disconnect),
        1 => (0usize..4).prop_map(Operation::Leave),
        8 => Just(Operation::Flush),
        1 => Just(Operation::Fail),
        3 => (0u64..12).prop_map(Operation::Pass),
        1 => Just(Operation::Reopen),
        1 => (0usize..3).prop_map(Operation::Crash),
    ]
}

fn apply(operation: &Operation, world: &mut World, clients: &mut [Client]) {
    match operation {
        Operation::Act(at) => clients[*at].act(world),
        Operation::Restart(at) => clients[*at] = Client::new(clients[*at].instance),
        Operation::Disconnect(at) => clients[*at].disconnect(),
        Operation::Leave(at) => {
            world.leave(&clients[*at].member_id);
            clients[*at] = Client::new(clients[*at].instance);
        }
        Operation::Flush => world.flush(),
        Operation::Fail => world.fail(ErrorCode::KafkaStorageError),
        Operation::Pass(seconds) => world.pass(*seconds),
        Operation::Reopen => {
            world.flush();
            world.crash(0);
            clients.iter_mut().for_each(Client::disconnect);
        }
        Operation::Crash(kept) => {
            world.crash(*kept);
            clients.iter_mut().for_each(Client::disconnect);
        }
    }
}

/// Counts clients that could commit the position of `partition`, which they believe to own.
fn owners(world: &World, clients: &[Client], partition: char) -> usize {
    let can_commit = |client: &&Client| match &client.stage {
        Stage::Member(generation, assignment) if assignment.contains(partition) => {
            let mut world = world.clone();
            world.commit(&client.member_id, *generation, false).is_ok()
        }
        _ => false,
    };
    clients.iter().filter(can_commit).count()
}

fn settle(world: &mut World, clients: &mut [Client]) {
    for _ in 0..200 {
        for client in &mut *clients {
            client.act(world);
        }
        world.flush();
        world.pass(1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn no_partition_has_two_owners_and_every_member_becomes_stable(
        operations in prop::collection::vec(operation(), 1..150),
    ) {
        let mut world = World::new(Config::default());
        let mut clients = [None, None, Some("i"), Some("i")].map(Client::new);
        for operation in &operations {
            apply(operation, &mut world, &mut clients);
            for partition in PARTITIONS {
                prop_assert!(owners(&world, &clients, partition) <= 1, "{partition} after {operation:?}");
            }
        }
        settle(&mut world, &mut clients);
        prop_assert_eq!(world.state(), GroupState::Stable);
        for client in &clients {
            prop_assert!(matches!(client.stage, Stage::Member(..) | Stage::Fenced), "{client:?}");
        }
        for partition in PARTITIONS {
            prop_assert_eq!(owners(&world, &clients, partition), 1);
        }
        // The journal holds it all: a new coordinator says the same.
        let before = world.coordinator.describe_classic(&group());
        world.crash(0);
        prop_assert_eq!(world.coordinator.describe_classic(&group()), before);
    }
}

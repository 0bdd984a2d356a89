//! Commits of members whose group goes on: as who they are now while they are members, as nobody else's once they are not.

use super::groups::{Diary, protocols};
use super::*;
use crate::client::consumer::AssignmentStrategy;
use crate::client::wait::pause;
use crate::protocol::ErrorKind;
use crate::protocol::consumer_protocol::{Assignment, Subscription};
use crate::protocol::messages::groups::{
    ClientIdentity, ConsumerGroupHeartbeatRequest, JoinGroupProtocol, JoinGroupRequest,
    JoinGroupResponse, JoinedGroup, LeaveGroupRequest, LeavingMember, SyncGroupRequest,
};

/// A leader of a cooperative group that reads nothing, and takes its time.
struct Leader<'a> {
    world: &'a World,
    member_id: String,
}

impl Leader<'_> {
    fn request(&self) -> JoinGroupRequest {
        let subscription = Subscription {
            topics: vec![topic()],
            ..Subscription::default()
        };
        JoinGroupRequest {
            group: group(),
            client: ClientIdentity::default(),
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(45),
            member_id: self.member_id.clone(),
            group_instance_id: None,
            protocol_type: "consumer".to_owned(),
            protocols: vec![JoinGroupProtocol {
                name: AssignmentStrategy::CooperativeSticky.name().to_owned(),
                metadata: subscription.encode(),
            }],
            reason: None,
            requires_known_member_id: false,
            supports_skipping_assignment: false,
        }
    }

    /// Begins a rebalance, and waits until all have joined.
    fn join(&mut self) -> JoinedGroup {
        let answer = wait(self.world.transport.join_group(self.request())).unwrap();
        let JoinGroupResponse::Joined(joined) = answer else {
            panic!("it needs no id of the group's");
        };
        self.member_id.clone_from(&joined.member_id);
        joined
    }

    /// Ends the rebalance: everything goes to whoever else is there. Refused if another one has begun.
    fn assign(&self, joined: &JoinedGroup) -> Result<(), ClientError> {
        let members = joined.members.iter();
        let assignments = members.map(|member| {
            let partitions = match member.member_id == self.member_id {
                true => Vec::new(),
                false => (0..3).map(partition).collect(),
            };
            let assignment = Assignment {
                partitions,
                user_data: None,
            };
            (member.member_id.clone(), assignment.encode())
        });
        let request = SyncGroupRequest {
            group: group(),
            generation: joined.generation,
            member_id: self.member_id.clone(),
            group_instance_id: None,
            protocol_type: joined.protocol_type.clone(),
            protocol_name: joined.protocol_name.clone(),
            assignments: assignments.collect(),
        };
        wait(self.world.transport.sync_group(request)).map(drop)
    }
}

#[test]
fn c29_positions_of_a_member_in_a_rebalance_are_committed_by_the_next_generation() {
    let [_, cooperative, _] = protocols();
    let world = World::new();
    let mut leader = Leader {
        world: &world,
        member_id: String::new(),
    };
    let alone = leader.join();
    leader.assign(&alone).unwrap();
    let mut reader = world.member(&cooperative, &Diary::default());
    // It joins with the next generation, which the leader must ask for.
    let joined = loop {
        let joined = leader.join();
        if leader.assign(&joined).is_ok() && joined.members.len() == 2 {
            break joined;
        }
    };
    world.fill(0, 9);
    let seen = world.poll_until(&mut [&mut reader], |_, seen| seen.len() == 9);
    assert_eq!(seen.len(), 9);
    assert_eq!(reader.group_member().generation, joined.generation);
    // All have joined the next generation, and nobody knows yet what it reads.
    let joined = leader.join();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            rest(&world, 200);
            leader.assign(&joined).unwrap();
        });
        wait(reader.commit()).unwrap();
    });
    let committed = wait(reader.committed((0..3).map(partition).collect())).unwrap();
    for (_, committed) in committed {
        assert_eq!(committed.unwrap().offset, Offset(3));
    }
    wait(reader.close()).unwrap();
}

fn rest(world: &World, milliseconds: u64) {
    let duration = Duration::from_millis(milliseconds);
    wait(pause(world.transport.env(), duration)).unwrap();
}

/// Puts the only member of the group out, in its own name.
fn put_out(world: &World, member: &GroupMember, is_classic: bool) {
    if is_classic {
        let leaving = LeavingMember {
            member_id: member.member_id.clone(),
            group_instance_id: None,
            reason: None,
        };
        let request = LeaveGroupRequest {
            group: group(),
            members: vec![leaving],
        };
        wait(world.transport.leave_group(request)).unwrap();
        return;
    }
    let request = ConsumerGroupHeartbeatRequest {
        group: group(),
        client: ClientIdentity::default(),
        member_id: member.member_id.clone(),
        member_epoch: -1,
        group_instance_id: None,
        rack_id: None,
        rebalance_timeout: None,
        subscribed_topic_names: None,
        subscribed_topic_regex: None,
        hidden_topics: Vec::new(),
        server_assignor: None,
        topic_partitions: None,
    };
    wait(world.transport.consumer_group_heartbeat(request)).unwrap();
}

/// Waits until the group has a member again: the reader's thread has joined anew, though nobody polls.
fn until_it_is_back(world: &World) {
    let deadline = world.transport.env().clock.now().plus(PATIENCE);
    let is_back = || {
        let described = wait(world.admin.describe_group(&group())).unwrap();
        let is_settled = ["Stable", "Reconciling"].contains(&described.state.as_str());
        is_settled && !described.members.is_empty()
    };
    while !is_back() {
        let now = world.transport.env().clock.now();
        assert!(now < deadline, "it does not join again");
        rest(world, 10);
    }
}

#[test]
fn k9_who_lost_its_partitions_commits_nothing_until_a_poll_has_told_it() {
    for (config, is_classic) in protocols().into_iter().zip([true, true, false]) {
        let world = World::new();
        let diary = Diary::default();
        let mut reader = world.member(&config, &diary);
        world.poll_until(&mut [&mut reader], |readers, _| {
            readers[0].assignment().count() == 3
        });
        let before = reader.group_member();
        put_out(&world, &before, is_classic);
        until_it_is_back(&world);
        // What it holds is what it read before: somebody else might have read it since.
        assert_eq!(reader.group_member(), before);
        let offsets = || vec![(partition(0), position(1))];
        let refused = wait(reader.commit_offsets(offsets())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Abortable, "{refused}");
        let producer = world.transactional("job");
        producer.begin_transaction().unwrap();
        let sent = wait(producer.send_offsets(group(), reader.group_member(), offsets()));
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::Abortable);
        let _ = wait(producer.abort_transaction()).unwrap();
        // A poll tells it; from then on it is who it is now.
        world.poll_until(&mut [&mut reader], |readers, _| {
            diary.0.lock().contains(&"lost") && readers[0].assignment().count() == 3
        });
        assert_ne!(reader.group_member(), before);
        wait(reader.commit_offsets(offsets())).unwrap();
        wait(producer.close()).unwrap();
        wait(reader.close()).unwrap();
    }
}

//! Classic groups: histories by name, and clients that follow the protocol through crashes, delays and expiries.

mod model;
mod world;

use std::time::Duration;

use world::*;

use crate::coordinator::group::{Config, Input, Response};
use crate::coordinator::membership_log::subscribed_topics;
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{
    ClientIdentity, ConsumerGroupHeartbeatRequest, GroupState, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, LeavingMember, ListGroupsRequest,
};

/// Joins in two steps and syncs a group of its own.
fn alone(world: &mut World) -> (String, i32) {
    let member_id = world.new_id("c");
    let request = world.join(join("c", &member_id));
    let joined = world.joined(request);
    let sync = world.sync(&joined, &[(&member_id, "a")]);
    world.flush();
    assert_eq!(world.assignment(sync), "a");
    (member_id, joined.generation)
}

#[test]
fn a_member_gets_an_id_first_and_leads_if_it_is_the_first() {
    let mut world = World::new(Config::default());
    let member_id = world.new_id("c");
    assert!(member_id.starts_with("c-"));
    let request = world.join(join("c", &member_id));
    let joined = world.joined(request);
    assert_eq!((joined.generation, joined.leader), (1, member_id.clone()));
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(joined.members.len(), 1);
    let unknown = world.join(join("c", "somebody"));
    assert_eq!(world.error(unknown), ErrorCode::UnknownMemberId);
}

#[test]
fn an_assignment_is_given_out_only_once_it_is_durable() {
    let mut world = World::new(Config::default());
    let member_id = world.new_id("c");
    let request = world.join(join("c", &member_id));
    let joined = world.joined(request);
    let sync = world.sync(&joined, &[(&member_id, "a")]);
    assert_eq!(world.answer(sync), None);
    let mut crashed = world.clone();
    crashed.crash(0);
    assert!(crashed.coordinator.memberships.is_empty());
    world.flush();
    assert_eq!(world.assignment(sync), "a");
    world.crash(0);
    assert_eq!(world.state(), GroupState::Stable);
    assert_eq!(world.heartbeat(&member_id, 1, None), Ok(()));
}

#[test]
fn followers_wait_for_the_leader_and_only_it_learns_of_the_others() {
    let mut world = World::new(Config::default());
    let (first, _) = alone(&mut world);
    let second = world.new_id("d");
    let joining = world.join(join("d", &second));
    assert_eq!(world.answer(joining), None);
    let rebalancing = world.heartbeat(&first, 1, None);
    assert_eq!(rebalancing, Err(ErrorCode::RebalanceInProgress));
    let rejoin = world.join(join("c", &first));
    let (leader, follower) = (world.joined(rejoin), world.joined(joining));
    assert_eq!((leader.generation, follower.generation), (2, 2));
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    let waiting = world.sync(&follower, &[]);
    assert_eq!(world.answer(waiting), None);
    let lead = world.sync(&leader, &[(&first, "a"), (&second, "b")]);
    world.flush();
    assert_eq!(world.assignment(waiting), "b");
    assert_eq!(world.assignment(lead), "a");
}

#[test]
fn commits_of_another_generation_or_member_are_fenced_also_in_transactions() {
    let mut world = World::new(Config::default());
    let (member_id, generation) = alone(&mut world);
    for is_transactional in [false, true] {
        let mut commit = |id: &str, generation| world.commit(id, generation, is_transactional);
        assert_eq!(commit(&member_id, generation), Ok(()));
        let stale = commit(&member_id, generation - 1);
        assert_eq!(stale, Err(ErrorCode::IllegalGeneration));
        let stranger = commit("somebody", generation);
        assert_eq!(stranger, Err(ErrorCode::UnknownMemberId));
    }
    // Whoever does not say who it is may not disturb members; old transactional clients cannot say it.
    let nobody = world.commit("", -1, false);
    assert_eq!(nobody, Err(ErrorCode::UnknownMemberId));
    assert_eq!(world.commit("", -1, true), Ok(()));
    let rejoin = world.join(join("c", &member_id));
    let joined = world.joined(rejoin);
    let early = world.commit(&member_id, joined.generation, false);
    assert_eq!(early, Err(ErrorCode::RebalanceInProgress));
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_fences_its_older_self() {
    let mut world = World::new(Config::default());
    let fixed = JoinGroupRequest {
        group_instance_id: Some("i".into()),
        ..join("c", "")
    };
    let request = world.join(fixed.clone());
    let first = world.joined(request);
    world.sync(&first, &[(&first.member_id, "a")]);
    world.flush();
    for supports_skipping_assignment in [false, true] {
        let before = world.state_of_first_member();
        let request = world.join(JoinGroupRequest {
            supports_skipping_assignment,
            ..fixed.clone()
        });
        assert_eq!(world.answer(request), None, "its new id is durable first");
        world.flush();
        let again = world.joined(request);
        assert_eq!(again.generation, first.generation);
        assert_ne!(again.member_id, before);
        assert_eq!(again.skip_assignment, supports_skipping_assignment);
        assert_eq!(
            again.leader == again.member_id,
            supports_skipping_assignment
        );
        let sync = world.sync(&again, &[]);
        assert_eq!(world.assignment(sync), "a");
        let fenced = world.heartbeat(&before, first.generation, Some("i"));
        assert_eq!(fenced, Err(ErrorCode::FencedInstanceId));
    }
    world.crash(0);
    assert_eq!(world.state(), GroupState::Stable);
}

#[test]
fn the_first_members_wait_for_others_if_that_is_configured() {
    let mut world = World::new(Config {
        initial_rebalance_delay: Duration::from_secs(3),
        ..Config::default()
    });
    let ids = [world.new_id("c"), world.new_id("d")];
    let first = world.join(join("c", &ids[0]));
    world.pass(2);
    let second = world.join(join("d", &ids[1]));
    world.pass(1);
    assert_eq!(world.answer(first), None, "a member came: the wait goes on");
    world.pass(3);
    assert_eq!(world.joined(first).generation, 1);
    assert_eq!(world.joined(second).generation, 1);
}

#[test]
fn silent_members_are_removed_and_the_rest_goes_on() {
    let mut world = World::new(Config::default());
    let (first, _) = alone(&mut world);
    let second = world.new_id("d");
    let joining = world.join(join("d", &second));
    // The first one heartbeats but never joins again: the rebalance timeout ends its membership.
    for _ in 0..30 {
        let _ = world.heartbeat(&first, 1, None);
        world.pass(1);
    }
    let joined = world.joined(joining);
    assert_eq!((joined.generation, joined.members.len()), (2, 1));
    let gone = world.heartbeat(&first, 1, None);
    assert_eq!(gone, Err(ErrorCode::UnknownMemberId));
    // A leader that does not sync in time is removed, too.
    for _ in 0..30 {
        let _ = world.heartbeat(&second, 2, None);
        world.pass(1);
    }
    assert_eq!(world.state(), GroupState::Empty);
    // So is a member whose session ends.
    let (third, generation) = alone(&mut world);
    world.pass(9);
    assert_eq!(world.heartbeat(&third, generation, None), Ok(()));
    world.pass(10);
    assert_eq!(world.state(), GroupState::Empty);
}

#[test]
fn several_members_leave_at_once_each_with_its_own_outcome() {
    let mut world = World::new(Config::default());
    let request = world.join(JoinGroupRequest {
        group_instance_id: Some("i".into()),
        ..join("c", "")
    });
    world.joined(request);
    let waiting = world.new_id("d");
    let member = |member_id: &str, instance: Option<&str>| LeavingMember {
        member_id: member_id.to_owned(),
        group_instance_id: instance.map(str::to_owned),
        reason: None,
    };
    let request = world.ask(|request| Input::Leave {
        request,
        message: LeaveGroupRequest {
            group: group(),
            members: vec![
                member("x", None),
                member("x", Some("i")),
                member(&waiting, None),
                member("", Some("i")),
                member("", Some("i")),
            ],
        },
    });
    let Some(Ok(Response::Left(left))) = world.answer(request) else {
        panic!("not left");
    };
    let errors: Vec<_> = left.members.iter().map(|it| it.error).collect();
    let unknown = Some(ErrorCode::UnknownMemberId);
    let fenced = Some(ErrorCode::FencedInstanceId);
    assert_eq!(errors, [unknown, fenced, None, None, unknown]);
    assert_eq!(world.state(), GroupState::Empty);
}

#[test]
fn what_does_not_fit_the_group_is_refused() {
    let config = Config {
        group_max_size: 1,
        ..Config::default()
    };
    let mut world = World::new(config);
    let mut refused = |message: JoinGroupRequest| {
        let request = world.join(message);
        world.error(request)
    };
    let short = JoinGroupRequest {
        session_timeout: Duration::from_secs(1),
        ..join("c", "")
    };
    assert_eq!(refused(short), ErrorCode::InvalidSessionTimeout);
    let mut silent = join("c", "");
    silent.protocols.clear();
    assert_eq!(refused(silent), ErrorCode::InconsistentGroupProtocol);
    let mut large = join("c", "");
    large.protocols[0].metadata = vec![0; 300 << 10].into();
    assert_eq!(refused(large), ErrorCode::InvalidRequest);
    alone(&mut world);
    let request = world.join(join("d", ""));
    assert_eq!(world.error(request), ErrorCode::GroupMaxSizeReached);
    world.coordinator.config.group_max_size = 2;
    let mut other = join("d", "");
    other.protocols[0].name = "sticky".into();
    let request = world.join(other);
    assert_eq!(world.error(request), ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn a_refused_first_join_leaves_no_group_behind() {
    let mut world = World::new(Config::default());
    let short = JoinGroupRequest {
        session_timeout: Duration::from_secs(1),
        ..join("c", "")
    };
    let mut silent = join("c", "");
    silent.protocols.clear();
    for message in [short, silent, join("c", "somebody")] {
        let request = world.join(message);
        world.error(request);
        assert!(world.coordinator.memberships.is_empty());
    }
    // An id was given out, and nobody came with it: nothing of that is journalled.
    world.new_id("c");
    assert_eq!(world.coordinator.list().count(), 1);
    world.pass(10);
    assert_eq!(world.coordinator.list().count(), 0);
    assert_eq!(world.unwritten_count(), 0);
}

#[test]
fn a_refused_first_member_leaves_the_group_of_the_other_protocol_as_it_was() {
    let mut world = World::new(Config::default());
    let (member_id, _) = alone(&mut world);
    world.leave(&member_id);
    world.flush();
    assert_eq!(world.state(), GroupState::Empty);
    let before = format!("{:?}", world.coordinator.memberships);
    world.coordinator.config.group_max_size = 0;
    let request = world.ask(|request| Input::ConsumerHeartbeat {
        request,
        message: newcomer(),
        unique: 1,
    });
    assert_eq!(world.error(request), ErrorCode::GroupMaxSizeReached);
    world.coordinator.config.group_max_size = 2;
    assert_eq!(format!("{:?}", world.coordinator.memberships), before);
    // One that is taken in leaves nothing of the old one.
    let request = world.ask(|request| Input::ConsumerHeartbeat {
        request,
        message: newcomer(),
        unique: 1,
    });
    world.flush();
    assert!(matches!(world.answer(request), Some(Ok(_))));
    assert_eq!(world.state(), GroupState::Dead, "no longer a classic one");
    // And the other way round, a refused join leaves the consumers' group.
    let request = world.join(join("c", "somebody"));
    assert_eq!(world.error(request), ErrorCode::InconsistentGroupProtocol);
    assert!(world.coordinator.describe_consumer(&group()).is_some());
}

#[test]
fn a_static_members_join_is_answered_also_if_its_group_vanished_while_it_waited() {
    let fixed = JoinGroupRequest {
        group_instance_id: Some("i".into()),
        ..join("c", "")
    };
    for (has_failed, is_replaced) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new(Config::default());
        let request = world.join(fixed.clone());
        let first = world.joined(request);
        world.sync(&first, &[(&first.member_id, "a")]);
        world.flush();
        let request = world.join(fixed.clone());
        assert_eq!(world.answer(request), None, "its new id is durable first");
        world.coordinator.memberships.remove(&group());
        if is_replaced {
            let message = newcomer();
            world.ask(|request| Input::ConsumerHeartbeat {
                request,
                message,
                unique: 2,
            });
        }
        match has_failed {
            true => world.fail(ErrorCode::KafkaStorageError),
            false => world.flush(),
        }
        match (has_failed, is_replaced) {
            (true, _) => assert_eq!(world.error(request), ErrorCode::KafkaStorageError),
            (false, true) => {
                assert_eq!(world.error(request), ErrorCode::InconsistentGroupProtocol);
            }
            (false, false) => assert_eq!(world.joined(request).generation, 1, "of the new group"),
        }
    }
}

/// A first heartbeat of a consumer that reads `t`.
fn newcomer() -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group: group(),
        client: ClientIdentity {
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
        },
        member_id: "m".to_owned(),
        member_epoch: 0,
        group_instance_id: None,
        rack_id: None,
        rebalance_timeout: Some(Duration::from_secs(30)),
        subscribed_topic_names: Some(vec![partition("t").topic]),
        subscribed_topic_regex: None,
        hidden_topics: Vec::new(),
        server_assignor: None,
        topic_partitions: None,
    }
}

#[test]
fn a_group_with_members_is_not_deleted_nor_are_positions_that_they_read() {
    let mut world = World::new(Config::default());
    let (member_id, generation) = alone(&mut world);
    world.commit(&member_id, generation, false).unwrap();
    let request = world.ask(|request| Input::DeleteGroup {
        request,
        group: group(),
    });
    assert_eq!(world.error(request), ErrorCode::NonEmptyGroup);
    let offsets = |world: &mut World| {
        let request = world.ask(|request| Input::DeleteOffsets {
            request,
            group: group(),
            partitions: vec![partition("t"), partition("u")],
        });
        world.flush();
        match world.answer(request) {
            Some(Ok(Response::Deleted(results))) => {
                results.into_iter().map(|(_, it)| it).collect::<Vec<_>>()
            }
            answer => panic!("{answer:?}"),
        }
    };
    let subscribed = Err(ErrorCode::GroupSubscribedToTopic);
    assert_eq!(offsets(&mut world), [subscribed, Ok(())]);
    world.pass(10);
    world.flush();
    assert_eq!(offsets(&mut world), [Ok(()), Ok(())]);
    let request = world.ask(|request| Input::DeleteGroup {
        request,
        group: group(),
    });
    world.flush();
    assert_eq!(world.answer(request), Some(Ok(Response::Done)));
    assert_eq!(world.state(), GroupState::Dead);
    world.crash(0);
    assert_eq!(world.state(), GroupState::Dead);
}

#[test]
fn groups_are_listed_by_state_and_type_and_forgotten_when_nobody_uses_them() {
    let mut world = World::new(Config::default());
    alone(&mut world);
    let count = |world: &World, states: &[&str], types: &[&str]| {
        let names = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect();
        let message = ListGroupsRequest {
            states: names(states),
            types: names(types),
        };
        world.coordinator.list_with(&message).len()
    };
    assert_eq!(count(&world, &["stable"], &["Classic"]), 1);
    assert_eq!(count(&world, &["Empty"], &[]), 0);
    assert_eq!(count(&world, &[], &["consumer"]), 0);
    let shown = world.coordinator.describe_classic(&group());
    assert_eq!((shown.members.len(), shown.protocol.as_str()), (1, "range"));
    assert_eq!(
        subscribed_topics(&shown.members[0].metadata).unwrap().len(),
        1
    );
    world.pass(10);
    world.flush();
    assert_eq!(world.state(), GroupState::Empty);
    world.pass(600);
    world.flush();
    assert_eq!(world.state(), GroupState::Dead);
}

#[test]
fn a_failed_record_rebalances_and_promises_nothing() {
    let mut world = World::new(Config::default());
    let member_id = world.new_id("c");
    let request = world.join(join("c", &member_id));
    let joined = world.joined(request);
    let sync = world.sync(&joined, &[(&member_id, "a")]);
    world.fail(ErrorCode::KafkaStorageError);
    assert_eq!(world.error(sync), ErrorCode::KafkaStorageError);
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let request = world.join(join("c", &member_id));
    assert_eq!(world.joined(request).generation, 2);
}

#[test]
fn a_join_without_two_steps_is_for_older_clients() {
    let mut world = World::new(Config::default());
    let request = world.join(JoinGroupRequest {
        requires_known_member_id: false,
        ..join("c", "")
    });
    let Some(Ok(Response::Joined(JoinGroupResponse::Joined(joined)))) = world.answer(request)
    else {
        panic!("not joined");
    };
    assert_eq!(joined.leader, joined.member_id);
}

//! Groups of the consumer protocol: histories by name, and members that follow the protocol through crashes and delays.

mod model;
mod world;

use std::time::Duration;

use world::*;

use crate::coordinator::group::{Config, Input};
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{ConsumerGroupHeartbeatRequest, GroupState};

#[test]
fn a_single_member_gets_everything_once_it_is_durable() {
    let mut world = World::with_topics(Config::default(), &[("t", 3)]);
    let request = world.send(joining("m", &["t"]));
    assert_eq!(world.answer(request), None);
    let mut crashed = world.clone();
    crashed.crash(0);
    assert!(crashed.coordinator.describe_consumer(&group()).is_none());
    world.flush();
    let response = world.response(request).unwrap();
    assert_eq!(response.member_epoch, 1);
    assert_eq!(
        owned(&response),
        Some(vec![("t".into(), 0), ("t".into(), 1), ("t".into(), 2)])
    );
    assert_eq!(world.state_of_consumers(), GroupState::Stable);
    let again = world.beat(staying("m", 1)).unwrap();
    assert_eq!((again.member_epoch, again.assignment), (1, None));
}

#[test]
fn partitions_are_given_up_before_they_are_given_on() {
    let mut world = World::with_topics(Config::default(), &[("t", 2)]);
    world.beat(joining("m", &["t"])).unwrap();
    let second = world.beat(joining("n", &["t"])).unwrap();
    assert_eq!((second.member_epoch, owned(&second)), (2, Some(vec![])));
    assert_eq!(world.state_of_consumers(), GroupState::Reconciling);
    let first = world.beat(staying("m", 1)).unwrap();
    assert_eq!((first.member_epoch, owned(&first).unwrap().len()), (1, 1));
    let waiting = world.beat(staying("n", 2)).unwrap();
    assert_eq!(waiting.assignment, None);
    let kept = first.assignment.clone();
    let released = world.beat(owning("m", 1, kept)).unwrap();
    assert_eq!(released.member_epoch, 2);
    let second = world.beat(staying("n", 2)).unwrap();
    assert_eq!(owned(&second).unwrap().len(), 1);
    assert_eq!(world.state_of_consumers(), GroupState::Stable);
}

#[test]
fn epochs_fence_members_and_their_commits_also_in_transactions() {
    let mut world = World::with_topics(Config::default(), &[("t", 1)]);
    world.beat(joining("m", &["t"])).unwrap();
    let ahead = world.beat(staying("m", 2));
    assert_eq!(ahead.unwrap_err(), ErrorCode::FencedMemberEpoch);
    let stranger = world.beat(staying("x", 1));
    assert_eq!(stranger.unwrap_err(), ErrorCode::UnknownMemberId);
    for (is_transactional, refusal) in [
        (false, ErrorCode::StaleMemberEpoch),
        (true, ErrorCode::IllegalGeneration),
    ] {
        assert_eq!(world.commit("m", 1, is_transactional), Ok(()));
        let stale = world.commit("m", 0, is_transactional);
        assert_eq!(stale, Err(refusal));
        let unknown = world.commit("x", 1, is_transactional);
        assert_eq!(unknown, Err(ErrorCode::UnknownMemberId));
    }
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut world = World::with_topics(Config::default(), &[("t", 2)]);
    let first = world.beat(joining("m", &["t"])).unwrap();
    world.grow("t", 3);
    assert_eq!(world.beat(staying("m", 1)).unwrap().member_epoch, 2);
    // The member never heard of epoch 2.
    let fenced = world.beat(staying("m", 1));
    assert_eq!(fenced.unwrap_err(), ErrorCode::FencedMemberEpoch);
    let again = world.beat(owning("m", 1, first.assignment)).unwrap();
    assert_eq!((again.member_epoch, owned(&again).unwrap().len()), (2, 3));
}

#[test]
fn a_member_leaves_and_the_others_take_over() {
    let mut world = World::with_topics(Config::default(), &[("t", 2)]);
    world.beat(joining("m", &["t"])).unwrap();
    let left = world.beat(staying("m", -1)).unwrap();
    assert_eq!(left.member_epoch, -1);
    assert_eq!(world.state_of_consumers(), GroupState::Empty);
    let next = world.beat(joining("n", &["t"])).unwrap();
    assert_eq!(owned(&next).unwrap().len(), 2);
    world.pass(46);
    world.flush();
    assert_eq!(
        world.state_of_consumers(),
        GroupState::Empty,
        "its session has ended"
    );
    world.crash(0);
    assert_eq!(world.state_of_consumers(), GroupState::Empty);
}

#[test]
fn a_static_member_keeps_its_place_while_it_is_away() {
    let fixed = |message: ConsumerGroupHeartbeatRequest| ConsumerGroupHeartbeatRequest {
        group_instance_id: Some("i".into()),
        ..message
    };
    let mut world = World::with_topics(Config::default(), &[("t", 2)]);
    let first = world.beat(fixed(joining("m", &["t"]))).unwrap();
    world.beat(joining("o", &["t"])).unwrap();
    let twice = world.beat(fixed(joining("n", &["t"])));
    assert_eq!(twice.unwrap_err(), ErrorCode::UnreleasedInstanceId);
    let shrunk = world.beat(fixed(staying("m", first.member_epoch))).unwrap();
    let settled = world
        .beat(fixed(owning("m", 1, shrunk.assignment.clone())))
        .unwrap();
    let epoch = settled.member_epoch;
    world.beat(staying("o", 2)).unwrap();
    assert_eq!(
        world.beat(fixed(staying("m", -2))).unwrap().member_epoch,
        -2
    );
    assert_eq!(world.beat(staying("o", 2)).unwrap().assignment, None);
    let back = world.beat(fixed(joining("n", &["t"]))).unwrap();
    assert_eq!(
        (back.member_epoch, back.assignment),
        (epoch, shrunk.assignment)
    );
    let old = world.beat(fixed(staying("m", epoch)));
    assert_eq!(old.unwrap_err(), ErrorCode::FencedInstanceId);
}

#[test]
fn s16_a_topic_that_is_created_anew_or_grows_is_assigned_anew() {
    let mut world = World::with_topics(Config::default(), &[("t", 1)]);
    let first = world.beat(joining("m", &["t"])).unwrap();
    world.grow("t", 2);
    let grown = world.beat(staying("m", 1)).unwrap();
    assert_eq!(owned(&grown).unwrap().len(), 2);
    world.recreate("t", 2);
    let dropped = world.beat(staying("m", 2)).unwrap();
    assert_eq!((dropped.member_epoch, owned(&dropped)), (2, Some(vec![])));
    let renewed = world.beat(owning("m", 2, Some(Vec::new()))).unwrap();
    assert_eq!(owned(&renewed).unwrap().len(), 2);
    let id = |it: &Option<Vec<_>>| it.as_ref().map(|all: &Vec<AssignedTopic>| all[0].topic_id);
    assert_ne!(id(&renewed.assignment), id(&first.assignment));
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_removed() {
    let mut world = World::with_topics(Config::default(), &[("t", 2)]);
    world.beat(joining("m", &["t"])).unwrap();
    world.beat(joining("n", &["t"])).unwrap();
    for _ in 0..60 {
        let _ = world.beat(staying("m", 1));
        let _ = world.beat(staying("n", 2));
        world.pass(1);
        world.flush();
    }
    let removed = world.beat(staying("m", 1));
    assert_eq!(removed.unwrap_err(), ErrorCode::UnknownMemberId);
    let alone = world.beat(staying("n", 2)).unwrap();
    assert_eq!(owned(&alone).unwrap().len(), 2);
}

#[test]
fn a_group_of_one_protocol_refuses_the_other_until_it_is_empty() {
    let mut world = World::with_topics(Config::default(), &[("t", 1)]);
    world.beat(joining("m", &["t"])).unwrap();
    let classic = world.join_classic();
    assert_eq!(classic.unwrap_err(), ErrorCode::InconsistentGroupProtocol);
    world.beat(staying("m", -1)).unwrap();
    world.join_classic().unwrap();
    world.flush();
    let other = world.beat(joining("m", &["t"]));
    assert_eq!(other.unwrap_err(), ErrorCode::GroupIdNotFound);
    world.crash(0);
    assert!(world.coordinator.describe_consumer(&group()).is_none());
}

#[test]
fn what_does_not_make_sense_is_refused() {
    let mut world = World::with_topics(Config::default(), &[("t", 1)]);
    let mut refused = |message| world.beat(message).unwrap_err();
    let boastful = ConsumerGroupHeartbeatRequest {
        topic_partitions: Some(vec![topic("t", &[0])]),
        ..joining("m", &["t"])
    };
    assert_eq!(refused(boastful), ErrorCode::InvalidRequest);
    let foreign = ConsumerGroupHeartbeatRequest {
        server_assignor: Some("mine".into()),
        ..joining("m", &["t"])
    };
    assert_eq!(refused(foreign), ErrorCode::UnsupportedAssignor);
    assert_eq!(refused(staying("m", -3)), ErrorCode::InvalidRequest);
    assert_eq!(refused(staying("", 1)), ErrorCode::InvalidRequest);
    assert_eq!(refused(staying("m", -2)), ErrorCode::InvalidRequest);
    assert_eq!(refused(staying("m", 1)), ErrorCode::GroupIdNotFound);
    let wordless = ConsumerGroupHeartbeatRequest {
        rebalance_timeout: None,
        ..joining("m", &["t"])
    };
    assert_eq!(refused(wordless), ErrorCode::InvalidRequest);
}

/// Lets the member heartbeat, saying what it owns, until it is told nothing new; what it owns then.
fn settled(world: &mut World, member_id: &str, epoch: &mut i32) -> Vec<(String, i32)> {
    let mut last = Vec::new();
    let mut assigned = Some(Vec::new());
    for _ in 0..5 {
        let told = world
            .beat(owning(member_id, *epoch, assigned.clone()))
            .unwrap();
        *epoch = told.member_epoch;
        if told.assignment.is_some() {
            last = owned(&told).unwrap();
            assigned = told.assignment;
        }
    }
    last
}

#[test]
fn a_regular_expression_follows_topics_that_appear_and_vanish() {
    let mut world = World::with_topics(Config::default(), &[("a-1", 1), ("b-1", 1)]);
    let first = world.beat(matching("m", "[ac]-.")).unwrap();
    assert_eq!(owned(&first), Some(vec![("a-1".into(), 0)]));
    let mut epoch = first.member_epoch;
    world.create("c-1", 1);
    let both = vec![("a-1".to_owned(), 0), ("c-1".to_owned(), 0)];
    assert_eq!(settled(&mut world, "m", &mut epoch), both);
    world.create("d-1", 1);
    let told = world.beat(staying("m", epoch)).unwrap();
    assert_eq!(
        (told.member_epoch, told.assignment),
        (epoch, None),
        "nothing of its"
    );
    world.delete("a-1");
    assert_eq!(settled(&mut world, "m", &mut epoch), both[1..]);
    // What the expression names is in the journal, and is looked for again after a restart.
    world.crash(0);
    world.create("a-1", 1);
    assert_eq!(settled(&mut world, "m", &mut epoch), both);
    // Another expression, then names in its place.
    let changed = ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some("b.*".into()),
        ..staying("m", epoch)
    };
    epoch = world.beat(changed).unwrap().member_epoch;
    assert_eq!(
        settled(&mut world, "m", &mut epoch),
        [("b-1".to_owned(), 0)]
    );
    let named = ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some(String::new()),
        ..joining("m", &["d-1"])
    };
    let named = ConsumerGroupHeartbeatRequest {
        member_epoch: epoch,
        topic_partitions: None,
        ..named
    };
    epoch = world.beat(named).unwrap().member_epoch;
    assert_eq!(
        settled(&mut world, "m", &mut epoch),
        [("d-1".to_owned(), 0)]
    );
}

#[test]
fn a_regular_expression_names_no_topic_that_its_member_may_not_know() {
    let mut world = World::with_topics(Config::default(), &[("a", 1), ("b", 1)]);
    let limited = ConsumerGroupHeartbeatRequest {
        hidden_topics: hidden("b"),
        ..matching("m", ".*")
    };
    let told = world.beat(limited).unwrap();
    assert_eq!(owned(&told), Some(vec![("a".into(), 0)]));
}

#[test]
fn a_regular_expression_that_is_none_is_refused_and_changes_nothing() {
    let mut world = World::with_topics(Config::default(), &[("a", 1)]);
    let refused = world.beat(matching("m", "(")).unwrap_err();
    assert_eq!(refused, ErrorCode::InvalidRegularExpression);
    let first = world.beat(matching("m", "a|b")).unwrap();
    let changed = ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some("a)|(b".into()),
        ..staying("m", first.member_epoch)
    };
    assert_eq!(
        world.beat(changed).unwrap_err(),
        ErrorCode::InvalidRegularExpression
    );
    let told = world.beat(staying("m", first.member_epoch)).unwrap();
    assert_eq!(told.assignment, None);
}

#[test]
fn an_empty_group_is_deleted_and_one_with_members_is_not() {
    let mut world = World::with_topics(Config::default(), &[("t", 1)]);
    world.beat(joining("m", &["t"])).unwrap();
    let delete = |request| Input::DeleteGroup {
        request,
        group: group(),
    };
    let request = world.ask(delete);
    assert_eq!(world.error(request), ErrorCode::NonEmptyGroup);
    world.beat(staying("m", -1)).unwrap();
    world.ask(delete);
    world.flush();
    assert!(world.coordinator.describe_consumer(&group()).is_none());
    world.crash(0);
    assert!(world.coordinator.describe_consumer(&group()).is_none());
}

#[test]
fn range_shares_each_topic_out_alike_and_uniform_moves_as_little_as_it_can() {
    let mut world = World::with_topics(Config::default(), &[("t", 4), ("u", 4)]);
    let range = |message| ConsumerGroupHeartbeatRequest {
        server_assignor: Some("range".into()),
        ..message
    };
    world.beat(range(joining("m", &["t", "u"]))).unwrap();
    world.beat(range(joining("n", &["t", "u"]))).unwrap();
    let expected = |from| vec![topic("t", &[from, from + 1]), topic("u", &[from, from + 1])];
    assert_eq!(world.target("m"), expected(0));
    assert_eq!(world.target("n"), expected(2));

    let mut world = World::with_topics(Config::default(), &[("t", 6)]);
    world.beat(joining("m", &["t"])).unwrap();
    world.beat(joining("n", &["t"])).unwrap();
    let before = [world.target("m"), world.target("n")];
    world.beat(joining("o", &["t"])).unwrap();
    for (member, before) in ["m", "n"].iter().zip(before) {
        let after = world.target(member);
        assert_eq!(after[0].partitions.len(), 2);
        let kept = after[0].partitions.iter();
        assert!(kept.into_iter().all(|it| before[0].partitions.contains(it)));
    }
}

#[test]
fn a_failed_record_changes_nothing() {
    let mut world = World::with_topics(Config::default(), &[("t", 1)]);
    let request = world.send(joining("m", &["t"]));
    let waiting = world.send(joining("n", &["t"]));
    world.fail(ErrorCode::KafkaStorageError);
    assert_eq!(world.error(request), ErrorCode::KafkaStorageError);
    world.flush();
    assert!(world.response(waiting).is_ok());
    let unknown = world.beat(staying("m", 1));
    assert_eq!(unknown.unwrap_err(), ErrorCode::UnknownMemberId);
}

#[test]
fn sessions_begin_anew_after_a_restart() {
    let mut world = World::with_topics(Config::default(), &[("t", 1)]);
    world.beat(joining("m", &["t"])).unwrap();
    world.pass(40);
    world.crash(0);
    world.pass(40);
    world.flush();
    assert!(world.beat(staying("m", 1)).is_ok());
    let config = Config::default();
    assert_eq!(config.consumer_session_timeout, Duration::from_secs(45));
}

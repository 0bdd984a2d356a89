//! Consumers that share topics as members of a group, by every protocol.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::client::consumer::{
    AssignmentStrategies, AssignmentStrategy, GroupProtocol, RebalanceListener,
};
use crate::protocol::ErrorCode;
use crate::protocol::messages::groups::{GroupState, ListGroupsRequest};

pub(super) type Reader = Consumer<str, str>;

pub(super) fn protocols() -> [ConsumerConfig; 3] {
    let base = || {
        earliest()
            .group_id(group())
            .heartbeat_interval(Duration::from_millis(20))
    };
    [
        base().partition_assignment_strategy(AssignmentStrategy::Range),
        base().partition_assignment_strategy(AssignmentStrategy::CooperativeSticky),
        base().group_protocol(GroupProtocol::Consumer),
    ]
}

/// Calls to a listener, in words.
#[derive(Clone, Default)]
pub(super) struct Diary(pub(super) Arc<Mutex<Vec<&'static str>>>);

impl RebalanceListener for Diary {
    fn assigned(&mut self, _: &[TopicPartition]) {
        self.0.lock().push("assigned");
    }

    fn revoked(&mut self, _: &[(TopicPartition, Option<Offset>)]) {
        self.0.lock().push("revoked");
    }

    fn lost(&mut self, _: &[TopicPartition]) {
        self.0.lock().push("lost");
    }
}

impl World {
    pub(super) fn member(&self, config: &ConsumerConfig, diary: &Diary) -> Reader {
        let mut consumer = Consumer::new(self.transport.clone(), config.clone());
        consumer.subscribe_with([topic()], diary.clone()).unwrap();
        consumer
    }

    pub(super) fn fill(&self, from: i64, count: i64) {
        let producer = self.producer(quick());
        wait(async {
            for number in from..from + count {
                let value = number.to_string();
                let partition = i32::try_from(number % 3).unwrap();
                let record = ProducerRecord::new(&topic()).partition(partition);
                let sent = producer.send(record.value(value.as_str())).await;
                sent.unwrap().await.unwrap();
            }
        });
        wait(producer.close()).unwrap();
    }

    /// Polls all readers in turn until `is_done`; returns what they read.
    pub(super) fn poll_until(
        &self,
        readers: &mut [&mut Reader],
        is_done: impl Fn(&[&mut Reader], &[i64]) -> bool,
    ) -> Vec<i64> {
        let deadline = self.transport.env().clock.now().plus(PATIENCE);
        let mut seen = Vec::new();
        while !is_done(readers, &seen) {
            let now = self.transport.env().clock.now();
            assert!(now < deadline, "waited in vain; seen so far: {seen:?}");
            for reader in &mut *readers {
                let records = wait(reader.poll(Duration::from_millis(10))).unwrap();
                let values = offsets_and_values(&records).into_iter();
                seen.extend(values.map(|(_, value)| value.parse::<i64>().unwrap()));
            }
        }
        seen
    }
}

fn counts(readers: &[&mut Reader]) -> Vec<usize> {
    readers.iter().map(|it| it.assignment().count()).collect()
}

fn is_shared(readers: &[&mut Reader]) -> bool {
    let mut counts = counts(readers);
    counts.sort_unstable();
    counts == [1, 2]
}

#[test]
fn members_share_the_partitions_and_take_over_when_one_leaves() {
    for config in protocols() {
        let world = World::new();
        let diary = Diary::default();
        let mut first = world.member(&config, &diary);
        world.poll_until(&mut [&mut first], |readers, _| counts(readers) == [3]);
        let mut second = world.member(&config, &Diary::default());
        world.poll_until(&mut [&mut first, &mut second], |readers, _| {
            is_shared(readers)
        });
        let all: BTreeSet<_> = first.assignment().chain(second.assignment()).collect();
        assert_eq!(all.len(), 3, "nobody reads what another one reads");
        assert!(diary.0.lock().contains(&"revoked"));
        assert!(!diary.0.lock().contains(&"lost"));
        wait(second.close()).unwrap();
        world.poll_until(&mut [&mut first], |readers, _| counts(readers) == [3]);
        wait(first.close()).unwrap();
        let listed = world.broker.list_groups_with(&ListGroupsRequest::default());
        let states = listed.unwrap().into_iter().map(|it| it.state);
        assert_eq!(states.collect::<Vec<_>>(), [GroupState::Empty]);
    }
}

#[test]
fn with_auto_commit_no_record_is_read_twice_through_orderly_rebalances() {
    for config in protocols() {
        let config = config.enable_auto_commit(true).max_poll_records(5usize);
        let world = World::new();
        world.fill(0, 60);
        let mut first = world.member(&config, &Diary::default());
        let is_some = |_: &[&mut Reader], seen: &[i64]| seen.len() >= 20;
        let mut seen = world.poll_until(&mut [&mut first], is_some);
        let mut second = world.member(&config, &Diary::default());
        seen.extend(
            world.poll_until(&mut [&mut first, &mut second], |readers, _| {
                is_shared(readers)
            }),
        );
        world.fill(60, 30);
        let missing = 90 - seen.len();
        let rest = world.poll_until(&mut [&mut first, &mut second], |_, more| {
            more.len() >= missing
        });
        seen.extend(rest);
        seen.sort_unstable();
        assert_eq!(seen, (0..90).collect::<Vec<_>>());
        wait(first.close()).unwrap();
        wait(second.close()).unwrap();
        let mut third = world.member(&config, &Diary::default());
        world.fill(90, 3);
        let is_some = |_: &[&mut Reader], seen: &[i64]| seen.len() >= 3;
        let last = world.poll_until(&mut [&mut third], is_some);
        assert_eq!(last.len(), 3, "closing has committed the positions");
    }
}

#[test]
fn k9_positions_of_a_member_that_was_replaced_are_refused_also_in_a_transaction() {
    for config in protocols() {
        let config = config.max_poll_interval(Duration::from_millis(300));
        let world = World::new();
        let diary = Diary::default();
        let mut silent = world.member(&config, &diary);
        world.poll_until(&mut [&mut silent], |readers, _| counts(readers) == [3]);
        let before = silent.group_member();
        let producer = world.transactional("job");
        let commit = |member: GroupMember| {
            producer.begin_transaction().unwrap();
            let offsets = vec![(partition(0), position(1))];
            let sent = wait(producer.send_offsets(group(), member, offsets));
            let _ = wait(producer.abort_transaction()).unwrap();
            sent
        };
        commit(before.clone()).unwrap();
        // It polls no more: the other one gets everything.
        let mut other = world.member(&config, &Diary::default());
        world.poll_until(&mut [&mut other], |readers, _| counts(readers) == [3]);
        let refused = commit(before).unwrap_err();
        let code = refused.code().unwrap();
        let codes = [
            ErrorCode::UnknownMemberId,
            ErrorCode::IllegalGeneration,
            ErrorCode::StaleMemberEpoch,
        ];
        assert!(codes.contains(&code), "{code:?}");
        wait(producer.close()).unwrap();
        world.poll_until(&mut [&mut silent, &mut other], |readers, _| {
            is_shared(readers)
        });
        assert!(diary.0.lock().contains(&"lost"));
    }
}

#[test]
fn a_static_member_comes_back_to_its_partitions_without_a_rebalance() {
    for config in protocols() {
        let world = World::new();
        let fixed = config.clone().group_instance_id("i".to_owned());
        let mut one = world.member(&fixed, &Diary::default());
        let mut other = world.member(&config, &Diary::default());
        world.poll_until(&mut [&mut one, &mut other], |readers, _| is_shared(readers));
        let owned: Vec<_> = one.assignment().cloned().collect();
        let generation = other.group_member().generation;
        wait(one.close()).unwrap();
        let mut again = world.member(&fixed, &Diary::default());
        world.poll_until(&mut [&mut again, &mut other], |readers, _| {
            is_shared(readers)
        });
        assert_eq!(again.assignment().cloned().collect::<Vec<_>>(), owned);
        assert_eq!(other.group_member().generation, generation);
        wait(again.close()).unwrap();
        wait(other.close()).unwrap();
    }
}

#[test]
fn a_subscription_survives_a_restart_of_the_log_with_a_new_consumer() {
    for config in protocols() {
        let config = config.enable_auto_commit(true);
        let mut world = World::new();
        world.fill(0, 9);
        let mut reader = world.member(&config, &Diary::default());
        let is_all = |_: &[&mut Reader], seen: &[i64]| seen.len() == 9;
        world.poll_until(&mut [&mut reader], is_all);
        wait(reader.close()).unwrap();
        world.reopen();
        world.fill(9, 3);
        let mut reader = world.member(&config, &Diary::default());
        let is_some = |_: &[&mut Reader], seen: &[i64]| !seen.is_empty();
        let seen = world.poll_until(&mut [&mut reader], is_some);
        assert!(seen.iter().all(|it| *it >= 9), "{seen:?}");
        wait(reader.close()).unwrap();
    }
}

#[test]
fn members_of_different_protocols_do_not_mix_and_a_subscription_needs_a_group() {
    let world = World::new();
    let [range, _, modern] = protocols();
    let mut first = world.member(&range, &Diary::default());
    world.poll_until(&mut [&mut first], |readers, _| counts(readers) == [3]);
    let mut second = world.member(&modern, &Diary::default());
    let deadline = world.transport.env().clock.now().plus(PATIENCE);
    let refused = loop {
        assert!(world.transport.env().clock.now() < deadline);
        if let Err(error) = wait(second.poll(Duration::from_millis(10))) {
            break error;
        }
    };
    assert_eq!(refused.code(), Some(ErrorCode::GroupIdNotFound));
    let mut lonely: Reader = Consumer::new(world.transport.clone(), earliest());
    let missing = lonely.subscribe([topic()]);
    assert!(matches!(missing, Err(ClientError::Config { .. })));
}

#[test]
fn settings_of_groups_have_kafkas_names() {
    let config = ConsumerConfig::from_map(&[
        ("group.protocol", "CONSUMER"),
        ("partition.assignment.strategy", "cooperative-sticky,range"),
        ("enable.auto.commit", "true"),
        ("group.instance.id", "i"),
    ]);
    let config = config.unwrap();
    assert_eq!(config.group_protocol, GroupProtocol::Consumer);
    let strategies = [
        AssignmentStrategy::CooperativeSticky,
        AssignmentStrategy::Range,
    ];
    let expected = AssignmentStrategies(strategies.to_vec());
    assert_eq!(config.partition_assignment_strategy, expected);
    let unknown = [("partition.assignment.strategy", "mine")];
    assert!(ConsumerConfig::from_map(&unknown).is_err());
}

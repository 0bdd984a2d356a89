//! Consumers that share a topic as members of a group, by every protocol.

use std::collections::BTreeSet;

use onceflow::client::ErrorCode;
use onceflow::client::consumer::{AssignmentStrategy, GroupProtocol};

use super::*;

type Reader = Consumer<str, str>;

/// Lists the protocols.
fn protocols() -> [ConsumerConfig; 3] {
    let base = || {
        earliest()
            .group_id(group())
            .heartbeat_interval(Duration::from_millis(100))
    };
    [
        base().partition_assignment_strategy(AssignmentStrategy::Range),
        base().partition_assignment_strategy(AssignmentStrategy::CooperativeSticky),
        base().group_protocol(GroupProtocol::Consumer),
    ]
}

fn member(world: &World, config: &ConsumerConfig) -> Reader {
    let mut consumer = Consumer::new(world.transport.clone(), config.clone());
    consumer.subscribe([topic()]).unwrap();
    consumer
}

fn fill(world: &World, numbers: std::ops::Range<i64>) {
    let producer = world.producer(quick());
    wait(async {
        for number in numbers {
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
fn poll_until(
    world: &World,
    readers: &mut [&mut Reader],
    is_done: impl Fn(&[&mut Reader], &[i64]) -> bool,
) -> Vec<i64> {
    // A rebalance on a busy cluster takes its time.
    let deadline = world.transport.env().clock.now().plus(3 * PATIENCE);
    let mut seen = Vec::new();
    while !is_done(readers, &seen) {
        let now = world.transport.env().clock.now();
        assert!(now < deadline, "waited in vain; seen so far: {seen:?}");
        for reader in &mut *readers {
            let records = wait(reader.poll(Duration::from_millis(20))).unwrap();
            let values = offsets_and_values(&records).into_iter();
            seen.extend(values.map(|(_, value)| value.parse::<i64>().unwrap()));
        }
    }
    seen
}

fn counts(readers: &[&mut Reader]) -> Vec<usize> {
    readers.iter().map(|it| it.assignment().count()).collect()
}

fn is_shared(readers: &[&mut Reader]) -> bool {
    let mut counts = counts(readers);
    counts.sort_unstable();
    counts == [1, 2]
}

pub(super) fn members_share_the_partitions_and_take_over_when_one_leaves(backend: Backend) {
    for config in protocols() {
        let world = World::new(backend);
        // The names of this world.
        let config = config.group_id(group());
        let mut first = member(&world, &config);
        poll_until(&world, &mut [&mut first], |readers, _| {
            counts(readers) == [3]
        });
        let mut second = member(&world, &config);
        poll_until(&world, &mut [&mut first, &mut second], |readers, _| {
            is_shared(readers)
        });
        let all: BTreeSet<_> = first.assignment().chain(second.assignment()).collect();
        assert_eq!(all.len(), 3, "nobody reads what another one reads");
        assert_eq!(described(&world), ("Stable".to_owned(), vec![1, 2]));
        wait(second.close()).unwrap();
        poll_until(&world, &mut [&mut first], |readers, _| {
            counts(readers) == [3]
        });
        wait(first.close()).unwrap();
        assert_eq!(described(&world), ("Empty".to_owned(), vec![]));
    }
}

/// The state of the group, and how many partitions each of its members reads, as an operator sees it.
fn described(world: &World) -> (String, Vec<usize>) {
    let deadline = world.transport.env().clock.now().plus(PATIENCE);
    loop {
        let group = wait(world.admin.describe_group(&group())).unwrap();
        // The last member's word that it has what it is to have may still be under way.
        let is_settled = ["Stable", "Empty"].contains(&group.state.as_str());
        if !is_settled && world.transport.env().clock.now() < deadline {
            continue;
        }
        let mut ids = BTreeSet::new();
        let mut read = BTreeSet::new();
        let counts = group.members.iter().map(|member| {
            assert!(ids.insert(&member.member_id));
            assert_eq!(member.client.client_id, "onceflow");
            let assignment = member.assignment.as_ref().unwrap();
            assert!(assignment.iter().all(|it| read.insert(it.clone())));
            assignment.len()
        });
        let mut counts: Vec<_> = counts.collect();
        counts.sort_unstable();
        return (group.state, counts);
    }
}

pub(super) fn with_auto_commit_no_record_is_read_twice_through_orderly_rebalances(
    backend: Backend,
) {
    for config in protocols() {
        let world = World::new(backend);
        let config = config.group_id(group());
        let config = config.enable_auto_commit(true).max_poll_records(5usize);
        fill(&world, 0..60);
        let mut first = member(&world, &config);
        let mut seen = poll_until(&world, &mut [&mut first], |_, seen| seen.len() >= 20);
        let mut second = member(&world, &config);
        let more = poll_until(&world, &mut [&mut first, &mut second], |readers, _| {
            is_shared(readers)
        });
        seen.extend(more);
        fill(&world, 60..90);
        let missing = 90 - seen.len();
        let rest = poll_until(&world, &mut [&mut first, &mut second], |_, more| {
            more.len() >= missing
        });
        seen.extend(rest);
        seen.sort_unstable();
        assert_eq!(seen, (0..90).collect::<Vec<_>>());
        wait(first.close()).unwrap();
        wait(second.close()).unwrap();
    }
}

pub(super) fn c29_a_member_that_left_cannot_commit_positions_in_a_transaction(backend: Backend) {
    for config in protocols() {
        let world = World::new(backend);
        let config = config.group_id(group());
        let mut left = member(&world, &config);
        poll_until(&world, &mut [&mut left], |readers, _| {
            counts(readers) == [3]
        });
        let stale = left.group_member();
        wait(left.close()).unwrap();
        let mut owner = member(&world, &config);
        poll_until(&world, &mut [&mut owner], |readers, _| {
            counts(readers) == [3]
        });
        let writer = TransactionalWriter::init(
            world.transport.clone(),
            id("member"),
            Duration::from_secs(60),
        );
        let writer = wait(writer).unwrap();
        let offsets = || vec![(partition(0), position(5))];
        let refused = wait(writer.send_offsets(group(), stale, offsets())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Abortable, "{refused}");
        assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
        wait(writer.send_offsets(group(), owner.group_member(), offsets())).unwrap();
        assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
        wait(owner.close()).unwrap();
    }
}

pub(super) fn x19_positions_are_moved_from_outside_only_without_members(backend: Backend) {
    for config in protocols() {
        let world = World::new(backend);
        // The names of this world.
        let config = config.group_id(group());
        let mut reader = member(&world, &config);
        poll_until(&world, &mut [&mut reader], |readers, _| {
            counts(readers) == [3]
        });
        let there = CommittedOffset {
            offset: Offset(1),
            leader_epoch: -1,
            metadata: String::new(),
        };
        let to = vec![(partition(0), there.clone())];
        let refused = wait(world.admin.alter_committed(&group(), to.clone()));
        assert_eq!(
            refused.unwrap_err().code(),
            Some(ErrorCode::UnknownMemberId)
        );
        wait(reader.close()).unwrap();
        wait(world.admin.alter_committed(&group(), to)).unwrap();
        let committed = wait(world.admin.committed(&group())).unwrap();
        let moved = committed.into_iter().find(|(at, _)| *at == partition(0));
        assert_eq!(moved, Some((partition(0), Some(there))));
    }
}

//! Transactions through a network that loses, delays and cuts: nothing is torn, doubled or invented.

use std::sync::Arc;
use std::time::Duration;

use onceflow::client::GroupMember;
use onceflow::client::{Admin, CommitOutcome, TransactionalWriter, wait};
use onceflow::internals::protocol::{ErrorCode, ErrorKind};
use onceflow::types::{GroupId, Isolation, TransactionalId};

use super::proxy::{END_TXN, Fate, PRODUCE, TXN_OFFSET_COMMIT, until};
use super::stage::{END_TXN_CODE, World, at, batch, commit, stage};

#[test]
fn c14_k3_an_end_that_arrives_in_the_next_transaction_changes_nothing() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "late-end", "v2");
    let writer = world.writer();
    world.append(&writer, "a").unwrap();
    world.proxy.expect(END_TXN, [Fate::Hold]);
    // The first attempt is held back; the second one commits.
    commit(&writer);
    world.append(&writer, "b").unwrap();
    let codes = world.proxy.release(END_TXN_CODE);
    assert_eq!(codes.len(), 1, "one was held");
    assert_ne!(codes[0], 0, "it names an epoch that is over");
    // Had it committed the open transaction, "b" would be visible for good.
    assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
    world.append(&writer, "c").unwrap();
    commit(&writer);
    world.until_committed(&["a", "c"]);
    world.until_nothing_is_open();
}

#[test]
fn c13_a_batch_that_arrives_after_the_abort_is_refused_and_nothing_hangs() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "late-batch", "v2");
    let writer = world.writer();
    world.append(&writer, "a").unwrap();
    world.proxy.expect(PRODUCE, [Fate::Hold]);
    let mut partition = writer.partition(&world.partition());
    partition.hand_over(&mut batch("late")).unwrap();
    assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
    world.until_nothing_is_open();
    let end = world.end(Isolation::ReadUncommitted);
    // Its answer is of no interest here: the log is.
    world.proxy.release(0);
    assert_eq!(
        world.end(Isolation::ReadUncommitted),
        end,
        "it was written after all"
    );
    world.append(&writer, "b").unwrap();
    commit(&writer);
    world.until_committed(&["b"]);
    world.until_nothing_is_open();
}

#[test]
fn k1_a_commit_whose_answer_is_lost_is_asked_again_and_known() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "lost-commit", "v2");
    let writer = world.writer();
    for (value, fate) in [
        ("a", Fate::LoseAnswer),
        ("b", Fate::Drop),
        ("c", Fate::Pass),
    ] {
        world.append(&writer, value).unwrap();
        world.proxy.expect(END_TXN, [fate]);
        commit(&writer);
    }
    world.until_committed(&["a", "b", "c"]);
    world.until_nothing_is_open();
}

#[test]
fn k1_under_the_older_protocol_a_lost_answer_is_unknown_until_the_id_is_taken_anew() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "unknown-commit", "v1");
    let mut seen: Vec<&str> = Vec::new();
    for (value, fate, is_committed) in [("a", Fate::LoseAnswer, true), ("b", Fate::Drop, false)] {
        let writer = world.writer();
        world.append(&writer, value).unwrap();
        world.proxy.expect(END_TXN, [fate]);
        assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Unknown);
        let refused = world.append(&writer, "more").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Fatal, "the producer is retired");
        seen.extend(is_committed.then_some(value));
        drop(world.writer());
        world.until_nothing_is_open();
        world.until_committed(&seen);
    }
}

#[test]
fn under_the_older_protocol_transactions_commit_and_abort_and_no_two_share_an_epoch() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "older", "v1");
    let writer = world.writer();
    let mut identities = Vec::new();
    for (value, is_committed) in [("a", true), ("b", false), ("c", true)] {
        identities.push(writer.identity());
        world.append(&writer, value).unwrap();
        let offsets = vec![(world.partition(), at(1))];
        let group = GroupId::new("older").unwrap();
        wait(writer.send_offsets(group, GroupMember::default(), offsets)).unwrap();
        match is_committed {
            true => commit(&writer),
            false => assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted),
        }
    }
    identities.push(writer.identity());
    identities.dedup();
    assert_eq!(identities.len(), 4);
    world.until_committed(&["a", "c"]);
}

/// Writes batches that meet these fates, and looks that each is there once, in order.
fn write_through(name: &'static str, fates: [Fate; 5], batches: usize) {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, name, "v2");
    let writer = world.writer();
    let met = world.proxy.met();
    world.proxy.expect(PRODUCE, fates);
    let values: Vec<String> = (0..batches).map(|number| number.to_string()).collect();
    let mut partition = writer.partition(&world.partition());
    for value in &values {
        partition.hand_over(&mut batch(value)).unwrap();
    }
    commit(&writer);
    assert_eq!(world.proxy.met() - met, fates.len());
    world.until_committed(&values.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn i6_batches_whose_answers_are_lost_are_written_once_and_in_order() {
    let fates = [
        Fate::Pass,
        Fate::LoseAnswer,
        Fate::Pass,
        Fate::Drop,
        Fate::LoseAnswer,
    ];
    write_through("lost-batches", fates, 20);
}

#[test]
fn i6_batches_that_are_repeated_overtaken_or_delayed_are_written_once_and_in_order() {
    let fates = [
        Fate::Repeat,
        Fate::Overtake,
        Fate::Delay(Duration::from_millis(200)),
        Fate::Overtake,
        Fate::Repeat,
    ];
    write_through("unruly-batches", fates, 30);
}

#[test]
fn c15_a_commit_that_comes_too_late_is_told_so_and_nothing_of_it_is_seen() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "too-late", "v2");
    let writer = world.writer_with(Duration::from_millis(200));
    world.append(&writer, "a").unwrap();
    world.until_nothing_is_open();
    match wait(writer.commit()) {
        Ok(outcome) => assert_eq!(outcome, CommitOutcome::Aborted),
        Err(error) => assert!(!error.is_outcome_unknown(), "{error}"),
    }
    let writer = world.writer();
    world.append(&writer, "b").unwrap();
    commit(&writer);
    world.until_committed(&["b"]);
}

#[test]
fn c22_positions_that_come_after_the_timeout_leave_the_producer_its_id() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "late-positions", "v2");
    let writer = world.writer_with(Duration::from_millis(200));
    world.append(&writer, "a").unwrap();
    world.until_nothing_is_open();
    let group = GroupId::new("late-positions").unwrap();
    let offsets = vec![(world.partition(), at(1))];
    let sent = wait(writer.send_offsets(group, GroupMember::default(), offsets));
    // Nobody else has the id, so it is not fenced.
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::Abortable);
    assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
    let mut committed = false;
    for _ in 0..50 {
        // A slow machine may take longer than the timeout once more.
        world.append(&writer, "b").ok();
        match wait(writer.commit()) {
            Ok(CommitOutcome::Committed) => committed = true,
            _ => assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted),
        }
        if committed {
            break;
        }
    }
    assert!(committed);
    world.until_committed(&["b"]);
}

#[test]
fn k1_positions_whose_answer_is_lost_are_committed_with_the_transaction() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "lost-positions", "v2");
    let writer = world.writer();
    let group = GroupId::new("lost-positions").unwrap();
    world.append(&writer, "a").unwrap();
    world
        .proxy
        .expect(TXN_OFFSET_COMMIT, [Fate::LoseAnswer, Fate::Drop]);
    let offsets = vec![(world.partition(), at(7))];
    wait(writer.send_offsets(group.clone(), GroupMember::default(), offsets)).unwrap();
    commit(&writer);
    let admin = Admin::new(Arc::clone(&world.transport));
    until("the position is committed", || {
        wait(admin.committed(&group)).unwrap() == [(world.partition(), Some(at(7)))]
    });
}

#[test]
fn k5_a_network_that_is_cut_and_mended_loses_nothing() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "cut", "v2");
    let writer = world.writer();
    world.append(&writer, "before").unwrap();
    world.proxy.set_cut(true);
    std::thread::scope(|scope| {
        let written = scope.spawn(|| {
            world.append(&writer, "during").unwrap();
            commit(&writer);
        });
        let refused = world.proxy.refused();
        until("it is tried again and again", || {
            world.proxy.refused() >= refused + 3
        });
        assert!(!written.is_finished());
        world.proxy.set_cut(false);
    });
    world.until_committed(&["before", "during"]);
}

#[test]
fn c23_a_timeout_over_the_clusters_limit_is_refused() {
    let Some(stage) = stage() else { return };
    let world = World::new(&stage, "too-long", "v2");
    let id = TransactionalId::new("too-long").unwrap();
    let day = Duration::from_secs(24 * 3600);
    let writer = wait(TransactionalWriter::init(
        Arc::clone(&world.transport),
        id,
        day,
    ));
    let error = writer.unwrap_err();
    assert_eq!(
        error.code(),
        Some(ErrorCode::InvalidTransactionTimeout),
        "{error}"
    );
}

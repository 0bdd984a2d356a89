//! Transactions end to end: atomic, fenced, isolated, finished when their caller is gone.

use std::cell::RefCell;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::support::records::now;
use onceflow::client::ErrorCode;
use onceflow::client::consumer::PartitionReader;
use onceflow::internals::protocol::batch::{BatchBuilder, Compression};
use onceflow::internals::protocol::messages::{EndTxnRequest, TransactionResult, TransactionState};

fn commit(producer: &Producer<str, str>) {
    let outcome = wait(producer.commit_transaction()).unwrap();
    assert_eq!(outcome, CommitOutcome::Committed);
}

fn abort(producer: &Producer<str, str>) {
    let outcome = wait(producer.abort_transaction()).unwrap();
    assert_eq!(outcome, CommitOutcome::Aborted);
}

fn until(world: &World, what: &str, condition: impl Fn() -> bool) {
    world.until(what, condition);
}

fn until_committed(world: &World, expected: &[&str]) {
    world.until_committed(expected);
}

pub(super) fn records_are_visible_after_the_commit_and_never_after_an_abort(backend: Backend) {
    let world = World::new(backend);
    let producer = world.transactional("id");
    producer.begin_transaction().unwrap();
    send(&producer, "aborted");
    abort(&producer);
    producer.begin_transaction().unwrap();
    send(&producer, "committed");
    assert!(world.committed_values().is_empty());
    commit(&producer);
    until_committed(&world, &["committed"]);
    let all = world.read(Isolation::ReadUncommitted);
    assert_eq!(
        all,
        [(0, "aborted".to_owned()), (2, "committed".to_owned())]
    );
}

pub(super) fn c11_the_second_holder_of_an_id_fences_the_first_and_ends_its_transaction(
    backend: Backend,
) {
    let world = World::new(backend);
    let first = world.transactional("id");
    first.begin_transaction().unwrap();
    send(&first, "first");
    let second = world.transactional("id");
    second.begin_transaction().unwrap();
    send(&second, "second");
    let fenced = [
        wait(first.commit_transaction()).map(drop),
        wait(first.abort_transaction()).map(drop),
        first.begin_transaction(),
        wait(first.send(record("late"))).map(drop),
    ];
    for result in fenced {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Fenced);
    }
    commit(&second);
    until_committed(&world, &["second"]);
}

pub(super) fn c12_nothing_of_a_zombie_becomes_visible(backend: Backend) {
    let world = World::new(backend);
    let zombie = world.transactional("id");
    zombie.begin_transaction().unwrap();
    send(&zombie, "before");
    let owner = world.transactional("id");
    // It wakes up and goes on where it was: data, offsets, commit.
    let data = wait(async { zombie.send(record("zombie")).await?.await });
    assert!(data.is_err());
    let offsets = vec![(partition(0), position(7))];
    assert!(wait(zombie.send_offsets(group(), GroupMember::default(), offsets)).is_err());
    assert!(wait(zombie.commit_transaction()).is_err());
    owner.begin_transaction().unwrap();
    send(&owner, "owner");
    commit(&owner);
    until_committed(&world, &["owner"]);
    assert_eq!(committed_position(&world), None);
}

fn committed_position(world: &World) -> Option<i64> {
    let consumer = world.consumer(earliest().group_id(group()));
    let committed = wait(consumer.committed(vec![partition(0)])).unwrap();
    committed[0].1.as_ref().map(|committed| committed.offset.0)
}

pub(super) fn positions_move_with_the_transaction_or_not_at_all(backend: Backend) {
    let world = World::new(backend);
    let producer = world.transactional("id");
    for (offset, is_commit, expected) in [(5, true, 5), (9, false, 5), (12, true, 12)] {
        producer.begin_transaction().unwrap();
        let offsets = vec![(partition(0), position(offset))];
        wait(producer.send_offsets(group(), GroupMember::default(), offsets)).unwrap();
        match is_commit {
            true => commit(&producer),
            false => abort(&producer),
        }
        assert_eq!(committed_position(&world), Some(expected));
    }
}

pub(super) fn c27_committed_waits_while_a_transaction_holds_a_position(backend: Backend) {
    let world = World::new(backend);
    let producer = world.transactional("id");
    producer.begin_transaction().unwrap();
    let offsets = vec![(partition(0), position(5))];
    wait(producer.send_offsets(group(), GroupMember::default(), offsets)).unwrap();
    let consumer = world.consumer(earliest().group_id(group()));
    wait(async {
        let mut committed = Box::pin(consumer.committed(vec![partition(0)]));
        assert!((&mut committed).now_or_never().is_none(), "it is unstable");
        assert_eq!(
            producer.commit_transaction().await.unwrap(),
            CommitOutcome::Committed
        );
        let committed = committed.await.unwrap();
        assert_eq!(committed[0].1.as_ref().unwrap().offset, Offset(5));
    });
}

pub(super) fn c16_the_same_end_asked_twice_gets_the_same_answer(backend: Backend) {
    let world = World::new(backend);
    let writer = writer(&world, "id");
    append(&writer, &["x"]);
    let request = EndTxnRequest {
        transactional_id: id("id"),
        producer: writer.identity(),
        result: TransactionResult::Commit,
    };
    let first = wait(world.transport.end_txn(request.clone())).unwrap();
    let second = RefCell::new(None);
    // While the markers are written, the coordinator asks for patience.
    until(&world, "the second answer", || {
        match wait(world.transport.end_txn(request.clone())) {
            Err(e) if e.kind() == ErrorKind::Retriable => false,
            answer => {
                *second.borrow_mut() = Some(answer.unwrap());
                true
            }
        }
    });
    let second = second.into_inner().unwrap();
    assert_eq!(first, second);
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    assert_eq!(writer.identity(), first);
    until_committed(&world, &["x"]);
}

pub(super) fn c17_a_commit_whose_future_was_dropped_is_finished(backend: Backend) {
    let world = World::new(backend);
    let producer = world.transactional("id");
    producer.begin_transaction().unwrap();
    let _ = wait(producer.send(record("x"))).unwrap();
    drop(producer.commit_transaction());
    until_committed(&world, &["x"]);
    until(&world, "the producer is ready again", || {
        producer.begin_transaction().is_ok()
    });

    let writer = writer(&world, "writer");
    append(&writer, &["y"]);
    drop(writer.commit());
    until_committed(&world, &["x", "y"]);
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
}

pub(super) fn c22_a_transaction_that_timed_out_is_known_to_be_aborted_and_the_producer_goes_on(
    backend: Backend,
) {
    let world = World::new(backend);
    // Long enough for what is to be in time, on a busy machine too.
    let short = Duration::from_secs(1);
    let config = quick()
        .transactional_id(id("id"))
        .transaction_timeout(short);
    let producer = world.producer(config);
    wait(producer.init_transactions()).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "too slow");
    let writer = TransactionalWriter::init(world.transport.clone(), id("writer"), short);
    let writer = wait(writer).unwrap();
    append(&writer, &["too slow, too"]);
    until(&world, "both are aborted", || {
        [id("id"), id("writer")].iter().all(|id| {
            let described = wait(world.admin.describe_transaction(id)).unwrap();
            described.state == TransactionState::CompleteAbort
        })
    });
    let outcome = wait(producer.commit_transaction()).unwrap();
    assert_eq!(outcome, CommitOutcome::Aborted);
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Aborted);
    append(&writer, &["in time, too"]);
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    producer.begin_transaction().unwrap();
    let _ = wait(producer.send(record("in time"))).unwrap();
    commit(&producer);
    until_committed(&world, &["in time, too", "in time"]);
}

pub(super) fn an_operators_abort_is_told_to_the_producer(backend: Backend) {
    let world = World::new(backend);
    let producer = world.transactional("id");
    producer.begin_transaction().unwrap();
    send(&producer, "x");
    wait(world.admin.abort_transaction(&id("id"))).unwrap();
    let late = wait(async { producer.send(record("late")).await?.await });
    assert!(late.is_err());
    assert!(wait(producer.commit_transaction()).is_err());
    assert!(world.committed_values().is_empty());
}

pub(super) fn a_transaction_left_open_is_rolled_back_when_the_broker_opens_again(backend: Backend) {
    let mut world = World::new(backend);
    let producer = world.transactional("id");
    producer.begin_transaction().unwrap();
    send(&producer, "open");
    world.reopen();
    assert!(world.committed_values().is_empty());
    let producer = world.transactional("id");
    producer.begin_transaction().unwrap();
    send(&producer, "next");
    commit(&producer);
    until_committed(&world, &["next"]);
}

fn writer(world: &World, name: &str) -> TransactionalWriter {
    let timeout = Duration::from_secs(60);
    let writer = TransactionalWriter::init(world.transport.clone(), id(name), timeout);
    wait(writer).unwrap()
}

fn append(writer: &TransactionalWriter, values: &[&str]) -> i64 {
    let mut builder = BatchBuilder::new(Compression::None, None);
    for value in values {
        builder.push(now(), None, Some(value.as_bytes()));
    }
    let mut partition = writer.partition(&partition(0));
    partition.append(&mut builder).unwrap().0
}

pub(super) fn a_writers_batches_and_positions_become_visible_together(backend: Backend) {
    let world = World::new(backend);
    let writer = writer(&world, "job");
    assert_eq!(append(&writer, &["a", "b"]), 0);
    assert_eq!(append(&writer, &["c"]), 2);
    let offsets = vec![(partition(1), position(3))];
    wait(writer.send_offsets(group(), GroupMember::default(), offsets)).unwrap();
    assert!(world.committed_values().is_empty());
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    until_committed(&world, &["a", "b", "c"]);
    append(&writer, &["d"]);
    assert_eq!(wait(writer.abort()).unwrap(), CommitOutcome::Aborted);
    append(&writer, &["e"]);
    assert_eq!(wait(writer.commit()).unwrap(), CommitOutcome::Committed);
    until_committed(&world, &["a", "b", "c", "e"]);
}

pub(super) fn c12_a_zombie_writer_is_refused(backend: Backend) {
    let world = World::new(backend);
    let zombie = writer(&world, "job");
    append(&zombie, &["zombie"]);
    let owner = writer(&world, "job");
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(now(), None, Some(b"more"));
    let mut late = zombie.partition(&partition(0));
    assert!(late.append(&mut builder).is_err());
    assert!(wait(zombie.commit()).is_err());
    append(&owner, &["owner"]);
    assert_eq!(wait(owner.commit()).unwrap(), CommitOutcome::Committed);
    until_committed(&world, &["owner"]);
}

/// Next step of a producer.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Write(usize),
    Commit(usize),
    Abort(usize),
    Plain,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        5 => (0..3usize).prop_map(Operation::Write),
        1 => (0..3usize).prop_map(Operation::Commit),
        1 => (0..3usize).prop_map(Operation::Abort),
        1 => Just(Operation::Plain),
    ]
}

/// Content of the log: offset, value, and the fate of its transaction.
#[derive(Default)]
struct Model {
    records: Vec<(i64, String, Option<bool>)>,
    open: [Vec<usize>; 3],
    end: i64,
}

impl Model {
    fn write(&mut self, value: &str, owner: Option<usize>) {
        let fate = owner.is_none().then_some(true);
        if let Some(owner) = owner {
            self.open[owner].push(self.records.len());
        }
        self.records.push((self.end, value.to_owned(), fate));
        self.end += 1;
    }

    fn finish(&mut self, owner: usize, is_commit: bool) {
        let records = std::mem::take(&mut self.open[owner]);
        // A transaction with records leaves a marker; one without leaves nothing.
        self.end += i64::from(!records.is_empty());
        for place in records {
            self.records[place].2 = Some(is_commit);
        }
    }

    /// Where the first open transaction begins, or the end.
    fn stable_end(&self) -> i64 {
        let open = self.records.iter().find(|(_, _, fate)| fate.is_none());
        open.map_or(self.end, |(offset, ..)| *offset)
    }

    /// Below the first open transaction, what is plain or committed.
    fn committed(&self) -> Vec<(i64, String)> {
        let decided = self
            .records
            .iter()
            .take_while(|(_, _, fate)| fate.is_some());
        decided
            .filter(|(_, _, fate)| *fate == Some(true))
            .map(|(offset, value, _)| (*offset, value.clone()))
            .collect()
    }
}

/// Three producers' transactions and plain records interleave in one partition; readers of either
/// isolation, from any offset, see exactly what the model says.
pub(super) fn read_committed_shows_committed_records_only_in_order_and_from_any_offset(
    backend: Backend,
) {
    let cases = match backend {
        Backend::Embedded => 12,
        _ => 4,
    };
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(operations in proptest::collection::vec(operation(), 1..40))| {
        let world = World::new(backend);
        let writers = ["a", "b", "c"].map(|id| writer(&world, id));
        let plain = world.producer(quick());
        let mut model = Model::default();
        for (number, operation) in operations.into_iter().enumerate() {
            let value = number.to_string();
            match operation {
                Operation::Write(owner) => {
                    append(&writers[owner], &[&value]);
                    model.write(&value, Some(owner));
                }
                Operation::Plain => {
                    send(&plain, &value);
                    model.write(&value, None);
                }
                Operation::Commit(owner) => {
                    prop_assert_eq!(wait(writers[owner].commit()).unwrap(), CommitOutcome::Committed);
                    model.finish(owner, true);
                }
                Operation::Abort(owner) => {
                    prop_assert_eq!(wait(writers[owner].abort()).unwrap(), CommitOutcome::Aborted);
                    model.finish(owner, false);
                }
            }
            // Markers may follow their decision, and Kafka moves the last stable offset a moment behind the end.
            until(&world, "the markers are written", || {
                let marks = wait(world.admin.describe_partitions(&topic())).unwrap();
                let told = (marks[0].log_end_offset.0, marks[0].last_stable_offset.0);
                told == (model.end, model.stable_end())
            });
        }
        let committed = model.committed();
        prop_assert_eq!(world.read(Isolation::ReadCommitted), committed.clone());
        let all: Vec<_> = model.records.iter().map(|(o, v, _)| (*o, v.clone())).collect();
        prop_assert_eq!(world.read(Isolation::ReadUncommitted), all);
        for from in 0..model.end {
            let expected: Vec<_> = committed.iter().filter(|(o, _)| *o >= from).collect();
            let seen = read_from(&world, from);
            prop_assert_eq!(seen.iter().collect::<Vec<_>>(), expected, "from {}", from);
        }
    });
}

/// Reads as a batch reader from `from` on; empty beyond the last stable offset.
fn read_from(world: &World, from: i64) -> Vec<(i64, String)> {
    let transport = world.transport.clone();
    let isolation = Isolation::ReadCommitted;
    let mut reader = PartitionReader::new(transport, partition(0), Offset(from), isolation);
    let mut seen = Vec::new();
    loop {
        // A fetch may return less than there is, also nothing but aborted records.
        let fetched = reader.fetch_now();
        for batch in fetched.unwrap_or_else(|error| panic!("from {from}: {error}")) {
            for record in batch.unwrap().iter() {
                let record = record.unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                seen.push((record.offset.0, value));
            }
        }
        if reader.position() >= reader.end_offset() {
            return seen;
        }
    }
}

pub(super) fn a_timeout_over_the_brokers_limit_is_refused(backend: Backend) {
    let world = World::new(backend);
    let hour = Duration::from_secs(3600);
    let writer = TransactionalWriter::init(world.transport.clone(), id("id"), hour);
    let writer = wait(writer);
    let code = writer.unwrap_err().code();
    assert_eq!(code, Some(ErrorCode::InvalidTransactionTimeout));
}

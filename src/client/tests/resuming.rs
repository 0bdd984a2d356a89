//! A writer that goes on as an earlier one did: under its epoch if nobody has taken over, and fencing nobody.

use super::*;
use crate::client::{CommitOutcome, TransactionalWriter};
use crate::protocol::ErrorKind;
use crate::protocol::batch::{BatchBuilder, Compression};
use crate::types::Timestamp;

fn writer(world: &World) -> TransactionalWriter {
    let id = TransactionalId::new("job").unwrap();
    let init = TransactionalWriter::init(world.transport.clone(), id, Duration::from_secs(60));
    wait(init).unwrap()
}

fn append(writer: &TransactionalWriter, value: &str) -> Result<Offset, ClientError> {
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(Timestamp(1), None, Some(value.as_bytes()));
    writer.partition(&partition(0)).append(&mut builder)
}

fn resume(writer: &TransactionalWriter) -> Result<Option<TransactionalWriter>, ClientError> {
    wait(writer.resume())
}

#[test]
fn a_writer_goes_on_after_the_last_transaction_of_an_earlier_one() {
    let world = World::new();
    let mut writer = writer(&world);
    for is_commit in [true, false, true] {
        append(&writer, "x").unwrap();
        let (outcome, expected) = match is_commit {
            true => (wait(writer.commit()), CommitOutcome::Committed),
            false => (wait(writer.abort()), CommitOutcome::Aborted),
        };
        assert_eq!(outcome.unwrap(), expected);
        let next = resume(&writer).unwrap().unwrap();
        assert_eq!(
            next.identity(),
            writer.identity(),
            "it has not fenced itself"
        );
        writer = next;
    }
    let unused = resume(&writer).unwrap().unwrap();
    append(&unused, "x").unwrap();
    assert_eq!(wait(unused.commit()).unwrap(), CommitOutcome::Committed);
}

#[test]
fn an_open_transaction_is_not_gone_on_with() {
    let world = World::new();
    let writer = writer(&world);
    append(&writer, "x").unwrap();
    assert!(resume(&writer).unwrap().is_none());
}

#[test]
fn c11_a_writer_that_goes_on_hears_who_took_over_and_does_not_fence_them() {
    let world = World::new();
    let first = writer(&world);
    append(&first, "x").unwrap();
    assert_eq!(wait(first.abort()).unwrap(), CommitOutcome::Aborted);
    let second = writer(&world);
    append(&second, "y").unwrap();
    assert_eq!(resume(&first).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(wait(second.commit()).unwrap(), CommitOutcome::Committed);
}

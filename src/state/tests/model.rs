//! The store against a map, under flushes, evictions, aborts, clean restarts and crashes.

use proptest::prelude::*;

use super::support::*;
use crate::state::{FlushBatch, FlushUrgency, StateBackend, StateError, Store};
use crate::types::Offset;

#[derive(Debug, Clone)]
enum Operation {
    Update(Vec<u8>, Option<String>),
    /// Changes the value only if there is one.
    Append(Vec<u8>, char),
    Get(Vec<u8>),
    Prefetch(Vec<Vec<u8>>),
    Scan(u16, Vec<u8>),
    Commit(Option<FlushUrgency>),
    Abort,
    WriteFlush,
    MakeDurable,
    /// A partition leaves and comes back, while the others stay.
    HandOver(u16),
    Reopen,
    Crash,
}

fn keys() -> impl Strategy<Value = Vec<u8>> {
    (0u8..8, 0usize..4).prop_map(|(first, length)| {
        // Some are too long to be kept inside an entry.
        let length = if length == 3 { 42 } else { length };
        std::iter::once(first).chain(vec![b'k'; length]).collect()
    })
}

fn operations() -> impl Strategy<Value = Operation> {
    let value = prop::option::weighted(0.8, "[a-z]{0,30}");
    prop_oneof![
        12 => (keys(), value).prop_map(|(key, value)| Operation::Update(key, value)),
        4 => (keys(), proptest::char::range('a', 'z')).prop_map(|(key, c)| Operation::Append(key, c)),
        4 => keys().prop_map(Operation::Get),
        4 => prop::collection::vec(keys(), 0..20).prop_map(Operation::Prefetch),
        2 => (0..STATE_PARTITIONS, prop::collection::vec(0u8..8, 0..2)).prop_map(|(p, k)| Operation::Scan(p, k)),
        4 => prop::option::of(prop_oneof![Just(FlushUrgency::WhenDue), Just(FlushUrgency::Now)])
            .prop_map(Operation::Commit),
        1 => Just(Operation::Abort),
        2 => Just(Operation::WriteFlush),
        1 => Just(Operation::MakeDurable),
        2 => (0..STATE_PARTITIONS).prop_map(Operation::HandOver),
        1 => Just(Operation::Reopen),
        1 => Just(Operation::Crash),
    ]
}

/// The real thing.
struct Job {
    home: Home,
    /// `None` only while it is opened again.
    open: Option<(StateBackend, Store<String>)>,
    changelog: Changelog,
    taken: Option<(FlushBatch, Vec<(u16, Offset)>)>,
    /// Values of the open cycle.
    model: [Values; STATE_PARTITIONS as usize],
}

impl Job {
    fn new() -> Self {
        let home = Home::new();
        let backend = home.open(tiny()).unwrap();
        let store = open_store(&backend).unwrap();
        Self {
            home,
            open: Some((backend, store)),
            changelog: Changelog::default(),
            taken: None,
            model: Default::default(),
        }
    }

    fn store(&mut self) -> &mut Store<String> {
        &mut self.open.as_mut().unwrap().1
    }

    fn backend(&self) -> StateBackend {
        self.open.as_ref().unwrap().0.clone()
    }

    fn expected(&mut self, bytes: &[u8]) -> &mut Values {
        &mut self.model[usize::from(key(bytes).place(STATE_PARTITIONS).state_partition)]
    }

    fn apply(&mut self, operation: Operation) -> Result<(), StateError> {
        match operation {
            Operation::Update(bytes, value) => {
                self.store()
                    .update(key(&bytes), |slot| slot.clone_from(&value))?;
                match value {
                    Some(value) => self.expected(&bytes).insert(bytes.clone(), value),
                    None => self.expected(&bytes).remove(&bytes),
                };
            }
            Operation::Append(bytes, c) => {
                self.store().update(key(&bytes), |slot| {
                    if let Some(value) = slot {
                        value.push(c);
                    }
                })?;
                if let Some(value) = self.expected(&bytes).get_mut(&bytes) {
                    value.push(c);
                }
            }
            Operation::Get(bytes) => {
                let found = self.store().get(key(&bytes))?.cloned();
                assert_eq!(found.as_ref(), self.expected(&bytes).get(&bytes));
            }
            Operation::Prefetch(keys) => {
                self.store().prefetch(keys.iter().map(|bytes| key(bytes)))?
            }
            Operation::Scan(partition, prefix) => self.scan_prefix(partition, &prefix)?,
            Operation::Commit(urgency) => self.commit(urgency)?,
            Operation::Abort => {
                drain(self.store());
                self.write_flush()?;
                self.restart()?;
            }
            Operation::WriteFlush => self.write_flush()?,
            Operation::MakeDurable => self.backend().make_durable()?,
            Operation::HandOver(partition) => self.hand_over(partition)?,
            Operation::Reopen => self.reopen()?,
            Operation::Crash => {
                self.home.crash();
                self.taken = None;
                self.start_again()?;
            }
        }
        Ok(())
    }

    fn scan_prefix(&mut self, partition: u16, prefix: &[u8]) -> Result<(), StateError> {
        let mut found = Values::new();
        self.store()
            .scan_prefix(partition, prefix, &mut |key, value| {
                found.insert(key.to_vec(), value.clone());
                std::ops::ControlFlow::Continue(())
            })?;
        let mut expected = self.model[usize::from(partition)].clone();
        expected.retain(|key, _| key.starts_with(prefix));
        assert_eq!(found, expected);
        Ok(())
    }

    fn commit(&mut self, urgency: Option<FlushUrgency>) -> Result<(), StateError> {
        let changes = drain(self.store());
        self.changelog.append(changes);
        if let Some(urgency) = urgency
            && let Some(batch) = self.store().take_flush(urgency)?
        {
            self.taken = Some((batch, self.changelog.ends()));
        }
        Ok(())
    }

    fn write_flush(&mut self) -> Result<(), StateError> {
        if let Some((batch, positions)) = self.taken.take() {
            let ticket = batch.ticket();
            self.backend().flush(batch, &positions)?;
            self.store().flushed(ticket);
        }
        Ok(())
    }

    fn hand_over(&mut self, partition: u16) -> Result<(), StateError> {
        self.commit(None)?;
        self.write_flush()?;
        let refused = self
            .changelog
            .replay(&self.backend(), partition)
            .unwrap_err();
        assert!(
            matches!(refused, StateError::PartitionInUse { .. }),
            "{refused}"
        );
        self.store().remove_partitions(&[partition]);
        self.changelog.replay(&self.backend(), partition)?;
        self.store().add_partitions(&[partition])?;
        assert_eq!(
            scan(self.store(), partition)?,
            self.model[usize::from(partition)]
        );
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), StateError> {
        self.commit(None)?;
        self.write_flush()?;
        self.commit(Some(FlushUrgency::Now))?;
        self.write_flush()?;
        self.backend().close()?;
        self.start_again()?;
        for partition in all_partitions() {
            let position = self
                .backend()
                .position(STORE, partition)
                .unwrap_or_default();
            assert_eq!(
                position,
                self.changelog.end(partition),
                "nothing is left to replay"
            );
        }
        Ok(())
    }

    /// A new process.
    fn start_again(&mut self) -> Result<(), StateError> {
        self.open = None;
        let backend = self.home.open(tiny())?;
        self.restore(backend)
    }

    /// Drops the store and restores it, as after an aborted cycle.
    fn restart(&mut self) -> Result<(), StateError> {
        let backend = self.backend();
        self.open = None;
        self.restore(backend)
    }

    fn restore(&mut self, backend: StateBackend) -> Result<(), StateError> {
        let store = recover(&backend, &self.changelog)?;
        self.open = Some((backend, store));
        for partition in all_partitions() {
            let end = self.changelog.end(partition);
            self.model[usize::from(partition)] = self.changelog.fold(partition, end);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Also S1 and S2: `recover` compares what RocksDB holds with the changelog up to its position, exactly.
    #[test]
    fn s1_s2_the_store_is_the_fold_of_the_committed_changelog(
        operations in prop::collection::vec(operations(), 1..150)
    ) {
        let mut job = Job::new();
        for operation in operations {
            job.apply(operation).unwrap();
        }
        job.apply(Operation::Crash).unwrap();
    }
}

/// A deletion that RocksDB has not heard of takes less memory than the value that comes after it.
#[test]
fn a_key_that_is_deleted_and_comes_again_before_a_flush_is_accounted_for_once() {
    let mut job = Job::new();
    let long = || Some("a value that is longer than none".to_owned());
    for value in [long(), None, long(), None, long()] {
        job.apply(Operation::Update(vec![5], value)).unwrap();
        job.apply(Operation::Commit(None)).unwrap();
    }
    job.apply(Operation::Reopen).unwrap();
    job.apply(Operation::Crash).unwrap();
}

/// Others give this process partitions while values of those that it has are on their way to RocksDB.
#[test]
fn c29_partitions_come_while_a_flush_of_others_is_under_way() {
    let mut job = Job::new();
    job.hand_over(0).unwrap();
    job.apply(Operation::Update(vec![5], Some("a value".to_owned())))
        .unwrap();
    job.apply(Operation::Commit(Some(FlushUrgency::Now)))
        .unwrap();
    assert!(job.taken.is_some());
    job.store().remove_partitions(&[]);
    job.store().add_partitions(&[]).unwrap();
    job.write_flush().unwrap();
    job.apply(Operation::Crash).unwrap();
}

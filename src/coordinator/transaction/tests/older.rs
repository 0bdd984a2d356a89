//! Transactions that keep their epoch: Kafka's older rule, through crashes too.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::driver::{ABORT, COMMIT, Driver};
use super::partition::{Fate, Item};
use super::world::{id, partition};
use crate::coordinator::transaction::*;
use crate::protocol::ErrorCode;
use crate::protocol::messages::*;
use crate::types::*;

const PARTITIONS: usize = 3;

fn send_end(driver: &mut Driver, producer: ProducerIdentity, result: TransactionResult) -> u64 {
    driver.send(|request| Input::EndKeepingEpoch {
        request,
        message: EndTxnRequest {
            transactional_id: id(),
            producer,
            result,
        },
    })
}

/// Runs all effects, without the checks of the newer rule.
fn settle(driver: &mut Driver) {
    while !driver.world.queue.is_empty() {
        driver.world.run_effect();
    }
}

fn end(
    driver: &mut Driver,
    producer: ProducerIdentity,
    result: TransactionResult,
) -> Result<Reply, ErrorCode> {
    let request = send_end(driver, producer, result);
    settle(driver);
    driver.reply(request).expect("the request is answered")
}

fn write(driver: &mut Driver, producer: ProducerIdentity, at: usize, label: u8) {
    let data = Item::Data { producer, label };
    driver.world.partitions[at].items.push(data);
}

fn check(driver: &Driver, producer: ProducerIdentity, at: usize) -> PartitionCheck {
    let coordinator = &driver.world.coordinator;
    coordinator
        .check_append(&id(), producer, &partition(at))
        .unwrap()
}

#[test]
fn the_epoch_stays_and_each_transaction_must_add_its_partitions() {
    let mut driver = Driver::new();
    let producer = driver.init();
    for result in [COMMIT, ABORT, COMMIT] {
        assert_eq!(check(&driver, producer, 0), PartitionCheck::MustJoin);
        driver.add(producer, 0).unwrap();
        assert_eq!(check(&driver, producer, 0), PartitionCheck::Joined);
        write(&mut driver, producer, 0, 1);
        assert_eq!(
            end(&mut driver, producer, result),
            Ok(Reply::Producer(producer))
        );
    }
    assert_eq!(driver.markers(0), [COMMIT, ABORT, COMMIT]);
    assert_eq!(driver.world.violation, None);
}

#[test]
fn c16_an_end_asked_for_again_is_answered_again_and_another_end_is_refused() {
    for (result, other) in [(COMMIT, ABORT), (ABORT, COMMIT)] {
        let mut driver = Driver::new();
        let producer = driver.init();
        driver.add(producer, 0).unwrap();
        write(&mut driver, producer, 0, 1);
        for _ in 0..2 {
            assert_eq!(
                end(&mut driver, producer, result),
                Ok(Reply::Producer(producer))
            );
        }
        assert_eq!(
            end(&mut driver, producer, other),
            Err(ErrorCode::InvalidTxnState)
        );
        assert_eq!(driver.markers(0), [result]);
    }
}

#[test]
fn a_commit_is_answered_only_when_its_markers_and_its_completion_are_durable() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.add(producer, 0).unwrap();
    write(&mut driver, producer, 0, 1);
    let request = send_end(&mut driver, producer, COMMIT);
    while driver.reply(request).is_none() {
        driver.world.run_effect();
    }
    assert_eq!(
        driver.world.partitions[0].synced, 2,
        "the data and its marker"
    );
    assert_eq!(driver.state(), TransactionState::CompleteCommit);
    assert_eq!(
        driver.world.journal.synced,
        driver.world.journal.items.len()
    );
}

#[test]
fn c22_a_transaction_over_its_time_fences_the_client_that_cannot_learn_the_new_epoch() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.add(producer, 0).unwrap();
    write(&mut driver, producer, 0, 1);
    driver.pass(std::time::Duration::from_secs(3600));
    settle(&mut driver);
    assert_eq!(driver.markers(0), [ABORT]);
    assert_eq!(
        end(&mut driver, producer, COMMIT),
        Err(ErrorCode::ProducerFenced)
    );
}

#[test]
fn c1_an_identity_from_before_a_restart_commits_nothing_until_it_is_renewed() {
    let mut driver = Driver::new();
    let producer = driver.init();
    driver.add(producer, 0).unwrap();
    write(&mut driver, producer, 0, 1);
    assert_eq!(
        end(&mut driver, producer, COMMIT),
        Ok(Reply::Producer(producer))
    );
    // The next transaction's only trace, unsynced, is lost: its commit must not be taken for the last one's.
    driver.add(producer, 0).unwrap();
    write(&mut driver, producer, 0, 2);
    driver.crash(false);
    settle(&mut driver);
    assert!(driver.world.coordinator.must_renew(&id(), producer));
    assert_eq!(
        end(&mut driver, producer, COMMIT),
        Err(ErrorCode::TransactionAbortable)
    );
    assert_eq!(
        end(&mut driver, producer, ABORT),
        Ok(Reply::Producer(producer))
    );
    let request = driver.send_init();
    settle(&mut driver);
    let Some(Ok(Reply::Producer(renewed))) = driver.reply(request) else {
        panic!("no identity");
    };
    assert!(renewed.epoch > producer.epoch);
    assert!(!driver.world.coordinator.must_renew(&id(), renewed));
}

/// Event for a client of the older rule.
#[derive(Debug, Clone)]
enum Operation {
    /// One record in a partition, added to the transaction first.
    Write(usize),
    /// The transaction ends, and the client hears of it.
    End(bool),
    /// The transaction is being ended; after so many effects the machine dies, and of what was not synced only these
    /// files (bits) are kept.
    CrashInEnd {
        is_commit: bool,
        effects: usize,
        kept: u8,
    },
    /// The machine dies.
    Crash { kept: u8 },
    /// The process ends; the client goes on.
    Kill,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        5 => (0..PARTITIONS).prop_map(Operation::Write),
        3 => any::<bool>().prop_map(Operation::End),
        2 => (any::<bool>(), 0..10usize, any::<u8>())
            .prop_map(|(is_commit, effects, kept)| Operation::CrashInEnd { is_commit, effects, kept }),
        1 => any::<u8>().prop_map(|kept| Operation::Crash { kept }),
        2 => Just(Operation::Kill),
    ]
}

/// Transactions as the client knows them, by label.
#[derive(Default)]
struct Model {
    label: u8,
    /// Where the transaction wrote.
    written: BTreeMap<u8, BTreeSet<usize>>,
    told: BTreeMap<u8, TransactionResult>,
    /// Asked to commit, answer lost: either outcome is right, but one for all.
    in_doubt: BTreeSet<u8>,
}

impl Model {
    fn check(&self, driver: &Driver) -> Result<(), TestCaseError> {
        for (label, written) in &self.written {
            let fates: BTreeMap<usize, Fate> = driver
                .world
                .partitions
                .iter()
                .enumerate()
                .filter_map(|(at, file)| Some((at, *file.fates().get(label)?)))
                .collect();
            let committed = fates
                .values()
                .filter(|fate| **fate == Fate::Committed)
                .count();
            match self.told.get(label) {
                Some(TransactionResult::Commit) => {
                    prop_assert_eq!(
                        committed,
                        written.len(),
                        "{} was committed: {:?}",
                        label,
                        fates
                    );
                }
                None if self.in_doubt.contains(label) => {
                    let is_whole = committed == 0 || committed == written.len();
                    prop_assert!(is_whole, "{label} is torn: {fates:?} of {written:?}");
                }
                _ => prop_assert_eq!(committed, 0, "{} was not committed: {:?}", label, fates),
            }
        }
        Ok(())
    }
}

fn run(operations: &[Operation]) -> Result<(), TestCaseError> {
    let mut driver = Driver::new();
    let mut producer = driver.init();
    let mut model = Model::default();
    for operation in operations {
        let mut crash = None;
        match *operation {
            Operation::Write(at) => {
                driver.add(producer, at).unwrap();
                write(&mut driver, producer, at, model.label);
                model.written.entry(model.label).or_default().insert(at);
                continue;
            }
            Operation::End(is_commit) => {
                let result = if is_commit { COMMIT } else { ABORT };
                let is_empty = !model.written.contains_key(&model.label);
                let ended = end(&mut driver, producer, result);
                // Nothing was begun, and the last end was another: that is all that the answer means.
                let is_refused = is_empty && ended == Err(ErrorCode::InvalidTxnState);
                prop_assert!(
                    ended == Ok(Reply::Producer(producer)) || is_refused,
                    "{ended:?}"
                );
                model.told.insert(model.label, result);
            }
            Operation::CrashInEnd {
                is_commit,
                effects,
                kept,
            } => {
                let result = if is_commit { COMMIT } else { ABORT };
                send_end(&mut driver, producer, result);
                for _ in 0..effects.min(driver.world.queue.len() * 10) {
                    if driver.world.queue.is_empty() {
                        break;
                    }
                    driver.world.run_effect();
                }
                if is_commit {
                    model.in_doubt.insert(model.label);
                }
                crash = Some(kept);
            }
            Operation::Crash { kept } => crash = Some(kept),
            Operation::Kill => {
                driver.kill();
                prop_assert!(!driver.world.coordinator.is_recovering());
                prop_assert!(!driver.world.coordinator.must_renew(&id(), producer));
                continue;
            }
        }
        model.label += 1;
        if let Some(kept) = crash {
            driver.world.crash(kept, false);
            settle(&mut driver);
            prop_assert!(!driver.world.coordinator.is_recovering());
            prop_assert_eq!(driver.world.open_transactions(), []);
            model.check(&driver)?;
            let request = driver.send_init();
            settle(&mut driver);
            let renewed = driver.reply(request);
            let Some(Ok(Reply::Producer(renewed))) = renewed else {
                return Err(TestCaseError::fail(format!("no identity: {renewed:?}")));
            };
            producer = renewed;
        }
        model.check(&driver)?;
        prop_assert_eq!(&driver.world.violation, &None);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn c1_to_c9_x15_transactions_that_keep_their_epoch_are_whole_through_power_loss_and_kills(
        operations in prop::collection::vec(operation(), 1..40),
    ) {
        run(&operations)?;
    }
}

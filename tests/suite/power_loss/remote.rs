//! A producer that outlives its broker: the process ends, and power is lost, in any order, at any call of the disk, also of recovery.
//!
//! The end of a process is invisible to the producer: it asks again whatever was cut off, and the transaction goes on. A power
//! loss aborts what was open. An error says so, after which the producer aborts and goes on.

use std::collections::{BTreeMap, VecDeque};

use onceflow::broker::{Broker, BrokerError};
use onceflow::client::ErrorCode;
use onceflow::internals::protocol::messages::TransactionResult;
use onceflow::testing::{PowerLoss, SimulatedWorld};
use onceflow::types::TopicPartition;
use proptest::prelude::*;

use super::driver::{Transactor, View, create_topic, open, partition};
use crate::support::records::Seen;

const PARTITIONS: i32 = 2;
const ID: &str = "remote";

#[derive(Debug, Clone)]
enum Operation {
    /// Two records, and a position.
    Write(i32),
    End(TransactionResult),
    /// The process ends after this number of calls of the disk, whatever it is doing then.
    KillAfter(u64),
    /// The broker is closed in order, and opened again.
    Restart,
    /// Power is lost after this number of calls of the disk, in one of the modes.
    PowerLossAfter(u64, usize),
    /// As `KillAfter`, on a machine that does not tell since when it has been running: the kill must be taken for a power loss.
    KillUntoldAfter(u64),
    /// Somebody else takes the id. The producer, a zombie now, tries to go on; then the other one takes its place.
    TakeOver,
}

fn operation() -> impl Strategy<Value = Operation> {
    let calls = || prop_oneof![2 => 0u64..40, 1 => 0u64..400];
    prop_oneof![
        8 => (0..PARTITIONS).prop_map(Operation::Write),
        4 => Just(Operation::End(TransactionResult::Commit)),
        1 => Just(Operation::End(TransactionResult::Abort)),
        4 => calls().prop_map(Operation::KillAfter),
        1 => Just(Operation::Restart),
        1 => (calls(), 0usize..32).prop_map(|(calls, mode)| Operation::PowerLossAfter(calls, mode)),
        1 => calls().prop_map(Operation::KillUntoldAfter),
        1 => Just(Operation::TakeOver),
    ]
}

/// Failure of the machine.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Kill,
    KillUntold,
    PowerLoss(PowerLoss),
}

struct Run {
    world: SimulatedWorld,
    /// `None` while the machine is down.
    broker: Option<Broker>,
    /// Whether the machine tells since when it has been running, so that a kill can be told from a power loss.
    tells_boot: bool,
    /// The failures to come, each after a number of calls of the disk. The first one is under way.
    failures: VecDeque<(u64, Failure)>,
    producer: Transactor,
    /// The records of the open transaction.
    written: Vec<(TopicPartition, Vec<Seen>)>,
    /// The positions of the open transaction.
    positions: BTreeMap<TopicPartition, i64>,
    /// Power losses, as far as the broker can know, since the producer got its identity.
    losses: u32,
    committed: View,
    values: u32,
}

impl Run {
    fn new(seed: u64) -> Self {
        let world = SimulatedWorld::new(seed);
        let broker = open(&world).unwrap();
        create_topic(&broker, "a", PARTITIONS).unwrap();
        let producer = Transactor::init_remote(&broker, ID).unwrap();
        let committed = View::read(&broker);
        Self {
            world,
            broker: Some(broker),
            tells_boot: true,
            failures: VecDeque::new(),
            producer,
            written: Vec::new(),
            positions: BTreeMap::new(),
            losses: 0,
            committed,
            values: 0,
        }
    }

    /// Calls until the call is answered, through all that fails in between.
    fn call<T>(
        &mut self,
        call: impl Fn(&Broker, &mut Transactor) -> Result<T, BrokerError>,
    ) -> Result<T, BrokerError> {
        loop {
            if let Some(broker) = &self.broker {
                match call(broker, &mut self.producer) {
                    Err(_) if self.world.is_off() => {}
                    answer => return answer,
                }
            }
            self.come_back();
        }
    }

    /// Sets the next failure going.
    fn arm(&self) {
        let calls = self.failures.front().map_or(u64::MAX, |(calls, _)| *calls);
        self.world.power_off_after(calls);
    }

    fn fail_after(&mut self, calls: u64, failure: Failure) {
        self.failures.push_back((calls, failure));
        if self.failures.len() == 1 {
            self.arm();
        }
    }

    /// Lets the machine fail, and opens what is left, until it stays open.
    fn come_back(&mut self) {
        drop(self.broker.take());
        while self.broker.is_none() {
            let failure = self.failures.pop_front();
            let failure = failure.map_or(Failure::Kill, |(_, failure)| failure);
            self.world = match failure {
                Failure::Kill => self.world.after_kill(),
                Failure::KillUntold => self.world.after_kill_untold(),
                Failure::PowerLoss(loss) => self.world.after_power_loss(loss),
            };
            match failure {
                Failure::Kill => {}
                Failure::KillUntold => self.tells_boot = false,
                Failure::PowerLoss(_) => self.tells_boot = true,
            }
            let is_plain_kill = matches!(failure, Failure::Kill) && self.tells_boot;
            self.losses += u32::from(!is_plain_kill);
            self.arm();
            self.broker = match open(&self.world) {
                Ok(broker) => Some(broker),
                Err(error) => {
                    assert!(self.world.is_off(), "it cannot be opened: {error:?}");
                    None
                }
            };
        }
    }

    fn write(&mut self, at: i32) {
        let partition = partition("a", at);
        let values = [0, 1].map(|it| format!("value {}", self.values * 2 + it));
        self.values += 1;
        let written = self.call(|broker, producer| producer.produce(broker, &partition, &values));
        let position = i64::from(self.values);
        let written = written.and_then(|seen| {
            self.written.push((partition.clone(), seen));
            self.call(|broker, producer| producer.send_offset(broker, &partition, position))
        });
        match written {
            Ok(()) => drop(self.positions.insert(partition, position)),
            Err(error) => {
                self.excuse(&error);
                self.end(TransactionResult::Abort);
            }
        }
    }

    /// An error ends the transaction only if power was lost, and is never that of a producer that was replaced.
    fn excuse(&self, error: &BrokerError) {
        let is_abortable = matches!(
            error.code,
            ErrorCode::TransactionAbortable | ErrorCode::InvalidProducerEpoch
        );
        assert!(is_abortable && self.losses > 0, "{error:?}");
    }

    fn end(&mut self, result: TransactionResult) {
        let mut losses_before = self.losses;
        let ended = self.call(|broker, producer| producer.end(broker, result));
        let result = match ended {
            Ok(()) => result,
            Err(error) => {
                self.excuse(&error);
                assert_eq!(error.code, ErrorCode::TransactionAbortable);
                let abort = TransactionResult::Abort;
                losses_before = self.losses;
                let aborted = self.call(|broker, producer| producer.end(broker, abort));
                aborted.expect("after an abort the producer goes on");
                abort
            }
        };
        if result == TransactionResult::Commit {
            for (partition, seen) in &self.written {
                self.committed.insert(partition, seen);
            }
            let positions = self.positions.iter().map(|(at, it)| (at.clone(), *it));
            self.committed.positions.extend(positions);
        }
        self.forget();
        if result == TransactionResult::Abort {
            // Its new identity was made by the abort, or before, by the recovery from the first loss. It is doubted if power was
            // lost after that: the producer may have had it by then, for all that the broker knows.
            let is_doubted = self.losses > losses_before || losses_before > 1;
            self.losses = u32::from(is_doubted);
        }
        self.check();
    }

    fn forget(&mut self) {
        self.written.clear();
        self.positions.clear();
    }

    fn check(&mut self) {
        while self.world.is_off() {
            // It went off behind the last answer, or in an opening that bore it.
            self.come_back();
        }
        self.world.power_off_after(u64::MAX);
        let broker = self.broker.as_ref().expect("it was opened");
        assert_eq!(View::read(broker), self.committed);
        self.arm();
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Write(at) => self.write(at),
            Operation::End(result) => self.end(result),
            Operation::KillAfter(calls) => self.fail_after(calls, Failure::Kill),
            Operation::PowerLossAfter(calls, mode) => {
                let mode = PowerLoss::every_mode(u64::from(self.values)).nth(mode);
                self.fail_after(calls, Failure::PowerLoss(mode.unwrap()));
            }
            Operation::KillUntoldAfter(calls) => self.fail_after(calls, Failure::KillUntold),
            Operation::Restart => self.restart(),
            Operation::TakeOver => self.take_over(),
        }
    }

    fn restart(&mut self) {
        let broker = self.broker.take().expect("it was opened");
        let reopened = broker.close().and_then(|()| open(&self.world));
        match reopened {
            Ok(broker) => self.broker = Some(broker),
            Err(error) => {
                assert!(self.world.is_off(), "{error:?}");
                self.come_back();
            }
        }
    }

    fn take_over(&mut self) {
        let other = self.call(|broker, _| Transactor::init_remote(broker, ID));
        for result in [TransactionResult::Commit, TransactionResult::Abort] {
            let ended = self.call(|broker, producer| producer.end(broker, result));
            // I4, through all that may come in between: it was replaced, and hears so.
            assert_eq!(ended.unwrap_err().code, ErrorCode::ProducerFenced);
        }
        self.producer = other.unwrap();
        self.forget();
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn x15_a_producer_goes_on_through_kills_and_hears_of_power_losses(
        seed in any::<u64>(),
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let mut run = Run::new(seed);
        for operation in &operations {
            run.apply(operation);
        }
        run.end(TransactionResult::Commit);
    }
}

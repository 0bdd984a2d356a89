//! Transfers between accounts on the embedded log: whoever looks, whenever, the money is all there.

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::TopicName;

use super::support::{OFTEN, Place, fill_topic, until};
use crate::support::transfers::{Ledger, Sum, example, line};

const TRANSFERS: u64 = 1_500;
/// Transfers given to the job at once.
const PART: u64 = 50;

fn launch() -> Launch {
    let job = Job::new("transfer");
    example::keep_accounts(&job, "transfers", "balances");
    job.exactly_once(Commit::every(OFTEN)).workers(2)
}

/// Makes the topics, and a ledger.
fn open(log: &Log, sum: Sum) -> Ledger {
    for (topic, partitions) in [("transfers", 3), ("balances", 1)] {
        let topic = TopicName::new(topic).unwrap();
        wait(log.admin().create_topic(&topic, partitions)).unwrap();
    }
    Ledger::new(log.transport(), "balances", sum)
}

/// Transfers part by part while `ledger` looks on.
fn transfer(log: &Log, ledger: &mut Ledger, numbers: std::ops::Range<u64>) {
    for start in numbers.step_by(usize::try_from(PART).unwrap()) {
        let lines: Vec<String> = (start..start + PART).map(line).collect();
        fill_topic(log, "transfers", 3, &lines);
        until("the part is through", || {
            ledger.read().unwrap();
            ledger.changes_count() == 2 * (start + PART)
        });
        ledger.assert_after(start + PART);
    }
}

#[test]
fn i1_no_reader_ever_sees_half_a_transfer() {
    let place = Place::new();
    let log = place.log();
    let mut ledger = open(&log, Sum::Always);
    for part in 0..3 {
        let running = launch().start(&log).unwrap();
        transfer(
            &log,
            &mut ledger,
            part * TRANSFERS / 3..(part + 1) * TRANSFERS / 3,
        );
        wait(running.stop()).unwrap();
    }
    assert!(ledger.cuts_count() > 10, "{}", ledger.cuts_count());
}

#[test]
fn i2_transfers_between_two_processes_are_all_there_at_rest() {
    let place = Place::new();
    let log = place.log();
    let mut ledger = open(&log, Sum::AtRest);
    let running = ["a", "b"].map(|name| {
        launch()
            .scale_out(ScaleOut::instance(name))
            .start(&log)
            .unwrap()
    });
    transfer(&log, &mut ledger, 0..TRANSFERS / 3);
    for running in running {
        wait(running.stop()).unwrap();
    }
}

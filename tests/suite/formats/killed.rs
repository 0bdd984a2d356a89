//! A job that reads Avro of two schemas and writes Avro, in a process that is killed again and again.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use onceflow::client::wait;
use onceflow::codec::Avro;
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use serde::{Deserialize, Serialize};

use super::support::{FIRST, NOW, Order, first_orders, write};
use crate::jobs::support::{OFTEN, committed};
use crate::time::killed::{Process, open, start_child};
use crate::time::support::ms;

const VARIABLE: &str = "ONCEFLOW_AVRO_CHILD";
const LIVES: i64 = 12;
const ORDERS_A_LIFE: i64 = 300;

const SUM: &str = r#"{"type": "record", "name": "Sum", "fields": [
    {"name": "buyer", "type": "string"}, {"name": "orders", "type": "long"}, {"name": "cents", "type": "long"}]}"#;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sum {
    buyer: String,
    orders: i64,
    cents: i64,
}

fn orders() -> Avro {
    Avro::new(NOW).unwrap().reads(FIRST).unwrap()
}

/// The sums of each buyer, one more with each order.
fn sums(is_endless: bool) -> Launch {
    let source = topic::<Order>("orders").codec(orders());
    let source = match is_endless {
        true => source,
        false => source.until_end(),
    };
    let job = Job::new("sums");
    job.source(source)
        .key_by(|order: &Order| order.buyer.clone())
        .map(|order: &Order| Sum {
            buyer: order.buyer.clone(),
            orders: 1,
            cents: order.cents,
        })
        .reduce("sums", |sum: &mut Sum, one| {
            sum.orders += one.orders;
            sum.cents += one.cents;
        })
        .changes()
        .sink(
            topic::<Sum>("sums")
                .partitions(1)
                .codec(Avro::new(SUM).unwrap()),
        );
    job.exactly_once(Commit::every(OFTEN)).workers(2)
}

/// The child's entry.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn sums_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let (is_endless, data) = plan.split_once('|').unwrap();
    let log = open(Path::new(data));
    wait(sums(is_endless == "true").start(&log).unwrap().finished()).unwrap();
    log.close().unwrap();
}

fn start(data: &Path, is_endless: bool, failpoint: &str) -> Process {
    let plan = format!("{is_endless}|{}", data.display());
    let test = "formats::killed::sums_until_it_is_killed";
    start_child(test, (VARIABLE, &plan), failpoint)
}

/// Orders of a life: the first half by the first program, the rest by the one of now.
fn feed(log: &Log, life: i64) {
    let (begin, half) = (life * ORDERS_A_LIFE, ORDERS_A_LIFE / 2);
    let first = Avro::new(FIRST).unwrap();
    let older = first_orders(begin..begin + half)
        .into_iter()
        .map(|mut order| {
            order.customer = format!("buyer {}", order.id % 7);
            let mut bytes = Vec::new();
            first.encode(&order, &mut bytes).unwrap();
            bytes
        });
    let newer = (begin + half..begin + ORDERS_A_LIFE).map(|id| {
        let mut bytes = Vec::new();
        let order = Order {
            id,
            cents: id,
            buyer: format!("buyer {}", id % 7),
        };
        orders().encode(&order, &mut bytes).unwrap();
        bytes
    });
    write(
        log,
        &format!("feeds-{life}"),
        "orders",
        older.chain(newer).collect(),
    );
}

#[test]
fn u9_sums_of_orders_of_two_schemas_are_exact_after_twelve_kills() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let points = ["cycle.drained=kill@1", "commit.before_decision=kill@1", ""];
    for life in 0..LIVES {
        let log = open(&data);
        feed(&log, life);
        log.close().unwrap();
        let place = usize::try_from(life).unwrap() % points.len();
        let mut process = start(&data, true, points[place]);
        let patience = ms(if points[place].is_empty() {
            500
        } else {
            20_000
        });
        if process.is_killed_within(patience) {
            assert_eq!(process.0.wait().unwrap().signal(), Some(9), "life {life}");
        }
        drop(process);
    }
    let mut last = start(&data, false, "");
    assert!(last.0.wait().unwrap().success());

    let log = open(&data);
    let codec = Avro::new(SUM).unwrap();
    let mut last: std::collections::BTreeMap<String, Sum> = std::collections::BTreeMap::new();
    for seen in committed(&log, "sums") {
        let bytes = seen.value.unwrap();
        let sum: std::borrow::Cow<'_, Sum> = codec.decode(&bytes).unwrap();
        let before = last.insert(sum.buyer.clone(), sum.clone().into_owned());
        // Each order is in one change of its buyer's sum, and no change is there twice.
        assert_eq!(before.map_or(0, |it| it.orders) + 1, sum.orders, "{sum:?}");
    }
    let mut expected: std::collections::BTreeMap<String, Sum> = std::collections::BTreeMap::new();
    for id in 0..LIVES * ORDERS_A_LIFE {
        let buyer = format!("buyer {}", id % 7);
        let is_older = id % ORDERS_A_LIFE < ORDERS_A_LIFE / 2;
        let sum = expected.entry(buyer.clone()).or_insert(Sum {
            buyer,
            orders: 0,
            cents: 0,
        });
        sum.orders += 1;
        sum.cents += if is_older { 5 } else { id };
    }
    assert_eq!(last, expected);
    log.close().unwrap();
}

//! A versioned table in processes that are killed, at every failpoint and where they share a job on a real Kafka: each record finds the
//! version that was valid at its time, and no change is lost or there twice.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::internals::env::failpoint;
use onceflow::prelude::*;
use onceflow::types::Timestamp;

use super::support::{feed_at, input, make_topic, written};
use crate::jobs::support::committed;
use crate::time::killed::{Process, open, run_until_killed, start_child};

const VARIABLE: &str = "ONCEFLOW_VERSIONS_CHILD";
const KEYS: u64 = 12;
/// Nothing is older than the history, so that no change is ignored and every record finds its version.
const HISTORY: Duration = Duration::from_millis(1_000_000);

/// Prices of articles, and orders that are to find the price of their time.
fn pricing(is_endless: bool) -> Job {
    let job = Job::new("pricing");
    let prices = input(&job, "prices", is_endless).versioned("prices", HISTORY);
    let (prices, told) = prices.boxed().tee();
    told.map(|version| *version)
        .sink(topic::<u64>("versions").as_option());
    input(&job, "orders", is_endless)
        .join_as_of("priced", prices)
        .grace(HISTORY)
        .left(|order, price| (order.unwrap_or(0), price.copied()))
        .sink(topic("priced"));
    job
}

/// Prices and orders, each at a later time than the one before: so whoever finds another version than that of its time lost one, or
/// came too soon. Time begins two hours ago: what is very old would meet the retention of topics, and Kafka takes nothing of the future.
struct Market {
    state: u64,
    now: i64,
    prices: Vec<(i64, u64, Option<u64>)>,
    orders: Vec<(i64, u64, u64)>,
}

impl Market {
    fn new(log: &Log, seed: u64) -> Self {
        Self {
            state: seed,
            now: log.env().clock.wall().0 - 2 * 3_600_000,
            prices: Vec::new(),
            orders: Vec::new(),
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.state >> 33) % bound
    }

    fn time(&mut self) -> i64 {
        self.now += 1 + self.below(40).cast_signed();
        self.now
    }

    fn feed(&mut self, log: &Log, count: usize) {
        for _ in 0..count {
            let (time, key) = (self.time(), self.below(KEYS));
            let price = (self.below(4) > 0).then(|| self.below(1_000));
            feed_at(log, "prices", Timestamp(time), &[(key, price)]);
            self.prices.push((time, key, price));
            let (time, key) = (self.time(), self.below(KEYS));
            let number = self.orders.len() as u64;
            feed_at(log, "orders", Timestamp(time), &[(key, Some(number))]);
            self.orders.push((time, key, number));
        }
    }

    /// A change far ahead in each partition, so that time goes on until every order has its price.
    fn end(&self, log: &Log) {
        let far = self.now + 3_000_000;
        for topic in ["prices", "orders"] {
            feed_at(
                log,
                topic,
                Timestamp(far),
                &[(KEYS, None), (KEYS + 1, None)],
            );
        }
    }

    fn priced(&self) -> BTreeMap<u64, (u64, Option<u64>)> {
        let found = self.orders.iter().map(|(time, key, number)| {
            let versions = self.prices.iter();
            let valid = versions.filter(|price| price.1 == *key && price.0 <= *time);
            let version = valid.max_by_key(|price| price.0);
            (*number, (*key, version.and_then(|it| it.2)))
        });
        found.collect()
    }

    fn check(&self, log: &Log) {
        let mut priced = BTreeMap::new();
        for seen in committed(log, "priced") {
            let (key, (number, price)) = (seen.key::<u64>(), seen.value::<(u64, Option<u64>)>());
            if key < KEYS {
                let twice = priced.insert(number, (key, price));
                assert_eq!(twice, None, "order {number} is there twice");
            }
        }
        for (number, expected) in self.priced() {
            let (time, key, _) = self.orders[usize::try_from(number).unwrap()];
            let of_key = self.prices.iter().filter(|it| it.1 == key);
            let near = of_key.filter(|it| (time - it.0).abs() < 2_000);
            let near: Vec<_> = near.map(|it| (it.0 - time, it.2)).collect();
            assert_eq!(
                priced.remove(&number),
                Some(expected),
                "order {number} at {time}; prices around it: {near:?}"
            );
        }
        assert_eq!(priced, BTreeMap::new());
        let mut expected: Vec<_> = self.prices.iter().map(|it| (it.1, it.2)).collect();
        let mut told = written(log, "versions");
        told.retain(|(key, _)| *key < KEYS);
        expected.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, expected, "changes of the table");
    }
}

/// The child's entry.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn prices_orders_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, is_endless, data] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(Path::new(data));
    let launch =
        pricing(is_endless == "true").exactly_once(Commit::every(Duration::from_millis(20)));
    let launch = launch.state_partitions(8).workers(workers.parse().unwrap());
    run_until_killed(launch, &log, is_endless == "true");
}

fn start(data: &Path, workers: usize, is_endless: bool, failpoint: &str) -> Process {
    let plan = format!("{workers} {is_endless} {}", data.display());
    let test = "tables::versioned_killed::prices_orders_until_it_is_killed";
    start_child(test, (VARIABLE, &plan), failpoint)
}

#[test]
fn j10_j11_j12_orders_find_the_version_of_their_time_after_a_kill_at_every_failpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = open(&data);
    make_topic(&log, "prices");
    make_topic(&log, "orders");
    let mut market = Market::new(&log, 17);
    log.close().unwrap();
    let mut killed = 0;
    for (life, name) in failpoint::NAMES.iter().enumerate() {
        let log = open(&data);
        market.feed(&log, 25);
        log.close().unwrap();
        let mut process = start(&data, [1, 4][life % 2], true, &format!("{name}=kill"));
        killed += usize::from(process.is_killed_at_its_failpoint());
    }
    assert!(killed >= 20, "only {killed} failpoints were met");
    let log = open(&data);
    market.end(&log);
    log.close().unwrap();
    let mut last = start(&data, 2, false, "");
    assert!(last.0.wait().unwrap().success());
    let log = open(&data);
    market.check(&log);
    log.close().unwrap();
}

#[cfg(feature = "kafka")]
mod on_kafka {
    use super::super::support::PARTITIONS;
    use super::*;
    use crate::support::peers;
    use crate::time::scaled_kafka::{
        Life, SESSION, cluster, end_with_parent, open, owners, until, until_led,
    };

    const VARIABLE: &str = "ONCEFLOW_VERSIONS_ON_KAFKA_CHILD";
    const STATE_PARTITIONS: u16 = 8;
    /// The processes that share the job, in turn. Those that are not named any more are killed.
    const MEMBERS: [&[&str]; 4] = [&["one"], &["one", "two"], &["two"], &["one", "two"]];

    /// An instance, in a process of its own.
    #[test]
    #[ignore = "the test below starts it, in a process that it kills"]
    fn shares_the_versions_until_it_is_killed() {
        let Ok(plan) = std::env::var(VARIABLE) else {
            return;
        };
        end_with_parent();
        let [instance, brokers, state] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
            panic!("no plan: {plan}")
        };
        let log = open(brokers, Path::new(state));
        let often = ScaleOut::instance(instance)
            .session_timeout(SESSION)
            .purge_interval(Duration::from_millis(200));
        let launch = pricing(true).exactly_once(Commit::every(Duration::from_millis(50)));
        let launch = launch.workers(2).state_partitions(STATE_PARTITIONS);
        let launch = launch
            .scale_out(often)
            .transaction_timeout(Duration::from_secs(5));
        panic!("{:?}", wait(launch.start(&log).unwrap().finished()));
    }

    #[test]
    fn j10_j11_j12_on_kafka_versions_move_between_killed_processes_and_orders_find_them() {
        if !peers::are_wanted(&["kafka"]) {
            return;
        }
        let cluster = cluster();
        let folder = tempfile::tempdir().unwrap();
        let brokers = cluster.bootstrap();
        let log = open(&brokers, &folder.path().join("feeder"));
        for topic in ["prices", "orders"] {
            make_topic(&log, topic);
            until_led(&log, topic, PARTITIONS);
        }
        let mut market = Market::new(&log, 5);
        let mut lives = BTreeMap::new();
        for members in MEMBERS {
            market.feed(&log, 60);
            lives.retain(|name, _| members.contains(name));
            for name in members {
                let test =
                    "tables::versioned_killed::on_kafka::shares_the_versions_until_it_is_killed";
                lives.entry(*name).or_insert_with(|| {
                    Life::begin_child(test, VARIABLE, name, &brokers, folder.path())
                });
            }
            market.feed(&log, 60);
            until("the state is shared by these and no others", || {
                let owners = owners(&log, "pricing");
                owners.len() == usize::from(STATE_PARTITIONS)
                    && owners.values().all(|it| members.contains(&&**it))
                    && members
                        .iter()
                        .all(|name| owners.values().any(|it| it == name))
            });
            market.feed(&log, 60);
            for (name, life) in &mut lives {
                life.assert_lives(name);
            }
        }
        market.end(&log);
        let expected = market.orders.len();
        until("all orders have their prices", || {
            let priced = committed(&log, "priced");
            let own = priced.iter().filter(|seen| seen.key::<u64>() < KEYS);
            own.count() >= expected
        });
        market.check(&log);
        drop(lives);
    }
}

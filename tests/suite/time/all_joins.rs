//! All kinds of joins of streams, and a cogroup, in one job: killed at every failpoint, after power losses, and shared by instances that
//! come, go and are killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::internals::env::failpoint;
use onceflow::internals::env::simulated::PowerLoss;
use onceflow::prelude::*;
use onceflow::runtime::Launch;

use super::as_of::{self, Direction, version};
use super::joins::{self, Kind, text};
use super::killed::{Process, open, start_child};
use super::power_loss::{Cut, Machine};
use super::scaled::state_of;
use super::scaled_kafka::{self, Life, SESSION, cluster, end_with_parent, owners, until_led};
use super::support::{click, feed, ms, parse, topic_of_clicks, watermarks};
use super::two_inputs::Shop;
use super::{model, window_joins};
use crate::jobs::support::{Place, committed, committed_by_key, run, until};
use crate::support::peers;

const VARIABLE: &str = "ONCEFLOW_JOINS_CHILD";
const SCALED_VARIABLE: &str = "ONCEFLOW_SCALED_JOINS_CHILD";
const INTERVAL: Kind = Kind::outer(7, 12, 2);
const WINDOWS: model::Kind = (10, 5, false, 0, 2);
const AS_OF: as_of::Bounds = (Direction::Nearest, Some(9), 2);
/// Number of orders, and the sum of their times less those of payments.
type Account = (u64, i64);
/// The results of each user and start of a window: one.
type Accounts = BTreeMap<(String, i64), Vec<Account>>;
const ACCOUNT_LENGTH: i64 = 10;
/// The user whose records let time go on behind all others.
const END: &str = "end";

fn joining(is_endless: bool) -> Job {
    let job = Job::new("joins");
    let input = |name: &str| {
        let input = topic::<str>(name);
        let input = if is_endless { input } else { input.until_end() };
        job.source(input)
            .try_map(parse)
            .event_time(|(_, time)| *time, watermarks())
            .key_by(|(user, _)| user.clone())
            .map(|(_, time)| *time)
    };
    let (near, orders) = input("orders").tee();
    let (in_windows, orders) = orders.tee();
    let (priced, in_accounts) = orders.tee();
    let (to_near, payments) = input("payments").tee();
    let (to_windows, payments) = payments.tee();
    let (prices, to_accounts) = payments.tee();
    let (near, late, late_payments) = near
        .join("near", to_near)
        .within(ms(7), ms(12))
        .grace(ms(2))
        .late();
    late.merge(late_payments).sink(topic("late"));
    near.outer(text).sink(topic("joined"));
    in_windows
        .join("in-windows", to_windows)
        .window(model::windows(WINDOWS))
        .outer(text)
        .sink(topic("windowed"));
    priced
        .join_as_of("price", prices.map(|time| version(*time)))
        .nearest_within(ms(9))
        .grace(ms(2))
        .left(|order, price| (*order, price.copied()))
        .sink(topic("priced"));
    in_accounts
        .cogroup(|account: &mut Account, time: &i64| add(account, &(1, *time)))
        .and(
            "payments-of-accounts",
            to_accounts,
            |account, time: &i64| add(account, &(0, -time)),
        )
        .window_aggregate(
            "accounts",
            FixedWindows::tumbling(ms(ACCOUNT_LENGTH.unsigned_abs())),
            Account::default,
            add,
        )
        .sink(topic("accounts"));
    job
}

fn add(account: &mut Account, other: &Account) {
    *account = (account.0 + other.0, account.1 + other.1);
}

/// The accounts of users in windows, by definition.
fn accounts(shop: &Shop) -> Accounts {
    let mut accounts = Accounts::new();
    let orders = shop
        .orders
        .iter()
        .flatten()
        .map(|(user, time)| (user, *time, (1, *time)));
    let payments = shop
        .payments
        .iter()
        .flatten()
        .map(|(user, time)| (user, *time, (0, -time)));
    for (user, time, change) in orders.chain(payments) {
        let start = time.div_euclid(ACCOUNT_LENGTH) * ACCOUNT_LENGTH;
        let account = accounts
            .entry((user.clone(), start))
            .or_insert_with(|| vec![(0, 0)]);
        add(&mut account[0], &change);
    }
    accounts
}

fn launch(is_endless: bool) -> Launch {
    let launch = joining(is_endless).exactly_once(Commit::every(ms(20)));
    launch.state_partitions(8)
}

/// The results of everybody but the one who lets time go on, and those by definition.
struct Outcome {
    joined: joins::Joined,
    windowed: window_joins::Joined,
    priced: as_of::Priced,
    accounts: Accounts,
}

impl Outcome {
    fn found(log: &Log) -> Self {
        let mut found = Self {
            joined: joins::found(log),
            windowed: window_joins::found(log, "windowed"),
            priced: as_of::found(log),
            accounts: Accounts::new(),
        };
        for (key, results) in committed_by_key::<Windowed<String>, Account>(log, "accounts") {
            let place = (key.key, key.window.start.0);
            found.accounts.insert(place, results);
        }
        found.joined.remove(END);
        found.windowed.retain(|(user, ..), _| user != END);
        found.priced.remove(END);
        found.accounts.retain(|(user, _), _| user != END);
        found
    }

    fn expected(shop: &Shop) -> Self {
        let (orders, payments) = (&shop.orders, &shop.payments);
        Self {
            joined: joins::nested_loops(INTERVAL, orders, payments),
            windowed: window_joins::nested_loops(WINDOWS, true, orders, payments),
            priced: as_of::by_hand(AS_OF, orders, payments),
            accounts: accounts(shop),
        }
    }

    fn counts(&self) -> [usize; 4] {
        [
            self.joined.values().map(Vec::len).sum(),
            self.windowed.values().map(Vec::len).sum(),
            self.priced.values().map(Vec::len).sum(),
            self.accounts.values().map(Vec::len).sum(),
        ]
    }
}

/// Each result is there once, in the order that is promised, and nothing was late.
fn check(log: &Log, shop: &Shop) {
    compare(log, Outcome::found(log), Outcome::expected(shop));
}

/// The same where a topic is between the sources and the joins: records of one time are in its order.
fn check_scaled(log: &Log, shop: &Shop) {
    let (mut found, mut expected) = (Outcome::found(log), Outcome::expected(shop));
    for outcome in [&mut found, &mut expected] {
        outcome.windowed.values_mut().for_each(|it| it.sort());
    }
    compare(log, found, expected);
}

fn compare(log: &Log, found: Outcome, expected: Outcome) {
    assert_eq!(found.counts(), expected.counts());
    assert!(found.joined == expected.joined, "joined wrongly");
    assert!(found.windowed == expected.windowed, "wrong in windows");
    assert!(found.priced == expected.priced, "priced wrongly");
    assert!(found.accounts == expected.accounts, "wrong accounts");
    assert_eq!(committed(log, "late"), []);
}

/// The child's entry: the test below runs it in a process of its own.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn joins_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, is_endless, data] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(Path::new(data));
    let workers = workers.parse().unwrap();
    let launch = launch(is_endless == "true").workers(workers);
    wait(launch.start(&log).unwrap().finished()).unwrap();
    log.close().unwrap();
}

fn start(data: &Path, workers: usize, is_endless: bool, failpoint: &str) -> Process {
    let plan = format!("{workers} {is_endless} {}", data.display());
    let test = "time::all_joins::joins_until_it_is_killed";
    start_child(test, (VARIABLE, &plan), failpoint)
}

#[test]
fn i16_j4_j7_t16_joins_give_the_same_results_in_the_same_order_after_a_kill_at_every_failpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut shop = Shop::new();
    let log = open(&data);
    topic_of_clicks(&log, "orders", 2);
    topic_of_clicks(&log, "payments", 2);
    log.close().unwrap();
    let mut killed = 0;
    for (life, name) in failpoint::NAMES.iter().enumerate() {
        let log = open(&data);
        shop.feed(&log, 200);
        log.close().unwrap();
        let workers = [1, 4][life % 2];
        let mut process = start(&data, workers, true, &format!("{name}=kill"));
        killed += usize::from(process.is_killed_within(Duration::from_millis(1_200)));
    }
    assert!(killed >= 16, "only {killed} failpoints were met");
    let mut last = start(&data, 2, false, "");
    assert!(last.0.wait().unwrap().success());
    let log = open(&data);
    check(&log, &shop);
    log.close().unwrap();
}

#[test]
fn the_rows_that_wait_are_seen_in_the_sizes_of_the_stores_of_every_join() {
    let place = Place::new();
    let log = place.log();
    let mut shop = new_shop(&log);
    shop.feed(&log, 100);
    let running = launch(true).workers(2).start(&log).unwrap();
    for store in [
        "near-left",
        "near-right",
        "near-times",
        "in-windows-left",
        "in-windows-right",
        "in-windows-times",
        "price-waiting",
        "price-versions",
        "price-times",
        "accounts",
    ] {
        until(store, || {
            let sizes = running.progress().stores;
            let size = sizes.get(store);
            size.is_some_and(|it| it.rows_in_memory > 0 && it.memory_bytes > 0)
        });
    }
    wait(running.stop()).unwrap();
}

const LIVES: usize = 18;
/// On a machine that has other work a life does less before its end: more of them follow, and they last longer, but no more than this.
const LIVES_MAX: usize = 2 * LIVES;
/// The power losses are to leave more results of each kind than these to be compared.
const RESULTS_MIN: usize = 20;
const CALLS_OF_AN_OPENING: u64 = 1_000;
const CALLS_OF_A_LIFE: u64 = 6_000;
const SEED: u64 = 41;

/// The log is on a disk that loses power, beside a state that is as it was, lost, or older than the log.
#[test]
fn i16_j4_j7_j14_s2_joins_are_right_after_power_losses_whatever_is_left_of_the_state() {
    let mut machine = Machine::new(SEED);
    let mut shop = Shop::new();
    let log = machine.open().unwrap();
    topic_of_clicks(&log, "orders", 2);
    topic_of_clicks(&log, "payments", 2);
    log.close().unwrap();
    let mut state = SEED;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    for life in 0..LIVES_MAX {
        if life >= LIVES && life % 3 == 0 {
            let log = machine.open().unwrap();
            let found = Outcome::found(&log).counts();
            log.close().unwrap();
            if found.iter().all(|it| *it > RESULTS_MIN) {
                break;
            }
            // The machine is busy: starts take what a life has.
            machine.life_max *= 2;
        }
        let has_state = machine.state().exists();
        match life % 3 {
            1 if has_state => std::fs::remove_dir_all(machine.state()).unwrap(),
            2 if has_state && machine.has_copies() => machine.restore(0),
            _ => machine.keep_a_copy(),
        }
        let cut = match random(5) {
            0 => Cut::WhileOpening(random(CALLS_OF_AN_OPENING)),
            _ => Cut::WhileRunning(random(CALLS_OF_A_LIFE << (life.saturating_sub(LIVES) / 3))),
        };
        let nth = usize::try_from(random(32)).unwrap();
        let loss = PowerLoss::every_mode(SEED ^ life as u64).nth(nth).unwrap();
        println!("life {life}: {cut:?}, {loss:?}");
        machine.live_with(cut, loss, launch(true).workers(1 + life % 3), |log| {
            shop.try_feed(log, 4);
        });
    }
    let log = machine.open().unwrap();
    shop.read_again(&log);
    let left_open = Outcome::found(&log).counts();
    run(launch(false).workers(2), &log).unwrap();
    let all = Outcome::expected(&shop).counts();
    println!("{left_open:?} of {all:?} results before the last run");
    assert!(
        left_open.iter().all(|it| *it > RESULTS_MIN),
        "{left_open:?}"
    );
    check(&log, &shop);
    log.close().unwrap();
}

/// Orders and payments in two partitions each.
fn new_shop(log: &Log) -> Shop {
    for name in ["orders", "payments"] {
        topic_of_clicks(log, name, 2);
    }
    for name in ["orders", "payments"] {
        until_led(log, name, 2);
    }
    Shop::new()
}

/// Lets time go on until all results are due.
fn end(log: &Log) {
    for name in ["orders", "payments"] {
        (0..2).for_each(|partition| feed(log, name, partition, &[click(END, 1_000_000)]));
    }
}

fn is_all_out(log: &Log, shop: &Shop) -> bool {
    let (found, expected) = (Outcome::found(log), Outcome::expected(shop));
    let mut counts = found.counts().into_iter().zip(expected.counts());
    counts.all(|(found, expected)| found >= expected)
}

#[test]
fn i16_j2_j7_j14_joins_move_between_instances() {
    let place = Place::new();
    let log = place.log();
    let mut shop = new_shop(&log);
    let start = |name: &str| {
        let launch = launch(true).workers(2);
        launch
            .scale_out(ScaleOut::instance(name))
            .start(&log)
            .unwrap()
    };
    shop.feed(&log, 100);
    let mut stays = start("first");
    for name in ["second", "third"] {
        let other = start(name);
        until("each has a share of the state", || {
            shop.feed(&log, 5);
            std::thread::sleep(ms(20));
            [&stays, &other].iter().all(|it| !state_of(it).is_empty())
        });
        shop.feed(&log, 100);
        wait(std::mem::replace(&mut stays, other).stop()).unwrap();
        shop.feed(&log, 100);
    }
    end(&log);
    until("all is out", || is_all_out(&log, &shop));
    wait(stays.stop()).unwrap();
    check_scaled(&log, &shop);
}

/// An instance, in a process of its own.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn shares_the_joins_until_it_is_killed() {
    let Ok(plan) = std::env::var(SCALED_VARIABLE) else {
        return;
    };
    end_with_parent();
    let [instance, brokers, state] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = scaled_kafka::open(brokers, Path::new(state));
    let often = ScaleOut::instance(instance)
        .session_timeout(SESSION)
        .purge_interval(ms(200));
    let launch = launch(true).workers(2).scale_out(often);
    let launch = launch.transaction_timeout(Duration::from_secs(5));
    panic!("{:?}", wait(launch.start(&log).unwrap().finished()));
}

/// The processes that share the job, in turn. Those that are not named any more are killed.
const MEMBERS: [&[&str]; 4] = [&["one"], &["one", "two"], &["two"], &["two", "three"]];

#[test]
fn i16_j2_j7_j14_u5_on_kafka_joins_move_between_killed_processes() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let log = scaled_kafka::open(&brokers, &folder.path().join("feeder"));
    let mut shop = new_shop(&log);
    let mut lives = BTreeMap::new();
    let test = "time::all_joins::shares_the_joins_until_it_is_killed";
    for members in MEMBERS {
        shop.feed(&log, 60);
        lives.retain(|name, _| members.contains(name));
        for name in members {
            lives.entry(*name).or_insert_with(|| {
                Life::begin_child(test, SCALED_VARIABLE, name, &brokers, folder.path())
            });
        }
        shop.feed(&log, 60);
        scaled_kafka::until("the state is shared by these and no others", || {
            let owners = owners(&log, "joins");
            let is_one_of_them = |it: &String| members.contains(&&**it);
            !owners.is_empty()
                && owners.values().all(is_one_of_them)
                && members
                    .iter()
                    .all(|name| owners.values().any(|it| it == name))
        });
        shop.feed(&log, 60);
        for (name, life) in &mut lives {
            life.assert_lives(name);
        }
    }
    end(&log);
    scaled_kafka::until("all is out", || is_all_out(&log, &shop));
    drop(lives);
    check_scaled(&log, &shop);
}

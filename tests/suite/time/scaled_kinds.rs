//! Windows that slide, windows by number, early results, sketches, state that expires and steps with two inputs in a job that is
//! scaled out: they are what they are in one process, whoever has the tasks.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Job, Launch};

use super::killed_kinds::{
    DISORDER, END, LIFETIME, check_windows, compute_all_kinds, windows_count,
};
use super::scaled::state_of;
use super::scaled_kafka::{self, Life, SESSION, cluster, end_with_parent, owners, until_led};
use super::support::{Click, click, feed, ms, topic_of_clicks};
use super::two_inputs::{Shop, found, match_orders, nested_loops};
use crate::jobs::support::{Place, committed, committed_by_key, until};
use crate::support::peers;

const PARTITIONS: i32 = 4;
const USERS: u64 = 40;
const VARIABLE: &str = "ONCEFLOW_SCALED_KINDS_CHILD";

/// An instance of the job.
fn kinds(instance: ScaleOut) -> Launch {
    let job = Job::new("kinds");
    compute_all_kinds(&job, true);
    match_orders(&job, true);
    job.exactly_once(Commit::every(ms(20)))
        .workers(2)
        .state_partitions(8)
        .scale_out(instance)
}

/// Input of the job. The clicks of a user are in one partition, so their order is known.
struct Input {
    state: u64,
    newest: [i64; 4],
    clicks: Vec<Click>,
    shop: Shop,
}

impl Input {
    fn new(log: &Log) -> Self {
        let topics = [("in", PARTITIONS), ("orders", 2), ("payments", 2)];
        for (name, partitions) in topics {
            topic_of_clicks(log, name, partitions);
        }
        for (name, partitions) in topics {
            until_led(log, name, partitions);
        }
        Self {
            state: 0x2545_f491_4f6c_dd1d,
            newest: [-500, -480, -510, -490],
            clicks: Vec::new(),
            shop: Shop::new(),
        }
    }

    fn next(&mut self, below: u64) -> i64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.state >> 33) % below).cast_signed()
    }

    fn feed(&mut self, log: &Log, count_each: usize) {
        for partition in 0..PARTITIONS {
            let place = usize::try_from(partition).unwrap();
            let mut clicks = Vec::new();
            for _ in 0..count_each {
                self.newest[place] += self.next(3);
                let time = self.newest[place] - self.next(DISORDER.unsigned_abs() + 1);
                // Some come often, and some so seldom that what is kept of them expires.
                let number = [0; 4].map(|_| self.next(USERS / 4)).into_iter().min();
                let user = number.unwrap_or(0) * 4 + i64::from(partition);
                clicks.push((format!("user-{user}"), time));
            }
            feed(log, "in", partition, &clicks);
            self.clicks.extend(clicks);
        }
        self.shop.feed(log, count_each / 4);
    }

    /// Closes all that is open, but for what this brings itself.
    fn end(&self, log: &Log) {
        let end = [click(END, 1_000_000)];
        (0..PARTITIONS).for_each(|partition| feed(log, "in", partition, &end));
        for topic in ["orders", "payments"] {
            (0..2).for_each(|partition| feed(log, topic, partition, &end));
        }
    }

    /// Whether as much has come out as will.
    fn is_all_out(&self, log: &Log) -> bool {
        let [sliding, by_number, about] = windows_count(&self.clicks);
        let count = |topic| {
            let seen = committed(log, topic).into_iter();
            seen.filter(|seen| !is_of_end(seen.key.as_deref())).count()
        };
        let matches: usize = nested_loops(&self.shop.orders, &self.shop.payments)
            .values()
            .map(Vec::len)
            .sum();
        count("expiring") >= self.clicks.len()
            && count("by-number") >= by_number
            && count("sliding") >= sliding
            && count("about") >= about
            && count("matches") >= matches
    }

    fn check(&self, log: &Log) {
        check_windows(log, &self.clicks);
        let mut matches = found(log);
        matches.remove(END);
        let expected = nested_loops(&self.shop.orders, &self.shop.payments);
        assert!(matches == expected, "matches are wrong");
        assert_eq!(committed(log, "late"), []);
        self.check_lifetimes(log);
        for store in ["sliding", "tumbling", "sketched", "expiring"] {
            assert_eq!(left_of_others(log, store), 0, "rows are left in {store}");
        }
    }

    /// Counts go on by one, each once, or begin anew where the user was away for the lifetime. When exactly they expire depends on
    /// when time went on, which is once a commit.
    fn check_lifetimes(&self, log: &Log) {
        let mut counts = committed_by_key::<String, u64>(log, "expiring");
        counts.remove(END);
        let mut times = BTreeMap::<String, Vec<i64>>::new();
        for (user, time) in &self.clicks {
            times.entry(user.clone()).or_default().push(*time);
        }
        let mut expired = 0;
        for (user, times) in times {
            let counts = &counts[&user];
            assert_eq!(counts.len(), times.len(), "{user}");
            let (mut before, mut latest) = (0, i64::MIN);
            for (count, time) in counts.iter().zip(times) {
                let is_new = before > 0 && *count == 1 && latest + LIFETIME <= time;
                assert!(
                    *count == before + 1 || is_new,
                    "{user}: {count} after {before}"
                );
                expired += usize::from(is_new);
                (before, latest) = (*count, latest.max(time));
            }
        }
        assert!(expired > 0, "no count expired while others went on");
    }
}

/// Whether a key, or a row of a store, is of the user who closes what is open.
fn is_of_end(key: Option<&[u8]>) -> bool {
    let mut parts = key.unwrap_or_default().windows(END.len());
    parts.any(|part| part == END.as_bytes())
}

/// The rows that a store has at last of users whose windows are closed and whose state has expired.
fn left_of_others(log: &Log, store: &str) -> usize {
    let mut last = BTreeMap::new();
    for seen in committed(log, &format!("kinds-{store}-changelog")) {
        last.insert((seen.partition, seen.key), seen.value);
    }
    // How far the operator has come is a row, too.
    let is_left = |key: &[u8]| key != [0] && !is_of_end(Some(key));
    let left = last
        .iter()
        .filter(|((_, key), value)| value.is_some() && key.as_deref().is_some_and(is_left));
    left.count()
}

#[test]
fn t8_t11_a8_w15_all_kinds_of_windows_and_two_inputs_move_between_instances() {
    let place = Place::new();
    let log = place.log();
    let mut input = Input::new(&log);
    let start = |name: &str| kinds(ScaleOut::instance(name)).start(&log).unwrap();
    input.feed(&log, 300);
    let mut stays = start("first");
    for name in ["second", "third", "fourth"] {
        let other = start(name);
        until("each has a share of the state", || {
            input.feed(&log, 20);
            std::thread::sleep(ms(20));
            [&stays, &other].iter().all(|it| !state_of(it).is_empty())
        });
        input.feed(&log, 200);
        wait(std::mem::replace(&mut stays, other).stop()).unwrap();
        input.feed(&log, 200);
    }
    input.end(&log);
    until("all is out", || input.is_all_out(&log));
    wait(stays.stop()).unwrap();
    input.check(&log);
}

/// An instance, in a process of its own.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn computes_all_kinds_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
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
    let launch = kinds(often).transaction_timeout(Duration::from_secs(5));
    panic!("{:?}", wait(launch.start(&log).unwrap().finished()));
}

/// The processes that share the job, in turn. Those that are not named any more are killed.
const MEMBERS: [&[&str]; 5] = [
    &["one"],
    &["one", "two"],
    &["two"],
    &["two", "three"],
    &["three"],
];

#[test]
fn u5_t8_t11_a8_a11_on_kafka_all_kinds_of_windows_and_two_inputs_move_between_killed_processes() {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let log = scaled_kafka::open(&brokers, &folder.path().join("feeder"));
    let mut input = Input::new(&log);
    let mut lives = BTreeMap::new();
    let test = "time::scaled_kinds::computes_all_kinds_until_it_is_killed";
    for members in MEMBERS {
        input.feed(&log, 200);
        lives.retain(|name, _| members.contains(name));
        for name in members {
            lives.entry(*name).or_insert_with(|| {
                Life::begin_child(test, VARIABLE, name, &brokers, folder.path())
            });
        }
        input.feed(&log, 200);
        scaled_kafka::until("the state is shared by these and no others", || {
            let owners = owners(&log, "kinds");
            let is_one_of_them = |it: &String| members.contains(&&**it);
            owners.len() == 8
                && owners.values().all(is_one_of_them)
                && members
                    .iter()
                    .all(|name| owners.values().any(|it| it == name))
        });
        input.feed(&log, 200);
        for (name, life) in &mut lives {
            life.assert_lives(name);
        }
    }
    input.end(&log);
    scaled_kafka::until("all is out", || input.is_all_out(&log));
    drop(lives);
    input.check(&log);
}

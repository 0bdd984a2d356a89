//! Windows in processes that share a job on a real Kafka: they come, go and are killed while windows are open and the machine is busy.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onceflow::client::OffsetSpec;
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::types::{GroupId, Isolation, TopicName, TopicPartition};

use super::killed::{Clicks, PARTITIONS};
use super::scaled::{STATE_PARTITIONS, assert_right, close_all, closed, counts, open_windows};
use super::support::{late, ms, results, topic_of_clicks};
use crate::support::kafka::{KafkaCluster, KafkaOptions};
use crate::support::peers;

/// Tells the child which instance it is, where its state is, and where Kafka is.
const VARIABLE: &str = "ONCEFLOW_WINDOWS_CHILD";
pub(crate) const SESSION: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_secs(120);

/// The processes that share the job, in turn. Those that are not named any more are killed.
const MEMBERS: [&[&str]; 9] = [
    &["one"],
    &["one", "two"],
    &["one", "two", "three"],
    &["two", "three"],
    &["one", "three"],
    &["two"],
    &["one", "two"],
    &["one", "three"],
    &["three"],
];

pub(crate) fn open(brokers: &str, state: &Path) -> Log {
    let settings = KafkaSettings::new(brokers)
        .and_then(|settings| settings.with("state.dir", &state.display().to_string()));
    Log::kafka_with(settings.unwrap()).unwrap()
}

/// The input of a child ends with its parent, and so does the child.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(4);
    });
}

/// Waits until the partitions of a topic have leaders.
pub(crate) fn until_led(log: &Log, topic: &str, partitions: i32) {
    let is_led = |partition| {
        let place = TopicPartition::new(TopicName::new(topic).unwrap(), partition);
        let isolation = Isolation::ReadUncommitted;
        wait(
            log.admin()
                .list_offset(&place, OffsetSpec::Latest, isolation),
        )
        .is_ok()
    };
    until("the partitions have leaders", || {
        (0..partitions).all(is_led)
    });
}

/// An instance, in a process of its own.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn shares_the_windows_until_it_is_killed() {
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
        .purge_interval(ms(200));
    let launch = counts(often).transaction_timeout(Duration::from_secs(5));
    panic!("{:?}", wait(launch.start(&log).unwrap().finished()));
}

/// A process that is killed with SIGKILL when it is dropped.
pub(crate) struct Life(Child);

impl Life {
    fn begin(instance: &str, brokers: &str, folder: &Path) -> Self {
        let test = "time::scaled_kafka::shares_the_windows_until_it_is_killed";
        Self::begin_child(test, VARIABLE, instance, brokers, folder)
    }

    /// Runs one test of this binary as an instance; it finds its name, where Kafka is, and where its state is, in a variable.
    pub(crate) fn begin_child(
        test: &str,
        variable: &str,
        instance: &str,
        brokers: &str,
        folder: &Path,
    ) -> Self {
        let state = folder.join(instance);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .args(["--ignored", "--nocapture"])
            .env(
                variable,
                format!("{instance} {brokers} {}", state.display()),
            )
            .stdin(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    pub(crate) fn assert_lives(&mut self, name: &str) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none(), "{name} ended by itself");
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Keeps the cores busy until it is dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn begin() -> Self {
        let is_over = Arc::<AtomicBool>::default();
        for _ in 0..std::thread::available_parallelism().unwrap().get() {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(is_over)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The instance that has each state partition, as the group says.
pub(crate) fn owners(log: &Log, job: &str) -> BTreeMap<i32, String> {
    let group = GroupId::new(job).unwrap();
    let mut owners = BTreeMap::new();
    let Ok(described) = wait(log.admin().describe_group(&group)) else {
        return owners;
    };
    for member in described.members {
        let partitions = member.assignment.unwrap_or_default().into_iter();
        let of_state = partitions.filter(|it| it.topic.as_str().ends_with("-repartition"));
        let name = member.instance_id.unwrap_or_default();
        owners.extend(of_state.map(|it| (it.partition, name.clone())));
    }
    owners
}

pub(crate) fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(ms(50));
    }
}

/// Waits until all windows that the clicks so far close are out, and each is right.
fn wait_for_results(log: &Log, clicks: &Clicks) {
    let expected = closed(clicks);
    until("all windows that are complete are out", || {
        results(log).len() >= expected.len()
    });
    let all = clicks.windows();
    for (window, count) in results(log) {
        assert_eq!(all.get(&window), Some(&count), "{window:?}");
    }
    assert_eq!(late(log), []);
}

/// A broker that gives up a member, or a transaction, soon.
pub(crate) fn cluster() -> KafkaCluster {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    KafkaCluster::start_with(&KafkaOptions {
        brokers: 1,
        settings: vec![
            setting("group.min.session.timeout.ms", "1000"),
            setting(
                "transaction.abort.timed.out.transaction.cleanup.interval.ms",
                "200",
            ),
        ],
        ..KafkaOptions::default()
    })
}

#[test]
fn u5_t8_a11_on_kafka_a_thousand_open_windows_move_between_killed_processes_and_none_is_lost_or_doubled()
 {
    if !peers::are_wanted(&["kafka"]) {
        return;
    }
    let cluster = cluster();
    let folder = tempfile::tempdir().unwrap();
    let brokers = cluster.bootstrap();
    let log = open(&brokers, &folder.path().join("feeder"));
    topic_of_clicks(&log, "in", PARTITIONS);
    until_led(&log, "in", PARTITIONS);
    let mut clicks = Clicks::new();
    let (mut lives, mut handed_over) = (BTreeMap::new(), 0);
    let load = Load::begin();
    for members in MEMBERS {
        // In the middle of what is being fed.
        clicks.feed(&log, 400);
        let (before, open) = (owners(&log, "clicks"), open_windows(&log));
        lives.retain(|name, _| members.contains(name));
        for name in members {
            lives
                .entry(*name)
                .or_insert_with(|| Life::begin(name, &brokers, folder.path()));
        }
        clicks.feed(&log, 400);
        until("the state is shared by these and no others", || {
            let owners = owners(&log, "clicks");
            let is_one_of_them = |it: &String| members.contains(&&**it);
            owners.len() == usize::from(STATE_PARTITIONS)
                && owners.values().all(is_one_of_them)
                && members
                    .iter()
                    .all(|name| owners.values().any(|it| it == name))
        });
        let after = owners(&log, "clicks");
        let moved = before
            .iter()
            .filter(|(it, owner)| after.get(it) != Some(*owner));
        handed_over += moved
            .map(|(it, _)| open.get(it).copied().unwrap_or(0))
            .sum::<usize>();
        clicks.feed(&log, 400);
        wait_for_results(&log, &clicks);
        for (name, life) in &mut lives {
            life.assert_lives(name);
        }
    }
    drop(load);
    close_all(&log, &clicks);
    let expected = clicks.windows().len();
    until("all windows are closed", || results(&log).len() >= expected);
    drop(lives);
    assert_right(&log, &clicks);
    println!("{handed_over} open windows were handed over, {expected} windows in all");
    assert!(handed_over >= 1_000, "only {handed_over}");
}

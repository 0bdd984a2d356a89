//! A job spread over several instances: each key counted once, whoever comes and goes.
//!
//! All timeouts are the defaults: on a machine that stands still for seconds, nobody is given up here.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Running};
use onceflow::types::GroupId;

use super::support::{
    OFTEN, Place, assert_counted, committed, fill_topic, plain_count, run, text, until, words,
};

const LINES_PARTITIONS: i32 = 4;

fn spread_word_count(instance: &str) -> Launch {
    spread_word_count_with(instance, 0)
}

fn spread_word_count_with(instance: &str, standbys: u16) -> Launch {
    let job = Job::new("spread");
    job.source(topic::<str>("lines"))
        .flat_map(words)
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
    job.exactly_once(Commit::every(OFTEN))
        .workers(2)
        .state_partitions(6)
        .scale_out(ScaleOut::instance(instance).standbys(standbys))
}

/// Feeds the topic `lines` and keeps what a plain program counts in it.
struct Feeder<'a> {
    log: &'a Log,
    texts: Vec<String>,
}

impl Feeder<'_> {
    fn feed(&mut self, lines: usize) {
        let text = text(self.texts.len() as u64, lines);
        let values: Vec<&str> = text.lines().collect();
        fill_topic(self.log, "lines", LINES_PARTITIONS, &values);
        self.texts.push(text);
    }

    fn expected(&self) -> BTreeMap<String, u64> {
        plain_count(self.texts.iter().map(String::as_str))
    }

    /// Waits until everything that was fed is counted.
    fn settle(&self) {
        let expected = self.expected();
        let updates: u64 = expected.values().sum();
        until("everything is counted", || {
            committed(self.log, "word-counts").len() as u64 >= updates
        });
        assert_counted(self.log, &expected);
    }
}

#[test]
fn c29_instances_that_come_and_go_count_every_word_once() {
    let place = Place::new();
    let log = place.log();
    let mut feeder = Feeder {
        log: &log,
        texts: vec![],
    };
    feeder.feed(400);
    let first = spread_word_count("first").start(&log).unwrap();
    feeder.settle();
    feeder.feed(400);
    let second = spread_word_count("second").start(&log).unwrap();
    until("the second instance has a share and commits", || {
        feeder.feed(20);
        feeder.settle();
        second.commits() > 2
    });
    let third = spread_word_count("third").start(&log).unwrap();
    until("the third does too", || {
        feeder.feed(20);
        feeder.settle();
        third.commits() > 2
    });
    feeder.settle();
    wait(first.stop()).unwrap();
    feeder.feed(400);
    feeder.settle();
    wait(second.stop()).unwrap();
    feeder.feed(400);
    feeder.settle();
    wait(third.stop()).unwrap();
    // Started again, an instance finds its state, and nothing is counted twice.
    let again = spread_word_count("first").start(&log).unwrap();
    feeder.feed(100);
    feeder.settle();
    wait(again.stop()).unwrap();
}

/// Returns the longest pause between commits of a running job while `is_over` was not.
fn longest_pause(running: &Running, mut is_over: impl FnMut() -> bool) -> Duration {
    let (mut commits, mut since) = (running.commits(), Instant::now());
    let mut longest = Duration::ZERO;
    until("it is over", || {
        if running.commits() != commits {
            longest = longest.max(since.elapsed());
            (commits, since) = (running.commits(), Instant::now());
        }
        is_over()
    });
    longest
}

#[test]
fn c29_tasks_that_stay_keep_their_state_and_go_on_while_others_move() {
    let place = Place::new();
    let log = place.log();
    let mut feeder = Feeder {
        log: &log,
        texts: vec![],
    };
    feeder.feed(2_000);
    let first = spread_word_count("first").start(&log).unwrap();
    feeder.settle();
    let before = first.share();
    assert_eq!(before.restored_records, 0, "there was nothing to restore");
    let second = spread_word_count("second").start(&log).unwrap();
    let mut fed = 0;
    let pause = longest_pause(&first, || {
        feeder.feed(1);
        fed += 1;
        second.commits() > 2 && fed > 20
    });
    println!("the longest pause between commits was {pause:?}");
    feeder.settle();
    let after = first.share();
    assert!(after.partitions.len() < before.partitions.len());
    assert!(
        after
            .partitions
            .iter()
            .all(|it| before.partitions.contains(it)),
        "{after:?}"
    );
    assert_eq!(
        after.restored_records, 0,
        "what stayed was not opened again"
    );
    assert!(
        second.share().restored_records > 0,
        "what moved was restored"
    );
    // It leaves in order: the first one takes over at once, and restores only what it had given away meanwhile.
    wait(second.stop()).unwrap();
    feeder.feed(100);
    feeder.settle();
    assert_eq!(first.share().partitions.len(), before.partitions.len());
    wait(first.stop()).unwrap();
}

#[test]
fn a_standby_follows_and_takes_over_without_a_restore() {
    let place = Place::new();
    let log = place.log();
    let mut feeder = Feeder {
        log: &log,
        texts: vec![],
    };
    feeder.feed(1_000);
    let start = |instance| spread_word_count_with(instance, 1).start(&log).unwrap();
    let (first, second) = (start("first"), start("second"));
    feeder.settle();
    until(
        "all is handed over, and each stands by and lacks nothing",
        || {
            let shares = [&first, &second].map(Running::share);
            let handed_over: usize = shares.iter().map(|it| it.partitions.len()).sum();
            handed_over == 10
                && shares.iter().all(|it| {
                    it.standby_lags.len() == 3 && it.standby_lags.values().all(|&lag| lag == 0)
                })
        },
    );
    let restored = first.share().restored_records;
    wait(second.stop()).unwrap();
    feeder.feed(100);
    feeder.settle();
    until("all of it is here", || first.share().partitions.len() == 10);
    assert_eq!(first.share().restored_records, restored);
    wait(first.stop()).unwrap();
}

#[test]
fn a_spread_job_shares_all_its_work() {
    let place = Place::new();
    let log = place.log();
    let mut feeder = Feeder {
        log: &log,
        texts: vec![],
    };
    feeder.feed(50);
    let running: Vec<Running> = ["a", "b"]
        .map(|instance| spread_word_count(instance).start(&log).unwrap())
        .into();
    until("both instances commit", || {
        feeder.feed(20);
        feeder.settle();
        running.iter().all(|running| running.commits() > 2)
    });
    feeder.settle();
    for running in running {
        wait(running.stop()).unwrap();
    }
    let group = GroupId::new("spread").unwrap();
    let described = wait(log.admin().describe_group(&group)).unwrap();
    let topics: Vec<&str> = described
        .offsets
        .iter()
        .map(|(partition, _)| partition.topic.as_str())
        .collect();
    assert!(topics.contains(&"lines"), "{topics:?}");
    assert!(topics.contains(&"spread-counts-repartition"), "{topics:?}");
}

#[test]
fn what_only_one_machine_has_cannot_be_shared_out() {
    let place = Place::new();
    let log = place.log();
    let path = place.file("book", "a b\n");
    let job = Job::new("files");
    job.source(lines([&path])).sink(topic("out"));
    let launch = job.exactly_once(Commit::every(OFTEN));
    let error = run(launch.scale_out(ScaleOut::instance("a")), &log).unwrap_err();
    assert!(error.to_string().contains("only topics can"), "{error}");
    let job = Job::new("into-files");
    job.source(topic::<str>("lines"))
        .sink(files(place.path("out")));
    let launch = job.exactly_once(Commit::every(OFTEN));
    let error = run(launch.scale_out(ScaleOut::instance("a")), &log).unwrap_err();
    assert!(
        error.to_string().contains("belongs to one process"),
        "{error}"
    );
}

#[test]
fn a_job_that_was_spread_does_not_run_alone() {
    let place = Place::new();
    let log = place.log();
    let mut feeder = Feeder {
        log: &log,
        texts: vec![],
    };
    feeder.feed(10);
    let running = spread_word_count("a").start(&log).unwrap();
    feeder.settle();
    wait(running.stop()).unwrap();
    let job = Job::new("spread");
    job.source(topic::<str>("lines"))
        .key_by_ref(|line: &str| line)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
    let error = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
    assert!(error.to_string().contains("scale_out"), "{error}");
}

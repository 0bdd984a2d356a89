//! Savepoints: a job goes back to one, on its own log or on another one that has the input, with windows, timers and positions of then.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::internals::env::Env;
use onceflow::prelude::*;
use onceflow::runtime::{Job, Launch, Running, Savepoint};
use onceflow::types::{Durability, TopicName};

use super::everything::{self, Given, Input, create_topics};
use super::support::{Click, click, feed, left_in_store, ms, parse, topic_of_clicks};
use crate::jobs::support::{Place, committed_by_key, run, until, wait_for_markers};
use crate::on_kafka::stage::stage;

fn open(data: &Path) -> Log {
    everything::open(Env::real(), data, Durability::Process).unwrap()
}

fn take(running: &Running, path: &Path) -> Savepoint {
    let savepoint = wait(running.savepoint(path)).unwrap();
    println!("{savepoint}, held {:?}", savepoint.held());
    savepoint
}

#[test]
fn a_savepoint_has_windows_sessions_timers_times_and_positions_and_goes_on_elsewhere() {
    goes_on_elsewhere(4);
}

#[test]
fn u5_u6_windows_sessions_timers_and_times_go_on_in_more_state_partitions() {
    goes_on_elsewhere(7);
}

#[test]
fn u5_u6_windows_sessions_timers_and_times_go_on_in_fewer_state_partitions() {
    goes_on_elsewhere(2);
}

/// A job of all kinds of steps goes on from a savepoint on a log that does not know it, in so many state partitions.
fn goes_on_elsewhere(state_partitions: u16) {
    let there = |is_endless| everything::launch(is_endless).state_partitions(state_partitions);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let log = open(&path("one"));
    create_topics(&log);
    let mut input = Input::new(3);
    assert!(input.feed(&log, 400, 10));
    let running = everything::launch(true).workers(2).start(&log).unwrap();
    until("all is read, and alarms rang", || {
        let rung = committed_by_key::<u64, u64>(&log, "alarms");
        let rung = rung.values().map(Vec::len).sum::<usize>();
        rung == input.rings() && running.progress().records == input.records()
    });
    let savepoint = take(&running, &path("savepoint"));
    savepoint.verify().unwrap();
    let before = Given::found(&log);
    wait(running.stop()).unwrap();
    assert!(input.feed(&log, 400, 8));
    everything::finish(&log, &input);
    log.close().unwrap();

    let log = open(&path("other"));
    create_topics(&log);
    input.copy_to(&log);
    let restored = there(false).restore(&log, &savepoint).unwrap();
    assert!(
        restored.rows > 50 && restored.positions == 2,
        "{restored:?}"
    );
    let expected = Given::expected(&input);
    let left = input.rings() - before.counts()[5];
    let running = there(true).workers(3).start(&log).unwrap();
    until("the other alarms rang", || {
        let rung = committed_by_key::<u64, u64>(&log, "alarms");
        rung.values().map(Vec::len).sum::<usize>() == left || running.is_finished()
    });
    wait(running.stop()).unwrap();
    run(there(false).workers(1), &log).unwrap();
    let found = Given::found(&log).behind(before);
    assert_eq!(found.counts(), expected.counts());
    assert!(found == expected);
    for store in ["tumbling", "sessions", "last"] {
        assert_eq!(left_in_store(&log, "everything", store), 0, "{store}");
    }
    log.close().unwrap();
}

/// Counts clicks by user, for ever.
pub(super) fn counts(name: &str, store: &str, is_endless: bool) -> Launch {
    counts_of(name, store, ["in", "out"], is_endless)
}

pub(super) fn counts_of(
    name: &str,
    store: &str,
    [input, output]: [&str; 2],
    is_endless: bool,
) -> Launch {
    let job = Job::new(name);
    let clicks = topic::<str>(input);
    let clicks = if is_endless {
        clicks
    } else {
        clicks.until_end()
    };
    job.source(clicks)
        .try_map(parse)
        .key_by_ref(|(user, _): &Click| user)
        .count(store)
        .changes()
        .sink(topic(output));
    job.exactly_once(Commit::every(ms(5))).state_partitions(4)
}

/// The last counts of all users that the store has, as committed.
pub(super) fn last_counts(log: &Log) -> BTreeMap<String, u64> {
    last_counts_of(log, "out")
}

pub(super) fn last_counts_of(log: &Log, output: &str) -> BTreeMap<String, u64> {
    let all = committed_by_key::<String, u64>(log, output);
    let last = |(user, counts): (String, Vec<u64>)| (user, *counts.last().unwrap());
    all.into_iter().map(last).collect()
}

/// Takes savepoints while a job is at work, then goes back to each of them and on to the end.
fn goes_back_and_on(log: &Log, folder: &Path, partitions: i32) {
    topic_of_clicks(log, "in", partitions);
    let mut fed = BTreeMap::<String, u64>::new();
    let mut number = 0u64;
    let mut feed_some = |log: &Log, count: u64| {
        for partition in 0..partitions {
            let clicks: Vec<Click> = (0..count)
                .map(|_| {
                    number += 1;
                    let user = format!("user-{}", number * number % 97);
                    *fed.entry(user.clone()).or_default() += 1;
                    click(&user, 1)
                })
                .collect();
            feed(log, "in", partition, &clicks);
        }
        fed.clone()
    };
    feed_some(log, 50);
    let running = counts("counts", "counts", true)
        .workers(2)
        .start(log)
        .unwrap();
    until("it works", || running.commits() > 0);
    let mut savepoints = Vec::new();
    for number in 0..3 {
        feed_some(log, 200);
        let asked = running.savepoint(folder.join(format!("savepoint-{number}")));
        // The job has work while it is taken.
        feed_some(log, 200);
        savepoints.push(wait(asked).unwrap());
        feed_some(log, 100);
    }
    let expected = feed_some(log, 10);
    wait(running.stop()).unwrap();
    run(counts("counts", "counts", false), log).unwrap();
    wait_for_markers(log, "out");
    assert_eq!(last_counts(log), expected);
    // Back to the second, the last, the first.
    for number in [1, 2, 0] {
        let savepoint = Savepoint::open(savepoints[number].path()).unwrap();
        counts("counts", "counts", false)
            .restore(log, &savepoint)
            .unwrap();
        let summary = run(counts("counts", "counts", false).workers(3), log).unwrap();
        assert!(
            summary.records > 0,
            "it reads again what came behind the savepoint"
        );
        wait_for_markers(log, "out");
        assert_eq!(last_counts(log), expected, "from savepoint {number} on");
    }
    let listed = Savepoint::list(folder).unwrap();
    assert_eq!(listed.iter().filter(|(_, it)| it.is_ok()).count(), 3);
}

#[test]
fn u1_u2_u11_a_job_goes_back_to_any_of_its_savepoints_which_were_taken_under_load() {
    let place = Place::new();
    goes_back_and_on(&place.log(), &place.path(""), 3);
}

#[test]
fn u1_u2_on_kafka_a_job_goes_back_to_any_of_its_savepoints() {
    let Some(stage) = stage() else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let settings = KafkaSettings::new(&stage.cluster.bootstrap());
    let settings = settings.and_then(|it| it.with("state.dir", &state));
    goes_back_and_on(
        &Log::kafka_with(settings.unwrap()).unwrap(),
        folder.path(),
        2,
    );
}

/// A job goes back to a savepoint in other numbers of state partitions, after its changelogs were deleted.
fn goes_back_in_other_numbers(log: &Log, folder: &Path) {
    let topics = ["recounts-in", "recounts-out"];
    topic_of_clicks(log, topics[0], 2);
    let mut expected = BTreeMap::<String, u64>::new();
    let mut feed_some = |count: u64| {
        for partition in 0..2 {
            let users = (0..count).map(|number| format!("user-{}", number * number % 61));
            let clicks: Vec<Click> = users.map(|user| click(&user, 1)).collect();
            for (user, _) in &clicks {
                *expected.entry(user.clone()).or_default() += 1;
            }
            feed(log, topics[0], partition, &clicks);
        }
        expected.clone()
    };
    feed_some(200);
    let launch = |is_endless| counts_of("recounts", "counts", topics, is_endless);
    let running = launch(true).start(log).unwrap();
    until("all is read", || running.progress().records == 400);
    let savepoint = take(&running, &folder.join("recounts"));
    wait(running.stop()).unwrap();
    let expected = feed_some(50);
    let changelog = TopicName::new("recounts-counts-changelog").unwrap();
    for count in [7, 1, 4] {
        wait(log.admin().delete_topic(&changelog)).unwrap();
        until("it is deleted", || {
            matches!(wait(log.transport().topic(&changelog)), Ok(None))
        });
        let launch = || launch(false).state_partitions(count);
        let restored = launch().restore(log, &savepoint).unwrap();
        assert!(restored.rows >= 30, "{restored:?}");
        let summary = run(launch(), log).unwrap();
        assert_eq!(summary.records, 100);
        wait_for_markers(log, topics[1]);
        assert_eq!(last_counts_of(log, topics[1]), expected, "in {count}");
        let again = launch().state_partitions(9).restore(log, &savepoint);
        let again = again.unwrap_err().to_string();
        assert!(again.contains("not 9"), "{again}");
    }
}

#[test]
fn u5_u6_a_job_goes_back_in_other_numbers_of_state_partitions() {
    let place = Place::new();
    goes_back_in_other_numbers(&place.log(), &place.path(""));
}

#[test]
fn u5_u6_on_kafka_a_job_goes_back_in_other_numbers_of_state_partitions() {
    let Some(stage) = stage() else { return };
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let settings = KafkaSettings::new(&stage.cluster.bootstrap());
    let settings = settings.and_then(|it| it.with("state.dir", &state));
    goes_back_in_other_numbers(&Log::kafka_with(settings.unwrap()).unwrap(), folder.path());
}

fn refusal(launch: &Launch, log: &Log, savepoint: &Savepoint) -> String {
    launch.restore(log, savepoint).unwrap_err().to_string()
}

#[test]
fn u4_u6_u7_a_savepoint_that_does_not_fit_is_refused_and_nothing_is_changed() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 1), click("b", 2)]);
    let path = place.path("savepoint");
    let running = counts("counts", "counts", true).start(&log).unwrap();
    until("both are read", || running.progress().records == 2);
    let savepoint = take(&running, &path);
    let again = wait(running.savepoint(&path)).unwrap_err().to_string();
    assert!(again.contains("the path exists"), "{again}");
    let nowhere = wait(running.savepoint(place.path("no/where"))).unwrap_err();
    assert!(nowhere.to_string().contains("make it first"), "{nowhere}");
    let launch = counts("counts", "counts", false);
    let runs = refusal(&launch, &log, &savepoint);
    assert!(runs.contains("runs it already"), "{runs}");
    feed(&log, "in", 0, &[click("a", 1)]);
    until("the third is read", || running.progress().records == 3);
    wait(running.stop()).unwrap();

    let other = refusal(&counts("tally", "counts", false), &log, &savepoint);
    assert!(other.contains("of the job \"counts\""), "{other}");
    let orphaned = refusal(&counts("counts", "tally", false), &log, &savepoint);
    assert!(
        orphaned.contains("no step of that name any more"),
        "{orphaned}"
    );
    let parts = refusal(
        &counts("counts", "counts", false).state_partitions(8),
        &log,
        &savepoint,
    );
    assert!(
        parts.contains("with 4 state partitions") && parts.contains("not 8"),
        "{parts}"
    );
    // Nothing of this has changed anything.
    run(launch, &log).unwrap();
    let all = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
    assert_eq!(last_counts(&log), all);
    let launch = counts("counts", "counts", false);

    // Another log without the input, or with less of it.
    let elsewhere = Place::new();
    let log = elsewhere.log();
    let absent = refusal(&launch, &log, &savepoint);
    assert!(absent.contains("bring the input first"), "{absent}");
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 1)]);
    let short = refusal(&launch, &log, &savepoint);
    assert!(
        short.contains("read up to 2") && short.contains("ends at 1"),
        "{short}"
    );
}

#[test]
fn what_is_damaged_of_a_savepoint_is_named_and_not_restored() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 1), click("b", 2)]);
    let path = place.path("savepoint");
    let running = counts("counts", "counts", true).start(&log).unwrap();
    until("both are read", || running.progress().records == 2);
    let savepoint = take(&running, &path);
    wait(running.stop()).unwrap();
    let launch = counts("counts", "counts", false);
    let names = || {
        let entries = std::fs::read_dir(path.join("rocksdb")).unwrap();
        let mut names: Vec<_> = entries.map(|it| it.unwrap().path()).collect();
        names.sort();
        names
    };
    let before = names();
    assert!(before.len() >= 3, "{before:?}");
    for file in &before {
        let whole = std::fs::read(file).unwrap();
        // A link would damage the job's own file, too.
        std::fs::remove_file(file).unwrap();
        let missing = savepoint.verify().unwrap_err().to_string();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(missing.contains(name), "{missing}");
        let mut rotten = whole.clone();
        match rotten.get_mut(whole.len() / 2) {
            Some(byte) => *byte ^= 1,
            None => rotten.push(0),
        }
        std::fs::write(file, &rotten).unwrap();
        let damaged = refusal(&launch, &log, &savepoint);
        assert!(
            damaged.contains(name) && damaged.contains("is damaged"),
            "{damaged}"
        );
        std::fs::write(file, &whole).unwrap();
    }
    launch.restore(&log, &savepoint).unwrap();
    // What was read is as it was.
    savepoint.verify().unwrap();
    assert_eq!(names(), before);
    let manifest = path.join("savepoint.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("counts", "caunts")).unwrap();
    let damaged = Savepoint::open(&path).unwrap_err().to_string();
    assert!(damaged.contains("checksum"), "{damaged}");
    std::fs::write(&manifest, text.replace("\"version\": 1", "\"version\": 9")).unwrap();
    let newer = Savepoint::open(&path).unwrap_err().to_string();
    assert!(newer.contains("version 9"), "{newer}");
    std::fs::remove_file(&manifest).unwrap();
    let unfinished = Savepoint::open(&path).unwrap_err().to_string();
    assert!(unfinished.contains("not finished"), "{unfinished}");
}

#[test]
fn a_job_without_state_and_one_that_ended_have_no_savepoints() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let stateless = |is_endless: bool| {
        let job = Job::new("copy");
        let lines = topic::<str>("in");
        let lines = if is_endless { lines } else { lines.until_end() };
        job.source(lines)
            .map(str::len)
            .map(|n| *n as u64)
            .sink(topic("out"));
        job.exactly_once(Commit::every(ms(5)))
    };
    let running = stateless(true).start(&log).unwrap();
    let refused = wait(running.savepoint(place.path("s"))).unwrap_err();
    assert!(refused.to_string().contains("no state"), "{refused}");
    wait(running.stop()).unwrap();
    let running = stateless(false).start(&log).unwrap();
    until("it has ended", || running.is_finished());
    let refused = wait(running.savepoint(place.path("s"))).unwrap_err();
    assert!(refused.to_string().contains("the job ended"), "{refused}");
    std::thread::sleep(Duration::from_millis(1));
}

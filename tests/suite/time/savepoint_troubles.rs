//! Savepoints in trouble: taken and restored by processes that are killed at every failpoint, on full disks, from one file system to another,
//! and for longer than a transaction may be open.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onceflow::broker::BrokerConfig;
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::internals::env::{Env, failpoint};
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Savepoint};
use onceflow::types::Durability;

use super::killed::{self, Clicks, PARTITIONS, start_child};
use super::savepoints::{counts, counts_of, last_counts, last_counts_of};
use super::scaled;
use super::scaled_kafka::until_led;
use super::support::{Click, click, feed, ms, results, topic_of_clicks};
use crate::jobs::support::{Place, run, until, wait_for_markers};
use crate::on_kafka::stage::stage;
use crate::support::files::{Doing, Gate, Watched};

pub(super) const VARIABLE: &str = "ONCEFLOW_SAVEPOINT_CHILD";
const TAKES: &str = "time::savepoint_troubles::takes_savepoints_until_it_is_killed";
const RESTORES: &str = "time::savepoint_troubles::restores_a_savepoint_until_it_is_killed";
const PATIENCE: Duration = Duration::from_secs(30);
/// The time for a transaction of a restore, of which a slow one takes several.
pub(super) const TIMEOUT: Duration = Duration::from_millis(600);
const USERS: u64 = 97;

/// The clicks that a job was fed, by user.
#[derive(Default)]
struct Fed(BTreeMap<String, u64>, u64);

impl Fed {
    fn some(&mut self, log: &Log, count: u64) {
        let clicks: Vec<Click> = (0..count)
            .map(|_| {
                self.1 += 1;
                let user = format!("user-{}", self.1 * self.1 % USERS);
                *self.0.entry(user.clone()).or_default() += 1;
                click(&user, 1)
            })
            .collect();
        feed(log, "in", 0, &clicks);
    }

    /// A job that was fed all of it has these counts, whatever happened on the way.
    fn assert_counted(&self, log: &Log, what: &str) {
        run(launch(false), log).unwrap();
        // Under `fsync` a reader sees what is on the disk.
        wait_for_markers(log, "out");
        assert_eq!(last_counts(log), self.0, "{what}");
    }
}

fn launch(is_endless: bool) -> Launch {
    counts("counts", "counts", is_endless)
}

fn open(env: Env, data: &Path) -> Log {
    open_with(env, data, Durability::Process)
}

fn open_with(env: Env, data: &Path, durability: Durability) -> Log {
    let config = BrokerConfig {
        durability,
        ..BrokerConfig::default()
    };
    Log::in_env(env, data, config).unwrap()
}

/// A log on which each write into a changelog takes long.
pub(super) fn open_slowly(data: &Path, pause: Duration, durability: Durability) -> Log {
    let gate: Gate = Arc::new(move |doing, path: &Path| {
        let is_slow = doing == Doing::Write && path.to_string_lossy().contains("-changelog");
        if is_slow {
            std::thread::sleep(pause);
        }
        Ok(())
    });
    open_with(Watched::env(gate), data, durability)
}

/// Feeds a job, and takes a savepoint of it.
fn take(data: &Path, savepoint: &Path, fed: &mut Fed) -> Savepoint {
    let log = open(Env::real(), data);
    topic_of_clicks(&log, "in", 1);
    fed.some(&log, 500);
    let running = launch(true).start(&log).unwrap();
    until("all is read", || running.progress().records == 500);
    let savepoint = wait(running.savepoint(savepoint)).unwrap();
    fed.some(&log, 500);
    wait(running.stop()).unwrap();
    fed.assert_counted(&log, "before");
    log.close().unwrap();
    savepoint
}

#[test]
#[ignore = "the test of this module starts it, in a process that they kill"]
fn takes_savepoints_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let (data, path) = plan.split_once(' ').unwrap();
    let log = open(Env::real(), Path::new(data));
    let running = launch(true).workers(2).start(&log).unwrap();
    until("it works", || running.commits() > 0);
    wait(running.savepoint(path)).unwrap();
    wait(running.stop()).unwrap();
    log.close().unwrap();
}

#[test]
#[ignore = "the test of this module starts it, in a process that they kill"]
fn restores_a_savepoint_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let (data, path) = plan.split_once(' ').unwrap();
    // With syncs, so that all steps of a commit are met.
    let log = open_slowly(Path::new(data), TIMEOUT / 4, Durability::Fsync);
    let savepoint = Savepoint::open(path).unwrap();
    let launch = launch(false).transaction_timeout(TIMEOUT);
    launch.restore(&log, &savepoint).unwrap();
    log.close().unwrap();
}

/// Whether the process was killed at the failpoint; else it has done its work.
pub(super) fn is_killed(test: &str, data: &Path, savepoint: &Path, failpoint: &str) -> bool {
    let plan = format!("{} {}", data.display(), savepoint.display());
    let mut child = start_child(test, (VARIABLE, &plan), &format!("{failpoint}=kill"));
    assert!(child.is_killed_within(PATIENCE), "{failpoint}: it hangs");
    let status = child.0.wait().unwrap();
    assert!(
        status.success() || status.code().is_none(),
        "{failpoint}: the child failed by itself: {status}"
    );
    !status.success()
}

#[test]
fn u1_f10_a_savepoint_is_whole_or_none_after_a_kill_at_every_failpoint_while_it_is_taken() {
    let place = Place::new();
    let (data, backup) = (place.path("data"), place.path("backup"));
    std::fs::create_dir(&backup).unwrap();
    let (log, mut fed) = (open(Env::real(), &data), Fed::default());
    topic_of_clicks(&log, "in", 1);
    log.close().unwrap();
    let of_savepoints = |name: &&&str| name.starts_with("savepoint.") || name.starts_with("state.");
    let path = backup.join("monday");
    for name in failpoint::NAMES.iter().filter(of_savepoints) {
        let log = open(Env::real(), &data);
        fed.some(&log, 200);
        log.close().unwrap();
        let killed = is_killed(TAKES, &data, &path, name);
        assert!(killed || !name.starts_with("savepoint."), "{name}");
        let begun = backup.join("monday.unfinished");
        let listed = Savepoint::list(&backup).unwrap();
        // Whatever there is, is in the list, and is what it says.
        assert_eq!(listed.len(), usize::from(path.exists() || begun.exists()));
        for (listed, opened) in listed {
            match opened {
                Ok(savepoint) => savepoint.verify().unwrap(),
                Err(e) => assert!(e.to_string().contains("is not finished"), "{e}"),
            }
            assert_eq!(listed == path, path.exists(), "{name}");
        }
        if begun.exists() {
            let why = Savepoint::open(&path).unwrap_err().to_string();
            assert!(why.contains("monday.unfinished"), "{why}");
        }
        let log = open(Env::real(), &data);
        fed.some(&log, 100);
        fed.assert_counted(&log, name);
        if path.exists() {
            let savepoint = Savepoint::open(&path).unwrap();
            launch(false).restore(&log, &savepoint).unwrap();
            fed.assert_counted(&log, name);
            std::fs::remove_dir_all(&path).unwrap();
        }
        log.close().unwrap();
        assert!(!place.state_dir("counts").join("savepoint.tmp").exists());
    }
    let log = open(Env::real(), &data);
    fed.some(&log, 100);
    log.close().unwrap();
    assert!(!is_killed(TAKES, &data, &path, "topic.deleted"));
    Savepoint::open(&path).unwrap().verify().unwrap();
    assert!(!backup.join("monday.unfinished").exists());
}

#[test]
fn u2_u3_a_restore_is_whole_or_repeated_after_a_kill_at_every_failpoint() {
    let place = Place::new();
    let (data, path) = (place.path("data"), place.path("savepoint"));
    let mut fed = Fed::default();
    let savepoint = take(&data, &path, &mut fed);
    let of_a_transaction = ["produce.", "txn.", "commit.", "restore."];
    // Instances are held off where a job is scaled out.
    let is_met = |name: &&&str| {
        **name != "restore.held_off" && of_a_transaction.iter().any(|it| name.starts_with(it))
    };
    let (mut missed, mut refused) = (BTreeSet::new(), 0);
    for name in failpoint::NAMES.iter().filter(is_met) {
        if !is_killed(RESTORES, &data, &path, name) {
            missed.insert(*name);
        }
        let log = open(Env::real(), &data);
        fed.some(&log, 50);
        if let Err(e) = run(launch(false), &log) {
            let why = e.to_string();
            assert!(why.contains("restore was interrupted"), "{name}: {why}");
            assert!(why.contains(path.to_str().unwrap()), "{name}: {why}");
            launch(false).restore(&log, &savepoint).unwrap();
            refused += 1;
        }
        fed.assert_counted(&log, name);
        log.close().unwrap();
    }
    assert_eq!(missed, BTreeSet::new(), "these were not met");
    assert!(refused >= 1, "no restore was cut in two");
}

#[test]
fn u3_a_restore_takes_longer_than_a_transaction_may_be_open_and_is_exact() {
    let place = Place::new();
    let (data, path) = (place.path("data"), place.path("savepoint"));
    let mut fed = Fed::default();
    let savepoint = take(&data, &path, &mut fed);
    let log = open_slowly(&data, TIMEOUT / 3, Durability::Process);
    let begin = Instant::now();
    let launch = launch(false).transaction_timeout(TIMEOUT);
    let restored = launch.restore(&log, &savepoint).unwrap();
    assert!(begin.elapsed() > TIMEOUT, "it was not slow");
    assert!(restored.rows >= USERS / 2, "{restored:?}");
    log.close().unwrap();
    let log = open(Env::real(), &data);
    fed.some(&log, 10);
    fed.assert_counted(&log, "after a slow restore");
    log.close().unwrap();
}

#[test]
fn u3_a_job_that_takes_longer_to_have_its_state_back_than_a_transaction_may_be_open_goes_on() {
    let place = Place::new();
    let (data, path) = (place.path("data"), place.path("savepoint"));
    let mut fed = Fed::default();
    take(&data, &path, &mut fed);
    std::fs::remove_dir_all(data.join("state")).unwrap();
    let slow: Gate = Arc::new(|doing, path: &Path| {
        if doing == Doing::Read && path.to_string_lossy().contains("-changelog") {
            std::thread::sleep(ms(200));
        }
        Ok(())
    });
    let log = open(Watched::env(slow), &data);
    fed.some(&log, 10);
    let begin = Instant::now();
    run(launch(false).transaction_timeout(ms(250)), &log).unwrap();
    let took = begin.elapsed();
    assert!(took > ms(250), "it was not slow: {took:?}");
    assert_eq!(last_counts(&log), fed.0);
    log.close().unwrap();
}

/// Lets the call of this number that `concerns` fail, once.
fn failing(
    number: Arc<AtomicU64>,
    concerns: impl Fn(Doing, &Path) -> bool + Send + Sync + 'static,
) -> Gate {
    Arc::new(move |doing, path: &Path| {
        if !concerns(doing, path) {
            return Ok(());
        }
        // Zero means that it is over.
        let left = number.fetch_update(Ordering::AcqRel, Ordering::Acquire, |it| it.checked_sub(1));
        match left {
            Ok(1) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    })
}

#[test]
fn u1_f13_a_job_goes_on_when_the_disk_is_full_while_a_savepoint_is_taken() {
    let place = Place::new();
    let (data, backup) = (place.path("data"), place.path("backup"));
    std::fs::create_dir(&backup).unwrap();
    let number = Arc::new(AtomicU64::new(0));
    let gate = failing(Arc::clone(&number), |doing, path| {
        let path = path.to_string_lossy();
        doing != Doing::Read && (path.contains("/backup/") || path.contains("savepoint.tmp"))
    });
    let (log, mut fed) = (open(Watched::env(gate), &data), Fed::default());
    topic_of_clicks(&log, "in", 1);
    let running = launch(true).start(&log).unwrap();
    let mut failed = 0;
    for call in 1.. {
        fed.some(&log, 50);
        number.store(call, Ordering::Release);
        let taken = wait(running.savepoint(backup.join("monday")));
        let is_over = number.swap(0, Ordering::AcqRel) > 0;
        match taken {
            Ok(savepoint) => {
                savepoint.verify().unwrap();
                assert!(is_over, "a full disk was not noticed at call {call}");
                break;
            }
            Err(e) => {
                assert!(e.to_string().contains("space"), "{e}");
                assert_eq!(Savepoint::list(&backup).unwrap().len(), 0, "call {call}");
                failed += 1;
            }
        }
    }
    assert!(failed >= 5, "{failed}");
    fed.some(&log, 50);
    wait(running.stop()).unwrap();
    fed.assert_counted(&log, "after full disks");
    log.close().unwrap();
}

#[test]
fn u2_f13_a_restore_on_a_full_disk_is_refused_or_repeated() {
    let place = Place::new();
    let (data, path) = (place.path("data"), place.path("savepoint"));
    let mut fed = Fed::default();
    let savepoint = take(&data, &path, &mut fed);
    let mut failed = 0;
    for call in 1.. {
        let number = Arc::new(AtomicU64::new(0));
        let gate = failing(Arc::clone(&number), |doing, _| doing == Doing::Write);
        let log = open(Watched::env(gate), &data);
        number.store(call, Ordering::Release);
        let restored = launch(false).restore(&log, &savepoint);
        let is_over = number.swap(0, Ordering::AcqRel) > 0;
        failed += usize::from(restored.is_err());
        // A log that could not write may want to be opened anew.
        drop(log.close());
        drop(log);
        let log = open(Env::real(), &data);
        fed.some(&log, 10);
        fed.assert_counted(&log, &format!("call {call}"));
        log.close().unwrap();
        if is_over {
            restored.unwrap();
            break;
        }
    }
    assert!(failed >= 5, "{failed}");
}

#[test]
fn a_savepoint_on_another_file_system_is_a_copy_and_is_restored() {
    let place = Place::new();
    let shared = Path::new("/dev/shm");
    let device = |path: &Path| std::fs::metadata(path).map(|it| it.dev()).ok();
    let elsewhere = match device(shared) {
        Some(there) if Some(there) != device(&place.path("")) => tempfile::tempdir_in(shared).ok(),
        _ => None,
    };
    let mut folders = vec![place.path("")];
    folders.extend(elsewhere.as_ref().map(|it| it.path().to_owned()));
    for (round, folder) in folders.iter().enumerate() {
        let data = place.path(&format!("data-{round}"));
        // The first round has the system say that it is another one.
        let gate: Gate = Arc::new(move |doing, path: &Path| {
            let path = path.to_string_lossy();
            match doing == Doing::Rename && round == 0 && path.contains(".unfinished/") {
                true if !path.ends_with("savepoint.json") => {
                    Err(io::ErrorKind::CrossesDevices.into())
                }
                _ => Ok(()),
            }
        });
        let (log, mut fed) = (open(Watched::env(gate), &data), Fed::default());
        topic_of_clicks(&log, "in", 1);
        fed.some(&log, 300);
        let running = launch(true).start(&log).unwrap();
        until("all is read", || running.progress().records == 300);
        let savepoint = wait(running.savepoint(folder.join("monday"))).unwrap();
        savepoint.verify().unwrap();
        let files = std::fs::read_dir(savepoint.path().join("rocksdb")).unwrap();
        let links = files.map(|it| it.unwrap().metadata().unwrap().nlink());
        assert_eq!(links.max(), Some(1), "copies, no links");
        fed.some(&log, 100);
        wait(running.stop()).unwrap();
        fed.assert_counted(&log, "before");
        launch(false).restore(&log, &savepoint).unwrap();
        fed.assert_counted(&log, "after");
        log.close().unwrap();
    }
}

#[test]
fn u10_a_job_begins_anew_once_and_not_at_every_start() {
    let place = Place::new();
    let log = place.log();
    let never = launch(false).begin_anew(&log).unwrap();
    assert_eq!(
        (never.rows, never.positions),
        (0, 0),
        "there is nothing yet"
    );
    topic_of_clicks(&log, "in", 1);
    let mut fed = Fed::default();
    fed.some(&log, 300);
    fed.assert_counted(&log, "at first");
    let running = launch(true).start(&log).unwrap();
    let refused = launch(false).begin_anew(&log).unwrap_err().to_string();
    assert!(refused.contains("runs it already"), "{refused}");
    wait(running.stop()).unwrap();
    let given_up = launch(false).begin_anew(&log).unwrap();
    assert!(
        given_up.rows > 40 && given_up.positions == 1,
        "{given_up:?}"
    );
    let again = run(launch(false), &log).unwrap();
    assert_eq!(again.records, 300, "all of it is read again");
    assert_eq!(last_counts(&log), fed.0);
    fed.some(&log, 10);
    let next = run(launch(false), &log).unwrap();
    assert_eq!(next.records, 10, "the next start goes on");
    assert_eq!(last_counts(&log), fed.0);
}

#[test]
fn u10_on_kafka_whoever_runs_a_job_is_fenced_before_it_begins_anew() {
    let Some(stage) = stage() else { return };
    let folder = tempfile::tempdir().unwrap();
    let log = |name: &str| {
        let state = folder.path().join(name).display().to_string();
        let settings = KafkaSettings::new(&stage.cluster.bootstrap());
        let settings = settings.and_then(|it| it.with("state.dir", &state));
        Log::kafka_with(settings.unwrap()).unwrap()
    };
    let topics = ["begun-anew-in", "begun-anew-out"];
    let launch = |is_endless| counts_of("begun-anew", "counts", topics, is_endless);
    let (first, second) = (log("first"), log("second"));
    topic_of_clicks(&first, topics[0], 1);
    until_led(&first, topics[0], 1);
    let clicks: Vec<Click> = (0..60)
        .map(|it| click(&format!("user-{}", it % 7), 1))
        .collect();
    feed(&first, topics[0], 0, &clicks);
    let running = launch(true).start(&first).unwrap();
    // The records of a commit whose answer was lost are not counted.
    if let Err(err) = wait(running.caught_up()) {
        panic!("{err}: {:?}", wait(running.finished()));
    }
    let given_up = launch(false).begin_anew(&second).unwrap();
    assert_eq!((given_up.rows, given_up.positions), (7, 1));
    // The old one notices with its next commit.
    feed(&first, topics[0], 0, &clicks);
    let fenced = wait(running.finished()).unwrap_err().to_string();
    assert!(fenced.contains("begun-anew"), "{fenced}");
    let again = run(launch(false), &second).unwrap();
    assert_eq!(again.records, 120);
    wait_for_markers(&second, topics[1]);
    let total: u64 = last_counts_of(&second, topics[1]).values().sum();
    assert_eq!(total, 120, "nothing is left of before");
    assert_eq!(run(launch(false), &second).unwrap().records, 0);
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_tree(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Two instances share a job and are stopped while they have work.
fn work_scaled_out(data: &Path, clicks: &mut Clicks) {
    let log = killed::open(data);
    let instances = ["first", "second"].map(ScaleOut::instance);
    let running = instances.map(|it| scaled::counts(it).start(&log).unwrap());
    until("each has a share", || {
        clicks.feed(&log, 20);
        let shares = running.iter().map(|it| scaled::state_of(it).len());
        !shares.collect::<Vec<_>>().contains(&0)
    });
    clicks.feed(&log, 500);
    for running in running {
        wait(running.stop()).unwrap();
    }
    log.close().unwrap();
}

#[test]
fn u5_a_job_that_is_scaled_out_goes_back_with_a_copy_of_the_log_of_its_stopped_instances() {
    let place = Place::new();
    let (data, copy) = (place.path("data"), place.path("copy"));
    let mut clicks = Clicks::new();
    let log = killed::open(&data);
    topic_of_clicks(&log, "in", PARTITIONS);
    log.close().unwrap();
    work_scaled_out(&data, &mut clicks);
    copy_tree(&data, &copy);
    let mut then = clicks.clone();
    work_scaled_out(&data, &mut clicks);
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&copy, &data).unwrap();
    work_scaled_out(&data, &mut then);
    let log = killed::open(&data);
    scaled::close_all(&log, &then);
    let running = ["first", "second"].map(ScaleOut::instance);
    let running = running.map(|it| scaled::counts(it).start(&log).unwrap());
    let expected = then.windows().len();
    until("all windows are closed", || results(&log).len() >= expected);
    for running in running {
        wait(running.stop()).unwrap();
    }
    scaled::assert_right(&log, &then);
    log.close().unwrap();
}

//! Steps that ask the world outside: each input has one answer, whatever fails and however long it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{CallId, Launch};
use proptest::prelude::*;

use super::killed::{Process, open, start_child};
use super::support::{
    Click, any_clicks, any_cut, any_runs, click, feed, late, left_in_store, ms, parse, results,
    run_cut, topic_of_clicks, watermarks,
};
use crate::jobs::support::{Place, committed, committed_by_key, run, until};

/// A service that counts what it is asked, and answers when it may.
#[derive(Default)]
struct Service {
    is_open: AtomicBool,
    under_way: AtomicUsize,
    most: AtomicUsize,
    asked: Mutex<BTreeMap<Click, Vec<CallId>>>,
}

impl Service {
    fn opened() -> Arc<Self> {
        let service = Self::default();
        service.is_open.store(true, Ordering::SeqCst);
        Arc::new(service)
    }

    /// Answers with the time, after a pause that differs from click to click.
    async fn answer(self: Arc<Self>, call: Call<String, Click>) -> Result<i64, String> {
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(under_way, Ordering::SeqCst);
        self.note(&call);
        let (_, time) = call.value;
        tokio::time::sleep(ms(time.rem_euclid(4).unsigned_abs())).await;
        while !self.is_open.load(Ordering::SeqCst) {
            tokio::time::sleep(ms(2)).await;
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        Ok(time)
    }

    fn note(&self, call: &Call<String, Click>) {
        let mut asked = self.asked.lock().unwrap();
        asked.entry(call.value.clone()).or_default().push(call.id);
    }

    fn asked_count(&self) -> usize {
        self.asked.lock().unwrap().values().map(Vec::len).sum()
    }
}

fn clicks_of(job: &Job, is_endless: bool) -> Keyed<String, Click> {
    let input = topic::<str>("in");
    job.source(if is_endless { input } else { input.until_end() })
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks())
        .key_by(|(user, _): &Click| user.clone())
        .boxed()
}

/// Gives what the service answers to each click, by user.
fn answers(service: &Arc<Service>, policy: CallPolicy, is_endless: bool) -> Launch {
    let job = Job::new("asks");
    let service = Arc::clone(service);
    let call = move |call| Arc::clone(&service).answer(call);
    let (answers, failed) = clicks_of(&job, is_endless).map_async("ask", policy, call);
    answers.sink(topic("out"));
    failed.sink(topic("failed"));
    job.exactly_once(Commit::every(ms(5))).state_partitions(8)
}

fn times(log: &Log) -> BTreeMap<String, Vec<i64>> {
    committed_by_key::<String, i64>(log, "out")
}

fn by_user(clicks: &[Click]) -> BTreeMap<String, Vec<i64>> {
    let mut times = BTreeMap::<String, Vec<i64>>::new();
    for (user, time) in clicks {
        times.entry(user.clone()).or_default().push(*time);
    }
    times
}

#[test]
fn a5_a_call_is_made_again_after_a_failure_and_what_fails_for_good_is_told_once() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let clicks: Vec<Click> = (0..40).map(|time| click("a", time)).collect();
    feed(&log, "in", 0, &clicks);
    let job = Job::new("asks");
    let tries = Arc::new(Mutex::new(BTreeMap::<i64, u32>::new()));
    let asked = Arc::clone(&tries);
    let call = move |call: Call<String, Click>| {
        let time = call.value.1;
        let attempt = {
            let mut tries = asked.lock().unwrap();
            let count = tries.entry(time).or_default();
            *count += 1;
            *count
        };
        async move {
            match (time % 4, attempt) {
                // At the first time, in different ways; the last ones each time.
                (0, 1) => Err("busy".to_owned()),
                (1, 1) => panic!("its function fails"),
                (2, 1) => std::future::pending().await,
                (3, _) => Err(format!("no {time}")),
                // About as long as it may.
                _ => {
                    tokio::time::sleep(ms(20 * (time.unsigned_abs() % 2))).await;
                    Ok(time)
                }
            }
        }
    };
    let policy = CallPolicy::unordered(7).timeout(ms(20)).retries(3, ms(1));
    let (answers, failed) = clicks_of(&job, false).map_async("ask", policy, call);
    answers.sink(topic("out"));
    failed.sink(topic("failed").keep_headers());
    run(job.exactly_once(Commit::every(ms(5))), &log).unwrap();
    let mut failed: Vec<i64> = Vec::new();
    for seen in committed(&log, "failed") {
        let time = seen.value::<Click>().1;
        let why = seen.header("onceflow.failed");
        let told = format!("no {time} (the last of 4 times)");
        assert!(
            why == told || why == "no answer within 20ms (the last of 4 times)",
            "{why}"
        );
        failed.push(time);
    }
    let mut all = failed.clone();
    all.extend(&times(&log)["a"]);
    all.sort_unstable();
    assert_eq!(
        all,
        (0..40).collect::<Vec<_>>(),
        "each is in one of both, once"
    );
    assert!((0..10).all(|n| failed.contains(&(4 * n + 3))));
    assert!((0..20).all(|n| !failed.contains(&(2 * n))), "{failed:?}");
}

#[test]
fn a_call_that_fails_for_good_stops_the_job_where_nobody_takes_it_and_is_made_again_with_its_id() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    feed(&log, "in", 0, &[click("a", 1)]);
    let ids = Arc::new(Mutex::new(Vec::new()));
    let launch = |is_broken: bool| {
        let (job, ids) = (Job::new("asks"), Arc::clone(&ids));
        let call = move |call: Call<String, Click>| {
            ids.lock().unwrap().push(call.id);
            async move {
                if is_broken {
                    Err("it is closed")
                } else {
                    Ok(7)
                }
            }
        };
        let policy = CallPolicy::ordered(7);
        let (answers, _) = clicks_of(&job, false).map_async("ask", policy, call);
        answers.sink(topic("out"));
        job.exactly_once(Commit::every(ms(5)))
    };
    let error = run(launch(true), &log).unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Poison, "{error}");
    let said = error.to_string();
    let id = ids.lock().unwrap()[0];
    assert!(
        said.contains("it is closed") && said.contains(&id.to_string()),
        "{said}"
    );
    run(launch(false), &log).unwrap();
    assert_eq!(times(&log), [("a".to_owned(), vec![7])].into());
    assert_eq!(ids.lock().unwrap().iter().collect::<BTreeSet<_>>().len(), 1);
}

#[test]
fn a7_a_commit_does_not_wait_for_calls_and_they_are_made_again_with_their_ids_after_a_restart() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let service = Arc::new(Service::default());
    let mut clicks: Vec<Click> = (0..30).map(|n| click(&format!("u{}", n % 3), n)).collect();
    feed(&log, "in", 0, &clicks);
    let policy = CallPolicy::ordered(100);
    for restart in 1..=3 {
        let running = answers(&service, policy, true)
            .workers(2)
            .start(&log)
            .unwrap();
        until("all are asked", || {
            service.asked_count() >= 30 * restart + (restart - 1)
        });
        // Nobody answers, and commits go on.
        let before = running.commits();
        let one = click("u0", 100 + i64::try_from(restart).unwrap());
        feed(&log, "in", 0, std::slice::from_ref(&one));
        clicks.push(one.clone());
        until("it is committed and asked about", || {
            running.commits() > before && service.asked.lock().unwrap().contains_key(&one)
        });
        wait(running.stop()).unwrap();
        assert_eq!(committed(&log, "out").len(), 0);
    }
    service.is_open.store(true, Ordering::SeqCst);
    run(answers(&service, policy, false).workers(3), &log).unwrap();
    assert_eq!(times(&log), by_user(&clicks));
    let asked = service.asked.lock().unwrap();
    for (click, ids) in &*asked {
        assert!(
            ids.len() > 1 && ids.iter().all(|id| *id == ids[0]),
            "{click:?}: {ids:?}"
        );
    }
    let different: BTreeSet<CallId> = asked.values().map(|ids| ids[0]).collect();
    assert_eq!(different.len(), clicks.len());
    assert_eq!(left_in_store(&log, "asks", "ask"), 0);
}

#[test]
fn calls_under_way_and_inputs_that_wait_have_a_bound() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 2);
    for partition in 0..2 {
        let clicks: Vec<Click> = (0..30_000).map(|n| click("a", n)).collect();
        clicks
            .chunks(200)
            .for_each(|chunk| feed(&log, "in", partition, chunk));
    }
    let service = Arc::new(Service::default());
    let policy = CallPolicy::unordered(10);
    let running = answers(&service, policy, true)
        .workers(2)
        .start(&log)
        .unwrap();
    until("as many are asked as may be", || {
        service.under_way.load(Ordering::SeqCst) == 5
    });
    std::thread::sleep(ms(300));
    let read = running.progress().records;
    assert!(read < 25_000, "{read} were read while nobody answers");
    assert_eq!(
        service.under_way.load(Ordering::SeqCst),
        5,
        "of one key, on one worker"
    );
    service.is_open.store(true, Ordering::SeqCst);
    until("it goes on", || committed(&log, "out").len() > 300);
    wait(running.stop()).unwrap();
    assert!(service.most.load(Ordering::SeqCst) <= 10);
}

#[test]
fn an_unordered_answer_does_not_wait_for_one_before_it() {
    for (policy, first) in [(CallPolicy::unordered(9), 2), (CallPolicy::ordered(9), 1)] {
        let place = Place::new();
        let log = place.log();
        topic_of_clicks(&log, "in", 1);
        feed(&log, "in", 0, &[click("a", 1), click("a", 2)]);
        let job = Job::new("asks");
        let call = |call: Call<String, Click>| async move {
            let time = call.value.1;
            tokio::time::sleep(ms(if time == 1 { 200 } else { 0 })).await;
            Ok::<_, String>(time)
        };
        clicks_of(&job, false)
            .map_async("ask", policy, call)
            .0
            .sink(topic("out"));
        run(job.exactly_once(Commit::every(ms(5))), &log).unwrap();
        assert_eq!(times(&log)["a"], [first, 3 - first]);
    }
}

/// Counts in windows what the service answers: time waits for the answers.
fn answers_per_window(service: &Arc<Service>, policy: CallPolicy) -> Launch {
    let job = Job::new("asks");
    let service = Arc::clone(service);
    let call = move |call| Arc::clone(&service).answer(call);
    let (windows, late) = clicks_of(&job, false)
        .map_async("ask", policy, call)
        .0
        .window(FixedWindows::tumbling(ms(10)))
        .late();
    late.map(|time| ("late".to_owned(), *time))
        .sink(topic("late"));
    windows.count("per-window").sink(topic("counts"));
    job.exactly_once(Commit::every(ms(2))).state_partitions(8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    /// T13: windows behind calls are those without them, and nothing is late by waiting.
    #[test]
    fn a6_a7_time_waits_for_answers_whatever_runs_the_calls(
        partitions in any_clicks(),
        runs in any_runs(),
        cut in any_cut(),
        limit in 1usize..60,
        is_ordered in any::<bool>(),
    ) {
        let place = Place::new();
        let log = place.log();
        let service = Service::opened();
        let policy = if is_ordered { CallPolicy::ordered(limit) } else { CallPolicy::unordered(limit) };
        run_cut(|| answers_per_window(&service, policy), &partitions, &runs, cut, &log);
        let mut expected = BTreeMap::new();
        for (user, time) in partitions.iter().flatten() {
            let start = time.div_euclid(10) * 10;
            *expected.entry((user.clone(), start, start + 10)).or_insert(0) += 1;
        }
        prop_assert_eq!(results(&log), expected);
        prop_assert_eq!(late(&log), vec![]);
    }
}

const VARIABLE: &str = "ONCEFLOW_CALLS_CHILD";

/// The job of the child, whose service writes down what it is asked.
fn noting(notes: &Path, is_endless: bool) -> Launch {
    let job = Job::new("asks");
    let notes = notes.to_owned();
    let call = move |call: Call<String, Click>| {
        let notes = notes.clone();
        async move {
            use std::io::Write as _;
            let (user, time) = call.value;
            tokio::time::sleep(ms(time.unsigned_abs() % 30)).await;
            let line = format!("{user} {time} {}\n", call.id);
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.append(true).create(true).open(&notes)?;
            file.write_all(line.as_bytes())?;
            Ok::<_, std::io::Error>(time)
        }
    };
    let policy = CallPolicy::ordered(20);
    clicks_of(&job, is_endless)
        .map_async("ask", policy, call)
        .0
        .sink(topic("out"));
    job.exactly_once(Commit::every(ms(20))).state_partitions(8)
}

/// The child's entry.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn asks_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, is_endless, folder] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(&Path::new(folder).join("data"));
    let launch = noting(&Path::new(folder).join("notes"), is_endless == "true");
    let running = launch
        .workers(workers.parse().unwrap())
        .start(&log)
        .unwrap();
    wait(running.finished()).unwrap();
    log.close().unwrap();
}

fn start(folder: &Path, workers: usize, is_endless: bool) -> Process {
    let plan = format!("{workers} {is_endless} {}", folder.display());
    start_child(
        "time::calls::asks_until_it_is_killed",
        (VARIABLE, &plan),
        "",
    )
}

#[test]
fn a7_each_input_has_one_answer_and_one_id_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("data"));
    topic_of_clicks(&log, "in", 1);
    let clicks: Vec<Click> = (0..1_500)
        .map(|n| click(&format!("u{}", n % 7), n))
        .collect();
    clicks
        .chunks(50)
        .for_each(|chunk| feed(&log, "in", 0, chunk));
    log.close().unwrap();
    let notes = folder.path().join("notes");
    let asked_count = || std::fs::read_to_string(&notes).map_or(0, |notes| notes.lines().count());
    for kill in 0..5 {
        let process = start(folder.path(), 1 + kill % 3, true);
        until("some more are asked", || asked_count() > 200 * (kill + 1));
        drop(process);
    }
    let mut last = start(folder.path(), 2, false);
    assert!(last.0.wait().unwrap().success());
    let log = open(&folder.path().join("data"));
    assert_eq!(times(&log), by_user(&clicks));
    assert_eq!(left_in_store(&log, "asks", "ask"), 0);
    log.close().unwrap();
    let notes = std::fs::read_to_string(&notes).unwrap();
    let mut ids = BTreeMap::<String, BTreeSet<String>>::new();
    for line in notes.lines() {
        let (click, id) = line.rsplit_once(' ').unwrap();
        ids.entry(click.to_owned())
            .or_default()
            .insert(id.to_owned());
    }
    assert_eq!(ids.len(), clicks.len());
    assert!(
        ids.values().all(|ids| ids.len() == 1),
        "an input was asked about under two ids"
    );
    assert!(
        notes.lines().count() > clicks.len(),
        "some are asked about again"
    );
}

/// A waiting call goes with its key, and time with it.
#[test]
fn a7_what_waits_for_an_answer_moves_between_instances() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 2);
    let service = Arc::new(Service::default());
    let start = |name: &str| {
        let launch = answers(&service, CallPolicy::ordered(1_000), true).workers(2);
        launch
            .scale_out(ScaleOut::instance(name))
            .start(&log)
            .unwrap()
    };
    let mut clicks = Vec::new();
    let mut feed_some = |count: i64| {
        for partition in 0..2 {
            let first = i64::try_from(clicks.len()).unwrap();
            let some: Vec<Click> = (first..first + count)
                .map(|n| click(&format!("u{}", 2 * (n % 9) + i64::from(partition)), n))
                .collect();
            feed(&log, "in", partition, &some);
            clicks.extend(some);
        }
        clicks.clone()
    };
    feed_some(50);
    let first = start("first");
    until("they are asked", || service.asked_count() >= 100);
    let second = start("second");
    until("the second has a share", || {
        feed_some(1);
        std::thread::sleep(ms(20));
        !super::scaled::state_of(&second).is_empty()
    });
    wait(first.stop()).unwrap();
    let all = feed_some(20);
    service.is_open.store(true, Ordering::SeqCst);
    until("all have answers", || {
        committed(&log, "out").len() >= all.len()
    });
    wait(second.stop()).unwrap();
    assert_eq!(times(&log), by_user(&all));
    let asked = service.asked.lock().unwrap();
    for (click, ids) in &*asked {
        assert!(ids.iter().all(|id| *id == ids[0]), "{click:?}: {ids:?}");
    }
    assert_eq!(left_in_store(&log, "asks", "ask"), 0);
}

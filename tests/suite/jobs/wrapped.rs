//! Stores in which a step keeps a user's values inside its own: a build that changes their type goes on with what waits and what is open.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Upstream};
use serde::{Deserialize, Serialize};

use super::support::{OFTEN, committed, fill_topic, run, until};
use crate::time::killed::{Process, open, start_child};
use crate::time::support::ms;

const VARIABLE: &str = "ONCEFLOW_WRAPPED_CHILD";
const CHILD: &str = "jobs::wrapped::runs_a_build_until_it_is_killed";
/// Most disorder of records.
const DISORDER: i64 = 10;
/// The topics whose records are compared; of those of tables, and of early results, the last one of each key.
const LISTS: [&str; 7] = [
    "pairs", "as-of", "sessions", "sliding", "by-count", "sorted", "answers",
];
const TABLES: [&str; 4] = ["early", "newest", "groups", "foreign"];

/// A value of build 1.
#[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
struct Before {
    note: String,
    cents: i64,
}

/// One of build 2: a field came into the middle, and another one is wider.
#[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
struct After {
    note: String,
    currency: Option<String>,
    cents: (i64, u8),
}

impl From<Before> for After {
    fn from(before: Before) -> Self {
        Self {
            note: before.note,
            currency: Some("EUR".to_owned()),
            cents: (before.cents, 7),
        }
    }
}

/// A build of the job.
trait Build: Datum<Owned = Self> + Clone + Default + Serialize + for<'a> Deserialize<'a> {
    fn of(cents: i64) -> Self;
    fn cents(&self) -> i64;
    fn add(&mut self, cents: i64);
    fn shown(&self) -> String;

    fn reads<K, V, U>(keyed: Keyed<K, V, U>) -> Keyed<K, V, U>
    where
        K: ?Sized + 'static,
        V: ?Sized + 'static,
        U: Upstream<K, V>,
    {
        keyed
    }

    fn reads_table<K, V, U, D>(table: Table<K, V, U, D>) -> Table<K, V, U, D>
    where
        K: ?Sized + 'static,
        V: Datum + Clone,
        U: Upstream<K, onceflow::runtime::Change<V>>,
    {
        table
    }
}

impl Build for Before {
    fn of(cents: i64) -> Self {
        let note = "x".repeat(usize::try_from(cents % 5).unwrap_or(0));
        Self { note, cents }
    }

    fn cents(&self) -> i64 {
        self.cents
    }

    fn add(&mut self, cents: i64) {
        self.cents += cents;
    }

    fn shown(&self) -> String {
        format!("{}{} EUR", self.note, self.cents)
    }
}

impl Build for After {
    fn of(cents: i64) -> Self {
        Before::of(cents).into()
    }

    fn cents(&self) -> i64 {
        self.cents.0
    }

    fn add(&mut self, cents: i64) {
        self.cents.0 += cents;
        // What began as nothing has a currency by now.
        self.currency.get_or_insert_with(|| "EUR".to_owned());
        self.cents.1 = 7;
    }

    fn shown(&self) -> String {
        assert_eq!(self.cents.1, 7);
        let currency = self.currency.as_deref().unwrap_or("none");
        format!("{}{} {currency}", self.note, self.cents.0)
    }

    fn reads<K, V, U>(keyed: Keyed<K, V, U>) -> Keyed<K, V, U>
    where
        K: ?Sized + 'static,
        V: ?Sized + 'static,
        U: Upstream<K, V>,
    {
        keyed.migrate_from(1, |old: Before| Self::from(old))
    }

    fn reads_table<K, V, U, D>(table: Table<K, V, U, D>) -> Table<K, V, U, D>
    where
        K: ?Sized + 'static,
        V: Datum + Clone,
        U: Upstream<K, onceflow::runtime::Change<V>>,
    {
        table.migrate_from(1, |old: Before| Self::from(old))
    }
}

fn show<B: Build>(value: Option<&B>) -> String {
    value.map_or("none".to_owned(), B::shown)
}

/// Plan of a run: whether it ends with its input, whether the world outside answers, and where the target of effects writes.
#[derive(Clone)]
struct Plan {
    is_endless: bool,
    answers: bool,
    notes: PathBuf,
}

fn parse(line: &str) -> Result<(i64, i64, i64), std::num::ParseIntError> {
    let mut words = line.split(' ').map(str::parse);
    let mut next = || words.next().unwrap_or(Ok(0));
    Ok((next()?, next()?, next()?))
}

type Records<B> = Keyed<i64, B>;

/// A job with a store of each kind that wraps the user's type.
fn build<B: Build>(plan: &Plan) -> Launch {
    let job = Job::new("wrapped");
    let lines = topic::<str>("in");
    let (records, thirds) = job
        .source(if plan.is_endless {
            lines
        } else {
            lines.until_end()
        })
        .try_map(parse)
        .event_time(
            |(_, time, _)| *time,
            Watermarks::out_of_order(ms(DISORDER.unsigned_abs())),
        )
        .tee();
    let records = records
        .key_by(|(key, _, _): &(i64, i64, i64)| *key)
        .map(|(_, _, cents)| B::of(*cents));
    let thirds = thirds
        .key_by(|(_, _, cents): &(i64, i64, i64)| *cents % 3)
        .map(|(_, _, cents)| B::of(*cents));
    let (joined, rest) = records.boxed().tee();
    let (windowed, rest) = rest.tee();
    let (waiting, tabled) = rest.tee();
    join(joined);
    window(windowed);
    wait_outside(waiting, plan);
    keep_tables(tabled, thirds.boxed());
    job.exactly_once(Commit::every(OFTEN)).state_partitions(4)
}

fn join<B: Build>(records: Records<B>) {
    let (pairs, as_of) = records.tee();
    let (even, odd) = pairs.tee();
    let pairs = even
        .filter(|it: &B| it.cents() % 2 == 0)
        .join("pairs", odd.filter(|it: &B| it.cents() % 2 != 0))
        .within(ms(30), ms(30))
        .outer(|left, right| format!("{} and {}", show(left), show(right)));
    B::reads(pairs).sink(topic("pairs"));
    let (records, versions) = as_of.tee();
    let versions = versions.map(|it| match it.cents() % 4 {
        0 => Some(it.clone()),
        1 => None,
        _ => Some(B::of(it.cents() * 2)),
    });
    let found = records
        .join_as_of("as-of", versions)
        .grace(ms(20))
        .left(|record, version| format!("{} at {}", record.shown(), show(version)));
    B::reads(found).sink(topic("as-of"));
}

fn window<B: Build>(records: Records<B>) {
    let (sessions, rest) = records.tee();
    let (sliding, rest) = rest.tee();
    let (by_count, early) = rest.tee();
    let add = |sum: &mut B, other: &B| sum.add(other.cents());
    let sessions = sessions
        .window(SessionWindows::gap(ms(25)))
        .reduce("sessions", add);
    B::reads(sessions).map(B::shown).sink(topic("sessions"));
    let sliding = sliding
        .window(SlidingWindows::difference(ms(15)))
        .reduce("sliding", add);
    B::reads(sliding).map(B::shown).sink(topic("sliding"));
    let by_count = by_count
        .window(CountWindows::tumbling(7))
        .reduce("by-count", add);
    B::reads(by_count).map(B::shown).sink(topic("by-count"));
    let early = early
        .window(FixedWindows::tumbling(ms(100)))
        .early(Every::event_time(ms(20)))
        .reduce("early", add);
    B::reads(early)
        .map(|it: &Option<B>| show(it.as_ref()))
        .sink(topic("early"));
}

fn wait_outside<B: Build>(records: Records<B>, plan: &Plan) {
    let (sorted, rest) = records.tee();
    let (asked, told) = rest.tee();
    let (sorted, late) = sorted.sorted_by_time("sorted");
    B::reads(sorted).map(B::shown).sink(topic("sorted"));
    late.map(B::shown).sink(topic("late"));
    let answers = plan.answers;
    let (answered, failed) = asked.map_async(
        "answers",
        CallPolicy::unordered(10_000),
        move |call: Call<i64, B>| async move {
            if !answers {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::convert::Infallible>(call.value.shown())
        },
    );
    B::reads(answered).sink(topic("answers"));
    failed.map(B::shown).sink(topic("failed"));
    let notes = plan.notes.clone();
    let dead = told.effect(
        "told",
        EffectPolicy::parallel(8),
        move |effect: Effect<i64, B>| {
            let notes = notes.clone();
            async move {
                if !answers {
                    std::future::pending::<()>().await;
                }
                let line = format!(
                    "{} {} {}\n",
                    effect.idempotency_key(),
                    effect.key,
                    effect.value.shown()
                );
                let mut file = std::fs::OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(notes)?;
                file.write_all(line.as_bytes())
            }
        },
    );
    B::reads(dead).map(B::shown).sink(topic("dead"));
}

fn keep_tables<B: Build>(records: Records<B>, thirds: Records<B>) {
    let (newest, rest) = records.tee();
    let (grouped, foreign) = rest.tee();
    let newest = newest
        .map(|it| Some(it.clone()).filter(|it| it.cents() % 6 != 0))
        .to_table_by_time("newest");
    let newest = B::reads_table(newest).changes();
    newest
        .map(|it: &Option<B>| show(it.as_ref()))
        .sink(topic("newest"));
    let table = grouped
        .map(|it| Some(it.clone()).filter(|it| it.cents() % 8 != 0))
        .to_table("grouped");
    let groups = B::reads_table(table)
        .group_by(|key, value| (key % 2, value.clone()))
        .aggregate(
            "groups",
            B::default,
            |sum, it| sum.add(it.cents()),
            |sum, it| sum.add(-it.cents()),
        );
    let groups = B::reads_table(groups).changes();
    groups
        .map(|it: &Option<B>| show(it.as_ref()))
        .sink(topic("groups"));
    let left = foreign.map(|it| Some(it.clone())).to_table("left");
    let right = thirds.map(|it| Some(it.clone())).to_table("right");
    let joined = B::reads_table(left).join_on(
        "foreign",
        B::reads_table(right),
        |it: &B| it.cents() % 3,
        |left: &B, right: &B| format!("{} of {}", left.shown(), right.shown()),
    );
    B::reads_table(joined)
        .changes()
        .map(|it: &Option<String>| it.clone().unwrap_or_default())
        .sink(topic("foreign"));
}

/// Lines of six keys, out of order within the bound.
fn lines(numbers: std::ops::Range<i64>) -> Vec<String> {
    let line = |n: i64| format!("{} {} {n}", n * 5 % 6, n * 4 - n * 7 % DISORDER);
    numbers.map(line).collect()
}

/// The records of each topic of results: their keys, and their values as text.
type Results = BTreeMap<String, Vec<(Vec<u8>, String)>>;

/// All that a job wrote, without what came on the way to it in tables.
fn results(log: &Log) -> Results {
    let mut results = BTreeMap::new();
    for name in LISTS.into_iter().chain(TABLES) {
        let seen = committed(log, name);
        let rows = seen
            .into_iter()
            .map(|it| (it.key.clone().unwrap(), it.value::<String>()));
        let mut rows: Vec<_> = match TABLES.contains(&name) {
            true => rows.collect::<BTreeMap<_, _>>().into_iter().collect(),
            false => rows.collect(),
        };
        rows.sort();
        assert!(!rows.is_empty(), "nothing in {name}");
        results.insert(name.to_owned(), rows);
    }
    for name in ["late", "failed", "dead"] {
        assert!(committed(log, name).is_empty(), "{name}");
    }
    results
}

/// Reads the effects' target, each effect once.
fn told(notes: &Path) -> BTreeSet<String> {
    let notes = std::fs::read_to_string(notes).unwrap_or_default();
    let mut by_id = BTreeMap::new();
    for line in notes.lines() {
        let (id, content) = line.split_once(' ').unwrap();
        let before = by_id.insert(id.to_owned(), content.to_owned());
        assert!(before.is_none_or(|before| before == content), "{line}");
    }
    let contents: BTreeSet<String> = by_id.values().cloned().collect();
    assert_eq!(contents.len(), by_id.len(), "an effect has two keys");
    contents
}

/// The results of a job of build 2 that read these lines without a pause, and what its target of effects was told.
fn uninterrupted(lines: &[String]) -> (Results, BTreeSet<String>) {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder.path().join("data"));
    fill_topic(&log, "in", 1, lines);
    let notes = folder.path().join("notes");
    let plan = Plan {
        is_endless: false,
        answers: true,
        notes: notes.clone(),
    };
    run(build::<After>(&plan), &log).unwrap();
    (results(&log), told(&notes))
}

fn assert_as_uninterrupted(log: &Log, notes: &Path, lines: &[String]) {
    let (expected, expected_told) = uninterrupted(lines);
    let found = results(log);
    for (name, rows) in &expected {
        assert_eq!(&found[name], rows, "{name}");
    }
    assert_eq!(told(notes), expected_told);
}

/// Runs build 1 on half of the input, and stops it with windows open and answers due; build 2 goes on, on what `between` leaves.
pub(crate) fn two_builds(log: impl Fn() -> Log, notes: &Path, between: impl Fn()) {
    let all = lines(1..401);
    let (first, second) = all.split_at(203);
    let plan = |is_endless, answers| Plan {
        is_endless,
        answers,
        notes: notes.to_owned(),
    };
    let begins = log();
    fill_topic(&begins, "in", 1, first);
    let running = build::<Before>(&plan(true, false)).start(&begins).unwrap();
    until("half is read", || running.progress().records == 203);
    wait(running.stop()).unwrap();
    begins.close().unwrap();
    between();
    let goes_on = log();
    fill_topic(&goes_on, "in", 1, second);
    run(build::<After>(&plan(false, true)), &goes_on).unwrap();
    for name in LISTS.into_iter().chain(TABLES) {
        super::support::wait_for_markers(&goes_on, name);
    }
    assert_as_uninterrupted(&goes_on, notes, &all);
    let earlier = run(build::<Before>(&plan(false, true)), &goes_on).unwrap_err();
    assert!(earlier.to_string().contains("version 2"), "{earlier}");
}

#[test]
fn u9_what_waits_and_what_is_open_in_steps_of_every_kind_goes_on_in_a_build_with_another_type() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    two_builds(|| open(&data), &folder.path().join("notes"), || ());
}

#[test]
fn u9_what_waits_in_steps_of_every_kind_is_read_from_the_changelog() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let forget = || std::fs::remove_dir_all(data.join("state")).unwrap();
    two_builds(|| open(&data), &folder.path().join("notes"), forget);
}

/// The child's entry.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn runs_a_build_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [number, is_endless, answers, folder] = plan.splitn(4, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let folder = Path::new(folder);
    let plan = Plan {
        is_endless: is_endless == "true",
        answers: answers == "true",
        notes: folder.join("notes"),
    };
    let log = open(&folder.join("data"));
    let launch = match number {
        "1" => build::<Before>(&plan),
        _ => build::<After>(&plan),
    };
    run(launch, &log).unwrap();
    log.close().unwrap();
}

#[test]
fn u9_builds_that_are_killed_leave_what_the_next_one_goes_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let all = lines(1..601);
    let feed = |some: &[String]| {
        let log = open(&data);
        for some in some.chunks(20) {
            fill_topic(&log, "in", 1, some);
        }
        log.close().unwrap();
    };
    let start = |number: u8, is_endless: bool, answers: bool| -> Process {
        let plan = format!(
            "{number} {is_endless} {answers} {}",
            folder.path().display()
        );
        start_child(CHILD, (VARIABLE, &plan), "")
    };
    for (place, some) in all.chunks(150).enumerate() {
        feed(some);
        let (number, answers) = if place < 2 {
            (1, place == 1)
        } else {
            (2, place == 2)
        };
        let mut process = start(number, true, answers);
        // It is killed at whatever it is doing.
        let moment = ms(1_500 + 170 * u64::try_from(place).unwrap());
        assert!(!process.is_killed_within(moment), "it ended by itself");
    }
    assert!(start(2, false, true).0.wait().unwrap().success());
    let log = open(&data);
    assert_as_uninterrupted(&log, &folder.path().join("notes"), &all);
    log.close().unwrap();
}

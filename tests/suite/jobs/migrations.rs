//! Values whose type changes between builds of a job: old ones are converted when they are read, from wherever they come.

use std::path::Path;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{HttpConfig, Launch, Savepoint};
use serde::{Deserialize, Serialize};

use super::queries_over_http::value_of;
use super::support::{OFTEN, Place, committed_by_key, fill_topic, run, until};

#[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
struct First {
    cents: i64,
    last: i64,
}

/// A field came into the middle.
#[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
struct Second {
    cents: i64,
    currency: String,
    last: i64,
}

/// And one in front.
#[derive(Clone, Default, Debug, PartialEq, Serialize, Deserialize)]
struct Third {
    payments: u64,
    cents: i64,
    currency: String,
    last: i64,
}

impl From<First> for Second {
    fn from(First { cents, last }: First) -> Self {
        let currency = "EUR".to_owned();
        Self {
            cents,
            currency,
            last,
        }
    }
}

impl From<Second> for Third {
    fn from(second: Second) -> Self {
        Self {
            payments: 100,
            cents: second.cents,
            currency: second.currency,
            last: second.last,
        }
    }
}

impl From<First> for Third {
    fn from(first: First) -> Self {
        Second::from(first).into()
    }
}

/// A build of the job: what it keeps of a key, in a store of each kind.
pub(super) trait Build: Datum + Clone + Default {
    fn add(&mut self, number: i64);
    fn cents(&self) -> i64;
    fn reads_earlier<K, U>(keyed: Keyed<K, i64, U>) -> Keyed<K, i64, U>
    where
        K: ?Sized + 'static,
        U: onceflow::runtime::Upstream<K, i64>;
}

impl Build for First {
    fn add(&mut self, number: i64) {
        (self.cents, self.last) = (self.cents + number, number);
    }

    fn cents(&self) -> i64 {
        self.cents
    }

    fn reads_earlier<K, U>(keyed: Keyed<K, i64, U>) -> Keyed<K, i64, U>
    where
        K: ?Sized + 'static,
        U: onceflow::runtime::Upstream<K, i64>,
    {
        keyed
    }
}

impl Build for Second {
    fn add(&mut self, number: i64) {
        (self.cents, self.last) = (self.cents + number, number);
    }

    fn cents(&self) -> i64 {
        self.cents
    }

    fn reads_earlier<K, U>(keyed: Keyed<K, i64, U>) -> Keyed<K, i64, U>
    where
        K: ?Sized + 'static,
        U: onceflow::runtime::Upstream<K, i64>,
    {
        keyed.migrate_from(1, |old: First| Self::from(old))
    }
}

impl Build for Third {
    fn add(&mut self, number: i64) {
        (self.cents, self.last) = (self.cents + number, number);
        self.payments += 1;
    }

    fn cents(&self) -> i64 {
        self.cents
    }

    fn reads_earlier<K, U>(keyed: Keyed<K, i64, U>) -> Keyed<K, i64, U>
    where
        K: ?Sized + 'static,
        U: onceflow::runtime::Upstream<K, i64>,
    {
        keyed
            .migrate_from(1, |old: First| Self::from(old))
            .migrate_from(2, |old: Second| Self::from(old))
    }
}

struct ByValue<A>(KeyValueStore<A>);

impl<A: Build> Operator<i64, i64> for ByValue<A> {
    type OutKey = i64;
    type Out = i64;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, i64, i64>, out: &mut impl Output<i64, i64>) -> Flow {
        let cents = self.0.update(record.key, |value: &mut Option<A>| {
            let value = value.get_or_insert_default();
            value.add(*record.value);
            value.cents()
        })?;
        out.push(record.with_value(&cents))
    }
}

struct ByTime<A>(TimedStore<A>);

impl<A: Build> Operator<i64, i64> for ByTime<A> {
    type OutKey = i64;
    type Out = i64;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, i64, i64>, out: &mut impl Output<i64, i64>) -> Flow {
        let cents = self.0.update(record.key, |value: &mut Option<A>| {
            let value = value.get_or_insert_default();
            value.add(*record.value - value.cents());
            value.cents()
        })?;
        out.push(record.with_value(&cents))
    }
}

struct ByOrder<A>(OrderedStore<u64, A>);

impl<A: Build> Operator<i64, i64> for ByOrder<A> {
    type OutKey = i64;
    type Out = i64;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, i64, i64>, out: &mut impl Output<i64, i64>) -> Flow {
        let mut value = self.0.get(record.key, &7)?.unwrap_or_default();
        value.add(*record.value - value.cents());
        self.0.put(record.key, &7, value.clone())?;
        out.push(record.with_value(&value.cents()))
    }
}

/// Sums numbers by their last digit: in one store, and copies of that in two others.
pub(super) fn build<A: Build>(is_endless: bool) -> Launch {
    let job = Job::new("accounts");
    let numbers = topic::<str>("accounts-in");
    let numbers = if is_endless {
        numbers
    } else {
        numbers.until_end()
    };
    let by_digit = job
        .source(numbers)
        .try_map(|text: &str| text.parse::<i64>())
        .key_by(|n| n % 10);
    let summed = by_digit
        .with_store::<A>("values")
        .process("values", |context| {
            Ok(ByValue::<A>(context.store("values")?))
        });
    let timed = A::reads_earlier(summed)
        .with_timed_store::<A>("timed")
        .process("timed", |context| {
            Ok(ByTime::<A>(context.timed_store("timed")?))
        });
    let ordered = A::reads_earlier(timed)
        .with_ordered_store::<u64, A>("ordered")
        .process("ordered", |context| {
            Ok(ByOrder::<A>(context.ordered_store("ordered")?))
        });
    A::reads_earlier(ordered).sink(topic("accounts-out"));
    job.exactly_once(Commit::every(OFTEN)).state_partitions(2)
}

pub(super) fn feed(log: &Log, numbers: &[i64]) {
    let numbers: Vec<String> = numbers.iter().map(i64::to_string).collect();
    fill_topic(log, "accounts-in", 1, &numbers);
}

pub(super) fn out(log: &Log, digit: i64) -> Vec<i64> {
    let mut all = committed_by_key::<i64, i64>(log, "accounts-out");
    all.remove(&digit).unwrap_or_default()
}

pub(super) fn forget_local_state(place: &Place) {
    std::fs::remove_dir_all(place.state_dir("accounts")).unwrap();
}

pub(super) fn refusal(launch: Launch, log: &Log) -> String {
    run(launch, log).unwrap_err().to_string()
}

/// Three builds run one after the other; `between` happens before each next one starts.
fn three_builds(between: impl Fn(&Place)) {
    let place = Place::new();
    let log = place.log();
    feed(&log, &[11, 12, 13]);
    run(build::<First>(false), &log).unwrap();
    between(&place);
    // Of 1 and 2 the new build has values of its own, of 3 the old one stays.
    feed(&log, &[21, 22]);
    run(build::<Second>(false), &log).unwrap();
    between(&place);
    feed(&log, &[31, 33, 43]);
    run(build::<Third>(false), &log).unwrap();
    assert_eq!(out(&log, 1), [11, 32, 63]);
    assert_eq!(out(&log, 2), [12, 34]);
    assert_eq!(out(&log, 3), [13, 46, 89]);
    log.close().unwrap();
}

#[test]
fn u9_values_of_two_earlier_builds_are_read_from_the_local_state() {
    three_builds(|_| ());
}

#[test]
fn u9_values_of_two_earlier_builds_are_read_from_the_changelog() {
    three_builds(forget_local_state);
}

#[test]
fn u9_a_question_gets_values_of_every_version_as_the_build_has_them() {
    let place = Place::new();
    let log = place.log();
    feed(&log, &[11, 12, 13]);
    run(build::<First>(false), &log).unwrap();
    feed(&log, &[22]);
    run(build::<Second>(false), &log).unwrap();
    feed(&log, &[33]);
    let running = build::<Third>(true).start(&log).unwrap();
    until("it is read", || running.progress().records == 1);
    let query = running.query();
    let store = query.store::<i64, Third>("values").unwrap();
    let (timed, ordered) = (
        query.timed::<i64, Third>("timed").unwrap(),
        query.ordered::<i64, u64, Third>("ordered").unwrap(),
    );
    let server = query.serve(HttpConfig::on("127.0.0.1:0").unwrap()).unwrap();
    for (digit, cents, last, payments) in [(1, 11, 11, 100), (2, 34, 22, 100), (3, 46, 33, 101)] {
        let expected = Third {
            payments,
            cents,
            currency: if payments == 0 { "" } else { "EUR" }.to_owned(),
            last,
        };
        let answer = wait(store.get(&digit)).unwrap();
        assert_eq!(answer.value, Some(expected));
        let answer = wait(timed.get(&digit)).unwrap();
        assert_eq!(answer.value.map(|it| it.cents), Some(cents));
        let answer = wait(ordered.get(&digit, &7)).unwrap();
        assert_eq!(answer.value.map(|it| it.cents), Some(cents));
        for path in ["values?", "timed?", "ordered?place=7&"] {
            let answer = value_of(server.address(), &format!("/stores/{path}key={digit}"));
            assert_eq!(answer["value"]["cents"], cents, "{path}");
        }
    }
    wait(running.stop()).unwrap();
}

#[test]
fn u9_builds_that_do_not_read_what_is_stored_are_refused_with_what_to_do() {
    let place = Place::new();
    let log = place.log();
    feed(&log, &[11]);
    run(build::<First>(false), &log).unwrap();
    run(build::<Second>(false), &log).unwrap();
    feed(&log, &[21]);
    // Also where only the log knows.
    for _ in 0..2 {
        let earlier = refusal(build::<First>(false), &log);
        for part in ["version 2", "version 1", "savepoint"] {
            assert!(earlier.contains(part), "{part}: {earlier}");
        }
        forget_local_state(&place);
        run(build::<Second>(false), &log).unwrap();
    }
    let one = |migrate: fn(Table<i64, Third>) -> Table<i64, Third>| {
        let job = Job::new("accounts");
        let table = job
            .source(topic::<str>("accounts-in").until_end())
            .try_map(|text: &str| text.parse::<i64>())
            .key_by(|n| n % 10)
            .aggregate("values", Third::default, |third, n| third.add(*n));
        let (changes, view) = table.into_parts();
        migrate(Table::seen_as(changes.boxed(), view)).materialize();
        job.exactly_once(Commit::every(OFTEN))
            .state_partitions(2)
            .forget("timed")
            .forget("ordered")
    };
    let missing = refusal(
        one(|it| it.migrate_from(2, |old: Second| Third::from(old))),
        &log,
    );
    for part in ["version 1", "First{", "put `.migrate_from(1, …)` back"] {
        assert!(missing.contains(part), "{part}: {missing}");
    }
    let wrong = refusal(
        one(|it| {
            it.migrate_from(1, |_: Second| Third::default())
                .migrate_from(2, |old: Second| Third::from(old))
        }),
        &log,
    );
    assert!(wrong.contains("values of the type First{"), "{wrong}");
    let nowhere = refusal(one(|it| it.migrate_from(1, |old: u64| old)), &log);
    assert!(nowhere.contains("no store with such values"), "{nowhere}");
    let twice = refusal(
        one(|it| {
            it.migrate_from(1, |old: First| Third::from(old))
                .migrate_from(1, |old: First| Third::from(old))
        }),
        &log,
    );
    assert!(twice.contains("read in two ways"), "{twice}");
}

fn savepoint_of(launch: Launch, log: &Log, records: u64, path: &Path) -> Savepoint {
    let running = launch.start(log).unwrap();
    until("all is read", || running.progress().records == records);
    let savepoint = wait(running.savepoint(path)).unwrap();
    wait(running.stop()).unwrap();
    savepoint
}

#[test]
fn u9_a_savepoint_of_an_earlier_build_is_restored_by_a_later_one_and_by_the_earlier_one_again() {
    let place = Place::new();
    let log = place.log();
    feed(&log, &[11, 12]);
    let first = savepoint_of(build::<First>(true), &log, 2, &place.path("first"));
    feed(&log, &[22]);
    let second = savepoint_of(build::<Second>(true), &log, 1, &place.path("second"));
    log.close().unwrap();
    // Elsewhere, where nothing is known of the job.
    let elsewhere = Place::new();
    let other = elsewhere.log();
    feed(&other, &[11, 12, 22]);
    let later = build::<First>(false).restore(&other, &second).unwrap_err();
    assert!(later.to_string().contains("version 2"), "{later}");
    build::<Third>(false).restore(&other, &second).unwrap();
    feed(&other, &[31, 32]);
    let summary = run(build::<Third>(false), &other).unwrap();
    assert_eq!(summary.records, 2);
    assert_eq!(out(&other, 1), [42]);
    assert_eq!(out(&other, 2), [66]);
    let missing = refusal(build::<First>(false), &other);
    assert!(missing.contains("version 3"), "{missing}");
    other.close().unwrap();
    // Back to the build before, where the later one has written.
    let log = place.log();
    feed(&log, &[31]);
    run(build::<Third>(false), &log).unwrap();
    build::<First>(false).restore(&log, &first).unwrap();
    run(build::<First>(false), &log).unwrap();
    assert_eq!(out(&log, 1), [11, 42, 42]);
    assert_eq!(out(&log, 2), [12, 34, 34]);
    // And on again.
    feed(&log, &[41]);
    run(build::<Third>(false), &log).unwrap();
    assert_eq!(out(&log, 1), [11, 42, 42, 83]);
}

/// Runs one build after the other on another machine; the log is all that they share.
pub(crate) fn one_build_after_the_other_on(log: impl Fn() -> Log) {
    feed(&log(), &[11, 12]);
    run(build::<First>(false), &log()).unwrap();
    let second = log();
    feed(&second, &[21]);
    run(build::<Second>(false), &second).unwrap();
    let third = log();
    feed(&third, &[32, 31]);
    run(build::<Third>(false), &third).unwrap();
    crate::jobs::support::wait_for_markers(&third, "accounts-out");
    assert_eq!(out(&third, 1), [11, 32, 63]);
    assert_eq!(out(&third, 2), [12, 44]);
    let refused = refusal(build::<Second>(false), &log());
    assert!(refused.contains("version 3"), "{refused}");
}

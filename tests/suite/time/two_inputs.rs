//! Operators with two inputs of different types: orders are matched with payments, against nested loops over all of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use onceflow::client::wait;
use onceflow::internals::env::failpoint;
use onceflow::prelude::*;
use onceflow::runtime::{
    Due, Keyed, Launch, OrderedStore, Origin, Side, TwoInputOperator, Upstream,
};
use onceflow::types::Timestamp;
use proptest::prelude::*;

use super::killed::{Process, open, start_child};
use super::support::{
    Click, DISORDER, any_runs, feed, ms, parse, topic_of_clicks, try_feed, watermarks,
};
use crate::jobs::support::{self, committed, committed_by_key, run, until};

/// A payment may come so long before its order, and so long after it.
const BEFORE: i64 = 7;
const AFTER: i64 = 12;

/// An order: its time and number. A payment: its time, in words.
type Order = (i64, u64);
type Payment = (i64, String);

/// Where an order is among those of its user: by its time, and then by its origin.
type Place = (i64, u32, i64);

/// Matches each order with each payment of its user that is near enough.
struct Match {
    orders: OrderedStore<Place, u64>,
    payments: KeyValueStore<Vec<Payment>>,
    /// When something of a user is too old for anything that may still come.
    expiry: TimedStore<u64>,
    late: Side<String, String>,
    watermark: Timestamp,
    due: Due,
}

impl Match {
    fn is_late<V: ?Sized>(&self, record: &Record<'_, String, V>) -> bool {
        let time = record.meta.timestamp;
        time < self.watermark.max(self.expiry.time(record.key))
    }
}

impl TwoInputOperator<String, Order, Payment> for Match {
    type OutKey = String;
    type Out = (u64, String);
    const KEEPS_KEY: bool = true;
    const USES_TIME: bool = true;

    fn process_left(
        &mut self,
        record: Record<'_, String, Order>,
        out: &mut impl Output<String, (u64, String)>,
    ) -> Flow {
        let (time, number) = *record.value;
        if self.is_late(&record) {
            return self.late.push(record.with_value(&number.to_string()));
        }
        for (at, name) in self.payments.get(record.key)?.unwrap_or_default() {
            if (-BEFORE..=AFTER).contains(&(at - time)) {
                out.push(record.with_value(&(number, name)))?;
            }
        }
        self.expiry
            .set_timer(record.key, Timestamp(time + AFTER + 1))?;
        let Origin { split, offset } = record.meta.origin;
        self.orders
            .put(record.key, &(time, split, offset.0), number)
    }

    fn process_right(
        &mut self,
        record: Record<'_, String, Payment>,
        out: &mut impl Output<String, (u64, String)>,
    ) -> Flow {
        let (time, name) = record.value.clone();
        if self.is_late(&record) {
            return self.late.push(record.with_value(&name));
        }
        let near = (time - AFTER, 0, i64::MIN)..=(time + BEFORE, u32::MAX, i64::MAX);
        self.orders.visit(record.key, near, |_, number| {
            out.push(record.with_value(&(*number, name.clone())))?;
            Ok(ControlFlow::Continue(()))
        })?;
        self.expiry
            .set_timer(record.key, Timestamp(time + BEFORE + 1))?;
        self.payments.update(record.key, |payments| {
            payments.get_or_insert_default().push((time, name))
        })
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        _out: &mut impl Output<String, (u64, String)>,
    ) -> Flow {
        self.watermark = watermark;
        while self.expiry.next_due(watermark, &mut self.due)?.is_some() {
            let key = self.due.key::<String>();
            let first = watermark.0.saturating_sub(AFTER);
            self.orders.remove_range(key, ..(first, 0, i64::MIN))?;
            self.payments.update(key, |payments| {
                let mut left = payments.take().unwrap_or_default();
                left.retain(|(time, _)| *time + BEFORE >= watermark.0);
                *payments = Some(left).filter(|left| !left.is_empty());
            })?;
        }
        Ok(())
    }

    fn end_cycle(&mut self, _out: &mut impl Output<String, (u64, String)>) -> Flow {
        match self.watermark {
            // The end of the input is that of this run.
            Timestamp::MAX => Ok(()),
            watermark => self.expiry.set_time(watermark),
        }
    }
}

/// The job: orders and payments are texts of a user and a time, the name of a payment is its time.
fn matching(is_endless: bool) -> Job {
    let job = Job::new("matching");
    match_orders(&job, is_endless);
    job
}

pub(super) fn match_orders(job: &Job, is_endless: bool) {
    let input = |name: &str| {
        let input = topic::<str>(name);
        let input = if is_endless { input } else { input.until_end() };
        job.source(input)
            .try_map(parse)
            .event_time(|(_, time)| *time, watermarks())
            .key_by(|(user, _)| user.clone())
    };
    match_both(input("orders"), input("payments"));
}

fn match_both(
    orders: Keyed<String, Click, impl Upstream<String, Click>>,
    payments: Keyed<String, Click, impl Upstream<String, Click>>,
) {
    let orders = orders.map(|(_, time)| (*time, time.unsigned_abs()));
    let payments = payments.map(|(_, time)| (*time, format!("at {time}")));
    let both = orders.connect(payments);
    let (late_output, late) = both.side_output::<String, String>("late");
    late.sink(topic("late"));
    both.with_ordered_store::<Place, u64>("orders")
        .with_store::<Vec<Payment>>("payments")
        .with_timed_store::<u64>("expiry")
        .process("match", move |context| {
            Ok(Match {
                orders: context.ordered_store("orders")?,
                payments: context.store("payments")?,
                expiry: context.timed_store("expiry")?,
                late: context.side(&late_output)?,
                watermark: Timestamp::MIN,
                due: Due::default(),
            })
        })
        .sink(topic("matches"));
}

fn launch(is_endless: bool) -> Launch {
    matching(is_endless)
        .exactly_once(Commit::every(ms(2)))
        .state_partitions(8)
}

/// Records of one topic: each a user and a time, by partition.
pub(super) type Input = Vec<Vec<(String, i64)>>;
/// The matches of each user, sorted.
pub(super) type Matches = BTreeMap<String, Vec<(u64, String)>>;

/// The matches by definition.
pub(super) fn nested_loops(orders: &Input, payments: &Input) -> Matches {
    let mut matches = Matches::new();
    for (user, time) in orders.iter().flatten() {
        for (payer, at) in payments.iter().flatten() {
            if user == payer && (-BEFORE..=AFTER).contains(&(at - time)) {
                let of_user = matches.entry(user.clone()).or_default();
                of_user.push((time.unsigned_abs(), format!("at {at}")));
            }
        }
    }
    matches.values_mut().for_each(|matches| matches.sort());
    matches
}

pub(super) fn found(log: &Log) -> Matches {
    let mut found = committed_by_key::<String, (u64, String)>(log, "matches");
    found.values_mut().for_each(|matches| matches.sort());
    found
}

pub(super) fn feed_in_batches(log: &Log, topic: &str, input: &Input, batch: usize) {
    topic_of_clicks(log, topic, i32::try_from(input.len()).unwrap());
    for (number, records) in (0..).zip(input) {
        for chunk in records.chunks(batch) {
            feed(log, topic, number, chunk);
        }
    }
}

/// Two partitions, each out of order within the bound.
pub(super) fn any_input() -> impl Strategy<Value = Input> {
    let record = (0u8..3, 0i64..6, 0i64..=DISORDER);
    let partition = prop::collection::vec(record, 0..50).prop_map(|steps| {
        let mut newest = 100;
        let mut records = Vec::new();
        for (user, on, behind) in steps {
            newest += on;
            records.push((format!("u{user}"), newest - behind));
        }
        records
    });
    prop::collection::vec(partition, 2)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Both sides are one stream, whose records are together by key: nothing is shuffled a second time.
    #[test]
    fn t11_two_sides_of_one_stream_are_matched_as_by_nested_loops_and_shuffled_once(
        records in any_input(),
        runs in any_runs(),
        is_partitioned in any::<bool>(),
    ) {
        let place = support::Place::new();
        let log = place.log();
        feed_in_batches(&log, "in", &records, 7);
        let itself = |is_endless| {
            let job = Job::new("matching");
            let input = topic::<str>("in");
            let clicks = job
                .source(if is_endless { input } else { input.until_end() })
                .try_map(parse)
                .event_time(|(_, time)| *time, watermarks())
                .key_by(|(user, _)| user.clone());
            let (one, other) = match is_partitioned {
                true => clicks.partitioned("by-user").boxed().tee(),
                false => clicks.boxed().tee(),
            };
            match_both(one, other.boxed());
            job
        };
        let shuffles = itself(true).describe().json().matches("\"shuffle\"").count();
        prop_assert_eq!(shuffles, if is_partitioned { 1 } else { 2 });
        let launch = |is_endless| itself(is_endless).exactly_once(Commit::every(ms(2))).state_partitions(8);
        for (workers, enough) in runs {
            let running = launch(true).workers(workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < enough && begin.elapsed() < ms(5) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(launch(false), &log).unwrap();
        prop_assert_eq!(found(&log), nested_loops(&records, &records));
        prop_assert_eq!(committed(&log, "late"), vec![]);
    }

    #[test]
    fn t10_t11_t15_two_inputs_are_matched_as_by_nested_loops_whatever_runs_them(
        orders in any_input(),
        payments in any_input(),
        runs in any_runs(),
        batch in prop::sample::select(vec![1usize, 7, 4_096]),
        workers in prop::sample::select(vec![1usize, 4]),
    ) {
        let place = support::Place::new();
        let log = place.log();
        feed_in_batches(&log, "orders", &orders, batch);
        feed_in_batches(&log, "payments", &payments, batch);
        for (workers, enough) in runs {
            let running = launch(false).workers(workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < enough && begin.elapsed() < ms(5) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(launch(false).workers(workers), &log).unwrap();
        prop_assert_eq!(found(&log), nested_loops(&orders, &payments));
        prop_assert_eq!(committed(&log, "late"), vec![]);
        for store in ["orders", "payments", "expiry"] {
            let left = committed(&log, &format!("matching-{store}-changelog"));
            if !left.is_empty() {
                prop_assert_eq!(super::support::left_in_store(&log, "matching", store), 0);
            }
        }
    }
}

/// Orders are at 100 and payments at 10: an order waits for payments from 10 on, also after a restart.
#[test]
fn t11_t16_the_slower_input_holds_time_and_goes_on_from_its_own_after_a_restart() {
    let place = support::Place::new();
    let log = place.log();
    let record = |time| ("u".to_owned(), time);
    topic_of_clicks(&log, "orders", 1);
    topic_of_clicks(&log, "payments", 1);
    feed(&log, "orders", 0, &[record(11), record(106)]);
    feed(&log, "payments", 0, &[record(16)]);
    let running = launch(true).workers(2).start(&log).unwrap();
    until("all are read", || running.progress().records == 3);
    wait(running.stop()).unwrap();
    // Payments are at 16 - 6 = 10: one of 12 matches the order of 11, which was not forgotten, and one of 9 is late.
    feed(&log, "payments", 0, &[record(12), record(9), record(99)]);
    run(launch(false).workers(1), &log).unwrap();
    let all = [16, 12, 99].map(record).to_vec();
    let orders = vec![vec![record(11), record(106)]];
    assert_eq!(found(&log), nested_loops(&orders, &vec![all]));
    let late = committed_by_key::<String, String>(&log, "late");
    assert_eq!(
        late,
        BTreeMap::from([("u".to_owned(), vec!["at 9".to_owned()])])
    );
}

/// Values, values in an order, and timers: the whole changelog gives the same as what the local state lacks of it.
#[test]
fn u11_a_full_restore_and_one_of_the_tail_are_the_same_for_each_kind_of_store() {
    let of = |times: std::ops::Range<i64>, users: i64| -> Vec<(String, i64)> {
        let times = times.map(|time| (format!("u{}", time % users), time));
        times.collect()
    };
    for is_wiped in [false, true] {
        let place = support::Place::new();
        let log = place.log();
        let (mut orders, mut payments) = (vec![vec![]], vec![vec![]]);
        for (name, users) in [("orders", 3), ("payments", 4)] {
            topic_of_clicks(&log, name, 1);
            feed(&log, name, 0, &of(0..200, users));
        }
        let running = launch(true).workers(2).start(&log).unwrap();
        until("all are read", || running.progress().records == 400);
        wait(running.stop()).unwrap();
        if is_wiped {
            std::fs::remove_dir_all(place.state_dir("matching")).unwrap();
        }
        for (name, users, input) in [("orders", 3, &mut orders), ("payments", 4, &mut payments)] {
            feed(&log, name, 0, &of(200..300, users));
            input[0] = of(0..300, users);
        }
        run(launch(false).workers(1), &log).unwrap();
        let is_same = found(&log) == nested_loops(&orders, &payments);
        assert!(is_same, "is wiped: {is_wiped}");
        assert_eq!(committed(&log, "late"), vec![]);
    }
}

/// Keys would be looked for in other partitions than those that have them.
#[test]
fn u6_another_number_of_state_partitions_is_refused_by_the_local_state_and_by_the_log() {
    let place = support::Place::new();
    let log = place.log();
    for name in ["orders", "payments"] {
        topic_of_clicks(&log, name, 1);
        feed(&log, name, 0, &[("u".to_owned(), 1)]);
    }
    run(launch(false), &log).unwrap();
    for is_wiped in [false, true] {
        if is_wiped {
            std::fs::remove_dir_all(place.state_dir("matching")).unwrap();
        }
        let error = run(launch(false).state_partitions(4), &log).unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::Setup, "{error}");
        let said = error.to_string();
        assert!(said.contains('8') && said.contains('4'), "{said}");
    }
    run(launch(false), &log).unwrap();
}

/// The child's entry: the tests of this module run it in a process of its own.
#[test]
#[ignore = "the tests of this module start it, in a process that they kill"]
fn matches_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let [workers, is_endless, data] = plan.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("no plan: {plan}")
    };
    let log = open(Path::new(data));
    let job = matching(is_endless == "true").exactly_once(Commit::every(ms(20)));
    let running = job
        .state_partitions(8)
        .workers(workers.parse().unwrap())
        .start(&log)
        .unwrap();
    wait(running.finished()).unwrap();
    log.close().unwrap();
}

const VARIABLE: &str = "ONCEFLOW_MATCHES_CHILD";

fn start(data: &Path, workers: usize, is_endless: bool, failpoint: &str) -> Process {
    let plan = format!("{workers} {is_endless} {}", data.display());
    let test = "time::two_inputs::matches_until_it_is_killed";
    start_child(test, (VARIABLE, &plan), failpoint)
}

/// Orders and payments of a few users, which go on and on.
pub(super) struct Shop {
    state: u64,
    newest: [i64; 4],
    pub(super) orders: Input,
    pub(super) payments: Input,
}

impl Shop {
    pub(super) fn new() -> Self {
        Self {
            state: 7,
            newest: [100, 130, 90, 160],
            orders: vec![vec![]; 2],
            payments: vec![vec![]; 2],
        }
    }

    fn next(&mut self, below: u64) -> i64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.state >> 33) % below).cast_signed()
    }

    pub(super) fn feed(&mut self, log: &Log, count_each: usize) {
        for split in 0..4 {
            let records = self.records(split, count_each);
            let (topic, input) = match split < 2 {
                true => ("orders", &mut self.orders),
                false => ("payments", &mut self.payments),
            };
            feed(log, topic, i32::try_from(split % 2).unwrap(), &records);
            input[split % 2].extend(records);
        }
    }

    fn records(&mut self, split: usize, count: usize) -> Vec<(String, i64)> {
        let mut records = Vec::new();
        for _ in 0..count {
            self.newest[split] += self.next(3);
            let behind = self.next(DISORDER.unsigned_abs() + 1);
            let user = format!("u{}", self.next(9));
            records.push((user, self.newest[split] - behind));
        }
        records
    }

    /// Feeds a log that may fail: only [`read_again`](Self::read_again) says what it took.
    pub(super) fn try_feed(&mut self, log: &Log, count_each: usize) {
        for split in 0..4 {
            let records = self.records(split, count_each);
            let topic = if split < 2 { "orders" } else { "payments" };
            try_feed(log, topic, i32::try_from(split % 2).unwrap(), &records);
        }
    }

    /// Takes note of what the log has of it.
    pub(super) fn read_again(&mut self, log: &Log) {
        for (topic, input) in [
            ("orders", &mut self.orders),
            ("payments", &mut self.payments),
        ] {
            input.iter_mut().for_each(Vec::clear);
            for seen in committed(log, topic) {
                let record = parse(&seen.value::<str>()).unwrap();
                input[usize::try_from(seen.partition).unwrap()].push(record);
            }
        }
    }
}

#[test]
fn c2_c5_c6_c7_t11_t16_two_inputs_are_matched_once_after_a_kill_at_every_failpoint() {
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
        killed += usize::from(process.is_killed_within(Duration::from_millis(600)));
    }
    assert!(killed >= 20, "only {killed} failpoints were met");
    let mut last = start(&data, 2, false, "");
    assert!(last.0.wait().unwrap().success());
    let log = open(&data);
    assert!(
        found(&log) == nested_loops(&shop.orders, &shop.payments),
        "matches are wrong"
    );
    assert_eq!(committed(&log, "late"), vec![]);
    log.close().unwrap();
}

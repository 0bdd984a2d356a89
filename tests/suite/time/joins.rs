//! Joins of two streams within an interval of time, against nested loops over all of both: which results there are, and their order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Running};
use proptest::prelude::*;

use super::support::{
    any_runs, click, feed, left_in_store, ms, parse, topic_of_clicks, watermarks,
};
use super::two_inputs::{Input, Shop, any_input, feed_in_batches};
use crate::jobs::support::{self, committed, committed_by_key, run, until};

/// The kind of a join: whether left and right rows without a match give results, how much older and how much newer than the left row
/// the right one may be (a bound below 0 keeps them apart), and the grace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) left: bool,
    pub(super) right: bool,
    pub(super) before: i64,
    pub(super) after: i64,
    pub(super) grace: i64,
}

impl Kind {
    pub(super) const fn outer(before: i64, after: i64, grace: i64) -> Self {
        Self {
            left: true,
            right: true,
            before,
            after,
            grace,
        }
    }
}

pub(super) fn text(left: Option<&i64>, right: Option<&i64>) -> String {
    let side = |it: Option<&i64>| it.map_or("-".to_owned(), i64::to_string);
    format!("{} {}", side(left), side(right))
}

/// Joins `orders` with `payments`, texts of a user and a time each, into `joined`.
pub(super) fn joining(kind: Kind, watermarks: Watermarks, is_endless: bool) -> Job {
    let job = Job::new("joining");
    let input = |name: &str| {
        let input = topic::<str>(name);
        let input = if is_endless { input } else { input.until_end() };
        job.source(input)
            .try_map(parse)
            .event_time(|(_, time)| *time, watermarks)
            .key_by(|(user, _)| user.clone())
            .map(|(_, time)| *time)
    };
    let millis = |it: i64| ms(it.unsigned_abs());
    let (before, after) = (millis(kind.before), millis(kind.after));
    let joined = input("orders").join("join", input("payments"));
    let joined = match (kind.before < 0, kind.after < 0) {
        (true, _) => joined.after(before, after),
        (_, true) => joined.before(after, before),
        _ => joined.within(before, after),
    };
    let (joined, late_orders, late_payments) = joined.grace(millis(kind.grace)).late();
    late_orders.sink(topic("late-orders"));
    late_payments.sink(topic("late-payments"));
    let joined = match (kind.left, kind.right) {
        (false, false) => joined.inner(|l, r| text(Some(l), Some(r))).boxed(),
        (true, false) => joined.left(|l, r| text(Some(l), r)).boxed(),
        (false, true) => joined.right(|l, r| text(l, Some(r))).boxed(),
        (true, true) => joined.outer(text).boxed(),
    };
    joined.sink(topic("joined"));
    job
}

fn launch(kind: Kind, is_endless: bool) -> Launch {
    joining(kind, watermarks(), is_endless)
        .exactly_once(Commit::every(ms(2)))
        .state_partitions(8)
}

/// The results of each user, in order.
pub(super) type Joined = BTreeMap<String, Vec<String>>;

pub(super) fn found(log: &Log) -> Joined {
    committed_by_key::<String, String>(log, "joined")
}

/// A row: its time, its partition, its place there.
type Row = (i64, usize, usize);

fn rows_by_user(input: &Input) -> BTreeMap<String, Vec<Row>> {
    let mut rows = BTreeMap::<_, Vec<Row>>::new();
    for (partition, records) in input.iter().enumerate() {
        for (offset, (user, time)) in records.iter().enumerate() {
            let of_user = rows.entry(user.clone()).or_default();
            of_user.push((*time, partition, offset));
        }
    }
    rows
}

/// The results by definition, in the order that is promised: a pair when the later of the two comes up, left before right at one time;
/// what has no match when nothing can match it any more.
pub(super) fn nested_loops(kind: Kind, orders: &Input, payments: &Input) -> Joined {
    let (orders, payments) = (rows_by_user(orders), rows_by_user(payments));
    let mut joined = Joined::new();
    for user in orders.keys().chain(payments.keys()) {
        let (of_left, of_right) = (orders.get(user), payments.get(user));
        let left = of_left.map_or(&[][..], Vec::as_slice);
        let right = of_right.map_or(&[][..], Vec::as_slice);
        let is_match = |l: &Row, r: &Row| (-kind.before..=kind.after).contains(&(r.0 - l.0));
        let mut results = Vec::new();
        for l in left {
            for r in right.iter().filter(|r| is_match(l, r)) {
                let (time, side, later, earlier) = match l.0 > r.0 {
                    true => (l.0 + 1, 0, *l, *r),
                    false => (r.0 + 1, 1, *r, *l),
                };
                results.push((
                    (time, 0, side, later, earlier),
                    text(Some(&l.0), Some(&r.0)),
                ));
            }
            if kind.left && !right.iter().any(|r| is_match(l, r)) {
                let closes = l.0 + (kind.after + kind.grace).max(0) + 1;
                results.push(((closes, 1, 0, *l, *l), text(Some(&l.0), None)));
            }
        }
        for r in right {
            if kind.right && !left.iter().any(|l| is_match(l, r)) {
                let closes = r.0 + (kind.before + kind.grace).max(0) + 1;
                results.push(((closes, 1, 1, *r, *r), text(None, Some(&r.0))));
            }
        }
        results.sort();
        if !results.is_empty() {
            let results = results.into_iter().map(|(_, text)| text);
            joined.insert(user.clone(), results.collect());
        }
    }
    joined
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let bound = || prop_oneof![Just(0i64), -15i64..15];
    (any::<bool>(), any::<bool>(), bound(), bound(), 0i64..5).prop_map(
        |(left, right, from, to, grace)| Kind {
            left,
            right,
            before: -from.min(to),
            after: from.max(to),
            grace,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// I16: the same results in the same order for each key, whatever runs the job.
    #[test]
    fn j2_j4_j5_j8_t10_t11_joins_give_what_nested_loops_give_in_one_order_whatever_runs_them(
        orders in any_input(),
        payments in any_input(),
        kind in any_kind(),
        runs in any_runs(),
        batch in prop::sample::select(vec![1usize, 7, 4_096]),
        workers in prop::sample::select(vec![1usize, 4]),
        state_partitions in prop::sample::select(vec![1u16, 8]),
    ) {
        let place = support::Place::new();
        let log = place.log();
        feed_in_batches(&log, "orders", &orders, batch);
        feed_in_batches(&log, "payments", &payments, batch);
        let launch = || launch(kind, false).state_partitions(state_partitions);
        for (workers, enough) in runs {
            let running = launch().workers(workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < enough && begin.elapsed() < ms(5) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(launch().workers(workers), &log).unwrap();
        prop_assert_eq!(found(&log), nested_loops(kind, &orders, &payments));
        prop_assert_eq!(committed(&log, "late-orders"), vec![]);
        prop_assert_eq!(committed(&log, "late-payments"), vec![]);
        for store in ["join-left", "join-right", "join-times"] {
            let is_changed = !committed(&log, &format!("joining-{store}-changelog")).is_empty();
            if is_changed && (kind.left || kind.right) {
                prop_assert_eq!(left_in_store(&log, "joining", store), 0, "{}", store);
            }
        }
    }
}

/// A job whose inputs are in order, one partition each, and fed by hand.
struct ByHand {
    log: Log,
    kind: Kind,
    running: Option<Running>,
    /// Records of each topic.
    fed: BTreeMap<String, i64>,
    /// The topics that had records since the last start.
    moved: BTreeSet<String>,
    _place: support::Place,
}

impl ByHand {
    fn new(kind: Kind) -> Self {
        let place = support::Place::new();
        let log = place.log();
        topic_of_clicks(&log, "orders", 1);
        topic_of_clicks(&log, "payments", 1);
        let mut by_hand = Self {
            log,
            kind,
            running: None,
            fed: BTreeMap::new(),
            moved: BTreeSet::new(),
            _place: place,
        };
        by_hand.start();
        by_hand
    }

    fn launch(&self, is_endless: bool) -> Launch {
        joining(self.kind, Watermarks::default(), is_endless)
            .exactly_once(Commit::every(ms(2)))
            .state_partitions(8)
            .workers(2)
    }

    fn start(&mut self) {
        self.running = Some(self.launch(true).start(&self.log).unwrap());
        self.moved.clear();
    }

    fn restart(&mut self) {
        wait(self.running.take().unwrap().stop()).unwrap();
        self.start();
    }

    /// Feeds records, and waits until they are processed and committed.
    fn feed(&mut self, topic: &str, records: &[(&str, i64)]) {
        let clicks: Vec<_> = records.iter().map(|(user, at)| click(user, *at)).collect();
        feed(&self.log, topic, 0, &clicks);
        *self.fed.entry(topic.to_owned()).or_default() += i64::try_from(records.len()).unwrap();
        self.moved.insert(topic.to_owned());
        let expected: i64 = self.moved.iter().map(|topic| self.fed[topic]).sum();
        let running = self.running.as_ref().unwrap();
        until("all are committed", || {
            let positions = running.positions();
            positions.values().map(|it| it.0).sum::<i64>() == expected
        });
    }

    /// Lets both inputs come to a time.
    fn reach(&mut self, time: i64) {
        self.feed("orders", &[("other", time)]);
        self.feed("payments", &[("other", time)]);
    }

    fn results(&self) -> Vec<String> {
        found(&self.log).remove("u").unwrap_or_default()
    }

    fn late(&self, topic: &str) -> usize {
        committed(&self.log, topic).len()
    }

    /// Runs to the end of both inputs.
    fn end(mut self) -> Vec<String> {
        wait(self.running.take().unwrap().stop()).unwrap();
        run(self.launch(false), &self.log).unwrap();
        self.results()
    }
}

/// KAFKA-19536: an order that is out of order, within the grace, waits for its window and the grace.
#[test]
fn j1_a_row_that_is_late_within_the_grace_is_not_given_without_a_match_that_still_comes() {
    let mut job = ByHand::new(Kind::outer(10, 10, 20));
    job.reach(16);
    job.feed("orders", &[("u", 5)]);
    job.reach(35);
    assert_eq!(job.results(), Vec::<String>::new());
    // 15 is behind 35 by the whole grace.
    job.feed("payments", &[("u", 15)]);
    assert_eq!(job.results(), ["5 15"]);
    job.reach(100);
    assert_eq!(job.end(), ["5 15"]);
}

#[test]
fn j1_what_has_no_match_is_given_once_and_not_before_its_window_and_the_grace_are_over() {
    let mut job = ByHand::new(Kind::outer(10, 10, 20));
    job.feed("orders", &[("u", 5)]);
    job.reach(35);
    assert_eq!(job.results(), Vec::<String>::new());
    job.reach(36);
    assert_eq!(job.results(), ["5 -"]);
    job.restart();
    job.reach(200);
    assert_eq!(job.end(), ["5 -"]);
}

#[test]
fn j3_t8_what_is_behind_the_grace_is_late_and_joins_nothing_also_after_a_restart() {
    for is_restarted in [false, true] {
        let mut job = ByHand::new(Kind::outer(10, 10, 2));
        job.feed("payments", &[("u", 14)]);
        job.reach(16);
        if is_restarted {
            job.restart();
        }
        job.feed("orders", &[("u", 13), ("u", 14), ("u", 16)]);
        job.feed("payments", &[("u", 5)]);
        let late = (job.late("late-orders"), job.late("late-payments"));
        assert_eq!(late, (1, 1), "is restarted: {is_restarted}");
        assert_eq!(job.end(), ["14 14", "16 14"]);
    }
}

#[test]
fn j4_a_match_that_goes_first_leaves_no_row_without_one() {
    let mut job = ByHand::new(Kind::outer(0, 50, 0));
    job.feed("orders", &[("u", 1)]);
    job.feed("payments", &[("u", 3)]);
    job.reach(20);
    // The payment found orders up to its own time only, and is gone.
    job.restart();
    job.reach(100);
    assert_eq!(job.results(), ["1 3"]);
    assert_eq!(job.end(), ["1 3"]);
}

#[test]
fn j5_a_row_that_comes_and_is_closed_in_one_step_gives_its_result() {
    let mut job = ByHand::new(Kind::outer(3, 3, 0));
    job.feed("payments", &[("other", 900)]);
    job.feed("orders", &[("u", 1), ("u", 2), ("other", 1_000)]);
    assert_eq!(job.end(), ["1 -", "2 -"]);
}

#[test]
fn j2_bounds_are_those_of_the_right_record_seen_from_the_left_one() {
    let table: [(i64, i64, &[i64]); 6] = [
        (0, 0, &[20]),
        (10, 0, &[10, 15, 20]),
        (0, 10, &[20, 25, 30]),
        (4, 5, &[20, 25]),
        (-5, 10, &[25, 30]),
        (10, -5, &[10, 15]),
    ];
    for (before, after, expected) in table {
        let kind = Kind {
            left: false,
            right: false,
            ..Kind::outer(before, after, 0)
        };
        let place = support::Place::new();
        let log = place.log();
        let payments = [9, 10, 15, 20, 25, 30, 31].map(|time| click("u", time));
        feed_in_batches(&log, "orders", &vec![vec![click("u", 20)]], 1);
        feed_in_batches(&log, "payments", &vec![payments.to_vec()], 7);
        run(launch(kind, false), &log).unwrap();
        let expected: Vec<_> = expected.iter().map(|it| format!("20 {it}")).collect();
        assert_eq!(found(&log)["u"], expected, "{before} before, {after} after");
    }
}

#[test]
fn rows_that_wait_are_counted_and_gone_when_time_has_passed() {
    let mut job = ByHand::new(Kind::outer(10, 10, 0));
    let times: Vec<_> = (0..100).map(|n| ("u", n)).collect();
    job.feed("orders", &times);
    let sizes = |job: &ByHand| job.running.as_ref().unwrap().progress().stores;
    until("all rows are counted", || {
        sizes(&job)["join-left"].rows_in_memory == 100
    });
    assert!(sizes(&job)["join-left"].memory_bytes > 2_000);
    job.reach(200);
    // What is deleted is counted until the next flush.
    until("only those that brought time are left", || {
        job.feed("orders", &[("other", 200)]);
        let rows = |store: &str| sizes(&job)[store].rows_in_memory;
        let waiting = usize::try_from(rows("join-left")).unwrap();
        waiting + 100 <= usize::try_from(job.fed["orders"]).unwrap() && rows("join-right") <= 1
    });
}

#[test]
fn what_an_inner_join_may_still_match_stays_when_the_input_ends() {
    let kind = Kind {
        left: false,
        right: false,
        ..Kind::outer(10, 10, 0)
    };
    let place = support::Place::new();
    let log = place.log();
    for name in ["orders", "payments"] {
        topic_of_clicks(&log, name, 1);
    }
    feed(&log, "orders", 0, &[click("u", 5)]);
    run(launch(kind, false), &log).unwrap();
    feed(&log, "payments", 0, &[click("u", 15), click("u", 16)]);
    run(launch(kind, false), &log).unwrap();
    assert_eq!(found(&log)["u"], ["5 15"]);
}

#[test]
fn u7_a_join_that_was_renamed_keeps_its_rows_and_its_time() {
    let place = support::Place::new();
    let log = place.log();
    for name in ["orders", "payments"] {
        topic_of_clicks(&log, name, 1);
    }
    let launch = |name: &str, was: &str| {
        let job = Job::new("renaming");
        let input = |topic_name: &str| {
            job.source(topic::<str>(topic_name).until_end())
                .try_map(parse)
                .event_time(|(_, time)| *time, watermarks())
                .key_by(|(user, _)| user.clone())
                .map(|(_, time)| *time)
        };
        let joined = input("orders").join(name, input("payments"));
        joined
            .within(ms(10), ms(10))
            .inner(|l, r| text(Some(l), Some(r)))
            .was(was)
            .sink(topic("joined"));
        job.exactly_once(Commit::every(ms(2))).state_partitions(8)
    };
    feed(&log, "orders", 0, &[click("u", 5)]);
    run(launch("first", "first"), &log).unwrap();
    feed(&log, "payments", 0, &[click("u", 15)]);
    run(launch("second", "first"), &log).unwrap();
    assert_eq!(found(&log)["u"], ["5 15"]);
}

#[test]
fn records_of_one_origin_and_time_are_all_joined() {
    let place = support::Place::new();
    let log = place.log();
    let job = Job::new("copies");
    let copies = || {
        let timed = job
            .source(values("n", [7u64]))
            .event_time(|_| 5, Watermarks::default());
        timed.flat_map_into(|n| [*n; 3]).key_by(|n| *n)
    };
    let others = job
        .source(values("m", [7u64]))
        .event_time(|_| 6, Watermarks::default());
    let others = others.key_by(|n| *n);
    copies()
        .join("join", others)
        .within(ms(1), ms(1))
        .inner(|a, b| a + b)
        .sink(topic("joined"));
    run(job.exactly_once(Commit::every(ms(2))), &log).unwrap();
    assert_eq!(committed_by_key::<u64, u64>(&log, "joined")[&7], [14; 3]);
}

/// SPARK-40925, FLINK-8482: the results of a join are in time for the step behind it, also those without a match.
#[test]
fn j9_t12_nothing_that_a_join_gives_is_late_for_a_window_behind_it() {
    let place = support::Place::new();
    let log = place.log();
    let mut shop = Shop::new();
    for name in ["orders", "payments"] {
        topic_of_clicks(&log, name, 2);
    }
    shop.feed(&log, 300);
    let kind = Kind::outer(4, 9, 3);
    let job = Job::new("behind");
    let input = |name: &str| {
        job.source(topic::<str>(name).until_end())
            .try_map(parse)
            .event_time(|(_, time)| *time, watermarks())
            .key_by(|(user, _)| user.clone())
            .map(|(_, time)| *time)
    };
    let (counts, late) = input("orders")
        .join("join", input("payments"))
        .within(ms(4), ms(9))
        .grace(ms(3))
        .outer(text)
        .window(FixedWindows::tumbling(ms(5)))
        .late();
    late.sink(topic("late"));
    counts.count("counts").sink(topic("counts"));
    run(job.exactly_once(Commit::every(ms(2))).workers(3), &log).unwrap();
    assert_eq!(committed(&log, "late"), vec![]);
    let counts = committed(&log, "counts").into_iter();
    let counted: u64 = counts.map(|it| it.value::<u64>()).sum();
    let expected = nested_loops(kind, &shop.orders, &shop.payments);
    let expected: usize = expected.values().map(Vec::len).sum();
    assert_eq!(counted, expected as u64);
}

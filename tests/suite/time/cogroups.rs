//! Any number of inputs in one aggregate, against totals by hand.

use std::collections::BTreeMap;
use std::time::Instant;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Upstream};
use proptest::prelude::*;

use super::support::{any_runs, ms, parse, watermarks};
use super::two_inputs::{Input, any_input, feed_in_batches};
use crate::jobs::support::{self, committed, committed_by_key, run};

const NAMES: [&str; 3] = ["orders", "payments", "notes"];
const LENGTH: i64 = 20;

/// Number of orders, the sum of the times of payments, the letters of notes.
type Account = (u64, i64, u64);

fn add_order(account: &mut Account, _: &i64) {
    account.0 += 1;
}

fn add_payment(account: &mut Account, (_, time): &(bool, i64)) {
    account.1 += time;
}

fn add_note(account: &mut Account, text: &str) {
    account.2 += text.len() as u64;
}

fn merge(account: &mut Account, other: &Account) {
    let (orders, paid, letters) = *account;
    *account = (orders + other.0, paid + other.1, letters + other.2);
}

fn input(job: &Job, name: &str) -> Keyed<String, i64, impl Upstream<String, i64> + use<>> {
    job.source(topic::<str>(name).until_end())
        .try_map(parse)
        .event_time(|(_, time)| *time, watermarks())
        .key_by(|(user, _)| user.clone())
        .map(|(_, time)| *time)
}

/// The three inputs, each of its own type, in one account of a user, and in accounts of windows.
fn accounting() -> Job {
    let job = Job::new("accounting");
    let (orders, orders_in_windows) = input(&job, "orders").tee();
    let (payments, payments_in_windows) = input(&job, "payments").map(|it| (true, *it)).tee();
    let (notes, notes_in_windows) = input(&job, "notes").map(i64::to_string).tee();
    orders
        .cogroup(add_order)
        .and("with-payments", payments, add_payment)
        .and("with-notes", notes, |account, text: &String| {
            add_note(account, text)
        })
        .aggregate("accounts", Account::default)
        .changes()
        .sink(topic("accounts"));
    orders_in_windows
        .cogroup(add_order)
        .and("windows-with-payments", payments_in_windows, add_payment)
        .and(
            "windows-with-notes",
            notes_in_windows,
            |account, text: &String| {
                add_note(account, text);
            },
        )
        .window_aggregate(
            "windows",
            FixedWindows::tumbling(ms(LENGTH.unsigned_abs())),
            Account::default,
            merge,
        )
        .sink(topic("windows"));
    job
}

fn launch() -> Launch {
    let launch = accounting().exactly_once(Commit::every(ms(2)));
    launch.state_partitions(8)
}

/// The accounts of a place, such as a user, or a user and a window.
fn by_hand<P: Ord>(inputs: &[Input; 3], place: impl Fn(&str, i64) -> P) -> BTreeMap<P, Account> {
    let mut accounts = BTreeMap::new();
    for (number, input) in inputs.iter().enumerate() {
        for (user, time) in input.iter().flatten() {
            let account = accounts.entry(place(user, *time)).or_default();
            match number {
                0 => add_order(account, time),
                1 => add_payment(account, &(true, *time)),
                _ => add_note(account, &time.to_string()),
            }
        }
    }
    accounts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_inputs_are_in_one_account_of_each_key_and_of_each_window_whatever_runs_the_job(
        inputs in [any_input(), any_input(), any_input()],
        runs in any_runs(),
        batch in prop::sample::select(vec![1usize, 7, 4_096]),
        workers in prop::sample::select(vec![1usize, 4]),
    ) {
        let place = support::Place::new();
        let log = place.log();
        for (name, input) in NAMES.iter().zip(&inputs) {
            feed_in_batches(&log, name, input, batch);
        }
        for (workers, enough) in runs {
            let running = launch().workers(workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < enough && begin.elapsed() < ms(5) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        run(launch().workers(workers), &log).unwrap();
        let changes = committed_by_key::<String, Account>(&log, "accounts");
        let count: usize = inputs.iter().flatten().map(Vec::len).sum();
        prop_assert_eq!(changes.values().map(Vec::len).sum::<usize>(), count);
        let last = changes.into_iter().map(|(user, it)| (user, *it.last().unwrap()));
        let last: BTreeMap<String, Account> = last.collect();
        prop_assert_eq!(last, by_hand(&inputs, |user, _| user.to_owned()));
        let windows = committed(&log, "windows").into_iter().map(|seen| {
            let key = seen.key::<Windowed<String>>();
            ((key.key.clone(), key.window.start.0), seen.value::<Account>())
        });
        let windows: Vec<_> = windows.collect();
        let found: BTreeMap<_, _> = windows.iter().cloned().collect();
        prop_assert_eq!(found.len(), windows.len());
        let start = |time: i64| time.div_euclid(LENGTH) * LENGTH;
        prop_assert_eq!(found, by_hand(&inputs, |user, time| (user.to_owned(), start(time))));
    }
}

/// Each input has a shuffle, one that is together by key already has none, and behind them there is none.
#[test]
fn each_input_of_a_cogroup_is_shuffled_once_or_not_at_all() {
    let job = Job::new("once");
    let orders = input(&job, "orders").partitioned("together");
    orders
        .cogroup(add_order)
        .and(
            "first",
            input(&job, "payments").map(|it| (true, *it)),
            add_payment,
        )
        .and("second", input(&job, "notes"), |account, _| account.2 += 1)
        .aggregate("accounts", Account::default)
        .changes()
        .sink(topic("accounts"));
    let graph = job.describe().to_string();
    assert_eq!(graph.matches("shuffle").count(), 3, "{graph}");
}

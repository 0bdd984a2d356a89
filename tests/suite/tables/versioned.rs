//! Versions of keys, as of any time of their history: in whichever order they come, over restarts, beside a plain program.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{QueryError, Running};
use onceflow::types::Timestamp;
use proptest::prelude::*;

use super::support::{feed_at, input, make_topic_of_even_keys};
use crate::jobs::support::{OFTEN, Place, until};

/// A change of a key at a time.
type Change = (i64, u64, Option<u64>);

fn start(log: &Log, history_millis: u64) -> Running {
    let job = Job::new("versioned");
    input(&job, "in", true)
        .versioned("prices", Duration::from_millis(history_millis))
        .map(|version| *version)
        .sink(topic::<u64>("versions").as_option());
    let launch = job.exactly_once(Commit::every(OFTEN)).workers(2);
    launch.start(log).unwrap()
}

/// Something at a time, for no key of the tests: the time of the job goes on to it, and is committed.
fn tell_time(log: &Log, time: i64) {
    feed_at(log, "in", Timestamp(time), &[(1_000, None)]);
}

/// Feeds changes, one after the other, and starts the job, which has read and committed all then.
fn run(log: &Log, history_millis: u64, changes: &[Change]) -> Running {
    for (time, key, value) in changes {
        feed_at(log, "in", Timestamp(*time), &[(*key, *value)]);
    }
    let running = start(log, history_millis);
    let count = changes.len() as u64;
    until("all are read", || running.progress().records == count);
    let commits = running.commits();
    tell_time(log, changes.iter().map(|it| it.0).max().unwrap_or(0));
    until("they are committed", || {
        running.progress().records > count && running.commits() > commits
    });
    running
}

fn as_of(running: &Running, key: u64, time: i64) -> Result<Option<u64>, QueryError> {
    let prices = running.query().versions::<u64, u64>("prices").unwrap();
    wait(prices.as_of(&key, Timestamp(time))).map(|answer| answer.value)
}

fn history(running: &Running, key: u64) -> Vec<(i64, Option<u64>)> {
    let prices = running.query().versions::<u64, u64>("prices").unwrap();
    let all = Timestamp(i64::MIN)..Timestamp(i64::MAX);
    let versions = wait(prices.history(&key, all, 1_000)).unwrap().value;
    versions
        .into_iter()
        .map(|(time, value)| (time.0, value))
        .collect()
}

fn is_gone(answer: &Result<Option<u64>, QueryError>) -> bool {
    matches!(answer, Err(QueryError::BeforeHistory { .. }))
}

#[test]
fn j11_j12_j13_j18_j20_a_key_has_the_version_of_each_time_of_its_history_and_no_older_one() {
    let place = Place::new();
    let log = place.log();
    make_topic_of_even_keys(&log, "in");
    let changes = [
        (1, 2, Some(10)),
        (4, 2, Some(40)),
        // Out of order, and a second one of its time, which counts.
        (2, 2, Some(20)),
        (2, 2, Some(21)),
        (5, 4, Some(50)),
        (7, 4, None),
    ];
    let running = run(&log, 100, &changes);
    let of = |key| {
        (0..=8)
            .map(|time| as_of(&running, key, time).unwrap())
            .collect::<Vec<_>>()
    };
    let (a, b, d) = (Some(10), Some(21), Some(40));
    assert_eq!(of(2), [None, a, b, b, d, d, d, d, d]);
    let (none, e) = (None, Some(50));
    assert_eq!(of(4), [none, none, none, none, none, e, e, none, none]);
    wait(running.stop()).unwrap();
    // Time goes on to 200: the history begins at 100, and the last version before that stays, a deletion does not.
    let running = run(&log, 100, &[(200, 6, Some(1))]);
    until("what was superseded is gone", || {
        tell_time(&log, 200);
        history(&running, 2) == [(4, Some(40))] && is_gone(&as_of(&running, 2, 3))
    });
    assert_eq!(history(&running, 4), []);
    assert_eq!(as_of(&running, 2, 1_000).unwrap(), Some(40));
    assert_eq!(as_of(&running, 2, 50).unwrap(), Some(40));
    assert!(is_gone(&as_of(&running, 4, 6)));
    assert_eq!(as_of(&running, 4, 120).unwrap(), None);
    wait(running.stop()).unwrap();
    // Where the history begins is state: what is older is ignored in a later run, too.
    let running = run(&log, 100, &[(90, 2, Some(90)), (150, 8, Some(8))]);
    assert_eq!(running.progress().left_out_records, 1);
    assert_eq!(as_of(&running, 2, 1_000).unwrap(), Some(40));
    assert_eq!(as_of(&running, 8, 150).unwrap(), Some(8));
    wait(running.stop()).unwrap();
    // A longer history brings nothing back, and takes nothing that is older than what there was.
    let running = run(&log, 1_000, &[(90, 4, Some(90)), (110, 4, Some(110))]);
    assert_eq!(running.progress().left_out_records, 1);
    assert_eq!(history(&running, 4), [(110, Some(110))]);
    assert!(is_gone(&as_of(&running, 4, 99)));
    assert_eq!(as_of(&running, 4, 109).unwrap(), None);
    wait(running.stop()).unwrap();
}

fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    let key = (0u64..4).prop_map(|key| key * 2);
    let change = (0i64..60, key, prop::option::weighted(0.75, 0u64..100));
    prop::collection::vec(change, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn j11_j12_j13_versions_are_those_of_a_plain_program_whatever_runs_it(
        changes in any_changes(),
        cuts in prop::collection::vec(0usize..60, 0..3),
        history_millis in prop::sample::select(vec![1u64, 10, 30, 1_000]),
    ) {
        let place = Place::new();
        let log = place.log();
        make_topic_of_even_keys(&log, "in");
        let mut cuts: Vec<_> = cuts.into_iter().map(|it| it.min(changes.len())).collect();
        cuts.sort_unstable();
        let (mut done, mut running) = (0, None::<Running>);
        for cut in cuts.into_iter().chain([changes.len()]) {
            if let Some(running) = running.take() {
                wait(running.stop()).unwrap();
            }
            running = Some(run(&log, history_millis, &changes[done..cut]));
            done = cut;
        }
        let running = running.unwrap();
        // What was not ignored is in the topic, in its order.
        let mut tables = BTreeMap::<u64, BTreeMap<i64, Option<u64>>>::new();
        for seen in crate::jobs::support::committed(&log, "versions") {
            let value = seen.value.is_some().then(|| seen.value::<u64>());
            tables.entry(seen.key::<u64>()).or_default().insert(seen.timestamp.0, value);
        }
        let latest = changes.iter().map(|it| it.0).max().unwrap();
        let begin = latest - i64::try_from(history_millis).unwrap();
        for key in [0, 2, 4, 6] {
            let versions = tables.remove(&key).unwrap_or_default();
            for time in begin.max(0)..70 {
                let expected = versions.range(..=time).next_back().and_then(|it| *it.1);
                prop_assert_eq!(as_of(&running, key, time).unwrap(), expected, "{} as of {}", key, time);
            }
        }
        // Of what is older there is one version of each key at most.
        let older = |key| history(&running, key).into_iter().filter(|it| it.0 < begin - 1).count();
        until("what was superseded is gone", || {
            tell_time(&log, latest);
            [0, 2, 4, 6].into_iter().all(|key| older(key) <= 1)
        });
        wait(running.stop()).unwrap();
    }
}

#[test]
fn j18_a_join_that_takes_versions_that_are_later_than_their_history_is_refused() {
    let place = Place::new();
    let log = place.log();
    let launch = |grace: u64| {
        let job = Job::new("priced");
        let prices = input(&job, "prices", true)
            .versioned("prices", Duration::from_millis(100))
            .filter(|version| version.is_none_or(|it| it > 0));
        job.keyed_source(keyed_topic::<u64, u64>("orders"))
            .join_as_of("priced", prices)
            .grace(Duration::from_millis(grace))
            .inner(|pieces, cents| pieces * cents)
            .sink(topic("out"));
        job.exactly_once(Commit::every(OFTEN))
    };
    let refused = launch(101).start(&log).err().unwrap().to_string();
    assert!(
        refused.contains("\"prices\"") && refused.contains("100ms"),
        "{refused}"
    );
    wait(launch(100).start(&log).unwrap().stop()).unwrap();
}

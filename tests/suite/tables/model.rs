//! Joins, groups and filters of tables over random changes, against maps of the last values.

use std::time::{Duration, Instant};

use onceflow::client::wait;
use onceflow::prelude::*;
use proptest::prelude::*;

use super::support::{Entry, Kind, check, feed, job, make_topic};
use crate::jobs::support::{Place, run};

fn any_changes() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (0u64..6, prop::option::weighted(0.75, 0u64..20));
    prop::collection::vec(entry, 0..60)
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::Inner, Kind::Left, Kind::Outer])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each change says the value before it, or sums and deletions would be wrong.
    #[test]
    fn j6_j8_what_is_made_of_tables_is_made_of_their_last_values_whatever_runs_it(
        left in any_changes(),
        right in any_changes(),
        kind in any_kind(),
        runs in prop::collection::vec((1usize..5, 0u64..60), 0..3),
        workers in prop::sample::select(vec![1usize, 4]),
    ) {
        let place = Place::new();
        let log = place.log();
        make_topic(&log, "left");
        make_topic(&log, "right");
        let launch = || job(kind, false).exactly_once(Commit::every(Duration::from_millis(2))).state_partitions(8);
        let half = (left.len() / 2, right.len() / 2);
        feed(&log, "left", &left[..half.0]);
        feed(&log, "right", &right[..half.1]);
        for (workers, enough) in runs {
            let running = launch().workers(workers).start(&log).unwrap();
            let begin = Instant::now();
            while running.commits() < enough && begin.elapsed() < Duration::from_millis(5) {
                std::thread::yield_now();
            }
            wait(running.stop()).unwrap();
        }
        feed(&log, "left", &left[half.0..]);
        feed(&log, "right", &right[half.1..]);
        run(launch().workers(workers), &log).unwrap();
        check(&log, kind, &left, &right);
    }
}

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

const JOBS: u64 = 40;
/// Keys of each table of a job: `JOBS * KEYS` cases.
const KEYS: u64 = 256;
const CHANGES: usize = 1_500;

/// A case is a key of a random job, with changes of its own on both sides.
#[test]
fn j6_j7_j8_j15_ten_thousand_keys_of_two_tables_are_joined_grouped_and_found_by_their_last_values()
{
    for seed in 0..JOBS {
        let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % bound
        };
        let mut changes = || -> Vec<Entry> {
            // Some values are foreign keys that the other table has, some are not.
            let range = [10, 300, 2_000][usize::try_from(below(3)).unwrap()];
            let change = |_| (below(KEYS), (below(4) > 0).then(|| below(range)));
            (0..CHANGES).map(change).collect()
        };
        let (left, right) = (changes(), changes());
        let place = Place::new();
        let log = place.log();
        for topic in ["left", "right"] {
            make_topic(&log, topic);
        }
        let kind = [Kind::Inner, Kind::Left, Kind::Outer][usize::try_from(seed % 3).unwrap()];
        let launch = || {
            let launch = job(kind, false).exactly_once(Commit::every(Duration::from_millis(2)));
            launch.state_partitions(if seed % 2 == 0 { 8 } else { 1 })
        };
        // In parts, so that each table changes under rows of the other that are committed.
        let parts = 1 + usize::try_from(below(3)).unwrap();
        let size = CHANGES.div_ceil(parts);
        for (left, right) in left.chunks(size).zip(right.chunks(size)) {
            feed(&log, "left", left);
            feed(&log, "right", right);
            let workers = 1 + usize::try_from(below(4)).unwrap();
            run(launch().workers(workers), &log).unwrap();
        }
        println!("job {seed}: {kind:?}, {parts} parts");
        check(&log, kind, &left, &right);
    }
}

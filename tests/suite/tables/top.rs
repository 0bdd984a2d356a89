//! The first values of groups, change by change: who is in the list, in which order, and who never comes back.

use std::collections::BTreeMap;

use onceflow::prelude::*;
use proptest::prelude::*;

use super::support::{Entry, feed, input, make_topic};
use crate::jobs::support::{OFTEN, Place, committed, run};

/// Points, and whose they are.
type Points = (u64, u64);
/// The lists of the greatest and of the least values, in the order in which they were written.
type Lists = (Vec<Option<Vec<Points>>>, Vec<Option<Vec<u64>>>);

/// A job that is run again and again. All keys are in one partition and in one group, and one worker has them all, so that changes have
/// one order.
struct World {
    log: Log,
    place: Place,
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        let log = place.log();
        make_topic(&log, "scores");
        Self { log, place }
    }

    /// Feeds changes of even keys, and runs the job until all are read.
    fn run(&self, changes: &[Entry]) {
        feed(&self.log, "scores", changes);
        let job = Job::new("games");
        let (best, least) = input(&job, "scores", false).to_table("scores").tee();
        best.group_by(|player, points| (0u64, (*points, *player)))
            .top_n("best", 3, |(points, _)| *points)
            .changes()
            .sink(topic::<Vec<Points>>("best").as_option());
        // Players of the same points are one value that is there several times.
        let least = least
            .group_by(|_, points| (0u64, *points))
            .bottom_n("least", 3, |points| *points);
        // Who asks for old values gets those before, too.
        let (least, sums) = least.tee();
        least.changes().sink(topic::<Vec<u64>>("least").as_option());
        sums.group_by(|_, list| (0u64, list.iter().sum::<u64>()))
            .aggregate("sum", || 0u64, |sum, it| *sum += it, |sum, it| *sum -= it)
            .changes()
            .sink(topic::<u64>("sum").as_option());
        run(job.exactly_once(Commit::every(OFTEN)).workers(1), &self.log).unwrap();
    }

    fn lists(&self) -> Lists {
        let best = committed(&self.log, "best").into_iter();
        let least = committed(&self.log, "least").into_iter();
        (
            best.map(|it| it.value.is_some().then(|| it.value::<Vec<Points>>()))
                .collect(),
            least
                .map(|it| it.value.is_some().then(|| it.value::<Vec<u64>>()))
                .collect(),
        )
    }
}

/// The lists by a plain program that sorts all that there is after each change.
fn expected(changes: &[Entry]) -> Lists {
    let (mut table, mut lists) = (BTreeMap::new(), Lists::default());
    let (mut best_before, mut least_before) = (vec![], vec![]);
    for (player, points) in changes {
        match points {
            Some(points) => drop(table.insert(*player, *points)),
            None => drop(table.remove(player)),
        }
        let mut best: Vec<Points> = table
            .iter()
            .map(|(player, points)| (*points, *player))
            .collect();
        best.sort_unstable_by(|a, b| b.cmp(a));
        best.truncate(3);
        let mut least: Vec<u64> = table.values().copied().collect();
        least.sort_unstable();
        least.truncate(3);
        if best != best_before {
            lists
                .0
                .push(Some(best.clone()).filter(|list| !list.is_empty()));
        }
        if least != least_before {
            lists
                .1
                .push(Some(least.clone()).filter(|list| !list.is_empty()));
        }
        (best_before, least_before) = (best, least);
    }
    lists
}

#[test]
fn j19_a_value_that_fell_out_and_was_deleted_never_comes_back_and_one_that_is_there_does() {
    let world = World::new();
    let all = [
        (2, Some(10)),
        (4, Some(20)),
        (6, Some(30)),
        // Beyond: 2 falls out, 8 is better.
        (8, Some(40)),
        // Who fell out is deleted, and then all who are better go: only who is there comes back.
        (10, Some(5)),
        (2, None),
        (8, None),
        (6, None),
        // The same value again is no change, also of one that is not in the list.
        (10, Some(5)),
        (4, Some(20)),
        // A deletion that comes twice takes nothing out.
        (8, None),
        (4, None),
        (10, None),
        (12, Some(1)),
    ];
    let (before, after) = all.split_at(6);
    world.run(before);
    world.run(after);
    assert_eq!(world.lists(), expected(&all));
    let last = world.lists().0.pop().unwrap();
    assert_eq!(last, Some(vec![(1, 12)]));
    drop(world.place);
}

#[test]
fn j19_values_that_are_there_twice_are_in_the_list_twice() {
    let world = World::new();
    let all = [
        (2, Some(7)),
        (4, Some(7)),
        (6, Some(7)),
        (8, Some(7)),
        (10, Some(9)),
        (2, None),
        (4, None),
        (6, Some(8)),
        (8, None),
    ];
    world.run(&all);
    let least = world.lists().1;
    let list = |list: &[u64]| Some(list.to_vec());
    let expected = [
        list(&[7]),
        list(&[7, 7]),
        list(&[7, 7, 7]),
        list(&[7, 7, 9]),
        list(&[7, 8, 9]),
        list(&[8, 9]),
    ];
    assert_eq!(least, expected);
}

#[test]
#[should_panic(expected = "ask \"best\" for one at least")]
fn a_list_of_no_values_is_refused() {
    let job = Job::new("games");
    let scores = job.table("scores", keyed_topic::<u64, u64>("scores"));
    scores
        .group_by(|_, points| (0u64, *points))
        .top_n("best", 0, |points| *points)
        .materialize();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn j19_lists_are_those_of_a_plain_program_after_each_change_over_restarts(
        changes in prop::collection::vec(
            ((0u64..8).prop_map(|key| key * 2), prop::option::weighted(0.7, 0u64..6)),
            0..120,
        ),
        cuts in prop::collection::vec(0usize..120, 0..3),
    ) {
        let world = World::new();
        let mut done = 0;
        let mut cuts = cuts;
        cuts.sort_unstable();
        for cut in cuts.into_iter().chain([changes.len()]) {
            let end = cut.min(changes.len());
            world.run(&changes[done..end.max(done)]);
            done = end.max(done);
        }
        prop_assert_eq!(world.lists(), expected(&changes));
        let sum = committed(&world.log, "sum").pop().map(|it| it.value.is_some().then(|| it.value::<u64>()));
        let least = world.lists().1.pop().flatten();
        prop_assert_eq!(sum.flatten(), least.map(|list| list.iter().sum::<u64>()));
    }
}

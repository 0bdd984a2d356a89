//! Joins by foreign key, change by change: what is shown, when, and how often.

use std::collections::BTreeMap;

use onceflow::prelude::*;
use onceflow::types::Timestamp;

use super::support::{Entry, feed, feed_at, input, make_topic, written};
use crate::jobs::support::{OFTEN, Place, committed, run};

/// The foreign key of a value is all but its last digit; 9 at the end says that there is none.
fn foreign_key(value: &u64) -> Option<u64> {
    (value % 10 != 9).then_some(value / 10)
}

/// A job that is run again and again.
struct World {
    place: Place,
    log: Log,
    /// Changes of each key that were seen, of the inner join and of the left one.
    seen: [BTreeMap<u64, usize>; 2],
}

impl World {
    fn new() -> Self {
        let place = Place::new();
        let log = place.log();
        make_topic(&log, "left");
        make_topic(&log, "right");
        let seen = Default::default();
        Self { place, log, seen }
    }

    /// Runs the job until all is read; returns what it wrote since the last time, of the inner join and of the left one.
    fn run(&mut self) -> (Vec<Entry>, Vec<Entry>) {
        let job = Job::new("foreign");
        let (inner, left) = input(&job, "left", false).to_table("left").tee();
        let (of_inner, of_left) = input(&job, "right", false).to_table("right").tee();
        inner
            .join_on("inner", of_inner, foreign_key, |l, r| l * 1_000 + r)
            .changes()
            .sink(topic::<u64>("inner").as_option());
        left.left_join_on("left-on", of_left, foreign_key, |l, r| {
            l * 1_000 + r.copied().unwrap_or(0)
        })
        .changes()
        .sink(topic::<u64>("outer").as_option());
        run(job.exactly_once(Commit::every(OFTEN)).workers(3), &self.log).unwrap();
        let [inner, outer] = &mut self.seen;
        (
            not_seen(written(&self.log, "inner"), inner),
            not_seen(written(&self.log, "outer"), outer),
        )
    }

    fn left(&mut self, entries: &[Entry]) -> (Vec<Entry>, Vec<Entry>) {
        feed(&self.log, "left", entries);
        self.run()
    }

    fn right(&mut self, entries: &[Entry]) -> (Vec<Entry>, Vec<Entry>) {
        feed(&self.log, "right", entries);
        self.run()
    }
}

/// The changes of each key beyond those that were seen.
fn not_seen(written: Vec<Entry>, seen: &mut BTreeMap<u64, usize>) -> Vec<Entry> {
    let mut counts = BTreeMap::<u64, usize>::new();
    let mut entries = written;
    entries.retain(|(key, _)| {
        let count = counts.entry(*key).or_default();
        *count += 1;
        *count > seen.get(key).copied().unwrap_or(0)
    });
    *seen = counts;
    entries
}

fn same(entries: &[Entry]) -> (Vec<Entry>, Vec<Entry>) {
    (entries.to_vec(), entries.to_vec())
}

#[test]
fn j15_another_foreign_key_is_one_change_and_a_deletion_is_one() {
    let mut world = World::new();
    assert_eq!(world.right(&[(1, Some(7)), (2, Some(8))]), same(&[]));
    assert_eq!(world.left(&[(5, Some(10))]), same(&[(5, Some(10_007))]));
    // To one that exists: one change, and no deletion in between.
    assert_eq!(world.left(&[(5, Some(20))]), same(&[(5, Some(20_008))]));
    // Another value with the same foreign key.
    assert_eq!(world.left(&[(5, Some(21))]), same(&[(5, Some(21_008))]));
    // To one that does not exist.
    let missing = (vec![(5, None)], vec![(5, Some(30_000))]);
    assert_eq!(world.left(&[(5, Some(30))]), missing);
    // From one that does not exist to another such.
    assert_eq!(
        world.left(&[(5, Some(40))]),
        (vec![], vec![(5, Some(40_000))])
    );
    // To none.
    assert_eq!(
        world.left(&[(5, Some(19))]),
        (vec![], vec![(5, Some(19_000))])
    );
    assert_eq!(world.left(&[(5, Some(10))]), same(&[(5, Some(10_007))]));
    assert_eq!(world.left(&[(5, None)]), same(&[(5, None)]));
    assert_eq!(world.left(&[(5, None)]), same(&[]));
    // Nothing of it is left: the right side's changes find nobody.
    assert_eq!(world.right(&[(1, Some(9)), (2, None)]), same(&[]));
    drop(world.place);
}

#[test]
fn j15_a_change_on_the_right_reaches_every_row_that_has_the_key_once() {
    let mut world = World::new();
    let rows: Vec<Entry> = (0..300).map(|key| (key, Some(10))).collect();
    let alone = rows.iter().map(|(key, _)| (*key, Some(10_000)));
    let (inner, mut outer) = world.left(&rows);
    outer.sort_unstable();
    assert_eq!((inner, outer), (vec![], alone.collect()));
    for (right, shown) in [(Some(1), 10_001), (Some(2), 10_002)] {
        let (mut inner, mut outer) = world.right(&[(1, right)]);
        inner.sort_unstable();
        outer.sort_unstable();
        let expected: Vec<Entry> = (0..300).map(|key| (key, Some(shown))).collect();
        assert_eq!(inner, expected);
        assert_eq!(outer, expected);
    }
    let (mut inner, outer) = world.right(&[(1, None)]);
    inner.sort_unstable();
    assert!(
        inner
            .iter()
            .map(|(key, value)| (*key, *value))
            .eq((0..300).map(|key| (key, None)))
    );
    assert_eq!(outer.len(), 300);
    assert!(outer.iter().all(|(_, value)| *value == Some(10_000)));
}

/// Results of a key have the latest time of what they were made of, and the deletion of one, too.
#[test]
fn j16_the_time_of_a_result_never_goes_back() {
    let mut world = World::new();
    let times = |world: &World| {
        let seen = committed(&world.log, "inner");
        seen.iter().map(|it| it.timestamp).collect::<Vec<_>>()
    };
    feed_at(&world.log, "left", Timestamp(100), &[(5, Some(10))]);
    world.run();
    feed_at(&world.log, "right", Timestamp(2_000), &[(1, Some(7))]);
    world.run();
    feed_at(&world.log, "left", Timestamp(1_000), &[(5, None)]);
    world.run();
    assert_eq!(times(&world), [Timestamp(2_000), Timestamp(2_000)]);
}

/// Who reports to whom: a table joined with itself by a foreign key.
#[test]
fn j15_a_table_is_joined_with_itself_by_a_foreign_key() {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "people");
    let launch = || {
        let job = Job::new("people");
        let (people, bosses) = input(&job, "people", false).to_table("people").tee();
        people
            .left_join_on("with-boss", bosses, foreign_key, |own, boss| {
                own * 1_000 + boss.copied().unwrap_or(0)
            })
            .changes()
            .sink(topic::<u64>("with-boss").as_option());
        job.exactly_once(Commit::every(OFTEN)).workers(2)
    };
    // 1 is the boss of all, and of himself.
    feed(
        &log,
        "people",
        &[(1, Some(11)), (2, Some(12)), (3, Some(23))],
    );
    run(launch(), &log).unwrap();
    let last = || super::support::last(&written(&log, "with-boss"));
    let expected = [(1, 11_011), (2, 12_011), (3, 23_012)];
    assert!(last().into_iter().eq(expected));
    feed(&log, "people", &[(2, Some(39)), (1, None)]);
    run(launch(), &log).unwrap();
    assert!(last().into_iter().eq([(2, 39_000), (3, 23_039)]));
}

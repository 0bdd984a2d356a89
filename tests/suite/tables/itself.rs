//! Tables joined with themselves, and with what is made of them by steps that call one another.

use std::collections::BTreeMap;

use onceflow::prelude::*;
use onceflow::runtime::{Boxed, Change, Deletes};

use super::support::{Entry, both, changes, feed, input, last, make_topic, written};
use crate::jobs::support::{OFTEN, Place, run};

type Numbers = Table<u64, u64, Boxed<u64, Change<u64>>, Deletes>;

/// Runs a table that `join` joins with something of its own; returns the changes, and the sum of the values of that.
fn run_joined(changes: &[Entry], join: impl Fn(Numbers, Numbers) -> Numbers) -> (Vec<Entry>, u64) {
    let place = Place::new();
    let log = place.log();
    make_topic(&log, "in");
    for half in [&changes[..changes.len() / 2], &changes[changes.len() / 2..]] {
        feed(&log, "in", half);
        let job = Job::new("itself");
        let (one, other) = input(&job, "in", false).to_table("numbers").tee();
        let (joined, sums) = join(one, other).tee();
        joined.changes().sink(topic::<u64>("out").as_option());
        sums.group_by(|_, value| (0u64, *value))
            .aggregate("sum", || 0, |sum, it| *sum += it, |sum, it| *sum -= it)
            .changes()
            .sink(topic::<u64>("sum").as_option());
        run(job.exactly_once(Commit::every(OFTEN)).workers(2), &log).unwrap();
    }
    let sum = last(&written(&log, "sum")).get(&0).copied().unwrap_or(0);
    (written(&log, "out"), sum)
}

fn inner(left: &u64, right: &u64) -> u64 {
    both(Some(left), Some(right))
}

/// Checks the last results, their sum, and that no key is deleted where it is not, or given without a reason.
fn check(out: &[Entry], sum: u64, expected: &BTreeMap<u64, u64>) {
    assert_eq!(last(out), *expected);
    assert_eq!(sum, expected.values().sum::<u64>());
    let mut there = BTreeMap::new();
    for (key, value) in out {
        let before = there.insert(*key, *value).flatten();
        assert!(
            before.is_some() || value.is_some(),
            "{key} is deleted twice"
        );
    }
}

#[test]
fn j6_a_table_joined_with_itself_by_its_own_key_has_both_values_whatever_kind_it_is() {
    let changes = changes(&mut 3, 200);
    let table = last(&changes);
    let of_all = |join: &dyn Fn(&u64) -> u64| table.iter().map(|(k, v)| (*k, join(v))).collect();
    let same = of_all(&|v| inner(v, v));
    let (out, sum) = run_joined(&changes, |one, it| one.join("twice", it, inner).tee().0);
    check(&out, sum, &same);
    let (out, sum) = run_joined(&changes, |one, it| {
        let twice = one.left_join("twice", it, |l, r| both(Some(l), r));
        twice.tee().0
    });
    check(&out, sum, &same);
    let (out, sum) = run_joined(&changes, |one, it| {
        one.outer_join("twice", it, both).tee().0
    });
    check(&out, sum, &same);
    // Beside a table that lacks some of its keys.
    let (out, sum) = run_joined(&changes, |one, it| {
        let odd = it.filter(|value| value % 2 == 1);
        odd.outer_join("twice", one, both).tee().0
    });
    let odd = |v: &u64| both(Some(v).filter(|it| *it % 2 == 1), Some(v));
    check(&out, sum, &of_all(&odd));
}

/// A change of a value is one on each side; a new key and a deletion are one change each of what both sides must have.
#[test]
fn j6_a_change_that_reaches_both_sides_is_told_side_by_side() {
    let changes = [
        (1, Some(5)),
        (1, Some(6)),
        (1, None),
        (1, None),
        (1, Some(7)),
    ];
    let (out, _) = run_joined(&changes, |one, it| one.join("twice", it, inner).tee().0);
    let values: Vec<_> = out.iter().map(|(_, value)| *value).collect();
    assert_eq!(
        values,
        [Some(5_005), Some(6_005), Some(6_006), None, Some(7_007)]
    );
}

/// The other side has the change in a store of its own, before the join is told of either.
#[test]
fn j6_a_table_is_joined_with_one_that_its_own_changes_make() {
    let changes = changes(&mut 4, 200);
    let table = last(&changes);
    let doubled: BTreeMap<_, _> = table
        .iter()
        .map(|(k, v)| (*k, inner(v, &(v * 2))))
        .collect();
    for is_first in [true, false] {
        let (out, sum) = run_joined(&changes, |one, other| {
            let (one, other) = if is_first { (one, other) } else { (other, one) };
            let doubled = other.changes().map(|value| value.map(|it| it * 2));
            one.join("twice", doubled.to_table("doubled"), inner)
                .tee()
                .0
        });
        check(&out, sum, &doubled);
    }
}

/// A row whose foreign key changes shows what it showed before until it is answered, also to who has its new value already.
#[test]
fn j6_j15_a_table_is_joined_with_a_join_of_its_own_by_foreign_key() {
    let changes = changes(&mut 5, 200);
    let table = last(&changes);
    let boss = |value: &u64| (value % 5 != 4).then_some(value % 40);
    let with_boss = |value: &u64| both(Some(value), boss(value).and_then(|it| table.get(&it)));
    let expected: BTreeMap<_, _> = table
        .iter()
        .map(|(k, v)| (*k, inner(v, &with_boss(v))))
        .collect();
    for is_first in [true, false] {
        let (out, sum) = run_joined(&changes, |one, other| {
            let (own, other) = if is_first { (one, other) } else { (other, one) };
            let (people, bosses) = other.tee();
            let with_boss = people.left_join_on("boss", bosses, boss, |l, r| both(Some(l), r));
            own.join("twice", with_boss, inner).tee().0
        });
        check(&out, sum, &expected);
    }
}

//! Changes of two tables, how they are fed, and a job that joins, groups and filters them.

use std::collections::BTreeMap;

use onceflow::client::wait;
use onceflow::codec::Datum;
use onceflow::internals::protocol::batch::BatchProducer;
use onceflow::internals::protocol::messages::{Acks, ProduceRequest};
use onceflow::prelude::*;
use onceflow::runtime::{Boxed, Change, Deletes, Upstream};
use onceflow::types::{Timestamp, TopicName, TopicPartition};

use crate::jobs::support::{committed, decode};
use crate::support::records::batch_at;

/// A key, and its new value or none.
pub(super) type Entry = (u64, Option<u64>);
/// The last values of a table.
pub(super) type Last = BTreeMap<u64, u64>;

pub(super) const PARTITIONS: i32 = 2;

pub(super) fn make_topic(log: &Log, topic: &str) {
    let topic = TopicName::new(topic).unwrap();
    wait(log.admin().create_topic(&topic, PARTITIONS)).unwrap();
}

/// A topic of one partition, which has the even keys: the time of the job is that of its records.
pub(super) fn make_topic_of_even_keys(log: &Log, topic: &str) {
    let topic = TopicName::new(topic).unwrap();
    wait(log.admin().create_topic(&topic, 1)).unwrap();
}

/// Appends changes, those of a key to one partition, in their order.
pub(super) fn feed(log: &Log, topic: &str, entries: &[Entry]) {
    feed_at(log, topic, log.env().clock.wall(), entries);
}

/// The same, as of a time.
pub(super) fn feed_at(log: &Log, topic: &str, time: Timestamp, entries: &[Entry]) {
    assert!(append(log, topic, time, entries), "{topic}");
}

/// The same, where it may fail.
pub(super) fn try_feed(log: &Log, topic: &str, entries: &[Entry]) -> bool {
    append(log, topic, log.env().clock.wall(), entries)
}

fn append(log: &Log, topic: &str, time: Timestamp, entries: &[Entry]) -> bool {
    for partition in 0..PARTITIONS {
        let own = entries.iter();
        let own = own.filter(|(key, _)| key % 2 == u64::from(partition.unsigned_abs()));
        let line = |(key, value): &Entry| match value {
            Some(value) => format!("{key} {value}"),
            None => format!("{key} -"),
        };
        let lines: Vec<String> = own.map(line).collect();
        if lines.is_empty() {
            continue;
        }
        let request = ProduceRequest {
            partition: TopicPartition::new(TopicName::new(topic).unwrap(), partition),
            records: batch_at(time, BatchProducer::Plain, &lines).into(),
            acks: Acks::Leader,
            transactional_id: None,
        };
        if wait(log.transport().produce(request)).is_err() {
            return false;
        }
    }
    true
}

pub(super) fn parse(line: &str) -> Result<Entry, String> {
    let (key, value) = line.split_once(' ').ok_or("no value")?;
    let key = key.parse().map_err(|e| format!("{key:?}: {e}"))?;
    Ok((key, value.parse().ok()))
}

/// The changes in a topic, by key.
pub(super) fn input(job: &Job, topic: &str, is_endless: bool) -> Keyed<u64, Option<u64>> {
    let input = onceflow::runtime::topic::<str>(topic);
    let input = if is_endless { input } else { input.until_end() };
    let parsed = job.source(input).try_map(parse).key_by(|(key, _)| *key);
    parsed.map(|(_, value)| *value).boxed()
}

/// Kind of a join of two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Inner,
    Left,
    Outer,
}

/// Combines the values of a key: none is a hundred.
pub(super) fn both(left: Option<&u64>, right: Option<&u64>) -> u64 {
    left.map_or(100, |it| *it) * 1_000 + right.map_or(100, |it| *it)
}

/// The foreign key of a left value, in the table of `right`.
pub(super) fn foreign_key(value: &u64) -> Option<u64> {
    (value % 5 != 4).then(|| value % 7)
}

/// Joins a table with its own even values into `twice`; puts the sums of that by the remainder of a division by 3 into `twice-sums`.
fn join_with_itself(kind: Kind, table: Table<u64, u64, Boxed<u64, Change<u64>>, Deletes>) {
    let (all, even) = table.tee();
    let even = even.filter(|value| value % 2 == 0);
    let twice = join(kind, "twice", all, even);
    let (twice, sums) = twice.tee();
    twice.changes().sink(topic::<u64>("twice").as_option());
    sums.group_by(|_, value| (value % 3, *value))
        .aggregate(
            "twice-sums",
            || 0,
            |sum, it| *sum += it,
            |sum, it| *sum -= it,
        )
        .changes()
        .sink(topic::<u64>("twice-sums").as_option());
}

/// The list of the greatest values, with their keys, or of the least ones.
pub(super) type List = Vec<(u64, u64)>;

/// Puts the three greatest values by the remainder of a division of their keys by 3 into `tops`, and the four least remainders of a division
/// of values by 4, of which there are many, by that of their keys by 2, into `bottoms`.
fn give_first_values(table: Table<u64, u64, Boxed<u64, Change<u64>>, Deletes>) {
    let (tops, bottoms) = table.tee();
    tops.group_by(|key, value| (key % 3, (*value, *key)))
        .top_n("tops", 3, |(value, _)| *value)
        .changes()
        .sink(topic::<List>("tops").as_option());
    bottoms
        .group_by(|key, value| (key % 2, (value % 4, 0)))
        .bottom_n("bottoms", 4, |(rest, _)| *rest)
        .changes()
        .sink(topic::<List>("bottoms").as_option());
}

/// Computes the lists of both.
fn first_values(table: &Last) -> [(&'static str, BTreeMap<u64, List>); 2] {
    let (mut tops, mut bottoms) = (BTreeMap::<u64, List>::new(), BTreeMap::<u64, List>::new());
    for (key, value) in table {
        tops.entry(key % 3).or_default().push((*value, *key));
        bottoms.entry(key % 2).or_default().push((value % 4, 0));
    }
    for list in tops.values_mut() {
        list.sort_unstable_by(|a, b| b.cmp(a));
        list.truncate(3);
    }
    for list in bottoms.values_mut() {
        list.sort_unstable();
        list.truncate(4);
    }
    [("tops", tops), ("bottoms", bottoms)]
}

/// The last lists that were written.
fn last_lists(log: &Log, topic: &str) -> BTreeMap<u64, List> {
    let mut last = BTreeMap::new();
    for seen in committed(log, topic) {
        let key = seen.key::<u64>();
        match seen.value.is_some() {
            true => drop(last.insert(key, seen.value::<List>())),
            false => drop(last.remove(&key)),
        }
    }
    last
}

/// Joins two tables, one way or another.
fn join<U: Upstream<u64, Change<u64>>, W: Upstream<u64, Change<u64>>>(
    kind: Kind,
    name: &str,
    left: Table<u64, u64, U, Deletes>,
    right: Table<u64, u64, W, Deletes>,
) -> Table<u64, u64, Boxed<u64, Change<u64>>, Deletes> {
    match kind {
        Kind::Inner => {
            left.join(name, right, |l, r| both(Some(l), Some(r)))
                .tee()
                .0
        }
        Kind::Left => left.left_join(name, right, |l, r| both(Some(l), r)).tee().0,
        Kind::Outer => left.outer_join(name, right, both).tee().0,
    }
}

/// Joins the tables of `left` and `right` into `joined`, and by foreign key into `on-inner` and `on-left`; puts the values of that that are even into `even`, half of each into `halves`,
/// their sums by the remainder of a division by 3 into `sums`, and how many there are into `counts`.
pub(super) fn job(kind: Kind, is_endless: bool) -> Job {
    let job = Job::new("tables");
    let left = input(&job, "left", is_endless).to_table("left");
    // A table that is there twice is joined as one that is there once.
    let (left, copied) = left.tee();
    let (copied, looked_up) = copied.tee();
    let (copied, itself) = copied.tee();
    let (copied, by_foreign_key) = copied.tee();
    let (copied, twice) = copied.tee();
    join_with_itself(kind, twice);
    let (copied, firsts) = copied.tee();
    give_first_values(firsts);
    copied
        .changes()
        .sink(topic::<u64>("left-copied").as_option());
    // J17: a change that is looked up in its own table finds itself.
    itself
        .changes()
        .join_table("itself", looked_up, |change, value| *change == Some(*value))
        .sink(topic("itself"));
    let right = input(&job, "right", is_endless).to_table("right");
    let (right, foreign) = right.tee();
    let (inner, outer) = foreign.tee();
    let (on_inner, on_left) = by_foreign_key.tee();
    on_inner
        .join_on("on-inner", inner, foreign_key, |l, r| {
            both(Some(l), Some(r))
        })
        .changes()
        .sink(topic::<u64>("on-inner").as_option());
    let on_left = on_left.left_join_on("on-left", outer, foreign_key, |l, r| both(Some(l), r));
    let (on_left, counted) = on_left.tee();
    on_left.changes().sink(topic::<u64>("on-left").as_option());
    counted
        .group_by(|_, value| (value % 3, *value))
        .aggregate("on-sums", || 0, |sum, it| *sum += it, |sum, it| *sum -= it)
        .changes()
        .sink(topic::<u64>("on-sums").as_option());
    let (joined, rest) = join(kind, "joined", left, right).tee();
    let (even, rest) = rest.tee();
    let (halves, rest) = rest.tee();
    let (sums, counts) = rest.tee();
    let to = |name: &str| topic::<u64>(name).as_option();
    joined.changes().sink(to("joined"));
    even.filter(|value| value % 2 == 0)
        .changes()
        .sink(to("even"));
    halves
        .map_values(|value| value / 2)
        .changes()
        .sink(to("halves"));
    sums.group_by(|_, value| (value % 3, *value))
        .aggregate("sums", || 0, |sum, it| *sum += it, |sum, it| *sum -= it)
        .changes()
        .sink(to("sums"));
    counts
        .group_by(|key, value| (value % 2, *key))
        .count("counts")
        .changes()
        .sink(to("counts"));
    job
}

/// Changes of a few keys, about every fifth of which is a deletion.
pub(super) fn changes(state: &mut u64, count: usize) -> Vec<Entry> {
    let mut next = |below: u64| {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (*state >> 33) % below
    };
    let entries = (0..count).map(|_| {
        let (key, is_deleted) = (next(40), next(5) == 0);
        (key, (!is_deleted).then(|| next(50)))
    });
    entries.collect()
}

/// The last values of changes.
pub(super) fn last(changes: &[Entry]) -> Last {
    let mut last = Last::new();
    for (key, value) in changes {
        match value {
            Some(value) => drop(last.insert(*key, *value)),
            None => drop(last.remove(key)),
        }
    }
    last
}

/// The changes that a job wrote.
pub(super) fn written(log: &Log, topic: &str) -> Vec<Entry> {
    let change = |seen: crate::jobs::support::Seen| {
        let value = seen.value.as_deref().map(decode::<u64>);
        (decode::<u64>(seen.key.as_deref().unwrap()), value)
    };
    committed(log, topic).into_iter().map(change).collect()
}

/// A key is deleted where it is, and once.
fn check_deletions(topic: &str, changes: &[Entry]) {
    let mut there = BTreeMap::new();
    for (number, (key, value)) in changes.iter().enumerate() {
        let was_there = there.insert(*key, value.is_some()).unwrap_or(false);
        assert!(
            was_there || value.is_some(),
            "{topic}: change {number} deletes {key}, which is not there"
        );
    }
}

/// Both tables, joined by foreign key.
fn joined_on(left: &Last, right: &Last, is_inner: bool) -> Last {
    let rows = left.iter().filter_map(|(key, value)| {
        let found = foreign_key(value).and_then(|it| right.get(&it));
        let is_there = found.is_some() || !is_inner;
        is_there.then(|| (*key, both(Some(value), found)))
    });
    rows.collect()
}

/// Both tables, joined by their own keys.
fn joined(kind: Kind, left: &Last, right: &Last) -> Last {
    let mut joined = Last::new();
    for key in left.keys().chain(right.keys()) {
        let (l, r) = (left.get(key), right.get(key));
        let is_there = match kind {
            Kind::Inner => l.is_some() && r.is_some(),
            Kind::Left => l.is_some(),
            Kind::Outer => true,
        };
        if is_there {
            joined.insert(*key, both(l, r));
        }
    }
    joined
}

/// The content that the topics of the job are to have, by the last values of both tables.
pub(super) fn expected(kind: Kind, left: &Last, right: &Last) -> [(&'static str, Last); 11] {
    let joined = joined(kind, left, right);
    let even = left.iter().filter(|(_, value)| *value % 2 == 0);
    let even = even.map(|(key, value)| (*key, *value)).collect();
    let twice = self::joined(kind, left, &even);
    let mut counts = Last::new();
    for value in joined.values() {
        *counts.entry(value % 2).or_default() += 1;
    }
    let sums = |table: &Last| {
        let mut sums = Last::new();
        for value in table.values() {
            *sums.entry(value % 3).or_default() += value;
        }
        sums
    };
    let on_left = joined_on(left, right, false);
    let all = || joined.iter().map(|(key, value)| (*key, *value));
    [
        ("left-copied", left.clone()),
        ("even", all().filter(|(_, value)| value % 2 == 0).collect()),
        (
            "halves",
            all().map(|(key, value)| (key, value / 2)).collect(),
        ),
        ("sums", sums(&joined)),
        ("counts", counts),
        ("on-inner", joined_on(left, right, true)),
        ("on-sums", sums(&on_left)),
        ("on-left", on_left),
        ("joined", joined),
        ("twice-sums", sums(&twice)),
        ("twice", twice),
    ]
}

/// Whether the lists are out.
pub(super) fn are_lists_out(log: &Log, left: &Last) -> bool {
    let mut all = first_values(left).into_iter();
    all.all(|(topic, expected)| last_lists(log, topic) == expected)
}

/// Checks all that the job wrote against the last values of both tables.
pub(super) fn check(log: &Log, kind: Kind, left: &[Entry], right: &[Entry]) {
    let set_count = left.iter().filter(|(_, value)| value.is_some()).count();
    let itself = values_of::<bool>(log, "itself");
    assert_eq!(itself.len(), set_count, "lookups of what is there");
    assert!(
        itself.iter().all(|is_same| *is_same),
        "a lookup found another value"
    );
    for (topic, expected) in expected(kind, &last(left), &last(right)) {
        let written = written(log, topic);
        check_deletions(topic, &written);
        assert_eq!(last(&written), expected, "{topic}");
    }
    for (topic, expected) in first_values(&last(left)) {
        assert_eq!(last_lists(log, topic), expected, "{topic}");
    }
}

/// The values of a topic, by a key of any type.
pub(super) fn values_of<V: Datum + ?Sized>(log: &Log, topic: &str) -> Vec<V::Owned> {
    let seen = committed(log, topic);
    seen.iter().map(|it| it.value::<V>()).collect()
}

//! Every operator end to end, alone and behind one another.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use onceflow::prelude::*;

use super::support::{
    AT_THE_END, OFTEN, Place, committed, committed_by_key, committed_values, run, words,
};

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort();
    values
}

/// Runs `build` on the numbers 0 to 99; returns the topic `out`.
fn out_of<V: onceflow::codec::Datum + ?Sized>(build: impl FnOnce(Stream<u64>)) -> Vec<V::Owned>
where
    V::Owned: Ord,
{
    let place = Place::new();
    let log = place.log();
    let job = Job::new("operators");
    build(job.source(values("n", 0..100u64)).boxed());
    run(job.exactly_once(Commit::every(OFTEN)).workers(2), &log).unwrap();
    sorted(committed_values::<V>(&log, "out"))
}

#[test]
fn map_filter_and_inspect_see_every_record_once() {
    let sum = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sum);
    let out = out_of::<u64>(move |numbers| {
        numbers
            .map(|n: &u64| n * 3)
            .filter(|n| n % 2 == 0)
            .inspect(move |n| {
                seen.fetch_add(*n, Ordering::Relaxed);
            })
            .sink(topic("out"));
    });
    let expected: Vec<u64> = (0..100).map(|n| n * 3).filter(|n| n % 2 == 0).collect();
    assert_eq!(sum.load(Ordering::Relaxed), expected.iter().sum::<u64>());
    assert_eq!(out, expected);
}

#[test]
fn try_map_passes_on_what_succeeds() {
    let out = out_of::<u64>(|numbers| {
        numbers
            .map(|n: &u64| n.to_string())
            .try_map(|text: &String| text.parse::<u64>())
            .sink(topic("out"));
    });
    assert_eq!(out, (0..100).collect::<Vec<_>>());
}

#[expect(clippy::ptr_arg, reason = "the stream's values are `String`")]
fn words_of(line: &String) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

#[test]
fn the_three_flat_maps_give_the_same() {
    let expected: Vec<String> = sorted(
        (0..100)
            .flat_map(|n| [n.to_string(), "x".to_owned()])
            .collect(),
    );
    let borrowed = out_of::<str>(|numbers| {
        numbers
            .map(|n: &u64| format!("{n} x"))
            .flat_map(words_of)
            .sink(topic("out"));
    });
    let owned = out_of::<String>(|numbers| {
        numbers
            .flat_map_into(|n: &u64| vec![n.to_string(), "x".to_owned()])
            .sink(topic("out"));
    });
    let collected = out_of::<str>(|numbers| {
        numbers
            .flat_map_with(|n: &u64, out: &mut Collector<'_, str>| {
                out.collect(&n.to_string());
                out.collect("x");
            })
            .sink(topic("out"));
    });
    assert_eq!(
        (borrowed, owned, collected),
        (expected.clone(), expected.clone(), expected)
    );
}

#[test]
fn branch_parts_tee_doubles_and_merge_joins() {
    let out = out_of::<u64>(|numbers| {
        let (even, odd) = numbers.branch(|n| n % 2 == 0);
        let (once, twice) = even.tee();
        let odd = odd.map(|n: &u64| n + 1000);
        once.merge(twice.map(|n: &u64| n + 100))
            .boxed()
            .merge(odd)
            .sink(topic("out"));
    });
    let even = (0..100).step_by(2);
    let expected = even
        .clone()
        .chain(even.map(|n| n + 100))
        .chain((1..100).step_by(2).map(|n| n + 1000));
    assert_eq!(out, sorted(expected.collect()));
}

#[test]
fn a_dropped_branch_does_not_hold_up_the_other() {
    let out = out_of::<u64>(|numbers| {
        let (small, _) = numbers.branch(|n| *n < 5);
        small.sink(topic("out"));
    });
    assert_eq!(out, [0, 1, 2, 3, 4]);
}

#[test]
fn reduce_and_aggregate_give_every_change_of_every_key() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("folds");
    let (left, right) = job.source(values("n", 0..100u64)).key_by(|n| n % 7).tee();
    left.reduce("sums", |sum, n| *sum += n)
        .changes()
        .sink(topic("sums"));
    right
        .aggregate("lists", Vec::new, |list: &mut Vec<u64>, n| list.push(*n))
        .changes()
        .sink(topic("lists"));
    run(job.exactly_once(Commit::every(OFTEN)).workers(3), &log).unwrap();
    let (mut sums, mut lists) = (
        BTreeMap::<u64, Vec<u64>>::new(),
        BTreeMap::<u64, Vec<Vec<u64>>>::new(),
    );
    for n in 0..100u64 {
        let sums = sums.entry(n % 7).or_default();
        sums.push(sums.last().unwrap_or(&0) + n);
        let lists = lists.entry(n % 7).or_default();
        let list = lists.last().cloned().unwrap_or_default();
        lists.push([list, vec![n]].concat());
    }
    assert_eq!(committed_by_key::<u64, u64>(&log, "sums"), sums);
    assert_eq!(committed_by_key::<u64, Vec<u64>>(&log, "lists"), lists);
}

#[test]
fn changes_per_commit_gives_the_last_change_of_each_key() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("parity");
    let counts = job
        .source(values("n", 0..101u64))
        .key_by(|n| n % 2)
        .count("counts");
    counts.changes_per_commit().sink(topic("counts"));
    run(job.exactly_once(Commit::every(AT_THE_END)), &log).unwrap();
    let counts = committed_by_key::<u64, u64>(&log, "counts");
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [(0, vec![51]), (1, vec![50])]
    );
}

#[test]
fn two_keyed_stages_count_the_counts() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("stages");
    let by_count = job
        .source(values("n", 0..60u64))
        .key_by(|n| n % 10)
        .count("counts")
        .changes()
        .unkeying_operator(|_| Ok(Values))
        .key_by(|count: &u64| *count)
        .count("counts-of-counts");
    by_count.changes().sink(topic("out"));
    run(job.exactly_once(Commit::every(OFTEN)).workers(2), &log).unwrap();
    // Ten keys go through each of the counts 1 to 6.
    let expected = (1..=6u64).map(|count| (count, (1..=10u64).collect::<Vec<_>>()));
    assert_eq!(
        committed_by_key::<u64, u64>(&log, "out"),
        expected.collect()
    );
}

/// Takes the key away.
struct Values;

impl<K: ?Sized, V: ?Sized> Operator<K, V> for Values {
    type OutKey = Unkeyed;
    type Out = V;

    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<Unkeyed, V>) -> Flow {
        out.push(record.with_key(onceflow::runtime::Key::none()))
    }
}

/// Passes on each value the first time its key is seen, and forgets the key at the third: a store that also deletes.
struct FirstOfThree {
    seen: KeyValueStore<u64>,
}

impl<K: ?Sized, V: ?Sized> Operator<K, V> for FirstOfThree {
    type OutKey = K;
    type Out = V;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, K, V>, out: &mut impl Output<K, V>) -> Flow {
        let seen = self.seen.update(record.key, |seen| {
            let count = seen.take().unwrap_or(0) + 1;
            *seen = (count < 3).then_some(count);
            count
        })?;
        if seen == 1 { out.push(record) } else { Ok(()) }
    }
}

#[test]
fn process_keeps_its_store_across_runs() {
    let place = Place::new();
    // Line n is word n % 5; each run reads some more.
    let mut all = String::new();
    for (run_number, workers) in [2, 1, 3].into_iter().enumerate() {
        for n in 0..17 {
            all.push_str(&format!("w{}\n", (run_number * 17 + n) % 5));
        }
        let path = place.file("in", &all);
        let log = place.log();
        let job = Job::new("thirds");
        job.source(lines([&path]))
            .key_by_ref(|line: &str| line)
            .with_store::<u64>("seen")
            .process("thirds", |context| {
                Ok(FirstOfThree {
                    seen: context.store("seen")?,
                })
            })
            .sink(topic("out"));
        run(
            job.exactly_once(Commit::every(OFTEN)).workers(workers),
            &log,
        )
        .unwrap();
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for line in all.lines() {
            *expected.entry(line.to_owned()).or_default() += 1;
        }
        let seen = committed_by_key::<str, str>(&log, "out");
        let counts = seen.into_iter().map(|(word, values)| (word, values.len()));
        let thirds = expected
            .into_iter()
            .map(|(word, count)| (word, count.div_ceil(3)));
        assert_eq!(counts.collect::<Vec<_>>(), thirds.collect::<Vec<_>>());
        log.close().unwrap();
    }
}

#[test]
fn several_sources_are_merged_and_several_sinks_are_of_one_transaction() {
    let place = Place::new();
    let log = place.log();
    super::support::fill_topic(&log, "in", 3, &["t1", "t2", "t3", "t4", "t5"]);
    let path = place.file("book", "l1 l2\nl3\n");
    let called = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&called);
    let job = Job::new("several");
    let from_topic = job.source(topic::<str>("in").until_end());
    let from_file = job.source(lines([&path])).flat_map(words);
    let (all, copy) = from_topic.merge(from_file).boxed().tee();
    let (left, right) = all.branch(|word| word.starts_with('t'));
    left.sink(topic("topics"));
    right
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("lines"));
    copy.sink(at_least_once(move |record: Record<'_, Unkeyed, str>| {
        calls.lock().unwrap().push(record.value.to_owned());
    }));
    run(job.exactly_once(Commit::every(AT_THE_END)).workers(2), &log).unwrap();
    assert_eq!(
        sorted(committed_values::<str>(&log, "topics")),
        ["t1", "t2", "t3", "t4", "t5"]
    );
    let lines = committed_by_key::<str, u64>(&log, "lines");
    assert_eq!(lines.into_keys().collect::<Vec<_>>(), ["l1", "l2", "l3"]);
    let called = sorted(called.lock().unwrap().clone());
    assert_eq!(called, ["l1", "l2", "l3", "t1", "t2", "t3", "t4", "t5"]);
}

#[test]
fn a_keyed_topic_is_read_with_the_keys_it_was_written_with() {
    let place = Place::new();
    let log = place.log();
    let write = Job::new("write");
    write
        .source(values("n", 0..30u64))
        .key_by(|n| n % 3)
        .sink(topic("keyed").codec(Json));
    run(write.exactly_once(Commit::every(OFTEN)), &log).unwrap();
    let read = Job::new("read");
    read.keyed_source(keyed_topic::<u64, u64>("keyed").codec(Json).until_end())
        .filter(|n| *n >= 3)
        .map(|n: &u64| n * 2)
        .reduce("sums", |sum, n| *sum += n)
        .changes_per_commit()
        .sink(topic("sums"));
    run(read.exactly_once(Commit::every(AT_THE_END)), &log).unwrap();
    let sums = committed_by_key::<u64, u64>(&log, "sums");
    let expected =
        (0..3u64).map(|k| (k, vec![(3..30).filter(|n| n % 3 == k).map(|n| n * 2).sum()]));
    assert_eq!(sums, expected.collect());
    // Without keys the same topic is its values.
    assert_eq!(committed(&log, "keyed").len(), 30);
}

/// Claims to keep the key, and does not.
struct Liar;

impl Operator<u64, u64> for Liar {
    type OutKey = u64;
    type Out = u64;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, u64, u64>, out: &mut impl Output<u64, u64>) -> Flow {
        out.push(Record {
            key: onceflow::runtime::Key::new(b"another"),
            ..record
        })
    }
}

#[test]
fn an_operator_that_says_it_keeps_the_key_and_does_not_stops_the_job() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("liar");
    job.source(values("n", 0..10u64))
        .key_by(|n| n % 3)
        .operator(|_| Ok(Liar))
        .sink(topic("out"));
    let stopped = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
    assert!(stopped.to_string().contains("KEEPS_KEY"), "{stopped}");
    assert!(committed(&log, "out").is_empty());
}

/// A store is opened and nothing else is said of it; a filter stands in front; the results are several a record.
#[test]
fn a_function_with_state_finds_it_again_after_a_restart_whatever_stands_in_front() {
    let place = Place::new();
    for (run_number, workers) in [2, 1, 3].into_iter().enumerate() {
        let log = place.log();
        let job = Job::new("totals");
        let n = run_number as u64;
        job.source(values(&format!("run-{n}"), 0..30u64))
            .key_by(|n| n % 3)
            .partitioned("even")
            .filter(|n| n % 2 == 0)
            .filter_map(|n| (*n != 4).then_some(n * 2))
            .stateful("totals", |total: &mut Option<u64>, n, results| {
                let total = total.get_or_insert(0);
                *total += n;
                results.push(*total);
            })
            .flat_map_into(|total| [*total, total + 1])
            .sink(topic(&format!("out-{n}")));
        let launch = job.exactly_once(Commit::every(OFTEN)).workers(workers);
        run(launch.forget("nothing"), &log).unwrap();
        let each = |key: u64| {
            (0..30)
                .filter(move |n| n % 2 == 0 && *n != 4 && n % 3 == key)
                .map(|n| n * 2)
        };
        let last: BTreeMap<u64, u64> = (0..3)
            .map(|key| (key, each(key).sum::<u64>() * (n + 1) + 1))
            .collect();
        let seen = committed_by_key::<u64, u64>(&log, &format!("out-{n}"));
        let found = seen
            .into_iter()
            .map(|(key, totals)| (key, *totals.last().unwrap()));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), last);
        log.close().unwrap();
    }
}

//! Questions about a running job's state: each answer is one committed epoch, whole.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use onceflow::client::wait;
use onceflow::operators::Collector;
use onceflow::prelude::*;
use onceflow::runtime::{Epoch, Launch, Queries, QueryError};
use onceflow::types::{Offset, TopicName, TopicPartition};

use super::support::{OFTEN, Place, fill_topic, until};

const ACCOUNTS: usize = 12;
const TRANSFERS: usize = 3_000;
const PART: usize = 100;

/// Keeps balances. Some transfers fail at their second side, when the first one is booked already.
struct Keep {
    balances: KeyValueStore<i64>,
}

/// An account, and what is added to it.
type Side = (String, i64);

impl Operator<str, Side> for Keep {
    type OutKey = str;
    type Out = i64;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, str, Side>, out: &mut impl Output<str, i64>) -> Flow {
        let amount = record.value.1;
        let balance = self.balances.update(record.key, |balance| {
            let balance = balance.get_or_insert(0);
            *balance += amount;
            *balance
        })?;
        if amount > 0 && amount % 97 == 0 {
            return Err(Failure::poison("the bank refuses this amount"));
        }
        out.push(record.with_value(&balance))
    }
}

pub(crate) fn account_names() -> Vec<String> {
    (0..ACCOUNTS).map(account).collect()
}

fn account(number: usize) -> String {
    format!("a{number}")
}

pub(crate) fn transfer(number: usize) -> String {
    let from = number * 7 % ACCOUNTS;
    let to = (from + 1 + number % (ACCOUNTS - 1)) % ACCOUNTS;
    format!("{} {} {}", account(from), account(to), 1 + number % 193)
}

pub(crate) fn bank() -> Launch {
    let job = Job::new("bank");
    job.source(topic::<str>("transfers"))
        .flat_map_with(|line: &str, out: &mut Collector<'_, Side>| {
            let words: Vec<&str> = line.split(' ').collect();
            let amount: i64 = words[2].parse().unwrap();
            out.collect(&(words[0].to_owned(), -amount));
            out.collect(&(words[1].to_owned(), amount));
        })
        .key_by_ref(|side: &Side| &*side.0)
        .with_store::<i64>("balances")
        .process("keep", |context| {
            Ok(Keep {
                balances: context.store("balances")?,
            })
        })
        .sink(topic("changes"));
    job.exactly_once(Commit::every(OFTEN))
        .workers(2)
        .on_poison(PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap()))
}

/// Looks at all accounts again and again; the sum is always 0, and epochs go up.
fn look_on(query: &Queries, is_over: &AtomicBool, mut last: Epoch) -> (Epoch, usize) {
    let balances = query.store::<str, i64>("balances").unwrap();
    let names = account_names();
    let mut epochs_count = 0;
    while !is_over.load(Ordering::Relaxed) {
        let answer = wait(balances.get_many(&names)).unwrap();
        let sum: i64 = answer.value.iter().flatten().sum();
        assert_eq!(sum, 0, "as of epoch {}: {:?}", answer.epoch, answer.value);
        assert!(answer.epoch >= last, "{} after {last}", answer.epoch);
        epochs_count += usize::from(answer.epoch > last);
        last = answer.epoch;
    }
    (last, epochs_count)
}

#[test]
fn u12_no_answer_has_half_a_transfer_and_epochs_go_up_through_aborts_and_restarts() {
    let place = Place::new();
    let log = place.log();
    let (mut last, mut epochs_count) = (Epoch(0), 0);
    for part in 0..3 {
        let running = bank().start(&log).unwrap();
        let query = running.query();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let before = last;
            let (query, is_over) = (&query, &is_over);
            let reader = scope.spawn(move || look_on(query, is_over, before));
            for number in (part * TRANSFERS / 3..(part + 1) * TRANSFERS / 3).step_by(PART) {
                let lines: Vec<String> = (number..number + PART).map(transfer).collect();
                fill_topic(&log, "transfers", 3, &lines);
                wait(running.caught_up()).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            let (epoch, count) = reader.join().unwrap();
            last = epoch;
            epochs_count += count;
        });
        wait(running.stop()).unwrap();
    }
    assert!(epochs_count > 30, "{epochs_count}");
    let letters = super::support::committed(&log, "dead").len();
    assert!(letters > 10, "{letters} transfers were aborted");
}

/// Words and how often each came.
fn count() -> Launch {
    let job = Job::new("count");
    job.source(topic::<str>("words"))
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(topic("word-counts"));
    job.exactly_once(Commit::every(OFTEN)).workers(2)
}

fn place_of(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new(topic).unwrap(), partition)
}

#[test]
fn u12_what_was_written_is_read_once_its_record_is_processed() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "words", 1, &["first"]);
    let running = count().start(&log).unwrap();
    let query = running.query();
    let counts = query.store::<str, u64>("counts").unwrap();
    for number in 1..=30 {
        fill_topic(&log, "words", 1, &["tea"]);
        let offset = Offset(number);
        let epoch = wait(query.processed(&place_of("words", 0), offset)).unwrap();
        let answer = wait(counts.at_least(epoch).get("tea")).unwrap();
        assert!(answer.epoch >= epoch);
        assert_eq!(answer.value, Some(u64::try_from(number).unwrap()));
    }
    let refused = wait(query.processed(&place_of("words", 7), Offset::ZERO)).unwrap_err();
    assert!(
        matches!(refused, QueryError::NotRead { .. }) && refused.to_string().contains("words-7"),
        "{refused}"
    );
    wait(running.stop()).unwrap();
}

#[test]
fn u12_a_job_without_work_answers_and_its_restored_state_has_no_lower_epoch() {
    let place = Place::new();
    let mut last = Epoch(0);
    for round in 1..=4u64 {
        let log = place.log();
        fill_topic(&log, "words", 1, &["tea", "milk", "tea"]);
        let running = count().start(&log).unwrap();
        let counts = running.query().store::<str, u64>("counts").unwrap();
        // The first question is there before the job is: it waits until the state is restored.
        let early = wait(counts.get_many(&["tea", "milk"])).unwrap();
        // It closes a cycle, which ends where the records are that were read by then: behind any of the three.
        let (tea, milk) = (2 * (round - 1), round - 1);
        let read = [
            (tea, milk),
            (tea + 1, milk),
            (tea + 1, milk + 1),
            (tea + 2, milk + 1),
        ];
        let found = (early.value[0].unwrap_or(0), early.value[1].unwrap_or(0));
        assert!(read.contains(&found), "{found:?}");
        assert!(early.epoch >= last, "{} after {last}", early.epoch);
        wait(running.caught_up()).unwrap();
        // Nothing comes any more, and nothing closes a cycle but the question.
        let answer = wait(counts.get_many(&["tea", "milk", "salt"])).unwrap();
        assert_eq!(answer.value, [Some(2 * round), Some(round), None]);
        assert!(answer.epoch >= early.epoch);
        last = answer.epoch;
        wait(running.stop()).unwrap();
        log.close().unwrap();
    }
}

#[test]
fn u12_pages_have_each_key_once_and_are_of_one_epoch_while_the_keys_change() {
    let place = Place::new();
    let log = place.log();
    let words: Vec<String> = (0..500).map(|n| format!("word-{n}")).collect();
    fill_topic(&log, "words", 1, &words);
    let running = count().start(&log).unwrap();
    wait(running.caught_up()).unwrap();
    let counts = running.query().store::<str, u64>("counts").unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                fill_topic(&log, "words", 1, &words);
                wait(running.caught_up()).unwrap();
            }
        });
        for _ in 0..30 {
            let answer = wait(counts.page(None, 1_000)).unwrap();
            assert_eq!(answer.value.len(), words.len());
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap();
    });
    let mut found = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = wait(counts.page(after.as_deref(), 64)).unwrap().value;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        assert!(page.len() <= 64);
        for (word, count) in page {
            assert!(found.insert(word, count).is_none(), "a key came twice");
        }
    }
    assert!(
        found
            .keys()
            .eq(words.iter().collect::<std::collections::BTreeSet<_>>())
    );
    wait(running.stop()).unwrap();
}

#[test]
fn u12_a_store_that_is_not_there_and_one_of_other_types_are_refused_at_once() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "words", 1, &["tea"]);
    let running = count().start(&log).unwrap();
    let query = running.query();
    let unknown = query.store::<str, u64>("count").err().unwrap().to_string();
    assert_eq!(
        unknown,
        "the job count has no store \"count\"; it has counts"
    );
    let typed = query.store::<str, i64>("counts").err().unwrap().to_string();
    assert_eq!(
        typed,
        "the store \"counts\" has keys of the type `text` and values of the type `u64`, not `text` and `i64`: ask for the types of \
         the step that owns it"
    );
    let keyed = query.store::<u64, u64>("counts").err().unwrap();
    assert!(matches!(keyed, QueryError::WrongType { .. }));
    let timed = query.timed::<str, u64>("counts").err().unwrap();
    assert!(timed.to_string().contains("with time"), "{timed}");
    let ordered = query.ordered::<str, u64, u64>("counts").err().unwrap();
    assert!(ordered.to_string().contains("in the order of"), "{ordered}");
    wait(running.stop()).unwrap();
}

#[test]
fn u12_a_question_that_waits_hears_of_the_job_s_end() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "words", 1, &["tea"]);
    let running = count().start(&log).unwrap();
    let counts = running.query().store::<str, u64>("counts").unwrap();
    assert!(wait(counts.get("tea")).is_ok());
    let later = counts.at_least(Epoch(u64::MAX));
    let waiting = std::thread::spawn(move || wait(later.get("tea")));
    let stopper = running.stopper();
    stopper.stop();
    wait(running.finished()).unwrap();
    let ended = waiting.join().unwrap().unwrap_err();
    assert!(matches!(ended, QueryError::Ended { .. }), "{ended}");
    let ended = wait(counts.get("tea")).unwrap_err().to_string();
    assert_eq!(
        ended,
        "the job count has ended, and its state is not read any more: `finished` says why"
    );
}

/// Readings of sensors, by time.
struct Gather {
    readings: OrderedStore<i64, u64>,
}

impl Operator<str, str> for Gather {
    type OutKey = str;
    type Out = u64;
    const KEEPS_KEY: bool = true;

    fn process(&mut self, record: Record<'_, str, str>, out: &mut impl Output<str, u64>) -> Flow {
        let at: i64 = record.value.split_once(' ').unwrap().1.parse().unwrap();
        self.readings.put(record.key, &at, at.unsigned_abs())?;
        // Ten are kept, so that a range changes with each record.
        self.readings.remove_range(record.key, ..=(at - 10))?;
        let mut count = 0;
        self.readings.visit(record.key, .., |_, _| {
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        out.push(record.with_value(&count))
    }
}

#[test]
fn u12_a_range_is_of_one_epoch_while_it_changes() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("gather");
    job.source(topic::<str>("readings"))
        .key_by_ref(|line: &str| line.split_once(' ').unwrap().0)
        .with_ordered_store::<i64, u64>("last")
        .process("gather", |context| {
            Ok(Gather {
                readings: context.ordered_store("last")?,
            })
        })
        .sink(topic("counts-of-readings"));
    fill_topic(&log, "readings", 1, &["s 0"]);
    let running = job
        .exactly_once(Commit::every(OFTEN).or_records(7))
        .start(&log)
        .unwrap();
    let last = running.query().ordered::<str, i64, u64>("last").unwrap();
    let lines: Vec<String> = (1..4_000).map(|n| format!("s {n}")).collect();
    let mut seen = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for part in lines.chunks(50) {
                fill_topic(&log, "readings", 1, part);
                wait(running.caught_up()).unwrap();
            }
        });
        until("all were seen", || {
            let range = wait(last.range("s", .., 100)).unwrap().value;
            let newest = range.last().map_or(-1, |(at, _)| *at);
            let expected: Vec<i64> = (0.max(newest - 9)..=newest).collect();
            assert_eq!(
                range.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
                expected
            );
            seen += 1;
            newest == 3_999
        });
    });
    assert!(seen > 20, "{seen}");
    let places = |rows: Vec<(i64, u64)>| rows.iter().map(|row| row.0).collect::<Vec<_>>();
    let back = wait(last.range_back("s", ..3_998, 3)).unwrap().value;
    assert_eq!(places(back), [3_997, 3_996, 3_995]);
    let some = wait(last.range("s", 3_991..=3_993, 2)).unwrap().value;
    assert_eq!(places(some), [3_991, 3_992]);
    assert_eq!(wait(last.get("s", &3_995)).unwrap().value, Some(3_995));
    assert_eq!(wait(last.get("s", &5)).unwrap().value, None);
    assert_eq!(wait(last.range("t", .., 9)).unwrap().value, []);
    wait(running.stop()).unwrap();
}

/// Every key is with one of the instances, and the other one says with which.
#[test]
fn u12_an_instance_without_the_key_says_which_one_has_it() {
    let place = Place::new();
    let log = place.log();
    let words: Vec<String> = (0..40).map(|n| format!("word-{n}")).collect();
    fill_topic(&log, "words", 4, &words);
    let start = |name: &str| {
        let launch = count().state_partitions(4).workers(1);
        launch
            .scale_out(ScaleOut::instance(name))
            .start(&log)
            .unwrap()
    };
    let running = ["a", "b"].map(start);
    let shared = || {
        let shares = running.iter().map(|it| it.share().partitions.len());
        shares.min() > Some(0)
    };
    until("both have a share", shared);
    for running in &running {
        wait(running.caught_up()).unwrap();
    }
    let counts = running
        .each_ref()
        .map(|it| it.query().store::<str, u64>("counts").unwrap());
    let (mut here, mut there) = (0, 0);
    for word in &words {
        // Where the partition moves just now, nobody has it for a moment.
        until("somebody has it", || {
            let answers = counts.each_ref().map(|counts| wait(counts.get(word)));
            match answers {
                [Ok(found), Err(QueryError::Elsewhere { instance, .. })] => {
                    here += 1;
                    found.value == Some(1) && instance.as_deref() == Some("a")
                }
                [Err(QueryError::Elsewhere { instance, .. }), Ok(found)] => {
                    there += 1;
                    found.value == Some(1) && instance.as_deref() == Some("b")
                }
                _ => false,
            }
        });
    }
    assert!(here > 0 && there > 0, "{here} and {there}");
    let pages = counts
        .each_ref()
        .map(|it| wait(it.page(None, 100)).unwrap().value);
    assert_eq!(pages.concat().len(), words.len());
    for running in running {
        wait(running.stop()).unwrap();
    }
}

#[test]
fn a_job_that_nobody_asks_notes_no_epochs() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "words", 1, &["tea"]);
    let running = count().start(&log).unwrap();
    wait(running.caught_up()).unwrap();
    wait(running.stop()).unwrap();
    let noted = |log: &Log| {
        let seen = super::support::committed(log, "count-positions");
        let keys = seen.iter().map(|seen| seen.key.clone().unwrap());
        keys.filter(|key| key.starts_with(&[0, 0, 0])).count()
    };
    assert_eq!(noted(&log), 0);
    let running = count().start(&log).unwrap();
    let counts = running.query().store::<str, u64>("counts").unwrap();
    assert_eq!(wait(counts.get("tea")).unwrap().value, Some(1));
    wait(running.stop()).unwrap();
    assert_eq!(noted(&log), 1);
}

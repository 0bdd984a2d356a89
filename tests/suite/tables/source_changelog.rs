//! Tables whose topic is their changelog: what is made of them is right, whatever is compacted, killed and lost.

use std::collections::BTreeMap;
use std::time::Duration;

use onceflow::broker::BrokerConfig;
use onceflow::client::wait;
use onceflow::codec::{Codec, Datum};
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::messages::{Acks, CommittedOffset, ProduceRequest};
use onceflow::internals::protocol::partition_for_key;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Savepoint};
use onceflow::testing::TestBed;
use onceflow::types::{GroupId, Offset, TopicName, TopicPartition};

use super::support::{Entry, Last};
use crate::jobs::support::{OFTEN, Place, committed, until};

/// A compacted topic of small segments, whose tombstones go with the second compaction.
pub(super) const COMPACTED: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "300"),
    ("min.cleanable.dirty.ratio", "0"),
    ("delete.retention.ms", "0"),
];
pub(super) const PARTITIONS: i32 = 3;

/// The sum of a table's values by the remainder of the key: a value that was added and is lost is never taken out.
pub(super) fn job(topic_name: &str) -> Job {
    let job = Job::new("totals");
    job.table("rows", keyed_topic::<u64, u64>(topic_name))
        .group_by(|key, value| (key % 3, *value))
        .aggregate(
            "sum",
            || 0i64,
            |sum, it| *sum += it.cast_signed(),
            |sum, it| *sum -= it.cast_signed(),
        )
        .changes()
        .sink(topic::<i64>("sum").as_option());
    job
}

pub(super) fn launch(commit: Duration) -> Launch {
    job("in")
        .exactly_once(Commit::every(commit))
        .reuse_source_topics()
}

/// The sums that a plain program makes of the last values.
pub(super) fn sums(rows: &Last) -> BTreeMap<u64, i64> {
    let mut sums = BTreeMap::new();
    for (key, value) in rows {
        *sums.entry(key % 3).or_default() += value.cast_signed();
    }
    sums
}

fn bed(commit: Duration, seed: u64) -> TestBed {
    // A cycle is committed long before its transaction would time out.
    let launch = launch(commit).transaction_timeout(Duration::from_secs(900));
    let mut config = TestBed::of(launch).seed(seed);
    for (name, value) in COMPACTED {
        config = config.topic_config("in", name, value);
    }
    config.partitions("in", PARTITIONS).start()
}

/// The last value that a job in a bed has written for each group.
fn sums_in(bed: &mut TestBed) -> BTreeMap<u64, i64> {
    let mut sums = BTreeMap::new();
    for row in bed.rows::<u64, i64>("sum") {
        match row.value {
            Some(sum) => sums.insert(row.key.unwrap(), sum),
            None => sums.remove(&row.key.unwrap()),
        };
    }
    sums
}

fn change(bed: &mut TestBed, rows: &mut Last, (key, value): Entry) {
    match value {
        Some(value) => {
            bed.send("in", &key, &value);
            rows.insert(key, value);
        }
        None => {
            bed.send_delete("in", &key);
            rows.remove(&key);
        }
    }
}

/// Without the hold on compaction the value that key 0 had at the commit is gone when the table is restored, and is never taken out.
#[test]
fn a_table_is_restored_as_of_its_commit_though_later_records_came_and_the_cleaner_ran() {
    let mut bed = bed(Duration::from_secs(3_600), 1);
    let mut rows = Last::new();
    for key in 0..6 {
        change(&mut bed, &mut rows, (key, Some(10 + key)));
    }
    bed.commit();
    for round in 0..8 {
        for key in 0..6 {
            change(&mut bed, &mut rows, (key, Some(100 * round + key)));
        }
    }
    change(&mut bed, &mut rows, (3, None));
    // Read, not committed; the broker compacts meanwhile.
    bed.advance(Duration::from_secs(60));
    bed.lose_power();
    assert_eq!(sums_in(&mut bed), sums(&rows));
    // The position went on, and so does compaction.
    bed.advance(Duration::from_secs(60));
    let left = bed.rows::<u64, u64>("in").len();
    assert!(left < 20, "{left} of 55 records are left");
    bed.lose_power();
    change(&mut bed, &mut rows, (0, Some(1)));
    change(&mut bed, &mut rows, (3, Some(4)));
    assert_eq!(sums_in(&mut bed), sums(&rows));
}

/// A number below `bound`, by a state that it moves on.
fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % bound
}

#[test]
fn totals_of_a_table_without_a_changelog_are_right_whatever_is_compacted_killed_and_lost() {
    let (mut sent, mut left) = (0, 0);
    for seed in 0..40u64 {
        let mut chance = seed;
        let mut bed = bed(Duration::from_secs(1 + seed % 40), seed);
        let mut rows = Last::new();
        for _ in 0..60 {
            match draw(&mut chance, 16) {
                0 => bed.crash(),
                1 => bed.lose_power(),
                2 => bed.restart_with(1 + usize::try_from(draw(&mut chance, 4)).unwrap()),
                3 => bed.take_over(),
                4..7 => bed.advance(Duration::from_secs(1 + draw(&mut chance, 40))),
                7 => bed.settle(),
                8 => bed.commit(),
                _ => {
                    for _ in 0..=draw(&mut chance, 9) {
                        let value = Some(draw(&mut chance, 1_000));
                        let value = value.filter(|_| draw(&mut chance, 4) > 0);
                        change(&mut bed, &mut rows, (draw(&mut chance, 7), value));
                        sent += 1;
                    }
                }
            }
        }
        assert_eq!(sums_in(&mut bed), sums(&rows), "seed {seed}");
        left += bed.rows::<u64, u64>("in").len();
    }
    assert!(
        left * 4 < sent * 3,
        "{left} of {sent} records are left: little was compacted"
    );
}

pub(super) fn open(place: &std::path::Path) -> Log {
    let config = BrokerConfig {
        housekeeping_interval: Duration::from_millis(3),
        ..BrokerConfig::default()
    };
    Log::embedded_with(place, config).unwrap()
}

pub(super) fn make_topic(log: &Log, name: &str, partitions: i32) {
    let configs = COMPACTED.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let name = TopicName::new(name).unwrap();
    wait(
        log.admin()
            .create_topic_with(&name, partitions, configs.into()),
    )
    .unwrap();
}

fn encoded<T: Datum>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    T::DefaultCodec::default()
        .encode(value, &mut bytes)
        .unwrap();
    bytes
}

/// Appends changes, each to its key's partition or to the one given, a batch each.
pub(super) fn feed(log: &Log, rows: &mut Last, changes: &[Entry], partition: Option<i32>) {
    for &(key, value) in changes {
        let (key_bytes, value_bytes) = (encoded(&key), value.as_ref().map(encoded));
        let mut builder = BatchBuilder::new(Compression::None, None);
        builder.push(
            log.env().clock.wall(),
            Some(&key_bytes),
            value_bytes.as_deref(),
        );
        let home = partition_for_key(&key_bytes, PARTITIONS);
        let request = ProduceRequest {
            partition: TopicPartition::new(
                TopicName::new("in").unwrap(),
                partition.unwrap_or(home),
            ),
            records: builder.finish(BatchProducer::Plain).freeze().into(),
            acks: Acks::All,
            transactional_id: None,
        };
        wait(log.transport().produce(request)).unwrap();
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
}

/// The last value that the job has written for each group.
pub(super) fn sums_of(log: &Log) -> BTreeMap<u64, i64> {
    let mut sums = BTreeMap::new();
    for seen in committed(log, "sum") {
        match seen.value {
            Some(_) => sums.insert(seen.key::<u64>(), seen.value::<i64>()),
            None => sums.remove(&seen.key::<u64>()),
        };
    }
    sums
}

/// Runs a job until it has written these sums.
fn run_until(launch: Launch, log: &Log, rows: &Last) {
    let running = launch.start(log).unwrap();
    until("the sums are right", || sums_of(log) == sums(rows));
    wait(running.stop()).unwrap();
}

fn refused(launch: Launch, log: &Log) -> String {
    let ended = launch
        .start(log)
        .and_then(|running| wait(running.finished()));
    ended.unwrap_err().to_string()
}

fn has_topic(log: &Log, name: &str) -> bool {
    let name = TopicName::new(name).unwrap();
    wait(log.transport().topic(&name)).unwrap().is_some()
}

const OWN: &str = "totals-rows-changelog";

fn entries(from: u64) -> Vec<Entry> {
    (from..from + 40)
        .map(|it| (it % 8, (it % 5 > 0).then_some(it)))
        .collect()
}

/// A log with a topic of changes, and what they leave.
fn begun() -> (Place, Log, Last) {
    let place = Place::new();
    let log = open(&place.path("data"));
    make_topic(&log, "in", PARTITIONS);
    let mut rows = Last::new();
    feed(&log, &mut rows, &entries(0), None);
    (place, log, rows)
}

#[test]
fn a_table_comes_back_from_its_topic_alone_and_has_no_other_changelog() {
    let (place, log, mut rows) = begun();
    run_until(launch(OFTEN), &log, &rows);
    assert!(!has_topic(&log, OWN));
    assert!(has_topic(&log, "totals-sum-changelog"));
    for round in 1..4u8 {
        std::fs::remove_dir_all(place.state_dir("totals")).unwrap();
        feed(&log, &mut rows, &entries(100 * u64::from(round)), None);
        // Asked for or not: what was chosen stays.
        let launch = match round {
            2 => job("in").exactly_once(Commit::every(OFTEN)),
            _ => launch(OFTEN),
        };
        run_until(launch.workers(1 + usize::from(round)), &log, &rows);
    }
    assert!(!has_topic(&log, OWN));
    let topic = TopicName::new("in").unwrap();
    let grown = wait(log.admin().create_partitions(&topic, 7)).unwrap_err();
    assert!(
        grown.to_string().contains("is the changelog of the table"),
        "{grown}"
    );
    let aged = wait(log.admin().set_config(&topic, "cleanup.policy", "delete")).unwrap_err();
    assert!(aged.to_string().contains("loses rows"), "{aged}");
    log.close().unwrap();
}

#[test]
fn a_job_that_has_a_changelog_keeps_it() {
    let (place, log, mut rows) = begun();
    let own = || job("in").exactly_once(Commit::every(OFTEN));
    run_until(own().state_partitions(3), &log, &rows);
    assert!(has_topic(&log, OWN));
    std::fs::remove_dir_all(place.state_dir("totals")).unwrap();
    feed(&log, &mut rows, &entries(100), None);
    run_until(launch(OFTEN), &log, &rows);
    let topic = TopicName::new("in").unwrap();
    wait(log.admin().create_partitions(&topic, 7)).unwrap();
    log.close().unwrap();
}

#[test]
fn a_job_that_cannot_go_on_with_its_topic_is_refused_with_what_to_do() {
    let (_place, log, mut rows) = begun();
    run_until(launch(OFTEN), &log, &rows);
    feed(&log, &mut rows, &entries(100), None);
    run_until(launch(OFTEN), &log, &rows);
    let letters = PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap());
    let why = refused(launch(OFTEN).on_poison(letters), &log);
    assert!(
        why.contains("dead-letter topic") && why.contains("Take the change back"),
        "{why}"
    );
    let why = refused(launch(OFTEN).state_partitions(5), &log);
    assert!(why.contains("first run with 3 state partitions"), "{why}");
    let why = refused(job("other").exactly_once(Commit::every(OFTEN)), &log);
    assert!(why.contains("another topic before"), "{why}");
    // The job goes back behind what was compacted since.
    let group = GroupId::new("totals").unwrap();
    let topic = TopicName::new("in").unwrap();
    let back = |partition| {
        let committed = CommittedOffset {
            offset: Offset(1),
            leader_epoch: -1,
            metadata: String::new(),
        };
        (TopicPartition::new(topic.clone(), partition), committed)
    };
    until("the topic is compacted", || {
        committed(&log, "in").len() < 30
    });
    wait(
        log.admin()
            .alter_committed(&group, (0..PARTITIONS).map(back).collect()),
    )
    .unwrap();
    let why = refused(launch(OFTEN), &log);
    assert!(why.contains("compacted past the position"), "{why}");
    // Its group is deleted, and with it the hold.
    wait(log.admin().delete_group(&group)).unwrap();
    until("the hold is gone", || {
        wait(
            log.admin()
                .set_config(&topic, "cleanup.policy", "compact,delete"),
        )
        .is_ok()
    });
    wait(log.admin().set_config(&topic, "cleanup.policy", "compact")).unwrap();
    let why = refused(launch(OFTEN), &log);
    assert!(why.contains("group or the topic was deleted"), "{why}");
    log.close().unwrap();
}

#[test]
fn a_topic_that_was_created_anew_is_not_taken_for_the_one_that_has_the_rows() {
    let (_place, log, rows) = begun();
    run_until(launch(OFTEN), &log, &rows);
    wait(log.admin().delete_topic(&TopicName::new("in").unwrap())).unwrap();
    make_topic(&log, "in", PARTITIONS);
    let why = refused(launch(OFTEN), &log);
    assert!(why.contains("the topic was deleted"), "{why}");
    log.close().unwrap();
}

#[test]
fn a_record_in_a_partition_of_another_key_stops_the_job() {
    let (_place, log, mut rows) = begun();
    feed(
        &log,
        &mut rows,
        &[(1, Some(1)), (2, Some(1)), (3, Some(1))],
        Some(0),
    );
    let why = refused(launch(OFTEN), &log);
    assert!(why.contains("belongs into partition"), "{why}");
    log.close().unwrap();
}

#[test]
fn a_restored_savepoint_has_a_changelog_of_its_own_and_lets_the_topic_go() {
    let (place, log, mut rows) = begun();
    let running = launch(OFTEN).start(&log).unwrap();
    until("the sums are right", || sums_of(&log) == sums(&rows));
    let savepoint = wait(running.savepoint(place.path("savepoint"))).unwrap();
    feed(&log, &mut rows, &entries(100), None);
    until("the sums are right", || sums_of(&log) == sums(&rows));
    wait(running.stop()).unwrap();
    until("the topic is compacted", || {
        committed(&log, "in").len() < 60
    });
    let savepoint = Savepoint::open(savepoint.path()).unwrap();
    launch(OFTEN).restore(&log, &savepoint).unwrap();
    assert!(has_topic(&log, OWN));
    feed(&log, &mut rows, &entries(200), None);
    run_until(launch(OFTEN), &log, &rows);
    let topic = TopicName::new("in").unwrap();
    wait(
        log.admin()
            .set_config(&topic, "cleanup.policy", "compact,delete"),
    )
    .unwrap();
    log.close().unwrap();
}

/// The bytes that a million changes of 50,000 rows take in the log besides the topic.
#[test]
#[ignore = "a measurement: run it with --release"]
fn bytes_that_a_table_takes_beside_its_topic() {
    for is_reusing in [false, true] {
        let place = Place::new();
        let log = Log::embedded(place.path("data")).unwrap();
        let name = TopicName::new("in").unwrap();
        let configs = [("cleanup.policy".to_owned(), "compact".to_owned())];
        wait(
            log.admin()
                .create_topic_with(&name, PARTITIONS, configs.into()),
        )
        .unwrap();
        let mut batches: Vec<_> = (0..PARTITIONS).map(|_| Vec::new()).collect();
        for number in 0..1_000_000u64 {
            let key = encoded(&(number * 7 % 50_000));
            let home = usize::try_from(partition_for_key(&key, PARTITIONS)).unwrap();
            batches[home].push((key, number));
        }
        for (partition, records) in (0..).zip(&batches) {
            for chunk in records.chunks(5_000) {
                let mut builder = BatchBuilder::new(Compression::None, None);
                for (key, number) in chunk {
                    let value = encoded(&format!("a value of some length: {number}"));
                    builder.push(log.env().clock.wall(), Some(key), Some(&value));
                }
                let request = ProduceRequest {
                    partition: TopicPartition::new(name.clone(), partition),
                    records: builder.finish(BatchProducer::Plain).freeze().into(),
                    acks: Acks::Leader,
                    transactional_id: None,
                };
                wait(log.transport().produce(request)).unwrap();
            }
        }
        let job = Job::new("copy");
        job.table("rows", keyed_topic::<u64, String>("in").until_end())
            .materialize();
        let mut launch = job.exactly_once(Commit::every(Duration::from_millis(100)));
        launch = launch.state_partitions(3);
        if is_reusing {
            launch = launch.reuse_source_topics();
        }
        let began = std::time::Instant::now();
        wait(launch.start(&log).unwrap().finished()).unwrap();
        let took = began.elapsed();
        let bytes = |topic: &str| {
            let name = TopicName::new(topic).unwrap();
            let found =
                has_topic(&log, topic).then(|| wait(log.admin().describe_partitions(&name)));
            let found = found.map_or(Vec::new(), Result::unwrap);
            found.iter().map(|it| it.size_bytes).sum::<u64>()
        };
        let (topic, own) = (bytes("in"), bytes("copy-rows-changelog"));
        println!("reusing {is_reusing}: topic {topic} bytes, changelog {own} bytes, {took:?}");
        log.close().unwrap();
    }
}

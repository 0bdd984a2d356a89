//! Types of keys and values that change between two builds of a job: what was stored is never read as something else
//! (what strangers found, row 3).

use onceflow::client::wait;
use onceflow::internals::protocol::batch::{BatchBuilder, BatchProducer, Compression};
use onceflow::internals::protocol::messages::{Acks, ProduceRequest};
use onceflow::prelude::*;
use onceflow::runtime::Launch;
use onceflow::types::{TopicName, TopicPartition};

use super::support::{OFTEN, Place, committed_by_key, fill_topic, run, until};

/// Sums numbers by their last digit in the type `T`.
fn sums<T>() -> Launch
where
    T: Datum + Clone + Copy + Default + std::ops::AddAssign + TryFrom<i64, Error: std::fmt::Debug>,
{
    let job = Job::new("sums");
    job.source(topic::<str>("in").until_end())
        .try_map(|text: &str| text.parse::<i64>())
        .key_by(|n| n % 10)
        .aggregate("sums", T::default, |sum: &mut T, n| {
            *sum += T::try_from(*n).unwrap()
        })
        .changes()
        .sink(topic("out"));
    job.exactly_once(Commit::every(OFTEN)).state_partitions(2)
}

/// The first build of the job has run.
fn after_the_first_build(place: &Place) -> Log {
    let log = place.log();
    fill_topic(&log, "in", 1, &["642317", "17"]);
    run(sums::<i64>(), &log).unwrap();
    fill_topic(&log, "in", 1, &["7"]);
    log
}

fn refusal(launch: Launch, log: &Log) -> String {
    let error = run(launch, log).unwrap_err();
    assert!(
        matches!(error, JobError::State(_) | JobError::Incompatible { .. }),
        "{error}"
    );
    error.to_string()
}

#[test]
fn x3_a_store_of_another_type_is_refused_and_keeps_what_it_holds() {
    let place = Place::new();
    let log = after_the_first_build(&place);
    let refused = refusal(sums::<u64>(), &log);
    for part in [
        "\"sums\"",
        "values of the type i64",
        "now has u64",
        "accept the change",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    run(sums::<i64>(), &log).unwrap();
    let sums = committed_by_key::<i64, i64>(&log, "out");
    assert_eq!(sums[&7], [642_317, 642_334, 642_341]);
}

#[test]
fn x3_a_changed_type_is_refused_from_the_log_where_the_local_state_is_lost() {
    let place = Place::new();
    let log = after_the_first_build(&place);
    std::fs::remove_dir_all(place.state_dir("sums")).unwrap();
    let refused = refusal(sums::<u64>(), &log);
    assert!(refused.contains("values of the type i64"), "{refused}");
    // The refusal left nothing behind that would refuse the right build.
    run(sums::<i64>(), &log).unwrap();
    let sums = committed_by_key::<i64, i64>(&log, "out");
    assert_eq!(sums[&7], [642_317, 642_334, 642_341]);
}

#[test]
fn x3_a_log_without_notes_takes_on_the_types_of_its_first_use() {
    let place = Place::new();
    let log = after_the_first_build(&place);
    // As an earlier version left it.
    wait(
        log.admin()
            .delete_topic(&TopicName::new("sums-positions").unwrap()),
    )
    .unwrap();
    std::fs::remove_dir_all(place.state_dir("sums")).unwrap();
    run(sums::<i64>(), &log).unwrap();
    std::fs::remove_dir_all(place.state_dir("sums")).unwrap();
    refusal(sums::<u64>(), &log);
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Sum {
    total: i64,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(rename = "Sum")]
struct Renamed {
    #[serde(rename = "total")]
    cents: i64,
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Other {
    cents: i64,
}

fn structured<T: Datum + Clone>(new: fn(i64) -> T, total: fn(&mut T) -> &mut i64) -> Launch {
    let job = Job::new("structured");
    job.source(topic::<str>("in").until_end())
        .try_map(|text: &str| text.parse::<i64>())
        .key_by(|n| n % 10)
        .aggregate(
            "sums",
            move || new(0),
            move |sum: &mut T, n| *total(sum) += n,
        )
        .changes()
        .sink(topic("out"));
    job.exactly_once(Commit::every(OFTEN)).state_partitions(2)
}

#[test]
fn x3_a_renamed_type_keeps_its_identity_by_serde_s_name_or_is_accepted_once() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &["17"]);
    run(structured(|total| Sum { total }, |it| &mut it.total), &log).unwrap();
    fill_topic(&log, "in", 1, &["7"]);
    run(
        structured(|cents| Renamed { cents }, |it| &mut it.cents),
        &log,
    )
    .unwrap();
    let other = || structured(|cents| Other { cents }, |it| &mut it.cents);
    let refused = refusal(other(), &log);
    assert!(
        refused.contains("Sum{total:i64}") && refused.contains("Other{cents:i64}"),
        "{refused}"
    );
    fill_topic(&log, "in", 1, &["107"]);
    run(other().accept_type_change("sums"), &log).unwrap();
    let sums = committed_by_key::<i64, i64>(&log, "out");
    assert_eq!(sums[&7], [17, 24, 131]);
    run(other(), &log).unwrap();
    refusal(structured(|total| Sum { total }, |it| &mut it.total), &log);
}

#[test]
fn x3_a_store_opened_with_another_type_than_it_was_declared_with_is_refused() {
    struct Never;
    impl Operator<u64, u64> for Never {
        type OutKey = u64;
        type Out = u64;
        fn process(
            &mut self,
            record: Record<'_, u64, u64>,
            out: &mut impl Output<u64, u64>,
        ) -> Flow {
            out.push(record)
        }
    }
    let place = Place::new();
    let job = Job::new("confused");
    job.source(values("n", 0..3u64))
        .key_by(|n| *n)
        .with_store::<u64>("seen")
        .process("never", |context| {
            context.store::<i64>("seen").map(|_| Never)
        })
        .sink(topic("out"));
    let error = run(job.exactly_once(Commit::every(OFTEN)), &place.log()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, JobError::Topology { .. }), "{text}");
    assert!(
        text.contains("of the type u64") && text.contains("with i64"),
        "{text}"
    );
}

fn spread<T: Datum + Clone>(of: fn(&str) -> T) -> Launch {
    let job = Job::new("spread");
    job.source(topic::<str>("in"))
        .map(move |text: &str| of(text))
        .key_by(|_| 1u8)
        .partitioned("ones")
        .map(|_: &T| 1u64)
        .sink(topic("out"));
    job.exactly_once(Commit::every(OFTEN))
        .state_partitions(1)
        .scale_out(ScaleOut::instance("a"))
}

const BETWEEN: &str = "spread-ones-repartition";

/// Runs until `count` records came out.
fn run_spread(launch: Launch, log: &Log, count: usize) {
    let running = launch.start(log).unwrap();
    until("all came out", || {
        super::support::committed(log, "out").len() >= count
    });
    wait(running.stop()).unwrap();
}

#[test]
fn x3_what_is_under_way_between_instances_is_not_read_as_another_type() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &["1", "2"]);
    run_spread(spread(|text| text.parse::<i64>().unwrap()), &log, 2);
    // A record of the first build that nobody has read.
    let mut builder = BatchBuilder::new(Compression::None, None);
    builder.push(log.env().clock.wall(), Some(&[1]), Some(&[5]));
    let request = ProduceRequest {
        partition: TopicPartition::new(TopicName::new(BETWEEN).unwrap(), 0),
        records: builder.finish(BatchProducer::Plain).freeze().into(),
        acks: Acks::Leader,
        transactional_id: None,
    };
    wait(log.transport().produce(request)).unwrap();
    let changed = || spread(|text| text.parse::<u64>().unwrap());
    let refused = refusal(changed(), &log);
    assert!(
        refused.contains(BETWEEN) && refused.contains("i64"),
        "{refused}"
    );
    // The earlier build reads it; then nothing is under way, and the types may change.
    run_spread(spread(|text| text.parse::<i64>().unwrap()), &log, 3);
    fill_topic(&log, "in", 1, &["3"]);
    run_spread(changed(), &log, 4);
}

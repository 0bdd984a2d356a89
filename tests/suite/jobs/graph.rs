//! The job as a graph: what it shows of itself, and that names decide where the order of a program's lines could.

use onceflow::prelude::*;
use onceflow::runtime::{Launch, TopicRole, TwoInputOperator};

use super::support::{OFTEN, Place, committed_by_key, fill_topic, run};

/// Two counts by the same type of key; `is_swapped` declares the second one first.
fn two_counts(is_swapped: bool) -> Job {
    let job = Job::new("two");
    let numbers = |from: &str| {
        job.source(topic::<str>(from).until_end())
            .try_map(|text: &str| text.parse::<u64>())
    };
    let halves = || {
        let by_half = numbers("a").key_by(|n| n / 2);
        by_half.count("halves").changes().sink(topic("halves"));
    };
    let thirds = || {
        let by_third = numbers("b").key_by(|n| n / 3);
        by_third.count("thirds").changes().sink(topic("thirds"));
    };
    match is_swapped {
        false => (halves(), thirds()),
        true => {
            thirds();
            (halves(), ())
        }
    };
    job
}

fn launch(is_swapped: bool) -> Launch {
    two_counts(is_swapped).exactly_once(Commit::every(OFTEN))
}

#[test]
fn u7_swapped_lines_of_a_program_change_nothing() {
    let place = Place::new();
    let log = place.log();
    let numbers = ["0", "1", "2", "3", "4", "5"];
    for is_swapped in [false, true] {
        fill_topic(&log, "a", 2, &numbers);
        fill_topic(&log, "b", 2, &numbers);
        run(launch(is_swapped).workers(2), &log).unwrap();
    }
    let last = |topic: &str| {
        let counts = committed_by_key::<u64, u64>(&log, topic).into_iter();
        counts
            .map(|(key, counts)| (key, *counts.last().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(last("halves"), [(0, 4), (1, 4), (2, 4)]);
    assert_eq!(last("thirds"), [(0, 6), (1, 6)]);
}

#[test]
fn u7_topics_between_processes_are_named_by_the_step_behind_them() {
    for is_swapped in [false, true] {
        let spread = launch(is_swapped).scale_out(ScaleOut::instance("one"));
        let topics = spread.topics().unwrap().into_iter();
        let between = topics.filter(|topic| topic.role == TopicRole::Repartition);
        let names: Vec<String> = between.map(|topic| topic.name.to_string()).collect();
        assert_eq!(names, ["two-halves-repartition", "two-thirds-repartition"]);
    }
}

#[test]
fn a_job_shows_its_graph_as_text_json_and_graphviz() {
    let job = two_counts(false);
    let described = job.describe();
    let text = described.to_string();
    assert!(
        text.starts_with("job two\n   0  source a  (tests/suite/jobs/graph.rs:"),
        "{text}"
    );
    let halves = "   4  count halves  <- shuffle of 3  [store halves: u64 by u64]  (tests/";
    assert!(text.contains(halves), "{text}");
    assert!(text.contains("   5  sink topic halves  <- 4  ("), "{text}");
    let json: serde_json::Value = serde_json::from_str(&described.json()).unwrap();
    let count = &json["nodes"][4];
    assert_eq!(count["name"], "halves");
    assert_eq!(count["inputs"][0]["kind"], "shuffle");
    assert_eq!(count["stores"][0]["value"], "u64");
    let dot = described.dot();
    assert!(
        dot.contains("n3 -> n4 [label=\"shuffle\", style=dashed];"),
        "{dot}"
    );
}

/// Takes two inputs, and gives what came as text.
struct Both;

impl TwoInputOperator<u64, u64, String> for Both {
    type OutKey = u64;
    type Out = String;
    const KEEPS_KEY: bool = true;

    fn process_left(
        &mut self,
        record: Record<'_, u64, u64>,
        out: &mut impl Output<u64, String>,
    ) -> Flow {
        out.push(record.with_value(&record.value.to_string()))
    }

    fn process_right(
        &mut self,
        record: Record<'_, u64, String>,
        out: &mut impl Output<u64, String>,
    ) -> Flow {
        out.push(record)
    }
}

/// Numbers and texts by parity; the numbers are counted first, which brings them together, if `is_counted`.
fn connected(name: &str, first: Option<&str>, is_counted: bool) -> Job {
    let job = Job::new("pairs");
    let numbers = |from: &str| {
        job.source(topic::<str>(from).until_end())
            .try_map(|text: &str| text.parse::<u64>())
            .key_by(|n| n % 2)
    };
    let texts = numbers("b").map(|n| format!("text {n}"));
    let both = |_: &mut OperatorContext| Ok(Both);
    let pairs = match is_counted {
        true => {
            let counts = numbers("a").count("counts").changes();
            counts.connect(texts).process(name, both).boxed()
        }
        false => numbers("a").connect(texts).process(name, both).boxed(),
    };
    let pairs = match first {
        Some(first) => pairs.was(first),
        None => pairs,
    };
    pairs.sink(topic("pairs"));
    job
}

#[test]
fn a_step_with_two_inputs_shows_its_ports_and_names_its_topics_by_them() {
    let described = connected("pair", None, false).describe();
    let text = described.to_string();
    let step = "both pair  <- left: shuffle of 6, right: shuffle of 3  (tests/";
    assert!(text.contains(step), "{text}");
    let json: serde_json::Value = serde_json::from_str(&described.json()).unwrap();
    assert_eq!(json["nodes"][7]["inputs"][1]["port"], "right");
    assert!(
        described
            .dot()
            .contains("[label=\"left, shuffle\", style=dashed]")
    );
    for (name, first) in [("pair", None), ("couple", Some("pair"))] {
        let spread = connected(name, first, false).exactly_once(Commit::every(OFTEN));
        let topics = spread
            .scale_out(ScaleOut::instance("one"))
            .topics()
            .unwrap();
        let between = topics
            .iter()
            .filter(|topic| topic.role == TopicRole::Repartition);
        let names: Vec<_> = between.map(|topic| topic.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "pairs-pair-left-repartition",
                "pairs-pair-right-repartition"
            ]
        );
    }
}

#[test]
fn a_side_that_is_together_by_key_is_not_shuffled_again() {
    let text = connected("pair", None, true).describe().to_string();
    assert!(text.contains("<- left: 8, right: shuffle of 3"), "{text}");
    for workers in [1, 4] {
        let place = Place::new();
        let log = place.log();
        fill_topic(&log, "a", 2, &["0", "1", "2", "4"]);
        fill_topic(&log, "b", 2, &["7", "8"]);
        let launch = connected("pair", None, true).exactly_once(Commit::every(OFTEN));
        run(launch.workers(workers), &log).unwrap();
        let mut pairs = committed_by_key::<u64, String>(&log, "pairs");
        pairs.values_mut().for_each(|pairs| pairs.sort());
        assert_eq!(pairs[&0], ["1", "2", "3", "text 8"]);
        assert_eq!(pairs[&1], ["1", "text 7"]);
    }
}

#[test]
fn two_steps_of_one_name_are_refused() {
    let job = Job::new("same");
    let numbers = || job.source(values("n", 0..3u64));
    let (a, b) = numbers().key_by(|n| *n).tee();
    a.partitioned("step").sink(topic("a"));
    b.partitioned("step").sink(topic("b"));
    let error = job
        .exactly_once(Commit::every(OFTEN))
        .topics()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("two steps that are called \"step\""),
        "{error}"
    );
}

#[test]
fn u7_a_step_that_was_renamed_is_refused_until_it_is_said_and_keeps_its_state() {
    let place = Place::new();
    let log = place.log();
    let count = |name: &str, first: Option<&str>| {
        let job = Job::new("parity");
        let numbers = job.source(topic::<str>("in").until_end());
        let numbers = numbers.try_map(|text: &str| text.parse::<u64>());
        let counts = numbers.key_by(|n| n % 2).count(name);
        let counts = match first {
            Some(first) => counts.was(first),
            None => counts,
        };
        counts.changes().sink(topic("out"));
        job.exactly_once(Commit::every(OFTEN))
    };
    fill_topic(&log, "in", 1, &["1", "2", "3"]);
    run(count("counts", None), &log).unwrap();
    fill_topic(&log, "in", 1, &["5"]);
    let refused = run(count("per-parity", None), &log)
        .unwrap_err()
        .to_string();
    for said in [
        "it was: counts; it is: per-parity",
        ".was(\"counts\")",
        "forget(\"counts\")",
    ] {
        assert!(refused.contains(said), "{refused}");
    }
    run(count("per-parity", Some("counts")), &log).unwrap();
    let counts = committed_by_key::<u64, u64>(&log, "out");
    assert_eq!(counts[&1], [1, 2, 3]);
}

#[test]
fn u7_steps_that_are_several_nodes_or_give_only_a_stream_beside_keep_all_their_stores_when_renamed()
{
    let job = Job::new("renamed");
    let numbers = job.source(topic::<str>("in"));
    let (windowed, told) = numbers
        .try_map(|text: &str| text.parse::<u64>())
        .event_time(|n| n.cast_signed(), Watermarks::default())
        .key_by(|n| n % 2)
        .boxed()
        .tee();
    windowed
        .window(FixedWindows::tumbling(OFTEN))
        .early(Every::wall_clock(OFTEN))
        .count("windows")
        .was("first")
        .sink(topic::<u64>("counts").as_option());
    told.effect(
        "told",
        EffectPolicy::parallel(1),
        |_: Effect<u64, u64>| async { Delivery::Done },
    )
    .was("announced")
    .sink(topic("dead"));
    let topics = job.topics().unwrap();
    let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
    for store in ["first", "first-early", "first-ticks", "announced"] {
        let changelog = format!("renamed-{store}-changelog");
        assert!(names.contains(&changelog.as_str()), "{store}: {names:?}");
    }
}

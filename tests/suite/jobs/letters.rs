//! Dead and late letters that are replayed: each enters its job once more, where it came from, whoever is killed meanwhile.

use std::collections::BTreeMap;
use std::path::Path;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Launch, Letter, LetterChoice, LetterState, LetterTime, Letters, Upstream};
use onceflow::types::{Timestamp, TopicName};

use super::support::{
    AT_THE_END, OFTEN, Place, committed, committed_by_key, committed_values, fill_topic, run, until,
};
use crate::time::killed::{open, start_child};
use crate::time::support::{Click, click, feed, ms, parse, results, topic_of_clicks};

const JOB: &str = "parse";

/// Where the texts of a job come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Endless,
    Topic,
    Keyed,
    Lines,
    Values,
}

/// Reads a number, also one with an `x` in front once that is mended.
fn number(text: &str, is_mended: bool) -> Result<u64, String> {
    let text = if is_mended {
        text.trim_start_matches('x')
    } else {
        text
    };
    text.parse().map_err(|e| format!("{text:?}: {e}"))
}

fn by_digit<U: Upstream<Unkeyed, u64>>(numbers: Stream<u64, U>) -> Keyed<u64, u64> {
    numbers.key_by(|n| n % 10).boxed()
}

/// Counts numbers by their last digit.
pub(crate) fn counting(kind: Kind, folder: &Path, is_mended: bool) -> Launch {
    let job = Job::new(JOB);
    let read = move |text: &str| number(text, is_mended);
    let numbers = match kind {
        Kind::Endless => by_digit(job.source(topic::<str>("in")).try_map(read)),
        Kind::Topic => by_digit(job.source(topic::<str>("in").until_end()).try_map(read)),
        Kind::Lines => by_digit(job.source(lines([folder.join("lines")])).try_map(read)),
        Kind::Values => {
            let texts = job.source(values("texts", texts(60)));
            by_digit(texts.try_map(move |text: &String| read(text)))
        }
        Kind::Keyed => {
            let keyed = job.keyed_source(keyed_topic::<String, str>("keyed").until_end());
            by_digit(keyed.try_map(read).entries(|_, n| *n))
        }
    };
    numbers.count("counts").changes().sink(topic("counts"));
    // What fails is together in one transaction, so that the letters have offsets without gaps.
    let is_together = !is_mended && kind != Kind::Endless;
    let every = if is_together { AT_THE_END } else { OFTEN };
    job.exactly_once(Commit::every(every))
        .on_poison(PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap()))
        .state_partitions(4)
        .workers(2)
}

/// Every third of them is no number.
pub(crate) fn texts(count: u64) -> Vec<String> {
    let text = |n: u64| match n % 3 {
        0 => format!("x{n}"),
        _ => n.to_string(),
    };
    (0..count).map(text).collect()
}

/// Each digit is counted to where it belongs, once.
pub(crate) fn assert_counted(log: &Log, count: u64) {
    let mut expected = BTreeMap::<u64, Vec<u64>>::new();
    for n in 0..count {
        let counts = expected.entry(n % 10).or_default();
        counts.push(counts.len() as u64 + 1);
    }
    assert_eq!(committed_by_key::<u64, u64>(log, "counts"), expected);
}

pub(crate) fn states(letters: &Letters, topic: &str) -> Vec<LetterState> {
    let mut states = Vec::new();
    letters
        .visit(topic, &mut |letter| states.push(letter.state))
        .unwrap();
    states
}

/// The newest letters are the last ones that a look at all of them shows.
fn assert_newest(letters: &Letters) {
    let mut offsets = Vec::new();
    let see = &mut |letter: &Letter| offsets.push(letter.offset);
    letters.visit("dead", see).unwrap();
    offsets.reverse();
    for count in [1, 3, 20, 1000] {
        let newest = letters.newest("dead", count).unwrap();
        let newest: Vec<_> = newest.iter().map(|letter| letter.offset).collect();
        assert_eq!(newest, offsets[..count.min(20)], "{count}");
    }
}

#[test]
fn u13_dead_letters_of_every_kind_of_source_are_replayed_once() {
    for kind in [Kind::Topic, Kind::Keyed, Kind::Lines, Kind::Values] {
        let place = Place::new();
        let log = place.log();
        let folder = place.path("");
        fill_topic(&log, "in", 3, &texts(60));
        place.file("lines", texts(60).join("\n"));
        if kind == Kind::Keyed {
            let job = Job::new("fills");
            job.source(values("texts", texts(60)))
                .key_by(String::clone)
                .sink(topic::<String>("keyed").codec(Text));
            run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap();
        }
        run(counting(kind, &folder, false), &log).unwrap();
        let letters = Letters::of(&log, JOB).unwrap();
        assert_eq!(
            states(&letters, "dead"),
            [LetterState::Waiting; 20],
            "{kind:?}"
        );
        assert_newest(&letters);
        let all = LetterChoice::all();
        let asked = letters.replay("dead", &all, LetterTime::Own).unwrap();
        assert_eq!((asked.count, asked.asked_before), (20, 0));
        assert_eq!(states(&letters, "dead"), [LetterState::Asked; 20]);
        for _ in 0..2 {
            run(counting(kind, &folder, true), &log).unwrap();
            assert_counted(&log, 60);
            assert_eq!(states(&letters, "dead"), [LetterState::Replayed; 20]);
            let again = letters.replay("dead", &all, LetterTime::Own).unwrap_err();
            assert!(
                again.to_string().contains("were replayed before"),
                "{again}"
            );
        }
        assert_eq!(committed(&log, "dead").len(), 20);
    }
}

#[test]
fn a_letter_that_fails_again_is_a_letter_again_with_one_attempt_more() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &texts(9));
    let launch = |is_mended| counting(Kind::Topic, &place.path(""), is_mended);
    run(launch(false), &log).unwrap();
    let letters = Letters::of(&log, JOB).unwrap();
    let newest = || {
        let mut newest = 0;
        letters
            .visit("dead", &mut |letter| newest = letter.offset.0)
            .unwrap();
        LetterChoice::all().offsets(newest..=newest)
    };
    for attempt in 2..=3 {
        let choice = newest().source("in").reason("x6");
        let asked = letters.replay("dead", &choice, LetterTime::Own).unwrap();
        assert_eq!(asked.count, 1);
        for _ in 0..2 {
            run(launch(false), &log).unwrap();
            let dead = committed(&log, "dead");
            assert_eq!(
                dead.len(),
                2 + attempt,
                "it is tried once for each time that it is asked for"
            );
            let newest = dead.last().unwrap();
            assert_eq!(newest.header("onceflow.attempts"), attempt.to_string());
            assert_eq!(newest.header("onceflow.source"), "in-0");
            assert_eq!(newest.header("onceflow.offset"), "6");
            assert_eq!(newest.value.as_deref(), Some(&b"x6"[..]));
            let mut headers = newest.headers.iter();
            assert!(headers.all(|header| header.0 != "onceflow.letter"));
        }
    }
    let count = committed_values::<u64>(&log, "counts").len();
    letters.replay("dead", &newest(), LetterTime::Own).unwrap();
    run(launch(true), &log).unwrap();
    assert_eq!(committed_values::<u64>(&log, "counts").len(), count + 1);
}

#[test]
fn a_job_that_runs_takes_letters_back_that_its_program_asks_for() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 2, &texts(30));
    run(counting(Kind::Topic, &place.path(""), false), &log).unwrap();
    let running = counting(Kind::Endless, &place.path(""), true)
        .start(&log)
        .unwrap();
    let letters = running.letters().unwrap();
    for letter in 0..10 {
        let one = LetterChoice::all().offsets(letter..=letter);
        letters.replay("dead", &one, LetterTime::Own).unwrap();
    }
    until("all were replayed", || {
        states(&letters, "dead") == [LetterState::Replayed; 10]
    });
    wait(running.stop()).unwrap();
    assert_counted(&log, 30);
}

/// The topic through which letters come back is a worker's that has nothing else to read, for one number of workers or the other.
#[test]
fn letters_come_back_to_a_job_that_has_more_workers_than_partitions() {
    for workers in 2..=4 {
        let place = Place::new();
        let log = place.log();
        fill_topic(&log, "in", 1, &texts(30)[..27]);
        run(counting(Kind::Topic, &place.path(""), false), &log).unwrap();
        let launch = counting(Kind::Endless, &place.path(""), true);
        let running = launch.workers(workers).start(&log).unwrap();
        fill_topic(&log, "in", 1, &texts(30)[27..]);
        until("the rest is committed", || running.progress().records == 3);
        let letters = running.letters().unwrap();
        let all = LetterChoice::all();
        letters.replay("dead", &all, LetterTime::Own).unwrap();
        until("all were replayed", || {
            states(&letters, "dead") == [LetterState::Replayed; 9]
        });
        wait(running.stop()).unwrap();
        assert_counted(&log, 30);
    }
}

#[test]
fn a_job_that_is_scaled_out_takes_letters_back_once_whoever_has_the_share() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 2, &texts(90));
    let start = |instance: &str, is_mended| {
        let launch = counting(Kind::Endless, &place.path(""), is_mended);
        launch
            .scale_out(ScaleOut::instance(instance))
            .start(&log)
            .unwrap()
    };
    let broken = start("one", false);
    until("all failed", || committed(&log, "dead").len() == 30);
    wait(broken.stop()).unwrap();
    let letters = Letters::of(&log, JOB).unwrap();
    let first = LetterChoice::all().reason("x1");
    let asked = letters.replay("dead", &first, LetterTime::Own).unwrap();
    assert!(asked.count > 2, "{asked:?}");
    let instances = ["one", "two"].map(|name| start(name, true));
    letters
        .replay("dead", &LetterChoice::all(), LetterTime::Own)
        .unwrap();
    until("all were replayed", || {
        states(&letters, "dead") == [LetterState::Replayed; 30]
            && committed(&log, "counts").len() == 90
    });
    for instance in instances {
        wait(instance.stop()).unwrap();
    }
    assert_counted(&log, 90);
}

/// Counts clicks in windows of 10 ms; late ones can come back.
fn windows(is_endless: bool) -> Launch {
    let job = Job::new("clicks");
    let again = job.replayed::<String, Click>("late");
    let input = match is_endless {
        true => topic::<str>("in"),
        false => topic::<str>("in").until_end(),
    };
    let (clicks, late) = job
        .source(input)
        .try_map(parse)
        .event_time(|(_, time)| *time, Watermarks::default())
        .key_by(|(user, _): &Click| user.clone())
        .boxed()
        .merge(again)
        .window(FixedWindows::tumbling(ms(10)))
        .late();
    late.sink(topic("late").keep_headers());
    clicks.count("per-window").sink(topic("counts"));
    job.exactly_once(Commit::every(OFTEN)).state_partitions(4)
}

#[test]
fn a_late_letter_is_late_again_by_its_own_time_and_counted_by_a_new_one() {
    let place = Place::new();
    let log = place.log();
    topic_of_clicks(&log, "in", 1);
    let times = [1, 25, 3, 26, 40, 12];
    feed(&log, "in", 0, &times.map(|time| click("a", time)));
    let running = windows(false).start(&log).unwrap();
    wait(running.finished()).unwrap();
    let all_in: u64 = results(&log).values().sum();
    let late = committed(&log, "late");
    assert_eq!((all_in, late.len()), (4, 2));
    let letters = Letters::of(&log, "clicks").unwrap();
    assert_eq!(letters.topics().unwrap(), [TopicName::new("late").unwrap()]);
    letters
        .replay("late", &LetterChoice::all().offsets(0..=0), LetterTime::Own)
        .unwrap();
    run(windows(false), &log).unwrap();
    let late = committed(&log, "late");
    assert_eq!(late.len(), 3, "by its own time it is late again");
    assert_eq!(late[2].header("onceflow.attempts"), "2");
    assert_eq!(late[2].timestamp, Timestamp(3));
    assert_eq!(results(&log).values().sum::<u64>(), 4);
    // The end of the input closed all windows: only a time behind everything is not late.
    let mut told = Vec::new();
    letters
        .visit("late", &mut |letter| told.push((letter.state, letter.time)))
        .unwrap();
    let (waiting, replayed) = (LetterState::Waiting, LetterState::Replayed);
    let times = [3, 12, 3].map(Timestamp);
    assert_eq!(
        told,
        [
            (replayed, times[0]),
            (waiting, times[1]),
            (waiting, times[2])
        ]
    );
    let (second, then) = (LetterChoice::all().offsets(1..=1), Timestamp(10_000));
    letters
        .replay("late", &second, LetterTime::At(then))
        .unwrap();
    // Time would end with an input that ends, and letters hold no time.
    let running = windows(true).start(&log).unwrap();
    until("it is back", || {
        states(&letters, "late")[1] == LetterState::Replayed
    });
    feed(&log, "in", 0, &[click("a", 20_000)]);
    until("its window is closed", || {
        results(&log).values().sum::<u64>() == 5
    });
    wait(running.stop()).unwrap();
    assert_eq!(committed(&log, "late").len(), 3, "it is late no more");
}

#[test]
fn what_cannot_be_replayed_is_refused_with_what_to_do() {
    let place = Place::new();
    let log = place.log();
    fill_topic(&log, "in", 1, &texts(9));
    let unknown = Letters::of(&log, JOB).err().unwrap().to_string();
    assert!(unknown.contains("no job of this name"), "{unknown}");
    run(counting(Kind::Topic, &place.path(""), false), &log).unwrap();
    let letters = Letters::of(&log, JOB).unwrap();
    let refused = |topic: &str, choice: &LetterChoice| {
        let refused = letters.replay(topic, choice, LetterTime::Own);
        refused.unwrap_err().to_string()
    };
    let all = LetterChoice::all();
    let absent = refused("deed", &all);
    assert!(absent.contains("there is no topic \"deed\""), "{absent}");
    let none = refused("dead", &LetterChoice::all().reason("nothing like it"));
    assert!(none.contains("has none that fit"), "{none}");
    // A topic of records is no topic of letters.
    assert!(refused("in", &all).contains("has none that fit"));
    let other = Job::new("other");
    other
        .source(topic::<str>("in").until_end())
        .try_map(|text: &str| number(text, false))
        .sink(topic("out"));
    let dead = PoisonPolicy::DeadLetter(TopicName::new("dead-of-other").unwrap());
    run(
        other.exactly_once(Commit::every(OFTEN)).on_poison(dead),
        &log,
    )
    .unwrap();
    let of_another = refused("dead-of-other", &all);
    assert!(of_another.contains("are of other jobs"), "{of_another}");
    assert_eq!(letters.topics().unwrap(), [TopicName::new("dead").unwrap()]);
}

const VARIABLE: &str = "ONCEFLOW_LETTERS_CHILD";
const COUNT: u64 = 900;

/// The child's entry: asks for some letters, and runs the job for a while.
#[test]
#[ignore = "the test of this module starts it, in a process that it kills"]
fn asks_for_letters_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let (last, data) = plan.split_once(' ').unwrap();
    let log = open(Path::new(data));
    let running = counting(Kind::Endless, Path::new(""), true)
        .start(&log)
        .unwrap();
    until("the job is there", || Letters::of(&log, JOB).is_ok());
    let some = LetterChoice::all().offsets(0..=last.parse().unwrap());
    running
        .letters()
        .unwrap()
        .replay("dead", &some, LetterTime::Own)
        .unwrap();
    std::thread::sleep(ms(200));
    wait(running.stop()).unwrap();
    log.close().unwrap();
}

#[test]
fn letters_are_replayed_once_by_processes_that_are_killed_at_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = open(&data);
    fill_topic(&log, "in", 2, &texts(COUNT));
    run(counting(Kind::Topic, folder.path(), false), &log).unwrap();
    log.close().unwrap();
    let steps = [
        "letters.written",
        "letters.asked",
        "commit.begin",
        "commit.before_decision",
        "commit.decision_written",
        "commit.before_marker",
        "commit.before_reply",
        "cycle.drained",
        "cycle.changelog_written",
        "cycle.offsets_sent",
        "cycle.committed",
        "cycle.applied",
    ];
    let mut killed = 0;
    for (life, name) in steps.iter().enumerate() {
        for hit in 1..=2 {
            let last = 10 * (2 * life + hit);
            let plan = format!("{last} {}", data.display());
            let test = "jobs::letters::asks_for_letters_until_it_is_killed";
            let failpoint = format!("{name}=kill@{hit}");
            let mut child = start_child(test, (VARIABLE, &plan), &failpoint);
            assert!(child.is_killed_within(ms(30_000)), "{failpoint}: it hangs");
            killed += usize::from(child.0.wait().unwrap().code().is_none());
        }
    }
    assert!(killed > 15, "{killed} were killed");
    let log = open(&data);
    let letters = Letters::of(&log, JOB).unwrap();
    let rest = letters
        .replay("dead", &LetterChoice::all(), LetterTime::Own)
        .unwrap();
    assert!(
        rest.count + rest.asked_before == COUNT / 3 && rest.asked_before > 150,
        "{rest:?}"
    );
    run(counting(Kind::Topic, folder.path(), true), &log).unwrap();
    assert_counted(&log, COUNT);
    log.close().unwrap();
}

/// Counts numbers by their last digit; those that three divides fail behind the topic between processes, until that is mended.
pub(crate) fn failing_behind_a_topic(instance: &str, is_mended: bool) -> Launch {
    let job = Job::new(JOB);
    job.source(topic::<str>("in"))
        .try_map(|text: &str| text.parse::<u64>())
        .key_by(|n| n % 10)
        .partitioned("by-digit")
        .try_map(move |n: &u64| match n % 3 {
            0 if !is_mended => Err(format!("{n} is not taken")),
            _ => Ok(*n),
        })
        .count("counts")
        .changes()
        .sink(topic("counts"));
    job.exactly_once(Commit::every(OFTEN))
        .on_poison(PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap()))
        .state_partitions(4)
        .workers(2)
        .scale_out(ScaleOut::instance(instance).purge_interval(ms(100)))
}

#[test]
fn u13_letters_behind_a_topic_between_processes_go_back_into_it_once() {
    let place = Place::new();
    let log = place.log();
    let numbers: Vec<String> = (0..27).map(|n| n.to_string()).collect();
    fill_topic(&log, "in", 2, &numbers);
    let start = |instance: &str, is_mended| {
        let launch = failing_behind_a_topic(instance, is_mended);
        launch.start(&log).unwrap()
    };
    let dead = |count| until("all failed", || committed(&log, "dead").len() == count);
    let broken = start("one", false);
    dead(9);
    let letters = Letters::of(&log, JOB).unwrap();
    let shown = &committed(&log, "dead")[0];
    let source = shown.header("onceflow.source");
    assert!(
        source.starts_with("parse-by-digit-repartition-"),
        "{source}"
    );
    let some = LetterChoice::all().reason("3 is not");
    let some_count = (0..27).step_by(3).filter(|n| n % 10 == 3).count();
    let asked = letters.replay("dead", &some, LetterTime::Own).unwrap();
    assert_eq!(asked.count, some_count as u64);
    // It is not mended yet: they are letters again.
    dead(9 + some_count);
    wait(broken.stop()).unwrap();
    let mended = ["two", "three"].map(|instance| start(instance, true));
    let asked = letters
        .replay("dead", &LetterChoice::all(), LetterTime::Own)
        .unwrap();
    assert_eq!((asked.count, asked.asked_before), (9, some_count as u64));
    until("all are counted", || committed(&log, "counts").len() >= 27);
    // Who looks at the log anew knows it, too.
    let again = Letters::of(&log, JOB).unwrap();
    let refused = again.replay("dead", &LetterChoice::all(), LetterTime::Own);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("were replayed before"), "{refused}");
    let all = 9 + some_count;
    assert_eq!(states(&again, "dead"), vec![LetterState::Replayed; all]);
    for instance in mended {
        wait(instance.stop()).unwrap();
    }
    assert_counted(&log, 27);
    assert_eq!(committed(&log, "dead").len(), all);
}

/// The child's entry: shares the job, mended, and asks for some letters.
#[test]
#[ignore = "the test below starts it, in a process that it kills"]
fn asks_for_letters_behind_a_topic_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let (last, data) = plan.split_once(' ').unwrap();
    let log = open(Path::new(data));
    let running = failing_behind_a_topic("one", true).start(&log).unwrap();
    let letters = Letters::of(&log, JOB).unwrap();
    let some = LetterChoice::all().offsets(0..=last.parse().unwrap());
    // Those may all have been asked for in an earlier life.
    drop(letters.replay("dead", &some, LetterTime::Own));
    std::thread::sleep(ms(1_000));
    wait(running.stop()).unwrap();
    log.close().unwrap();
}

#[test]
fn u13_letters_behind_a_topic_go_back_once_from_processes_that_are_killed_at_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = open(&data);
    let numbers: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    fill_topic(&log, "in", 2, &numbers);
    let broken = failing_behind_a_topic("one", false).start(&log).unwrap();
    let count = usize::try_from(COUNT / 3).unwrap();
    until("all failed", || committed(&log, "dead").len() == count);
    wait(broken.stop()).unwrap();
    log.close().unwrap();
    let steps = [
        "letters.written",
        "letters.asked",
        "commit.begin",
        "commit.before_decision",
        "commit.decision_written",
        "commit.before_marker",
        "commit.before_reply",
        "cycle.drained",
        "cycle.changelog_written",
        "cycle.offsets_sent",
        "cycle.committed",
        "cycle.applied",
    ];
    let mut killed = 0;
    for (life, name) in steps.iter().enumerate() {
        for hit in 1..=2 {
            let plan = format!("{} {}", 3 * (2 * life + hit), data.display());
            let test = "jobs::letters::asks_for_letters_behind_a_topic_until_it_is_killed";
            let failpoint = format!("{name}=kill@{hit}");
            let mut child = start_child(test, (VARIABLE, &plan), &failpoint);
            assert!(child.is_killed_within(ms(30_000)), "{failpoint}: it hangs");
            killed += usize::from(child.0.wait().unwrap().code().is_none());
        }
    }
    println!("{killed} were killed");
    assert!(killed > 12, "{killed} were killed");
    let log = open(&data);
    let letters = Letters::of(&log, JOB).unwrap();
    let rest = letters.replay("dead", &LetterChoice::all(), LetterTime::Own);
    let rest = rest.unwrap();
    println!("{rest:?}");
    assert!(
        rest.count + rest.asked_before == COUNT / 3 && rest.asked_before > 0,
        "{rest:?}"
    );
    let mended = failing_behind_a_topic("one", true).start(&log).unwrap();
    let all = usize::try_from(COUNT).unwrap();
    until("all are counted", || committed(&log, "counts").len() >= all);
    wait(mended.stop()).unwrap();
    assert_counted(&log, COUNT);
    log.close().unwrap();
}

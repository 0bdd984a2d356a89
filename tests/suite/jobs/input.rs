//! Input as it really is: bad bytes, odd line ends, huge lines, files that were cut.

use onceflow::prelude::*;
use onceflow::types::TopicName;

use super::support::{AT_THE_END, OFTEN, Place, committed, committed_values, run};

fn copy(source: onceflow::runtime::Lines) -> Job {
    let job = Job::new("copy");
    job.source(source).sink(topic("out").partitions(1));
    job
}

/// The lines that a job makes of `content`.
fn lines_of(content: &[u8]) -> Vec<String> {
    let place = Place::new();
    let path = place.file("in", content);
    let log = place.log();
    run(
        copy(lines([&path])).exactly_once(Commit::every(OFTEN)),
        &log,
    )
    .unwrap();
    committed_values::<str>(&log, "out")
}

#[test]
fn lines_end_in_any_of_the_usual_ways() {
    assert_eq!(lines_of(b""), Vec::<String>::new());
    assert_eq!(lines_of(b"\n"), [""]);
    assert_eq!(lines_of(b"a\n\nb\n"), ["a", "", "b"]);
    assert_eq!(lines_of(b"a\r\nb\r\n\r\n"), ["a", "b", ""]);
    assert_eq!(lines_of(b"a\nno end"), ["a", "no end"]);
    assert_eq!(
        lines_of(b"lone \r return\nnul \0\n"),
        ["lone \r return", "nul \0"]
    );
    assert_eq!(
        lines_of("\u{feff}späte Grüße 😀\n".as_bytes()),
        ["\u{feff}späte Grüße 😀"]
    );
}

#[test]
fn a_line_that_is_not_utf8_is_poison_unless_lossy() {
    let place = Place::new();
    let path = place.file("in", b"good\nb\xffd\nfine\n");
    let log = place.log();
    let often = Commit::every(OFTEN);
    let error = run(copy(lines([&path])).exactly_once(often), &log).unwrap_err();
    let JobError::Poison { split, offset, why } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (split.as_str(), offset.0),
        (path.to_str().unwrap(), 5),
        "{why}"
    );

    let dead = PoisonPolicy::DeadLetter(TopicName::new("dead").unwrap());
    run(
        copy(lines([&path])).exactly_once(often).on_poison(dead),
        &log,
    )
    .unwrap();
    assert_eq!(committed_values::<str>(&log, "out"), ["good", "fine"]);
    assert_eq!(
        committed(&log, "dead")[0].value.as_deref(),
        Some(&b"b\xffd"[..])
    );

    let lossy = Job::new("lossy");
    lossy
        .source(lines([&path]).lossy())
        .sink(topic("lossy").partitions(1));
    run(lossy.exactly_once(often), &log).unwrap();
    assert_eq!(
        committed_values::<str>(&log, "lossy"),
        ["good", "b\u{fffd}d", "fine"]
    );
}

#[test]
fn lines_of_ten_megabytes_are_read_and_longer_ones_refused() {
    let place = Place::new();
    let content = format!("{}\nshort\n{}", "a ".repeat(5 << 20), "b".repeat(10 << 20));
    let path = place.file("in", &content);
    let log = place.log();
    let job = |source| {
        let job = Job::new("lengths");
        let (left, right) = job.source(source).tee();
        left.map(|line: &str| line.len() as u64)
            .sink(topic("out").partitions(1));
        // Over the shuffle, too.
        right
            .key_by(|line: &str| line.len() as u64)
            .count("counts")
            .changes()
            .sink(topic("counts"));
        job.exactly_once(Commit::every(AT_THE_END))
    };
    let error = run(job(lines([&path]).line_bytes_max(1 << 20)), &log).unwrap_err();
    assert!(
        error.to_string().contains("longer than 1048576 bytes"),
        "{error}"
    );
    assert_eq!(committed(&log, "out"), []);
    run(job(lines([&path])), &log).unwrap();
    assert_eq!(
        committed_values::<u64>(&log, "out"),
        [10 << 20, 5, 10 << 20]
    );
    assert_eq!(committed(&log, "counts").len(), 3);
}

#[test]
fn s15_a_line_over_the_topics_limit_becomes_a_dead_letter_or_is_named() {
    let place = Place::new();
    let content = format!("small\n{}\nalso small\n", "x".repeat(2 << 20));
    let path = place.file("in", &content);
    let log = place.log();
    let error = run(
        copy(lines([&path])).exactly_once(Commit::every(OFTEN)),
        &log,
    )
    .unwrap_err();
    let JobError::Poison { offset, why, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(offset.0, 6, "{why}");
    // The letter is as large as the record, so its topic must take it.
    let dead = TopicName::new("dead").unwrap();
    let limits = [("max.message.bytes".to_owned(), "4194304".to_owned())];
    onceflow::client::wait(log.admin().create_topic_with(&dead, 1, limits.into())).unwrap();
    let launch = copy(lines([&path])).exactly_once(Commit::every(OFTEN));
    run(launch.on_poison(PoisonPolicy::DeadLetter(dead)), &log).unwrap();
    assert_eq!(
        committed_values::<str>(&log, "out"),
        ["small", "also small"]
    );
    assert_eq!(
        committed(&log, "dead")[0].value.as_ref().unwrap().len(),
        2 << 20
    );
}

#[test]
fn a_file_that_was_cut_behind_the_committed_position_is_refused() {
    let place = Place::new();
    let path = place.file("in", "one\ntwo\n");
    let log = place.log();
    run(
        copy(lines([&path])).exactly_once(Commit::every(OFTEN)),
        &log,
    )
    .unwrap();
    place.file("in", "one\n");
    let error = run(
        copy(lines([&path])).exactly_once(Commit::every(OFTEN)),
        &log,
    )
    .unwrap_err();
    assert!(error.to_string().contains("cut or replaced"), "{error}");
    place.file("in", "one\ntwo\nthree\n");
    run(
        copy(lines([&path])).exactly_once(Commit::every(OFTEN)),
        &log,
    )
    .unwrap();
    assert_eq!(
        committed_values::<str>(&log, "out"),
        ["one", "two", "three"]
    );
}

#[test]
fn a_file_that_is_absent_or_a_directory_is_named() {
    let place = Place::new();
    let log = place.log();
    for path in [place.path("absent"), place.path("data")] {
        let error = run(
            copy(lines([&path])).exactly_once(Commit::every(AT_THE_END)),
            &log,
        )
        .unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_source_topic_that_does_not_exist_yet_is_made_and_waited_for() {
    let place = Place::new();
    let log = place.log();
    let job = Job::new("early");
    job.source(topic::<str>("later"))
        .sink(topic("out").partitions(1));
    let running = job.exactly_once(Commit::every(OFTEN)).start(&log).unwrap();
    let later = TopicName::new("later").unwrap();
    super::support::until("the topic is there", || {
        onceflow::client::wait(log.transport().topic(&later))
            .unwrap()
            .is_some()
    });
    super::support::fill_topic(&log, "later", 1, &["at last"]);
    super::support::until("it was copied", || !committed(&log, "out").is_empty());
    onceflow::client::wait(running.stop()).unwrap();
    assert_eq!(committed_values::<str>(&log, "out"), ["at last"]);
}

//! The sink of files is exactly once, and standard input is, when it is given again.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use onceflow::prelude::*;
use onceflow::runtime::lines_of;
use onceflow::types::TopicName;

use super::support::{
    AT_THE_END, OFTEN, Place, assert_counted, committed, committed_values, plain_count, run, text,
    until, word_count,
};

/// The lines of the sealed parts, and the names of the parts in progress.
fn read_parts(directory: &Path) -> (Vec<String>, Vec<String>) {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let (sealed, others): (Vec<_>, Vec<_>) = names
        .into_iter()
        .partition(|name| name.starts_with("part-"));
    let mut lines = Vec::new();
    for name in sealed {
        let content = fs::read_to_string(directory.join(name)).unwrap();
        assert!(
            content.is_empty() || content.ends_with('\n'),
            "whole lines only"
        );
        lines.extend(content.lines().map(str::to_owned));
    }
    (lines, others)
}

fn numbers(count: u64) -> String {
    (0..count).map(|n| format!("line {n}\n")).collect()
}

/// Copies lines to files; panics at line `fatal`, if it comes.
fn copy(path: &Path, out: &Path, fatal: u64, part_bytes: u64) -> Job {
    let fatal = format!("line {fatal}");
    let job = Job::new("copy");
    job.source(lines([path]))
        .inspect(move |line| assert!(line != fatal, "on purpose"))
        .sink(files(out).part_bytes(part_bytes));
    job
}

#[test]
fn files_hold_each_line_once_through_failures_at_any_place() {
    let place = Place::new();
    let path = place.file("in", numbers(60_000));
    let out = place.path("out");
    let often = Commit::every(OFTEN).or_records(10_000);
    for part_bytes in [0, 100_000, 1 << 30] {
        for fatal in [3, 30_000, 45_000, 59_999, u64::MAX] {
            let log = place.log();
            let job = copy(&path, &out, fatal, part_bytes).exactly_once(often);
            assert_eq!(run(job.workers(1), &log).is_ok(), fatal == u64::MAX);
            log.close().unwrap();
            let (lines, _) = read_parts(&out);
            let begin = numbers(lines.len() as u64);
            assert!(
                lines.iter().map(String::as_str).eq(begin.lines()),
                "a prefix of the input"
            );
        }
        let (lines, others) = read_parts(&out);
        assert_eq!((lines.len(), others), (60_000, vec![]), "all of it, sealed");
        fs::remove_dir_all(&out).unwrap();
        fs::remove_dir_all(place.path("data")).unwrap();
    }
}

#[test]
fn files_of_several_workers_hold_every_update_once() {
    let place = Place::new();
    let all = text(4, 800);
    let path = place.file("book", &all);
    let out = place.path("out");
    let log = place.log();
    let job = Job::new("counts");
    job.source(lines([&path]))
        .flat_map(super::support::words)
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .sink(
            files(&out).format(|record: Record<'_, str, u64>, line: &mut Vec<u8>| {
                line.extend_from_slice(record.key.bytes());
                line.extend_from_slice(format!(" {}", record.value).as_bytes());
            }),
        );
    run(job.exactly_once(Commit::every(OFTEN)).workers(3), &log).unwrap();
    let (mut lines, _) = read_parts(&out);
    let counts = plain_count([all.as_str()]);
    let updates = counts
        .iter()
        .flat_map(|(word, count)| (1..=*count).map(move |n| format!("{word} {n}")));
    let mut expected: Vec<String> = updates.collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines, expected);
}

#[test]
fn a_line_with_a_line_end_is_poison_and_foreign_files_are_left_alone() {
    let place = Place::new();
    let log = place.log();
    let out = place.path("out");
    fs::create_dir(&out).unwrap();
    let foreign = [
        "part-other-00000001",
        ".part-other-00000001.inprogress",
        "part-copy-x",
        "notes",
    ];
    foreign
        .iter()
        .for_each(|name| fs::write(out.join(name), "theirs\n").unwrap());
    let job = Job::new("copy");
    job.source(values(
        "v",
        [
            "one".to_owned(),
            "two\nlines".to_owned(),
            "three".to_owned(),
        ],
    ))
    .sink(files(&out));
    let dead = TopicName::new("dead").unwrap();
    let launch = job.exactly_once(Commit::every(AT_THE_END));
    run(launch.on_poison(PoisonPolicy::DeadLetter(dead)), &log).unwrap();
    assert_eq!(
        fs::read_to_string(out.join("part-copy-00000000")).unwrap(),
        "one\nthree\n"
    );
    assert_eq!(committed(&log, "dead").len(), 1);
    for name in foreign {
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), "theirs\n");
    }
}

#[test]
fn a_part_that_was_cut_by_somebody_else_is_refused() {
    let place = Place::new();
    let log = place.log();
    let path = place.file("in", numbers(60_000));
    let out = place.path("out");
    let often = Commit::every(OFTEN).or_records(10_000);
    run(
        copy(&path, &out, 59_999, 1 << 30)
            .exactly_once(often)
            .workers(1),
        &log,
    )
    .unwrap_err();
    let (_, others) = read_parts(&out);
    let part = fs::File::options()
        .write(true)
        .open(out.join(&others[0]))
        .unwrap();
    part.set_len(5).unwrap();
    let error = run(
        copy(&path, &out, u64::MAX, 1 << 30).exactly_once(often),
        &log,
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("cut by somebody else"),
        "{error}"
    );
}

#[test]
fn an_input_that_is_given_again_is_skipped_up_to_what_was_committed() {
    let place = Place::new();
    let mut all = String::new();
    for round in 0..3 {
        all.push_str(&text(round, 2_000));
        let log = place.log();
        let job = word_count(lines_of("stdin", Cursor::new(all.clone())));
        run(job.exactly_once(Commit::every(OFTEN).or_records(100)), &log).unwrap();
        assert_counted(&log, &plain_count([all.as_str()]));
        log.close().unwrap();
    }
    let log = place.log();
    let job = word_count(lines_of("stdin", Cursor::new(all[..1_000].to_owned())));
    let error = run(job.exactly_once(Commit::every(OFTEN)), &log).unwrap_err();
    assert!(
        error.to_string().contains("give the same input again"),
        "{error}"
    );
}

#[test]
fn an_input_that_pauses_is_committed_meanwhile_and_ends_with_its_end() {
    let place = Place::new();
    let log = place.log();
    let (input, mut output) = std::io::pipe().unwrap();
    let job = Job::new("copy");
    job.source(lines_of("pipe", input))
        .sink(topic("out").partitions(1));
    let running = job.exactly_once(Commit::every(OFTEN)).start(&log).unwrap();
    let mut expected = Vec::new();
    for line in ["one", "", "three"] {
        use std::io::Write;
        writeln!(output, "{line}").unwrap();
        expected.push(line.to_owned());
        super::support::until("the line is committed", || {
            committed(&log, "out").len() == expected.len()
        });
    }
    use std::io::Write;
    output.write_all(b"no end").unwrap();
    drop(output);
    onceflow::client::wait(running.finished()).unwrap();
    expected.push("no end".to_owned());
    assert_eq!(committed_values::<str>(&log, "out"), expected);
}

#[test]
fn a_file_is_seen_as_soon_as_it_is_committed_also_where_nothing_follows() {
    let place = Place::new();
    let path = place.file("in", "one\ntwo\n");
    let out = place.path("out");
    let log = place.log();
    let job = Job::new("copy");
    job.source(lines([&path]).follow())
        .sink(files(&out).part_bytes(0));
    let launch = job.exactly_once(Commit::every(OFTEN)).workers(1);
    let running = launch.start(&log).unwrap();
    until("the lines are in files", || {
        out.exists() && read_parts(&out).0 == ["one", "two"]
    });
    onceflow::client::wait(running.stop()).unwrap();
}

#[test]
fn o8_a_name_of_a_file_is_never_given_again_though_the_file_was_taken_away() {
    let place = Place::new();
    let out = place.path("out");
    let path = place.file("in", "");
    let mut seen = std::collections::BTreeSet::new();
    for run_number in 0..3 {
        super::support::append(&path, numbers(30));
        let log = place.log();
        let often = Commit::every(OFTEN).or_records(10);
        let launch = copy(&path, &out, u64::MAX, 0).exactly_once(often);
        run(launch.workers(1 + run_number % 2), &log).unwrap();
        for entry in fs::read_dir(&out).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            assert!(seen.insert(name.clone()), "{name} came again");
            fs::remove_file(entry.path()).unwrap();
        }
        log.close().unwrap();
    }
    assert!(seen.len() > 3, "{seen:?}");
}

#[test]
fn o7_what_another_job_left_in_the_directory_stays() {
    let place = Place::new();
    let out = place.path("out");
    fs::create_dir(&out).unwrap();
    let others = [
        ".part-copy-1-00000000.inprogress",
        ".part-copy-11-00000000.inprogress",
        ".part-cop-00000000.inprogress",
        ".part-copy00000000.inprogress",
        ".part-copy-0000000x.inprogress",
        "part-copy-1-00000000",
    ];
    for name in others {
        fs::write(out.join(name), "of another job\n").unwrap();
    }
    fs::write(
        out.join(".part-copy-00000000.inprogress"),
        "never committed",
    )
    .unwrap();
    let path = place.file("in", numbers(10));
    let log = place.log();
    run(
        copy(&path, &out, u64::MAX, 0).exactly_once(Commit::every(OFTEN)),
        &log,
    )
    .unwrap();
    for name in others {
        let content = fs::read_to_string(out.join(name)).unwrap();
        assert_eq!(content, "of another job\n", "{name}");
    }
    assert!(!out.join(".part-copy-00000000.inprogress").exists());
}

//! X5: a file is read as long as it only grows. Whatever else happens to it is an error, never a line that nobody wrote.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::{Lines, Running, lines_of};

use super::support::{OFTEN, Place, append, committed_values, run, until};

fn launch(source: Lines) -> onceflow::runtime::Launch {
    let job = Job::new("copy");
    job.source(source).sink(topic("out").partitions(1));
    job.exactly_once(Commit::every(OFTEN))
}

/// Puts another file with this content in the place of the one at `path`.
fn replace(path: &Path, content: impl AsRef<[u8]>) {
    let other = path.with_extension("other");
    fs::write(&other, content).unwrap();
    fs::rename(&other, path).unwrap();
}

fn out(log: &Log) -> Vec<String> {
    committed_values::<str>(log, "out")
}

fn wait_for_lines(log: &Log, running: &Running, lines: &[&str]) {
    until("the lines are there", || {
        assert!(!running.is_finished(), "the job ended");
        out(log) == lines
    });
}

fn error_of(running: Running) -> String {
    until("the job has stopped", || running.is_finished());
    wait(running.finished()).unwrap_err().to_string()
}

#[test]
fn x5_the_end_of_a_line_that_was_committed_without_it_is_no_line() {
    for (first, then, lines) in [
        ("x\r", "\ny\n", ["x", "y"].as_slice()),
        ("x", "\ny\n", &["x", "y"]),
        ("x", "\r\ny\n", &["x", "y"]),
        ("a\nx", "\n\ny", &["a", "x", "", "y"]),
        ("x", "\n", &["x"]),
    ] {
        let place = Place::new();
        let path = place.file("in", first);
        let log = place.log();
        run(launch(lines_in(&path)), &log).unwrap();
        // Nothing came: nothing changes.
        run(launch(lines_in(&path)), &log).unwrap();
        append(&path, then);
        run(launch(lines_in(&path)), &log).unwrap();
        run(launch(lines_in(&path)), &log).unwrap();
        assert_eq!(out(&log), lines, "{first:?} then {then:?}");
    }
}

fn lines_in(path: &Path) -> Lines {
    lines([path])
}

#[test]
fn x5_half_a_line_end_that_comes_alone_waits_for_the_other_half() {
    let place = Place::new();
    let path = place.file("in", "x");
    let log = place.log();
    for more in ["", "\r", "\n", "y\n"] {
        append(&path, more);
        run(launch(lines_in(&path)), &log).unwrap();
    }
    assert_eq!(out(&log), ["x", "y"]);
}

#[test]
fn x5_a_line_that_goes_on_after_it_was_committed_is_an_error() {
    for (first, then) in [
        ("x", "yz\n"),
        ("x\r", "\r\n"),
        ("x\r", "y\n"),
        ("x", "\ry\n"),
    ] {
        let place = Place::new();
        let path = place.file("in", first);
        let log = place.log();
        run(launch(lines_in(&path)), &log).unwrap();
        append(&path, then);
        let error = run(launch(lines_in(&path)), &log).unwrap_err().to_string();
        assert!(
            error.contains("had no end when it was committed"),
            "{error}"
        );
        assert!(error.contains("whole_lines"), "{error}");
        assert_eq!(out(&log), ["x"], "{first:?} then {then:?}");
    }
}

#[test]
fn x5_whole_lines_leave_a_line_without_an_end_for_a_later_run() {
    let place = Place::new();
    let path = place.file("in", "a\nb");
    let log = place.log();
    run(launch(lines_in(&path).whole_lines()), &log).unwrap();
    assert_eq!(out(&log), ["a"]);
    append(&path, "c\r\nd");
    run(launch(lines_in(&path).whole_lines()), &log).unwrap();
    assert_eq!(out(&log), ["a", "bc"]);
    run(launch(lines_in(&path)), &log).unwrap();
    assert_eq!(out(&log), ["a", "bc", "d"]);
}

#[test]
fn x5_a_file_that_was_changed_between_two_runs_is_an_error() {
    type Change = fn(&Path);
    let changes: [(&str, Change, &str); 7] = [
        ("cut", |path| fs::write(path, "one\n").unwrap(), "cut"),
        (
            "cut within what was seen",
            |path| fs::write(path, "one\ntwo\nth").unwrap(),
            "cut",
        ),
        ("emptied", |path| fs::write(path, "").unwrap(), "cut"),
        (
            "emptied and longer",
            |path| fs::write(path, "four\nfive\nsix\nseven\n").unwrap(),
            "replaced",
        ),
        (
            "emptied and as long",
            |path| fs::write(path, "eno\nowt\neerht").unwrap(),
            "replaced",
        ),
        (
            "another file, longer",
            |path| replace(path, "four\nfive\nsix\nseven\n"),
            "replaced",
        ),
        (
            "another file, shorter",
            |path| replace(path, "four\n"),
            "cut",
        ),
    ];
    for (what, change, told) in changes {
        let place = Place::new();
        let path = place.file("in", "one\ntwo\nthree");
        let log = place.log();
        run(launch(lines_in(&path).whole_lines()), &log).unwrap();
        change(&path);
        let error = run(launch(lines_in(&path)), &log).unwrap_err().to_string();
        assert!(error.contains(told), "{what}: {error}");
        assert!(error.contains(path.to_str().unwrap()), "{what}: {error}");
        assert_eq!(out(&log), ["one", "two"], "{what}");
    }
}

#[test]
fn x5_a_copy_is_read_on_and_another_file_with_the_same_last_lines_is_not() {
    let place = Place::new();
    let long = |first: &str| format!("{first}\n{}", "the same line\n".repeat(5000));
    let path = place.file("in", long("one"));
    let log = place.log();
    run(launch(lines_in(&path)), &log).unwrap();
    replace(&path, long("one") + "more\n");
    run(launch(lines_in(&path)), &log).unwrap();
    assert_eq!(out(&log).len(), 5002);
    replace(&path, long("two") + "more\nand more\n");
    let error = run(launch(lines_in(&path)), &log).unwrap_err().to_string();
    assert!(error.contains("replaced"), "{error}");
    assert_eq!(out(&log).len(), 5002);
}

#[test]
fn x5_a_followed_file_that_is_emptied_or_replaced_stops_the_job() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("shorter", |path| fs::write(path, "four\n").unwrap()),
        ("as long", |path| fs::write(path, "eno\nowt\n").unwrap()),
        ("longer", |path| {
            fs::write(path, "four\nfive\nsix\nseven\n").unwrap()
        }),
        ("another file", |path| replace(path, "four\nfive\nsix\n")),
        ("nothing where it was, behind it something", |path| {
            // A writer that does not append goes on at its old position after `copytruncate`.
            fs::write(path, [&[0; 8][..], b"three\n"].concat()).unwrap();
        }),
    ];
    for (what, change) in changes {
        let place = Place::new();
        let path = place.file("in", "one\ntwo\n");
        let log = place.log();
        let running = launch(lines_in(&path).follow()).start(&log).unwrap();
        wait_for_lines(&log, &running, &["one", "two"]);
        change(&path);
        let error = error_of(running);
        let is_told = ["cut", "replaced", "took its place"]
            .iter()
            .any(|told| error.contains(told));
        assert!(is_told, "{what}: {error}");
        assert_eq!(out(&log), ["one", "two"], "{what}");
    }
}

#[test]
fn x5_a_rotated_file_is_read_to_its_end_and_then_the_new_one() {
    let place = Place::new();
    let path = place.file("in.log", "a\n");
    let log = place.log();
    let running = launch(lines_in(&path).follow_rotation())
        .start(&log)
        .unwrap();
    wait_for_lines(&log, &running, &["a"]);
    let old = place.path("in.log.1");
    fs::rename(&path, &old).unwrap();
    append(&old, "b\n");
    wait_for_lines(&log, &running, &["a", "b"]);
    // The new file is there, and the writer still has the old one.
    fs::write(&path, "").unwrap();
    append(&old, "c\nno end");
    wait_for_lines(&log, &running, &["a", "b", "c"]);
    append(&path, "d\n");
    let lines = ["a", "b", "c", "no end", "d"];
    wait_for_lines(&log, &running, &lines);
    wait(running.stop()).unwrap();
    // The new file's positions are its own.
    append(&path, "e\n");
    let running = launch(lines_in(&path).follow_rotation())
        .start(&log)
        .unwrap();
    wait_for_lines(&log, &running, &["a", "b", "c", "no end", "d", "e"]);
    wait(running.stop()).unwrap();
}

#[test]
fn x5_files_that_were_rotated_between_two_runs_are_read_in_their_order() {
    let place = Place::new();
    let path = place.file("in.log", "a\n");
    place.file("in.log.9", "long before\n");
    place.file("in.log.bak", "something else\n");
    let log = place.log();
    let rotating = || launch(lines_in(&path).follow_rotation());
    let running = rotating().start(&log).unwrap();
    wait_for_lines(&log, &running, &["a"]);
    wait(running.stop()).unwrap();
    append(&path, "b\n");
    tick();
    fs::rename(&path, place.path("in.log.2")).unwrap();
    place.file("in.log.1", "c\n");
    tick();
    place.file("in.log.bak", "something else\n");
    fs::write(&path, "d\n").unwrap();
    let running = rotating().start(&log).unwrap();
    wait_for_lines(&log, &running, &["a", "b", "c", "d"]);
    wait(running.stop()).unwrap();
    // The file that was read is gone: nobody knows what came after it.
    fs::remove_file(&path).unwrap();
    place.file("in.log", "f\n");
    let running = rotating().start(&log).unwrap();
    let error = error_of(running);
    assert!(
        error.contains("rotated") || error.contains("replaced"),
        "{error}"
    );
    assert_eq!(out(&log), ["a", "b", "c", "d"]);
}

/// Files written before and after have different times of change.
fn tick() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let changed = || fs::metadata(file.path()).unwrap().modified().unwrap();
    let before = changed();
    until("the file system's clock has moved", || {
        fs::write(file.path(), "x").unwrap();
        changed() > before
    });
}

#[test]
fn x5_a_file_that_was_compressed_before_it_was_read_is_an_error() {
    let place = Place::new();
    let path = place.file("in.log", "a\n");
    let log = place.log();
    let running = launch(lines_in(&path).follow_rotation())
        .start(&log)
        .unwrap();
    wait_for_lines(&log, &running, &["a"]);
    wait(running.stop()).unwrap();
    fs::rename(&path, place.path("in.log.2")).unwrap();
    tick();
    place.file("in.log.1.gz", b"\x1f\x8b whatever");
    fs::write(&path, "d\n").unwrap();
    let running = launch(lines_in(&path).follow_rotation())
        .start(&log)
        .unwrap();
    let error = error_of(running);
    assert!(error.contains("compressed before it was read"), "{error}");
    assert_eq!(out(&log), ["a"]);
}

#[test]
fn x5_standard_input_that_is_another_one_is_an_error() {
    let place = Place::new();
    let log = place.log();
    let from = |bytes: &'static str| lines_of("input", Cursor::new(bytes));
    run(launch(from("one\ntwo")), &log).unwrap();
    let error = run(launch(from("eno\nowt\nthree\n")), &log)
        .unwrap_err()
        .to_string();
    assert!(error.contains("are not those that were read"), "{error}");
    let error = run(launch(from("one\ntwofold\n")), &log)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("had no end when it was committed"),
        "{error}"
    );
    run(launch(from("one\ntwo\r\nthree\n")), &log).unwrap();
    assert_eq!(out(&log), ["one", "two", "three"]);
}

#[test]
fn x5_a_position_of_an_earlier_release_is_read_on() {
    use onceflow::client::producer::{Producer, ProducerRecord};
    use onceflow::types::TopicName;
    let place = Place::new();
    let path = place.file("in", "one\ntwo\nthree\n");
    let log = place.log();
    let positions = TopicName::new("copy-positions").unwrap();
    let compacted = [("cleanup.policy".to_owned(), "compact".to_owned())];
    wait(
        log.admin()
            .create_topic_with(&positions, 1, compacted.into()),
    )
    .unwrap();
    let key = format!("lines\0{}", path.display());
    let producer: Producer<[u8], [u8]> =
        Producer::new(log.transport(), log.producer_config().unwrap()).unwrap();
    let position = 8i64.to_be_bytes();
    let record = ProducerRecord::new(&positions)
        .key(key.as_bytes())
        .value(&position[..]);
    let _sent = wait(producer.send(record)).unwrap();
    drop(producer);
    run(launch(lines_in(&path)), &log).unwrap();
    assert_eq!(out(&log), ["three"]);
    replace(&path, "four\nfive\nsix\nseven\neight\n");
    assert!(run(launch(lines_in(&path)), &log).is_err());
}

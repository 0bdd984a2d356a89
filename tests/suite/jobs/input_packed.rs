//! Lines of compressed files.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::runtime::Launch;

use super::support::{OFTEN, Place, committed_values, run, until};

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).unwrap()
}

fn copy(source: onceflow::runtime::Lines) -> Launch {
    let job = Job::new("copy");
    job.source(source)
        .map(|line: &str| {
            // Commits come in the middle of a file.
            std::thread::sleep(std::time::Duration::from_micros(20));
            line.to_owned()
        })
        .sink(topic("out").partitions(1));
    job.exactly_once(Commit::every(OFTEN))
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name} {n}")).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// The halves of the lines, each with a line end behind its last line.
fn halves(lines: &[String]) -> [String; 2] {
    let (first, second) = lines.split_at(lines.len() / 2);
    [first, second].map(|half| half.join("\n") + "\n")
}

#[test]
fn compressed_files_are_read_once_through_stops_in_the_middle() {
    let place = Place::new();
    let lists = ["gzip", "zstd", "plain"].map(|name| numbered(name, 5_000));
    let [in_gzip, in_zstd, plain] = lists.each_ref().map(|lines| halves(lines));
    // Two members and two frames, one behind the other.
    let paths = [
        place.file("a.txt.gz", in_gzip.map(|half| gzip(&half)).concat()),
        place.file("b.txt.zst", in_zstd.map(|half| zstd(&half)).concat()),
        place.file("c.txt", plain.concat()),
        place.file("empty.gz", ""),
    ];
    let log = place.log();
    let mut stops = 0;
    loop {
        let running = copy(lines(&paths)).start(&log).unwrap();
        until("records are committed, or all is read", || {
            running.progress().records > 500 || running.is_finished()
        });
        if running.is_finished() {
            wait(running.finished()).unwrap();
            break;
        }
        wait(running.stop()).unwrap();
        stops += 1;
    }
    assert!(stops > 0);
    let copied = committed_values::<String>(&log, "out");
    assert_eq!(sorted(copied), sorted(lists.concat()));
    log.close().unwrap();
}

#[test]
fn a_compressed_file_that_is_torn_is_named_and_goes_on_once_it_is_whole() {
    let place = Place::new();
    let log = place.log();
    let all = numbered("line", 3_000);
    for (name, whole) in [
        ("torn.gz", gzip(&halves(&all).concat())),
        ("torn.zst", zstd(&halves(&all).concat())),
    ] {
        let topic_before = committed_values::<String>(&log, "out").len();
        let path = place.file(name, &whole[..whole.len() - 9]);
        let error = run(copy(lines([&path])), &log).unwrap_err().to_string();
        for part in [name, "in the middle of its compressed bytes"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        place.file(name, &whole);
        run(copy(lines([&path])), &log).unwrap();
        let copied = committed_values::<String>(&log, "out");
        assert_eq!(copied[topic_before..], all, "{name}");
    }
    log.close().unwrap();
}

#[test]
fn a_compressed_file_that_is_another_one_or_none_is_refused() {
    let place = Place::new();
    let log = place.log();
    let path = place.file("in.gz", gzip("one\ntwo\n"));
    run(copy(lines([&path])), &log).unwrap();
    // Packed otherwise, and with more behind: the same lines.
    place.file("in.gz", [gzip("one\n"), gzip("two\nthree\n")].concat());
    run(copy(lines([&path])), &log).unwrap();
    assert_eq!(
        committed_values::<String>(&log, "out"),
        ["one", "two", "three"]
    );
    let refused = |content: &[u8]| {
        place.file("in.gz", content);
        run(copy(lines([&path])), &log).unwrap_err().to_string()
    };
    let other = refused(&gzip("one\nTWO\nthree\n"));
    assert!(other.contains("are not those that were read"), "{other}");
    let shorter = refused(&gzip("one\n"));
    assert!(shorter.contains("it ends after 4 bytes"), "{shorter}");
    let plain = refused(b"one\ntwo\nthree\n");
    assert!(plain.contains("its first bytes do not"), "{plain}");
    let mut damaged = gzip(&"one\n".repeat(1_000));
    damaged[12] ^= 0xff;
    let path = place.file("damaged.gz", &damaged);
    let damaged = run(copy(lines([&path])), &log).unwrap_err().to_string();
    assert!(damaged.contains("damaged.gz: gzip: "), "{damaged}");
    let path = place.file("followed.zst", zstd("one\n"));
    let followed = run(copy(lines([&path]).follow()), &log).unwrap_err();
    assert!(followed.to_string().contains("not followed"), "{followed}");
    log.close().unwrap();
}

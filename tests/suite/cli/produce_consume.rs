//! Round trips.

use super::Cli;

#[test]
fn lines_come_back_in_order() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    let input: String = (0..5000).map(|i| format!("line {i}\n")).collect();
    cli.ok_with_input("produce lines", input.as_bytes());
    assert_eq!(cli.ok("consume lines"), input);
    assert_eq!(cli.ok("consume lines --from end"), "");
    assert_eq!(
        cli.ok("consume lines --from 4998"),
        "line 4998\nline 4999\n"
    );
    assert_eq!(cli.ok("consume lines --from -1"), "line 4999\n");
    assert_eq!(cli.ok("consume lines --max 1"), "line 0\n");
}

/// The producer's own limit is no reason to refuse what the topic takes.
#[test]
fn x11_a_line_of_five_megabytes_goes_where_the_topic_takes_it() {
    let cli = Cli::new();
    cli.ok("topic create large --config max.message.bytes=8388608");
    cli.ok("topic create small");
    let line = format!("{}\n", "x".repeat(5 << 20));
    cli.ok_with_input("produce large", line.as_bytes());
    assert_eq!(cli.ok("consume large"), line);
    let refused = cli.run_with_input(&["produce", "small"], line.as_bytes());
    assert!(refused.err.contains("max.message.bytes"), "{refused:?}");
    let refused = cli.run_with_input(
        &["produce", "large", "--max-line-bytes", "1000"],
        line.as_bytes(),
    );
    assert!(refused.err.contains("--max-line-bytes"), "{refused:?}");
}

#[test]
fn every_compression_gives_the_same_lines() {
    let cli = Cli::new();
    let input: String = (0..2000)
        .map(|i| format!("the same words again and again {i}\n"))
        .collect();
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        cli.ok(&format!("topic create {compression}"));
        cli.ok_with_input(
            &format!("produce {compression} --compression {compression}"),
            input.as_bytes(),
        );
        assert_eq!(
            cli.ok(&format!("consume {compression}")),
            input,
            "{compression}"
        );
    }
}

#[test]
fn keys_headers_offsets_and_times_are_shown_when_asked_for() {
    let cli = Cli::new();
    cli.ok("topic create pairs --partitions 2");
    cli.ok_with_input(
        "produce pairs --key-separator : --partition 1 --header from=test",
        b"tea:3\ncup:1\n",
    );
    assert_eq!(
        cli.ok("consume pairs --key --offset"),
        "1:0\ttea\t3\n1:1\tcup\t1\n"
    );
    assert_eq!(cli.ok("consume pairs --headers --max 1"), "from=test\t3\n");
    assert_eq!(cli.ok("consume pairs --partition 0"), "");
    let with_time = cli.ok("consume pairs --timestamp --max 1");
    let time = with_time.split('\t').next().unwrap();
    assert_eq!(cli.ok(&format!("consume pairs --from {time}")), "3\n1\n");
    let object: serde_json::Value =
        serde_json::from_str(&cli.ok("consume pairs --json --max 1")).unwrap();
    assert_eq!(
        (&object["key"], &object["offset"], &object["value"]),
        (&"tea".into(), &0.into(), &"3".into())
    );
}

#[test]
fn equal_keys_go_to_the_same_partition() {
    let cli = Cli::new();
    cli.ok("topic create pairs --partitions 4");
    let input: String = (0..400).map(|i| format!("key-{}:{i}\n", i % 10)).collect();
    cli.ok_with_input("produce pairs --key-separator :", input.as_bytes());
    let output = cli.ok("consume pairs --key --offset");
    let mut partition_of = std::collections::HashMap::new();
    for line in output.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let partition = fields[0].split(':').next().unwrap().to_owned();
        assert_eq!(
            partition_of
                .entry(fields[1].to_owned())
                .or_insert(partition.clone()),
            &partition
        );
    }
    assert_eq!((output.lines().count(), partition_of.len()), (400, 10));
}

#[test]
fn x19_a_missing_key_or_value_is_told_from_every_text_and_comes_back() {
    let cli = Cli::new();
    cli.ok("topic create there --config cleanup.policy=compact");
    cli.ok("topic create back");
    let input = b"tea|3\nnull|null\n\\N|none\ncup|\\N\n\\\\N|\\\\N\n|\n";
    let done = cli.run_with_input(&["produce", "back", "-k", "|", "--null", "\\N"], input);
    assert_eq!(done.code, 0, "{done:?}");
    let shown = cli.ok("consume back --key");
    assert_eq!(
        shown,
        "tea\t3\nnull\tnull\n\\N\tnone\ncup\t\\N\n\\\\N\t\\\\N\n\t\n"
    );
    // The other command takes the output of this one.
    cli.ok("topic create again");
    let done = cli.run_with_input(
        &["produce", "again", "-k", "\t", "--null", "\\N"],
        shown.as_bytes(),
    );
    assert_eq!(done.code, 0, "{done:?}");
    let all = |topic: &str| {
        let lines = cli.ok(&format!("consume {topic} --json"));
        let objects = lines.lines().map(|line| {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            (object["key"].clone(), object["value"].clone())
        });
        objects.collect::<Vec<_>>()
    };
    assert_eq!(all("again"), all("back"));
    assert_eq!(all("back")[3], ("cup".into(), serde_json::Value::Null));
    assert_eq!(
        cli.ok("consume back --key --null (none) --max 3"),
        "tea\t3\nnull\tnull\n(none)\tnone\n"
    );
    // A tombstone deletes, also where it is written as nothing at all.
    let done = cli.run_with_input(&["produce", "there", "-k", ":", "--null", ""], b"tea:\n");
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(cli.ok("consume there --key"), "tea\t\\N\n");
}

#[test]
fn x19_keys_that_are_not_text_stay_apart_in_json() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    cli.ok_with_input("produce lines -k :", b"\xfe:\xff\n\xff:\xfe\n");
    let lines = cli.ok("consume lines --json");
    let objects: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects[0]["key"], serde_json::json!({ "hex": "fe" }));
    assert_eq!(objects[1]["key"], serde_json::json!({ "hex": "ff" }));
    assert_eq!(objects[0]["value"], serde_json::json!({ "hex": "ff" }));
    let hex = cli.ok("consume lines --json --key-format hex --max 1");
    assert!(hex.contains(r#""key":"fe""#), "{hex}");
}

#[test]
fn values_are_shown_in_the_format_asked_for() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    cli.ok_with_input("produce lines", b"{ \"n\": 1 }\n");
    assert_eq!(
        cli.ok("consume lines --value-format hex"),
        "7b20226e223a2031207d\n"
    );
    assert_eq!(cli.ok("consume lines --value-format json"), "{\"n\":1}\n");
}

#[test]
fn empty_lines_lines_without_end_and_lines_that_are_not_text_are_records() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    cli.ok_with_input("produce lines", b"\nnot \xff text\nlast");
    assert_eq!(
        cli.ok("consume lines --value-format hex"),
        "\n6e6f7420ff2074657874\n6c617374\n"
    );
}

#[test]
fn a_transaction_that_fails_leaves_nothing() {
    let cli = Cli::new();
    cli.ok("topic create pairs");
    let line = "produce pairs --key-separator : --transactional-id writer";
    let arguments: Vec<&str> = line.split(' ').collect();
    // Enough that batches reach the log before the line that fails.
    let mut input = "tea:a cup of tea\n".repeat(50_000).into_bytes();
    input.extend(b"no separator here\n");
    let done = cli.run_with_input(&arguments, &input);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("line 50001"), "{done:?}");
    assert_eq!(cli.ok("consume pairs"), "");
    assert_ne!(cli.ok("consume pairs --isolation read_uncommitted"), "");
    cli.ok_with_input(line, b"cup:2\n");
    assert_eq!(cli.ok("consume pairs"), "2\n");
}

#[test]
fn x7_the_last_records_are_those_that_a_reader_sees() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    for number in 1..=3 {
        let line = "produce lines --transactional-id writer";
        cli.ok_with_input(line, format!("{number}\n").as_bytes());
    }
    // The last transaction is aborted, and leaves three records and a marker.
    let line = "produce lines --key-separator : --transactional-id writer";
    let arguments: Vec<&str> = line.split(' ').collect();
    let mut input = format!("k:{}\n", "x".repeat(400_000))
        .repeat(3)
        .into_bytes();
    input.extend(b"no separator here\n");
    assert_eq!(cli.run_with_input(&arguments, &input).code, 1);
    let all = cli.ok("consume lines --isolation read_uncommitted");
    assert!(all.lines().count() > 3, "nothing was aborted");
    for (from, expected) in [
        (1, "3\n"),
        (2, "2\n3\n"),
        (3, "1\n2\n3\n"),
        (100, "1\n2\n3\n"),
    ] {
        assert_eq!(cli.ok(&format!("consume lines --from -{from}")), expected);
    }
    let last = cli.ok("consume lines --from -4 --isolation read_uncommitted");
    assert_eq!(last.lines().count(), 4);
}

#[test]
fn a_line_over_the_limit_is_refused_with_its_number() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    let mut input = b"short\n".to_vec();
    input.extend(vec![b'x'; 2 << 20]);
    let done = cli.run_with_input(&["produce", "lines"], &input);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("line 2"), "{done:?}");
    assert_eq!(cli.ok("consume lines"), "short\n");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    let input: String = (0..200_000).map(|i| format!("line {i}\n")).collect();
    cli.ok_with_input("produce lines", input.as_bytes());
    let mut command = super::onceflow(&["consume", "lines"]);
    command.env("ONCEFLOW_DATA", cli.data());
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn perf_writes_and_reads_as_many_records_as_it_says() {
    let cli = Cli::new();
    cli.ok("topic create lines --partitions 3");
    let written =
        cli.ok("perf produce lines --records 2000 --record-bytes 100 --property linger.ms=1");
    assert!(written.starts_with("2000 records in "), "{written}");
    assert_eq!(cli.ok("consume lines").lines().count(), 2000);
    let read = cli.ok("perf consume lines --records 2000");
    assert!(read.starts_with("2000 records in "), "{read}");
    let error = cli.fails("perf produce lines --property linger=1");
    assert!(error.contains("linger"), "{error}");
}

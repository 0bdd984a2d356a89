//! Wrong use and bad places: what is said, with which exit code, and that nothing is touched.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use super::{Cli, finish, onceflow, snapshot};

#[test]
fn help_is_printed_and_wrong_use_exits_with_2() {
    for line in [
        "--help",
        "topic --help",
        "topic create --help",
        "produce --help",
        "consume --help",
        "log --help",
        "txn --help",
        "group --help",
        "broker --help",
        "user --help",
        "acl --help",
        "bench --help",
        "perf --help",
        "demo --help",
        "completions --help",
        "--version",
    ] {
        let done = finish(onceflow(&line.split(' ').collect::<Vec<_>>()), b"");
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{line}");
        assert!(!done.out.is_empty(), "{line}");
    }
    for line in [
        "tea",
        "topic",
        "topic create",
        "consume lines --from tea",
        "produce lines --compression tea",
        "topic create lines --partitions 0",
        "topic create lines --config tea",
        "topic alter lines",
        "topic create lines --config retention.ms=1 --config retention.ms=2 --data d",
        "topic alter lines --config retention.ms=1 --reset retention.ms --data d",
        "produce lines --key-separator=",
        "perf produce lines --record-bytes 18446744073709551615",
        "demo --size 99999999999999",
        "broker --partitions -1",
        "broker --partitions 2000000000",
        "user add alice --iterations 1",
        "consume lines --from 2026-11-22T07:00+25:00",
    ] {
        let done = finish(onceflow(&line.split(' ').collect::<Vec<_>>()), b"");
        assert_eq!((done.code, done.out.as_str()), (2, ""), "{line}: {done:?}");
    }
}

#[test]
fn without_a_data_directory_the_ways_to_name_one_are_said() {
    let done = finish(onceflow(&["topic", "list"]), b"");
    assert_eq!(done.code, 2, "{done:?}");
    assert!(
        done.err.contains("--data") && done.err.contains("ONCEFLOW_DATA"),
        "{done:?}"
    );
}

#[test]
fn a_directory_that_is_not_there_is_only_made_by_create() {
    let cli = Cli::new();
    assert!(
        cli.fails("topic list")
            .contains("there is no data directory")
    );
    assert!(
        cli.fails("consume lines")
            .contains("there is no data directory")
    );
    assert!(!cli.data().exists());
    cli.ok("topic create lines");
    assert!(cli.data().exists());
}

#[test]
fn topic_names_that_could_escape_the_directory_are_refused() {
    let cli = Cli::new();
    let long = "x".repeat(250);
    for name in ["../x", "a/b", "..", "", "a b", &long] {
        let done = cli.run(&["topic", "create", name]);
        assert_eq!(done.code, 2, "{name:?}: {done:?}");
        assert!(done.err.contains("topic name"), "{name:?}: {done:?}");
    }
    assert!(!cli.data().exists());
}

#[test]
fn unknown_topics_and_partitions_are_refused_with_what_to_do() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    assert!(
        cli.fails("consume none")
            .contains("onceflow topic create none")
    );
    assert!(
        cli.fails("produce none")
            .contains("onceflow topic create none")
    );
    assert!(
        cli.fails("consume lines --partition 7")
            .contains("partition 7")
    );
}

#[test]
fn f17_a_directory_in_use_is_refused_with_its_owner() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    cli.ok_with_input("produce lines", b"tea\n");
    let mut command = onceflow(&["consume", "lines", "--follow"]);
    command
        .env("ONCEFLOW_DATA", cli.data())
        .stdout(Stdio::piped());
    let mut owner = command.spawn().unwrap();
    let mut first = String::new();
    // The first line says that the directory is open.
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut first)
        .unwrap();
    assert_eq!(first, "tea\n");
    let message = cli.fails("topic list");
    assert!(message.contains(&owner.id().to_string()), "{message}");
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(cli.ok("topic list").contains("lines"));
}

#[test]
fn f19_a_link_in_place_of_the_directory_is_refused() {
    let cli = Cli::new();
    let real = cli.directory.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, cli.data()).unwrap();
    let message = cli.fails("topic create lines");
    assert!(message.contains("link"), "{message}");
    assert_eq!(snapshot(&real), []);
}

#[test]
fn a_directory_of_something_else_is_refused_untouched() {
    let cli = Cli::new();
    std::fs::create_dir(cli.data()).unwrap();
    std::fs::write(cli.data().join("holiday.jpg"), b"not ours").unwrap();
    let before = snapshot(&cli.data());
    let message = cli.fails("topic create lines");
    assert!(message.contains("data"), "{message}");
    assert_eq!(snapshot(&cli.data()), before);
}

#[test]
fn a_file_in_place_of_the_directory_is_refused() {
    let cli = Cli::new();
    std::fs::write(cli.data(), b"not ours").unwrap();
    cli.fails("topic create lines");
    assert_eq!(std::fs::read(cli.data()).unwrap(), b"not ours");
}

#[test]
fn looking_into_a_directory_that_is_not_there_makes_none() {
    let cli = Cli::new();
    for line in [
        "user list",
        "user delete alice",
        "acl list",
        "acl delete --topic lines",
        "group list",
        "txn list",
    ] {
        let message = cli.fails(line);
        assert!(
            message.contains("there is no data directory"),
            "{line}: {message}"
        );
        assert!(!cli.data().exists(), "{line}");
    }
}

#[test]
fn what_cannot_be_done_is_said_with_its_name() {
    let cli = Cli::new();
    cli.ok("topic create lines --partitions 2");
    cli.ok_with_input("produce lines --partition 0", b"tea\n");
    let segment = "log verify data/log/lines-0/00000000000000000000.log";
    for (line, said) in [
        ("group delete nobody", "group nobody was not deleted"),
        ("txn abort nobody", "nothing of nobody was aborted"),
        ("acl delete --topic lines", "no rule"),
        ("topic alter lines --reset nonsense", "\"nonsense\""),
        ("topic add-partitions lines -5", "not -5"),
        ("consume lines --partition -1", "no partition -1"),
        ("produce lines --partition -1", "no partition -1"),
        ("bench commit --quick --dir /nowhere", "--dir"),
        (segment, "name the directory"),
    ] {
        let message = cli.fails(line);
        assert!(message.contains(said), "{line}: {message}");
    }
    let done = cli.run(&["consume", "lines", "--partition", "0", "--from", "9"]);
    assert_eq!((done.code, done.out.as_str()), (0, ""), "{done:?}");
    assert!(done.err.contains("lines-0 ends at 1"), "{done:?}");
    assert_eq!(cli.ok("consume lines -p 0 -p 0"), "tea\n");
}

#[test]
fn a_full_standard_output_is_named_and_a_full_standard_error_does_not_panic() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    let full = || std::fs::File::create("/dev/full").unwrap();
    let mut list = onceflow(&["topic", "list"]);
    list.env("ONCEFLOW_DATA", cli.data()).stdout(full());
    let output = list.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("standard output"), "{message}");
    let mut fails = onceflow(&["topic", "delete", "none"]);
    fails.env("ONCEFLOW_DATA", cli.data()).stderr(full());
    assert_eq!(fails.status().unwrap().code(), Some(1));
}

#[test]
fn a_filter_of_the_log_that_is_none_is_told() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    let list = |filter: &str| {
        let mut command = onceflow(&["topic", "list"]);
        command
            .env("ONCEFLOW_DATA", cli.data())
            .env("ONCEFLOW_LOG", filter);
        finish(command, b"")
    };
    let done = list("onceflow=loud");
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.err.contains("ONCEFLOW_LOG"), "{done:?}");
    let done = list("info");
    assert!(done.err.contains("the log is open"), "{done:?}");
    assert!(!done.err.contains('\x1b'), "no colours in a file: {done:?}");
}

#[test]
fn completions_are_written_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let done = finish(onceflow(&["completions", shell]), b"");
        assert_eq!(done.code, 0, "{done:?}");
        assert!(done.out.contains("consume"), "{shell}");
    }
}

#[test]
fn x20_a_broker_on_a_busy_port_says_so() {
    let cli = Cli::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let message = cli.fails(&format!("broker --listen {address}"));
    assert!(message.contains(&address), "{message}");
    assert!(!message.contains("panicked"), "{message}");
}

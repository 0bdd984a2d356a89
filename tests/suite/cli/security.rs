//! Users, access rules, and the broker that they are for.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{Cli, finish, onceflow};

#[test]
fn users_are_added_listed_and_deleted_and_no_password_is_kept() {
    let cli = Cli::new();
    cli.ok_with_input("user add alice", b"a secret of hers\n");
    cli.ok_with_input("user add bob --iterations 5000", b"another\n");
    let listed = cli.ok("user list");
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(
        listed.contains("SCRAM-SHA-256") && listed.contains("5000"),
        "{listed}"
    );
    let file = std::fs::read_to_string(cli.data().join("security.json")).unwrap();
    assert!(!file.contains("secret of hers"), "{file}");
    cli.ok("user delete bob");
    assert!(cli.fails("user delete bob").contains("bob"));
    assert!(!cli.ok("user list").contains("bob"));
    // The directory that holds users already is one that a log can begin in.
    cli.ok("topic create lines");
    assert!(cli.ok("user list").contains("alice"));
}

#[test]
fn passwords_and_names_that_cannot_be_used_are_refused() {
    let cli = Cli::new();
    for (name, iterations, password, code) in [
        ("alice", "8192", "\n", 1),
        ("alice", "8192", "tab\there\n", 1),
        ("alice", "1000", "good enough\n", 2),
        ("a\u{7}b", "8192", "good enough\n", 1),
    ] {
        let arguments = ["user", "add", name, "--iterations", iterations];
        let done = cli.run_with_input(&arguments, password.as_bytes());
        assert_eq!(done.code, code, "{name:?} {password:?}: {done:?}");
    }
    assert_eq!(cli.ok("user list").lines().count(), 1, "only the head");
}

#[test]
fn rules_are_added_listed_and_deleted() {
    let cli = Cli::new();
    cli.ok("acl add --allow User:alice --operation read --operation write --topic orders");
    cli.ok("acl add --deny User:* --operation all --group secret-*");
    cli.ok("acl add --allow User:alice --operation describe --cluster");
    let listed = cli.ok("acl list");
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(
        listed.contains("secret-*") && listed.contains("kafka-cluster"),
        "{listed}"
    );
    let deleted = cli.ok("acl delete --principal User:alice --topic orders");
    assert_eq!(deleted.lines().count(), 3, "{deleted}");
    assert_eq!(cli.ok("acl list").lines().count(), 3);
    for line in [
        "acl add --allow User:alice --operation read",
        "acl add --operation read --topic orders",
        "acl add --allow alice --operation read --topic orders",
        "acl add --allow User:alice --operation fly --topic orders",
        "acl add --allow User:alice --operation read --topic a --group b",
        "acl delete",
    ] {
        let arguments: Vec<&str> = line.split(' ').collect();
        assert_eq!(cli.run(&arguments).code, 2, "{line}");
    }
}

#[test]
fn a_broker_that_anybody_could_reach_is_refused() {
    let cli = Cli::new();
    let refused = cli.fails("broker --listen 0.0.0.0:0");
    assert!(
        refused.contains("--allow-insecure") && refused.contains("TLS"),
        "{refused}"
    );
    let refused = cli.fails("broker --listen 0.0.0.0:0 --sasl SCRAM-SHA-512");
    assert!(refused.contains("encrypted"), "{refused}");
    let done = cli.run(&["broker", "--listen", "nowhere"]);
    assert_eq!(done.code, 2, "{done:?}");
}

#[test]
fn sigterm_closes_a_broker_cleanly() {
    let cli = Cli::new();
    let data = cli.data();
    let mut command = onceflow(&["broker", "--listen", "127.0.0.1:0", "--data"]);
    let mut child = command.arg(&data).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let address = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap()
        .to_owned();
    let _idle = std::net::TcpStream::connect(&address).unwrap();
    // One process owns the directory.
    let second = finish(
        onceflow(&["topic", "list", "--data", data.to_str().unwrap()]),
        b"",
    );
    assert!(second.err.contains("in use by process"), "{second:?}");
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let begin = Instant::now();
    assert!(child.wait().unwrap().success());
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert!(data.join("log/.kafka_cleanshutdown").exists());
}

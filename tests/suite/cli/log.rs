//! `onceflow log` on a stopped data directory.

use super::{Cli, snapshot};

fn with_lines() -> Cli {
    let cli = Cli::new();
    cli.ok("topic create lines --partitions 2");
    cli.ok_with_input("produce lines --partition 0", b"tea\ncup\n");
    cli.ok_with_input(
        "produce lines --partition 1 --transactional-id w",
        b"milk\n",
    );
    cli
}

#[test]
fn dump_shows_batches_and_records() {
    let cli = with_lines();
    let partition = cli.data().join("log/lines-0");
    let dump = cli.ok(&format!("log dump {}", partition.display()));
    assert!(dump.contains("baseOffset: 0"), "{dump}");
    let records = cli.ok(&format!("log dump {} --records", partition.display()));
    assert!(
        records.contains("tea") && records.contains("cup"),
        "{records}"
    );
}

#[test]
fn verify_finds_a_healthy_directory_healthy_and_changes_nothing() {
    let cli = with_lines();
    let before = snapshot(&cli.data());
    let report = cli.ok(&format!("log verify {}", cli.data().display()));
    assert!(
        report.contains("lines-0") && report.contains("lines-1"),
        "{report}"
    );
    assert_eq!(snapshot(&cli.data()), before);
}

#[test]
fn verify_says_where_a_byte_is_wrong() {
    let cli = with_lines();
    let segment = cli.data().join("log/lines-0/00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let line = format!("log verify {}", cli.data().display());
    let done = cli.run(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.out.contains("lines-0") && done.out.contains("00000000000000000000.log"),
        "{done:?}"
    );
}

#[test]
fn a_directory_without_a_log_is_refused() {
    let cli = with_lines();
    assert!(
        cli.fails("log verify /nonexistent")
            .contains("/nonexistent")
    );
    let empty = cli.directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(
        cli.fails(&format!("log dump {}", empty.display()))
            .contains("no segment")
    );
}

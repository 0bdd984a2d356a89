//! Topics, groups and transactions as an operator sees them.

use super::Cli;

#[test]
fn a_topic_is_created_listed_described_altered_grown_and_deleted() {
    let cli = Cli::new();
    cli.ok("topic create lines --partitions 3 --config retention.ms=1000");
    let list = cli.ok("topic list");
    assert!(list.contains("lines") && list.contains('3'), "{list}");
    assert!(!list.contains("__transaction_state"), "{list}");
    assert!(cli.ok("topic list --internal").contains("lines"));

    let described = cli.ok("topic describe lines");
    assert!(
        setting(&described, "retention.ms").contains("1000"),
        "{described}"
    );
    cli.ok("topic alter lines --config retention.ms=2000");
    assert!(setting(&cli.ok("topic describe lines"), "retention.ms").contains("2000"));
    cli.ok("topic alter lines --reset retention.ms");
    assert!(setting(&cli.ok("topic describe lines"), "retention.ms").contains("default"));

    cli.ok("topic add-partitions lines 5");
    assert!(cli.ok("topic describe lines").contains("5 partitions"));
    cli.ok("topic delete lines");
    assert!(!cli.ok("topic list").contains("lines"));
    assert!(
        cli.fails("topic describe lines")
            .contains("topic create lines")
    );
}

/// The line of `described` about a setting.
fn setting<'a>(described: &'a str, name: &str) -> &'a str {
    described
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default()
}

#[test]
fn a_topic_that_exists_and_a_wrong_setting_are_refused() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    assert!(cli.fails("topic create lines").contains("lines"));
    let message = cli.fails("topic create other --config retention.ms=soon");
    assert!(message.contains("retention.ms"), "{message}");
    assert!(!cli.ok("topic list").contains("other"));
}

#[test]
fn a_group_and_a_transaction_that_do_not_exist_are_refused() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    assert_eq!(cli.ok("group list"), "");
    assert!(
        cli.fails("txn describe nobody")
            .contains("transactional id")
    );
    assert!(cli.fails("group describe nobody").contains("group"));
}

#[test]
fn transactions_are_listed_with_their_state() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    cli.ok_with_input("produce lines --transactional-id writer-1", b"a\nb\n");
    assert!(cli.ok("txn list").contains("writer-1"));
    let described = cli.ok("txn describe writer-1");
    assert!(described.contains("CompleteCommit"), "{described}");
}

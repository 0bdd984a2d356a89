//! The form of what commands print: JSON for programs, colours for terminals only, pages and completions for shells.

use serde_json::Value;

use super::Cli;

fn json(cli: &Cli, line: &str) -> Value {
    let out = cli.ok(&format!("{line} --output json"));
    serde_json::from_str(&out).unwrap_or_else(|e| panic!("`{line}`: {e}: {out}"))
}

fn filled() -> Cli {
    let cli = Cli::new();
    cli.ok("topic create 7 --partitions 2 --config retention.ms=86400000");
    cli.ok_with_input("produce 7 --partition 0", b"a\nb\nc\n");
    cli
}

#[test]
fn x19_descriptions_and_lists_are_one_line_of_json_with_numbers_as_numbers() {
    let cli = filled();
    let topics = json(&cli, "topic list");
    assert_eq!(topics[0]["topic"], "7", "a name is a string: {topics}");
    assert_eq!(topics[0]["partitions"], 2);
    let topic = json(&cli, "topic describe 7");
    assert_eq!(topic["partitions"][0]["end"], 3, "{topic}");
    assert!(topic["partitions"][0]["size"].is_u64(), "{topic}");
    let moved = json(&cli, "group reset readers --topic 7 --to-latest");
    assert_eq!(moved[0]["new_position"], 3, "{moved}");
    assert_eq!(moved[0]["position"], Value::Null);
    assert_eq!(json(&cli, "group list"), serde_json::json!(["readers"]));
    let group = json(&cli, "group describe readers");
    assert_eq!(group["positions"][0]["lag"], 0, "{group}");
    assert_eq!(group["members"], serde_json::json!([]));
    assert_eq!(json(&cli, "txn list"), serde_json::json!([]));
    let data = cli.data();
    let verified = json(&cli, &format!("log verify {}", data.display()));
    assert_eq!(verified["findings"], serde_json::json!([]));
    let partitions = verified["partitions"].as_array().unwrap();
    let written = partitions.iter().find(|it| it["partition"] == "7-0");
    assert_eq!(written.unwrap()["records"], 3, "{verified}");
}

#[test]
fn x19_records_and_batches_are_a_line_of_json_each() {
    let cli = filled();
    let out = cli.ok("consume 7 --output json");
    let values = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let values: Vec<Value> = values.map(|it| it["value"].clone()).collect();
    assert_eq!(values, ["a", "b", "c"]);
    let partition = cli.data().join("log/7-0");
    let out = cli.ok(&format!(
        "log dump {} --records --output json",
        partition.display()
    ));
    let batch: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!(batch["count"], 3, "{batch}");
    assert_eq!(batch["records"][2]["value"], "c");
}

#[test]
fn settings_are_shown_changed_and_named() {
    let cli = filled();
    let changed = json(&cli, "config describe 7 --changed");
    assert_eq!(changed.as_array().unwrap().len(), 1, "{changed}");
    assert_eq!(changed[0]["value"], "86400000");
    cli.ok("config alter 7 --set segment.bytes=1048576 --unset retention.ms");
    let changed = json(&cli, "config describe 7 --changed");
    assert_eq!(changed[0]["setting"], "segment.bytes", "{changed}");
    let message = cli.fails("config alter 7 --unset no.such");
    assert!(message.contains("no.such"), "{message}");
    let twice = ["config", "alter", "7", "--set", "a=1", "--unset", "a"];
    assert_eq!(cli.run(&twice).code, 2);
    let names = cli.ok("config names consumer");
    assert!(names.lines().any(|it| it == "isolation.level"), "{names}");
}

#[test]
fn x19_positions_are_moved_in_the_words_of_kafkas_tool() {
    let cli = filled();
    let position = |words: &str| {
        let moved = json(&cli, &format!("group reset readers --topic 7:0 {words}"));
        moved[0]["new_position"].as_i64().unwrap()
    };
    assert_eq!(position("--to-latest"), 3);
    assert_eq!(position("--shift-by -2"), 1);
    assert_eq!(position("--to-earliest"), 0);
    assert_eq!(position("--to-offset 2"), 2);
    assert_eq!(position("--to-datetime 2000-01-01T00:00:00.000"), 0);
    assert_eq!(position("--to-datetime 9000-01-01T00:00:00.000"), 3);
    for words in [
        "--to-earliest --to-latest",
        "--to-datetime tea",
        "--to-offset -1",
    ] {
        let line = format!("group reset readers --topic 7 {words}");
        let done = cli.run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(done.code, 2, "{words}: {done:?}");
    }
    cli.ok("group delete readers");
    assert_eq!(json(&cli, "group list"), serde_json::json!([]));
}

#[test]
fn settings_of_clients_are_given_by_name() {
    let cli = filled();
    let out = cli.ok("consume 7 --property auto.offset.reset=latest");
    assert_eq!(out, "", "it begins behind the last record");
    let out = cli.ok("consume 7 --property auto.offset.reset=earliest --property isolation.level=read_uncommitted");
    assert_eq!(out, "a\nb\nc\n");
    let done = cli.run(&["consume", "7", "--property", "group.id=me"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(done.err.contains("no member of a group"), "{done:?}");
    let message = cli.fails("consume 7 --property isolation.levle=read_committed");
    assert!(
        message.contains("did you mean isolation.level"),
        "{message}"
    );
    cli.ok_with_input("produce 7 --partition 1 --property linger.ms=1", b"d\n");
    assert_eq!(cli.ok("consume 7 --partition 1"), "d\n");
}

#[test]
fn errors_have_no_colours_without_a_terminal() {
    let cli = Cli::new();
    cli.ok("topic create lines");
    let message = cli.fails("topic describe none");
    assert!(!message.contains('\x1b'), "{message:?}");
    assert!(message.contains("`onceflow topic list`"), "{message}");
}

#[test]
fn there_are_manual_pages_and_completions_for_each_command() {
    let cli = Cli::new();
    let pages = cli.directory.path().join("man1");
    cli.ok(&format!("man {}", pages.display()));
    let page = std::fs::read_to_string(pages.join("onceflow-topic.1")).unwrap();
    assert!(page.starts_with(".ie") || page.contains(".TH"), "{page}");
    assert!(
        page.contains("onceflow topic create lines"),
        "its examples: {page}"
    );
    for name in [
        "onceflow",
        "onceflow-consume",
        "onceflow-group",
        "onceflow-new",
    ] {
        assert!(pages.join(format!("{name}.1")).exists(), "{name}");
    }
    assert!(!pages.join("onceflow-demo-job.1").exists());
    for shell in ["bash", "zsh", "fish"] {
        let script = cli.ok(&format!("completions {shell}"));
        assert!(script.contains("add-partitions"), "{shell}");
    }
}

//! Differences between a lock file and a program, one kind after the other.

use std::time::Duration;

use super::*;
use crate::codec::Datum;
use crate::prelude::{Commit, Job, topic, values};

fn launch<A: Datum + Clone + Default>(store: &str) -> Launch {
    let job = Job::new("sums");
    job.source(values("numbers", 0..10u64))
        .key_by(|n| n % 2)
        .aggregate(store, A::default, |_, _| ())
        .materialize();
    job.exactly_once(Commit::every(Duration::from_millis(5)))
}

/// The differences of `now` from a file that `before` wrote.
fn changes(before: &Launch, now: &Launch) -> Vec<String> {
    let before = before.looked_at().unwrap().lock;
    let now = now.looked_at().unwrap();
    let changes = compare::changes(&before, &now);
    changes.iter().map(ToString::to_string).collect()
}

fn only(changes: &[String]) -> &str {
    let [one] = changes else {
        panic!("not one change: {changes:?}");
    };
    one
}

#[test]
fn a_lock_file_has_a_line_for_each_name_and_comes_back_as_it_was() {
    let lock = launch::<u64>("sums").state_partitions(4).looked_at();
    let lock = lock.unwrap().lock;
    let text = serde_json::to_string_pretty(&lock).unwrap();
    let expected = r#"{
  "format": 1,
  "job": "sums",
  "state_partitions": 4,
  "sources": [
    "numbers"
  ],
  "sinks": [],
  "steps": {
    "sums": "aggregate"
  },
  "shuffles": {
    "sums": {
      "key": "u64",
      "value": "u64",
      "codec": 1
    }
  },
  "stores": {
    "sums": {
      "key": "u64",
      "value": "u64",
      "codec": 1
    }
  }
}"#;
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<Lock>(&text).unwrap(), lock);
}

#[test]
fn u7_a_store_that_is_gone_is_refused_unless_its_name_says_that_it_is_renamed_or_given_up() {
    let before = launch::<u64>("sums");
    assert_eq!(changes(&before, &launch::<u64>("sums")), [""; 0]);
    let gone = changes(&before, &launch::<u64>("totals"));
    assert!(
        gone[0].starts_with("refused: ") && gone[0].contains("`.was(\"sums\")`"),
        "{gone:?}"
    );
    let other = changes(&before, &launch::<i64>("totals"));
    assert!(other[0].contains("bring its step back"), "{other:?}");
    let forgotten = changes(&before, &launch::<u64>("totals").forget("sums"));
    assert!(
        forgotten[0].starts_with("gives up state: "),
        "{forgotten:?}"
    );
    let job = Job::new("sums");
    job.source(values("numbers", 0..10u64))
        .key_by(|n| n % 2)
        .aggregate("totals", u64::default, |_, _| ())
        .was("sums")
        .materialize();
    let renamed = job.exactly_once(Commit::every(Duration::from_millis(5)));
    let renamed = changes(&before, &renamed);
    assert!(only(&renamed).starts_with("renamed: "), "{renamed:?}");
}

#[test]
fn u6_another_number_of_state_partitions_is_refused_with_both() {
    let (four, five) = (
        launch::<u64>("sums").state_partitions(4),
        launch::<u64>("sums").state_partitions(5),
    );
    let refused = changes(&four, &five);
    let refused = only(&refused);
    assert!(
        refused.starts_with("refused: ") && refused.contains("into 4") && refused.contains("for 5"),
        "{refused}"
    );
    let unsaid = changes(&four, &launch::<u64>("sums"));
    assert!(only(&unsaid).starts_with("safe: "), "{unsaid:?}");
}

#[test]
fn u9_another_type_is_refused_until_the_program_says_how_it_is_converted() {
    let before = launch::<u64>("sums");
    let changed = changes(&before, &launch::<String>("sums"));
    let refused = changed
        .iter()
        .find(|it| it.starts_with("refused: "))
        .unwrap();
    assert!(refused.contains("`.migrate_from("), "{refused}");
    let job = Job::new("sums");
    job.source(values("numbers", 0..10u64))
        .key_by(|n| n % 2)
        .aggregate("sums", String::default, |_, _| ())
        .migrate_from(1, |sum: u64| sum.to_string())
        .materialize();
    let migrates = job.exactly_once(Commit::every(Duration::from_millis(5)));
    let there = changes(&before, &migrates);
    assert!(only(&there).starts_with("migrates: "), "{there:?}");
    let back = changes(&migrates, &before);
    assert!(only(&back).contains("version 2"), "{back:?}");
}

#[test]
fn sources_and_sinks_that_come_and_go_are_safe_and_said() {
    let job = Job::new("sums");
    job.source(values("other", 0..10u64)).sink(topic("out"));
    let other = job.exactly_once(Commit::every(Duration::from_millis(5)));
    let job = Job::new("sums");
    job.source(values("numbers", 0..10u64)).sink(topic("end"));
    let before = job.exactly_once(Commit::every(Duration::from_millis(5)));
    let changes = changes(&before, &other);
    assert!(
        changes.iter().all(|it| it.starts_with("safe: ")),
        "{changes:?}"
    );
    assert_eq!(changes.len(), 4, "{changes:?}");
}

#[test]
fn u8_a_misspelt_key_of_the_file_is_refused_with_the_nearest_one() {
    let folder = tempfile::tempdir().unwrap();
    let (env, path) = (Env::real(), folder.path().join("job.lock"));
    let program = launch::<u64>("sums").looked_at().unwrap();
    let absent = program.check_lock(&env, &path).unwrap_err().to_string();
    assert!(absent.contains("ONCEFLOW_LOCK=write"), "{absent}");
    program.write_lock(&env, &path).unwrap();
    program.check_lock(&env, &path).unwrap();
    let text = env.files.read(&path, BYTES_MAX).unwrap();
    let text = String::from_utf8(text).unwrap();
    for (right, wrong) in [("\"stores\"", "\"stors\""), ("\"codec\"", "\"codek\"")] {
        env.files
            .replace(&path, text.replace(right, wrong).as_bytes())
            .unwrap();
        let refused = program.check_lock(&env, &path).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("did you mean {right}")),
            "{refused}"
        );
    }
    for (content, told) in [
        ("{", "no JSON"),
        (r#"{"format":2}"#, "newer version"),
        ("{}", "missing field"),
    ] {
        env.files.replace(&path, content.as_bytes()).unwrap();
        let refused = program.check_lock(&env, &path).unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
    }
}

#[test]
fn a_file_is_not_written_over_what_would_lose_state() {
    let folder = tempfile::tempdir().unwrap();
    let (env, path) = (Env::real(), folder.path().join("job.lock"));
    let before = launch::<u64>("sums").looked_at().unwrap();
    before.write_lock(&env, &path).unwrap();
    let lossy = launch::<u64>("totals").looked_at().unwrap();
    let refused = lossy.write_lock(&env, &path).unwrap_err().to_string();
    assert!(refused.contains("remove the file"), "{refused}");
    before.check_lock(&env, &path).unwrap();
    let said = launch::<u64>("totals").forget("sums").looked_at().unwrap();
    let changes = said.write_lock(&env, &path).unwrap();
    assert_eq!(changes[0].effect, Effect::GivesUp);
    said.check_lock(&env, &path).unwrap();
}

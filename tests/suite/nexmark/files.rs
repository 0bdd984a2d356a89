//! The files of q10: each line once, `_SUCCESS` once, and none before the file beside it is complete.

use std::collections::BTreeMap;
use std::path::Path;

use onceflow::cli::nexmark::Query;
use serde_json::Value;

use super::{KILLS, Run, are_same, world};

#[test]
fn q10_writes_each_line_once_and_success_once_when_it_is_complete_through_kills() {
    let Some(oracle) = &world().oracle else {
        return;
    };
    let run = Run::of(Query::Q10);
    let files = run.data().join("files");
    let mut complete = BTreeMap::new();
    for _ in 0..KILLS {
        run.kill(1);
        for (folder, lines) in complete_files(&files) {
            // Whatever was said to be complete stays as it was.
            let before = complete.entry(folder).or_insert_with(|| lines.clone());
            assert_eq!(*before, lines);
        }
    }
    run.finish();
    let at_end = complete_files(&files);
    for (folder, lines) in &complete {
        assert_eq!(at_end.get(folder), Some(lines), "{folder} changed");
    }
    let lines = at_end.values().flat_map(|lines| lines.lines());
    let rows = lines.map(|line| vec![Value::from(line)]).collect();
    let expected = oracle.rows(Query::Q10).into_iter().map(|row| {
        let columns = row.iter().map(|it| match it {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        vec![Value::from(columns.collect::<Vec<_>>().join(","))]
    });
    are_same(Query::Q10, rows, expected.collect());
}

/// The files beside which `_SUCCESS` stands, by their folder.
fn complete_files(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for days in entries(root) {
        for minutes in entries(&root.join(&days)) {
            let folder = root.join(&days).join(&minutes);
            let names = entries(&folder);
            if names.iter().any(|name| name == "_SUCCESS") {
                assert_eq!(names, ["_SUCCESS", "bids"], "{folder:?}");
                let lines = std::fs::read_to_string(folder.join("bids")).unwrap();
                assert!(!lines.is_empty() && lines.ends_with('\n'));
                found.insert(format!("{days}/{minutes}"), lines);
            }
        }
    }
    found
}

/// The names in a directory, in order; none if there is no such directory.
fn entries(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

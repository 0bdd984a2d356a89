//! The files of a sink, as they are found between two lives.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

/// Content of a folder of files.
pub(super) struct Parts {
    /// The text of each sealed file.
    pub(super) sealed: BTreeMap<String, String>,
    /// The text of the files in progress.
    pub(super) in_progress: String,
}

impl Parts {
    pub(super) fn read(folder: &Path) -> Self {
        let mut parts = Self {
            sealed: BTreeMap::new(),
            in_progress: String::new(),
        };
        let Ok(entries) = fs::read_dir(folder) else {
            return parts;
        };
        for entry in entries {
            let path = entry.expect("the folder can be read").path();
            let text = fs::read_to_string(&path).expect("a file of lines is text");
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with("part-") {
                assert!(text.ends_with('\n'), "{name} ends within a line");
                parts.sealed.insert(name.into_owned(), text);
            } else {
                // What a kill left of its last line belongs to no commit.
                let whole = text.rfind('\n').map_or(0, |end| end + 1);
                parts.in_progress.push_str(&text[..whole]);
            }
        }
        parts
    }
}

/// Lines, each as often as it occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lines(HashMap<String, u64>);

impl Lines {
    pub(super) fn add(&mut self, line: String) {
        *self.0.entry(line).or_default() += 1;
    }

    pub(super) fn add_all(&mut self, text: &str) {
        text.lines().for_each(|line| self.add(line.to_owned()));
    }

    pub(super) fn count(&self) -> u64 {
        self.0.values().sum()
    }

    /// The lines that are here more often than there.
    pub(super) fn beyond(&self, there: &Self) -> Vec<&str> {
        let is_beyond = |(line, count): &(&String, &u64)| there.0.get(*line).unwrap_or(&0) < count;
        let beyond = self.0.iter().filter(is_beyond);
        beyond.map(|(line, _)| line.as_str()).collect()
    }
}

#[test]
fn lines_are_compared_by_how_often_they_occur() {
    let of = |text: &str| {
        let mut lines = Lines::default();
        lines.add_all(text);
        lines
    };
    assert!(of("a\nb\n").beyond(&of("b\na\na\n")).is_empty());
    assert_eq!(of("a\na\nb\n").beyond(&of("a\nb\n")), ["a"]);
    assert_eq!(of("a\nc\n").beyond(&of("a\nb\n")), ["c"]);
}

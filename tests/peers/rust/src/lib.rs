//! Parts of all Rust peers: the command line, and a record as a line of JSON. See ../README.md.

use std::collections::BTreeMap;

/// The command and its options.
pub struct Options {
    pub command: String,
    values: BTreeMap<String, String>,
}

impl Options {
    /// Reads this process's arguments.
    pub fn parse() -> Self {
        let mut words = std::env::args().skip(1);
        let command = words.next().expect("a command: write or read");
        let mut values = BTreeMap::new();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            values.insert(name.trim_start_matches('-').to_owned(), value);
        }
        Self { command, values }
    }

    pub fn find(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("--{name}"))
    }

    pub fn list(&self, name: &str) -> Vec<&str> {
        self.get(name).split(',').collect()
    }

    pub fn count(&self) -> usize {
        self.get("count").parse().expect("--count is a number")
    }
}

/// The keys and values of a phase.
pub fn records(phase: &str, count: usize) -> Vec<(String, String)> {
    let record = |index: usize| (format!("k{index}"), format!("{phase}-{index}"));
    (0..count).map(record).collect()
}

/// Prints a record.
pub fn print(
    topic: &str,
    offset: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    header: Option<&[u8]>,
) {
    let text =
        |field: Option<&[u8]>| field.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let line = serde_json::json!({
        "topic": topic, "offset": offset, "key": text(key), "value": text(value), "header": text(header),
    });
    println!("{line}");
}

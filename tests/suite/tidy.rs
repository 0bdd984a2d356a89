//! The source keeps its own rules (CONTRIBUTING.md): who may use whom, how files begin, how long they
//! are, and that only `env` touches the world.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The layers from the ground up, each with the layers that it may use besides itself.
const LAYERS: [(&str, &[&str]); 14] = [
    ("types", &[]),
    ("codec", &["types"]),
    ("env", &["types"]),
    ("protocol", &["types", "env"]),
    ("net", &["types", "env", "protocol"]),
    ("log", &["types", "env", "protocol"]),
    ("coordinator", &["types", "env", "protocol", "log"]),
    (
        "broker",
        &["types", "env", "protocol", "log", "coordinator"],
    ),
    (
        "server",
        &["types", "env", "protocol", "net", "coordinator", "broker"],
    ),
    (
        "client",
        &["types", "codec", "env", "protocol", "net", "broker"],
    ),
    ("state", &["types", "codec", "env", "protocol"]),
    (
        "runtime",
        &[
            "types", "codec", "env", "protocol", "net", "broker", "server", "client", "state",
        ],
    ),
    ("operators", &["types", "codec", "state", "runtime"]),
    (
        "cli",
        &[
            "types",
            "codec",
            "env",
            "protocol",
            "net",
            "log",
            "broker",
            "server",
            "client",
            "state",
            "runtime",
            "operators",
        ],
    ),
];

/// The rooms of `src/runtime/` from the ground up, each with the rooms that it may use besides itself.
const ROOMS: [(&str, &[&str]); 8] = [
    ("contract", &[]),
    ("task", &["contract"]),
    ("graph", &["contract", "task"]),
    ("topics", &["contract", "task", "graph"]),
    ("connectors", &["contract", "task", "graph", "topics"]),
    ("scale", &["contract", "task", "graph", "topics"]),
    (
        "life",
        &["contract", "task", "graph", "topics", "connectors", "scale"],
    ),
    (
        "bed",
        &[
            "contract",
            "task",
            "graph",
            "topics",
            "connectors",
            "scale",
            "life",
        ],
    ),
];

/// Files outside the layers, which may use all of them: the crate's root and what it shows to users.
const ABOVE_ALL: [&str; 5] = [
    "src/lib.rs",
    "src/prelude.rs",
    "src/internals.rs",
    "src/testing.rs",
    "src/bin/onceflow.rs",
];

/// The longest that a file may be, in lines, without its tests.
const FILE_LINES_MAX: usize = 600;

/// Words that only `env` may say, and what to say instead.
const DOORS: [(&str, &str); 9] = [
    ("std::fs", "take files from `Env::files`"),
    (
        "std::time::Instant",
        "take the clock from `Env::clock`, and `env::Instant`",
    ),
    ("SystemTime", "take the wall clock from `Env::clock`"),
    ("thread::spawn", "take threads from `Env::spawn`"),
    ("thread::Builder", "take threads from `Env::spawn`"),
    (
        "thread::sleep",
        "wait on a condition, or take the clock from `Env::clock`",
    ),
    ("rand::", "take random numbers from `Env::random`"),
    ("getrandom", "take random numbers from `Env::random`"),
    ("tokio::fs", "take files from `Env::files`"),
];

/// Words that no code outside tests may say, and what to do instead.
const UNFINISHED: [(&str, &str); 6] = [
    (
        ".unwrap()",
        "return the error, or `expect` with the reason why it cannot fail",
    ),
    ("todo!(", "finish it, or leave it out"),
    ("unimplemented!(", "finish it, or leave it out"),
    ("dbg!(", "use `tracing`"),
    (
        "FIXME",
        "fix it, or say in a whole sentence what is missing and for whom",
    ),
    (
        "TODO",
        "do it, or say in a whole sentence what is missing and for whom",
    ),
];

/// A source file: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
    /// Whether it is compiled for tests only.
    is_test: bool,
}

impl Source {
    /// Which layer it belongs to; `None` for tests, examples and what stands above all layers.
    fn layer(&self) -> Option<&'static str> {
        let rest = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = rest.split('/').next()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        let is_layered = self.path.starts_with("src/") || self.path.starts_with("operators/");
        let known = LAYERS
            .iter()
            .map(|(layer, _)| *layer)
            .find(|layer| *layer == name);
        known.filter(|_| is_layered)
    }

    fn is_product(&self) -> bool {
        self.path.starts_with("src/") || self.path.starts_with("operators/")
    }

    /// The numbered lines of code: without comments, and without test modules at the file's end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.product_lines().filter_map(|(number, line)| {
            let trimmed = line.trim_start();
            let is_comment = trimmed.starts_with("//");
            (!is_comment).then_some((number, line))
        })
    }

    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self
            .text
            .find("#[cfg(test)]\nmod tests {")
            .unwrap_or(self.text.len());
        let end = if self.is_test { 0 } else { end };
        (1..).zip(self.text[..end].lines())
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files of the project, by path.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for top in ["src", "operators", "tests", "examples", "benches"] {
        collect(&root().join(top), &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let for_tests: Vec<String> = found.iter().flat_map(test_modules).collect();
    for source in &mut found {
        let is_below = |module: &String| {
            let rest = source.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        source.is_test |= for_tests.iter().any(is_below);
    }
    assert!(found.len() > 10, "the sources were not found");
    found
}

fn collect(dir: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().display().to_string();
            let is_test = path.starts_with("tests/");
            found.push(Source {
                path,
                text,
                is_test,
            });
        }
    }
}

/// The files of modules that are declared for tests only: `#[cfg(test)]`, then `mod name;`.
fn test_modules(source: &Source) -> Vec<String> {
    let folder = match source
        .path
        .strip_suffix("/mod.rs")
        .or(source.path.strip_suffix("/lib.rs"))
    {
        Some(folder) => folder,
        None => source.path.trim_end_matches(".rs"),
    };
    let declared = source
        .text
        .split("#[cfg(test)]\n")
        .skip(1)
        .filter_map(|rest| {
            let line = rest.lines().next()?.trim();
            let (_, name) = line.rsplit_once("mod ")?;
            name.strip_suffix(';')
        });
    declared.map(|name| format!("{folder}/{name}")).collect()
}

/// Fails with all complaints at once.
fn settle(complaints: &[String], rule: &str) {
    let mut message = String::new();
    for complaint in complaints {
        let _ = writeln!(message, "  {complaint}");
    }
    assert!(complaints.is_empty(), "{rule}\n{message}");
}

/// The layers that a line names by `crate::<layer>`, also within `crate::{…}` on one line.
fn layers_named(line: &str) -> Vec<&'static str> {
    let mut named = Vec::new();
    for rest in line.split("crate::").skip(1) {
        let heads: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list.split(',').collect(),
            None => vec![rest],
        };
        for head in heads {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let word = head
                .trim()
                .split(|c| !is_word(c))
                .next()
                .unwrap_or_default();
            named.extend(
                LAYERS
                    .iter()
                    .map(|(layer, _)| *layer)
                    .filter(|layer| *layer == word),
            );
        }
    }
    named
}

#[test]
fn layers_use_only_what_lies_below_them() {
    let mut complaints = Vec::new();
    for source in sources() {
        let Some(layer) = source.layer() else {
            continue;
        };
        let allowed = LAYERS
            .iter()
            .find(|(name, _)| *name == layer)
            .map_or(&[][..], |(_, below)| below);
        for (number, line) in source.code() {
            for named in layers_named(line) {
                if named != layer && !allowed.contains(&named) {
                    complaints.push(format!(
                        "{}:{number}: `{layer}` must not know `{named}`; it may use {allowed:?}. \
                         Move the code up, or hand the value in as a parameter",
                        source.path
                    ));
                }
            }
        }
    }
    settle(
        &complaints,
        "A layer uses only the layers below it (the table `LAYERS` in tests/suite/tidy.rs).",
    );
}

#[test]
fn every_file_has_its_place_in_the_table_of_layers() {
    let is_placed =
        |source: &Source| source.layer().is_some() || ABOVE_ALL.contains(&source.path.as_str());
    let complaints: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.is_product() && !is_placed(source))
        .filter(|source| !source.path.starts_with("operators/"))
        .map(|source| {
            format!(
                "{}: put it into a layer, or name it in `ABOVE_ALL`",
                source.path
            )
        })
        .collect();
    settle(&complaints, "Every file belongs to one layer.");
}

/// The names that a text takes directly from `crate::runtime`: rooms, or items that the layer's door shows.
fn names_of_runtime(code: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let word = |text: &str| {
        text.split(|c| !is_word(c))
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let mut names = Vec::new();
    for rest in code.split("crate::runtime::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let inside = list.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth < 0
        });
        let inside = inside.take(1).flat_map(|list| list.split(','));
        names.extend(
            inside
                .map(|part| word(part.trim()))
                .filter(|name| !name.is_empty()),
        );
    }
    names
}

/// The room of each item that the door of the runtime shows.
fn shown_by_runtime(door: &str) -> Vec<(String, &'static str)> {
    let mut shown = Vec::new();
    for statement in door.split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap_or_default();
        let (path, list) = statement.rsplit_once("::").unwrap_or((statement, ""));
        let (path, list) = match statement.split_once("::{") {
            Some((path, list)) => (path, list),
            None => (path, list),
        };
        let room = path.split("::").next().unwrap_or_default();
        let Some((room, _)) = ROOMS.iter().find(|(known, _)| *known == room) else {
            continue;
        };
        let names = list.trim_end_matches('}').split(',').map(str::trim);
        shown.extend(
            names
                .filter(|it| !it.is_empty())
                .map(|name| (name.to_owned(), *room)),
        );
    }
    shown
}

#[test]
fn rooms_of_the_runtime_use_only_those_below_them() {
    let sources = sources();
    let door = sources
        .iter()
        .find(|it| it.path == "src/runtime/mod.rs")
        .unwrap();
    let shown = shown_by_runtime(&door.text);
    let mut complaints = Vec::new();
    for source in &sources {
        let Some(rest) = source.path.strip_prefix("src/runtime/") else {
            continue;
        };
        let room = rest.split_once('/').map_or("", |(room, _)| room);
        let Some((room, may_use)) = ROOMS.iter().find(|(known, _)| *known == room) else {
            if rest != "mod.rs" {
                complaints.push(format!("{}: put it into one of `ROOMS`", source.path));
            }
            continue;
        };
        let code: Vec<&str> = source.code().map(|(_, line)| line).collect();
        for name in names_of_runtime(&code.join("\n")) {
            let item = shown.iter().find(|(shown, _)| *shown == name);
            let used = item.map_or(&*name, |(_, room)| room);
            let is_room = ROOMS.iter().any(|(known, _)| *known == used);
            if is_room && used != *room && !may_use.contains(&used) {
                complaints.push(format!(
                    "{}: `{room}` must not use `{name}` of `{used}`",
                    source.path
                ));
            }
        }
    }
    settle(
        &complaints,
        "A room of the runtime uses only the rooms below it, as `ROOMS` lists them.",
    );
}

#[test]
fn every_file_says_in_its_first_line_what_it_is() {
    let complaints: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| format!("{}: begin it with one sentence after `//! `", source.path))
        .collect();
    settle(
        &complaints,
        "The first line of a file says what the file is.",
    );
}

#[test]
fn no_file_is_too_long() {
    let mut complaints = Vec::new();
    for source in sources() {
        let lines_count = source.product_lines().count();
        if lines_count > FILE_LINES_MAX {
            complaints.push(format!(
                "{}: {lines_count} lines without tests; split it at a noun (tests go to `tests.rs`)",
                source.path
            ));
        }
    }
    settle(
        &complaints,
        "A file has at most 600 lines without its tests.",
    );
}

#[test]
fn only_env_touches_the_world() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.is_product()) {
        if source.layer() == Some("env") {
            continue;
        }
        for (number, line) in source.code() {
            for (word, instead) in DOORS {
                if says(line, word) {
                    complaints.push(format!("{}:{number}: `{word}`: {instead}", source.path));
                }
            }
        }
    }
    settle(
        &complaints,
        "Files, clocks, threads and randomness come from `env` (design D12).",
    );
}

#[test]
fn x21_warnings_are_heard_where_nobody_subscribed() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.is_product()) {
        if source.layer() == Some("env") {
            continue;
        }
        let unheard = source.code().filter(|(_, line)| is_unheard(line));
        complaints.extend(unheard.map(|(number, line)| {
            let line = line.trim();
            format!(
                "{}:{number}: `{line}`: use `env::warn!` or `env::error!`",
                source.path
            )
        }));
    }
    settle(
        &complaints,
        "Warnings reach standard error where nobody subscribed to `tracing`.",
    );
}

/// Whether a line warns by `tracing` itself, or gets ready to.
fn is_unheard(line: &str) -> bool {
    let is_import = line.trim_start().starts_with("use tracing::");
    ["warn", "error"]
        .iter()
        .any(|level| says(line, &format!("tracing::{level}")) || (is_import && says(line, level)))
}

#[test]
fn nothing_is_left_unfinished() {
    let mut complaints = Vec::new();
    for source in sources().iter().filter(|source| source.is_product()) {
        for (number, line) in source.product_lines() {
            let is_doc = line.trim_start().starts_with("//");
            for (word, instead) in UNFINISHED {
                let is_prose = is_doc && !word.chars().all(|c| c.is_ascii_uppercase());
                if !is_prose && says(line, word) {
                    complaints.push(format!("{}:{number}: `{word}`: {instead}", source.path));
                }
            }
        }
    }
    settle(
        &complaints,
        "Code outside tests is finished and handles its errors.",
    );
}

#[test]
fn unsafe_code_is_in_one_file() {
    let complaints: Vec<String> = sources()
        .iter()
        .filter(|source| source.is_product() && source.path != "src/env/libc_calls.rs")
        .flat_map(|source| {
            source
                .code()
                .map(move |(number, line)| (source, number, line))
        })
        .filter(|(_, _, line)| says(line, "unsafe") || says(line, "unsafe_code"))
        .map(|(source, number, _)| format!("{}:{number}: find a safe way", source.path))
        .collect();
    settle(&complaints, "All `unsafe` is in src/env/libc_calls.rs.");
}

#[test]
fn nothing_names_the_machine_that_built_it() {
    // Split, so that this file does not name them either.
    let hosts = [
        concat!("index.", "crates.io"),
        concat!("static.", "crates.io"),
        concat!("registry", "+http"),
        concat!("sparse", "+http"),
        concat!("proxy.", "golang"),
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
    ];
    let mut files = sources();
    for name in [
        "Cargo.toml",
        "Makefile",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    ] {
        if let Ok(text) = std::fs::read_to_string(root().join(name)) {
            let path = name.to_owned();
            files.push(Source {
                path,
                text,
                is_test: false,
            });
        }
    }
    let mut complaints = Vec::new();
    for source in &files {
        for (number, line) in (1..).zip(source.text.lines()) {
            let named = hosts.iter().filter(|host| line.contains(**host));
            complaints.extend(named.map(|host| {
                format!(
                    "{}:{number}: `{host}`: leave it to the user's own configuration",
                    source.path
                )
            }));
        }
    }
    settle(
        &complaints,
        "No registry host and no path of one machine is in the sources.",
    );
}

/// Whether `line` has `word` with no letter, digit or `_` around it.
fn says(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let opens = word.starts_with(is_word);
    let closes = word.ends_with(is_word);
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !(opens && before.is_some_and(is_word) || closes && after.is_some_and(is_word))
    })
}

#[test]
fn the_rules_see_what_they_forbid() {
    assert!(is_unheard("    tracing::warn!(why);"));
    assert!(is_unheard("use tracing::{debug, error};"));
    assert!(!is_unheard("    crate::env::warn!(why);"));
    assert!(!is_unheard("use tracing::info;"));
    assert_eq!(layers_named("use crate::log::PartitionLog;"), ["log"]);
    assert_eq!(
        layers_named("use crate::{env, broker::Broker};"),
        ["env", "broker"]
    );
    assert_eq!(layers_named("let x = crate::types::Offset(1);"), ["types"]);
    assert!(layers_named("use crate::logarithm;").is_empty());
    assert_eq!(
        names_of_runtime(
            "use crate::runtime::task::inbox::{Inbox, Message};\ncrate::runtime::{\n    Key,\n    graph::{A, B},\n};"
        ),
        ["task", "Key", "graph", "B"]
    );
    assert_eq!(
        shown_by_runtime(
            "pub use task::pace::Pace;\npub use scale::ScaleOut;\npub use graph::fork::{\n    Route, Way,\n};\n"
        ),
        [
            ("Pace", "task"),
            ("ScaleOut", "scale"),
            ("Route", "graph"),
            ("Way", "graph")
        ]
        .map(|(name, room)| (name.to_owned(), room))
    );
    assert!(says("use std::fs;", "std::fs"));
    assert!(says("let x = y.unwrap();", ".unwrap()"));
    assert!(!says("fn unsafely()", "unsafe"));
    assert!(!says("operand::x", "rand::"));
    let source = Source {
        path: "src/log/x.rs".to_owned(),
        text: "//! X.\nfn a() {}\n// crate::broker\n#[cfg(test)]\nmod tests {\n}\n".to_owned(),
        is_test: false,
    };
    assert_eq!(source.layer(), Some("log"));
    assert_eq!(source.code().count(), 1);
    let door = Source {
        path: "src/log/mod.rs".to_owned(),
        text: "//! X.\n#[cfg(test)]\npub(crate) mod scripted;\nmod read;\n".to_owned(),
        is_test: false,
    };
    assert_eq!(test_modules(&door), ["src/log/scripted"]);
}

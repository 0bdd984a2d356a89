//! The documentation names tests that exist, and the failure catalogue has no row without one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A name of so many words in backticks is that of a test.
const WORDS_OF_A_TEST_MIN: usize = 5;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `folder` that end in `.{extension}`, with their text.
fn texts(folder: &Path, extension: &str, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts(&path, extension, found);
        } else if path.extension().is_some_and(|it| it == extension) {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// The names of all functions in the tree.
fn functions() -> BTreeSet<String> {
    let mut sources = Vec::new();
    for top in ["src", "operators", "tests"] {
        texts(&root().join(top), "rs", &mut sources);
    }
    let lines = sources.iter().flat_map(|(_, text)| text.lines());
    let names = lines.filter_map(|line| {
        let (before, rest) = line.trim_start().split_once("fn ")?;
        let is_function = before.split_whitespace().all(|word| word != "//");
        let name = rest.split(['(', '<']).next()?;
        is_function.then(|| name.to_owned())
    });
    names.collect()
}

/// Finds texts in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The part of a name that says which rows of the catalogue it proves, read as `c1`, `f10`, …
fn rows(name: &str) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    let mut words = name.split('_').peekable();
    while let Some(word) = words.next() {
        let Some((group, number)) = row(word) else {
            if word == "to"
                && let Some((group, from)) = rows.last().and_then(|row| self::row(row))
                && let Some((_, to)) = words.peek().and_then(|word| row(word))
            {
                rows.extend((from + 1..to).map(|number| format!("{group}{number}")));
                continue;
            }
            break;
        };
        rows.push(format!("{group}{number}"));
    }
    rows
}

fn row(word: &str) -> Option<(char, u32)> {
    let group = word.chars().next().filter(char::is_ascii_lowercase)?;
    let number = word[1..].parse().ok()?;
    Some((group, number))
}

#[test]
fn every_test_that_the_documentation_names_exists() {
    let functions = functions();
    let mut pages = Vec::new();
    texts(&root().join("docs"), "md", &mut pages);
    let mut named_count = 0;
    let mut missing = Vec::new();
    for (path, text) in &pages {
        for name in quoted(text) {
            let is_name = name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            let words_count = name.split('_').filter(|word| !word.is_empty()).count();
            // `c14_` is a way to ask for tests.
            let is_name = is_name && !name.ends_with('_');
            // Metrics are compared with a scrape, in `jobs/observing.rs`.
            let is_name = is_name && !name.starts_with("onceflow_");
            if is_name && (words_count >= WORDS_OF_A_TEST_MIN || !rows(name).is_empty()) {
                named_count += 1;
                if !functions.contains(name) {
                    missing.push(format!("{}: `{name}`", path.display()));
                }
            }
        }
    }
    assert!(named_count > 100, "only {named_count} tests are named");
    assert!(missing.is_empty(), "there is no such test: {missing:#?}");
}

#[test]
fn every_row_of_the_failure_catalogue_has_a_test_with_its_id() {
    let proven: BTreeSet<String> = functions().iter().flat_map(|name| rows(name)).collect();
    let catalogue = std::fs::read_to_string(root().join("docs/failures.md")).unwrap();
    let ids = catalogue.lines().filter_map(|line| {
        let first = line.strip_prefix("| ")?.split(" |").next()?;
        let id = first.to_ascii_lowercase();
        row(&id).is_some().then_some(id)
    });
    let ids: Vec<String> = ids.collect();
    assert!(ids.len() > 60, "only {} rows were found", ids.len());
    let unproven: Vec<&String> = ids.iter().filter(|id| !proven.contains(*id)).collect();
    assert!(unproven.is_empty(), "no test carries {unproven:?}");
}

#[test]
fn the_failure_catalogue_counts_the_tests_that_it_does_not_name() {
    let functions = functions();
    let catalogue = std::fs::read_to_string(root().join("docs/failures.md")).unwrap();
    let mut wrong = Vec::new();
    for line in catalogue.lines() {
        let Some((id, _)) = line
            .strip_prefix("| ")
            .and_then(|rest| rest.split_once(" |"))
        else {
            continue;
        };
        let id = id.to_ascii_lowercase();
        let proves = |name: &str| rows(name).contains(&id);
        if row(&id).is_none() {
            continue;
        }
        let named: BTreeSet<&str> = quoted(line).filter(|name| proves(name)).collect();
        let proving = functions.iter().filter(|name| proves(name)).count();
        let more = match line.strip_suffix(" more |") {
            Some(line) => line.rsplit(' ').next().unwrap().parse().unwrap(),
            None => 0,
        };
        if named.len() + more != proving {
            wrong.push(format!("{id}: {} more", proving - named.len()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The crates that Cargo.toml asks for itself.
fn direct_dependencies() -> BTreeSet<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut is_dependency = false;
    let names = manifest.lines().filter_map(|line| {
        if line.starts_with('[') {
            is_dependency = line.ends_with("dependencies]");
        }
        let (name, _) = line.split_once(" = ")?;
        is_dependency.then(|| name.to_owned())
    });
    names.collect()
}

#[test]
fn x22_every_dependency_has_its_reason_and_no_reason_is_left_over() {
    let page = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let first_cells = rows.filter_map(|row| row.split(" | ").next());
    let explained: BTreeSet<String> = first_cells.flat_map(quoted).map(str::to_owned).collect();
    let wanted = direct_dependencies();
    assert!(wanted.len() > 30, "only {wanted:?} were found");
    let unexplained: Vec<_> = wanted.difference(&explained).collect();
    assert!(unexplained.is_empty(), "no reason for {unexplained:?}");
    let gone: Vec<_> = explained.difference(&wanted).collect();
    assert!(gone.is_empty(), "Cargo.toml does not ask for {gone:?}");
}

#[test]
fn x22_every_file_that_the_documentation_names_exists() {
    const FOLDERS: [&str; 8] = [
        "src/",
        "operators/",
        "examples/",
        "tests/",
        "benches/",
        "docs/",
        "scripts/",
        ".ci/",
    ];
    let mut pages = Vec::new();
    texts(&root().join("docs"), "md", &mut pages);
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let path = root().join(name);
        pages.push((path.clone(), std::fs::read_to_string(path).unwrap()));
    }
    let mut missing = Vec::new();
    let mut named_count = 0;
    for (page, text) in &pages {
        // `scripts/peers [GROUP]` names a file and says how it is called.
        let names = quoted(text).filter_map(|it| it.split(' ').next());
        for name in names.filter(|it| FOLDERS.iter().any(|folder| it.starts_with(folder))) {
            named_count += 1;
            let is_pattern = name.contains(['*', '<', '{', '…']);
            if !is_pattern && !root().join(name).exists() {
                missing.push(format!("{}: `{name}`", page.display()));
            }
        }
    }
    assert!(named_count > 50, "only {named_count} files are named");
    assert!(missing.is_empty(), "there is no such file: {missing:#?}");
}

/// The files whose errors a user can meet as they are.
const ERRORS: [&str; 11] = [
    "types/ids.rs",
    "codec/error.rs",
    "net/error.rs",
    "log/error.rs",
    "server/error.rs",
    "client/error.rs",
    "state/error.rs",
    "protocol/batch/error.rs",
    "runtime/contract/error.rs",
    "runtime/task/committed/error.rs",
    "runtime/life/arguments.rs",
];

/// The texts of all `#[error("…")]` of a source, as the compiler reads them.
fn error_texts(source: &str) -> Vec<String> {
    let behind = source.split("#[error(").skip(1);
    let literals = behind.filter_map(|text| text.trim_start().strip_prefix('"'));
    literals.map(literal).collect()
}

/// A string literal from behind its first quote to its last.
fn literal(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('"', _) => break,
            ('\\', Some('\n')) => while chars.next_if(|c| c.is_whitespace()).is_some() {},
            ('\\', Some(_)) => {
                let escaped = chars.next();
                out.extend(escaped.map(|c| if c == 'n' { '\n' } else { c }));
            }
            _ => out.push(c),
        }
    }
    out
}

/// The parts of a message between the things that are put in, as a reader searches for them: without what ends a part.
fn fixed_parts(message: &str) -> Vec<&str> {
    let behind = message.split('{').enumerate();
    let parts = behind.map(|(i, text)| match i {
        0 => text,
        _ => text.split_once('}').map_or("", |(_, text)| text),
    });
    let lines = parts.flat_map(str::lines);
    lines
        .map(|it| it.trim_matches([' ', ':', ';', ',', '(', ')', '.']))
        .collect()
}

/// A part of so many characters is enough to know a message by.
const KNOWN_BY_CHARACTERS: usize = 12;
/// A row may stop before the advice that a message ends with.
const COMPARED_CHARACTERS: usize = 40;

/// Whether the page has a part of the message that tells it from others; its longest part, if all are short.
fn is_on(page: &str, message: &str) -> bool {
    let parts = fixed_parts(message);
    let longest = parts.iter().map(|it| it.chars().count()).max().unwrap_or(0);
    let enough = longest.min(KNOWN_BY_CHARACTERS);
    parts
        .iter()
        .filter(|it| it.chars().count() >= enough)
        .any(|part| {
            let beginning: String = part.chars().take(COMPARED_CHARACTERS).collect();
            page.contains(beginning.trim_end())
        })
}

#[test]
fn every_error_a_user_can_meet_is_on_the_page_of_troubles() {
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    // A row has its bars escaped; marks of code are no part of a message.
    let plain = |text: &str| text.replace('`', "").replace("\\|", "|");
    let page = plain(&page);
    let (mut missing, mut count) = (Vec::new(), 0);
    for file in ERRORS {
        let source = std::fs::read_to_string(root().join("src").join(file)).unwrap();
        for message in error_texts(&source) {
            count += 1;
            // A message that is all put in has its words from another one of these.
            let has_words = fixed_parts(&message).iter().any(|it| !it.is_empty());
            if has_words && !is_on(&page, &plain(&message)) {
                missing.push(format!("{file}: {message:?}"));
            }
        }
    }
    assert!(count > 90, "only {count} errors were found");
    assert!(missing.is_empty(), "not on the page: {missing:#?}");
}

#[test]
fn a_message_is_known_by_its_fixed_parts() {
    assert_eq!(
        fixed_parts("a {x} is too {y:?}: do this."),
        ["a", "is too", "do this"]
    );
    assert_eq!(literal("a \\\n   b\" rest"), "a b");
    assert_eq!(
        error_texts("#[error(\n \"one {0}\")] #[error(transparent)]"),
        ["one {0}"]
    );
    let message = "the colour {c} is taken: choose another one";
    assert!(is_on(
        "| the colour … is taken: choose another one |",
        message
    ));
    assert!(!is_on("| the shape … is taken |", message));
}

#[test]
fn the_book_has_every_page_and_no_link_leads_nowhere() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    let mut pages = Vec::new();
    texts(&root().join("docs"), "md", &mut pages);
    for (path, _) in &pages {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_listed = name == "SUMMARY.md" || summary.contains(&format!("]({name})"));
        assert!(is_listed, "docs/SUMMARY.md does not list {name}");
    }
    let readme = root().join("README.md");
    let text = std::fs::read_to_string(&readme).unwrap();
    pages.push((readme, text));
    let (mut missing, mut links_count) = (Vec::new(), 0);
    for (page, text) in &pages {
        let links = text.split("](").skip(1);
        for link in links.filter_map(|it| it.split([')', '#', ' ', '"']).next()) {
            let is_ours = link.ends_with(".md") || link.ends_with(".svg");
            if !is_ours || link.contains("://") {
                continue;
            }
            links_count += 1;
            let target = page.parent().unwrap().join(link);
            if !target.exists() {
                missing.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(links_count > 60, "only {links_count} links were found");
    assert!(missing.is_empty(), "no such page: {missing:#?}");
}

#[test]
fn the_inventory_of_unsafe_code_counts_its_places() {
    let page = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let calls = std::fs::read_to_string(root().join("src/env/libc_calls.rs")).unwrap();
    let blocks = calls
        .lines()
        .filter(|line| line.contains("unsafe {"))
        .count();
    let listed = page
        .lines()
        .filter(|line| line.starts_with("| `src/env/libc_calls.rs`"));
    assert_eq!(listed.count(), blocks, "SECURITY.md lists each block");
}

#[test]
fn the_ids_of_a_name_are_read_from_its_front() {
    assert_eq!(rows("c1_c22_all_is_well"), ["c1", "c22"]);
    assert_eq!(rows("f1_to_f3_a_to_z9_is_cut"), ["f1", "f2", "f3"]);
    assert!(rows("a_c1_in_the_middle").is_empty());
}

//! X18: where users err, the compiler says what to write instead.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that this binary was built with: the newest one beside it.
fn library() -> PathBuf {
    let folder = std::env::current_exe().unwrap();
    let files = std::fs::read_dir(folder.parent().unwrap()).unwrap();
    let libraries = files.filter_map(|file| {
        let file = file.unwrap();
        let name = file.file_name().into_string().ok()?;
        let is_ours = name.starts_with("libonceflow-") && name.ends_with(".rlib");
        is_ours.then(|| (file.metadata().unwrap().modified().unwrap(), file.path()))
    });
    libraries.max().unwrap().1
}

/// The compiler's words about a job with these lines in it.
fn compile(lines: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.rs");
    let program = format!(
        "#![allow(unused)]\nuse onceflow::prelude::*;\nfn main() {{\nlet job = Job::new(\"job\");\n\
         let words = job.source(topic::<str>(\"words\"));\n{lines}\n}}\n"
    );
    std::fs::write(&path, program).unwrap();
    let library = library();
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| {
        let beside = Path::new(env!("CARGO")).with_file_name("rustc");
        if beside.exists() {
            beside.into()
        } else {
            "rustc".into()
        }
    });
    let done = Command::new(compiler)
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "bin",
            "--emit",
            "metadata",
        ])
        .arg("-o")
        .arg(folder.path().join("job.rmeta"))
        .arg("-L")
        .arg(library.parent().unwrap())
        .arg("--extern")
        .arg(format!("onceflow={}", library.display()))
        .arg(&path)
        .output()
        .unwrap();
    (
        done.status.success(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    )
}

#[test]
fn x18_the_compiler_says_what_is_meant() {
    for right in [
        "words.key_by_ref(|word: &str| word).count(\"c\").changes().sink(topic(\"counts\"));",
        "words.key_by(|word| word.to_owned()).count(\"c\").changes().sink(topic(\"counts\"));",
        "words.map(|word| word.to_owned()).key_by(|word| word.clone()).count(\"c\").changes().sink(topic(\"counts\"));",
    ] {
        let (is_good, said) = compile(right);
        assert!(is_good, "{right}: {said}");
    }
    for (wrong, expected) in [
        (
            "words.count(\"counts\");",
            &[
                "works by key, and the stream has none",
                "key_by",
                "key_by_ref",
            ][..],
        ),
        (
            "words.reduce(\"sums\", |sum: &mut String, word: &str| {});",
            &["works by key, and the stream has none"],
        ),
        (
            "words.key_by_ref(|word: &str| word).count(\"c\").sink(topic(\"counts\"));",
            &["a table is not a stream of records", ".changes()"],
        ),
        (
            "words.map(|word| word.to_owned()).key_by(|word| word).count(\"c\");",
            &["cannot be a key", "key_by_ref"],
        ),
        (
            "struct Mine; words.sink(Mine);",
            &["`Mine` is not a sink for these records", "at_least_once"],
        ),
        (
            "struct Mine; job.source(Mine);",
            &["is not a source", "keyed_topic"],
        ),
    ] {
        let (is_good, said) = compile(wrong);
        assert!(!is_good, "{wrong} compiles");
        for words in expected {
            assert!(said.contains(words), "{wrong} lacks {words:?}: {said}");
        }
        for private in [
            "BoxedFactory",
            "StepFactory",
            "SenderFactory",
            "is not an iterator",
        ] {
            assert!(!said.contains(private), "{wrong} shows {private}: {said}");
        }
    }
}

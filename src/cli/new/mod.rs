//! `onceflow new`: writes a project with a job that runs, and its crash test.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::UsageError;
use super::output;
use crate::env::{Env, OpenMode};

const EXAMPLES: &str = "\
Examples:
  onceflow new my-job && cd my-job && cargo test
  onceflow new jobs/totals --onceflow ../../onceflow      with a checkout of onceflow instead of the published crate

The project has its job in src/lib.rs, the program that runs it in src/main.rs, and a crash test in tests/crash.rs.";

/// The files of a project: where they go, and what is in them.
const FILES: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    ("README.md", include_str!("template/README.md.in")),
    ("src/lib.rs", include_str!("template/lib.rs.in")),
    ("src/main.rs", include_str!("template/main.rs.in")),
    ("tests/crash.rs", include_str!("template/crash.rs.in")),
    (".gitignore", "/target\n/data\n"),
];

/// Names that cannot be those of a package: Rust's own crates, and this one.
const TAKEN: [&str; 7] = [
    "onceflow", "tokio", "anyhow", "std", "core", "alloc", "test",
];

/// Write a new project.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct NewArguments {
    /// The project's directory, which must be absent; its last part is the project's and the job's name
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The name, if it is not the directory's
    #[arg(long)]
    name: Option<String>,
    /// Take onceflow from this directory
    #[arg(long, value_name = "DIR")]
    onceflow: Option<PathBuf>,
}

/// Runs `onceflow new`.
pub(super) fn run(env: &Env, arguments: &NewArguments) -> anyhow::Result<()> {
    let path = &arguments.path;
    let last = path.file_name().map(|it| it.to_string_lossy().into_owned());
    let name = arguments.name.clone().or(last).unwrap_or_default();
    check_name(&name)?;
    let dependency = dependency(env, arguments.onceflow.as_deref())?;
    if env.files.exists(path)? {
        bail!(
            "{} is there already: name a directory that is not",
            path.display()
        );
    }
    let unmade = || format!("cannot make the project {}", path.display());
    for directory in [path.clone(), path.join("src"), path.join("tests")] {
        env.files.create_dir(&directory).with_context(unmade)?;
    }
    for (file, template) in FILES {
        let text = template
            .replace("{{name}}", &name)
            .replace("{{module}}", &name.replace('-', "_"))
            .replace("{{onceflow}}", &dependency);
        write(env, &path.join(file), text.as_bytes())?;
    }
    let mut out = output::stdout();
    let sentence = format!(
        "{} is made: `cd {} && cargo test` builds it (RocksDB takes some minutes, once) and takes it through its crash test",
        path.display(),
        path.display()
    );
    let object = serde_json::json!({ "project": path, "name": name });
    output::tell(&mut out, &sentence, &object)?;
    Ok(out.flush()?)
}

/// Refuses what Cargo would refuse, and what the templates cannot do with.
fn check_name(name: &str) -> Result<(), UsageError> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    if !begins_well || !name.chars().all(is_plain) {
        return Err(UsageError(format!(
            "{name:?} is no name of a project: use small letters, digits, '-' and '_', a letter first, or give one with --name"
        )));
    }
    match TAKEN.contains(&name) {
        true => Err(UsageError(format!(
            "{name:?} is the name of another crate: give another one with --name"
        ))),
        false => Ok(()),
    }
}

/// The right-hand side of the line `onceflow = …`.
fn dependency(env: &Env, checkout: Option<&Path>) -> anyhow::Result<String> {
    let Some(checkout) = checkout else {
        return Ok(format!("{:?}", env!("CARGO_PKG_VERSION")));
    };
    if !env.files.exists(&checkout.join("Cargo.toml"))? {
        bail!(
            "there is no Cargo.toml in {}: --onceflow takes a checkout of onceflow",
            checkout.display()
        );
    }
    // The project may be built from anywhere.
    let absolute = std::path::absolute(checkout).context("the path cannot be made absolute")?;
    let absolute = absolute.to_string_lossy().into_owned();
    // A string of JSON is one of TOML, too.
    Ok(format!(
        "{{ path = {} }}",
        serde_json::Value::String(absolute)
    ))
}

/// Writes a file that must be absent or is replaced as a whole.
pub(super) fn write(env: &Env, path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let unwritten = || format!("cannot write {}", path.display());
    let file = env.files.open(path, OpenMode::OpenOrCreate);
    let file = file.with_context(unwritten)?;
    file.set_length(bytes.len() as u64)
        .with_context(unwritten)?;
    file.write_all_at(bytes, 0).with_context(unwritten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_cargo_takes() {
        for name in ["my-job", "a", "totals_2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "", "2nd", "My-Job", "a b", "..", "-a", "onceflow", "tokio", "ä",
        ] {
            assert!(check_name(name).is_err(), "{name:?} was taken");
        }
    }

    #[test]
    fn nothing_of_a_template_is_left_open() {
        for (file, template) in FILES {
            let known = ["{{name}}", "{{module}}", "{{onceflow}}"];
            let rest = known
                .iter()
                .fold(template.to_owned(), |text, it| text.replace(it, ""));
            assert!(!rest.contains("{{"), "{file}");
        }
    }
}

//! `onceflow new`: what it writes is a project that builds, runs, and passes its crash test.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Cli, finish, onceflow};

/// The build's directory of this test's own binary.
fn own_build() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_onceflow")).parent().unwrap()
}

/// A target directory beside that of this test's own binary: the project has other features, and neither is to compile anew what the
/// other one has compiled.
fn target() -> PathBuf {
    own_build().join("new-project")
}

/// The directory of the RocksDB that was compiled for this test's own binary; none where it was not compiled but found.
fn rocksdb() -> Option<PathBuf> {
    let builds = std::fs::read_dir(own_build().join("build")).unwrap();
    let libraries = builds.filter_map(|build| {
        let out = build.unwrap().path().join("out");
        let library = std::fs::metadata(out.join("librocksdb.a")).ok()?;
        Some((library.modified().unwrap(), out))
    });
    libraries.max().map(|(_, out)| out)
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Variables of Cargo that a user sets. It sets many more for the tests that it runs.
const FROM_A_SHELL: &[&str] = &["CARGO_HOME", "CARGO_INCREMENTAL", "CARGO_TERM_COLOR"];

/// Runs Cargo in the project, on this machine's crates alone.
fn cargo(project: &Path, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO"));
    // A build script that asks for one of these (ring's) would run anew here, and once more in the next build outside.
    let of_this_test = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in of_this_test.filter(|name| name.starts_with("CARGO_")) {
        if !FROM_A_SHELL.contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    command
        .current_dir(project)
        .args(arguments)
        .arg("--offline")
        // The project asks for an optimised onceflow, which takes a minute more to compile; nothing here is measured.
        .args(["--config", "profile.dev.package.onceflow.opt-level=0"])
        .env("CARGO_TARGET_DIR", target());
    // As docs/install.md says. Compiling it once more would take longer than all other tests of the command.
    if let Some(rocksdb) = rocksdb() {
        command
            .env("ROCKSDB_LIB_DIR", rocksdb)
            .env("ROCKSDB_STATIC", "1");
    }
    let done = finish(command, b"");
    assert_eq!(
        done.code, 0,
        "cargo {arguments:?}: {}{}",
        done.out, done.err
    );
}

#[test]
fn a_new_project_passes_its_crash_test_and_survives_real_kills() {
    let cli = Cli::new();
    let project = cli.directory.path().join("my-job");
    let (path, source) = (project.to_str().unwrap(), checkout().to_str().unwrap());
    let done = cli.run(&["new", path, "--onceflow", source]);
    assert_eq!(done.code, 0, "{done:?}");
    // The same versions as ours: nothing is asked of a registry.
    std::fs::copy(checkout().join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    cargo(&project, &["test"]);
    cargo(&project, &["build"]);

    cli.ok("topic create orders");
    let orders: String = (0..500)
        .map(|i| format!("customer-{} {i}\n", i % 7))
        .collect();
    cli.ok_with_input("produce orders", orders.as_bytes());
    let program = target().join("debug/my-job");
    let line = format!(
        "crash-test --bin {} --kills 5 --longest 500 --compare totals --output json",
        program.display()
    );
    let done = cli.run(&line.split(' ').collect::<Vec<_>>());
    // Kills that find no job at work are told as a failure of the test; what the job wrote must be right all the same.
    let told: serde_json::Value = serde_json::from_str(done.out.trim()).unwrap();
    assert_eq!(told["kills"], 5, "{done:?}");
    assert_eq!(told["compared"][0]["differing_keys"], 0, "{done:?}");
    let totals = cli.ok("consume totals --key");
    assert_eq!(totals.lines().count(), 500, "each order gave one total");
    let last = totals
        .lines()
        .filter_map(|line| line.strip_prefix("customer-0\t"))
        .next_back();
    let expected: u64 = (0..500).filter(|i| i % 7 == 0).sum();
    assert_eq!(last, Some(expected.to_string().as_str()));
}

#[test]
fn what_cannot_be_a_project_is_refused_with_what_to_do() {
    let cli = Cli::new();
    let place = cli.directory.path();
    for (name, said) in [
        ("2nd", "--name"),
        ("tokio", "another crate"),
        ("My Job", "--name"),
    ] {
        let done = cli.run(&["new", place.join(name).to_str().unwrap()]);
        assert_eq!(done.code, 2, "{name}: {done:?}");
        assert!(done.err.contains(said), "{name}: {done:?}");
        assert!(!place.join(name).exists());
    }
    let path = place.join("there");
    std::fs::create_dir(&path).unwrap();
    let done = cli.run(&["new", path.to_str().unwrap()]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.err.contains("is there already"), "{done:?}");
    let mut command = onceflow(&["new", "job-a", "--onceflow", "nowhere"]);
    command.current_dir(place);
    let done = finish(command, b"");
    assert!(done.err.contains("takes a checkout"), "{done:?}");
    assert!(!place.join("job-a").exists(), "nothing was made");
}

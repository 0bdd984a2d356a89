//! Foreign software for tests: `scripts/peers` installs it once, pinned, into the cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use parking_lot::Mutex;

/// The variable that leaves out tests with foreign software, on a machine that cannot have it: `skip`.
const SWITCH: &str = "ONCEFLOW_PEERS";

/// Groups that this process has installed or found.
static INSTALLED: Mutex<BTreeMap<String, bool>> = Mutex::new(BTreeMap::new());

/// The project's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `scripts/peers` puts things.
pub(crate) fn cache() -> PathBuf {
    let base = std::env::var_os("ONCEFLOW_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME names the home directory"));
    base.unwrap_or_else(|| home().join(".cache/onceflow"))
        .join("peers")
}

/// Whether the tests of these groups are to run, after installing what is missing.
///
/// # Panics
///
/// When a group cannot be installed, with the reason: a missing peer is a failure, not a pass.
/// Only `ONCEFLOW_PEERS=skip` leaves tests out, and says so.
pub(crate) fn are_wanted(groups: &[&str]) -> bool {
    if std::env::var(SWITCH).is_ok_and(|value| value == "skip") {
        eprintln!("LEFT OUT: {SWITCH}=skip leaves out what needs {groups:?}");
        return false;
    }
    for group in groups {
        install(group);
    }
    true
}

fn install(group: &str) {
    let mut installed = INSTALLED.lock();
    if installed.contains_key(group) {
        return;
    }
    let output = Command::new(root().join("scripts/peers"))
        .arg(group)
        .stdin(Stdio::null())
        .output()
        .expect("scripts/peers is there");
    assert!(
        output.status.success(),
        "`scripts/peers {group}` failed; {SWITCH}=skip leaves these tests out\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    installed.insert(group.to_owned(), true);
}

/// `java` with Apache Kafka's jars, a small heap and quick start, before the class to run.
pub(crate) fn java() -> Command {
    let mut java = Command::new("java");
    let libs = cache().join("kafka/libs/*");
    let settings = root().join("tests/peers/kafka/log4j2.properties");
    java.args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg("-cp")
        .arg(libs)
        .arg(format!("-Dlog4j2.configurationFile={}", settings.display()))
        .stdin(Stdio::null());
    java
}

/// Runs a command to its end and gives what it printed.
///
/// # Panics
///
/// When it fails, with its last words.
pub(crate) fn output_of(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

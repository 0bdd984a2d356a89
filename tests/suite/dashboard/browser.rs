//! A real browser without a screen (`tests/peers/dashboard/look.mjs`), and the steps between it and a test.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::support::peers;

/// Whether there is a browser, after installing what is missing.
pub(super) fn is_wanted() -> bool {
    peers::are_wanted(&["browser"])
}

/// Lets the browser look at a page by a scenario of `look.mjs`; `step` is called for what the test has to do in between.
///
/// # Panics
/// When it does not see what it should.
pub(crate) fn look(scenario: &str, url: &str, words: &[&str], step: &mut dyn FnMut(&str)) {
    if !is_wanted() {
        return;
    }
    let mut child = Command::new("node")
        .arg(peers::cache().join("browser/look.mjs"))
        .args([scenario, url])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node is installed");
    let mut answers = child.stdin.take().unwrap();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(name) = line.strip_prefix('@') {
            step(name);
            writeln!(answers, "done").unwrap();
        }
    }
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.success(),
        "the browser saw something else:\n{said}"
    );
}

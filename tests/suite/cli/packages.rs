//! The files of packages: the unit's command line is one that runs and ends as the unit says, and systemd takes the unit.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Cli, onceflow};

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/onceflow.service");
    std::fs::read_to_string(path).unwrap()
}

/// The words behind `onceflow` in the unit's command line, on this directory and a free port.
fn command_line(data: &str) -> Vec<String> {
    let unit = unit();
    let line = unit
        .lines()
        .find_map(|it| it.strip_prefix("ExecStart=/usr/bin/onceflow "));
    let words = line.unwrap().split(' ').map(|word| match word {
        "/var/lib/onceflow" => data.to_owned(),
        "127.0.0.1:9092" => "127.0.0.1:0".to_owned(),
        word => word.to_owned(),
    });
    words.collect()
}

#[test]
fn the_service_starts_and_closes_cleanly_on_sigterm() {
    let cli = Cli::new();
    let words = command_line(cli.data().to_str().unwrap());
    assert!(words.contains(&"127.0.0.1:0".to_owned()), "{words:?}");
    let mut child = onceflow(&words).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.next().unwrap().unwrap();
    assert!(said.contains("127.0.0.1:"), "{said}");
    let killed = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    assert!(child.wait().unwrap().success());
}

#[test]
fn systemd_takes_the_unit() {
    let has_systemd = Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_ok();
    if !has_systemd {
        eprintln!("LEFT OUT: systemd-analyze is not installed, so nobody judges the unit");
        return;
    }
    let place = tempfile::TempDir::new().unwrap();
    let path = place.path().join("onceflow.service");
    // The program and its page are not installed here.
    let unit = unit()
        .replace("/usr/bin/onceflow", env!("CARGO_BIN_EXE_onceflow"))
        .replace("Documentation=man:onceflow-broker(1)\n", "");
    std::fs::write(&path, unit).unwrap();
    let judged = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&path)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&judged.stderr);
    let about = words
        .lines()
        .filter(|line| line.contains("onceflow.service"));
    let about: Vec<&str> = about.collect();
    assert!(judged.status.success() && about.is_empty(), "{words}");
}

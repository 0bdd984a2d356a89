//! The demo and the benchmarks run to their end.

use super::{Cli, finish, onceflow};

#[test]
fn the_demo_kills_its_job_and_finds_the_output_exact() {
    let cli = Cli::new();
    let text = cli.directory.path().join("text");
    std::fs::write(&text, "to be or not to be\nthat is the question\n").unwrap();
    let mut command = onceflow(&["demo", "--kills", "1", "--size", "2"]);
    command.arg(&text).arg("--dir").arg(cli.directory.path());
    let done = finish(command, b"");
    assert_eq!(done.code, 0, "{done:?}");
    for found in [
        "duplicates                      0",
        "losses                          0",
        "exactly what a plain count",
    ] {
        assert!(done.out.contains(found), "{done:?}");
    }
    // Nothing but the text is left.
    assert_eq!(std::fs::read_dir(cli.directory.path()).unwrap().count(), 1);
}

#[test]
fn a_text_that_is_not_there_is_refused() {
    let cli = Cli::new();
    assert!(
        cli.fails("demo /nonexistent/book.txt")
            .contains("/nonexistent/book.txt")
    );
}

#[test]
fn every_benchmark_prints_its_figures_as_json() {
    let done = finish(onceflow(&["bench", "--quick", "--json"]), b"");
    assert_eq!(done.code, 0, "{done:?}");
    let mut names = Vec::new();
    for line in done.out.lines() {
        let figure: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = figure["name"].as_str().unwrap().to_owned();
        for number in ["value", "baseline", "ratio"] {
            assert!(figure[number].as_f64().is_some_and(|n| n > 0.0), "{line}");
        }
        names.push(name);
    }
    for group in [
        "word-count.",
        "log.",
        "commit.",
        "connections.",
        "latency.",
        "state.",
        "windows.",
        "joins.",
        "queries.",
        "calls.",
        "effects.",
        "nexmark.",
        "restart.",
        "savepoint.",
    ] {
        assert!(
            names.iter().any(|name| name.starts_with(group)),
            "{names:?}"
        );
    }
}

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

/// The view of a job, if one answers there.
fn look(address: &str) -> Option<serde_json::Value> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let request = format!("GET /status HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn the_demo_shows_each_of_its_processes_at_one_address() {
    let cli = Cli::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    let shown = format!("--dashboard={address}");
    // Somebody has the port.
    let said = cli.fails(&format!("demo {shown}"));
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
    drop(free);
    let text = cli.directory.path().join("text");
    std::fs::write(&text, "to be or not to be\nthat is the question\n").unwrap();
    let mut command = onceflow(&["demo", "--kills", "3", "--size", "16", &shown]);
    command.arg(&text).arg("--dir").arg(cli.directory.path());
    let running = std::thread::spawn(move || finish(command, b""));
    let mut begins = std::collections::BTreeSet::new();
    while !running.is_finished() {
        if let Some(view) = look(&address) {
            assert_eq!(view["job"], "word-count");
            begins.extend(view["lives"][0]["began"].as_i64());
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let done = running.join().unwrap();
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.err.contains(&format!("http://{address}/")), "{done:?}");
    // One may be killed before anybody looks at it.
    assert!(
        (2..=4).contains(&begins.len()),
        "{} of four processes were seen",
        begins.len()
    );
}

#[test]
fn a_dashboard_that_the_demo_cannot_keep_up_is_refused() {
    for (address, why) in [
        ("127.0.0.1:0", "name a port"),
        ("0.0.0.0:8080", "to this machine only"),
        ("nowhere", "nowhere"),
    ] {
        let said = finish(onceflow(&["demo", &format!("--dashboard={address}")]), b"");
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
    }
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
        // A phase of a restart may take no time.
        if name.starts_with("restart.kill-1.") {
            continue;
        }
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

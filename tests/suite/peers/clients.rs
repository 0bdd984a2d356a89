//! The foreign clients: how each is called, and what it can do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::peers;

/// The codecs of records, by Kafka's names.
pub(super) const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Longest time of a client's call, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A client that nobody here wrote, in a small program of ours (`tests/peers/README.md`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) name: &'static str,
    /// The phases that it writes before `end`.
    pub(super) phases: &'static str,
    /// Whether its transactions carry offsets.
    pub(super) sends_offsets: bool,
    /// Starts its program.
    program: fn() -> Command,
}

/// All of them.
pub(super) const CLIENTS: [Client; 8] = [
    Client {
        name: "java",
        phases: "pcad",
        sends_offsets: true,
        program: java,
    },
    Client {
        name: "rdkafka",
        phases: "pcad",
        sends_offsets: true,
        program: || Command::new(peers::cache().join("rust/debug/rdkafka_peer")),
    },
    Client {
        name: "krafka",
        phases: "pcad",
        sends_offsets: true,
        program: || Command::new(peers::cache().join("rust/debug/krafka_peer")),
    },
    Client {
        name: "kafka-python",
        phases: "pcad",
        sends_offsets: true,
        program: || python("kafka_python_peer.py"),
    },
    Client {
        name: "aiokafka",
        phases: "pcad",
        sends_offsets: true,
        program: || python("aiokafka_peer.py"),
    },
    Client {
        name: "kafkajs",
        phases: "pcad",
        sends_offsets: true,
        program: kafkajs,
    },
    Client {
        name: "kcat",
        phases: "pcd",
        sends_offsets: false,
        program: || script("kcat/peer"),
    },
    CONSOLE,
];

/// Kafka's console tools: a virtual machine a topic, so they read fewer.
pub(super) const CONSOLE: Client = Client {
    name: "console",
    phases: "p",
    sends_offsets: false,
    program: console,
};

pub(super) fn java() -> Command {
    let classes = [
        peers::cache().join("kafka/libs/*"),
        peers::cache().join("java"),
    ];
    let mut java = peers::java();
    java.arg("-cp")
        .arg(std::env::join_paths(classes).unwrap())
        .arg("Peer");
    java
}

fn python(program: &str) -> Command {
    let mut python = Command::new(peers::cache().join("python/bin/python"));
    python
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(sources().join("python").join(program));
    python
}

fn kafkajs() -> Command {
    let mut node = Command::new("node");
    node.env("KAFKAJS_NO_PARTITIONER_WARNING", "1")
        .arg(peers::cache().join("kafkajs/peer.js"));
    node
}

fn console() -> Command {
    let mut console = script("console/peer");
    console.env("LIBS", peers::cache().join("kafka/libs"));
    console
}

fn script(name: &str) -> Command {
    Command::new(sources().join(name))
}

fn sources() -> std::path::PathBuf {
    peers::root().join("tests/peers")
}

/// A record as a client prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) offset: i64,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) header: Option<String>,
}

impl Client {
    /// Lets it write its phases to `<prefix>-<codec>` for every codec.
    pub(super) fn write(&self, bootstrap: &str, prefix: &str, count: usize) -> Result<(), String> {
        let mut command = (self.program)();
        command
            .args(["write", "--bootstrap", bootstrap, "--prefix", prefix])
            .args(["--codecs", &CODECS.join(","), "--count", &count.to_string()]);
        run(&mut command, PATIENCE).map(drop)
    }

    /// Reads these topics, by topic.
    pub(super) fn read(
        &self,
        bootstrap: &str,
        topics: &[String],
        more: &[(&str, &str)],
    ) -> Result<BTreeMap<String, Vec<Seen>>, String> {
        let mut command = (self.program)();
        command
            .args(["read", "--bootstrap", bootstrap])
            .args(["--topics", &topics.join(",")]);
        for (name, value) in more {
            command.arg(format!("--{name}")).arg(value);
        }
        parse(&run(&mut command, PATIENCE)?)
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, Vec<Seen>>, String> {
    let mut seen: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
    for line in text.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
        let field = |name: &str| line[name].as_str().map(str::to_owned);
        let record = Seen {
            offset: line["offset"].as_i64().unwrap_or(-1),
            key: field("key"),
            value: field("value"),
            header: field("header"),
        };
        let topic = field("topic").ok_or_else(|| format!("no topic: {line}"))?;
        seen.entry(topic).or_default().push(record);
    }
    Ok(seen)
}

/// Runs a command to its end within `patience`; gives its standard output, or what went wrong.
pub(super) fn run(command: &mut Command, patience: Duration) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let [out, err] = ["out", "err"].map(|name| directory.path().join(name));
    let file = |path: &Path| std::fs::File::create(path).unwrap();
    let spawned = command
        .stdin(Stdio::null())
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn();
    let mut child = spawned.map_err(|error| format!("{command:?}: {error}"))?;
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    match status {
        Some(status) if status.success() => Ok(text(&out)),
        Some(status) => Err(format!(
            "{status}\n{}\n{}",
            failures_of(&text(&out)),
            end_of(&text(&err))
        )),
        None => Err(format!(
            "it did not end within {patience:?}; its output ended with\n{}\n{}",
            end_of(&text(&out)),
            end_of(&text(&err))
        )),
    }
}

/// The lines of a test runner's output that say what failed, and the last ones.
fn failures_of(text: &str) -> String {
    let is_failure = |line: &&str| {
        let words = ["FAILED", "panicked", "Error", "assert", "ERROR"];
        words.iter().any(|word| line.contains(word))
    };
    let failures: Vec<&str> = text.lines().filter(is_failure).take(100).collect();
    format!("{}\n{}", failures.join("\n"), end_of(text))
}

/// The last lines of a text.
fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

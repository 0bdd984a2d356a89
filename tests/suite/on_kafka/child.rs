//! The child: runs the jobs of one `Work` until it is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use serde::{Deserialize, Serialize};

use super::work::Work;

/// Tells the child that it is one, and what to do.
const VARIABLE: &str = "ONCEFLOW_KAFKA_CHILD";

/// Plan of a child.
#[derive(Debug, Serialize, Deserialize)]
struct Plan {
    brokers: String,
    state: std::path::PathBuf,
    work: Work,
    instance: Option<String>,
}

/// The jobs, in a process of their own.
#[test]
#[ignore = "other tests start it, in a process that they kill"]
fn works_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let plan: Plan = serde_json::from_str(&plan).expect("the parent writes a plan");
    // Its input ends with its parent.
    std::thread::spawn(|| {
        drop(std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        std::process::exit(4);
    });
    // Shorter than what brokers are away for in these tests: the job must live through the end of its patience.
    let settings = KafkaSettings::new(&plan.brokers)
        .and_then(|settings| settings.with("state.dir", &plan.state.display().to_string()))
        .and_then(|settings| settings.with("request.timeout.ms", "4000"))
        .and_then(|settings| settings.with("default.api.timeout.ms", "15000"))
        .expect("the settings are good");
    let log = Log::kafka_with(settings).expect("Kafka answers");
    println!("\n@up");
    let jobs = plan.work.launches(plan.instance.as_deref());
    let waiting = jobs.into_iter().map(|job| {
        let running = job.start(&log).expect("the job is sound");
        std::thread::spawn(|| {
            println!("\n@ended {:?}", wait(running.finished()));
            std::process::exit(3);
        })
    });
    for thread in waiting.collect::<Vec<_>>() {
        drop(thread.join());
    }
}

/// A child, killed when it is dropped.
pub(super) struct Life(Child);

impl Life {
    pub(super) fn begin(brokers: &str, state: &Path, work: Work, instance: Option<&str>) -> Self {
        let plan = Plan {
            brokers: brokers.to_owned(),
            state: state.to_owned(),
            work,
            instance: instance.map(str::to_owned),
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "on_kafka::child::works_until_it_is_killed"])
            .args(["--ignored", "--nocapture"])
            .env(VARIABLE, serde_json::to_string(&plan).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut lines = out.lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line == "@up"),
            "the child did not start: {work:?}"
        );
        std::thread::spawn(move || {
            for line in lines.filter(|line| line.starts_with('@')) {
                eprintln!("{work:?}: {line}");
            }
        });
        Self(child)
    }

    /// Whether it ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Life {
    /// SIGKILL, as from outside.
    fn drop(&mut self) {
        // One that ended by itself is not there to be killed.
        drop(self.0.kill());
        self.0.wait().unwrap();
    }
}

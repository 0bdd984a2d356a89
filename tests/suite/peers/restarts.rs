//! The Java producer on a broker that is killed, stopped and started again: ours, beside a real Kafka.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::clients::java;
use crate::support::broker::Server;
use crate::support::kafka::KafkaCluster;
use crate::support::peers::are_wanted;

/// A Java producer that lives while brokers come and go.
struct Live {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Live {
    /// Starts it, and lets it take its transactional id.
    fn start(bootstrap: &str, topic: &str, id: &str) -> Self {
        let mut child = java()
            .args([
                "live",
                "--bootstrap",
                bootstrap,
                "--topic",
                topic,
                "--id",
                id,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let from = BufReader::new(from);
        let mut live = Self { child, to, from };
        live.all(&["init"]);
        live
    }

    fn ask(&mut self, what: &str) -> String {
        writeln!(self.to, "{what}").unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Does all this, of which nothing may fail.
    fn all(&mut self, steps: &[&str]) {
        for step in steps {
            assert_eq!(self.ask(step), "ok", "{step} of {steps:?}");
        }
    }

    /// Aborts after an error that it may abort after.
    fn abort_after(&mut self, step: &str) {
        let error = self.ask(step);
        assert_ne!(error, "ok", "{step}");
        assert!(!error.contains("Fenced"), "{step}: {error}");
        println!("{step}: {error}");
        self.all(&["abort"]);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One producer in the middle of a transaction, and one without, while `restart` ends the broker and starts it again.
fn goes_on(bootstrap: &str, topic: &str, mut restart: impl FnMut()) {
    let mut open = Live::start(bootstrap, topic, "open");
    let mut idle = Live::start(bootstrap, topic, "idle");
    let mut idle_by_offsets = Live::start(bootstrap, topic, "idle-offsets");
    idle.all(&["begin", "send first", "offsets 1", "commit"]);
    open.all(&["begin", "send a", "offsets 1"]);
    restart();
    open.all(&["send b", "offsets 2", "commit"]);
    open.all(&["begin", "send c", "commit"]);
    idle.all(&["begin", "send second", "offsets 2", "commit"]);
    idle_by_offsets.all(&["begin", "offsets 3", "send third", "commit"]);
}

#[test]
fn x15_java_producers_go_on_over_kills_and_stops_of_our_broker_as_of_kafkas() {
    if !are_wanted(&["kafka", "java"]) {
        return;
    }
    for is_killed in [true, false] {
        let mut server = Server::start();
        let address = server.address();
        goes_on(&address, "t", || {
            match is_killed {
                true => server.kill(),
                false => server.terminate(),
            }
            server.restart();
        });
    }
    let mut kafka = KafkaCluster::start(1);
    kafka.create_topic("t", 1);
    let bootstrap = kafka.bootstrap();
    goes_on(&bootstrap, "t", || {
        kafka.kill_all();
        kafka.restart_all();
    });
}

#[test]
fn x15_after_a_power_loss_java_producers_abort_and_go_on() {
    if !are_wanted(&["kafka", "java"]) {
        return;
    }
    let mut server = Server::start();
    let address = server.address();
    // Their first steps after the power loss: each may fail in another way.
    let steps = ["send b", "offsets 2", "commit"];
    let start = |id: &str| Live::start(&address, "t", id);
    let mut open = steps.map(|step| start(&format!("open-{}", &step[..1])));
    let mut idle = steps.map(|step| start(&format!("idle-{}", &step[..1])));
    for producer in &mut open {
        producer.all(&["begin", "send a", "offsets 1"]);
    }
    server.kill();
    server.forget_page_cache();
    server.restart();
    for (step, producer) in steps.iter().zip(&mut open) {
        producer.abort_after(step);
        producer.all(&["begin", "send c", "offsets 3", "commit"]);
    }
    for (step, producer) in steps.iter().zip(&mut idle) {
        producer.all(&["begin"]);
        match *step {
            // An empty transaction is none.
            "commit" => producer.all(&["commit", "begin"]),
            step => {
                producer.abort_after(step);
                producer.all(&["begin", "send c", "commit", "begin"]);
            }
        }
    }
}

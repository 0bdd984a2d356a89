//! Every writer × every reader × every codec × commit and abort: all read the same records at the same offsets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;

use super::clients::{CLIENTS, CODECS, CONSOLE, Client, Seen};
use crate::support::kafka::KafkaCluster;
use crate::support::peers;

/// Records a phase.
const COUNT: usize = 20;

/// Both isolations, by Kafka's names.
const ISOLATIONS: [&str; 2] = ["read_committed", "read_uncommitted"];

/// The groups of `scripts/peers` that a run of the matrix needs.
const GROUPS: [&str; 6] = ["kafka", "kcat", "java", "python", "kafkajs", "rust"];

/// Complaints of all pairs: one failure shows the whole picture.
#[derive(Default)]
struct Complaints(Mutex<Vec<String>>);

impl Complaints {
    fn add(&self, complaint: String) {
        self.0.lock().unwrap().push(complaint);
    }

    fn settle(self, what: &str) {
        let complaints = self.0.into_inner().unwrap();
        let mut text = String::new();
        for complaint in &complaints {
            let _ = writeln!(text, "- {complaint}");
        }
        assert!(
            complaints.is_empty(),
            "{what}: {} complaints\n{text}",
            complaints.len()
        );
    }
}

/// The topic that a writer filled with a codec.
fn topic(writer: &Client, codec: &str) -> String {
    format!("{}-{codec}", writer.name)
}

fn topics(writers: &[Client]) -> Vec<String> {
    let of = |writer: &Client| CODECS.map(|codec| topic(writer, codec));
    writers.iter().flat_map(of).collect()
}

/// Lists what to read in a topic of this writer: the offsets count markers and aborted records.
fn expected(writer: &Client, isolation: &str) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut next = 0;
    for phase in writer.phases.chars() {
        let is_visible = phase != 'a' || isolation == "read_uncommitted";
        for index in 0..COUNT {
            if is_visible {
                seen.push(Seen {
                    offset: next,
                    key: Some(format!("k{index}")),
                    value: Some(format!("{phase}-{index}")),
                    header: Some(phase.to_string()),
                });
            }
            next += 1;
        }
        // The marker of a transaction takes an offset.
        next += i64::from(phase != 'p');
    }
    seen.push(Seen {
        offset: next,
        key: None,
        value: Some("end".to_owned()),
        header: None,
    });
    seen
}

/// Kafka acknowledges a commit before it writes the markers, so `end` may come to stand before the last one.
fn is_before_the_marker(seen: &Seen, expected: &Seen) -> bool {
    let earlier = Seen {
        offset: expected.offset - 1,
        ..expected.clone()
    };
    expected.value.as_deref() == Some("end") && seen == &earlier
}

/// Compares what one reader saw of all topics with what it must have seen.
fn compare(
    seen: &BTreeMap<String, Vec<Seen>>,
    writers: &[Client],
    isolation: &str,
    reader: &str,
    complaints: &Complaints,
) {
    for writer in writers {
        let expected = expected(writer, isolation);
        for codec in CODECS {
            let none = Vec::new();
            let own = seen.get(&topic(writer, codec)).unwrap_or(&none);
            let is_same = |(seen, expected): (&Seen, &Seen)| {
                seen == expected || is_before_the_marker(seen, expected)
            };
            if own.len() == expected.len() && own.iter().zip(&expected).all(is_same) {
                continue;
            }
            let place = own.iter().zip(&expected).position(|pair| !is_same(pair));
            let place = place.unwrap_or(own.len().min(expected.len()));
            complaints.add(format!(
                "{} writes {codec}, {reader} reads {isolation}: {} records instead of {}; at record {place} {:?} instead of {:?}",
                writer.name,
                own.len(),
                expected.len(),
                own.get(place),
                expected.get(place)
            ));
        }
    }
}

/// All writers at once; those that failed have complained.
fn write(bootstrap: &str, complaints: &Complaints) -> Vec<Client> {
    let written = Mutex::new(Vec::new());
    in_parallel(&CLIENTS, |writer| {
        match writer.write(bootstrap, writer.name, COUNT) {
            Ok(()) => written.lock().unwrap().push(*writer),
            Err(error) => complaints.add(format!("{} writes: {error}", writer.name)),
        }
    });
    let mut written = written.into_inner().unwrap();
    written.sort_by_key(|writer| writer.name);
    written
}

/// Every reader reads the topics of every writer, at both isolations.
fn read(bootstrap: &str, writers: &[Client], complaints: &Complaints) {
    let calls: Vec<(Client, &str)> = CLIENTS
        .iter()
        .filter(|client| client.name != CONSOLE.name)
        .flat_map(|client| ISOLATIONS.map(|isolation| (*client, isolation)))
        .collect();
    in_parallel(&calls, |(reader, isolation)| {
        let seen = reader.read(bootstrap, &topics(writers), &[("isolation", isolation)]);
        match seen {
            Ok(seen) => compare(&seen, writers, isolation, reader.name, complaints),
            Err(error) => complaints.add(format!("{} reads {isolation}: {error}", reader.name)),
        }
    });
}

/// Kafka's console consumer reads every codec of one writer.
fn read_by_console(bootstrap: &str, writer: &Client, complaints: &Complaints) {
    let (isolation, writers) = ("read_committed", [*writer]);
    let count = expected(writer, isolation).len().to_string();
    let more = [("isolation", isolation), ("expected", count.as_str())];
    match CONSOLE.read(bootstrap, &topics(&writers), &more) {
        Ok(seen) => compare(&seen, &writers, isolation, CONSOLE.name, complaints),
        Err(error) => complaints.add(format!("console reads: {error}")),
    }
}

/// Clients as members of groups, by the protocol that they speak there.
fn members() -> Vec<(Client, &'static str)> {
    let others = CLIENTS.iter().filter(|client| client.name != CONSOLE.name);
    let mut members: Vec<_> = others.clone().map(|client| (*client, "classic")).collect();
    let krafka = others.filter(|client| client.name == "krafka");
    members.extend(krafka.map(|client| (*client, "consumer")));
    members
}

fn group(reader: &Client, protocol: &str) -> String {
    format!("group-of-{}-{protocol}", reader.name)
}

/// Every client reads one writer's topics as a member of a group, and commits.
fn read_in_groups(bootstrap: &str, writer: &Client, complaints: &Complaints) {
    in_parallel(&members(), |(reader, protocol)| {
        let (isolation, writers) = ("read_committed", [*writer]);
        let group = group(reader, protocol);
        let more = [
            ("isolation", isolation),
            ("group", &group),
            ("protocol", protocol),
        ];
        let name = format!("{} as a member ({protocol})", reader.name);
        match reader.read(bootstrap, &topics(&writers), &more) {
            Ok(seen) => compare(&seen, &writers, isolation, &name, complaints),
            Err(error) => complaints.add(format!("{name}: {error}")),
        }
    });
}

/// Checks committed offsets by Kafka's tool: those of transactions, and those of groups.
fn check_offsets(bootstrap: &str, writers: &[Client], read: &Client, complaints: &Complaints) {
    let mut java = peers::java();
    java.arg("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand")
        .args([
            "--bootstrap-server",
            bootstrap,
            "--describe",
            "--all-groups",
        ]);
    let text = peers::output_of(&mut java);
    let committed = |group: &str, topic: &str| {
        let rows = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows
            .into_iter()
            .find(|row| row.len() > 4 && row[0] == group && row[1] == topic);
        row.map(|row| row[3].to_owned())
    };
    let check = |group: &str, writer: &Client, expected: i64| {
        for topic in topics(&[*writer]) {
            let seen = committed(group, &topic);
            if seen != Some(expected.to_string()) {
                complaints.add(format!(
                    "{group} stands at {seen:?} of {topic} instead of {expected}"
                ));
            }
        }
    };
    for writer in writers.iter().filter(|writer| writer.sends_offsets) {
        // The third transaction's: the second was aborted.
        check(&format!("{}-offsets", writer.name), writer, 3);
    }
    let records = expected(read, "read_committed");
    let end = records.last().map_or(0, |end| end.offset + 1);
    for (reader, protocol) in members() {
        check(&group(&reader, protocol), read, end);
    }
}

/// Runs `act` for all at once: clients wait more than they work.
fn in_parallel<T: Sync>(calls: &[T], act: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for call in calls {
            scope.spawn(|| act(call));
        }
    });
}

/// The whole matrix against one server.
fn judge(bootstrap: &str, what: &str) {
    let complaints = Complaints::default();
    let writers = write(bootstrap, &complaints);
    read(bootstrap, &writers, &complaints);
    if let Some(java) = writers.iter().find(|writer| writer.name == "java") {
        read_by_console(bootstrap, java, &complaints);
        read_in_groups(bootstrap, java, &complaints);
        check_offsets(bootstrap, &writers, java, &complaints);
    }
    complaints.settle(what);
}

/// Our own broker, in a process of its own, satisfies all of them.
#[cfg(feature = "cli")]
#[test]
fn every_client_agrees_with_every_other_on_the_embedded_log() {
    if !peers::are_wanted(&GROUPS) {
        return;
    }
    let mut server = crate::support::broker::Server::start();
    judge(&server.address(), "onceflow broker");
    // The same again after a kill: what was acknowledged is there.
    server.kill();
    server.restart();
    let complaints = Complaints::default();
    read(&server.address(), &CLIENTS, &complaints);
    complaints.settle("onceflow broker after a kill");
}

/// Shows that the programs are right, and what they expect true: a real Kafka satisfies them.
#[test]
#[ignore = "judges the judges: run it when a client or its version changes"]
fn every_client_agrees_with_every_other_on_a_real_kafka() {
    if !peers::are_wanted(&GROUPS) {
        return;
    }
    let cluster = KafkaCluster::start(1);
    judge(&cluster.bootstrap(), "Apache Kafka");
}

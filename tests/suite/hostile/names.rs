//! Attacks by names and numbers.

use onceflow::internals::protocol::wire::messages::create_topics::{
    CreatableTopic, CreateTopicsRequest,
};
use onceflow::internals::protocol::wire::messages::init_producer_id::InitProducerIdRequest;

use super::{Target, batch, fetch};

fn create(target: &Target, name: &str, partitions: i32) -> i16 {
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let mut client = target.connect();
    client.request(5, &request).unwrap().topics[0].error_code
}

#[test]
fn names_that_would_be_paths() {
    let target = Target::start();
    let long = "x".repeat(250);
    let names = [
        "../../etc/passwd",
        "..",
        ".",
        "a/b",
        "/etc/passwd",
        "a\0b",
        "a\nb",
        "",
        "a b",
        "ä",
        &long,
    ];
    for name in names {
        let mut client = target.connect();
        assert_eq!(create(&target, name, 1), 17, "{name:?}");
        assert_ne!(client.create_topic(name), 0, "{name:?}");
        assert_ne!(client.produce(name, batch(&[b"x"])), 0, "{name:?}");
    }
    // Nothing was made but the honest topic and the coordinators' own.
    let made = std::fs::read_dir(target.directory.path().join("data/log")).unwrap();
    for entry in made {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "honest-0" || name.starts_with("__"), "{name}");
    }
    let outside = std::fs::read_dir(target.directory.path()).unwrap();
    assert_eq!(
        outside.count(),
        1,
        "something was made beside the data directory"
    );
    target.assert_unharmed();
}

#[test]
fn topics_of_a_billion_partitions() {
    let target = Target::start();
    for partitions in [0, -5, i32::MAX, i32::MIN, 10_000_000] {
        assert_ne!(create(&target, "wide", partitions), 0, "{partitions}");
    }
    target.assert_unharmed();
}

#[test]
fn records_for_the_coordinators() {
    let target = Target::start();
    for topic in ["__transaction_state", "__consumer_offsets"] {
        let mut client = target.connect();
        let code = client.produce(topic, batch(&[b"forged"]));
        assert!([3, 17, 29].contains(&code), "{topic}: {code}");
    }
    target.assert_unharmed();
}

#[test]
fn transactional_ids_without_sense() {
    let target = Target::start();
    let long = "x".repeat(30_000);
    for id in ["", "a\0b", "../..", "\u{1b}[2J", &long] {
        for timeout in [0, -1, i32::MAX] {
            let request = InitProducerIdRequest {
                transactional_id: Some(id.to_owned()),
                transaction_timeout_ms: timeout,
                ..InitProducerIdRequest::default()
            };
            let mut client = target.connect();
            let response = client.request(4, &request).unwrap();
            assert_ne!(response.error_code, 0, "{timeout}");
        }
    }
    target.assert_unharmed();
}

#[test]
fn offsets_and_sizes_without_sense() {
    let target = Target::start();
    for offset in [-1, i64::MIN, i64::MAX, 1 << 40] {
        for bytes in [-1, 0, i32::MIN, i32::MAX] {
            let mut request = fetch("honest", offset, bytes);
            request.min_bytes = i32::MAX;
            request.max_wait_ms = 1;
            let response = target.connect().request(12, &request).unwrap();
            let code = response.responses[0].partitions[0].error_code;
            assert_eq!(code, 1, "{offset} is out of range");
        }
    }
    let mut request = fetch("honest", 0, i32::MAX);
    request.topics[0].partitions[0].partition = i32::MAX;
    let response = target.connect().request(12, &request).unwrap();
    assert_eq!(response.responses[0].partitions[0].error_code, 3);
    target.assert_unharmed();
}

#[test]
fn names_that_forge_lines_of_the_log() {
    let target = Target::start();
    let name = "x\n2026-01-01T00:00:00Z ERROR everything is lost\u{1b}[2J";
    let mut client = target.connect();
    assert_ne!(client.produce(name, batch(&[b"x"])), 0);
    let complaints = target.complaints.lock().unwrap().join("\n");
    assert!(!complaints.contains("\nERROR") && !complaints.contains('\u{1b}'));
    target.assert_unharmed();
}

//! Clients' own integration tests, run against our broker; what is left out has its reason here.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::clients::run;
use super::server::Server;
use crate::support::kafka::KafkaCluster;
use crate::support::kafka::KafkaOptions;
use crate::support::peers;

/// How long one suite may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(400);

/// Tests that no server which is started once can pass, or that ask for what we do not have; each with its reason.
const KAFKA_PYTHON_LEFT_OUT: [(&str, &str); 2] = [
    (
        "test_ssl_integration.py",
        "they start a server of their own",
    ),
    (
        "test_sasl_integration.py",
        "they skip themselves on a server that runs already",
    ),
];

/// kafka-python's tests against `address`.
fn kafka_python(address: &str) -> Command {
    let directory = peers::cache().join("kafka-python-suite");
    let mut pytest = Command::new(peers::cache().join("python/bin/python"));
    pytest
        .args(["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"])
        .args(["--timeout=60", "--timeout-method=signal", "-rfE"])
        .arg("test/integration")
        .current_dir(&directory)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("KAFKA_VERSION", "4.2.0")
        .env("KAFKA_URI", format!("kafka://{address}"))
        // It only looks whether this directory exists.
        .env("KAFKA_ROOT", Path::new("/"));
    for (name, _) in KAFKA_PYTHON_LEFT_OUT {
        pytest.arg(format!("--ignore=test/integration/{name}"));
    }
    pytest
}

/// rdkafka's tests need more than a server's defaults nowhere; each that is left out has its reason.
const RDKAFKA_LEFT_OUT: [(&str, &str); 0] = [];

/// The crate rdkafka's tests against `address`.
fn rdkafka(address: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["test", "--locked", "--features", "zstd", "--tests"])
        .arg("--manifest-path")
        .arg(peers::cache().join("rdkafka-suite/Cargo.toml"))
        .args(["--no-fail-fast", "--", "--test-threads=4"])
        .env("CARGO_TARGET_DIR", peers::cache().join("rust"))
        .env("KAFKA_HOST", address)
        .env("KAFKA_VERSION", "4.2.0");
    for (name, _) in RDKAFKA_LEFT_OUT {
        cargo.args(["--skip", name]);
    }
    cargo
}

fn assert_passes(mut command: Command) {
    if let Err(error) = run(&mut command, PATIENCE) {
        panic!("{error}");
    }
}

#[test]
fn kafka_pythons_own_tests_pass_on_the_embedded_log() {
    if !peers::are_wanted(&["kafka-python-suite"]) {
        return;
    }
    let server = Server::start_with(&["--partitions", "4"]);
    assert_passes(kafka_python(&server.address()));
}

#[test]
fn rdkafkas_own_tests_pass_on_the_embedded_log() {
    if !peers::are_wanted(&["rdkafka-suite"]) {
        return;
    }
    let server = Server::start_with(&["--partitions", "3"]);
    assert_passes(rdkafka(&server.address()));
}

/// Shows that the suites and what is left out of them are right: a real Kafka passes.
#[test]
#[ignore = "judges the judges: run it when a client or its version changes"]
fn clients_own_tests_pass_on_a_real_kafka() {
    if !peers::are_wanted(&["kafka", "kafka-python-suite", "rdkafka-suite"]) {
        return;
    }
    let start = |partitions: &str| {
        let settings = [
            ("num.partitions", partitions),
            ("authorizer.class.name", AUTHORIZER),
        ];
        KafkaCluster::start_with(&KafkaOptions {
            brokers: 1,
            settings: settings
                .into_iter()
                .chain([("super.users", "User:ANONYMOUS")])
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        })
    };
    assert_passes(rdkafka(&start("3").bootstrap()));
    assert_passes(kafka_python(&start("4").bootstrap()));
}

const AUTHORIZER: &str = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";

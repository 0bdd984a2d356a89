//! Clients' own integration tests, run against our broker; what is left out has its reason here.
//!
//! Some of them wait by the clock: `scripts/test` runs them when nothing else runs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::clients::run;
use crate::support::broker::Server;
use crate::support::peers;

/// Longest time of one suite, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(400);

/// kafka-python's tests that are left out, each with its reason.
const KAFKA_PYTHON_LEFT_OUT: [(&str, &str); 9] = [
    ("test_ssl_integration.py", SECURED),
    ("test_sasl_integration.py", SECURED),
    ("test_admin_integration.py::test_elect_leaders", ONE_BROKER),
    (
        "test_admin_integration.py::test_alter_replica_log_dirs",
        ONE_BROKER,
    ),
    (
        "test_admin_integration.py::test_describe_metadata_quorum",
        ONE_BROKER,
    ),
    (
        "test_admin_integration.py::test_alter_partition_reassignments",
        ONE_BROKER,
    ),
    (
        "test_admin_integration.py::test_list_partition_reassignments",
        ONE_BROKER,
    ),
    (
        "test_admin_integration.py::test_list_config_resources",
        "asks for a request of Kafka 4.1 (ListConfigResources) that is not served here",
    ),
    (
        "test_consumer_integration.py::test_kafka_version_infer",
        "wants the very requests and versions of Apache Kafka 4.2",
    ),
];

/// Reason for no request.
const ONE_BROKER: &str = "there is one broker: no replica to move, no leader to elect, no quorum";

/// Where those of TLS and logins are run instead.
const SECURED: &str = "starts a server of its own: run below, where that server is ours";

/// kafka-python's test runner, with a race of the client itself out of the way (`asks_again.py`).
fn pytest() -> Command {
    let directory = peers::cache().join("kafka-python-suite");
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/python");
    let mut pytest = Command::new(peers::cache().join("python/bin/python"));
    pytest
        .args(["-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"])
        .args(["--timeout=60", "--timeout-method=signal", "-rfE"])
        .args(["-p", "asks_again"])
        .current_dir(&directory)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", plugins)
        .env("KAFKA_VERSION", "4.2.0")
        // It only looks whether this directory exists.
        .env("KAFKA_ROOT", Path::new("/"));
    pytest
}

/// kafka-python's tests of TLS and logins, which start our broker by a plugin of ours.
fn secured_kafka_python() -> Command {
    let mut pytest = pytest();
    pytest
        .args(["-p", "secured_broker"])
        .arg("test/integration/test_ssl_integration.py")
        .arg("test/integration/test_sasl_integration.py")
        .env("ONCEFLOW", env!("CARGO_BIN_EXE_onceflow"))
        .env_remove("KAFKA_URI");
    pytest
}

/// kafka-python's tests against `address`.
fn kafka_python(address: &str) -> Command {
    let mut pytest = pytest();
    pytest
        .arg("test/integration")
        .env("KAFKA_URI", format!("kafka://{address}"));
    for (name, _) in KAFKA_PYTHON_LEFT_OUT {
        pytest.arg(format!("--deselect=test/integration/{name}"));
    }
    pytest
}

/// rdkafka's tests that are left out, each with its reason.
const RDKAFKA_LEFT_OUT: [(&str, &str); 3] = [
    (
        "test_configs",
        "changes log.flush.interval.messages of the broker; what is synced when is no setting here",
    ),
    (
        "test_base_producer_timeout",
        "wants a broker that takes longer than 100 ms to create a topic; ours takes less, unless it is busy",
    ),
    (
        "test_produce_consume_message_queue_nonempty_callback",
        "counts what librdkafka itself puts into the queue (OP_BARRIER, when it starts to fetch) as a message, if that \
         comes late: on busy cores 7 of 71 runs failed so on Apache Kafka 4.2, and 7 of 67 on ours",
    ),
];

/// Some of rdkafka's tests know no other port.
const RDKAFKA_PORT: u16 = 9092;

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
    // Kafka's own tests run with the same shortest session.
    let sessions = "group.min.session.timeout.ms=1000";
    let server = Server::start_with(&["--partitions", "4", "--set", sessions]);
    assert_passes(kafka_python(&server.address()));
}

#[test]
fn kafka_pythons_tests_of_tls_and_logins_pass_on_the_embedded_log() {
    if !peers::are_wanted(&["kafka-python-suite"]) {
        return;
    }
    assert_passes(secured_kafka_python());
}

#[test]
fn rdkafkas_own_tests_pass_on_the_embedded_log() {
    if !peers::are_wanted(&["rdkafka-suite"]) {
        return;
    }
    // Kafka's default. Some of its records are of 1970: after 15 s, our own, retention takes them from under their test.
    let retention = "log.retention.check.interval.ms=300000";
    let options = ["--partitions", "3", "--set", retention];
    let server = Server::start_at(RDKAFKA_PORT, &options);
    assert_passes(rdkafka(&server.address()));
}

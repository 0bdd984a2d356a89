//! Two instances of one job: the second one takes over, and the first one stops for good (I4), also if what it asked last
//! had no clear answer.

use bytes::Bytes;
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::protocol::ErrorCode;
use onceflow::protocol::wire::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use onceflow::protocol::wire::{RequestHeader, encode_response};
use onceflow::runtime::{JobErrorKind, Running};
use onceflow::types::TopicName;

use super::proxy::{END_TXN, Fate, until};
use super::stage::{Stage, stage};

/// The folder of the state is made, with those above it.
fn log(brokers: &str, folder: &std::path::Path) -> Log {
    let state = folder.join("absent").join("too");
    let settings = KafkaSettings::new(brokers)
        .and_then(|settings| settings.with("state.dir", &state.display().to_string()))
        .unwrap();
    Log::kafka_with(settings).unwrap()
}

fn start(log: &Log, name: &str) -> Running {
    let job = Job::new(name);
    job.source(topic::<str>(&format!("{name}-lines")))
        .key_by_ref(|line: &str| line)
        .count("counts")
        .changes()
        .sink(topic(&format!("{name}-counts")));
    let commit = Commit::every(std::time::Duration::from_millis(20));
    job.exactly_once(commit).workers(1).start(log).unwrap()
}

/// Lets the second instance of job `name` take over from the first, which begins with `first_broker`. `part_them` is
/// called before the second one starts, `join_them` once it has committed.
fn take_over(
    stage: &Stage,
    name: &str,
    first_broker: &str,
    part_them: impl Fn(),
    join_them: impl Fn(),
) {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let logs = [
        log(first_broker, folders[0].path()),
        log(&stage.cluster.bootstrap(), folders[1].path()),
    ];
    let lines = TopicName::new(&format!("{name}-lines")).unwrap();
    wait(logs[1].admin().create_topic(&lines, 1)).unwrap();
    let producer: Producer<str, str> =
        Producer::new(logs[1].transport(), ProducerConfig::default()).unwrap();
    let feed = || {
        let record = ProducerRecord::new(&lines).partition(0).value("line");
        wait(async { producer.send(record).await.unwrap().await.unwrap() });
    };
    let first = start(&logs[0], name);
    until("the first one commits", || {
        feed();
        first.commits() > 0
    });
    part_them();
    let second = start(&logs[1], name);
    until("the second one commits", || {
        feed();
        second.commits() > 0
    });
    join_them();
    until("the first one stops", || first.is_finished());
    let ended = wait(first.finished()).unwrap_err();
    assert_eq!(ended.kind(), JobErrorKind::Fenced, "{ended}");
    let commits = second.commits();
    until("the second one goes on", || {
        feed();
        second.commits() > commits
    });
    wait(second.stop()).unwrap();
}

#[test]
fn c11_a_second_instance_of_a_job_stops_the_first_and_goes_on() {
    let Some(stage) = stage() else { return };
    let broker = stage.cluster.bootstrap();
    take_over(&stage, "fenced-job", &broker, || {}, || {});
}

/// Until the second instance has taken over, each end that the first one asks for meets `fate`.
fn take_over_from_one_without_answers(name: &str, fate: Fate) {
    let Some(stage) = stage() else { return };
    let proxy = &stage.proxy;
    proxy.forget();
    let part_them = || {
        let met = proxy.met();
        proxy.forge([], stumble);
        proxy.expect(END_TXN, std::iter::repeat_n(fate, 10_000));
        until("the first one asks", || proxy.met() > met);
    };
    take_over(&stage, name, &proxy.address(), part_them, || proxy.forget());
}

/// What Kafka answers to an end that comes while it makes up its mind to fence the one who asks.
fn stumble(request: &[u8]) -> Vec<u8> {
    let (_, version, id) = RequestHeader::peek(&Bytes::copy_from_slice(request)).unwrap();
    let response = EndTxnResponse {
        error_code: ErrorCode::UnknownServerError.code(),
        ..EndTxnResponse::default()
    };
    let frame = encode_response::<EndTxnRequest>(version, id, &response);
    frame.unwrap().to_bytes().to_vec()
}

#[test]
fn c11_an_instance_whose_ends_are_lost_does_not_fence_who_took_over() {
    take_over_from_one_without_answers("lost-ends", Fate::Drop);
}

#[test]
fn c11_an_instance_whose_ends_meet_an_error_of_the_broker_hears_who_took_over() {
    take_over_from_one_without_answers("stumbled-ends", Fate::Forge);
}

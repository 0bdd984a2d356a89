//! Two instances of one job: the second one takes over, and the first one stops for good (I4), also if what it asked last
//! had no clear answer.

use std::time::Duration;

use bytes::Bytes;
use onceflow::client::ErrorCode;
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::internals::protocol::messages::InitProducerIdRequest;
use onceflow::internals::protocol::wire::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use onceflow::internals::protocol::wire::{RequestHeader, encode_response};
use onceflow::prelude::*;
use onceflow::runtime::{JobErrorKind, Running};
use onceflow::types::{TopicName, TransactionalId};

use super::proxy::{END_TXN, Fate, INIT_PRODUCER_ID, until};
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
    let commit = Commit::every(Duration::from_millis(20));
    job.exactly_once(commit).workers(1).start(log).unwrap()
}

/// Lets the second instance of job `name` take over from the first, which begins with `first_broker`. `part_them` is
/// called before the second one starts, `join_them` once it has committed.
fn take_over(
    stage: &Stage,
    name: &str,
    first_broker: &str,
    part_them: impl Fn(&Running),
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
    part_them(&first);
    let second = start(&logs[1], name);
    until("the second one commits", || {
        feed();
        assert!(!second.is_finished(), "the first one has fenced it");
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
    take_over(&stage, "fenced-job", &broker, |_| {}, || {});
}

/// Until the second instance has taken over, each end that the first one asks for meets `fate`.
fn take_over_from_one_without_answers(name: &str, fate: Fate) {
    let Some(stage) = stage() else { return };
    let proxy = &stage.proxy;
    proxy.forget();
    let part_them = |_: &Running| {
        let met = proxy.met();
        proxy.forge([], stumble);
        proxy.expect(END_TXN, std::iter::repeat_n(fate, 10_000));
        until("the first one asks", || proxy.met() > met);
    };
    take_over(&stage, name, &proxy.address(), part_them, || proxy.forget());
}

/// Answers as Kafka does to an end that comes while it makes up its mind to fence the one who asks.
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

/// Who takes over aborts the first instance's transaction, and asks again for its new epoch some milliseconds later. In
/// between, the end that the first one asks for is answered as if its transaction had timed out.
#[test]
fn c11_an_instance_whose_transaction_is_aborted_by_who_takes_over_does_not_fence_it() {
    let Some(stage) = stage() else { return };
    let (proxy, name) = (&stage.proxy, "aborted-by-another");
    proxy.forget();
    let part_them = |first: &Running| {
        // Fences of the first one's would come late enough to meet the second one.
        let late = Fate::Delay(Duration::from_secs(3));
        proxy.expect(INIT_PRODUCER_ID, std::iter::repeat_n(late, 10));
        let met = proxy.met();
        proxy.expect(END_TXN, [Fate::Delay(Duration::from_millis(500))]);
        until("the first one asks", || proxy.met() > met);
        let log = log(&stage.cluster.bootstrap(), std::path::Path::new("unused"));
        let transport = log.transport();
        for number in 0..2 {
            let request = InitProducerIdRequest {
                transactional_id: Some(TransactionalId::new(&format!("{name}-{number}")).unwrap()),
                transaction_timeout: Duration::from_secs(60),
                current: None,
            };
            // The transaction that is open is aborted, and the answer is "ask again".
            drop(wait(transport.init_producer_id(request)));
        }
        until("the first one starts again, or stops", || {
            first.progress().restarts > 0 || first.is_finished()
        });
    };
    let broker = proxy.address();
    take_over(&stage, name, &broker, part_them, || proxy.forget());
}

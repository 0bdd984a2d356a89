//! X20: no call panics or stands still, whatever runtime it is called from, and the reason reaches the caller.

use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use onceflow::client::consumer::{Consumer, ConsumerConfig, OffsetReset, PartitionReader};
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::{TransactionalWriter, wait};
use onceflow::internals::protocol::messages::{CommittedOffset, GroupMember, OffsetSpec};
use onceflow::prelude::*;
use onceflow::types::{GroupId, Isolation, Offset, TopicName, TopicPartition, TransactionalId};

use super::support::{AT_THE_END, OFTEN, Place, committed_values};

/// Longest time of a call before it counts as one that stands still.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "current_thread")]
async fn on_one_thread(check: &(dyn Fn() + Sync)) {
    check();
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn on_threads(check: &(dyn Fn() + Sync)) {
    check();
}

/// Runs `check` without a runtime, and inside each kind of them: in its main task, in one that it spawned, on a thread
/// for what blocks, and in one without timers and sockets.
fn everywhere(check: impl Fn() + Send + Sync + 'static) {
    let check = Arc::new(check);
    in_time("a thread", &check, |check| check());
    in_time("one thread", &check, |check| on_one_thread(&*check));
    in_time("threads", &check, |check| on_threads(&*check));
    in_time("no timers", &check, |check| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async { check() });
    });
    in_time("a task", &check, |check| {
        in_runtime(async { tokio::spawn(async move { check() }).await.unwrap() });
    });
    in_time("a blocking thread", &check, |check| {
        let check = move || check();
        in_runtime(async { tokio::task::spawn_blocking(check).await.unwrap() });
    });
}

/// Drives a future by a runtime with one thread besides.
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn in_runtime(future: impl Future<Output = ()>) {
    future.await;
}

/// Runs `body` on a thread, which must end in time.
fn in_time<C: Fn() + Send + Sync + 'static>(name: &str, check: &Arc<C>, body: fn(Arc<C>)) {
    let check = Arc::clone(check);
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        body(check);
        done.send(()).unwrap();
    });
    match ended.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name}: a call stands still"),
        _ => thread
            .join()
            .unwrap_or_else(|_| panic!("{name}: a call panicked")),
    }
}

#[test]
fn x20_listening_on_a_busy_port_is_an_error_in_every_runtime() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    everywhere(move || {
        let place = Place::new();
        let log = place.log();
        let error = log.listen(&address).unwrap_err().to_string();
        assert!(error.contains(&address), "{error}");
        drop(log.listen("127.0.0.1:0").unwrap());
        log.close().unwrap();
    });
}

#[test]
fn x20_a_job_runs_in_every_runtime_and_in_none() {
    everywhere(|| {
        let place = Place::new();
        let log = place.log();
        let job = Job::new("copy");
        job.source(values("numbers", 0..3u64))
            .sink(topic("out").partitions(1));
        wait(job.exactly_once(Commit::every(AT_THE_END)).run(&log)).unwrap();
        assert_eq!(committed_values::<u64>(&log, "out"), [0, 1, 2]);
        log.close().unwrap();
    });
}

#[test]
fn x20_a_data_directory_without_a_parent_is_told_as_that() {
    everywhere(|| {
        let folder = tempfile::tempdir().unwrap();
        let error = Log::embedded(folder.path().join("a/b")).err().unwrap();
        assert!(error.to_string().contains("does not exist"), "{error}");
        let told = format!("{error:?}");
        assert!(!told.contains("Policy"), "{told}");
    });
}

fn in_topic() -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), 0)
}

fn of_group() -> GroupId {
    GroupId::new("group").unwrap()
}

/// Each call of the administration that waits.
async fn administrate(log: &Log) {
    let (admin, partition, group) = (log.admin(), in_topic(), of_group());
    let topic = &partition.topic;
    admin.create_topic(topic, 1).await.unwrap();
    assert!(!admin.topics().await.unwrap().is_empty());
    admin.topic(topic).await.unwrap();
    admin.create_partitions(topic, 2).await.unwrap();
    admin.set_config(topic, "retention.ms", "1").await.unwrap();
    admin.reset_config(topic, "retention.ms").await.unwrap();
    admin.describe_configs(topic).await.unwrap();
    admin.describe_partitions(topic).await.unwrap();
    admin.describe_producers(&partition).await.unwrap();
    admin.list_groups().await.unwrap();
    // Whether there is one yet, is not what this is about.
    let _ = admin.describe_group(&group).await;
    admin.committed(&group).await.unwrap();
    admin.list_transactions().await.unwrap();
    let spec = OffsetSpec::Latest;
    let listed = admin.list_offset(&partition, spec, Isolation::ReadCommitted);
    listed.await.unwrap();
}

/// A producer with and one without transactions; one is closed, the other dropped with a record under way.
async fn produce(log: &Log) {
    let config = ProducerConfig::default();
    let record = || {
        ProducerRecord::new(&in_topic().topic)
            .partition(0)
            .value("v")
    };
    let producer: Producer<str, str> = Producer::new(log.transport(), config.clone()).unwrap();
    producer.send(record()).await.unwrap().await.unwrap();
    let (told, heard) = mpsc::channel();
    let callback = move |sent: Result<_, _>| told.send(sent.is_ok()).unwrap();
    let sent = producer.send_with_callback(record(), callback).await;
    drop(sent.unwrap());
    producer.flush().await;
    assert!(heard.recv().unwrap());
    let _under_way = producer.send(record()).await.unwrap();
    drop(producer);
    let id = TransactionalId::new("id").unwrap();
    let config = config.transactional_id(id);
    let producer: Producer<str, str> = Producer::new(log.transport(), config).unwrap();
    producer.init_transactions().await.unwrap();
    producer.begin_transaction().unwrap();
    producer.send(record()).await.unwrap().await.unwrap();
    let position = CommittedOffset {
        offset: Offset(1),
        leader_epoch: -1,
        metadata: String::new(),
    };
    let positions = vec![(in_topic(), position)];
    let sent = producer.send_offsets(of_group(), GroupMember::default(), positions);
    sent.await.unwrap();
    let _ = producer.commit_transaction().await.unwrap();
    producer.begin_transaction().unwrap();
    let _ = producer.abort_transaction().await.unwrap();
    producer.close().await.unwrap();
    let id = TransactionalId::new("writer").unwrap();
    let writer = TransactionalWriter::init(log.transport(), id, Duration::from_secs(60));
    let writer = writer.await.unwrap();
    let _ = writer.commit().await.unwrap();
    let _ = writer.abort().await.unwrap();
}

/// Consumers by assignment and by subscription; one is closed, the other dropped.
async fn consume(log: &Log) {
    let config = ConsumerConfig::default()
        .group_id(of_group())
        .auto_offset_reset(OffsetReset::Earliest);
    let mut consumer: Consumer<str, str> = Consumer::new(log.transport(), config.clone());
    consumer.assign([in_topic()]);
    consumer.seek_to_end().await.unwrap();
    consumer.seek_to_beginning().await.unwrap();
    assert!(!consumer.poll(PATIENCE).await.unwrap().is_empty());
    assert!(consumer.end_offset(&in_topic()).await.unwrap() > Offset(0));
    consumer.beginning_offset(&in_topic()).await.unwrap();
    consumer.lag(&in_topic()).await.unwrap();
    consumer.commit().await.unwrap();
    consumer.committed(vec![in_topic()]).await.unwrap();
    consumer.close().await.unwrap();
    let mut consumer: Consumer<str, str> = Consumer::new(log.transport(), config.clone());
    consumer.subscribe([in_topic().topic]).unwrap();
    consumer.poll(Duration::from_millis(1)).await.unwrap();
    consumer.unsubscribe().await.unwrap();
    consumer.subscribe([in_topic().topic]).unwrap();
    consumer.poll(Duration::from_millis(1)).await.unwrap();
    drop(consumer);
    let isolation = Isolation::ReadUncommitted;
    let mut reader = PartitionReader::new(log.transport(), in_topic(), Offset(0), isolation);
    reader.fetch(PATIENCE).await.unwrap();
    reader.fetch_now().unwrap();
}

/// A job that is watched, one that is stopped, and one whose handle is dropped.
async fn run_jobs(log: &Log, name: &str) {
    let launch = |kind: &str| {
        let job = Job::new(&format!("{name}-{kind}"));
        let _ = job.describe().json();
        job.source(topic::<str>("t").until_end())
            .sink(topic(&format!("{name}-{kind}-out")).partitions(1));
        assert!(!job.topics().unwrap().is_empty());
        job.exactly_once(Commit::every(OFTEN))
    };
    let running = launch("watched").start(log).unwrap();
    let _ = (running.progress(), running.commits(), running.positions());
    let _ = (running.share(), running.is_finished());
    running.lag().await.unwrap();
    running.caught_up().await.unwrap();
    running.finished().await.unwrap();
    let running = launch("stopped").start(log).unwrap();
    running.stopper().stop();
    running.stop().await.unwrap();
    launch("run").run(log).await.unwrap();
    drop(launch("never-run").run(log));
    let running = launch("dropped").start(log).unwrap();
    let stopper = running.stopper();
    drop(running);
    stopper.stop();
}

/// Everything on an embedded log, and on the same over TCP as a Kafka cluster.
async fn call_everything() {
    let place = Place::new();
    let log = place.log();
    administrate(&log).await;
    produce(&log).await;
    consume(&log).await;
    run_jobs(&log, "embedded").await;
    let broker = log.broker().unwrap();
    broker.housekeep();
    broker.topics().unwrap();
    let server = log.listen("127.0.0.1:0").unwrap();
    let security = server.security();
    security.refresh().unwrap();
    assert!(security.users().is_empty());
    let address = server.address().to_string();
    drop(Log::kafka(&address).unwrap());
    let state = place.path("state").display().to_string();
    let settings = KafkaSettings::new(&address)
        .unwrap()
        .with("state.dir", &state);
    let remote = Log::kafka_with(settings.unwrap()).unwrap();
    remote
        .admin()
        .delete_topic(&in_topic().topic)
        .await
        .unwrap();
    administrate(&remote).await;
    produce(&remote).await;
    consume(&remote).await;
    run_jobs(&remote, "remote").await;
    remote.close().unwrap();
    drop(remote);
    server.stop().await;
    let lost = Log::kafka("127.0.0.1:1").err().unwrap().to_string();
    assert!(lost.contains("127.0.0.1:1"), "{lost}");
    Log::embedded(place.path("data")).err().unwrap();
    log.close().unwrap();
}

#[test]
fn x20_every_public_call_that_waits_may_be_made_in_every_runtime_and_in_none() {
    everywhere(|| wait(call_everything()));
}

#[test]
fn x20_every_public_call_that_waits_may_be_awaited_in_every_runtime() {
    in_time("one thread", &Arc::new(|| ()), |_| awaited_on_one_thread());
    in_time("threads", &Arc::new(|| ()), |_| {
        in_runtime(call_everything())
    });
    in_time("a task", &Arc::new(|| ()), |_| {
        in_runtime(async { tokio::spawn(call_everything()).await.unwrap() });
    });
}

#[tokio::main(flavor = "current_thread")]
async fn awaited_on_one_thread() {
    call_everything().await;
}

#[cfg(feature = "cli")]
#[test]
fn x20_the_command_line_runs_in_every_runtime_and_in_none() {
    everywhere(|| {
        let place = Place::new();
        place.log().close().unwrap();
        let data = place.path("data");
        let words = ["onceflow", "topic", "create", "t", "--data"];
        let words = words.map(Into::into).into_iter();
        let code = onceflow::cli::run(words.chain([data.into_os_string()]));
        assert_eq!(
            format!("{code:?}"),
            format!("{:?}", std::process::ExitCode::SUCCESS)
        );
    });
}

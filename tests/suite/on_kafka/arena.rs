//! `Arena`: a cluster behind proxies, jobs in processes of their own, somebody who feeds them and somebody who reads
//! what comes out all the time, while a test kills what it likes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use onceflow::client::OffsetSpec;
use onceflow::client::producer::{Producer, ProducerConfig, ProducerRecord};
use onceflow::client::transport::KafkaSettings;
use onceflow::client::wait;
use onceflow::prelude::*;
use onceflow::types::{Isolation, Offset, TopicName, TopicPartition};

use super::child::Life;
use super::proxy::Proxy;
use super::work::{PARTITIONS, Reader, Work};
use crate::support::kafka::{KafkaCluster, KafkaOptions};

/// Longest wait for progress on a busy machine, with brokers and jobs that start meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);
/// Most records on their way through a job; then nothing is fed until some have come out.
const UNDER_WAY_MAX: u64 = 400;
/// Lines that are fed at once: few, and now and then many.
const LINES_AT_ONCE: [u64; 8] = [10, 10, 10, 10, 10, 10, 10, 300];

/// A cluster, and what works on it.
pub(super) struct Arena {
    pub(super) cluster: KafkaCluster,
    pub(super) proxies: Vec<Proxy>,
    folder: tempfile::TempDir,
    /// Straight to the brokers, past the proxies.
    log: Log,
    pub(super) jobs: Vec<UnderTest>,
    pub(super) job_kills: u32,
    pub(super) broker_kills: u32,
}

/// A job's processes, by instance (one without a name, if it is not spread), and what its feeder and reader share with the test.
pub(super) struct UnderTest {
    pub(super) work: Work,
    lives: BTreeMap<Option<&'static str>, Life>,
    flow: Arc<Flow>,
    feeder: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<Reader>>,
}

#[derive(Default)]
struct Flow {
    lines_fed: AtomicU64,
    records_seen: AtomicU64,
    is_fed_enough: AtomicBool,
    is_read_enough: AtomicBool,
}

impl Arena {
    pub(super) fn new(brokers: usize) -> Self {
        let proxies: Vec<Proxy> = (0..brokers).map(|_| Proxy::listen()).collect();
        let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let cluster = KafkaCluster::start_with(&KafkaOptions {
            brokers,
            settings: vec![
                setting(
                    "transaction.abort.timed.out.transaction.cleanup.interval.ms",
                    "200",
                ),
                setting("group.min.session.timeout.ms", "1000"),
                setting("broker.session.timeout.ms", "3000"),
            ],
            proxies: proxies.iter().map(Proxy::port).collect(),
            ..KafkaOptions::default()
        });
        for (proxy, id) in proxies.iter().zip(1..) {
            proxy.lead_to(cluster.behind_proxy(id));
        }
        // Short, so that a reader is not deaf for long; what is written is tried much longer.
        let settings = KafkaSettings::new(&cluster.bootstrap())
            .and_then(|settings| settings.with("request.timeout.ms", "4000"))
            .and_then(|settings| settings.with("default.api.timeout.ms", "5000"))
            .unwrap();
        Self {
            log: Log::kafka_with(settings).unwrap(),
            cluster,
            proxies,
            folder: tempfile::tempdir().unwrap(),
            jobs: Vec::new(),
            job_kills: 0,
            broker_kills: 0,
        }
    }

    /// Feeds and reads the works from now on; nobody does them yet.
    pub(super) fn open(&mut self, works: impl IntoIterator<Item = Work>) {
        for work in works {
            work.create_topics(&self.log);
            let flow = Arc::<Flow>::default();
            let feeder = std::thread::spawn({
                let (log, flow) = (self.log.clone(), Arc::clone(&flow));
                move || feed(&log, work, &flow)
            });
            let reader = std::thread::spawn({
                let (log, flow) = (self.log.clone(), Arc::clone(&flow));
                move || read(&log, work, &flow)
            });
            self.jobs.push(UnderTest {
                work,
                lives: BTreeMap::new(),
                flow,
                feeder: Some(feeder),
                reader: Some(reader),
            });
        }
    }

    /// Lets these instances of each job run, and no others: those that are not named are killed.
    pub(super) fn let_live(&mut self, instances: &[Option<&'static str>]) {
        let addresses: Vec<String> = self.proxies.iter().map(Proxy::address).collect();
        let addresses = addresses.join(",");
        for job in &mut self.jobs {
            let before = job.lives.len();
            job.lives.retain(|name, _| instances.contains(name));
            self.job_kills += u32::try_from(before - job.lives.len()).unwrap();
            for name in instances {
                let (place, work) = (self.folder.path(), job.work);
                let begin = || Life::begin(&addresses, place, work, *name);
                job.lives.entry(*name).or_insert_with(begin);
            }
        }
    }

    /// Kills the processes of all jobs.
    pub(super) fn kill_jobs(&mut self) {
        self.let_live(&[]);
    }

    /// Starts again those processes that ended by themselves, as a supervisor would.
    pub(super) fn revive(&mut self) {
        let mut instances = Vec::new();
        for job in &mut self.jobs {
            instances.extend(job.lives.keys().copied());
            job.lives.retain(|_, life| !life.has_ended());
        }
        instances.sort_unstable();
        instances.dedup();
        self.let_live(&instances);
    }

    /// Waits until each job has brought out so many more records.
    pub(super) fn wait_for_records(&mut self, count: u64) {
        let seen = |job: &UnderTest| job.flow.records_seen.load(Ordering::Acquire);
        let goals: Vec<u64> = self.jobs.iter().map(|job| seen(job) + count).collect();
        let deadline = Instant::now() + PATIENCE;
        while self
            .jobs
            .iter()
            .zip(&goals)
            .any(|(job, goal)| seen(job) < *goal)
        {
            let now: Vec<u64> = self.jobs.iter().map(seen).collect();
            assert!(Instant::now() < deadline, "{now:?} records, not {goals:?}");
            self.check();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Nothing has ended that should go on.
    pub(super) fn check(&mut self) {
        for job in &mut self.jobs {
            let work = job.work;
            for (name, life) in &mut job.lives {
                assert!(!life.has_ended(), "{work:?} {name:?} ended by itself");
            }
            let is_over = |thread: Option<bool>| thread.unwrap_or(true);
            let feeder = job.feeder.as_ref().map(JoinHandle::is_finished);
            assert!(!is_over(feeder), "{work:?}: its feeder failed");
            let reader = job.reader.as_ref().map(JoinHandle::is_finished);
            assert!(!is_over(reader), "{work:?}: its reader found a fault");
        }
    }

    /// Waits until a transaction is open in the first partition of this topic.
    pub(super) fn wait_for_open_transaction(&self, topic: &str) {
        self.wait_until("a transaction is open", || self.is_open(topic, 0));
    }

    /// Waits until no transaction is open in any output: nobody's last one hangs.
    pub(super) fn wait_for_closed_transactions(&self) {
        for topic in self.jobs.iter().map(|job| job.work.output()) {
            let partitions = wait(self.log.admin().topic(&TopicName::new(&topic).unwrap()));
            let count = partitions.unwrap().partitions_count;
            self.wait_until("no transaction is open", || {
                !(0..count).any(|partition| self.is_open(&topic, partition))
            });
        }
    }

    fn is_open(&self, topic: &str, partition: i32) -> bool {
        let place = TopicPartition::new(TopicName::new(topic).unwrap(), partition);
        let end = |isolation| -> Option<Offset> {
            let admin = self.log.admin();
            let end = wait(admin.list_offset(&place, OffsetSpec::Latest, isolation));
            Some(end.ok()??.offset)
        };
        let committed = end(Isolation::ReadCommitted);
        committed.is_some() && committed < end(Isolation::ReadUncommitted)
    }

    pub(super) fn wait_until(&self, what: &str, is_true: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_true() {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills a broker; it stays away.
    pub(super) fn kill_broker(&mut self, id: usize) {
        self.cluster.kill(id);
        self.broker_kills += 1;
    }

    /// Waits until everything that was fed came out, compares it with the model, as our reader and as Kafka's own
    /// console consumer sees it, and kills what still lives.
    pub(super) fn close(&mut self) {
        for job in &mut self.jobs {
            job.flow.is_fed_enough.store(true, Ordering::Release);
            job.feeder.take().unwrap().join().expect("the feeder");
        }
        let deadline = Instant::now() + PATIENCE;
        for job in &mut self.jobs {
            let lines = job.flow.lines_fed.load(Ordering::Acquire);
            let all = lines * job.work.records_per_line();
            while job.flow.records_seen.load(Ordering::Acquire) < all {
                let is_reading = job.reader.as_ref().is_some_and(|it| !it.is_finished());
                assert!(is_reading, "{:?}: its reader found a fault", job.work);
                assert!(
                    Instant::now() < deadline,
                    "{:?}: not all came out",
                    job.work
                );
                std::thread::sleep(Duration::from_millis(5));
            }
            job.flow.is_read_enough.store(true, Ordering::Release);
            let reader = job.reader.take().unwrap().join().expect("the reader");
            reader.assert_after(lines);
        }
        self.kill_jobs();
        self.wait_for_closed_transactions();
        for job in std::mem::take(&mut self.jobs) {
            let seen = read_by_console(&self.cluster, &job.work.output());
            let lines = job.flow.lines_fed.load(Ordering::Acquire);
            job.work.assert_output(&seen, lines);
            eprintln!("{:?}: {lines} lines", job.work);
        }
    }
}

/// Feeds lines, never far ahead of what has come out.
fn feed(log: &Log, work: Work, flow: &Flow) {
    // Longer than any outage here: a line whose fate is unknown would leave the model in doubt.
    let config = ProducerConfig::default().delivery_timeout(Duration::from_secs(600));
    let producer: Producer<str, str> = Producer::new(log.transport(), config).unwrap();
    let topic = TopicName::new(&work.input()).unwrap();
    let mut sizes = LINES_AT_ONCE.into_iter().cycle();
    let mut next = 0;
    while !flow.is_fed_enough.load(Ordering::Acquire) {
        let out = flow.records_seen.load(Ordering::Acquire);
        if next * work.records_per_line() > out + UNDER_WAY_MAX {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        }
        let end = next + sizes.next().unwrap();
        let mut sent = Vec::new();
        for number in next..end {
            let line = work.line(number);
            let partition = i32::try_from(number % 3).unwrap() % PARTITIONS;
            let record = ProducerRecord::new(&topic)
                .partition(partition)
                .value(&*line);
            sent.push(wait(producer.send(record)).unwrap());
        }
        for delivery in sent {
            wait(delivery).unwrap();
        }
        next = end;
        flow.lines_fed.store(next, Ordering::Release);
    }
}

/// Reads until it is told that this is enough.
fn read(log: &Log, work: Work, flow: &Flow) -> Reader {
    let mut reader = work.reader(log);
    while !flow.is_read_enough.load(Ordering::Acquire) {
        reader.read();
        flow.records_seen
            .store(reader.records_seen(), Ordering::Release);
    }
    reader
}

/// Reads committed records by Kafka's own console consumer: the values of each key, in order.
fn read_by_console(cluster: &KafkaCluster, topic: &str) -> BTreeMap<String, Vec<String>> {
    let output = cluster.tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--topic",
            topic,
            "--from-beginning",
            "--isolation-level",
            "read_committed",
            "--timeout-ms",
            "15000",
            "--formatter-property",
            "print.key=true",
        ],
    );
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in output.lines().filter_map(|line| line.split_once('\t')) {
        seen.entry(key.to_owned())
            .or_default()
            .push(value.to_owned());
    }
    seen
}

//! The child: opens the data directory, says what a reader finds there, and runs the job until it is killed.
//!
//! It speaks lines that begin with `@` on standard output; a kill may cut the last one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use onceflow::broker::BrokerConfig;
use onceflow::client::consumer::PartitionReader;
use onceflow::client::{Admin, Producer, ProducerConfig, ProducerRecord, Transport, wait};
use onceflow::codec::{Bincode, Codec};
use onceflow::internals::protocol::messages::{OffsetSpec, TransactionState};
use onceflow::prelude::*;
use onceflow::runtime::{Key, Launch, Running, Stopper};
use onceflow::types::{Durability, GroupId, Isolation, Offset, TopicName, TopicPartition};

use super::ledger::Ledger;
use super::plan::{
    CHAINED_JOB, FILES_FOLDER, FILES_JOB, JOB, LEDGER_FOLDER, LINES_PARTITIONS, OUTPUT_PARTITIONS,
    Plan, STATE_PARTITIONS, VARIABLE, line,
};

/// Whether the job has ended well, and the log is about to be closed.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Wait of a reader for news.
const READER_WAIT: Duration = Duration::from_millis(20);

/// The child's entry: the harness runs this test in a process of its own.
#[test]
#[ignore = "the harness of this module starts it, in a process that it kills"]
fn lives_until_it_is_killed() {
    let Ok(plan) = std::env::var(VARIABLE) else {
        return;
    };
    let plan: Plan = serde_json::from_str(&plan).expect("the harness writes a plan");
    // The test runner's own line may be unfinished.
    say("\n@up\n");
    if let Err(error) = live(&plan) {
        say(&format!("@failed {error:#}\n").replace("\n@", " "));
        std::process::exit(3);
    }
    say("@finished\n");
    std::process::exit(0);
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // A parent that is gone needs no answer.
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn live(plan: &Plan) -> anyhow::Result<()> {
    let log = Log::embedded_with(&plan.data, broker_config(plan))?;
    say("@opened\n");
    let admin = log.admin();
    ensure_topic(&admin, "lines", LINES_PARTITIONS)?;
    ensure_topic(&admin, "updates", OUTPUT_PARTITIONS)?;
    ensure_topic(&admin, "letters", OUTPUT_PARTITIONS)?;
    let ends = snapshot(&log, plan)?;
    say("@checked\n");
    for reader in 0..2 {
        let (transport, ends) = (log.transport(), ends.clone());
        std::thread::spawn(move || read_on(&transport, &ends, reader));
    }
    if !plan.is_last {
        let (transport, plan) = (log.transport(), plan.clone());
        std::thread::spawn(move || or_fail(feed(&transport, &plan)));
    }
    if plan.has_scratch_topic {
        let admin = log.admin();
        std::thread::spawn(move || or_fail(scratch(&admin)));
    }
    run(&log, plan)?;
    IS_ENDING.store(true, Ordering::Release);
    log.close()?;
    Ok(())
}

fn or_fail(result: anyhow::Result<()>) {
    // A helper that meets the closed log of a good end has nothing to tell.
    if let Err(error) = result
        && !IS_ENDING.load(Ordering::Acquire)
    {
        say(&format!("@failed {error:#}\n"));
        std::process::exit(3);
    }
}

fn broker_config(plan: &Plan) -> BrokerConfig {
    let defaults = [("segment.bytes".to_owned(), plan.segment_bytes.to_string())];
    let durability = match plan.is_fsync {
        true => Durability::Fsync,
        false => Durability::Process,
    };
    BrokerConfig {
        durability,
        housekeeping_interval: Duration::from_millis(plan.housekeeping_ms),
        topic_defaults: defaults.into(),
        ..BrokerConfig::default()
    }
}

fn ensure_topic(admin: &Admin, name: &str, partitions: i32) -> anyhow::Result<()> {
    let name = TopicName::new(name)?;
    if !wait(admin.topics())?.iter().any(|topic| topic.name == name) {
        wait(admin.create_topic(&name, partitions))?;
    }
    Ok(())
}

/// Creates and deletes a topic; the one that an earlier life left is deleted first.
fn scratch(admin: &Admin) -> anyhow::Result<()> {
    let name = TopicName::new("scratch")?;
    if wait(admin.topics())?.iter().any(|topic| topic.name == name) {
        wait(admin.delete_topic(&name))?;
    }
    wait(admin.create_topic(&name, 2))?;
    wait(admin.delete_topic(&name))?;
    Ok(())
}

/// Second stage: from a word to its first letter.
struct Initial;

impl Operator<str, u64> for Initial {
    type OutKey = str;
    type Out = u64;

    fn process(&mut self, record: Record<'_, str, u64>, out: &mut impl Output<str, u64>) -> Flow {
        let word = record.key.decode()?;
        out.push(record.with_key(Key::new(&word.as_bytes()[..1])))
    }
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

fn word_count(plan: &Plan, panic_at: Option<u64>) -> anyhow::Result<Launch> {
    let job = Job::new(JOB);
    let seen = Arc::new(AtomicU64::new(0));
    let (counted, for_letters) = job
        .source(topic::<str>("lines"))
        .inspect(move |_: &str| {
            let number = seen.fetch_add(1, Ordering::Relaxed);
            assert!(Some(number) != panic_at, "the plan wants a panic");
        })
        .flat_map(words)
        .key_by_ref(|word: &str| word)
        .count("counts")
        .changes()
        .tee();
    counted.sink(topic("updates"));
    for_letters
        .operator(|_| Ok(Initial))
        .count("letter-counts")
        .changes()
        .sink(topic("letters"));
    configured(job, plan)
}

fn mirror(plan: &Plan) -> anyhow::Result<Launch> {
    let job = Job::new(CHAINED_JOB);
    job.keyed_source(keyed_topic::<str, u64>("updates"))
        .sink(topic::<u64>("mirror").partitions(OUTPUT_PARTITIONS));
    configured(job, plan)
}

/// Copies the input into files, of which each is small, and into a sink that is not one of the crate's.
fn copy(plan: &Plan) -> anyhow::Result<Launch> {
    let job = Job::new(FILES_JOB);
    let folder = plan.data.with_file_name(FILES_FOLDER);
    let (left, right) = job.source(topic::<str>("lines")).tee();
    left.sink(files(folder).part_bytes(3_000));
    right.sink(Ledger::new(plan.data.with_file_name(LEDGER_FOLDER)));
    configured(job, plan)
}

fn configured(job: Job, plan: &Plan) -> anyhow::Result<Launch> {
    let compression = plan.compression.parse()?;
    let launch = job
        .exactly_once(Commit::every(Duration::from_millis(plan.commit_ms)))
        .workers(plan.workers)
        .state_partitions(STATE_PARTITIONS)
        .memory_bytes(plan.memory_bytes)
        .changelog_tail_bytes_max(plan.changelog_tail_bytes_max)
        .transaction_timeout(Duration::from_millis(plan.transaction_timeout_ms))
        .compression(compression);
    Ok(launch)
}

fn run(log: &Log, plan: &Plan) -> anyhow::Result<()> {
    if plan.panic_at.is_some() {
        // C18: the panic is contained, the cycle is aborted, and the job may run again.
        match wait(word_count(plan, plan.panic_at)?.start(log)?.finished()) {
            Err(JobError::Panicked { .. }) => say("@panicked\n"),
            other => anyhow::bail!("the job panicked, and said {other:?}"),
        }
    }
    let chained = plan
        .is_chained
        .then(|| anyhow::Ok(watched(mirror(plan)?.start(log)?)))
        .transpose()?;
    let copied = plan
        .has_files
        .then(|| anyhow::Ok(watched(copy(plan)?.start(log)?)))
        .transpose()?;
    if plan.is_last {
        let running = watched(word_count(plan, None)?.start(log)?);
        say("@running\n");
        catch_up(&log.admin(), JOB, "lines", LINES_PARTITIONS)?;
        running.stop()?;
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let job = word_count(plan, None)?.run(log);
        let announce = async {
            // SIGTERM is watched by a task that the job spawns when it is first polled: let that one begin.
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            say("@running\n");
        };
        runtime.block_on(async { tokio::join!(job, announce).0 })?;
    }
    if let Some(chained) = chained {
        if plan.is_last {
            catch_up(&log.admin(), CHAINED_JOB, "updates", OUTPUT_PARTITIONS)?;
        }
        chained.stop()?;
    }
    if let Some(copied) = copied {
        if plan.is_last {
            catch_up(&log.admin(), FILES_JOB, "lines", LINES_PARTITIONS)?;
        }
        copied.stop()?;
    }
    Ok(())
}

/// A job whose failure fails the child at once.
struct Watched(Stopper, std::thread::JoinHandle<()>);

fn watched(running: Running) -> Watched {
    let stopper = running.stopper();
    let watch = || {
        or_fail(
            wait(running.finished())
                .map(drop)
                .map_err(anyhow::Error::from),
        )
    };
    Watched(stopper, std::thread::spawn(watch))
}

impl Watched {
    fn stop(self) -> anyhow::Result<()> {
        self.0.stop();
        let ended = self.1.join();
        ended.map_err(|_| anyhow::anyhow!("the thread that watches a job panicked"))
    }
}

/// Waits until the job has committed that it read everything a reader can see.
fn catch_up(admin: &Admin, job: &str, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let group = GroupId::new(job)?;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let committed = wait(admin.committed(&group))?;
        let mut behind = 0;
        for index in 0..partitions {
            let partition = TopicPartition::new(TopicName::new(topic)?, index);
            let end = end(admin, &partition, Isolation::ReadCommitted)?;
            let found = committed.iter().find(|(place, _)| *place == partition);
            let at = found.and_then(|(_, at)| at.as_ref());
            behind += end.0 - at.map_or(0, |at| at.offset.0);
        }
        if behind == 0 {
            return Ok(());
        }
        anyhow::ensure!(
            std::time::Instant::now() < deadline,
            "{job} is still {behind} records of {topic} behind"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn end(admin: &Admin, partition: &TopicPartition, isolation: Isolation) -> anyhow::Result<Offset> {
    let end = wait(admin.list_offset(partition, OffsetSpec::Latest, isolation))?;
    Ok(end.map_or(Offset::ZERO, |end| end.offset))
}

/// Says everything that a `read_committed` reader finds behind the plan's offsets, and the committed positions.
/// Returns where each partition ends.
fn snapshot(log: &Log, plan: &Plan) -> anyhow::Result<BTreeMap<String, i64>> {
    let admin = log.admin();
    let mut ends = BTreeMap::new();
    for transaction in wait(admin.list_transactions())? {
        use TransactionState::{CompleteAbort, CompleteCommit, Empty};
        if !matches!(transaction.state, Empty | CompleteAbort | CompleteCommit) {
            let (id, state) = (transaction.transactional_id, transaction.state);
            say(&format!("@undecided {id} {state:?}\n"));
        }
    }
    for job in [JOB, CHAINED_JOB, FILES_JOB] {
        for (partition, committed) in wait(admin.committed(&GroupId::new(job)?))? {
            let offset = committed.map_or(0, |committed| committed.offset.0);
            let (topic, index) = (&partition.topic, partition.partition);
            say(&format!("@position {job} {topic} {index} {offset}\n"));
        }
    }
    for topic in wait(admin.topics())? {
        let name = topic.name.as_str();
        let is_shown =
            ["updates", "letters", "mirror"].contains(&name) || name.ends_with("-changelog");
        for index in 0..topic.partitions_count {
            let partition = TopicPartition::new(topic.name.clone(), index);
            let end = end(&admin, &partition, Isolation::ReadCommitted)?;
            if is_shown {
                let mut reader = reader(&log.transport(), &plan.from, &partition);
                while reader.position() < end {
                    show(&mut reader, "s", Duration::ZERO)?;
                }
            }
            say(&format!("@end {name} {index} {end}\n"));
            ends.insert(format!("{name} {index}"), end.0);
        }
    }
    Ok(ends)
}

fn reader(
    transport: &Arc<dyn Transport>,
    from: &BTreeMap<String, i64>,
    partition: &TopicPartition,
) -> PartitionReader {
    let place = format!("{} {}", partition.topic, partition.partition);
    let from = from.get(&place).copied().unwrap_or(0);
    PartitionReader::new(
        Arc::clone(transport),
        partition.clone(),
        Offset(from),
        Isolation::ReadCommitted,
    )
}

/// Says what one fetch brings, and where the reader stands then, in one piece.
fn show(reader: &mut PartitionReader, who: &str, wait_max: Duration) -> anyhow::Result<()> {
    let (topic, index) = (
        reader.partition().topic.clone(),
        reader.partition().partition,
    );
    let mut text = String::new();
    for batch in wait(reader.fetch(wait_max))? {
        for record in batch?.iter() {
            let record = record?;
            let key = std::str::from_utf8(record.key.unwrap_or_default())?;
            let value = match record.value {
                Some(bytes) => *<Bincode as Codec<u64>>::decode(&Bincode, bytes)?,
                None => 0,
            };
            writeln!(
                text,
                "@r {who} {topic} {index} {} {key} {value}",
                record.offset
            )?;
        }
    }
    writeln!(text, "@at {who} {topic} {index} {}", reader.position())?;
    say(&text);
    Ok(())
}

/// A live reader of both outputs from where the snapshot ended, until the process dies.
fn read_on(transport: &Arc<dyn Transport>, from: &BTreeMap<String, i64>, number: u32) {
    let who = number.to_string();
    let mut readers = Vec::new();
    for topic in ["updates", "letters"] {
        for index in 0..OUTPUT_PARTITIONS {
            let name = TopicName::new(topic).expect("a topic's name");
            readers.push(reader(transport, from, &TopicPartition::new(name, index)));
        }
    }
    let count = readers.len() as u32;
    loop {
        for reader in &mut readers {
            // A log that was closed is the end of a good life.
            if show(reader, &who, READER_WAIT / count).is_err() {
                return;
            }
        }
    }
}

/// Adds lines to every partition; each has the offset that it was made for.
fn feed(transport: &Arc<dyn Transport>, plan: &Plan) -> anyhow::Result<()> {
    let admin = Admin::new(Arc::clone(transport));
    let config = ProducerConfig::default().linger(Duration::from_millis(1));
    let producer: Producer<str, str> = Producer::new(Arc::clone(transport), config)?;
    let topic = TopicName::new("lines")?;
    let mut next = Vec::new();
    for index in 0..LINES_PARTITIONS {
        let partition = TopicPartition::new(topic.clone(), index);
        next.push(end(&admin, &partition, Isolation::ReadUncommitted)?.0);
    }
    let mut fed = 0;
    while fed < plan.lines_max {
        let mut sent = Vec::new();
        for (index, next) in (0..LINES_PARTITIONS).zip(&mut next) {
            for _ in 0..plan.lines_at_once {
                let text = line(plan.input_seed, index, *next);
                let mut record = ProducerRecord::new(&topic).value(text.as_str());
                record.partition = Some(index);
                sent.push((index, *next, wait(producer.send(record))?));
                *next += 1;
            }
        }
        for (index, offset, delivery) in sent {
            let Ok(written) = wait(delivery) else {
                // The log was closed by the end of a good life; a broken log shows at the job itself.
                return Ok(());
            };
            let at = written.offset;
            anyhow::ensure!(
                at == Some(Offset(offset)),
                "line {offset} of partition {index} was written at {at:?}"
            );
        }
        let acked = next.iter().map(i64::to_string).collect::<Vec<_>>();
        say(&format!("@acked {}\n", acked.join(" ")));
        fed += plan.lines_at_once;
    }
    Ok(())
}

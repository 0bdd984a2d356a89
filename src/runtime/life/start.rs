//! From a topology to running threads: fence, create, restore, go. Every start is a recovery.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use tracing::{info, info_span};

use super::driver::{Driver, source_topics};
use super::flusher::Flusher;
use super::kept::{Kept, identity, take_writers};
use super::log_handle::Log;
use super::opened::Opened;
use super::participation::Share;
use super::savepoint::refuse_half_restored;
use super::source_tables::partitions_of_source_tables;
use super::stopper::Stopper;
use crate::client::{TransactionalWriter, Transport, wait};
use crate::env::failpoint;
use crate::protocol::batch::Compression;
use crate::protocol::messages::OffsetFetchRequest;
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::{Position, Split};
use crate::runtime::graph::topology::Topology;
use crate::runtime::scale::ScaleOut;
use crate::runtime::task::alignment::Alignment;
use crate::runtime::task::calls::JobCalls;
use crate::runtime::task::chains::Chains;
use crate::runtime::task::changelog::changelog_topic;
use crate::runtime::task::context::JobContext;
use crate::runtime::task::cycle::Commit;
use crate::runtime::task::desk::ShownAs;
use crate::runtime::task::inbox::Inbox;
use crate::runtime::task::pace::RecordBudget;
use crate::runtime::task::poison::PoisonPolicy;
use crate::runtime::task::pressure::Pressure;
use crate::runtime::task::progress::Progress;
use crate::runtime::task::quarantine::Alone;
use crate::runtime::task::repartition::repartition_topic;
use crate::runtime::task::report::{Report, Reports};
use crate::runtime::task::splits::{SplitPlan, Splits};
use crate::runtime::task::worker::{run_worker, worker_thread};
use crate::runtime::topics::job_topics::TopicConfigs;
use crate::runtime::topics::positions::{
    Kept as KeptThere, NamedPositions, Positions, positions_topic, read_positions,
};
use crate::runtime::topics::schemas::NotedSchema;
use crate::state::StateBackend;
use crate::types::{GroupId, TopicName, TopicPartition};

/// State partitions of a job that says nothing: enough to spread over twice these cores later.
const STATE_PARTITIONS_MIN: usize = 4;
const STATE_PARTITIONS_MAX: usize = 64;

/// Settings of a run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) commit: Commit,
    pub(crate) workers: Option<usize>,
    pub(crate) state_partitions: Option<u16>,
    pub(crate) memory_bytes: usize,
    pub(crate) poison: PoisonPolicy,
    pub(crate) compression: Compression,
    pub(crate) topic_partitions: Option<i32>,
    pub(crate) transaction_timeout: Duration,
    pub(crate) changelog_tail_bytes_max: u64,
    pub(crate) dropped_stores: Vec<String>,
    /// Stores and repartition topics whose types may change.
    pub(crate) retyped: Vec<String>,
    /// Settings of topics of results and dead letters.
    pub(crate) topic_configs: TopicConfigs,
    /// Whether tables without a changelog have their topics as theirs.
    pub(crate) reuse_source_topics: bool,
    pub(crate) scale_out: Option<ScaleOut>,
}

impl Settings {
    pub(crate) fn partitions_of_new_topics(&self, state_partitions: u16) -> i32 {
        self.topic_partitions.unwrap_or(i32::from(state_partitions))
    }
}

/// One incarnation's part of the process that runs it.
pub(crate) struct Incarnation<'a> {
    pub(crate) reports: Reports,
    pub(crate) receiver: Receiver<Report>,
    pub(crate) share: Option<Share>,
    pub(crate) kept: &'a mut Kept,
    pub(crate) stopper: &'a Stopper,
}

/// Makes the flusher of an incarnation.
pub(crate) type MakeFlusher = fn(&Arc<JobContext>, Reports) -> Result<Flusher, JobError>;

/// An incarnation that is about to work: its workers are to be built, and they and its driver are to be given turns.
pub(crate) struct Begun {
    pub(crate) job: Arc<JobContext>,
    pub(crate) driver: Driver,
    /// Where its workers report to.
    pub(crate) reports: Reports,
    /// That of a spread job is closed when the process leaves.
    pub(crate) backend: Option<StateBackend>,
}

impl Begun {
    /// Fences the earlier instance, and opens and recovers all that the job has.
    pub(crate) fn new(
        log: &Log,
        name: &str,
        topology: &Topology,
        settings: &Settings,
        progress: &Arc<Progress>,
        incarnation: Incarnation<'_>,
        make_flusher: MakeFlusher,
    ) -> Result<Self, JobError> {
        let _entered = info_span!("start", job = name).entered();
        let Incarnation {
            reports,
            receiver,
            share,
            kept,
            stopper,
        } = incarnation;
        let is_spread = share.is_some();
        // Before the earlier instance is fenced: it may go on where this one cannot start.
        topology.prepare()?;
        let (job, unnoted) = prepare(
            log,
            name,
            topology,
            settings,
            progress,
            share.as_ref(),
            kept,
        )?;
        let job = Arc::new(job);
        let sources = source_topics(&job, progress)?;
        let flusher = make_flusher(&job, reports.clone())?;
        let positions = Positions::new(job.env.clone(), positions_topic(name)?, &job.writers);
        let driver = Driver::new(
            Arc::clone(&job),
            share.map(Arc::new),
            settings.commit,
            receiver,
            positions,
            flusher,
            sources,
        )?
        .noting(unnoted)
        .saving(stopper, topology);
        progress.desk.open(&job, reports.clone());
        info!(
            workers = job.inboxes.len(),
            splits = job.splits.count(),
            "running"
        );
        Ok(Self {
            backend: (!is_spread).then(|| job.backend.clone()),
            job,
            driver,
            reports,
        })
    }
}

/// Runs one incarnation of a job to its end, its workers on threads of their own.
pub(crate) fn run_once(
    log: &Log,
    name: &str,
    topology: &Topology,
    settings: &Settings,
    progress: &Arc<Progress>,
    incarnation: Incarnation<'_>,
) -> Result<(), JobError> {
    let begun = Begun::new(
        log,
        name,
        topology,
        settings,
        progress,
        incarnation,
        Flusher::start,
    )?;
    let Begun {
        job,
        driver,
        reports,
        backend,
    } = begun;
    for number in 0..job.inboxes.len() {
        let spawned = spawn_worker(&job, number, topology.chains(), settings.commit, &reports);
        if spawned.is_err() {
            reports.send(Report::Ended(number, spawned));
        }
    }
    drop(reports);
    let ran = driver.run();
    end(ran, &job, backend, topology)
}

/// An incarnation's driver ended like this: puts in order what outlives its workers.
pub(crate) fn end(
    ran: Result<(), JobError>,
    job: &JobContext,
    backend: Option<StateBackend>,
    topology: &Topology,
) -> Result<(), JobError> {
    let result = ran.and_then(|()| close_sinks(job, topology));
    let closed = backend.map_or(Ok(()), |backend| backend.close());
    result.and(closed.map_err(JobError::from))
}

/// Everything is committed and nobody writes any more: puts the sinks in order.
fn close_sinks(job: &JobContext, topology: &Topology) -> Result<(), JobError> {
    if topology.sinks.is_empty() {
        return Ok(());
    }
    let committed = read_positions(&job.transport, &positions_topic(&job.name)?)?.positions;
    let mut sinks = topology.sinks.iter();
    sinks.try_for_each(|node| node.sink.close(&committed.marks(&node.name), job))
}

/// The topics that are written, each with the number of its partitions and the most bytes that a record may have.
fn limits_of(
    opened: &Opened,
    writer: &TransactionalWriter,
) -> Result<HashMap<TopicName, (i32, usize)>, JobError> {
    let limits = opened.topics.found.iter().map(|(topic, metadata)| {
        let record_bytes_max = wait(writer.max_message_bytes(topic))?;
        Ok((topic.clone(), (metadata.partitions_count, record_bytes_max)))
    });
    limits.collect()
}

/// Everything that happens before a worker may exist. The order matters: first the earlier instance is
/// fenced (I4), so that nothing it does can change what is then read. With the schemas that the log does not know yet.
fn prepare(
    log: &Log,
    name: &str,
    topology: &Topology,
    settings: &Settings,
    progress: &Arc<Progress>,
    share: Option<&Share>,
    kept: &mut Kept,
) -> Result<(JobContext, Vec<NotedSchema>), JobError> {
    let transport = log.transport();
    let begin = log.env().clock.now();
    // A restore that is half done is not fenced, either.
    refuse_half_restored(name, &read_kept(&transport, name)?)?;
    let writers = take_writers(kept, &transport, name, settings)?;
    failpoint("start.fenced");
    let fenced = log.env().clock.now();
    let (state_partitions, opened) = match share {
        Some(share) => (share.state_partitions_count, share.opened.clone()),
        None => {
            refuse_to_run_alone(&transport, name, topology)?;
            let count = state_partitions(log, name, topology, settings)?;
            (count, Opened::new(log, name, topology, settings, count)?)
        }
    };
    let open = log.env().clock.now();
    let workers = workers(log, settings).min(usize::from(state_partitions));
    let is_spread = share.is_some();
    let inboxes: Arc<[Inbox]> = (0..workers).map(|_| Inbox::new()).collect();
    let wakers = || inboxes.iter().map(Inbox::waker);
    let (alignment, calls) = (Alignment::new(wakers().collect()), JobCalls::new(wakers()));
    let mut job = JobContext {
        name: name.to_owned(),
        shown_as: ShownAs::default(),
        env: log.env().clone(),
        topics: limits_of(&opened, &writers[0])?,
        transport,
        backend: opened.backend,
        writers,
        inboxes,
        alignment: Arc::new(alignment),
        calls,
        state_partitions,
        poison_policy: settings.poison.clone(),
        compression: compression(log, settings)?,
        stores: topology.stores.clone(),
        versions: topology.versions.clone(),
        shared_stores: topology.shared_stores.clone(),
        source_changelogs: opened.source_changelogs,
        replay_topics: topology.replay_topics_of_sources(),
        own_sources_count: topology.own_sources_count(),
        sources: topology
            .sources
            .iter()
            .map(|it| it.name.as_str().into())
            .collect(),
        exchanges: topology.exchange_names(),
        renamed: topology.renamed.clone(),
        renamed_exchanges: topology.renamed_exchanges.clone(),
        uses_time: topology.uses_time,
        uses_clock: topology.uses_clock,
        splits: splits_of(topology),
        broadcasts: Mutex::default(),
        read_topics: BTreeMap::new(),
        progress: Arc::clone(progress),
        topic_partitions: settings.partitions_of_new_topics(state_partitions),
        cycle_records: AtomicU64::new(0),
        record_budget: RecordBudget::new(settings.commit.records_first),
        transaction_timeout: settings.transaction_timeout,
        pressure: Pressure::new(settings.memory_bytes, settings.commit.interval),
        alone: Alone::default(),
        is_flush_due: AtomicBool::new(false),
        is_spread,
        beginnings: share.map_or(vec![], |share| {
            (share.membership.plan()).beginnings(topology, state_partitions)
        }),
    };
    take_up(&mut job, topology, settings)?;
    let moments = [begin, fenced, open, job.env.clock.now()];
    progress.meters.note_prepared(moments);
    Ok((job, opened.unnoted))
}

/// Goes on where the job was committed last: its positions, the epoch that it was shown as, its sinks.
fn take_up(job: &mut JobContext, topology: &Topology, settings: &Settings) -> Result<(), JobError> {
    let kept = read_positions(&job.transport, &positions_topic(&job.name)?)?;
    refuse_half_restored(&job.name, &kept)?;
    let named = kept.positions;
    job.read_topics = kept.read_topics;
    job.shown_as = shown_as(identity(&job.name, settings)?, &kept.epochs);
    job.backend.views().begin(job.shown_as.last_epoch);
    if !job.is_spread {
        // The splits of a spread job come later, as the group gives them.
        for plan in plan_splits(job, topology, &named)? {
            job.splits.add(plan);
        }
    }
    recover_sinks(topology, &named, job)
}

fn splits_of(topology: &Topology) -> Splits {
    let sources = topology.sources.iter().map(|it| it.name.as_str());
    let exchanges = topology.exchanges.iter().map(|it| it.name.as_ref());
    Splits::new(sources, exchanges)
}

/// The compression that the job asks for, or that of the log.
fn compression(log: &Log, settings: &Settings) -> Result<Compression, JobError> {
    Ok(match settings.compression {
        Compression::None => log.producer_config()?.compression,
        chosen => chosen,
    })
}

/// Finishes what sinks had prepared for commits that were decided, and gives up the rest.
fn recover_sinks(
    topology: &Topology,
    named: &NamedPositions,
    job: &JobContext,
) -> Result<(), JobError> {
    for node in &topology.sinks {
        node.sink.recover(&named.marks(&node.name), job)?;
        failpoint("sink.recovered");
    }
    Ok(())
}

fn shown_as(identity: String, epochs: &BTreeMap<String, u64>) -> ShownAs {
    ShownAs {
        last_epoch: epochs.get(&identity).copied().unwrap_or(0),
        identity,
    }
}

/// Reads a job's topic of positions; finds nothing if it is not there yet.
pub(crate) fn read_kept(transport: &Arc<dyn Transport>, name: &str) -> Result<KeptThere, JobError> {
    let positions = positions_topic(name)?;
    match wait(transport.topic(&positions))? {
        Some(_) => read_positions(transport, &positions),
        None => Ok(KeptThere::default()),
    }
}

/// Returns the workers by the settings and the machine.
pub(crate) fn workers(log: &Log, settings: &Settings) -> usize {
    let cores = log.env().spawn.parallelism();
    settings.workers.unwrap_or(cores)
}

/// The number that the job began with, as its changelogs show it; else the one asked for, or one that suits the machine.
pub(crate) fn state_partitions(
    log: &Log,
    name: &str,
    topology: &Topology,
    settings: &Settings,
) -> Result<u16, JobError> {
    let transport = log.transport();
    let changelogs = topology
        .stores
        .keys()
        .map(|store| changelog_topic(name, store));
    let exchanges = topology.exchanges.iter();
    let between = exchanges
        .filter(|_| settings.scale_out.is_some())
        .map(|exchange| repartition_topic(name, &exchange.name));
    for topic in changelogs.chain(between) {
        if let Some(changelog) = wait(transport.topic(&topic?))? {
            return began_with(name, settings, changelog.partitions_count);
        }
    }
    match partitions_of_source_tables(&transport, name, topology, settings)? {
        Some((count, true)) => return began_with(name, settings, count),
        Some((count, false)) if settings.state_partitions.is_none() => {
            return Ok(u16::try_from(count).unwrap_or(u16::MAX));
        }
        _ => {}
    }
    let suits = (2 * log.env().spawn.parallelism())
        .next_power_of_two()
        .clamp(STATE_PARTITIONS_MIN, STATE_PARTITIONS_MAX);
    Ok(settings
        .state_partitions
        .unwrap_or(u16::try_from(suits).unwrap_or(u16::MAX)))
}

/// The number of state partitions that a job began with, which is the one it has.
fn began_with(name: &str, settings: &Settings, count: i32) -> Result<u16, JobError> {
    let began_with = u16::try_from(count).unwrap_or(u16::MAX);
    match settings.state_partitions {
        Some(asked) if asked != began_with => Err(JobError::Incompatible {
            job: name.to_owned(),
            why: format!(
                "it was first run with {began_with} state partitions, not {asked}, and the number is fixed then: \
                 ask for {began_with}, or give the job another name"
            ),
        }),
        _ => Ok(began_with),
    }
}

/// Refuses if the job was spread: its records under way are in its repartition topics, which a job alone does not read.
pub(super) fn refuse_to_run_alone(
    transport: &Arc<dyn Transport>,
    name: &str,
    topology: &Topology,
) -> Result<(), JobError> {
    for exchange in &topology.exchanges {
        let topic = repartition_topic(name, &exchange.name)?;
        if wait(transport.topic(&topic))?.is_some() {
            return Err(JobError::Incompatible {
                job: name.to_owned(),
                why: format!(
                    "it was spread over several processes before, and {topic} may hold what is under way between them: \
                     run it with `scale_out`, which one process can do as well"
                ),
            });
        }
    }
    Ok(())
}

/// Lists every split with the position that was committed for it.
fn plan_splits(
    job: &JobContext,
    topology: &Topology,
    named: &NamedPositions,
) -> Result<Vec<SplitPlan>, JobError> {
    let mut plans = Vec::new();
    for (source, node) in topology.sources.iter().enumerate() {
        for split in node.lister.splits(job)? {
            plans.push(SplitPlan {
                source,
                split,
                position: None,
                is_rereadable: node.lister.is_rereadable(),
                state_partition: None,
            });
        }
    }
    let partitions = plans.iter().filter_map(|plan| match &plan.split {
        Split::Partition(partition) => Some(partition.clone()),
        Split::Named { .. } => None,
    });
    let partitions: Vec<TopicPartition> = partitions.collect();
    let request = OffsetFetchRequest {
        group: GroupId::new(&job.name)?,
        partitions: Some(partitions),
        require_stable: true,
    };
    let committed: HashMap<TopicPartition, Position> = wait(job.transport.offset_fetch(request))?
        .into_iter()
        .filter_map(|(partition, committed)| Some((partition, Position::of_committed(&committed?))))
        .collect();
    for plan in &mut plans {
        plan.position = match &plan.split {
            Split::Partition(partition) => committed.get(partition).cloned(),
            Split::Named { source, name } => named.position(source, name)?,
        };
    }
    Ok(plans)
}

fn spawn_worker(
    job: &Arc<JobContext>,
    number: usize,
    chains: Chains,
    commit: Commit,
    reports: &Reports,
) -> Result<(), JobError> {
    let (shared, reports) = (Arc::clone(job), reports.clone());
    let body = move || {
        let ended = run_worker(shared, number, &chains, commit, &reports);
        reports.send(Report::Ended(number, ended));
    };
    let name = worker_thread(number);
    let spawned = job.env.spawn.spawn(&name, Box::new(body));
    spawned
        .map(drop)
        .map_err(|e| JobError::no_thread(&name, &e))
}

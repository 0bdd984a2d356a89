//! Copies of state that no worker has open, kept by a [`Follower`] that replays changelogs into RocksDB: on a thread of its own, or by
//! the turns that a bed gives it (design D27).
//!
//! It does two things, a fetch a turn: a *standby* follows its changelogs for as long as it is one, so that this process can
//! take over at once; a task that is *coming* is followed to the end of its changelogs, and is then ready for a worker:
//!
//! ```text
//! standby ──given──► coming ──all replayed, positions known──► ready ──taken between two cycles──► a worker's
//! ```
//! The end is that of all records, also undecided ones: what the task's last owner had open must be decided first (I2).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::debug;

use super::assignor::Task;
use super::plan::Plan;
use crate::client::consumer::FetchedBatches;
use crate::client::{ClientError, Transport, wait};
use crate::env::{Env, JoinHandle, warn};
use crate::protocol::messages::{
    FetchPartition, FetchRequest, FetchedRecords, OffsetFetchRequest, OffsetSpec,
};
use crate::protocol::{ErrorCode, ErrorKind};
use crate::runtime::contract::error::JobError;
use crate::runtime::contract::source::Position;
use crate::runtime::task::changelog::{changelog_topic, key_of};
use crate::runtime::task::continuation::{Bounds, Continuation};
use crate::runtime::task::progress::Progress;
use crate::runtime::task::report::{Report, Reports};
use crate::state::StateBackend;
use crate::types::{GroupId, Isolation, Offset, TopicName, TopicPartition};

/// The thread that follows changelogs.
const THREAD: &str = "of-replica";
/// Bytes from one partition at a time, and from all.
const PARTITION_BYTES_MAX: usize = 1 << 20;
const FETCH_BYTES_MAX: usize = 8 << 20;
/// Bytes of a fetch without threads, though at least a batch: so a restore takes many turns, and others have theirs meanwhile.
const STEP_BYTES_MAX: usize = 256;
/// Wait of a fetch for records: so late a change of what is to be followed is noticed.
const FETCH_WAIT: Duration = Duration::from_millis(100);
/// Pause before a failed request is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A task whose state is in RocksDB to the end of its changelogs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadyTask {
    pub(crate) task: Task,
    /// Where its topics' partitions are to be read from, and how far time had come there; those without a position are read from
    /// their start.
    pub(crate) positions: BTreeMap<TopicPartition, Position>,
}

/// Work of the follower; shared with the membership.
pub(crate) struct Replicas {
    transport: Arc<dyn Transport>,
    backend: StateBackend,
    group: GroupId,
    /// Name and changelog of each store.
    stores: Vec<(String, TopicName)>,
    plan: Arc<Plan>,
    progress: Arc<Progress>,
    orders: Mutex<Orders>,
    changed: Condvar,
    thread: Mutex<Option<Box<dyn JoinHandle>>>,
}

#[derive(Default)]
struct Orders {
    coming: BTreeSet<Task>,
    standbys: BTreeSet<u16>,
    ready: Vec<ReadyTask>,
    reports: Option<Reports>,
    failure: Option<JobError>,
    /// Times that a task stopped coming: what was found out about it before is void.
    recalls: u64,
    is_ended: bool,
}

/// Work of one round.
struct Round {
    coming: BTreeSet<Task>,
    standbys: BTreeSet<u16>,
    recalls: u64,
}

/// One changelog partition that is followed.
struct Tail {
    store: usize,
    place: TopicPartition,
    position: Offset,
    /// The end of all records, as of a fetch of this round.
    end: Option<Offset>,
}

/// Tails to follow: the changelogs of each state partition.
type Tails = BTreeMap<u16, Vec<Tail>>;

/// The hand that follows the changelogs, a round a turn.
pub(crate) struct Follower {
    replicas: Arc<Replicas>,
    tails: Tails,
    fetch_bytes_max: usize,
}

/// Result of a follower's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followed {
    /// Something came, or a task is ready.
    Came,
    /// Nothing has come so far.
    Waited,
    /// There is nothing to follow.
    Idle,
    /// A request failed, and is to be sent again after a pause.
    Later,
    /// It was told to end, or the state store failed.
    Ended,
}

impl Follower {
    /// Gives itself turns, on a thread of its own, which [`Replicas::end`] ends.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(crate) fn start(self, env: &Env) -> Result<(), JobError> {
        let replicas = Arc::clone(&self.replicas);
        let spawned = env.spawn.spawn(THREAD, Box::new(move || self.run()));
        let thread = spawned.map_err(|e| JobError::no_thread(THREAD, &e))?;
        *replicas.thread.lock() = Some(thread);
        Ok(())
    }

    fn run(mut self) {
        loop {
            match self.turn() {
                Followed::Came | Followed::Waited => {}
                Followed::Idle => self.replicas.wait_for_orders(),
                Followed::Later => {
                    let mut orders = self.replicas.orders.lock();
                    self.replicas.changed.wait_for(&mut orders, RETRY_PAUSE);
                }
                Followed::Ended => return,
            }
        }
    }

    /// Follows in small steps, for turns among others.
    pub(crate) fn in_steps(self) -> Self {
        Self {
            fetch_bytes_max: STEP_BYTES_MAX,
            ..self
        }
    }

    /// Fetches once of all that is followed.
    pub(crate) fn turn(&mut self) -> Followed {
        let round = match self.replicas.next_round() {
            Ok(round) => round,
            Err(nothing) => return nothing,
        };
        let bytes_max = self.fetch_bytes_max;
        match self.replicas.go_round(&round, &mut self.tails, bytes_max) {
            Ok(true) => Followed::Came,
            Ok(false) => Followed::Waited,
            Err(error) if error.cause() == ErrorKind::Retriable => {
                debug!(%error, "the changelogs are asked again");
                Followed::Later
            }
            Err(error) => {
                self.replicas.fail(error);
                Followed::Ended
            }
        }
    }
}

impl Replicas {
    /// The copies of a job's stores, and the hand that is to follow them.
    ///
    /// # Errors
    /// If a store's name is none for a topic.
    pub(crate) fn new(
        transport: &Arc<dyn Transport>,
        backend: &StateBackend,
        job: &str,
        stores: impl Iterator<Item = String>,
        plan: &Arc<Plan>,
        progress: &Arc<Progress>,
    ) -> Result<(Arc<Self>, Follower), JobError> {
        let stores = stores.map(|store| {
            let changelog = changelog_topic(job, &store)?;
            Ok((store, changelog))
        });
        let replicas = Arc::new(Self {
            transport: Arc::clone(transport),
            backend: backend.clone(),
            group: GroupId::new(job)?,
            stores: stores.collect::<Result<_, JobError>>()?,
            plan: Arc::clone(plan),
            progress: Arc::clone(progress),
            orders: Mutex::default(),
            changed: Condvar::new(),
            thread: Mutex::new(None),
        });
        let follower = Follower {
            replicas: Arc::clone(&replicas),
            tails: Tails::new(),
            fetch_bytes_max: FETCH_BYTES_MAX,
        };
        Ok((replicas, follower))
    }

    /// From here on these are followed, and nothing else. `reports` is told when a coming task is ready.
    pub(crate) fn follow(
        &self,
        coming: BTreeSet<Task>,
        standbys: BTreeSet<u16>,
        reports: Option<Reports>,
    ) {
        let mut orders = self.orders.lock();
        orders.ready.retain(|ready| coming.contains(&ready.task));
        orders.recalls += u64::from(!orders.coming.is_subset(&coming));
        orders.coming = coming;
        orders.standbys = standbys;
        orders.reports = reports;
        self.changed.notify_all();
    }

    /// The coming tasks that are ready. The caller owns them from here on, and says so with the next `follow`.
    pub(crate) fn take_ready(&self) -> Vec<ReadyTask> {
        let mut orders = self.orders.lock();
        let ready = std::mem::take(&mut orders.ready);
        for task in &ready {
            orders.coming.remove(&task.task);
        }
        ready
    }

    /// Takes the follower's failure.
    pub(crate) fn take_failure(&self) -> Option<JobError> {
        self.orders.lock().failure.take()
    }

    /// Ends the follower: nothing is written to RocksDB any more.
    pub(crate) fn end(&self) {
        self.orders.lock().is_ended = true;
        self.changed.notify_all();
        let thread = self.thread.lock().take();
        if let Some(Err(why)) = thread.map(JoinHandle::join) {
            warn!(why, "the thread that kept copies of state panicked");
        }
    }

    /// The state partitions of which RocksDB has something, with the sum of the changelog positions that it covers.
    pub(crate) fn held(&self) -> Vec<(u16, u64)> {
        self.backend.held_partitions().into_iter().collect()
    }

    /// Returns the lengths of these state partitions' changelogs, from offset 0, all stores together.
    pub(crate) async fn ends(
        &self,
        partitions: &BTreeSet<u16>,
    ) -> Result<BTreeMap<u16, u64>, ClientError> {
        let each = partitions.iter().flat_map(|&partition| {
            let stores = self.stores.iter();
            stores.map(move |(_, changelog)| async move {
                let place = TopicPartition::new(changelog.clone(), i32::from(partition));
                let end = self.list(&place, OffsetSpec::Latest).await?;
                Ok::<_, ClientError>((partition, u64::try_from(end.0).unwrap_or(0)))
            })
        });
        let mut ends = BTreeMap::new();
        for (partition, end) in futures::future::try_join_all(each).await? {
            *ends.entry(partition).or_default() += end;
        }
        Ok(ends)
    }

    async fn list(&self, place: &TopicPartition, spec: OffsetSpec) -> Result<Offset, ClientError> {
        let isolation = Isolation::ReadUncommitted;
        let found = self.transport.list_offset(place, spec, isolation).await?;
        Ok(found.map_or(Offset::ZERO, |found| found.offset))
    }

    /// Returns the next round, if there is work.
    fn next_round(&self) -> Result<Round, Followed> {
        let orders = self.orders.lock();
        if orders.is_ended {
            return Err(Followed::Ended);
        }
        if !self.has_work(&orders) {
            return Err(Followed::Idle);
        }
        Ok(Round {
            coming: still_coming(&orders),
            standbys: orders.standbys.clone(),
            recalls: orders.recalls,
        })
    }

    fn has_work(&self, orders: &Orders) -> bool {
        !still_coming(orders).is_empty() || (!orders.standbys.is_empty() && !self.stores.is_empty())
    }

    /// Blocks until there is something to be done, or nothing ever more.
    fn wait_for_orders(&self) {
        let mut orders = self.orders.lock();
        while !orders.is_ended && !self.has_work(&orders) {
            self.changed.wait(&mut orders);
        }
    }

    /// One fetch of everything that is followed; says which tasks are ready. `true` if something came.
    fn go_round(
        &self,
        round: &Round,
        tails: &mut Tails,
        bytes_max: usize,
    ) -> Result<bool, JobError> {
        let Round {
            coming, standbys, ..
        } = round;
        let coming_state: BTreeSet<u16> = self.plan.state_partitions(coming).into_iter().collect();
        tails.retain(|partition, _| {
            standbys.contains(partition) || coming_state.contains(partition)
        });
        for &partition in coming_state.union(standbys) {
            if let Entry::Vacant(vacant) = tails.entry(partition) {
                vacant.insert(self.begin(partition)?);
            }
        }
        let has_come = self.advance(tails, &coming_state, bytes_max)?;
        self.tell_lags(standbys, tails);
        let is_replayed = |task: &&Task| match self.plan.state_partition(**task) {
            None => true,
            Some(partition) => tails.get(&partition).is_some_and(|tails| {
                let mut tails = tails.iter();
                tails.all(|tail| tail.end.is_some_and(|end| tail.position >= end))
            }),
        };
        let replayed: BTreeSet<Task> = coming.iter().filter(is_replayed).copied().collect();
        if replayed.is_empty() {
            return Ok(has_come);
        }
        let ready = self.with_positions(&replayed)?;
        // From here on nothing is written of them: a worker may open them.
        tails.retain(|partition, _| {
            let task = self.plan.state_task(*partition);
            !task.is_some_and(|task| replayed.contains(&task))
        });
        let mut orders = self.orders.lock();
        if orders.recalls == round.recalls {
            orders.ready.extend(ready);
            if let Some(reports) = &orders.reports {
                reports.send(Report::Reassigned);
            }
        }
        Ok(true)
    }

    /// Where the replay of a state partition begins; what its changelog does not continue is forgotten (S6).
    fn begin(&self, partition: u16) -> Result<Vec<Tail>, JobError> {
        let stores = self.stores.iter().enumerate();
        let tails = stores.map(|(store, (name, changelog))| {
            let place = TopicPartition::new(changelog.clone(), i32::from(partition));
            let bounds = Bounds::of(&self.transport, &place)?;
            let Bounds { start, end } = bounds;
            let mut position = self.backend.position(name, partition);
            let now = self.transport.env().clock.wall();
            let mut continuation = Continuation::new(&self.transport, changelog, now);
            let obstacle = position.map(|at| continuation.obstacle(&place, at, bounds));
            if let Some((at, why)) = position.zip(obstacle.transpose()?.flatten()) {
                warn!(position = %at, %start, %end, changelog = %place, why, "the state on disk cannot be continued; restoring all of it");
                self.backend.wipe(name, partition)?;
                position = None;
            }
            Ok(Tail {
                store,
                place,
                position: position.unwrap_or(start),
                end: None,
            })
        });
        tails.collect()
    }

    /// Fetches once and replays what came; `true` if something did.
    fn advance(
        &self,
        tails: &mut Tails,
        coming: &BTreeSet<u16>,
        bytes_max: usize,
    ) -> Result<bool, JobError> {
        if tails.is_empty() || self.stores.is_empty() {
            return Ok(false);
        }
        // An end that is older than the task's coming says nothing.
        let all = tails.values_mut().flatten();
        let partitions = all.map(|tail| {
            tail.end = None;
            FetchPartition {
                partition: tail.place.clone(),
                offset: tail.position,
                max_bytes: PARTITION_BYTES_MAX.min(bytes_max),
            }
        });
        let request = FetchRequest {
            partitions: partitions.collect(),
            isolation: Isolation::ReadCommitted,
            min_bytes: 1,
            max_bytes: bytes_max,
            // What is coming may have all its records already.
            max_wait: match coming.is_empty() {
                true => FETCH_WAIT,
                false => FETCH_WAIT / 10,
            },
        };
        let mut has_come = false;
        for fetched in wait(self.transport.fetch(request))? {
            let Ok(partition) = u16::try_from(fetched.partition.partition) else {
                continue;
            };
            let Some(of_partition) = tails.get_mut(&partition) else {
                continue;
            };
            let is_it = |tail: &&mut Tail| tail.place == fetched.partition;
            let Some(tail) = of_partition.iter_mut().find(is_it) else {
                continue;
            };
            match fetched.result {
                Ok(records) => {
                    let before = tail.position;
                    let replayed = self.replay(partition, tail, records)?;
                    has_come |= tail.position > before;
                    if coming.contains(&partition) {
                        self.progress.restored(replayed);
                    }
                }
                // Begun again, where the changelog begins now.
                Err(ErrorCode::OffsetOutOfRange) => drop(tails.remove(&partition)),
                Err(code) if code.kind() == ErrorKind::Retriable => {
                    debug!(%code, changelog = %fetched.partition, "is asked again");
                }
                Err(code) => {
                    return Err(ClientError::Refused {
                        request: "Fetch",
                        code,
                        message: format!("{}: {code}", fetched.partition),
                        kind: code.kind(),
                    }
                    .into());
                }
            }
        }
        Ok(has_come)
    }

    /// Replays what was fetched of one changelog; says how many records that were.
    fn replay(
        &self,
        partition: u16,
        tail: &mut Tail,
        fetched: FetchedRecords,
    ) -> Result<u64, JobError> {
        let end = fetched.high_watermark;
        let (place, isolation) = (tail.place.clone(), Isolation::ReadCommitted);
        let batches = FetchedBatches::new(place, tail.position, isolation, fetched);
        let behind = batches.end();
        let (store, _) = &self.stores[tail.store];
        let mut count = 0;
        for batch in batches {
            let batch = batch?;
            let records = batch.iter().collect::<Result<Vec<_>, _>>()?;
            let Some(last) = records.last() else {
                continue;
            };
            let next = last.offset.plus(1);
            let changes = records
                .iter()
                .map(|record| Ok((key_of(record, &tail.place)?, record.value)))
                .collect::<Result<Vec<_>, JobError>>()?;
            self.backend
                .replay(store, partition, changes.into_iter(), next)?;
            count += records.len() as u64;
            tail.position = next;
        }
        // Behind markers and what was aborted, too.
        if behind > tail.position {
            self.backend
                .replay(store, partition, std::iter::empty(), behind)?;
            tail.position = behind;
        }
        tail.end = Some(end);
        Ok(count)
    }

    fn tell_lags(&self, standbys: &BTreeSet<u16>, tails: &Tails) {
        let lag = |partition: &u16| {
            // Unknown as long as one of the ends is.
            let lags = tails.get(partition)?.iter().map(|tail| {
                let lag = tail.end?.0 - tail.position.0;
                Some(u64::try_from(lag).unwrap_or(0))
            });
            Some((*partition, lags.sum::<Option<u64>>()?))
        };
        self.progress
            .standbys_lag(standbys.iter().filter_map(lag).collect());
    }

    /// Where the tasks' partitions are to be read from. What their last owners committed is decided first (I8).
    fn with_positions(&self, tasks: &BTreeSet<Task>) -> Result<Vec<ReadyTask>, JobError> {
        let request = OffsetFetchRequest {
            group: self.group.clone(),
            partitions: Some(self.plan.partitions(tasks)),
            require_stable: true,
        };
        let fetched = wait(self.transport.offset_fetch(request))?;
        let committed: BTreeMap<TopicPartition, Position> = fetched
            .into_iter()
            .filter_map(|(place, committed)| Some((place, Position::of_committed(&committed?))))
            .collect();
        let of_task = |task: &Task| {
            let places = self.plan.partitions(&[*task].into());
            let positions = places.into_iter().filter_map(|place| {
                let position = committed.get(&place)?.clone();
                Some((place, position))
            });
            ReadyTask {
                task: *task,
                positions: positions.collect(),
            }
        };
        Ok(tasks.iter().map(of_task).collect())
    }

    fn fail(&self, error: JobError) {
        warn!(%error, "copies of state cannot be kept");
        let mut orders = self.orders.lock();
        if let Some(reports) = &orders.reports {
            reports.send(Report::Lost);
        }
        orders.failure = Some(error);
    }
}

/// The tasks that are coming and not ready yet.
fn still_coming(orders: &Orders) -> BTreeSet<Task> {
    let is_ready = |task: &Task| orders.ready.iter().any(|ready| ready.task == *task);
    let coming = orders.coming.iter().copied();
    coming.filter(|task| !is_ready(task)).collect()
}

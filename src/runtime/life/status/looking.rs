//! The view of a job, made of the counters of its process and of what the log says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
#[cfg(feature = "http")]
use std::time::Duration;

use super::log_view::{self, ReadPartition};
use super::{
    ChainStatus, JobPhase, SplitStatus, Status, StoreStatus, Totals, WorkerStatus, sentence,
};
use crate::client::Transport;
use crate::env::Env;
#[cfg(feature = "http")]
use crate::env::Instant;
use crate::runtime::contract::source::Split;
use crate::runtime::graph::description::Description;
use crate::runtime::life::job::Running;
use crate::runtime::task::context::JobContext;
use crate::runtime::task::meter::{BUCKET_MICROS, CloseReason, PHASES, SplitState, micros};
use crate::runtime::task::progress::Progress;
use crate::runtime::task::splits::SplitPlan;

/// However many look over HTTP, the log is asked at most this often.
#[cfg(feature = "http")]
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Looks at a job.
pub(in crate::runtime::life) struct Watcher {
    env: Env,
    job: String,
    transport: Arc<dyn Transport>,
    progress: Arc<Progress>,
    graph: Description,
    #[cfg(feature = "http")]
    last: tokio::sync::Mutex<Option<(Instant, Arc<Status>)>>,
}

impl Watcher {
    pub(in crate::runtime::life) fn new(
        env: &Env,
        job: &str,
        transport: Arc<dyn Transport>,
        progress: &Arc<Progress>,
        graph: Description,
    ) -> Self {
        Self {
            env: env.clone(),
            job: job.to_owned(),
            transport,
            progress: Arc::clone(progress),
            graph,
            #[cfg(feature = "http")]
            last: tokio::sync::Mutex::new(None),
        }
    }

    #[cfg(feature = "http")]
    pub(in crate::runtime::life) fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// The job as it is now.
    pub(in crate::runtime::life) async fn look(&self) -> Status {
        let mut status = self.of_this_process();
        let (identity, partitions) = self.partitions();
        let asked = log_view::complete(&mut status, &*self.transport, &identity, partitions);
        if let Err(error) = asked.await {
            status.log_error = Some(error.to_string());
        }
        status.sentence = sentence::sentence(&status);
        status
    }

    /// The job as it is now, or was less than half a second ago; one who asks at a time has the log asked.
    #[cfg(feature = "http")]
    pub(in crate::runtime::life) async fn look_with_others(&self) -> Arc<Status> {
        let mut last = self.last.lock().await;
        if let Some((at, status)) = &*last
            && self.env.clock.now().since(*at) < ASK_EVERY
        {
            return Arc::clone(status);
        }
        let status = Arc::new(self.look().await);
        *last = Some((self.env.clock.now(), Arc::clone(&status)));
        status
    }

    /// The same without what the log would say, which did not answer in time.
    #[cfg(feature = "http")]
    pub(in crate::runtime::life) fn look_here(&self) -> Arc<Status> {
        let mut status = self.of_this_process();
        status.log_error = Some("the log did not answer in time".to_owned());
        status.sentence = sentence::sentence(&status);
        Arc::new(status)
    }

    fn of_this_process(&self) -> Status {
        let meters = &self.progress.meters;
        let mut busy = BTreeMap::<usize, u64>::new();
        let chains = meters.chains().into_iter().map(|(name, worker, meter)| {
            let busy_micros = micros(meter.busy());
            *busy.entry(worker).or_default() += busy_micros;
            ChainStatus {
                name,
                worker,
                records: meter.records(),
                busy_micros,
            }
        });
        let chains = chains.collect();
        let (mut splits, mut queues) = (Vec::new(), BTreeMap::new());
        let phase = self.progress.desk.peek(|job| {
            splits = self.splits(job);
            let inboxes = job.inboxes.iter().enumerate();
            queues = inboxes
                .map(|(worker, inbox)| (worker, (inbox.size_bytes(), inbox.records_count())))
                .collect();
        });
        let workers = meters.sleeps().into_iter().map(|(worker, sleep)| {
            let (queue_bytes, queue_records) = queues.get(&worker).copied().unwrap_or_default();
            WorkerStatus {
                worker,
                busy_micros: busy.get(&worker).copied().unwrap_or(0),
                blocked_micros: micros(sleep.blocked()),
                idle_micros: micros(sleep.idle()),
                queue_bytes,
                queue_records,
            }
        });
        Status {
            job: self.job.clone(),
            version: env!("CARGO_PKG_VERSION"),
            now: self.env.clock.wall(),
            sentence: String::new(),
            phase: match phase {
                Some(true) => JobPhase::Running,
                Some(false) => JobPhase::Ended,
                None => JobPhase::Starting,
            },
            totals: self.totals(),
            graph: self.graph.clone(),
            chains,
            workers: workers.collect(),
            cycles: meters.cycles().last.into(),
            splits,
            stores: self.stores(),
            transactions: Vec::new(),
            lives: meters.lives(),
            log_error: None,
        }
    }

    fn totals(&self) -> Totals {
        let (report, cycles) = (self.progress.report(), self.progress.meters.cycles());
        let reasons = CloseReason::ALL.into_iter().map(|reason| {
            let commits = cycles.by_reason.get(&reason);
            (reason.name(), commits.copied().unwrap_or(0))
        });
        let late = self.progress.meters.late_by_reason().into_iter();
        let dead_letters = self.progress.meters.dead_letters();
        let bounds = BUCKET_MICROS.iter().map(|&bound| Some(bound)).chain([None]);
        Totals {
            commits: report.commits,
            commits_by_reason: reasons.collect(),
            phase_micros: PHASES.into_iter().zip(cycles.phase_micros).collect(),
            commit_durations: bounds.zip(cycles.buckets).collect(),
            records: report.records,
            discarded_records: self.progress.summary().discarded_records,
            late_records: report.late_records,
            left_out_records: report.left_out_records,
            late_by_reason: late
                .map(|(reason, count)| (reason.as_str(), count))
                .collect(),
            dead_letters: dead_letters.count(),
            dead_by_reason: dead_letters.by_kind().clone(),
            undelivered_effects: report.undelivered_effects,
            restarts: report.restarts,
            last_restart: report.last_restart,
        }
    }

    fn stores(&self) -> Vec<StoreStatus> {
        let stores = self.progress.report().stores.into_iter();
        let stores = stores.map(|(name, size)| {
            let reads = self.progress.meters.reads(&name);
            StoreStatus {
                name,
                rows_in_memory: size.rows_in_memory,
                memory_bytes: size.memory_bytes,
                rows_on_disk: size.rows_on_disk,
                disk_bytes: size.disk_bytes,
                dirty_bytes: size.dirty_bytes,
                tail_bytes: size.tail_bytes,
                hits: reads.hits,
                misses: reads.misses,
            }
        });
        stores.collect()
    }

    fn splits(&self, job: &JobContext) -> Vec<SplitStatus> {
        let meters = &self.progress.meters;
        let (mut splits, mut tell_time) = (Vec::new(), Vec::new());
        for (number, plan) in self.read_splits(job) {
            let mark = meters.mark(number);
            // A split that went and came back begins where the others left it.
            let planned = plan.position.as_ref();
            let planned_offset = planned.map_or(0, |position| position.offset.0);
            let (position, watermark) = match mark {
                Some(mark) if mark.offset.0 >= planned_offset => (mark.offset.0, mark.watermark),
                _ => (planned_offset, planned.and_then(|it| it.watermark)),
            };
            let mut names = job.sources.iter().chain(&job.exchanges);
            let source = names.nth(plan.source);
            splits.push(SplitStatus {
                source: source.map_or_else(String::new, |name| name.to_string()),
                split: plan.split.to_string(),
                position,
                last_stable_offset: None,
                high_watermark: None,
                lag: None,
                held_by: None,
                held_since: None,
                watermark,
                state: meters.state(number),
                holds_time: false,
            });
            // Letters and topics between processes do not say how far time is.
            tell_time.push(job.uses_time && plan.source < job.own_sources_count);
        }
        let holders = splits.iter_mut().zip(tell_time);
        let holders =
            holders.filter(|(split, tells_time)| *tells_time && split.state == SplitState::Active);
        if let Some((holder, _)) = holders.min_by_key(|(split, _)| split.watermark) {
            holder.holds_time = true;
        }
        splits
    }

    /// The partitions that the process reads, and how its transactional ids begin.
    fn partitions(&self) -> (String, Vec<ReadPartition>) {
        let (mut identity, mut partitions) = (self.job.clone(), Vec::new());
        self.progress.desk.peek(|job| {
            identity.clone_from(&job.shown_as.identity);
            for (number, plan) in self.read_splits(job) {
                if let Split::Partition(place) = plan.split {
                    let mark = self.progress.meters.mark(number);
                    partitions.push(ReadPartition {
                        place,
                        is_new: mark.is_none() && plan.position.is_none(),
                    });
                }
            }
        });
        (identity, partitions)
    }

    /// The splits that the process reads now. It knows those, too, that went to other processes.
    fn read_splits(&self, job: &JobContext) -> Vec<(u32, SplitPlan)> {
        let mut splits = job.splits.all();
        if job.is_spread {
            let share: BTreeSet<_> = self.progress.share().partitions.into_iter().collect();
            splits.retain(|(_, plan)| match &plan.split {
                Split::Partition(place) => share.contains(place),
                Split::Named { .. } => true,
            });
        }
        splits
    }
}

impl Running {
    /// The view of the job as plain data: positions, commits, time, state and transactions, and one sentence that says how it is.
    ///
    /// ```
    /// # fn main() -> anyhow::Result<()> {
    /// # let folder = tempfile::tempdir()?;
    /// # let log = onceflow::runtime::Log::embedded(folder.path().join("data"))?;
    /// use onceflow::client::wait;
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("copy");
    /// job.source(topic::<str>("lines")).sink(topic("copies"));
    /// let running = job.exactly_once(Commit::every(std::time::Duration::from_millis(10))).start(&log)?;
    /// wait(running.caught_up())?;
    /// let status = wait(running.status());
    /// println!("{}", status.sentence);
    /// assert_eq!(status.lag(), Some(0));
    /// wait(running.stop())?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn status(&self) -> Status {
        self.queries.watcher().look().await
    }
}

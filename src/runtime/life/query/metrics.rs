//! Metrics for Prometheus: the view of a job, as text in the OpenMetrics format.
//!
//! Names begin with `onceflow_` and end with their unit. Labels are the names of the job's own parts, so that their number is bounded.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::runtime::life::status::{JobPhase, Status, StoreStatus};
use crate::runtime::task::meter::SplitState;
use crate::types::Timestamp;

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of a job.
pub(super) fn text_of(status: Arc<Status>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("onceflow");
    registry.register_collector(Box::new(JobMetrics(status)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct JobMetrics(Arc<Status>);

/// Writes families of metrics.
struct Families<'a> {
    encoder: DescriptorEncoder<'a>,
    job: String,
}

/// The labels of one value behind that of the job.
type Labels<'l> = Vec<(&'static str, &'l str)>;

impl Families<'_> {
    fn counters<'v>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = (Labels<'v>, f64)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        let mut family = self
            .encoder
            .encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in values {
            let labels = of_job(&self.job, labels);
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = (Labels<'v>, f64)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut family = self
            .encoder
            .encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in values {
            let labels = of_job(&self.job, labels);
            ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, None, [(vec![], count(value))])
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, None, [(vec![], value)])
    }
}

fn of_job<'l>(job: &'l str, labels: Labels<'l>) -> impl EncodeLabelSet {
    let job = std::iter::once(("job_name", job.to_owned()));
    let labels = labels
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()));
    job.chain(labels).collect::<Vec<(&'static str, String)>>()
}

impl Collector for JobMetrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let status = &*self.0;
        let job = status.job.clone();
        let mut families = Families { encoder, job };
        whole(&mut families, status)?;
        commits(&mut families, status)?;
        workers(&mut families, status)?;
        splits(&mut families, status)?;
        stores(&mut families, status)?;
        transactions(&mut families, status)
    }
}

fn whole(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    let totals = &status.totals;
    let version = vec![("version", status.version)];
    families.gauges(
        "build_info",
        "The version of Onceflow; always 1",
        None,
        [(version, 1.0)],
    )?;
    let is_up = status.phase == JobPhase::Running;
    families.gauge(
        "job_running",
        "1 while the workers of the job run",
        flag(is_up),
    )?;
    let is_answered = status.log_error.is_none();
    families.gauge(
        "log_reachable",
        "1 if the log answered this scrape",
        flag(is_answered),
    )?;
    families.counter(
        "records",
        "Source records of committed cycles",
        totals.records,
    )?;
    let help = "Source records of cycles that were not committed; they are read again";
    families.counter("discarded_records", help, totals.discarded_records)?;
    let help =
        "Records that came too late for a result, those of cycles that were not committed included";
    families.counter("late_records", help, totals.late_records)?;
    let late = totals.late_by_reason.iter();
    let late = late.map(|(reason, value)| ("late", *reason, value));
    let dead = totals.dead_by_reason.iter();
    let dead = dead.map(|(reason, value)| ("dead", &**reason, value));
    let letters = late
        .chain(dead)
        .map(|(kind, reason, value)| (vec![("kind", kind), ("reason", reason)], count(*value)));
    let help = "Late records and dead letters, by reason";
    families.counters("letters", help, None, letters)?;
    let help = "Records that lie between windows";
    families.counter("left_out_records", help, totals.left_out_records)?;
    families.counter(
        "dead_letters",
        "Dead letters that were written, those of cycles that were not committed included",
        totals.dead_letters,
    )?;
    let help = "Starts from the last commit, after a failure";
    families.counter("restarts", help, totals.restarts)?;
    let undelivered = count(totals.undelivered_effects as u64);
    families.gauge(
        "undelivered_effects",
        "Effects that are not delivered yet",
        undelivered,
    )
}

fn commits(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    let totals = &status.totals;
    let reasons = totals.commits_by_reason.iter();
    let reasons = reasons.map(|(reason, value)| (vec![("reason", *reason)], count(*value)));
    families.counters(
        "commits",
        "Commits by what closed their cycle",
        None,
        reasons,
    )?;
    let phases = totals.phase_micros.iter();
    let phases = phases.map(|(phase, micros)| (vec![("phase", *phase)], seconds(*micros)));
    let help = "Time spent in each phase of commits";
    families.counters("commit_phase", help, Some(Unit::Seconds), phases)?;
    let at = status.cycles.last().map(|cycle| cycle.committed_at);
    let at = at.map(|at| (vec![], time(at)));
    let help = "When the job committed last";
    families.gauges("last_commit_timestamp", help, Some(Unit::Seconds), at)?;
    let buckets: Vec<(f64, u64)> = totals
        .commit_durations
        .iter()
        .map(|(bound, value)| (bound.map_or(f64::INFINITY, seconds), *value))
        .collect();
    let (sum, total) = (
        totals.phase_micros.values().sum(),
        buckets.iter().map(|it| it.1).sum(),
    );
    let (help, unit) = ("Duration of commits: all phases together", Unit::Seconds);
    let kind = MetricType::Histogram;
    let mut family =
        families
            .encoder
            .encode_descriptor("commit_duration", help, Some(&unit), kind)?;
    let labels = of_job(&families.job, vec![]);
    let mut metric = family.encode_family(&labels)?;
    metric.encode_histogram::<NoLabelSet>(seconds(sum), total, &buckets, None)
}

fn workers(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    let numbers: Vec<String> = (0..=most_workers(status))
        .map(|it| it.to_string())
        .collect();
    let chains = || {
        let chains = status.chains.iter();
        chains.map(|chain| {
            (
                vec![("node", &*chain.name), ("worker", &*numbers[chain.worker])],
                chain,
            )
        })
    };
    let records = chains().map(|(labels, chain)| (labels, count(chain.records)));
    let help = "Records that came into a chain: a source or a shuffle, with all steps up to the next shuffle";
    families.counters("node_records", help, None, records)?;
    let busy = chains().map(|(labels, chain)| (labels, seconds(chain.busy_micros)));
    let help = "Time that a chain was at work";
    families.counters("node_busy", help, Some(Unit::Seconds), busy)?;
    let times = status.workers.iter().flat_map(|worker| {
        let label = ("worker", &*numbers[worker.worker]);
        [
            ("busy", worker.busy_micros),
            ("blocked", worker.blocked_micros),
            ("idle", worker.idle_micros),
        ]
        .map(|(state, micros)| (vec![label, ("state", state)], seconds(micros)))
    });
    let help =
        "Time of a worker: busy with records, blocked by a commit or another worker, or idle";
    families.counters("worker_time", help, Some(Unit::Seconds), times)?;
    let label = |worker: usize| vec![("worker", &*numbers[worker])];
    let queues = status.workers.iter();
    let bytes = queues
        .clone()
        .map(|it| (label(it.worker), count(it.queue_bytes as u64)));
    let help = "Batches that wait for a worker, with the state that they will add";
    families.gauges("worker_queue", help, Some(Unit::Bytes), bytes)?;
    let records = queues.map(|it| (label(it.worker), count(it.queue_records as u64)));
    families.gauges(
        "worker_queue_records",
        "Records that wait for a worker",
        None,
        records,
    )
}

fn splits(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    let splits = || {
        let splits = status.splits.iter();
        splits.map(|split| {
            (
                vec![("source", &*split.source), ("split", &*split.split)],
                split,
            )
        })
    };
    let positions = splits().map(|(labels, split)| (labels, signed(split.position)));
    families.gauges("split_position", "The committed position", None, positions)?;
    let ends = splits().filter_map(|(labels, it)| Some((labels, signed(it.last_stable_offset?))));
    families.gauges(
        "split_last_stable_offset",
        "Where committed records end",
        None,
        ends,
    )?;
    let lags = splits().filter_map(|(labels, split)| Some((labels, count(split.lag?))));
    let help =
        "Offsets between the position and the last stable offset; ends of transactions count";
    families.gauges("split_lag_records", help, None, lags)?;
    let now = time(status.now);
    let held = splits().map(|(labels, split)| {
        let age = split.held_since.map_or(0.0, |since| now - time(since));
        (labels, age.max(0.0))
    });
    let help =
        "The age of the open transaction that keeps readers from what is behind it; 0 without one";
    families.gauges("split_held", help, Some(Unit::Seconds), held)?;
    let is_real = |time: &Timestamp| *time != Timestamp::MAX && *time != Timestamp::MIN;
    let watermark = |at: Option<Timestamp>| at.filter(is_real).map(time);
    let times = splits().filter_map(|(labels, it)| Some((labels, watermark(it.watermark)?)));
    let (help, unit) = ("The watermark of a split", Some(Unit::Seconds));
    families.gauges("split_watermark_timestamp", help, unit, times)?;
    let idle = splits().map(|(labels, it)| (labels, flag(it.state == SplitState::Idle)));
    families.gauges(
        "split_idle",
        "1 while event time goes on without the split",
        None,
        idle,
    )?;
    let holders = splits().map(|(labels, it)| (labels, flag(it.holds_time)));
    let help = "1 for the split that holds the event time of the job back";
    families.gauges("split_holds_time", help, None, holders)?;
    let behind = watermark(status.watermark()).map(|at| (vec![], time(status.now) - at));
    let help = "How far the event time of the job is behind the wall clock";
    families.gauges("event_time_lag", help, Some(Unit::Seconds), behind)
}

fn stores(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    let places = |rows: bool| {
        status.stores.iter().flat_map(move |store| {
            let values = match rows {
                true => [store.rows_in_memory, store.rows_on_disk],
                false => [store.memory_bytes, store.disk_bytes],
            };
            let [memory, disk] = values.map(count);
            let labels = |place| vec![("store", &*store.name), ("place", place)];
            [(labels("memory"), memory), (labels("disk"), disk)]
        })
    };
    families.gauges(
        "store_rows",
        "Rows of a store; those on disk are estimated",
        None,
        places(true),
    )?;
    families.gauges(
        "store_size",
        "The size of a store",
        Some(Unit::Bytes),
        places(false),
    )?;
    let of_each = |read: fn(&StoreStatus) -> u64| {
        let stores = status.stores.iter();
        stores.map(move |store| (vec![("store", &*store.name)], count(read(store))))
    };
    let dirty = of_each(|store| store.dirty_bytes);
    let help = "Rows in memory that RocksDB lacks, or is just given";
    families.gauges("store_dirty", help, Some(Unit::Bytes), dirty)?;
    let tail = of_each(|store| store.tail_bytes);
    let help = "The part of the changelog that a restart would replay, at most";
    families.gauges("store_tail", help, Some(Unit::Bytes), tail)?;
    let reads = status.stores.iter().flat_map(|store| {
        let labels = |answer| vec![("store", &*store.name), ("answer", answer)];
        [
            (labels("hit"), count(store.hits)),
            (labels("miss"), count(store.misses)),
        ]
    });
    let help =
        "Reads of a store that is larger than its memory: answered from memory, or by RocksDB";
    families.counters("store_reads", help, None, reads)
}

fn transactions(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    let count_of = |is_hanging: bool| {
        let open = status.transactions.iter();
        count(open.filter(|it| it.is_hanging == is_hanging).count() as u64)
    };
    let help = "Open transactions before which readers of the partitions of the job wait; nobody will end those that hang";
    let (open, hanging) = (vec![("state", "open")], vec![("state", "hanging")]);
    let values = [(open, count_of(false)), (hanging, count_of(true))];
    families.gauges("blocking_transactions", help, None, values)
}

fn most_workers(status: &Status) -> usize {
    let chains = status.chains.iter().map(|chain| chain.worker);
    let workers = status.workers.iter().map(|worker| worker.worker);
    chains.chain(workers).max().unwrap_or(0)
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// Prometheus has 64-bit floating-point numbers only; counts are exact up to 2⁵³.
#[expect(clippy::cast_precision_loss)]
fn count(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss)]
fn signed(value: i64) -> f64 {
    value as f64
}

fn seconds(micros: u64) -> f64 {
    count(micros) / 1e6
}

fn time(at: Timestamp) -> f64 {
    signed(at.0) / 1e3
}

//! The rules that hold of a data directory after its job has read everything, without a model of the job.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::Context;

use super::contents::for_each_record;
use crate::broker::BrokerConfig;
use crate::cli::group::transactions_of_job;
use crate::cli::output;
use crate::cli::session::Session;
use crate::env::Env;
use crate::log;
use crate::protocol::batch::{Batch, ControlType, DecompressionLimit};
use crate::protocol::messages::{OffsetSpec, TransactionState};
use crate::types::{GroupId, Isolation, Offset, TopicPartition};

/// The directory of the partitions in a data directory.
const LOG_DIRECTORY: &str = "log";

/// How far the jobs of a directory have come.
pub(super) struct Look {
    /// The committed positions of source topics, with the records behind them that are not read.
    pub(super) positions: Vec<(GroupId, TopicPartition, u64)>,
    /// Positions of files and others, which are not checked.
    pub(super) positions_of_files: usize,
}

/// All that was found without a model.
pub(super) struct Findings {
    pub(super) look: Look,
    /// How many transactional ids there are.
    pub(super) transactions: usize,
    /// Those with an open transaction.
    open: Vec<String>,
    /// The records that readers of committed records see, and those of aborted transactions.
    pub(super) visible: u64,
    pub(super) aborted: u64,
    /// Partitions of which readers see others than those.
    misread: Vec<String>,
}

impl Look {
    pub(super) fn unread(&self) -> String {
        let unread = self.positions.iter().map(|(_, _, unread)| unread);
        output::grouped(unread.sum())
    }

    /// Whether any job has committed anything.
    pub(super) fn has_positions(&self) -> bool {
        !self.positions.is_empty() || self.positions_of_files > 0
    }

    pub(super) fn problems(&self) -> Vec<String> {
        if !self.has_positions() {
            let why = "no job has committed a position: does the program use this data directory, and find its input?";
            return vec![why.to_owned()];
        }
        let behind = self.positions.iter().filter(|(_, _, unread)| *unread > 0);
        let told = behind.map(|(job, place, unread)| {
            format!("{job} has {unread} records of {place} still to read")
        });
        told.collect()
    }
}

impl Findings {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.look.problems();
        let open = self.open.iter();
        problems.extend(open.map(|id| format!("the transaction of {id} has not ended")));
        problems.extend(self.misread.iter().cloned());
        problems
    }
}

/// Does `work` on the directory, and closes it again.
pub(super) fn with_directory<T>(
    env: &Env,
    data: &Path,
    work: impl FnOnce(&Session) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let session = Session::open(env, data, BrokerConfig::default())?;
    let done = work(&session);
    let closed = session.close();
    let done = done?;
    closed?;
    Ok(done)
}

/// Looks how far the jobs of a directory have come.
pub(super) fn look(env: &Env, data: &Path) -> anyhow::Result<Look> {
    with_directory(env, data, |session| {
        let admin = session.admin();
        let mut look = Look {
            positions: Vec::new(),
            positions_of_files: 0,
        };
        for group in session.wait(admin.list_groups())? {
            if transactions_of_job(session, &group)?.is_empty() {
                continue;
            }
            let description = session.wait(admin.describe_group(&group))?;
            for (place, committed) in &description.offsets {
                match unread(session, place, committed.offset)? {
                    Some(unread) => look.positions.push((group.clone(), place.clone(), unread)),
                    None => look.positions_of_files += 1,
                }
            }
        }
        Ok(look)
    })
}

/// The committed records of a partition from `position` on; `None` if it is no topic's.
fn unread(
    session: &Session,
    place: &TopicPartition,
    position: Offset,
) -> anyhow::Result<Option<u64>> {
    let admin = session.admin();
    if session.wait(admin.topic(&place.topic)).is_err() {
        return Ok(None);
    }
    let mut unread = 0;
    for_each_record(session, place, position, &mut |_| unread += 1)?;
    Ok(Some(unread))
}

/// Checks everything that needs no model.
pub(super) fn check(env: &Env, data: &Path, look: Look) -> anyhow::Result<Findings> {
    let mut findings = Findings {
        look,
        transactions: 0,
        open: Vec::new(),
        visible: 0,
        aborted: 0,
        misread: Vec::new(),
    };
    let seen = with_directory(env, data, |session| {
        let transactions = session.wait(session.admin().list_transactions())?;
        findings.transactions = transactions.len();
        let is_open = |state| {
            !matches!(
                state,
                TransactionState::Empty
                    | TransactionState::CompleteCommit
                    | TransactionState::CompleteAbort
                    | TransactionState::Dead
            )
        };
        let open = transactions.into_iter().filter(|it| is_open(it.state));
        findings.open = open.map(|it| it.transactional_id.to_string()).collect();
        records_seen(session)
    })?;
    for (place, (start, seen)) in seen {
        let counted = count_by_markers(env, data, &place, start)?;
        findings.visible += seen;
        findings.aborted += counted.aborted;
        if seen != counted.committed || counted.open > 0 {
            findings.misread.push(format!(
                "{place}: readers of committed records see {seen}, its markers say {} ({} are in no ended transaction)",
                counted.committed, counted.open
            ));
        }
    }
    Ok(findings)
}

/// For each partition its first offset, and how many records a reader of committed ones sees.
fn records_seen(session: &Session) -> anyhow::Result<BTreeMap<TopicPartition, (Offset, u64)>> {
    let admin = session.admin();
    let mut seen = BTreeMap::new();
    for topic in session.wait(admin.topics())? {
        for index in 0..topic.partitions_count {
            let place = TopicPartition::new(topic.name.clone(), index);
            let isolation = Isolation::ReadCommitted;
            let start = session.wait(admin.list_offset(&place, OffsetSpec::Earliest, isolation))?;
            let start = start.map_or(Offset::ZERO, |start| start.offset);
            let mut count = 0;
            for_each_record(session, &place, start, &mut |_| count += 1)?;
            seen.insert(place, (start, count));
        }
    }
    Ok(seen)
}

/// Records by what became of their transactions; those outside of transactions count as committed.
#[derive(Default)]
struct Counted {
    committed: u64,
    aborted: u64,
    /// Of transactions without an end.
    open: u64,
}

/// Counts a partition's records from its files, by the markers in them.
fn count_by_markers(
    env: &Env,
    data: &Path,
    place: &TopicPartition,
    start: Offset,
) -> anyhow::Result<Counted> {
    let name = format!("{}-{}", place.topic, place.partition);
    let directory = data.join(LOG_DIRECTORY).join(name);
    let mut counted = Counted::default();
    // The pending records of each producer.
    let mut pending: HashMap<i64, u64> = HashMap::new();
    let mut failed = Ok(());
    let mut visit = |dumped: log::DumpedBatch| {
        failed = count_batch(&dumped.batch, start, &mut counted, &mut pending);
        failed.is_ok()
    };
    let read = log::dump(env, &directory, &mut visit);
    read.with_context(|| format!("cannot read the files of {place}"))?;
    failed?;
    counted.open = pending.values().sum();
    Ok(counted)
}

fn count_batch(
    batch: &Batch,
    start: Offset,
    counted: &mut Counted,
    pending: &mut HashMap<i64, u64>,
) -> anyhow::Result<()> {
    let header = batch.header();
    let producer = header.producer.id.0;
    if header.is_control() {
        let records = pending.remove(&producer).unwrap_or(0);
        match batch.control()?.map(|control| control.kind) {
            Some(ControlType::Commit) => counted.committed += records,
            Some(ControlType::Abort) => counted.aborted += records,
            None => {}
        }
        return Ok(());
    }
    let mut records = batch.records(&DecompressionLimit::default())?;
    let mut count = 0;
    while let Some(record) = records.next() {
        count += u64::from(record?.offset >= start);
    }
    match header.is_transactional() {
        true => *pending.entry(producer).or_default() += count,
        false => counted.committed += count,
    }
    Ok(())
}

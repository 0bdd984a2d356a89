//! Opening: what a crash left is finished before anything can be read (I1), but for the transactions of producers that
//! outlived the process.
//!
//! ```text
//! lock → unfinished topics → the transaction journal (decisions, and the durable marks in them)
//!      → the offsets journal → all partitions, each with its mark → sync → decided transactions forward, lost ones back
//! ```
//! Each step may be interrupted and done again (C9).

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use parking_lot::Mutex;

use super::admin::log_config;
use super::ballast::Ballast;
use super::checkpoints::{Checkpoints, partition_dir};
use super::configs::Configs;
use super::core::Core;
use super::directory::{Directory, Opening};
use super::groups::Groups;
use super::holds::Holds;
use super::housekeeping::{Checkpointed, Stop};
use super::journal::attested_end;
use super::partition::Partition;
use super::sync::SyncQueue;
use super::sync_helpers::SyncHelpers;
use super::timer::Timer;
use super::topics::{Topic, TopicEntry, TopicList, Topics};
use super::transactions::Transactions;
use super::{BrokerConfig, BrokerError};
use crate::coordinator::group::GroupCoordinator;
use crate::coordinator::transaction::{DurableEnd, Found, OpenTransaction, TransactionCoordinator};
use crate::coordinator::{
    CONSUMER_OFFSETS_TOPIC, CoordinatorError, Now, TRANSACTION_STATE_TOPIC, transaction,
    transaction_log,
};
use crate::env::{Env, failpoint};
use crate::log::{Evidence, LogConfig, PartitionLog, RecoveryMarks, SegmentCache};
use crate::protocol::batch::{Batch, Batches, ControlType, DecompressionLimit};
use crate::protocol::messages::TransactionResult;
use crate::protocol::{ErrorCode, ErrorKind};
use crate::types::{Isolation, Offset, ProducerId, TopicId, TopicName, TopicPartition};

/// A journal is replayed in pieces of so many bytes.
const REPLAY_BYTES: usize = 4 << 20;
/// Small segments keep a journal, and so its replay, short: only sealed ones are compacted.
const JOURNAL_SEGMENT_BYTES: &str = "16777216";

/// Opens the data directory and recovers it.
pub(super) fn open(
    env: &Env,
    data_dir: &Path,
    config: BrokerConfig,
) -> Result<Arc<Core>, BrokerError> {
    let directory = Directory::open(env, data_dir)?;
    let span = tracing::info_span!("recovery", data_dir = %data_dir.display());
    let _entered = span.enter();
    failpoint("open.locked");
    let mut list = directory.read_topics()?;
    directory.finish_topics(&mut list)?;
    for journal in [TRANSACTION_STATE_TOPIC, CONSUMER_OFFSETS_TOPIC] {
        ensure_journal(&directory, &config, &mut list, &TopicName::new(journal)?)?;
    }
    let opener = Opener::new(env, &directory, config)?;
    let core = opener.open(directory, list)?;
    failpoint("open.ready");
    tracing::info!(topics = core.topics.all().len(), "the log is open");
    Ok(core)
}

/// Creates a coordinator's topic in a new data directory.
fn ensure_journal(
    directory: &Directory,
    config: &BrokerConfig,
    list: &mut TopicList,
    name: &TopicName,
) -> Result<(), BrokerError> {
    if list.topics.contains_key(name.as_str()) {
        return Ok(());
    }
    let env = directory.env();
    let id = TopicId(env.random.next_u128());
    let configs = Configs::from([
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        ("segment.bytes".to_owned(), JOURNAL_SEGMENT_BYTES.to_owned()),
    ]);
    let log_config = log_config(config, name, &configs)?;
    directory.change_list(list, |list| {
        let entry = TopicEntry {
            id: id.to_string(),
            partitions_count: 0,
            growing_to: Some(1),
            is_deleting: false,
            configs,
        };
        list.topics.insert(name.as_str().to_owned(), entry);
    })?;
    let partition = TopicPartition::new(name.clone(), 0);
    let dir = partition_dir(&directory.log_dir(), &partition);
    drop(PartitionLog::create(env, &dir, id, log_config)?);
    directory.change_list(list, |list| {
        if let Some(entry) = list.topics.get_mut(name.as_str()) {
            entry.partitions_count = 1;
            entry.growing_to = None;
        }
    })
}

/// State of the partitions before they are opened.
struct Opener {
    env: Env,
    config: BrokerConfig,
    checkpoints: Checkpoints,
    checkpointed: Checkpointed,
    is_clean: bool,
    /// From decision records: see `transaction_log::durable_ends`.
    durable_ends: HashMap<(TopicPartition, TopicId), Offset>,
    segments: Arc<SegmentCache>,
    opening: Opening,
    /// Whether a log was found to lack what had been written to it.
    has_loss: Cell<bool>,
}

/// The journals and partitions that an opening read.
struct Read {
    topics: Vec<Topic>,
    transactions: Transactions,
    groups: Groups,
}

impl Opener {
    fn new(env: &Env, directory: &Directory, config: BrokerConfig) -> Result<Self, BrokerError> {
        let checkpoints = Checkpoints::new(env, directory.log_dir());
        let mut opener = Self {
            env: env.clone(),
            config,
            checkpointed: Checkpointed {
                recovery_points: checkpoints.read_recovery_points()?,
                log_starts: checkpoints.read_log_starts()?,
            },
            is_clean: checkpoints.is_clean()?,
            checkpoints,
            durable_ends: HashMap::new(),
            segments: SegmentCache::new(env),
            opening: Opening::default(),
            has_loss: Cell::new(false),
        };
        // From here on files change: a crash now must be seen as one.
        opener.checkpoints.remove_clean()?;
        opener.opening = directory.begin_opening(opener.is_clean)?;
        Ok(opener)
    }

    fn open(mut self, directory: Directory, list: TopicList) -> Result<Arc<Core>, BrokerError> {
        let read = match self.read(&directory, &list) {
            Ok(read) => read,
            Err(error) => return Err(directory.note_failure(error)),
        };
        let opening = self.opening;
        let holds = directory.read_holds()?;
        let core = self.into_core(
            (directory, holds),
            Topics::new(list, read.topics),
            read.transactions,
            read.groups,
        );
        if let Err(error) = core.finish_recovery(opening) {
            return Err(core.directory.note_failure(error));
        }
        core.tell_groups_of_topics();
        Ok(Arc::new(core))
    }

    /// Reads the journals and all partitions, and leaves what they say on the disk.
    fn read(&mut self, directory: &Directory, list: &TopicList) -> Result<Read, BrokerError> {
        let now = Now {
            instant: self.env.clock.now(),
            wall: self.env.clock.wall(),
        };
        let log_dir = directory.log_dir();
        let (transaction_topic, transaction_journal) =
            self.open_journal(&log_dir, list, TRANSACTION_STATE_TOPIC)?;
        let transactions = self.replay_transactions(&transaction_journal, now)?;
        let (offsets_topic, offsets_journal) =
            self.open_journal(&log_dir, list, CONSUMER_OFFSETS_TOPIC)?;
        let groups = self.replay_groups(&offsets_journal, now)?;
        failpoint("open.journals_read");
        let mut topics = vec![transaction_topic, offsets_topic];
        for (name, entry) in &list.topics {
            let name = TopicName::new(name)?;
            if !name.is_internal() {
                topics.push(self.open_topic(&log_dir, &name, entry)?);
            }
        }
        failpoint("open.partitions_read");
        if self.opening.is_cache_suspect {
            // A failed sync of the directory may have left the new list's name in memory only.
            directory.write_topics(list)?;
            directory.trust_cache()?;
            tracing::info!("what a failed write or sync may have left in memory was written again");
        }
        if self.has_loss.get() {
            crate::env::warn!(
                "records are missing that had been written: open transactions are aborted, as after a power loss"
            );
            self.opening = directory.note_loss()?;
        }
        Ok(Read {
            topics,
            transactions: Transactions::new(transactions, transaction_journal),
            groups: Groups::new(groups, offsets_journal),
        })
    }

    fn into_core(
        self,
        (directory, holds): (Directory, Holds),
        topics: Topics,
        transactions: Transactions,
        groups: Groups,
    ) -> Core {
        let ballast = Ballast::new(
            &self.env,
            directory.ballast_path(),
            self.config.ballast_bytes,
        );
        Core {
            env: self.env,
            segments: self.segments,
            config: self.config,
            directory,
            topics,
            transactions,
            groups,
            syncs: SyncQueue::default(),
            sync_helpers: SyncHelpers::default(),
            timer: Timer::default(),
            house: Stop::default(),
            housekeeping: Mutex::default(),
            ballast,
            holds,
            checkpoints: self.checkpoints,
            checkpointed: Mutex::new(self.checkpointed),
            unflushed: Mutex::default(),
            unflushed_until: Mutex::default(),
            refusal: OnceLock::new(),
            closed: OnceLock::new(),
            readers_count: AtomicU64::new(0),
            leader_epoch: self.opening.epoch,
        }
    }

    fn open_topic(
        &self,
        log_dir: &Path,
        name: &TopicName,
        entry: &TopicEntry,
    ) -> Result<Topic, BrokerError> {
        let id = entry.topic_id(name.as_str())?;
        let partitions = (0..entry.partitions_count)
            .map(|index| TopicPartition::new(name.clone(), index))
            .map(|partition| self.open_partition(log_dir, partition, id, &entry.configs))
            .collect::<Result<_, _>>()?;
        Ok(Topic {
            name: name.clone(),
            id,
            partitions,
            configs: entry.configs.clone(),
        })
    }

    /// Opens a partition. One that is damaged is kept offline, with the reason; every other error is the directory's.
    fn open_partition(
        &self,
        log_dir: &Path,
        name: TopicPartition,
        id: TopicId,
        configs: &Configs,
    ) -> Result<Arc<Partition>, BrokerError> {
        let log = match self.open_log(log_dir, &name, id, configs) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                crate::env::error!(partition = %name, error = error.message, "the partition stays offline");
                Err(error)
            }
            Err(error) => return Err(error),
            Ok(log) => Ok(log),
        };
        Ok(Arc::new(Partition::new(name, log)))
    }

    fn open_log(
        &self,
        log_dir: &Path,
        name: &TopicPartition,
        id: TopicId,
        configs: &Configs,
    ) -> Result<PartitionLog, BrokerError> {
        let dir = partition_dir(log_dir, name);
        let exists = self.env.files.exists(&dir);
        if !exists.map_err(|e| super::error::io_error(&e, "look for", &dir))? {
            return Err(BrokerError::corrupt(format!(
                "the directory {} of partition {name} is missing: restore it from a backup, or delete the topic",
                dir.display()
            )));
        }
        let config = LogConfig {
            leader_epoch: self.opening.epoch,
            ..log_config(&self.config, &name.topic, configs)?
        };
        // F9: of a journal, whole records behind damage say whether that is a torn tail.
        let of_journal = |batch: &Batch| attested_end(batch, &name.topic, id);
        let evidence: Option<&Evidence<'_>> = name.topic.is_internal().then_some(&of_journal);
        let (env, marks) = (&self.env, self.marks(name, id));
        let (mut log, report) =
            PartitionLog::open_with_evidence(env, &dir, config, marks, &self.segments, evidence)?;
        if log.topic_id() != id {
            return Err(BrokerError::corrupt(format!(
                "{} belongs to another topic (its id is {}, not {id}): put the right directory back",
                dir.display(),
                log.topic_id()
            )));
        }
        if report.cut_bytes > 0 {
            tracing::info!(partition = %name, cut_bytes = report.cut_bytes, "cut a torn tail");
        }
        if report.has_lost_batches {
            self.has_loss.set(true);
        }
        // What recovery builds on must not be lost by a second crash: a decision that is acted upon, above all.
        if let Some(plan) = log.plan_sync() {
            plan.execute()?;
            log.synced(&plan);
        }
        Ok(log)
    }

    fn marks(&self, name: &TopicPartition, id: TopicId) -> RecoveryMarks {
        let recovery_point = self.checkpointed.recovery_points.get(name);
        let decided = self.durable_ends.get(&(name.clone(), id));
        let log_start = self.checkpointed.log_starts.get(name);
        RecoveryMarks {
            durable_end: recovery_point.max(decided).copied().unwrap_or_default(),
            log_start: log_start.copied().unwrap_or_default(),
            clean_shutdown: self.is_clean,
            clean_end: recovery_point.copied().filter(|_| self.is_clean),
            is_cache_suspect: self.opening.is_cache_suspect,
        }
    }

    /// Opens a coordinator's topic. Without its journal nothing is known of any outcome, so damage there refuses
    /// the whole directory (F9).
    fn open_journal(
        &self,
        log_dir: &Path,
        list: &TopicList,
        name: &str,
    ) -> Result<(Topic, Arc<Partition>), BrokerError> {
        let entry = list.topics.get(name).ok_or_else(|| missing_journal(name))?;
        let topic = self.open_topic(log_dir, &TopicName::new(name)?, entry)?;
        let partition = topic.partition(0).cloned();
        let partition = partition.ok_or_else(|| missing_journal(name))?;
        match partition.offline() {
            Some(why) => Err(why),
            None => Ok((topic, partition)),
        }
    }

    fn replay_transactions(
        &mut self,
        journal: &Partition,
        now: Now,
    ) -> Result<TransactionCoordinator, BrokerError> {
        let mut machine = TransactionCoordinator::new(transaction::Config {
            transaction_max_timeout: self.config.transaction_max_timeout,
            transactional_id_expiration: self.config.transactional_id_expiration,
            opening: self.opening.epoch,
            ..transaction::Config::default()
        });
        replay(journal, |batch| {
            let mut records = batch.records(&DecompressionLimit::default())?;
            while let Some(record) = records.next() {
                let record = record?;
                let key = record.key.unwrap_or_default();
                machine.replay(key, record.value, now)?;
                for end in transaction_log::durable_ends(key, record.value)? {
                    self.note_durable_end(end);
                }
            }
            Ok(())
        })?;
        Ok(machine)
    }

    fn note_durable_end(&mut self, end: DurableEnd) {
        let known = self
            .durable_ends
            .entry((end.partition, end.topic_id))
            .or_default();
        *known = end.offset.max(*known);
    }

    fn replay_groups(
        &self,
        journal: &Partition,
        now: Now,
    ) -> Result<GroupCoordinator, BrokerError> {
        let mut machine = GroupCoordinator::new(self.config.groups.clone());
        replay(journal, |batch| {
            let header = *batch.header();
            if let Some(marker) = batch.control()? {
                let result = match marker.kind {
                    ControlType::Commit => TransactionResult::Commit,
                    ControlType::Abort => TransactionResult::Abort,
                };
                machine.replay_marker(header.producer.id, result);
                return Ok(());
            }
            let producer_id = match header.is_transactional() {
                true => header.producer.id,
                false => ProducerId::NONE,
            };
            let mut records = batch.records(&DecompressionLimit::default())?;
            while let Some(record) = records.next() {
                let record = record?;
                let key = record.key.unwrap_or_default();
                machine.replay(producer_id, record.offset, key, record.value, now)?;
            }
            Ok(())
        })?;
        Ok(machine)
    }
}

impl Core {
    /// Decides every transaction that was found open and that nobody may go on with, before anybody can ask anything.
    fn finish_recovery(&self, opening: Opening) -> Result<(), BrokerError> {
        let mut open = Vec::new();
        let mut unreadable = BTreeSet::new();
        for partition in self.topics.partitions() {
            let Ok(log) = partition.lock() else {
                unreadable.insert(partition.name.clone());
                continue;
            };
            let of_partition = log.open_transactions().into_iter();
            open.extend(of_partition.map(|(producer, _)| OpenTransaction {
                partition: partition.name.clone(),
                producer,
            }));
        }
        if !open.is_empty() {
            tracing::info!(count = open.len(), "transactions were open");
        }
        self.check_journal_leads()?;
        failpoint("open.before_roll");
        self.finish_transactions(Found {
            open,
            unreadable,
            whole_since: opening.whole_since,
        })?;
        failpoint("open.after_roll");
        if !self.transactions.is_recovered() {
            return Err(self.explain_unfinished());
        }
        self.ballast.hold();
        Ok(())
    }

    /// The journal is written and synced before any partition sees a new epoch (I3, I4), so a partition that knows a
    /// later one shows that the journal lost its end, or is a copy that was made before the partition's (F9, F24).
    fn check_journal_leads(&self) -> Result<(), BrokerError> {
        if !self.is_fsync() {
            return Ok(());
        }
        let known = self.transactions.list().into_iter();
        let known: HashMap<_, _> = known
            .map(|it| (it.producer_id, it.producer_epoch))
            .collect();
        for partition in self.topics.partitions() {
            let Ok(log) = partition.lock() else { continue };
            for found in log.producers() {
                let producer = found.producer;
                if let Some(&epoch) = known.get(&producer.id).filter(|&&it| it < producer.epoch) {
                    return Err(BrokerError::corrupt(format!(
                        "{} holds epoch {} of producer {}, but {} only knows of epochs up to {epoch}: the journal lost its end, or the directory was copied while it was in use; restore the whole directory from one copy",
                        partition.name,
                        producer.epoch.0,
                        producer.id.0,
                        self.transactions.journal().name,
                        epoch = epoch.0,
                    )));
                }
            }
        }
        Ok(())
    }

    fn explain_unfinished(&self) -> BrokerError {
        let offline: Vec<_> = self
            .topics
            .partitions()
            .iter()
            .filter_map(|partition| partition.offline())
            .map(|why| why.message)
            .collect();
        match offline.is_empty() {
            true => super::transactions::storage_full(),
            false => BrokerError::corrupt(format!(
                "a transaction cannot be finished, because a partition of it is damaged: {}",
                offline.join("; ")
            )),
        }
    }
}

/// Shows every batch of a journal to `take`, in order.
fn replay(
    journal: &Partition,
    mut take: impl FnMut(&Batch) -> Result<(), ReplayError>,
) -> Result<(), BrokerError> {
    let (mut next, end) = {
        let log = journal.lock()?;
        (log.log_start_offset(), log.log_end_offset())
    };
    while next < end {
        let plan = journal
            .lock()?
            .plan_read(next, REPLAY_BYTES, Isolation::ReadUncommitted)?;
        let records = plan.execute()?.records;
        let reached = replay_batches(records, &mut take).map_err(|e| e.of(journal, next))?;
        match reached {
            Some(reached) if reached > next => next = reached,
            _ => break,
        }
    }
    Ok(())
}

fn replay_batches(
    records: Bytes,
    take: &mut impl FnMut(&Batch) -> Result<(), ReplayError>,
) -> Result<Option<Offset>, ReplayError> {
    let mut reached = None;
    for batch in Batches::new(records) {
        let batch = batch?;
        take(&batch)?;
        reached = Some(batch.header().next_offset());
    }
    Ok(reached)
}

/// Failure to take in a journal's record.
struct ReplayError {
    kind: ErrorKind,
    why: String,
}

impl ReplayError {
    fn of(self, journal: &Partition, from: Offset) -> BrokerError {
        let message = format!(
            "{}, read from offset {from}, cannot be replayed: {}",
            journal.name, self.why
        );
        match self.kind {
            ErrorKind::Corrupt => BrokerError::corrupt(message),
            _ => BrokerError::fatal(ErrorCode::UnsupportedVersion, message),
        }
    }
}

impl From<crate::protocol::batch::BatchError> for ReplayError {
    fn from(error: crate::protocol::batch::BatchError) -> Self {
        Self {
            kind: ErrorKind::Corrupt,
            why: error.to_string(),
        }
    }
}

impl From<CoordinatorError> for ReplayError {
    fn from(error: CoordinatorError) -> Self {
        Self {
            kind: error.kind(),
            why: error.to_string(),
        }
    }
}

fn missing_journal(name: &str) -> BrokerError {
    BrokerError::corrupt(format!(
        "topics.json does not list the topic {name}: restore the file from a backup"
    ))
}

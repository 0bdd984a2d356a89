//! The state of one job in one process: a RocksDB, the positions that it covers, and the memory that all stores share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rocksdb::{DB, FlushOptions, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions};

use super::budget::{MemoryShares, TableBudget};
use super::claims::in_use;
use super::config::StateConfig;
use super::error::StateError;
use super::flush::FlushBatch;
use super::key_prefix::is_of_one_key;
use super::prepare::{damage_mark, open_or_rebuild, prepare};
use super::ranges::Direction;
use super::rocks::{self, POSITIONS, column_family};
use super::view::Views;
use crate::codec::CodecId;
use crate::env::{Env, Instant, bound_allocator, failpoint};
use crate::types::Offset;

/// Less makes RocksDB flush at every write.
const ROCKS_BYTES_MIN: usize = 4 << 20;
/// Write batches of a flush are about so large at least.
const WRITE_BYTES_MIN: usize = 1 << 20;

/// The state of one job in one process. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct StateBackend {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) env: Env,
    pub(super) directory: PathBuf,
    pub(super) config: StateConfig,
    names: HashMap<String, Arc<str>>,
    pub(super) db: DB,
    memtables: WriteBufferManager,
    table_budget: Arc<TableBudget>,
    pub(super) claimed: Mutex<HashSet<(Arc<str>, u16)>>,
    pub(super) progress: Mutex<Progress>,
    rebuilt: Option<String>,
    views: Views,
}

/// The positions of one state partition of one store each.
type Positions = HashMap<(Arc<str>, u16), Offset>;

/// Takes the value of one key that was asked for.
pub(super) type TakeValue<'a> = dyn FnMut(Option<&[u8]>) -> Result<(), StateError> + 'a;

/// Is shown a key and its value, and says whether to go on.
pub(super) type VisitStored<'a> =
    dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StateError> + 'a;

#[derive(Default)]
pub(super) struct Progress {
    /// Positions of RocksDB's answers, memtables included.
    pub(super) latest: Positions,
    /// Positions on RocksDB's disk for sure: its own flushes may have brought more.
    durable: Positions,
    /// Changelog bytes between the two.
    tail_bytes: u64,
    /// The same by store, until they are on disk.
    pub(super) tails: BTreeMap<Arc<str>, u64>,
    last_durable: Instant,
    /// Error of an earlier write.
    failure: Option<String>,
}

impl StateBackend {
    /// Opens the state in `directory` (whose parent exists), or begins it. What is missing or damaged is wiped:
    /// then [`rebuilt`](Self::rebuilt) says why, and the positions say `None`.
    ///
    /// glibc's allocator is told to keep less back, see [`bound_allocator`].
    ///
    /// # Errors
    /// If the state was written by another topology, number of state partitions, codec or a newer version; if
    /// another process has it open; if the disk fails.
    ///
    /// # Panics
    /// If `state_partitions` is 0.
    pub fn open(env: &Env, directory: &Path, config: StateConfig) -> Result<Self, StateError> {
        assert!(config.state_partitions > 0, "state needs a partition");
        env.files
            .create_dir(directory)
            .map_err(|e| StateError::io("create", directory, e))?;
        let mut rebuilt = prepare(env, directory, &config)?;
        bound_allocator();
        let shares = MemoryShares::of(config.memory_bytes);
        let (options, memtables) =
            rocks::options_and_memtables(shares.rocks_bytes.max(ROCKS_BYTES_MIN));
        let opened = open_or_rebuild(env, directory, &config, &options, &mut rebuilt)?;
        if let Some(why) = &rebuilt {
            crate::env::warn!(directory = %directory.display(), why, "state is rebuilt from the changelog");
        }
        let names = config
            .stores
            .iter()
            .map(|store| (store.name.clone(), store.name.as_str().into()));
        let shared = Shared {
            env: env.clone(),
            directory: directory.to_owned(),
            names: names.collect(),
            db: opened.db,
            memtables,
            table_budget: Arc::new(TableBudget::new(shares.tables_bytes)),
            config,
            claimed: Mutex::default(),
            progress: Mutex::default(),
            rebuilt,
            views: Views::default(),
        };
        shared.forget_positions_of(&opened.created)?;
        let positions = shared.load_positions()?;
        *shared.progress.lock() = Progress {
            latest: positions.clone(),
            durable: positions,
            last_durable: env.clock.now(),
            ..Progress::default()
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Returns why [`open`](Self::open) wiped all state, if it did.
    #[must_use]
    pub fn rebuilt(&self) -> Option<&str> {
        self.shared.rebuilt.as_deref()
    }

    /// The changelog offset from which a restore of this state partition begins: all before it is in RocksDB.
    /// `None`: nothing is, restore from the changelog's start.
    #[must_use]
    pub fn position(&self, store: &str, state_partition: u16) -> Option<Offset> {
        let progress = self.shared.progress.lock();
        self.shared
            .look_up(&progress.latest, store, state_partition)
    }

    /// The changelog offset from which a restore after the death of this process would begin: the changelog may be
    /// truncated below it. It never leads [`position`](Self::position).
    #[must_use]
    pub fn durable_position(&self, store: &str, state_partition: u16) -> Option<Offset> {
        let progress = self.shared.progress.lock();
        self.shared
            .look_up(&progress.durable, store, state_partition)
    }

    /// Writes what a store changed, with the changelog offsets that it covers, each state partition all at once;
    /// `positions` has each state partition of the batch and may have others of the store. Call it only after the cycle
    /// is committed (I7), and for one store in the order in which the batches were taken. It waits while RocksDB's
    /// memtables are over their bound, so it may write to disk and take seconds.
    ///
    /// # Errors
    /// If RocksDB fails, now or in an earlier call (S5): the job must stop; nothing committed is lost.
    ///
    /// # Panics
    /// If a partition of the batch has no position, or a position goes back.
    pub fn flush(
        &self,
        mut batch: FlushBatch,
        positions: &[(u16, Offset)],
    ) -> Result<(), StateError> {
        let store = self.shared.name_of(batch.store())?;
        self.shared.check_positions(&store, positions);
        batch.sort();
        let tail_bytes = batch.changelog_bytes();
        failpoint("state.before_flush");
        self.shared.write_partitions(&batch, positions)?;
        drop(batch);
        failpoint("state.after_flush");
        self.note_written(&store, positions, tail_bytes)
    }

    /// RocksDB has what is below these positions; brings it to the disk if much is not there yet.
    pub(super) fn note_written(
        &self,
        store: &Arc<str>,
        positions: &[(u16, Offset)],
        tail_bytes: u64,
    ) -> Result<(), StateError> {
        let is_durable_due = {
            let mut progress = self.shared.progress.lock();
            for &(partition, offset) in positions {
                progress
                    .latest
                    .insert((Arc::clone(store), partition), offset);
            }
            progress.tail_bytes += tail_bytes;
            *progress.tails.entry(Arc::clone(store)).or_default() += tail_bytes;
            self.shared.is_durable_due(&progress)
        };
        match is_durable_due {
            true => self.make_durable(),
            false => Ok(()),
        }
    }

    /// Brings everything that was flushed to RocksDB to the disk.
    ///
    /// # Errors
    /// If RocksDB fails, now or in an earlier call.
    pub fn make_durable(&self) -> Result<(), StateError> {
        let (covered, tails) = {
            let mut progress = self.shared.progress.lock();
            progress.tail_bytes = 0;
            progress.last_durable = self.shared.env.clock.now();
            (progress.latest.clone(), progress.tails.clone())
        };
        failpoint("state.before_durable");
        self.shared.sync_column_families()?;
        failpoint("state.after_durable");
        let mut progress = self.shared.progress.lock();
        progress.durable = covered;
        // What was written meanwhile stays.
        for (store, left) in &mut progress.tails {
            *left -= tails.get(store).copied().unwrap_or(0).min(*left);
        }
        Ok(())
    }

    /// Returns the change budget of one cycle, all stores together, in bytes: past it the runtime closes the cycle early,
    /// and sources stand still until the next one (I10).
    #[must_use]
    pub fn overlay_bytes_max(&self) -> usize {
        self.shared.table_budget.overlay_bytes_max()
    }

    /// Forgets a state partition of a store, whose changelog no longer reaches back to its position (S6). It must not be open.
    ///
    /// # Errors
    /// If the store was not declared, the partition is open, or RocksDB fails.
    pub fn wipe(&self, store: &str, state_partition: u16) -> Result<(), StateError> {
        let name = self.shared.name_of(store)?;
        let key = (name, state_partition);
        if self.shared.claimed.lock().contains(&key) {
            return Err(in_use(store, state_partition));
        }
        let mut write = WriteBatch::default();
        let (from, to) = (state_partition, u32::from(state_partition) + 1);
        let end =
            u16::try_from(to).map_or_else(|_| vec![u8::MAX; 3], |to| to.to_be_bytes().to_vec());
        write.delete_range_cf(
            &self.shared.family(store)?,
            from.to_be_bytes().to_vec(),
            end,
        );
        let positions = self.shared.handle(POSITIONS)?;
        write.delete_cf(&positions, rocks::position_key(store, state_partition));
        self.shared.write(write)?;
        let mut progress = self.shared.progress.lock();
        progress.latest.remove(&key);
        progress.durable.remove(&key);
        Ok(())
    }

    /// Makes everything durable and stops RocksDB's own work. Flush what the stores hold before.
    ///
    /// # Errors
    /// If RocksDB fails, now or in an earlier call.
    pub fn close(&self) -> Result<(), StateError> {
        self.make_durable()?;
        self.shared.db.cancel_all_background_work(true);
        Ok(())
    }

    pub(super) fn config(&self) -> &StateConfig {
        &self.shared.config
    }

    pub(super) fn now(&self) -> Instant {
        self.shared.env.clock.now()
    }

    /// The committed values, for readers on other threads.
    pub(crate) fn views(&self) -> &Views {
        &self.shared.views
    }

    pub(super) fn table_budget(&self) -> &Arc<TableBudget> {
        &self.shared.table_budget
    }

    /// Reads sorted stored keys; `each` gets their values in the same order.
    pub(super) fn read_many<'k>(
        &self,
        store: &str,
        keys: impl Iterator<Item = &'k [u8]>,
        each: &mut TakeValue<'_>,
    ) -> Result<(), StateError> {
        let family = self.shared.family(store)?;
        for value in self.shared.db.batched_multi_get_cf(&family, keys, true) {
            let value = value.map_err(|e| self.shared.failed("read", e))?;
            each(value.as_deref())?;
        }
        Ok(())
    }

    /// Shows the keys, without their state partition, and values of a range of stored keys.
    pub(super) fn scan(
        &self,
        store: &str,
        from: &[u8],
        to: Option<Vec<u8>>,
        direction: Direction,
        visit: &mut VisitStored<'_>,
    ) -> Result<(), StateError> {
        let family = self.shared.family(store)?;
        let mut read = ReadOptions::default();
        // A filter knows of prefixes only, and is asked for that of the key that is sought: the first one.
        let is_filtered = direction == Direction::Forward
            && to.as_deref().is_some_and(|to| is_of_one_key(from, to));
        read.set_total_order_seek(!is_filtered);
        if let Some(to) = to {
            read.set_iterate_upper_bound(to);
        }
        read.set_iterate_lower_bound(from);
        let mut iterator = self.shared.db.raw_iterator_cf_opt(&family, read);
        match direction {
            Direction::Forward => iterator.seek_to_first(),
            Direction::Backward => iterator.seek_to_last(),
        }
        while let Some((key, value)) = iterator.item() {
            let key = key.split_first_chunk::<2>().map_or(key, |(_, key)| key);
            if visit(key, value)?.is_break() {
                return Ok(());
            }
            match direction {
                Direction::Forward => iterator.next(),
                Direction::Backward => iterator.prev(),
            }
        }
        iterator.status().map_err(|e| self.shared.failed("read", e))
    }
}

impl StateBackend {
    /// The stores that tell values of version 1 from later ones.
    pub(crate) fn stores_told_apart(&self) -> Vec<&str> {
        let stores = self.shared.config.stores.iter();
        let told = stores.filter(|store| store.schema.codec.are_told_apart());
        told.map(|store| &*store.name).collect()
    }

    /// Whether a store is one of them.
    pub(crate) fn are_told_apart(&self, store: &str) -> bool {
        self.stores_told_apart().contains(&store)
    }
}

impl std::fmt::Debug for StateBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateBackend")
            .field("directory", &self.shared.directory)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn look_up(&self, positions: &Positions, store: &str, state_partition: u16) -> Option<Offset> {
        let name = Arc::clone(self.names.get(store)?);
        positions.get(&(name, state_partition)).copied()
    }

    pub(super) fn name_of(&self, store: &str) -> Result<Arc<str>, StateError> {
        let unknown = || StateError::UnknownStore {
            store: store.to_owned(),
        };
        self.names.get(store).cloned().ok_or_else(unknown)
    }

    pub(super) fn check_codec(&self, store: &str, asked: CodecId) -> Result<(), StateError> {
        let declared = self
            .config
            .stores
            .iter()
            .find(|declared| declared.name == store);
        match declared {
            Some(declared) if declared.schema.codec.of_values() != asked => {
                Err(StateError::CodecChanged {
                    store: store.to_owned(),
                    stored: declared.schema.codec,
                    asked,
                })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_positions(&self, store: &Arc<str>, positions: &[(u16, Offset)]) {
        let progress = self.progress.lock();
        for &(partition, offset) in positions {
            let before = progress.latest.get(&(Arc::clone(store), partition));
            assert!(
                before.is_none_or(|&before| before <= offset),
                "the position of {store:?}-{partition} would go back from {before:?} to {offset}"
            );
        }
    }

    fn handle(&self, name: &str) -> Result<Arc<rocksdb::BoundColumnFamily<'_>>, StateError> {
        rocks::handle(&self.db, name, &self.directory)
    }

    pub(super) fn family(
        &self,
        store: &str,
    ) -> Result<Arc<rocksdb::BoundColumnFamily<'_>>, StateError> {
        self.handle(&column_family(store))
    }

    /// Writes a sorted batch in as many write batches as keep each small; a state partition is never divided, and its
    /// position goes with its values (I7).
    fn write_partitions(
        &self,
        batch: &FlushBatch,
        positions: &[(u16, Offset)],
    ) -> Result<(), StateError> {
        let store = batch.store();
        let family = self.family(store)?;
        let mut write = WriteBatch::default();
        let mut current = None;
        for (key, value) in batch.iter() {
            let partition = key
                .first_chunk::<2>()
                .map(|bytes| u16::from_be_bytes(*bytes));
            if partition != current {
                if write.size_in_bytes() >= WRITE_BYTES_MIN {
                    self.write_and_wait(std::mem::take(&mut write))?;
                }
                current = partition;
                // I7: no value without the position that covers it.
                let position = positions.iter().find(|(p, _)| Some(*p) == partition);
                let &position = position.unwrap_or_else(|| {
                    panic!("{store:?}-{partition:?} is flushed without its position")
                });
                self.put_position(&mut write, store, position)?;
            }
            match value {
                Some(value) => write.put_cf(&family, key, value),
                None => write.delete_cf(&family, key),
            }
        }
        // Those without a change too: their changelog may be behind their position for other reasons.
        for &position in positions {
            self.put_position(&mut write, store, position)?;
        }
        self.write_and_wait(write)
    }

    pub(super) fn put_position(
        &self,
        write: &mut WriteBatch,
        store: &str,
        (partition, offset): (u16, Offset),
    ) -> Result<(), StateError> {
        let family = self.handle(POSITIONS)?;
        let key = rocks::position_key(store, partition);
        write.put_cf(&family, key, offset.0.to_be_bytes());
        Ok(())
    }

    /// Writes, and waits while memtables that are being written to disk take the memory of the next one (I10).
    pub(super) fn write_and_wait(&self, write: WriteBatch) -> Result<(), StateError> {
        self.write(write)?;
        match self.memtables.get_usage() > self.memtables.get_buffer_size() {
            true => self.sync_column_families(),
            false => Ok(()),
        }
    }

    fn write(&self, write: WriteBatch) -> Result<(), StateError> {
        self.check_not_failed()?;
        let mut options = WriteOptions::default();
        // The changelog is the write-ahead log (design D6).
        options.disable_wal(true);
        self.db
            .write_opt(write, &options)
            .map_err(|e| self.write_failed("write", e))
    }

    fn is_durable_due(&self, progress: &Progress) -> bool {
        let waited = self.env.clock.now().since(progress.last_durable);
        progress.tail_bytes > self.config.changelog_tail_bytes_max / 2
            || waited >= self.config.flush_interval
    }

    /// S3: all column families in one atomic flush.
    fn sync_column_families(&self) -> Result<(), StateError> {
        self.check_not_failed()?;
        let stores = self
            .config
            .stores
            .iter()
            .map(|store| column_family(&store.name));
        let names: Vec<_> = stores.chain([POSITIONS.to_owned()]).collect();
        let families = names.iter().map(|name| self.handle(name));
        let families = families.collect::<Result<Vec<_>, _>>()?;
        let references: Vec<_> = families.iter().collect();
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db
            .flush_cfs_opt(&references, &options)
            .map_err(|e| self.write_failed("flush", e))
    }

    fn check_not_failed(&self) -> Result<(), StateError> {
        match &self.progress.lock().failure {
            None => Ok(()),
            Some(why) => Err(StateError::Database {
                operation: "write, because an earlier write failed",
                path: self.directory.clone(),
                why: why.clone(),
            }),
        }
    }

    /// S5: what a failed write left is unknown, so none is tried again.
    fn write_failed(&self, operation: &'static str, error: rocksdb::Error) -> StateError {
        self.progress
            .lock()
            .failure
            .get_or_insert_with(|| error.to_string());
        self.failed(operation, error)
    }

    /// Damage is marked, so that the next open wipes and restores (S4).
    pub(super) fn failed(&self, operation: &'static str, error: rocksdb::Error) -> StateError {
        let path = self.directory.clone();
        let why = error.to_string();
        if error.kind() != rocksdb::ErrorKind::Corruption {
            return StateError::Database {
                operation,
                path,
                why,
            };
        }
        match self.env.files.replace(&damage_mark(&path), why.as_bytes()) {
            Ok(()) => StateError::Damaged { path, why },
            Err(e) => StateError::io("mark as damaged", &path, e),
        }
    }

    /// A store whose column family is new has no data, whatever its positions say.
    fn forget_positions_of(&self, created: &[String]) -> Result<(), StateError> {
        let mut write = WriteBatch::default();
        let positions = self.handle(POSITIONS)?;
        for store in &self.config.stores {
            if created.contains(&column_family(&store.name)) {
                let from = rocks::position_key(&store.name, 0);
                let mut to = store.name.clone().into_bytes();
                to.push(1);
                write.delete_range_cf(&positions, from, to);
            }
        }
        self.write(write)
    }

    fn load_positions(&self) -> Result<Positions, StateError> {
        let family = self.handle(POSITIONS)?;
        let mut positions = Positions::new();
        let mut iterator = self.db.raw_iterator_cf(&family);
        iterator.seek_to_first();
        while let Some((key, value)) = iterator.item() {
            let parsed = rocks::parse_position_key(key).zip(value.first_chunk::<8>());
            if let Some(((store, partition), offset)) = parsed
                && let Some(name) = self.names.get(store)
            {
                let offset = Offset(i64::from_be_bytes(*offset));
                positions.insert((Arc::clone(name), partition), offset);
            }
            iterator.next();
        }
        iterator
            .status()
            .map_err(|e| self.failed("read its positions", e))?;
        Ok(positions)
    }
}

//! RocksDB as it is set up here: opened, wiped when damaged, its errors told apart.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DB,
    DBCompressionType, LogLevel, Options, WriteBufferManager,
};

use super::error::StateError;
use super::files::RocksFiles;
use super::key_prefix::extractor;
use crate::env::Env;

/// The column family of the positions: key `store name, 0, state partition (2 bytes, big-endian)`, value the
/// changelog offset (8 bytes, big-endian).
pub(super) const POSITIONS: &str = "positions";
/// RocksDB insists on it; it stays empty.
const DEFAULT: &str = "default";
const MEMTABLE_BYTES_MIN: usize = 1 << 20;
const MEMTABLE_BYTES_MAX: usize = 64 << 20;
/// Read-ahead of a compaction in each of its files: RocksDB's default of 2 MiB times a dozen files is
/// memory that nobody counts, and the kernel reads ahead too.
const READAHEAD_BYTES: usize = 128 << 10;
/// Bits a key in the bloom filters: 1 % false positives.
const BLOOM_BITS: f64 = 10.0;

/// The column family of a store.
pub(super) fn column_family(store: &str) -> String {
    format!("store.{store}")
}

/// An open database, and the column families that were not there before.
pub(super) struct Opened {
    pub(super) db: DB,
    pub(super) created: Vec<String>,
}

/// Failure to open a database.
pub(super) enum OpenFailure {
    /// Its files are not whole: they are derived data, to be wiped and restored.
    Damaged(String),
    /// Anything else: wiping would not help, or would hide it.
    Other(String),
}

impl From<rocksdb::Error> for OpenFailure {
    fn from(error: rocksdb::Error) -> Self {
        let why = error.to_string();
        match error.kind() {
            rocksdb::ErrorKind::Corruption | rocksdb::ErrorKind::InvalidArgument => {
                Self::Damaged(why)
            }
            rocksdb::ErrorKind::IOError if why.contains("No such file") => Self::Damaged(why),
            _ => Self::Other(why),
        }
    }
}

/// Options of the database and of all its column families. `memory_bytes` bounds blocks, filters and memtables together.
#[must_use]
pub fn options(memory_bytes: usize) -> Options {
    options_and_memtables(memory_bytes).0
}

/// The same, with what counts the memtables. They go over their half while a flush of theirs is under way: whoever
/// writes much waits for it (`StateBackend::flush`).
pub(super) fn options_and_memtables(memory_bytes: usize) -> (Options, WriteBufferManager) {
    let cache = Cache::new_lru_cache(memory_bytes);
    let memtables_bytes = memory_bytes / 2;
    let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(
        memtables_bytes,
        false,
        cache.clone(),
    );
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_bloom_filter(BLOOM_BITS, false);
    // Filters and index count against the cache; split in parts, so that a large state needs only the parts in use.
    table.set_cache_index_and_filter_blocks(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_format_version(6);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_manager(&memtables);
    options.set_compaction_readahead_size(READAHEAD_BYTES);
    options
        .set_write_buffer_size((memtables_bytes / 2).clamp(MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MAX));
    options.set_max_write_buffer_number(4);
    // S3: values and the position that covers them reach the disk together, though they are in several
    // column families and there is no write-ahead log.
    options.set_atomic_flush(true);
    options.set_compression_per_level(&[
        DBCompressionType::None,
        DBCompressionType::None,
        DBCompressionType::Lz4,
    ]);
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.05);
    options.set_max_background_jobs(2);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    (options, memtables)
}

/// Opens the database with a column family for each of `stores`, and drops those of `dropped`. The filters of stores `in_order` know
/// their keys' prefixes.
pub(super) fn open(
    env: &Env,
    files: &RocksFiles,
    path: &Path,
    options: &Options,
    stores: &[String],
    in_order: &[String],
    dropped: &[String],
) -> Result<Opened, OpenFailure> {
    let is_there = files
        .have_database(env, path)
        .map_err(|e| OpenFailure::Other(e.to_string()))?;
    let path = files.path(path);
    let present = match is_there {
        true => DB::list_cf(options, path)?,
        false => Vec::new(),
    };
    if is_there && !present.iter().any(|name| name == POSITIONS) {
        return Err(OpenFailure::Damaged("it has no positions".to_owned()));
    }
    let mut names = vec![DEFAULT.to_owned(), POSITIONS.to_owned()];
    names.extend(stores.iter().map(|store| column_family(store)));
    let created: Vec<_> = names
        .iter()
        .filter(|name| !present.contains(name))
        .cloned()
        .collect();
    let stray: Vec<_> = present
        .iter()
        .filter(|name| !names.contains(name))
        .cloned()
        .collect();
    let all = names.iter().chain(&stray);
    let in_order: Vec<_> = in_order.iter().map(|store| column_family(store)).collect();
    let families = all.map(|name| {
        let mut options = options.clone();
        if in_order.contains(name) {
            options.set_prefix_extractor(extractor());
        }
        ColumnFamilyDescriptor::new(name, options)
    });
    let db = DB::open_cf_descriptors(options, path, families)?;
    for store in dropped.iter().map(|store| column_family(store)) {
        if stray.contains(&store) {
            db.drop_cf(&store)?;
        }
    }
    Ok(Opened { db, created })
}

/// Removes a directory tree.
pub(super) fn remove_tree(env: &Env, path: &Path) -> Result<(), StateError> {
    let failed = |e| StateError::io("remove", path, e);
    if !env.files.exists(path).map_err(failed)? {
        return Ok(());
    }
    // RocksDB makes one level of directories at most.
    for entry in env.files.read_dir(path).map_err(failed)? {
        let child = path.join(&entry.name);
        match entry.is_dir {
            true => remove_tree(env, &child)?,
            false => env.files.remove_file(&child).map_err(failed)?,
        }
    }
    env.files.remove_dir(path).map_err(failed)
}

/// The handle of a column family that was opened with the database.
pub(super) fn handle<'a>(
    db: &'a DB,
    name: &str,
    path: &Path,
) -> Result<Arc<BoundColumnFamily<'a>>, StateError> {
    db.cf_handle(name).ok_or_else(|| StateError::Database {
        operation: "find a column family",
        path: path.to_owned(),
        why: format!("{name:?} is not open"),
    })
}

/// The key of a position.
pub(super) fn position_key(store: &str, state_partition: u16) -> Vec<u8> {
    let mut key = store.as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&state_partition.to_be_bytes());
    key
}

/// Takes a position's key apart; `None` if it is not one.
pub(super) fn parse_position_key(key: &[u8]) -> Option<(&str, u16)> {
    let (rest, partition) = key.split_last_chunk::<2>()?;
    let (&0, store) = rest.split_last()? else {
        return None;
    };
    Some((
        std::str::from_utf8(store).ok()?,
        u16::from_be_bytes(*partition),
    ))
}

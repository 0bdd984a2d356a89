//! State at rest: a copy of a running job's (for a savepoint), or that of a stopped job, which reading does not change.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, Options, ReadOptions};

use super::backend::StateBackend;
use super::config::StateConfig;
use super::error::StateError;
use super::key::encode_stored_key;
use super::meta::{META_BYTES_MAX, Meta};
use super::prepare::database;
use super::rocks::{POSITIONS, column_family, handle, position_key, remove_tree};
use crate::codec::{CodecId, Schema, TypeIdentity};
use crate::env::Env;
use crate::types::Offset;
use std::collections::BTreeMap;

pub(super) const META: &str = "meta.json";
/// A copy in the making, in the job's own directory: RocksDB's files can be linked there.
pub(super) const CHECKPOINT: &str = "savepoint.tmp";

/// Is shown a key, without its state partition, and its value; says whether to go on.
pub(crate) type VisitEntry<'a> =
    dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StateError> + 'a;

impl StateBackend {
    /// Brings everything to the disk and makes a copy beside it, of links where the file system can; returns the copy's folder,
    /// which is to be moved or removed. Whatever was flushed before is in it.
    ///
    /// # Errors
    /// If RocksDB fails, or the disk does.
    pub(crate) fn copy_at_rest(&self) -> Result<PathBuf, StateError> {
        let (env, copy) = (&self.shared.env, self.shared.directory.join(CHECKPOINT));
        self.make_durable()?;
        remove_tree(env, &copy)?;
        let created = env.files.create_dir(&copy);
        created.map_err(|e| StateError::io("create", &copy, e))?;
        let made = Checkpoint::new(&self.shared.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(database(&copy)));
        made.map_err(|e| self.shared.failed("be copied", e))?;
        // It knows versions of values that the job does not write any more.
        let (from, meta) = (self.shared.directory.join(META), copy.join(META));
        let bytes = env.files.read(&from, META_BYTES_MAX);
        let bytes = bytes.map_err(|e| StateError::io("read", &from, e))?;
        let written = env.files.replace(&meta, &bytes);
        written.map_err(|e| StateError::io("write", &meta, e))?;
        Ok(copy)
    }

    /// The job's own directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Removes the copy that [`copy_at_rest`](Self::copy_at_rest) made, if it is still there.
    ///
    /// # Errors
    /// If the disk fails.
    pub(crate) fn remove_copy(&self) -> Result<(), StateError> {
        remove_tree(&self.shared.env, &self.shared.directory.join(CHECKPOINT))
    }
}

/// The state in a directory that nobody writes.
pub(crate) struct StateAtRest {
    db: DB,
    path: PathBuf,
    meta: Meta,
}

/// A store of a state at rest.
#[derive(Debug, Clone)]
pub(crate) struct StoreAtRest {
    pub(crate) name: String,
    pub(crate) codec: CodecId,
    /// The types of keys and values, where they are known.
    pub(crate) key: Option<TypeIdentity>,
    pub(crate) value: Option<TypeIdentity>,
    /// The version of the values that are written, and the types of those that may be there from before.
    pub(crate) value_version: u8,
    pub(crate) earlier: BTreeMap<u8, TypeIdentity>,
    /// The id of the changelog's topic.
    pub(crate) changelog: String,
}

impl StoreAtRest {
    /// Its schema, if its types are known.
    pub(crate) fn schema(&self) -> Option<Schema> {
        Some(Schema {
            codec: self.codec,
            key: self.key.clone()?,
            value: self.value.clone()?,
            value_version: self.value_version,
            earlier: self.earlier.clone(),
        })
    }
}

impl StateAtRest {
    /// Opens the state in `directory` for reading.
    ///
    /// # Errors
    /// If there is none, or it is of a newer version or damaged.
    pub(crate) fn open(env: &Env, directory: &Path) -> Result<Self, StateError> {
        let path = directory.join(META);
        let bytes = env.files.read(&path, META_BYTES_MAX);
        let bytes = bytes.map_err(|e| StateError::io("read", &path, e))?;
        let meta = Meta::parse(&bytes, directory)?.ok_or_else(|| StateError::Damaged {
            path: path.clone(),
            why: "it is no description of a job's state".to_owned(),
        })?;
        let failed = |e: rocksdb::Error| StateError::Database {
            operation: "be opened for reading",
            path: directory.to_owned(),
            why: e.to_string(),
        };
        let (options, files) = (Options::default(), database(directory));
        let families = DB::list_cf(&options, &files).map_err(failed)?;
        let db = DB::open_cf_for_read_only(&options, &files, families, false).map_err(failed)?;
        Ok(Self {
            db,
            path: directory.to_owned(),
            meta,
        })
    }

    pub(crate) fn state_partitions(&self) -> u16 {
        self.meta.state_partitions
    }

    pub(crate) fn stores(&self) -> Vec<StoreAtRest> {
        let stores = self.meta.stores.iter().map(|(name, store)| StoreAtRest {
            name: name.clone(),
            codec: store.codec,
            key: store.key.clone(),
            value: store.value.clone(),
            value_version: store.value_version,
            earlier: store.earlier.clone(),
            changelog: store.changelog.clone(),
        });
        stores.collect()
    }

    /// Refuses a job that would misread the state, or orphan a part of it.
    ///
    /// # Errors
    /// As [`StateBackend::open`] does, with the same words.
    pub(crate) fn check(&self, config: &StateConfig) -> Result<(), StateError> {
        self.meta.check_types(config, &self.path)
    }

    /// The changelog offset that a state partition of a store covers; `None`: it holds nothing.
    ///
    /// # Errors
    /// If the files are damaged.
    pub(crate) fn position(
        &self,
        store: &str,
        state_partition: u16,
    ) -> Result<Option<Offset>, StateError> {
        let family = handle(&self.db, POSITIONS, &self.path)?;
        let key = position_key(store, state_partition);
        let value = self.db.get_cf(&family, key).map_err(|e| self.damaged(e))?;
        let offset = value.and_then(|value| value.first_chunk::<8>().copied());
        Ok(offset.map(|bytes| Offset(i64::from_be_bytes(bytes))))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If there is no such store, or the files are damaged.
    pub(crate) fn get(
        &self,
        store: &str,
        state_partition: u16,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, StateError> {
        let family = handle(&self.db, &column_family(store), &self.path)?;
        let mut stored = Vec::new();
        encode_stored_key(state_partition, key, &mut stored);
        self.db.get_cf(&family, stored).map_err(|e| self.damaged(e))
    }

    /// Shows what a state partition of a store holds, in the order of the keys' bytes.
    ///
    /// # Errors
    /// If there is no such store, the files are damaged, or `visit` fails.
    pub(crate) fn visit(
        &self,
        store: &str,
        state_partition: u16,
        visit: &mut VisitEntry<'_>,
    ) -> Result<ControlFlow<()>, StateError> {
        let family = handle(&self.db, &column_family(store), &self.path)?;
        let mut read = ReadOptions::default();
        read.set_total_order_seek(true);
        read.set_iterate_lower_bound(state_partition.to_be_bytes());
        if let Some(next) = state_partition.checked_add(1) {
            read.set_iterate_upper_bound(next.to_be_bytes());
        }
        let mut iterator = self.db.raw_iterator_cf_opt(&family, read);
        iterator.seek_to_first();
        while let Some((key, value)) = iterator.item() {
            let key = key.split_first_chunk::<2>().map_or(key, |(_, key)| key);
            if visit(key, value)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            iterator.next();
        }
        iterator.status().map_err(|e| self.damaged(e))?;
        Ok(ControlFlow::Continue(()))
    }

    fn damaged(&self, error: rocksdb::Error) -> StateError {
        StateError::Database {
            operation: "be read",
            path: self.path.clone(),
            why: error.to_string(),
        }
    }
}

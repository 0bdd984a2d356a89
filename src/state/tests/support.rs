//! A changelog in memory, a crash as `kill -9` leaves it, and what both should add up to.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::codec::{Bincode, Schema};
use crate::env::Env;
use crate::state::{
    FlushBatch, FlushUrgency, HashedKey, StateBackend, StateConfig, StateError, Store,
    StoreDeclaration,
};
use crate::types::{Offset, TopicId};

pub(super) const STORE: &str = "counts";
pub(super) const STATE_PARTITIONS: u16 = 4;

pub(super) type Values = BTreeMap<Vec<u8>, String>;

/// A configuration whose tables hold three or four entries.
pub(super) fn tiny() -> StateConfig {
    StateConfig {
        memory_bytes: 1 << 10,
        state_partitions: STATE_PARTITIONS,
        stores: vec![declaration(STORE)],
        ..StateConfig::default()
    }
}

pub(super) fn declaration(name: &str) -> StoreDeclaration {
    StoreDeclaration {
        name: name.to_owned(),
        schema: Schema::of::<[u8], String>(),
        changelog: TopicId(1),
    }
}

/// The partition is the key's length, so that a test sees where a key is.
pub(super) fn key(bytes: &[u8]) -> HashedKey<'_> {
    HashedKey::with_partition_hash(bytes, u32::try_from(bytes.len()).unwrap())
}

pub(super) fn all_partitions() -> Vec<u16> {
    (0..STATE_PARTITIONS).collect()
}

/// The committed changelog of one store: a list of records a partition; the offset is the index.
#[derive(Debug, Clone, Default)]
pub(super) struct Changelog {
    records: BTreeMap<u16, Vec<Record>>,
}

/// Key and value.
type Record = (Vec<u8>, Option<Vec<u8>>);

pub(super) type Change = (u16, Vec<u8>, Option<Vec<u8>>);

impl Changelog {
    pub(super) fn append(&mut self, changes: Vec<Change>) {
        for (partition, key, value) in changes {
            self.records
                .entry(partition)
                .or_default()
                .push((key, value));
        }
    }

    pub(super) fn end(&self, partition: u16) -> Offset {
        let count = self.records.get(&partition).map_or(0, Vec::len);
        Offset(i64::try_from(count).unwrap())
    }

    pub(super) fn ends(&self) -> Vec<(u16, Offset)> {
        all_partitions()
            .into_iter()
            .map(|p| (p, self.end(p)))
            .collect()
    }

    /// Folds a partition's records before `end` into its values.
    pub(super) fn fold(&self, partition: u16, end: Offset) -> Values {
        let mut values = Values::new();
        let records = self.records.get(&partition).into_iter().flatten();
        for (key, value) in records.take(usize::try_from(end.0).unwrap()) {
            match value {
                Some(value) => values.insert(key.clone(), decoded(value)),
                None => values.remove(key),
            };
        }
        values
    }

    /// Replays what the store's partitions lack; at most `records_max` records of each.
    pub(super) fn restore(
        &self,
        backend: &StateBackend,
        store: &mut Store<String>,
        records_max: usize,
    ) -> Result<(), StateError> {
        for partition in store.partitions().to_vec() {
            let from = backend
                .position(store.name(), partition)
                .unwrap_or_default();
            let records = self
                .records
                .get(&partition)
                .into_iter()
                .flatten()
                .enumerate();
            let tail = records.skip(usize::try_from(from.0).unwrap());
            for (offset, (key, value)) in tail.take(records_max) {
                let next = Offset(i64::try_from(offset).unwrap() + 1);
                store.restore(partition, key, value.as_deref(), next)?;
            }
        }
        Ok(())
    }
}

impl Changelog {
    /// Brings what RocksDB lacks of a partition that no store has open into it, in two parts.
    pub(super) fn replay(&self, backend: &StateBackend, partition: u16) -> Result<(), StateError> {
        for _ in 0..2 {
            let from = backend.position(STORE, partition).unwrap_or_default();
            let records = self.records.get(&partition).into_iter().flatten();
            let tail: Vec<_> = records.skip(usize::try_from(from.0).unwrap()).collect();
            let part = &tail[..tail.len().div_ceil(2)];
            let next = Offset(from.0 + i64::try_from(part.len()).unwrap());
            let changes = part.iter().map(|(key, value)| (&**key, value.as_deref()));
            backend.replay(STORE, partition, changes, next)?;
        }
        let from = backend.position(STORE, partition).unwrap_or_default();
        let rest = self.records.get(&partition).into_iter().flatten();
        let rest = rest.skip(usize::try_from(from.0).unwrap());
        let changes = rest.map(|(key, value)| (&**key, value.as_deref()));
        backend.replay(STORE, partition, changes, self.end(partition))
    }
}

fn decoded(bytes: &[u8]) -> String {
    let codec = Bincode;
    crate::codec::Codec::<String>::decode(&codec, bytes)
        .unwrap()
        .into_owned()
}

pub(super) fn open_store(backend: &StateBackend) -> Result<Store<String>, StateError> {
    Store::open(backend, STORE, &all_partitions(), Bincode)
}

/// Scans all values of a partition.
pub(super) fn scan(store: &mut Store<String>, partition: u16) -> Result<Values, StateError> {
    let mut values = Values::new();
    let mut last: Option<Vec<u8>> = None;
    store.scan_prefix(partition, &[], &mut |key, value| {
        assert!(
            last.as_deref().is_none_or(|last| last < key),
            "keys come in order"
        );
        last = Some(key.to_vec());
        values.insert(key.to_vec(), value.clone());
        ControlFlow::Continue(())
    })?;
    Ok(values)
}

/// Ends the store's cycle and gives its changelog records.
pub(super) fn drain(store: &mut Store<String>) -> Vec<Change> {
    let mut changes = Vec::new();
    store
        .drain_cycle::<StateError>(&mut |partition, key: &[u8], value: Option<&[u8]>| {
            changes.push((partition, key.to_vec(), value.map(<[u8]>::to_vec)));
            Ok(())
        })
        .unwrap();
    changes
}

/// Ends the cycle, commits it, and flushes all.
pub(super) fn commit_and_flush(
    backend: &StateBackend,
    store: &mut Store<String>,
    changelog: &mut Changelog,
) -> Result<(), StateError> {
    changelog.append(drain(store));
    if let Some(batch) = store.take_flush(FlushUrgency::Now)? {
        let ticket = batch.ticket();
        backend.flush(batch, &changelog.ends())?;
        store.flushed(ticket);
    }
    Ok(())
}

pub(super) fn put(store: &mut Store<String>, bytes: &[u8], value: &str) -> Result<(), StateError> {
    store.update(key(bytes), |slot| *slot = Some(value.to_owned()))
}

/// A directory of state that can be copied as a crash would leave it.
pub(super) struct Home {
    temporary: TempDir,
    generation: u32,
}

impl Home {
    pub(super) fn new() -> Self {
        Self {
            temporary: tempfile::tempdir().unwrap(),
            generation: 0,
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.temporary.path().join(self.generation.to_string())
    }

    pub(super) fn open(&self, config: StateConfig) -> Result<StateBackend, StateError> {
        StateBackend::open(&Env::real(), &self.path(), config)
    }

    /// Crashes as by `kill -9`: what is on disk now, while the database is open, becomes the directory; what RocksDB has
    /// in memory is lost.
    pub(super) fn crash(&mut self) {
        let from = self.path();
        self.generation += 1;
        self.copy(&from);
    }

    /// Takes over the directory of another home, as it is now.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.copy(&other.path());
    }

    fn copy(&self, from: &Path) {
        // RocksDB may remove files while they are copied: then the copy is begun again.
        while let Err(e) = copy_tree(from, &self.path()) {
            assert_eq!(e.kind(), io::ErrorKind::NotFound, "{e}");
            std::fs::remove_dir_all(self.path()).unwrap();
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir(to)?;
    let mut entries = std::fs::read_dir(from)?.collect::<io::Result<Vec<_>>>()?;
    // The manifest first: a table that is newer than it is ignored, one that it names must be there.
    entries.sort_by_key(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        (!name.starts_with("CURRENT"), !name.starts_with("MANIFEST"))
    });
    for entry in entries {
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_tree(&entry.path(), &target)?,
            false => {
                std::fs::copy(entry.path(), target)?;
            }
        }
    }
    Ok(())
}

/// Opens, restores, and checks everything: what RocksDB holds against its position (I7), then the whole
/// against the changelog. Errors are handed on, wrong values are not.
pub(super) fn recover(
    backend: &StateBackend,
    changelog: &Changelog,
) -> Result<Store<String>, StateError> {
    let mut store = open_store(backend)?;
    for partition in all_partitions() {
        let position = backend.position(STORE, partition).unwrap_or_default();
        let expected = changelog.fold(partition, position);
        assert_eq!(
            scan(&mut store, partition)?,
            expected,
            "I7: partition {partition} at {position}"
        );
    }
    changelog.restore(backend, &mut store, usize::MAX)?;
    for partition in all_partitions() {
        let expected = changelog.fold(partition, changelog.end(partition));
        assert_eq!(
            scan(&mut store, partition)?,
            expected,
            "partition {partition}"
        );
    }
    Ok(store)
}

pub(super) fn flush(backend: &StateBackend, batch: FlushBatch, positions: &[(u16, Offset)]) {
    backend.flush(batch, positions).unwrap();
}

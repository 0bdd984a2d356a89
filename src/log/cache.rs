//! The segment cache: sealed segments' files and indexes that are in use, or were lately, within a bound.
//!
//! A log may have more segments than a process may have open files. So only active segments keep their file and
//! their index; those of sealed ones are here, and the ones used longest ago go first (I10). Whoever reads holds
//! an `Arc` of what it reads: nothing is taken away from it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::error::LogError;
use super::read_buffers::ReadBuffers;
use super::segment::SegmentIndex;
use crate::env::{Dir, Env, File, Files, OpenMode, is_out_of_files};

/// Most open files of sealed segments.
const FILES_MAX: usize = 256;
/// And at most one of so many that the process may have open: active segments, RocksDB and the network need theirs.
const LIMIT_SHARE: u64 = 4;
/// Most bytes of sealed segments' indexes in memory: those of about 16 GiB of records.
const INDEXES_BYTES_MAX: usize = 64 << 20;
/// Bytes of an index besides its entries.
const INDEX_OVERHEAD_BYTES: usize = 256;

/// Files and indexes of sealed segments, and buffers to read into. The logs of one process share one.
pub struct SegmentCache {
    environment: Arc<dyn Files>,
    state: Mutex<State>,
    /// To read segments into.
    pub(super) buffers: Arc<ReadBuffers>,
    /// Each stream of records has a clone of it.
    streams: Arc<()>,
    streams_max: usize,
}

/// A stream's place among those that may be open: each keeps a file open for as long as its reader takes.
pub(super) struct StreamPlace {
    _counted: Arc<()>,
}

struct State {
    next_key: u64,
    files: Lru<Arc<dyn File>>,
    indexes: Lru<Arc<SegmentIndex>>,
}

impl std::fmt::Debug for SegmentCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SegmentCache")
            .field("files", &state.files.entries.len())
            .field("indexes_bytes", &state.indexes.cost)
            .finish_non_exhaustive()
    }
}

impl SegmentCache {
    /// A cache with room for 256 files, or for a quarter of what this process may open if that is less, and for
    /// 64 MiB of indexes.
    #[must_use]
    pub fn new(env: &Env) -> Arc<Self> {
        let share = env.files.open_files_max().map(|max| max / LIMIT_SHARE);
        let share = share.and_then(|share| usize::try_from(share).ok());
        let files_max = share.unwrap_or(FILES_MAX).min(FILES_MAX);
        Self::with_bounds(env, files_max, INDEXES_BYTES_MAX)
    }

    /// A cache with room for `files_max` files (at least one) and `indexes_bytes_max` bytes of indexes.
    #[must_use]
    pub fn with_bounds(env: &Env, files_max: usize, indexes_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            environment: env.files.clone(),
            state: Mutex::new(State {
                next_key: 0,
                files: Lru::new(files_max.max(1)),
                indexes: Lru::new(indexes_bytes_max),
            }),
            buffers: Arc::default(),
            streams: Arc::default(),
            streams_max: files_max.max(1),
        })
    }

    /// A place for one more stream, if there are fewer than files that the cache may hold (I10).
    pub(super) fn stream_place(&self) -> Option<StreamPlace> {
        let counted = Arc::clone(&self.streams);
        // The cache's own and this one are among them.
        let has_room = Arc::strong_count(&counted) - 1 <= self.streams_max;
        has_room.then_some(StreamPlace { _counted: counted })
    }

    /// Counts the files held open.
    #[must_use]
    pub fn files_count(&self) -> usize {
        self.state.lock().files.entries.len()
    }

    /// The bytes of the indexes that it holds.
    #[must_use]
    pub fn indexes_bytes(&self) -> usize {
        self.state.lock().indexes.cost
    }

    /// Opens a file. If the process may open no more, those that are only kept for later are closed first (F14).
    pub(super) fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let opened = self.make_room_for(|| self.environment.open(path, mode));
        opened.map(Arc::from)
    }

    /// As [`SegmentCache::open`], for a directory whose names will change.
    pub(super) fn open_dir(&self, path: &Path) -> io::Result<Box<dyn Dir>> {
        self.make_room_for(|| self.environment.open_dir(path))
    }

    fn make_room_for<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(error) if is_out_of_files(&error) => {
                let unused = self.state.lock().files.take_all();
                drop(unused);
                open()
            }
            opened => opened,
        }
    }
}

/// A sealed segment's place in the cache. Clones are the same; the last one's drop closes the file.
#[derive(Clone)]
pub(super) struct SegmentFile(Arc<Place>);

struct Place {
    key: u64,
    path: Arc<Path>,
    cache: Arc<SegmentCache>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let forgotten = {
            let mut state = self.cache.state.lock();
            (state.files.remove(self.key), state.indexes.remove(self.key))
        };
        drop(forgotten);
    }
}

impl SegmentFile {
    pub(super) fn new(cache: &Arc<SegmentCache>, path: Arc<Path>) -> Self {
        let mut state = cache.state.lock();
        let key = state.next_key;
        state.next_key += 1;
        drop(state);
        Self(Arc::new(Place {
            key,
            path,
            cache: cache.clone(),
        }))
    }

    pub(super) fn path(&self) -> &Arc<Path> {
        &self.0.path
    }

    /// The file, opened if it is not.
    pub(super) fn open(&self) -> io::Result<Arc<dyn File>> {
        let Place { key, path, cache } = &*self.0;
        if let Some(file) = cache.state.lock().files.find(*key) {
            return Ok(file);
        }
        let file = cache.open(path, OpenMode::Write)?;
        self.keep(file.clone());
        Ok(file)
    }

    /// Keeps a file that is open, as the one used last.
    pub(super) fn keep(&self, file: Arc<dyn File>) {
        let evicted = self.0.cache.state.lock().files.insert(self.0.key, file, 1);
        // Closed without the lock.
        drop(evicted);
    }

    /// The index, read with `load` if it is not there.
    pub(super) fn index(
        &self,
        load: impl FnOnce() -> Result<SegmentIndex, LogError>,
    ) -> Result<Arc<SegmentIndex>, LogError> {
        if let Some(index) = self.0.cache.state.lock().indexes.find(self.0.key) {
            return Ok(index);
        }
        let index = Arc::new(load()?);
        self.keep_index(index.clone());
        Ok(index)
    }

    /// Keeps an index, as the one used last.
    pub(super) fn keep_index(&self, index: Arc<SegmentIndex>) {
        let cost = index.size_bytes() + INDEX_OVERHEAD_BYTES;
        let mut state = self.0.cache.state.lock();
        let evicted = state.indexes.insert(self.0.key, index, cost);
        drop(state);
        drop(evicted);
    }
}

/// The entries used last, up to a cost.
struct Lru<T> {
    entries: HashMap<u64, Entry<T>>,
    /// Keys by when they were used.
    order: BTreeMap<u64, u64>,
    uses: u64,
    cost: usize,
    cost_max: usize,
}

struct Entry<T> {
    value: T,
    used: u64,
    cost: usize,
}

impl<T: Clone> Lru<T> {
    fn new(cost_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
            cost: 0,
            cost_max,
        }
    }

    fn find(&mut self, key: u64) -> Option<T> {
        let entry = self.entries.get_mut(&key)?;
        self.order.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.order.insert(entry.used, key);
        Some(entry.value.clone())
    }

    /// Returns what had to go for it. What alone costs more than everything may is not kept.
    fn insert(&mut self, key: u64, value: T, cost: usize) -> Vec<T> {
        let mut evicted: Vec<T> = self.remove(key).into_iter().collect();
        if cost > self.cost_max {
            evicted.push(value);
            return evicted;
        }
        while self.cost + cost > self.cost_max {
            let oldest = self.order.first_key_value().map(|(_, key)| *key);
            let Some(oldest) = oldest else { break };
            evicted.extend(self.remove(oldest));
        }
        self.uses += 1;
        let used = self.uses;
        self.order.insert(used, key);
        self.entries.insert(key, Entry { value, used, cost });
        self.cost += cost;
        evicted
    }

    fn remove(&mut self, key: u64) -> Option<T> {
        let entry = self.entries.remove(&key)?;
        self.order.remove(&entry.used);
        self.cost -= entry.cost;
        Some(entry.value)
    }

    fn take_all(&mut self) -> Vec<T> {
        self.order.clear();
        self.cost = 0;
        self.entries.drain().map(|(_, entry)| entry.value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let mut lru = Lru::new(3);
        for key in 0..3 {
            assert!(lru.insert(key, key, 1).is_empty());
        }
        assert_eq!(lru.find(0), Some(0));
        assert_eq!(lru.insert(3, 3, 1), [1]);
        assert_eq!(lru.insert(4, 4, 2), [2, 0]);
        assert_eq!(lru.insert(5, 5, 4), [5], "it is larger than all");
        assert_eq!((lru.find(3), lru.find(4), lru.cost), (Some(3), Some(4), 3));
        assert_eq!(lru.insert(4, 40, 1), [4], "the new one replaces the old");
        assert_eq!((lru.remove(4), lru.cost), (Some(40), 1));
        assert_eq!(lru.take_all(), [3]);
        assert_eq!((lru.cost, lru.find(3)), (0, None));
    }
}

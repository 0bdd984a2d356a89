//! The rows of a store that have a time, in order: those below a *horizon* are here, the rest are in the store alone.
//!
//! Near times are in memory, and where they are too many, the farthest are forgotten and the horizon comes nearer. When all that is
//! below the horizon was taken, the next rows are loaded. A row that is gone from the store is found out when its time has come.
//!
//! Rows that were loaded are one sorted run; rows that came since are kept by their times.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use crate::types::Timestamp;

/// Bytes that an entry takes beside its own.
const ENTRY_OVERHEAD_BYTES: usize = 8;
/// Bytes that a time takes beside its entries.
const TIME_OVERHEAD_BYTES: usize = 96;
/// Bytes that a loaded entry is taken to have, with its own, before any is loaded.
const LOADED_BYTES: usize = 40;
/// Emptied lists of entries that are kept for other times.
const SPARE_MAX: usize = 64;
/// Most bytes of each.
const SPARE_BYTES_MAX: usize = 4 << 10;

/// Entries: keys with their hashes, one behind the other.
#[derive(Debug, Default)]
struct Entries {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Entries {
    fn push(&mut self, entry: &[u8]) {
        self.bytes.extend_from_slice(entry);
        self.ends
            .push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    fn get(&self, place: u32) -> &[u8] {
        let place = place as usize;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[place] as usize]
    }

    fn places(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places().map(|place| self.get(place))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn size_bytes(&self) -> usize {
        TIME_OVERHEAD_BYTES + self.bytes.len() + self.ends.len() * ENTRY_OVERHEAD_BYTES
    }
}

/// A loaded entry: its time, and where its bytes are.
#[derive(Debug, Clone, Copy)]
struct Item {
    time: Timestamp,
    start: usize,
    end: usize,
}

impl Item {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.end - self.start
    }
}

/// Loaded entries, in the order of times and then of their bytes.
#[derive(Debug, Default)]
struct Run {
    bytes: Vec<u8>,
    items: Vec<Item>,
    /// The first one that was not taken.
    next: usize,
}

impl Run {
    fn left(&self) -> &[Item] {
        &self.items[self.next..]
    }

    fn entry(&self, item: &Item) -> &[u8] {
        &self.bytes[item.start..item.end]
    }

    fn push(&mut self, time: Timestamp, entry: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(entry);
        let end = self.bytes.len();
        self.items.push(Item { time, start, end });
    }

    fn sort(&mut self) {
        let Self { bytes, items, .. } = self;
        items.sort_unstable_by(|a, b| match a.time.cmp(&b.time) {
            Ordering::Equal => bytes[a.start..a.end].cmp(&bytes[b.start..b.end]),
            order => order,
        });
    }

    /// The entries of the times between two bounds.
    fn between(&self, after: Bound<Timestamp>, until: Timestamp) -> &[Item] {
        let left = self.left();
        let first = left.partition_point(|item| match after {
            Bound::Unbounded => false,
            Bound::Included(after) => item.time < after,
            Bound::Excluded(after) => item.time <= after,
        });
        let behind = left.partition_point(|item| item.time <= until);
        &left[first..behind.max(first)]
    }
}

/// The entries of the time that is being taken.
#[derive(Debug)]
struct Taking {
    time: Timestamp,
    entries: Entries,
    /// Where they are, the one to take last first.
    places: Vec<u32>,
}

impl Taking {
    fn nothing() -> Self {
        Self {
            time: Timestamp::MIN,
            entries: Entries::default(),
            places: Vec::new(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct TimeIndex {
    run: Run,
    times: BTreeMap<Timestamp, Entries>,
    taking: Taking,
    spare: Vec<Entries>,
    /// Every row below this time is here. From here on they are not, unless it is [`Timestamp::MAX`] and `is_whole`.
    horizon: Timestamp,
    is_whole: bool,
    size_bytes: usize,
    size_bytes_max: usize,
}

impl TimeIndex {
    pub(crate) fn new(size_bytes_max: usize) -> Self {
        Self {
            run: Run::default(),
            times: BTreeMap::new(),
            taking: Taking::nothing(),
            spare: Vec::new(),
            horizon: Timestamp::MIN,
            is_whole: false,
            size_bytes: 0,
            size_bytes_max,
        }
    }

    /// Forgets all: it is loaded again when it is needed.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(self.size_bytes_max);
    }

    pub(crate) fn horizon(&self) -> Timestamp {
        self.horizon
    }

    /// Whether rows up to `until` may be missing here.
    pub(crate) fn must_load(&self, until: Timestamp) -> bool {
        !self.is_whole && self.horizon <= until
    }

    #[inline]
    pub(crate) fn insert(&mut self, time: Timestamp, entry: &[u8]) {
        if !self.is_whole && time >= self.horizon {
            return;
        }
        let entries = self.times.entry(time).or_insert_with(|| {
            self.size_bytes += TIME_OVERHEAD_BYTES;
            self.spare.pop().unwrap_or_default()
        });
        entries.push(entry);
        self.size_bytes += entry.len() + ENTRY_OVERHEAD_BYTES;
        if self.size_bytes > self.size_bytes_max {
            self.shrink();
        }
    }

    /// Forgets the farthest times. The nearest stays, however much it takes.
    #[cold]
    fn shrink(&mut self) {
        while self.size_bytes > self.size_bytes_max / 2 {
            let last = self.times.last_key_value().map(|(time, _)| *time);
            let last = last.max(self.run.left().last().map(|item| item.time));
            let Some(last) = last.filter(|last| self.nearest() < Some(*last)) else {
                break;
            };
            if let Some(entries) = self.times.remove(&last) {
                self.size_bytes -= entries.size_bytes();
            }
            while let Some(item) = self.run.left().last().copied()
                && item.time == last
            {
                self.run.items.pop();
                self.run.bytes.truncate(item.start);
                self.size_bytes -= item.size_bytes();
            }
            (self.horizon, self.is_whole) = (last, false);
        }
    }

    /// The nearest time of which nothing was taken.
    fn nearest(&self) -> Option<Timestamp> {
        let time = self.times.first_key_value().map(|(time, _)| *time);
        let loaded = self.run.left().first().map(|item| item.time);
        time.into_iter().chain(loaded).min()
    }

    /// Takes the next entry that is due. Nothing is answered where rows must be loaded first.
    pub(crate) fn pop(&mut self, until: Timestamp) -> Option<(Timestamp, &[u8])> {
        let nearest = self.nearest();
        let is_overtaken = nearest.is_some_and(|nearest| nearest < self.taking.time);
        if is_overtaken && !self.taking.places.is_empty() {
            // Something with an earlier time was added meanwhile: the rest comes later.
            let taking = std::mem::replace(&mut self.taking, Taking::nothing());
            for &place in &taking.places {
                self.insert(taking.time, taking.entries.get(place));
            }
        }
        if self.taking.places.is_empty() {
            self.take(nearest.filter(|nearest| *nearest <= until)?);
        }
        let taking = &mut self.taking;
        if taking.time > until {
            return None;
        }
        let place = taking.places.pop()?;
        Some((taking.time, taking.entries.get(place)))
    }

    /// Begins to take the entries of a time.
    fn take(&mut self, time: Timestamp) {
        let taking = &mut self.taking;
        taking.time = time;
        taking.entries.clear();
        if let Some(entries) = self.times.remove(&time) {
            self.size_bytes -= entries.size_bytes();
            let emptied = std::mem::replace(&mut taking.entries, entries);
            if self.spare.len() < SPARE_MAX && emptied.bytes.capacity() <= SPARE_BYTES_MAX {
                self.spare.push(emptied);
            }
        }
        while let Some(item) = self.run.left().first().copied()
            && item.time == time
        {
            taking.entries.push(self.run.entry(&item));
            self.size_bytes -= item.size_bytes();
            self.run.next += 1;
        }
        let (entries, places) = (&taking.entries, &mut taking.places);
        places.extend(entries.places());
        places.sort_unstable_by(|a, b| entries.get(*b).cmp(entries.get(*a)));
        places.dedup_by(|a, b| entries.get(*a) == entries.get(*b));
    }

    /// The first time at or below `until`.
    pub(crate) fn first(&self, until: Timestamp) -> Option<Timestamp> {
        let taking = (!self.taking.places.is_empty()).then_some(self.taking.time);
        let first = self.nearest().into_iter().chain(taking).min();
        first.filter(|first| *first <= until)
    }

    /// The entries of the times above `after` and at or below `until`, in the order of times. Those of a time that is being taken are
    /// not among them.
    pub(crate) fn between(
        &self,
        after: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, &[u8])> {
        self.untaken(Bound::Excluded(after), until)
    }

    fn untaken(
        &self,
        after: Bound<Timestamp>,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, &[u8])> {
        let is_empty = matches!(after, Bound::Excluded(after) if after >= until);
        let times = (!is_empty).then(|| self.times.range((after, Bound::Included(until))));
        let times = times.into_iter().flatten();
        let mut added = times
            .flat_map(|(time, entries)| entries.iter().map(move |entry| (*time, entry)))
            .peekable();
        let loaded = self.run.between(after, until).iter();
        let mut loaded = loaded
            .map(|item| (item.time, self.run.entry(item)))
            .peekable();
        std::iter::from_fn(move || match (loaded.peek(), added.peek()) {
            (Some((a, _)), Some((b, _))) if a <= b => loaded.next(),
            (Some(_), None) => loaded.next(),
            _ => added.next(),
        })
    }

    /// The entries that come next, up to `until`: those of one time in no particular order.
    pub(crate) fn next_due(&self, until: Timestamp) -> impl Iterator<Item = (Timestamp, &[u8])> {
        let taking = &self.taking;
        let places = taking.places.iter().rev();
        let now = places.map(|&place| (taking.time, taking.entries.get(place)));
        now.chain(self.untaken(Bound::Unbounded, until))
    }

    /// Begins to load so many state partitions from the horizon on.
    pub(crate) fn begin_load(&mut self, partitions_count: usize) -> Loading<'_> {
        let entries_max = self.size_bytes_max / 2 / LOADED_BYTES / partitions_count.max(1);
        Loading {
            entries_max: entries_max.max(16),
            horizon: None,
            partition: None,
            offered: 0,
            last: Timestamp::MIN,
            loaded: Run::default(),
            index: self,
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        let added: usize = self.times.values().map(|entries| entries.ends.len()).sum();
        added + self.run.left().len()
    }
}

/// Rows on their way into the index: offered a state partition after the other, each in order.
pub(crate) struct Loading<'i> {
    index: &'i mut TimeIndex,
    /// Rows of a partition that are taken, but for the rest of the last one's time.
    entries_max: usize,
    /// Where the partition stopped that stopped first.
    horizon: Option<Timestamp>,
    partition: Option<u16>,
    offered: usize,
    last: Timestamp,
    loaded: Run,
}

impl Loading<'_> {
    /// Takes a row, or says that the partition has given enough.
    pub(crate) fn offer(
        &mut self,
        partition: u16,
        time: Timestamp,
        entry: &[u8],
    ) -> ControlFlow<()> {
        if self.partition != Some(partition) {
            (self.partition, self.offered) = (Some(partition), 0);
        }
        let is_behind = self.horizon.is_some_and(|horizon| time >= horizon);
        let is_enough = self.offered >= self.entries_max && time > self.last;
        if is_behind || is_enough {
            self.horizon = Some(self.horizon.map_or(time, |horizon| horizon.min(time)));
            return ControlFlow::Break(());
        }
        self.offered += 1;
        self.last = time;
        self.loaded.push(time, entry);
        ControlFlow::Continue(())
    }

    /// Everything was offered.
    pub(crate) fn finish(mut self) {
        let index = self.index;
        (index.horizon, index.is_whole) = match self.horizon {
            Some(horizon) => (horizon, false),
            None => (Timestamp::MAX, true),
        };
        if let Some(horizon) = self.horizon {
            self.loaded.items.retain(|item| item.time < horizon);
        }
        self.loaded.sort();
        // The rows that were loaded before and not taken are below all of it. In order, the bytes can be cut off at the end.
        let mut run = Run::default();
        for (from, items) in [
            (&index.run, index.run.left()),
            (&self.loaded, &*self.loaded.items),
        ] {
            for item in items {
                run.push(item.time, from.entry(item));
            }
        }
        index.size_bytes += self
            .loaded
            .items
            .iter()
            .map(Item::size_bytes)
            .sum::<usize>();
        index.run = run;
        if index.size_bytes > index.size_bytes_max {
            index.shrink();
        }
    }
}

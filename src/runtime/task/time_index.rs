//! The rows of a store that have a time, in order: those below a *horizon* are here, the rest are in the store alone.
//!
//! Near times are in memory, and where they are too many, the farthest are forgotten and the horizon comes nearer. When time reaches
//! the horizon, the next ones are loaded. A row that is gone from the store is found out when its time has come.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use crate::types::Timestamp;

/// Bytes that an entry takes beside its own.
const ENTRY_OVERHEAD_BYTES: usize = 8;
/// Bytes that a time takes beside its entries.
const TIME_OVERHEAD_BYTES: usize = 96;

/// The entries of one time: keys with their hashes, one behind the other.
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

    fn size_bytes(&self) -> usize {
        TIME_OVERHEAD_BYTES + self.bytes.len() + self.ends.len() * ENTRY_OVERHEAD_BYTES
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

/// See the module.
#[derive(Debug)]
pub(crate) struct TimeIndex {
    times: BTreeMap<Timestamp, Entries>,
    taking: Option<Taking>,
    /// Every row below this time is here. From here on they are not, unless it is [`Timestamp::MAX`] and `is_whole`.
    horizon: Timestamp,
    is_whole: bool,
    size_bytes: usize,
    size_bytes_max: usize,
}

impl TimeIndex {
    pub(crate) fn new(size_bytes_max: usize) -> Self {
        Self {
            times: BTreeMap::new(),
            taking: None,
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
            Entries::default()
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
        while self.size_bytes > self.size_bytes_max / 2 && self.times.len() > 1 {
            if let Some((time, entries)) = self.times.pop_last() {
                self.size_bytes -= entries.size_bytes();
                (self.horizon, self.is_whole) = (time, false);
            }
        }
    }

    /// Takes the next entry that is due. Nothing is answered where rows must be loaded first.
    pub(crate) fn pop(&mut self, until: Timestamp) -> Option<(Timestamp, &[u8])> {
        let nearest = self.times.first_key_value().map(|(time, _)| *time);
        if let Some(taking) = self
            .taking
            .take_if(|taking| nearest.is_some_and(|nearest| nearest < taking.time))
        {
            // Something with an earlier time was added meanwhile: the rest comes later.
            for &place in &taking.places {
                self.insert(taking.time, taking.entries.get(place));
            }
        }
        let taking = self.taking.as_ref();
        if taking.is_none_or(|taking| taking.places.is_empty()) {
            let first = self.times.first_entry();
            let (time, entries) = first.filter(|first| *first.key() <= until)?.remove_entry();
            self.size_bytes -= entries.size_bytes();
            let mut places: Vec<u32> = entries.places().collect();
            places.sort_unstable_by(|a, b| entries.get(*b).cmp(entries.get(*a)));
            places.dedup_by(|a, b| entries.get(*a) == entries.get(*b));
            self.taking = Some(Taking {
                time,
                entries,
                places,
            });
        }
        let taking = self.taking.as_mut().filter(|taking| taking.time <= until)?;
        let place = taking.places.pop()?;
        Some((taking.time, taking.entries.get(place)))
    }

    /// The first time at or below `until`.
    pub(crate) fn first(&self, until: Timestamp) -> Option<Timestamp> {
        let taking = self
            .taking
            .as_ref()
            .filter(|taking| !taking.places.is_empty());
        let first = self.times.first_key_value().map(|(time, _)| *time);
        let first = first
            .into_iter()
            .chain(taking.map(|taking| taking.time))
            .min();
        first.filter(|first| *first <= until)
    }

    /// The entries of the times above `after` and at or below `until`. Those of a time that is being taken are not among them.
    pub(crate) fn between(
        &self,
        after: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, &[u8])> {
        let times = (after < until).then(|| {
            let bounds = (Bound::Excluded(after), Bound::Included(until));
            self.times.range(bounds)
        });
        let times = times.into_iter().flatten();
        times.flat_map(|(time, entries)| entries.iter().map(move |entry| (*time, entry)))
    }

    /// The entries that come next, up to `until`: those of one time in no particular order.
    pub(crate) fn next_due(&self, until: Timestamp) -> impl Iterator<Item = (Timestamp, &[u8])> {
        let taking = self.taking.iter().flat_map(|taking| {
            let places = taking.places.iter().rev();
            places.map(|&place| (taking.time, taking.entries.get(place)))
        });
        let times = self.times.range(..=until);
        let times =
            times.flat_map(|(time, entries)| entries.iter().map(move |entry| (*time, entry)));
        taking.chain(times)
    }

    /// Begins to load from the horizon on.
    pub(crate) fn begin_load(&mut self) -> Loading<'_> {
        Loading {
            entries_max: (self.size_bytes_max / 2 / TIME_OVERHEAD_BYTES).max(16),
            horizon: None,
            partition: None,
            offered: 0,
            last: Timestamp::MIN,
            loaded: BTreeMap::new(),
            index: self,
        }
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.times.values().map(|entries| entries.ends.len()).sum()
    }
}

/// Rows on their way into the index: offered a state partition after the other, each in order.
pub(crate) struct Loading<'i> {
    index: &'i mut TimeIndex,
    /// How many rows of a partition are taken, and the rest of the last one's time.
    entries_max: usize,
    /// Where the partition stopped that stopped first.
    horizon: Option<Timestamp>,
    partition: Option<u16>,
    offered: usize,
    last: Timestamp,
    loaded: BTreeMap<Timestamp, Entries>,
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
        self.loaded.entry(time).or_default().push(entry);
        ControlFlow::Continue(())
    }

    /// Everything was offered.
    pub(crate) fn finish(self) {
        let Self {
            index,
            horizon,
            loaded,
            ..
        } = self;
        (index.horizon, index.is_whole) = match horizon {
            Some(horizon) => (horizon, false),
            None => (Timestamp::MAX, true),
        };
        for (time, entries) in loaded {
            if !index.is_whole && time >= index.horizon {
                break;
            }
            for entry in entries.iter() {
                index.insert(time, entry);
            }
        }
    }
}

//! The entries of a store that are in memory: found by key, evicted by CLOCK, addressed by stable slots.

use super::budget::ALLOCATION_OVERHEAD_BYTES;
use super::elsewhere::Elsewhere;
use super::index::SlotIndex;
use super::key::{KeyBytes, PlacedKey};
use super::order::{KeyOrder, RowKey, Slots, hash_of_row};

/// Entries in one chunk: growing allocates a chunk and moves nothing.
const CHUNK_ENTRIES: usize = 1024;

/// A table that takes less stays near the processor by itself: about what a core's own cache holds.
const NEAR_BYTES_MAX: usize = 1 << 20;

/// A key and its value. `value` is `None` for a key that is known to be absent.
#[derive(Debug)]
pub(super) struct Entry<V> {
    pub(super) key: KeyBytes,
    pub(super) value: Option<V>,
    tag: u32,
    /// The ticket of the flush that took the entry last.
    pub(super) flush_ticket: u32,
    /// The encoded length of the value when it was last encoded or decoded.
    value_bytes: u32,
    pub(super) state_partition: u16,
    /// Changed by the open cycle.
    pub(super) is_in_cycle: bool,
    /// The open cycle began without a value of the key.
    pub(super) is_new: bool,
    /// Changed by a drained cycle since the last flush took it.
    pub(super) is_dirty: bool,
    /// Used since the clock's hand passed.
    is_referenced: bool,
    is_live: bool,
    /// The row is on disk and counts among those there ([`Elsewhere`](super::elsewhere::Elsewhere)).
    is_counted: bool,
}

impl<V> Entry<V> {
    /// Returns the entry's memory, with its share of the index.
    #[inline]
    pub(super) fn size_bytes(&self) -> usize {
        // 24: cells of the index, which are 8 bytes each and 1/3 to 5/8 taken.
        size_of::<Self>() + 24 + self.key.heap_bytes() + self.value_heap_bytes()
    }

    /// A value that owns memory is taken to own as many bytes as its encoded form has.
    #[inline]
    fn value_heap_bytes(&self) -> usize {
        match self.value_bytes {
            0 => 0,
            _ if !std::mem::needs_drop::<V>() => 0,
            value_bytes => value_bytes as usize + ALLOCATION_OVERHEAD_BYTES,
        }
    }
}

/// Entries by key. Slots stay valid until an eviction, which only [`Table::evict`] does.
#[derive(Debug)]
pub(super) struct Table<V> {
    index: SlotIndex,
    chunks: Vec<Vec<Entry<V>>>,
    free: Vec<u32>,
    entries_count: usize,
    size_bytes: usize,
    hand: usize,
    /// The entries in the order of their keys, if somebody reads ranges of them.
    order: Option<KeyOrder>,
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "the upper half of the hash"
)]
fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl<V> Table<V> {
    pub(super) fn new() -> Self {
        Self {
            index: SlotIndex::new(),
            chunks: Vec::new(),
            free: Vec::new(),
            entries_count: 0,
            size_bytes: 0,
            hand: 0,
            order: None,
        }
    }

    /// Keeps the order of the keys from here on.
    ///
    /// # Panics
    /// If the table has entries.
    pub(super) fn keep_order(&mut self) {
        assert_eq!(self.entries_count, 0, "the order is that of all entries");
        self.order = Some(KeyOrder::default());
    }

    /// The order of the keys, if it is kept.
    pub(super) fn order(&self) -> Option<&KeyOrder> {
        self.order.as_ref()
    }

    /// The rows that are on disk alone, in a table that keeps the order of the keys.
    pub(super) fn elsewhere_mut(&mut self) -> Option<&mut Elsewhere> {
        self.order.as_mut().map(|order| &mut order.elsewhere)
    }

    /// Counts a row that is on disk, unless it is here, too, in a store of so much memory.
    pub(super) fn count_stored(&mut self, key: &PlacedKey<'_>, memory_bytes: usize) {
        let is_here = self.find(key).is_some();
        if let Some(elsewhere) = self.elsewhere_mut() {
            if !is_here {
                elsewhere.add(hash_of_row(key.bytes), memory_bytes);
            }
            elsewhere.set_counted_to(key.state_partition, key.bytes);
        }
    }

    /// The slot of a key, which counts as a use of it.
    #[inline]
    pub(super) fn find(&mut self, key: &PlacedKey<'_>) -> Option<u32> {
        let slot = self.index.find(tag_of(key.hash), |slot| {
            let entry = self.entry(slot);
            entry.state_partition == key.state_partition && entry.key.as_slice() == key.bytes
        })?;
        self.entry_mut(slot).is_referenced = true;
        Some(slot)
    }

    /// Whether its entries are far from the processor, so that it pays to [`warm`](Self::warm) them.
    pub(super) fn is_far(&self) -> bool {
        self.entries_count * size_of::<Entry<V>>() > NEAR_BYTES_MAX
    }

    /// Brings the entries of keys with these hashes near the processor. The reads do not depend on each other, so the processor
    /// waits for many at once, where [`find`](Self::find) after `find` waits for each alone.
    pub(super) fn warm(&self, hashes: &[u64]) {
        let tags = || hashes.iter().map(|&hash| tag_of(hash));
        let cells = tags().fold(0, |seen, tag| seen ^ self.index.first_cell(tag));
        // Nothing is done with what was read; the compiler must not know that.
        std::hint::black_box(cells);
        let slots = tags().filter_map(|tag| self.index.find(tag, |_| true));
        self.warm_slots(slots);
    }

    /// Brings the entries in these slots near the processor.
    pub(super) fn warm_slots(&self, slots: impl Iterator<Item = u32>) {
        let seen = slots.fold(0, |seen, slot| {
            let entry = self.entry(slot);
            // Its two ends may lie in two lines of the cache.
            seen ^ entry.tag ^ u32::from(entry.key.first_byte())
        });
        std::hint::black_box(seen);
    }

    /// The entry in a slot.
    ///
    /// # Panics
    /// If there never was such a slot.
    #[inline]
    pub(super) fn entry(&self, slot: u32) -> &Entry<V> {
        &self.chunks[slot as usize / CHUNK_ENTRIES][slot as usize % CHUNK_ENTRIES]
    }

    /// The entry in a slot, to change.
    ///
    /// # Panics
    /// If there never was such a slot.
    #[inline]
    pub(super) fn entry_mut(&mut self, slot: u32) -> &mut Entry<V> {
        &mut self.chunks[slot as usize / CHUNK_ENTRIES][slot as usize % CHUNK_ENTRIES]
    }

    /// Adds a key that is not in the table.
    pub(super) fn insert(
        &mut self,
        key: &PlacedKey<'_>,
        value: Option<V>,
        value_bytes: usize,
    ) -> u32 {
        let entry = Entry {
            key: KeyBytes::new(key.bytes),
            value,
            tag: tag_of(key.hash),
            flush_ticket: 0,
            value_bytes: u32::try_from(value_bytes).unwrap_or(u32::MAX),
            state_partition: key.state_partition,
            is_in_cycle: false,
            is_new: false,
            is_dirty: false,
            is_referenced: true,
            is_live: true,
            is_counted: false,
        };
        self.entries_count += 1;
        self.size_bytes += entry.size_bytes();
        let slot = self.store(entry);
        self.index.insert(tag_of(key.hash), slot);
        if let Some(order) = &mut self.order {
            let row = (key.state_partition, key.bytes);
            order.insert(hash_of_row(key.bytes), row, slot, |slot| {
                row_in(&self.chunks, slot)
            });
        }
        slot
    }

    /// Notes that the row in a slot is on disk, where it was known to be before it came into memory.
    pub(super) fn note_stored(&mut self, slot: u32) {
        let (partition, row) = row_in(&self.chunks, slot);
        let order = self.order.as_ref();
        let is_counted = order.is_some_and(|order| order.elsewhere.covers(partition, row));
        self.entry_mut(slot).is_counted = is_counted;
    }

    /// Whether a row that is not here may be on disk, in a table that keeps the order of the keys.
    pub(super) fn may_be_elsewhere(&self, key: &PlacedKey<'_>) -> bool {
        let may_have = |order: &KeyOrder| {
            let hash = hash_of_row(key.bytes);
            order.elsewhere.may_have(key.state_partition, hash)
        };
        self.order().is_none_or(may_have)
    }

    /// The slots of the rows of a state partition that are at least `from` and below `to`, in order, and whether there may be more of
    /// them on disk; `None` if the order is not kept. All rows of the range begin with one key.
    pub(super) fn range(
        &self,
        state_partition: u16,
        from: &[u8],
        to: &[u8],
    ) -> Option<(Slots<'_>, bool)> {
        let order = self.order.as_ref()?;
        let hash = hash_of_row(from);
        let rows = (state_partition, from, to);
        let slots = order.range(hash, rows, |slot| row_in(&self.chunks, slot));
        Some((slots, order.elsewhere.may_have(state_partition, hash)))
    }

    fn store(&mut self, entry: Entry<V>) -> u32 {
        if let Some(slot) = self.free.pop() {
            *self.entry_mut(slot) = entry;
            return slot;
        }
        if self
            .chunks
            .last()
            .is_none_or(|chunk| chunk.len() == CHUNK_ENTRIES)
        {
            self.chunks.push(Vec::with_capacity(CHUNK_ENTRIES));
        }
        let before = (self.chunks.len() - 1) * CHUNK_ENTRIES;
        let chunk = self.chunks.last_mut().map_or(0, |chunk| {
            chunk.push(entry);
            chunk.len() - 1
        });
        u32::try_from(before + chunk).unwrap_or_else(|_| panic!("a table holds 2^32 entries"))
    }

    /// Notes the encoded length of an entry's value, 0 for none. The entry's size depends on nothing else that changes.
    pub(super) fn set_value_bytes(&mut self, slot: u32, value_bytes: usize) {
        let entry = self.entry_mut(slot);
        let before = entry.size_bytes();
        entry.value_bytes = u32::try_from(value_bytes).unwrap_or(u32::MAX);
        let after = entry.size_bytes();
        self.size_bytes = self.size_bytes + after - before;
    }

    /// Returns the entries' memory, with the index.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes + self.order.as_ref().map_or(0, KeyOrder::size_bytes)
    }

    /// Counts the entries, absent keys included.
    pub(super) fn entries_count(&self) -> usize {
        self.entries_count
    }

    /// Evicts entries that `is_evictable` until the table takes at most `target_bytes`, or the hand went
    /// round twice. Returns whether a present value was evicted.
    pub(super) fn evict(
        &mut self,
        target_bytes: usize,
        is_evictable: impl Fn(&Entry<V>) -> bool,
    ) -> bool {
        let mut has_lost_value = false;
        let slots_count = self.slots_count();
        for _ in 0..slots_count * 2 {
            if self.size_bytes() <= target_bytes {
                break;
            }
            self.hand = (self.hand + 1) % slots_count;
            let Ok(slot) = u32::try_from(self.hand) else {
                break;
            };
            let entry = self.entry_mut(slot);
            if !entry.is_live || !is_evictable(entry) {
                continue;
            }
            // An absent key is only remembered for its batch: it gets no second chance.
            if std::mem::replace(&mut entry.is_referenced, false) && entry.value.is_some() {
                continue;
            }
            has_lost_value |= entry.value.is_some();
            let is_elsewhere = entry.value.is_some() && !entry.is_counted;
            if is_elsewhere && let Some(order) = &mut self.order {
                let (partition, row) = row_in(&self.chunks, slot);
                if order.elsewhere.covers(partition, row) {
                    order.elsewhere.add(hash_of_row(row), target_bytes);
                }
            }
            self.remove(slot);
        }
        has_lost_value
    }

    /// Removes the entries that are `gone`.
    pub(super) fn remove_where(&mut self, is_gone: impl Fn(&Entry<V>) -> bool) {
        for number in 0..self.slots_count() {
            let Ok(slot) = u32::try_from(number) else {
                break;
            };
            let entry = self.entry(slot);
            if entry.is_live && is_gone(entry) {
                self.remove(slot);
            }
        }
    }

    fn slots_count(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Removes an entry. If it has no value, the disk has none either.
    pub(super) fn remove(&mut self, slot: u32) {
        let entry = self.entry_mut(slot);
        let size = entry.size_bytes();
        let (tag, state_partition) = (entry.tag, entry.state_partition);
        entry.is_live = false;
        let is_gone = entry.value.take().is_none() && entry.is_counted;
        let key = std::mem::replace(&mut entry.key, KeyBytes::new(&[]));
        if let Some(order) = &mut self.order {
            let hash = hash_of_row(key.as_slice());
            order.remove(hash, (state_partition, key.as_slice()), slot);
            if is_gone {
                order.elsewhere.remove(hash);
            }
        }
        self.index.remove(tag, slot);
        self.free.push(slot);
        self.entries_count -= 1;
        self.size_bytes -= size;
    }
}

/// The row in a slot.
#[inline]
fn row_in<V>(chunks: &[Vec<Entry<V>>], slot: u32) -> RowKey<'_> {
    let entry = &chunks[slot as usize / CHUNK_ENTRIES][slot as usize % CHUNK_ENTRIES];
    (entry.state_partition, entry.key.as_slice())
}

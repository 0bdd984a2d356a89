//! Rows of a layer by hash: each in one piece of an arena, with room for its last value and the one before.
//!
//! A cycle notes each key that it changed, so this is written as often as the changelog. A row that is noted again is changed in place, and
//! takes two lines of memory: its cell, and itself.
//!
//! ```text
//! cells   hash's upper half, and the row's place in the arena
//! arena   blocks of rows: epoch 8 · key 4 · room 4 · length of each of two values 2 × 4 · which is the last 1 · key · room · room
//! ```

use crate::state::key::hash_key;

/// Blocks are not copied when the arena grows, and the allocator finds a use for them again. A longer row has one of its own.
const BLOCK_BYTES: usize = 256 << 10;
/// Rows begin at multiples of this, so that a place of 32 bits reaches over 32 GiB.
const ALIGN: usize = 8;
const PLACES_PER_BLOCK: usize = BLOCK_BYTES / ALIGN;

const CELL_EMPTY: u64 = 0;
const CELLS_MIN: usize = 16;

/// The length of a value that is not there: its key was deleted.
const DELETED: u32 = u32::MAX;
/// The length of a value that nobody knows: it is in an older layer, or in RocksDB.
const UNKNOWN: u32 = u32::MAX - 1;
/// The room of a value is a multiple of this: numbers grow in place.
const ROOM_ALIGN: usize = 8;

const KEY_BYTES_AT: usize = 8;
const ROOM_AT: usize = 12;
const LENGTHS_AT: usize = 16;
const LAST_AT: usize = 24;
const HEADER_BYTES: usize = 25;

/// A value as it was at an epoch, if it is known.
pub(super) type Known<'a> = Option<Option<&'a [u8]>>;

/// Rows by hash.
#[derive(Debug)]
pub(super) struct HashedRows {
    cells: Vec<u64>,
    count: usize,
    blocks: Vec<Vec<u8>>,
}

fn cell_of(hash: u64, place: u32) -> u64 {
    (hash & !u64::from(u32::MAX)) | (u64::from(place) + 1)
}

fn place_of(cell: u64) -> u32 {
    u32::try_from((cell & u64::from(u32::MAX)) - 1).unwrap_or(u32::MAX)
}

fn number(bytes: usize) -> u32 {
    // A value fits a changelog record, which is far below 4 GiB.
    u32::try_from(bytes)
        .ok()
        .filter(|&it| it < UNKNOWN)
        .unwrap_or_else(|| panic!("a row's key or value has less than 4 GiB, not {bytes} bytes"))
}

/// One row in the arena.
#[derive(Clone, Copy)]
struct Row<'a>(&'a [u8]);

impl<'a> Row<'a> {
    fn u32_at(self, at: usize) -> u32 {
        let bytes = self.0[at..].first_chunk();
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn size_at(self, at: usize) -> usize {
        self.u32_at(at) as usize
    }

    fn epoch(self) -> u64 {
        let bytes = self.0.first_chunk();
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn key(self) -> &'a [u8] {
        &self.0[HEADER_BYTES..HEADER_BYTES + self.size_at(KEY_BYTES_AT)]
    }

    fn last(self) -> usize {
        usize::from(self.0[LAST_AT])
    }

    fn value(self, which: usize) -> Known<'a> {
        let length = self.u32_at(LENGTHS_AT + 4 * which);
        match length {
            UNKNOWN => None,
            DELETED => Some(None),
            _ => {
                let start = value_at(self.size_at(KEY_BYTES_AT), self.size_at(ROOM_AT), which);
                Some(Some(&self.0[start..start + length as usize]))
            }
        }
    }

    /// The value as of an epoch; `None` if an older layer or RocksDB has it.
    fn at(self, epoch: u64) -> Known<'a> {
        match self.epoch() <= epoch {
            true => self.value(self.last()),
            false => self.value(1 - self.last()),
        }
    }
}

fn value_at(key_bytes: usize, room: usize, which: usize) -> usize {
    HEADER_BYTES + key_bytes + which * room
}

fn put_u32(row: &mut [u8], at: usize, value: u32) {
    row[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Sets one of a row's two values, for which there is room.
fn put_value(row: &mut [u8], which: usize, value: Known<'_>) {
    let length = match value {
        None => UNKNOWN,
        Some(None) => DELETED,
        Some(Some(value)) => {
            let (key_bytes, room) = (Row(row).size_at(KEY_BYTES_AT), Row(row).size_at(ROOM_AT));
            let start = value_at(key_bytes, room, which);
            row[start..start + value.len()].copy_from_slice(value);
            number(value.len())
        }
    };
    put_u32(row, LENGTHS_AT + 4 * which, length);
}

impl HashedRows {
    pub(super) fn new() -> Self {
        Self {
            cells: Vec::new(),
            count: 0,
            blocks: Vec::new(),
        }
    }

    /// Notes a value of the cycle that becomes `epoch`.
    pub(super) fn put(&mut self, epoch: u64, key: &[u8], value: Option<&[u8]>) {
        let hash = hash_key(key);
        let Some(cell) = self.find(hash, key) else {
            let place = self.add(epoch, key, Some(value), None);
            self.insert(cell_of(hash, place));
            self.count += 1;
            return;
        };
        let (block, start) = position(place_of(self.cells[cell]));
        let row = &mut self.blocks[block][start..];
        let (is_same, last) = (Row(row).epoch() == epoch, Row(row).last());
        // Twice in one cycle: the value before it stays what it was.
        let which = if is_same { last } else { 1 - last };
        if value.is_none_or(|value| value.len() <= Row(row).size_at(ROOM_AT)) {
            put_value(row, which, Some(value));
            row[..8].copy_from_slice(&epoch.to_le_bytes());
            row[LAST_AT] = u8::from(which == 1);
            return;
        }
        // It does not fit: the row moves, and its old place stays empty until the layer goes.
        let before = Row(row).value(if is_same { 1 - last } else { last });
        let before = before.map(|before| before.map(<[u8]>::to_vec));
        let before = before.as_ref().map(Option::as_deref);
        let place = self.add(epoch, key, Some(value), before);
        self.cells[cell] = cell_of(hash, place);
    }

    /// Appends a row.
    fn add(&mut self, epoch: u64, key: &[u8], value: Known<'_>, before: Known<'_>) -> u32 {
        let length_of = |value: &Known<'_>| value.flatten().map_or(0, <[u8]>::len);
        let room = length_of(&value).max(length_of(&before));
        let room = room.next_multiple_of(ROOM_ALIGN);
        let size = value_at(key.len(), room, 2);
        let block = self.block_with_room_for(size);
        let bytes = &mut self.blocks[block];
        let start = bytes.len();
        bytes.resize(start + size.next_multiple_of(ALIGN), 0);
        let row = &mut bytes[start..];
        row[..8].copy_from_slice(&epoch.to_le_bytes());
        put_u32(row, KEY_BYTES_AT, number(key.len()));
        put_u32(row, ROOM_AT, number(room));
        row[HEADER_BYTES..HEADER_BYTES + key.len()].copy_from_slice(key);
        put_value(row, 0, value);
        put_value(row, 1, before);
        let place = block * PLACES_PER_BLOCK + start / ALIGN;
        u32::try_from(place)
            .ok()
            .filter(|place| *place < u32::MAX)
            .unwrap_or_else(|| panic!("a layer has less than 32 GiB: flushes come long before"))
    }

    fn block_with_room_for(&mut self, size: usize) -> usize {
        let has_room = |block: &Vec<u8>| block.len() + size.next_multiple_of(ALIGN) <= BLOCK_BYTES;
        if !self.blocks.last().is_some_and(has_room) {
            // The first one grows with what comes: many layers stay small.
            let capacity = match self.blocks.is_empty() {
                true => 0,
                false => size.max(BLOCK_BYTES),
            };
            self.blocks.push(Vec::with_capacity(capacity));
        }
        self.blocks.len() - 1
    }

    fn row(&self, cell: u64) -> Row<'_> {
        let (block, start) = position(place_of(cell));
        Row(&self.blocks[block][start..])
    }

    /// The cell of a key.
    #[inline]
    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        if self.cells.is_empty() {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let cell = self.cells[at];
            if cell == CELL_EMPTY {
                return None;
            }
            if cell >> 32 == hash >> 32 && self.row(cell).key() == key {
                return Some(at);
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
    }

    /// Where the search for a hash begins: by its upper half, all that a cell has of it.
    fn home(&self, hash: u64) -> usize {
        let upper = usize::try_from(hash >> 32).unwrap_or(0);
        // Cells are fewer than the upper half counts.
        upper & (self.cells.len() - 1)
    }

    fn insert(&mut self, cell: u64) {
        if (self.count + 1) * 8 > self.cells.len() * 5 {
            let grown = vec![CELL_EMPTY; (self.cells.len() * 2).max(CELLS_MIN)];
            let cells = std::mem::replace(&mut self.cells, grown);
            for cell in cells.into_iter().filter(|cell| *cell != CELL_EMPTY) {
                self.place(cell);
            }
        }
        self.place(cell);
    }

    fn place(&mut self, cell: u64) {
        let mut at = self.home(cell);
        while self.cells[at] != CELL_EMPTY {
            at = (at + 1) & (self.cells.len() - 1);
        }
        self.cells[at] = cell;
    }

    /// The value of a key as of an epoch; `None` if an older layer or RocksDB has it.
    pub(super) fn get(&self, epoch: u64, key: &[u8]) -> Known<'_> {
        let cell = self.find(hash_key(key), key)?;
        self.row(self.cells[cell]).at(epoch)
    }

    /// All keys, each with its value as of an epoch where it is known.
    pub(super) fn iter(&self, epoch: u64) -> impl Iterator<Item = (&[u8], Known<'_>)> {
        let cells = self.cells.iter().filter(|cell| **cell != CELL_EMPTY);
        cells.map(move |cell| {
            let row = self.row(*cell);
            (row.key(), row.at(epoch))
        })
    }

    /// Forgets the rows whose keys are `gone`.
    pub(super) fn remove_where(&mut self, is_gone: impl Fn(&[u8]) -> bool) {
        let mut kept = Self::new();
        for cell in self.cells.iter().filter(|cell| **cell != CELL_EMPTY) {
            let row = self.row(*cell);
            if is_gone(row.key()) {
                continue;
            }
            let (value, before) = (row.value(row.last()), row.value(1 - row.last()));
            let place = kept.add(row.epoch(), row.key(), value, before);
            kept.insert(cell_of(*cell, place));
            kept.count += 1;
        }
        *self = kept;
    }

    /// Bytes that it takes in memory.
    pub(super) fn size_bytes(&self) -> usize {
        let blocks_bytes: usize = self.blocks.iter().map(Vec::capacity).sum();
        blocks_bytes + self.cells.len() * size_of::<u64>()
    }
}

/// The block of a place, and where in it.
fn position(place: u32) -> (usize, usize) {
    let place = place as usize;
    (place / PLACES_PER_BLOCK, place % PLACES_PER_BLOCK * ALIGN)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Value = Option<Vec<u8>>;

    /// The last value with its epoch, and the one before it.
    type Model = BTreeMap<Vec<u8>, (u64, Value, Option<Value>)>;

    fn note(model: &mut Model, epoch: u64, key: &[u8], value: Value) {
        match model.get_mut(key) {
            Some((at, last, before)) => {
                let old = std::mem::replace(last, value);
                if *at != epoch {
                    (*at, *before) = (epoch, Some(old));
                }
            }
            None => drop(model.insert(key.to_vec(), (epoch, value, None))),
        }
    }

    fn known_at(model: &Model, epoch: u64, key: &[u8]) -> Option<Value> {
        let (at, last, before) = model.get(key)?;
        match *at <= epoch {
            true => Some(last.clone()),
            false => before.clone(),
        }
    }

    fn owned(known: Known<'_>) -> Option<Value> {
        known.map(|value| value.map(<[u8]>::to_vec))
    }

    proptest! {
        #[test]
        fn rows_are_those_of_a_model(
            changes in prop::collection::vec(
                (0u8..40, prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), any::<bool>()),
                1..300,
            ),
            is_gone in 0u8..40,
        ) {
            let (mut rows, mut model, mut epoch) = (HashedRows::new(), Model::new(), 1);
            for (key, value, is_next) in changes {
                epoch += u64::from(is_next);
                // Keys of several lengths.
                let key = vec![key; 1 + usize::from(key % 5)];
                rows.put(epoch, &key, value.as_deref());
                note(&mut model, epoch, &key, value);
                for at in [epoch - 1, epoch] {
                    prop_assert_eq!(owned(rows.get(at, &key)), known_at(&model, at, &key));
                }
            }
            for round in 0..2 {
                for at in [epoch - 1, epoch] {
                    let all: BTreeMap<_, _> =
                        rows.iter(at).map(|(key, known)| (key.to_vec(), owned(known))).collect();
                    let expected: BTreeMap<_, _> =
                        model.keys().map(|key| (key.clone(), known_at(&model, at, key))).collect();
                    prop_assert_eq!(all, expected, "round {}", round);
                }
                rows.remove_where(|key| key[0] == is_gone);
                model.retain(|key, _| key[0] != is_gone);
            }
            prop_assert!(rows.get(epoch, b"none").is_none());
        }
    }

    #[test]
    fn a_row_that_is_noted_again_takes_no_more_memory() {
        let mut rows = HashedRows::new();
        let note = |rows: &mut HashedRows, epoch: u64| {
            for key in 0..1_000u32 {
                rows.put(epoch, &key.to_be_bytes(), Some(&epoch.to_be_bytes()));
            }
        };
        note(&mut rows, 1);
        let size_bytes = rows.size_bytes();
        (2..50).for_each(|epoch| note(&mut rows, epoch));
        assert_eq!(rows.size_bytes(), size_bytes);
        assert!(size_bytes < 100 * 1_000, "{size_bytes}");
    }

    #[test]
    fn a_value_that_is_longer_than_a_block_has_one_of_its_own() {
        let mut rows = HashedRows::new();
        let long = vec![7; BLOCK_BYTES + 1];
        rows.put(1, b"short", Some(b"a"));
        rows.put(1, b"long", Some(&long));
        rows.put(2, b"behind", Some(b"b"));
        rows.put(2, b"short", Some(&long));
        assert_eq!(rows.get(1, b"short"), Some(Some(&b"a"[..])));
        assert_eq!(rows.get(2, b"short"), Some(Some(&*long)));
        assert_eq!(rows.get(1, b"long"), Some(Some(&*long)));
        assert_eq!(rows.get(1, b"behind"), None);
    }
}

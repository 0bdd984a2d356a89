//! From a hash to a slot of the table: open addressing with linear probing over 8-byte cells.
//!
//! A cell holds 32 bits of the hash and the slot; a lookup touches one cache line here and then the entry.
//! Growing moves cells only, and slots stay valid until they are removed.

/// A cell without a slot.
const EMPTY: u64 = 0;
const CELLS_MIN: usize = 16;

/// The index of one table. It keeps 32 bits of each hash, its `tag`, and never asks the table for a hash.
#[derive(Debug)]
pub(super) struct SlotIndex {
    /// `tag << 32 | slot + 1`, or [`EMPTY`]; a power of two of them.
    cells: Vec<u64>,
    slots_count: usize,
}

fn cell_of(tag: u32, slot: u32) -> u64 {
    u64::from(tag) << 32 | (u64::from(slot) + 1)
}

#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "takes a cell apart into its two halves"
)]
fn parts_of(cell: u64) -> (u32, u32) {
    ((cell >> 32) as u32, (cell as u32).wrapping_sub(1))
}

impl SlotIndex {
    pub(super) fn new() -> Self {
        Self {
            cells: vec![EMPTY; CELLS_MIN],
            slots_count: 0,
        }
    }

    /// The slot with this tag for which `is_match` holds.
    #[inline]
    pub(super) fn find(&self, tag: u32, is_match: impl Fn(u32) -> bool) -> Option<u32> {
        let mut position = self.home(tag);
        loop {
            let cell = self.cells[position];
            if cell == EMPTY {
                return None;
            }
            let (found, slot) = parts_of(cell);
            if found == tag && is_match(slot) {
                return Some(slot);
            }
            position = self.next(position);
        }
    }

    /// The cell where the search for a tag begins: read only to have it near.
    #[inline]
    pub(super) fn first_cell(&self, tag: u32) -> u64 {
        self.cells[self.home(tag)]
    }

    /// Adds a slot that is not in the index yet.
    pub(super) fn insert(&mut self, tag: u32, slot: u32) {
        // At most 5 of 8 cells are taken: longer runs cost more than the memory saves.
        if (self.slots_count + 1) * 8 > self.cells.len() * 5 {
            self.grow();
        }
        self.place(cell_of(tag, slot));
        self.slots_count += 1;
    }

    /// Removes a slot, closing the gap so that no search ends early.
    ///
    /// # Panics
    /// If the slot is not in the index with this tag: the table and its index would disagree.
    pub(super) fn remove(&mut self, tag: u32, slot: u32) {
        let wanted = cell_of(tag, slot);
        let mut gap = self.home(tag);
        while self.cells[gap] != wanted {
            assert!(self.cells[gap] != EMPTY, "slot {slot} is not in the index");
            gap = self.next(gap);
        }
        let mut position = gap;
        loop {
            position = self.next(position);
            let cell = self.cells[position];
            if cell == EMPTY {
                break;
            }
            // A cell may move back into the gap only if its home is not between the gap and itself.
            let home = self.home(parts_of(cell).0);
            if self.distance(home, position) >= self.distance(gap, position) {
                self.cells[gap] = cell;
                gap = position;
            }
        }
        self.cells[gap] = EMPTY;
        self.slots_count -= 1;
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.cells.len() - 1)
    }

    #[inline]
    fn next(&self, position: usize) -> usize {
        (position + 1) & (self.cells.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.cells.len() - 1)
    }

    fn place(&mut self, cell: u64) {
        let mut position = self.home(parts_of(cell).0);
        while self.cells[position] != EMPTY {
            position = self.next(position);
        }
        self.cells[position] = cell;
    }

    fn grow(&mut self) {
        let larger = vec![EMPTY; self.cells.len() * 2];
        for cell in std::mem::replace(&mut self.cells, larger) {
            if cell != EMPTY {
                self.place(cell);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few tags, so that runs collide, wrap around the end and are closed in every way.
        #[test]
        fn the_index_agrees_with_a_map(operations in prop::collection::vec((0u32..40, any::<bool>()), 1..400)) {
            let tag_of = |slot: u32| [0, 1, 13, 14, 15, u32::MAX][slot as usize % 6];
            let mut index = SlotIndex::new();
            let mut model = BTreeMap::new();
            for (slot, is_insert) in operations {
                match (is_insert, model.contains_key(&slot)) {
                    (true, false) => {
                        index.insert(tag_of(slot), slot);
                        model.insert(slot, ());
                    }
                    (false, true) => {
                        index.remove(tag_of(slot), slot);
                        model.remove(&slot);
                    }
                    _ => {}
                }
                for probe in 0..40 {
                    let found = index.find(tag_of(probe), |s| s == probe);
                    prop_assert_eq!(found.is_some(), model.contains_key(&probe), "slot {}", probe);
                }
            }
        }
    }
}

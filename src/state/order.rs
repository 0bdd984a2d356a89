//! The rows in memory of a store whose ranges are read: found by the key that they begin with, in order among those of the key.
//!
//! A range is always one of a single key's rows (`key_prefix.rs`), so keys are found by their hash, and only the rows of one key are kept in
//! order. Keys whose hashes are equal share a group, whose rows are compared with all their bytes.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::btree_map::{self, BTreeMap};
use std::collections::hash_map::{self, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Bound;
use std::slice;

use super::elsewhere::Elsewhere;
use super::key::{KeyBytes, hash_key};
use super::key_prefix::prefix_of_row;

/// Bytes of a row in a tree beside a long key: 36 bytes in nodes that are two thirds full.
const TREE_ROW_BYTES: usize = 54;
/// Bytes of a group: 33 bytes in a map that is two thirds full.
const GROUP_BYTES: usize = 50;
/// A key with more rows has a tree.
const FEW_MAX: usize = 5;

/// The state partition and the bytes of a row's key.
pub(super) type RowKey<'a> = (u16, &'a [u8]);

/// A row's key, owned or borrowed.
trait Place {
    fn place(&self) -> RowKey<'_>;
}

/// A row's key in a tree.
#[derive(Debug)]
pub(super) struct OwnedPlace {
    bytes: KeyBytes,
    state_partition: u16,
}

struct BorrowedPlace<'a>(u16, &'a [u8]);

impl Place for OwnedPlace {
    fn place(&self) -> RowKey<'_> {
        (self.state_partition, self.bytes.as_slice())
    }
}

impl Place for BorrowedPlace<'_> {
    fn place(&self) -> RowKey<'_> {
        (self.0, self.1)
    }
}

impl<'a> Borrow<dyn Place + 'a> for OwnedPlace {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for dyn Place + '_ {}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialEq for OwnedPlace {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for OwnedPlace {}

impl PartialOrd for OwnedPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OwnedPlace {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// Takes a hash as it is.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash_key(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The slots of the rows of one key, in the order of the rows.
#[derive(Debug)]
#[allow(
    clippy::box_collection,
    reason = "there is one for each key, and few have a tree"
)]
enum Group {
    Few { count: u8, slots: [u32; FEW_MAX] },
    Many(Box<BTreeMap<OwnedPlace, u32>>),
}

impl Group {
    fn few(&self) -> &[u32] {
        match self {
            Self::Few { count, slots } => &slots[..usize::from(*count)],
            Self::Many(_) => &[],
        }
    }
}

/// The slots of a table's entries in order. It has every entry of the table, and no other.
#[derive(Debug, Default)]
pub(super) struct KeyOrder {
    /// By the hash of what their rows begin with.
    groups: HashMap<u64, Group, BuildHasherDefault<AsItIs>>,
    /// Number of rows in trees, and the bytes of those whose keys are long.
    tree_rows_count: usize,
    heap_bytes: usize,
    /// The keys that have rows on disk alone.
    pub(super) elsewhere: Elsewhere,
}

/// The hash of the key that a row belongs to.
#[inline]
pub(super) fn hash_of_row(row: &[u8]) -> u64 {
    hash_key(prefix_of_row(row).unwrap_or(row))
}

impl KeyOrder {
    /// Takes in a row of the key with this hash; `key_of` tells the keys of those that are there.
    ///
    /// # Panics
    /// If it is there already.
    pub(super) fn insert<'k>(
        &mut self,
        hash: u64,
        row: RowKey<'_>,
        slot: u32,
        key_of: impl Fn(u32) -> RowKey<'k>,
    ) {
        let group = match self.groups.entry(hash) {
            hash_map::Entry::Occupied(group) => group.into_mut(),
            hash_map::Entry::Vacant(free) => {
                let mut slots = [0; FEW_MAX];
                slots[0] = slot;
                free.insert(Group::Few { count: 1, slots });
                return;
            }
        };
        if group.few().len() == FEW_MAX {
            let mut rows = BTreeMap::new();
            for &slot in group.few() {
                let place = owned(key_of(slot));
                self.heap_bytes += place.bytes.heap_bytes();
                rows.insert(place, slot);
            }
            self.tree_rows_count += FEW_MAX;
            *group = Group::Many(Box::new(rows));
        }
        match group {
            Group::Few { count, slots } => {
                let rows = usize::from(*count);
                let place = slots[..rows].partition_point(|other| key_of(*other) < row);
                assert!(
                    place == rows || key_of(slots[place]) != row,
                    "a row has one slot"
                );
                slots.copy_within(place..rows, place + 1);
                slots[place] = slot;
                *count += 1;
            }
            Group::Many(rows) => {
                let place = owned(row);
                self.heap_bytes += place.bytes.heap_bytes();
                self.tree_rows_count += 1;
                let before = rows.insert(place, slot);
                assert!(before.is_none(), "a row has one slot");
            }
        }
    }

    /// Takes out a row of the key with this hash.
    pub(super) fn remove(&mut self, hash: u64, row: RowKey<'_>, slot: u32) {
        let hash_map::Entry::Occupied(mut group) = self.groups.entry(hash) else {
            return;
        };
        let is_empty = match group.get_mut() {
            Group::Few { count, slots } => {
                let rows = usize::from(*count);
                if let Some(place) = slots[..rows].iter().position(|other| *other == slot) {
                    slots.copy_within(place + 1..rows, place);
                    *count -= 1;
                }
                *count == 0
            }
            Group::Many(rows) => {
                let place: &dyn Place = &BorrowedPlace(row.0, row.1);
                if let Some((place, _)) = rows.remove_entry(place) {
                    self.heap_bytes -= place.bytes.heap_bytes();
                    self.tree_rows_count -= 1;
                }
                rows.is_empty()
            }
        };
        if is_empty {
            group.remove();
        }
    }

    /// The slots of the rows of a state partition that are at least `from` and below `to`, all of which belong to the key with this hash.
    pub(super) fn range<'k>(
        &self,
        hash: u64,
        (state_partition, from, to): (u16, &[u8], &[u8]),
        key_of: impl Fn(u32) -> RowKey<'k>,
    ) -> Slots<'_> {
        let nothing = Slots::Few([].iter());
        let (from, to) = ((state_partition, from), (state_partition, to));
        let Some(group) = self.groups.get(&hash).filter(|_| from < to) else {
            return nothing;
        };
        match group {
            Group::Few { .. } => {
                let slots = group.few();
                let first = slots.partition_point(|slot| key_of(*slot) < from);
                let count = slots[first..].partition_point(|slot| key_of(*slot) < to);
                Slots::Few(slots[first..first + count].iter())
            }
            Group::Many(rows) => {
                let (from, to) = (BorrowedPlace(from.0, from.1), BorrowedPlace(to.0, to.1));
                let bounds: (Bound<&dyn Place>, Bound<&dyn Place>) =
                    (Bound::Included(&from), Bound::Excluded(&to));
                Slots::Many(rows.range::<dyn Place, _>(bounds))
            }
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.groups.len() * GROUP_BYTES
            + self.tree_rows_count * TREE_ROW_BYTES
            + self.heap_bytes
            + self.elsewhere.size_bytes()
    }
}

fn owned((state_partition, bytes): RowKey<'_>) -> OwnedPlace {
    OwnedPlace {
        bytes: KeyBytes::new(bytes),
        state_partition,
    }
}

/// The slots of a range.
#[derive(Debug)]
pub(super) enum Slots<'s> {
    Few(slice::Iter<'s, u32>),
    Many(btree_map::Range<'s, OwnedPlace, u32>),
}

impl Iterator for Slots<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Few(slots) => slots.next().copied(),
            Self::Many(rows) => rows.next().map(|(_, slot)| *slot),
        }
    }
}

impl DoubleEndedIterator for Slots<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<u32> {
        match self {
            Self::Few(slots) => slots.next_back().copied(),
            Self::Many(rows) => rows.next_back().map(|(_, slot)| *slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Rows of two state partitions and of keys that begin each other.
    fn row(number: usize) -> (u16, Vec<u8>) {
        let mut bytes = Vec::new();
        super::super::key_prefix::put_prefix([&b""[..], b"a", b"ab"][number % 3], &mut bytes);
        bytes.extend_from_slice(&(number as u64 / 6).to_be_bytes());
        (u16::from(number / 3 % 2 == 1), bytes)
    }

    proptest! {
        /// With so few hashes that keys collide, and with none that do.
        #[test]
        fn rows_are_in_order_within_a_key_whatever_keys_share_its_hash(
            changes in prop::collection::vec((0usize..96, any::<bool>()), 1..300),
            hashes_count in 1u64..8,
        ) {
            let hash = |number: usize| hash_of_row(&row(number).1) % hashes_count;
            let rows: Vec<_> = (0..96).map(row).collect();
            let key_of = |slot: u32| (rows[slot as usize].0, &*rows[slot as usize].1);
            let (mut order, mut model) = (KeyOrder::default(), BTreeMap::new());
            for (number, comes) in changes {
                let slot = u32::try_from(number).unwrap();
                match comes {
                    true if model.insert(row(number), slot).is_none() => {
                        order.insert(hash(number), key_of(slot), slot, key_of);
                    }
                    false if model.remove(&row(number)).is_some() => {
                        order.remove(hash(number), key_of(slot), slot);
                    }
                    _ => {}
                }
            }
            for number in 0..6 {
                let (partition, from) = row(number);
                for to in (number..96).step_by(6) {
                    let to = &rows[to].1;
                    let found = order.range(hash(number), (partition, &from, to), key_of);
                    let expected = model.range((partition, from.clone())..(partition, to.clone()));
                    let expected: Vec<_> = expected.map(|(_, slot)| *slot).collect();
                    prop_assert_eq!(found.collect::<Vec<_>>(), expected.clone());
                    let found = order.range(hash(number), (partition, &from, to), key_of);
                    let back: Vec<_> = expected.into_iter().rev().collect();
                    prop_assert_eq!(found.rev().collect::<Vec<_>>(), back);
                }
            }
            for (row, slot) in model {
                order.remove(hash(slot as usize), (row.0, &row.1), slot);
            }
            prop_assert_eq!(order.size_bytes(), 0);
        }
    }
}

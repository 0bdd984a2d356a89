//! The keys of a table in the order of their bytes, for stores whose ranges are read.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::key::KeyBytes;

/// Bytes of an entry in the tree beside long keys: 36 bytes in nodes that are two thirds full.
const ENTRY_BYTES: usize = 54;

/// A state partition and a key's bytes, owned or borrowed.
trait Place {
    fn place(&self) -> (u16, &[u8]);
}

#[derive(Debug)]
struct OwnedPlace {
    bytes: KeyBytes,
    state_partition: u16,
}

struct BorrowedPlace<'a>(u16, &'a [u8]);

impl Place for OwnedPlace {
    fn place(&self) -> (u16, &[u8]) {
        (self.state_partition, self.bytes.as_slice())
    }
}

impl Place for BorrowedPlace<'_> {
    fn place(&self) -> (u16, &[u8]) {
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

/// The slots of a table's entries by state partition and key. It has every entry of the table, and no other.
#[derive(Debug, Default)]
pub(super) struct KeyOrder {
    slots: BTreeMap<OwnedPlace, u32>,
    heap_bytes: usize,
}

impl KeyOrder {
    pub(super) fn insert(&mut self, state_partition: u16, key: &[u8], slot: u32) {
        let bytes = KeyBytes::new(key);
        self.heap_bytes += bytes.heap_bytes();
        let place = OwnedPlace {
            bytes,
            state_partition,
        };
        let before = self.slots.insert(place, slot);
        assert!(before.is_none(), "a key has one slot");
    }

    pub(super) fn remove(&mut self, state_partition: u16, key: &[u8]) {
        let place: &dyn Place = &BorrowedPlace(state_partition, key);
        if let Some((place, _)) = self.slots.remove_entry(place) {
            self.heap_bytes -= place.bytes.heap_bytes();
        }
    }

    /// The slots of the keys of a state partition that are at least `from` and below `to`.
    pub(super) fn range(
        &self,
        state_partition: u16,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = u32> {
        let (from, to) = (
            BorrowedPlace(state_partition, from),
            BorrowedPlace(state_partition, to),
        );
        let bounds: (Bound<&dyn Place>, Bound<&dyn Place>) =
            (Bound::Included(&from), Bound::Excluded(&to));
        let is_empty = from.1 >= to.1;
        let slots = (!is_empty).then(|| self.slots.range::<dyn Place, _>(bounds));
        slots.into_iter().flatten().map(|(_, slot)| *slot)
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.slots.len() * ENTRY_BYTES + self.heap_bytes
    }
}

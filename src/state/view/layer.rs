//! Committed rows of one store that RocksDB may not have yet, as bytes: by key, or in the order of keys.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::rows::HashedRows;
use crate::state::key::KeyBytes;

/// Bytes that a row in order takes beside long keys and values, with its share of the tree.
const ROW_BYTES: usize = size_of::<(RowKey, Versions)>() * 3 / 2;

/// A stored key: the state partition, then the key.
#[derive(Debug)]
struct RowKey(KeyBytes);

/// A function that is shown a key, and its value if it has one.
type VisitChange<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>);

impl Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl PartialEq for RowKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice() == other.0.as_slice()
    }
}

impl Eq for RowKey {}

impl PartialOrd for RowKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RowKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.as_slice().cmp(other.0.as_slice())
    }
}

/// A value as bytes; `None` for a key that was deleted.
type Value = Option<KeyBytes>;

/// The last value of a key, the epoch whose commit it is part of, and the value before.
#[derive(Debug)]
struct Versions {
    epoch: u64,
    value: Value,
    /// The value until that epoch; unknown where it is in an older layer, or in RocksDB.
    before: Option<Value>,
}

impl Versions {
    fn new(epoch: u64, value: Value) -> Self {
        Self {
            epoch,
            value,
            before: None,
        }
    }

    /// The value as of an epoch; `None` if an older layer or RocksDB has it.
    fn at(&self, epoch: u64) -> Option<Option<&[u8]>> {
        let value = match self.epoch <= epoch {
            true => &self.value,
            false => self.before.as_ref()?,
        };
        Some(value.as_ref().map(KeyBytes::as_slice))
    }

    fn replace(&mut self, epoch: u64, value: Value) {
        let before = std::mem::replace(&mut self.value, value);
        match self.epoch == epoch {
            // Twice in one cycle: the value before it stays what it was.
            true => {}
            false => self.before = Some(before),
        }
        self.epoch = epoch;
    }

    fn heap_bytes(&self) -> usize {
        let bytes_of = |value: &Value| value.as_ref().map_or(0, KeyBytes::heap_bytes);
        bytes_of(&self.value) + self.before.as_ref().map_or(0, bytes_of)
    }
}

/// The rows that were committed between two flushes.
#[derive(Debug)]
pub(super) struct Layer {
    rows: Rows,
    heap_bytes: usize,
}

#[derive(Debug)]
enum Rows {
    Hashed(HashedRows),
    /// Of stores whose ranges are read.
    Sorted(BTreeMap<RowKey, Versions>),
}

impl Layer {
    pub(super) fn new(is_sorted: bool) -> Self {
        let rows = match is_sorted {
            true => Rows::Sorted(BTreeMap::new()),
            false => Rows::Hashed(HashedRows::new()),
        };
        Self {
            rows,
            heap_bytes: 0,
        }
    }

    /// An empty one of the same kind.
    pub(super) fn emptied(&self) -> Self {
        Self::new(matches!(self.rows, Rows::Sorted(_)))
    }

    /// Notes a value of the cycle that becomes `epoch`.
    pub(super) fn put(&mut self, epoch: u64, key: &[u8], value: Option<&[u8]>) {
        let rows = match &mut self.rows {
            Rows::Hashed(rows) => return rows.put(epoch, key, value),
            Rows::Sorted(rows) => rows,
        };
        let value = value.map(KeyBytes::new);
        let (before, after) = match rows.get_mut(key) {
            Some(versions) => change(versions, epoch, value),
            None => {
                let (key, versions) = (RowKey(KeyBytes::new(key)), Versions::new(epoch, value));
                let added = key.0.heap_bytes() + versions.heap_bytes();
                rows.insert(key, versions);
                (0, added)
            }
        };
        self.heap_bytes = self.heap_bytes + after - before;
    }

    /// The value of a key as of an epoch; `None` if an older layer or RocksDB has it.
    pub(super) fn get(&self, epoch: u64, key: &[u8]) -> Option<Option<&[u8]>> {
        match &self.rows {
            Rows::Hashed(rows) => rows.get(epoch, key),
            Rows::Sorted(rows) => rows.get(key)?.at(epoch),
        }
    }

    /// Shows the rows from `from` to below `to` (`None`: to the end) as of an epoch, in no particular order.
    pub(super) fn visit_range(
        &self,
        epoch: u64,
        from: &[u8],
        to: Option<&[u8]>,
        visit: VisitChange<'_>,
    ) {
        match &self.rows {
            Rows::Hashed(rows) => {
                let rows = rows.iter(epoch);
                let rows = rows.filter(|(key, _)| *key >= from && to.is_none_or(|to| *key < to));
                for (key, known) in rows {
                    if let Some(value) = known {
                        visit(key, value);
                    }
                }
            }
            Rows::Sorted(_) if to.is_some_and(|to| to <= from) => {}
            Rows::Sorted(rows) => {
                let to = to.map_or(Bound::Unbounded, Bound::Excluded);
                for (key, versions) in rows.range::<[u8], _>((Bound::Included(from), to)) {
                    if let Some(value) = versions.at(epoch) {
                        visit(key.0.as_slice(), value);
                    }
                }
            }
        }
    }

    /// Forgets the rows whose keys are `gone`.
    pub(super) fn remove_where(&mut self, is_gone: impl Fn(&[u8]) -> bool) {
        let rows = match &mut self.rows {
            Rows::Hashed(rows) => return rows.remove_where(is_gone),
            Rows::Sorted(rows) => rows,
        };
        let mut gone_bytes = 0;
        rows.retain(|key, versions| {
            let is_gone = is_gone(key.0.as_slice());
            gone_bytes += match is_gone {
                true => key.0.heap_bytes() + versions.heap_bytes(),
                false => 0,
            };
            !is_gone
        });
        self.heap_bytes -= gone_bytes;
    }

    pub(super) fn size_bytes(&self) -> usize {
        match &self.rows {
            Rows::Hashed(rows) => rows.size_bytes(),
            Rows::Sorted(rows) => rows.len() * ROW_BYTES + self.heap_bytes,
        }
    }
}

/// Changes a row; returns what it took outside itself before and after.
fn change(versions: &mut Versions, epoch: u64, value: Value) -> (usize, usize) {
    let before = versions.heap_bytes();
    versions.replace(epoch, value);
    (before, versions.heap_bytes())
}

//! Reads of committed values: of one key, and of a range of keys.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};

use super::{Inside, Shard};
use crate::state::backend::StateBackend;
use crate::state::error::StateError;
use crate::state::key::encode_stored_key;
use crate::state::ranges::Direction;
use crate::state::scan::stored_end;

/// The answer to a read of one key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The value; `None` if the key has none.
    Value(Option<Vec<u8>>),
    /// The state partition of the key is not in this process.
    Elsewhere,
}

/// A range of keys in some state partitions, which are read one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RangeOf<'a> {
    /// State partitions, and the key from which each is read.
    pub(crate) places: &'a [(u16, &'a [u8])],
    /// The key before which each ends; `None`: at its end.
    pub(crate) to: Option<&'a [u8]>,
    /// The order within each.
    pub(crate) direction: Direction,
    /// Most rows to show of each.
    pub(crate) rows_max: usize,
}

/// The rows of a range that RocksDB may lack, by stored key.
type Laid = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Is shown a key and its value, and says whether to go on.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

impl Shard {
    /// The value of a stored key as of an epoch; `None` if RocksDB has it.
    fn get(&self, epoch: u64, stored_key: &[u8]) -> Option<Option<Vec<u8>>> {
        let kept = self.kept.lock();
        let mut layers = std::iter::once(&kept.current).chain(&kept.in_flight);
        let value = layers.find_map(|layer| layer.get(epoch, stored_key));
        value.map(|value| value.map(<[u8]>::to_vec))
    }

    /// The rows of a range of stored keys that RocksDB may lack, as of an epoch.
    fn range(&self, epoch: u64, from: &[u8], to: Option<&[u8]>) -> Laid {
        let kept = self.kept.lock();
        let mut laid = Laid::new();
        // The newer layer last: its rows hide those of the older one.
        for layer in kept.in_flight.iter().chain([&kept.current]) {
            layer.visit_range(epoch, from, to, &mut |key, value| {
                laid.insert(key.to_vec(), value.map(<[u8]>::to_vec));
            });
        }
        laid
    }
}

impl StateBackend {
    /// The value of a key as of the epoch of the gate.
    ///
    /// # Errors
    /// If the store was not declared, or RocksDB fails.
    pub(crate) fn committed_value(
        &self,
        inside: &Inside<'_>,
        store: &str,
        state_partition: u16,
        key: &[u8],
    ) -> Result<Found, StateError> {
        let Some(shard) = self.views().shard(store, state_partition) else {
            return Ok(Found::Elsewhere);
        };
        let mut stored_key = Vec::with_capacity(2 + key.len());
        encode_stored_key(state_partition, key, &mut stored_key);
        if let Some(value) = shard.get(inside.epoch(), &stored_key) {
            return Ok(Found::Value(value));
        }
        let mut found = None;
        self.read_many(store, std::iter::once(&*stored_key), &mut |value| {
            found = value.map(<[u8]>::to_vec);
            Ok(())
        })?;
        Ok(Found::Value(found))
    }

    /// Shows the keys of a range with their values as of the epoch of the gate, until `visit` breaks; a state partition is returned that is
    /// not in this process, if there is one, and then nothing is shown. The gate is left as soon as what to show is known: a long
    /// range holds no commit up.
    ///
    /// # Errors
    /// If the store was not declared, or RocksDB fails.
    pub(crate) fn visit_committed(
        &self,
        inside: Inside<'_>,
        store: &str,
        range: RangeOf<'_>,
        visit: Visit<'_>,
    ) -> Result<Option<u16>, StateError> {
        let mut parts = Vec::with_capacity(range.places.len());
        for &(partition, from) in range.places {
            let Some(shard) = self.views().shard(store, partition) else {
                return Ok(Some(partition));
            };
            let mut stored_from = Vec::new();
            encode_stored_key(partition, from, &mut stored_from);
            let stored_to = stored_end(partition, range.to);
            let laid = shard.range(inside.epoch(), &stored_from, stored_to.as_deref());
            parts.push((stored_from, stored_to, laid));
        }
        let family = self.shared.family(store)?;
        let snapshot = self.shared.db.snapshot();
        drop(inside);
        for (from, to, laid) in parts {
            let mut read = ReadOptions::default();
            read.set_total_order_seek(true);
            read.set_iterate_lower_bound(from);
            if let Some(to) = to {
                read.set_iterate_upper_bound(to);
            }
            let mut stored = snapshot.raw_iterator_cf_opt(&family, read);
            let mut merge = Merge {
                laid,
                direction: range.direction,
                rows_left: range.rows_max,
            };
            let flow = merge.show_all(&mut stored, visit);
            stored.status().map_err(|e| self.shared.failed("read", e))?;
            if flow.is_break() {
                break;
            }
        }
        Ok(None)
    }
}

/// The row that is laid over RocksDB's and was not shown yet.
struct Merge {
    laid: Laid,
    direction: Direction,
    rows_left: usize,
}

impl Merge {
    /// Shows what RocksDB has in the range with what is laid over it; breaks where `visit` does.
    fn show_all(
        &mut self,
        stored: &mut DBRawIteratorWithThreadMode<'_, DB>,
        visit: Visit<'_>,
    ) -> ControlFlow<()> {
        match self.direction {
            Direction::Forward => stored.seek_to_first(),
            Direction::Backward => stored.seek_to_last(),
        }
        while let Some((key, value)) = stored.item() {
            self.show_until(Some(key), visit)?;
            if self.rows_left == 0 {
                return ControlFlow::Continue(());
            }
            match self.laid.remove(key) {
                Some(laid) => self.show(key, laid.as_deref(), visit)?,
                None => self.show(key, Some(value), visit)?,
            }
            match self.direction {
                Direction::Forward => stored.next(),
                Direction::Backward => stored.prev(),
            }
        }
        self.show_until(None, visit)
    }

    /// Shows all that comes before a stored key, or all that is left.
    fn show_until(&mut self, key: Option<&[u8]>, visit: Visit<'_>) -> ControlFlow<()> {
        while self.rows_left > 0 {
            let next = match self.direction {
                Direction::Forward => self.laid.first_entry(),
                Direction::Backward => self.laid.last_entry(),
            };
            let is_before = |laid: &[u8]| key.is_none_or(|key| self.direction.is_before(laid, key));
            let Some(next) = next.filter(|next| is_before(next.key())) else {
                break;
            };
            let (laid, value) = next.remove_entry();
            self.show(&laid, value.as_deref(), visit)?;
        }
        ControlFlow::Continue(())
    }

    fn show(
        &mut self,
        stored_key: &[u8],
        value: Option<&[u8]>,
        visit: Visit<'_>,
    ) -> ControlFlow<()> {
        let Some(value) = value.filter(|_| self.rows_left > 0) else {
            return ControlFlow::Continue(());
        };
        self.rows_left -= 1;
        visit(stored_key.get(2..).unwrap_or_default(), value)
    }
}

//! Reading a range of keys in order: RocksDB's keys, with what is not flushed yet laid over them.

use std::ops::ControlFlow;

use super::error::StateError;
use super::key::encode_stored_key;
use super::ranges::Direction;
use super::store::Store;
use super::value::decode;

/// A function that is shown a state partition, a key of it and the value, and may break off.
type VisitRow<'a, V> = &'a mut dyn FnMut(u16, &[u8], &V) -> ControlFlow<()>;

impl<V: Clone + Send + 'static> Store<V> {
    /// Shows each key of the state partition that begins with `prefix`, in the order of their bytes, until `visit`
    /// breaks. An empty prefix shows all. Changes of the open cycle are seen. Costs a read of RocksDB's range
    /// plus a look at all that is not flushed.
    ///
    /// # Errors
    /// If RocksDB fails or holds a value that is not of the store's type.
    pub fn scan_prefix(
        &mut self,
        state_partition: u16,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.scan_range(state_partition, prefix, successor(prefix).as_deref(), visit)
    }

    /// Shows each key of the state partition that is at least `from` and below `to` (`None`: to the end), as
    /// [`scan_prefix`](Self::scan_prefix) does.
    ///
    /// # Errors
    /// If RocksDB fails or holds a value that is not of the store's type.
    pub fn scan_range(
        &mut self,
        state_partition: u16,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        self.check_not_broken()?;
        let overlay = self.unflushed_in(state_partition, from, to).into_iter();
        let range = (from, to, Direction::Forward);
        self.scan_merged(state_partition, range, overlay, visit)
    }

    /// Shows RocksDB's keys of a range with those of `overlay`, which is in the range's order, laid over them.
    pub(super) fn scan_merged<'s>(
        &'s self,
        state_partition: u16,
        (from, to, direction): (&[u8], Option<&[u8]>, Direction),
        overlay: impl Iterator<Item = (&'s [u8], Option<&'s V>)>,
        visit: &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
    ) -> Result<(), StateError>
    where
        V: 's,
    {
        let mut overlay = overlay.peekable();
        let mut stored_from = Vec::new();
        encode_stored_key(state_partition, from, &mut stored_from);
        let stored_to = stored_end(state_partition, to);
        let mut is_stopped = false;
        let mut show = |key: &[u8], bytes: &[u8]| {
            // What lies before the stored key comes first; what has the same key hides it.
            while let Some((laid_over, value)) = overlay
                .next_if(|(laid_over, _)| *laid_over == key || direction.is_before(laid_over, key))
            {
                if let Some(value) = value
                    && visit(laid_over, value).is_break()
                {
                    is_stopped = true;
                    return Ok(ControlFlow::Break(()));
                }
                if laid_over == key {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            let value = decode(self.codec.as_ref(), &self.name, Some(bytes))?;
            let flow = value.map_or(ControlFlow::Continue(()), |value| visit(key, &value));
            is_stopped = flow.is_break();
            Ok(flow)
        };
        self.backend
            .scan(&self.name, &stored_from, stored_to, direction, &mut show)?;
        if !is_stopped {
            let _ = overlay
                .filter_map(|(key, value)| Some((key, value?)))
                .try_for_each(|(key, value)| visit(key, value));
        }
        Ok(())
    }

    /// Shows each key of every state partition that is at least `from`, a partition after the other, each in the order of the keys'
    /// bytes; where `visit` breaks, the next partition begins. Changes of the open cycle are seen. Costs one look at all that is not
    /// flushed, and a read of RocksDB's ranges as far as they were shown.
    ///
    /// # Errors
    /// If RocksDB fails or holds a value that is not of the store's type.
    pub fn scan_partitions(
        &mut self,
        from: &[u8],
        visit: VisitRow<'_, V>,
    ) -> Result<(), StateError> {
        self.check_not_broken()?;
        let slots = self.unflushed_slots();
        let mut unflushed: Vec<_> = slots
            .map(|slot| self.table.entry(slot))
            .filter(|entry| entry.key.as_slice() >= from)
            .map(|entry| {
                let key = entry.key.as_slice();
                (entry.state_partition, key, entry.value.as_ref())
            })
            .collect();
        unflushed.sort_unstable_by_key(|(partition, key, _)| (*partition, *key));
        unflushed.dedup_by_key(|(partition, key, _)| (*partition, *key));
        for &partition in &self.partitions {
            let first = unflushed.partition_point(|entry| entry.0 < partition);
            let behind = unflushed.partition_point(|entry| entry.0 <= partition);
            let overlay = unflushed[first..behind].iter();
            let overlay = overlay.map(|(_, key, value)| (*key, *value));
            let mut visit = |key: &[u8], value: &V| visit(partition, key, value);
            let range = (from, None, Direction::Forward);
            self.scan_merged(partition, range, overlay, &mut visit)?;
        }
        Ok(())
    }

    /// The slots of entries that RocksDB may not have as they are; some come twice.
    fn unflushed_slots(&self) -> impl Iterator<Item = u32> {
        let in_flight = self.in_flight.iter().flat_map(|flight| &flight.slots);
        in_flight.chain(&self.dirty).chain(&self.cycle).copied()
    }

    /// The entries of the range that RocksDB may not have as they are, in order.
    fn unflushed_in(
        &self,
        state_partition: u16,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Vec<(&[u8], Option<&V>)> {
        let mut entries: Vec<_> = self
            .unflushed_slots()
            .map(|slot| self.table.entry(slot))
            .filter(|entry| {
                let key = entry.key.as_slice();
                entry.state_partition == state_partition
                    && key >= from
                    && to.is_none_or(|to| key < to)
            })
            .map(|entry| (entry.key.as_slice(), entry.value.as_ref()))
            .collect();
        entries.sort_unstable_by_key(|(key, _)| *key);
        entries.dedup_by_key(|(key, _)| *key);
        entries
    }
}

/// The first stored key behind the range; `None` if nothing can be behind it.
pub(super) fn stored_end(state_partition: u16, to: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut end = Vec::new();
    match to {
        Some(to) => encode_stored_key(state_partition, to, &mut end),
        None => encode_stored_key(state_partition.checked_add(1)?, &[], &mut end),
    }
    Some(end)
}

/// The first key that is above every key with this prefix; `None` if there is none.
pub(super) fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte != u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_of_a_prefix_is_above_all_that_begin_with_it() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(&[1, 255, 255]), Some(vec![2]));
        assert_eq!(successor(&[255]), None);
        assert_eq!(successor(b""), None);
    }
}

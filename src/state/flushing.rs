//! When a store's values go to RocksDB, and what it notes of them on the way.

use std::sync::Arc;

use super::error::StateError;
use super::flush::{FlushBatch, FlushTicket, FlushUrgency};
use super::store::{InFlight, Store, WARM_SLOTS};
use super::value::encode;

impl<V: Clone + Send + 'static> Store<V> {
    /// Takes what RocksDB lacks, if that is much or has waited long, or with [`FlushUrgency::Now`] if it is
    /// anything. Call it right after [`drain_cycle`](Self::drain_cycle), before the next cycle changes anything;
    /// hand the batch to [`StateBackend::flush`] only after the drained cycle is committed. One flush
    /// at a time: `None` while another is not [`flushed`](Self::flushed).
    ///
    /// # Errors
    /// If a value cannot be encoded.
    ///
    /// # Panics
    /// If the open cycle has changes: they could reach RocksDB before they are committed (I7).
    pub fn take_flush(&mut self, urgency: FlushUrgency) -> Result<Option<FlushBatch>, StateError> {
        self.check_not_broken()?;
        assert!(
            self.cycle.is_empty(),
            "store {:?}: a flush was asked for inside a cycle",
            self.name
        );
        let is_wanted = urgency == FlushUrgency::Now || self.is_flush_due();
        if self.in_flight.is_some() || self.dirty.is_empty() || !is_wanted {
            return Ok(None);
        }
        let batch = self.build_flush();
        self.broken_on_error(batch).map(Some)
    }

    fn is_flush_due(&mut self) -> bool {
        let config = self.backend.config();
        let tail_bytes_max =
            config.changelog_tail_bytes_max / (2 * self.share.stores_count() as u64);
        let has_waited = self.backend.now().since(self.last_flush) >= config.flush_interval;
        let limit_bytes = self.limit_bytes();
        // What is kept for readers may take an eighth before flushes come sooner for it: else questions would cost a job more in
        // flushes than in copies.
        let noted_bytes = self.viewed.current_bytes().saturating_sub(limit_bytes / 8);
        has_waited
            || self.changelog_bytes > tail_bytes_max
            || self.dirty_bytes + noted_bytes > limit_bytes / 4
    }

    fn build_flush(&mut self) -> Result<FlushBatch, StateError> {
        let ticket = FlushTicket(self.next_ticket);
        self.next_ticket = self.next_ticket.wrapping_add(1);
        let slots = std::mem::take(&mut self.dirty);
        let mut batch = FlushBatch::new(
            Arc::clone(&self.name),
            ticket,
            slots.len(),
            self.changelog_bytes,
        );
        for slots in slots.chunks(WARM_SLOTS) {
            self.table.warm_slots(slots.iter().copied());
            for &slot in slots {
                let entry = self.table.entry_mut(slot);
                entry.is_dirty = false;
                entry.flush_ticket = ticket.0;
                let (codec, name, value) = (self.codec.as_ref(), &self.name, entry.value.as_ref());
                batch.push(entry.state_partition, entry.key.as_slice(), |out| {
                    value.map(|value| encode(codec, name, value, out))
                })?;
            }
        }
        self.viewed.flush_taken();
        self.in_flight = Some(InFlight {
            ticket,
            slots,
            bytes: std::mem::take(&mut self.dirty_bytes),
            changelog_bytes: std::mem::take(&mut self.changelog_bytes),
        });
        self.last_flush = self.backend.now();
        Ok(batch)
    }

    /// Says that the batch with this ticket is in RocksDB: its entries may be evicted.
    ///
    /// # Panics
    /// If that flush is not the one in flight.
    pub fn flushed(&mut self, ticket: FlushTicket) {
        let in_flight = self.in_flight.take();
        let slots = in_flight
            .filter(|flight| flight.ticket == ticket)
            .map(|flight| flight.slots)
            .unwrap_or_else(|| panic!("store {:?}: {ticket:?} is not in flight", self.name));
        self.viewed.flushed();
        for slot in slots {
            let entry = self.table.entry(slot);
            // A key that was deleted, there as here: nobody need remember it.
            if entry.value.is_none() && !entry.is_dirty && !entry.is_in_cycle {
                self.table.remove(slot);
            }
        }
        self.make_room();
    }

    /// Whether so much waits for RocksDB that the next cycle should wait for the flush in flight
    /// (or take one): what is not flushed cannot be evicted.
    pub fn must_wait_for_flush(&mut self) -> bool {
        let limit_bytes = self.limit_bytes();
        let noted_bytes = self.viewed.size_bytes().saturating_sub(limit_bytes / 4);
        self.unflushed_bytes() + noted_bytes > limit_bytes / 2
    }
}

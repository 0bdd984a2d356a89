//! Tells states of the world apart: a number over everything that its future depends on, and nothing else.

use std::hash::{Hash, Hasher};

use super::world::World;
use crate::coordinator::transaction::coordinator::{Entry, TransactionCoordinator};
use crate::coordinator::transaction::{Effect, Input};

impl World {
    /// Equal for states from which the same can happen. Left out is what does not matter or follows from the rest:
    /// numbers of tickets, replies that were read, the order of messages in the network. Moments need not be made
    /// relative: the clock stands still but for time-outs, of which the number is in here.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut to = Mixer(0);
        hash_coordinator(&self.coordinator, &mut to);
        self.journal.hash(&mut to);
        self.partitions.hash(&mut to);
        self.queue.len().hash(&mut to);
        for effect in &self.queue {
            hash_effect(effect, &mut to);
        }
        self.clients.hash(&mut to);
        let messages = self.network.iter().map(|message| {
            let mut to = Mixer(1);
            message.hash(&mut to);
            to.finish()
        });
        // A sum, since any message may be delivered next.
        messages.fold(0, u64::wrapping_add).hash(&mut to);
        (self.copies_left, self.timeouts_left, self.crashes_left).hash(&mut to);
        (self.kills_left, &self.excused).hash(&mut to);
        (self.whole_since, self.config.opening).hash(&mut to);
        (&self.wanted, &self.told, &self.issued).hash(&mut to);
        (self.newest, &self.lso_seen, self.labels).hash(&mut to);
        to.finish()
    }
}

fn hash_coordinator(coordinator: &TransactionCoordinator, to: &mut Mixer) {
    for (id, entry) in &coordinator.entries {
        id.hash(to);
        hash_entry(entry, to);
    }
    (coordinator.phase, &coordinator.producer_ids).hash(to);
    coordinator.repairs.hash(to);
    hash_inputs(coordinator.waiting_for_ids.iter(), to);
}

fn hash_entry(entry: &Entry, to: &mut Mixer) {
    (&entry.record, &entry.pending, entry.deadline).hash(to);
    (&entry.unsynced_markers, &entry.strays, entry.is_from_before).hash(to);
    hash_inputs(entry.parked.iter(), to);
}

fn hash_inputs<'a>(inputs: impl ExactSizeIterator<Item = &'a Input>, to: &mut Mixer) {
    inputs.len().hash(to);
    inputs.for_each(|input| format!("{input:?}").hash(to));
}

/// Everything but the ticket, whose number depends on the way here.
fn hash_effect(effect: &Effect, to: &mut Mixer) {
    match effect {
        Effect::AppendJournal { key, value, .. } => (0, key, value).hash(to),
        Effect::SyncData { partitions, .. } => (1, partitions).hash(to),
        Effect::WriteMarkers {
            producer,
            result,
            partitions,
            ..
        } => (2, producer, result, partitions).hash(to),
        other => other.hash(to),
    }
}

/// A quick hash of 64 bits: among a million states, two that differ are taken for equal once in 30 million searches.
struct Mixer(u64);

impl Mixer {
    fn add(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(25) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.add(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.add(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

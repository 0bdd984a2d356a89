//! `Epochs`: under which leader epoch the records before a position were written, so that a reader notices when a new
//! leader lacks them (KIP-320). No I/O.
//!
//! A leader that was not in sync may lead after an unclean election: records that were read are gone, and others take
//! their offsets. Before a position is read on at a newer leader than it was last seen at, that leader is asked where the
//! epoch of the record before it ends there; an end below the position tells of the loss. So does another topic's id.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use crate::protocol::batch::Header;
use crate::types::{Offset, TopicId, TopicPartition};

/// Positions that are remembered of a partition: one for each of its readers, of which there are few.
const POSITIONS_MAX: usize = 8;

/// A position that somebody reads on from.
#[derive(Debug, Clone, Copy)]
struct Position {
    offset: Offset,
    /// The epoch of the record before it.
    epoch: i32,
    /// The newest leader epoch at which that record was there.
    seen_at: i32,
    /// Of which topic, should another one get its name.
    topic: TopicId,
}

/// Doubt to be settled before a position is read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Where the leader says that this epoch ends.
    EndOf(i32),
    /// The record before it was one of another topic of the same name.
    Recreated,
}

/// The positions behind what was read last.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    positions: Mutex<HashMap<TopicPartition, VecDeque<Position>>>,
}

impl Epochs {
    /// Notes where `records`, which a leader of `leader_epoch` gave, end.
    pub(super) fn note(
        &self,
        place: &TopicPartition,
        records: &[u8],
        leader_epoch: i32,
        topic: TopicId,
    ) {
        let Some((offset, epoch)) = last_batch(records) else {
            return;
        };
        let position = Position {
            offset,
            epoch,
            seen_at: leader_epoch,
            topic,
        };
        let mut all = self.positions.lock();
        let positions = all.entry(place.clone()).or_default();
        positions.retain(|known| known.offset != offset);
        positions.push_back(position);
        if positions.len() > POSITIONS_MAX {
            positions.pop_front();
        }
    }

    /// Finds the doubt to settle before `offset` is read at a leader of `leader_epoch` of the topic.
    pub(super) fn doubt(
        &self,
        place: &TopicPartition,
        offset: Offset,
        leader_epoch: i32,
        topic: TopicId,
    ) -> Option<Doubt> {
        let all = self.positions.lock();
        let positions = all.get(place)?;
        let known = positions.iter().find(|known| known.offset == offset)?;
        match known.topic == topic {
            false => Some(Doubt::Recreated),
            true if known.epoch >= 0 && known.seen_at < leader_epoch => {
                Some(Doubt::EndOf(known.epoch))
            }
            true => None,
        }
    }

    /// The reader was told that what was before `offset` is gone: if it reads on there, it means to.
    pub(super) fn forget(&self, place: &TopicPartition, offset: Offset) {
        let mut all = self.positions.lock();
        if let Some(positions) = all.get_mut(place) {
            positions.retain(|known| known.offset != offset);
        }
    }

    /// The leader of `leader_epoch` has the records before `offset`.
    pub(super) fn confirm(&self, place: &TopicPartition, offset: Offset, leader_epoch: i32) {
        let mut all = self.positions.lock();
        let positions = all.get_mut(place).into_iter().flatten();
        for known in positions.filter(|known| known.offset == offset) {
            known.seen_at = known.seen_at.max(leader_epoch);
        }
    }
}

/// One past the last record of the last whole batch, and its epoch.
fn last_batch(mut records: &[u8]) -> Option<(Offset, i32)> {
    let mut last = None;
    while let Ok(header) = Header::parse(records) {
        let Some(rest) = records.get(header.total_bytes()..) else {
            break;
        };
        let end = header
            .base_offset
            .plus(i64::from(header.last_offset_delta) + 1);
        last = Some((end, header.partition_leader_epoch));
        records = rest;
    }
    last
}

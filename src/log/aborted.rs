//! The aborted-transaction index (`.txnindex`): which data `read_committed` readers must leave out.
//!
//! ```text
//! 0 version i16 = 0   2 producer_id i64   10 first_offset i64   18 last_offset i64 (the marker)   26 last_stable_offset i64
//! ```
//! Entries stand in the segment of their marker, so that `last_offset` increases. `last_stable_offset` is what it
//! became by this abort; no transaction aborted later begins before it, which ends a search.

use bytes::{Buf, BufMut};

use super::producer_state::EndedTransaction;
use crate::types::{Offset, ProducerId};

const VERSION: i16 = 0;
/// The size of an entry.
pub(crate) const ENTRY_BYTES: usize = 34;

/// One aborted transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedEntry {
    pub(crate) producer_id: ProducerId,
    pub(crate) first_offset: Offset,
    /// The offset of the marker.
    pub(crate) last_offset: Offset,
    pub(crate) last_stable_offset: Offset,
}

impl From<EndedTransaction> for AbortedEntry {
    fn from(ended: EndedTransaction) -> Self {
        Self {
            producer_id: ended.producer_id,
            first_offset: ended.first_offset,
            last_offset: ended.last_offset,
            last_stable_offset: ended.last_stable_offset,
        }
    }
}

/// Writes entries as a file's bytes.
pub(crate) fn encode(entries: &[AbortedEntry]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        bytes.put_i16(VERSION);
        bytes.put_i64(entry.producer_id.0);
        bytes.put_i64(entry.first_offset.0);
        bytes.put_i64(entry.last_offset.0);
        bytes.put_i64(entry.last_stable_offset.0);
    }
    bytes
}

/// Reads a file's bytes; `None` if they cannot be an index.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<AbortedEntry>> {
    if !bytes.len().is_multiple_of(ENTRY_BYTES) {
        return None;
    }
    let entries: Option<Vec<_>> = bytes.chunks_exact(ENTRY_BYTES).map(decode_entry).collect();
    entries.filter(|entries| entries.is_sorted_by(|a, b| a.last_offset < b.last_offset))
}

fn decode_entry(mut bytes: &[u8]) -> Option<AbortedEntry> {
    if bytes.get_i16() != VERSION {
        return None;
    }
    let entry = AbortedEntry {
        producer_id: ProducerId(bytes.get_i64()),
        first_offset: Offset(bytes.get_i64()),
        last_offset: Offset(bytes.get_i64()),
        last_stable_offset: Offset(bytes.get_i64()),
    };
    (entry.first_offset <= entry.last_offset).then_some(entry)
}

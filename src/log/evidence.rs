//! Evidence behind damage: batches that are whole and say how far their log was durable before them.
//!
//! A torn tail and rot look alike. But when a batch behind the damage is whole, and its writer noted in it up to
//! where everything had been synced, then damage below that is rot, and is refused instead of cut (F9).

use std::path::Path;

use bytes::Bytes;

use super::error::LogError;
use super::scan::check_batch;
use crate::env::File;
use crate::protocol::batch::{Batch, HEADER_BYTES, Header};
use crate::types::Offset;

/// Reads from a batch up to where its log was durable when it was written; `None` if it does not say.
pub(crate) type Evidence<'a> = dyn Fn(&Batch) -> Option<Offset> + 'a;

/// Most bytes of a segment to search: journals have segments of a quarter of this.
const SEARCH_BYTES_MAX: u64 = 64 << 20;

/// The largest durable end that any whole batch of `[from, end)` attests. A batch is searched at every byte; only one
/// that may stand behind `expected` counts.
pub(super) fn attested_end(
    file: &dyn File,
    path: &Path,
    (from, end): (u64, u64),
    expected: Offset,
    evidence: &Evidence<'_>,
) -> Result<Offset, LogError> {
    let length = end.saturating_sub(from).min(SEARCH_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = file
        .read_full_at(&mut bytes, from)
        .map_err(LogError::io("read segment", path))?;
    bytes.truncate(read);
    let mut attested = Offset::ZERO;
    let mut at = 0;
    while at + HEADER_BYTES <= bytes.len() {
        match whole_batch(&bytes[at..], expected) {
            Some(batch) => {
                attested = attested.max(evidence(&batch).unwrap_or_default());
                at += batch.bytes().len();
            }
            None => at += 1,
        }
    }
    Ok(attested)
}

fn whole_batch(bytes: &[u8], expected: Offset) -> Option<Batch> {
    let header = Header::parse(bytes).ok()?;
    let is_possible = header.base_offset >= expected && header.partition_leader_epoch >= 0;
    if !is_possible || header.total_bytes() > bytes.len() {
        return None;
    }
    check_batch(bytes).ok()?;
    Batch::parse(Bytes::copy_from_slice(&bytes[..header.total_bytes()])).ok()
}

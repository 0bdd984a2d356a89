//! The bytes of a producer snapshot: what `producer_state` knew at one offset.
//!
//! ```text
//!  0 version i16 = 2     2 crc u32 (CRC-32C of all that follows)     6 producers_count i32
//! then for each producer
//!  0 producer_id i64     8 producer_epoch i16    10 coordinator_epoch i32
//! 14 transaction_start i64 (-1: none)            22 last_append i64
//! 30 last_marker i64 (-1: none)                  38 batches_count u8 (at most 5)
//! then for each batch
//!  0 first_sequence i32  4 last_sequence i32      8 first_offset i64
//! 16 last_offset i64    24 timestamp i64
//! ```
//! Kafka's version 1 keeps one batch a producer and so forgets most of the window on restart; ours keeps all five.

use bytes::{Buf, BufMut};

use super::producer_state::{ProducerEntry, ProducerState, WINDOW_BATCHES, WindowBatch};
use crate::types::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

const VERSION: i16 = 2;
const CRC_POSITION: usize = 2;
const COUNT_POSITION: usize = CRC_POSITION + 4;
const HEADER_BYTES: usize = COUNT_POSITION + 4;
const PRODUCER_BYTES: usize = 39;
const BATCH_BYTES: usize = 32;

/// The largest snapshot that is read: 1,000,000 producers with full windows.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 =
    (HEADER_BYTES + 1_000_000 * (PRODUCER_BYTES + WINDOW_BATCHES * BATCH_BYTES)) as u64;

/// Writes `state` as bytes.
pub(crate) fn encode(state: &ProducerState) -> Vec<u8> {
    let entries = state.entries();
    let mut bytes =
        Vec::with_capacity(HEADER_BYTES + entries.len() * (PRODUCER_BYTES + BATCH_BYTES));
    bytes.put_i16(VERSION);
    bytes.put_u32(0);
    bytes.put_u32(u32::try_from(entries.len()).unwrap_or(u32::MAX));
    for (id, entry) in entries {
        encode_producer(&mut bytes, id, entry);
    }
    let crc = crc32c::crc32c(&bytes[COUNT_POSITION..]);
    bytes[CRC_POSITION..COUNT_POSITION].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn encode_producer(bytes: &mut Vec<u8>, id: ProducerId, entry: &ProducerEntry) {
    let or_none = |offset: Option<Offset>| offset.map_or(-1, |offset| offset.0);
    bytes.put_i64(id.0);
    bytes.put_i16(entry.producer_epoch.0);
    bytes.put_i32(entry.coordinator_epoch);
    bytes.put_i64(or_none(entry.transaction_start));
    bytes.put_i64(entry.last_append.0);
    bytes.put_i64(or_none(entry.last_marker));
    bytes.put_u8(u8::try_from(entry.window.len()).unwrap_or(u8::MAX));
    for batch in &entry.window {
        bytes.put_i32(batch.first_sequence.0);
        bytes.put_i32(batch.last_sequence.0);
        bytes.put_i64(batch.first_offset.0);
        bytes.put_i64(batch.last_offset.0);
        bytes.put_i64(batch.timestamp.0);
    }
}

/// Reads bytes written by [`encode`]; `Err` says why they are not to be trusted. A snapshot is derived, so
/// whoever gets an error takes an older one or reads the log again.
pub(crate) fn decode(bytes: &[u8]) -> Result<ProducerState, &'static str> {
    let mut rest = bytes;
    if rest.len() < HEADER_BYTES {
        return Err("it is shorter than its header");
    }
    if rest.get_i16() != VERSION {
        return Err("its version is unknown");
    }
    if rest.get_u32() != crc32c::crc32c(&bytes[COUNT_POSITION..]) {
        return Err("it fails its checksum");
    }
    let mut state = ProducerState::default();
    for _ in 0..rest.get_u32() {
        let (id, entry) = decode_producer(&mut rest)?;
        state.insert(id, entry);
    }
    match rest.is_empty() {
        true => Ok(state),
        false => Err("it is longer than its producers"),
    }
}

fn decode_producer(rest: &mut &[u8]) -> Result<(ProducerId, ProducerEntry), &'static str> {
    if rest.len() < PRODUCER_BYTES {
        return Err("it ends within a producer");
    }
    let or_none = |offset: i64| (offset >= 0).then_some(Offset(offset));
    let id = ProducerId(rest.get_i64());
    let mut entry = ProducerEntry::new(ProducerEpoch(rest.get_i16()));
    entry.coordinator_epoch = rest.get_i32();
    entry.transaction_start = or_none(rest.get_i64());
    entry.last_append = Timestamp(rest.get_i64());
    entry.last_marker = or_none(rest.get_i64());
    let batches_count = usize::from(rest.get_u8());
    if batches_count > WINDOW_BATCHES || rest.len() < batches_count * BATCH_BYTES {
        return Err("it ends within a window of batches");
    }
    for _ in 0..batches_count {
        entry.window.push_back(WindowBatch {
            first_sequence: Sequence(rest.get_i32()),
            last_sequence: Sequence(rest.get_i32()),
            first_offset: Offset(rest.get_i64()),
            last_offset: Offset(rest.get_i64()),
            timestamp: Timestamp(rest.get_i64()),
        });
    }
    Ok((id, entry))
}

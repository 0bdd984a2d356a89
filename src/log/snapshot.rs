//! The bytes of a producer snapshot: what `producer_state` knew at one offset.
//!
//! ```text
//!  0 version i16 = 1     2 crc u32 (CRC-32C of all that follows)     6 producers_count i32
//! then for each producer, as Kafka's version 1 has it
//!  0 producer_id i64     8 producer_epoch i16    10 last_sequence i32 (-1: none)   14 last_offset i64 (-1: none)
//! 22 offset_delta i32   26 timestamp i64 (-1)*   34 coordinator_epoch i32          38 transaction_start i64 (-1: none)
//! * of the last batch or marker
//! then the appendix, which Kafka does not look at
//!  0 appendix_version i16 = 2
//! and for each producer, in the same order
//!  0 last_append i64     8 last_marker i64 (-1: none)                16 batches_count u8 (at most 5)
//! then for each batch
//!  0 first_sequence i32  4 last_sequence i32      8 first_offset i64
//! 16 last_offset i64    24 timestamp i64
//! then the leader epochs that wrote something, oldest first (since appendix 2; before, there was only epoch 0)
//!  0 epochs_count i32
//! and each of them
//!  0 leader_epoch i32    4 first_offset i64
//! ```
//! Kafka keeps one batch a producer and so forgets most of the window on restart; the appendix keeps all five.

use bytes::{Buf, BufMut};

use super::leader_epochs::LeaderEpochs;
use super::producer_state::{ProducerEntry, ProducerState, WINDOW_BATCHES, WindowBatch};
use crate::types::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};

const VERSION: i16 = 1;
const CRC_POSITION: usize = 2;
const COUNT_POSITION: usize = CRC_POSITION + 4;
const HEADER_BYTES: usize = COUNT_POSITION + 4;
const PRODUCER_BYTES: usize = 46;
const APPENDIX_VERSION: i16 = 2;
/// The first appendix with leader epochs.
const EPOCHS_VERSION: i16 = 2;
const APPENDIX_VERSION_BYTES: usize = 2;
const APPENDIX_PRODUCER_BYTES: usize = 17;
const BATCH_BYTES: usize = 32;
const EPOCHS_COUNT_BYTES: usize = 4;
const EPOCH_BYTES: usize = 12;

/// The largest snapshot that is read: 1,000,000 producers with full windows.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = (HEADER_BYTES
    + APPENDIX_VERSION_BYTES
    + 1_000_000 * (PRODUCER_BYTES + APPENDIX_PRODUCER_BYTES + WINDOW_BATCHES * BATCH_BYTES))
    as u64;

/// Writes `state` as bytes.
pub(crate) fn encode(state: &ProducerState) -> Vec<u8> {
    let producers_count = state.entries().len();
    let entry_bytes = PRODUCER_BYTES + APPENDIX_PRODUCER_BYTES + BATCH_BYTES;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + producers_count * entry_bytes);
    bytes.put_i16(VERSION);
    bytes.put_u32(0);
    bytes.put_u32(u32::try_from(producers_count).unwrap_or(u32::MAX));
    for (id, entry) in state.entries() {
        encode_producer(&mut bytes, id, entry);
    }
    bytes.put_i16(APPENDIX_VERSION);
    for (_, entry) in state.entries() {
        encode_window(&mut bytes, entry);
    }
    encode_epochs(&mut bytes, &state.epochs);
    let crc = crc32c::crc32c(&bytes[COUNT_POSITION..]);
    bytes[CRC_POSITION..COUNT_POSITION].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// An absent offset is −1, as in Kafka.
fn or_none(offset: Option<Offset>) -> i64 {
    offset.map_or(-1, |offset| offset.0)
}

fn encode_producer(bytes: &mut Vec<u8>, id: ProducerId, entry: &ProducerEntry) {
    let last = entry.window.back();
    let delta = last.map_or(0, |batch| batch.last_offset.0 - batch.first_offset.0);
    bytes.put_i64(id.0);
    bytes.put_i16(entry.producer_epoch.0);
    bytes.put_i32(last.map_or(-1, |batch| batch.last_sequence.0));
    bytes.put_i64(or_none(last.map(|batch| batch.last_offset)));
    bytes.put_i32(i32::try_from(delta).unwrap_or(i32::MAX));
    bytes.put_i64(entry.last_timestamp.0);
    bytes.put_i32(entry.coordinator_epoch);
    bytes.put_i64(or_none(entry.transaction_start));
}

fn encode_window(bytes: &mut Vec<u8>, entry: &ProducerEntry) {
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

fn encode_epochs(bytes: &mut Vec<u8>, epochs: &LeaderEpochs) {
    // Bounded by `LeaderEpochs`.
    bytes.put_u32(u32::try_from(epochs.entries().len()).unwrap_or(u32::MAX));
    for (epoch, first) in epochs.entries() {
        bytes.put_i32(*epoch);
        bytes.put_i64(first.0);
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
    let producers_count = usize::try_from(rest.get_u32()).unwrap_or(usize::MAX);
    let producers_bytes = producers_count.saturating_mul(PRODUCER_BYTES);
    let Some((mut producers, mut rest)) = rest.split_at_checked(producers_bytes) else {
        return Err("it ends within its producers");
    };
    if rest.len() < APPENDIX_VERSION_BYTES {
        return Err("its appendix is missing");
    }
    let appendix_version = rest.get_i16();
    if !(1..=APPENDIX_VERSION).contains(&appendix_version) {
        return Err("its appendix is of an unknown version");
    }
    let mut state = ProducerState::default();
    for _ in 0..producers_count {
        let (id, mut entry) = decode_producer(&mut producers);
        decode_window(&mut rest, &mut entry)?;
        state.insert(id, entry);
    }
    state.epochs = match appendix_version {
        EPOCHS_VERSION.. => decode_epochs(&mut rest)?.into(),
        _ => LeaderEpochs::beginning(0, Offset::ZERO).into(),
    };
    match rest.is_empty() {
        true => Ok(state),
        false => Err("it is longer than what it holds"),
    }
}

fn some_offset(offset: i64) -> Option<Offset> {
    (offset >= 0).then_some(Offset(offset))
}

/// Reads one producer of [`PRODUCER_BYTES`]; its last batch is in the appendix too, and read there.
fn decode_producer(producers: &mut &[u8]) -> (ProducerId, ProducerEntry) {
    const LAST_BATCH_BYTES: usize = 4 + 8 + 4;
    let id = ProducerId(producers.get_i64());
    let mut entry = ProducerEntry::new(ProducerEpoch(producers.get_i16()));
    producers.advance(LAST_BATCH_BYTES);
    entry.last_timestamp = Timestamp(producers.get_i64());
    entry.coordinator_epoch = producers.get_i32();
    entry.transaction_start = some_offset(producers.get_i64());
    (id, entry)
}

fn decode_window(rest: &mut &[u8], entry: &mut ProducerEntry) -> Result<(), &'static str> {
    if rest.len() < APPENDIX_PRODUCER_BYTES {
        return Err("it ends within a producer");
    }
    entry.last_append = Timestamp(rest.get_i64());
    entry.last_marker = some_offset(rest.get_i64());
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
    Ok(())
}

fn decode_epochs(rest: &mut &[u8]) -> Result<LeaderEpochs, &'static str> {
    const SHORT: &str = "it ends within its leader epochs";
    if rest.len() < EPOCHS_COUNT_BYTES {
        return Err(SHORT);
    }
    let epochs_count = usize::try_from(rest.get_u32()).unwrap_or(usize::MAX);
    if rest.len() < epochs_count.saturating_mul(EPOCH_BYTES) {
        return Err(SHORT);
    }
    let entries = (0..epochs_count)
        .map(|_| (rest.get_i32(), Offset(rest.get_i64())))
        .collect();
    LeaderEpochs::new(entries).ok_or("its leader epochs do not increase")
}

//! Reads batches one after the other and checks everything that can be checked: checksum, structure, place.

use std::path::Path;

use super::error::LogError;
use crate::env::File;
use crate::protocol::batch::{HEADER_BYTES, Header};
use crate::types::Offset;

/// Bytes read at once; a larger batch is read whole.
const CHUNK_BYTES: usize = 1 << 20;

/// Where a scan begins and what it must meet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanRange {
    /// Where the first batch begins, in bytes.
    pub(crate) position: u64,
    /// Where the file ends, or what lies behind is of no interest.
    pub(crate) end_position: u64,
    /// The offset that the first batch must begin with.
    pub(crate) expected: Offset,
    /// Below this, compaction may have left gaps between batches.
    pub(crate) gaps_below: Offset,
    /// No batch has a later leader epoch.
    pub(crate) leader_epoch_max: i32,
}

/// The first thing that is not a valid batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Where it begins.
    pub(crate) position: u64,
    /// The offset that was expected there.
    pub(crate) expected: Offset,
    /// The fault.
    pub(crate) why: String,
    /// Whether it is the beginning of one batch and no more: a write that its process did not live to finish.
    pub(crate) is_unfinished: bool,
}

/// Checks that a batch stands where it should: its offset lies outside its checksum (F7, F8).
pub(crate) fn check_place(
    header: &Header,
    expected: Offset,
    gaps_below: Offset,
) -> Result<(), String> {
    let is_next = header.base_offset == expected;
    let is_behind_gap = header.base_offset > expected && header.base_offset <= gaps_below;
    if !(is_next || is_behind_gap) {
        return Err(format!(
            "the batch begins with offset {}, but {expected} must follow here",
            header.base_offset
        ));
    }
    Ok(())
}

/// Checks that a leader epoch, which lies outside the checksum, can be one (F7): they never decrease along a log.
fn check_epoch(header: &Header, (min, max): (i32, i32)) -> Result<(), String> {
    let epoch = header.partition_leader_epoch;
    match (min..=max).contains(&epoch) {
        true => Ok(()),
        false => Err(format!(
            "the batch has leader epoch {epoch}, which is not between {min} and {max}"
        )),
    }
}

/// Parses the batch at the start of `bytes` and checks its checksum.
pub(crate) fn check_batch(bytes: &[u8]) -> Result<Header, String> {
    let header = Header::parse(bytes).map_err(|e| e.to_string())?;
    let Some(batch) = bytes.get(..header.total_bytes()) else {
        return Err(format!(
            "the batch has {} bytes, but only {} are there",
            header.total_bytes(),
            bytes.len()
        ));
    };
    let found = crc32c::crc32c(&batch[CRC_FROM..]);
    if found != header.crc {
        return Err(format!(
            "the batch of offset {} fails its checksum ({found:#010x}, its header says {:#010x})",
            header.base_offset, header.crc
        ));
    }
    Ok(header)
}

/// The first byte under a batch's checksum: its attributes.
const CRC_FROM: usize = 21;

/// Takes a batch: its header, its bytes, and its position in the file.
pub(crate) type Visit<'a> = dyn FnMut(&Header, &[u8], u64) -> Result<(), LogError> + 'a;

/// Calls `visit` with each batch's header, bytes and position, until the range ends or something is not valid.
///
/// # Errors
/// [`LogError::Io`] if the file cannot be read, and the error of `visit`. Damage is not an error but an answer.
pub(crate) fn scan(
    file: &dyn File,
    path: &Path,
    range: ScanRange,
    visit: &mut Visit<'_>,
) -> Result<Option<Damage>, LogError> {
    let mut window = Window::new(range.position);
    let mut expected = range.expected;
    let mut epochs = (0, range.leader_epoch_max);
    while window.position < range.end_position {
        let position = window.position;
        let damage = |why| Damage {
            position,
            expected,
            why,
            is_unfinished: false,
        };
        let batch = match window.next_batch(file, path, range.end_position)? {
            Ok(batch) => batch,
            Err(missing) => {
                let is_unfinished = missing.is_unfinished(expected);
                return Ok(Some(Damage {
                    is_unfinished,
                    ..damage(missing.why)
                }));
            }
        };
        let header = match check_batch(batch) {
            Ok(header) => header,
            Err(why) => return Ok(Some(damage(why))),
        };
        let is_in_place = check_place(&header, expected, range.gaps_below);
        if let Err(why) = is_in_place.and_then(|()| check_epoch(&header, epochs)) {
            return Ok(Some(damage(why)));
        }
        epochs.0 = header.partition_leader_epoch;
        visit(&header, batch, position)?;
        expected = header.next_offset();
        window.position += header.total_bytes() as u64;
    }
    Ok(None)
}

/// Reason for no batch.
struct Missing {
    why: String,
    /// The offset that the bytes left begin with, if they are the beginning of a batch; `Some(None)` if they are too few
    /// to tell.
    begun: Option<Option<Offset>>,
}

impl Missing {
    fn is_unfinished(&self, expected: Offset) -> bool {
        self.begun
            .is_some_and(|it| it.is_none_or(|it| it == expected))
    }
}

/// A part of the file in memory that slides over it.
struct Window {
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    buffer_position: u64,
    /// Where the next batch begins in the file.
    position: u64,
}

impl Window {
    fn new(position: u64) -> Self {
        Self {
            buffer: Vec::new(),
            buffer_position: position,
            position,
        }
    }

    /// The bytes of the batch at `position`, by its length field; the inner `Err` says why there is none.
    fn next_batch(
        &mut self,
        file: &dyn File,
        path: &Path,
        end_position: u64,
    ) -> Result<Result<&[u8], Missing>, LogError> {
        let left = end_position - self.position;
        if left < HEADER_BYTES as u64 {
            return Ok(Err(Missing {
                why: format!("only {left} bytes are left, too few for a batch header"),
                begun: Some(None),
            }));
        }
        self.fill(file, path, end_position, HEADER_BYTES)?;
        let header = match Header::parse(self.unread()) {
            Ok(header) => header,
            Err(e) => {
                return Ok(Err(Missing {
                    why: e.to_string(),
                    begun: None,
                }));
            }
        };
        // The length is checked against the file before anything is allocated for it.
        if header.total_bytes() as u64 > left {
            return Ok(Err(Missing {
                why: format!(
                    "the batch has {} bytes, but only {left} are left",
                    header.total_bytes()
                ),
                begun: Some(Some(header.base_offset)),
            }));
        }
        self.fill(file, path, end_position, header.total_bytes())?;
        match self.unread().get(..header.total_bytes()) {
            Some(batch) => Ok(Ok(batch)),
            None => Ok(Err(Missing {
                why: "the file became shorter while it was read".to_owned(),
                begun: None,
            })),
        }
    }

    fn unread(&self) -> &[u8] {
        let skip = usize::try_from(self.position - self.buffer_position).unwrap_or(usize::MAX);
        self.buffer.get(skip..).unwrap_or(&[])
    }

    /// Makes sure that `need_bytes` from `position` are in the buffer, if the file has them.
    fn fill(
        &mut self,
        file: &dyn File,
        path: &Path,
        end_position: u64,
        need_bytes: usize,
    ) -> Result<(), LogError> {
        if self.unread().len() >= need_bytes {
            return Ok(());
        }
        let left = usize::try_from(end_position - self.position).unwrap_or(usize::MAX);
        self.buffer.resize(need_bytes.max(CHUNK_BYTES).min(left), 0);
        self.buffer_position = self.position;
        let count = file
            .read_full_at(&mut self.buffer, self.position)
            .map_err(LogError::io("read segment", path))?;
        self.buffer.truncate(count);
        Ok(())
    }
}

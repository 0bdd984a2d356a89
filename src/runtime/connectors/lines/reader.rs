//! `LinesReader`: cuts one file or stream into lines, and never gives a line that nobody wrote.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use memchr::memchr;

use super::super::byte_stream::{ByteStream, Filled};
use super::fingerprint::{Fingerprint, Unended};
use super::input::{Followed, InputFile, Opened, TAIL_BYTES};
use crate::codec::{Codec, CodecError, Text};
use crate::env::FileIdentity;
use crate::protocol::batch::Headers;
use crate::runtime::{Emit, Emitted, JobError, Key, Pace, Raw, Read, SplitReader, Unkeyed};
use crate::types::{Offset, Timestamp};

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Files tell nobody when they grow: how often a followed one is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Settings of a reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) at_end: AtEnd,
    pub(super) is_rotating: bool,
    pub(super) is_lossy: bool,
    pub(super) line_bytes_max: usize,
}

/// The behaviour at the end of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtEnd {
    /// A last line without an end counts, and the split ends.
    Deliver,
    /// A last line without an end is left for a later run, and the split ends.
    Leave,
    /// It is waited for more.
    Follow,
}

/// An input, read up to a position.
pub(super) enum Input {
    File(InputFile),
    Once(ByteStream),
}

pub(super) fn failed(path: &Path, why: impl std::fmt::Display) -> JobError {
    JobError::Source {
        source_name: path.display().to_string(),
        why: why.to_string(),
    }
}

/// Reads the lines of one file or stream.
pub struct LinesReader {
    path: Arc<Path>,
    input: Input,
    /// The file to go on with at the end of this one, which was rotated.
    next: Option<InputFile>,
    /// Bytes of the input: `consumed..filled` are not emitted yet; up to [`TAIL_BYTES`] before them are kept.
    buffer: Vec<u8>,
    filled: usize,
    consumed: usize,
    /// The CRC-32C of everything before `hashed` in the buffer; `None` if a stream began behind bytes whose checksum is
    /// not known, because a release that did not keep it read them.
    prefix_crc: Option<u32>,
    hashed: usize,
    /// The position in the file of the byte behind `filled`.
    read_position: u64,
    /// The line before the position, if it had no end.
    unended: Option<Unended>,
    is_ended: bool,
    settings: Settings,
}

impl LinesReader {
    /// Reads a file behind `position`.
    pub(super) fn of_file(
        path: PathBuf,
        position: u64,
        opened: Opened,
        known: Option<Fingerprint>,
        settings: Settings,
    ) -> Self {
        let tail_bytes = opened.tail.len();
        Self {
            buffer: opened.tail,
            filled: tail_bytes,
            consumed: tail_bytes,
            hashed: tail_bytes,
            prefix_crc: Some(opened.prefix_crc),
            ..Self::of_input(path, position, Input::File(opened.input), known, settings)
        }
    }

    /// Reads an input that begins at `position`.
    pub(super) fn of_input(
        path: PathBuf,
        position: u64,
        input: Input,
        known: Option<Fingerprint>,
        settings: Settings,
    ) -> Self {
        Self {
            path: Arc::from(path),
            input,
            next: None,
            buffer: Vec::new(),
            filled: 0,
            consumed: 0,
            prefix_crc: match known {
                Some(known) => Some(known.prefix_crc),
                None => (position == 0).then_some(0),
            },
            hashed: 0,
            read_position: position,
            unended: known.and_then(|known| known.unended),
            is_ended: false,
            settings,
        }
    }

    /// Reads more behind what is not emitted yet.
    fn fill(&mut self, waker: &Waker) -> Result<Filled, JobError> {
        self.hash_consumed();
        let kept_from = self.consumed.saturating_sub(TAIL_BYTES);
        self.buffer.copy_within(kept_from..self.filled, 0);
        self.filled -= kept_from;
        self.consumed -= kept_from;
        self.hashed = self.consumed;
        let unread = self.filled - self.consumed;
        if unread > self.settings.line_bytes_max {
            let why = format!(
                "the line at byte {} is longer than {} bytes: raise `line_bytes_max`",
                self.position().0,
                self.settings.line_bytes_max
            );
            return Err(failed(&self.path, why));
        }
        // Doubling keeps the work on a long line linear.
        let wanted = (self.filled + CHUNK_BYTES).max(2 * unread);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let filled = self.read_more(waker);
        let filled = filled.map_err(|e| failed(&self.path, e))?;
        if let Filled::Bytes(count) = filled {
            self.filled += count;
            self.read_position += count as u64;
        }
        Ok(filled)
    }

    fn read_more(&mut self, waker: &Waker) -> io::Result<Filled> {
        let (before, rest) = self.buffer.split_at_mut(self.filled);
        match &mut self.input {
            Input::Once(stream) => stream.read(rest, waker),
            Input::File(file) => Ok(match file.read(rest, self.read_position, before)? {
                0 => Filled::End,
                count => Filled::Bytes(count),
            }),
        }
    }

    fn hash_consumed(&mut self) {
        self.prefix_crc = self.crc_of_consumed();
        self.hashed = self.consumed;
    }

    fn crc_of_consumed(&self) -> Option<u32> {
        let new = &self.buffer[self.hashed..self.consumed];
        self.prefix_crc.map(|crc| crc32c::crc32c_append(crc, new))
    }

    fn emit_line(
        &mut self,
        end: usize,
        next: usize,
        emit: &mut impl Emit<Unkeyed, str>,
    ) -> Result<Pace, JobError> {
        let offset = self.position();
        let line = &self.buffer[self.consumed..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let raw = Raw::Bytes {
            key: None,
            value: Some(line),
            headers: Headers::default(),
        };
        // The position moves first: should the record stop the job, nothing of the cycle is committed anyway.
        self.consumed = next;
        let decoded = decode(line, self.settings);
        let record = match &decoded {
            Ok(text) => Ok((Key::none(), &**text)),
            Err(e) => Err(e.clone()),
        };
        emit.emit(Emitted {
            record,
            timestamp: Timestamp::NONE,
            offset,
            raw,
        })
    }

    /// Emits the whole lines that were read, as many as are wanted now.
    fn emit_lines(&mut self, emit: &mut impl Emit<Unkeyed, str>) -> Result<bool, JobError> {
        let before = self.consumed;
        if let Some(unended) = self.unended {
            self.end_line(unended)?;
            if self.unended.is_some() {
                return Ok(false);
            }
        }
        while let Some(length) = memchr(b'\n', &self.buffer[self.consumed..self.filled]) {
            let end = self.consumed + length;
            if self.emit_line(end, end + 1, emit)? == Pace::Pause {
                break;
            }
        }
        Ok(self.consumed > before)
    }

    /// The line before the position was committed without an end: what follows may only be its end, or the line that was
    /// committed would be another one.
    fn end_line(&mut self, unended: Unended) -> Result<(), JobError> {
        let unread = &self.buffer[self.consumed..self.filled];
        match (unread, unended.is_return) {
            ([], _) | (b"\r", false) => {}
            ([b'\n', ..], _) => {
                self.consumed += 1;
                self.unended = None;
            }
            ([b'\r', b'\n', ..], false) => {
                self.consumed += 2;
                self.unended = None;
            }
            _ => {
                let why = format!(
                    "the line before byte {} had no end when it was committed, and goes on now, so that it would be another \
                     one: give the source another name (`named`) to read the file from its start, and let it leave a line \
                     without an end for the next run (`whole_lines`), or follow the file",
                    self.position().0
                );
                return Err(failed(&self.path, why));
            }
        }
        Ok(())
    }

    fn end_of_input(&mut self, emit: &mut impl Emit<Unkeyed, str>) -> Result<Read, JobError> {
        if let (AtEnd::Follow, Input::File(_)) = (self.settings.at_end, &self.input) {
            return self.end_of_followed(emit);
        }
        self.is_ended = true;
        match self.settings.at_end {
            AtEnd::Leave => Ok(Read::Exhausted),
            AtEnd::Deliver | AtEnd::Follow => self.emit_last(emit),
        }
    }

    /// Emits the last line, which has no end. Of one that was emitted before, half an end may be there.
    fn emit_last(&mut self, emit: &mut impl Emit<Unkeyed, str>) -> Result<Read, JobError> {
        if self.consumed == self.filled || self.unended.is_some() {
            return Ok(Read::Exhausted);
        }
        let end = self.filled;
        let is_return = self.buffer[end - 1] == b'\r';
        self.unended = Some(Unended { is_return });
        // Nothing is behind it that could be emitted too soon.
        let _pace = self.emit_line(end, end, emit)?;
        Ok(Read::Progress)
    }

    fn end_of_followed(&mut self, emit: &mut impl Emit<Unkeyed, str>) -> Result<Read, JobError> {
        let Input::File(file) = &self.input else {
            unreachable!("only files are followed")
        };
        if let Some(next) = self.next.take() {
            // The next file had begun before this one was read to its end.
            self.emit_last(emit)?;
            self.go_over_to(next);
            return Ok(Read::Progress);
        }
        match file.followed() {
            Ok(Followed::Same) => Ok(Read::Later(LOOK_AGAIN)),
            Ok(Followed::Other) if self.settings.is_rotating => {
                self.next = file.successor().map_err(|e| failed(&self.path, e))?;
                Ok(match self.next {
                    Some(_) => Read::Later(Duration::ZERO),
                    None => Read::Later(LOOK_AGAIN),
                })
            }
            Ok(Followed::Other) => Err(failed(
                &self.path,
                "another file took its place while it was followed: if that is how it is rotated, say so \
                 (`follow_rotation`); else put the file back, or give the source another name (`named`)",
            )),
            Err(e) => Err(failed(&self.path, e)),
        }
    }

    fn go_over_to(&mut self, next: InputFile) {
        self.input = Input::File(next);
        (self.filled, self.consumed, self.hashed) = (0, 0, 0);
        (self.read_position, self.prefix_crc) = (0, Some(0));
        self.unended = None;
    }
}

impl SplitReader<Unkeyed, str> for LinesReader {
    fn read(
        &mut self,
        waker: &Waker,
        emit: &mut impl Emit<Unkeyed, str>,
    ) -> Result<Read, JobError> {
        if self.is_ended {
            return Ok(Read::Exhausted);
        }
        if self.emit_lines(emit)? {
            return Ok(Read::Progress);
        }
        match self.fill(waker)? {
            Filled::End => self.end_of_input(emit),
            Filled::Pending => Ok(Read::Pending),
            Filled::Bytes(_) => {
                self.emit_lines(emit)?;
                Ok(Read::Progress)
            }
        }
    }

    fn position(&self) -> Offset {
        let unread = (self.filled - self.consumed) as u64;
        Offset(i64::try_from(self.read_position - unread).unwrap_or(i64::MAX))
    }

    fn fingerprint(&self) -> Vec<u8> {
        let Some(prefix_crc) = self.crc_of_consumed() else {
            return Vec::new();
        };
        let (identity, seen_bytes, tail) = match &self.input {
            Input::File(file) => {
                let start = self.consumed.saturating_sub(TAIL_BYTES);
                let tail = &self.buffer[start..self.consumed];
                (file.identity, self.read_position, tail)
            }
            Input::Once(_) => (FileIdentity::default(), 0, &[][..]),
        };
        let fingerprint = Fingerprint {
            unended: self.unended,
            identity,
            seen_bytes,
            prefix_crc,
            tail_crc: crc32c::crc32c(tail),
        };
        fingerprint.encode()
    }
}

/// The text of a line.
#[inline]
pub(super) fn decode(line: &[u8], settings: Settings) -> Result<Cow<'_, str>, CodecError> {
    match settings.is_lossy {
        // Nearly all lines are UTF-8, and the plain check is several times as fast as the mending one.
        true => {
            Ok(std::str::from_utf8(line)
                .map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed))
        }
        false => Codec::<str>::decode(&Text, line),
    }
}

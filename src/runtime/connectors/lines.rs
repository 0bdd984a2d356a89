//! Lines of text files or of standard input, exactly once: a position is the byte behind the last line committed.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use memchr::memchr;
use parking_lot::Mutex;

use super::byte_stream::{ByteStream, Filled};
use crate::codec::{Codec, Text};
use crate::env::{File, OpenMode};
use crate::runtime::{
    Emit, Emitted, JobContext, JobError, Key, Raw, Read, Source, Split, SplitReader, Unkeyed,
};
use crate::types::{Offset, Timestamp};

/// Bytes read from a file at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// Files tell nobody when they grow: how often a followed one is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The longest line, unless the source says otherwise.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Where lines come from.
enum Input {
    Files(Vec<PathBuf>),
    /// Taken by the first start.
    Once(Mutex<Option<Box<dyn io::Read + Send>>>),
}

/// A source of the lines of files, or of standard input; see [`lines`] and [`stdin_lines`].
pub struct Lines {
    name: String,
    input: Input,
    is_following: bool,
    is_lossy: bool,
    line_bytes_max: usize,
}

/// A source of the lines of `paths`, without their line ends (`\n` or `\r\n`). Each file is read in
/// order by one worker. Files must only grow: what is before a committed position is not read again.
///
/// A line that is not UTF-8 is a poison record; see [`Lines::lossy`].
///
/// ```
/// use onceflow::prelude::*;
///
/// let job = Job::new("lengths");
/// job.source(lines(["a.txt", "b.txt"])).map(|line: &str| line.len() as u64).sink(topic("lengths"));
/// ```
pub fn lines<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Lines {
    let paths = paths.into_iter().map(|path| path.as_ref().to_owned());
    Lines::new("lines", Input::Files(paths.collect()))
}

/// A source of the lines of standard input. Its position is the bytes read: when the job is started again, the same
/// input must be given again from its start, and what was committed before is skipped.
///
/// ```
/// use onceflow::prelude::*;
///
/// let job = Job::new("lengths");
/// job.source(stdin_lines()).map(|line: &str| line.len() as u64).sink(topic("lengths"));
/// ```
#[must_use]
pub fn stdin_lines() -> Lines {
    lines_of("stdin", io::stdin())
}

/// A source of the lines of anything that can be read once, named for good; else as [`stdin_lines`].
pub fn lines_of(name: &str, input: impl io::Read + Send + 'static) -> Lines {
    Lines::new(name, Input::Once(Mutex::new(Some(Box::new(input)))))
}

impl Lines {
    fn new(name: &str, input: Input) -> Self {
        Self {
            name: name.to_owned(),
            input,
            is_following: false,
            is_lossy: false,
            line_bytes_max: LINE_BYTES_MAX,
        }
    }

    /// Another name than `lines`, for a job with several sources of lines. Positions are kept by this name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Waits for more at the end of a file instead of ending; standard input ends all the same. A line counts once its line end is there.
    #[must_use]
    pub fn follow(self) -> Self {
        Self {
            is_following: true,
            ..self
        }
    }

    /// Replaces what is not UTF-8 by U+FFFD instead of refusing the line.
    #[must_use]
    pub fn lossy(self) -> Self {
        Self {
            is_lossy: true,
            ..self
        }
    }

    /// The longest line, in bytes; a longer one is an error. The default is 64 MiB.
    #[must_use]
    pub fn line_bytes_max(self, bytes: usize) -> Self {
        Self {
            line_bytes_max: bytes,
            ..self
        }
    }
}

impl Source for Lines {
    type Key = Unkeyed;
    type Value = str;
    type Reader = LinesReader;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn splits(&self, _context: &JobContext) -> Result<Vec<Split>, JobError> {
        let Input::Files(paths) = &self.input else {
            return Ok(vec![Split::Named {
                source: self.name.clone(),
                name: self.name.clone(),
            }]);
        };
        let mut seen = HashSet::new();
        let splits = paths.iter().map(|path| {
            // Positions are kept by path, so the path must mean the same file whatever folder the job is started in.
            let absolute = std::path::absolute(path).map_err(|e| failed(path, e))?;
            let name = absolute
                .to_str()
                .ok_or_else(|| failed(path, "its path is not UTF-8: rename it"))?;
            if !seen.insert(name.to_owned()) {
                return Err(failed(path, "it is given twice: name each file once"));
            }
            Ok(Split::Named {
                source: self.name.clone(),
                name: name.to_owned(),
            })
        });
        splits.collect()
    }

    fn open(
        &self,
        split: &Split,
        position: Option<Offset>,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError> {
        let Split::Named { name, .. } = split else {
            unreachable!("this source lists named splits")
        };
        let path = PathBuf::from(name);
        let start = u64::try_from(position.unwrap_or_default().0).unwrap_or(0);
        let bytes = match &self.input {
            Input::Files(_) => Bytes::File(open_file(context, &path, start)?),
            Input::Once(input) => Bytes::Once(open_once(context, &path, input, start)?),
        };
        Ok(LinesReader {
            path: Arc::from(path),
            bytes,
            buffer: Vec::new(),
            filled: 0,
            consumed: 0,
            read_position: start,
            is_following: self.is_following,
            is_lossy: self.is_lossy,
            line_bytes_max: self.line_bytes_max,
            timestamp: context.env().clock.wall(),
        })
    }
}

fn open_file(context: &JobContext, path: &Path, start: u64) -> Result<Box<dyn File>, JobError> {
    let file = context.env().files.open(path, OpenMode::Read);
    let file = file.map_err(|e| failed(path, e))?;
    let length_bytes = file.length_bytes().map_err(|e| failed(path, e))?;
    if start > length_bytes {
        let why = format!(
            "it has {length_bytes} bytes, but {start} were read and committed before: it was cut or replaced; give the new file another name"
        );
        return Err(failed(path, why));
    }
    Ok(file)
}

fn open_once(
    context: &JobContext,
    name: &Path,
    input: &Mutex<Option<Box<dyn io::Read + Send>>>,
    start: u64,
) -> Result<ByteStream, JobError> {
    let input = input.lock().take().ok_or_else(|| {
        failed(name, "it was read already, and can be read only once: start the program again with the same input, of which what was committed is skipped")
    })?;
    ByteStream::start(context.env(), input, start).map_err(|e| failed(name, e))
}

fn failed(path: &Path, why: impl std::fmt::Display) -> JobError {
    JobError::Source {
        source_name: path.display().to_string(),
        why: why.to_string(),
    }
}

/// What a reader reads.
enum Bytes {
    File(Box<dyn File>),
    Once(ByteStream),
}

impl Bytes {
    fn read(&mut self, buffer: &mut [u8], position: u64, waker: &Waker) -> io::Result<Filled> {
        match self {
            Self::Once(stream) => stream.read(buffer, waker),
            Self::File(file) => Ok(match file.read_at(buffer, position)? {
                0 => Filled::End,
                count => Filled::Bytes(count),
            }),
        }
    }
}

/// Reads the lines of one file or stream.
pub struct LinesReader {
    path: Arc<Path>,
    bytes: Bytes,
    /// Bytes of the input: `consumed..filled` are not emitted yet.
    buffer: Vec<u8>,
    filled: usize,
    consumed: usize,
    /// The position in the file of the byte behind `filled`.
    read_position: u64,
    is_following: bool,
    is_lossy: bool,
    line_bytes_max: usize,
    timestamp: Timestamp,
}

impl LinesReader {
    /// Reads more behind what is not emitted yet.
    fn fill(&mut self, waker: &Waker) -> Result<Filled, JobError> {
        self.buffer.copy_within(self.consumed..self.filled, 0);
        self.filled -= self.consumed;
        self.consumed = 0;
        if self.filled > self.line_bytes_max {
            let why = format!(
                "the line at byte {} is longer than {} bytes: raise `line_bytes_max`",
                self.position().0,
                self.line_bytes_max
            );
            return Err(failed(&self.path, why));
        }
        // Doubling keeps the work on a long line linear.
        let wanted = (self.filled + CHUNK_BYTES).max(2 * self.filled);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let rest = &mut self.buffer[self.filled..];
        let filled = self.bytes.read(rest, self.read_position, waker);
        let filled = filled.map_err(|e| failed(&self.path, e))?;
        if let Filled::Bytes(count) = filled {
            self.filled += count;
            self.read_position += count as u64;
        }
        Ok(filled)
    }

    fn emit_line(
        &mut self,
        end: usize,
        next: usize,
        emit: &mut impl Emit<Unkeyed, str>,
    ) -> Result<(), JobError> {
        let offset = self.position();
        let line = &self.buffer[self.consumed..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let raw = Raw::Bytes {
            key: None,
            value: line,
        };
        // The position moves first: should the record stop the job, nothing of the cycle is committed anyway.
        self.consumed = next;
        let decoded = match self.is_lossy {
            // Nearly all lines are UTF-8, and the plain check is several times as fast as the mending one.
            true => Ok(std::str::from_utf8(line)
                .map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed)),
            false => Codec::<str>::decode(&Text, line),
        };
        let record = match &decoded {
            Ok(text) => Ok((Key::none(), &**text)),
            Err(e) => Err(e.clone()),
        };
        emit.emit(Emitted {
            record,
            timestamp: self.timestamp,
            offset,
            raw,
        })
    }

    /// Emits every whole line that was read.
    fn emit_lines(&mut self, emit: &mut impl Emit<Unkeyed, str>) -> Result<bool, JobError> {
        let before = self.consumed;
        while let Some(length) = memchr(b'\n', &self.buffer[self.consumed..self.filled]) {
            let end = self.consumed + length;
            self.emit_line(end, end + 1, emit)?;
        }
        Ok(self.consumed > before)
    }

    fn end_of_file(&mut self, emit: &mut impl Emit<Unkeyed, str>) -> Result<Read, JobError> {
        if self.is_following && matches!(self.bytes, Bytes::File(_)) {
            return Ok(Read::Later(LOOK_AGAIN));
        }
        if self.consumed < self.filled {
            let end = self.filled;
            self.emit_line(end, end, emit)?;
            return Ok(Read::Progress);
        }
        Ok(Read::Exhausted)
    }
}

impl SplitReader<Unkeyed, str> for LinesReader {
    fn read(
        &mut self,
        waker: &Waker,
        emit: &mut impl Emit<Unkeyed, str>,
    ) -> Result<Read, JobError> {
        if self.emit_lines(emit)? {
            return Ok(Read::Progress);
        }
        match self.fill(waker)? {
            Filled::End => self.end_of_file(emit),
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
}

//! Lines of text files or of standard input, exactly once: a position is the byte behind the last line committed.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::byte_stream::ByteStream;
use crate::env::Env;
use crate::runtime::{
    JobContext, JobError, Key, Pace, Position, ReadLetter, Source, Split, TakeRecord, Unkeyed,
};
use crate::types::Offset;
use fingerprint::Fingerprint;
use input::InputFile;
use packed::Packed;
use reader::{AtEnd, LinesReader, Settings, decode, failed};

mod fingerprint;
mod input;
mod packed;
mod reader;

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
    settings: Settings,
}

/// A source of the lines of `paths`, without their line ends (`\n` or `\r\n`). Each file is read in
/// order by one worker. Files must only grow: what is before a committed position is not read again. A file that was cut,
/// emptied or replaced is an error, also while it is read. At the end of a file a line without an end counts, and may
/// only get its end later: see [`Lines::whole_lines`].
///
/// Files that are called `.gz` or `.zst` are unpacked. Their positions count unpacked bytes, so a job that is started again unpacks what it has
/// read before once more, and looks whether it is the same. They are not followed.
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
            settings: Settings {
                at_end: AtEnd::Deliver,
                is_rotating: false,
                is_lossy: false,
                line_bytes_max: LINE_BYTES_MAX,
            },
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

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.settings;
        change(&mut settings);
        Self { settings, ..self }
    }

    /// Waits for more at the end of a file instead of ending; standard input ends all the same. A line counts once its
    /// line end is there. Another file that takes the place of a followed one is an error: see [`Lines::follow_rotation`].
    #[must_use]
    pub fn follow(self) -> Self {
        self.with(|settings| settings.at_end = AtEnd::Follow)
    }

    /// As [`Lines::follow`], through rotation by renaming: once another file is at the path and has bytes, the old one is
    /// read to its end (where a last line counts without its end), then the files that were rotated since (the path's name
    /// with a number or a date behind it, in the same directory, not compressed), then the new one. A job that did not run
    /// meanwhile finds the old file by its inode. A file that is emptied in place (`copytruncate`) loses lines, and is an error.
    #[must_use]
    pub fn follow_rotation(self) -> Self {
        self.with(|settings| (settings.at_end, settings.is_rotating) = (AtEnd::Follow, true))
    }

    /// Leaves a last line without a line end for a later run, instead of taking it for whole: for files that somebody is
    /// still writing, read in runs that end.
    #[must_use]
    pub fn whole_lines(self) -> Self {
        self.with(|settings| settings.at_end = AtEnd::Leave)
    }

    /// Replaces what is not UTF-8 by U+FFFD instead of refusing the line.
    #[must_use]
    pub fn lossy(self) -> Self {
        self.with(|settings| settings.is_lossy = true)
    }

    /// The longest line, in bytes; a longer one is an error. The default is 64 MiB.
    #[must_use]
    pub fn line_bytes_max(self, bytes: usize) -> Self {
        self.with(|settings| settings.line_bytes_max = bytes)
    }

    fn open_at(
        &self,
        split: &Split,
        position: &Position,
        context: &JobContext,
    ) -> Result<LinesReader, JobError> {
        let Split::Named { name, .. } = split else {
            unreachable!("this source lists named splits")
        };
        let (env, path) = (context.env(), PathBuf::from(name));
        let start = u64::try_from(position.offset.0).unwrap_or(0);
        let known = Fingerprint::decode(&position.fingerprint).map_err(|e| failed(&path, e))?;
        match &self.input {
            Input::Files(_) => {
                let unpacked = Packed::open(env, &path).map_err(|e| failed(&path, e))?;
                if let Some(unpacked) = unpacked {
                    return self.unpack_at(path, start, known, unpacked, env);
                }
                let is_rotating = self.settings.is_rotating;
                let opened = InputFile::resume(env, &path, start, known.as_ref(), is_rotating);
                let opened = opened.map_err(|e| failed(&path, e))?;
                let settings = self.settings;
                Ok(LinesReader::of_file(path, start, opened, known, settings))
            }
            Input::Once(input) => {
                let expected = known.map(|known| known.prefix_crc);
                let stream = open_once(context, &path, input, start, expected)?;
                let input = reader::Input::Once(stream);
                Ok(LinesReader::of_input(
                    path,
                    start,
                    input,
                    known,
                    self.settings,
                ))
            }
        }
    }
}

impl Lines {
    /// Reads a compressed file behind a position, which is one in its unpacked bytes.
    fn unpack_at(
        &self,
        path: PathBuf,
        start: u64,
        known: Option<Fingerprint>,
        unpacked: Box<dyn io::Read + Send>,
        env: &Env,
    ) -> Result<LinesReader, JobError> {
        if self.settings.at_end == AtEnd::Follow {
            let why = "it is compressed, and compressed files are not followed: read it without `follow`, in a source of its own";
            return Err(failed(&path, why));
        }
        let expected = known.map(|known| known.prefix_crc);
        let stream = ByteStream::start(env, unpacked, start, expected);
        let stream = reader::Input::Once(stream.map_err(|e| failed(&path, e))?);
        Ok(LinesReader::of_input(
            path,
            start,
            stream,
            known,
            self.settings,
        ))
    }
}

impl Source for Lines {
    type Key = Unkeyed;
    type Value = str;
    type Reader = LinesReader;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn letters(&self) -> Option<Arc<dyn ReadLetter<Unkeyed, str>>> {
        Some(Arc::new(LineLetters(self.settings)))
    }

    fn is_rereadable(&self) -> bool {
        matches!(self.input, Input::Files(_)) && !self.settings.is_rotating
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
        self.open_at(split, &position.unwrap_or_default().into(), context)
    }

    fn resume(
        &self,
        split: &Split,
        position: &Position,
        context: &JobContext,
    ) -> Result<Self::Reader, JobError> {
        self.open_at(split, position, context)
    }
}

/// The way back for letters, whose values are lines.
struct LineLetters(Settings);

impl ReadLetter<Unkeyed, str> for LineLetters {
    fn read(
        &self,
        _key: Option<&[u8]>,
        value: Option<&[u8]>,
        take: &mut TakeRecord<'_, Unkeyed, str>,
    ) -> Result<Pace, JobError> {
        match decode(value.unwrap_or_default(), self.0) {
            Ok(line) => take(Ok((Key::none(), &*line))),
            Err(e) => take(Err(e)),
        }
    }
}

fn open_once(
    context: &JobContext,
    name: &Path,
    input: &Mutex<Option<Box<dyn io::Read + Send>>>,
    start: u64,
    expected: Option<u32>,
) -> Result<ByteStream, JobError> {
    let input = input.lock().take().ok_or_else(|| {
        failed(name, "it was read already, and can be read only once: start the program again with the same input, of which what was committed is skipped")
    })?;
    ByteStream::start(context.env(), input, start, expected).map_err(|e| failed(name, e))
}

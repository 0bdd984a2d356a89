//! A sink of text files, exactly once: a file is seen under its name only when all of it is committed.
//!
//! ```text
//! .part-<job>-00000007.inprogress    grows; how much of it is committed stands in the job's positions
//! part-<job>-00000007                sealed: committed, and never changed again
//! ```
//! A cycle's lines are synced before its transaction commits their length. A part is sealed only once the
//! commit that covers it is decided (I1): when the worker is told, at a clean end, or at the next start, which
//! cuts what is not committed. A part's mark is its length, eight bytes, big-endian.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::memchr;
use parking_lot::Mutex;

use crate::codec::{Codec, CodecError, Text};
use crate::env::{Env, File, OpenMode, failpoint};
use crate::runtime::{
    Failure, Flow, JobContext, JobError, MarkChanges, Marks, OperatorContext, Record, Sink,
    SinkWriter,
};

/// Bytes written to a part at once.
const WRITE_BYTES: usize = 256 * 1024;
/// A part is sealed once it is larger, unless the sink says otherwise.
const PART_BYTES: u64 = 64 << 20;
const SEALED: &str = "part-";
const IN_PROGRESS: &str = ".part-";
/// Before the number of a worker, the mark of the number that its next part has at least.
const NEXT: &str = "next-";
const IN_PROGRESS_SUFFIX: &str = ".inprogress";

/// The form of a record as a line.
pub trait LineFormat<K: ?Sized, V: ?Sized>: Clone + Send + Sync + 'static {
    /// Appends the record to `line`, without a line end.
    ///
    /// # Errors
    /// If it has no form as a line; then it is a poison record.
    fn write(&self, record: Record<'_, K, V>, line: &mut Vec<u8>) -> Result<(), CodecError>;
}

/// The value as text, without its key.
#[derive(Debug, Clone, Copy)]
pub struct ValueLines;

impl<K: ?Sized, V: ToOwned + ?Sized> LineFormat<K, V> for ValueLines
where
    Text: Codec<V>,
{
    fn write(&self, record: Record<'_, K, V>, line: &mut Vec<u8>) -> Result<(), CodecError> {
        Text.encode(record.value, line)
    }
}

/// Lines that a function writes; see [`Files::format`].
#[derive(Debug, Clone, Copy)]
pub struct Formatted<F>(F);

impl<K: ?Sized, V: ?Sized, F> LineFormat<K, V> for Formatted<F>
where
    F: Fn(Record<'_, K, V>, &mut Vec<u8>) + Clone + Send + Sync + 'static,
{
    fn write(&self, record: Record<'_, K, V>, line: &mut Vec<u8>) -> Result<(), CodecError> {
        (self.0)(record, line);
        Ok(())
    }
}

/// A directory of text files as a sink; see [`files`].
pub struct Files<F> {
    directory: PathBuf,
    part_bytes: u64,
    format: F,
    /// The directory as the running attempt found it.
    opened: Mutex<Option<Arc<FileDirectory>>>,
}

/// A sink that writes a line a record to files in `directory` (created if it is absent; its parent must exist),
/// exactly once. Read the files called `part-…`: they hold whole, committed lines, and never change. A file appears when
/// it is large enough, or when the job ends. A record whose line would hold a line end is a poison record.
///
/// ```
/// use onceflow::prelude::*;
///
/// let job = Job::new("upper");
/// job.source(lines(["book.txt"])).map(|line: &str| line.to_uppercase()).sink(files("upper"));
/// ```
pub fn files(directory: impl AsRef<Path>) -> Files<ValueLines> {
    Files {
        directory: directory.as_ref().to_owned(),
        part_bytes: PART_BYTES,
        format: ValueLines,
        opened: Mutex::default(),
    }
}

impl<F> Files<F> {
    /// Seals a file with the first commit at which it has so many bytes; 0 gives a file a commit. The default is 64 MiB.
    #[must_use]
    pub fn part_bytes(self, bytes: u64) -> Self {
        Self {
            part_bytes: bytes,
            ..self
        }
    }

    /// Writes lines as `format` says, which appends a record to a line.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("counts");
    /// let counts = job.source(lines(["book.txt"])).key_by_ref(|line: &str| line).count("counts");
    /// counts.changes().sink(files("counts").format(|record: Record<'_, str, u64>, line: &mut Vec<u8>| {
    ///     line.extend_from_slice(format!("{}", record.value).as_bytes());
    /// }));
    /// ```
    #[must_use]
    pub fn format<G>(self, format: G) -> Files<Formatted<G>> {
        Files {
            directory: self.directory,
            part_bytes: self.part_bytes,
            format: Formatted(format),
            opened: Mutex::default(),
        }
    }
}

impl<F> Files<F> {
    fn failed(&self, why: &dyn std::fmt::Display) -> JobError {
        failed(&self.directory, why)
    }

    fn opened(&self) -> Result<Arc<FileDirectory>, JobError> {
        let opened = self.opened.lock().clone();
        opened.ok_or_else(|| self.failed(&"it is opened before the job looked at it"))
    }
}

impl<K, V, F> Sink<K, V> for Files<F>
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    F: LineFormat<K, V>,
{
    type Writer = FilesWriter<F>;

    fn name(&self) -> String {
        // Marks are kept by path, so the path must mean the same directory whatever folder the job is started in.
        let path = std::path::absolute(&self.directory);
        let path = path.as_deref().unwrap_or(&self.directory);
        format!("files {}", path.display())
    }

    fn recover(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
        let opened = FileDirectory::open(job.env(), job.name(), &self.directory, marks)?;
        *self.opened.lock() = Some(Arc::new(opened));
        Ok(())
    }

    fn open(&self, context: &mut OperatorContext) -> Result<FilesWriter<F>, JobError> {
        Ok(FilesWriter {
            directory: self.opened()?,
            next_mark: format!("{NEXT}{}", context.worker()),
            env: context.job().env().clone(),
            part_bytes: self.part_bytes,
            format: self.format.clone(),
            lines: Vec::with_capacity(WRITE_BYTES),
            part: None,
            covered: Vec::new(),
            sealed: Vec::new(),
        })
    }

    fn close(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
        self.opened()?.close(job.env(), marks)
    }
}

/// The committed lengths of parts. A mark that is none has no length: its part is removed, or said to be cut.
fn lengths_of(marks: &Marks) -> HashMap<String, u64> {
    let of_parts = marks.iter().filter(|(part, _)| !part.starts_with(NEXT));
    let lengths = of_parts.map(|(part, mark)| {
        let length = mark.try_into().map_or(0, u64::from_be_bytes);
        (part.to_owned(), length)
    });
    lengths.collect()
}

/// A directory that this job writes; shared by its workers.
struct FileDirectory {
    path: PathBuf,
    job: String,
    /// The number of the next part.
    next: AtomicU64,
    /// Parts that were sealed by the start, whose lengths need no longer be kept.
    settled: Mutex<Vec<String>>,
}

impl FileDirectory {
    /// Creates the job's directory if it is absent, and settles what an earlier run left in it.
    fn open(env: &Env, job: &str, path: &Path, committed: &Marks) -> Result<Self, JobError> {
        let failed = |e: std::io::Error| failed(path, &e);
        let absolute = std::path::absolute(path).map_err(failed)?;
        env.files.create_dir(path).map_err(failed)?;
        // F10: always, because a kill may have come between the two.
        if let Some(parent) = absolute.parent() {
            env.files.sync_dir(parent).map_err(failed)?;
        }
        let directory = Self {
            path: absolute,
            job: job.to_owned(),
            next: AtomicU64::new(0),
            settled: Mutex::default(),
        };
        // O8: a name is not given again, though its file was taken away.
        for (_, mark) in committed.iter().filter(|(part, _)| part.starts_with(NEXT)) {
            let next = mark.try_into().map_or(0, u64::from_be_bytes);
            directory.next.fetch_max(next, Ordering::Relaxed);
        }
        let lengths = lengths_of(committed);
        directory.settle(env, &lengths)?;
        *directory.settled.lock() = lengths.into_keys().collect();
        Ok(directory)
    }

    /// Seals the parts in progress at their committed lengths, and removes those of which nothing is committed.
    fn settle(&self, env: &Env, lengths: &HashMap<String, u64>) -> Result<(), JobError> {
        let fail = |e: std::io::Error| failed(&self.path, &e);
        // A sealed file may have been taken away while its length is still kept: its name is not used again.
        lengths.keys().for_each(|part| self.pass(part));
        for entry in env.files.read_dir(&self.path).map_err(fail)? {
            let Some(part) = self.part_of(&entry.name) else {
                continue;
            };
            let number = part
                .rsplit('-')
                .next()
                .and_then(|number| number.parse().ok());
            self.next
                .fetch_max(number.unwrap_or(0) + 1, Ordering::Relaxed);
            if !entry.name.starts_with(IN_PROGRESS) {
                continue;
            }
            let path = self.path.join(&entry.name);
            match lengths.get(&part) {
                Some(&length) if length > entry.length_bytes => {
                    let why = format!(
                        "{} has {} bytes, but {length} were committed: it was cut by somebody else; restore it from a backup",
                        entry.name, entry.length_bytes
                    );
                    return Err(failed(&self.path, &why));
                }
                Some(&length) => {
                    let file = env.files.open(&path, OpenMode::Write).map_err(fail)?;
                    file.set_length(length).map_err(fail)?;
                    file.sync_data().map_err(fail)?;
                    env.files
                        .rename(&path, &self.path.join(&part))
                        .map_err(fail)?;
                }
                None => env.files.remove_file(&path).map_err(fail)?,
            }
        }
        failpoint("sink.parts_settled");
        env.files.sync_dir(&self.path).map_err(fail)
    }

    /// Seals everything; `lengths` are those of the last commit, after which nobody wrote.
    fn close(&self, env: &Env, committed: &Marks) -> Result<(), JobError> {
        self.settle(env, &lengths_of(committed))
    }

    /// The part that a file of this job is, sealed or not.
    fn part_of(&self, name: &str) -> Option<String> {
        let name = match name.strip_prefix('.') {
            Some(hidden) => hidden.strip_suffix(IN_PROGRESS_SUFFIX)?,
            None => name,
        };
        let number = name
            .strip_prefix(SEALED)?
            .strip_prefix(self.job.as_str())?
            .strip_prefix('-')?;
        let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| name.to_owned())
    }

    /// Sees to it that new parts have later names than this one.
    fn pass(&self, part: &str) {
        let number: Option<u64> = part
            .rsplit('-')
            .next()
            .and_then(|number| number.parse().ok());
        let next = number.map_or(0, |number| number.saturating_add(1));
        self.next.fetch_max(next, Ordering::Relaxed);
    }

    fn new_part(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{SEALED}{}-{number:08}", self.job)
    }

    fn in_progress(&self, part: &str) -> PathBuf {
        self.path.join(format!(".{part}{IN_PROGRESS_SUFFIX}"))
    }
}

fn failed(directory: &Path, why: &dyn std::fmt::Display) -> JobError {
    JobError::Sink {
        sink: directory.display().to_string(),
        why: why.to_string(),
    }
}

/// One worker's end of the sink.
pub struct FilesWriter<F> {
    directory: Arc<FileDirectory>,
    /// The mark of the number that this worker's next part has at least.
    next_mark: String,
    env: Env,
    part_bytes: u64,
    format: F,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    part: Option<Part>,
    /// Parts to seal once the cycle that closed last is committed.
    covered: Vec<String>,
    /// Parts that were sealed, whose lengths need no longer be kept.
    sealed: Vec<String>,
}

/// The part that grows.
struct Part {
    name: String,
    file: Box<dyn File>,
    length_bytes: u64,
    /// The length that the last closed cycle commits.
    marked_bytes: u64,
}

impl<F> FilesWriter<F> {
    fn failed(&self, why: &dyn std::fmt::Display) -> Failure {
        failed(&self.directory.path, why).into()
    }

    /// Writes what waits to the part, which is created if there is none.
    fn write_lines(&mut self) -> Flow {
        if self.lines.is_empty() {
            return Ok(());
        }
        let mut part = match self.part.take() {
            Some(part) => part,
            None => self.create_part()?,
        };
        part.file
            .write_all_at(&self.lines, part.length_bytes)
            .map_err(|e| self.failed(&e))?;
        part.length_bytes += self.lines.len() as u64;
        self.lines.clear();
        self.part = Some(part);
        Ok(())
    }

    fn create_part(&self) -> Result<Part, Failure> {
        let name = self.directory.new_part();
        let path = self.directory.in_progress(&name);
        let file = self.env.files.open(&path, OpenMode::CreateNew);
        let file = file.map_err(|e| self.failed(&e))?;
        failpoint("sink.part_created");
        Ok(Part {
            name,
            file,
            length_bytes: 0,
            marked_bytes: 0,
        })
    }

    /// Seals the parts that the last commit covers.
    fn seal(&mut self) -> Flow {
        if self.covered.is_empty() {
            return Ok(());
        }
        let directory = &self.directory;
        let files = &self.env.files;
        for part in &self.covered {
            files
                .rename(&directory.in_progress(part), &directory.path.join(part))
                .map_err(|e| self.failed(&e))?;
        }
        failpoint("sink.parts_renamed");
        // I9: a length is forgotten only when the name that needs none is durable.
        files
            .sync_dir(&directory.path)
            .map_err(|e| self.failed(&e))?;
        failpoint("sink.parts_sealed");
        self.sealed.append(&mut self.covered);
        Ok(())
    }

    /// Makes durable what the cycle wrote.
    fn sync(&self, part: &Part) -> Flow {
        failpoint("sink.before_sync");
        // I1: what the transaction commits is durable before it does.
        part.file.sync_data().map_err(|e| self.failed(&e))?;
        if part.marked_bytes == 0 {
            let synced = self.env.files.sync_dir(&self.directory.path);
            synced.map_err(|e| self.failed(&e))?;
        }
        failpoint("sink.after_sync");
        Ok(())
    }
}

impl<K: ?Sized, V: ?Sized, F: LineFormat<K, V>> SinkWriter<K, V> for FilesWriter<F> {
    fn write(&mut self, record: Record<'_, K, V>) -> Flow {
        let start = self.lines.len();
        let written = self.format.write(record, &mut self.lines);
        let is_one_line = memchr(b'\n', &self.lines[start..]).is_none();
        if written.is_err() || !is_one_line {
            self.lines.truncate(start);
            written?;
            return Err(Failure::poison(
                "its line holds a line end: escape it, or write it to a topic",
            ));
        }
        self.lines.push(b'\n');
        if self.lines.len() >= WRITE_BYTES {
            self.write_lines()?;
        }
        Ok(())
    }

    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        let settled = std::mem::take(&mut *self.directory.settled.lock());
        let done = settled.into_iter().chain(self.sealed.drain(..));
        done.for_each(|part| marks.forget(part));
        self.write_lines()?;
        let Some(mut part) = self.part.take() else {
            return Ok(());
        };
        if part.length_bytes > part.marked_bytes {
            self.sync(&part)?;
            if part.marked_bytes == 0 {
                let next = self.directory.next.load(Ordering::Relaxed);
                marks.set(self.next_mark.as_str(), next.to_be_bytes());
            }
            marks.set(part.name.as_str(), part.length_bytes.to_be_bytes());
            part.marked_bytes = part.length_bytes;
        }
        if part.length_bytes >= self.part_bytes {
            self.covered.push(part.name);
        } else {
            self.part = Some(part);
        }
        Ok(())
    }

    fn commit(&mut self) -> Flow {
        self.seal()
    }
}

#[cfg(test)]
mod tests;

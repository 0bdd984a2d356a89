//! [`Savepoint`]: a copy of a job's state, timers and times, with the positions of its sources, as of one commit.
//!
//! ```text
//! <path>/
//!   savepoint.json    sealed; written last: a directory without it is no savepoint
//!   meta.json         the stores and their types, as in a job's state directory
//!   rocksdb/          the files of the database, links to the job's own where the file system can
//!   between/          the records that were under way between the instances of a job that is scaled out
//! ```
//! It is made in `<path>.unfinished`, and gets its name when all of it is on the disk. It is taken where a cycle is committed and none is open (`driver/holding.rs`), and restored by a transaction of the job's own
//! (`restoring.rs`): changelogs and positions become what they were, all at once or not at all.
//!
//! A job that stands still, alone or scaled out, has one made from its log (`from_log.rs`).
//!
//! Reading order: this file, `taking.rs` (on `sums.rs`), `asking.rs` (from another process), `from_log.rs`, `between.rs`, `restoring.rs` (on `writing.rs`), `rescaling.rs` (into another number of state partitions), `anew.rs` (back to nothing).

mod anew;
mod asking;
mod between;
mod from_log;
mod placing;
mod rescaling;
mod restoring;
mod sums;
mod taking;
mod writing;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use between::SavedBetween;

#[cfg(feature = "cli")]
pub(crate) use anew::begin_anew;
pub(super) use asking::Letterbox;
#[cfg(feature = "cli")]
pub(crate) use asking::ask_for_savepoint;
pub use restoring::Restored;
pub(super) use restoring::SCALED_OUT;
pub(super) use sums::{has_savepoints, sum_up};
pub(super) use taking::{Request, finish};
pub(super) use writing::refuse_half_restored;

use crate::broker::sealed;
use crate::env::{Env, Files, OpenMode};
use crate::runtime::contract::error::JobError;
use crate::types::{Offset, Timestamp};

/// The file that makes a directory a savepoint.
const MANIFEST: &str = "savepoint.json";
/// The end of the name of a savepoint that is being made.
const UNFINISHED: &str = ".unfinished";
/// Files are read in pieces of this size.
const READ_BYTES: usize = 1 << 20;

/// A copy of a job's state, timers and times, with the positions of its sources, as of one commit.
///
/// ```no_run
/// # use std::time::Duration;
/// # use onceflow::prelude::*;
/// # use onceflow::runtime::Savepoint;
/// # fn launch() -> onceflow::runtime::Launch {
/// #     let job = Job::new("word-count");
/// #     job.source(topic::<str>("words")).key_by_ref(|word: &str| word).count("counts").changes().sink(topic("counts"));
/// #     job.exactly_once(Commit::every(Duration::from_millis(100)))
/// # }
/// # async fn doc(log: Log) -> anyhow::Result<()> {
/// let running = launch().start(&log)?;
/// let savepoint = running.savepoint("backup/monday").await?;
/// println!("{savepoint}");
/// running.stop().await?;
///
/// // Later: back to that moment. What was written to sinks since then stays, and comes once more.
/// let savepoint = Savepoint::open("backup/monday")?;
/// launch().restore(&log, &savepoint)?;
/// launch().run(&log).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Savepoint {
    path: PathBuf,
    manifest: Manifest,
    held: Duration,
}

/// The path of a savepoint, and the savepoint or why it cannot be opened.
type Listed = (PathBuf, Result<Savepoint, JobError>);

/// The content of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) job: String,
    /// When it was taken, in milliseconds since 1970.
    pub(super) taken_at: i64,
    pub(super) state_partitions: u16,
    /// The fingerprint of the job's graph, for people.
    pub(super) topology: String,
    /// The names of all its sources.
    pub(super) sources: Vec<String>,
    pub(super) topics: Vec<SavedTopic>,
    pub(super) splits: Vec<SavedSplit>,
    pub(super) marks: Vec<SavedMark>,
    /// The topics between the instances of a job that is scaled out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) between: Vec<SavedBetween>,
    pub(super) files: Vec<SavedFile>,
}

/// The committed positions of a topic that the job reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedTopic {
    pub(super) topic: String,
    /// The id that it had; unknown if the job has committed nothing of it yet.
    pub(super) id: Option<String>,
    pub(super) partitions: Vec<SavedPosition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedPosition {
    pub(super) partition: i32,
    pub(super) offset: Offset,
    /// As committed with the offset: the watermark, if the job keeps one.
    pub(super) metadata: String,
}

/// The position of a split that is no partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedSplit {
    pub(super) source: String,
    pub(super) split: String,
    pub(super) offset: Offset,
    /// In hexadecimal digits.
    pub(super) fingerprint: String,
    pub(super) watermark: Option<i64>,
}

/// The mark of a sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedMark {
    pub(super) sink: String,
    pub(super) part: String,
    /// In hexadecimal digits.
    pub(super) mark: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedFile {
    /// The path from the savepoint's directory on.
    pub(super) path: String,
    pub(super) length_bytes: u64,
    /// The CRC-32C of its bytes, in hexadecimal digits.
    pub(super) crc32c: String,
}

impl Savepoint {
    /// Opens the savepoint in the directory `path`. Its files are not read: see [`verify`](Self::verify).
    ///
    /// # Errors
    /// If there is none, or its manifest is damaged or of a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JobError> {
        Self::open_in(&Env::real(), path.as_ref())
    }

    pub(crate) fn open_in(env: &Env, path: &Path) -> Result<Self, JobError> {
        if !is_named(path) {
            let why = "it is not finished: it is being made, or whoever made it died. If nobody makes it, remove it and take another";
            return Err(refused(path, why));
        }
        let is_begun = env.files.exists(&unfinished(path)).unwrap_or(false);
        if is_begun && !env.files.exists(path).map_err(|e| refused(path, e))? {
            let why = format!(
                "it was not finished: what is there of it is in {}. Take it again",
                unfinished(path).display()
            );
            return Err(refused(path, why));
        }
        let read = sealed::read::<Manifest>(&*env.files, &path.join(MANIFEST));
        let manifest = read.map_err(|e| refused(path, e))?.ok_or_else(|| {
            refused(
                path,
                "it has no savepoint.json: it is no savepoint, or one that was not finished",
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
            manifest,
            held: Duration::ZERO,
        })
    }

    /// The savepoints in the directory `folder`, by name; those that cannot be opened, or were not finished, with the reason.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn list(folder: impl AsRef<Path>) -> Result<Vec<Listed>, JobError> {
        let (env, folder) = (Env::real(), folder.as_ref());
        let entries = env.files.read_dir(folder);
        let entries = entries.map_err(|e| refused(folder, e))?.into_iter();
        let folders = entries.filter(|entry| entry.is_dir);
        let mut found = Vec::new();
        for path in folders.map(|entry| folder.join(entry.name)) {
            let exists = |name| {
                let exists = env.files.exists(&path.join(name));
                exists.map_err(|e| refused(&path, e))
            };
            if !is_named(&path) || exists(MANIFEST)? || exists("rocksdb")? {
                found.push((path.clone(), Self::open_in(&env, &path)));
            }
        }
        Ok(found)
    }

    /// Reads all files and compares them with their checksums.
    ///
    /// # Errors
    /// If one is missing or damaged: it is named.
    pub fn verify(&self) -> Result<(), JobError> {
        self.verify_in(&Env::real())
    }

    pub(crate) fn verify_in(&self, env: &Env) -> Result<(), JobError> {
        for saved in &self.manifest.files {
            let path = self.path.join(&saved.path);
            let found = describe_file(&*env.files, &self.path, &saved.path).map_err(|e| {
                let why = format!("its file {} cannot be read: {e}{OTHERS}", path.display());
                refused(&self.path, why)
            })?;
            if found != *saved {
                let why = format!(
                    "its file {} is damaged: it has {} bytes with the checksum {}, not {} with {}{OTHERS}",
                    saved.path, found.length_bytes, found.crc32c, saved.length_bytes, saved.crc32c
                );
                return Err(refused(&self.path, why));
            }
        }
        Ok(())
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the job that it is of.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.manifest.job
    }

    /// When it was taken, by the wall clock.
    #[must_use]
    pub fn taken_at(&self) -> Timestamp {
        Timestamp(self.manifest.taken_at)
    }

    /// Into how many parts its state is cut: a job that is restored from it has as many, unless it asks for another number.
    #[must_use]
    pub fn state_partitions(&self) -> u16 {
        self.manifest.state_partitions
    }

    /// The size of its files, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.manifest
            .files
            .iter()
            .map(|file| file.length_bytes)
            .sum()
    }

    /// Returns the time that it made the job stand still; zero for one that was opened.
    #[must_use]
    pub fn held(&self) -> Duration {
        self.held
    }
}

/// The end of a message about damage.
const OTHERS: &str =
    ". Nothing was restored; `onceflow savepoint list` names others, of which you can choose one";

impl fmt::Display for Savepoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let manifest = &self.manifest;
        writeln!(f, "job: {}", manifest.job)?;
        writeln!(f, "taken: {} ms since 1970", manifest.taken_at)?;
        writeln!(f, "state partitions: {}", manifest.state_partitions)?;
        writeln!(f, "graph: {}", manifest.topology)?;
        for topic in &manifest.topics {
            for at in &topic.partitions {
                writeln!(
                    f,
                    "position: {}-{} at {}",
                    topic.topic, at.partition, at.offset
                )?;
            }
        }
        for split in &manifest.splits {
            let (source, name) = (&split.source, &split.split);
            writeln!(f, "position: {source} {name} at {}", split.offset)?;
        }
        for between in &manifest.between {
            let records: u64 = between.partitions.iter().map(|it| it.records).sum();
            writeln!(f, "under way: {records} records in {}", between.topic)?;
        }
        let (count, bytes) = (manifest.files.len(), self.size_bytes());
        write!(f, "files: {count}, {bytes} bytes")
    }
}

/// Where a savepoint is made until it is whole.
fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// Whether it is the path of a savepoint that has its name.
fn is_named(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| !name.ends_with(UNFINISHED))
}

/// The directory that holds the savepoint's.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}

fn refused(path: &Path, why: impl fmt::Display) -> JobError {
    JobError::Savepoint {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// The length and the checksum of a file below `folder`.
fn describe_file(files: &dyn Files, folder: &Path, path: &str) -> std::io::Result<SavedFile> {
    let file = files.open(&folder.join(path), OpenMode::Read)?;
    let mut buffer = vec![0; READ_BYTES];
    let (mut length_bytes, mut crc32c) = (0, 0);
    loop {
        let read = file.read_full_at(&mut buffer, length_bytes)?;
        if read == 0 {
            break;
        }
        crc32c = crc32c::crc32c_append(crc32c, &buffer[..read]);
        length_bytes += read as u64;
    }
    Ok(SavedFile {
        path: path.to_owned(),
        length_bytes,
        crc32c: format!("{crc32c:08x}"),
    })
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests;

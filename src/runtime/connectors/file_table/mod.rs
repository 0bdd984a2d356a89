//! A directory or bucket of data files with a manifest, exactly once: who follows the manifest sees each row once.
//!
//! ```text
//! data/<job>/<part>/<sequence>-<lineage>-<number>.<ending>   written before the decision, never changed
//! manifest/<job>/<part>/<sequence>.json                      created at the commit: the files of one commit of a part
//! manifest/<job>/probe.json                                  in a bucket: of the look whether the store creates, and never replaces
//! ```
//! A part is a worker. Its manifest is a chain: an entry is created once, under the number behind the last one (O4, O5). Names of data
//! files have the number that they wait for and the lineage, a random number of the attempt, so no two commits write one name (O7, O8).
//! The mark of a part is its entry, so `recover` creates what a crash left out.

mod format;
mod manifest;
#[cfg(feature = "object-store")]
mod objects;
#[cfg(feature = "parquet")]
mod parquet;
mod storage;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use self::format::{Csv, JsonLines, RowEncoder, RowFormat};
use self::manifest::Manifest;
pub use self::manifest::PublishedFile;
#[cfg(feature = "object-store")]
pub use self::objects::Bucket;
#[cfg(feature = "parquet")]
pub use self::parquet::{Parquet, ParquetValue};
use self::storage::{Directory, Problem, Storage};
pub use self::writer::FileTableWriter;
use crate::env::{Env, warn};
use crate::runtime::{JobContext, JobError, Marks, OperatorContext, Sink};

/// A data file is ended once it is larger, unless the sink says otherwise.
const FILE_BYTES: usize = 64 << 20;
/// The time that a job waits for a store that does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first pause before it is asked again; each later one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Where the files are.
enum Place {
    Directory(PathBuf),
    #[cfg(feature = "object-store")]
    Bucket(Box<Bucket>),
}

/// Data files with a manifest as a sink; see [`file_table`].
pub struct FileTable<F> {
    place: Place,
    format: F,
    file_bytes: usize,
    opened: Mutex<Option<Arc<Opened>>>,
}

/// The files as an attempt of the job found them.
struct Opened {
    manifest: Manifest,
    /// The last entry of each part.
    last: BTreeMap<String, u64>,
}

/// A sink that writes data files into `directory` (created if it is absent; its parent must exist), each row once for whoever follows
/// the manifest: read the entries `manifest/<job>/<part>/<number>.json` in the order of their numbers, and of each the files that it
/// names. [`published`] does it. Data files that no entry names are of commits that were not made; leave them alone.
///
/// Each commit of each worker makes a file and an entry, so commit seldom (`Commit::every` a minute, say).
///
/// ```
/// use std::time::Duration;
///
/// use onceflow::prelude::*;
/// use onceflow::runtime::file_table::{JsonLines, file_table, published};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order { id: u64, cents: i64 }
///
/// # let place = tempfile::tempdir()?;
/// let directory = place.path().join("orders");
/// let job = Job::new("orders-to-files");
/// let orders = (1..=3).map(|id| Order { id, cents: 250 });
/// job.source(values("orders", orders)).sink(file_table(&directory, JsonLines));
/// let log = Log::embedded(place.path().join("data"))?;
/// let running = job.exactly_once(Commit::every(Duration::from_millis(100))).workers(1).start(&log)?;
/// onceflow::client::wait(running.finished())?;
///
/// let files = published(&directory)?;
/// let first = std::fs::read_to_string(directory.join(&files[0].name))?;
/// assert!(first.starts_with(r#"{"id":1,"cents":250}"#));
/// assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn file_table<F>(directory: impl AsRef<Path>, format: F) -> FileTable<F> {
    FileTable::new(Place::Directory(directory.as_ref().to_owned()), format)
}

/// A sink that writes data files into a bucket of an object store, as [`file_table`] does into a directory, with the feature `object-store`.
///
/// An entry of the manifest is created by a conditional write (`If-None-Match: *`), which the store must know: one that does not is
/// refused when the job starts. [`Bucket::published`] follows the manifest.
///
/// ```no_run
/// use onceflow::prelude::*;
/// use onceflow::runtime::file_table::{Bucket, JsonLines, object_table};
///
/// let job = Job::new("orders-to-s3");
/// let bucket = Bucket::new("warehouse").prefix("orders").region("eu-central-1");
/// job.source(topic::<String>("orders")).sink(object_table(bucket, JsonLines));
/// ```
#[cfg(feature = "object-store")]
#[must_use]
pub fn object_table<F>(bucket: Bucket, format: F) -> FileTable<F> {
    FileTable::new(Place::Bucket(Box::new(bucket)), format)
}

/// The data files that are committed in a directory, of all jobs and parts, each part's in the order of its commits. Names are relative to the
/// directory.
///
/// # Errors
/// If the manifest cannot be read, or is damaged.
pub fn published(directory: impl AsRef<Path>) -> Result<Vec<PublishedFile>, JobError> {
    let directory = directory.as_ref();
    let storage: Arc<dyn Storage> = Arc::new(Directory::new(Env::real(), directory.to_owned()));
    let files = manifest::published(&*storage);
    files.map_err(|problem| problem.into_error(&directory.display().to_string()))
}

impl<F> FileTable<F> {
    fn new(place: Place, format: F) -> Self {
        Self {
            place,
            format,
            file_bytes: FILE_BYTES,
            opened: Mutex::default(),
        }
    }

    /// Ends a data file once it has so many bytes. A commit ends it in any case. The default is 64 MiB; a worker has as much in memory.
    #[must_use]
    pub fn file_bytes(mut self, bytes: usize) -> Self {
        self.file_bytes = bytes;
        self
    }

    fn sink_name(&self) -> String {
        match &self.place {
            Place::Directory(path) => {
                // Marks are kept by path, so the path must mean the same directory whatever folder the job is started in.
                let absolute = std::path::absolute(path);
                format!("files {}", absolute.as_deref().unwrap_or(path).display())
            }
            #[cfg(feature = "object-store")]
            Place::Bucket(bucket) => format!("files {}", bucket.url()),
        }
    }

    fn storage(&self, env: &Env) -> Result<Arc<dyn Storage>, Problem> {
        Ok(match &self.place {
            Place::Directory(path) => Arc::new(Directory::new(env.clone(), path.clone())),
            #[cfg(feature = "object-store")]
            Place::Bucket(bucket) => Arc::new(bucket.open()?),
        })
    }

    fn open_once(&self, marks: &Marks, job: &JobContext) -> Result<Opened, Problem> {
        let manifest = Manifest::open(self.storage(job.env())?, job.name())?;
        let mut last = manifest.last(marks)?;
        for (part, mark) in marks.iter() {
            manifest.finish(part, mark, &mut last)?;
        }
        Ok(Opened { manifest, last })
    }
}

impl<K, V, F> Sink<K, V> for FileTable<F>
where
    K: ?Sized + 'static,
    V: ?Sized + 'static,
    F: RowFormat<K, V>,
{
    type Writer = FileTableWriter<F::Encoder>;

    fn name(&self) -> String {
        self.sink_name()
    }

    fn recover(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
        let checked = self.format.check();
        checked.map_err(|e| Problem::refused(e.to_string()).into_error(&self.sink_name()))?;
        let clock = &job.env().clock;
        let begin = clock.now();
        let mut pause = FIRST_PAUSE;
        loop {
            let problem = match self.open_once(marks, job) {
                Ok(opened) => {
                    *self.opened.lock() = Some(Arc::new(opened));
                    return Ok(());
                }
                Err(problem) => problem,
            };
            if !problem.is_passing || clock.now().since(begin) >= PATIENCE {
                return Err(problem.into_error(&self.sink_name()));
            }
            if pause == FIRST_PAUSE {
                warn!(
                    job = job.name(),
                    why = problem.why,
                    "waiting for the place of the files"
                );
            }
            clock.sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn open(&self, context: &mut OperatorContext) -> Result<Self::Writer, JobError> {
        let opened = self.opened.lock().clone();
        let failed = |problem: Problem| problem.into_error(&self.sink_name());
        let opened = opened
            .ok_or_else(|| failed(Problem::refused("it is opened before the job looked at it")))?;
        let part = format!("worker-{}", context.worker());
        let last = opened.last.get(&part).copied().unwrap_or(0);
        let lineage = context.job().env().random.next_u64();
        let manifest = opened.manifest.clone();
        let ending = self.format.ending();
        let part = manifest
            .part(&part, last, lineage, ending)
            .map_err(failed)?;
        Ok(FileTableWriter::new(
            self.sink_name(),
            part,
            self.format.encoder(),
            self.file_bytes,
        ))
    }
}

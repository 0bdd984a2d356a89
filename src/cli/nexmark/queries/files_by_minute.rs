//! The sink of q10: a file of lines for each minute, exactly once, and beside it `_SUCCESS` when it is complete.
//!
//! ```text
//! dt=2015-07-15/hm=00:00/.bids        grows; how much of it is committed is the minute's mark
//! dt=2015-07-15/hm=00:00/bids         complete, and never changed again
//! dt=2015-07-15/hm=00:00/_SUCCESS     empty
//! ```
//! A mark is the committed length in eight bytes, big-endian, and a byte that is 1 once the file is complete. What a mark says is made true by
//! `commit`, or by `recover` after a crash; a mark is forgotten in a later commit, when the names are durable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::calendar::{day, day_name, minute, minute_name};
use crate::env::{Env, File, OpenMode};
use crate::runtime::{
    Failure, Flow, JobContext, JobError, MarkChanges, Marks, OperatorContext, Record, Sink,
    SinkWriter,
};

const GROWING: &str = ".bids";
const COMPLETE: &str = "bids";
const SUCCESS: &str = "_SUCCESS";
const MINUTE_MILLIS: i64 = 60_000;

/// A line of a minute's file, or word that there is no other.
pub(super) enum Line {
    /// A line, without its end.
    Bid(String),
    /// All lines were there.
    Complete,
}

/// A directory of files by minute.
pub(super) struct FilesByMinute {
    root: PathBuf,
    recovered: Arc<Mutex<Recovered>>,
}

/// The finding of an attempt.
#[derive(Default)]
struct Recovered {
    /// The committed length of each file that grows.
    lengths: BTreeMap<String, u64>,
    /// The files that are complete, whose marks are no longer needed.
    complete: Vec<String>,
}

impl FilesByMinute {
    /// Files below `root`, which is created if it is absent.
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            recovered: Arc::default(),
        }
    }

    fn recover_all(&self, marks: &Marks, env: &Env) -> io::Result<()> {
        env.files.create_dir(&self.root)?;
        let mut recovered = Recovered::default();
        for (folder, mark) in marks.iter() {
            let (length, is_complete) = read_mark(mark);
            if is_complete {
                finish(env, &self.root.join(folder))?;
                recovered.complete.push(folder.to_owned());
            } else {
                recovered.lengths.insert(folder.to_owned(), length);
            }
        }
        for days in directories(env, &self.root)? {
            for minutes in directories(env, &self.root.join(&days))? {
                let folder = format!("{days}/{minutes}");
                let growing = self.root.join(&folder).join(GROWING);
                match recovered.lengths.get(&folder) {
                    Some(length) => env
                        .files
                        .open(&growing, OpenMode::Write)?
                        .set_length(*length)?,
                    // Nothing of it was committed.
                    None if env.files.exists(&growing)? => env.files.remove_file(&growing)?,
                    None => {}
                }
            }
        }
        *self.recovered.lock() = recovered;
        Ok(())
    }
}

/// The names of the directories in a directory.
fn directories(env: &Env, path: &Path) -> io::Result<Vec<String>> {
    let entries = env.files.read_dir(path)?.into_iter();
    Ok(entries.filter(|it| it.is_dir).map(|it| it.name).collect())
}

/// Gives a file its final name, and says that it is complete; does nothing twice.
fn finish(env: &Env, folder: &Path) -> io::Result<()> {
    let growing = folder.join(GROWING);
    if env.files.exists(&growing)? {
        env.files.rename(&growing, &folder.join(COMPLETE))?;
    }
    // The file is there before it is said to be complete.
    env.files.sync_dir(folder)?;
    env.files
        .open(&folder.join(SUCCESS), OpenMode::OpenOrCreate)?;
    env.files.sync_dir(folder)
}

fn read_mark(mark: &[u8]) -> (u64, bool) {
    let length = mark.first_chunk().map_or(0, |it| u64::from_be_bytes(*it));
    (length, mark.get(8) == Some(&1))
}

fn failed(root: &Path, why: &io::Error) -> JobError {
    JobError::Sink {
        sink: root.display().to_string(),
        why: why.to_string(),
    }
}

impl Sink<i64, Line> for FilesByMinute {
    type Writer = MinuteWriter;

    fn name(&self) -> String {
        "files by minute".to_owned()
    }

    fn recover(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
        let recovered = self.recover_all(marks, job.env());
        recovered.map_err(|e| failed(&self.root, &e))
    }

    fn open(&self, context: &mut OperatorContext) -> Result<MinuteWriter, JobError> {
        Ok(MinuteWriter {
            root: self.root.clone(),
            env: context.job().env().clone(),
            recovered: Arc::clone(&self.recovered),
            growing: BTreeMap::new(),
            covered: Vec::new(),
            finished: Vec::new(),
        })
    }
}

/// One worker's files.
pub(super) struct MinuteWriter {
    root: PathBuf,
    env: Env,
    recovered: Arc<Mutex<Recovered>>,
    growing: BTreeMap<i64, Growing>,
    /// Files to finish once the cycle that closed last is committed.
    covered: Vec<String>,
    /// Files that are finished, whose marks are no longer needed.
    finished: Vec<String>,
}

/// A file that grows.
struct Growing {
    folder: String,
    file: Box<dyn File>,
    length_bytes: u64,
    /// Lines that are not written yet.
    lines: Vec<u8>,
    is_complete: bool,
}

impl MinuteWriter {
    fn growing(&mut self, minute: i64) -> io::Result<&mut Growing> {
        if !self.growing.contains_key(&minute) {
            let growing = self.open(minute)?;
            self.growing.insert(minute, growing);
        }
        let growing = self.growing.get_mut(&minute);
        growing.ok_or_else(|| io::Error::other("a file that was opened is gone"))
    }

    fn open(&self, number: i64) -> io::Result<Growing> {
        let time = number * MINUTE_MILLIS;
        let days = format!("dt={}", day_name(day(time)));
        let folder = format!("{days}/hm={}", minute_name(minute(time)));
        let committed = self.recovered.lock().lengths.remove(&folder);
        self.env.files.create_dir(&self.root.join(&days))?;
        let path = self.root.join(&folder);
        self.env.files.create_dir(&path)?;
        let path = path.join(GROWING);
        Ok(Growing {
            folder,
            file: self.env.files.open(&path, OpenMode::OpenOrCreate)?,
            length_bytes: committed.unwrap_or(0),
            lines: Vec::new(),
            is_complete: false,
        })
    }

    fn sync(&self, growing: &mut Growing) -> io::Result<()> {
        let Growing { file, lines, .. } = growing;
        file.write_all_at(lines, growing.length_bytes)?;
        growing.length_bytes += lines.len() as u64;
        lines.clear();
        // I1: what the transaction commits is durable before it does, and so are its names.
        file.sync_data()?;
        let folder = self.root.join(&growing.folder);
        self.env.files.sync_dir(&folder)?;
        folder
            .ancestors()
            .skip(1)
            .take(2)
            .try_for_each(|it| self.env.files.sync_dir(it))
    }

    fn prepare(&mut self, marks: &mut MarkChanges) -> io::Result<()> {
        let settled = std::mem::take(&mut self.recovered.lock().complete);
        let done = settled.into_iter().chain(self.finished.drain(..));
        done.for_each(|folder| marks.forget(folder));
        for (minute, mut growing) in std::mem::take(&mut self.growing) {
            if !growing.lines.is_empty() {
                self.sync(&mut growing)?;
            } else if !growing.is_complete {
                self.growing.insert(minute, growing);
                continue;
            }
            let mut mark = growing.length_bytes.to_be_bytes().to_vec();
            mark.push(u8::from(growing.is_complete));
            marks.set(growing.folder.as_str(), mark);
            match growing.is_complete {
                true => self.covered.push(growing.folder),
                false => drop(self.growing.insert(minute, growing)),
            }
        }
        Ok(())
    }

    fn finish_covered(&mut self) -> io::Result<()> {
        for folder in std::mem::take(&mut self.covered) {
            finish(&self.env, &self.root.join(&folder))?;
            self.finished.push(folder);
        }
        Ok(())
    }
}

impl SinkWriter<i64, Line> for MinuteWriter {
    fn write(&mut self, record: Record<'_, i64, Line>) -> Flow {
        let minute = *record.key.decode()?;
        let root = self.root.clone();
        let growing = self.growing(minute).map_err(|e| failed(&root, &e))?;
        match record.value {
            Line::Bid(line) => {
                growing.lines.extend_from_slice(line.as_bytes());
                growing.lines.push(b'\n');
            }
            Line::Complete => growing.is_complete = true,
        }
        Ok(())
    }

    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        let prepared = self.prepare(marks);
        prepared.map_err(|e| Failure::from(failed(&self.root, &e)))
    }

    fn commit(&mut self) -> Flow {
        let finished = self.finish_covered();
        finished.map_err(|e| Failure::from(failed(&self.root, &e)))
    }
}

//! A sink as a user writes it: a file for each commit of a worker, which is seen under its name once it is committed.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use onceflow::prelude::*;
use onceflow::runtime::{
    Flow, JobContext, MarkChanges, Marks, OperatorContext, Record, Sink, SinkWriter, Unkeyed,
};

/// The folder of the files.
pub(super) struct Ledger(PathBuf);

impl Ledger {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }
}

fn failed(why: impl std::fmt::Display) -> JobError {
    JobError::Sink {
        sink: "ledger".to_owned(),
        why: why.to_string(),
    }
}

fn show(folder: &Path, prepared: &str) -> Result<(), JobError> {
    let shown = prepared.trim_start_matches('.');
    fs::rename(folder.join(prepared), folder.join(shown)).map_err(failed)
}

impl Sink<Unkeyed, str> for Ledger {
    type Writer = LedgerWriter;

    fn name(&self) -> String {
        "ledger".to_owned()
    }

    fn recover(&self, marks: &Marks, _job: &JobContext) -> Result<(), JobError> {
        fs::create_dir_all(&self.0).map_err(failed)?;
        let is_committed = |prepared: &str| {
            let mut marks = marks.iter();
            marks.any(|(_, mark)| mark == prepared.as_bytes())
        };
        for entry in fs::read_dir(&self.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if !name.starts_with('.') {
                continue;
            }
            match is_committed(&name) {
                true => show(&self.0, &name)?,
                false => fs::remove_file(entry.path()).map_err(failed)?,
            }
        }
        Ok(())
    }

    fn open(&self, context: &mut OperatorContext) -> Result<LedgerWriter, JobError> {
        Ok(LedgerWriter {
            folder: self.0.clone(),
            worker: context.worker(),
            lines: String::new(),
            prepared: None,
        })
    }
}

/// A worker's end: the lines of the open cycle, and the file of the one that was prepared.
pub(super) struct LedgerWriter {
    folder: PathBuf,
    worker: usize,
    lines: String,
    prepared: Option<String>,
}

impl SinkWriter<Unkeyed, str> for LedgerWriter {
    fn write(&mut self, record: Record<'_, Unkeyed, str>) -> Flow {
        self.lines.push_str(record.value);
        self.lines.push('\n');
        Ok(())
    }

    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        if self.lines.is_empty() {
            return Ok(());
        }
        let now = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .map_err(failed)?;
        let name = format!(".part-{}-{}", self.worker, now.as_nanos());
        let mut file = File::create_new(self.folder.join(&name)).map_err(failed)?;
        file.write_all(self.lines.as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        self.lines.clear();
        marks.set(self.worker.to_string(), name.as_bytes());
        self.prepared = Some(name);
        Ok(())
    }

    fn commit(&mut self) -> Flow {
        if let Some(prepared) = self.prepared.take() {
            show(&self.folder, &prepared)?;
        }
        Ok(())
    }
}

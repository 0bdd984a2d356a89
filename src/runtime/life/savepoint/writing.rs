//! [`Writing`]: the rows of a restore on their way into changelogs, in one transaction, or in several where the time for one is too short.
//!
//! ```text
//! first row ─► … half of the timeout is over ─► commit, with the note that a restore is under way ─► … ─► positions, no note ─► commit
//! ```
//! A job whose positions hold the note does not start (`refuse_half_restored`): its state is neither what it was nor what it is to be. Restoring
//! again, the same savepoint or another one, completes it, because each row that was changed since the savepoint is written again.
//! Where a job is scaled out, the note is committed before anything else.

use std::path::Path;
use std::time::Duration;

use super::refused;
use crate::client::{CommitOutcome, PartitionWriter, TransactionalWriter, wait};
use crate::env::progress::{ProgressLine, Unit};
use crate::env::{Env, Instant, failpoint};
use crate::protocol::batch::{BatchBuilder, Compression, Record};
use crate::runtime::contract::error::JobError;
use crate::runtime::task::cycle::WRITERS_COUNT;
use crate::runtime::topics::positions::{Kept, Positions, positions_topic};
use crate::types::{Timestamp, TopicPartition};

/// A batch of rows is handed over at this size.
const BATCH_BYTES: usize = 192 << 10;
/// The clock is looked at once for this many rows.
const ROWS_A_LOOK: u32 = 128;

/// The transaction of a restore.
pub(super) struct Writing<'a> {
    env: &'a Env,
    job: &'a str,
    /// The savepoint's; empty where the job begins anew.
    path: &'a Path,
    writer: &'a TransactionalWriter,
    pub(super) positions: Positions,
    rows: Vec<Rows>,
    now: Timestamp,
    /// When the open transaction got its first rows: it begins with them, however long was read before.
    begun: Option<Instant>,
    lasts_max: Duration,
    steps: u32,
    count: u64,
    told: ProgressLine<'a>,
    /// Whether a part is committed.
    is_cut: bool,
}

/// Which changelog partition a row goes to: one that was opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target(usize);

/// Rows on their way into one changelog partition.
struct Rows {
    writer: PartitionWriter,
    builder: BatchBuilder,
}

impl<'a> Writing<'a> {
    /// Nothing is written yet. A transaction is open for `timeout` at most.
    pub(super) fn new(
        env: &'a Env,
        job: &'a str,
        path: &'a Path,
        writers: &'a [TransactionalWriter; WRITERS_COUNT],
        timeout: Duration,
    ) -> Result<Self, JobError> {
        Ok(Self {
            env,
            job,
            path,
            writer: &writers[0],
            positions: Positions::new(env.clone(), positions_topic(job)?, writers),
            rows: Vec::new(),
            now: env.clock.wall(),
            begun: None,
            // The other half is for the commit.
            lasts_max: timeout / 2,
            steps: 0,
            count: 0,
            told: env.progress(
                format!("writing state of {job}"),
                Unit::Things("rows"),
                None,
            ),
            is_cut: false,
        })
    }

    /// Keeps the instances of a job that is scaled out from starting before all is decided: they have transactional ids of their own, which
    /// nobody else knows.
    pub(super) fn hold_instances_off(&mut self) -> Result<(), JobError> {
        let path = self.path.to_string_lossy();
        self.positions.append_restoring(0, Some(&path))?;
        self.commit()?;
        self.is_cut = true;
        failpoint("restore.held_off");
        Ok(())
    }

    /// Nothing was changed: lets instances start as they did `before`.
    pub(super) fn let_instances_start(&mut self, before: &Kept) -> Result<(), JobError> {
        let restoring = before.restoring.as_deref();
        self.positions.append_restoring(0, restoring)?;
        self.commit()?;
        self.is_cut = false;
        Ok(())
    }

    pub(super) fn writer(&self) -> &'a TransactionalWriter {
        self.writer
    }

    /// The writer of a changelog partition.
    pub(super) fn open(&mut self, place: &TopicPartition) -> Target {
        self.rows.push(Rows {
            writer: self.writer.partition(place),
            builder: BatchBuilder::new(Compression::None, None),
        });
        Target(self.rows.len() - 1)
    }

    /// Writes a row, or deletes it.
    pub(super) fn push(
        &mut self,
        target: Target,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), JobError> {
        let rows = &mut self.rows[target.0];
        rows.builder.push(self.now, Some(key), value);
        self.count += 1;
        self.pushed(target)
    }

    /// Writes a record as it was; it is no row.
    pub(super) fn push_record(
        &mut self,
        target: Target,
        record: &Record<'_>,
    ) -> Result<(), JobError> {
        let builder = &mut self.rows[target.0].builder;
        builder.push_with_headers_of(record.timestamp, record.key, record.value, record.headers);
        self.pushed(target)
    }

    /// Writes a record without a key; it is no row.
    pub(super) fn push_keyless(&mut self, target: Target, value: &[u8]) -> Result<(), JobError> {
        self.rows[target.0]
            .builder
            .push(self.now, None, Some(value));
        self.pushed(target)
    }

    fn pushed(&mut self, target: Target) -> Result<(), JobError> {
        let rows = &mut self.rows[target.0];
        if rows.builder.size_bytes() >= BATCH_BYTES {
            self.begun.get_or_insert_with(|| self.env.clock.now());
            rows.writer.hand_over(&mut rows.builder)?;
        }
        self.step()
    }

    /// Something was read: commits what is written if the transaction has been open for long.
    pub(super) fn step(&mut self) -> Result<(), JobError> {
        self.steps += 1;
        match self.steps >= ROWS_A_LOOK {
            true => self.look(),
            false => Ok(()),
        }
    }

    /// As [`step`](Self::step), where a step may take long.
    pub(super) fn look(&mut self) -> Result<(), JobError> {
        self.steps = 0;
        self.told.at(self.count);
        let is_due = |at: Instant| self.env.clock.now().since(at) >= self.lasts_max;
        match self.begun {
            Some(at) if is_due(at) => self.cut(),
            _ => Ok(()),
        }
    }

    /// Commits a part.
    fn cut(&mut self) -> Result<(), JobError> {
        self.hand_over_all()?;
        let path = self.path.to_string_lossy();
        self.positions.append_restoring(0, Some(&path))?;
        self.commit()?;
        self.begun = None;
        self.is_cut = true;
        failpoint("restore.part_committed");
        Ok(())
    }

    /// All rows are with the log; the targets are done with.
    pub(super) fn finish_rows(&mut self) -> Result<(), JobError> {
        self.hand_over_all()?;
        self.rows.clear();
        Ok(())
    }

    fn hand_over_all(&mut self) -> Result<(), JobError> {
        for rows in &mut self.rows {
            if !rows.builder.is_empty() {
                self.begun.get_or_insert_with(|| self.env.clock.now());
                rows.writer.hand_over(&mut rows.builder)?;
            }
            rows.writer.settle()?;
        }
        Ok(())
    }

    /// All is written: the last transaction takes the note away that this restore, or one before it, left.
    pub(super) fn decide(&mut self, kept: &Kept) -> Result<u64, JobError> {
        self.finish_rows()?;
        if self.is_cut || kept.restoring.is_some() {
            self.positions.append_restoring(0, None)?;
        }
        self.positions.flush(0)?;
        failpoint("restore.all_written");
        self.commit()?;
        failpoint("restore.committed");
        Ok(self.count)
    }

    fn commit(&self) -> Result<(), JobError> {
        match wait(self.writer.commit())? {
            CommitOutcome::Committed => Ok(()),
            _ => Err(self.refused(
                "it is not known whether it was restored: restore it again before the job runs"
                    .to_owned(),
            )),
        }
    }

    /// The error of a restore that failed: what is left of it, if anything.
    pub(super) fn failed(self, error: JobError) -> JobError {
        // The next holder of the id does it otherwise.
        let _ = wait(self.writer.abort());
        if !self.is_cut {
            return error;
        }
        let why = format!(
            "{error}. A part of it is restored, and the job does not start before the rest is: restore it again, or another one"
        );
        self.refused(why)
    }

    fn refused(&self, why: String) -> JobError {
        match self.path.as_os_str().is_empty() {
            false => refused(self.path, why),
            true => JobError::Incompatible {
                job: self.job.to_owned(),
                why: format!("beginning it anew: {why}"),
            },
        }
    }
}

/// Refuses to start a job of which a part was restored.
pub(in crate::runtime::life) fn refuse_half_restored(
    job: &str,
    kept: &Kept,
) -> Result<(), JobError> {
    match &kept.restoring {
        None => Ok(()),
        Some(path) if path.is_empty() => Err(JobError::Incompatible {
            job: job.to_owned(),
            why: "a part of its state is given up, and the rest is not, because beginning it anew was interrupted: do that again, or restore \
                  a savepoint (`onceflow savepoint restore`)"
                .to_owned(),
        }),
        Some(path) => Err(JobError::Incompatible {
            job: job.to_owned(),
            why: format!(
                "its state is half of now and half of the savepoint {path}, of which the restore was interrupted: restore that savepoint \
                 again, or another one of this job (`onceflow savepoint restore`)"
            ),
        }),
    }
}

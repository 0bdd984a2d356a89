//! One worker's end of the sink: rows of the open cycle, and the one commit that may be under way.

use std::sync::Arc;

use super::frontier::{At, Frontier, Mark, Names};
use super::row::{Column, Operation, Rows};
use super::session::{Problem, Session};
use super::target::Target;
use super::{Deletes, Opened, Postgres};
use crate::runtime::{Failure, Flow, JobContext, MarkChanges, Record, SinkWriter};

/// Rows wait for the decision in chunks of so many bytes; so much of a cycle is in memory.
const CHUNK_BYTES: usize = 1 << 20;

/// One worker's end of the sink [`postgres`](super::postgres).
pub struct PostgresWriter<K: ?Sized, V: ?Sized> {
    sink: String,
    job: String,
    names: Names,
    part: String,
    session: Session,
    target: Target,
    columns: Arc<[Column<K, V>]>,
    deletes: Option<Deletes<K, V>>,
    rows: Rows,
    /// The chunks of the open cycle that wait in the database.
    chunks: i32,
    lineage: i64,
    /// Where the part is once everything that was prepared is in the table.
    frontier: Frontier,
    prepared: Option<Prepared>,
}

/// A cycle that was prepared.
struct Prepared {
    mark: Mark,
    /// Whether its rows are written, in a transaction that is open.
    is_applied: bool,
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> PostgresWriter<K, V> {
    pub(super) fn open(
        sink: &Postgres<K, V>,
        opened: &Opened,
        part: String,
        job: &JobContext,
    ) -> Result<Self, Problem> {
        let session = Session::connect(&sink.server, job.env(), job.name())?;
        let names = sink.names(job.name());
        let found = opened.frontiers.get(&part).copied().unwrap_or_default();
        // 0 is nobody's.
        let lineage = (job.env().random.next_u64() | 1).cast_signed();
        let frontier = session.wait(async {
            opened.target.prepare(&session.client).await?;
            names.begin(&session.client, &part, found, lineage).await
        })?;
        Ok(Self {
            sink: sink.name.clone(),
            job: job.name().to_owned(),
            names,
            part,
            session,
            target: opened.target.clone(),
            columns: sink.columns.iter().cloned().collect(),
            deletes: sink.deletes.clone(),
            rows: Rows::default(),
            chunks: 0,
            lineage,
            frontier,
            prepared: None,
        })
    }
}

impl<K: ?Sized, V: ?Sized> PostgresWriter<K, V> {
    fn failed(&self, problem: Problem) -> Failure {
        problem.into_error(&self.sink, &self.job).into()
    }

    /// The epoch that the open cycle becomes.
    fn next(&self) -> At {
        let at = self.frontier.at;
        let epoch = if at.lineage == self.lineage {
            at.epoch
        } else {
            0
        };
        At {
            lineage: self.lineage,
            epoch: epoch + 1,
        }
    }

    /// Has the database keep the rows so far.
    fn keep_rows(&mut self) -> Result<(), Problem> {
        let rows = self.rows.take();
        let (client, begins) = (&self.session.client, self.frontier.begins);
        let kept = self
            .names
            .keep(client, &self.part, self.next(), begins, self.chunks, &rows);
        self.session.wait(kept)?;
        self.chunks += 1;
        Ok(())
    }

    /// Writes the rows of a cycle in a transaction that stays open. Nothing is in the table before the commit (O1).
    fn apply(&self, mark: &Mark, is_decided: bool) -> Result<(), Problem> {
        let (client, target) = (&self.session.client, &self.target);
        self.session.wait(async {
            target.begin(client, is_decided).await?;
            self.names
                .apply(client, &self.part, mark, target, is_decided)
                .await
        })
    }

    fn prepare(&mut self, marks: &mut MarkChanges) -> Result<(), Problem> {
        if !self.rows.is_empty() {
            self.keep_rows()?;
        }
        if self.chunks == 0 {
            return Ok(());
        }
        self.rows.begin_cycle();
        let mark = Mark {
            to: self.next(),
            from: self.frontier.at,
            begins: self.frontier.begins,
            chunks: std::mem::take(&mut self.chunks),
        };
        let as_json = serde_json::to_vec(&mark).map_err(|e| Problem::refused(e.to_string()))?;
        marks.set(&*self.part, as_json);
        let is_applied = match self.apply(&mark, false) {
            Ok(()) => true,
            // Another worker has written the same row in this commit, and holds it until the decision: then this one's turn comes.
            Err(Problem::Passing(_)) if !self.session.client.is_closed() => {
                self.session
                    .wait(self.session.client.batch_execute("ROLLBACK"))?;
                false
            }
            Err(problem) => return Err(problem),
        };
        self.frontier.at = mark.to;
        self.prepared = Some(Prepared { mark, is_applied });
        Ok(())
    }

    /// Shows what was prepared. If nobody knows whether that was done, the job's next attempt finds out (O6).
    fn show(&mut self) -> Result<(), Problem> {
        let Some(prepared) = self.prepared.take() else {
            return Ok(());
        };
        if !prepared.is_applied {
            self.apply(&prepared.mark, true)?;
        }
        self.session
            .wait(self.session.client.batch_execute("COMMIT"))?;
        Ok(())
    }
}

impl<K: ?Sized, V: ?Sized> SinkWriter<K, V> for PostgresWriter<K, V> {
    fn write(&mut self, record: Record<'_, K, V>) -> Flow {
        let operation = self.target.has_keys().then(|| match &self.deletes {
            Some(is_deletion) if is_deletion(&record) => Operation::Delete,
            _ => Operation::Put,
        });
        let fields = &self.target.fields;
        let pushed = self.rows.push(&self.columns, fields, operation, &record);
        pushed.map_err(Failure::poison)?;
        if self.rows.len() >= CHUNK_BYTES {
            self.keep_rows().map_err(|problem| self.failed(problem))?;
        }
        Ok(())
    }

    fn prepare_commit(&mut self, marks: &mut MarkChanges) -> Flow {
        self.prepare(marks).map_err(|problem| self.failed(problem))
    }

    fn commit(&mut self) -> Flow {
        self.show().map_err(|problem| self.failed(problem))
    }
}

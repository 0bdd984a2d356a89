//! The frontier of each part of the sink in the database, and the rows that wait there for the job's decision.
//!
//! ```text
//! onceflow_frontiers   job, sink, part │ lineage, epoch: what the table has │ holder: the lineage that may go on │ begins
//! onceflow_lineages    job, sink, part, lineage │ the last epoch of an earlier lineage that the table has
//! onceflow_pending     job, sink, part, lineage, epoch, chunk │ begins │ rows
//! ```
//! A lineage is one life of a part, a random number. It begins when a worker opens the part, and says nothing by itself: the frontier
//! moves with the first commit of it. `begins` counts how often one began, and orders them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use super::session::Problem;
use super::target::{Target, quote};

/// An epoch of a lineage. Before a part's first commit it is at lineage 0, epoch 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct At {
    pub(super) lineage: i64,
    pub(super) epoch: i64,
}

/// The mark of a part: JSON, committed with the job's cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Where the part is once the cycle's rows are in the table.
    pub(super) to: At,
    /// Where it is before.
    pub(super) from: At,
    /// The number of the beginning of its lineage.
    pub(super) begins: i64,
    /// The number of chunks of pending rows.
    pub(super) chunks: i32,
}

/// A row of `onceflow_frontiers`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Frontier {
    pub(super) at: At,
    pub(super) begins: i64,
}

/// Earlier lineages of a part that are remembered: as many restarts can lie between a savepoint and the table that it meets again.
const LINEAGES_KEPT: i64 = 1_000;

/// Our tables in the database, and the job's and sink's names in them.
#[derive(Debug, Clone)]
pub(super) struct Names {
    job: String,
    sink: String,
    frontiers: String,
    lineages: String,
    pending: String,
}

impl Names {
    pub(super) fn new(job: &str, sink: &str, schema: Option<&str>) -> Self {
        let table = |name: &str| match schema {
            Some(schema) => format!("{}.{name}", quote(schema)),
            None => name.to_owned(),
        };
        Self {
            job: job.to_owned(),
            sink: sink.to_owned(),
            frontiers: table("onceflow_frontiers"),
            lineages: table("onceflow_lineages"),
            pending: table("onceflow_pending"),
        }
    }

    /// Creates our tables where they are not there, one creator at a time. Who may not create tables can have them created by these
    /// statements.
    pub(super) async fn create_absent(&self, client: &Client) -> Result<(), Problem> {
        let (frontiers, lineages, pending) = (&self.frontiers, &self.lineages, &self.pending);
        let there = client
            .query_one("SELECT to_regclass($1) IS NOT NULL AND to_regclass($2) IS NOT NULL AND to_regclass($3) IS NOT NULL",
                &[frontiers, lineages, pending])
            .await?;
        if there.try_get::<_, bool>(0)? {
            return Ok(());
        }
        let part = "job text NOT NULL, sink text NOT NULL, part text NOT NULL";
        // The number is "onceflow" in ASCII.
        let statements = format!(
            "BEGIN; SELECT pg_advisory_xact_lock(8029466371461312375); \
             CREATE TABLE IF NOT EXISTS {frontiers} ({part}, lineage bigint NOT NULL, epoch bigint NOT NULL, holder bigint NOT NULL, \
                begins bigint NOT NULL, PRIMARY KEY (job, sink, part)); \
             CREATE TABLE IF NOT EXISTS {lineages} ({part}, lineage bigint NOT NULL, epoch bigint NOT NULL, begins bigint NOT NULL, \
                PRIMARY KEY (job, sink, part, lineage)); \
             CREATE TABLE IF NOT EXISTS {pending} ({part}, lineage bigint NOT NULL, epoch bigint NOT NULL, chunk integer NOT NULL, \
                begins bigint NOT NULL, rows bytea NOT NULL, PRIMARY KEY (job, sink, part, lineage, epoch, chunk)); \
             COMMIT"
        );
        let created = client.batch_execute(&statements);
        created.await.map_err(|e| match Problem::from(e) {
            Problem::Refused(why) => Problem::refused(format!(
                "its tables {frontiers}, {lineages} and {pending} cannot be created: {why}; let the user create tables in the schema, \
                 or name another schema with `bookkeeping_schema`"
            )),
            other => other,
        })
    }

    /// The frontiers of all parts.
    pub(super) async fn read(
        &self,
        client: &Client,
    ) -> Result<BTreeMap<String, Frontier>, Problem> {
        let select = format!(
            "SELECT part, lineage, epoch, begins FROM {} WHERE job = $1 AND sink = $2",
            self.frontiers
        );
        let mut frontiers = BTreeMap::new();
        for row in client.query(&select, &[&self.job, &self.sink]).await? {
            let at = At {
                lineage: row.try_get(1)?,
                epoch: row.try_get(2)?,
            };
            let begins = row.try_get(3)?;
            frontiers.insert(row.try_get(0)?, Frontier { at, begins });
        }
        Ok(frontiers)
    }

    /// Begins a lineage of a part that stands exactly where it was found (O2, O3).
    pub(super) async fn begin(
        &self,
        client: &Client,
        part: &str,
        found: Frontier,
        lineage: i64,
    ) -> Result<Frontier, Problem> {
        let frontiers = &self.frontiers;
        let (job, sink) = (&self.job, &self.sink);
        if found.begins == 0 {
            let insert = format!(
                "INSERT INTO {frontiers} VALUES ($1, $2, $3, 0, 0, 0, 0) ON CONFLICT DO NOTHING"
            );
            client.execute(&insert, &[job, sink, &part]).await?;
        }
        let update = format!(
            "UPDATE {frontiers} SET holder = $4, begins = begins + 1 \
             WHERE job = $1 AND sink = $2 AND part = $3 AND lineage = $5 AND epoch = $6 AND begins = $7"
        );
        let begins = found.begins;
        let parameters: [&(dyn ToSql + Sync); 7] = [
            job,
            sink,
            &part,
            &lineage,
            &found.at.lineage,
            &found.at.epoch,
            &begins,
        ];
        match client.execute(&update, &parameters).await? {
            1 => Ok(Frontier {
                begins: begins + 1,
                ..found
            }),
            _ => Err(self.overtaken(part)),
        }
    }

    fn overtaken(&self, part: &str) -> Problem {
        Problem::Fenced(format!(
            "another one of that name writes {part} of {} in the same database: if it is another job, give one of them another name",
            self.sink
        ))
    }

    /// Keeps rows of an epoch that is not decided yet.
    pub(super) async fn keep(
        &self,
        client: &Client,
        part: &str,
        at: At,
        begins: i64,
        chunk: i32,
        rows: &[u8],
    ) -> Result<(), Problem> {
        let insert = format!(
            "INSERT INTO {} VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            self.pending
        );
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &self.job,
            &self.sink,
            &part,
            &at.lineage,
            &at.epoch,
            &chunk,
            &begins,
            &rows,
        ];
        client.execute(&insert, &parameters).await?;
        Ok(())
    }

    /// Moves a part on by one epoch, with its rows, inside the transaction that the caller began. It must stand exactly at the epoch
    /// before (O4, O5), and, unless the decision is known, be held by this lineage.
    pub(super) async fn apply(
        &self,
        client: &Client,
        part: &str,
        mark: &Mark,
        target: &Target,
        is_decided: bool,
    ) -> Result<(), Problem> {
        let Mark {
            to,
            from,
            begins,
            chunks,
        } = mark;
        let (job, sink) = (&self.job, &self.sink);
        let update = format!(
            "UPDATE {} SET lineage = $4, epoch = $5 WHERE job = $1 AND sink = $2 AND part = $3 AND lineage = $6 AND epoch = $7 \
             AND (holder = $4 OR $8)",
            self.frontiers
        );
        let parameters: [&(dyn ToSql + Sync); 8] = [
            job,
            sink,
            &part,
            &to.lineage,
            &to.epoch,
            &from.lineage,
            &from.epoch,
            &is_decided,
        ];
        if client.execute(&update, &parameters).await? != 1 {
            return Err(self.overtaken(part));
        }
        if to.lineage != from.lineage && from.lineage != 0 {
            self.remember(client, part, *from, *begins).await?;
        }
        let select = format!(
            "SELECT rows FROM {} WHERE job = $1 AND sink = $2 AND part = $3 AND lineage = $4 AND epoch = $5 AND chunk = $6",
            self.pending
        );
        for chunk in 0..*chunks {
            let parameters: [&(dyn ToSql + Sync); 6] =
                [job, sink, &part, &to.lineage, &to.epoch, &chunk];
            let row = client.query_opt(&select, &parameters).await?;
            let row = row.ok_or_else(|| {
                Problem::refused(format!("rows of {part}, which the job has committed, wait no longer in {}: the database was restored from an older copy, or they were deleted; begin the job from a savepoint of that time", self.pending))
            })?;
            target.copy(client, row.try_get(0)?).await?;
        }
        target.merge(client).await?;
        let delete = format!(
            "DELETE FROM {} WHERE job = $1 AND sink = $2 AND part = $3 AND ((lineage = $4 AND epoch <= $5) OR begins < $6)",
            self.pending
        );
        let parameters: [&(dyn ToSql + Sync); 6] =
            [job, sink, &part, &to.lineage, &to.epoch, begins];
        client.execute(&delete, &parameters).await?;
        Ok(())
    }

    /// Notes where an earlier lineage ended, and forgets very old ones.
    async fn remember(
        &self,
        client: &Client,
        part: &str,
        end: At,
        begins: i64,
    ) -> Result<(), Problem> {
        let (job, sink, lineages) = (&self.job, &self.sink, &self.lineages);
        let insert = format!(
            "INSERT INTO {lineages} VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (job, sink, part, lineage) DO UPDATE SET epoch = $5"
        );
        let parameters: [&(dyn ToSql + Sync); 6] =
            [job, sink, &part, &end.lineage, &end.epoch, &begins];
        client.execute(&insert, &parameters).await?;
        let delete = format!(
            "DELETE FROM {lineages} WHERE job = $1 AND sink = $2 AND part = $3 AND begins < $4"
        );
        let oldest = begins - LINEAGES_KEPT;
        client
            .execute(&delete, &[job, sink, &part, &oldest])
            .await?;
        Ok(())
    }

    /// Finishes what the mark of a part covers; the outcome of an earlier attempt is read first (O6).
    pub(super) async fn finish(
        &self,
        client: &Client,
        part: &str,
        mark: &[u8],
        target: &Target,
    ) -> Result<(), Problem> {
        let mark: Mark = serde_json::from_slice(mark).map_err(|e| {
            Problem::refused(format!(
                "the mark of {part} is not from this version of Onceflow: {e}"
            ))
        })?;
        target.begin(client, true).await?;
        let select = format!(
            "SELECT lineage, epoch FROM {} WHERE job = $1 AND sink = $2 AND part = $3 FOR UPDATE",
            self.frontiers
        );
        let row = client
            .query_opt(&select, &[&self.job, &self.sink, &part])
            .await?;
        let found = match &row {
            Some(row) => At {
                lineage: row.try_get(0)?,
                epoch: row.try_get(1)?,
            },
            None => At::default(),
        };
        if found == mark.from && row.is_some() {
            self.apply(client, part, &mark, target, true).await?;
        } else if !self.has(client, part, found, mark.to).await? {
            return Err(Problem::refused(format!(
                "the job has committed epoch {} of lineage {} for {part}, which this database never had: it is at epoch {} of lineage {}. \
                 It is another database, or was restored from an older copy: then begin the job from a savepoint of that time",
                mark.to.epoch, mark.to.lineage, found.epoch, found.lineage
            )));
        }
        client.batch_execute("COMMIT").await?;
        Ok(())
    }

    /// Whether the table has the rows of an epoch, also where it went on since: the job may have gone back to a savepoint.
    async fn has(&self, client: &Client, part: &str, found: At, at: At) -> Result<bool, Problem> {
        if found.lineage == at.lineage {
            return Ok(found.epoch >= at.epoch);
        }
        let select = format!(
            "SELECT 1 FROM {} WHERE job = $1 AND sink = $2 AND part = $3 AND lineage = $4 AND epoch >= $5",
            self.lineages
        );
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&self.job, &self.sink, &part, &at.lineage, &at.epoch];
        Ok(client.query_opt(&select, &parameters).await?.is_some())
    }
}

//! A table of PostgreSQL as a sink, exactly once (O1–O6, O10): a worker's rows of a commit and how far it has come change together.
//!
//! ```text
//! prepare_commit   pending rows of (lineage, epoch), durable ─► frontier and rows in a transaction that stays open
//! the job's commit
//! commit           COMMIT                                       a crash before it: `recover` does it again from the pending rows
//! ```
//! The frontier of a part (a worker) moves only from exactly the epoch that the mark names as the one before. An attempt of the job
//! begins a lineage of its own, so that nothing that an earlier one left is ever taken for its own.
//!
//! The other direction, changes of a table as a source, is in `changes/`.
//!
//! Reading order: this file, `row.rs` (values as bytes), `frontier.rs` (how far a part is), `target.rs` (the table), `session.rs`
//! (the connection, classes of errors), `writer.rs`.

mod changes;
mod frontier;
mod row;
mod session;
mod target;
mod tls;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
pub use tokio_postgres::types::ToSql;

pub use self::changes::{
    ChangesReader, PostgresChanges, RowChange, RowChangeKind, postgres_changes,
};
use self::frontier::{Frontier, Names};
use self::row::Column;
use self::session::{Problem, Server, Session};
use self::target::Target;
pub use self::writer::PostgresWriter;
use crate::codec::Datum;
use crate::env::warn;
use crate::net::Pem;
use crate::runtime::{JobContext, JobError, Marks, OperatorContext, Record, Sink};

/// The time that a job waits for a server that cannot be reached, at its start and after each failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first pause before a connection is tried again; each later one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A table of PostgreSQL as a sink; see [`postgres`].
pub struct Postgres<K: ?Sized, V: ?Sized> {
    name: String,
    server: Server,
    table: String,
    schema: Option<String>,
    columns: Vec<Column<K, V>>,
    keys: Vec<String>,
    deletes: Option<Deletes<K, V>>,
    patience: Duration,
    /// The table and the frontiers as the running attempt found them.
    opened: Mutex<Option<Arc<Opened>>>,
}

type Deletes<K, V> = Arc<dyn Fn(&Record<'_, K, V>) -> bool + Send + Sync>;

/// The target as an attempt of the job found it.
struct Opened {
    target: Target,
    frontiers: BTreeMap<String, Frontier>,
}

/// A sink that writes rows to a table, each exactly once, whatever is killed on either side.
///
/// `server` is a connection string as `psql` takes it: `host=db user=shop dbname=shop`, or `postgresql://shop@db/shop`. `table` is the
/// table's name, with its schema if it is not on the search path (`sales.orders`); it must be there. By default rows are appended;
/// [`upsert_by`](Postgres::upsert_by) replaces the row of the same key.
///
/// The rows of a worker in one commit of the job become visible in one transaction of the database, together with the number of the
/// commit, in the table `onceflow_frontiers`. A reader may see the rows of one worker a moment before those of another. A row that the
/// database refuses (a constraint, a value out of range) stops the job before the commit, with the database's words; nothing of the
/// cycle is committed anywhere. A server that is away is waited for, then the job starts again from its last commit.
///
/// ```no_run
/// use onceflow::prelude::*;
/// use onceflow::runtime::postgres::postgres;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order { id: i64, customer: String, cents: i64 }
///
/// let job = Job::new("orders-to-postgres");
/// job.source(topic::<Order>("orders")).sink(
///     postgres("host=db user=shop dbname=shop", "orders")
///         .column("id", |record: &Record<'_, _, Order>| record.value.id)
///         .text("customer", |order: &Order| &order.customer)
///         .column("cents", |record| record.value.cents)
///         .upsert_by(["id"]),
/// );
/// ```
#[must_use]
pub fn postgres<K: ?Sized, V: ?Sized>(server: &str, table: &str) -> Postgres<K, V> {
    Postgres {
        name: format!("postgres {table}"),
        server: Server::new(server),
        table: table.to_owned(),
        schema: None,
        columns: Vec::new(),
        keys: Vec::new(),
        deletes: None,
        patience: PATIENCE,
        opened: Mutex::default(),
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> Postgres<K, V> {
    /// Adds a column, whose values a function makes of records. The Rust type must suit the column's: that is checked when the job
    /// starts. `Option` is null; a null in a column that takes none is a poison record.
    #[must_use]
    pub fn column<T, F>(mut self, name: &str, value: F) -> Self
    where
        T: ToSql + 'static,
        F: Fn(&Record<'_, K, V>) -> T + Send + Sync + 'static,
    {
        self.columns.push(Column::of_values(name, value));
        self
    }

    /// Adds a column of text that is borrowed from the record's value.
    #[must_use]
    pub fn text<F>(mut self, name: &str, value: F) -> Self
    where
        F: for<'a> Fn(&'a V) -> &'a str + Send + Sync + 'static,
    {
        self.columns.push(Column::of_text(name, value));
        self
    }

    /// Adds a column with the record's key. A key that does not decode is a poison record.
    #[must_use]
    pub fn key(mut self, name: &str) -> Self
    where
        K: Datum,
        K::Owned: ToSql,
    {
        self.columns.push(Column::of_key(name));
        self
    }

    /// Replaces the row that has the same values in these columns, or inserts one. The table needs a primary key or unique index on
    /// exactly them. Of several records of one key in a commit, the last one stays. Key the stream by the same columns: then one worker
    /// writes all records of a row, in order.
    #[must_use]
    pub fn upsert_by<'n>(mut self, keys: impl IntoIterator<Item = &'n str>) -> Self {
        self.keys = keys.into_iter().map(str::to_owned).collect();
        self
    }

    /// Deletes the row of a record's key where the function says so, instead of replacing it. Only with [`upsert_by`](Self::upsert_by).
    #[must_use]
    pub fn delete_when(
        mut self,
        is_deletion: impl Fn(&Record<'_, K, V>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.deletes = Some(Arc::new(is_deletion));
        self
    }

    /// Encrypts the connection, with a server whose certificate names its host and is signed by one of `authorities`, or by one that the
    /// system trusts. So does `sslmode=require` in the connection string, with the system's. Otherwise the connection is plain.
    #[must_use]
    pub fn tls(mut self, authorities: Option<Pem>) -> Self {
        self.server.use_tls(authorities);
        self
    }

    /// Keeps Onceflow's tables in this schema, instead of the first one on the search path.
    #[must_use]
    pub fn bookkeeping_schema(mut self, schema: &str) -> Self {
        self.schema = Some(schema.to_owned());
        self
    }

    /// Waits so long for a server that cannot be reached, at the start and after each failure. The default is 60 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Gives the sink another name than `postgres <table>`: for two sinks that write tables of one name in two databases. The job's marks
    /// and the frontiers are kept under it.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    fn names(&self, job: &str) -> Names {
        Names::new(job, &self.name, self.schema.as_deref())
    }

    /// The mistakes that can be seen without a server.
    fn check(&self) -> Result<(), Problem> {
        if self.columns.is_empty() {
            return Err(Problem::refused(
                "it has no columns: add some with `column`",
            ));
        }
        let is_column = |key: &&String| self.columns.iter().any(|column| column.name == **key);
        if let Some(key) = self.keys.iter().find(|key| !is_column(key)) {
            let why = format!(
                "`upsert_by` names {key:?}, which is none of its columns: add it with `column`"
            );
            return Err(Problem::refused(why));
        }
        if self.deletes.is_some() && self.keys.is_empty() {
            let why = "`delete_when` needs `upsert_by`, which says which row is deleted";
            return Err(Problem::refused(why));
        }
        Ok(())
    }

    /// Finishes what marks cover, and looks at the table.
    fn open_once(&self, marks: &Marks, job: &JobContext) -> Result<Opened, Problem> {
        self.check()?;
        let session = Session::connect(&self.server, job.env(), job.name())?;
        let names = self.names(job.name());
        session.wait(names.create_absent(&session.client))?;
        let target = Target::new(&self.table, &self.columns, &self.keys);
        let target = session.wait(target.inspect(&session.client, &self.columns))?;
        for (part, mark) in marks.iter() {
            session.wait(names.finish(&session.client, part, mark, &target))?;
        }
        let frontiers = session.wait(names.read(&session.client))?;
        Ok(Opened { target, frontiers })
    }

    fn failed(&self, problem: Problem, job: &JobContext) -> JobError {
        problem.into_error(&self.name, job.name())
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> Sink<K, V> for Postgres<K, V> {
    type Writer = PostgresWriter<K, V>;

    fn name(&self) -> String {
        self.name.clone()
    }

    fn recover(&self, marks: &Marks, job: &JobContext) -> Result<(), JobError> {
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
            if !problem.is_passing() || clock.now().since(begin) >= self.patience {
                return Err(self.failed(problem, job));
            }
            if pause == FIRST_PAUSE {
                warn!(job = job.name(), sink = self.name, why = %problem, "waiting for the database");
            }
            clock.sleep(pause);
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    fn open(&self, context: &mut OperatorContext) -> Result<PostgresWriter<K, V>, JobError> {
        let job = context.job();
        let opened = self.opened.lock().clone();
        let Some(opened) = opened else {
            let problem = Problem::refused("it is opened before the job looked at it");
            return Err(self.failed(problem, job));
        };
        let part = format!("worker-{}", context.worker());
        PostgresWriter::open(self, &opened, part, job).map_err(|problem| self.failed(problem, job))
    }
}

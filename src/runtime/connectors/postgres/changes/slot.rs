//! The things that the database keeps for the source: a publication, a replication slot, and a row that says what the slot stands for.
//!
//! ```text
//! onceflow_changes   slot_name │ slot: the number of its life │ is_used: whether a job has committed a place of it │ quiet_from, quiet_to
//! ```
//! Between `quiet_from` and `quiet_to` there was nothing of the table, so a slot that stands there has lost nothing of a place from
//! `quiet_from` on. One that stands behind a place otherwise has (O14).

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::super::session::Problem;
use super::super::target::quote;
use super::json::{Columns, oids};
use super::place::{Place, Snapshot};

/// The longest name in PostgreSQL is 63 bytes; so much of it is the job's, for people.
const SHOWN_BYTES: usize = 30;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS onceflow_changes (slot_name text PRIMARY KEY, slot bigint NOT NULL, \
     is_used boolean NOT NULL DEFAULT false, quiet_from bigint NOT NULL DEFAULT 0, quiet_to bigint NOT NULL DEFAULT 0)";

/// The settings of a session, on which the form of values as text depends.
const SETTINGS: &str = "SET datestyle = 'ISO, YMD'; SET intervalstyle = 'postgres'; SET timezone = 'UTC'; SET bytea_output = 'hex'; \
     SET extra_float_digits = 1; SET statement_timeout = 0";

/// The table that is read.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) oid: u32,
    /// Quoted, with its schema.
    pub(super) name: String,
    pub(super) columns: Columns,
    /// The columns of its primary key, in their order.
    pub(super) keys: Vec<String>,
}

/// As far as the slot may move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confirmed {
    /// The end of a transaction; all up to there is committed.
    pub(super) committed: u64,
    /// From there to here there was nothing of the table.
    pub(super) quiet_to: u64,
    /// Whether the job has committed a place of the slot.
    pub(super) is_used: bool,
}

/// The slot of a source.
#[derive(Debug)]
pub(super) struct Slot {
    /// Of the slot and of the publication.
    pub(super) name: String,
}

fn number(lsn: i64) -> u64 {
    lsn.cast_unsigned()
}

impl Table {
    /// Looks at the table.
    pub(super) async fn inspect(client: &Client, given: &str) -> Result<Self, Problem> {
        client.batch_execute(SETTINGS).await?;
        let refuse = |why: String| Err(Problem::refused(format!("the table {given}: {why}")));
        let found = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relreplident::text \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)::oid";
        let Some(row) = client.query_opt(found, &[&given]).await? else {
            return refuse("there is none: make it first, or name its schema".to_owned());
        };
        let oid: u32 = row.get(0);
        let name = format!("{}.{}", quote(row.get(1)), quote(row.get(2)));
        if row.get::<_, &str>(3) != "r" {
            return refuse(
                "it is no ordinary table: of a partitioned one, read each partition".to_owned(),
            );
        }
        let identity: &str = row.get(4);
        if !["d", "f"].contains(&identity) {
            return refuse(
                "updates and deletes of it are not told by its primary key: ALTER TABLE … REPLICA IDENTITY DEFAULT (or FULL)".to_owned(),
            );
        }
        let columns = "SELECT attname::text, atttypid FROM pg_attribute \
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum";
        let columns = client.query(columns, &[&oid]).await?;
        let columns: Vec<(String, u32)> =
            columns.iter().map(|row| (row.get(0), row.get(1))).collect();
        let keys = "SELECT a.attname::text FROM pg_index i \
             CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, place) \
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
             WHERE i.indrelid = $1 AND i.indisprimary ORDER BY k.place";
        let keys = client.query(keys, &[&oid]).await?;
        let keys: Vec<String> = keys.iter().map(|row| row.get(0)).collect();
        if keys.is_empty() {
            return refuse(
                "it has no primary key, by which its rows are told apart: add one".to_owned(),
            );
        }
        Ok(Self {
            oid,
            name,
            columns: Columns::new(columns),
            keys,
        })
    }

    /// The key's columns as the copy sorts them.
    fn sorted_keys(&self) -> Result<Vec<String>, Problem> {
        let sorted = self.keys.iter().map(|key| {
            let mut columns = self.columns.iter();
            let oid = columns.find(|(name, _)| name == key).map(|(_, oid)| oid);
            match oid {
                Some(oids::INT2 | oids::INT4 | oids::INT8 | oids::UUID) => Ok(quote(key)),
                Some(oids::TEXT | oids::VARCHAR) => Ok(format!("{} COLLATE \"C\"", quote(key))),
                _ => Err(Problem::refused(format!(
                    "the column {key} of the primary key of {} is no whole number, text or UUID, by which rows could be copied in an order \
                     of their own: read the table with `without_copy`",
                    self.name
                ))),
            }
        });
        sorted.collect()
    }

    /// The statement that copies the rows in the order of their keys, behind a key if there is one: a text for each column.
    pub(super) fn copy(&self, has_last: bool) -> Result<String, Problem> {
        let keys = self.sorted_keys()?;
        let columns = self.columns.iter().map(|(name, _)| {
            // The text that the log has, too; a cast drops the blanks of `char(n)`.
            let name = quote(name);
            format!("CASE WHEN {name} IS NOT NULL THEN format('%s', {name}) END")
        });
        let columns: Vec<String> = columns.collect();
        let behind = match has_last {
            false => String::new(),
            true => {
                let types = self.keys.iter().zip(1..).map(|(key, place)| {
                    let mut columns = self.columns.iter();
                    match columns.find(|(name, _)| name == key).map(|(_, oid)| oid) {
                        Some(oids::UUID) => format!("${place}::text::uuid"),
                        Some(oids::TEXT | oids::VARCHAR) => format!("${place}::text"),
                        _ => format!("${place}::text::bigint"),
                    }
                });
                let values: Vec<String> = types.collect();
                format!("WHERE ({}) > ({})", keys.join(", "), values.join(", "))
            }
        };
        Ok(format!(
            "SELECT {} FROM ONLY {} {behind} ORDER BY {}",
            columns.join(", "),
            self.name,
            keys.join(", ")
        ))
    }
}

impl Slot {
    pub(super) fn new(job: &str, source: &str) -> Self {
        let hash = rapidhash::v3::rapidhash_v3(format!("{job}\0{source}").as_bytes());
        let shown = job.chars().filter(char::is_ascii_alphanumeric);
        let shown: String = shown
            .map(|it| it.to_ascii_lowercase())
            .take(SHOWN_BYTES)
            .collect();
        Self {
            name: format!("onceflow_{shown}_{hash:016x}"),
        }
    }

    /// Publishes the table, if that was not done yet.
    async fn publish(&self, client: &Client, table: &Table) -> Result<(), Problem> {
        let known = "SELECT p.puballtables OR EXISTS (SELECT 1 FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = $2), \
             p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate FROM pg_publication p WHERE p.pubname = $1";
        match client.query_opt(known, &[&self.name, &table.oid]).await? {
            Some(row) if row.get(0) && row.get(1) => Ok(()),
            Some(_) => Err(Problem::refused(format!(
                "the publication {} does not publish all that happens to {}: drop it, and it is made anew",
                self.name, table.name
            ))),
            None => {
                let publish = format!(
                    "CREATE PUBLICATION {} FOR TABLE ONLY {}",
                    quote(&self.name),
                    table.name
                );
                client.batch_execute(&publish).await?;
                Ok(())
            }
        }
    }

    /// Makes the slot of a job that has read nothing yet, with the number of its life.
    pub(super) async fn begin(
        &self,
        client: &Client,
        table: &Table,
        life: i64,
    ) -> Result<Place, Problem> {
        let level: String = client.query_one("SHOW wal_level", &[]).await?.get(0);
        if level != "logical" {
            return Err(Problem::refused(format!(
                "the server has wal_level = {level}: set wal_level = logical in postgresql.conf, and start it again"
            )));
        }
        client.batch_execute(CREATE).await?;
        let is_used = "SELECT is_used FROM onceflow_changes WHERE slot_name = $1";
        let is_used = client.query_opt(is_used, &[&self.name]).await?;
        let is_used = is_used.is_some_and(|row| row.get(0));
        let is_there = "SELECT 1 FROM pg_replication_slots WHERE slot_name = $1";
        let is_there = client.query_opt(is_there, &[&self.name]).await?.is_some();
        if is_there && is_used {
            return Err(Problem::refused(format!(
                "the replication slot {0} is that of a job of this name on another log, or of one whose log is gone: give the job or the source \
                 another name; or, if nobody reads it any more, SELECT pg_drop_replication_slot('{0}'), and start again",
                self.name
            )));
        }
        if is_there {
            // Its job was killed before it had committed anything.
            client
                .execute("SELECT pg_drop_replication_slot($1)", &[&self.name])
                .await?;
        }
        self.publish(client, table).await?;
        let note = "INSERT INTO onceflow_changes (slot_name, slot) VALUES ($1, $2) ON CONFLICT (slot_name) \
             DO UPDATE SET slot = excluded.slot, is_used = false, quiet_from = 0, quiet_to = 0";
        client.execute(note, &[&self.name, &life]).await?;
        let make = "SELECT (lsn - '0/0'::pg_lsn)::bigint FROM pg_create_logical_replication_slot($1, 'pgoutput')";
        let lsn: i64 = client.query_one(make, &[&self.name]).await?.get(0);
        Ok(Place {
            slot: life,
            lsn: number(lsn),
            ..Place::default()
        })
    }

    /// Looks whether the slot still has all that comes behind a place.
    pub(super) async fn check(&self, client: &Client, place: &Place) -> Result<(), Problem> {
        let lost = |why: &str| {
            Err(Problem::refused(format!(
                "{why}: changes behind the job's place are lost. Give the source another name (`named`): it copies the table again; or go back \
                 to a savepoint of the job and a backup of the database that belong together"
            )))
        };
        let slot = "SELECT (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint, coalesce(wal_status = 'lost', false) \
             FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database() AND plugin = 'pgoutput'";
        let Some(slot) = client.query_opt(slot, &[&self.name]).await? else {
            return lost(&format!("the replication slot {} is gone", self.name));
        };
        if slot.get(1) {
            return lost(&format!(
                "the server removed the log that the replication slot {} needs (max_slot_wal_keep_size)",
                self.name
            ));
        }
        let known = "SELECT slot, quiet_from, quiet_to FROM onceflow_changes WHERE slot_name = $1";
        let known = client.query_opt(known, &[&self.name]).await;
        let known = match known {
            Err(e) if e.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
            other => other?,
        };
        let Some(known) = known.filter(|row| row.get::<_, i64>(0) == place.slot) else {
            return lost(&format!(
                "the replication slot {} is another one than the job read",
                self.name
            ));
        };
        let confirmed = number(slot.get(0));
        let quiet = number(known.get(1))..=number(known.get(2));
        let is_quiet = quiet.contains(&place.lsn) && confirmed <= *quiet.end();
        match confirmed <= place.lsn || is_quiet {
            true => Ok(()),
            false => lost(&format!(
                "the replication slot {} stands behind the job's place",
                self.name
            )),
        }
    }

    /// Moves the slot.
    pub(super) async fn confirm(&self, client: &Client, to: Confirmed) -> Result<(), Problem> {
        let (from, end) = (to.committed.cast_signed(), to.quiet_to.cast_signed());
        if to.quiet_to > to.committed {
            let note = "UPDATE onceflow_changes SET is_used = is_used OR $2, quiet_from = $3, quiet_to = $4 WHERE slot_name = $1";
            client
                .execute(note, &[&self.name, &to.is_used, &from, &end])
                .await?;
        } else if to.is_used {
            // Of a row that says so already nothing is written.
            let note =
                "UPDATE onceflow_changes SET is_used = true WHERE slot_name = $1 AND NOT is_used";
            client.execute(note, &[&self.name]).await?;
        }
        let is_behind = "SELECT confirmed_flush_lsn < '0/0'::pg_lsn + $2::bigint::numeric FROM pg_replication_slots WHERE slot_name = $1";
        let is_behind = client.query_opt(is_behind, &[&self.name, &end]).await?;
        if is_behind.is_some_and(|row| row.get(0)) {
            let advance = "SELECT end_lsn::text FROM pg_replication_slot_advance($1, '0/0'::pg_lsn + $2::bigint::numeric)";
            client.query(advance, &[&self.name, &end]).await?;
        }
        Ok(())
    }
}

/// The end of the log that is on the server's disk.
pub(super) async fn end_of_log(client: &Client) -> Result<u64, Problem> {
    let end = "SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint";
    Ok(number(client.query_one(end, &[]).await?.get(0)))
}

/// The transactions that are over now, and the place in the log behind all of them.
pub(super) async fn snapshot(client: &Client) -> Result<(Snapshot, u64), Problem> {
    let now =
        "SELECT pg_current_snapshot()::text, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
    let row = client.query_one(now, &[]).await?;
    let snapshot = Snapshot::parse(row.get(0));
    let unknown = || {
        Problem::refused("pg_current_snapshot() says something else than PostgreSQL 14 to 18 do")
    };
    Ok((snapshot.ok_or_else(unknown)?, number(row.get(1))))
}

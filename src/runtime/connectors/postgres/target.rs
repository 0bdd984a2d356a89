//! The table that rows go to: the types of its columns, and the statements that write it.

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::row::{Column, END, HEADER};
use super::session::Problem;

/// The table of a session through which upserts go.
const PASSAGE: &str = "pg_temp.onceflow_rows";
/// In front of an upsert's columns in it.
const NUMBER: &str = "onceflow_number";
const DELETES: &str = "onceflow_deletes";

/// A column as the database knows it.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Type,
    pub(super) is_not_null: bool,
    /// Whether upserts find their row by it.
    pub(super) is_key: bool,
}

/// A table to be written, and how.
#[derive(Debug, Clone)]
pub(super) struct Target {
    table: String,
    pub(super) fields: Vec<Field>,
    /// The statements of upserts, for a table whose rows have keys.
    upsert: Option<Upsert>,
}

#[derive(Debug, Clone)]
struct Upsert {
    /// Makes the passage, once a session.
    create: String,
    delete: String,
    put: String,
}

/// A name as SQL has it, whatever is in it.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn quoted(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| quote(name)).collect();
    quoted.join(", ")
}

impl Target {
    pub(super) fn new<K: ?Sized, V: ?Sized>(
        table: &str,
        columns: &[Column<K, V>],
        keys: &[String],
    ) -> Self {
        let parts: Vec<String> = table.split('.').map(quote).collect();
        let table = parts.join(".");
        let fields: Vec<Field> = columns
            .iter()
            .map(|column| Field {
                name: column.name.clone(),
                kind: Type::UNKNOWN,
                is_not_null: false,
                is_key: keys.contains(&column.name),
            })
            .collect();
        let upsert = (!keys.is_empty()).then(|| Upsert::new(&table, &fields));
        Self {
            table,
            fields,
            upsert,
        }
    }

    fn columns(&self) -> String {
        let names: Vec<&str> = self.fields.iter().map(|field| &*field.name).collect();
        quoted(&names)
    }

    pub(super) fn has_keys(&self) -> bool {
        self.upsert.is_some()
    }

    /// Looks the columns up, and refuses what cannot work.
    pub(super) async fn inspect<K: ?Sized, V: ?Sized>(
        mut self,
        client: &Client,
        columns: &[Column<K, V>],
    ) -> Result<Self, Problem> {
        let select = format!("SELECT {} FROM {} LIMIT 0", self.columns(), self.table);
        let found = client.prepare(&select).await.map_err(|e| match Problem::from(e) {
            Problem::Refused(why) => Problem::refused(format!(
                "the table cannot be used: {why}. Names are taken as they are, so write them as the database shows them"
            )),
            other => other,
        })?;
        for ((field, column), found) in self.fields.iter_mut().zip(columns).zip(found.columns()) {
            let kind = found.type_();
            if !(column.accepts)(kind) {
                let rust_type = column.rust_type;
                return Err(Problem::refused(format!(
                    "the column {} has the type {kind}, to which values of Rust's {rust_type} do not go: convert them, or change the column",
                    field.name
                )));
            }
            field.kind = kind.clone();
        }
        let select = "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND attnotnull";
        for row in client.query(select, &[&self.table]).await? {
            let name: String = row.try_get(0)?;
            let mut fields = self.fields.iter_mut();
            if let Some(field) = fields.find(|field| field.name == name) {
                field.is_not_null = true;
            }
        }
        self.prepare(client).await?;
        if let Some(upsert) = &self.upsert {
            // The planner finds the index that decides what is a conflict.
            let planned = client
                .batch_execute(&format!("EXPLAIN {}", upsert.put))
                .await;
            planned.map_err(|e| match Problem::from(e) {
                Problem::Refused(why) => Problem::refused(format!(
                    "rows cannot be replaced by their key: {why}; give the table a primary key or a unique index on exactly the \
                     columns of `upsert_by`"
                )),
                other => other,
            })?;
        }
        Ok(self)
    }

    /// Makes a session ready to write the table.
    pub(super) async fn prepare(&self, client: &Client) -> Result<(), Problem> {
        if let Some(upsert) = &self.upsert {
            client.batch_execute(&upsert.create).await?;
        }
        Ok(())
    }

    /// Begins the transaction of a commit. One whose decision is known has time for locks; one before it gives way soon.
    pub(super) async fn begin(&self, client: &Client, is_decided: bool) -> Result<(), Problem> {
        let begin = match is_decided {
            true => "ROLLBACK; BEGIN",
            false => "BEGIN; SET LOCAL lock_timeout = '1s'",
        };
        Ok(client.batch_execute(begin).await?)
    }

    /// Copies rows to the table, or to the passage.
    pub(super) async fn copy(&self, client: &Client, rows: Vec<u8>) -> Result<(), Problem> {
        let columns = self.columns();
        let statement = match &self.upsert {
            None => format!("COPY {} ({columns}) FROM STDIN (FORMAT binary)", self.table),
            Some(_) => format!(
                "COPY {PASSAGE} ({NUMBER}, {DELETES}, {columns}) FROM STDIN (FORMAT binary)"
            ),
        };
        let sink = client.copy_in::<_, Bytes>(&statement).await?;
        let mut sink = std::pin::pin!(sink);
        sink.feed(Bytes::from_static(HEADER)).await?;
        sink.feed(Bytes::from(rows)).await?;
        sink.feed(Bytes::from_static(END)).await?;
        sink.as_mut().finish().await?;
        Ok(())
    }

    /// Brings what is in the passage to the table.
    pub(super) async fn merge(&self, client: &Client) -> Result<(), Problem> {
        if let Some(upsert) = &self.upsert {
            client.batch_execute(&upsert.delete).await?;
            client.batch_execute(&upsert.put).await?;
        }
        Ok(())
    }
}

impl Upsert {
    fn new(table: &str, fields: &[Field]) -> Self {
        let all: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
        let key_fields = fields.iter().filter(|field| field.is_key);
        let keys: Vec<&str> = key_fields.map(|field| &*field.name).collect();
        let (columns, by) = (quoted(&all), quoted(&keys));
        // The last row of each key, in the order of keys: two workers take their locks in one order.
        let last =
            format!("SELECT DISTINCT ON ({by}) * FROM {PASSAGE} ORDER BY {by}, {NUMBER} DESC");
        let same: Vec<String> = keys
            .iter()
            .map(|key| format!("target.{0} = last.{0}", quote(key)))
            .collect();
        let others = fields.iter().filter(|field| !field.is_key);
        let set: Vec<String> = others
            .map(|field| format!("{0} = EXCLUDED.{0}", quote(&field.name)))
            .collect();
        let update = match set.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", set.join(", ")),
        };
        Self {
            create: format!(
                "CREATE TEMP TABLE onceflow_rows ON COMMIT DELETE ROWS AS \
                 SELECT 0::bigint AS {NUMBER}, false AS {DELETES}, {columns} FROM {table} WITH NO DATA"
            ),
            delete: format!(
                "DELETE FROM {table} AS target USING ({last}) AS last WHERE last.{DELETES} AND {}",
                same.join(" AND ")
            ),
            put: format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM ({last}) AS last WHERE NOT last.{DELETES} \
                 ON CONFLICT ({by}) DO {update}"
            ),
        }
    }
}

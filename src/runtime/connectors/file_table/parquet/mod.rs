//! Apache Parquet: rows by columns, of which each is given by a function, so that the types of the columns are known before the first row.
//!
//! Rows wait by columns, up to a row group; then each column is encoded and compressed into the file, which is in memory until it ends.
//! `cells.rs` has the columns' values and the types that they may have.

mod cells;

use std::collections::BTreeSet;
use std::sync::Arc;

use ::parquet::basic::{Compression, ZstdLevel};
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::types::{Type, TypePtr};
use serde::Serialize;

pub use self::cells::ParquetValue;
use self::cells::{Cells, Form};
use super::format::{RowEncoder, RowFormat, refused};
use crate::codec::{CodecError, Datum};
use crate::runtime::Record;

/// A row group ends once its rows take so many bytes before they are encoded.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// The rows of a row group at most, as most writers have it.
const ROW_GROUP_ROWS_MAX: usize = 1 << 20;

/// Apache Parquet, with the feature `parquet`: columns by functions, as for a table of a database. Compressed with Zstandard.
///
/// A column's Rust type is its type in the file ([`ParquetValue`]): whole numbers of 8 to 64 bits with or without a sign, `f32`, `f64`,
/// `bool`, `String`, `Vec<u8>`, `serde_json::Value`, and [`Timestamp`](crate::types::Timestamp), which is a time in UTC; `Option` of one may
/// be null. There are no nested columns: a struct is a column for each field, and lists and maps go as JSON ([`json`](Self::json)).
///
/// A job whose columns have the same name, or no name, is refused at its start.
///
/// ```
/// use onceflow::prelude::*;
/// use onceflow::runtime::file_table::{Parquet, file_table, published};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order { id: u64, customer: String, cents: Option<i64>, lines: Vec<String> }
///
/// # let place = tempfile::tempdir()?;
/// let directory = place.path().join("orders");
/// let columns = Parquet::new()
///     .column("id", |record: &Record<'_, _, Order>| record.value.id)
///     .text("customer", |order| &order.customer)
///     .column("cents", |record| record.value.cents)
///     .json("lines", |order| &order.lines)
///     .column("time", |record| record.meta.timestamp);
/// let job = Job::new("orders-to-parquet");
/// let lines = vec!["tea".to_owned()];
/// let orders = (1..=3).map(move |id| Order { id, customer: "Ada".to_owned(), cents: None, lines: lines.clone() });
/// job.source(values("orders", orders)).sink(file_table(&directory, columns));
/// let log = Log::embedded(place.path().join("data"))?;
/// let launch = job.exactly_once(Commit::every(std::time::Duration::from_millis(100)));
/// onceflow::client::wait(launch.workers(1).start(&log)?.finished())?;
///
/// assert_eq!(published(&directory)?.iter().map(|file| file.rows).sum::<u64>(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Parquet<K: ?Sized, V: ?Sized> {
    columns: Vec<Column<K, V>>,
}

type Push<K, V> = dyn Fn(&Record<'_, K, V>, &mut Cells) -> Result<(), CodecError> + Send + Sync;

/// A column: its name and form, and how it comes from records.
struct Column<K: ?Sized, V: ?Sized> {
    name: String,
    form: Form,
    is_optional: bool,
    push: Arc<Push<K, V>>,
}

impl<K: ?Sized, V: ?Sized> Clone for Column<K, V> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            form: self.form,
            is_optional: self.is_optional,
            push: Arc::clone(&self.push),
        }
    }
}

impl<K: ?Sized, V: ?Sized> Clone for Parquet<K, V> {
    fn clone(&self) -> Self {
        Self {
            columns: self.columns.clone(),
        }
    }
}

impl<K: ?Sized, V: ?Sized> Default for Parquet<K, V> {
    fn default() -> Self {
        Self {
            columns: Vec::new(),
        }
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> Parquet<K, V> {
    /// A format without columns yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with<T: ParquetValue>(
        mut self,
        name: &str,
        push: impl Fn(&Record<'_, K, V>, &mut Cells) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        let named = name.to_owned();
        self.columns.push(Column {
            name: name.to_owned(),
            form: T::FORM,
            is_optional: T::IS_OPTIONAL,
            push: Arc::new(move |record, cells| {
                let pushed = push(record, cells);
                pushed.map_err(|why| refused("Parquet", format!("the column {named}: {why}")))
            }),
        });
        self
    }

    /// Adds a column, whose values a function makes of records.
    #[must_use]
    pub fn column<T, F>(self, name: &str, value: F) -> Self
    where
        T: ParquetValue + 'static,
        F: Fn(&Record<'_, K, V>) -> T + Send + Sync + 'static,
    {
        self.with::<T>(name, move |record, cells| value(record).push(cells))
    }

    /// Adds a column of text that is borrowed from the record's value.
    #[must_use]
    pub fn text<F>(self, name: &str, value: F) -> Self
    where
        F: for<'a> Fn(&'a V) -> &'a str + Send + Sync + 'static,
    {
        self.with::<&str>(name, move |record, cells| value(record.value).push(cells))
    }

    /// Adds a column of JSON, for what has no column of its own: lists, maps, structs. What serde cannot write as JSON is a poison record.
    #[must_use]
    pub fn json<T, F>(self, name: &str, value: F) -> Self
    where
        T: Serialize + ?Sized + 'static,
        F: for<'a> Fn(&'a V) -> &'a T + Send + Sync + 'static,
    {
        self.with::<serde_json::Value>(name, move |record, cells| {
            let value = value(record.value);
            cells.bytes(|all| serde_json::to_writer(all, value).map_err(|e| e.to_string()))
        })
    }

    /// Adds a column with the record's key. A key that does not decode is a poison record.
    #[must_use]
    pub fn key(self, name: &str) -> Self
    where
        K: Datum,
        K::Owned: ParquetValue,
    {
        self.with::<K::Owned>(name, |record, cells| {
            let key = record.key.decode().map_err(|e| e.to_string())?;
            key.into_owned().push(cells)
        })
    }
}

fn unusable(why: impl std::fmt::Display) -> CodecError {
    CodecError::Schema {
        format: "Parquet",
        why: why.to_string(),
    }
}

/// The schema of files with these columns.
fn schema<K: ?Sized, V: ?Sized>(columns: &[Column<K, V>]) -> Result<TypePtr, CodecError> {
    if columns.is_empty() {
        return Err(unusable(
            "it has no columns: add them with `column`, `text`, `json` or `key`",
        ));
    }
    let mut names = BTreeSet::new();
    for Column { name, .. } in columns {
        if name.is_empty() {
            return Err(unusable("a column has no name"));
        }
        // Many who read the files do not tell `ID` from `id`.
        if !names.insert(name.to_lowercase()) {
            return Err(unusable(format!(
                "two columns are called {name}, in capital letters or not: give one another name"
            )));
        }
    }
    let fields = columns
        .iter()
        .map(|column| column.form.field(&column.name, column.is_optional));
    let fields = fields.collect::<Result<Vec<_>, _>>().map_err(unusable)?;
    let root = Type::group_type_builder("row").with_fields(fields).build();
    root.map(Arc::new).map_err(unusable)
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> RowFormat<K, V> for Parquet<K, V> {
    type Encoder = ParquetEncoder<K, V>;

    fn ending(&self) -> &'static str {
        "parquet"
    }

    fn check(&self) -> Result<(), CodecError> {
        schema(&self.columns).map(drop)
    }

    fn encoder(&self) -> ParquetEncoder<K, V> {
        let cells = |column: &Column<K, V>| Cells::new(column.form, column.is_optional);
        ParquetEncoder {
            cells: self.columns.iter().map(cells).collect(),
            columns: self.columns.clone(),
            rows: 0,
            rows_bytes: 0,
            file: None,
        }
    }
}

/// A file of Parquet that is being written.
pub struct ParquetEncoder<K: ?Sized, V: ?Sized> {
    columns: Vec<Column<K, V>>,
    /// The rows that are not in the file yet, by columns.
    cells: Vec<Cells>,
    /// The number of these rows, and the memory that they take, in bytes.
    rows: usize,
    rows_bytes: usize,
    /// The row groups that have ended.
    file: Option<SerializedFileWriter<Vec<u8>>>,
}

fn failed(why: ParquetError) -> CodecError {
    refused("Parquet", why)
}

impl<K: ?Sized, V: ?Sized> ParquetEncoder<K, V> {
    fn file(&mut self) -> Result<&mut SerializedFileWriter<Vec<u8>>, CodecError> {
        if self.file.is_none() {
            let properties = WriterProperties::builder()
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .build();
            let schema = schema(&self.columns)?;
            let file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties));
            self.file = Some(file.map_err(failed)?);
        }
        let Some(file) = &mut self.file else {
            unreachable!("it was begun above")
        };
        Ok(file)
    }

    /// Moves the rows into the file.
    fn end_row_group(&mut self) -> Result<(), CodecError> {
        let rows = std::mem::take(&mut self.rows);
        self.rows_bytes = 0;
        let mut cells = std::mem::take(&mut self.cells);
        let written = self.file().and_then(|file| {
            let mut group = file.next_row_group().map_err(failed)?;
            for cells in &mut cells {
                let column = group.next_column().map_err(failed)?;
                let mut column = column.ok_or_else(|| unusable("it lacks a column"))?;
                cells.write(rows, &mut column).map_err(failed)?;
                column.close().map_err(failed)?;
            }
            group.close().map(drop).map_err(failed)
        });
        self.cells = cells;
        written
    }
}

impl<K: ?Sized, V: ?Sized> RowEncoder<K, V> for ParquetEncoder<K, V> {
    fn write(&mut self, record: Record<'_, K, V>) -> Result<(), CodecError> {
        for (column, cells) in self.columns.iter().zip(&mut self.cells) {
            if let Err(e) = (column.push)(&record, cells) {
                let rows = self.rows;
                self.cells.iter_mut().for_each(|cells| cells.truncate(rows));
                return Err(e);
            }
        }
        self.rows += 1;
        self.rows_bytes = self.cells.iter().map(Cells::size_bytes).sum();
        match self.rows_bytes >= ROW_GROUP_BYTES || self.rows == ROW_GROUP_ROWS_MAX {
            true => self.end_row_group(),
            false => Ok(()),
        }
    }

    fn size_bytes(&self) -> usize {
        let written = self
            .file
            .as_ref()
            .map_or(0, SerializedFileWriter::bytes_written);
        written + self.rows_bytes
    }

    fn finish(&mut self) -> Result<Vec<u8>, CodecError> {
        if self.rows > 0 {
            self.end_row_group()?;
        }
        self.file()?;
        let Some(file) = self.file.take() else {
            unreachable!("it was begun above")
        };
        file.into_inner().map_err(failed)
    }
}

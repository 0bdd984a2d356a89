//! Rows as the bytes of `COPY … (FORMAT binary)`: a record's columns, each by the function that the user gave.
//!
//! ```text
//! payload  rows without the header and the end of a COPY
//! row      fields: i16 │ field …            field    length: i32 (−1: null) │ bytes
//! ```
//! Numbers are big-endian. In front of an upsert's columns stand the row's number (int8) and whether it deletes (bool).

use std::error::Error;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type};

use super::target::Field;
use crate::codec::Datum;
use crate::runtime::Record;

/// The beginning of every COPY: its signature, flags, and the length of an extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The end of every COPY.
pub(super) const END: &[u8] = &[0xff, 0xff];

type Written = Result<IsNull, Box<dyn Error + Sync + Send>>;
type Write<K, V> = dyn Fn(&Record<'_, K, V>, &Type, &mut BytesMut) -> Written + Send + Sync;

/// A column: its name, and how it comes from records.
pub(super) struct Column<K: ?Sized, V: ?Sized> {
    pub(super) name: String,
    /// The Rust type, in words.
    pub(super) rust_type: &'static str,
    pub(super) accepts: fn(&Type) -> bool,
    write: Arc<Write<K, V>>,
}

impl<K: ?Sized, V: ?Sized> Clone for Column<K, V> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            rust_type: self.rust_type,
            accepts: self.accepts,
            write: Arc::clone(&self.write),
        }
    }
}

impl<K: ?Sized + 'static, V: ?Sized + 'static> Column<K, V> {
    pub(super) fn of_values<T, F>(name: &str, value: F) -> Self
    where
        T: ToSql,
        F: Fn(&Record<'_, K, V>) -> T + Send + Sync + 'static,
    {
        Self {
            name: name.to_owned(),
            rust_type: std::any::type_name::<T>(),
            accepts: T::accepts,
            write: Arc::new(move |record, kind, out| value(record).to_sql(kind, out)),
        }
    }

    pub(super) fn of_text<F>(name: &str, value: F) -> Self
    where
        F: for<'a> Fn(&'a V) -> &'a str + Send + Sync + 'static,
    {
        Self {
            name: name.to_owned(),
            rust_type: "text",
            accepts: <&str as ToSql>::accepts,
            write: Arc::new(move |record, kind, out| value(record.value).to_sql(kind, out)),
        }
    }

    pub(super) fn of_key(name: &str) -> Self
    where
        K: Datum,
        K::Owned: ToSql,
    {
        Self {
            name: name.to_owned(),
            rust_type: std::any::type_name::<K::Owned>(),
            accepts: K::Owned::accepts,
            write: Arc::new(|record, kind, out| {
                record.key.decode()?.into_owned().to_sql(kind, out)
            }),
        }
    }
}

/// The operation that a row stands for in a table whose rows have keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Put,
    Delete,
}

/// Rows on their way to the table.
#[derive(Debug, Default)]
pub(super) struct Rows {
    bytes: BytesMut,
    /// The number of the next row in the cycle.
    next: i64,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the rows away, to be written.
    pub(super) fn take(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    /// Begins to number the rows of another cycle.
    pub(super) fn begin_cycle(&mut self) {
        self.next = 0;
    }

    /// Appends a record as a row, or leaves everything as it was and says why not.
    pub(super) fn push<K: ?Sized, V: ?Sized>(
        &mut self,
        columns: &[Column<K, V>],
        fields: &[Field],
        operation: Option<Operation>,
        record: &Record<'_, K, V>,
    ) -> Result<(), String> {
        let start = self.bytes.len();
        let pushed = self.push_fields(columns, fields, operation, record);
        match pushed {
            Ok(()) => self.next += 1,
            Err(_) => self.bytes.truncate(start),
        }
        pushed
    }

    fn push_fields<K: ?Sized, V: ?Sized>(
        &mut self,
        columns: &[Column<K, V>],
        fields: &[Field],
        operation: Option<Operation>,
        record: &Record<'_, K, V>,
    ) -> Result<(), String> {
        let extra = if operation.is_some() { 2 } else { 0 };
        let count = i16::try_from(fields.len() + extra)
            .map_err(|_| "a table has at most 1,600 columns".to_owned())?;
        self.bytes.put_i16(count);
        if let Some(operation) = operation {
            self.bytes.put_i32(8);
            self.bytes.put_i64(self.next);
            self.bytes.put_i32(1);
            self.bytes.put_u8(u8::from(operation == Operation::Delete));
        }
        for (column, field) in columns.iter().zip(fields) {
            // Of a row that is deleted, nothing but its key is known.
            if operation == Some(Operation::Delete) && !field.is_key {
                self.bytes.put_i32(-1);
                continue;
            }
            let length_at = self.bytes.len();
            self.bytes.put_i32(-1);
            let begin = self.bytes.len();
            let written = (column.write)(record, &field.kind, &mut self.bytes);
            match written.map_err(|e| format!("the column {}: {e}", column.name))? {
                IsNull::Yes if field.is_not_null => {
                    return Err(format!("the column {} may not be null", column.name));
                }
                IsNull::Yes => {}
                IsNull::No => {
                    let length = i32::try_from(self.bytes.len() - begin)
                        .map_err(|_| format!("the column {}: more than 2 GiB", column.name))?;
                    self.bytes[length_at..begin].copy_from_slice(&length.to_be_bytes());
                }
            }
        }
        Ok(())
    }
}

//! Encoding of rows as a data file: JSON lines, CSV, or a user's own format.

use serde::Serialize;

use crate::codec::CodecError;
use crate::runtime::Record;

/// A format of data files.
pub trait RowFormat<K: ?Sized, V: ?Sized>: Clone + Send + Sync + 'static {
    /// The encoder of a worker's files.
    type Encoder: RowEncoder<K, V> + 'static;

    /// The end of the files' names, such as `csv`.
    fn ending(&self) -> &'static str;

    /// Looks whether files of this format can be written at all. The job asks at its start.
    ///
    /// # Errors
    /// If not, with what to do.
    fn check(&self) -> Result<(), CodecError> {
        Ok(())
    }

    /// Makes an encoder.
    fn encoder(&self) -> Self::Encoder;
}

/// Rows of the data file that is being written.
pub trait RowEncoder<K: ?Sized, V: ?Sized> {
    /// Adds a record.
    ///
    /// # Errors
    /// If the record has no form in this format: then it is a poison record, and must leave nothing.
    fn write(&mut self, record: Record<'_, K, V>) -> Result<(), CodecError>;

    /// The bytes of the file so far, as far as they are known.
    fn size_bytes(&self) -> usize;

    /// Ends the file and gives its bytes; what comes then is in another one.
    ///
    /// # Errors
    /// If the file cannot be ended.
    fn finish(&mut self) -> Result<Vec<u8>, CodecError>;
}

/// A JSON value a line, by serde; the key is not in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonLines;

/// Lines of JSON.
#[derive(Debug, Default)]
pub struct JsonEncoder(Vec<u8>);

impl<K: ?Sized, V: Serialize + ?Sized> RowFormat<K, V> for JsonLines {
    type Encoder = JsonEncoder;

    fn ending(&self) -> &'static str {
        "jsonl"
    }

    fn encoder(&self) -> JsonEncoder {
        JsonEncoder::default()
    }
}

impl<K: ?Sized, V: Serialize + ?Sized> RowEncoder<K, V> for JsonEncoder {
    fn write(&mut self, record: Record<'_, K, V>) -> Result<(), CodecError> {
        let start = self.0.len();
        if let Err(e) = serde_json::to_writer(&mut self.0, record.value) {
            self.0.truncate(start);
            return Err(refused("JSON lines", e));
        }
        self.0.push(b'\n');
        Ok(())
    }

    fn size_bytes(&self) -> usize {
        self.0.len()
    }

    fn finish(&mut self) -> Result<Vec<u8>, CodecError> {
        Ok(std::mem::take(&mut self.0))
    }
}

/// Comma-separated values (RFC 4180) with a line of names in front, by serde: a struct's fields are the columns. Fields that are
/// structs or lists have no form in it. The key is not in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Csv;

/// Lines of comma-separated values.
pub struct CsvEncoder {
    lines: csv::Writer<Vec<u8>>,
    size_bytes: usize,
}

fn writer(lines: Vec<u8>) -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new()
        .has_headers(lines.is_empty())
        .from_writer(lines)
}

impl CsvEncoder {
    /// Takes the lines out of the writer, those of whole rows.
    fn take(&mut self) -> Result<Vec<u8>, CodecError> {
        let lines = std::mem::replace(&mut self.lines, writer(Vec::new()));
        let mut lines = lines
            .into_inner()
            .map_err(|e| refused("CSV", e.into_error()))?;
        lines.truncate(self.size_bytes);
        Ok(lines)
    }
}

impl<K: ?Sized, V: Serialize> RowFormat<K, V> for Csv {
    type Encoder = CsvEncoder;

    fn ending(&self) -> &'static str {
        "csv"
    }

    fn encoder(&self) -> CsvEncoder {
        CsvEncoder {
            lines: writer(Vec::new()),
            size_bytes: 0,
        }
    }
}

impl<K: ?Sized, V: Serialize> RowEncoder<K, V> for CsvEncoder {
    fn write(&mut self, record: Record<'_, K, V>) -> Result<(), CodecError> {
        let written = self.lines.serialize(record.value);
        let flushed = written
            .map_err(|e| refused("CSV", e))
            .and_then(|()| self.lines.flush().map_err(|e| refused("CSV", e)));
        if flushed.is_err() {
            // The start of a row is in the writer, and would go on as part of the next one.
            let lines = self.take()?;
            self.lines = writer(lines);
        } else {
            self.size_bytes = self.lines.get_ref().len();
        }
        flushed
    }

    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn finish(&mut self) -> Result<Vec<u8>, CodecError> {
        let lines = self.take()?;
        self.size_bytes = 0;
        Ok(lines)
    }
}

pub(super) fn refused(codec: &'static str, why: impl std::fmt::Display) -> CodecError {
    CodecError::Encode {
        codec,
        why: why.to_string(),
    }
}

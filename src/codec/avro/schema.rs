//! [`AvroSchema`]: a schema, and values written and read by it.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::Plan;
use super::transcode::{carry, check};
use super::{Fingerprint, NAME};
use crate::codec::CodecError;

/// A buffer larger than this is not kept for the next record.
const SCRATCH_KEPT_BYTES: usize = 1024 * 1024;

thread_local! {
    /// The record that is carried from its writer's schema to the reader's.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A schema of Avro.
#[derive(Clone)]
pub struct AvroSchema(&'static Parsed);

/// A schema as it is used. The crate's readers and writers borrow theirs, so each text is kept once, for as long as the process lives; a
/// program has a handful of them, and those of other writers are not among them.
struct Parsed {
    text: String,
    schema: &'static Schema,
    reader: GenericDatumReader<'static>,
    writer: GenericDatumWriter<'static>,
}

/// The way in which values of a writer's schema are read.
#[derive(Debug, Clone)]
pub struct AvroReading(Arc<Plan>);

impl fmt::Debug for AvroSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AvroSchema").field(&self.0.text).finish()
    }
}

fn refuse(why: impl fmt::Display) -> CodecError {
    CodecError::Schema {
        format: NAME,
        why: why.to_string(),
    }
}

impl AvroSchema {
    /// The schema of this text, which is JSON.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if it is none, or refers to types that it does not have.
    pub fn new(text: &str) -> Result<Self, CodecError> {
        static ALL: OnceLock<Mutex<HashMap<String, &'static Parsed>>> = OnceLock::new();
        let mut all = ALL.get_or_init(Mutex::default).lock();
        if let Some(parsed) = all.get(text) {
            return Ok(Self(parsed));
        }
        let schema = Schema::parse_str(text).map_err(refuse)?;
        // The plan of a schema with itself finds types that it names and does not have.
        Plan::new(&schema, &schema).map_err(refuse)?;
        let schema: &'static Schema = Box::leak(Box::new(schema));
        let reader = GenericDatumReader::builder(schema).human_readable(false);
        let writer = GenericDatumWriter::builder(schema).human_readable(false);
        let parsed: &'static Parsed = Box::leak(Box::new(Parsed {
            text: text.to_owned(),
            schema,
            reader: reader.build().map_err(refuse)?,
            writer: writer.build().map_err(refuse)?,
        }));
        all.insert(text.to_owned(), parsed);
        Ok(Self(parsed))
    }

    /// The schema as it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0.text
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let fingerprint = self.0.schema.fingerprint::<Rabin>();
        let bytes = fingerprint.bytes.as_slice();
        bytes.try_into().unwrap_or_default()
    }

    /// The way to read values that were written with `writer`.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if that is no schema, or its values cannot be those of this one: the message says where.
    pub(crate) fn reading_of(&self, writer: &str) -> Result<AvroReading, CodecError> {
        let writer = Schema::parse_str(writer)
            .map_err(|e| refuse(format_args!("the writer's cannot be read: {e}")))?;
        let plan = Plan::new(&writer, self.0.schema);
        let plan = plan
            .map_err(|why| refuse(format_args!("it cannot take what the writer writes: {why}")))?;
        Ok(AvroReading(Arc::new(plan)))
    }

    /// Appends a value.
    pub(crate) fn encode<T: Serialize>(
        &self,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        let written = self.0.writer.write_ser(out, value);
        written.map(drop).map_err(|e| CodecError::Encode {
            codec: NAME,
            why: e.to_string(),
        })
    }

    /// Reads a value that takes up all of `bytes`.
    pub(crate) fn decode<T: DeserializeOwned>(
        &self,
        reading: &AvroReading,
        bytes: &[u8],
    ) -> Result<T, CodecError> {
        let refuse = |why: String| CodecError::Decode {
            codec: NAME,
            length_bytes: bytes.len(),
            why,
        };
        let plan = &reading.0;
        if plan.is_identity {
            check(plan, bytes).map_err(|why| refuse(why.0))?;
            return self.read(bytes).map_err(refuse);
        }
        let mut scratch = SCRATCH.take();
        scratch.clear();
        let carried = carry(plan, bytes, &mut scratch).map_err(|why| refuse(why.0));
        let value = carried.and_then(|()| self.read(&scratch).map_err(refuse));
        if scratch.capacity() <= SCRATCH_KEPT_BYTES {
            SCRATCH.set(scratch);
        }
        value
    }

    /// Reads a value of this schema whose bytes are checked.
    fn read<T: DeserializeOwned>(&self, mut bytes: &[u8]) -> Result<T, String> {
        let value = self.0.reader.read_deser(&mut bytes);
        let value = value.map_err(|e| format!("the Rust type does not fit the schema: {e}"))?;
        match bytes.len() {
            0 => Ok(value),
            left => Err(format!(
                "the Rust type leaves {left} bytes of the schema's value"
            )),
        }
    }
}

//! Avro, by `apache-avro`; the resolution of schemas is ours.
//!
//! The crate reads schemas, and values of serde types by a schema. It resolves a writer's schema against a reader's in a way that is not
//! the specification's (no aliases; torn text and booleans are null), and believes lengths. So bytes are first carried from the
//! writer's schema to the reader's by a [`Plan`](plan::Plan), each length checked, and only then given to the crate.
//!
//! Reading order: `plan.rs` (two schemas), `transcode.rs` (a record), `defaults.rs`, `varint.rs`.

mod defaults;
mod plan;
mod schema;
mod transcode;
mod varint;

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use schema::{AvroReading, AvroSchema};

use super::{Codec, CodecError, CodecId};

/// Avro's name in errors.
pub(super) const NAME: &str = "Avro";
/// The first bytes of a value in Avro's single-object encoding.
const MARK: [u8; 2] = [0xc3, 0x01];
/// The mark, and behind it the fingerprint of the writer's schema.
const HEADER_BYTES: usize = MARK.len() + 8;

/// Avro's CRC-64 of a schema in its canonical form.
type Fingerprint = [u8; 8];

/// Avro without a schema registry, as [single-object encoding](https://avro.apache.org/docs/1.12.0/specification/#single-object-encoding):
/// each value names its writer's schema by fingerprint. Values of the schemas that are given to [`reads`](Self::reads) are read, too, as
/// values of this one. With a registry, use the feature `registry`.
///
/// A Rust struct has the name of its record (or `#[serde(rename = "…")]` says that name), its fields the names of the record's fields, and
/// `Option` is a union with `null`. Avro has no unsigned long: use `i64`.
///
/// ```
/// use onceflow::codec::{Avro, Codec};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// struct Order { id: i64, note: Option<String> }
///
/// let first = r#"{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "int"}]}"#;
/// let now = r#"{"type": "record", "name": "Order", "fields": [
///     {"name": "id", "type": "long"},
///     {"name": "note", "type": ["null", "string"], "default": null}]}"#;
/// let codec = Avro::new(now)?.reads(first)?;
///
/// let mut bytes = Vec::new();
/// codec.encode(&Order { id: 7, note: None }, &mut bytes)?;
/// let back: std::borrow::Cow<'_, Order> = codec.decode(&bytes)?;
/// assert_eq!(*back, Order { id: 7, note: None });
/// # Ok::<(), onceflow::codec::CodecError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Avro {
    schema: AvroSchema,
    header: [u8; HEADER_BYTES],
    /// The schemas whose values are read.
    known: Arc<Vec<(Fingerprint, AvroReading)>>,
}

impl Avro {
    /// Values of the schema, which is JSON.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if it is no schema.
    pub fn new(schema: &str) -> Result<Self, CodecError> {
        let schema = AvroSchema::new(schema)?;
        let fingerprint = schema.fingerprint();
        let reading = schema.reading_of(schema.text())?;
        let mut header = [0; HEADER_BYTES];
        header[..MARK.len()].copy_from_slice(&MARK);
        header[MARK.len()..].copy_from_slice(&fingerprint);
        Ok(Self {
            schema,
            header,
            known: Arc::new(vec![(fingerprint, reading)]),
        })
    }

    /// Reads values of another schema, too: as values of its own, by Avro's rules of schema resolution.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if it is no schema, or its values cannot be those of this one.
    pub fn reads(self, schema: &str) -> Result<Self, CodecError> {
        let other = AvroSchema::new(schema)?;
        let reading = self.schema.reading_of(schema)?;
        let mut known = Arc::unwrap_or_clone(self.known);
        known.push((other.fingerprint(), reading));
        Ok(Self {
            known: Arc::new(known),
            ..self
        })
    }

    fn refuse(bytes: &[u8], why: String) -> CodecError {
        CodecError::Decode {
            codec: NAME,
            length_bytes: bytes.len(),
            why,
        }
    }
}

impl<T: Serialize + DeserializeOwned + Clone> Codec<T> for Avro {
    fn id(&self) -> CodecId {
        CodecId(6)
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(&self.header);
        self.schema.encode(value, out)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        let header = bytes.split_at_checked(HEADER_BYTES);
        let Some((header, datum)) = header.filter(|(header, _)| header.starts_with(&MARK)) else {
            let why = "it does not begin with C3 01 and a fingerprint; a value of a schema registry begins with 00 and is read with the \
                       registry's codec";
            return Err(Self::refuse(bytes, why.to_owned()));
        };
        let fingerprint = &header[MARK.len()..];
        let mut known = self.known.iter();
        let Some((_, reading)) = known.find(|(known, _)| known == fingerprint) else {
            let digits: String = fingerprint.iter().map(|it| format!("{it:02x}")).collect();
            let why = format!(
                "its schema has the fingerprint {digits}, which no schema given to `reads` has"
            );
            return Err(Self::refuse(bytes, why));
        };
        self.schema.decode(reading, datum).map(Cow::Owned)
    }
}

/// Avro without anything in front of a value: whoever reads must know the schema that it was written with. Bytes that were written with
/// another schema are misread without a sign wherever they happen to fit; prefer [`Avro`], or a registry.
#[derive(Debug, Clone)]
pub struct BareAvro {
    schema: AvroSchema,
    reading: AvroReading,
}

impl BareAvro {
    /// Values of the schema, which is JSON.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if it is no schema.
    pub fn new(schema: &str) -> Result<Self, CodecError> {
        let schema = AvroSchema::new(schema)?;
        let reading = schema.reading_of(schema.text())?;
        Ok(Self { schema, reading })
    }

    /// Reads bytes that were all written with `schema`. It still writes with its own.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if it is no schema, or its values cannot be those of this one.
    pub fn written_with(self, schema: &str) -> Result<Self, CodecError> {
        let reading = self.schema.reading_of(schema)?;
        Ok(Self { reading, ..self })
    }
}

impl<T: Serialize + DeserializeOwned + Clone> Codec<T> for BareAvro {
    fn id(&self) -> CodecId {
        CodecId(7)
    }

    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.schema.encode(value, out)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        self.schema.decode(&self.reading, bytes).map(Cow::Owned)
    }
}

#[cfg(test)]
mod tests;

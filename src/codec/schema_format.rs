//! [`SchemaFormat`]: a format whose schemas a registry keeps.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CodecError;

/// A format with a schema of its own, by which it reads what was written with other schemas. The crate's are `AvroSchema` (feature `avro`),
/// `ProtobufSchema` (feature `protobuf`) and [`JsonSchema`].
pub trait SchemaFormat: Clone + Send + Sync + 'static {
    /// The way in which values of one writer's schema are read.
    type Reading: Send + Sync + 'static;

    /// The format's name at a registry: `AVRO`, `PROTOBUF` or `JSON`.
    const SCHEMA_TYPE: &'static str;

    /// The schema that values are written with.
    fn schema(&self) -> &str;

    /// The way to read values of another writer.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if that is no schema, or its values cannot be read by this one.
    fn reading(&self, writer: &str) -> Result<Self::Reading, CodecError>;
}

/// A format that has values of `T`. What stands in front of a value is not its business.
pub trait SchemaCodec<T>: SchemaFormat {
    /// Appends a value in its own schema.
    ///
    /// # Errors
    /// If the value has no form in it.
    fn encode_value(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>;

    /// Reads a value that takes up all of `bytes`.
    ///
    /// # Errors
    /// If the bytes are not exactly one value.
    fn decode_value(&self, reading: &Self::Reading, bytes: &[u8]) -> Result<T, CodecError>;
}

/// JSON whose schema, a JSON Schema, is at a registry. The registry checks that versions go together; values are not compared with it, but
/// read as the Rust type by serde: a field that is absent needs `#[serde(default)]`.
#[derive(Debug, Clone)]
pub struct JsonSchema {
    text: std::sync::Arc<str>,
}

impl JsonSchema {
    /// The JSON Schema of this text.
    ///
    /// # Errors
    /// [`CodecError::Schema`] if it is no JSON.
    pub fn new(text: &str) -> Result<Self, CodecError> {
        let schema = Self { text: text.into() };
        schema.reading(text)?;
        Ok(schema)
    }
}

impl SchemaFormat for JsonSchema {
    type Reading = ();

    const SCHEMA_TYPE: &'static str = "JSON";

    fn schema(&self) -> &str {
        &self.text
    }

    fn reading(&self, writer: &str) -> Result<(), CodecError> {
        let read = serde_json::from_str::<serde::de::IgnoredAny>(writer);
        read.map(drop).map_err(|e| CodecError::Schema {
            format: "JSON",
            why: e.to_string(),
        })
    }
}

impl<T: Serialize + DeserializeOwned> SchemaCodec<T> for JsonSchema {
    fn encode_value(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        serde_json::to_writer(out, value).map_err(|e| CodecError::Encode {
            codec: "JSON",
            why: e.to_string(),
        })
    }

    fn decode_value(&self, (): &(), bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(|e| CodecError::Decode {
            codec: "JSON",
            length_bytes: bytes.len(),
            why: e.to_string(),
        })
    }
}

#[cfg(feature = "avro")]
mod avro {
    use super::{CodecError, DeserializeOwned, SchemaCodec, SchemaFormat, Serialize};
    use crate::codec::avro::{AvroReading, AvroSchema};

    impl SchemaFormat for AvroSchema {
        type Reading = AvroReading;

        const SCHEMA_TYPE: &'static str = "AVRO";

        fn schema(&self) -> &str {
            self.text()
        }

        fn reading(&self, writer: &str) -> Result<AvroReading, CodecError> {
            self.reading_of(writer)
        }
    }

    impl<T: Serialize + DeserializeOwned> SchemaCodec<T> for AvroSchema {
        fn encode_value(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
            self.encode(value, out)
        }

        fn decode_value(&self, reading: &AvroReading, bytes: &[u8]) -> Result<T, CodecError> {
            self.decode(reading, bytes)
        }
    }
}

#[cfg(feature = "protobuf")]
mod protobuf {
    use super::{CodecError, SchemaCodec, SchemaFormat};
    use crate::codec::protobuf::{ProtobufReading, ProtobufSchema};

    impl SchemaFormat for ProtobufSchema {
        type Reading = ProtobufReading;

        const SCHEMA_TYPE: &'static str = "PROTOBUF";

        fn schema(&self) -> &str {
            self.text()
        }

        fn reading(&self, writer: &str) -> Result<ProtobufReading, CodecError> {
            self.reading_of(writer)
        }
    }

    impl<T: prost::Message + Default> SchemaCodec<T> for ProtobufSchema {
        fn encode_value(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
            self.encode(value, out)
        }

        fn decode_value(&self, reading: &ProtobufReading, bytes: &[u8]) -> Result<T, CodecError> {
            self.decode(reading, bytes)
        }
    }
}

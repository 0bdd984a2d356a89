//! The default of a field, which a schema has as JSON, as the bytes that its schema writes.

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, NamesRef, UuidSchema};
use serde_json::Value;

use super::plan::{deref, in_words};
use super::varint::{put_length, put_long};

/// Appends the bytes of a default. That of a union is of its first branch; one of a branch behind it is taken, too, as newer versions of
/// the specification do.
///
/// # Errors
/// If it is no value of the schema.
pub(super) fn encode_default(
    schema: &Schema,
    names: &NamesRef<'_>,
    default: &Value,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let schema = deref(schema, names)?;
    let refuse = || format!("{default} is no {}", in_words(schema));
    match schema {
        Schema::Null => default.as_null().ok_or_else(refuse)?,
        Schema::Boolean => out.push(u8::from(default.as_bool().ok_or_else(refuse)?)),
        Schema::Int | Schema::Date | Schema::TimeMillis => {
            let number = default.as_i64().ok_or_else(refuse)?;
            put_long(i32::try_from(number).map_err(|_| refuse())?.into(), out);
        }
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => put_long(default.as_i64().ok_or_else(refuse)?, out),
        Schema::Float => {
            let number = default.as_f64().ok_or_else(refuse)?;
            #[allow(clippy::cast_possible_truncation, reason = "the nearest one is meant")]
            out.extend_from_slice(&(number as f32).to_le_bytes());
        }
        Schema::Double => {
            let number = default.as_f64().ok_or_else(refuse)?;
            out.extend_from_slice(&number.to_le_bytes());
        }
        Schema::String | Schema::Uuid(UuidSchema::String) => {
            let text = default.as_str().ok_or_else(refuse)?;
            put_length(text.len(), out);
            out.extend_from_slice(text.as_bytes());
        }
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => {
            let bytes = bytes_of(default).ok_or_else(refuse)?;
            put_length(bytes.len(), out);
            out.extend_from_slice(&bytes);
        }
        Schema::Decimal(decimal) => {
            let bytes = bytes_of(default).ok_or_else(refuse)?;
            match &decimal.inner {
                InnerDecimalSchema::Bytes => put_length(bytes.len(), out),
                InnerDecimalSchema::Fixed(fixed) if fixed.size == bytes.len() => {}
                InnerDecimalSchema::Fixed(_) => return Err(refuse()),
            }
            out.extend_from_slice(&bytes);
        }
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            let bytes = bytes_of(default).filter(|bytes| bytes.len() == fixed.size);
            out.extend_from_slice(&bytes.ok_or_else(refuse)?);
        }
        Schema::Enum(symbols) => {
            let symbol = default.as_str().ok_or_else(refuse)?;
            let place = symbols.symbols.iter().position(|it| it == symbol);
            put_length(place.ok_or_else(refuse)?, out);
        }
        _ => return encode_nested(schema, names, default, out),
    }
    Ok(())
}

/// A default that has parts.
fn encode_nested(
    schema: &Schema,
    names: &NamesRef<'_>,
    default: &Value,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let refuse = || format!("{default} is no {}", in_words(schema));
    match schema {
        Schema::Array(array) => {
            let items = default.as_array().ok_or_else(refuse)?;
            if !items.is_empty() {
                put_length(items.len(), out);
            }
            for item in items {
                encode_default(&array.items, names, item, out)?;
            }
            out.push(0);
        }
        Schema::Map(map) => {
            let items = default.as_object().ok_or_else(refuse)?;
            if !items.is_empty() {
                put_length(items.len(), out);
            }
            for (key, item) in items {
                put_length(key.len(), out);
                out.extend_from_slice(key.as_bytes());
                encode_default(&map.types, names, item, out)?;
            }
            out.push(0);
        }
        Schema::Record(record) => {
            let fields = default.as_object().ok_or_else(refuse)?;
            for field in &record.fields {
                let value = fields.get(&field.name).or(field.default.as_ref());
                let value =
                    value.ok_or_else(|| format!("{default} has no field {}", field.name))?;
                encode_default(&field.schema, names, value, out)?;
            }
        }
        Schema::Union(union) => {
            for (place, branch) in union.variants().iter().enumerate() {
                let before = out.len();
                put_length(place, out);
                if encode_default(branch, names, default, out).is_ok() {
                    return Ok(());
                }
                out.truncate(before);
            }
            return Err(refuse());
        }
        _ => return Err(refuse()),
    }
    Ok(())
}

/// The bytes of a default: text whose characters stand for a byte each.
fn bytes_of(default: &Value) -> Option<Vec<u8>> {
    let chars = default.as_str()?.chars();
    chars.map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

//! Forms of each type's values in a message.
//!
//! ```text
//!                 plain version                    flexible version
//! number, bool    big-endian                       the same
//! text            length(2), −1 = null | UTF-8     varint(length + 1), 0 = null | UTF-8
//! bytes           length(4), −1 = null | bytes     varint(length + 1), 0 = null | bytes
//! array           count(4), −1 = null | elements   varint(count + 1), 0 = null | elements
//! struct          its fields                       its fields | tagged fields
//! null or struct  −1(1) or 1(1) | struct           the same
//! UUID            16 bytes                         the same
//! ```

use bytes::Bytes;

use super::schema::Version;
use super::{Reader, WireError, Writer};
use crate::types::TopicId;

/// A value that stands in a message.
pub(in crate::protocol::wire) trait Field: Sized {
    fn decode_field(reader: &mut Reader, version: Version) -> Result<Self, WireError>;

    fn encode_field(&self, writer: &mut Writer, version: Version) -> Result<(), WireError>;
}

/// A value that may also be null.
pub(in crate::protocol::wire) trait Nullable: Field + Default {
    fn decode_nullable(reader: &mut Reader, version: Version) -> Result<Option<Self>, WireError>;

    fn encode_nullable(
        value: Option<&Self>,
        writer: &mut Writer,
        version: Version,
    ) -> Result<(), WireError>;
}

impl<T: Nullable> Field for Option<T> {
    fn decode_field(reader: &mut Reader, version: Version) -> Result<Self, WireError> {
        T::decode_nullable(reader, version)
    }

    fn encode_field(&self, writer: &mut Writer, version: Version) -> Result<(), WireError> {
        T::encode_nullable(self.as_ref(), writer, version)
    }
}

/// Writes null as empty, in versions that don't know null.
pub(in crate::protocol::wire) trait WithoutNull {
    fn encode_without_null(&self, writer: &mut Writer, version: Version) -> Result<(), WireError>;
}

impl<T: Nullable> WithoutNull for Option<T> {
    fn encode_without_null(&self, writer: &mut Writer, version: Version) -> Result<(), WireError> {
        match self {
            Some(value) => value.encode_field(writer, version),
            None => T::default().encode_field(writer, version),
        }
    }
}

macro_rules! number_field {
    ($($type:ty),*) => { $(
        impl Field for $type {
            #[inline]
            fn decode_field(reader: &mut Reader, _: Version) -> Result<Self, WireError> {
                reader.array().map(Self::from_be_bytes)
            }

            #[inline]
            fn encode_field(&self, writer: &mut Writer, _: Version) -> Result<(), WireError> {
                writer.put(&self.to_be_bytes());
                Ok(())
            }
        }
    )* };
}

number_field!(i8, i16, u16, i32, i64, f64);

impl Field for bool {
    fn decode_field(reader: &mut Reader, _: Version) -> Result<Self, WireError> {
        let [byte] = reader.array()?;
        Ok(byte != 0)
    }

    fn encode_field(&self, writer: &mut Writer, _: Version) -> Result<(), WireError> {
        writer.put(&[u8::from(*self)]);
        Ok(())
    }
}

impl Field for TopicId {
    fn decode_field(reader: &mut Reader, _: Version) -> Result<Self, WireError> {
        reader.array().map(|bytes| Self(u128::from_be_bytes(bytes)))
    }

    fn encode_field(&self, writer: &mut Writer, _: Version) -> Result<(), WireError> {
        writer.put(&self.0.to_be_bytes());
        Ok(())
    }
}

/// Size of the lengths of plain versions.
#[derive(Clone, Copy)]
pub(super) enum LengthSize {
    Two,
    Four,
}

/// A length or count; `None` for null.
fn decode_length(
    reader: &mut Reader,
    version: Version,
    size: LengthSize,
) -> Result<Option<usize>, WireError> {
    let length = match (version.is_flexible, size) {
        (true, _) => i64::from(reader.varint()?) - 1,
        (false, LengthSize::Two) => i64::from(i16::from_be_bytes(reader.array()?)),
        (false, LengthSize::Four) => i64::from(i32::from_be_bytes(reader.array()?)),
    };
    match length {
        -1 => Ok(None),
        length => usize::try_from(length)
            .map(Some)
            .map_err(|_| WireError::BadLength { length }),
    }
}

pub(super) fn encode_length(
    writer: &mut Writer,
    version: Version,
    size: LengthSize,
    length: usize,
) -> Result<(), WireError> {
    let too_long = |_| WireError::TooLong { length };
    match (version.is_flexible, size) {
        (true, _) => {
            let length = i32::try_from(length).map_err(too_long)?;
            writer.varint(u64::from(length.unsigned_abs()) + 1);
        }
        (false, LengthSize::Two) => {
            writer.put(&i16::try_from(length).map_err(too_long)?.to_be_bytes());
        }
        (false, LengthSize::Four) => {
            writer.put(&i32::try_from(length).map_err(too_long)?.to_be_bytes());
        }
    }
    Ok(())
}

fn encode_null(writer: &mut Writer, version: Version, size: LengthSize) {
    match (version.is_flexible, size) {
        (true, _) => writer.put(&[0]),
        (false, LengthSize::Two) => writer.put(&(-1i16).to_be_bytes()),
        (false, LengthSize::Four) => writer.put(&(-1i32).to_be_bytes()),
    }
}

/// A null where the protocol has none is read as empty: some peers send it, and it means nothing else.
macro_rules! nullable_field {
    ([$($generic:tt)*] $type:ty, $size:expr, $decode:expr, $encode:expr) => {
        impl<$($generic)*> Field for $type {
            fn decode_field(reader: &mut Reader, version: Version) -> Result<Self, WireError> {
                Ok(Self::decode_nullable(reader, version)?.unwrap_or_default())
            }

            fn encode_field(&self, writer: &mut Writer, version: Version) -> Result<(), WireError> {
                encode_length(writer, version, $size, self.len())?;
                $encode(self, writer, version)
            }
        }

        impl<$($generic)*> Nullable for $type {
            fn decode_nullable(
                reader: &mut Reader,
                version: Version,
            ) -> Result<Option<Self>, WireError> {
                match decode_length(reader, version, $size)? {
                    Some(length) => $decode(reader, version, length).map(Some),
                    None => Ok(None),
                }
            }

            fn encode_nullable(
                value: Option<&Self>,
                writer: &mut Writer,
                version: Version,
            ) -> Result<(), WireError> {
                match value {
                    Some(value) => value.encode_field(writer, version),
                    None => {
                        encode_null(writer, version, $size);
                        Ok(())
                    }
                }
            }
        }
    };
}

nullable_field!(
    [] String,
    LengthSize::Two,
    |reader: &mut Reader, _, length| reader.text(length),
    |text: &Self, writer: &mut Writer, _| {
        writer.put(text.as_bytes());
        Ok(())
    }
);

nullable_field!(
    [] Bytes,
    LengthSize::Four,
    |reader: &mut Reader, _, length| reader.slice(length),
    |bytes: &Self, writer: &mut Writer, _| {
        writer.chunk(bytes);
        Ok(())
    }
);

nullable_field!([T: Field] Vec<T>, LengthSize::Four, decode_elements, encode_elements);

fn decode_elements<T: Field>(
    reader: &mut Reader,
    version: Version,
    count: usize,
) -> Result<Vec<T>, WireError> {
    // Checked before anything is allocated: the bound of memory is what `charge` accepted.
    reader.charge(count, size_of::<T>())?;
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        elements.push(T::decode_field(reader, version)?);
    }
    Ok(elements)
}

fn encode_elements<T: Field>(
    elements: &[T],
    writer: &mut Writer,
    version: Version,
) -> Result<(), WireError> {
    elements
        .iter()
        .try_for_each(|element| element.encode_field(writer, version))
}

/// Makes a struct of `structs!` a field.
macro_rules! struct_field {
    ($name:ident) => {
        impl $crate::protocol::wire::field::Field for $name {
            fn decode_field(
                reader: &mut $crate::protocol::wire::Reader,
                version: $crate::protocol::wire::Version,
            ) -> Result<Self, $crate::protocol::wire::WireError> {
                $crate::protocol::wire::Message::decode(reader, version)
            }

            fn encode_field(
                &self,
                writer: &mut $crate::protocol::wire::Writer,
                version: $crate::protocol::wire::Version,
            ) -> Result<(), $crate::protocol::wire::WireError> {
                $crate::protocol::wire::Message::encode(self, writer, version)
            }
        }

        impl $crate::protocol::wire::field::Nullable for $name {
            fn decode_nullable(
                reader: &mut $crate::protocol::wire::Reader,
                version: $crate::protocol::wire::Version,
            ) -> Result<Option<Self>, $crate::protocol::wire::WireError> {
                $crate::protocol::wire::field::decode_optional(reader, version)
            }

            fn encode_nullable(
                value: Option<&Self>,
                writer: &mut $crate::protocol::wire::Writer,
                version: $crate::protocol::wire::Version,
            ) -> Result<(), $crate::protocol::wire::WireError> {
                $crate::protocol::wire::field::encode_optional(value, writer, version)
            }
        }
    };
}

pub(in crate::protocol::wire) use struct_field;

pub(in crate::protocol::wire) fn decode_optional<T: Field>(
    reader: &mut Reader,
    version: Version,
) -> Result<Option<T>, WireError> {
    match i8::decode_field(reader, version)? {
        ..0 => Ok(None),
        _ => T::decode_field(reader, version).map(Some),
    }
}

pub(in crate::protocol::wire) fn encode_optional<T: Field>(
    value: Option<&T>,
    writer: &mut Writer,
    version: Version,
) -> Result<(), WireError> {
    match value {
        None => (-1i8).encode_field(writer, version),
        Some(value) => {
            1i8.encode_field(writer, version)?;
            value.encode_field(writer, version)
        }
    }
}

//! The language in which the messages are written down, and what it makes of them.
//!
//! ```text
//! structs! {
//!     Name {
//!         field: Type [versions] null [versions] or refuse = default,
//!         + tagged { 0 => field: Type [versions] = default, }
//!     }
//! }
//! ```
//! `[versions]` have the field. `null [versions]` is given where only some of them know null; in the others null is
//! written as empty. A request is refused rather than sent at a version without an `or refuse` field that is set.
//! Tagged fields are written when they differ from their default, and those that we don't know are skipped.

use super::reader::Reader;
use super::writer::Writer;
use super::{ApiKey, WireError};

/// A version of an API, and whether its encoding is the flexible (compact, tagged) one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub(super) number: i16,
    pub(super) is_flexible: bool,
}

impl Version {
    /// Version `number` of `api`.
    #[must_use]
    pub fn of(api: ApiKey, number: i16) -> Self {
        Self {
            number,
            is_flexible: number >= api.flexible_from(),
        }
    }
}

/// A request's or response's body, or a struct in it.
pub trait Message: Sized + Default {
    /// Reads it from `reader`.
    ///
    /// # Errors
    /// If the bytes are not such a message, or would take far more memory than they are long.
    fn decode(reader: &mut Reader, version: Version) -> Result<Self, WireError>;

    /// Writes it to `writer`.
    ///
    /// # Errors
    /// [`WireError::Unsendable`] if a field is set that the version lacks and that must not be left out, and
    /// [`WireError::TooLong`] if something is longer than the protocol can say.
    fn encode(&self, writer: &mut Writer, version: Version) -> Result<(), WireError>;
}

/// Writes the tagged fields of a struct: how many, then each with its tag and size, by ascending tag.
pub(super) fn encode_tagged(writer: &mut Writer, fields: Vec<(u32, Writer)>) {
    writer.varint(fields.len() as u64);
    for (tag, field) in fields {
        writer.varint(u64::from(tag));
        writer.varint(field.length_bytes() as u64);
        writer.append(field);
    }
}

/// Reads the tagged fields of a struct: `read` takes those that it knows (true) from exactly their bytes.
pub(super) fn decode_tagged(
    reader: &mut Reader,
    mut read: impl FnMut(u32, &mut Reader) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let count = reader.varint()?;
    for _ in 0..count {
        let tag = reader.varint()?;
        let length_bytes = reader.varint()? as usize;
        reader.within(length_bytes, |field| read(tag, field))?;
    }
    Ok(())
}

/// Whether `value` is other than its default (a function, so that the default has the value's type).
pub(super) fn differs<T: PartialEq>(value: &T, default: T) -> bool {
    *value != default
}

macro_rules! structs {
    ($($name:ident {
        $($field:ident : $type:ty [$versions:expr]
            $(null [$nulls:expr])? $(or $refuse:ident)? $(= $default:expr)?,)*
        $(+ tagged { $($tag:literal => $tagged:ident : $tagged_type:ty [$tagged_versions:expr]
            $(= $tagged_default:expr)?,)* })?
    })*) => { $(
        #[doc = concat!("Kafka's `", stringify!($name), "`.")]
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $(#[doc = concat!("In versions `", stringify!($versions), "`.")]
            pub $field: $type,)*
            $($(#[doc = concat!("Tagged ", stringify!($tag), " in versions `", stringify!($tagged_versions), "`.")]
            pub $tagged: $tagged_type,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $crate::protocol::wire::schema::default_value!($($default)?),)*
                    $($($tagged: $crate::protocol::wire::schema::default_value!($($tagged_default)?),)*)?
                }
            }
        }

        impl $crate::protocol::wire::Message for $name {
            fn decode(
                reader: &mut $crate::protocol::wire::Reader,
                version: $crate::protocol::wire::Version,
            ) -> Result<Self, $crate::protocol::wire::WireError> {
                #[allow(unused_imports)]
                use $crate::protocol::wire::field::{Field, WithoutNull};
                #[allow(unused_mut)]
                let mut message = Self {
                    $($field: match ($versions).contains(&version.number) {
                        true => Field::decode_field(reader, version)?,
                        false => $crate::protocol::wire::schema::default_value!($($default)?),
                    },)*
                    $($($tagged: $crate::protocol::wire::schema::default_value!($($tagged_default)?),)*)?
                };
                if version.is_flexible {
                    $crate::protocol::wire::schema::decode_tagged(reader, |tag, _field| {
                        match tag {
                            $($($tag if ($tagged_versions).contains(&version.number) => {
                                message.$tagged = Field::decode_field(_field, version)?;
                            })*)?
                            _ => {}
                        }
                        Ok(())
                    })?;
                }
                Ok(message)
            }

            fn encode(
                &self,
                writer: &mut $crate::protocol::wire::Writer,
                version: $crate::protocol::wire::Version,
            ) -> Result<(), $crate::protocol::wire::WireError> {
                #[allow(unused_imports)]
                use $crate::protocol::wire::field::{Field, WithoutNull};
                $(match ($versions).contains(&version.number) {
                    true => $crate::protocol::wire::schema::encode_field!(self.$field, writer, version $(, $nulls)?),
                    false => $crate::protocol::wire::schema::leave_out!(
                        self.$field, $field, version, [$($refuse)?], [$($default)?]
                    ),
                })*
                if version.is_flexible {
                    #[allow(unused_mut)]
                    let mut fields = Vec::new();
                    $($(if ($tagged_versions).contains(&version.number)
                        && $crate::protocol::wire::schema::differs(
                            &self.$tagged,
                            $crate::protocol::wire::schema::default_value!($($tagged_default)?),
                        )
                    {
                        let mut field = $crate::protocol::wire::Writer::new();
                        self.$tagged.encode_field(&mut field, version)?;
                        fields.push(($tag, field));
                    })*)?
                    $crate::protocol::wire::schema::encode_tagged(writer, fields);
                }
                Ok(())
            }
        }

        $crate::protocol::wire::field::struct_field!($name);

        #[cfg(test)]
        impl $crate::protocol::wire::tests::Arbitrary for $name {
            fn arbitrary(random: &mut $crate::protocol::wire::tests::Choices) -> Self {
                Self {
                    $($field: $crate::protocol::wire::tests::Arbitrary::arbitrary(random),)*
                    $($($tagged: $crate::protocol::wire::tests::Arbitrary::arbitrary(random),)*)?
                }
            }
        }
    )* };
}

macro_rules! default_value {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

/// Leaves a field out of a version that lacks it, or refuses to.
macro_rules! leave_out {
    ($value:expr, $field:ident, $version:ident, [], [$($default:expr)?]) => {{}};
    ($value:expr, $field:ident, $version:ident, [refuse], [$($default:expr)?]) => {
        if $crate::protocol::wire::schema::differs(
            &$value,
            $crate::protocol::wire::schema::default_value!($($default)?),
        ) {
            return Err($crate::protocol::wire::WireError::Unsendable {
                field: stringify!($field),
                version: $version.number,
            });
        }
    };
}

macro_rules! encode_field {
    ($field:expr, $writer:ident, $version:ident) => {
        $field.encode_field($writer, $version)?
    };
    ($field:expr, $writer:ident, $version:ident, $nulls:expr) => {
        match ($nulls).contains(&$version.number) {
            true => $field.encode_field($writer, $version)?,
            false => $field.encode_without_null($writer, $version)?,
        }
    };
}

pub(super) use {default_value, encode_field, leave_out, structs};

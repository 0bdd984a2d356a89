//! `Serializer`: a codec behind a pointer, so that a producer's and consumer's type names only what travels.

use std::borrow::Cow;

use crate::codec::{Codec, CodecError, Datum};

/// A [`Codec`] as an object.
pub(in crate::client) trait Serializer<T: ?Sized + ToOwned>: Send + Sync {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError>;
    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError>;
}

impl<T: ?Sized + ToOwned, C: Codec<T>> Serializer<T> for C {
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Codec::encode(self, value, out)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, T>, CodecError> {
        Codec::decode(self, bytes)
    }
}

/// The codec that a type brings along.
pub(in crate::client) fn default_serializer<T: ?Sized + Datum>() -> Box<dyn Serializer<T>> {
    Box::new(T::DefaultCodec::default())
}

//! A store's value codec with its type forgotten: called once per changed value and cycle, not per record.

use super::error::StateError;
use crate::codec::{Codec, CodecError};

/// Encodes and decodes the values of a store.
pub(super) trait ValueCodec<V>: Send {
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError>;
    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError>;
}

impl<V: Clone, C: Codec<V>> ValueCodec<V> for C {
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), CodecError> {
        Codec::encode(self, value, out)
    }

    fn decode(&self, bytes: &[u8]) -> Result<V, CodecError> {
        Ok(Codec::decode(self, bytes)?.into_owned())
    }
}

pub(super) fn decode<V>(
    codec: &dyn ValueCodec<V>,
    store: &str,
    bytes: Option<&[u8]>,
) -> Result<Option<V>, StateError> {
    let decoded = bytes.map(|bytes| codec.decode(bytes)).transpose();
    decoded.map_err(|source| StateError::Decode {
        store: store.to_owned(),
        source,
    })
}

pub(super) fn encode<V>(
    codec: &dyn ValueCodec<V>,
    store: &str,
    value: &V,
    out: &mut Vec<u8>,
) -> Result<(), StateError> {
    codec
        .encode(value, out)
        .map_err(|source| StateError::Encode {
            store: store.to_owned(),
            source,
        })
}

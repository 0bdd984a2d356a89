//! A store's value codec with its type forgotten: called once per changed value and cycle, not per record.

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

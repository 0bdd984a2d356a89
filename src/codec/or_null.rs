//! Values of a topic that may be deletions: a null value of a record is `None`.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::marker::PhantomData;

use super::{Codec, CodecError, CodecId, CodecUse};

/// A codec of `Option<T>` whose `None` is a record without a value, a tombstone: it has no bytes, so only a topic can hold it.
/// Made by `Topic::as_option`.
pub struct OrNull<C, T: ?Sized> {
    codec: C,
    value: PhantomData<fn(&T)>,
}

impl<C, T: ?Sized> OrNull<C, T> {
    /// Values as `codec` has them, or null.
    pub fn new(codec: C) -> Self {
        Self {
            codec,
            value: PhantomData,
        }
    }
}

impl<C: Clone, T: ?Sized> Clone for OrNull<C, T> {
    fn clone(&self) -> Self {
        Self::new(self.codec.clone())
    }
}

impl<C: fmt::Debug, T: ?Sized> fmt::Debug for OrNull<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OrNull").field(&self.codec).finish()
    }
}

impl<T, C> Codec<Option<T::Owned>> for OrNull<C, T>
where
    T: ToOwned<Owned: Clone> + ?Sized + 'static,
    C: Codec<T>,
{
    fn id(&self) -> CodecId {
        self.codec.id()
    }

    fn encode(&self, value: &Option<T::Owned>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match value {
            Some(value) => self.codec.encode(value.borrow(), out),
            None => Err(CodecError::Encode {
                codec: "a value",
                why: "a deletion has no bytes: only a topic can hold it".to_owned(),
            }),
        }
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Option<T::Owned>>, CodecError> {
        let value = self.codec.decode(bytes)?;
        Ok(Cow::Owned(Some(value.into_owned())))
    }

    fn prepare(&self, use_of: CodecUse) -> Result<(), CodecError> {
        self.codec.prepare(use_of)
    }

    #[inline]
    fn is_null(&self, value: &Option<T::Owned>) -> bool {
        value.is_none()
    }

    fn decode_null(&self) -> Option<Option<T::Owned>> {
        Some(None)
    }
}

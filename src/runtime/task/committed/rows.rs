//! Typed rows of a store with time, as of one commit.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::{QueryError, View};
use crate::codec::{Codec, CodecError, Datum};
use crate::runtime::task::timed_row::{OWN_TIME, Row, RowCodec, key_row, row_at};
use crate::state::HashedKey;
use crate::types::Timestamp;

/// The rows of a store with time, as of the commit that a [`View`] shows.
pub struct TimedRows<K: ?Sized, V> {
    store: Arc<str>,
    types: PhantomData<fn(&K) -> V>,
}

impl<K: ?Sized, V> Clone for TimedRows<K, V> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.store))
    }
}

impl<K: ?Sized, V> TimedRows<K, V> {
    /// Whoever makes it has compared the types with those of the store.
    pub(in crate::runtime) fn new(store: Arc<str>) -> Self {
        Self {
            store,
            types: PhantomData,
        }
    }
}

/// The bytes of a key.
pub(in crate::runtime) fn encode_key<K: Datum + ?Sized>(key: &K) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    K::DefaultCodec::default().encode(key, &mut bytes)?;
    Ok(bytes)
}

impl<K: Datum + ?Sized, V: Datum + Clone> TimedRows<K, V>
where
    V::DefaultCodec: Codec<V>,
{
    /// The value of a key, which has no time.
    ///
    /// # Errors
    /// If another process of the job has the key, or a commit came since the view began.
    pub fn get(&self, view: &View<'_>, key: &K) -> Result<Option<V>, QueryError> {
        let key = encode_key(key)?;
        let mut row = Vec::new();
        key_row(&mut row, &key);
        self.value(view, &row, &key)
    }

    /// The value of a key at a time.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_at(
        &self,
        view: &View<'_>,
        key: &K,
        time: Timestamp,
    ) -> Result<Option<V>, QueryError> {
        let key = encode_key(key)?;
        let mut row = Vec::new();
        row_at(&mut row, &key, time);
        self.value(view, &row, &key)
    }

    /// Returns the step's time where the key is: the time that it keeps in its store.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn time(&self, view: &View<'_>, key: &K) -> Result<Option<Timestamp>, QueryError> {
        let key = encode_key(key)?;
        let value = view.value(&self.store, HashedKey::beside(&[OWN_TIME], &key))?;
        match value
            .map(|bytes| self.decode_row(view, &bytes))
            .transpose()?
        {
            Some(Row::Time(time)) => Ok(Some(time)),
            Some(Row::Value(_) | Row::Timer) | None => Ok(None),
        }
    }

    /// The values of all keys of this process at times from `times.start` on and before its end, by their times: `limit` at most.
    ///
    /// # Errors
    /// If a commit came since the view began.
    pub fn between(
        &self,
        view: &View<'_>,
        times: &Range<Timestamp>,
        limit: usize,
    ) -> Result<Vec<(Timestamp, K::Owned, V)>, QueryError> {
        let mut rows = Vec::new();
        view.visit_times(&self.store, times, limit, &mut |time, key, value| {
            if let Row::Value(value) = self.decode_row(view, value)? {
                let key = K::DefaultCodec::default().decode(key)?.into_owned();
                rows.push((time, key, value));
            }
            Ok(())
        })?;
        rows.sort_by_key(|(time, ..)| *time);
        rows.truncate(limit);
        Ok(rows)
    }

    fn decode_row(&self, view: &View<'_>, bytes: &[u8]) -> Result<Row<V>, CodecError> {
        let codec = RowCodec::new(view.codec_of::<V>(&self.store));
        Ok(codec.decode(bytes)?.into_owned())
    }

    fn value(&self, view: &View<'_>, row: &[u8], key: &[u8]) -> Result<Option<V>, QueryError> {
        let value = view.value(&self.store, HashedKey::beside(row, key))?;
        match value
            .map(|bytes| self.decode_row(view, &bytes))
            .transpose()?
        {
            Some(Row::Value(value)) => Ok(Some(value)),
            Some(Row::Time(_) | Row::Timer) | None => Ok(None),
        }
    }
}

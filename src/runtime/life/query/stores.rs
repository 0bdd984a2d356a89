//! Typed questions: of stores with one value a key, in order, and with time.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::ops::{ControlFlow, Range, RangeBounds};
use std::sync::Arc;

use super::{Answer, Queries};
use crate::codec::{Codec, CodecError, Datum, Schema, SortKey, Versioned};
use crate::runtime::contract::window::Window;
use crate::runtime::task::committed::{
    Epoch, QueryError, ReadOpenWindows, TimedRows, View, encode_key,
};
use crate::runtime::task::ordered_store::{ordered_schema, set_places};
use crate::runtime::task::timed_store::timed_schema;
use crate::state::put_prefix;
use crate::state::{Direction, HashedKey, KeyRange, RangeOf};
use crate::types::Timestamp;

/// The question behind all of a kind: whom to ask, and for which store.
#[derive(Clone)]
struct Asked {
    queries: Queries,
    store: Arc<str>,
}

impl Asked {
    fn new(queries: &Queries, store: &str, schema: &Schema) -> Result<Self, QueryError> {
        let store = queries.kept_name(store, schema)?;
        Ok(Self {
            store,
            queries: queries.clone(),
        })
    }

    fn at_least(&self, epoch: Epoch) -> Self {
        Self {
            queries: self.queries.at_least(epoch),
            store: Arc::clone(&self.store),
        }
    }

    /// The codec of the store's values.
    fn codec<V: Datum + ?Sized>(&self, view: &View<'_>) -> Versioned<V::DefaultCodec> {
        view.codec_of::<V>(&self.store)
    }
}

fn decode<V: Clone>(codec: &impl Codec<V>, bytes: &[u8]) -> Result<V, CodecError> {
    Ok(codec.decode(bytes)?.into_owned())
}

fn decode_key<K: Datum + ?Sized>(bytes: &[u8]) -> Result<K::Owned, CodecError> {
    let codec = K::DefaultCodec::default();
    Ok(codec.decode(bytes)?.into_owned())
}

/// Questions of a store with one value for each key (`count`, `reduce`, `with_store` and others): made by [`Queries::store`].
pub struct StoreQuery<K: ?Sized, V> {
    asked: Asked,
    types: PhantomData<fn(&K) -> V>,
}

/// Questions of a store in order: made by [`Queries::ordered`].
pub struct OrderedQuery<K: ?Sized, S, V> {
    asked: Asked,
    types: PhantomData<fn(&K, &S) -> V>,
}

/// Questions of a store with time (of windows and timers): made by [`Queries::timed`].
pub struct TimedQuery<K: ?Sized, V> {
    queries: Queries,
    rows: TimedRows<K, V>,
}

/// Questions about the open windows of a step: made by [`Queries::windows`].
pub struct WindowsQuery<K: ?Sized, A> {
    asked: Asked,
    read: ReadOpenWindows<K, A>,
}

impl Queries {
    /// A store with one value for each key. `K` is the type of the keys in the stream, `V` that of the values.
    ///
    /// # Errors
    /// If the job has no such store, or it has other types.
    pub fn store<K: Datum + ?Sized, V: Datum + Clone>(
        &self,
        name: &str,
    ) -> Result<StoreQuery<K, V>, QueryError> {
        Ok(StoreQuery {
            asked: Asked::new(self, name, &Schema::of::<K, V>())?,
            types: PhantomData,
        })
    }

    /// A store in the order of `S`.
    ///
    /// # Errors
    /// If the job has no such store, or it has other types.
    pub fn ordered<K: Datum + ?Sized, S: SortKey, V: Datum + Clone>(
        &self,
        name: &str,
    ) -> Result<OrderedQuery<K, S, V>, QueryError> {
        Ok(OrderedQuery {
            asked: Asked::new(self, name, &ordered_schema::<K, S, V>())?,
            types: PhantomData,
        })
    }

    /// A store with time. Windows are read with `windows`.
    ///
    /// # Errors
    /// If the job has no such store, or it has other types.
    pub fn timed<K: Datum + ?Sized, V: Datum + Clone>(
        &self,
        name: &str,
    ) -> Result<TimedQuery<K, V>, QueryError> {
        Ok(TimedQuery {
            rows: TimedRows::new(self.kept_name(name, &timed_schema::<K, V>())?),
            queries: self.clone(),
        })
    }
}

impl Queries {
    /// The open windows of the step `name`: tumbling, hopping, cumulative, of a calendar, sessions, or sliding. `A` is the type of their
    /// states: of a `count` it is `u64`, of a `reduce` that of the values. A window that is closed is in the results alone.
    ///
    /// ```
    /// # use onceflow::prelude::*;
    /// # use onceflow::runtime::{Queries, QueryError};
    /// # use onceflow::types::Timestamp;
    /// # async fn ask(query: &Queries) -> Result<(), QueryError> {
    /// let clicks = query.windows::<str, u64>("per-minute")?;
    /// let hour = Timestamp(0)..Timestamp(3_600_000);
    /// for (window, clicks) in clicks.of("ada", hour).await?.value {
    ///     println!("from {} on so far {clicks}", window.start);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the job has no such store, it has other types, or its owner does not say how windows in it are read
    /// ([`with_open_windows`](crate::runtime::Keyed::with_open_windows)).
    pub fn windows<K: Datum + ?Sized, A: Datum + Clone>(
        &self,
        name: &str,
    ) -> Result<WindowsQuery<K, A>, QueryError> {
        let (store, face) = self.face(name)?;
        let Some(windows) = &face.windows else {
            return Err(QueryError::NoWindows {
                store: name.to_owned(),
            });
        };
        let asked = Schema::of::<K, A>();
        let read = windows.typed::<K, A>();
        match read.filter(|_| windows.schema.difference(&asked).is_none()) {
            Some(read) => Ok(WindowsQuery {
                asked: Asked {
                    queries: self.clone(),
                    store,
                },
                read,
            }),
            None => Err(QueryError::WrongType {
                store: name.to_owned(),
                stored: Box::new(windows.schema.clone()),
                asked: Box::new(asked),
            }),
        }
    }
}

impl<K: Datum + ?Sized, A> WindowsQuery<K, A> {
    /// The same, of this epoch or a later one.
    #[must_use]
    pub fn at_least(&self, epoch: Epoch) -> Self {
        Self {
            asked: self.asked.at_least(epoch),
            read: Arc::clone(&self.read),
        }
    }

    /// The open windows of a key that have some of these times, each with its state, in the order of their ends.
    ///
    /// # Errors
    /// If another process of the job has the key, the job ends before, or the times have more than 10,000 windows.
    pub async fn of(
        &self,
        key: &K,
        times: Range<Timestamp>,
    ) -> Result<Answer<Vec<(Window, A)>>, QueryError> {
        let queries = &self.asked.queries;
        queries.read(|view| self.of_in(view, key, &times)).await
    }

    /// The same, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_in(
        &self,
        view: &View<'_>,
        key: &K,
        times: &Range<Timestamp>,
    ) -> Result<Vec<(Window, A)>, QueryError> {
        (self.read)(view, &self.asked.store, key, times)
    }
}

impl<K: Datum + ?Sized, V: Datum + Clone> StoreQuery<K, V>
where
    V::DefaultCodec: Codec<V>,
{
    /// The same, of this epoch or a later one.
    #[must_use]
    pub fn at_least(&self, epoch: Epoch) -> Self {
        Self {
            asked: self.asked.at_least(epoch),
            types: PhantomData,
        }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If another process of the job has the key, or the job ends before.
    pub async fn get(&self, key: &K) -> Result<Answer<Option<V>>, QueryError> {
        let queries = &self.asked.queries;
        queries.read(|view| self.get_in(view, key)).await
    }

    /// The values of several keys, in the order of the keys, all of one epoch.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many<Q: Borrow<K>>(
        &self,
        keys: &[Q],
    ) -> Result<Answer<Vec<Option<V>>>, QueryError> {
        let get_all = |view: &View<'_>| {
            let values = keys.iter().map(|key| self.get_in(view, key.borrow()));
            values.collect()
        };
        self.asked.queries.read(get_all).await
    }

    /// Up to `limit` keys of this process with their values, from the first one on or behind `after`. They come in an order of their own,
    /// which is always the same, so that the last key of an answer leads to the next one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn page(
        &self,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Answer<Vec<(K::Owned, V)>>, QueryError> {
        let queries = &self.asked.queries;
        queries.read(|view| self.page_in(view, after, limit)).await
    }

    /// The value of a key, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_in(&self, view: &View<'_>, key: &K) -> Result<Option<V>, QueryError> {
        let bytes = encode_key(key)?;
        let value = view.value(&self.asked.store, HashedKey::new(&bytes))?;
        let codec = self.asked.codec::<V>(view);
        Ok(value.map(|bytes| decode(&codec, &bytes)).transpose()?)
    }

    /// Keys with their values as [`page`](Self::page) gives them, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn page_in(
        &self,
        view: &View<'_>,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K::Owned, V)>, QueryError> {
        let after = after.map(encode_key).transpose()?;
        let codec = self.asked.codec::<V>(view);
        let mut rows = Vec::new();
        view.visit_page(
            &self.asked.store,
            after.as_deref(),
            limit,
            &mut |key, value| {
                rows.push((decode_key::<K>(key)?, decode(&codec, value)?));
                Ok(())
            },
        )?;
        Ok(rows)
    }
}

impl<K: Datum + ?Sized, S: SortKey, V: Datum + Clone> OrderedQuery<K, S, V>
where
    V::DefaultCodec: Codec<V>,
{
    /// The same, of this epoch or a later one.
    #[must_use]
    pub fn at_least(&self, epoch: Epoch) -> Self {
        Self {
            asked: self.asked.at_least(epoch),
            types: PhantomData,
        }
    }

    /// The value of a key at a place.
    ///
    /// # Errors
    /// If another process of the job has the key, or the job ends before.
    pub async fn get(&self, key: &K, place: &S) -> Result<Answer<Option<V>>, QueryError> {
        let queries = &self.asked.queries;
        queries.read(|view| self.get_in(view, key, place)).await
    }

    /// The first `limit` values of a key in a range of places, the least place first.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn range(
        &self,
        key: &K,
        places: impl RangeBounds<S>,
        limit: usize,
    ) -> Result<Answer<Vec<(S, V)>>, QueryError> {
        let read = |view: &View<'_>| self.range_in(view, key, &places, limit);
        self.asked.queries.read(read).await
    }

    /// The last `limit` values of a key in a range of places, the greatest place first.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn range_back(
        &self,
        key: &K,
        places: impl RangeBounds<S>,
        limit: usize,
    ) -> Result<Answer<Vec<(S, V)>>, QueryError> {
        let backward = Direction::Backward;
        let read = |view: &View<'_>| self.rows(view, key, &places, limit, backward);
        self.asked.queries.read(read).await
    }

    /// The value of a key at a place, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_in(&self, view: &View<'_>, key: &K, place: &S) -> Result<Option<V>, QueryError> {
        let key = encode_key(key)?;
        let mut row = Vec::new();
        put_prefix(&key, &mut row);
        place.encode_sorted(&mut row);
        let row = HashedKey::beside(&row, &key);
        let value = view.value(&self.asked.store, row)?;
        let codec = self.asked.codec::<V>(view);
        Ok(value.map(|bytes| decode(&codec, &bytes)).transpose()?)
    }

    /// Values of a range as [`range`](Self::range) gives them, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn range_in(
        &self,
        view: &View<'_>,
        key: &K,
        places: &impl RangeBounds<S>,
        limit: usize,
    ) -> Result<Vec<(S, V)>, QueryError> {
        self.rows(view, key, places, limit, Direction::Forward)
    }

    /// The last value of a range, with its place.
    pub(super) fn last_in(
        &self,
        view: &View<'_>,
        key: &K,
        places: &impl RangeBounds<S>,
    ) -> Result<Option<(S, V)>, QueryError> {
        Ok(self.rows(view, key, places, 1, Direction::Backward)?.pop())
    }

    fn rows(
        &self,
        view: &View<'_>,
        key: &K,
        places: &impl RangeBounds<S>,
        limit: usize,
        direction: Direction,
    ) -> Result<Vec<(S, V)>, QueryError> {
        let key = encode_key(key)?;
        let (mut prefix, mut bounds) = (Vec::new(), KeyRange::default());
        put_prefix(&key, &mut prefix);
        set_places(&prefix, places, &mut bounds);
        let partition = view.state_partition(&HashedKey::new(&key));
        let range = RangeOf {
            places: &[(partition, &bounds.from)],
            to: Some(&bounds.to),
            direction,
            rows_max: limit,
        };
        let codec = self.asked.codec::<V>(view);
        let mut rows = Vec::new();
        view.visit(&self.asked.store, range, &mut |row, value| {
            let mut place = row.get(prefix.len()..).unwrap_or_default();
            rows.push((S::decode_sorted(&mut place)?, decode(&codec, value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }
}

impl<K: Datum + ?Sized, V: Datum + Clone> TimedQuery<K, V>
where
    V::DefaultCodec: Codec<V>,
{
    /// The same, of this epoch or a later one.
    #[must_use]
    pub fn at_least(&self, epoch: Epoch) -> Self {
        Self {
            queries: self.queries.at_least(epoch),
            rows: self.rows.clone(),
        }
    }

    /// The value of a key, which has no time.
    ///
    /// # Errors
    /// If another process of the job has the key, or the job ends before.
    pub async fn get(&self, key: &K) -> Result<Answer<Option<V>>, QueryError> {
        self.queries.read(|view| self.get_in(view, key)).await
    }

    /// The value of a key at a time.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_at(&self, key: &K, time: Timestamp) -> Result<Answer<Option<V>>, QueryError> {
        self.queries
            .read(|view| self.get_at_in(view, key, time))
            .await
    }

    /// The values of all keys of this process at times from `times.start` on and before its end, by their times: the first `limit` of each
    /// state partition at most. It costs what it shows, and a look at all that was changed since the last flush.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn between(
        &self,
        times: Range<Timestamp>,
        limit: usize,
    ) -> Result<Answer<Vec<(Timestamp, K::Owned, V)>>, QueryError> {
        let read = |view: &View<'_>| self.between_in(view, &times, limit);
        self.queries.read(read).await
    }

    /// The value of a key, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_in(&self, view: &View<'_>, key: &K) -> Result<Option<V>, QueryError> {
        self.rows.get(view, key)
    }

    /// The value of a key at a time, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_at_in(
        &self,
        view: &View<'_>,
        key: &K,
        time: Timestamp,
    ) -> Result<Option<V>, QueryError> {
        self.rows.get_at(view, key, time)
    }

    /// Values between two times as [`between`](Self::between) gives them, for [`Queries::read`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn between_in(
        &self,
        view: &View<'_>,
        times: &Range<Timestamp>,
        limit: usize,
    ) -> Result<Vec<(Timestamp, K::Owned, V)>, QueryError> {
        self.rows.between(view, times, limit)
    }
}

//! The rows of one side of a join: each key's records in the order of their times, and whether they found a match.

use std::borrow::{Borrow, Cow};
use std::marker::PhantomData;
use std::ops::{ControlFlow, RangeInclusive};

use super::joiner::Alone;
use crate::codec::{Codec, CodecError, CodecId, Datum, First, Parts, TypeIdentity};
use crate::operators::window::hash;
use crate::runtime::{Failure, Flow, Key, Meta, OrderedStore, Origin};
use crate::types::{Offset, Timestamp};

/// The place of a row among those of its key: its time, then the split and offset of its origin, then a number among the rows of that,
/// which its value decides (I16): the results of time, and what became of one record on several ways, come in an order of chance.
///
/// ```text
/// number    hash of the value (upper 32 bits), number among the rows with that hash, in the order of their values' bytes
/// ```
pub(super) type Place = (i64, (u32, i64, u64));

/// The bits of a number in which the rows of one hash differ.
const SAME_HASH: u64 = u32::MAX as u64;

/// A record that waits for matches. `M` says whether it is noted that it had one.
pub(super) struct Row<V: Datum + ?Sized, M> {
    pub(super) is_matched: bool,
    pub(super) value: V::Owned,
    mark: PhantomData<fn() -> M>,
}

impl<V: Datum + ?Sized, M> Clone for Row<V, M> {
    fn clone(&self) -> Self {
        Self {
            is_matched: self.is_matched,
            value: self.value.clone(),
            mark: PhantomData,
        }
    }
}

/// The bytes of a row: 1 if it had a match, else 0, and the value.
pub(super) struct RowCodec<V: Datum + ?Sized>(V::DefaultCodec);

impl<V: Datum + ?Sized> Default for RowCodec<V> {
    fn default() -> Self {
        Self(V::DefaultCodec::default())
    }
}

impl<V: Datum + ?Sized> Clone for RowCodec<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V: Datum + ?Sized, M: Alone> Codec<Row<V, M>> for RowCodec<V> {
    fn id(&self) -> CodecId {
        self.0.id()
    }

    fn encode(&self, row: &Row<V, M>, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(u8::from(row.is_matched));
        self.0.encode(row.value.borrow(), out)
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, Row<V, M>>, CodecError> {
        let (is_matched, value) = match bytes.split_first() {
            Some((flag @ (0 | 1), value)) => (*flag == 1, value),
            _ => {
                return Err(CodecError::Decode {
                    codec: "a row of a join",
                    length_bytes: bytes.len(),
                    why: "it begins with neither 0 nor 1".to_owned(),
                });
            }
        };
        Ok(Cow::Owned(Row {
            is_matched,
            value: self.0.decode(value)?.into_owned(),
            mark: PhantomData,
        }))
    }
}

impl<V: Datum + ?Sized, M: Alone> Datum for Row<V, M> {
    type DefaultCodec = RowCodec<V>;

    fn identity() -> TypeIdentity {
        TypeIdentity::named(&format!("{} of {}", M::NAME, V::identity()))
    }
}

/// Where the value is in a row.
pub(super) fn row_parts<V: Datum + ?Sized, M: Alone>() -> Parts {
    Parts::one::<Row<First, M>, V>(|walk| {
        walk.bytes(1)?;
        walk.last(0)
    })
}

/// Where a version is in its row, which may say that there is none any more.
pub(super) fn version_parts<V: Datum, M: Alone>() -> Parts {
    Parts::one::<Row<Option<First>, M>, V>(|walk| {
        walk.bytes(1)?;
        walk.optional(|walk| walk.part::<V>(0))
    })
}

/// The rows of one side. A row at `t` matches those of the other side from `t - back` to `t + ahead`.
pub(super) struct Rows<V: Datum + ?Sized, M> {
    store: OrderedStore<Place, Row<V, M>>,
    codec: V::DefaultCodec,
    /// The bytes of the value that comes in.
    encoded: Vec<u8>,
    pub(super) back: i64,
    pub(super) ahead: i64,
    /// The places of rows that have their first match.
    newly_matched: Vec<Place>,
}

/// All places of these times.
fn places(times: RangeInclusive<i64>) -> RangeInclusive<Place> {
    let first = (*times.start(), (0, i64::MIN, 0));
    first..=(*times.end(), (u32::MAX, i64::MAX, u64::MAX))
}

/// Notes a row that has its first match.
fn note<V: Datum + ?Sized, M: Alone>(
    newly_matched: &mut Vec<Place>,
    has_match: bool,
    place: Place,
    row: &Row<V, M>,
) {
    if M::GIVES && has_match && !row.is_matched {
        newly_matched.push(place);
    }
}

/// The time and origin of a row.
pub(super) fn meta_of(place: &Place) -> Meta {
    let (time, (split, offset, _)) = *place;
    Meta {
        timestamp: Timestamp(time),
        origin: Origin {
            split,
            offset: Offset(offset),
        },
    }
}

impl<V: Datum + ?Sized, M: Alone> Rows<V, M> {
    pub(super) fn new(store: OrderedStore<Place, Row<V, M>>, back: i64, ahead: i64) -> Self {
        Self {
            store,
            codec: V::DefaultCodec::default(),
            encoded: Vec::new(),
            back,
            ahead,
            newly_matched: Vec::new(),
        }
    }

    /// The times of the other side's rows that a row at `time` matches.
    pub(super) fn matching(&self, time: i64) -> RangeInclusive<i64> {
        time.saturating_sub(self.back)..=time.saturating_add(self.ahead)
    }

    /// The row of a record, and the place that its value gives it.
    #[inline]
    fn row(&mut self, meta: Meta, value: &V) -> Result<(Place, Row<V, M>), Failure> {
        let Origin { split, offset } = meta.origin;
        self.encoded.clear();
        self.codec.encode(value, &mut self.encoded)?;
        let hash = hash(&self.encoded) & !SAME_HASH;
        let place = (meta.timestamp.0, (split, offset.0, hash));
        let row = Row {
            is_matched: false,
            value: value.to_owned(),
            mark: PhantomData,
        };
        Ok((place, row))
    }

    /// Takes a record in that is the first one of its time; returns its place. Nothing is read.
    #[inline]
    pub(super) fn put_first<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        meta: Meta,
        value: &V,
    ) -> Result<Place, Failure> {
        let (place, row) = self.row(meta, value)?;
        self.store.put(key, &place, row)?;
        Ok(place)
    }

    /// Takes a record in; returns its place.
    #[inline]
    pub(super) fn put<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        meta: Meta,
        value: &V,
    ) -> Result<Place, Failure> {
        let (place, row) = self.row(meta, value)?;
        let mut row = Some(row);
        self.store.update(key, &place, |there| {
            if there.is_none() {
                *there = row.take();
            }
        })?;
        match row {
            Some(row) => self.put_beside(key, place, row),
            None => Ok(place),
        }
    }

    /// Takes in a row beside others of its time, origin and hash; returns its place.
    #[cold]
    fn put_beside<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        first: Place,
        row: Row<V, M>,
    ) -> Result<Place, Failure> {
        let all = first..=(first.0, (first.1.0, first.1.1, first.1.2 | SAME_HASH));
        let Some((mut free, last)) = self.store.last(key, all.clone())? else {
            return Ok(first);
        };
        free.1.2 += 1;
        assert_eq!(free.1.2 & !SAME_HASH, first.1.2, "4 billion equal rows");
        let own = self.encoded_of(&row)?;
        if self.encoded_of(&last)? <= own {
            self.store.put(key, &free, row)?;
            return Ok(free);
        }
        // Another value has the same hash: those that are greater move on by one.
        let mut rows = Vec::new();
        self.store.visit(key, all, |place, row| {
            rows.push((place, row.clone()));
            Ok(ControlFlow::Continue(()))
        })?;
        for (place, greater) in rows.into_iter().rev() {
            if self.encoded_of(&greater)? <= own {
                break;
            }
            self.store.put(key, &free, greater)?;
            free = place;
        }
        self.store.put(key, &free, row)?;
        Ok(free)
    }

    fn encoded_of(&self, row: &Row<V, M>) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        self.codec.encode(row.value.borrow(), &mut bytes)?;
        Ok(bytes)
    }

    /// Shows the rows of a time, of which there are `count`, in order to `see`, which says whether it found a match for the row.
    pub(super) fn visit_counted<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        time: i64,
        count: u32,
        mut see: impl FnMut(&Place, &V) -> Result<bool, Failure>,
    ) -> Flow {
        if count == 0 {
            return Ok(());
        }
        let newly_matched = &mut self.newly_matched;
        let times = places(time..=time);
        self.store
            .visit_counted(key, times, count as usize, |place, row| {
                note(newly_matched, see(&place, row.value.borrow())?, place, row);
                Ok(ControlFlow::Continue(()))
            })?;
        self.note_matched(key)
    }

    /// Shows the rows of these times, in order, to `see`, which says whether it found a match for the row.
    pub(super) fn visit<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        times: RangeInclusive<i64>,
        mut see: impl FnMut(&Place, &V) -> Result<bool, Failure>,
    ) -> Flow {
        if times.is_empty() {
            return Ok(());
        }
        let newly_matched = &mut self.newly_matched;
        self.store.visit(key, places(times), |place, row| {
            note(newly_matched, see(&place, row.value.borrow())?, place, row);
            Ok(ControlFlow::Continue(()))
        })?;
        self.note_matched(key)
    }

    /// Shows the rows of these times, in order, until `see` breaks.
    pub(super) fn visit_while<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        times: RangeInclusive<i64>,
        mut see: impl FnMut(&Place, &V) -> Result<ControlFlow<()>, Failure>,
    ) -> Flow {
        self.store.visit(key, places(times), |place, row| {
            see(&place, row.value.borrow())
        })
    }

    /// Shows the last row of these times to `see`; returns what that returns, or nothing if there is none.
    pub(super) fn last<K: ?Sized, T>(
        &mut self,
        key: Key<'_, K>,
        times: RangeInclusive<i64>,
        see: impl FnOnce(&Place, &V) -> T,
    ) -> Result<Option<T>, Failure> {
        if times.is_empty() {
            return Ok(None);
        }
        let (mut see, mut seen) = (Some(see), None);
        self.store.visit_back(key, places(times), |place, row| {
            seen = see.take().map(|see| see(&place, row.value.borrow()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(seen)
    }

    /// The time of the first row of these times.
    pub(super) fn first_time<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        times: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Failure> {
        if times.is_empty() {
            return Ok(None);
        }
        let mut first = None;
        self.store.visit(key, places(times), |place, _| {
            first = Some(place.0);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(first)
    }

    /// The time of the last row of these times.
    pub(super) fn last_time<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        times: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Failure> {
        self.last(key, times, |place, _| place.0)
    }

    /// Takes out the rows of a key before a place, and the one there if it is to go, too.
    pub(super) fn expire_before<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        place: Place,
        goes_too: bool,
    ) -> Flow {
        match goes_too {
            true => self.store.remove_range(key, ..=place)?,
            false => self.store.remove_range(key, ..place)?,
        };
        Ok(())
    }

    /// Notes that a row has a match.
    pub(super) fn set_matched<K: ?Sized>(&mut self, key: Key<'_, K>, place: Place) -> Flow {
        if M::GIVES {
            self.newly_matched.push(place);
        }
        self.note_matched(key)
    }

    fn note_matched<K: ?Sized>(&mut self, key: Key<'_, K>) -> Flow {
        // J7: that it had a match is state, committed with the match.
        for place in self.newly_matched.drain(..) {
            self.store.update(key, &place, |row| {
                if let Some(row) = row {
                    row.is_matched = true;
                }
            })?;
        }
        Ok(())
    }

    /// Takes out the rows of a key up to a time; shows those that had no match, in order, where the kind of join asks for them.
    pub(super) fn expire<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        until: i64,
        mut see: impl FnMut(&Place, &V) -> Flow,
    ) -> Flow {
        let all = ..=*places(until..=until).end();
        if M::GIVES {
            self.store.visit(key, all, |place, row| {
                if !row.is_matched {
                    see(&place, row.value.borrow())?;
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        self.store.remove_range(key, all)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::joiner::{Gives, Nothing};
    use super::*;
    use crate::state::{StateBackend, StateConfig, Store, StoreDeclaration};

    #[test]
    fn a_row_of_a_join_has_these_bytes() {
        let row = Row::<str, Gives> {
            is_matched: true,
            value: "ab".to_owned(),
            mark: PhantomData,
        };
        let mut bytes = Vec::new();
        let codec = RowCodec::<str>::default();
        codec.encode(&row, &mut bytes).unwrap();
        assert_eq!(bytes, [1, b'a', b'b']);
        let decoded: Cow<'_, Row<str, Gives>> = codec.decode(&bytes).unwrap();
        assert_eq!((decoded.is_matched, &*decoded.value), (true, "ab"));
        for bytes in [&[][..], &[2, b'a']] {
            assert!(Codec::<Row<str, Gives>>::decode(&codec, bytes).is_err());
        }
    }

    #[test]
    fn rows_of_one_time_and_origin_are_in_one_order_whichever_comes_first() {
        // Pairs of numbers whose hashes have the same upper 32 bits.
        let mut by_hash = std::collections::HashMap::new();
        let pairs = (0..400_000u64).filter_map(|number| {
            let hash = hash(&encoded(number)) & !SAME_HASH;
            let other = by_hash.insert(hash, number)?;
            Some([other, number])
        });
        let pairs: Vec<_> = pairs.take(3).collect();
        assert_eq!(pairs.len(), 3);
        let folder = tempfile::tempdir().unwrap();
        let values: Vec<u64> = pairs.into_iter().flatten().chain([7, 7, 9]).collect();
        let mut orders = Vec::new();
        for turn in 0..values.len() {
            let mut rows = rows(&folder.path().join(turn.to_string()));
            let key = Key::<u64>::new(b"key");
            let (front, back) = values.split_at(turn);
            for value in back.iter().chain(front) {
                let meta = Meta {
                    timestamp: Timestamp(5),
                    origin: Origin::TIME,
                };
                let place = rows.put(key, meta, value).unwrap();
                assert_eq!(meta_of(&place), meta);
            }
            let mut order = Vec::new();
            rows.visit(key, 0..=9, |_, value| {
                order.push(*value);
                Ok(false)
            })
            .unwrap();
            orders.push(order);
        }
        assert_eq!(orders[0].len(), values.len());
        assert!(orders.iter().all(|it| *it == orders[0]), "{orders:?}");
    }

    fn encoded(value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        crate::codec::Bincode.encode(&value, &mut bytes).unwrap();
        bytes
    }

    fn rows(folder: &std::path::Path) -> Rows<u64, Gives> {
        let config = StateConfig {
            state_partitions: 1,
            stores: vec![StoreDeclaration {
                name: "rows".to_owned(),
                schema: crate::codec::Schema::of::<u64, u64>(),
                changelog: crate::types::TopicId(1),
            }],
            ..StateConfig::default()
        };
        let backend = StateBackend::open(&crate::env::Env::real(), folder, config).unwrap();
        let codec = RowCodec::<u64>::default();
        let mut store = Store::open(&backend, "rows", &[0], codec).unwrap();
        store.keep_order();
        let store = std::rc::Rc::new(std::cell::RefCell::new(store));
        Rows::new(OrderedStore::of(store, 1), 0, 0)
    }

    #[test]
    fn rows_that_know_of_their_matches_are_not_read_as_rows_that_do_not() {
        assert_ne!(
            Row::<str, Gives>::identity(),
            Row::<str, Nothing>::identity()
        );
    }
}

//! The rows of one side of a join: each key's records in the order of their times, and whether they found a match.

use std::borrow::{Borrow, Cow};
use std::marker::PhantomData;
use std::ops::{ControlFlow, RangeInclusive};

use super::joiner::Alone;
use crate::codec::{Codec, CodecError, CodecId, Datum, TypeIdentity};
use crate::runtime::{Failure, Flow, Key, Meta, OrderedStore, Origin};
use crate::types::{Offset, Timestamp};

/// The place of a row among those of its key: its time, then the split and offset of its origin, then a number among the rows of that.
pub(super) type Place = (i64, (u32, i64, u32));

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

/// The rows of one side. A row at `t` matches those of the other side from `t - back` to `t + ahead`.
pub(super) struct Rows<V: Datum + ?Sized, M> {
    store: OrderedStore<Place, Row<V, M>>,
    pub(super) back: i64,
    pub(super) ahead: i64,
    /// The places of rows that have their first match.
    newly_matched: Vec<Place>,
}

/// All places of these times.
fn places(times: RangeInclusive<i64>) -> RangeInclusive<Place> {
    let first = (*times.start(), (0, i64::MIN, 0));
    first..=(*times.end(), (u32::MAX, i64::MAX, u32::MAX))
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
            back,
            ahead,
            newly_matched: Vec::new(),
        }
    }

    /// The times of the other side's rows that a row at `time` matches.
    pub(super) fn matching(&self, time: i64) -> RangeInclusive<i64> {
        time.saturating_sub(self.back)..=time.saturating_add(self.ahead)
    }

    /// Takes a record in; returns its place.
    #[inline]
    pub(super) fn put<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        meta: Meta,
        value: &V,
    ) -> Result<Place, Failure> {
        let Origin { split, offset } = meta.origin;
        let mut place = (meta.timestamp.0, (split, offset.0, 0));
        let mut row = Some(Row {
            is_matched: false,
            value: value.to_owned(),
            mark: PhantomData,
        });
        self.store.update(key, &place, |there| {
            if there.is_none() {
                *there = row.take();
            }
        })?;
        let Some(row) = row else {
            return Ok(place);
        };
        // Several of one origin, as after `flat_map`, or of a timer: they stay in their order.
        let last = (place.0, (split, offset.0, u32::MAX));
        if let Some(((_, (.., number)), _)) = self.store.last(key, place..=last)? {
            place.1.2 = number.saturating_add(1);
        }
        self.store.put(key, &place, row)?;
        Ok(place)
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
            let has_match = see(&place, row.value.borrow())?;
            if M::GIVES && has_match && !row.is_matched {
                newly_matched.push(place);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        self.note_matched(key)
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
    fn rows_that_know_of_their_matches_are_not_read_as_rows_that_do_not() {
        assert_ne!(
            Row::<str, Gives>::identity(),
            Row::<str, Nothing>::identity()
        );
    }
}

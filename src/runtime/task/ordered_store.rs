//! State in order: any number of values for each key, each at a place of its own among them, whose ranges are read.
//!
//! ```text
//! row of the store    key's bytes                                                          value
//! a value             length of the key (1 byte, or 255 and 4 bytes big-endian), key,      value
//!                     the place as a `SortKey`
//! ```
//! Each row is in the key's own state partition. All rows in memory are kept in order (`state/order.rs`), so a range costs what it shows.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Bound, ControlFlow, RangeBounds};
use std::rc::Rc;

use super::context::OperatorContext;
use super::floors::Floors;
use super::stores::StoreKind;
use crate::codec::{Datum, Schema, SortKey, TypeIdentity};
use crate::runtime::contract::error::{Failure, JobError};
use crate::runtime::contract::operator::Flow;
use crate::runtime::contract::record::Key;
use crate::state::{Direction, HashedKey, KeyRange, ORDERED_KEY, StateError, Store, put_prefix};

/// One worker's part of a named store that has, for each key, values in the order of `S`: made by
/// [`OperatorContext::ordered_store`]. Within a key, values are found one by one, by ranges, and from both ends.
///
/// Changes belong to the open cycle: they are committed with its results and positions, or none of them is.
///
/// ```
/// use std::ops::ControlFlow;
/// use onceflow::prelude::*;
///
/// /// Gives each reading with the mean of those of the same sensor in the 60 s before it, which it keeps.
/// struct Smooth { readings: OrderedStore<(i64, i64), f64> }
///
/// impl Operator<u64, f64> for Smooth {
///     type OutKey = u64;
///     type Out = f64;
///     const KEEPS_KEY: bool = true;
///
///     fn process(&mut self, record: Record<'_, u64, f64>, out: &mut impl Output<u64, f64>) -> Flow {
///         let time = record.meta.timestamp.0;
///         self.readings.put(record.key, &(time, record.meta.origin.offset.0), *record.value)?;
///         self.readings.remove_range(record.key, ..(time - 60_000, i64::MIN))?;
///         let (mut sum, mut count) = (0.0, 0.0);
///         self.readings.visit(record.key, ..=(time, i64::MAX), |_, reading| {
///             (sum, count) = (sum + reading, count + 1.0);
///             Ok(ControlFlow::Continue(()))
///         })?;
///         out.push(record.with_value(&(sum / count)))
///     }
/// }
///
/// let job = Job::new("smooth");
/// job.keyed_source(keyed_topic::<u64, f64>("readings"))
///     .with_ordered_store::<(i64, i64), f64>("last-readings")
///     .process("smooth", |context| Ok(Smooth { readings: context.ordered_store("last-readings")? }))
///     .sink(topic("smooth"));
/// ```
pub struct OrderedStore<S, V> {
    store: Rc<RefCell<Store<V>>>,
    state_partitions: u16,
    row: Vec<u8>,
    range: KeyRange,
    /// The rows that are to be removed, one behind the other, and where each ends.
    removed: (Vec<u8>, Vec<usize>),
    floors: Floors,
    sorted_by: PhantomData<fn(&S)>,
}

impl<S: SortKey, V: Clone + Send + 'static> OrderedStore<S, V> {
    /// Of a store that keeps its keys in order.
    pub(crate) fn of(store: Rc<RefCell<Store<V>>>, state_partitions: u16) -> Self {
        Self {
            store,
            state_partitions,
            row: Vec::new(),
            range: KeyRange::default(),
            removed: (Vec::new(), Vec::new()),
            floors: Floors::default(),
            sorted_by: PhantomData,
        }
    }

    fn row<K: ?Sized>(&mut self, key: Key<'_, K>, place: &S) -> HashedKey<'_> {
        self.row.clear();
        put_prefix(key.bytes(), &mut self.row);
        let prefix_bytes = self.row.len();
        place.encode_sorted(&mut self.row);
        self.floors.may_have(&self.row[..prefix_bytes], &self.row);
        HashedKey::with_partition_hash(&self.row, key.partition_hash())
    }

    /// Sets the value of a key at a place. Nothing is read.
    ///
    /// # Errors
    /// If the store failed before.
    ///
    /// # Panics
    /// If the key belongs to another worker: only the keys of records that an operator is given are its own.
    pub fn put<K: ?Sized>(&mut self, key: Key<'_, K>, place: &S, value: V) -> Result<(), Failure> {
        let store = Rc::clone(&self.store);
        let row = self.row(key, place);
        Ok(store.borrow_mut().put(row, value)?)
    }

    /// The value of a key at a place.
    ///
    /// # Errors
    /// If it was not in memory and cannot be read from disk.
    pub fn get<K: ?Sized>(&mut self, key: Key<'_, K>, place: &S) -> Result<Option<V>, Failure> {
        let store = Rc::clone(&self.store);
        let row = self.row(key, place);
        let value = store.borrow_mut().get(row)?.cloned();
        Ok(value)
    }

    /// Changes the value of a key at a place; `None` is absent. Returns what `change` returns.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Panics
    /// As [`put`](Self::put).
    pub fn update<K: ?Sized, R>(
        &mut self,
        key: Key<'_, K>,
        place: &S,
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, Failure> {
        let store = Rc::clone(&self.store);
        let row = self.row(key, place);
        Ok(store.borrow_mut().update(row, change)?)
    }

    /// Removes the value of a key at a place, and returns it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Panics
    /// As [`put`](Self::put).
    pub fn remove<K: ?Sized>(&mut self, key: Key<'_, K>, place: &S) -> Result<Option<V>, Failure> {
        self.update(key, place, Option::take)
    }

    /// Shows the values of a key in a range of places, the least first, until `visit` breaks.
    ///
    /// # Errors
    /// If they cannot be read, or what `visit` answers.
    pub fn visit<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        places: impl RangeBounds<S>,
        visit: impl FnMut(S, &V) -> Result<ControlFlow<()>, Failure>,
    ) -> Flow {
        self.visit_in(Direction::Forward, key, &places, visit)
    }

    /// As [`visit`](Self::visit), where the caller knows how many values the range has: if so many are in memory, no other is looked for.
    ///
    /// # Errors
    /// As [`visit`](Self::visit).
    pub(crate) fn visit_counted<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        places: impl RangeBounds<S>,
        count: usize,
        visit: impl FnMut(S, &V) -> Result<ControlFlow<()>, Failure>,
    ) -> Flow {
        self.visit_with(key, &places, visit, |store, partition, range, show| {
            store.visit_counted(partition, range, count, show)
        })
    }

    /// Shows the values of a key in a range of places, the greatest first, until `visit` breaks.
    ///
    /// # Errors
    /// As [`visit`](Self::visit).
    pub fn visit_back<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        places: impl RangeBounds<S>,
        visit: impl FnMut(S, &V) -> Result<ControlFlow<()>, Failure>,
    ) -> Flow {
        self.visit_in(Direction::Backward, key, &places, visit)
    }

    /// The value of a key at the least place of a range.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn first<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        places: impl RangeBounds<S>,
    ) -> Result<Option<(S, V)>, Failure> {
        self.one(Direction::Forward, key, &places)
    }

    /// The value of a key at the greatest place of a range.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn last<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        places: impl RangeBounds<S>,
    ) -> Result<Option<(S, V)>, Failure> {
        self.one(Direction::Backward, key, &places)
    }

    /// Removes the values of a key in a range of places; returns how many there were. Each is a change of its own.
    ///
    /// # Errors
    /// If they cannot be read.
    ///
    /// # Panics
    /// As [`put`](Self::put).
    pub fn remove_range<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        places: impl RangeBounds<S>,
    ) -> Result<usize, Failure> {
        self.set_range(key, &places);
        let hash = key.partition_hash();
        let partition = crate::state::state_partition(hash, self.state_partitions);
        let (rows, ends) = &mut self.removed;
        rows.clear();
        ends.clear();
        let mut store = self.store.borrow_mut();
        let range = &self.range;
        let passed = store.visit_range(partition, range, Direction::Forward, &mut |row, _| {
            rows.extend_from_slice(row);
            ends.push(rows.len());
            ControlFlow::Continue(())
        })?;
        let deletions_count = passed + ends.len();
        self.floors
            .taken_out(&self.row, &range.from, &range.to, deletions_count);
        let mut start = 0;
        for &end in ends.iter() {
            store.delete_present(HashedKey::with_partition_hash(&rows[start..end], hash))?;
            start = end;
        }
        Ok(ends.len())
    }

    fn one<K: ?Sized>(
        &mut self,
        direction: Direction,
        key: Key<'_, K>,
        places: &impl RangeBounds<S>,
    ) -> Result<Option<(S, V)>, Failure> {
        let mut found = None;
        self.visit_in(direction, key, places, |place, value| {
            found = Some((place, value.clone()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    fn visit_in<K: ?Sized>(
        &mut self,
        direction: Direction,
        key: Key<'_, K>,
        places: &impl RangeBounds<S>,
        visit: impl FnMut(S, &V) -> Result<ControlFlow<()>, Failure>,
    ) -> Flow {
        self.visit_with(key, places, visit, |store, partition, range, show| {
            store.visit_range(partition, range, direction, show)
        })
    }

    /// Shows the values that `read` finds in a range of places.
    fn visit_with<K: ?Sized>(
        &mut self,
        key: Key<'_, K>,
        places: &impl RangeBounds<S>,
        mut visit: impl FnMut(S, &V) -> Result<ControlFlow<()>, Failure>,
        read: impl FnOnce(
            &Store<V>,
            u16,
            &KeyRange,
            &mut dyn FnMut(&[u8], &V) -> ControlFlow<()>,
        ) -> Result<usize, StateError>,
    ) -> Flow {
        let prefix_bytes = self.set_range(key, places);
        let partition = crate::state::state_partition(key.partition_hash(), self.state_partitions);
        let mut flow = Ok(());
        let mut show = |row: &[u8], value: &V| {
            let mut place = row.get(prefix_bytes..).unwrap_or_default();
            let shown = S::decode_sorted(&mut place).map_err(Failure::from);
            match shown.and_then(|place| visit(place, value)) {
                Ok(goes_on) => goes_on,
                Err(failure) => {
                    flow = Err(failure);
                    ControlFlow::Break(())
                }
            }
        };
        let store = self.store.borrow();
        read(&store, partition, &self.range, &mut show)?;
        flow
    }

    /// Takes on the rows of a key at a range of places; returns how many bytes stand before the place in each of them.
    fn set_range<K: ?Sized>(&mut self, key: Key<'_, K>, places: &impl RangeBounds<S>) -> usize {
        self.row.clear();
        put_prefix(key.bytes(), &mut self.row);
        set_places(&self.row, places, &mut self.range);
        self.floors.follow(self.store.borrow().partitions_version());
        self.floors.raise(&self.row, &mut self.range.from);
        self.row.len()
    }
}

/// Makes this the range of the rows with a prefix that are at these places.
pub(crate) fn set_places<S: SortKey>(
    prefix: &[u8],
    places: &impl RangeBounds<S>,
    range: &mut KeyRange,
) {
    range.set_prefix(prefix);
    match places.start_bound() {
        Bound::Unbounded => {}
        Bound::Included(place) => place.encode_sorted(&mut range.from),
        Bound::Excluded(place) => {
            place.encode_sorted(&mut range.from);
            range.from.push(0);
        }
    }
    if let Bound::Included(place) | Bound::Excluded(place) = places.end_bound() {
        range.to.clear();
        range.to.extend_from_slice(prefix);
        place.encode_sorted(&mut range.to);
    }
    if let Bound::Included(_) = places.end_bound() {
        range.to.push(0);
    }
}

/// The schema of a store in order.
pub(crate) fn ordered_schema<K: Datum + ?Sized, S: SortKey, V: Datum + ?Sized>() -> Schema {
    let schema = Schema::of::<K, V>();
    let key = format!("{}: {}", order_of::<S>(), schema.key);
    Schema {
        key: TypeIdentity::named(&key),
        ..schema
    }
}

/// Whether the keys of a store of this type are in the order of `S`.
pub(crate) fn is_in_order_of<S: SortKey>(key: &str) -> bool {
    let rest = key.strip_prefix(&order_of::<S>());
    rest.is_some_and(|rest| rest.starts_with(": "))
}

/// The type of the keys of a store in order, if it is one.
pub(crate) fn ordered_key_type(key: &str) -> Option<&str> {
    let (_, key) = key.strip_prefix(ORDERED_KEY)?.split_once(": ")?;
    Some(key)
}

fn order_of<S: SortKey>() -> String {
    format!("{ORDERED_KEY}{}", S::identity())
}

/// Whether keys of this type are those of a store in order.
pub(crate) fn is_ordered_key(key: &TypeIdentity) -> bool {
    key.as_str().starts_with(ORDERED_KEY)
}

impl OperatorContext {
    /// Opens this worker's part of a store in order, which was declared with
    /// [`Keyed::with_ordered_store`](crate::runtime::Keyed::with_ordered_store), restored to the last committed cycle.
    ///
    /// # Errors
    /// If the store was not declared so or is open already, or cannot be restored.
    pub fn ordered_store<S: SortKey, V: Datum + Sized + Clone>(
        &mut self,
        name: &str,
    ) -> Result<OrderedStore<S, V>, JobError> {
        let order = order_of::<S>();
        let kind = StoreKind::Ordered(&order);
        let codec = self.codec_of::<V>(name);
        let store = self.open_store::<V, V>(name, kind, codec)?;
        Ok(OrderedStore::of(store, self.state_partitions()))
    }
}

#[cfg(test)]
mod tests;

//! The join of streams without a bound in time, where each key has one value on the left at most: an id and whoever names it.
//!
//! A row that names an id that has not come waits in order of its source; once the id is there, nothing on the right is kept.

use std::ops::ControlFlow;

use crate::codec::Datum;
use crate::runtime::{
    Flow, KeyValueStore, Keyed, OrderedStore, Output, Record, TwoInputOperator, Upstream,
};

/// Where a record on the right stands in its source: split and offset.
pub(super) type Place = (u32, i64);

/// The place of a record.
pub(super) fn place<K: ?Sized, V: ?Sized>(record: &Record<'_, K, V>) -> Place {
    let origin = record.meta.origin;
    (origin.split, origin.offset.0)
}

struct OneToMany<One, Many, F> {
    ones: KeyValueStore<One>,
    waiting: OrderedStore<Place, Many>,
    join: F,
}

impl<One, Many, Out, F> TwoInputOperator<u64, One, Many> for OneToMany<One, Many, F>
where
    One: Datum<Owned = One> + Clone,
    Many: Datum<Owned = Many> + Clone,
    F: Fn(&One, &Many) -> Option<Out>,
{
    type OutKey = u64;
    type Out = Out;
    const KEEPS_KEY: bool = true;

    fn process_left(
        &mut self,
        record: Record<'_, u64, One>,
        out: &mut impl Output<u64, Out>,
    ) -> Flow {
        for many in take_waiting(&mut self.waiting, &record)? {
            if let Some(row) = (self.join)(record.value, &many) {
                out.push(record.with_value(&row))?;
            }
        }
        self.ones.put(record.key, record.value.clone())
    }

    fn process_right(
        &mut self,
        record: Record<'_, u64, Many>,
        out: &mut impl Output<u64, Out>,
    ) -> Flow {
        let mut joined = None;
        self.ones.look(record.key, |one| {
            joined = one.map(|one| (self.join)(one, record.value));
        })?;
        match joined {
            Some(Some(row)) => out.push(record.with_value(&row)),
            Some(None) => Ok(()),
            None => self
                .waiting
                .put(record.key, &place(&record), record.value.clone()),
        }
    }
}

/// Takes all that waits for a record's key, in the order of their places.
pub(super) fn take_waiting<V: Datum + Sized + Clone, K: ?Sized, R: ?Sized>(
    waiting: &mut OrderedStore<Place, V>,
    record: &Record<'_, K, R>,
) -> Result<Vec<V>, crate::runtime::Failure> {
    let mut taken = Vec::new();
    waiting.visit(record.key, .., |_, value| {
        taken.push(value.clone());
        Ok(ControlFlow::Continue(()))
    })?;
    if !taken.is_empty() {
        waiting.remove_range(record.key, ..)?;
    }
    Ok(taken)
}

/// Joins each record on the right with the one on the left that has its key, whichever comes first.
pub(super) fn one_to_many<One, Many, Out, A, B, F>(
    name: &str,
    ones: Keyed<u64, One, A>,
    many: Keyed<u64, Many, B>,
    join: F,
) -> Keyed<u64, Out, impl Upstream<u64, Out> + use<One, Many, Out, A, B, F>>
where
    One: Datum<Owned = One> + Clone,
    Many: Datum<Owned = Many> + Clone,
    Out: 'static,
    A: Upstream<u64, One>,
    B: Upstream<u64, Many>,
    F: Fn(&One, &Many) -> Option<Out> + Clone + Send + Sync + 'static,
{
    let (store, waiting) = (name.to_owned(), format!("{name}-waiting"));
    ones.connect(many)
        .with_store::<One>(&store)
        .with_ordered_store::<Place, Many>(&waiting)
        .process(name, move |context| {
            Ok(OneToMany {
                ones: context.store(&store)?,
                waiting: context.ordered_store(&waiting)?,
                join: join.clone(),
            })
        })
}

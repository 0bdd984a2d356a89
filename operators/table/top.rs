//! `top_n` and `bottom_n` of groups of a table: their first values in order, kept exactly while values come, change and go.
//!
//! All values of a group stay in order, those that are not among the first ones, too: when one of these goes, the next one is there, and
//! one that went itself never comes back.

use std::cell::Cell;
use std::ops::ControlFlow;

use super::extreme::values_of;
use super::group::Regrouped;
use crate::codec::{Datum, SortKey};
use crate::runtime::{
    Change, Deletes, Failure, Flow, Key, Operator, OrderedStore, Output, Record, Table, TableStore,
    Upstream,
};

/// Keeps how often each value is in a group, and gives the first ones.
struct Top<S, X, F> {
    /// Number of each value, in the order of the scores, and those of one score in the order of the values.
    values: OrderedStore<(S, X), u64>,
    list: TableStore<Vec<X>>,
    score: F,
    count_max: usize,
    end: End,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// The end of the order that comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Greatest,
    Least,
}

/// Puts a place in the order into `bytes`.
fn encode<S: SortKey>(place: Option<&S>, bytes: &mut Vec<u8>) {
    bytes.clear();
    if let Some(place) = place {
        place.encode_sorted(bytes);
    }
}

/// Whether two lists have the same values.
fn are_same<X: SortKey>(one: &[X], other: &[X]) -> bool {
    let same = |(one, other): (&X, &X)| {
        let (mut one_bytes, mut other_bytes) = (Vec::new(), Vec::new());
        one.encode_sorted(&mut one_bytes);
        other.encode_sorted(&mut other_bytes);
        one_bytes == other_bytes
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

impl<S, X, F> Top<S, X, F>
where
    S: SortKey,
    X: Datum + SortKey + Clone,
    F: Fn(&X) -> S,
    Vec<X>: Datum,
{
    fn place_of(&self, value: &X) -> (S, X) {
        ((self.score)(value), value.clone())
    }

    /// Whether the list of a group is full, and neither the old value nor the new one is one of it.
    fn is_beyond<J: ?Sized>(
        &self,
        key: Key<'_, J>,
        was_there: bool,
        is_there: bool,
    ) -> Result<bool, Failure> {
        let mut is_beyond = false;
        self.list.look(key, |list| {
            let list = list.filter(|list| list.len() == self.count_max);
            let Some(last) = list.and_then(|list| list.last()) else {
                return;
            };
            let mut bytes = Vec::new();
            self.place_of(last).encode_sorted(&mut bytes);
            let comes_later = |value: &Vec<u8>| match self.end {
                End::Greatest => *value < bytes,
                End::Least => *value > bytes,
            };
            is_beyond =
                (!was_there || comes_later(&self.old)) && (!is_there || comes_later(&self.new));
        })?;
        Ok(is_beyond)
    }

    /// The first values of a group, each as often as the group has it.
    fn first<J: ?Sized>(&mut self, key: Key<'_, J>) -> Result<Vec<X>, Failure> {
        let (mut list, count_max) = (Vec::new(), self.count_max);
        let visit = |(_, value): (S, X), count: &u64| {
            let free = count_max - list.len();
            let times = usize::try_from(*count).map_or(free, |count| count.min(free));
            list.extend(std::iter::repeat_n(value, times));
            Ok(match list.len() < count_max {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        };
        match self.end {
            End::Greatest => self.values.visit_back(key, .., visit)?,
            End::Least => self.values.visit(key, .., visit)?,
        }
        Ok(list)
    }
}

impl<J, S, X, F> Operator<J, Change<X>> for Top<S, X, F>
where
    J: ?Sized,
    S: SortKey,
    X: Datum + SortKey + Clone,
    F: Fn(&X) -> S,
    Vec<X>: Datum,
{
    type OutKey = J;
    type Out = Change<Vec<X>>;
    const KEEPS_KEY: bool = true;

    fn process(
        &mut self,
        record: Record<'_, J, Change<X>>,
        out: &mut impl Output<J, Change<Vec<X>>>,
    ) -> Flow {
        let (key, change) = (record.key, record.value);
        let old = change.old.as_ref().map(|value| self.place_of(value));
        let new = change.new.as_ref().map(|value| self.place_of(value));
        encode(old.as_ref(), &mut self.old);
        encode(new.as_ref(), &mut self.new);
        if old.is_some() && new.is_some() && self.old == self.new {
            return Ok(());
        }
        // J19: what was there goes first. A value that was never counted is not taken out.
        if let Some(old) = &old {
            self.values.update(key, old, |count| {
                *count = count.and_then(|count| count.checked_sub(1));
                *count = count.filter(|count| *count > 0);
            })?;
        }
        if let Some(new) = &new {
            self.values
                .update(key, new, |count| *count = Some(count.unwrap_or(0) + 1))?;
        }
        if self.is_beyond(key, old.is_some(), new.is_some())? {
            return Ok(());
        }
        let (first, is_same) = (self.first(key)?, Cell::new(false));
        let set = |list: &mut Option<Vec<X>>| {
            is_same.set(are_same(list.as_deref().unwrap_or_default(), &first));
            if !is_same.get() {
                *list = Some(first).filter(|list| !list.is_empty());
            }
        };
        self.list.change(key, set, |change| match is_same.get() {
            true => Ok(()),
            false => out.push(record.with_value(change)),
        })
    }
}

impl<J, X, U> Regrouped<J, X, U>
where
    J: Datum,
    X: Datum + SortKey + Clone,
    Vec<X>: Datum,
    Change<X>: Datum,
    U: Upstream<J, Change<X>>,
{
    /// The table of the `count` values of each group with the largest scores, the largest first, in the store `name`. Equal scores are in
    /// the order of the values, the larger first; a value that the group has twice is in the list twice. The list changes when one of
    /// its values does, in one change: the list before and the list after it. When one of them goes, the next value of the group takes
    /// its place: all values of the group are in order in the store `name-values`, so a change costs the same however many there are. A
    /// group without values is deleted.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// // The three best players of each game; a player who leaves makes room for the fourth.
    /// let job = Job::new("games");
    /// job.table("scores", keyed_topic::<String, (u64, u64)>("scores"))
    ///     .group_by(|player, (game, points)| (*game, (player.clone(), *points)))
    ///     .top_n("best", 3, |(_, points)| *points)
    ///     .changes()
    ///     .sink(topic::<Vec<(String, u64)>>("best-players").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("scores", &"ann".to_owned(), &(1u64, 70u64));
    /// bed.commit();
    /// bed.send("scores", &"bob".to_owned(), &(1u64, 90u64));
    /// let best = |names: &[(&str, u64)]| names.iter().map(|(name, points)| (name.to_string(), *points)).collect::<Vec<_>>();
    /// bed.expect_changes::<u64, Vec<(String, u64)>>(
    ///     "best-players",
    ///     [(&1, Some(best(&[("ann", 70)]))), (&1, Some(best(&[("bob", 90), ("ann", 70)])))],
    /// );
    /// ```
    ///
    /// # Panics
    /// If `count` is 0.
    #[track_caller]
    pub fn top_n<S, F>(
        self,
        name: &str,
        count: usize,
        score: F,
    ) -> Table<J, Vec<X>, impl Upstream<J, Change<Vec<X>>> + use<J, X, U, S, F>, Deletes>
    where
        S: SortKey + 'static,
        F: Fn(&X) -> S + Clone + Send + Sync + 'static,
    {
        self.first(name, count, score, End::Greatest)
    }

    /// The table of the `count` values of each group with the smallest scores, the smallest first: see [`top_n`](Self::top_n).
    ///
    /// # Panics
    /// If `count` is 0.
    #[track_caller]
    pub fn bottom_n<S, F>(
        self,
        name: &str,
        count: usize,
        score: F,
    ) -> Table<J, Vec<X>, impl Upstream<J, Change<Vec<X>>> + use<J, X, U, S, F>, Deletes>
    where
        S: SortKey + 'static,
        F: Fn(&X) -> S + Clone + Send + Sync + 'static,
    {
        self.first(name, count, score, End::Least)
    }

    #[track_caller]
    fn first<S, F>(
        self,
        name: &str,
        count_max: usize,
        score: F,
        end: End,
    ) -> Table<J, Vec<X>, impl Upstream<J, Change<Vec<X>>> + use<J, X, U, S, F>, Deletes>
    where
        S: SortKey + 'static,
        F: Fn(&X) -> S + Clone + Send + Sync + 'static,
    {
        assert!(
            count_max > 0,
            "the first 0 values of a group are none: ask {name:?} for one at least"
        );
        let store = name.to_owned();
        let changes = self
            .changes
            .with_store::<Vec<X>>(name)
            .with_ordered_store::<(S, X), u64>(&values_of(name))
            .partitioned(name)
            .operator(move |context| {
                Ok(Top {
                    values: context.ordered_store(&values_of(&store))?,
                    list: context.table_store(&store)?,
                    score: score.clone(),
                    count_max,
                    end,
                    old: Vec::new(),
                    new: Vec::new(),
                })
            });
        Table::in_store(changes, name)
    }
}

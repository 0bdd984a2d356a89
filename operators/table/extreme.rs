//! `min` and `max` of groups of a table: what is left when the least or the greatest value goes is found in order.

use super::group::Regrouped;
use crate::codec::{Datum, SortKey};
use crate::runtime::{
    Change, Deletes, Flow, Operator, OrderedStore, Output, Record, Table, TableStore, Upstream,
};

/// Keeps how often each value is in a group, and gives the one at an end.
struct Extreme<X> {
    /// Number of each value in the group.
    values: OrderedStore<X, u64>,
    extreme: TableStore<X>,
    is_max: bool,
}

impl<J, X> Operator<J, Change<X>> for Extreme<X>
where
    J: ?Sized,
    X: Datum + SortKey + Clone,
{
    type OutKey = J;
    type Out = Change<X>;
    const KEEPS_KEY: bool = true;

    fn process(
        &mut self,
        record: Record<'_, J, Change<X>>,
        out: &mut impl Output<J, Change<X>>,
    ) -> Flow {
        let key = record.key;
        if let Some(old) = &record.value.old {
            self.values.update(key, old, |count| {
                *count = count.and_then(|count| count.checked_sub(1));
                *count = count.filter(|count| *count > 0);
            })?;
        }
        if let Some(new) = &record.value.new {
            self.values
                .update(key, new, |count| *count = Some(count.unwrap_or(0) + 1))?;
        }
        let found = match self.is_max {
            true => self.values.last(key, ..)?,
            false => self.values.first(key, ..)?,
        };
        let found = found.map(|(value, _)| value);
        self.extreme.change(
            key,
            |extreme| *extreme = found,
            |change| out.push(record.with_value(change)),
        )
    }
}

/// The store of how often a group has each value.
pub(super) fn values_of(name: &str) -> String {
    format!("{name}-values")
}

impl<J, X, U> Regrouped<J, X, U>
where
    J: Datum,
    X: Datum + SortKey + Clone,
    Change<X>: Datum,
    U: Upstream<J, Change<X>>,
{
    /// The table of the greatest value of each group, in the store `name`. When that value goes, the next one is the greatest: how often
    /// the group has each value is in order in the store `name-values`, so a change costs the same however many there are.
    ///
    /// ```
    /// use onceflow::prelude::*;
    /// use onceflow::testing::TestBed;
    ///
    /// // The highest bid of each auction; a bid may be taken back.
    /// let job = Job::new("auctions");
    /// job.table("bids", keyed_topic::<u64, (u64, u64)>("bids"))
    ///     .group_by(|_bidder, (auction, cents)| (*auction, *cents))
    ///     .max("highest")
    ///     .changes()
    ///     .sink(topic::<u64>("highest-bids").as_option());
    ///
    /// let mut bed = TestBed::new(job.exactly_once(Commit::default()));
    /// bed.send("bids", &1u64, &(7u64, 500u64));
    /// bed.expect_changes::<u64, u64>("highest-bids", [(&7, Some(500))]);
    /// bed.send("bids", &2u64, &(7u64, 900u64));
    /// bed.expect_changes::<u64, u64>("highest-bids", [(&7, Some(900))]);
    /// bed.send_delete("bids", &2u64);
    /// bed.expect_changes::<u64, u64>("highest-bids", [(&7, Some(500))]);
    /// ```
    #[track_caller]
    pub fn max(
        self,
        name: &str,
    ) -> Table<J, X, impl Upstream<J, Change<X>> + use<J, X, U>, Deletes> {
        self.extreme(name, true)
    }

    /// The table of the least value of each group, in the store `name`: see [`max`](Self::max).
    #[track_caller]
    pub fn min(
        self,
        name: &str,
    ) -> Table<J, X, impl Upstream<J, Change<X>> + use<J, X, U>, Deletes> {
        self.extreme(name, false)
    }

    #[track_caller]
    fn extreme(
        self,
        name: &str,
        is_max: bool,
    ) -> Table<J, X, impl Upstream<J, Change<X>> + use<J, X, U>, Deletes> {
        let store = name.to_owned();
        let changes = self
            .changes
            .with_store::<X>(name)
            .with_ordered_store::<X, u64>(&values_of(name))
            .partitioned(name)
            .operator(move |context| {
                Ok(Extreme {
                    values: context.ordered_store(&values_of(&store))?,
                    extreme: context.table_store(&store)?,
                    is_max,
                })
            });
        Table::in_store(changes, name)
    }
}

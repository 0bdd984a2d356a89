//! [`Table`]: the latest value of each key, as state that others can use and as a stream of its changes.

use std::marker::PhantomData;

use super::fork::Route;
use super::stream::{Boxed, Keyed, Then, Upstream};
use crate::codec::Datum;
use crate::runtime::contract::change::Change;
use crate::runtime::contract::operator::{Flow, Operator, Output};
use crate::runtime::contract::record::Record;
use crate::runtime::task::table_store::TableView;

/// The latest value of each key, kept in a named store: what a stateful operator makes. `D` says whether keys are ever deleted from it.
#[must_use = "a table does nothing until its changes are used, or it is kept with `materialize`"]
pub struct Table<K: ?Sized, V, U = Boxed<K, Change<V>>, D = Grows> {
    changes: Keyed<K, Change<V>, U>,
    view: TableView<K, V>,
    deletions: PhantomData<D>,
}

/// Whether keys are ever deleted from a table: what its changes are like.
pub trait Deletions: Send + Sync + 'static {
    /// A change as [`Table::changes`] shows it.
    type Of<V: 'static>: 'static;

    /// Shows a change to `see`.
    ///
    /// # Errors
    /// The failure of `see`.
    fn show<V: 'static>(change: &Change<V>, see: impl FnOnce(&Self::Of<V>) -> Flow) -> Flow;
}

/// A table from which no key is ever deleted: its changes are new values.
pub enum Grows {}

impl Deletions for Grows {
    type Of<V: 'static> = V;

    #[inline]
    fn show<V: 'static>(change: &Change<V>, see: impl FnOnce(&V) -> Flow) -> Flow {
        change.new.as_ref().map_or(Ok(()), see)
    }
}

/// A table from which keys may be deleted: its changes are new values, or `None`.
pub enum Deletes {}

impl Deletions for Deletes {
    type Of<V: 'static> = Option<V>;

    #[inline]
    fn show<V: 'static>(change: &Change<V>, see: impl FnOnce(&Option<V>) -> Flow) -> Flow {
        see(&change.new)
    }
}

/// Shows changes as the table's kind says.
struct Show<D>(PhantomData<D>);

impl<K: ?Sized, V: 'static, D: Deletions> Operator<K, Change<V>> for Show<D> {
    type OutKey = K;
    type Out = D::Of<V>;
    const KEEPS_KEY: bool = true;

    #[inline]
    fn process(
        &mut self,
        record: Record<'_, K, Change<V>>,
        out: &mut impl Output<K, D::Of<V>>,
    ) -> Flow {
        D::show(record.value, |value| out.push(record.with_value(value)))
    }
}

impl<K: ?Sized + 'static, V: Datum + Clone, U: Upstream<K, Change<V>>, D> Table<K, V, U, D> {
    /// The table whose every change is a record of `changes`, and whose values are in the store `name`, which its operator opened
    /// with [`OperatorContext::table_store`](crate::runtime::OperatorContext::table_store).
    pub fn in_store(changes: Keyed<K, Change<V>, U>, name: &str) -> Self {
        Self::seen_as(changes, TableView::of_store(name))
    }
}

impl<K: ?Sized + 'static, V: 'static, U: Upstream<K, Change<V>>, D> Table<K, V, U, D> {
    /// The table whose every change is a record of `changes`, and whose values are those of `view`.
    ///
    /// # Panics
    /// If changes are not together by key: a step behind [`Keyed::partitioned`] makes them, which keeps the key.
    pub fn seen_as(changes: Keyed<K, Change<V>, U>, view: TableView<K, V>) -> Self {
        // Who has a change finds in the store what the change made of it, and nothing later.
        assert!(
            changes.upstream.is_partitioned(),
            "the changes of a table are made where its records are together by key: put `partitioned` in front of the step that makes them, \
             and let it keep the key"
        );
        Self {
            changes,
            view,
            deletions: PhantomData,
        }
    }

    /// Its changes, which have the old values only where somebody asks for them, and its values as others would read them.
    pub fn into_parts(self) -> (Keyed<K, Change<V>, U>, TableView<K, V>) {
        (self.changes, self.view)
    }

    /// The same table twice, for two uses.
    ///
    /// ```
    /// use onceflow::prelude::*;
    ///
    /// let job = Job::new("clicks");
    /// let users = job.table("users", keyed_topic::<u64, String>("users"));
    /// let (users, copied) = users.tee();
    /// copied.changes().sink(topic::<String>("copy").as_option());
    /// job.keyed_source(keyed_topic::<u64, String>("clicks"))
    ///     .join_table("named", users, |page, name| format!("{name} saw {page}"))
    ///     .sink(topic("named-clicks"));
    /// ```
    #[track_caller]
    #[allow(clippy::type_complexity, reason = "both halves of a pair, once")]
    pub fn tee(
        self,
    ) -> (
        Table<K, V, Boxed<K, Change<V>>, D>,
        Table<K, V, Boxed<K, Change<V>>, D>,
    ) {
        let (first, second) = self.changes.fork(|_| Route::Both);
        (
            Table::seen_as(first, self.view.clone()),
            Table::seen_as(second, self.view),
        )
    }

    /// Says that the step was called `first` when the job first ran: see [`Keyed::was`].
    pub fn was(self, first: &str) -> Self {
        Self {
            changes: self.changes.was(first),
            ..self
        }
    }

    /// Says how values are read that an earlier build kept: see [`Keyed::migrate_from`].
    pub fn migrate_from<Old, New>(
        self,
        version: u8,
        convert: impl Fn(Old) -> New + Send + Sync + 'static,
    ) -> Self
    where
        Old: Datum + Sized + Clone,
        New: Datum + Sized + Clone,
    {
        Self {
            changes: self.changes.migrate_from(version, convert),
            ..self
        }
    }

    /// The table's values for operators elsewhere in the job that read them, where records are together by the table's key. Whoever
    /// has a view uses the table's changes, too, or keeps it with [`materialize`](Self::materialize): else nothing fills it.
    #[must_use]
    pub fn view(&self) -> TableView<K, V> {
        self.changes.graph.share_stores(self.view.stores());
        self.view.clone()
    }

    /// Whether one change may be in the store of one of both tables, while it is still on its way to who has the changes of the other
    /// one: where one is made of the other by steps that call one another, or both are one table.
    #[must_use]
    pub fn is_in_step_with<W, UW, DW>(&self, other: &Table<K, W, UW, DW>) -> bool
    where
        W: 'static,
        UW: Upstream<K, Change<W>>,
    {
        let graph = &self.changes.graph;
        graph.is_called_by(&self.changes.place.edges, other.view.stores())
            || graph.is_called_by(&other.changes.place.edges, self.view.stores())
    }

    /// Every change of the table, as it happens: the key with the values before and after it.
    pub fn changes_with_old(self) -> Keyed<K, Change<V>, U> {
        self.changes.graph.share_stores(self.view.stores());
        self.changes
    }

    /// Every change of the table, as it happens: the key with its new value, or, where keys may be deleted, with `Some` new value or
    /// `None`.
    pub fn changes(self) -> Keyed<K, D::Of<V>, impl Upstream<K, D::Of<V>>>
    where
        D: Deletions,
    {
        let Keyed {
            graph,
            place,
            upstream,
            ..
        } = self.changes;
        // No node of the graph: it hands on what is there.
        let shown = Then {
            upstream,
            make: Box::new(|_| Ok(Show::<D>(PhantomData))),
            types: PhantomData,
        };
        Keyed::new(graph, place, shown)
    }
}
